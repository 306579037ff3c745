// SPDX-License-Identifier: MIT
//! Directories. A stream keeps no state here: each request asks mgr for what fits its reply.
//!
//! Offsets: 1 follows `.`, 2 follows `..`, and mgr's cookie + 2 follows an entry.

use pvfs::attr::{Attr, FileKind};
use pvfs::error::FsError;
use pvfs::ids::InodeNumber;
use pvfs::limits::READDIR_ENTRIES_MAX;
use pvfs::proto::mgr::{DirectoryEntry, MgrOperation, MgrResponse};

use super::{Caller, Pvfs, expect_attr, number};

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
    /// Entries of a directory from `offset` on, into `sink`, which has room for `bytes` of them.
    /// With `plus` each comes with attributes.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn readdir(
        &self,
        caller: Caller,
        node: u64,
        offset: u64,
        (bytes, plus): (usize, bool),
        sink: &mut impl DirectorySink,
    ) -> Result<(), FsError> {
        if offset < ENTRIES_OFFSET && self.dots(caller, node, offset, plus, sink)? {
            return Ok(());
        }
        let entry_bytes = if plus { ENTRY_PLUS_BYTES } else { ENTRY_BYTES };
        let fitting = u32::try_from(bytes / entry_bytes).unwrap_or(u32::MAX);
        let operation = MgrOperation::ReadDirectory {
            inode: number(node),
            after: offset.saturating_sub(ENTRIES_OFFSET),
            entries_max: fitting.clamp(1, READDIR_ENTRIES_MAX),
            plus,
        };
        let entries = match self.ask(caller, operation)? {
            MgrResponse::Entries { entries, .. } => entries,
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
        caller: Caller,
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
        let operation = MgrOperation::Lookup {
            parent: number(node),
            name: None,
        };
        let parent = expect_attr(self.ask(caller, operation)?)?;
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
