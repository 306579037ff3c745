// SPDX-License-Identifier: MIT
//! A disk that fails when a test says so: the other implementation of [`Disk`].

use std::ffi::OsString;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use pvfs::proto::report::IodReport;
use pvfs::runtime::net::TcpStream;
use pvfs::runtime::sync::{Arc, Mutex};

use super::LocalStat;
use super::disk::{Disk, KernelDisk, LocalFile, Stamp};

/// What a disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Open,
    Read,
    Write,
    SetLength,
    Sync,
    SyncDirectory,
    Remove,
}

/// Which files fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Data,
    Sums,
    Any,
}

/// A failure to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) act: Act,
    pub(crate) part: Part,
    /// What the call returns.
    pub(crate) errno: i32,
    /// So many of these calls succeed before.
    pub(crate) after: u32,
    /// So many fail; the rest succeeds.
    pub(crate) times: u32,
    /// A write that fails stores so many bytes all the same.
    pub(crate) torn_bytes: usize,
}

impl Fault {
    pub(crate) const fn once(act: Act, part: Part, errno: i32) -> Self {
        Self {
            act,
            part,
            errno,
            after: 0,
            times: 1,
            torn_bytes: 0,
        }
    }

    pub(crate) const fn always(act: Act, part: Part, errno: i32) -> Self {
        Self {
            times: u32::MAX,
            ..Self::once(act, part, errno)
        }
    }
}

/// The kernel's disk, with failures.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    /// Writes store at most so many bytes at once.
    write_bytes_max: Option<usize>,
    /// All calls so far.
    acts: Vec<(Act, Part)>,
}

impl FaultyDisk {
    pub(crate) fn add(&self, fault: Fault) {
        self.state.lock().unwrap().faults.push(fault);
    }

    pub(crate) fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        state.faults.clear();
        state.write_bytes_max = None;
    }

    pub(crate) fn write_at_most(&self, bytes: usize) {
        self.state.lock().unwrap().write_bytes_max = Some(bytes);
    }

    /// How often this was done so far.
    pub(crate) fn count(&self, act: Act, part: Part) -> usize {
        let state = self.state.lock().unwrap();
        let matching = state
            .acts
            .iter()
            .filter(|done| done.0 == act && (part == Part::Any || done.1 == part));
        matching.count()
    }

    /// The failure of this call, and how many bytes a write stores all the same.
    fn act(&self, act: Act, part: Part) -> Result<(), (io::Error, usize)> {
        let mut state = self.state.lock().unwrap();
        state.acts.push((act, part));
        let due = state.faults.iter_mut().find(|fault| {
            fault.act == act && (fault.part == Part::Any || fault.part == part) && fault.times > 0
        });
        match due {
            None => Ok(()),
            Some(fault) if fault.after > 0 => {
                fault.after -= 1;
                Ok(())
            }
            Some(fault) => {
                fault.times = fault
                    .times
                    .saturating_sub(u32::from(fault.times != u32::MAX));
                let error = io::Error::from_raw_os_error(fault.errno);
                Err((error, fault.torn_bytes))
            }
        }
    }

    fn plain(&self, act: Act, part: Part) -> io::Result<()> {
        self.act(act, part).map_err(|(error, _)| error)
    }
}

fn part(path: &Path) -> Part {
    // The sums of a part are in a directory of their own.
    if path.to_string_lossy().contains(".sums") {
        Part::Sums
    } else {
        Part::Data
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn LocalFile>> {
        self.plain(Act::Open, part(path))?;
        Ok(Box::new(FaultyFile {
            file: KernelDisk.open(path, create)?,
            part: part(path),
            disk: self.clone(),
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.plain(Act::Remove, part(path))?;
        KernelDisk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.plain(Act::SyncDirectory, Part::Any)?;
        KernelDisk.sync_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        KernelDisk.list(path)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.plain(Act::Open, part(path))?;
        KernelDisk.make_directory(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.plain(Act::Remove, part(path))?;
        KernelDisk.remove_directory(path)
    }

    fn report(&self, path: &Path) -> io::Result<IodReport> {
        KernelDisk.report(path)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn LocalFile>,
    part: Part,
    disk: FaultyDisk,
}

impl LocalFile for FaultyFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.plain(Act::Read, self.part)?;
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if let Err((error, torn)) = self.disk.act(Act::Write, self.part) {
            self.file
                .write_full(&bytes[..torn.min(bytes.len())], offset)?;
            return Err(error);
        }
        let limit = self.disk.state.lock().unwrap().write_bytes_max;
        let length = bytes.len().min(limit.unwrap_or(usize::MAX));
        self.file.write_at(&bytes[..length], offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.disk.plain(Act::SetLength, self.part)?;
        self.file.set_length(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.plain(Act::Sync, self.part)?;
        self.file.sync()
    }

    fn stat(&self) -> io::Result<LocalStat> {
        self.file.stat()
    }

    fn stamp(&self) -> io::Result<Stamp> {
        self.file.stamp()
    }

    fn allocate(&self, offset: u64, length: u64) -> nix::Result<()> {
        self.disk.plain(Act::Write, self.part).map_err(errno)?;
        self.file.allocate(offset, length)
    }

    fn punch(&self, offset: u64, length: u64) -> nix::Result<()> {
        self.disk.plain(Act::Write, self.part).map_err(errno)?;
        self.file.punch(offset, length)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.file.next_hole(offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.next_data(offset)
    }

    fn forget(&self, offset: u64, length: u64) -> nix::Result<()> {
        self.file.forget(offset, length)
    }

    fn send(&self, stream: &TcpStream, offset: u64, length: usize) -> nix::Result<usize> {
        self.disk.plain(Act::Read, self.part).map_err(errno)?;
        self.file.send(stream, offset, length)
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
