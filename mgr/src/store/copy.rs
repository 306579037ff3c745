// SPDX-License-Identifier: MIT
//! A copy of the store's file while the store is in use, for a backup (docs/decisions/0120).
//!
//! ```text
//!   LMDB's map --- a read transaction copies ---> pipe ---> file without a name ---> looked at
//! ```
//!
//! The read transaction lasts as long as this machine's disk takes, whoever wants the copy and however
//! slow that is: while it lasts, pages that go out of use are not used again and the store grows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use heed::{CompactionOption, Env, WithoutTls};
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use thiserror::Error;

use super::StoreError;
use super::integrity::{IntegrityError, Verified, verify};
use super::lmdb::{FILE_MODE, Room};

/// The copy's name for the moment until it has none: an end of the process leaves no copy behind.
const NAME: &str = "backup.part";
/// Bytes that are read from the pipe at once.
const PIECE_BYTES: usize = 1 << 20;
/// So much of the copy is written before it is waited for: commits beside it wait no longer than that.
const PACE_BYTES: u64 = 8 << 20;

/// Why there is no copy.
#[derive(Debug, Error)]
pub enum CopyError {
    /// It would take the room that mgr keeps free.
    #[error(
        "a copy of {bytes} bytes does not fit on the disk of the data directory, {room} bytes of which \
         may be used"
    )]
    NoRoom {
        /// What it takes.
        bytes: u64,
        /// What there is.
        room: u64,
    },
    /// The store has grown too much beside it.
    #[error(
        "the store has grown by {0} bytes while it was copied, more than a copy may cost: try again \
         when less is changed"
    )]
    Grown(u64),
    /// Nobody wants it any more.
    #[error("nobody asks for it any more")]
    Abandoned,
    /// The copy cannot be written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// LMDB does not give it.
    #[error("LMDB: {0}")]
    Lmdb(#[from] heed::Error),
    /// The store's own room cannot be seen.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// It is not what was committed.
    #[error("the store is damaged: {0}")]
    Damaged(#[from] IntegrityError),
}

/// How far a copy is, for all to see.
#[derive(Debug, Default)]
pub struct Going {
    /// Bytes that are copied.
    pub bytes_done: AtomicU64,
    /// Bytes of the whole: about, until all are copied.
    pub bytes_total: AtomicU64,
    /// All are, and their checksums are compared.
    pub is_checking: AtomicBool,
    /// Nobody wants it any more.
    pub is_abandoned: AtomicBool,
}

/// A copy that is what was committed at one moment.
#[derive(Debug)]
pub struct StoreCopy {
    file: File,
    /// Bytes of it.
    pub bytes: u64,
    /// What is in it.
    pub verified: Verified,
}

impl StoreCopy {
    /// Bytes from an offset on, at most `bytes_max`; none at the end.
    ///
    /// # Errors
    ///
    /// Those of pread(2).
    pub fn read(&self, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(bytes_max)];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// Makes copies of an open store.
#[derive(Clone, Debug)]
pub struct Copier {
    pub(super) env: Env<WithoutTls>,
    pub(super) directory: PathBuf,
    pub(super) page_bytes: u64,
    pub(super) map_bytes: u64,
    /// The store may grow by so much beside a copy, bytes.
    pub(super) growth_bytes_max: u64,
}

impl Copier {
    /// Copies the store as it is now and looks at the copy as a start of mgr does.
    ///
    /// # Errors
    ///
    /// [`CopyError`]; nothing is left then.
    pub fn copy(&self, going: &Going) -> Result<StoreCopy, CopyError> {
        let bytes = self.bytes();
        going.bytes_total.store(bytes, Ordering::Relaxed);
        let room = Room::on_disk_of(&self.directory)?.usable();
        if bytes > room {
            return Err(CopyError::NoRoom { bytes, room });
        }
        let file = self.unnamed()?;
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
        let (mut reader, mut writer) = (File::from(reader), File::from(writer));
        let bytes = std::thread::scope(|scope| {
            let copying = std::thread::Builder::new()
                .name("store-copy".to_owned())
                .spawn_scoped(scope, move || {
                    let keeping_numbers = CompactionOption::Disabled;
                    self.env.copy_to_file(&mut writer, keeping_numbers)
                })?;
            let written = self.write_all(&mut reader, &file, (bytes, going));
            // Where that failed, the copying ends at the pipe that nobody reads.
            drop(reader);
            let copied = copying.join();
            let bytes = written?;
            copied.map_err(|_| io::Error::other("the copying thread panicked"))??;
            Ok::<_, CopyError>(bytes)
        })?;
        going.bytes_total.store(bytes, Ordering::Relaxed);
        going.is_checking.store(true, Ordering::Relaxed);
        let verified = verify(&file, self.map_bytes)?;
        Ok(StoreCopy {
            file,
            bytes,
            verified,
        })
    }

    /// Bytes of all pages that have ever been in use.
    fn bytes(&self) -> u64 {
        (self.env.info().last_page_number as u64 + 1).saturating_mul(self.page_bytes)
    }

    fn unnamed(&self) -> io::Result<File> {
        let path = self.directory.join(NAME);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }

    /// Writes what comes out of the pipe, at the pace of the disk.
    fn write_all(
        &self,
        pipe: &mut File,
        mut file: &File,
        (bytes_before, going): (u64, &Going),
    ) -> Result<u64, CopyError> {
        let mut piece = vec![0; PIECE_BYTES];
        let (mut done, mut synced) = (0, 0);
        loop {
            let length = pipe.read(&mut piece)?;
            let read = piece.get(..length).unwrap_or_default();
            file.write_all(read)?;
            done += length as u64;
            going.bytes_done.store(done, Ordering::Relaxed);
            if length > 0 && done - synced < PACE_BYTES {
                continue;
            }
            file.sync_data()?;
            // The page cache is for what mgr works with, and the check reads from the disk then.
            posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
                .map_err(io::Error::from)?;
            synced = done;
            if length == 0 {
                return Ok(done);
            }
            self.may_go_on(bytes_before, going)?;
        }
    }

    /// Whether the copy costs no more than it may, and is wanted.
    fn may_go_on(&self, bytes_before: u64, going: &Going) -> Result<(), CopyError> {
        if going.is_abandoned.load(Ordering::Relaxed) {
            return Err(CopyError::Abandoned);
        }
        let grown = self.bytes().saturating_sub(bytes_before);
        if grown > self.growth_bytes_max {
            return Err(CopyError::Grown(grown));
        }
        let room = Room::on_disk_of(&self.directory)?;
        match room.available > room.reserve {
            true => Ok(()),
            false => Err(CopyError::NoRoom {
                bytes: going.bytes_total.load(Ordering::Relaxed),
                room: room.usable(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::lmdb::{LmdbStore, METADATA_BYTES_MIN};

    #[test]
    fn a_copy_may_cost_growth_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a");
        LmdbStore::create(&data).unwrap();
        let store = LmdbStore::open(&data, METADATA_BYTES_MIN).unwrap();
        let mut copier = store.copier().unwrap();
        let bytes = copier.bytes();
        copier.growth_bytes_max = bytes;
        assert!(copier.may_go_on(0, &Going::default()).is_ok());
        copier.growth_bytes_max = bytes - 1;
        let outcome = copier.may_go_on(0, &Going::default());
        assert!(matches!(outcome, Err(CopyError::Grown(grown)) if grown == bytes));
    }
}
