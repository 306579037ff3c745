// SPDX-License-Identifier: MIT
//! The data directory of an iod: one sparse local file for each object, and one with its checksums;
//! more of them where an object is longer than local files may be.
//! Format: `docs/ON_DISK.md`.

mod bounded_set;
mod directory;
pub mod disk;
#[cfg(test)]
pub(crate) mod faulty;
mod fences;
mod file_cache;
mod identity;
mod listing;
mod memo;
#[cfg(any(test, feature = "simulation"))]
pub mod memory_disk;
mod object_file;
mod report;
mod scrub;
mod session_log;
mod sessions;
mod settler;
mod spanning;
mod sums;
mod sums_format;
mod unsettled;

use std::io;
use std::path::{Path, PathBuf};

use pvfs::error::FsError;
use pvfs::ids::ObjectId;
use pvfs::proto::iod::{SeekTarget, StripeRef};
use pvfs::proto::report::IodReport;
use pvfs::runtime::sync::{Arc, Mutex, MutexGuard, PoisonError};
use pvfs::runtime::time::{Duration, Instant};

use crate::admission::Admission;
use bounded_set::BoundedSet;
use directory::DataDirectory;
pub use directory::OpenError;
pub use disk::Stamp;
use disk::{Disk, KernelDisk};
use fences::Fences;
use file_cache::FileCache;
pub use identity::{Identity, Membership};
use object_file::SettleError;
pub use object_file::{ObjectFile, VERIFIED_BYTES_MAX, VERIFY_BUFFER_BYTES};
pub use scrub::Scrubbed;
pub use sessions::{Attempt, Sessions};
pub use settler::Settler;
use spanning::{PART_BYTES, SpanningDisk};
pub use sums::Damage;
use unsettled::Unsettled;

/// Objects remembered for a disk failure. More than this many mean that the disk as a whole is
/// failing; all objects are treated alike then.
const FAILED_OBJECTS_MAX: usize = 4096;

/// Bytes that are copied at a time.
const COPY_BUFFER_BYTES: usize = 1 << 20;

/// Objects whose files are kept open, unless the caller says otherwise: hot files of many clients.
pub const OPEN_OBJECTS_MAX_DEFAULT: usize = 4096;
/// Descriptors of an open object: of its data and of its checksums, of each the first part and one more.
pub const DESCRIPTORS_PER_OBJECT: u64 = 4;

/// The local files of one iod. All operations may be called from many threads at once.
pub struct Store {
    directory: DataDirectory,
    identity: Mutex<Identity>,
    files: FileCache,
    /// A flush of these failed: what was written may be lost, and the kernel says so only once.
    unsynced: BoundedSet,
    /// Reading these failed half way through a reply: they are read with care from then on.
    suspect: BoundedSet,
    fences: Fences,
    sessions: Sessions,
    unsettled: Arc<Unsettled>,
    admission: Admission,
}

/// Length and disk use of a local file, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalStat {
    /// Length.
    pub length: u64,
    /// Disk space that it takes.
    pub allocated: u64,
}

impl Store {
    /// Makes a new iod's data directory of the empty or missing directory `path`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the directory and what to do.
    pub fn create(path: &Path) -> Result<(), OpenError> {
        DataDirectory::create(path)
    }

    /// Opens the data directory at `path`, which [`Self::create`] has made, and locks it.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the directory and what to do.
    pub fn open(path: &Path, open_objects_max: usize) -> Result<Self, OpenError> {
        Self::open_on(kernel_disk(), path, open_objects_max)
    }

