// SPDX-License-Identifier: MIT
//! Open files: their bytes go to and come from the iods directly.

use pvfs::attr::{Attr, Credentials, SetAttr};
use pvfs::client::striped;
use pvfs::error::FsError;
use pvfs::limits::FILE_SIZE_BYTES_MAX;
use pvfs::proto::mgr::{Access, MgrOperation, MgrResponse, OpenResponse};

use super::cache::Pages;
use super::inode::Writer;
use super::open_files::{Grant, OpenFile};
use super::{Caller, Pvfs, REQUEST_BYTES_MAX, name, number};

/// Where the bytes of a read go.
pub trait ReadSink {
    /// Replies with these bytes; fewer than asked for mean that the file ends there.
    fn data(self, bytes: &[u8]);
}

/// An open that the kernel may use.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// FUSE file handle.
    pub handle: u64,
    /// Attributes at the open.
    pub attr: Attr,
    /// The pages that the kernel has cached are right.
    pub keep_pages: bool,
    /// Opened for reading only: there is nothing to flush.
    pub flushes: bool,
}

/// A write request.
#[derive(Clone, Copy, Debug)]
pub struct WriteRequest<'a> {
    /// Open file.
    pub handle: u64,
    /// Where, bytes.
    pub offset: u64,
    /// What.
    pub bytes: &'a [u8],
    /// The writer may not keep set-uid and set-gid bits on the file.
    pub drops_privileges: bool,
}

