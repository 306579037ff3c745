// SPDX-License-Identifier: MIT
//! Open files: their bytes go to and come from the iods directly.

use std::sync::Arc;
use std::time::Duration;

use pvfs::attr::{Attr, SetAttr};
use pvfs::client::buffer::PooledBuffer;
use pvfs::client::interrupt;
use pvfs::client::patience::Patience;
use pvfs::client::pool::IodPool;
use pvfs::client::striped;
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, OpenId};
use pvfs::limits::FILE_SIZE_BYTES_MAX;
use pvfs::proto::lease::{Lease, NO_LEASE};
use pvfs::proto::mgr::{Access, MgrOperation, MgrResponse, OpenResponse};

use super::inode::{Appending, Filling, Inode, MgrOpen, Truncating, Unneeded};
use super::lease::{Io, Permit};
use super::open_files::OpenFile;
use super::{Caller, Pvfs, REQUEST_BYTES_MAX, WAIT_SLICE, name, number};

/// Where the bytes of a read go.
pub trait ReadSink {
    /// Replies with these bytes; fewer than asked for mean that the file ends there.
    fn data(self, bytes: &[u8]);
}

/// How a file is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenHow {
    /// For what.
    pub access: Access,
    /// `O_TRUNC`.
    pub truncate: bool,
    /// `O_APPEND`.
    pub append: bool,
}

/// An open that the kernel may use.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// FUSE file handle.
    pub handle: u64,
    /// Attributes at the open.
    pub attr: Attr,
    /// The kernel is to keep no pages for this handle: others write to the file, or it appends.
    pub direct: bool,
}

/// A read request.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// Open file.
    pub handle: u64,
    /// Where, bytes.
    pub offset: u64,
    /// How much, at most [`REQUEST_BYTES_MAX`].
    pub length: usize,
    /// It fills pages that the kernel keeps.
    pub fills_pages: bool,
}

/// The bytes of a read.
#[derive(Default)]
struct Fetched {
    buffer: Option<PooledBuffer>,
    length: usize,
}

impl Fetched {
    fn as_slice(&self) -> &[u8] {
        let bytes = self.buffer.as_ref().and_then(|all| all.get(..self.length));
        bytes.unwrap_or_default()
    }
}

impl ReadRequest {
    const fn pages(&self) -> (u64, u64) {
        pages_of(self.offset, self.length as u64)
    }

    pub(super) const fn io(&self) -> Io {
        match self.fills_pages {
            true => Io::PageRead,
            false => Io::DirectRead,
        }
    }
}

/// A write request.
#[derive(Clone, Copy, Debug)]
pub struct WriteRequest<'a> {
    /// Open file.
    pub handle: u64,
    /// Where, bytes; for an append, where the kernel believes the end to be.
    pub offset: u64,
    /// What.
    pub bytes: &'a [u8],
    /// The writer may not keep set-uid and set-gid bits on the file. Not known of what was written to
    /// pages by a mapping.
    pub drops_privileges: bool,
    /// It comes out of pages that the kernel keeps.
    pub from_pages: bool,
    /// It was written to pages some time ago, by a mapping.
    pub write_back: bool,
    /// It belongs at the file's end, wherever that is.
    pub append: bool,
}

impl WriteRequest<'_> {
    pub(super) const fn io(&self) -> Io {
        match self {
            Self {
                write_back: true, ..
            } => Io::WriteBack,
            Self {
                from_pages: true, ..
            } => Io::PageWrite,
            Self { append: true, .. } => Io::Append,
            _ => Io::DirectWrite,
        }
    }
}

/// A write that comes too late for its lease so often fails: no cluster takes leases away at such a
/// rate, so iod and mgr disagree about whose turn it is.
const LATE_WRITES_MAX: usize = 16;
/// A write that failed waits for so long at most until what it left beyond the end is cut off; after
/// that mgr sees to it.
const TAIL_TIMEOUT: Duration = Duration::from_secs(2);
/// Pages are of this size, or larger and aligned to theirs.
const PAGE_BYTES: u64 = 4096;

