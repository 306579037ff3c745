// SPDX-License-Identifier: MIT
//! Locks through the manager: who may lock, whom it tells, restarts, clients that go.

use pvfs::error::FsError;
use pvfs::ids::{ClientId, InodeNumber};
use pvfs::proto::lease::Notice;
use pvfs::proto::lock::{
    HeldLock, LockFamily, LockHolder, LockKind, LockOwner, LockRange, LockRequest, ProcessNumber,
};
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrResponse};
use pvfs::proto::peer::Peer;

use crate::world::{ALICE, BOB, BOTH, LEASE_TIMEOUT_MS, Memory, SESSION_TIMEOUT_MS, World, name};

const CAROL: ClientId = ClientId(3);
const OWNER: LockOwner = LockOwner::Process(1);
const PROCESS: ProcessNumber = ProcessNumber {
    namespace: 5,
    pid: 77,
};
const RANGE: LockRange = LockRange { start: 0, last: 9 };
const DONE: MgrReply = Ok(MgrResponse::Done);

/// A world whose clients take leases, and a file that all of them have open.
fn world() -> (Memory, InodeNumber) {
    let mut world = World::new();
    let mut inode = None;
    for client in [ALICE, BOB, CAROL] {
        greet(&mut world, client, vec![]);
        let create = MgrOperation::Create {
            parent: pvfs::ids::ROOT_INODE,
            name: name("f"),
            mode: 0o666,
            umask: 0,
            exclusive: false,
            access: BOTH,
        };
        let (waiter, _) = world.send(client, create);
        obey(&mut world);
        let open = Memory::open_of(world.replies.remove(&waiter).unwrap()).unwrap();
        inode = Some(open.attr.inode);
    }
    world.notices.clear();
    (world, inode.unwrap())
}

/// Every client gives up what it is to give up.
fn obey(world: &mut Memory) {
    while let Some((client, notice)) = world.notices.pop() {
        if let Notice::Recalled(recalls) = notice {
            let recalls = recalls.iter().map(|recall| recall.number).collect();
            world.send(client, MgrOperation::Acknowledge { recalls });
        }
    }
}

fn greet(world: &mut Memory, client: ClientId, locks: Vec<HeldLock>) -> Vec<HeldLock> {
    greet_with(world, client, locks, false)
}

fn greet_with(
    world: &mut Memory,
    client: ClientId,
    locks: Vec<HeldLock>,
    more: bool,
) -> Vec<HeldLock> {
    let hello = MgrOperation::Hello {
        number: 0,
        opens: vec![],
        leases: true,
        locks,
        more,
        news: false,
        peer: Peer::default(),
    };
    let (waiter, _) = world.send(client, hello);
    match world.replies.remove(&waiter).unwrap() {
        Ok(MgrResponse::Hello(hello)) => hello.locks_lost,
        other => panic!("{other:?}"),
    }
}

const fn request(inode: InodeNumber, kind: Option<LockKind>, wait: Option<u64>) -> MgrOperation {
    MgrOperation::SetLock(LockRequest {
        inode,
        owner: OWNER,
        family: LockFamily::Range,
        range: RANGE,
        kind,
        process: PROCESS,
        wait,
        settled_below: 0,
    })
}

const fn exclusive(inode: InodeNumber, wait: Option<u64>) -> MgrOperation {
    request(inode, Some(LockKind::Exclusive), wait)
}

const fn held(inode: InodeNumber) -> HeldLock {
    HeldLock {
        inode,
        owner: OWNER,
        family: LockFamily::Range,
        range: RANGE,
        kind: LockKind::Exclusive,
        process: PROCESS,
    }
}

fn ask(world: &mut Memory, client: ClientId, operation: MgrOperation) -> MgrReply {
    let (waiter, _) = world.send(client, operation);
    world.replies.remove(&waiter).expect("it is parked")
}

