// SPDX-License-Identifier: MIT
//! Truncation and the removal of stripes: nothing is acknowledged before it is done on every iod,
//! and whatever was begun is finished, whoever restarts.

use pvfs::attr::Credentials;
use pvfs::attr::SetAttr;
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, IodId, ROOT_INODE};
use pvfs::proto::mgr::{MgrOperation, MgrResponse};
use pvfs_mgr::owner::work::{Order, RETRY_MS};

use crate::check::check;
use crate::world::{ALICE, BOB, BOTH, OPERATOR, READ, SESSION_TIMEOUT_MS, WRITE, World, user};

fn truncate(inode: InodeNumber, size: u64) -> MgrOperation {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    MgrOperation::SetAttr {
        inode,
        set,
        open: None,
    }
}

/// A file of 1 MiB whose iods do nothing unless told.
fn slow() -> (World, InodeNumber) {
    let mut world = World::new();
    let file = world.file_of(ROOT_INODE, "f", 1 << 20);
    world.diligent = false;
    (world, file)
}

#[test]
fn the_reply_waits_for_every_iod() {
    let (mut world, file) = slow();
    let (waiter, _) = world.send(ALICE, truncate(file, 600_000));
    assert!(!world.replies.contains_key(&waiter));
    assert_eq!(world.work.len(), 1);
    let work = &world.work[0];
    assert_eq!((work.order, work.object.inode), (Order::Truncate, file));
    let mut lengths: Vec<u64> = work.targets.iter().map(|target| target.length).collect();
    lengths.sort_unstable();
    // Stripes of 512 KiB: one whole one, then the rest of 600,000 bytes, then nothing.
    assert_eq!(lengths, [0, 600_000 - (512 << 10), 512 << 10]);
    world.iods_answer(false);
    let Some(Ok(MgrResponse::Attr(attr))) = world.replies.get(&waiter) else {
        panic!()
    };
    assert_eq!((attr.size, attr.mtime), (600_000, world.now()));
    check(&world.store());
}

#[test]
fn an_iod_that_is_away_is_waited_for() {
    let (mut world, file) = slow();
    let (waiter, _) = world.send(ALICE, truncate(file, 0));
    world.iods_answer(true);
    assert!(world.work.is_empty(), "not at once");
    world.tick(RETRY_MS);
    assert_eq!(world.work.len(), 1);
    world.iods_answer(true);
    world.register(Some(2), "iod2:7000").unwrap();
    assert_eq!(world.work.len(), 1, "it is tried as soon as an iod is back");
    // Only one of the three still fails.
    let mut work = world.work.remove(0);
    let failed = vec![(IodId(3), "refused".to_owned())];
    let done = pvfs_mgr::owner::work::WorkDone {
        object: work.object,
        order: work.order,
        failed,
        measured: vec![],
    };
    world.batch(vec![pvfs_mgr::owner::Input::WorkDone(done)]);
    world.tick(RETRY_MS);
    work = world.work.remove(0);
    assert_eq!(work.targets.len(), 1);
    assert_eq!(work.targets[0].iod, IodId(3));
    world.work.push(work);
    world.iods_answer(false);
    assert!(world.replies.contains_key(&waiter));
}

#[test]
fn other_writers_of_the_inode_wait_and_nobody_else() {
    let (mut world, file) = slow();
    let open = world.open(BOB, file, WRITE, false).unwrap().open;
    let (first, _) = world.send(ALICE, truncate(file, 10));
    let report = MgrOperation::Report {
        inode: file,
        size_min: 50,
        modified: true,
        open,
        known_change: 0,
        allocated: None,
        filled: 0,
        doubt: None,
    };
    let (second, _) = world.send(BOB, report);
    let (third, _) = world.send(BOB, truncate(file, 20));
    let for_writing = MgrOperation::Open {
        inode: file,
        access: BOTH,
        truncate: false,
    };
    let (fourth, _) = world.send(BOB, for_writing);
    assert!(
        world
            .replies
            .keys()
            .all(|w| ![first, second, third, fourth].contains(w))
    );
    world.mkfile(ROOT_INODE, "other");
    assert!(world.open(BOB, file, READ, false).is_ok());
    assert!(world.stat(file).is_ok());
    world.iods_answer(false);
    assert!(world.replies.contains_key(&first));
    let Some(Ok(MgrResponse::Report { attr, .. })) = world.replies.get(&second) else {
        panic!()
    };
    assert_eq!(attr.size, 50, "in the order in which they came");
    assert!(!world.replies.contains_key(&third), "this one cuts again");
    assert!(!world.replies.contains_key(&fourth));
    world.iods_answer(false);
    assert!(world.replies.contains_key(&third) && world.replies.contains_key(&fourth));
    assert_eq!(world.stat(file).map(|attr| attr.size), Ok(20));
}

#[test]
fn a_restart_finishes_it() {
    let (mut world, file) = slow();
    let (waiter, request) = world.send(ALICE, truncate(file, 10));
    world.restart();
    world.tick(0);
    assert_eq!(world.work.len(), 1, "the order is given again");
    let again = world.resend(&request);
    assert!(!world.replies.contains_key(&again));
    let (report, _) = world.send(BOB, truncate(file, 500));
    assert!(!world.replies.contains_key(&report));
    world.iods_answer(false);
    assert!(
        !world.replies.contains_key(&waiter),
        "its connection was lost"
    );
    let Some(Ok(MgrResponse::Attr(attr))) = world.replies.get(&again) else {
        panic!()
    };
    assert_eq!(attr.size, 10);
    assert!(
        world.replies.contains_key(&report),
        "an extension needs no iod"
    );
    check(&world.store());
}

