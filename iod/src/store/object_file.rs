// SPDX-License-Identifier: MIT
//! One object's open local files: its data, and the sums that each read compares it with.
//!
//! # How both stay together
//!
//! Writers hold the object's lock; they store the sums first, then the data. Readers take no lock
//! unless a block does not match its sum: then they look again while no writer is there, and only
//! what does not match then is damaged. What a crash may tear apart is not covered by the header of
//! its cluster (see [`super::sums`]), and its sums are computed anew at the first use afterwards.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use pvfs::ids::ObjectId;
use pvfs::layout::LayoutSlot;
use pvfs::runtime::net::TcpStream;
use pvfs::runtime::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use pvfs::runtime::time::{Duration, Instant};

use super::LocalStat;
use super::disk::{LocalFile, Stamp};
use super::memo::{Memo, PIECE_BYTES};
use super::sums::{Damage, Sums, by_cluster};
use super::sums_format::{BLOCK_BYTES, CLUSTER_BLOCKS, CLUSTER_BYTES, block_sum, blocks_of};
use super::unsettled::Unsettled;

/// Data that one call of [`ObjectFile::verified`] takes at most: it stays in the processor's cache
/// between the check and the socket.
pub const VERIFIED_BYTES_MAX: usize = PIECE_BYTES as usize;
/// Memory that such a call needs: whole blocks at both ends.
pub const VERIFY_BUFFER_BYTES: usize = VERIFIED_BYTES_MAX + 2 * BLOCK_BYTES as usize;
const BLOCKS_AT_ONCE_MAX: usize = VERIFY_BUFFER_BYTES / BLOCK_BYTES as usize;

/// An object's open files. They stay readable after their names are removed.
#[derive(Debug)]
pub struct ObjectFile {
    object: ObjectId,
    path: PathBuf,
    data: Box<dyn LocalFile>,
    /// Which stripes of the file these are, once that is known.
    place: OnceLock<LayoutSlot>,
    /// `None` where there are no sums and none can be made, as on a full disk that an older version
    /// filled: nothing can be checked then, and nothing written.
    sums: Option<Checked>,
    /// What was compared lately.
    memo: Mutex<Memo>,
    unsettled: Arc<Unsettled>,
    /// All clusters of the file that may need settling are in the table.
    walked: AtomicBool,
    /// The directory entries are known to be on disk. A file that existed at the open may have been
    /// made by a predecessor that was killed before it synced, so this starts false each time.
    entry_synced: AtomicBool,
}

#[derive(Debug)]
struct Checked {
    /// For flushes, which must not hold up readers and writers.
    file: Arc<dyn LocalFile>,
    sums: RwLock<Sums>,
}

