// SPDX-License-Identifier: MIT
//! The client library: what the mount, the tools and mgr itself use to talk to the daemons.
//!
//! Names: [`mgr`]. Bytes: [`striped`] over [`pool`] over [`iod`] over [`transport`].

pub mod buffer;
mod held_locks;
pub mod interrupt;
pub mod iod;
pub mod leases;
pub mod mgr;
mod mgr_link;
pub mod patience;
pub mod pool;
mod session;
pub mod silence;
mod slots;
pub mod striped;
pub mod transport;
