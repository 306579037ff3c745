// SPDX-License-Identifier: MIT
//! copy_file_range(2): no byte passes the kernel, and none travels where both files' stripes lie
//! alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pvfs::client::pool::IodPool;
use pvfs::client::striped::{self, Place};
use pvfs::error::FsError;
use pvfs::limits::{COPY_BYTES_MAX, FILE_SIZE_BYTES_MAX};

use super::lease::{Io, Permit};
use super::open_files::OpenFile;
use super::{Caller, Pvfs, REQUEST_BYTES_MAX};

/// Bytes copied by one call, which may copy less than asked for: programs stay interruptible, and
/// the leases are not held for long.
const CALL_BYTES_MAX: u64 = 64 << 20;
/// Pieces that are under way at a time where they pass through this process.
const COPIERS: usize = 4;

/// One side of a copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyPlace {
    /// Open file.
    pub handle: u64,
    /// Where, bytes.
    pub offset: u64,
}

impl Pvfs {
    /// Copies up to `length` bytes; returns how many, 0 at the first file's end. The kernel has
    /// refused ranges of one file that overlap, and drops its pages of the second afterwards.
    ///
    /// # Errors
    ///
    /// The iods'; any part may have been copied then.
    pub fn copy_range(
        self: &Arc<Self>,
        caller: Caller,
        from: CopyPlace,
        to: CopyPlace,
        length: u64,
    ) -> Result<u64, FsError> {
        let source = self.file_for_io(from.handle)?;
        self.again_where_missing(&source, || {
            self.copy_from(&source, caller, (from, to), length)
        })
    }

    fn copy_from(
        self: &Arc<Self>,
        source: &OpenFile,
        caller: Caller,
        (from, to): (CopyPlace, CopyPlace),
        length: u64,
    ) -> Result<u64, FsError> {
        let target = self.file_for_io(to.handle)?;
        let copy = |permit: Permit| {
            self.check_locks(from.handle)?;
            self.check_locks(to.handle)?;
            let end = self.size_under_lease(source)?;
            let rest = end.saturating_sub(from.offset);
            let length = length.min(rest).min(CALL_BYTES_MAX);
            let end = to.offset.checked_add(length).ok_or(FsError::FileTooLarge)?;
            if end > FILE_SIZE_BYTES_MAX {
                return Err(FsError::FileTooLarge);
            }
            if length > 0 {
                self.mend(&target, permit, end)?;
                self.drop_privileges(&target, caller.if_ordinary())?;
                let filled = source.inode.state().filled();
                let under = (self.pool_under(&target, permit), permit.fence);
                let copied = self.copy_bytes(
                    &under,
                    &source.place(from.offset, filled),
                    // Nothing is read there.
                    &target.place(to.offset, 0),
                    length,
                );
                if let Err(error) = copied {
                    self.write_failed(&target, permit, (end, error));
                    return Err(error);
                }
                target.inode.state().wrote(to.offset..end, target.open);
            }
            Ok(length)
        };
        let reading = |copy: &dyn Fn() -> Result<u64, FsError>| {
            let permit = self.begin(&source.inode, Io::DirectRead)?;
            let outcome = copy();
            self.end(&source.inode, permit, Io::DirectRead, (0, 0));
            outcome
        };
        let range = (to.offset, to.offset.saturating_add(length));
        let writing = |copy: &dyn Fn(Permit) -> Result<u64, FsError>| {
            let copied = self.change_range(&target.inode, Io::DirectWrite, range, copy);
            self.tell_torn(&target.inode);
            copied
        };
        // Whoever holds a lease in use and waits for another one waits for one of a higher number,
        // so two copies never wait for each other.
        match source.inode.number.cmp(&target.inode.number) {
            std::cmp::Ordering::Less => reading(&|| writing(&copy)),
            std::cmp::Ordering::Equal => writing(&copy),
            std::cmp::Ordering::Greater => writing(&|permit| reading(&|| copy(permit))),
        }
    }

    fn copy_bytes(
        &self,
        under: &(IodPool, u64),
        from: &Place<'_>,
        to: &Place<'_>,
        length: u64,
    ) -> Result<(), FsError> {
        let (pool, fence) = under;
        if from.layout.aligns(from.offset, to.layout, to.offset) {
            let mut done = 0;
            while done < length {
                let step = COPY_BYTES_MAX.min(length - done);
                let (from, to) = (from.after(done), to.after(done));
                striped::copy_at_iods(pool, &from, &to, *fence, step)?;
                done += step;
            }
            return Ok(());
        }
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let copiers: Vec<_> = (0..COPIERS)
                .map(|_| scope.spawn(|| self.copy_pieces(under, from, to, length, &next)))
                .collect();
            // All end before any of them is judged.
            let ended: Vec<_> = copiers.into_iter().map(|copier| copier.join()).collect();
            let mut ended = ended.into_iter();
            ended.try_for_each(|outcome| outcome.unwrap_or(Err(FsError::Io)))
        })
    }

    /// Copies pieces through this process until none is left.
    fn copy_pieces(
        &self,
        (pool, fence): &(IodPool, u64),
        from: &Place<'_>,
        to: &Place<'_>,
        length: u64,
        next: &AtomicU64,
    ) -> Result<(), FsError> {
        let piece = REQUEST_BYTES_MAX as u64;
        let mut buffer = self.buffers.take();
        loop {
            let done = next.fetch_add(piece, Ordering::Relaxed);
            if done >= length {
                return Ok(());
            }
            let step = usize::try_from(piece.min(length - done)).map_err(|_| FsError::Io)?;
            let bytes = buffer.get_mut(..step).ok_or(FsError::Io)?;
            striped::read(&self.pool, &from.after(done), bytes)?;
            let offset = to.offset + done;
            striped::write_under(pool, to.layout, to.object, *fence, offset, bytes)?;
        }
    }
}
