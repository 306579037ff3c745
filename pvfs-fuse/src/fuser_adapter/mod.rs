// SPDX-License-Identifier: MIT
//! From fuser's callbacks to [`Pvfs`] and back. Nothing outside this folder names fuser's request
//! and reply types.

mod convert;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use pvfs::attr::{Attr, FileKind, SetAttr};
use pvfs::error::FsError;
use pvfs::limits::NAME_BYTES_MAX;
use pvfs::proto::lock::LockKind;

use convert::{
    allocation, caller, errno, file_attr, file_type, generation, kind_of_mode, lock_kind, open_how,
    permissions, rename_mode, seek_target, set_time, xattr_mode,
};

use crate::fs::workers::Workers;
use crate::fs::{
    CopyPlace, DirectoryEntryRef, DirectorySink, Kernel, LockPlace, NewNode, Opened, Pvfs,
    REQUEST_BYTES_MAX, ReadRequest, ReadSink, WriteRequest,
};

/// Readahead and other background requests that the kernel may have under way. Where so many wait for
/// an iod that is away, the next one waits in the kernel, with its pages locked, whatever it is about: so
/// it is the largest number that there is. How much each reader asks for is bounded by its readahead.
const BACKGROUND_REQUESTS_MAX: u16 = u16::MAX;
/// Unit of `statfs(2)`.
const STATFS_BLOCK_BYTES: u32 = 4096;

/// Room for entries that is assumed in a reply: fuser does not say how much the kernel gave. More
/// entries than fit are asked for again.
const DIRECTORY_REPLY_BYTES: usize = 32 << 10;

/// One session thread of so many takes requests and hands them to other threads while all others of
/// them are busy. At least one does: a request that no thread takes waits for all who wait.
const THREADS_PER_DISPATCHER: usize = 4;

/// A file system for fuser.
pub struct Adapter {
    fs: Arc<Pvfs>,
    /// How long the kernel may keep names and attributes.
    ttl: Duration,
    /// Session threads that are serving a request, any of which may have to wait for a daemon.
    busy: AtomicUsize,
    overflow: Workers,
}

/// The kernel's page cache, by FUSE's notifications.
pub struct PageDropper(fuser::Notifier);

impl PageDropper {
    /// Of the mount of this notifier.
    #[must_use]
    pub const fn new(notifier: fuser::Notifier) -> Self {
        Self(notifier)
    }
}

impl Kernel for PageDropper {
    fn drop_pages(&self, inode: u64, offset: u64, length: Option<u64>) {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        // 0 is everything from there on.
        let length = length.map_or(0, |length| i64::try_from(length).unwrap_or(0));
        if let Err(error) = self.0.inval_inode(INodeNo(inode), offset, length) {
            // After the unmount there are no pages.
            tracing::debug!("dropping pages of inode {inode}: {error}");
        }
    }
}

impl Adapter {
    /// Serves `fs`; the kernel may keep names and attributes for `ttl`.
    #[must_use]
    pub fn new(fs: Arc<Pvfs>, ttl: Duration) -> Self {
        Self {
            fs,
            ttl,
            busy: AtomicUsize::new(0),
            overflow: Workers::new("overflow"),
        }
    }

    /// Runs a request, which may have to wait for a daemon and so for other clients: here, or in another
    /// thread while too many wait. The caller may be interrupted meanwhile.
    fn run(&self, request: &Request, job: impl FnOnce(&Arc<Pvfs>) + Send + 'static) {
        let caller = caller(request);
        self.run_for_nobody(move |fs| caller.serve(|| job(fs)));
    }

    /// The same for a request whose caller does not wait.
    fn run_for_nobody(&self, job: impl FnOnce(&Arc<Pvfs>) + Send + 'static) {
        match self.stay() {
            Some(_busy) => job(&self.fs),
            None => self.hand_over(job),
        }
    }

    fn hand_over(&self, job: impl FnOnce(&Arc<Pvfs>) + Send + 'static) {
        let fs = Arc::clone(&self.fs);
        self.overflow.run(move || job(&fs));
    }

