// SPDX-License-Identifier: MIT
//! POSIX access control lists: pure. Their bytes are those of the attributes
//! `system.posix_acl_access` and `system.posix_acl_default` (Linux's `posix_acl_xattr.h`), in which
//! they are stored too; what they mean is in acl(5) and, for inheritance, POSIX 1003.1e draft 17.

use pvfs::attr::{Attr, Credentials};
use pvfs::error::FsError;
use pvfs::limits::XATTR_VALUE_BYTES_MAX;

use super::access::Want;

/// `POSIX_ACL_XATTR_VERSION`.
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// The id of an entry that names nobody (`ACL_UNDEFINED_ID`).
const NOBODY: u32 = u32::MAX;

/// The tags of `sys/acl.h`.
mod tag {
    pub(super) const USER_OBJ: u16 = 0x01;
    pub(super) const USER: u16 = 0x02;
    pub(super) const GROUP_OBJ: u16 = 0x04;
    pub(super) const GROUP: u16 = 0x08;
    pub(super) const MASK: u16 = 0x10;
    pub(super) const OTHER: u16 = 0x20;
}

/// An access control list.
///
/// # Invariants
///
/// Permissions are one digit of a mode; there is a mask where anybody is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    owner: u16,
    users: Vec<(u32, u16)>,
    group: u16,
    groups: Vec<(u32, u16)>,
    mask: Option<u16>,
    other: u16,
}

/// Takes entries off a list's bytes.
struct Entries<'a>(&'a [u8]);

impl Entries<'_> {
    /// The next entry, if it has this tag.
    fn next_if(&mut self, wanted: u16) -> Option<(u16, u32)> {
        let entry = self.0.get(..ENTRY_BYTES)?;
        let short = |at: usize| Some(u16::from_le_bytes(entry.get(at..at + 2)?.try_into().ok()?));
        let id = u32::from_le_bytes(entry.get(4..ENTRY_BYTES)?.try_into().ok()?);
        let (found, permissions) = (short(0)?, short(2)?);
        if found != wanted {
            return None;
        }
        self.0 = self.0.get(ENTRY_BYTES..)?;
        Some((permissions, id))
    }

    fn one(&mut self, tag: u16) -> Option<u16> {
        self.next_if(tag).map(|(permissions, _)| permissions)
    }

    fn all(&mut self, tag: u16) -> Vec<(u32, u16)> {
        let mut named = Vec::new();
        while let Some((permissions, id)) = self.next_if(tag) {
            named.push((id, permissions));
        }
        named
    }
}

impl Acl {
    /// The list in an attribute's value; `None` for one without entries, which stands for no list.
    ///
    /// # Errors
    ///
    /// [`FsError::InvalidArgument`] for what acl_valid(3) refuses.
    pub fn parse(value: &[u8]) -> Result<Option<Self>, FsError> {
        let (version, entries) = value
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(FsError::InvalidArgument)?;
        if u32::from_le_bytes(*version) != VERSION || value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(FsError::InvalidArgument);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let mut entries = Entries(entries);
        let acl = Self::take(&mut entries)
            .filter(|acl| entries.0.is_empty() && acl.is_sound())
            .ok_or(FsError::InvalidArgument)?;
        Ok(Some(acl))
    }

    fn take(entries: &mut Entries<'_>) -> Option<Self> {
        Some(Self {
            owner: entries.one(tag::USER_OBJ)?,
            users: entries.all(tag::USER),
            group: entries.one(tag::GROUP_OBJ)?,
            groups: entries.all(tag::GROUP),
            mask: entries.one(tag::MASK),
            other: entries.one(tag::OTHER)?,
        })
    }

    fn is_sound(&self) -> bool {
        let named = || self.users.iter().chain(&self.groups);
        let digits = [self.owner, self.group, self.other].into_iter();
        let mut digits = digits.chain(self.mask).chain(named().map(|(_, p)| *p));
        let ids = |named: &[(u32, u16)]| {
            let mut ids: Vec<u32> = named.iter().map(|(id, _)| *id).collect();
            ids.sort_unstable();
            let count = ids.len();
            ids.dedup();
            ids.len() == count && ids.last() != Some(&NOBODY)
        };
        digits.all(|digit| digit <= 0o7)
            && (self.mask.is_some() || named().next().is_none())
            && ids(&self.users)
            && ids(&self.groups)
    }

