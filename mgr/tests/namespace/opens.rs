// SPDX-License-Identifier: MIT
//! Opens, orphans, sessions.

use pvfs::attr::FileKind;
use pvfs::error::FsError;
use pvfs::ids::{OpenId, ROOT_INODE};
use pvfs::proto::mgr::{MgrOperation, MgrResponse, Reopen};
use pvfs::proto::peer::Peer;

use crate::check::check;
use crate::world::{ALICE, BOB, BOTH, READ, SESSION_TIMEOUT_MS, WRITE, World, user};

const TIMEOUT: u64 = SESSION_TIMEOUT_MS as u64;

#[test]
fn who_may_open() {
    let denied = Err(FsError::AccessDenied);
    for (mode, access, truncate, expected) in [
        (0o644, READ, false, Ok(())),
        (0o644, WRITE, false, denied),
        (0o644, READ, true, denied),
        (0o642, WRITE, true, Ok(())),
        (0o642, BOTH, false, denied),
        (0o641, READ, false, Ok(())),
        (0o641, BOTH, false, denied),
        (0o640, READ, false, denied),
    ] {
        let mut world = World::new();
        let file = world.mkfile(ROOT_INODE, "f");
        world.chmod(file, mode);
        world.who = user(7);
        let opened = world.open(ALICE, file, access, truncate).map(drop);
        assert_eq!(opened, expected, "{mode:o} {access:?} {truncate}");
    }
    let mut world = World::new();
    assert!(world.open(ALICE, ROOT_INODE, READ, false).is_ok());
    let written = world.open(ALICE, ROOT_INODE, WRITE, false).map(drop);
    assert_eq!(written, Err(FsError::IsDirectory));
}

#[test]
fn the_maker_of_a_file_may_use_it_whatever_its_mode() {
    let mut world = World::new();
    world.chmod(ROOT_INODE, 0o777);
    world.who = user(7);
    let operation = MgrOperation::Create {
        parent: ROOT_INODE,
        name: crate::world::name("f"),
        mode: 0o000,
        exclusive: true,
        access: BOTH,
        umask: 0,
    };
    let opened = crate::world::Memory::open_of(world.call(operation));
    let opened = opened.unwrap();
    assert!(
        world
            .report(ALICE, opened.attr.inode, opened.open, 5)
            .is_ok()
    );
    let again = world.open(ALICE, opened.attr.inode, READ, false).map(drop);
    assert_eq!(again, Err(FsError::AccessDenied));
}

#[test]
fn an_unlinked_file_lives_until_its_last_close() {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    let a = world.open(ALICE, file, BOTH, false).unwrap().open;
    let b = world.open(BOB, file, READ, false).unwrap().open;
    world.unlink(ROOT_INODE, "f").unwrap();
    check(&world.store());
    assert_eq!(world.stat(file).map(|attr| attr.nlink), Ok(0));
    assert_eq!(world.link(file, ROOT_INODE, "g"), Err(FsError::NotFound));
    assert_eq!(
        world.report(ALICE, file, a, 100).map(|(attr, _)| attr.size),
        Ok(100)
    );
    world.close(ALICE, file, a);
    world.close(ALICE, file, a);
    assert!(
        world.stat(file).is_ok(),
        "a second close of the same open closes nothing"
    );
    world.close(ALICE, file, b);
    assert!(
        world.stat(file).is_ok(),
        "nobody closes another client's open"
    );
    world.close(BOB, file, b);
    assert_eq!(world.stat(file), Err(FsError::Stale));
    check(&world.store());
    world.tick(2000);
    assert_eq!(world.done.len(), 1);
    assert_eq!(world.done[0].targets.len(), 3);
}

#[test]
fn reports_need_an_open_for_writing() {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    let other = world.mkfile(ROOT_INODE, "g");
    let read = world.open(ALICE, file, READ, false).unwrap().open;
    let write = world.open(ALICE, file, WRITE, false).unwrap().open;
    assert_eq!(
        world.report(ALICE, file, read, 1),
        Err(FsError::AccessDenied)
    );
    assert_eq!(world.report(BOB, file, write, 1), Err(FsError::Stale));
    assert_eq!(world.report(ALICE, file, OpenId(5), 1), Err(FsError::Stale));
    assert_eq!(
        world.report(ALICE, other, write, 1),
        Err(FsError::InvalidArgument)
    );
    assert_eq!(
        world.report(ALICE, file, write, 1 << 63),
        Err(FsError::FileTooLarge)
    );
    let (attr, before) = world.report(ALICE, file, write, 10).unwrap();
    assert_eq!((attr.size, attr.change, before), (10, 1, 0));
    let (attr, before) = world.report(ALICE, file, write, 4).unwrap();
    assert_eq!(
        (attr.size, attr.change, before),
        (10, 2, 1),
        "a report never shortens"
    );
    let operation = MgrOperation::Report {
        inode: file,
        size_min: 10,
        modified: false,
        open: write,
        known_change: 0,
        allocated: None,
        filled: 0,
        doubt: None,
    };
    let Ok(MgrResponse::Report {
        attr,
        change_before,
    }) = world.call(operation)
    else {
        panic!()
    };
    assert_eq!(
        (attr.change, change_before),
        (2, 2),
        "nothing new changes nothing"
    );
}