impl Checked {
    /// For a look. Sums are changed by steps that leave a cluster distrusted or sound, so a panic of
    /// another thread does no harm.
    fn look(&self) -> RwLockReadGuard<'_, Sums> {
        self.sums.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock of writers.
    fn lock(&self) -> RwLockWriteGuard<'_, Sums> {
        self.sums.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ObjectFile {
    /// An object whose files are open. `unsettled` is told when sums are to be settled.
    ///
    /// # Errors
    ///
    /// [`Damage::Foreign`], and those of the disk.
    pub(super) fn new(
        object: ObjectId,
        path: PathBuf,
        data: Box<dyn LocalFile>,
        sums: Option<Box<dyn LocalFile>>,
        unsettled: Arc<Unsettled>,
    ) -> io::Result<Self> {
        let place = OnceLock::new();
        let open_sums = |file: Box<dyn LocalFile>| {
            let file: Arc<dyn LocalFile> = file.into();
            let mut sums = Sums::new(object, Arc::clone(&file));
            if let Some(stored) = sums.load_place()? {
                place.get_or_init(|| stored);
            }
            let sums = RwLock::new(sums);
            Ok::<_, io::Error>(Checked { sums, file })
        };
        let sums = sums.map(open_sums).transpose()?;
        Ok(Self {
            object,
            path,
            data,
            place,
            sums,
            memo: Mutex::default(),
            unsettled,
            walked: AtomicBool::new(false),
            entry_synced: AtomicBool::new(false),
        })
    }

    /// Which stripes these are, where that is known.
    pub(super) fn place(&self) -> Option<LayoutSlot> {
        self.place.get().copied()
    }

    /// Says which stripes a request means.
    ///
    /// # Errors
    ///
    /// [`Damage::Misplaced`] where these are known to be others.
    pub(super) fn admit(&self, asked: LayoutSlot) -> io::Result<()> {
        match self.place.get() {
            Some(stored) if *stored != asked => {
                let stored = *stored;
                Err(Damage::Misplaced { stored, asked }.into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The same before something is stored here: what is written says from now on where it belongs.
    ///
    /// # Errors
    ///
    /// [`Damage`], and those of the disk.
    pub(super) fn claim(&self, place: LayoutSlot) -> io::Result<()> {
        self.admit(place)?;
        if let (None, Some(sums)) = (self.place.get(), &self.sums) {
            sums.lock().claim_place(place)?;
            self.place.get_or_init(|| place);
        }
        Ok(())
    }

    /// The local file of the data.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes.
    ///
    /// # Errors
    ///
    /// Those of fstat(2).
    pub fn length(&self) -> io::Result<u64> {
        self.data.length()
    }

    pub(super) fn stat(&self) -> io::Result<LocalStat> {
        self.data.stat()
    }

    fn sums(&self) -> io::Result<&Checked> {
        self.sums.as_ref().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::StorageFull,
                "there is no room for its checksums",
            )
        })
    }

    /// Sees to it that the sums of these blocks may be believed; false where there are none.
    fn trust(&self, blocks: &Range<u64>) -> io::Result<bool> {
        let Some(sums) = &self.sums else {
            return Ok(false);
        };
        if sums.look().trusts(blocks.clone()) {
            return Ok(true);
        }
        let mut sums = sums.lock();
        for (cluster, _) in by_cluster(blocks.clone()) {
            match self.load(&mut sums, cluster) {
                Ok(()) => {}
                // Sums that a crash left behind cannot be stored anew on a full disk. Nothing covers
                // them, so nothing is known against the data.
                Err(error) if is_full(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn load(&self, sums: &mut Sums, cluster: u64) -> io::Result<()> {
        if sums.load(cluster, self.data.as_ref(), Instant::now())? {
            self.unsettled.insert(self.object);
        }
        Ok(())
    }

    /// Reads `length` bytes from `offset` on as far as the file goes and checks them; `buffer` has
    /// room for [`VERIFY_BUFFER_BYTES`]. Also checks that nothing is missing at the file's end.
    ///
    /// # Errors
    ///
    /// [`Damage`], and those of pread(2). `length` is at most [`VERIFIED_BYTES_MAX`].
    pub fn verified<'b>(
        &self,
        offset: u64,
        length: usize,
        buffer: &'b mut [u8],
    ) -> io::Result<&'b [u8]> {
        if length > VERIFIED_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let end = offset.saturating_add(length as u64);
        let blocks = offset / BLOCK_BYTES..blocks_of(end);
        let start = blocks.start * BLOCK_BYTES;
        let span = usize::try_from((blocks.end - blocks.start) * BLOCK_BYTES);
        let span = span.ok().and_then(|span| buffer.get_mut(..span));
        let buffer = span.ok_or(io::ErrorKind::InvalidInput)?;
        let trusted = self.trust(&blocks)?;
        let mut filled = self.data.read_full(buffer, start)?;
        if let Some(sums) = self.sums.as_ref().filter(|_| trusted) {
            let compared = compare(&sums.look(), &blocks, buffer, filled);
            match compared {
                // A writer may have been at it. None is while this lock is held.
                Err(error) if Damage::of(&error).is_some() => {
                    let still = sums.lock();
                    filled = self.data.read_full(buffer, start)?;
                    compare(&still, &blocks, buffer, filled)?;
                }
                outcome => outcome?,
            }
        }
        let wanted = usize::try_from(offset - start).unwrap_or(usize::MAX);
        let filled = filled.min(wanted.saturating_add(length));
        Ok(buffer.get(wanted..filled).unwrap_or_default())
    }

    /// Length and times, for [`ObjectFile::check`].
    ///
    /// # Errors
    ///
    /// Those of fstat(2).
    pub fn stamp(&self) -> io::Result<Stamp> {
        self.data.stamp()
    }

    /// Compares a range with its checksums, unless that was done a moment ago and the file has not
    /// been touched since; `stamp` is what it has been since before the call. As for the rest, see
    /// [`ObjectFile::verified`].
    ///
    /// # Errors
    ///
    /// As [`ObjectFile::verified`].
    pub fn check(
        &self,
        stamp: Stamp,
        offset: u64,
        length: usize,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let now = Instant::now();
        if self.memo().is_good(stamp, offset, length as u64, now) {
            return Ok(());
        }
        let end = offset.saturating_add(length as u64);
        let mut at = offset;
        while at < end {
            // Whole pieces, which can be remembered, wherever the range begins.
            let size = (PIECE_BYTES - at % PIECE_BYTES).min(end - at);
            self.verified(at, usize::try_from(size).unwrap_or(usize::MAX), buffer)?;
            at += size;
        }
        self.memo().note(stamp, offset, length as u64, now);
        Ok(())
    }

    fn memo(&self) -> MutexGuard<'_, Memo> {
        // What a panic interrupts is remembered or not.
        self.memo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `bytes` from `offset` on as far as the file goes, all checked; returns how far.
    ///
    /// # Errors
    ///
    /// As [`ObjectFile::verified`].
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut buffer = vec![0; VERIFY_BUFFER_BYTES];
        let mut done = 0;
        for piece in bytes.chunks_mut(VERIFIED_BYTES_MAX) {
            let found = self.verified(offset + done as u64, piece.len(), &mut buffer)?;
            if let Some(place) = piece.get_mut(..found.len()) {
                place.copy_from_slice(found);
            }
            done += found.len();
            if found.len() < piece.len() {
                break;
            }
        }
        Ok(done)
    }

    /// Sends bytes from the page cache to a socket, unchecked: see [`LocalFile::send`].
    ///
    /// # Errors
    ///
    /// Those of sendfile(2).
    pub fn send(&self, stream: &TcpStream, offset: u64, length: usize) -> nix::Result<usize> {
        self.data.send(stream, offset, length)
    }

    /// Stores `bytes` at `offset`.
    ///
    /// # Errors
    ///
    /// [`Damage`] where a part of a damaged block would be replaced: the rest of it is lost, and to
    /// sum it up anew would hide that. Those of the disk; a part may be stored then.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut sums = self.sums()?.lock();
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let left = CLUSTER_BYTES - at % CLUSTER_BYTES;
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            let (part, after) = rest.split_at(rest.len().min(left));
            self.write_in_cluster(&mut sums, part, at)?;
            at += part.len() as u64;
            rest = after;
        }
        Ok(())
    }

    fn write_in_cluster(&self, sums: &mut Sums, bytes: &[u8], offset: u64) -> io::Result<()> {
        let blocks = offset / BLOCK_BYTES..blocks_of(offset + bytes.len() as u64);
        let cluster = blocks.start / CLUSTER_BLOCKS;
        let now = Instant::now();
        self.load(sums, cluster)?;
        let new = self.sums_after(sums, bytes, offset, &blocks)?;
        if sums.change(cluster, blocks.start, 0, now)? {
            self.unsettled.insert(self.object);
        }
        let stored = sums
            .write(blocks.start, &new)
            .and_then(|()| self.data.write_full(bytes, offset));
        if stored.is_err() {
            self.distrust(sums, cluster);
        }
        stored
    }

    /// After a failure it is unknown how much of sums and data is there; the data counts.
    fn distrust(&self, sums: &mut Sums, cluster: u64) {
        sums.distrust(cluster);
        self.walked.store(false, Ordering::Release);
        self.unsettled.insert(self.object);
    }

    /// The sums that `blocks` have once `bytes` are stored at `offset`.
    fn sums_after(
        &self,
        sums: &Sums,
        bytes: &[u8],
        offset: u64,
        blocks: &Range<u64>,
    ) -> io::Result<Vec<u32>> {
        let end = offset + bytes.len() as u64;
        let of_block = |block: u64| {
            let start = block * BLOCK_BYTES;
            let from = offset.max(start);
            let to = end.min(start + BLOCK_BYTES);
            let part = usize::try_from(from - offset)..usize::try_from(to - offset);
            let (Ok(first), Ok(last)) = (part.start, part.end) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let part = bytes.get(first..last).unwrap_or_default();
            if part.len() as u64 == BLOCK_BYTES {
                return Ok(block_sum(part));
            }
            let mut whole = self.checked_block(sums, block)?;
            let at = usize::try_from(from - start).unwrap_or(usize::MAX);
            if let Some(place) = whole.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
            Ok(block_sum(&whole))
        };
        blocks.clone().map(of_block).collect()
    }

    /// A block as it is, filled up with zeros. The caller holds the lock of writers.
    fn checked_block(&self, sums: &Sums, block: u64) -> io::Result<[u8; BLOCK_BYTES as usize]> {
        let mut whole = [0; BLOCK_BYTES as usize];
        let filled = self.data.read_full(&mut whole, block * BLOCK_BYTES)?;
        compare(sums, &(block..block + 1), &whole, filled)?;
        Ok(whole)
    }

    /// Reserves disk space; length and content stay. A disk that cannot reserve is not asked to: a
    /// later write may then fail for want of space.
    ///
    /// # Errors
    ///
    /// Those of fallocate(2).
    pub fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        match self.data.allocate(offset, length) {
            Err(Errno::EOPNOTSUPP) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// Makes bytes zeros and gives their disk space back; the length stays.
    ///
    /// # Errors
    ///
    /// As [`ObjectFile::write_at`].
    pub fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut sums = self.sums()?.lock();
        // Beyond the end there is nothing.
        let end = offset.saturating_add(length).min(self.length()?);
        let mut at = offset;
        // Whole clusters that are holes already have no sums to change.
        while let Some(found) = self.data.next_data(at)?.filter(|found| *found < end) {
            let cluster = found / CLUSTER_BYTES;
            let from = at.max(cluster * CLUSTER_BYTES);
            let to = end.min((cluster + 1) * CLUSTER_BYTES);
            self.punch_in_cluster(&mut sums, from, to)?;
            at = to;
        }
        Ok(())
    }

    fn punch_in_cluster(&self, sums: &mut Sums, from: u64, to: u64) -> io::Result<()> {
        let blocks = from / BLOCK_BYTES..blocks_of(to);
        let cluster = blocks.start / CLUSTER_BLOCKS;
        self.load(sums, cluster)?;
        let sum_after = |block: u64| {
            let start = block * BLOCK_BYTES;
            let (first, last) = (from.max(start) - start, to.min(start + BLOCK_BYTES) - start);
            if last - first == BLOCK_BYTES {
                return Ok(0);
            }
            let mut whole = self.checked_block(sums, block)?;
            let part = usize::try_from(first).ok().zip(usize::try_from(last).ok());
            if let Some(part) = part.and_then(|(first, last)| whole.get_mut(first..last)) {
                part.fill(0);
            }
            Ok(block_sum(&whole))
        };
        let new: Vec<u32> = blocks.clone().map(sum_after).collect::<io::Result<_>>()?;
        if sums.change(cluster, blocks.start, 0, Instant::now())? {
            self.unsettled.insert(self.object);
        }
        let punch = || match self.data.punch(from, to - from) {
            Err(Errno::EOPNOTSUPP) => self.write_zeros(from, to),
            outcome => Ok(outcome?),
        };
        let punched = sums.write(blocks.start, &new).and_then(|()| punch());
        if punched.is_err() {
            self.distrust(sums, cluster);
        }
        punched
    }

    /// For a disk without holes.
    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = [0; BLOCK_BYTES as usize];
        let mut at = from;
        while at < to {
            let size = usize::try_from(to - at).map_or(zeros.len(), |left| left.min(zeros.len()));
            let piece = zeros.get(..size).unwrap_or(&zeros);
            self.data.write_full(piece, at)?;
            at += size as u64;
        }
        Ok(())
    }

