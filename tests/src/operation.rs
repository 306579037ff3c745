// SPDX-License-Identifier: MIT
//! Operations on a file system: what one program might do.

use fastrand::Rng;

/// A path below the root of the file system under test: names joined by `/`, or empty for the root.
pub type Path = String;

/// One operation: what one program might do between opening and closing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `open(O_CREAT | O_WRONLY)` and close.
    Create {
        /// Which.
        path: Path,
        /// With `O_EXCL`.
        exclusive: bool,
        /// With `O_TRUNC`.
        truncate: bool,
    },
    /// open, pwrite, close.
    Write {
        /// Which.
        path: Path,
        /// Where, bytes.
        offset: u64,
        /// What.
        data: Data,
        /// With fsync before the close.
        sync: bool,
    },
    /// open with `O_APPEND`, write, close.
    Append {
        /// Which.
        path: Path,
        /// What.
        data: Data,
    },
    /// open, pread, close.
    Read {
        /// Which.
        path: Path,
        /// Where, bytes.
        offset: u64,
        /// How much, bytes.
        length: usize,
    },
    /// truncate(2).
    Truncate {
        /// Which.
        path: Path,
        /// New size, bytes.
        size: u64,
    },
    /// rename(2).
    Rename {
        /// Old path.
        from: Path,
        /// New path.
        to: Path,
    },
    /// unlink(2).
    Unlink {
        /// Which.
        path: Path,
    },
    /// open, unlink, then write at the end and read all through the open file, close.
    UnlinkOpen {
        /// Which.
        path: Path,
        /// What is appended after the unlink.
        data: Data,
    },
    /// mkdir(2).
    MakeDirectory {
        /// Which.
        path: Path,
        /// Permission bits.
        mode: u32,
    },
    /// rmdir(2).
    RemoveDirectory {
        /// Which.
        path: Path,
    },
    /// Names and kinds in a directory.
    List {
        /// Which.
        path: Path,
    },
    /// link(2).
    Link {
        /// Existing path.
        from: Path,
        /// New path.
        to: Path,
    },
    /// symlink(2).
    Symlink {
        /// What it says; not followed here.
        target: String,
        /// New path.
        path: Path,
    },
    /// readlink(2).
    ReadLink {
        /// Which.
        path: Path,
    },
    /// chmod(2).
    Chmod {
        /// Which.
        path: Path,
        /// Permission bits.
        mode: u32,
    },
    /// utimensat(2) with both times the same.
    SetTimes {
        /// Which.
        path: Path,
        /// Seconds since the epoch.
        seconds: i64,
        /// Nanoseconds.
        nanoseconds: u32,
    },
    /// setxattr(2).
    SetXattr {
        /// Which.
        path: Path,
        /// Attribute name.
        name: String,
        /// Value.
        data: Data,
    },
    /// getxattr(2).
    GetXattr {
        /// Which.
        path: Path,
        /// Attribute name.
        name: String,
    },
    /// listxattr(2).
    ListXattr {
        /// Which.
        path: Path,
    },
    /// removexattr(2).
    RemoveXattr {
        /// Which.
        path: Path,
        /// Attribute name.
        name: String,
    },
    /// lstat(2).
    Stat {
        /// Which.
        path: Path,
    },
}

/// Bytes that a short description stands for, so that a failure's message stays readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// Differs from write to write.
    pub seed: u64,
    /// Bytes.
    pub length: usize,
}

impl Data {
    /// The bytes: none repeats with a period that stripes or pages have.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let mut rng = Rng::with_seed(self.seed);
        let mut bytes = vec![0; self.length];
        rng.fill(&mut bytes);
        bytes
    }
}
