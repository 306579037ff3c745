// SPDX-License-Identifier: MIT
//! One object's open local file.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

use super::LocalStat;

/// Unit of `st_blocks` (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;

/// An open local file. It stays readable after its name is removed.
#[derive(Debug)]
pub struct ObjectFile {
    file: File,
    /// The directory entry is known to be on disk. A file that existed at the open may have been
    /// made by a predecessor that was killed before it synced, so this starts false each time.
    entry_synced: AtomicBool,
}

impl ObjectFile {
    pub(super) const fn new(file: File) -> Self {
        Self {
            file,
            entry_synced: AtomicBool::new(false),
        }
    }

    /// The file itself, for sendfile(2).
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Length in bytes.
    ///
    /// # Errors
    ///
    /// Those of fstat(2).
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Stores `bytes` at `offset`.
    ///
    /// # Errors
    ///
    /// Those of pwrite(2); a part may be stored then.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Fills `bytes` from `offset` on as far as the file goes; returns how far.
    ///
    /// # Errors
    ///
    /// Those of pread(2).
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    pub(super) fn truncate(&self, length: u64) -> io::Result<()> {
        if self.length()? <= length {
            return Ok(());
        }
        self.file.set_len(length)?;
        self.file.sync_data()
    }

    pub(super) fn sync(&self, sync_entry: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.file.sync_data()?;
        if !self.entry_synced.load(Ordering::Acquire) {
            sync_entry()?;
            self.entry_synced.store(true, Ordering::Release);
        }
        Ok(())
    }

    pub(super) fn stat(&self) -> io::Result<LocalStat> {
        let metadata = self.file.metadata()?;
        let allocated = metadata.blocks().saturating_mul(STAT_BLOCK_BYTES);
        Ok(LocalStat {
            length: metadata.len(),
            allocated,
        })
    }
}
