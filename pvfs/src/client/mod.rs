// SPDX-License-Identifier: MIT
//! The client library: what the mount, the tools and mgr itself use to talk to the daemons.
