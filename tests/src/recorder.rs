// SPDX-License-Identifier: MIT
//! A disk that remembers in which order it was written and flushed, so that a test can make what any
//! power cut would have left: a FUSE file system with one directory, in memory. Between two flushes of a
//! file, a real disk may have stored any of its writes, and of each any of its sectors. It can also fail.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use fastrand::Rng;
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};

/// What a disk stores whole or not at all.
const SECTOR_BYTES: usize = 512;
/// What it says that it has: 1 GiB.
const BLOCKS: u64 = 1 << 18;
const BLOCK_BYTES: u32 = 4096;
const TTL: Duration = Duration::from_secs(60);
const ROOT: u64 = 1;

/// What happened to the disk, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A file got a name, made or renamed.
    Name {
        /// Which file: each has a number.
        file: u64,
        /// How it is called now.
        name: String,
    },
    /// Bytes were written.
    Write {
        /// To which file.
        file: u64,
        /// Where.
        offset: usize,
        /// Which.
        bytes: Vec<u8>,
    },
    /// A file's length was set.
    SetLength {
        /// Of which file.
        file: u64,
        /// Bytes.
        length: usize,
    },
    /// What was written to a file before is on the disk.
    Sync(u64),
    /// The names that files had before are on the disk.
    SyncDirectory,
    /// The test has reached a point of its own.
    Mark(usize),
}

/// What a disk that fails answers with `EIO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// Every write; nothing of it is stored.
    Writes,
    /// Every write, of which half is stored.
    TornWrites,
    /// Every flush.
    Flushes,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, (OsString, Vec<u8>)>,
    files_made: u64,
    events: Vec<Event>,
    /// What fails, after so many more that succeed.
    failing: Option<(Failing, usize)>,
}

/// A file system that notes what the kernel asks. Unmounted when it is dropped.
pub struct Recorder {
    state: Arc<Mutex<State>>,
    _session: BackgroundSession,
}

struct Disk(Arc<Mutex<State>>);

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Mounts an empty disk.
    ///
    /// # Errors
    ///
    /// Those of mount(2).
    pub fn mount(point: &Path) -> anyhow::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("recorder".into())];
        config.n_threads = Some(2);
        let session = Session::new(Disk(Arc::clone(&state)), point, &config)
            .context("mounting the recorder")?;
        Ok(Self {
            state,
            _session: session.spawn()?,
        })
    }

    /// Notes that the test has reached a point.
    pub fn mark(&self, number: usize) {
        lock(&self.state).events.push(Event::Mark(number));
    }

    /// Lets the disk fail, after so many more writes or flushes that succeed.
    pub fn fail(&self, what: Failing, after: usize) {
        lock(&self.state).failing = Some((what, after));
    }

    /// Puts a disk that fails in order again.
    pub fn mend(&self) {
        lock(&self.state).failing = None;
    }

    /// What has happened so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        lock(&self.state).events.clone()
    }
}

/// What a power cut after some events may have left of a file: everything before its last flush, and
/// of the rest any sectors.
#[must_use]
pub fn image(events: &[Event], file: u64, rng: &mut Rng) -> Vec<u8> {
    let is_sync = |event: &Event| matches!(event, Event::Sync(of) if *of == file);
    let flushed = events.iter().rposition(is_sync).unwrap_or_default();
    let mut image = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let durable = at < flushed;
        match event {
            Event::Write {
                file: of,
                offset,
                bytes,
            } if *of == file => {
                // Whole, torn, or not at all.
                let fate = rng.u8(..3);
                for (sector, bytes) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    let torn = fate == 1 && rng.bool();
                    if durable || fate == 0 || torn {
                        put(&mut image, offset + sector * SECTOR_BYTES, bytes);
                    }
                }
            }
            Event::SetLength { file: of, length } if *of == file && (durable || rng.bool()) => {
                image.resize(*length, 0);
            }
            _ => {}
        }
    }
    image
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    if let Some(place) = image.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

impl State {
    fn bytes(&mut self, inode: INodeNo) -> Option<&mut Vec<u8>> {
        self.files.get_mut(&inode.0).map(|(_, bytes)| bytes)
    }

    /// What a write or a flush meets.
    fn fate(&mut self, flush: bool) -> Option<Failing> {
        let (what, after) = self.failing.as_mut()?;
        if flush != (*what == Failing::Flushes) {
            return None;
        }
        match after.checked_sub(1) {
            Some(left) => {
                *after = left;
                None
            }
            None => Some(*what),
        }
    }

