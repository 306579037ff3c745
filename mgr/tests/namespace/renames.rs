// SPDX-License-Identifier: MIT
//! rename(2) and renameat2(2).

use pvfs::attr::FileKind;
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, ROOT_INODE};
use pvfs::proto::mgr::{MgrOperation, MgrResponse, RenameMode};

use crate::world::{World, user};

const REPLACE: RenameMode = RenameMode::Replace;

struct Tree {
    world: World,
    d: InodeNumber,
    e: InodeNumber,
}

/// `/d/f`, `/d/sub/x`, `/e/g`, `/e/empty/`
fn tree() -> Tree {
    let mut world = World::new();
    let d = world.mkdir(ROOT_INODE, "d");
    let e = world.mkdir(ROOT_INODE, "e");
    world.mkfile(d, "f");
    let sub = world.mkdir(d, "sub");
    world.mkfile(sub, "x");
    world.mkfile(e, "g");
    world.mkdir(e, "empty");
    Tree { world, d, e }
}

#[test]
fn every_pair_of_kinds() {
    for (old, new, expected) in [
        ("f", "new", Ok(())),
        ("f", "g", Ok(())),
        ("f", "empty", Err(FsError::IsDirectory)),
        ("sub", "new", Ok(())),
        ("sub", "g", Err(FsError::NotDirectory)),
        ("sub", "empty", Ok(())),
        ("none", "new", Err(FsError::NotFound)),
    ] {
        let Tree { mut world, d, e } = tree();
        let moved = world.lookup(d, old).map(|attr| attr.inode);
        assert_eq!(
            world.rename((d, old), (e, new), REPLACE),
            expected,
            "{old} to {new}"
        );
        if expected.is_ok() {
            assert_eq!(world.lookup(d, old), Err(FsError::NotFound));
            assert_eq!(world.lookup(e, new).map(|attr| attr.inode), moved);
        }
        crate::check::check(&world.store());
    }
}

#[test]
fn a_directory_that_is_not_empty_is_not_replaced() {
    let Tree { mut world, d, e } = tree();
    let moved = world.rename((e, "empty"), (d, "sub"), REPLACE);
    assert_eq!(moved, Err(FsError::NotEmpty));
}

#[test]
fn links_of_directories_follow() {
    let Tree { mut world, d, e } = tree();
    let links = |world: &mut World| (world.stat(d).unwrap().nlink, world.stat(e).unwrap().nlink);
    assert_eq!(links(&mut world), (3, 3));
    world.rename((d, "sub"), (e, "new"), REPLACE).unwrap();
    assert_eq!(links(&mut world), (2, 4));
    world.rename((e, "new"), (e, "empty"), REPLACE).unwrap();
    assert_eq!(links(&mut world), (2, 3));
    let sub = world.lookup(e, "empty").unwrap().inode;
    let parent = MgrOperation::Lookup {
        parent: sub,
        name: None,
    };
    let Ok(MgrResponse::Attr(above)) = world.call(parent) else {
        panic!()
    };
    assert_eq!(above.inode, e);
}

#[test]
fn no_directory_goes_below_itself() {
    let Tree { mut world, d, .. } = tree();
    let sub = world.lookup(d, "sub").unwrap().inode;
    for (parent, mode) in [
        (d, RenameMode::Replace),
        (sub, RenameMode::Replace),
        (sub, RenameMode::NoReplace),
    ] {
        let moved = world.rename((ROOT_INODE, "d"), (parent, "new"), mode);
        assert_eq!(moved, Err(FsError::InvalidArgument));
    }
    let swapped = world.rename((ROOT_INODE, "d"), (sub, "x"), RenameMode::Exchange);
    assert_eq!(swapped, Err(FsError::InvalidArgument));
    let swapped = world.rename((sub, "x"), (ROOT_INODE, "d"), RenameMode::Exchange);
    assert_eq!(swapped, Err(FsError::InvalidArgument));
    let above = world.rename((sub, "x"), (ROOT_INODE, "d"), REPLACE);
    assert_eq!(above, Err(FsError::IsDirectory));
}

