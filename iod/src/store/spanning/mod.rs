// SPDX-License-Identifier: MIT
//! Files longer than the local file system's longest: ext4 ends a file at 16 TiB, and at 4 TiB where
//! its blocks have 1 KiB, but a sparse file of PVFS may have bytes anywhere below 2^63.
//!
//! A file is a row of *parts* of equal size. The first is the file that its path names; the others
//! are in a directory beside it, are made where something is written, and are holes until then.
//! Nearly no file has more than the first, and pays one look for the directory when it is opened.
//!
//! # Invariants
//!
//! A file ends where the last part that is not empty ends. A [`SpanningFile`] knows all parts
//! that there are, since a path is open once at a time for changes and only its file makes parts.

mod file;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pvfs::proto::report::IodReport;

use super::disk::{Disk, LocalFile};
use file::SpanningFile;

/// How long a part is: less than what any file system of Linux that is in use holds in a file.
pub(super) const PART_BYTES: u64 = 1 << 41;
// Neither a block nor a header of sums is in two parts.
const _: () = assert!(PART_BYTES % 4096 == 0);
/// The directory of a file's parts is named as the file, and this.
pub(super) const PARTS_SUFFIX: &str = ".parts";
/// Digits of a part's number in its name.
const PART_DIGITS: usize = 8;

/// A disk whose files end nowhere, on one whose files do.
pub(super) struct SpanningDisk {
    disk: Arc<dyn Disk>,
    part_bytes: u64,
}

impl SpanningDisk {
    /// Parts of `part_bytes`, which is not 0.
    pub(super) fn new(disk: Arc<dyn Disk>, part_bytes: u64) -> Self {
        Self { disk, part_bytes }
    }

    /// Makes a file. A power cut may have left parts of one whose first is gone: they were never
    /// flushed, and a new file must not take over their bytes.
    fn make(&self, path: &Path) -> io::Result<Box<dyn LocalFile>> {
        let removed = self.remove_parts(path)?;
        if let Some(parent) = path.parent().filter(|_| removed) {
            self.disk.sync_directory(parent)?;
        }
        self.disk.open(path, true)
    }

    /// How long each part is that a file has beside its first.
    fn lengths(&self, directory: &Path) -> io::Result<BTreeMap<u64, u64>> {
        let length_of = |part| {
            let file = self.disk.open(&directory.join(name_of(part)), false)?;
            Ok((part, file.length()?))
        };
        self.parts(directory)?.into_iter().map(length_of).collect()
    }

    fn refuse_longer(&self, path: &Path, first: &dyn LocalFile) -> io::Result<()> {
        if first.length()? <= self.part_bytes {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{} is longer than a part of {} bytes: a version of pvfs-iod before format 3 made it so",
            path.display(),
            self.part_bytes
        )))
    }

    /// Removes all parts but the first; returns whether there were some.
    fn remove_parts(&self, path: &Path) -> io::Result<bool> {
        let directory = with_suffix(path, PARTS_SUFFIX);
        let parts = self.parts(&directory)?;
        for part in &parts {
            self.disk.remove(&directory.join(name_of(*part)))?;
        }
        self.disk.remove_directory(&directory)?;
        Ok(!parts.is_empty())
    }

    /// The numbers of a file's parts, without the first.
    fn parts(&self, directory: &Path) -> io::Result<Vec<u64>> {
        let names = self.disk.list(directory)?;
        Ok(names.iter().filter_map(|name| part_of(name)).collect())
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(suffix);
    path.into()
}

fn name_of(part: u64) -> String {
    format!("{part:0PART_DIGITS$x}")
}

/// The part that a name stands for.
fn part_of(name: &OsStr) -> Option<u64> {
    let part = u64::from_str_radix(name.to_str()?, 16).ok()?;
    (part > 0 && name == OsStr::new(&name_of(part))).then_some(part)
}

impl Disk for SpanningDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn LocalFile>> {
        let directory = with_suffix(path, PARTS_SUFFIX);
        let (first, lengths) = match self.disk.open(path, false) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                (self.make(path)?, BTreeMap::new())
            }
            opened => {
                let first = opened?;
                self.refuse_longer(path, first.as_ref())?;
                (first, self.lengths(&directory)?)
            }
        };
        Ok(Box::new(SpanningFile::new(
            first,
            (Arc::clone(&self.disk), directory),
            self.part_bytes,
            lengths,
        )))
    }

    /// The first part goes last, so that what an interrupted removal leaves is removed by the next.
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.remove_parts(path)?;
        self.disk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.disk.list(path)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.make_directory(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_directory(path)
    }

    fn report(&self, path: &Path) -> io::Result<IodReport> {
        self.disk.report(path)
    }
}

#[cfg(test)]
mod tests;