impl Pvfs {
    /// Opens a regular file; `truncate` is `O_TRUNC`.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn open(
        &self,
        caller: Caller,
        node: u64,
        access: Access,
        truncate: bool,
    ) -> Result<Opened, FsError> {
        let inode = number(node);
        let operation = MgrOperation::Open {
            inode,
            access,
            truncate,
        };
        let shared = self.files.inode(inode).filter(|_| truncate);
        let granted = match &shared {
            // What was written before the truncation must not lengthen the file after it.
            Some(shared) => {
                let _reporting = shared.lock_reporting();
                self.report_locked(shared)?;
                let granted = expect_open(self.ask(caller, operation)?)?;
                shared.state().learn(&granted.attr);
                granted
            }
            None => expect_open(self.ask(caller, operation)?)?,
        };
        self.opened(granted, access)
    }

    /// Makes and opens a regular file, or opens the one that exists.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn create(
        &self,
        caller: Caller,
        (parent, entry): (u64, &[u8]),
        mode: u16,
        access: Access,
        (exclusive, truncate): (bool, bool),
    ) -> Result<Opened, FsError> {
        let parent = number(parent);
        let operation = MgrOperation::Create {
            parent,
            name: name(entry)?,
            mode,
            exclusive,
            access,
        };
        let granted = expect_open(self.ask(caller, operation)?)?;
        let opened = self.opened(granted, access)?;
        // Somebody else made it since the kernel looked, and it has content already.
        if truncate && opened.attr.size > 0 {
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

    fn opened(&self, granted: OpenResponse, access: Access) -> Result<Opened, FsError> {
        let OpenResponse { open, attr, layout } = granted;
        let layout = match layout
            .ok_or(FsError::Protocol)
            .and_then(|layout| layout.validate())
        {
            Ok(layout) => layout,
            Err(error) => {
                tracing::error!("mgr's layout of inode {} is unusable: {error}", attr.inode);
                self.close(attr.inode.0, open.0);
                return Err(FsError::Io);
            }
        };
        let pages = if self.options.direct_io {
            Pages::Drop
        } else {
            self.pages.opened(attr.inode, attr.change)
        };
        let unsettled = pages == Pages::Drop && !self.options.direct_io;
        let handle = self.files.insert(Grant {
            open,
            attr,
            access,
            layout,
            unsettled,
        });
        Ok(Opened {
            handle,
            attr,
            keep_pages: pages == Pages::Keep,
            flushes: access.write,
        })
    }

    /// Reads up to `length` bytes, at most [`REQUEST_BYTES_MAX`], into `sink`.
    ///
    /// # Errors
    ///
    /// The iods'; `sink` comes back unused.
    pub fn read<S: ReadSink>(
        &self,
        handle: u64,
        offset: u64,
        length: usize,
        sink: S,
    ) -> Result<(), (S, FsError)> {
        let file = match self.used(handle) {
            Ok(file) => file,
            Err(error) => return Err((sink, error)),
        };
        let length = match self.readable(&file, offset, length.min(REQUEST_BYTES_MAX)) {
            Ok(length) => length,
            Err(error) => return Err((sink, error)),
        };
        if length == 0 {
            sink.data(&[]);
            return Ok(());
        }
        let mut buffer = self.buffers.take();
        let Some(bytes) = buffer.get_mut(..length) else {
            return Err((sink, FsError::Io));
        };
        match striped::read(&self.pool, &file.layout, file.object, offset, bytes) {
            Ok(()) => {
                sink.data(bytes);
                Ok(())
            }
            Err(error) => Err((sink, error)),
        }
    }

    /// How many of `length` bytes at `offset` lie before the file's end.
    fn readable(&self, file: &OpenFile, offset: u64, length: usize) -> Result<usize, FsError> {
        let within = |end: u64| {
            let rest = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            rest.min(length)
        };
        let known = within(file.inode.state().end());
        // With a page cache the kernel asks for the size before it reads past the end that it
        // knows. Without, it leaves that to us.
        if known == length || !self.options.direct_io {
            return Ok(known);
        }
        Ok(within(self.getattr(file.inode.number.0)?.size))
    }

    /// Writes; the bytes are on the iods when it returns.
    ///
    /// # Errors
    ///
    /// The iods'.
    pub fn write(&self, caller: Caller, request: &WriteRequest<'_>) -> Result<(), FsError> {
        let file = self.used(request.handle)?;
        let length = request.bytes.len() as u64;
        let end = request
            .offset
            .checked_add(length)
            .ok_or(FsError::FileTooLarge)?;
        if end > FILE_SIZE_BYTES_MAX {
            return Err(FsError::FileTooLarge);
        }
        striped::write(
            &self.pool,
            &file.layout,
            file.object,
            request.offset,
            request.bytes,
        )?;
        let credentials = if request.drops_privileges {
            caller.credentials()
        } else {
            Credentials::ROOT
        };
        file.inode.state().wrote(
            end,
            Writer {
                open: file.open,
                credentials,
            },
        );
        Ok(())
    }

    /// close(2) of one of a file's descriptors: mgr hears of what was written.
    ///
    /// # Errors
    ///
    /// mgr's: the caller sees them from close(2).
    pub fn flush(&self, handle: u64) -> Result<(), FsError> {
        let file = self.used(handle)?;
        self.report(&file.inode)?;
        Ok(())
    }

    /// Returns when what this mount wrote to the file is on the iods' disks, and size and time in
    /// mgr's journal.
    ///
    /// # Errors
    ///
    /// The iods' and mgr's.
    pub fn fsync(&self, handle: u64) -> Result<(), FsError> {
        let file = self.used(handle)?;
        let unsynced = file.inode.state().begin_sync();
        if unsynced {
            if let Err(error) = striped::sync(&self.pool, &file.layout, file.object) {
                file.inode.state().sync_failed();
                return Err(error);
            }
        }
        self.report(&file.inode)?;
        Ok(())
    }

    /// The last descriptor and mapping of an open are gone.
    pub fn release(&self, handle: u64) {
        let Some(file) = self.files.remove(handle) else {
            return;
        };
        if file.is_first_use() {
            self.pages.settle(file.inode.number, file.change);
        }
        // Pages of a mapping may have been written after the last flush.
        if let Err(error) = self.report(&file.inode) {
            tracing::warn!("report of inode {} to mgr: {error}", file.inode.number);
        }
        self.close(file.inode.number.0, file.open.0);
        self.files.closed(file.inode.number);
    }

    fn close(&self, inode: u64, open: u64) {
        let operation = MgrOperation::Close {
            inode: number(inode),
            open: pvfs::ids::OpenId(open),
        };
        if let Err(error) = self.ask_as_root(operation) {
            tracing::warn!("close of inode {inode} at mgr: {error}");
        }
    }

    /// The open behind a handle; its first use tells that the kernel has dropped old pages.
    fn used(&self, handle: u64) -> Result<std::sync::Arc<OpenFile>, FsError> {
        let file = self.files.get(handle)?;
        if file.is_first_use() {
            self.pages.settle(file.inode.number, file.change);
        }
        Ok(file)
    }
}

fn expect_open(response: MgrResponse) -> Result<OpenResponse, FsError> {
    match response {
        MgrResponse::Open(open) => Ok(open),
        _ => Err(FsError::Protocol),
    }
}