#[test]
fn two_names_of_one_inode_stay() {
    let Tree { mut world, d, e } = tree();
    let file = world.lookup(d, "f").unwrap().inode;
    world.link(file, e, "h").unwrap();
    assert_eq!(world.rename((d, "f"), (e, "h"), REPLACE), Ok(()));
    assert_eq!(world.lookup(d, "f").unwrap().nlink, 2);
    assert_eq!(world.rename((d, "f"), (d, "f"), REPLACE), Ok(()));
    let refused = world.rename((d, "f"), (d, "f"), RenameMode::NoReplace);
    assert_eq!(refused, Err(FsError::Exists));
}

#[test]
fn the_flags_of_renameat2() {
    let Tree { mut world, d, e } = tree();
    let no_replace = RenameMode::NoReplace;
    assert_eq!(
        world.rename((d, "f"), (e, "g"), no_replace),
        Err(FsError::Exists)
    );
    assert_eq!(world.rename((d, "f"), (e, "h"), no_replace), Ok(()));
    let exchange = RenameMode::Exchange;
    assert_eq!(
        world.rename((e, "h"), (d, "none"), exchange),
        Err(FsError::NotFound)
    );
    let (file, sub) = (
        world.lookup(e, "h").unwrap(),
        world.lookup(d, "sub").unwrap(),
    );
    assert_eq!(world.rename((e, "h"), (d, "sub"), exchange), Ok(()));
    assert_eq!(world.lookup(e, "h").map(|attr| attr.inode), Ok(sub.inode));
    assert_eq!(
        world.lookup(d, "sub").map(|attr| attr.inode),
        Ok(file.inode)
    );
    assert_eq!(world.stat(d).unwrap().nlink, 2);
    assert_eq!(world.stat(e).unwrap().nlink, 4);
    assert_eq!(
        world.rename((e, "g"), (e, "h"), exchange),
        Ok(()),
        "within one directory"
    );
    assert_eq!(world.lookup(e, "h").unwrap().kind, FileKind::Regular);
    crate::check::check(&world.store());
}

#[test]
fn a_replaced_entry_keeps_its_place_and_its_inode_goes() {
    let Tree { mut world, e, .. } = tree();
    world.mkfile(e, "z");
    let replaced = world.lookup(e, "g").unwrap().inode;
    world.rename((e, "z"), (e, "g"), REPLACE).unwrap();
    assert_eq!(world.names(e), "g empty");
    assert_eq!(world.stat(replaced), Err(FsError::Stale));
    world.tick(2000);
    let removed = world.done.iter().any(|work| work.object.inode == replaced);
    assert!(removed, "its stripes are removed");
}

#[test]
fn who_may_rename() {
    let Tree { mut world, d, e } = tree();
    world.who = user(7);
    assert_eq!(
        world.rename((d, "f"), (e, "n"), REPLACE),
        Err(FsError::AccessDenied)
    );
    world.chmod(d, 0o777);
    assert_eq!(
        world.rename((d, "f"), (e, "n"), REPLACE),
        Err(FsError::AccessDenied)
    );
    world.chmod(e, 0o1777);
    assert_eq!(
        world.rename((d, "f"), (e, "g"), REPLACE),
        Err(FsError::NotPermitted),
        "sticky"
    );
    assert_eq!(world.rename((d, "f"), (e, "n"), REPLACE), Ok(()));
    assert_eq!(
        world.rename((e, "n"), (d, "f"), REPLACE),
        Err(FsError::NotPermitted),
        "sticky"
    );
    // A directory's `..` changes, so it must be writable itself, but not to be renamed in place.
    assert_eq!(
        world.rename((d, "sub"), (e, "m"), REPLACE),
        Err(FsError::AccessDenied)
    );
    assert_eq!(world.rename((d, "sub"), (d, "m"), REPLACE), Ok(()));
}
