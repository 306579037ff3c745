// SPDX-License-Identifier: MIT
//! The local disk as a trait: what the store does to files, so that tests can put a disk in its
//! place that fails (`super::faulty`).

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::unistd::{Whence, lseek};
use pvfs::proto::report::IodReport;
use pvfs::runtime::net::{TcpStream, send_file};

use super::LocalStat;

/// Permission bits of directories in a data directory: stripes are read through a mount.
pub(super) const DIRECTORY_MODE: u32 = 0o700;
/// Permission bits of files there.
pub(super) const FILE_MODE: u32 = 0o600;
/// Unit of `st_blocks` (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;

/// Tells a file that was touched from one that was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Length, bytes.
    pub length: u64,
    /// Modification time, nanoseconds since 1970; it wraps after centuries.
    pub modified_ns: i64,
    /// Time of the last change of anything, likewise.
    pub changed_ns: i64,
}

/// An open local file. Each call is one system call and fails as it does.
pub trait LocalFile: Debug + Send + Sync {
    /// pread(2).
    ///
    /// # Errors
    ///
    /// Those of the call.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// pwrite(2).
    ///
    /// # Errors
    ///
    /// Those of the call.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// ftruncate(2).
    ///
    /// # Errors
    ///
    /// Those of the call.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// fdatasync(2).
    ///
    /// # Errors
    ///
    /// Those of the call.
    fn sync(&self) -> io::Result<()>;

    /// fstat(2).
    ///
    /// # Errors
    ///
    /// Those of the call.
    fn stat(&self) -> io::Result<LocalStat>;

    /// fstat(2) for the length in bytes alone.
    ///
    /// # Errors
    ///
    /// Those of the call.
    fn length(&self) -> io::Result<u64> {
        Ok(self.stat()?.length)
    }

    /// fstat(2) for times.
    ///
    /// # Errors
    ///
    /// Those of the call.
    fn stamp(&self) -> io::Result<Stamp>;

    /// fallocate(2) that reserves space: length and content stay.
    ///
    /// # Errors
    ///
    /// Those of the call.
    fn allocate(&self, offset: u64, length: u64) -> nix::Result<()>;

    /// fallocate(2) that makes a hole: the length stays.
    ///
    /// # Errors
    ///
    /// Those of the call.
    fn punch(&self, offset: u64, length: u64) -> nix::Result<()>;

    /// The first offset from `offset` on that is in a hole or where the file has ended.
    ///
    /// # Errors
    ///
    /// Those of lseek(2).
    fn next_hole(&self, offset: u64) -> io::Result<u64>;

    /// The first offset from `offset` on that is not in a hole; `None` where only a hole follows.
    ///
    /// # Errors
    ///
    /// Those of lseek(2).
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;

    /// posix_fadvise(2): lets the page cache forget what it has of a range and is not dirty, so that
    /// the next read is the disk's.
    ///
    /// # Errors
    ///
    /// Those of the call.
    fn forget(&self, offset: u64, length: u64) -> nix::Result<()>;

    /// sendfile(2): bytes sent, 0 at the file's end.
    ///
    /// # Errors
    ///
    /// Those of the call.
    fn send(&self, stream: &TcpStream, offset: u64, length: usize) -> nix::Result<usize>;

    /// Fills `bytes` from `offset` on as far as the file goes; returns how far.
    ///
    /// # Errors
    ///
    /// Those of pread(2).
    fn read_full(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Stores all of `bytes` at `offset`.
    ///
    /// # Errors
    ///
    /// Those of pwrite(2); a part may be stored then.
    fn write_full(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.write_at(rest, offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A disk with directories.
pub trait Disk: Send + Sync {
    /// Opens a file for reading and writing, making it if told so.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn LocalFile>>;

    /// Removes a file; no error where there is none.
    ///
    /// # Errors
    ///
    /// Those of unlink(2).
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// Those of fsync(2).
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory; none where there is none.
    ///
    /// # Errors
    ///
    /// Those of readdir(3).
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Makes a directory; no error where there is one.
    ///
    /// # Errors
    ///
    /// Those of mkdir(2).
    fn make_directory(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory; no error where there is none.
    ///
    /// # Errors
    ///
    /// Those of rmdir(2).
    fn remove_directory(&self, path: &Path) -> io::Result<()>;

    /// Which disk a directory is on, and what it can take.
    ///
    /// # Errors
    ///
    /// Those of statvfs(3) and stat(2).
    fn report(&self, path: &Path) -> io::Result<IodReport>;
}

/// An outcome where to find it done already is no failure.
fn done_already(outcome: io::Result<()>, already: io::ErrorKind) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == already => Ok(()),
        outcome => outcome,
    }
}

/// The kernel's.
#[derive(Clone, Copy, Debug)]
pub struct KernelDisk;

impl Disk for KernelDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn LocalFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create);
        options.mode(FILE_MODE);
        Ok(Box::new(options.open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        done_already(fs::remove_file(path), io::ErrorKind::NotFound)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        match fs::read_dir(path) {
            Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let made = DirBuilder::new().mode(DIRECTORY_MODE).create(path);
        done_already(made, io::ErrorKind::AlreadyExists)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        done_already(fs::remove_dir(path), io::ErrorKind::NotFound)
    }

    fn report(&self, path: &Path) -> io::Result<IodReport> {
        super::report::report(path)
    }
}

impl LocalFile for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn stat(&self) -> io::Result<LocalStat> {
        let metadata = self.metadata()?;
        Ok(LocalStat {
            length: metadata.len(),
            allocated: metadata.blocks().saturating_mul(STAT_BLOCK_BYTES),
        })
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let metadata = self.metadata()?;
        let ns = |seconds: i64, ns: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(ns);
        Ok(Stamp {
            length: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn allocate(&self, offset: u64, length: u64) -> nix::Result<()> {
        change_space(self, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length)
    }

    fn punch(&self, offset: u64, length: u64) -> nix::Result<()> {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        change_space(self, hole, offset, length)
    }

    // Nothing relies on the file's own offset, which lseek(2) moves.
    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        let Ok(from) = i64::try_from(offset) else {
            return Ok(offset);
        };
        match lseek(self, from, Whence::SeekHole) {
            Ok(found) => Ok(u64::try_from(found).unwrap_or(offset)),
            Err(Errno::ENXIO) => Ok(offset),
            Err(errno) => Err(errno.into()),
        }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let Ok(from) = i64::try_from(offset) else {
            return Ok(None);
        };
        match lseek(self, from, Whence::SeekData) {
            Ok(found) => Ok(u64::try_from(found).ok()),
            Err(Errno::ENXIO) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn forget(&self, offset: u64, length: u64) -> nix::Result<()> {
        let signed = |number| i64::try_from(number).map_err(|_| Errno::EFBIG);
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        posix_fadvise(self, signed(offset)?, signed(length)?, advice)
    }

    fn send(&self, stream: &TcpStream, offset: u64, length: usize) -> nix::Result<usize> {
        let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        send_file(stream, self, offset, length)
    }
}

fn change_space(file: &File, flags: FallocateFlags, offset: u64, length: u64) -> nix::Result<()> {
    let signed = |number| i64::try_from(number).map_err(|_| Errno::EFBIG);
    let (offset, length) = (signed(offset)?, signed(length)?);
    loop {
        match fallocate(file, flags, offset, length) {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}
