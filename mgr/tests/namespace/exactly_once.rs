// SPDX-License-Identifier: MIT
//! Whatever is lost and sent again, a mutating request runs once.

use pvfs::attr::Credentials;
use pvfs::error::FsError;
use pvfs::ids::ROOT_INODE;
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrResponse, RenameMode};
use pvfs_mgr::namespace::key::{self, Tag};
use pvfs_mgr::owner::Input;

use crate::check::check;
use crate::world::{ALICE, BOB, BOTH, READ, SESSION_TIMEOUT_MS, World, name};

fn unlink(text: &str) -> MgrOperation {
    MgrOperation::Unlink {
        parent: ROOT_INODE,
        name: name(text),
    }
}

fn create(text: &str) -> MgrOperation {
    let (parent, name) = (ROOT_INODE, name(text));
    MgrOperation::Create {
        parent,
        name,
        mode: 0o644,
        exclusive: true,
        access: BOTH,
        umask: 0,
    }
}

fn kept(world: &World) -> usize {
    let prefix = key::all(Tag::Reply);
    world
        .store()
        .records()
        .keys()
        .filter(|key| key.starts_with(&prefix))
        .count()
}

#[test]
fn a_duplicate_gets_the_first_reply() {
    let mut world = World::new();
    world.mkfile(ROOT_INODE, "f");
    let (first, request) = world.send(ALICE, unlink("f"));
    world.mkfile(ROOT_INODE, "f");
    let second = world.resend(&request);
    assert_eq!(world.replies[&first], Ok(MgrResponse::Done));
    assert_eq!(world.replies[&second], Ok(MgrResponse::Done));
    assert!(
        world.lookup(ROOT_INODE, "f").is_ok(),
        "the new file is not the old one"
    );
}

#[test]
fn and_so_it_does_after_a_restart() {
    let mut world = World::new();
    world.mkfile(ROOT_INODE, "f");
    let (_, renamed) = world.send(
        ALICE,
        MgrOperation::Rename {
            parent: ROOT_INODE,
            name: name("f"),
            new_parent: ROOT_INODE,
            new_name: name("g"),
            mode: RenameMode::Replace,
        },
    );
    let (made, created) = world.send(ALICE, create("h"));
    world.restart();
    let again = world.resend(&renamed);
    assert_eq!(world.replies[&again], Ok(MgrResponse::Done));
    let again = world.resend(&created);
    assert_eq!(world.replies[&again], world.replies[&made]);
    // The open that the reply grants is there again.
    let Ok(MgrResponse::Open(opened)) = world.replies[&again].clone() else {
        panic!()
    };
    assert!(
        world
            .report(ALICE, opened.attr.inode, opened.open, 5)
            .is_ok()
    );
    check(&world.store());
}

#[test]
fn duplicates_within_a_batch_run_once() {
    let mut world = World::new();
    world.mkfile(ROOT_INODE, "f");
    let (first, request) = world.request(ALICE, &Credentials::ROOT, unlink("f"));
    let (second, _) = world.request(BOB, &Credentials::ROOT, MgrOperation::KeepAlive);
    let inputs: Vec<Input<u32>> = [first, second]
        .map(|waiter| crate::world::Memory::input(waiter, &request))
        .into();
    world.batch(inputs);
    assert_eq!(world.replies[&first], Ok(MgrResponse::Done));
    assert_eq!(world.replies[&second], Ok(MgrResponse::Done));
}

#[test]
fn replies_go_when_the_client_has_them() {
    let mut world = World::new();
    let before = kept(&world);
    let (_, first) = world.send(ALICE, create("a"));
    world.send(ALICE, create("b"));
    assert_eq!(kept(&world), before + 2);
    let (waiter, mut request) = world.request(ALICE, &Credentials::ROOT, create("c"));
    request.answered_below = request.sequence;
    world.batch(vec![crate::world::Memory::input(waiter, &request)]);
    assert_eq!(kept(&world), before + 1);
    let again = world.resend(&first);
    assert_eq!(world.replies[&again], Err(FsError::AlreadyAnswered));
    world.tick(u64::from(SESSION_TIMEOUT_MS) + 1);
    assert_eq!(kept(&world), 0, "the sessions have expired");
}

#[test]
fn what_changes_nothing_costs_no_commit() {
    let mut world = World::new();
    let file = world.file_of(ROOT_INODE, "f", 10);
    world.tick(0);
    let commits = world.store().commits;
    let opened = world.open(ALICE, file, BOTH, false).unwrap();
    world.close(ALICE, file, opened.open);
    world.lookup(ROOT_INODE, "f").unwrap();
    assert_eq!(world.unlink(ROOT_INODE, "none"), Err(FsError::NotFound));
    assert_eq!(world.store().commits, commits);
}

#[test]
fn a_batch_is_one_commit() {
    let mut world = World::new();
    let commits = world.store().commits;
    let mut waiters = Vec::new();
    let mut inputs = Vec::new();
    for n in 0..64 {
        let (waiter, request) = world.request(ALICE, &Credentials::ROOT, create(&format!("f{n}")));
        waiters.push(waiter);
        inputs.push(crate::world::Memory::input(waiter, &request));
    }
    world.batch(inputs);
    assert_eq!(world.store().commits, commits + 1);
    assert!(waiters.iter().all(|waiter| world.replies[waiter].is_ok()));
    check(&world.store());
}

#[test]
fn a_full_store_refuses_and_goes_on() {
    let mut world = World::new();
    let file = world.file_of(ROOT_INODE, "f", 10);
    let unwritten = world.mkfile(ROOT_INODE, "u");
    world.manager().store_mut().full = true;
    let (made, request) = world.send(ALICE, create("g"));
    assert_eq!(world.replies[&made], Err(FsError::NoSpace));
    assert!(world.lookup(ROOT_INODE, "f").is_ok());
    assert!(
        world.open(ALICE, file, BOTH, false).is_ok(),
        "opens need no record where there was a writer lately"
    );
    assert!(world.open(ALICE, unwritten, READ, false).is_ok());
    let writer = world.open(ALICE, unwritten, BOTH, false);
    assert_eq!(
        writer,
        Err(FsError::NoSpace),
        "nobody writes without an intent"
    );
    let register = world.register(None, "iod4:7000");
    assert_eq!(register, Err(FsError::NoSpace));
    world.manager().store_mut().full = false;
    assert_eq!(world.lookup(ROOT_INODE, "g"), Err(FsError::NotFound));
    let again = world.resend(&request);
    assert!(world.replies[&again].is_ok(), "it had not run");
    let Ok(MgrResponse::Iods(iods)) = world.call(MgrOperation::ListIods) else {
        panic!()
    };
    assert_eq!(iods.len(), 3, "the fourth is not remembered");
    check(&world.store());
}

#[test]
fn numbers_are_required() {
    let mut world = World::new();
    let (waiter, mut request) = world.request(ALICE, &Credentials::ROOT, create("f"));
    request.sequence = 0;
    world.batch(vec![crate::world::Memory::input(waiter, &request)]);
    assert_eq!(
        world.replies[&waiter],
        MgrReply::Err(FsError::InvalidArgument)
    );
    let (waiter, mut request) = world.request(ALICE, &Credentials::ROOT, create("f"));
    request.credentials.groups = vec![1; 1025];
    world.batch(vec![crate::world::Memory::input(waiter, &request)]);
    assert_eq!(
        world.replies[&waiter],
        MgrReply::Err(FsError::InvalidArgument)
    );
}
