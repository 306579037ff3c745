// SPDX-License-Identifier: MIT
//! Disk space and holes of open files: fallocate(2), and lseek(2) for data and holes.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use pvfs::client::patience::Patience;
use pvfs::client::striped;
use pvfs::error::FsError;
use pvfs::limits::FILE_SIZE_BYTES_MAX;
use pvfs::proto::iod::SeekTarget;

use super::inode::{Inode, Report};
use super::lease::{Io, Permit};
use super::open_files::OpenFile;
use super::{Caller, Pvfs};

/// Iods are asked for so long how much space a file takes: a report that others wait for goes
/// without it where one of them is away.
const SPACE_TIMEOUT: Duration = Duration::from_secs(2);

/// What fallocate(2) does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Reserves space; the file grows with it unless its size is to be kept.
    Reserve {
        /// `FALLOC_FL_KEEP_SIZE`.
        keep_size: bool,
    },
    /// Gives space back; the bytes read as zeros (`FALLOC_FL_PUNCH_HOLE`, which keeps the size).
    Punch,
    /// Reserves space, and the bytes read as zeros (`FALLOC_FL_ZERO_RANGE`).
    Zero {
        /// `FALLOC_FL_KEEP_SIZE`.
        keep_size: bool,
    },
}

impl Allocation {
    const fn punches(self) -> bool {
        match self {
            Self::Punch | Self::Zero { .. } => true,
            Self::Reserve { .. } => false,
        }
    }

    const fn reserves(self) -> bool {
        match self {
            Self::Reserve { .. } | Self::Zero { .. } => true,
            Self::Punch => false,
        }
    }

    const fn grows(self) -> bool {
        match self {
            Self::Reserve { keep_size } | Self::Zero { keep_size } => !keep_size,
            Self::Punch => false,
        }
    }
}

impl Pvfs {
    /// Reserves or gives back the disk space of `length` bytes at `offset`. The kernel drops its
    /// pages of them afterwards.
    ///
    /// # Errors
    ///
    /// The iods'; space may be reserved in part then. [`FsError::FileTooLarge`],
    /// [`FsError::InvalidArgument`] for no bytes at all.
    pub fn fallocate(
        self: &Arc<Self>,
        caller: Caller,
        handle: u64,
        (offset, length): (u64, u64),
        allocation: Allocation,
    ) -> Result<(), FsError> {
        let file = self.file_for_io(handle)?;
        if length == 0 {
            return Err(FsError::InvalidArgument);
        }
        let end = offset.checked_add(length).ok_or(FsError::FileTooLarge)?;
        if end > FILE_SIZE_BYTES_MAX {
            return Err(FsError::FileTooLarge);
        }
        self.change_range(&file.inode, Io::DirectWrite, (offset, end), |permit| {
            self.check_locks(handle)?;
            if allocation.grows() {
                self.mend(&file, permit, end)?;
            }
            self.drop_privileges(&file, caller.if_ordinary())?;
            if allocation.punches() {
                self.punch(&file, permit, offset..end)?;
            }
            if allocation.reserves() {
                self.reserve(&file, permit, offset..end)?;
            }
            let mut state = file.inode.state();
            // Nothing is written beyond the end unless the file grows.
            let written_end = if allocation.grows() { end } else { 0 };
            state.changed(0..written_end, file.open);
            state.ask_for_space();
            drop(state);
            Ok(())
        })
    }

    /// Reserves space on all iods; where one has none left, what the others gave beyond the file's
    /// end goes back.
    fn reserve(&self, file: &OpenFile, permit: Permit, range: Range<u64>) -> Result<(), FsError> {
        let (end, alone) = {
            let state = file.inode.state();
            (state.end(), state.lease.knows_size())
        };
        let pool = self.pool_under(file, permit);
        let whole = range.clone();
        let outcome = striped::allocate(&pool, &file.layout, file.object, permit.fence, whole);
        let beyond = end.clamp(range.start, range.end)..range.end;
        // Where others may write too, there may be bytes beyond the end that is known here.
        if outcome == Err(FsError::NoSpace) && alone && !beyond.is_empty() {
            if let Err(error) = self.punch(file, permit, beyond) {
                tracing::warn!("inode {}: reserved space stays: {error}", file.inode.number);
            }
        }
        outcome
    }

    fn punch(&self, file: &OpenFile, permit: Permit, range: Range<u64>) -> Result<(), FsError> {
        let pool = self.pool_under(file, permit);
        striped::punch(&pool, &file.layout, file.object, permit.fence, range)
    }

    /// Where data or a hole begins, from `offset` on; the file's end is a hole.
    ///
    /// # Errors
    ///
    /// [`FsError::NoSuchPlace`] where `offset` is beyond the end or no data follows; the iods'.
    pub fn seek(
        self: &Arc<Self>,
        handle: u64,
        offset: u64,
        target: SeekTarget,
    ) -> Result<u64, FsError> {
        let file = self.files.get(handle)?;
        self.again_where_missing(&file, || self.seek_in(&file, offset, target))
    }

    fn seek_in(
        self: &Arc<Self>,
        file: &OpenFile,
        offset: u64,
        target: SeekTarget,
    ) -> Result<u64, FsError> {
        let dirty = {
            let state = file.inode.state();
            state.page_writers > 0 && state.lease.has_pages()
        };
        if dirty {
            // A mapping may have written to pages of which the iods know nothing yet.
            self.drop_pages(file.inode.number, (0, u64::MAX), None);
        }
        let permit = self.begin(&file.inode, Io::DirectRead)?;
        let outcome = self.size_under_lease(file).and_then(|size| {
            if offset >= size {
                return Err(FsError::NoSuchPlace);
            }
            let place = file.place(offset, file.inode.state().filled());
            let found = striped::seek(&self.pool, &place, size, target)?;
            found.ok_or(FsError::NoSuchPlace)
        });
        self.end(&file.inode, permit, Io::DirectRead, (0, 0));
        outcome
    }

    /// The file's size as of now.
    pub(super) fn size_under_lease(&self, file: &OpenFile) -> Result<u64, FsError> {
        {
            let state = file.inode.state();
            if state.lease.knows_size() {
                return Ok(state.end());
            }
        }
        Ok(self.getattr(file.inode.number.0)?.size)
    }

    /// How much space the file of a report takes, where mgr is to hear of it.
    pub(super) fn space_for_report(&self, inode: &Inode, report: &Report) -> Option<u64> {
        if !report.asks_for_space {
            return None;
        }
        let open = {
            let state = inode.state();
            let mut opens = state.opens.iter();
            opens.find(|open| open.open == report.writer).cloned()
        }?;
        let patience = Patience::until_cancelled(&self.cancel).at_most(SPACE_TIMEOUT);
        let pool = self.pool.with_patience(patience);
        match striped::allocated(&pool, &open.layout, open.object) {
            Ok(allocated) => Some(allocated),
            Err(error) => {
                tracing::debug!("space of inode {}: {error}", inode.number);
                None
            }
        }
    }
}
