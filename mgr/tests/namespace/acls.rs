// SPDX-License-Identifier: MIT
//! Access control lists: set, followed by the mode, obeyed and inherited.

use pvfs::attr::{Credentials, FileKind, SetAttr};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, ROOT_INODE};
use pvfs::limits::{ACL_ACCESS_XATTR, ACL_DEFAULT_XATTR};
use pvfs::proto::mgr::{MgrOperation, MgrResponse, XattrMode};

use crate::check::check;
use crate::world::{ALICE, READ, World, name, user};

/// Who an entry is for, by the tags of `sys/acl.h`.
const OWNER: u16 = 1;
const USER: u16 = 2;
const GROUP: u16 = 4;
const NAMED_GROUP: u16 = 8;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// `u::rwx,u:7:rw-,g::r-x,m::MASK,o::---`
fn for_user_7(mask: u16) -> Vec<u8> {
    let nobody = u32::MAX;
    list(&[
        (OWNER, 7, nobody),
        (USER, 6, 7),
        (GROUP, 5, nobody),
        (MASK, mask, nobody),
        (OTHER, 0, nobody),
    ])
}

fn set(world: &mut World, inode: InodeNumber, name: &[u8], value: &[u8]) -> Result<(), FsError> {
    let (name, value, mode) = (name.to_vec(), value.to_vec(), XattrMode::Set);
    let operation = MgrOperation::SetXattr {
        inode,
        name,
        value,
        mode,
    };
    world.call(operation).map(drop)
}

fn get(world: &mut World, inode: InodeNumber, name: &[u8]) -> Result<Vec<u8>, FsError> {
    let name = name.to_vec();
    match world.call(MgrOperation::GetXattr { inode, name })? {
        MgrResponse::Bytes(bytes) => Ok(bytes),
        other => panic!("{other:?}"),
    }
}

fn remove(world: &mut World, inode: InodeNumber, name: &[u8]) -> Result<(), FsError> {
    let name = name.to_vec();
    world
        .call(MgrOperation::RemoveXattr { inode, name })
        .map(drop)
}

fn chmod(world: &mut World, inode: InodeNumber, mode: u16) {
    let set = SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    };
    let open = None;
    world
        .call(MgrOperation::SetAttr { inode, set, open })
        .unwrap();
}

/// A world in which everybody may do everything in the root.
fn open_world() -> World {
    let mut world = World::new();
    chmod(&mut world, ROOT_INODE, 0o777);
    world
}

#[test]
fn list_and_mode_follow_each_other() {
    let mut world = open_world();
    let file = world.mkfile(ROOT_INODE, "f");
    let w = &mut world;
    assert_eq!(get(w, file, ACL_ACCESS_XATTR), Err(FsError::NoAttribute));
    set(w, file, ACL_ACCESS_XATTR, &for_user_7(6)).unwrap();
    let attr = w.stat(file).unwrap();
    assert_eq!((attr.mode, attr.has_acl), (0o760, true));
    chmod(w, file, 0o4740);
    assert_eq!(get(w, file, ACL_ACCESS_XATTR), Ok(for_user_7(4)));
    assert_eq!(w.stat(file).unwrap().mode, 0o4740);
    remove(w, file, ACL_ACCESS_XATTR).unwrap();
    let attr = w.stat(file).unwrap();
    assert_eq!((attr.mode, attr.has_acl), (0o4740, false));
    remove(w, file, ACL_ACCESS_XATTR).unwrap();
    // What a mode can say becomes the mode.
    let nobody = u32::MAX;
    let minimal = list(&[(OWNER, 6, nobody), (GROUP, 4, nobody), (OTHER, 4, nobody)]);
    set(w, file, ACL_ACCESS_XATTR, &minimal).unwrap();
    let attr = w.stat(file).unwrap();
    assert_eq!((attr.mode, attr.has_acl), (0o4644, false));
    assert_eq!(get(w, file, ACL_ACCESS_XATTR), Err(FsError::NoAttribute));
    set(w, file, ACL_ACCESS_XATTR, &for_user_7(6)).unwrap();
    w.unlink(ROOT_INODE, "f").unwrap();
    check(&world.store());
}

