// SPDX-License-Identifier: MIT
//! Extended attributes: mgr's, but for those of the name space `system.`, which are POSIX access
//! control lists and not supported yet.

use pvfs::error::FsError;
use pvfs::proto::mgr::{MgrOperation, MgrResponse, XattrMode};

use super::{Caller, Pvfs, expect_done, number};

/// Access control lists. Refused here: `ls -l` asks for one of every file.
const SYSTEM_PREFIX: &[u8] = b"system.";

impl Pvfs {
    /// An attribute's value.
    ///
    /// # Errors
    ///
    /// mgr's; [`FsError::NotSupported`] for `system.`.
    pub fn getxattr(&self, caller: Caller, node: u64, key: &[u8]) -> Result<Vec<u8>, FsError> {
        refuse_system(key)?;
        let operation = MgrOperation::GetXattr {
            inode: number(node),
            name: key.to_vec(),
        };
        match self.ask(caller, operation)? {
            MgrResponse::Bytes(value) => Ok(value),
            _ => Err(FsError::Protocol),
        }
    }

    /// Sets an attribute.
    ///
    /// # Errors
    ///
    /// mgr's; [`FsError::NotSupported`] for `system.`.
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
    /// mgr's; [`FsError::NotSupported`] for `system.`.
    pub fn removexattr(&self, caller: Caller, node: u64, key: &[u8]) -> Result<(), FsError> {
        refuse_system(key)?;
        let operation = MgrOperation::RemoveXattr {
            inode: number(node),
            name: key.to_vec(),
        };
        expect_done(self.ask(caller, operation)?)
    }
}

fn refuse_system(key: &[u8]) -> Result<(), FsError> {
    if key.starts_with(SYSTEM_PREFIX) {
        Err(FsError::NotSupported)
    } else {
        Ok(())
    }
}
