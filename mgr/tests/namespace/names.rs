// SPDX-License-Identifier: MIT
//! Making, finding, linking and removing names; reading directories.

use pvfs::attr::FileKind;
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, ROOT_INODE};
use pvfs::limits::LINKS_MAX;
use pvfs::proto::mgr::{MgrOperation, MgrResponse, RenameMode};

use crate::world::{ALICE, BOTH, World, name, user};

#[test]
fn what_is_made_is_found() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT_INODE, "d");
    let created = world.create(directory, "f").unwrap();
    assert_eq!(world.lookup(directory, "f"), Ok(created.attr));
    assert_eq!(created.attr.kind, FileKind::Regular);
    assert_eq!(
        (created.attr.nlink, created.attr.size, created.attr.mode),
        (1, 0, 0o644)
    );
    assert_eq!(created.attr.mtime, world.now());
    assert_eq!(created.layout.unwrap().iods().len(), 3);
    assert_eq!(world.lookup(directory, "g"), Err(FsError::NotFound));
    assert_eq!(
        world.lookup(created.attr.inode, "g"),
        Err(FsError::NotDirectory)
    );
    assert_eq!(world.lookup(InodeNumber(999), "g"), Err(FsError::Stale));
    let parent = MgrOperation::Lookup {
        parent: directory,
        name: None,
    };
    let root = world.root();
    assert_eq!(world.call(parent), Ok(MgrResponse::Attr(root)));
    assert_eq!((root.nlink, root.inode), (3, ROOT_INODE));
}

#[test]
fn an_existing_name() {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    world.mkdir(ROOT_INODE, "d");
    world.make(ROOT_INODE, "p", FileKind::Fifo, 0o644).unwrap();
    let exclusive = |world: &mut World, text| {
        world
            .create_with(ALICE, ROOT_INODE, text, true)
            .map(|open| open.attr.inode)
    };
    let shared =
        |world: &mut World, text| world.create(ROOT_INODE, text).map(|open| open.attr.inode);
    for text in ["f", "d", "p"] {
        assert_eq!(exclusive(&mut world, text), Err(FsError::Exists));
        let made = world.make(ROOT_INODE, text, FileKind::Directory, 0o755);
        assert_eq!(made, Err(FsError::Exists));
    }
    assert_eq!(shared(&mut world, "f"), Ok(file));
    assert_eq!(shared(&mut world, "d"), Err(FsError::IsDirectory));
    assert_eq!(shared(&mut world, "p"), Err(FsError::Stale));
}

#[test]
fn special_files() {
    let mut world = World::new();
    let fifo = world.make(ROOT_INODE, "p", FileKind::Fifo, 0o600).unwrap();
    assert_eq!((fifo.kind, fifo.rdev), (FileKind::Fifo, 0));
    let device = world
        .make(ROOT_INODE, "c", FileKind::CharDevice, 0o600)
        .unwrap();
    assert_eq!(device.rdev, 5);
    let symlink = world.make(ROOT_INODE, "l", FileKind::Symlink, 0o600);
    assert_eq!(symlink, Err(FsError::InvalidArgument));
    let layout = world.call(MgrOperation::GetLayout { inode: fifo.inode });
    let nothing = MgrResponse::Layout {
        layout: None,
        object: None,
        policy: None,
    };
    assert_eq!(layout, Ok(nothing));
    world.chmod(ROOT_INODE, 0o777);
    world.who = user(7);
    let made = world.make(ROOT_INODE, "b", FileKind::BlockDevice, 0o600);
    assert_eq!(made, Err(FsError::NotPermitted));
    assert!(world.make(ROOT_INODE, "s", FileKind::Socket, 0o600).is_ok());
}

#[test]
fn symbolic_links() {
    let mut world = World::new();
    let mut symlink = |target: &[u8]| {
        let (name, target) = (name("l"), target.to_vec());
        world.call(MgrOperation::Symlink {
            parent: ROOT_INODE,
            name,
            target,
        })
    };
    assert_eq!(symlink(b""), Err(FsError::NotFound));
    assert_eq!(symlink(&[b'x'; 4096]), Err(FsError::NameTooLong));
    let Ok(MgrResponse::Attr(attr)) = symlink(b"../a b") else {
        panic!()
    };
    assert_eq!(
        (attr.kind, attr.size, attr.mode),
        (FileKind::Symlink, 6, 0o777)
    );
    let target = world.call(MgrOperation::ReadLink { inode: attr.inode });
    assert_eq!(target, Ok(MgrResponse::Bytes(b"../a b".to_vec())));
    let wrong = world.call(MgrOperation::ReadLink { inode: ROOT_INODE });
    assert_eq!(wrong, Err(FsError::InvalidArgument));
    let opened = world.open(ALICE, attr.inode, BOTH, false);
    assert_eq!(opened.map(|open| open.open), Err(FsError::InvalidArgument));
    world.unlink(ROOT_INODE, "l").unwrap();
}

