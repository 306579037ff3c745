// SPDX-License-Identifier: MIT
//! Making inodes: files, directories, special files, symbolic links.

use pvfs::attr::{Attr, FileKind};
use pvfs::error::FsError;
use pvfs::ids::InodeNumber;
use pvfs::limits::SYMLINK_TARGET_BYTES_MAX;
use pvfs::name::Name;
use pvfs::proto::mgr::{Access, MgrResponse};

use super::access;
use super::dentry::OpenDirectory;
use super::inode::{Inode, NewInode};
use super::key;
use super::transaction::{Halt, Transaction};

/// A regular file that is made and opened.
#[derive(Clone, Copy, Debug)]
pub struct Create {
    /// Permission bits.
    pub mode: u16,
    /// The caller's umask.
    pub umask: u16,
    /// Fails where the name exists.
    pub exclusive: bool,
    /// How it is opened.
    pub access: Access,
}

impl Transaction<'_> {
    /// open(2) with `O_CREAT`.
    ///
    /// # Errors
    ///
    /// [`FsError::Exists`]; [`FsError::TryAgain`] while there is no iod that could hold the file;
    /// [`FsError::Stale`] where a name that the caller believed free is a link or special file, so
    /// that the kernel looks it up anew; and those of [`Self::changeable`] and [`Self::open`].
    pub fn create(
        &mut self,
        parent: InodeNumber,
        name: &Name,
        create: Create,
    ) -> Result<MgrResponse, Halt> {
        self.searchable(parent)?;
        if let Some(found) = self.find(parent, name)? {
            return match found.kind {
                _ if create.exclusive => Err(FsError::Exists.into()),
                FileKind::Regular => self.open(found.inode, create.access, false),
                FileKind::Directory => Err(FsError::IsDirectory.into()),
                FileKind::Symlink
                | FileKind::Fifo
                | FileKind::Socket
                | FileKind::CharDevice
                | FileKind::BlockDevice => Err(FsError::Stale.into()),
            };
        }
        let mut directory = self.room_for(parent, name)?;
        let new = NewInode {
            kind: FileKind::Regular,
            mode: create.mode,
            umask: create.umask,
            rdev: 0,
        };
        let attr = self.make(&mut directory, name, new)?;
        // Who makes a file may use it as asked, whatever its mode says.
        self.grant(&attr, create.access)
    }

    /// mknod(2) and mkdir(2).
    ///
    /// # Errors
    ///
    /// [`FsError::Exists`], [`FsError::InvalidArgument`] for a symbolic link,
    /// [`FsError::NotPermitted`] for devices unless the caller is root, and those of
    /// [`Self::changeable`].
    pub fn make_node(
        &mut self,
        parent: InodeNumber,
        name: &Name,
        new: NewInode,
    ) -> Result<MgrResponse, Halt> {
        let device = match new.kind {
            FileKind::Symlink => return Err(FsError::InvalidArgument.into()),
            FileKind::CharDevice | FileKind::BlockDevice => true,
            FileKind::Regular | FileKind::Directory | FileKind::Fifo | FileKind::Socket => false,
        };
        let mut directory = self.room_for(parent, name)?;
        if device && !access::is_root(self.context.credentials) {
            return Err(FsError::NotPermitted.into());
        }
        let new = NewInode {
            rdev: if device { new.rdev } else { 0 },
            ..new
        };
        Ok(MgrResponse::Attr(self.make(&mut directory, name, new)?))
    }

    /// symlink(2).
    ///
    /// # Errors
    ///
    /// [`FsError::NameTooLong`], [`FsError::NotFound`] for an empty target, and those of
    /// [`Self::make_node`].
    pub fn symlink(
        &mut self,
        parent: InodeNumber,
        name: &Name,
        target: &[u8],
    ) -> Result<MgrResponse, Halt> {
        if target.is_empty() || target.contains(&0) {
            return Err(FsError::NotFound.into());
        }
        if target.len() > SYMLINK_TARGET_BYTES_MAX {
            return Err(FsError::NameTooLong.into());
        }
        let mut directory = self.room_for(parent, name)?;
        let new = NewInode {
            kind: FileKind::Symlink,
            mode: 0o777,
            umask: 0,
            rdev: 0,
        };
        let mut inode = self.new_inode(&directory.attr, new)?;
        inode.attr.size = target.len() as u64;
        self.put(key::symlink(inode.attr.inode), &target.to_vec())?;
        self.attach(&mut directory, name, &inode)?;
        Ok(MgrResponse::Attr(inode.attr))
    }

    /// readlink(2).
    ///
    /// # Errors
    ///
    /// [`FsError::InvalidArgument`] for anything but a symbolic link.
    pub fn read_link(&self, inode: InodeNumber) -> Result<MgrResponse, Halt> {
        if self.inode(inode)?.attr.kind != FileKind::Symlink {
            return Err(FsError::InvalidArgument.into());
        }
        Ok(MgrResponse::Bytes(self.required(key::symlink(inode))?))
    }

    /// The directory `parent`, in which the caller may make `name` and which does not have it.
    ///
    /// POSIX wants `EEXIST` for an existing name even where the directory may not be written to.
    pub(super) fn room_for(&self, parent: InodeNumber, name: &Name) -> Result<OpenDirectory, Halt> {
        self.searchable(parent)?;
        if self.find(parent, name)?.is_some() {
            return Err(FsError::Exists.into());
        }
        self.changeable(parent)
    }

    fn make(
        &mut self,
        directory: &mut OpenDirectory,
        name: &Name,
        new: NewInode,
    ) -> Result<Attr, Halt> {
        let inode = self.new_inode(&directory.attr, new)?;
        if new.kind == FileKind::Regular {
            self.lay_out(inode.attr.inode, directory)?;
        }
        self.attach(directory, name, &inode)?;
        Ok(inode.attr)
    }

    fn attach(
        &mut self,
        directory: &mut OpenDirectory,
        name: &Name,
        inode: &Inode,
    ) -> Result<(), Halt> {
        self.put_inode(inode)?;
        self.add_entry(directory, name, &inode.attr)?;
        self.put_open_directory(directory)
    }
}
