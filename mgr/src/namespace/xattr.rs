// SPDX-License-Identifier: MIT
//! Extended attributes, and the virtual ones that show the layout (see [`super::layout_xattr`]).

use pvfs::attr::{Attr, FileKind};
use pvfs::error::FsError;
use pvfs::ids::InodeNumber;
use pvfs::limits::{
    CAPABILITY_XATTR, XATTR_LIST_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX,
};
use pvfs::proto::mgr::{MgrResponse, XattrMode};

use super::access::{self, Want};
use super::acl_xattr::AclXattr;
use super::key;
use super::layout_xattr::LayoutXattr;
use super::transaction::{Halt, Transaction};

/// The name spaces of xattr(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameSpace {
    /// By the mode bits, on files and directories.
    User,
    /// Seen and set by root alone.
    Trusted,
    /// Seen by all, set by root alone.
    Security,
}

fn name_space(name: &[u8]) -> Result<NameSpace, FsError> {
    if name.len() > XATTR_NAME_BYTES_MAX {
        return Err(FsError::Range);
    }
    let spaces: [(&[u8], NameSpace); 3] = [
        (b"user.", NameSpace::User),
        (b"trusted.", NameSpace::Trusted),
        (b"security.", NameSpace::Security),
    ];
    for (prefix, space) in spaces {
        match name.strip_prefix(prefix) {
            Some(rest) if rest.is_empty() || rest.contains(&0) => {
                return Err(FsError::InvalidArgument);
            }
            Some(_) => return Ok(space),
            None => {}
        }
    }
    Err(FsError::NotSupported)
}

