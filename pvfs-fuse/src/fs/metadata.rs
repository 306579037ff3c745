// SPDX-License-Identifier: MIT
//! Names and attributes: every answer is mgr's, given now or kept under a lease.

use std::time::Duration;

use pvfs::attr::{Attr, FileKind, SetAttr};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, ROOT_INODE};
use pvfs::limits::{HEARTBEAT_INTERVAL_MS, SUSPECT_AFTER_MS};
use pvfs::proto::mgr::{MgrOperation, MgrResponse, RenameMode, StatFs};
use pvfs::runtime::sync::PoisonError;

use super::inode::{Inode, Truncating};
use super::{Caller, Pvfs, expect_attr, expect_done, name, number};

/// Who asks how full the file system is waits for mgr's answer no longer than it may be silent.
const STATFS_TIMEOUT: Duration = Duration::from_millis(SUSPECT_AFTER_MS);

/// While the root's attributes are asked for, it is looked so often whether mgr is there.
const ROOT_LOOK: Duration = Duration::from_millis(HEARTBEAT_INTERVAL_MS);

/// What mknod and mkdir make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Any kind but a symbolic link.
    pub kind: FileKind,
    /// Permission bits as the caller gave them.
    pub mode: u16,
    /// The caller's umask.
    pub umask: u16,
    /// Device number of a device.
    pub rdev: u32,
}