/// The bytes of the pages that `length` bytes at `offset` touch.
const fn pages_of(offset: u64, length: u64) -> (u64, u64) {
    let end = offset.saturating_add(length);
    (
        offset - offset % PAGE_BYTES,
        end.saturating_add(PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES,
    )
}

impl Pvfs {
    /// Opens a regular file.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn open(
        self: &Arc<Self>,
        caller: Caller,
        node: u64,
        how: OpenHow,
    ) -> Result<Opened, FsError> {
        let OpenHow {
            access, truncate, ..
        } = how;
        let inode = number(node);
        let known = self.files.inode(inode);
        if let Some(opened) = known
            .as_ref()
            .filter(|_| !truncate)
            .and_then(|known| self.open_here(known, how))
        {
            self.note_pages_user(caller, opened.handle);
            return Ok(opened);
        }
        let operation = MgrOperation::Open {
            inode,
            access,
            truncate,
        };
        let granted = match known.filter(|_| truncate) {
            // What was written before the truncation must not lengthen the file after it.
            Some(known) => {
                let _reporting = known.lock_reporting()?;
                self.report_locked(&known)?;
                let _truncating = Truncating::begin(&known, 0);
                expect_open(self.ask(caller, operation)?)?
            }
            None => expect_open(self.ask(caller, operation)?)?,
        };
        let opened = self.opened(granted, how)?;
        self.note_pages_user(caller, opened.handle);
        Ok(opened)
    }

    /// Opens a file without asking mgr, where a lease and an open that mgr granted before allow it.
    /// Whether the caller may is decided by the kernel, by the attributes that the lease keeps right.
    fn open_here(&self, inode: &Arc<Inode>, how: OpenHow) -> Option<Opened> {
        self.mgr.leases_left()?;
        if self.is_changing(inode.number) {
            return None;
        }
        let direct = self.options.direct_io || (how.append && how.access.write);
        let serves = |open: &&MgrOpen| {
            let Access { read, write } = open.access;
            let needed = how.access;
            write == needed.write && (read || !needed.read)
        };
        let (handle, attr) = self.files.share(inode, how.access, direct, |state| {
            let enough = match how.access.write {
                true => state.lease.held() == Some(Lease::Write),
                false => state.lease.keeps(),
            };
            let open = state.opens.iter().find(serves).cloned()?;
            let mut attr = state.last_known().filter(|_| enough)?;
            attr.size = state.end();
            Some((open, attr))
        })?;
        Some(Opened {
            handle,
            attr,
            direct,
        })
    }

    /// Makes and opens a regular file, or opens the one that exists.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn create(
        self: &Arc<Self>,
        caller: Caller,
        (parent, entry): (u64, &[u8]),
        (mode, umask): (u16, u16),
        how: OpenHow,
        exclusive: bool,
    ) -> Result<Opened, FsError> {
        let parent = number(parent);
        let operation = MgrOperation::Create {
            parent,
            name: name(entry)?,
            mode,
            umask,
            exclusive,
            access: how.access,
        };
        let granted = expect_open(self.ask(caller, operation)?)?;
        let opened = self.opened(granted, how)?;
        self.note_pages_user(caller, opened.handle);
        // Somebody else made it since the kernel looked, and it has content already.
        if how.truncate && opened.attr.size > 0 {
            let set = SetAttr {
                size: Some(0),
                ..SetAttr::default()
            };
            match self.setattr(caller, opened.attr.inode.0, set, Some(opened.handle)) {
                Ok(attr) => return Ok(Opened { attr, ..opened }),
                Err(error) => {
                    self.release(opened.handle);
                    return Err(error);
                }
            }
        }
        let attr = self.settle(opened.attr)?;
        Ok(Opened { attr, ..opened })
    }

    fn opened(self: &Arc<Self>, granted: OpenResponse, how: OpenHow) -> Result<Opened, FsError> {
        let OpenResponse { open, attr, layout } = granted;
        let access = how.access;
        let layout = match layout
            .ok_or(FsError::Protocol)
            .and_then(|layout| layout.validate())
        {
            Ok(layout) => layout,
            Err(error) => {
                tracing::error!("mgr's layout of inode {} is unusable: {error}", attr.inode);
                self.close(attr.inode, open);
                return Err(FsError::Io);
            }
        };
        let inode = self.files.intern(&attr);
        let open = MgrOpen {
            open,
            access,
            layout,
            object: attr.object(),
        };
        // A stale reply is of no harm: the state keeps what is newer.
        inode.state().learn(&attr);
        // Counted as one that may write to pages until that is known: pages that are read from now
        // on need a lease for writing.
        let handle = self.files.insert(&inode, access, &open, false);
        let direct = self.options.direct_io
            || (how.append && access.write)
            || !self.may_keep_pages(&inode, how)?;
        let handle = match direct {
            true => {
                let direct = self.files.insert(&inode, access, &open, true);
                self.drop_handle(handle);
                direct
            }
            false => handle,
        };
        Ok(Opened {
            handle,
            attr,
            direct,
        })
    }

    /// Whether the kernel may keep pages for a handle that has just been opened.
    fn may_keep_pages(self: &Arc<Self>, inode: &Arc<Inode>, how: OpenHow) -> Result<bool, FsError> {
        let held = inode.state().lease.held();
        if !how.access.write {
            return Ok(matches!(held, Some(Lease::Read | Lease::Write)));
        }
        match held {
            Some(Lease::Write) => return Ok(true),
            // Pages for reading alone must not be written to by a mapping.
            Some(Lease::Read) => self.give_back(inode),
            Some(Lease::Shared) | None => {}
        }
        if !how.truncate {
            return Ok(false);
        }
        // The reply to a truncation brings no lease.
        let permit = self.begin(inode, Io::DirectWrite)?;
        let held = inode.state().lease.held();
        self.end(inode, permit, Io::DirectWrite, (0, 0));
        Ok(held == Some(Lease::Write))
    }

    /// The open behind a handle, for bytes to be read or changed through it.
    pub(super) fn file_for_io(&self, handle: u64) -> Result<Arc<OpenFile>, FsError> {
        let file = self.files.get(handle)?;
        self.check_locks(handle)?;
        Ok(file)
    }

    /// Refuses I/O where locks that were had through the handle are lost: nobody knows what others
    /// have done to the file since. To be asked again under a lease that was waited for, as locks may
    /// have been lost meanwhile; whoever has got them cannot use the file before that lease is gone.
    pub(super) fn check_locks(&self, handle: u64) -> Result<(), FsError> {
        match self.locks.is_tainted(handle) {
            true => Err(FsError::Io),
            false => Ok(()),
        }
    }

    /// Reads up to `length` bytes into `sink`.
    ///
    /// # Errors
    ///
    /// The iods'; `sink` comes back unused.
    pub fn read<S: ReadSink>(
        self: &Arc<Self>,
        request: &ReadRequest,
        sink: S,
    ) -> Result<(), (S, FsError)> {
        let file = match self.file_for_io(request.handle) {
            Ok(file) => file,
            Err(error) => return Err((sink, error)),
        };
        match self.fetch(&file, request) {
            Ok((permit, bytes)) => {
                sink.data(bytes.as_slice());
                self.end(&file.inode, permit, request.io(), request.pages());
                Ok(())
            }
            Err(error) => Err((sink, error)),
        }
    }

    /// Gets the bytes of a read, and the permit under which they are right until it ends. While iods
    /// are waited for the lease may be given up; what comes then may be old, and is fetched anew.
    fn fetch(
        self: &Arc<Self>,
        file: &OpenFile,
        request: &ReadRequest,
    ) -> Result<(Permit, Fetched), FsError> {
        let (inode, io, pages) = (&*file.inode, request.io(), request.pages());
        let filling = request.fills_pages.then(|| Filling::begin(inode, pages));
        let end = request.offset.saturating_add(request.length as u64);
        let mut first = true;
        let mut asked = false;
        loop {
            self.wait_for_cut(inode, end)?;
            let retry = filling.as_ref().is_some_and(Filling::is_retry);
            let permit = match retry {
                true => self.begin_retry(inode, io)?,
                false => self.begin(inode, io)?,
            };
            let loose = {
                let mut state = inode.state();
                if let Some(filling) = &filling {
                    state.fills.fetch(filling.number());
                }
                // The iods were there a moment ago: it is waited for now, or it might never be done.
                std::mem::take(&mut first).then(|| state.lease.loosen(permit))
            };
            let fetched = self
                .check_locks(request.handle)
                .and_then(|()| self.fetch_once(file, request));
            let mut state = inode.state();
            let kept = match loose {
                Some(loose) => state.lease.tighten(loose),
                None => Some(permit).filter(|permit| state.lease.is_current(*permit)),
            };
            let passed = filling.as_ref();
            let passed = passed.is_some_and(|filling| state.fills.is_passed(filling.number()));
            match (kept, fetched) {
                (Some(permit), Ok(bytes)) if !passed && !state.is_cutting_below(end) => {
                    if let Some(filling) = &filling {
                        let short = bytes.length < request.length.min(REQUEST_BYTES_MAX);
                        let end = request.offset + bytes.length as u64;
                        if short && !state.ends_for_kernel(filling.number(), end) {
                            state.fills.refuse(filling.number());
                            drop(state);
                            // No page comes in by this.
                            self.end(inode, permit, Io::DirectRead, pages);
                            return Err(FsError::Io);
                        }
                        state.fills.end(filling.number());
                    }
                    return Ok((permit, bytes));
                }
                (kept, fetched) => {
                    drop(state);
                    let is_held = kept.is_some();
                    if let Some(permit) = kept {
                        self.end(inode, permit, io, pages);
                    }
                    match fetched {
                        // Others may have truncated the file.
                        Err(FsError::Missing)
                            if !is_held || !std::mem::replace(&mut asked, true) =>
                        {
                            self.ask_what_is_filled(file)?;
                        }
                        fetched => drop(fetched?),
                    }
                }
            }
            if interrupt::is_interrupted() {
                return Err(FsError::Interrupted);
            }
        }
    }

    /// Waits while this mount truncates the file to less than `end`: the iods cut it one after another,
    /// and its end is known when all have.
    fn wait_for_cut(&self, inode: &Inode, end: u64) -> Result<(), FsError> {
        let mut state = inode.state();
        while state.is_cutting_below(end) {
            state = inode.wait(state, interrupt::shorten(WAIT_SLICE)).0;
            if interrupt::is_interrupted() {
                return Err(FsError::Interrupted);
            }
        }
        Ok(())
    }

    fn fetch_once(&self, file: &OpenFile, request: &ReadRequest) -> Result<Fetched, FsError> {
        let length = request.length.min(REQUEST_BYTES_MAX);
        let (length, filled) = self.readable(file, request.offset, length)?;
        if length == 0 {
            return Ok(Fetched::default());
        }
        let mut buffer = self.buffers.take();
        let bytes = buffer.get_mut(..length).ok_or(FsError::Io)?;
        striped::read(&self.pool, &file.place(request.offset, filled), bytes)?;
        let buffer = Some(buffer);
        Ok(Fetched { buffer, length })
    }

    /// Does what reads a file, and does it again where iods lack bytes that were written, as far as is
    /// known here: what was known may be old, as others may have truncated the file.
    ///
    /// # Errors
    ///
    /// [`FsError::Missing`] where they are missing by what mgr says, too.
    pub(super) fn again_where_missing<T>(
        &self,
        file: &OpenFile,
        read: impl Fn() -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        match read() {
            Err(FsError::Missing) => {
                self.ask_what_is_filled(file)?;
                read()
            }
            outcome => outcome,
        }
    }

    fn ask_what_is_filled(&self, file: &OpenFile) -> Result<(), FsError> {
        let attr = self.getattr(file.inode.number.0)?;
        file.inode.state().know_filled(&attr);
        Ok(())
    }

    /// How many of `length` bytes at `offset` lie before the file's end, and up to where all were written.
    fn readable(
        &self,
        file: &OpenFile,
        offset: u64,
        length: usize,
    ) -> Result<(usize, u64), FsError> {
        let within = |end: u64| {
            let rest = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            rest.min(length)
        };
        let (known, filled, exact) = {
            let state = file.inode.state();
            (
                within(state.end()),
                state.filled(),
                state.lease.knows_size(),
            )
        };
        if known == length || exact {
            return Ok((known, filled));
        }
        // Others may be writing beyond the end that is known here.
        let size = self.getattr(file.inode.number.0)?.size;
        Ok((within(size), filled))
    }

    /// Writes; the bytes are on the iods when it returns. Where an iod refuses its part, those before
    /// that part count, as with any write(2) that ends early.
    ///
    /// # Errors
    ///
    /// The iods', where not even the first byte is stored.
    pub fn write(
        self: &Arc<Self>,
        caller: Caller,
        request: &WriteRequest<'_>,
    ) -> Result<usize, FsError> {
        let file = self.file_for_io(request.handle)?;
        let io = request.io();
        // Even out of pages, an append needs the file for itself: then its end is known.
        let _appending = match request.append {
            true => Some(file.inode.lock_appending()?),
            false => None,
        };
        let range = pages_of(request.offset, request.bytes.len() as u64);
        let written = self.change_range(&file.inode, io, range, |permit| {
            self.check_locks(request.handle)?;
            self.write_under_lease(caller, &file, request, permit)
        });
        self.tell_torn(&file.inode);
        // A write that was on its way while its lock was lost may have come too late.
        self.check_locks(request.handle).and(written)
    }

    /// Runs `change`, which changes bytes of `range` at the iods, under a lease.
    pub(super) fn change_range<T>(
        self: &Arc<Self>,
        inode: &Inode,
        io: Io,
        range: (u64, u64),
        mut change: impl FnMut(Permit) -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        let mut permit = self.begin(inode, io)?;
        let mut changed = change(permit);
        for _ in 0..LATE_WRITES_MAX {
            if !matches!(changed, Err(FsError::Fenced)) {
                break;
            }
            // It came too late for its lease, and is made anew under another.
            self.end(inode, permit, io, range);
            inode.state().lease.refused(permit);
            permit = self.begin(inode, io)?;
            changed = change(permit);
        }
        if !self.end(inode, permit, io, range) {
            // Others may have read the old bytes since the lease was lost: they forget them before
            // this write is acknowledged.
            let permit = self.begin(inode, io)?;
            self.end(inode, permit, io, range);
        }
        changed
    }

    fn write_under_lease(
        self: &Arc<Self>,
        caller: Caller,
        file: &OpenFile,
        request: &WriteRequest<'_>,
        permit: Permit,
    ) -> Result<usize, FsError> {
        let length = request.bytes.len() as u64;
        let _appending = match request.append {
            true => Some(Appending::begin(&file.inode, permit, file.open)?),
            false => None,
        };
        let offset = match request.append {
            true => file.inode.state().end(),
            false => request.offset,
        };
        let end = offset.checked_add(length).ok_or(FsError::FileTooLarge)?;
        if end > FILE_SIZE_BYTES_MAX {
            return Err(FsError::FileTooLarge);
        }
        self.mend(file, permit, end)?;
        self.drop_privileges(file, Self::writing_user(file, request, caller))?;
        let (stored, outcome) = striped::write_prefix(
            &self.pool_under(file, permit),
            &file.layout,
            file.object,
            permit.fence,
            offset,
            request.bytes,
        );
        // Of a write past its cache that ends early, the kernel may make EIO; and of a write out of
        // pages of its own it does not look how much was stored.
        let may_end_early = matches!(request.io(), Io::PageWrite | Io::Append);
        let short = match outcome {
            Ok(()) => None,
            Err(FsError::Fenced) => return Err(FsError::Fenced),
            Err(error) => Some(error),
        };
        if short.is_none() || (may_end_early && stored > 0) {
            let done = offset..offset + stored as u64;
            file.inode.state().wrote(done, file.open);
        }
        if let Some(error) = short {
            self.write_failed(file, permit, (end, error));
            if !may_end_early || stored == 0 {
                return Err(error);
            }
        }
        let pages = file.inode.state().lease.has_pages();
        let (start, end) = pages_of(offset, length);
        if !request.io().has_pages() {
            // Other handles of this mount may have filled pages with what was there before.
            if pages {
                self.drop_pages(file.inode.number, (start, end), None);
            }
        } else if offset != request.offset {
            // The kernel has put the bytes into other pages than those where they are now.
            self.drop_pages_later(file.inode.number, 0, u64::MAX);
        }
        Ok(stored)
    }

    /// Cuts off what a failed write has left beyond the file's end, before a change that ends at `end`.
    pub(super) fn mend(&self, file: &OpenFile, permit: Permit, end: u64) -> Result<(), FsError> {
        let known = {
            let state = file.inode.state();
            if !state.lease.is_torn() || end <= state.end() {
                return Ok(());
            }
            state.end()
        };
        self.cut_tail(&self.pool_under(file, permit), file, permit, known)?;
        file.inode.state().lease.mended();
        Ok(())
    }

    fn cut_tail(
        &self,
        pool: &IodPool,
        file: &OpenFile,
        permit: Permit,
        end: u64,
    ) -> Result<(), FsError> {
        striped::cut_tail(pool, &file.layout, file.object, permit.fence, end)
    }

    /// A change of bytes up to `end` failed. What iods may hold of it beyond the file's end must not
    /// come back when the file grows. This mount cuts it off where nobody else may write and the iods
    /// have answered; otherwise something may still be on its way, and mgr sees to it.
    pub(super) fn write_failed(
        &self,
        file: &OpenFile,
        permit: Permit,
        (end, error): (u64, FsError),
    ) {
        // It is made anew.
        if error == FsError::Fenced {
            return;
        }
        let (known, alone) = {
            let state = file.inode.state();
            (state.end(), state.lease.writes_alone())
        };
        if alone && end <= known {
            return;
        }
        let answered = !matches!(error, FsError::Interrupted | FsError::Io);
        if alone && answered {
            let patience = Patience::until_cancelled(&self.cancel).at_most(TAIL_TIMEOUT);
            let pool = self.pool_under(file, permit).with_patience(patience);
            match self.cut_tail(&pool, file, permit, known) {
                Ok(()) => return,
                Err(error) => tracing::debug!("end of inode {}: {error}", file.inode.number),
            }
        }
        file.inode.state().tear(file.open);
    }

    /// Tells mgr of a failed write, if there is something to tell. Where that fails it is told later,
    /// and before anybody else gets the file. A request that may hold a page's lock does not wait for
    /// that: this mount writes nothing behind the torn end meanwhile.
    pub(super) fn tell_torn(self: &Arc<Self>, inode: &Arc<Inode>) {
        let (torn, alone) = {
            let state = inode.state();
            (state.is_in_doubt(), state.lease.is_torn())
        };
        let (fs, inode) = (Arc::clone(self), Arc::clone(inode));
        let tell = move || {
            if let Err(error) = fs.send_report(&inode) {
                tracing::warn!("report of inode {} to mgr: {error}", inode.number);
            }
        };
        match (torn, alone) {
            (true, true) => self.reports.run(tell),
            (true, false) => tell(),
            (false, _) => {}
        }
    }

    /// The iods, for changes of a file that are not sent again once the lease is lost.
    pub(super) fn pool_under(&self, file: &OpenFile, permit: Permit) -> IodPool {
        let inode = Arc::clone(&file.inode);
        let is_alone = inode.state().lease.is_alone();
        let is_held = move || inode.state().lease.is_current(permit);
        self.pool.while_held(Arc::new(is_held), is_alone)
    }

    /// close(2) of one of a file's descriptors: mgr hears of what was written.
    ///
    /// # Errors
    ///
    /// mgr's: the caller sees them from close(2).
    pub fn flush(&self, handle: u64) -> Result<(), FsError> {
        let file = self.files.get(handle)?;
        self.report(&file.inode)?;
        tell_lost_writes(&file.inode)
    }

    /// Returns when what this mount wrote to the file is on the iods' disks, and size and time in
    /// mgr's journal.
    ///
    /// # Errors
    ///
    /// The iods' and mgr's.
    pub fn fsync(&self, handle: u64) -> Result<(), FsError> {
        let file = self.files.get(handle)?;
        let unsynced = file.inode.state().begin_sync();
        if unsynced {
            if let Err(error) = striped::sync(&self.pool, &file.layout, file.object) {
                file.inode.state().sync_failed();
                return Err(error);
            }
        }
        self.report(&file.inode)?;
        tell_lost_writes(&file.inode)
    }

    /// The last descriptor and mapping of an open are gone.
    pub fn release(&self, handle: u64) {
        let Ok(file) = self.files.get(handle) else {
            return;
        };
        // Pages of a mapping may have been written after the last flush.
        if let Err(error) = self.report(&file.inode) {
            tracing::warn!("report of inode {} to mgr: {error}", file.inode.number);
        }
        self.file_closes(file.inode.number, handle);
        drop(file);
        self.drop_handle(handle);
    }

    /// Takes a handle away, and closes at mgr what nobody needs any more.
    fn drop_handle(&self, handle: u64) {
        let Some(file) = self.files.remove(handle) else {
            return;
        };
        self.close_all(file.inode.number, self.files.closed(&file));
    }

    /// Closes at mgr an open that has no part in the inode's lease; nobody waits for its answer.
    pub(super) fn close(&self, inode: InodeNumber, open: OpenId) {
        let (opens, lease) = (vec![open], NO_LEASE);
        self.close_all(inode, Unneeded { opens, lease });
    }

    /// The same for opens that are not needed any more.
    pub(super) fn close_all(&self, inode: InodeNumber, unneeded: Unneeded) {
        let Unneeded { opens, lease } = unneeded;
        for open in opens {
            self.post_as_root(&MgrOperation::Close { inode, open, lease });
        }
    }
}

/// Fails where mgr heard of writes of this mount too late to take them in; once, as a disk's error is told.
fn tell_lost_writes(inode: &Inode) -> Result<(), FsError> {
    match inode.state().tell_lost_writes() {
        true => Err(FsError::Io),
        false => Ok(()),
    }
}

fn expect_open(response: MgrResponse) -> Result<OpenResponse, FsError> {
    match response {
        MgrResponse::Open(open) => Ok(open),
        _ => Err(FsError::Protocol),
    }
}
