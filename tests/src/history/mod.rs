// SPDX-License-Identifier: MIT
//! Histories of calls that several nodes make on real mounts in one small directory. How they are
//! judged is in `cssns_histories`.
//!
//! [`worker`] makes the calls on one node, in a process of its own; [`lanes`] has workers on all nodes
//! do so at the same time, while faults happen, and judges what they saw.

pub mod lanes;
pub mod worker;

use cssns_histories::Call;
use serde::{Deserialize, Serialize};

/// A call and its time, as a worker writes them down, a line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Note {
    /// What it did.
    pub call: Call,
    /// Nanoseconds of `CLOCK_MONOTONIC`, which all processes share.
    pub start: u64,
    /// The same, `u64::MAX` where it never returned.
    pub end: u64,
}

/// What a worker answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The history is over.
    Done {
        /// What it did.
        notes: Vec<Note>,
        /// It ended early, since its mount was gone.
        died: bool,
        /// So many more calls were refused for want of space.
        refused: u64,
    },
    /// Something happened that no order of calls explains.
    Impossible(String),
}

/// What a worker is told, a line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Which directory, whole path.
    pub directory: std::path::PathBuf,
    /// Draws the calls.
    pub seed: u64,
    /// Which of the workers in the directory this is: makes its values unlike the others'.
    pub worker: u64,
    /// How many calls.
    pub calls: usize,
    /// A mount is cut off meanwhile for longer than its leases last: a write is over when it is synced,
    /// since such a node may lose the size of what it has not synced.
    pub synced: bool,
    /// This worker's mount is stopped meanwhile for longer than its leases last: the worker looks at nothing
    /// that Linux keeps, which nobody drops there.
    pub changes_only: bool,
}