#[test]
fn opening_with_truncation() {
    let (mut world, file) = slow();
    let operation = MgrOperation::Open {
        inode: file,
        access: BOTH,
        truncate: true,
    };
    let (waiter, request) = world.send(ALICE, operation.clone());
    let duplicate = world.resend(&request);
    assert!(
        ![waiter, duplicate]
            .iter()
            .any(|waiter| world.replies.contains_key(waiter))
    );
    world.iods_answer(false);
    let opened = crate::world::Memory::open_of;
    let first = opened(world.replies.remove(&waiter).unwrap()).unwrap();
    let second = opened(world.replies.remove(&duplicate).unwrap()).unwrap();
    assert_eq!(first.open, second.open);
    assert_eq!(first.attr.size, 0);
    let (waiter, _) = world.send(ALICE, operation.clone());
    assert!(
        !world.replies.contains_key(&waiter),
        "a writer may not have reported all"
    );
    world.iods_answer(false);
    let third = opened(world.replies.remove(&waiter).unwrap()).unwrap();
    world.close(ALICE, file, first.open);
    world.close(ALICE, file, third.open);
    let (waiter, _) = world.send(ALICE, operation);
    assert!(
        world.replies.contains_key(&waiter),
        "an empty file has nothing to cut"
    );
}

#[test]
fn what_cannot_be_truncated() {
    let mut world = World::new();
    let size = |size| SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    assert_eq!(world.set(ROOT_INODE, size(0)), Err(FsError::IsDirectory));
    let fifo = world
        .make(ROOT_INODE, "p", pvfs::attr::FileKind::Fifo, 0o666)
        .unwrap();
    assert_eq!(
        world.set(fifo.inode, size(0)),
        Err(FsError::InvalidArgument)
    );
    let file = world.mkfile(ROOT_INODE, "f");
    assert_eq!(world.set(file, size(1 << 63)), Err(FsError::FileTooLarge));
    assert_eq!(
        world
            .set(file, size(i64::MAX as u64))
            .map(|attr| attr.change),
        Ok(1)
    );
    let open = world.open(ALICE, file, BOTH, false).unwrap().open;
    world.who = user(7);
    assert_eq!(world.set(file, size(0)), Err(FsError::AccessDenied));
    let by_open = MgrOperation::SetAttr {
        inode: file,
        set: size(0),
        open: Some(open),
    };
    assert!(world.call(by_open).is_ok(), "the open stands for the right");
}

#[test]
fn removal_of_a_file_that_is_being_cut() {
    let (mut world, file) = slow();
    let (waiter, _) = world.send(ALICE, truncate(file, 10));
    let (blocked, _) = world.send(BOB, truncate(file, 5));
    world.unlink(ROOT_INODE, "f").unwrap();
    check(&world.store());
    world.iods_answer(false);
    assert!(world.replies.contains_key(&waiter));
    assert_eq!(world.replies.get(&blocked), Some(&Err(FsError::Stale)));
    check(&world.store());
}

#[test]
fn garbage_is_removed_when_its_iods_are_there() {
    let (mut world, file) = slow();
    let other = world.mkfile(ROOT_INODE, "other");
    world.unlink(ROOT_INODE, "f").unwrap();
    world.restart();
    world.unlink(ROOT_INODE, "other").unwrap();
    world.tick(0);
    assert!(world.work.is_empty(), "no iod has registered yet");
    for n in 1..=3 {
        world.register(Some(n), &format!("iod{n}:7000")).unwrap();
    }
    let objects = |world: &World| -> Vec<_> {
        world
            .work
            .iter()
            .map(|work| (work.order, work.object.inode))
            .collect()
    };
    assert_eq!(objects(&world), [(Order::Remove, file)]);
    world.iods_answer(true);
    assert!(world.work.is_empty(), "not at once");
    // The second file was unlinked in the grace, which has ended now.
    world.tick(SESSION_TIMEOUT_MS.into());
    world.tick(RETRY_MS);
    assert_eq!(
        objects(&world),
        [(Order::Remove, file), (Order::Remove, other)]
    );
    world.iods_answer(false);
    world.tick(5000);
    assert!(world.work.is_empty(), "its record is gone");
}

#[test]
fn much_garbage_goes_in_turns() {
    let mut world = World::new();
    let count = 600;
    for n in 0..count {
        world.mkfile(ROOT_INODE, &format!("f{n}"));
    }
    for n in 0..count {
        world.unlink(ROOT_INODE, &format!("f{n}")).unwrap();
    }
    for _ in 0..count {
        if world.done.len() == count {
            break;
        }
        world.tick(RETRY_MS / 4);
        for n in 1..=3 {
            let heartbeat = MgrOperation::IodHeartbeat {
                iod: IodId(n),
                report: crate::world::REPORT,
            };
            let root = Credentials::ROOT;
            world.call_as(OPERATOR, &root, heartbeat).unwrap();
        }
    }
    assert_eq!(world.done.len(), count);
}
