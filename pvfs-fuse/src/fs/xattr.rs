// SPDX-License-Identifier: MIT
//! Extended attributes: mgr's. Of the name space `system.` there are access control lists alone; the
//! kernel asks for those at each permission check, so they are kept under a lease.

use pvfs::error::FsError;
use pvfs::limits::{ACL_ACCESS_XATTR, ACL_DEFAULT_XATTR, CAPABILITY_XATTR};
use pvfs::proto::mgr::{MgrOperation, MgrResponse, XattrMode};
use pvfs::runtime::sync::Arc;

use super::inode::Inode;
use super::{Caller, Pvfs, expect_done, number};

/// The kernel's own name space.
const SYSTEM_PREFIX: &[u8] = b"system.";

impl Pvfs {
    /// An attribute's value.
    ///
    /// # Errors
    ///
    /// mgr's; [`FsError::NotSupported`] for what is unknown in `system.`.
    pub fn getxattr(&self, caller: Caller, node: u64, key: &[u8]) -> Result<Vec<u8>, FsError> {
        refuse_system(key)?;
        if is_acl(key) {
            return self.acl(node, key);
        }
        if key == CAPABILITY_XATTR && self.has_no_capability(node) {
            return Err(FsError::NoAttribute);
        }
        self.xattr_of_mgr(caller, node, key)
    }

    /// Whether a lease says so: the kernel asks at each exec, and before many a write.
    fn has_no_capability(&self, node: u64) -> bool {
        self.inode_under_lease(node).is_some_and(|inode| {
            let state = inode.state();
            let known = state.privileges().filter(|_| state.lease.held().is_some());
            known.is_some_and(|known| !known.capability)
        })
    }

    /// An inode of which what is kept may be believed.
    fn inode_under_lease(&self, node: u64) -> Option<Arc<Inode>> {
        let known = self.mgr.leases_left().is_some() && !self.is_changing(number(node));
        self.files.inode(number(node)).filter(|_| known)
    }

    fn xattr_of_mgr(&self, caller: Caller, node: u64, key: &[u8]) -> Result<Vec<u8>, FsError> {
        let operation = MgrOperation::GetXattr {
            inode: number(node),
            name: key.to_vec(),
        };
        match self.ask(caller, operation)? {
            MgrResponse::Bytes(value) => Ok(value),
            _ => Err(FsError::Protocol),
        }
    }

    fn acl(&self, node: u64, key: &[u8]) -> Result<Vec<u8>, FsError> {
        let inode = self.inode_under_lease(node);
        let mut since = None;
        if let Some(inode) = &inode {
            let state = inode.state();
            if let Some(known) = state.kept_acl(key) {
                return known.map(<[u8]>::to_vec).ok_or(FsError::NoAttribute);
            }
            since = state.kept_since();
        }
        // Whoever reaches an inode may see its lists.
        let found = self.xattr_of_mgr(Caller::ROOT, node, key);
        if let (Some(inode), Some(since)) = (inode, since) {
            match &found {
                Ok(acl) => inode.state().keep_acl(since, key, Some(acl.clone())),
                Err(FsError::NoAttribute) => inode.state().keep_acl(since, key, None),
                Err(_) => {}
            }
        }
        found
    }

    /// Sets an attribute.
    ///
    /// # Errors
    ///
    /// As [`Self::getxattr`].
    pub fn setxattr(
        &self,
        caller: Caller,
        node: u64,
        (key, value): (&[u8], &[u8]),
        mode: XattrMode,
    ) -> Result<(), FsError> {
        refuse_system(key)?;
        let operation = MgrOperation::SetXattr {
            inode: number(node),
            name: key.to_vec(),
            value: value.to_vec(),
            mode,
        };
        expect_done(self.ask(caller, operation)?)
    }

    /// The names of all attributes, each ended by a NUL.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn listxattr(&self, caller: Caller, node: u64) -> Result<Vec<u8>, FsError> {
        match self.ask(
            caller,
            MgrOperation::ListXattr {
                inode: number(node),
            },
        )? {
            MgrResponse::Names(names) => {
                let mut list = Vec::new();
                for name in names {
                    list.extend_from_slice(&name);
                    list.push(0);
                }
                Ok(list)
            }
            _ => Err(FsError::Protocol),
        }
    }

    /// Removes an attribute.
    ///
    /// # Errors
    ///
    /// As [`Self::getxattr`].
    pub fn removexattr(&self, caller: Caller, node: u64, key: &[u8]) -> Result<(), FsError> {
        refuse_system(key)?;
        let operation = MgrOperation::RemoveXattr {
            inode: number(node),
            name: key.to_vec(),
        };
        if key != CAPABILITY_XATTR {
            return expect_done(self.ask(caller, operation)?);
        }
        // The kernel lets nobody else remove a capability, but removes one itself on behalf of whoever
        // writes to the file. Another writer may have made it go since it looked.
        let writers = self.files.inode(number(node));
        let writes = writers.is_some_and(|inode| inode.state().writers > 0);
        match self.ask_as_root(operation) {
            Err(FsError::NoAttribute) if writes || caller.uid != 0 => Ok(()),
            removed => expect_done(removed?),
        }
    }
}

fn is_acl(key: &[u8]) -> bool {
    key == ACL_ACCESS_XATTR || key == ACL_DEFAULT_XATTR
}

fn refuse_system(key: &[u8]) -> Result<(), FsError> {
    if key.starts_with(SYSTEM_PREFIX) && !is_acl(key) {
        Err(FsError::NotSupported)
    } else {
        Ok(())
    }
}