fn test(inode: InodeNumber) -> MgrOperation {
    MgrOperation::TestLock {
        inode,
        owner: OWNER,
        family: LockFamily::Range,
        range: LockRange::ALL,
        kind: LockKind::Shared,
    }
}

/// Whose waits have come true since the last look.
fn settled(world: &mut Memory) -> Vec<(ClientId, u64)> {
    let settled = world
        .notices
        .drain(..)
        .filter_map(|(client, notice)| match notice {
            Notice::LockSettled { wait, error: None } => Some((client, wait)),
            _ => None,
        });
    settled.collect()
}

#[test]
fn a_lock_is_held_for_all_nodes_and_waited_for() {
    let (mut world, inode) = world();
    assert_eq!(ask(&mut world, ALICE, exclusive(inode, None)), DONE);
    let refused = ask(&mut world, BOB, exclusive(inode, None));
    assert_eq!(refused, Err(FsError::Locked));
    let holder = LockHolder {
        client: ALICE,
        owner: OWNER,
        range: RANGE,
        kind: LockKind::Exclusive,
        process: PROCESS,
    };
    let found = ask(&mut world, BOB, test(inode));
    assert_eq!(found, Ok(MgrResponse::Lock(Some(holder))));
    assert_eq!(
        ask(&mut world, ALICE, test(inode)),
        Ok(MgrResponse::Lock(None))
    );
    for client in [BOB, CAROL] {
        let queued = ask(&mut world, client, exclusive(inode, Some(4)));
        assert_eq!(queued, Ok(MgrResponse::LockQueued));
    }
    assert_eq!(ask(&mut world, ALICE, request(inode, None, None)), DONE);
    assert_eq!(settled(&mut world), [(BOB, 4)]);
    // Bob's process was interrupted just then.
    assert_eq!(
        ask(&mut world, BOB, MgrOperation::CancelLock { wait: 4 }),
        DONE
    );
    assert_eq!(settled(&mut world), [(CAROL, 4)]);
}

#[test]
fn a_request_that_comes_again_locks_once() {
    let (mut world, inode) = world();
    let (first, request) = world.send(ALICE, exclusive(inode, None));
    assert_eq!(world.replies.remove(&first), Some(DONE));
    let unlock = self::request(inode, None, None);
    assert_eq!(ask(&mut world, ALICE, unlock), DONE);
    let again = world.resend(&request);
    assert_eq!(world.replies.remove(&again), Some(DONE));
    assert_eq!(
        ask(&mut world, BOB, exclusive(inode, None)),
        DONE,
        "the repetition has locked nothing"
    );
    // A wait whose outcome was lost on the way is asked for, and keeps its place.
    let ask_again = |world: &mut Memory| ask(world, ALICE, exclusive(inode, Some(1)));
    assert_eq!(ask_again(&mut world), Ok(MgrResponse::LockQueued));
    let behind = ask(&mut world, CAROL, exclusive(inode, Some(1)));
    assert_eq!(behind, Ok(MgrResponse::LockQueued));
    assert_eq!(ask_again(&mut world), Ok(MgrResponse::LockQueued));
    ask(&mut world, BOB, self::request(inode, None, None)).unwrap();
    assert_eq!(settled(&mut world), [(ALICE, 1)]);
    assert_eq!(ask_again(&mut world), DONE);
}

#[test]
fn only_who_greeted_and_has_the_file_open_may_lock() {
    let (mut world, inode) = world();
    let stranger = ask(&mut world, ClientId(9), exclusive(inode, None));
    assert_eq!(stranger, Err(FsError::InvalidArgument));
    let other = ask(&mut world, ALICE, exclusive(InodeNumber(4711), None));
    assert_eq!(other, Err(FsError::Stale));
    let unlock = request(InodeNumber(4711), None, None);
    assert_eq!(ask(&mut world, ALICE, unlock), DONE);
    let MgrOperation::SetLock(mut inverted) = exclusive(inode, None) else {
        panic!()
    };
    inverted.range = LockRange { start: 5, last: 4 };
    let refused = ask(&mut world, ALICE, MgrOperation::SetLock(inverted));
    assert_eq!(refused, Err(FsError::InvalidArgument));
}

