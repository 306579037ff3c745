// SPDX-License-Identifier: MIT
//! From fuser's callbacks to [`Pvfs`] and back. Nothing outside this folder names fuser's request
//! and reply types.

mod convert;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use pvfs::attr::{Attr, FileKind, SetAttr};
use pvfs::error::FsError;
use pvfs::limits::NAME_BYTES_MAX;

use convert::{
    access_of, caller, errno, file_attr, file_type, generation, kind_of_mode, permissions,
    rename_mode, set_time, xattr_mode,
};

use crate::fs::{
    DirectoryEntryRef, DirectorySink, NewNode, Opened, Pvfs, REQUEST_BYTES_MAX, ReadSink,
    WriteRequest,
};

/// Readahead and other background requests that the kernel may have under way: two readers with
/// 16 MiB each.
const BACKGROUND_REQUESTS_MAX: u16 = 64;
/// Unit of `statfs(2)`.
const STATFS_BLOCK_BYTES: u32 = 4096;

/// Room for entries that is assumed in a reply: fuser does not say how much the kernel gave. More
/// entries than fit are asked for again.
const DIRECTORY_REPLY_BYTES: usize = 32 << 10;

/// A file system for fuser.
pub struct Adapter {
    fs: Arc<Pvfs>,
    /// How long the kernel may keep names and attributes.
    ttl: Duration,
}

impl Adapter {
    /// Serves `fs`; the kernel may keep names and attributes for `ttl`.
    #[must_use]
    pub const fn new(fs: Arc<Pvfs>, ttl: Duration) -> Self {
        Self { fs, ttl }
    }