#[test]
fn hard_links() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT_INODE, "d");
    let file = world.mkfile(ROOT_INODE, "f");
    assert_eq!(
        world.link(file, directory, "g").map(|attr| attr.nlink),
        Ok(2)
    );
    assert_eq!(world.link(file, directory, "g"), Err(FsError::Exists));
    assert_eq!(
        world.link(directory, ROOT_INODE, "e"),
        Err(FsError::NotPermitted)
    );
    world.unlink(ROOT_INODE, "f").unwrap();
    assert_eq!(
        world
            .lookup(directory, "g")
            .map(|attr| (attr.inode, attr.nlink)),
        Ok((file, 1))
    );
    world.unlink(directory, "g").unwrap();
    assert_eq!(world.stat(file), Err(FsError::Stale));
}

#[test]
fn links_have_a_limit() {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    let key = pvfs_mgr::namespace::key::inode(file);
    let stored = world.store().records()[&key].clone();
    let mut inode: pvfs_mgr::namespace::inode::Inode =
        pvfs_mgr::namespace::value::decode(&key, &stored).unwrap();
    inode.attr.nlink = LINKS_MAX - 1;
    let value = pvfs_mgr::namespace::value::encode(&inode).unwrap();
    let records = [(key, Some(value))].into_iter().collect();
    pvfs_mgr::store::Store::commit(world.manager().store_mut(), &records).unwrap();
    assert_eq!(
        world.link(file, ROOT_INODE, "a").map(|attr| attr.nlink),
        Ok(LINKS_MAX)
    );
    assert_eq!(
        world.link(file, ROOT_INODE, "b"),
        Err(FsError::TooManyLinks)
    );
}

#[test]
fn removing() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT_INODE, "d");
    world.mkfile(directory, "f");
    assert_eq!(world.unlink(ROOT_INODE, "d"), Err(FsError::IsDirectory));
    assert_eq!(world.rmdir(ROOT_INODE, "d"), Err(FsError::NotEmpty));
    assert_eq!(world.rmdir(directory, "f"), Err(FsError::NotDirectory));
    assert_eq!(world.unlink(directory, "x"), Err(FsError::NotFound));
    world.unlink(directory, "f").unwrap();
    world.rmdir(ROOT_INODE, "d").unwrap();
    assert_eq!(world.root().nlink, 2);
    assert_eq!(world.lookup(ROOT_INODE, "d"), Err(FsError::NotFound));
    let made = world.make(directory, "g", FileKind::Regular, 0o644);
    assert_eq!(made, Err(FsError::Stale), "the directory is gone");
}

#[test]
fn an_open_directory_that_was_removed_takes_no_names() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT_INODE, "d");
    let opened = world
        .open(ALICE, directory, crate::world::READ, false)
        .unwrap();
    world.rmdir(ROOT_INODE, "d").unwrap();
    assert_eq!(world.stat(directory).map(|attr| attr.nlink), Ok(0));
    let made = world.make(directory, "g", FileKind::Regular, 0o644);
    assert_eq!(made, Err(FsError::NotFound));
    let parent = MgrOperation::Lookup {
        parent: directory,
        name: None,
    };
    assert_eq!(world.call(parent), Err(FsError::NotFound));
    assert_eq!(world.names(directory), "");
    world.close(ALICE, directory, opened.open);
    assert_eq!(world.stat(directory), Err(FsError::Stale));
}

