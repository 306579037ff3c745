// SPDX-License-Identifier: MIT
//! What a file loses before its content changes: its capability, and set-uid and set-gid where an
//! ordinary user changes it. The kernel leaves that to this process (`FUSE_HANDLE_KILLPRIV_V2`).
//!
//! mgr takes the privileges away before the first changed byte is sent to an iod, so that nobody ever
//! executes that byte with them. Each grant of a lease says whether the file has any, and mgr takes all
//! leases back before it gives the file some. So a file without privileges costs no message.

use pvfs::attr::{Credentials, Privileges};
use pvfs::error::FsError;
use pvfs::proto::mgr::MgrOperation;

use super::open_files::OpenFile;
use super::{Caller, Pvfs, WriteRequest, expect_attr};

impl Caller {
    /// Itself, where it is an ordinary user: the kernel says for writes alone whether the caller may
    /// keep a file's set-uid bit.
    pub(super) const fn if_ordinary(self) -> Option<Self> {
        if self.uid == 0 { None } else { Some(self) }
    }
}

impl Pvfs {
    /// Has mgr take from a file, which the caller has a lease to write to, what it loses when `user`
    /// changes its content. `None` may keep the mode bits.
    ///
    /// # Errors
    ///
    /// mgr's; nothing must be changed then.
    pub(super) fn drop_privileges(
        &self,
        file: &OpenFile,
        user: Option<Caller>,
    ) -> Result<(), FsError> {
        let known = match self.is_changing(file.inode.number) {
            true => None,
            false => file.inode.state().privileges(),
        };
        if !loses_some(known, user.is_some()) {
            return Ok(());
        }
        let with_groups = user.and_then(Caller::credentials_with_groups);
        let credentials = with_groups
            .or(user.map(Caller::credentials))
            .unwrap_or(Credentials::ROOT);
        let operation = MgrOperation::DropPrivileges {
            inode: file.inode.number,
            open: file.open,
            mode_bits: user.is_some(),
        };
        // What is left is told by the grant that comes with the reply.
        expect_attr(self.ask_with(&credentials, &operation)?).map(drop)
    }

    /// Notes who has opened a file, if pages may be written through the handle.
    pub(super) fn note_pages_user(&self, caller: Caller, handle: u64) {
        let file = self.files.get(handle).ok();
        if let Some(file) = file.filter(|file| file.writes_pages()) {
            file.inode.state().may_map(caller.if_ordinary());
        }
    }

    /// On whose behalf a write takes privileges away. The kernel does not say who wrote to the pages of
    /// a mapping: it may be whoever has opened the file for it.
    pub(super) fn writing_user(
        file: &OpenFile,
        request: &WriteRequest<'_>,
        caller: Caller,
    ) -> Option<Caller> {
        match request.write_back {
            true => file.inode.state().pages_user(),
            false => Some(caller).filter(|_| request.drops_privileges),
        }
    }
}

/// Whether a change takes something away, as far as is known.
const fn loses_some(known: Option<Privileges>, by_ordinary_user: bool) -> bool {
    match known {
        Some(known) => known.capability || (known.mode_bits && by_ordinary_user),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_goes_with_any_change_and_mode_bits_with_an_ordinary_users() {
        for (mode_bits, capability, by_root, by_user) in [
            (false, false, false, false),
            (true, false, false, true),
            (false, true, true, true),
            (true, true, true, true),
        ] {
            let known = Some(Privileges {
                mode_bits,
                capability,
            });
            assert_eq!(loses_some(known, false), by_root, "{known:?}");
            assert_eq!(loses_some(known, true), by_user, "{known:?}");
        }
        assert!(loses_some(None, false), "mgr knows");
    }
}
