// SPDX-License-Identifier: MIT
//! Hard links, and the removal of names.

use pvfs::attr::FileKind;
use pvfs::error::FsError;
use pvfs::ids::InodeNumber;
use pvfs::limits::LINKS_MAX;
use pvfs::name::Name;
use pvfs::proto::mgr::MgrResponse;

use super::access;
use super::dentry::{Dentry, OpenDirectory};
use super::inode::Inode;
use super::transaction::{Halt, Transaction};

impl Transaction<'_> {
    /// link(2).
    ///
    /// # Errors
    ///
    /// [`FsError::NotPermitted`] for a directory, [`FsError::TooManyLinks`],
    /// [`FsError::NotFound`] for an inode whose last name is gone, [`FsError::Exists`].
    pub fn link(
        &mut self,
        inode: InodeNumber,
        parent: InodeNumber,
        name: &Name,
    ) -> Result<MgrResponse, Halt> {
        let mut found = self.inode(inode)?;
        let mut directory = self.room_for(parent, name)?;
        if found.attr.kind == FileKind::Directory {
            return Err(FsError::NotPermitted.into());
        }
        if found.attr.nlink == 0 {
            return Err(FsError::NotFound.into());
        }
        if found.attr.nlink >= LINKS_MAX {
            return Err(FsError::TooManyLinks.into());
        }
        found.attr.nlink += 1;
        found.attr.ctime = self.context.now;
        self.put_inode(&found)?;
        self.add_entry(&mut directory, name, &found.attr)?;
        self.put_open_directory(&directory)?;
        Ok(MgrResponse::Attr(found.attr))
    }

    /// unlink(2).
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::IsDirectory`], and those of [`Self::removable`].
    pub fn unlink(&mut self, parent: InodeNumber, name: &Name) -> Result<MgrResponse, Halt> {
        let (mut directory, dentry, mut found) = self.removable(parent, name)?;
        if dentry.kind == FileKind::Directory {
            return Err(FsError::IsDirectory.into());
        }
        self.remove_entry(&mut directory, name, &dentry);
        self.put_open_directory(&directory)?;
        self.drop_link(&mut found)?;
        Ok(MgrResponse::Done)
    }

    /// rmdir(2).
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::NotDirectory`], [`FsError::NotEmpty`], and those of
    /// [`Self::removable`].
    pub fn remove_directory(
        &mut self,
        parent: InodeNumber,
        name: &Name,
    ) -> Result<MgrResponse, Halt> {
        let (mut directory, dentry, mut found) = self.removable(parent, name)?;
        match found.directory {
            None => return Err(FsError::NotDirectory.into()),
            Some(removed) if removed.entries > 0 => return Err(FsError::NotEmpty.into()),
            Some(_) => {}
        }
        self.remove_entry(&mut directory, name, &dentry);
        self.put_open_directory(&directory)?;
        self.drop_link(&mut found)?;
        Ok(MgrResponse::Done)
    }

    /// A name that the caller may remove, with its directory and inode.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::AccessDenied`], [`FsError::NotPermitted`] by the sticky
    /// bit.
    pub fn removable(
        &self,
        parent: InodeNumber,
        name: &Name,
    ) -> Result<(OpenDirectory, Dentry, Inode), Halt> {
        self.searchable(parent)?;
        let dentry = self.find(parent, name)?.ok_or(FsError::NotFound)?;
        let directory = self.changeable(parent)?;
        let found = self.named_inode(dentry.inode)?;
        access::check_sticky(&directory.attr, &found.attr, self.context.credentials)?;
        Ok((directory, dentry, found))
    }

    /// Counts one name less; a directory has only one, and loses its own `.` with it.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn drop_link(&mut self, inode: &mut Inode) -> Result<(), Halt> {
        let attr = &mut inode.attr;
        attr.nlink = if inode.directory.is_some() {
            0
        } else {
            attr.nlink.saturating_sub(1)
        };
        attr.ctime = self.context.now;
        if attr.nlink > 0 {
            self.put_inode(inode)
        } else {
            self.orphan_or_remove(inode)
        }
    }
}
