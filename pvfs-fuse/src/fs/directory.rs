// SPDX-License-Identifier: MIT
//! Directories. A stream's place is the kernel's: each request asks mgr for what fits its reply. Where
//! the stream ends is kept here ([`super::streams`]).
//!
//! A directory that is removed while it is open lives on, empty, until it is closed. mgr has to know
//! of its streams for that, and hears of them only when it matters: without a lease, before the
//! lease is given up (nobody else can remove the directory earlier), or before this mount removes
//! the directory itself.
//!
//! Offsets: 1 follows `.`, 2 follows `..`, and mgr's cookie + 2 follows an entry.

use std::sync::Arc;

use pvfs::attr::{Attr, FileKind};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, OpenId, ROOT_INODE};
use pvfs::limits::READDIR_ENTRIES_MAX;
use pvfs::proto::mgr::{Access, DirectoryEntry, MgrOperation, MgrResponse};

use super::inode::Inode;
use super::{Pvfs, number};

/// Offset after `..`: mgr's entries follow.
const ENTRIES_OFFSET: u64 = 2;
/// Bytes of an entry with a name of ordinary length in a reply; asking mgr for as many entries as
/// fit at this size wastes little.
const ENTRY_BYTES: usize = 40;
/// The same with attributes.
const ENTRY_PLUS_BYTES: usize = 168;

/// An entry for the kernel.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryEntryRef<'a> {
    /// Inode.
    pub inode: InodeNumber,
    /// Where the stream goes on after it.
    pub offset: u64,
    /// Kind.
    pub kind: FileKind,
    /// Name.
    pub name: &'a [u8],
    /// Attributes, where the sink takes them.
    pub attr: Option<&'a Attr>,
}

/// Where entries go.
pub trait DirectorySink {
    /// Takes an entry; true where it did not fit any more.
    fn is_full_after(&mut self, entry: &DirectoryEntryRef<'_>) -> bool;
}

impl Pvfs {
    /// Opens a stream of a directory and gives its handle; the kernel has decided that the caller
    /// may.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn open_directory(&self, node: u64) -> Result<u64, FsError> {
        self.count_stream(node)?;
        Ok(self.streams.open())
    }

    fn count_stream(&self, node: u64) -> Result<(), FsError> {
        // Nobody removes the root, so mgr need not know who has it open. df(1) opens it.
        if number(node) == ROOT_INODE {
            return Ok(());
        }
        let known = self.mgr.leases_left().is_some() && !self.is_changing(number(node));
        if let Some(inode) = self.files.inode(number(node)).filter(|_| known) {
            let mut state = inode.state();
            if state.lease.keeps() || state.stream_open.is_some() {
                state.streams += 1;
                return Ok(());
            }
        }
        let (open, inode) = self.open_stream(number(node))?;
        let mut state = inode.state();
        state.streams += 1;
        let surplus = state.stream_open.replace(open);
        drop(state);
        if let Some(open) = surplus {
            self.close(inode.number, open);
        }
        Ok(())
    }

    /// Closes a stream.
    pub fn close_directory(&self, node: u64, handle: u64) {
        self.streams.close(handle);
        let Some(inode) = self.files.inode(number(node)) else {
            return;
        };
        let mut state = inode.state();
        state.streams = state.streams.saturating_sub(1);
        let open = match state.streams {
            0 => state.stream_open.take(),
            _ => None,
        };
        drop(state);
        if let Some(open) = open {
            self.close(inode.number, open);
        }
        self.files.forget_unused(&inode);
    }

    fn open_stream(&self, inode: InodeNumber) -> Result<(OpenId, Arc<Inode>), FsError> {
        let operation = MgrOperation::Open {
            inode,
            access: Access {
                read: true,
                write: false,
            },
            truncate: false,
        };
        match self.ask_as_root(operation)? {
            MgrResponse::Open(opened) => Ok((opened.open, self.files.intern(&opened.attr))),
            _ => Err(FsError::Protocol),
        }
    }

