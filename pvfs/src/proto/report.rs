// SPDX-License-Identifier: MIT
//! What iods say of themselves in each heartbeat, and what mgr makes of their silence.

use bincode::{Decode, Encode};

use crate::attr::Space;

/// What an iod says of the disk under its data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IodReport {
    /// Its bytes.
    pub space: Space,
    /// Inodes in all; 0 where the disk's file system has no limit of its own.
    pub inodes_total: u64,
    /// Inodes that may still be made.
    pub inodes_free: u64,
    /// It can be written to: not so where it was mounted read-only, or where the kernel made it so
    /// because it fails.
    pub writable: bool,
    /// Which disk it is; `None` where that cannot be found out.
    pub disk: Option<DiskId>,
}

impl IodReport {
    /// Of an iod that has not been heard of.
    pub const UNKNOWN: Self = Self {
        space: Space {
            bytes_total: 0,
            bytes_free: 0,
            bytes_available: 0,
        },
        inodes_total: 0,
        inodes_free: 0,
        writable: false,
        disk: None,
    };
}

/// A disk of a machine that runs. Several iods with data directories on one disk report the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct DiskId {
    /// Of the machine's running kernel (`/proc/sys/kernel/random/boot_id`).
    pub boot: u128,
    /// Device number of the file system (`st_dev`).
    pub device: u64,
}

/// What mgr thinks of an iod. Clients are told of each change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum IodState {
    /// It was heard of within [`SUSPECT_AFTER_MS`](crate::limits::SUSPECT_AFTER_MS).
    Alive,
    /// It was not. It may be busy, and what waits for it goes on waiting.
    Suspect,
    /// It has been silent for [`LOST_AFTER_MS`](crate::limits::LOST_AFTER_MS), its connection
    /// ended, or it has not been heard of since mgr started.
    Away,
    /// It said that it stops.
    Left,
}

impl IodState {
    /// Whether the iod is there as far as anybody can tell.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        match self {
            Self::Alive => true,
            Self::Suspect | Self::Away | Self::Left => false,
        }
    }

    /// A word for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Away => "away",
            Self::Left => "stopped",
        }
    }
}