#[test]
fn what_may_not_be_set_is_refused() {
    let mut world = open_world();
    let file = world.mkfile(ROOT_INODE, "f");
    let w = &mut world;
    for bad in [&b""[..], b"\x02\0\0\0\x01", &for_user_7(8), &[9; 12]] {
        let refused = set(w, file, ACL_ACCESS_XATTR, bad);
        assert_eq!(refused, Err(FsError::InvalidArgument), "{bad:?}");
    }
    let default = set(w, file, ACL_DEFAULT_XATTR, &for_user_7(7));
    assert_eq!(default, Err(FsError::AccessDenied), "not of a file");
    w.who = user(5);
    for changed in [
        set(w, file, ACL_ACCESS_XATTR, &for_user_7(7)),
        remove(w, file, ACL_ACCESS_XATTR),
    ] {
        assert_eq!(changed, Err(FsError::NotPermitted), "not the owner");
    }
}

#[test]
fn a_list_decides_who_may() {
    let mut world = open_world();
    world.who = user(1);
    let file = world.mkfile(ROOT_INODE, "f");
    let w = &mut world;
    set(w, file, ACL_ACCESS_XATTR, &for_user_7(6)).unwrap();
    let mut may_read = |who: Credentials| {
        w.who = who;
        w.open(ALICE, file, READ, false).map(drop)
    };
    assert_eq!(may_read(user(7)), Ok(()));
    assert_eq!(may_read(user(8)), Err(FsError::AccessDenied));
    assert_eq!(may_read(user(0)), Ok(()));
    let member = Credentials {
        groups: vec![1],
        ..user(8)
    };
    assert_eq!(may_read(member), Ok(()));
    w.who = user(1);
    let nobody = u32::MAX;
    let groups = list(&[
        (OWNER, 7, nobody),
        (GROUP, 0, nobody),
        (NAMED_GROUP, 4, 30),
        (MASK, 4, nobody),
        (OTHER, 0, nobody),
    ]);
    set(w, file, ACL_ACCESS_XATTR, &groups).unwrap();
    w.who = Credentials {
        groups: vec![30],
        ..user(9)
    };
    assert!(w.open(ALICE, file, READ, false).is_ok());
    w.who = user(9);
    assert!(w.open(ALICE, file, READ, false).is_err());
}

#[test]
fn what_is_made_inherits() {
    let mut world = open_world();
    let top = world.mkdir(ROOT_INODE, "d");
    let w = &mut world;
    set(w, top, ACL_DEFAULT_XATTR, &for_user_7(7)).unwrap();
    let attr = w.stat(top).unwrap();
    assert_eq!((attr.mode, attr.has_acl), (0o755, true), "itself as it was");
    let make = |w: &mut World, text: &str, kind, mode, umask| {
        let operation = MgrOperation::MakeNode {
            parent: top,
            name: name(text),
            kind,
            mode,
            umask,
            rdev: 0,
        };
        match w.call(operation).unwrap() {
            MgrResponse::Attr(attr) => attr,
            other => panic!("{other:?}"),
        }
    };
    let file = make(w, "f", FileKind::Regular, 0o666, 0o077);
    assert_eq!(file.mode, 0o660, "the list counts, the umask does not");
    let nobody = u32::MAX;
    let expected = list(&[
        (OWNER, 6, nobody),
        (USER, 6, 7),
        (GROUP, 5, nobody),
        (MASK, 6, nobody),
        (OTHER, 0, nobody),
    ]);
    assert_eq!(get(w, file.inode, ACL_ACCESS_XATTR), Ok(expected));
    let sub = make(w, "sub", FileKind::Directory, 0o777, 0o022);
    assert_eq!(get(w, sub.inode, ACL_DEFAULT_XATTR), Ok(for_user_7(7)));
    assert_eq!(get(w, sub.inode, ACL_ACCESS_XATTR), Ok(for_user_7(7)));
    remove(w, top, ACL_DEFAULT_XATTR).unwrap();
    let plain = make(w, "plain", FileKind::Regular, 0o666, 0o027);
    assert_eq!((plain.mode, plain.has_acl), (0o640, false));
    check(&world.store());
}