    fn find(&self, name: &OsStr) -> Option<u64> {
        let found = self.files.iter().find(|(_, (of, _))| of == name);
        found.map(|(file, _)| *file)
    }

    fn attr(&self, inode: u64) -> Option<FileAttr> {
        let (kind, size) = if inode == ROOT {
            (FileType::Directory, 0)
        } else {
            (FileType::RegularFile, self.files.get(&inode)?.1.len())
        };
        Some(FileAttr {
            ino: INodeNo(inode),
            size: size as u64,
            blocks: (size as u64).div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = lock(&self.0);
        match state.find(name).and_then(|file| state.attr(file)) {
            Some(attr) => reply.entry(&TTL, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match lock(&self.0).attr(ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = lock(&self.0);
        let length = size.and_then(|size| usize::try_from(size).ok());
        if let Some((length, bytes)) = length.zip(state.bytes(ino)) {
            bytes.resize(length, 0);
            let file = ino.0;
            state.events.push(Event::SetLength { file, length });
        }
        match state.attr(ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut state = lock(&self.0);
        state.files_made += 1;
        let file = ROOT + state.files_made;
        state.files.insert(file, (name.to_owned(), Vec::new()));
        let name = name.to_string_lossy().into_owned();
        state.events.push(Event::Name { file, name });
        match state.attr(file) {
            Some(attr) => {
                let flags = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&TTL, &attr, Generation(0), FileHandle(0), flags);
            }
            None => reply.error(Errno::EIO),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = lock(&self.0);
        let bytes = state.files.get(&ino.0).map(|(_, bytes)| bytes.as_slice());
        let bytes = bytes.unwrap_or_default();
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let end = start.saturating_add(size as usize).min(bytes.len());
        reply.data(bytes.get(start..end).unwrap_or_default());
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = lock(&self.0);
        let offset = usize::try_from(offset).unwrap_or_default();
        let fate = state.fate(false);
        let stored = match fate {
            None => data,
            Some(Failing::TornWrites) => data.get(..data.len() / 2).unwrap_or_default(),
            Some(Failing::Writes | Failing::Flushes) => return reply.error(Errno::EIO),
        };
        let Some(bytes) = state.bytes(ino) else {
            return reply.error(Errno::ENOENT);
        };
        put(bytes, offset, stored);
        let (file, bytes) = (ino.0, stored.to_vec());
        state.events.push(Event::Write {
            file,
            offset,
            bytes,
        });
        match fate {
            None => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Some(_) => reply.error(Errno::EIO),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let mut state = lock(&self.0);
        if state.fate(true).is_some() {
            return reply.error(Errno::EIO);
        }
        state.events.push(Event::Sync(ino.0));
        reply.ok();
    }

    fn rename(
        &self,
        _req: &Request,
        _parent: INodeNo,
        name: &OsStr,
        _newparent: INodeNo,
        newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut state = lock(&self.0);
        let Some(file) = state.find(name) else {
            return reply.error(Errno::ENOENT);
        };
        if let Some(replaced) = state.find(newname) {
            state.files.remove(&replaced);
        }
        if let Some((of, _)) = state.files.get_mut(&file) {
            *of = newname.to_owned();
        }
        let name = newname.to_string_lossy().into_owned();
        state.events.push(Event::Name { file, name });
        reply.ok();
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = lock(&self.0);
        match state.find(name) {
            Some(file) => {
                state.files.remove(&file);
                reply.ok();
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.0).events.push(Event::SyncDirectory);
        reply.ok();
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        reply: ReplyDirectory,
    ) {
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, 0, 0, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: usize, byte: u8, length: usize) -> Event {
        Event::Write {
            file: 2,
            offset,
            bytes: vec![byte; length],
        }
    }

    #[test]
    fn an_image_has_all_that_was_flushed_and_any_of_the_rest() {
        let events = [
            write(0, 1, 1024),
            Event::Sync(2),
            write(0, 2, 1024),
            Event::Sync(3),
            write(1024, 3, 512),
        ];
        let mut seen = std::collections::BTreeSet::new();
        let mut rng = Rng::with_seed(1);
        for _ in 0..500 {
            let image = image(&events, 2, &mut rng);
            assert!(image.len() == 1024 || image.len() == 1536);
            seen.insert(image.iter().step_by(512).copied().collect::<Vec<u8>>());
        }
        // Each of three sectors in its old or its new state.
        assert_eq!(seen.len(), 8);
        let mut torn = image(&events[..2], 2, &mut rng);
        torn.dedup();
        assert_eq!(torn, [1]);
    }
}