    fn entry(&self, reply: ReplyEntry, outcome: Result<Attr, FsError>) {
        match outcome {
            Ok(attr) => reply.entry(&self.ttl, &file_attr(&attr), generation(&attr)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn attr(&self, reply: ReplyAttr, outcome: Result<Attr, FsError>) {
        match outcome {
            Ok(attr) => reply.attr(&self.ttl, &file_attr(&attr)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn open_flags(&self, opened: &Opened) -> FopenFlags {
        let mut flags = FopenFlags::empty();
        if self.fs.options().direct_io {
            flags |= FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        } else if opened.keep_pages {
            flags |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        if !opened.flushes {
            flags |= FopenFlags::FOPEN_NOFLUSH;
        }
        flags
    }
}

fn empty(reply: ReplyEmpty, outcome: Result<(), FsError>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

/// A value or list of extended attributes: its size if the caller asks for that, else itself.
fn xattr(reply: ReplyXattr, size: u32, outcome: Result<Vec<u8>, FsError>) {
    match outcome {
        Ok(value) => match (size, u32::try_from(value.len())) {
            (0, Ok(length)) => reply.size(length),
            (size, Ok(length)) if length <= size => reply.data(&value),
            (_, _) => reply.error(errno(FsError::Range)),
        },
        Err(error) => reply.error(errno(error)),
    }
}

impl ReadSink for ReplyData {
    fn data(self, bytes: &[u8]) {
        Self::data(self, bytes);
    }
}

impl DirectorySink for ReplyDirectory {
    fn is_full_after(&mut self, entry: &DirectoryEntryRef<'_>) -> bool {
        let name = OsStr::from_bytes(entry.name);
        self.add(
            INodeNo(entry.inode.0),
            entry.offset,
            file_type(entry.kind),
            name,
        )
    }
}

/// fuser's reply and how long the kernel may keep what is in it.
struct PlusSink {
    reply: ReplyDirectoryPlus,
    ttl: Duration,
}

impl DirectorySink for PlusSink {
    fn is_full_after(&mut self, entry: &DirectoryEntryRef<'_>) -> bool {
        let Some(attr) = entry.attr else { return false };
        let inode = INodeNo(entry.inode.0);
        let name = OsStr::from_bytes(entry.name);
        self.reply.add(
            inode,
            entry.offset,
            name,
            &self.ttl,
            &file_attr(attr),
            generation(attr),
        )
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let request_bytes = u32::try_from(REQUEST_BYTES_MAX).unwrap_or(u32::MAX);
        // Each refusal names what the kernel can do instead, and it does that.
        let _ = config.set_max_write(request_bytes);
        let _ = config.set_max_background(BACKGROUND_REQUESTS_MAX);
        let mut wanted = vec![
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            // A link's target never changes: another one is another inode.
            InitFlags::FUSE_CACHE_SYMLINKS,
        ];
        if !self.ttl.is_zero() {
            // Entries that expire at once would be looked up again each.
            wanted.push(InitFlags::FUSE_DO_READDIRPLUS);
            wanted.push(InitFlags::FUSE_READDIRPLUS_AUTO);
        }
        if self.fs.options().direct_io {
            wanted.push(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        }
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!("the kernel lacks {flag:?}");
            }
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(
            reply,
            self.fs.lookup(caller(request), parent.0, name.as_bytes()),
        );
    }

    fn forget(&self, _request: &Request, ino: INodeNo, _nlookup: u64) {
        self.fs.forget(ino.0);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.attr(reply, self.fs.getattr(ino.0));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            mode: mode.map(permissions),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
        };
        self.attr(
            reply,
            self.fs
                .setattr(caller(request), ino.0, set, fh.map(|fh| fh.0)),
        );
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.fs.readlink(caller(request), ino.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some(kind) = kind_of_mode(mode) else {
            return reply.error(errno(FsError::InvalidArgument));
        };
        let node = NewNode {
            kind,
            mode: permissions(mode),
            rdev,
        };
        self.entry(
            reply,
            self.fs
                .make_node(caller(request), parent.0, name.as_bytes(), node),
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let node = NewNode {
            kind: FileKind::Directory,
            mode: permissions(mode),
            rdev: 0,
        };
        self.entry(
            reply,
            self.fs
                .make_node(caller(request), parent.0, name.as_bytes(), node),
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(
            reply,
            self.fs.unlink(caller(request), parent.0, name.as_bytes()),
        );
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(
            reply,
            self.fs.rmdir(caller(request), parent.0, name.as_bytes()),
        );
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes();
        let made = self
            .fs
            .symlink(caller(request), parent.0, link_name.as_bytes(), target);
        self.entry(reply, made);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let from = (parent.0, name.as_bytes());
        let to = (newparent.0, newname.as_bytes());
        let renamed =
            rename_mode(flags).and_then(|mode| self.fs.rename(caller(request), from, to, mode));
        empty(reply, renamed);
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let made = self
            .fs
            .link(caller(request), ino.0, newparent.0, newname.as_bytes());
        self.entry(reply, made);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let truncate = flags.0 & libc::O_TRUNC != 0;
        match self
            .fs
            .open(caller(request), ino.0, access_of(flags), truncate)
        {
            Ok(opened) => reply.opened(FileHandle(opened.handle), self.open_flags(&opened)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = usize::try_from(size).unwrap_or(REQUEST_BYTES_MAX);
        if let Err((reply, error)) = self.fs.read(fh.0, offset, length, reply) {
            reply.error(errno(error));
        }
    }

    fn write(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let drops_privileges = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let write = WriteRequest {
            handle: fh.0,
            offset,
            bytes: data,
            drops_privileges,
        };
        match self.fs.write(caller(request), &write) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.fs.flush(fh.0));
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.release(fh.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.fs.fsync(fh.0));
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let room = (DIRECTORY_REPLY_BYTES, false);
        match self
            .fs
            .readdir(caller(request), ino.0, offset, room, &mut reply)
        {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let mut sink = PlusSink {
            reply,
            ttl: self.ttl,
        };
        let room = (DIRECTORY_REPLY_BYTES, true);
        match self
            .fs
            .readdir(caller(request), ino.0, offset, room, &mut sink)
        {
            Ok(()) => sink.reply.ok(),
            Err(error) => sink.reply.error(errno(error)),
        }
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        // mgr's replies are durable.
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.fs.statfs() {
            Ok(totals) => {
                let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK_BYTES);
                reply.statfs(
                    blocks(totals.space.bytes_total),
                    blocks(totals.space.bytes_free),
                    blocks(totals.space.bytes_available),
                    totals.inodes_used.saturating_add(totals.inodes_free),
                    totals.inodes_free,
                    STATFS_BLOCK_BYTES,
                    u32::try_from(NAME_BYTES_MAX).unwrap_or(u32::MAX),
                    STATFS_BLOCK_BYTES,
                );
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let attribute = (name.as_bytes(), value);
        let set = xattr_mode(flags)
            .and_then(|mode| self.fs.setxattr(caller(request), ino.0, attribute, mode));
        empty(reply, set);
    }

    fn getxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        xattr(
            reply,
            size,
            self.fs.getxattr(caller(request), ino.0, name.as_bytes()),
        );
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        xattr(reply, size, self.fs.listxattr(caller(request), ino.0));
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(
            reply,
            self.fs.removexattr(caller(request), ino.0, name.as_bytes()),
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let access = access_of(OpenFlags(flags));
        let how = (flags & libc::O_EXCL != 0, flags & libc::O_TRUNC != 0);
        let place = (parent.0, name.as_bytes());
        match self
            .fs
            .create(caller(request), place, permissions(mode), access, how)
        {
            Ok(opened) => reply.created(
                &self.ttl,
                &file_attr(&opened.attr),
                generation(&opened.attr),
                FileHandle(opened.handle),
                self.open_flags(&opened),
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        // posix_fallocate(3) then writes zeros.
        reply.error(errno(FsError::NotSupported));
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The kernel copies through its page cache instead, and does not ask again.
        reply.error(Errno::ENOSYS);
    }
}