impl Pvfs {
    /// Finds a name in a directory.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn lookup(&self, caller: Caller, parent: u64, entry: &[u8]) -> Result<Attr, FsError> {
        match entry {
            // The kernel asks so about an inode that it has forgotten, for a file handle.
            b"." => return self.of_handle(parent),
            b".." => return self.parent(parent),
            _ => {}
        }
        match self.kept_name(parent, entry) {
            Some(Some(inode)) => return self.getattr(inode.0),
            Some(None) => return Err(FsError::NotFound),
            None => {}
        }
        let operation = MgrOperation::Lookup {
            parent: number(parent),
            name: Some(name(entry)?),
        };
        self.settle(expect_attr(self.ask(caller, operation)?)?)
    }

    /// The attributes of an inode that a file handle names, as long as it has a name.
    fn of_handle(&self, node: u64) -> Result<Attr, FsError> {
        let attr = self.getattr(node)?;
        match attr.nlink {
            // Removed files linger at mgr for whoever has just found their names.
            0 => Err(FsError::Stale),
            _ => Ok(attr),
        }
    }

    /// The attributes of the directory that a directory is in.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub(super) fn parent(&self, node: u64) -> Result<Attr, FsError> {
        let operation = MgrOperation::Lookup {
            parent: number(node),
            name: None,
        };
        self.settle(expect_attr(self.ask_as_root(operation)?)?)
    }

    /// The attributes of an inode, everything that this mount wrote included.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn getattr(&self, node: u64) -> Result<Attr, FsError> {
        let inode = number(node);
        if let Some(open) = self.files.inode(inode) {
            // Its reply tells what others have written only under a lease that lets it be kept: mgr
            // asks nobody else for a report before it answers one.
            self.report(&open)?;
            if let Some(attr) = self.kept_attr(&open) {
                return Ok(attr);
            }
        }
        if inode == ROOT_INODE {
            return self.root();
        }
        // Whoever reaches an inode may see its attributes.
        self.settle(expect_attr(
            self.ask_as_root(MgrOperation::GetAttr { inode })?,
        )?)
    }

    /// The root's attributes; where mgr is away, those that it told last. df(1) looks at them before it
    /// asks for the totals.
    fn root(&self) -> Result<Attr, FsError> {
        let operation = MgrOperation::GetAttr { inode: ROOT_INODE };
        let told = || self.root.lock().unwrap_or_else(PoisonError::into_inner);
        let last = *told();
        let response = loop {
            let Some(last) = last else {
                break self.ask_as_root(operation)?;
            };
            if self.mgr.is_away() {
                return Ok(last);
            }
            match self.mgr.call_within(operation.clone(), ROOT_LOOK) {
                // mgr may have fallen silent, or wait for another node.
                Err(FsError::TryAgain) => {}
                reply => break reply?,
            }
        };
        let attr = self.settle(expect_attr(response)?)?;
        *told() = Some(attr);
        Ok(attr)
    }

    /// chmod, chown, utimensat and truncate. `handle` is the open through which a file is
    /// truncated.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn setattr(
        &self,
        caller: Caller,
        node: u64,
        set: SetAttr,
        handle: Option<u64>,
    ) -> Result<Attr, FsError> {
        let inode = number(node);
        let file = handle.and_then(|handle| self.files.get(handle).ok());
        let open = file.filter(|file| file.access.write).map(|file| file.open);
        let operation = MgrOperation::SetAttr { inode, set, open };
        let Some(shared) = self.files.inode(inode) else {
            return self.settle(expect_attr(self.ask(caller, operation)?)?);
        };
        let _reporting = shared.lock_reporting()?;
        self.report_locked(&shared)?;
        let _truncating = set.size.map(|size| Truncating::begin(&shared, size));
        expect_attr(self.ask(caller, operation)?)
    }

    /// What is kept of a name; `Some(None)`: it does not exist.
    pub(super) fn kept_name(&self, parent: u64, entry: &[u8]) -> Option<Option<InodeNumber>> {
        let parent = number(parent);
        match self.is_changing(parent) {
            true => None,
            false => self.name_under_lease(parent, entry),
        }
    }

    /// The same, though the directory may be changing.
    pub(super) fn name_under_lease(
        &self,
        directory: InodeNumber,
        entry: &[u8],
    ) -> Option<Option<InodeNumber>> {
        self.mgr.leases_left()?;
        let directory = self.files.inode(directory)?;
        let state = directory.state();
        state.kept_name(entry)
    }

    fn kept_attr(&self, inode: &Inode) -> Option<Attr> {
        self.mgr.leases_left()?;
        match self.is_changing(inode.number) {
            true => None,
            false => inode.state().kept(),
        }
    }

    /// Makes a file that is not opened, a directory, or a special file.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn make_node(
        &self,
        caller: Caller,
        parent: u64,
        entry: &[u8],
        node: NewNode,
    ) -> Result<Attr, FsError> {
        let operation = MgrOperation::MakeNode {
            parent: number(parent),
            name: name(entry)?,
            kind: node.kind,
            mode: node.mode,
            umask: node.umask,
            rdev: node.rdev,
        };
        expect_attr(self.ask(caller, operation)?)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn symlink(
        &self,
        caller: Caller,
        parent: u64,
        entry: &[u8],
        target: &[u8],
    ) -> Result<Attr, FsError> {
        let target = target.to_vec();
        let operation = MgrOperation::Symlink {
            parent: number(parent),
            name: name(entry)?,
            target,
        };
        expect_attr(self.ask(caller, operation)?)
    }

    /// A symbolic link's target.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn readlink(&self, caller: Caller, node: u64) -> Result<Vec<u8>, FsError> {
        match self.ask(
            caller,
            MgrOperation::ReadLink {
                inode: number(node),
            },
        )? {
            MgrResponse::Bytes(target) => Ok(target),
            _ => Err(FsError::Protocol),
        }
    }

    /// Makes a hard link.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn link(
        &self,
        caller: Caller,
        node: u64,
        parent: u64,
        entry: &[u8],
    ) -> Result<Attr, FsError> {
        let operation = MgrOperation::Link {
            inode: number(node),
            parent: number(parent),
            name: name(entry)?,
        };
        self.settle(expect_attr(self.ask(caller, operation)?)?)
    }

    /// Removes a name that is not a directory's.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn unlink(&self, caller: Caller, parent: u64, entry: &[u8]) -> Result<(), FsError> {
        let operation = MgrOperation::Unlink {
            parent: number(parent),
            name: name(entry)?,
        };
        expect_done(self.ask(caller, operation)?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn rmdir(&self, caller: Caller, parent: u64, entry: &[u8]) -> Result<(), FsError> {
        self.declare_streams_of(parent, entry);
        let operation = MgrOperation::RemoveDirectory {
            parent: number(parent),
            name: name(entry)?,
        };
        expect_done(self.ask(caller, operation)?)
    }

    /// Renames `(directory, name)` to another.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn rename(
        &self,
        caller: Caller,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        if mode == RenameMode::Replace {
            self.declare_streams_of(to.0, to.1);
        }
        let operation = MgrOperation::Rename {
            parent: number(from.0),
            name: name(from.1)?,
            new_parent: number(to.0),
            new_name: name(to.1)?,
            mode,
        };
        expect_done(self.ask(caller, operation)?)
    }

    /// Totals of the file system: mgr's, or, where it is away or does not answer soon, what it said
    /// last. Whoever only looks how full a file system is does not wait for it.
    ///
    /// # Errors
    ///
    /// mgr's; [`FsError::TryAgain`] where it is away and has never said.
    pub fn statfs(&self) -> Result<StatFs, FsError> {
        let reply = match self.mgr.is_away() {
            true => Err(FsError::TryAgain),
            false => self.mgr.call_within(MgrOperation::StatFs, STATFS_TIMEOUT),
        };
        let mut last = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        match reply {
            Ok(MgrResponse::StatFs(totals)) => {
                *last = Some(totals);
                Ok(totals)
            }
            Ok(_) => Err(FsError::Protocol),
            Err(error) => last.ok_or(error),
        }
    }
}
