// SPDX-License-Identifier: MIT
//! Access control lists at work: as extended attributes, in permission checks, and handed on to what
//! is made in a directory. What a list says is in [`super::acl`].

use pvfs::attr::{Attr, FileKind};
use pvfs::error::FsError;
use pvfs::ids::InodeNumber;
use pvfs::limits::{ACL_ACCESS_XATTR, ACL_DEFAULT_XATTR};

use super::access::{self, Want};
use super::acl::Acl;
use super::inode::Inode;
use super::key;
use super::transaction::{Halt, Transaction};

/// Which list of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclXattr {
    /// Who may use the inode.
    Access,
    /// What new inodes in a directory get.
    Default,
}

impl AclXattr {
    /// The list of this attribute's name.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        match name {
            ACL_ACCESS_XATTR => Some(Self::Access),
            ACL_DEFAULT_XATTR => Some(Self::Default),
            _ => None,
        }
    }

    const fn name(self) -> &'static [u8] {
        match self {
            Self::Access => ACL_ACCESS_XATTR,
            Self::Default => ACL_DEFAULT_XATTR,
        }
    }
}

impl Transaction<'_> {
    /// Checks whether the caller may do what it wants with an inode, by its access control list or
    /// its mode.
    ///
    /// # Errors
    ///
    /// [`FsError::AccessDenied`].
    pub fn permit(&self, attr: &Attr, want: Want) -> Result<(), Halt> {
        let who = self.context.credentials;
        // As in Linux, an empty mask is not asked: see `acl_permission_check` in fs/namei.c.
        let listed = attr.has_acl && attr.mode & access::GROUP_ALL != 0;
        if listed && !access::is_root(who) && who.uid != attr.uid {
            if let Some(acl) = self.acl(attr.inode, AclXattr::Access)? {
                return Ok(acl.check(attr, who, want)?);
            }
        }
        Ok(access::check(attr, who, want)?)
    }

    /// A list of an inode.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`]; [`FsError::Io`] where what is stored is no list.
    pub fn acl(&self, inode: InodeNumber, which: AclXattr) -> Result<Option<Acl>, Halt> {
        let Some(value) = self.get::<Vec<u8>>(&key::xattr(inode, which.name()))? else {
            return Ok(None);
        };
        Ok(Acl::parse(&value).map_err(|_| FsError::Io)?)
    }

    fn put_acl(&mut self, inode: InodeNumber, which: AclXattr, acl: &Acl) -> Result<(), Halt> {
        self.put(key::xattr(inode, which.name()), &acl.to_bytes())
    }

    /// The attribute's value.
    ///
    /// # Errors
    ///
    /// [`FsError::NoAttribute`] where the inode has no such list.
    pub fn show_acl(&self, inode: &Inode, which: AclXattr) -> Result<Vec<u8>, Halt> {
        let acl = match inode.attr.has_acl {
            true => self.acl(inode.attr.inode, which)?,
            false => None,
        };
        Ok(acl.ok_or(FsError::NoAttribute)?.to_bytes())
    }

    /// Sets a list, or takes it away where `value` is none or has no entries. An access list that
    /// says no more than a mode becomes the mode.
    ///
    /// # Errors
    ///
    /// [`FsError::NotSupported`] for a symbolic link, [`FsError::AccessDenied`] for a default list
    /// of anything but a directory, [`FsError::NotPermitted`], [`FsError::InvalidArgument`].
    pub fn set_acl(
        &mut self,
        mut found: Inode,
        which: AclXattr,
        value: Option<&[u8]>,
    ) -> Result<(), Halt> {
        let acl = value.map(Acl::parse).transpose()?.flatten();
        let attr = &mut found.attr;
        if attr.kind == FileKind::Symlink {
            return Err(FsError::NotSupported.into());
        }
        if !access::is_owner_or_root(attr, self.context.credentials) {
            return Err(FsError::NotPermitted.into());
        }
        let inode = attr.inode;
        let kept = match (which, acl) {
            (AclXattr::Default, Some(_)) if attr.kind != FileKind::Directory => {
                return Err(FsError::AccessDenied.into());
            }
            (AclXattr::Default, acl) => acl,
            (AclXattr::Access, None) => None,
            (AclXattr::Access, Some(acl)) => {
                self.set_mode(attr, (attr.mode & !access::PERMISSION_BITS) | acl.mode());
                Some(acl).filter(|acl| !acl.is_mode())
            }
        };
        match &kept {
            Some(acl) => self.put_acl(inode, which, acl)?,
            None => self.delete(key::xattr(inode, which.name())),
        }
        let other = match which {
            AclXattr::Access => AclXattr::Default,
            AclXattr::Default => AclXattr::Access,
        };
        attr.has_acl = kept.is_some() || self.has(&key::xattr(inode, other.name()))?;
        attr.ctime = self.context.now;
        self.put_inode(&found)
    }

    /// Sets a mode as chmod(2) does: who is not of the file's group cannot set set-group-ID.
    pub(super) fn set_mode(&self, attr: &mut Attr, mode: u16) {
        let who = self.context.credentials;
        attr.mode = mode & access::MODE_BITS;
        if !access::is_root(who) && !who.in_group(attr.gid) {
            attr.mode &= !access::SET_GID;
        }
    }

    /// Lets the access list of an inode follow its new mode.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn acl_follows_mode(&mut self, attr: &Attr) -> Result<(), Halt> {
        if !attr.has_acl {
            return Ok(());
        }
        match self.acl(attr.inode, AclXattr::Access)? {
            Some(mut acl) => {
                acl.set_mode(attr.mode);
                self.put_acl(attr.inode, AclXattr::Access, &acl)
            }
            None => Ok(()),
        }
    }

    /// Gives a new inode in the directory `parent` the lists that it inherits, and takes from its
    /// mode what they, or else the `umask` of its maker, do not leave.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn inherit_acl(&mut self, parent: &Attr, attr: &mut Attr, umask: u16) -> Result<(), Halt> {
        let inherits = parent.has_acl && attr.kind != FileKind::Symlink;
        let default = match inherits {
            true => self.acl(parent.inode, AclXattr::Default)?,
            false => None,
        };
        let Some(default) = default else {
            attr.mode &= !umask;
            return Ok(());
        };
        let mut acl = default.clone();
        let permissions = acl.inherit(attr.mode);
        attr.mode = (attr.mode & !access::PERMISSION_BITS) | permissions;
        if !acl.is_mode() {
            self.put_acl(attr.inode, AclXattr::Access, &acl)?;
            attr.has_acl = true;
        }
        if attr.kind == FileKind::Directory {
            self.put_acl(attr.inode, AclXattr::Default, &default)?;
            attr.has_acl = true;
        }
        Ok(())
    }
}