#[test]
fn a_directory_is_read_in_pieces_that_changes_do_not_disturb() {
    let mut world = World::new();
    for n in 0..8 {
        world.mkfile(ROOT_INODE, &format!("f{n}"));
    }
    assert_eq!(world.names(ROOT_INODE), "f0 f1 f2 f3 f4 f5 f6 f7");
    let read = |world: &mut World, after, until| {
        let operation = MgrOperation::ReadDirectory {
            inode: ROOT_INODE,
            after,
            until,
            entries_max: 4,
            plus: false,
        };
        match world.call(operation) {
            Ok(MgrResponse::Entries {
                entries,
                end,
                until,
            }) => {
                assert!(entries.iter().all(|entry| entry.attr.is_none()));
                let names = entries.iter().map(|entry| entry.name.to_string());
                let names = names.collect::<Vec<_>>().join(" ");
                (
                    names,
                    entries.last().map_or(after, |entry| entry.cookie),
                    end.then_some(until),
                )
            }
            other => panic!("{other:?}"),
        }
    };
    let (names, cookie, end) = read(&mut world, 0, None);
    assert_eq!((names.as_str(), end), ("f0 f1 f2 f3", None));
    world.unlink(ROOT_INODE, "f3").unwrap();
    world.unlink(ROOT_INODE, "f5").unwrap();
    world.mkfile(ROOT_INODE, "f3");
    let (names, _, end) = read(&mut world, cookie, Some(8));
    assert_eq!((names.as_str(), end), ("f4 f6 f7", Some(8)));
    let (names, cookie, end) = read(&mut world, cookie, None);
    assert_eq!((names.as_str(), end), ("f4 f6 f7 f3", Some(9)));
    let (names, _, end) = read(&mut world, cookie, Some(8));
    assert_eq!((names.as_str(), end), ("", Some(8)));
    let (names, _, end) = read(&mut world, u64::MAX, None);
    assert_eq!((names.as_str(), end), ("", Some(9)));
    let (names, _, end) = read(&mut world, 0, Some(0));
    assert_eq!((names.as_str(), end), ("", Some(0)));
}

#[test]
fn an_entry_keeps_its_place_under_another_name_of_its_directory() {
    let mut world = World::new();
    let other = world.mkdir(ROOT_INODE, "d");
    for n in 0..3 {
        world.mkfile(ROOT_INODE, &format!("f{n}"));
    }
    let root = ROOT_INODE;
    let replace = RenameMode::Replace;
    world.rename((root, "f0"), (root, "x"), replace).unwrap();
    assert_eq!(world.names(root), "d x f1 f2");
    world.rename((root, "f2"), (root, "x"), replace).unwrap();
    assert_eq!(
        world.names(root),
        "d x f1",
        "the name that stays is where it was"
    );
    world.rename((root, "d"), (root, "e"), replace).unwrap();
    assert_eq!(world.names(root), "e x f1");
    assert_eq!(world.stat(root).unwrap().nlink, 3);
    world.rename((root, "x"), (other, "x"), replace).unwrap();
    world.rename((other, "x"), (root, "x"), replace).unwrap();
    assert_eq!(world.names(root), "e f1 x", "from elsewhere it comes last");
    world.unlink(root, "x").unwrap();
    world.unlink(root, "f1").unwrap();
    assert_eq!(world.names(root), "e");
}

#[test]
fn permissions_of_directories() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT_INODE, "d");
    let file = world.mkfile(directory, "f");
    world.who = user(7);
    // (mode, lookup, make, unlink of a missing name)
    let denied = Err(FsError::AccessDenied);
    for (mode, lookup, make, missing) in [
        (0o755, Ok(()), denied, Err(FsError::NotFound)),
        (0o754, denied, denied, denied),
        (0o756, denied, denied, denied),
        (0o757, Ok(()), Ok(()), Err(FsError::NotFound)),
        (0o753, Ok(()), Ok(()), Err(FsError::NotFound)),
    ] {
        world.chmod(directory, mode);
        assert_eq!(world.lookup(directory, "f").map(drop), lookup, "{mode:o}");
        let made = world.make(directory, "g", FileKind::Regular, 0o644);
        assert_eq!(made.map(drop), make, "{mode:o}");
        assert_eq!(world.unlink(directory, "x"), missing, "{mode:o}");
        let again = world.make(directory, "f", FileKind::Regular, 0o644);
        let expected = if lookup.is_ok() {
            FsError::Exists
        } else {
            FsError::AccessDenied
        };
        assert_eq!(again, Err(expected), "{mode:o}");
        if make.is_ok() {
            world.unlink(directory, "g").unwrap();
        }
    }
    world.chmod(directory, 0o1777);
    assert_eq!(world.unlink(directory, "f"), Err(FsError::NotPermitted));
    world.chown(file, 7, 7);
    assert_eq!(world.unlink(directory, "f"), Ok(()));
}

#[test]
fn a_set_group_id_directory_hands_its_group_on() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT_INODE, "d");
    world.chown(directory, 0, 50);
    world.chmod(directory, 0o2777);
    world.who = user(7);
    let file = world
        .make(directory, "f", FileKind::Regular, 0o2755)
        .unwrap();
    assert_eq!(
        (file.gid, file.mode),
        (50, 0o755),
        "not a member: no set-group-ID program"
    );
    let below = world
        .make(directory, "b", FileKind::Directory, 0o755)
        .unwrap();
    assert_eq!((below.gid, below.mode), (50, 0o2755));
    world.who.groups = vec![50];
    let file = world
        .make(directory, "g", FileKind::Regular, 0o2755)
        .unwrap();
    assert_eq!(file.mode, 0o2755);
}
