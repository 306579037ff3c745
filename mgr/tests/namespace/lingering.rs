// SPDX-License-Identifier: MIT
//! What has lost its last name can still be opened for a moment, by whoever looked the name up just
//! before.

use pvfs::attr::{Credentials, FileKind, Space};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, IodId, ROOT_INODE};
use pvfs::name::Name;
use pvfs::proto::mgr::{MgrOperation, MgrResponse, RenameMode};
use pvfs::proto::report::IodReport;

use crate::check::check;
use crate::world::{
    ALICE, BOB, BOTH, Memory, OPERATOR, READ, REPORT, SESSION_TIMEOUT_MS, SPACE, World, name,
};

const LINGER: u64 = 1000;

fn world() -> Memory {
    World::lingering(LINGER as u32)
}

fn is_there(world: &mut Memory, inode: InodeNumber) -> bool {
    match world.stat(inode) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error, FsError::Stale);
            false
        }
    }
}

#[test]
fn a_file_that_is_replaced_between_look_up_and_open_is_opened() {
    let mut world = world();
    let old = world.file_of(ROOT_INODE, "page", 7);
    let new = world.file_of(ROOT_INODE, "page.new", 8);
    let found = world.lookup(ROOT_INODE, "page").unwrap();
    assert_eq!(found.inode, old);
    let names = ((ROOT_INODE, "page.new"), (ROOT_INODE, "page"));
    world.rename(names.0, names.1, RenameMode::Replace).unwrap();
    check(&world.store());
    assert_eq!(world.lookup(ROOT_INODE, "page").unwrap().inode, new);

    world.tick(LINGER - 1);
    let opened = world.open(BOB, old, READ, false).unwrap();
    assert_eq!((opened.attr.nlink, opened.attr.size), (0, 7));
    assert!(opened.layout.is_some() && world.done.is_empty());
    assert_eq!(world.link(old, ROOT_INODE, "again"), Err(FsError::NotFound));
    world.tick(1);
    assert!(is_there(&mut world, old) && world.done.is_empty());
    world.close(BOB, old, opened.open);
    assert!(!is_there(&mut world, old));
    check(&world.store());
    world.tick(LINGER);
    assert_eq!(world.done.len(), 1, "its stripes are gone");
}

#[test]
fn what_lingers_goes_in_time_unless_it_is_open() {
    let mut world = world();
    let files = ["a", "b", "c"].map(|text| world.file_of(ROOT_INODE, text, 1));
    let held = world.open(ALICE, files[0], BOTH, false).unwrap().open;
    let closed = world.open(ALICE, files[1], BOTH, false).unwrap().open;
    for text in ["a", "b", "c"] {
        world.unlink(ROOT_INODE, text).unwrap();
    }
    world.close(ALICE, files[1], closed);
    check(&world.store());
    world.tick(LINGER - 1);
    assert!(files.iter().all(|file| is_there(&mut world, *file)));
    // Its time is over with the next batch, whatever that is about.
    world.ms += 1;
    world.send(ALICE, MgrOperation::KeepAlive);
    let left = files.map(|file| is_there(&mut world, file));
    assert_eq!(left, [true, false, false]);
    check(&world.store());
    world.close(ALICE, files[0], held);
    assert!(!is_there(&mut world, files[0]), "it has lingered long ago");
    check(&world.store());
    world.tick(LINGER);
    assert_eq!(world.done.len(), 3);
}

#[test]
fn directories_and_links_linger_too() {
    let mut world = world();
    let directory = world.mkdir(ROOT_INODE, "d");
    let symlink = MgrOperation::Symlink {
        parent: ROOT_INODE,
        name: name("l"),
        target: b"t".to_vec(),
    };
    let Ok(MgrResponse::Attr(link)) = world.call(symlink) else {
        panic!()
    };
    world.rmdir(ROOT_INODE, "d").unwrap();
    world.unlink(ROOT_INODE, "l").unwrap();
    check(&world.store());
    let inode = link.inode;
    assert!(world.call(MgrOperation::ReadLink { inode }).is_ok());
    assert!(world.open(BOB, directory, READ, false).is_ok());
    assert_eq!(world.names(directory), "");
    let made = world.make(directory, "f", FileKind::Regular, 0o644);
    assert_eq!(made.map(drop), Err(FsError::NotFound));
    world.tick(LINGER);
    assert!(!is_there(&mut world, inode) && is_there(&mut world, directory));
}