#[test]
fn a_silent_client_loses_its_opens() {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    let open = world.open(BOB, file, BOTH, false).unwrap().open;
    world.unlink(ROOT_INODE, "f").unwrap();
    world.tick(TIMEOUT);
    assert_eq!(
        world.stat(file).map(|attr| attr.nlink),
        Ok(0),
        "not silent for long enough"
    );
    world.send(ALICE, MgrOperation::KeepAlive);
    world.tick(1);
    assert_eq!(
        world
            .expired
            .iter()
            .filter(|client| **client == BOB)
            .count(),
        1
    );
    assert_eq!(world.stat(file), Err(FsError::Stale));
    assert_eq!(world.report(BOB, file, open, 1), Err(FsError::Stale));
    check(&world.store());
}

#[test]
fn opens_survive_a_restart_of_mgr() {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    let lost = world.mkfile(ROOT_INODE, "g");
    let open = world.open(ALICE, file, BOTH, false).unwrap().open;
    world.open(BOB, lost, BOTH, false).unwrap();
    world.unlink(ROOT_INODE, "f").unwrap();
    world.unlink(ROOT_INODE, "g").unwrap();
    world.restart();
    assert_eq!(
        world.report(ALICE, file, open, 7),
        Err(FsError::Stale),
        "not declared yet"
    );
    let opens = vec![Reopen {
        inode: file,
        open,
        access: BOTH,
    }];
    let Ok(MgrResponse::Hello(hello)) = world.call(MgrOperation::Hello {
        number: 0,
        opens,
        leases: false,
        locks: vec![],
        more: false,
        news: false,
        peer: Peer::default(),
    }) else {
        panic!()
    };
    assert_eq!(hello.session_timeout_ms, SESSION_TIMEOUT_MS);
    assert_eq!(
        world
            .report(ALICE, file, open, 7)
            .map(|(attr, _)| attr.size),
        Ok(7)
    );
    world.tick(TIMEOUT - 1);
    assert!(world.stat(lost).is_ok(), "its opener may still come back");
    world.send(ALICE, MgrOperation::KeepAlive);
    world.tick(1);
    assert_eq!(world.stat(lost), Err(FsError::Stale));
    assert!(world.stat(file).is_ok());
    world.close(ALICE, file, open);
    assert_eq!(world.stat(file), Err(FsError::Stale));
    check(&world.store());
}

#[test]
fn nothing_is_removed_while_opens_may_come_back() {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    let open = world.open(BOB, file, BOTH, false).unwrap().open;
    world.restart();
    world.unlink(ROOT_INODE, "f").unwrap();
    assert!(world.stat(file).is_ok());
    let opens = vec![Reopen {
        inode: file,
        open,
        access: BOTH,
    }];
    let root = user(0);
    world
        .call_as(
            BOB,
            &root,
            MgrOperation::Hello {
                number: 0,
                opens,
                leases: false,
                locks: vec![],
                more: false,
                news: false,
                peer: Peer::default(),
            },
        )
        .unwrap();
    for _ in 0..4 {
        world.send(BOB, MgrOperation::KeepAlive);
        world.tick(TIMEOUT / 2);
    }
    assert!(world.stat(file).is_ok());
    world.close(BOB, file, open);
    assert_eq!(world.stat(file), Err(FsError::Stale));
}

#[test]
fn hello_declares_only_what_is_there() {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    let open = world.open(ALICE, file, BOTH, false).unwrap().open;
    // Bob declares Alice's open, and one of an inode that never was.
    let gone = pvfs::ids::InodeNumber(999);
    let opens = vec![
        Reopen {
            inode: file,
            open,
            access: BOTH,
        },
        Reopen {
            inode: gone,
            open: OpenId(77),
            access: BOTH,
        },
    ];
    world
        .call_as(
            BOB,
            &user(0),
            MgrOperation::Hello {
                number: 0,
                opens,
                leases: false,
                locks: vec![],
                more: false,
                news: false,
                peer: Peer::default(),
            },
        )
        .unwrap();
    assert_eq!(world.report(BOB, file, open, 1), Err(FsError::Stale));
    assert_eq!(world.report(BOB, gone, OpenId(77), 1), Err(FsError::Stale));
    assert!(world.report(ALICE, file, open, 1).is_ok());
}

#[test]
fn without_iods_files_wait_and_all_else_goes_on() {
    let mut world = World::over(pvfs_mgr::store::memory::MemoryStore::default());
    assert_eq!(
        world.create(ROOT_INODE, "f").map(drop),
        Err(FsError::TryAgain)
    );
    assert_eq!(
        world.make(ROOT_INODE, "f", FileKind::Regular, 0o644),
        Err(FsError::TryAgain)
    );
    world.mkdir(ROOT_INODE, "d");
    world.register(None, "iod1:7000").unwrap();
    assert_eq!(
        world
            .create(ROOT_INODE, "f")
            .map(|open| open.layout.unwrap().iods().len()),
        Ok(1)
    );
}