    /// The same of a directory that was copied although its iod did not stop in order: what that
    /// stored after the copy is missing, and nobody notices.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_moved(path: &Path, open_objects_max: usize) -> Result<Self, OpenError> {
        Self::open_as(kernel_disk(), path, open_objects_max, true)
    }

    /// The same with the objects on another disk than the kernel's, as long as files are there.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        open_objects_max: usize,
    ) -> Result<Self, OpenError> {
        Self::open_as(disk, path, open_objects_max, false)
    }

    fn open_as(
        disk: Arc<dyn Disk>,
        path: &Path,
        open_objects_max: usize,
        moved: bool,
    ) -> Result<Self, OpenError> {
        let (directory, identity) = DataDirectory::open(path, disk, moved)?;
        let sessions = directory.open_sessions()?;
        Ok(Self {
            directory,
            identity: Mutex::new(identity),
            files: FileCache::new(open_objects_max),
            unsynced: BoundedSet::new(FAILED_OBJECTS_MAX),
            suspect: BoundedSet::new(FAILED_OBJECTS_MAX),
            fences: Fences::new(),
            sessions,
            unsettled: Arc::default(),
            admission: Admission::new(),
        })
    }

    /// Whose data this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.lock_identity().clone()
    }

    /// Stores durably which iod of which file system this is, and what mgr gave it last.
    ///
    /// # Errors
    ///
    /// Those of the disk; the identity is as it was then.
    pub fn join(&self, membership: Membership) -> io::Result<()> {
        let mut identity = self.lock_identity();
        if identity.membership == Some(membership) {
            return Ok(());
        }
        let joined = Identity {
            membership: Some(membership),
            ..identity.clone()
        };
        self.directory.save(&joined)?;
        *identity = joined;
        Ok(())
    }

    /// Notes durably that the iod has stopped in order, after its server: from now on the directory
    /// may be copied.
    ///
    /// # Errors
    ///
    /// Those of the disk: a copy is refused then.
    pub fn close(&self) -> io::Result<()> {
        let mut identity = self.lock_identity();
        identity.open_at = None;
        self.directory.save(&identity)
    }

    fn lock_identity(&self) -> MutexGuard<'_, Identity> {
        // The identity is replaced as a whole, so a panic leaves a sound one.
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object's local file, if it has one.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn find(&self, object: ObjectId) -> io::Result<Option<Arc<ObjectFile>>> {
        match self.get(object, false) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The local file of these stripes, made if there is none. It says from now on where in a layout
    /// its stripes belong.
    ///
    /// # Errors
    ///
    /// Those of open(2) and of the disk; [`Damage::Misplaced`] where it has others.
    pub fn find_or_create(&self, stripe: StripeRef) -> io::Result<Arc<ObjectFile>> {
        let file = self.get(stripe.object, true)?;
        file.claim(stripe.place)?;
        Ok(file)
    }

    /// Whether a request may use the local file that it means, or there is none.
    ///
    /// # Errors
    ///
    /// Those of open(2); [`Damage::Misplaced`] where it has other stripes.
    pub fn admit(&self, stripe: StripeRef) -> io::Result<()> {
        match self.find(stripe.object) {
            Ok(Some(file)) => file.admit(stripe.place),
            Ok(None) => Ok(()),
            // Whoever uses it meets this again.
            Err(error) if Damage::of(&error) == Some(Damage::Lost) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn get(&self, object: ObjectId, create: bool) -> io::Result<Arc<ObjectFile>> {
        self.files.get(object, || {
            self.directory.open_object(object, create, &self.unsettled)
        })
    }

    /// Where the object's data is, or would be.
    #[must_use]
    pub fn path_of(&self, object: ObjectId) -> PathBuf {
        self.directory.object_path(object)
    }

    /// Whether this run of the iod may serve its data.
    #[must_use]
    pub const fn admission(&self) -> &Admission {
        &self.admission
    }

    /// What tells late writes from others.
    #[must_use]
    pub const fn fences(&self) -> &Fences {
        &self.fences
    }

    /// What tells changes that have been made from others.
    #[must_use]
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Cuts the local file to `length` bytes; a shorter one stays as it is. The cut is on disk when
    /// this returns, or bytes that were cut off could come back after a power failure.
    ///
    /// # Errors
    ///
    /// Those of ftruncate(2) and fdatasync(2).
    pub fn truncate(&self, stripe: StripeRef, length: u64) -> io::Result<()> {
        match self.find(stripe.object) {
            Ok(Some(file)) => file.truncate(length),
            Ok(None) => Ok(()),
            // What is left of it stays damaged; what is cut off is no longer missed.
            Err(error) if Damage::of(&error) == Some(Damage::Lost) => {
                self.find_or_create(stripe)?.truncate(length)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the local file, if there is one. Whoever reads it now reads on.
    ///
    /// # Errors
    ///
    /// Those of unlink(2).
    pub fn remove(&self, object: ObjectId) -> io::Result<()> {
        self.files
            .remove(object, || self.directory.remove_object(object))?;
        self.unsynced.remove(object);
        self.suspect.remove(object);
        self.unsettled.remove(object);
        Ok(())
    }

    /// Returns when all that was written to the local file is on disk, and its directory entry too.
    ///
    /// # Errors
    ///
    /// Those of fdatasync(2). After a failure every later sync of the object fails as well, until
    /// the iod is restarted or the object removed: the kernel drops the pages that it could not
    /// write, and a second fdatasync would report success.
    pub fn sync(&self, object: ObjectId) -> io::Result<()> {
        if self.unsynced.contains(object) {
            return Err(io::Error::other("an earlier flush of this object failed"));
        }
        let Some(file) = self.find(object)? else {
            return Ok(());
        };
        let outcome = file.sync(|| self.directory.sync_parent(object));
        if outcome.is_err() {
            self.unsynced.insert(object);
        }
        outcome
    }

    /// Reserves disk space for bytes of the local file, which is made if there is none; its length
    /// and content stay.
    ///
    /// # Errors
    ///
    /// Those of open(2) and fallocate(2).
    pub fn allocate(&self, stripe: StripeRef, offset: u64, length: u64) -> io::Result<()> {
        self.find_or_create(stripe)?.allocate(offset, length)
    }

    /// Makes bytes of the local file zeros and gives their disk space back; its length stays.
    ///
    /// # Errors
    ///
    /// Those of open(2), fallocate(2) and, on a disk without holes, pwrite(2).
    pub fn punch(&self, object: ObjectId, offset: u64, length: u64) -> io::Result<()> {
        match self.find(object)? {
            Some(file) => file.punch(offset, length),
            None => Ok(()),
        }
    }

    /// Where data or a hole is in the local file, from `offset` on; `None` where no data follows.
    /// After the file's end there is a hole.
    ///
    /// # Errors
    ///
    /// Those of open(2) and lseek(2).
    pub fn seek(
        &self,
        object: ObjectId,
        offset: u64,
        target: SeekTarget,
    ) -> io::Result<Option<u64>> {
        match (self.find(object)?, target) {
            (Some(file), SeekTarget::Data) => file.next_data(offset),
            (Some(file), SeekTarget::Hole) => file.next_hole(offset).map(Some),
            (None, SeekTarget::Data) => Ok(None),
            (None, SeekTarget::Hole) => Ok(Some(offset)),
        }
    }

    /// Whether all bytes are there that have been written: `filled` at least.
    ///
    /// # Errors
    ///
    /// [`Damage::Short`]; those of open(2) and fstat(2).
    pub fn check_filled(&self, object: ObjectId, filled: u64) -> io::Result<()> {
        if filled == 0 {
            return Ok(());
        }
        let length = self.stat(object)?.length;
        if length < filled {
            return Err(Damage::Short { length, filled }.into());
        }
        Ok(())
    }

    /// Copies `length` bytes between local files. Where the first ends early, the rest are zeros.
    ///
    /// # Errors
    ///
    /// Those of open(2), pread(2) and pwrite(2); a part may be copied then.
    pub fn copy(
        &self,
        (from, from_offset): (ObjectId, u64),
        (to, to_offset): (StripeRef, u64),
        length: u64,
    ) -> io::Result<()> {
        let source = self.find(from)?;
        let target = self.find_or_create(to)?;
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        let mut done = 0;
        while done < length {
            let rest = usize::try_from(length - done).unwrap_or(COPY_BUFFER_BYTES);
            let Some(piece) = buffer.get_mut(..rest.min(COPY_BUFFER_BYTES)) else {
                break;
            };
            let filled = match &source {
                Some(source) => source.read_at(piece, from_offset + done)?,
                None => 0,
            };
            if let Some(missing) = piece.get_mut(filled..) {
                missing.fill(0);
            }
            target.write_at(piece, to_offset + done)?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    /// Brings checksums that have rested for `idle` to disk, so that they hold after a crash: of one
    /// object after another, until `stop` says so. Returns how many objects are left.
    pub fn settle(&self, idle: Duration, stop: &dyn Fn() -> bool) -> usize {
        let mut left = 0;
        for object in self.unsettled.all() {
            if stop() || !self.settle_object(object, idle) {
                left += 1;
            }
        }
        left
    }

    fn settle_object(&self, object: ObjectId, idle: Duration) -> bool {
        // Taken out first: a write that comes meanwhile puts it in again.
        self.unsettled.remove(object);
        let file = match self.find(object) {
            Ok(Some(file)) => file,
            Ok(None) => return true,
            Err(error) => {
                tracing::warn!("object {object} cannot be settled: {error}");
                return true;
            }
        };
        let sync_entry = || self.directory.sync_parent(object);
        match file.settle(Instant::now(), idle, sync_entry) {
            Ok(true) => true,
            Ok(false) => {
                self.unsettled.insert(object);
                false
            }
            Err(SettleError::Data(error)) => {
                // Its sums stay uncovered, and whoever syncs the object is told.
                self.unsynced.insert(object);
                tracing::error!(
                    "flush of object {object} ({}): {error}",
                    file.path().display()
                );
                true
            }
            Err(SettleError::Sums(error)) => {
                self.unsettled.insert(object);
                let path = file.path().display();
                tracing::warn!("checksums of object {object} ({path}) are not stored yet: {error}");
                false
            }
        }
    }

    /// Length and disk use of the local file; zeros where there is none.
    ///
    /// # Errors
    ///
    /// Those of fstat(2).
    pub fn stat(&self, object: ObjectId) -> io::Result<LocalStat> {
        self.find(object)?
            .map_or_else(|| Ok(LocalStat::default()), |file| file.stat())
    }

    /// What the disk that holds the data directory can take.
    ///
    /// # Errors
    ///
    /// Those of statvfs(3) and stat(2).
    pub fn report(&self) -> io::Result<IodReport> {
        self.directory.report()
    }

    /// The data directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Notes that reading the object failed after its reply had begun.
    pub fn suspect(&self, object: ObjectId) {
        self.suspect.insert(object);
    }

    /// Whether the object must be read in full before its reply begins.
    #[must_use]
    pub fn is_suspect(&self, object: ObjectId) -> bool {
        self.suspect.contains(object)
    }
}

fn kernel_disk() -> Arc<dyn Disk> {
    Arc::new(SpanningDisk::new(Arc::new(KernelDisk), PART_BYTES))
}

/// The largest offset that a local file may reach, exclusive.
///
/// # Errors
///
/// [`FsError::FileTooLarge`] where `offset + length` is beyond it.
pub fn end_of(offset: u64, length: u64) -> Result<u64, FsError> {
    let end = offset
        .checked_add(length)
        .filter(|end| *end <= pvfs::limits::FILE_SIZE_BYTES_MAX);
    end.ok_or(FsError::FileTooLarge)
}

#[cfg(test)]
mod checksum_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