    /// Lets this session thread serve a request itself; `None` where too many do.
    fn stay(&self) -> Option<Busy<'_>> {
        let threads = self.fs.options().threads;
        let limit = threads - threads.div_ceil(THREADS_PER_DISPATCHER);
        let busy = Busy(&self.busy);
        (self.busy.fetch_add(1, Ordering::AcqRel) < limit).then_some(busy)
    }
}

/// A session thread that serves a request, or was about to.
struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn entry(reply: ReplyEntry, ttl: Duration, outcome: Result<Attr, FsError>) {
    match outcome {
        Ok(attr) => reply.entry(&ttl, &file_attr(&attr), generation(&attr)),
        Err(error) => reply.error(errno(error)),
    }
}

fn attr(reply: ReplyAttr, ttl: Duration, outcome: Result<Attr, FsError>) {
    match outcome {
        Ok(attr) => reply.attr(&ttl, &file_attr(&attr)),
        Err(error) => reply.error(errno(error)),
    }
}

const fn open_flags(opened: &Opened) -> FopenFlags {
    // Pages that are not right have been dropped when their lease went. Every close is to be flushed:
    // it may end locks.
    match opened.direct {
        true => FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES),
        false => FopenFlags::FOPEN_KEEP_CACHE,
    }
}

