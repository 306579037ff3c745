// SPDX-License-Identifier: MIT
//! One object's open local file.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};
use pvfs::proto::iod::SeekTarget;

use super::LocalStat;

/// Zeros that are written at a time where a hole cannot be made.
const ZEROS_BYTES: usize = 64 << 10;

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

    /// Reserves disk space; length and content stay. A disk that cannot reserve is not asked to: a
    /// later write may then fail for want of space.
    pub(super) fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        match self.fallocate(FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length) {
            Err(Errno::EOPNOTSUPP) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// Makes bytes zeros and gives their disk space back; the length stays.
    pub(super) fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match self.fallocate(punch, offset, length) {
            Err(Errno::EOPNOTSUPP) => self.write_zeros(offset, length),
            outcome => Ok(outcome?),
        }
    }

    fn fallocate(&self, flags: FallocateFlags, offset: u64, length: u64) -> Result<(), Errno> {
        let signed = |number| i64::try_from(number).map_err(|_| Errno::EFBIG);
        let (offset, length) = (signed(offset)?, signed(length)?);
        loop {
            match fallocate(&self.file, flags, offset, length) {
                Err(Errno::EINTR) => {}
                outcome => return outcome,
            }
        }
    }

    /// For a disk without holes; beyond the end there is nothing to write.
    fn write_zeros(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.saturating_add(length).min(self.length()?);
        let zeros = [0; ZEROS_BYTES];
        let mut position = offset;
        while position < end {
            let rest = usize::try_from(end - position).unwrap_or(ZEROS_BYTES);
            let piece = zeros.get(..rest.min(ZEROS_BYTES)).unwrap_or(&zeros);
            self.write_at(piece, position)?;
            position += piece.len() as u64;
        }
        Ok(())
    }

    /// Where data or a hole begins, from `offset` on: see [`super::Store::seek`].
    pub(super) fn seek(&self, offset: u64, target: SeekTarget) -> io::Result<Option<u64>> {
        let whence = match target {
            SeekTarget::Data => Whence::SeekData,
            SeekTarget::Hole => Whence::SeekHole,
        };
        let Ok(from) = i64::try_from(offset) else {
            return Err(Errno::EFBIG.into());
        };
        // Nothing else relies on the file's own offset.
        match (lseek(&self.file, from, whence), target) {
            (Ok(position), _) => Ok(u64::try_from(position).ok()),
            (Err(Errno::ENXIO), SeekTarget::Data) => Ok(None),
            (Err(Errno::ENXIO), SeekTarget::Hole) => Ok(Some(offset)),
            (Err(error), _) => Err(error.into()),
        }
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