    /// Where data follows, from `offset` on; `None` where none does.
    ///
    /// # Errors
    ///
    /// Those of lseek(2).
    pub fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.data.next_data(offset)
    }

    /// Where a hole follows, from `offset` on; after the file's end there is one.
    ///
    /// # Errors
    ///
    /// Those of lseek(2).
    pub fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.data.next_hole(offset)
    }

    /// Has the next read of a range be the disk's, where the kernel does that.
    pub(super) fn forget(&self, offset: u64, length: u64) {
        if let Err(error) = self.data.forget(offset, length) {
            tracing::debug!("posix_fadvise of {}: {error}", self.path.display());
        }
    }

    /// Where there is data from `offset` on, or checksums that say there should be.
    pub(super) fn next_to_compare(&self, offset: u64) -> io::Result<Option<u64>> {
        let data = self.data.next_data(offset)?;
        let summed = match &self.sums {
            Some(sums) => sums.look().next_summed(offset / BLOCK_BYTES)?,
            None => None,
        };
        let summed = summed.map(|block| (block * BLOCK_BYTES).max(offset));
        Ok(match (data, summed) {
            (Some(data), Some(summed)) => Some(data.min(summed)),
            (data, summed) => data.or(summed),
        })
    }

    /// Cuts the file to `length`; a shorter one stays as it is. On disk when this returns.
    pub(super) fn truncate(&self, length: u64) -> io::Result<()> {
        let Some(sums) = &self.sums else {
            if self.length()? > length {
                self.data.set_length(length)?;
                self.data.sync()?;
            }
            return Ok(());
        };
        let mut sums = sums.lock();
        let longer = self.length()? > length;
        // Where data is lost, its sums say so beyond the end.
        if !longer && !sums.claim_beyond(blocks_of(length))? {
            return Ok(());
        }
        let now = Instant::now();
        let keep = length / BLOCK_BYTES;
        let cluster = keep / CLUSTER_BLOCKS;
        // The block that is cut in two, and whether it was damaged before.
        let boundary = match self.load(&mut sums, cluster) {
            Ok(()) if length % BLOCK_BYTES > 0 => Some(self.checked_block(&sums, keep)),
            Ok(()) => None,
            // It stays damaged, and what is beyond the cut goes.
            Err(error) if Damage::of(&error).is_some() => None,
            Err(error) => return Err(error),
        };
        sums.cut(keep, blocks_of(length), now)?;
        self.unsettled.insert(self.object);
        let cut_data = || match longer {
            true => self.data.set_length(length),
            false => Ok(()),
        };
        let cut = cut_data().and_then(|()| match boundary {
            None => Ok(()),
            Some(Ok(block)) => {
                let rest = usize::try_from(length % BLOCK_BYTES).unwrap_or_default();
                sums.write(keep, &[block_sum(block.get(..rest).unwrap_or_default())])
            }
            Some(Err(error)) if Damage::of(&error).is_some() => self.poison(&sums, keep),
            Some(Err(error)) => Err(error),
        });
        if cut.is_err() {
            self.distrust(&mut sums, cluster);
        }
        cut?;
        self.data.sync()
    }

    /// Gives a damaged block a sum that it does not have, so that it stays damaged.
    fn poison(&self, sums: &Sums, block: u64) -> io::Result<()> {
        let mut whole = [0; BLOCK_BYTES as usize];
        self.data.read_full(&mut whole, block * BLOCK_BYTES)?;
        sums.write(block, &[!block_sum(&whole)])
    }

    /// Flushes the data, and the directory entries once.
    pub(super) fn sync(&self, sync_entry: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.data.sync()?;
        if !self.entry_synced.load(Ordering::Acquire) {
            sync_entry()?;
            self.entry_synced.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Looks at every cluster that has data, so that the sums of all are right.
    fn walk(&self, sums: &Checked) -> io::Result<()> {
        if self.walked.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut at = 0;
        while let Some(found) = self.data.next_data(at)? {
            let cluster = found / CLUSTER_BYTES;
            match self.load(&mut sums.lock(), cluster) {
                Ok(()) => {}
                // Reads of it say so; the others can be settled all the same.
                Err(error) if Damage::of(&error).is_some() => {}
                Err(error) => return Err(error),
            }
            at = (cluster + 1) * CLUSTER_BYTES;
        }
        self.walked.store(true, Ordering::Release);
        Ok(())
    }

    /// Brings sums that have rested for `idle` to disk and says there that they cover their data.
    /// Returns whether nothing is left to be settled.
    ///
    /// # Errors
    ///
    /// [`SettleError::Data`] where the data could not be flushed: it may be lost, as after a failed
    /// [`ObjectFile::sync`].
    pub(super) fn settle(
        &self,
        now: Instant,
        idle: Duration,
        sync_entry: impl FnOnce() -> io::Result<()>,
    ) -> Result<bool, SettleError> {
        let Some(sums) = &self.sums else {
            return Ok(true);
        };
        self.walk(sums).map_err(SettleError::Sums)?;
        let settling = sums.lock().begin_settling(now, idle);
        if !settling.is_empty() {
            self.sync(sync_entry).map_err(SettleError::Data)?;
            sums.file.sync().map_err(SettleError::Sums)?;
            let length = self.length().map_err(SettleError::Sums)?;
            let settled = sums.lock().settle(&settling, length);
            settled.map_err(SettleError::Sums)?;
            sums.file.sync().map_err(SettleError::Sums)?;
        }
        Ok(!sums.look().is_dirty())
    }
}

/// Why sums could not be settled.
#[derive(Debug)]
pub(super) enum SettleError {
    /// The data could not be flushed.
    Data(io::Error),
    /// The data is safe; the sums are not.
    Sums(io::Error),
}

/// Whether nothing can be stored on the disk.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Compares blocks, of which the first `filled` bytes are in `data`, with their sums.
fn compare(sums: &Sums, blocks: &Range<u64>, data: &[u8], filled: usize) -> io::Result<()> {
    let count = usize::try_from(blocks.end - blocks.start).unwrap_or(usize::MAX);
    let mut stored = [0; BLOCKS_AT_ONCE_MAX];
    let stored = stored.get_mut(..count).ok_or(io::ErrorKind::InvalidInput)?;
    sums.read(blocks.clone(), stored)?;
    let data = data.get(..filled).unwrap_or_default();
    let mut there = data.chunks(BLOCK_BYTES as usize);
    for (stored, block) in stored.iter().zip(blocks.clone()) {
        // Where the file has ended, the block is a hole.
        let sum = there.next().map_or(0, block_sum);
        if sum != *stored {
            let offset = block * BLOCK_BYTES;
            return Err(Damage::Block { offset }.into());
        }
    }
    Ok(())
}
