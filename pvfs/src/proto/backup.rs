// SPDX-License-Identifier: MIT
//! Parts of a copy of mgr's store, for `pvfs backup` (docs/decisions/0120).

use bincode::{Decode, Encode};

/// mgr's answer to a tool that would like a part of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BackupPart {
    /// mgr is copying its store to a file of its own: ask again.
    Copying {
        /// Bytes that are there.
        bytes_done: u64,
        /// Bytes of the whole, as far as mgr can tell before the end.
        bytes_total: u64,
    },
    /// mgr compares what it copied with the records' checksums: ask again.
    Checking,
    /// What follows on what the asker has.
    Bytes {
        /// Some bytes; none at the copy's end.
        bytes: Vec<u8>,
        /// Bytes of the whole copy.
        bytes_total: u64,
        /// Records in it.
        records: u64,
        /// Records among them that are not what was stored: mgr's disk has damaged them.
        damaged_records: u64,
    },
}