#[test]
fn what_lingers_when_mgr_is_killed_goes_after_the_grace() {
    let mut world = world();
    let file = world.file_of(ROOT_INODE, "f", 1);
    world.unlink(ROOT_INODE, "f").unwrap();
    world.restart();
    let in_grace = world.mkdir(ROOT_INODE, "d");
    world.tick(u64::from(SESSION_TIMEOUT_MS) - 1);
    assert!(is_there(&mut world, file));
    world.rmdir(ROOT_INODE, "d").unwrap();
    world.tick(1);
    assert!(!is_there(&mut world, file));
    assert!(is_there(&mut world, in_grace), "it was removed just now");
    world.tick(LINGER);
    assert!(!is_there(&mut world, in_grace));
    check(&world.store());
}

#[test]
fn what_takes_much_of_the_free_space_does_not_linger() {
    let mut world = world();
    let beat = |world: &mut Memory, bytes_available| {
        for iod in [1, 2, 3].map(IodId) {
            let space = Space {
                bytes_available,
                ..SPACE
            };
            let report = IodReport { space, ..REPORT };
            let operation = MgrOperation::IodHeartbeat { iod, report };
            let root = Credentials::ROOT;
            assert!(world.call_as(OPERATOR, &root, operation).is_ok());
        }
    };
    for (available, size, stays) in [
        (160, 30, true),
        (160, 31, false),
        (0, 1, false),
        (0, 0, true),
    ] {
        beat(&mut world, available);
        let file = world.file_of(ROOT_INODE, "f", size);
        world.unlink(ROOT_INODE, "f").unwrap();
        let what = format!("{size} bytes where {available} are free on each iod");
        assert_eq!(is_there(&mut world, file), stays, "{what}");
    }
}

#[test]
fn a_removal_that_a_full_store_refuses_has_not_begun() {
    let mut world = world();
    let file = world.file_of(ROOT_INODE, "f", 1);
    let other = world.file_of(ROOT_INODE, "g", 1);
    world.unlink(ROOT_INODE, "g").unwrap();
    world.manager().store_mut().full = true;
    assert_eq!(world.unlink(ROOT_INODE, "f"), Err(FsError::NoSpace));
    world.tick(LINGER);
    assert!(is_there(&mut world, other), "it cannot go");
    world.manager().store_mut().full = false;
    world.tick(1);
    assert!(!is_there(&mut world, other), "it is not forgotten");
    assert_eq!(world.stat(file).map(|attr| attr.nlink), Ok(1));
    world.unlink(ROOT_INODE, "f").unwrap();
    world.tick(LINGER - 1);
    assert!(is_there(&mut world, file));
    world.tick(1);
    assert!(!is_there(&mut world, file));
    check(&world.store());
}

#[test]
fn what_is_removed_in_a_burst_goes_in_several_batches() {
    const BATCH: usize = 512;
    let mut world = world();
    let many = |world: &mut Memory, operation: &dyn Fn(Name) -> MgrOperation| {
        let requests = (0..BATCH).map(|n| {
            let operation = operation(name(&format!("f{n}")));
            let (waiter, mut request) = world.request(ALICE, &Credentials::ROOT, operation);
            request.answered_below = request.sequence;
            Memory::input(waiter, &request)
        });
        let requests = requests.collect();
        world.batch(requests);
        let replies = std::mem::take(&mut world.replies);
        assert!(replies.values().all(Result::is_ok));
    };
    let used = |world: &mut Memory| match world.call(MgrOperation::StatFs) {
        Ok(MgrResponse::StatFs(stat)) => stat.inodes_used - 1,
        other => panic!("{other:?}"),
    };
    let parent = ROOT_INODE;
    for round in 1..=3 {
        many(&mut world, &|name| MgrOperation::MakeNode {
            parent,
            name,
            kind: FileKind::Fifo,
            mode: 0o644,
            umask: 0,
            rdev: 0,
        });
        many(&mut world, &|name| MgrOperation::Unlink { parent, name });
        assert_eq!(used(&mut world), round * BATCH as u64);
    }
    world.tick(LINGER);
    let left = used(&mut world);
    assert!(left > 0 && left < 3 * BATCH as u64, "{left}");
    world.tick(1);
    assert_eq!(used(&mut world), 0);
    check(&world.store());
}
