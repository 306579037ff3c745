// SPDX-License-Identifier: MIT
//! A FUSE file system that does nothing as fast as it can: what the kernel and fuser cost alone.
//!
//! Its files `data0`, `data1`, ... have a fixed size and hold zeros; any other file can be created
//! and written, which changes nothing but a counter.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};

const TTL: Duration = Duration::from_secs(60);
/// Inodes of `data0` and on; those above [`FIRST_CREATED`] were created.
const FIRST_DATA: u64 = 2;
const FIRST_CREATED: u64 = 1000;
/// Directories made by the loads, a few.
const FIRST_DIRECTORY: u64 = 100;
/// Requests as large as PVFS's own.
const REQUEST_BYTES: usize = 1 << 20;
/// Read-ahead as PVFS sets it, KiB.
const READ_AHEAD_KIB: u32 = 8192;
const THREADS: usize = 4;

struct NullFs {
    size: u64,
    next: AtomicU64,
    next_directory: AtomicU64,
    zeros: Vec<u8>,
    /// Where the page-aligned part of `zeros` starts.
    start: usize,
}

/// Mounts it; unmounted when the session is dropped.
pub fn mount(point: &Path, size: u64) -> anyhow::Result<BackgroundSession> {
    let zeros = vec![0; REQUEST_BYTES + 4096];
    let start = (zeros.as_ptr() as usize).wrapping_neg() % 4096;
    let (next, next_directory) = (
        AtomicU64::new(FIRST_CREATED),
        AtomicU64::new(FIRST_DIRECTORY),
    );
    let fs = NullFs {
        size,
        next,
        next_directory,
        zeros,
        start,
    };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("null".into()),
        MountOption::CUSTOM("subtype=null".into()),
    ];
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let session = Session::new(fs, point, &config).context("mounting the null file system")?;
    let session = session.spawn()?;
    set_read_ahead(point)?;
    Ok(session)
}

fn set_read_ahead(point: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(point)?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    std::fs::write(&path, READ_AHEAD_KIB.to_string()).context(path)
}

impl NullFs {
    fn attr(&self, inode: u64) -> FileAttr {
        let directory = inode == 1 || (FIRST_DIRECTORY..FIRST_CREATED).contains(&inode);
        FileAttr {
            ino: INodeNo(inode),
            size: if inode < FIRST_DIRECTORY {
                self.size
            } else {
                0
            },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if directory {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for NullFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // What an older kernel does not take is measured without.
        let _ = config.set_max_write(u32::try_from(REQUEST_BYTES).unwrap_or(u32::MAX));
        let _ = config.set_max_background(64);
        for flag in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
        ] {
            let _ = config.add_capabilities(flag);
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("data")?.parse::<u64>().ok());
        match number {
            Some(number) => {
                reply.entry(&TTL, &self.attr(FIRST_DATA + number), Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino.0));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
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
        reply.attr(&TTL, &self.attr(ino.0));
    }

    /// Whatever was created, a directory is empty, so that it can be removed.
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

    fn rmdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.ok();
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn mkdir(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let inode = self.next_directory.fetch_add(1, Ordering::Relaxed);
        reply.entry(&TTL, &self.attr(inode), Generation(0));
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let inode = self.next.fetch_add(1, Ordering::Relaxed);
        let attr = self.attr(inode);
        reply.created(
            &TTL,
            &attr,
            Generation(0),
            FileHandle(0),
            FopenFlags::empty(),
        );
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = u64::from(size).min(self.size.saturating_sub(offset));
        let end = self.start + usize::try_from(length).unwrap_or(0);
        reply.data(self.zeros.get(self.start..end).unwrap_or_default());
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
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
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }
}