impl Transaction<'_> {
    /// getxattr(2).
    ///
    /// # Errors
    ///
    /// [`FsError::NoAttribute`], [`FsError::NotSupported`] for an unknown name space,
    /// [`FsError::AccessDenied`].
    pub fn get_xattr(&self, inode: InodeNumber, name: &[u8]) -> Result<MgrResponse, Halt> {
        let found = self.inode(inode)?;
        if let Some(which) = AclXattr::parse(name) {
            return Ok(MgrResponse::Bytes(self.show_acl(&found, which)?));
        }
        self.check_readable(&found.attr, name_space(name)?)?;
        if let Some(virtual_name) = LayoutXattr::parse(name) {
            return Ok(MgrResponse::Bytes(self.show_layout(&found, virtual_name)?));
        }
        let value = self.get::<Vec<u8>>(&key::xattr(inode, name))?;
        Ok(MgrResponse::Bytes(value.ok_or(FsError::NoAttribute)?))
    }

    /// setxattr(2).
    ///
    /// # Errors
    ///
    /// [`FsError::Exists`] and [`FsError::NoAttribute`] by the mode, [`FsError::TooBig`],
    /// [`FsError::NoSpace`] where the names no longer fit a list, [`FsError::NotPermitted`],
    /// [`FsError::AccessDenied`].
    pub fn set_xattr(
        &mut self,
        inode: InodeNumber,
        name: &[u8],
        value: Vec<u8>,
        mode: XattrMode,
    ) -> Result<MgrResponse, Halt> {
        let mut found = self.inode(inode)?;
        if let Some(which) = AclXattr::parse(name) {
            self.set_acl(found, which, Some(&value))?;
            return Ok(MgrResponse::Done);
        }
        self.check_settable(&found.attr, name_space(name)?)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(FsError::TooBig.into());
        }
        if let Some(virtual_name) = LayoutXattr::parse(name) {
            return self.set_layout_by_xattr(&found, virtual_name, &value);
        }
        let record = key::xattr(inode, name);
        let exists = self.has(&record)?;
        match (mode, exists) {
            (XattrMode::Create, true) => return Err(FsError::Exists.into()),
            (XattrMode::Replace, false) => return Err(FsError::NoAttribute.into()),
            (XattrMode::Set | XattrMode::Create, false) => self.check_list_room(inode, name)?,
            (XattrMode::Set | XattrMode::Replace, true) => {}
        }
        self.put(record, &value)?;
        found.attr.has_capability |= name == CAPABILITY_XATTR;
        found.attr.ctime = self.context.now;
        self.put_inode(&found)?;
        Ok(MgrResponse::Done)
    }

    /// listxattr(2). The virtual attributes are not listed: a copy of a file by a program that
    /// copies every attribute it finds shall not copy where the stripes are.
    ///
    /// # Errors
    ///
    /// [`FsError::Stale`].
    pub fn list_xattr(&self, inode: InodeNumber) -> Result<MgrResponse, Halt> {
        self.inode(inode)?;
        let mut names = self.xattr_names(inode)?;
        if !access::is_root(self.context.credentials) {
            names.retain(|name| !matches!(name_space(name), Ok(NameSpace::Trusted)));
        }
        Ok(MgrResponse::Names(names))
    }

    /// removexattr(2). On a directory, removing any of the layout's makes it inherit again.
    ///
    /// # Errors
    ///
    /// [`FsError::NoAttribute`], [`FsError::NotPermitted`], [`FsError::AccessDenied`].
    pub fn remove_xattr(&mut self, inode: InodeNumber, name: &[u8]) -> Result<MgrResponse, Halt> {
        let mut found = self.inode(inode)?;
        if let Some(which) = AclXattr::parse(name) {
            self.set_acl(found, which, None)?;
            return Ok(MgrResponse::Done);
        }
        self.check_settable(&found.attr, name_space(name)?)?;
        if LayoutXattr::parse(name).is_some() {
            return match found.directory {
                Some(directory) if directory.policy.is_some() => self.set_layout(inode, None),
                _ => Err(FsError::NoAttribute.into()),
            };
        }
        let record = key::xattr(inode, name);
        if !self.has(&record)? {
            return Err(FsError::NoAttribute.into());
        }
        self.delete(record);
        found.attr.has_capability &= name != CAPABILITY_XATTR;
        found.attr.ctime = self.context.now;
        self.put_inode(&found)?;
        Ok(MgrResponse::Done)
    }

    fn xattr_names(&self, inode: InodeNumber) -> Result<Vec<Vec<u8>>, Halt> {
        let prefix = key::xattr(inode, b"");
        let records = self.scan(&prefix, &prefix, usize::MAX)?;
        let names = records
            .into_iter()
            .filter_map(|(key, _)| Some(key.get(prefix.len()..)?.into()));
        Ok(names.collect())
    }

    fn check_list_room(&self, inode: InodeNumber, name: &[u8]) -> Result<(), Halt> {
        let names = self.xattr_names(inode)?;
        // Each name in a list is closed by a NUL.
        let listed = names.iter().map(|name| name.len() + 1).sum::<usize>();
        let fits = listed + name.len() < XATTR_LIST_BYTES_MAX;
        if fits {
            Ok(())
        } else {
            Err(FsError::NoSpace.into())
        }
    }

    fn check_readable(&self, attr: &Attr, space: NameSpace) -> Result<(), Halt> {
        let who = self.context.credentials;
        match space {
            NameSpace::User => {
                check_user_kind(attr).map_err(|_| FsError::NoAttribute)?;
                self.permit(attr, Want::READ)
            }
            NameSpace::Trusted if !access::is_root(who) => Err(FsError::NoAttribute.into()),
            NameSpace::Trusted | NameSpace::Security => Ok(()),
        }
    }

    fn check_settable(&self, attr: &Attr, space: NameSpace) -> Result<(), Halt> {
        let who = self.context.credentials;
        match space {
            NameSpace::User => {
                check_user_kind(attr)?;
                let sticky = attr.kind == FileKind::Directory && attr.mode & access::STICKY != 0;
                if sticky && !access::is_owner_or_root(attr, who) {
                    return Err(FsError::NotPermitted.into());
                }
                self.permit(attr, Want::WRITE)
            }
            NameSpace::Trusted | NameSpace::Security if access::is_root(who) => Ok(()),
            NameSpace::Trusted | NameSpace::Security => Err(FsError::NotPermitted.into()),
        }
    }
}

/// The mode bits of other kinds mean something else than the right to use attributes: xattr(7).
const fn check_user_kind(attr: &Attr) -> Result<(), FsError> {
    match attr.kind {
        FileKind::Regular | FileKind::Directory => Ok(()),
        FileKind::Symlink
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice
        | FileKind::BlockDevice => Err(FsError::NotPermitted),
    }
}