fn written(reply: ReplyWrite, outcome: Result<usize, FsError>) {
    match outcome {
        Ok(length) => reply.written(u32::try_from(length).unwrap_or(u32::MAX)),
        Err(error) => reply.error(errno(error)),
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
            // A file that several nodes write to may still be mapped.
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            // mgr says when pages are no longer right; a new size alone does not make them so.
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            // mgr holds locks for all nodes.
            InitFlags::FUSE_POSIX_LOCKS,
            InitFlags::FUSE_FLOCK_LOCKS,
            // A link's target never changes: another one is another inode.
            InitFlags::FUSE_CACHE_SYMLINKS,
            // Whether the umask counts depends on the directory's default access control list.
            InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_POSIX_ACL,
            // An inode is found by its number alone, by `.` in it: file handles outlive the mount.
            InitFlags::FUSE_EXPORT_SUPPORT,
        ];
        if !self.ttl.is_zero() {
            // Entries that expire at once would be looked up again each.
            wanted.push(InitFlags::FUSE_DO_READDIRPLUS);
            wanted.push(InitFlags::FUSE_READDIRPLUS_AUTO);
        }
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!("the kernel lacks {flag:?}");
            }
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (caller, ttl, name) = (caller(request), self.ttl, name.as_bytes().to_vec());
        self.run(request, move |fs| {
            entry(reply, ttl, fs.lookup(caller, parent.0, &name))
        });
    }

    fn forget(&self, _request: &Request, ino: INodeNo, _nlookup: u64) {
        self.fs.forget(ino.0);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let ttl = self.ttl;
        let reply = move |outcome| attr(reply, ttl, outcome);
        // With a handle, Linux asks how long the file is, before it reads or seeks; without one, for what
        // stat(2) shows.
        let question = self.fs.question(ino.0, fh.is_some(), Box::new(reply));
        self.run(request, move |fs| fs.answer(question));
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
        let (caller, ttl, handle) = (caller(request), self.ttl, fh.map(|fh| fh.0));
        self.run(request, move |fs| {
            attr(reply, ttl, fs.setattr(caller, ino.0, set, handle))
        });
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let caller = caller(request);
        self.run(request, move |fs| match fs.readlink(caller, ino.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some(kind) = kind_of_mode(mode) else {
            return reply.error(errno(FsError::InvalidArgument));
        };
        let node = NewNode {
            kind,
            mode: permissions(mode),
            umask: permissions(umask),
            rdev,
        };
        let (caller, ttl, name) = (caller(request), self.ttl, name.as_bytes().to_vec());
        self.run(request, move |fs| {
            entry(reply, ttl, fs.make_node(caller, parent.0, &name, node))
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let node = NewNode {
            kind: FileKind::Directory,
            mode: permissions(mode),
            umask: permissions(umask),
            rdev: 0,
        };
        let (caller, ttl, name) = (caller(request), self.ttl, name.as_bytes().to_vec());
        self.run(request, move |fs| {
            entry(reply, ttl, fs.make_node(caller, parent.0, &name, node))
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request), name.as_bytes().to_vec());
        self.run(request, move |fs| {
            empty(reply, fs.unlink(caller, parent.0, &name))
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request), name.as_bytes().to_vec());
        self.run(request, move |fs| {
            empty(reply, fs.rmdir(caller, parent.0, &name))
        });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes().to_vec();
        let (caller, ttl, name) = (caller(request), self.ttl, link_name.as_bytes().to_vec());
        self.run(request, move |fs| {
            entry(reply, ttl, fs.symlink(caller, parent.0, &name, &target))
        });
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
        let caller = caller(request);
        let (name, newname) = (name.as_bytes().to_vec(), newname.as_bytes().to_vec());
        self.run(request, move |fs| {
            let (from, to) = ((parent.0, &name[..]), (newparent.0, &newname[..]));
            let renamed = rename_mode(flags).and_then(|mode| fs.rename(caller, from, to, mode));
            empty(reply, renamed);
        });
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (caller, ttl, name) = (caller(request), self.ttl, newname.as_bytes().to_vec());
        self.run(request, move |fs| {
            entry(reply, ttl, fs.link(caller, ino.0, newparent.0, &name))
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (caller, how) = (caller(request), open_how(flags));
        self.run(request, move |fs| match fs.open(caller, ino.0, how) {
            Ok(opened) => reply.opened(FileHandle(opened.handle), open_flags(&opened)),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn read(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = ReadRequest {
            handle: fh.0,
            offset,
            length: usize::try_from(size).unwrap_or(REQUEST_BYTES_MAX),
            // Only a process that reads past the cache names itself.
            fills_pages: lock_owner.is_none(),
        };
        self.run(request, move |fs| {
            if let Err((reply, error)) = fs.read(&read, reply) {
                reply.error(errno(error));
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write_back = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let write = WriteRequest {
            handle: fh.0,
            offset,
            bytes: data,
            drops_privileges: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            // Only a process that writes past the cache names itself.
            from_pages: lock_owner.is_none(),
            write_back,
            append: flags.0 & libc::O_APPEND != 0 && !write_back,
        };
        let caller = caller(request);
        if let Some(_busy) = self.stay() {
            let outcome = caller.serve(|| self.fs.write(caller, &write));
            return written(reply, outcome);
        }
        // What the kernel sent is written over by the next request that this thread takes.
        let bytes = data.to_vec();
        let rest = WriteRequest {
            bytes: &[],
            ..write
        };
        self.hand_over(move |fs| {
            let bytes = &bytes[..];
            let write = WriteRequest { bytes, ..rest };
            written(reply, caller.serve(|| fs.write(caller, &write)));
        });
    }

    fn flush(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.run(request, move |fs| {
            let flushed = fs.flush(fh.0);
            // The locks end whatever became of that.
            let unlocked = fs.process_closes(ino.0, lock_owner.0);
            empty(reply, flushed.and(unlocked));
        });
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
        self.run_for_nobody(move |fs| {
            fs.release(fh.0);
            reply.ok();
        });
    }

    fn fsync(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.run(request, move |fs| empty(reply, fs.fsync(fh.0)));
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.run(request, move |fs| match fs.open_directory(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.run_for_nobody(move |fs| {
            fs.close_directory(ino.0, fh.0);
            reply.ok();
        });
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let room = (DIRECTORY_REPLY_BYTES, false);
        self.run(request, move |fs| {
            match fs.readdir((ino.0, fh.0), offset, room, &mut reply) {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let mut sink = PlusSink {
            reply,
            ttl: self.ttl,
        };
        let room = (DIRECTORY_REPLY_BYTES, true);
        self.run(request, move |fs| {
            match fs.readdir((ino.0, fh.0), offset, room, &mut sink) {
                Ok(()) => sink.reply.ok(),
                Err(error) => sink.reply.error(errno(error)),
            }
        });
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

    fn statfs(&self, request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.run(request, move |fs| match fs.statfs() {
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
        });
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
        let caller = caller(request);
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        self.run(request, move |fs| {
            let attribute = (&name[..], &value[..]);
            let set =
                xattr_mode(flags).and_then(|mode| fs.setxattr(caller, ino.0, attribute, mode));
            empty(reply, set);
        });
    }

    fn getxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let (caller, name) = (caller(request), name.as_bytes().to_vec());
        self.run(request, move |fs| {
            xattr(reply, size, fs.getxattr(caller, ino.0, &name));
        });
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let caller = caller(request);
        self.run(request, move |fs| {
            xattr(reply, size, fs.listxattr(caller, ino.0));
        });
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request), name.as_bytes().to_vec());
        self.run(request, move |fs| {
            empty(reply, fs.removexattr(caller, ino.0, &name));
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let how = open_how(OpenFlags(flags));
        let exclusive = flags & libc::O_EXCL != 0;
        let mode = (permissions(mode), permissions(umask));
        let (caller, ttl, name) = (caller(request), self.ttl, name.as_bytes().to_vec());
        self.run(request, move |fs| {
            let place = (parent.0, &name[..]);
            match fs.create(caller, place, mode, how, exclusive) {
                Ok(opened) => reply.created(
                    &ttl,
                    &file_attr(&opened.attr),
                    generation(&opened.attr),
                    FileHandle(opened.handle),
                    open_flags(&opened),
                ),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let caller = caller(request);
        self.run(request, move |fs| {
            let allocated =
                allocation(mode).and_then(|how| fs.fallocate(caller, fh.0, (offset, length), how));
            empty(reply, allocated);
        });
    }

    fn lseek(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.run(request, move |fs| {
            // A place before the beginning is none either.
            let offset = u64::try_from(offset).map_err(|_| FsError::NoSuchPlace);
            let found = offset.and_then(|offset| fs.seek(fh.0, offset, seek_target(whence)?));
            match found.map(i64::try_from) {
                Ok(Ok(position)) => reply.offset(position),
                Ok(Err(_)) => reply.error(errno(FsError::FileTooLarge)),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let caller = caller(request);
        let place = |handle: FileHandle, offset| CopyPlace {
            handle: handle.0,
            offset,
        };
        let (from, to) = (place(fh_in, offset_in), place(fh_out, offset_out));
        self.run(request, move |fs| {
            match fs.copy_range(caller, from, to, len) {
                // One call copies far less than this.
                Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn getlk(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let place = LockPlace {
            node: ino.0,
            handle: fh.0,
            owner: lock_owner.0,
            start,
            last: end,
            pid,
            thread: request.pid(),
        };
        let Some(kind) = lock_kind(typ).flatten() else {
            return reply.error(errno(FsError::InvalidArgument));
        };
        self.run(request, move |fs| match fs.test_lock(&place, kind) {
            Ok(None) => reply.locked(start, end, libc::F_UNLCK, 0),
            Ok(Some(found)) => {
                let typ = match found.kind {
                    LockKind::Shared => libc::F_RDLCK,
                    LockKind::Exclusive => libc::F_WRLCK,
                };
                reply.locked(found.start, found.last, typ, found.pid);
            }
            Err(error) => reply.error(errno(error)),
        });
    }

    fn setlk(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let place = LockPlace {
            node: ino.0,
            handle: fh.0,
            owner: lock_owner.0,
            start,
            last: end,
            pid,
            thread: request.pid(),
        };
        let Some(kind) = lock_kind(typ) else {
            return reply.error(errno(FsError::InvalidArgument));
        };
        self.run(request, move |fs| {
            let done = Box::new(move |outcome| empty(reply, outcome));
            fs.set_lock(&place, kind, sleep, done);
        });
    }
}