    /// The attribute's value.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        let mut push = |tag: u16, permissions: u16, id: u32| {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        };
        push(tag::USER_OBJ, self.owner, NOBODY);
        for (id, permissions) in &self.users {
            push(tag::USER, *permissions, *id);
        }
        push(tag::GROUP_OBJ, self.group, NOBODY);
        for (id, permissions) in &self.groups {
            push(tag::GROUP, *permissions, *id);
        }
        if let Some(mask) = self.mask {
            push(tag::MASK, mask, NOBODY);
        }
        push(tag::OTHER, self.other, NOBODY);
        bytes
    }

    /// Whether it says no more than a mode does.
    #[must_use]
    pub const fn is_mode(&self) -> bool {
        self.mask.is_none()
    }

    /// The permission bits that a mode shows for it: the group's are the mask.
    #[must_use]
    pub fn mode(&self) -> u16 {
        (self.owner << 6) | (self.mask.unwrap_or(self.group) << 3) | self.other
    }

    /// chmod(2) on an inode with this list.
    pub fn set_mode(&mut self, mode: u16) {
        self.owner = (mode >> 6) & 0o7;
        self.other = mode & 0o7;
        *self.mask.as_mut().unwrap_or(&mut self.group) = (mode >> 3) & 0o7;
    }

    /// As a directory's default list, becomes the list of a new inode that was asked for with
    /// `mode`; returns the permission bits that the inode gets.
    pub fn inherit(&mut self, mode: u16) -> u16 {
        self.owner &= mode >> 6;
        self.other &= mode;
        *self.mask.as_mut().unwrap_or(&mut self.group) &= mode >> 3;
        self.mode()
    }

    /// Checks it for somebody who is not the superuser.
    ///
    /// # Errors
    ///
    /// [`FsError::AccessDenied`].
    pub fn check(&self, attr: &Attr, who: &Credentials, want: Want) -> Result<(), FsError> {
        let mask = self.mask.unwrap_or(0o7);
        let granted = if who.uid == attr.uid {
            self.owner
        } else if let Some((_, user)) = self.users.iter().find(|(id, _)| *id == who.uid) {
            user & mask
        } else {
            let own = Some(self.group).filter(|_| who.in_group(attr.gid));
            let named = self.groups.iter().filter(|(id, _)| who.in_group(*id));
            let mut groups = own.into_iter().chain(named.map(|(_, group)| *group));
            // One of the caller's groups must grant all of it; who is in any has no part in others'.
            let first = groups.next();
            match first {
                None => self.other,
                Some(first) => {
                    let mut groups = std::iter::once(first).chain(groups);
                    groups.find(|group| want.is_in(*group)).unwrap_or(0) & mask
                }
            }
        };
        if want.is_in(granted) {
            Ok(())
        } else {
            Err(FsError::AccessDenied)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::testing::attr;
    use proptest::prelude::*;
    use pvfs::attr::FileKind;

    /// `u::rwx,u:7:r--,g::r-x,g:8:-w-,m::rwx,o::---`
    fn full() -> Acl {
        Acl {
            owner: 7,
            users: vec![(7, 4)],
            group: 5,
            groups: vec![(8, 2)],
            mask: Some(7),
            other: 0,
        }
    }

    fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn bytes_become_a_list_and_back() {
        let parsed = Acl::parse(&full().to_bytes());
        assert_eq!(parsed, Ok(Some(full())));
        assert_eq!(Acl::parse(&VERSION.to_le_bytes()), Ok(None));
        let id = NOBODY;
        let minimal = bytes(&[(1, 6, id), (4, 4, id), (0x20, 0, id)]);
        let acl = Acl::parse(&minimal).unwrap().unwrap();
        assert!(acl.is_mode());
        assert_eq!((acl.mode(), acl.to_bytes()), (0o640, minimal));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let id = NOBODY;
        let (owner, group, other) = ((1, 6, id), (4, 4, id), (0x20, 0, id));
        for bad in [
            vec![],
            vec![2, 0, 0],
            vec![1, 0, 0, 0],
            bytes(&[owner, group]),
            bytes(&[group, owner, other]),
            bytes(&[owner, group, other, other]),
            bytes(&[owner, (2, 4, 7), group, other]),
            bytes(&[owner, (2, 8, 7), group, (0x10, 7, id), other]),
            bytes(&[owner, (2, 4, 7), (2, 4, 7), group, (0x10, 7, id), other]),
            bytes(&[owner, (2, 4, id), group, (0x10, 7, id), other]),
            bytes(&[owner, group, (0x40, 7, id), other]),
            [&bytes(&[owner, group, other])[..], &[0]].concat(),
        ] {
            assert_eq!(Acl::parse(&bad), Err(FsError::InvalidArgument), "{bad:?}");
        }
    }

    #[test]
    fn the_mask_is_the_groups_part_of_the_mode() {
        let mut acl = full();
        assert_eq!(acl.mode(), 0o770);
        acl.set_mode(0o741);
        assert_eq!((acl.mask, acl.group, acl.mode()), (Some(4), 5, 0o741));
        assert_eq!(acl.inherit(0o666), 0o640);
        assert_eq!((acl.owner, acl.users.clone()), (6, vec![(7, 4)]));
    }

    #[test]
    fn the_first_that_fits_decides() {
        let file = Attr {
            uid: 1,
            gid: 2,
            ..attr(FileKind::Regular)
        };
        let who = |uid, gid, groups: &[u32]| Credentials {
            uid,
            gid,
            groups: groups.to_vec(),
        };
        let (read, write, execute) = (Want::READ, Want::WRITE, Want::EXECUTE);
        for (caller, want, allowed) in [
            (who(1, 9, &[]), read.and(write).and(execute), true),
            (who(7, 9, &[]), read, true),
            (who(7, 2, &[]), execute, false),
            (who(3, 2, &[]), read.and(execute), true),
            (who(3, 2, &[]), write, false),
            (who(3, 9, &[8]), write, true),
            (who(3, 2, &[8]), write, true),
            (who(3, 2, &[8]), read.and(write), false),
            (who(3, 9, &[]), read, false),
        ] {
            let decided = full().check(&file, &caller, want);
            assert_eq!(decided.is_ok(), allowed, "{caller:?} {want:?}");
        }
        let mut masked = full();
        masked.mask = Some(1);
        assert!(masked.check(&file, &who(7, 9, &[]), read).is_err());
        assert!(masked.check(&file, &who(3, 2, &[]), execute).is_ok());
        assert!(masked.check(&file, &who(1, 2, &[]), read).is_ok());
        let open = Acl { other: 7, ..full() };
        let member = who(3, 8, &[]);
        assert!(
            open.check(&file, &member, read).is_err(),
            "no part in others'"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_refused(value in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut value = value;
            if let Some(start) = value.get_mut(..4) {
                start.copy_from_slice(&VERSION.to_le_bytes());
            }
            if let Ok(Some(acl)) = Acl::parse(&value) {
                prop_assert!(acl.mode() <= 0o777);
                prop_assert_eq!(Acl::parse(&acl.to_bytes()), Ok(Some(acl)));
            }
        }
    }
}