#[test]
fn after_a_restart_clients_say_what_they_have_and_others_wait_meanwhile() {
    let (mut world, inode) = world();
    ask(&mut world, ALICE, exclusive(inode, None)).unwrap();
    world.restart();
    assert_eq!(greet(&mut world, BOB, vec![]), []);
    let (looking, _) = world.send(BOB, test(inode));
    assert!(!world.replies.contains_key(&looking), "nobody knows yet");
    // In two messages, the first of which is not all.
    assert_eq!(greet_with(&mut world, ALICE, vec![held(inode)], true), []);
    let other = HeldLock {
        range: LockRange {
            start: 20,
            last: 29,
        },
        ..held(inode)
    };
    assert_eq!(greet(&mut world, ALICE, vec![other]), []);
    assert_eq!(greet(&mut world, CAROL, vec![]), []);
    let found = world.replies.remove(&looking).unwrap();
    assert!(matches!(found, Ok(MgrResponse::Lock(Some(holder))) if holder.client == ALICE));
    // Who asks again, mgr having been there all the time, loses and gains nothing.
    assert_eq!(greet(&mut world, ALICE, vec![]), []);
    let found = ask(&mut world, BOB, test(inode));
    assert!(matches!(found, Ok(MgrResponse::Lock(Some(_)))));
}

#[test]
fn locks_of_a_client_that_does_not_come_back_in_time_are_lost() {
    let (mut world, inode) = world();
    ask(&mut world, ALICE, exclusive(inode, None)).unwrap();
    world.restart();
    greet(&mut world, BOB, vec![]);
    world.tick(u64::from(LEASE_TIMEOUT_MS));
    let found = ask(&mut world, BOB, test(inode));
    assert_eq!(found, Ok(MgrResponse::Lock(None)));
    let lost = greet(&mut world, ALICE, vec![held(inode)]);
    assert_eq!(lost, [held(inode)]);
    assert_eq!(greet(&mut world, ALICE, vec![held(inode)]), []);
    let found = ask(&mut world, BOB, test(inode));
    assert_eq!(found, Ok(MgrResponse::Lock(None)), "it knows by now");
}

#[test]
fn a_silent_client_loses_its_locks_to_who_waits_and_otherwise_with_its_session() {
    let (mut world, inode) = world();
    ask(&mut world, ALICE, exclusive(inode, None)).unwrap();
    let silence = u64::from(LEASE_TIMEOUT_MS) + 1;
    world.tick(silence);
    ask(&mut world, BOB, MgrOperation::KeepAlive).unwrap();
    let found = ask(&mut world, BOB, test(inode));
    assert!(matches!(found, Ok(MgrResponse::Lock(Some(_)))), "no hurry");
    let queued = ask(&mut world, BOB, exclusive(inode, Some(1)));
    assert_eq!(queued, Ok(MgrResponse::LockQueued));
    world.tick(1);
    assert_eq!(settled(&mut world), [(BOB, 1)]);
    assert!(world.expired.contains(&ALICE));
    let lost = greet(&mut world, ALICE, vec![held(inode)]);
    assert_eq!(lost, [held(inode)]);
    // Bob's session ends, though nobody waits.
    world.tick(u64::from(SESSION_TIMEOUT_MS) + 1);
    greet(&mut world, CAROL, vec![]);
    let found = ask(&mut world, CAROL, test(inode));
    assert_eq!(found, Ok(MgrResponse::Lock(None)));
}

#[test]
fn a_client_that_says_goodbye_leaves_no_lock() {
    let (mut world, inode) = world();
    ask(&mut world, ALICE, exclusive(inode, None)).unwrap();
    ask(&mut world, BOB, exclusive(inode, Some(1))).unwrap();
    ask(&mut world, ALICE, MgrOperation::Goodbye).unwrap();
    assert_eq!(settled(&mut world), [(BOB, 1)]);
}
