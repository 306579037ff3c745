// SPDX-License-Identifier: MIT
//! Histories of calls that several nodes make in one small directory, and the judgement of them:
//! docs/HISTORIES.md says both in words.
//!
//! [`model`] is the file system that they are judged by, [`linearizability`] the search.

pub mod linearizability;
pub mod model;

use serde::{Deserialize, Serialize};

/// The names that calls are about: few, so that they meet, in two directories.
pub const NAMES: [&str; 4] = ["x/a", "x/b", "y/a", "y/b"];
/// The directories in which they are.
pub const DIRECTORIES: [&str; 2] = ["x", "y"];
/// A file that is always there, of [`CELLS_AT_FIRST`] cells that never grow fewer or more: mappings
/// of it never end early.
pub const MAPPED: &str = "m";
/// Cells of [`MAPPED`].
pub const CELLS_AT_FIRST: usize = 4;
/// A file is made of cells: half a page, so that two share one. Each holds one value, many times.
pub const CELL_BYTES: usize = 2048;
/// Largest number of a cell, so that files span several stripes.
pub const CELLS_MAX: usize = 7;

/// One call with what it returned. Where a name is looked up and then something done to its file,
/// that is two calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// open(2), which may make the file. `Known(None)`: there is no such file, or there is one
    /// although none was wanted.
    Open {
        /// Place in [`NAMES`].
        name: usize,
        /// With `O_CREAT`.
        make: bool,
        /// With `O_EXCL`.
        exclusive: bool,
        /// Which file.
        got: Got<Option<u64>>,
    },
    /// Reads one cell, through a descriptor or a mapping; `None` beyond the file's end.
    Read {
        /// Which file.
        file: u64,
        /// Which cell.
        cell: usize,
        /// Its value.
        got: Option<u64>,
    },
    /// Writes one cell.
    Write {
        /// Which file.
        file: u64,
        /// Which cell.
        cell: usize,
        /// What.
        value: u64,
    },
    /// Writes one cell at the file's end.
    Append {
        /// Which file.
        file: u64,
        /// What.
        value: u64,
    },
    /// ftruncate(2), to fewer cells or more.
    Truncate {
        /// Which file.
        file: u64,
        /// How many stay.
        cells: usize,
    },
    /// fstat(2).
    Stat {
        /// Which file.
        file: u64,
        /// Its size.
        cells: usize,
        /// How many names it has.
        links: u64,
    },
    /// Looks a name up.
    Find {
        /// Place in [`NAMES`].
        name: usize,
        /// Which file.
        got: Option<u64>,
    },
    /// Reads a directory: one of these for each name that may be in it, since POSIX leaves open
    /// whether readdir(3) shows a name that comes or goes meanwhile.
    List {
        /// Place in [`NAMES`].
        name: usize,
        /// It was there.
        got: bool,
    },
    /// rename(2); false: there is no such file.
    Rename {
        /// Place in [`NAMES`].
        from: usize,
        /// Place of the new name in [`NAMES`].
        to: usize,
        /// Done.
        got: Got<bool>,
    },
    /// unlink(2); false: there is no such file.
    Unlink {
        /// Place in [`NAMES`].
        name: usize,
        /// Done.
        got: Got<bool>,
    },
    /// A further name for an open file; false: the name exists, or the file has none any more.
    Link {
        /// Which file.
        file: u64,
        /// Place in [`NAMES`].
        name: usize,
        /// Done.
        got: Got<bool>,
    },
}

/// What a call returned, if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Got<T> {
    /// This.
    Known(T),
    /// It never returned; the number tells it from other calls.
    Never(u64),
}
