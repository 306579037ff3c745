// SPDX-License-Identifier: MIT
//! rename(2) and renameat2(2).

use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, ROOT_INODE};
use pvfs::name::Name;
use pvfs::proto::mgr::{MgrResponse, RenameMode};

use super::access::{self, Want};
use super::dentry::{Dentry, OpenDirectory};
use super::inode::Inode;
use super::transaction::{Halt, Transaction};

/// Directories between an inode and the root. A path has at most 4,096 bytes, but directories can
/// be moved below one another without end; beyond this, a rename is refused rather than walked.
const DEPTH_MAX: usize = 65_536;

/// One of the two names of a rename.
#[derive(Clone, Debug)]
struct Side<'n> {
    parent: InodeNumber,
    name: &'n Name,
    dentry: Dentry,
    inode: Inode,
}

/// Both parents, which may be one directory: then `new` is `None`.
struct Parents {
    old: OpenDirectory,
    new: Option<OpenDirectory>,
}

impl Parents {
    fn new_mut(&mut self) -> &mut OpenDirectory {
        self.new.as_mut().unwrap_or(&mut self.old)
    }

    const fn is_one(&self) -> bool {
        self.new.is_none()
    }
}

impl Transaction<'_> {
    /// Renames.
    ///
    /// # Errors
    ///
    /// As renameat2(2) lists them: [`FsError::NotFound`], [`FsError::Exists`],
    /// [`FsError::InvalidArgument`] for a directory moved below itself, [`FsError::NotEmpty`],
    /// [`FsError::IsDirectory`], [`FsError::NotDirectory`], [`FsError::AccessDenied`],
    /// [`FsError::NotPermitted`].
    pub fn rename(
        &mut self,
        (parent, name): (InodeNumber, &Name),
        (new_parent, new_name): (InodeNumber, &Name),
        mode: RenameMode,
    ) -> Result<MgrResponse, Halt> {
        let (old_directory, dentry, inode) = self.removable(parent, name)?;
        let old = Side {
            parent,
            name,
            dentry,
            inode,
        };
        let new_directory = self.changeable(new_parent)?;
        let new = (parent != new_parent).then_some(new_directory);
        let mut parents = Parents {
            old: old_directory,
            new,
        };
        let target = self.target(&mut parents, new_parent, new_name)?;
        match (target, mode) {
            (Some(_), RenameMode::NoReplace) => return Err(FsError::Exists.into()),
            (None, RenameMode::Exchange) => return Err(FsError::NotFound.into()),
            (Some(target), _) if target.dentry.inode == old.dentry.inode => {
                return Ok(MgrResponse::Done);
            }
            (Some(target), RenameMode::Exchange) => self.exchange(&mut parents, old, target)?,
            (target, RenameMode::Replace | RenameMode::NoReplace) => {
                self.check_movable(&old, new_parent)?;
                if let Some(target) = &target {
                    check_replaceable(&old.inode, &target.inode)?;
                }
                self.move_name(&mut parents, old, (new_parent, new_name), target)?;
            }
        }
        self.put_open_directory(&parents.old)?;
        if let Some(new) = &parents.new {
            self.put_open_directory(new)?;
        }
        Ok(MgrResponse::Done)
    }

    fn target<'n>(
        &self,
        parents: &mut Parents,
        parent: InodeNumber,
        name: &'n Name,
    ) -> Result<Option<Side<'n>>, Halt> {
        let Some(dentry) = self.find(parent, name)? else {
            return Ok(None);
        };
        let inode = self.named_inode(dentry.inode)?;
        let directory = &parents.new_mut().attr;
        access::check_sticky(directory, &inode.attr, self.context.credentials)?;
        Ok(Some(Side {
            parent,
            name,
            dentry,
            inode,
        }))
    }

    /// Whether an inode may be moved to `new_parent`: a directory not below itself, and only by
    /// whoever may write to it, since its `..` changes.
    fn check_movable(&self, side: &Side<'_>, new_parent: InodeNumber) -> Result<(), Halt> {
        if side.inode.directory.is_none() || side.parent == new_parent {
            return Ok(());
        }
        self.check_no_loop(side.dentry.inode, new_parent)?;
        self.permit(&side.inode.attr, Want::WRITE)
    }

    /// Walks from `below` to the root and must not meet `moved`.
    fn check_no_loop(&self, moved: InodeNumber, below: InodeNumber) -> Result<(), Halt> {
        let mut at = below;
        for _ in 0..DEPTH_MAX {
            if at == moved {
                return Err(FsError::InvalidArgument.into());
            }
            if at == ROOT_INODE {
                return Ok(());
            }
            at = self.directory(at)?.1.parent;
        }
        Err(FsError::NotSupported.into())
    }

    fn move_name(
        &mut self,
        parents: &mut Parents,
        old: Side<'_>,
        (new_parent, new_name): (InodeNumber, &Name),
        target: Option<Side<'_>>,
    ) -> Result<(), Halt> {
        let Side {
            name,
            dentry,
            mut inode,
            ..
        } = old;
        self.remove_entry(&mut parents.old, name, &dentry);
        match target {
            // So does one that only gets another name. A listing that began before meets the inode
            // once, and also where a program renames it and back.
            None if parents.is_one() => {
                let directory = &mut parents.old;
                directory.directory.entries += 1;
                self.put_entry(directory, new_name, &inode.attr, dentry.cookie)?;
            }
            None => self.add_entry(parents.new_mut(), new_name, &inode.attr)?,
            Some(mut target) => {
                // The name keeps its place, so that a reader of the directory sees the name once.
                let directory = parents.new_mut();
                self.forget_child(directory, target.dentry.kind);
                self.put_entry(directory, new_name, &inode.attr, target.dentry.cookie)?;
                self.drop_link(&mut target.inode)?;
            }
        }
        self.settle(&mut inode, new_parent)
    }

    fn exchange(
        &mut self,
        parents: &mut Parents,
        old: Side<'_>,
        new: Side<'_>,
    ) -> Result<(), Halt> {
        self.check_movable(&old, new.parent)?;
        self.check_movable(&new, old.parent)?;
        let (mut first, mut second) = (old.inode, new.inode);
        self.forget_child(&mut parents.old, old.dentry.kind);
        self.forget_child(parents.new_mut(), new.dentry.kind);
        self.put_entry(&mut parents.old, old.name, &second.attr, old.dentry.cookie)?;
        self.put_entry(parents.new_mut(), new.name, &first.attr, new.dentry.cookie)?;
        debug_assert_eq!(parents.is_one(), old.parent == new.parent);
        self.settle(&mut first, new.parent)?;
        self.settle(&mut second, old.parent)
    }

    /// Stores a moved inode: its ctime, and a directory's new parent.
    fn settle(&mut self, inode: &mut Inode, parent: InodeNumber) -> Result<(), Halt> {
        inode.attr.ctime = self.context.now;
        if let Some(directory) = &mut inode.directory {
            directory.parent = parent;
        }
        self.put_inode(inode)
    }
}

fn check_replaceable(old: &Inode, target: &Inode) -> Result<(), FsError> {
    match (&old.directory, &target.directory) {
        (None, None) => Ok(()),
        (Some(_), None) => Err(FsError::NotDirectory),
        (None, Some(_)) => Err(FsError::IsDirectory),
        (Some(_), Some(directory)) if directory.entries > 0 => Err(FsError::NotEmpty),
        (Some(_), Some(_)) => Ok(()),
    }
}
