// SPDX-License-Identifier: MIT
//! The name space, the open table, exactly-once and recovery, through the manager as the server
//! sees it, with a store in memory or on disk and no network.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod acls;
mod attributes;
mod check;
mod durability;
mod exactly_once;
mod fsck;
mod iods;
mod leases;
mod lingering;
mod locks;
mod model;
mod names;
mod on_disk;
mod opens;
mod renames;
mod settling;
mod truncation;
mod world;
mod xattrs;