    /// Lets mgr know of a directory's streams, if it does not.
    pub(super) fn declare_streams(&self, inode: &Inode) {
        if !inode.state().has_unknown_streams() {
            return;
        }
        match self.open_stream(inode.number) {
            Ok((open, _)) => {
                let mut state = inode.state();
                let needed = state.has_unknown_streams();
                if needed {
                    state.stream_open = Some(open);
                }
                drop(state);
                if !needed {
                    self.close(inode.number, open);
                }
            }
            Err(error) => tracing::debug!("streams of directory {}: {error}", inode.number),
        }
    }

    /// Lets mgr know of the streams of a directory that is about to lose its name; where it is not
    /// known which one that is, of all.
    pub(super) fn declare_streams_of(&self, parent: u64, name: &[u8]) {
        match self.kept_name(parent, name) {
            Some(Some(inode)) => {
                if let Some(inode) = self.files.inode(inode) {
                    self.declare_streams(&inode);
                }
            }
            Some(None) => {}
            None => {
                for inode in self.files.inodes() {
                    self.declare_streams(&inode);
                }
            }
        }
    }

    /// Entries of a directory from `offset` on, into `sink`, which has room for `bytes` of them; none
    /// that was made after the stream's reading began. With `plus` each comes with attributes. The right to
    /// read was checked when it was opened, and reading needs no right to search, also not for `..`.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn readdir(
        &self,
        (node, handle): (u64, u64),
        offset: u64,
        (bytes, plus): (usize, bool),
        sink: &mut impl DirectorySink,
    ) -> Result<(), FsError> {
        if offset == 0 {
            self.streams.rewind(handle);
        }
        if offset < ENTRIES_OFFSET && self.dots(node, offset, plus, sink)? {
            return Ok(());
        }
        let entry_bytes = if plus { ENTRY_PLUS_BYTES } else { ENTRY_BYTES };
        let fitting = u32::try_from(bytes / entry_bytes).unwrap_or(u32::MAX);
        let operation = MgrOperation::ReadDirectory {
            inode: number(node),
            after: offset.saturating_sub(ENTRIES_OFFSET),
            until: self.streams.end(handle),
            entries_max: fitting.clamp(1, READDIR_ENTRIES_MAX),
            plus,
        };
        let entries = match self.ask_as_root(operation)? {
            MgrResponse::Entries { entries, until, .. } => {
                self.streams.ends_at(handle, until);
                entries
            }
            _ => return Err(FsError::Protocol),
        };
        for entry in &entries {
            if self.add(entry, plus, sink)? {
                break;
            }
        }
        Ok(())
    }

    /// `.` and `..`; true where the sink is full.
    fn dots(
        &self,
        node: u64,
        offset: u64,
        plus: bool,
        sink: &mut impl DirectorySink,
    ) -> Result<bool, FsError> {
        if offset == 0 {
            let own = if plus {
                Some(self.getattr(node)?)
            } else {
                None
            };
            let entry = DirectoryEntryRef {
                inode: number(node),
                offset: 1,
                kind: FileKind::Directory,
                name: b".",
                attr: own.as_ref(),
            };
            if sink.is_full_after(&entry) {
                return Ok(true);
            }
        }
        let parent = self.parent(node)?;
        let entry = DirectoryEntryRef {
            inode: parent.inode,
            offset: ENTRIES_OFFSET,
            kind: FileKind::Directory,
            name: b"..",
            attr: Some(&parent).filter(|_| plus),
        };
        Ok(sink.is_full_after(&entry))
    }

    /// One entry; true where the sink is full.
    fn add(
        &self,
        entry: &DirectoryEntry,
        plus: bool,
        sink: &mut impl DirectorySink,
    ) -> Result<bool, FsError> {
        let attr = match entry.attr {
            Some(attr) if plus => Some(self.settle(attr)?),
            _ => None,
        };
        let offset = entry
            .cookie
            .checked_add(ENTRIES_OFFSET)
            .ok_or(FsError::Protocol)?;
        let entry = DirectoryEntryRef {
            inode: entry.inode,
            offset,
            kind: entry.kind,
            name: entry.name.as_bytes(),
            attr: attr.as_ref(),
        };
        Ok(sink.is_full_after(&entry))
    }
}
