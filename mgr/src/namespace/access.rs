// SPDX-License-Identifier: MIT
//! Who may do what: the permission rules of POSIX, as Linux keeps them. Pure functions of
//! attributes and credentials.

use pvfs::attr::{Attr, Credentials, FileKind};
use pvfs::error::FsError;

/// Set-user-ID.
pub const SET_UID: u16 = 0o4000;
/// Set-group-ID.
pub const SET_GID: u16 = 0o2000;
/// Sticky.
pub const STICKY: u16 = 0o1000;
/// Execution by the group.
pub const GROUP_EXECUTE: u16 = 0o010;
/// What the group may; the mask of an access control list.
pub const GROUP_ALL: u16 = 0o070;
/// The bits that an access control list says too.
pub const PERMISSION_BITS: u16 = 0o777;
/// All bits that a mode may have.
pub const MODE_BITS: u16 = 0o7777;

/// What a caller wants: bits as in one digit of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want(u16);

impl Want {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    /// Reading.
    pub const READ: Self = Self(4);
    /// Writing.
    pub const WRITE: Self = Self(2);
    /// Executing, or searching a directory.
    pub const EXECUTE: Self = Self(1);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether these bits grant all of it.
    #[must_use]
    pub const fn is_in(self, granted: u16) -> bool {
        granted & self.0 == self.0
    }
}

/// Whether the caller is the superuser.
#[must_use]
pub const fn is_root(who: &Credentials) -> bool {
    who.uid == 0
}

/// Whether the caller may change what only the owner may.
#[must_use]
pub const fn is_owner_or_root(attr: &Attr, who: &Credentials) -> bool {
    is_root(who) || who.uid == attr.uid
}

/// Checks the mode bits.
///
/// # Errors
///
/// [`FsError::AccessDenied`].
pub fn check(attr: &Attr, who: &Credentials, want: Want) -> Result<(), FsError> {
    let granted = if is_root(who) {
        root_bits(attr)
    } else if who.uid == attr.uid {
        attr.mode >> 6
    } else if who.in_group(attr.gid) {
        attr.mode >> 3
    } else {
        attr.mode
    };
    if want.is_in(granted) {
        Ok(())
    } else {
        Err(FsError::AccessDenied)
    }
}

/// Root reads, writes and searches everything, and executes what anybody may execute.
const fn root_bits(attr: &Attr) -> u16 {
    let executable = attr.mode & 0o111 != 0 || matches!(attr.kind, FileKind::Directory);
    if executable { 0o7 } else { 0o6 }
}

/// Checks the sticky bit: whether `who` may remove or rename `victim` in `directory`.
///
/// # Errors
///
/// [`FsError::NotPermitted`].
pub fn check_sticky(directory: &Attr, victim: &Attr, who: &Credentials) -> Result<(), FsError> {
    let free = directory.mode & STICKY == 0
        || is_owner_or_root(victim, who)
        || is_owner_or_root(directory, who);
    if free {
        Ok(())
    } else {
        Err(FsError::NotPermitted)
    }
}

/// The mode that is left when `who` changes the content or the owner: no set-user-ID, and no
/// set-group-ID where it means execution. Without the group's execution bit, which once meant mandatory
/// locking, it stays for root and the group's members: `setattr_should_drop_sgid` in fs/attr.c.
#[must_use]
pub fn without_privilege(attr: &Attr, who: &Credentials) -> u16 {
    let mode = attr.mode & !SET_UID;
    let keeps_group = mode & GROUP_EXECUTE == 0 && (is_root(who) || who.in_group(attr.gid));
    if keeps_group { mode } else { mode & !SET_GID }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::testing::attr;

    fn who(uid: u32, gid: u32, groups: &[u32]) -> Credentials {
        Credentials {
            uid,
            gid,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let file = Attr {
            mode: 0o640,
            uid: 10,
            gid: 20,
            ..attr(FileKind::Regular)
        };
        let read = Want::READ;
        for (caller, want, allowed) in [
            (who(10, 99, &[]), read.and(Want::WRITE), true),
            (who(10, 99, &[]), Want::EXECUTE, false),
            (who(11, 20, &[]), read, true),
            (who(11, 20, &[]), Want::WRITE, false),
            (who(11, 99, &[7, 20]), read, true),
            (who(11, 99, &[7]), read, false),
            (who(11, 99, &[7]), Want::NOTHING, true),
            (who(0, 0, &[]), read.and(Want::WRITE), true),
            (who(0, 0, &[]), Want::EXECUTE, false),
        ] {
            assert_eq!(
                check(&file, &caller, want).is_ok(),
                allowed,
                "{caller:?} {want:?}"
            );
        }
        // The owner is denied what others may.
        let odd = Attr {
            mode: 0o077,
            ..file
        };
        assert_eq!(
            check(&odd, &who(10, 20, &[]), read),
            Err(FsError::AccessDenied)
        );
        let odd = Attr {
            mode: 0o707,
            ..file
        };
        assert_eq!(
            check(&odd, &who(11, 20, &[]), read),
            Err(FsError::AccessDenied)
        );
    }

    #[test]
    fn root_searches_any_directory() {
        let directory = Attr {
            mode: 0,
            uid: 10,
            ..attr(FileKind::Directory)
        };
        assert!(check(&directory, &Credentials::ROOT, Want::EXECUTE).is_ok());
    }

    #[test]
    fn sticky_keeps_others_files() {
        let directory = Attr {
            mode: 0o1777,
            uid: 5,
            ..attr(FileKind::Directory)
        };
        let victim = Attr {
            uid: 6,
            ..attr(FileKind::Regular)
        };
        for (uid, allowed) in [(0, true), (5, true), (6, true), (7, false)] {
            assert_eq!(
                check_sticky(&directory, &victim, &who(uid, 1, &[])).is_ok(),
                allowed
            );
        }
        let free = Attr {
            mode: 0o777,
            ..directory
        };
        assert!(check_sticky(&free, &victim, &who(7, 1, &[])).is_ok());
    }

    #[test]
    fn privilege_goes_with_execution() {
        let (root, member, other) = (who(0, 0, &[]), who(7, 7, &[50]), who(7, 7, &[]));
        for (mode, by_root, by_member, by_other) in [
            (0o6755, 0o755, 0o755, 0o755),
            (0o6745, 0o2745, 0o2745, 0o745),
            (0o1777, 0o1777, 0o1777, 0o1777),
        ] {
            let file = Attr {
                mode,
                gid: 50,
                ..attr(FileKind::Regular)
            };
            assert_eq!(without_privilege(&file, &root), by_root);
            assert_eq!(without_privilege(&file, &member), by_member);
            assert_eq!(without_privilege(&file, &other), by_other);
        }
    }
}
