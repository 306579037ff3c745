// SPDX-License-Identifier: MIT
//! Files of which the iods may hold more than mgr knows: nobody extends them, or writes to them, before
//! they are settled (docs/decisions/0104-write-intents.md).

use pvfs::attr::SetAttr;
use pvfs::error::FsError;
use pvfs::ids::{ClientId, InodeNumber, IodId, ROOT_INODE};
use pvfs::proto::lease::{Demand, Lease, Want};
use pvfs::proto::mgr::{MgrOperation, MgrResponse, OpenResponse, Reopen};
use pvfs_mgr::namespace::intent::{Doubt, Intent};
use pvfs_mgr::namespace::{key, value};
use pvfs_mgr::owner::Input;
use pvfs_mgr::owner::reconcile::INTENT_IDLE_MS;
use pvfs_mgr::owner::work::{Order, RETRY_MS};
use pvfs_mgr::store::View;

use crate::check::check;
use crate::leases::{
    CAROL, answer, ask, attr, close, create, getattr, granted, grants, greet, lookup, open, park,
    recalls, report, world,
};
use crate::world::{
    ALICE, BOB, BOTH, LEASE_TIMEOUT_MS, Memory, OPERATOR, READ, REPORT, SESSION_TIMEOUT_MS, WRITE,
    World,
};

const STRIPE: u64 = 512 << 10;

fn intent(world: &Memory, inode: InodeNumber) -> Option<Intent> {
    let key = key::intent(inode);
    let store = world.store();
    let bytes = store.get(&key).unwrap();
    bytes.map(|bytes| value::decode(&key, bytes).unwrap())
}

fn doubt(world: &Memory, inode: InodeNumber) -> Option<Doubt> {
    intent(world, inode).and_then(|intent| intent.doubt)
}

fn resize(inode: InodeNumber, size: u64) -> MgrOperation {
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

fn acquire(inode: InodeNumber, want: Want) -> MgrOperation {
    MgrOperation::Acquire { inode, want }
}

fn torn(file: &OpenResponse, end: u64) -> MgrOperation {
    let mut operation = report(file, end);
    if let MgrOperation::Report { doubt, .. } = &mut operation {
        *doubt = Some(Doubt::Torn);
    }
    operation
}

/// The iods are still there as time passes.
fn iods_live(world: &mut Memory) {
    for n in 1..=3 {
        let heartbeat = MgrOperation::IodHeartbeat {
            iod: IodId(n),
            report: REPORT,
        };
        ask(world, OPERATOR, heartbeat).unwrap();
    }
}

/// Alice has written to a file, mgr knows of 100 bytes, and the iods hold one stripe and 10 bytes: then
/// she is silent for so long that others get her leases.
fn written_by_a_silent_client() -> (Memory, OpenResponse) {
    let mut world = world();
    let (file, _) = made_by_both(&mut world);
    ask(&mut world, ALICE, report(&file, 100)).unwrap();
    let layout = file.layout.clone().unwrap();
    world.local.insert(layout.iods()[0], STRIPE);
    world.local.insert(layout.iods()[1], 10);
    world.diligent = false;
    (world, file)
}

/// A file of Alice's and one of Bob's.
fn made_by_both(world: &mut Memory) -> (OpenResponse, OpenResponse) {
    let other = create(world, BOB, "other");
    let operation = MgrOperation::Create {
        parent: ROOT_INODE,
        name: crate::world::name("f"),
        mode: 0o644,
        exclusive: true,
        access: BOTH,
        umask: 0,
    };
    let making = park(world, ALICE, operation);
    give_up_all(world, BOB);
    (
        Memory::open_of(world.replies.remove(&making).unwrap()).unwrap(),
        other,
    )
}

/// Answers what a client is asked.
fn give_up_all(world: &mut Memory, client: ClientId) {
    let asked = recalls(world, client);
    assert!(!asked.is_empty());
    answer(world, client, &asked);
}

fn silence(world: &mut Memory) {
    world.tick(u64::from(LEASE_TIMEOUT_MS) + 1);
}

#[test]
fn what_a_silent_client_wrote_is_in_the_file_before_anybody_extends_it() {
    let (mut world, file) = written_by_a_silent_client();
    let inode = file.attr.inode;
    let fence = grants(&mut world, ALICE)
        .iter()
        .map(|grant| grant.fence)
        .max();
    let extend = park(&mut world, BOB, resize(inode, 3 * STRIPE));
    let look = park(&mut world, BOB, getattr(inode));
    silence(&mut world);
    assert_eq!(doubt(&world, inode), Some(Doubt::Lost));
    assert!(!world.replies.contains_key(&extend) && !world.replies.contains_key(&look));
    assert_eq!(world.work.len(), 1);
    let work = &world.work[0];
    assert_eq!(
        (work.order, work.targets.len()),
        (Order::Fence, 3),
        "all iods"
    );
    assert!(work.targets.iter().all(|target| Some(target.fence) > fence));
    world.iods_answer(false);
    let seen = attr(world.replies.remove(&look).unwrap());
    assert_eq!(seen.size, STRIPE + 10, "what the iods hold");
    assert!(seen.change > file.attr.change);
    assert_eq!(seen.allocated, None, "dense");
    assert_eq!(
        attr(world.replies.remove(&extend).unwrap()).size,
        3 * STRIPE
    );
    assert_eq!(doubt(&world, inode), None);
    check(&world.store());
}

#[test]
fn who_opens_a_file_for_writing_waits_until_it_is_settled() {
    for (access, truncate) in [(WRITE, false), (BOTH, false), (READ, true)] {
        let (mut world, file) = written_by_a_silent_client();
        let operation = MgrOperation::Open {
            inode: file.attr.inode,
            access,
            truncate,
        };
        let waiter = park(&mut world, BOB, operation);
        silence(&mut world);
        assert!(!world.replies.contains_key(&waiter));
        assert_eq!(world.work[0].order, Order::Fence);
        world.iods_answer(false);
        // An empty file is cut once more.
        world.iods_answer(false);
        let opened = Memory::open_of(world.replies.remove(&waiter).unwrap()).unwrap();
        assert_eq!(opened.attr.size, if truncate { 0 } else { STRIPE + 10 });
        assert_eq!(doubt(&world, file.attr.inode), None);
    }
}

/// Writes of one who is lost would pass for those of another who shared the file.
#[test]
fn who_shared_a_file_with_a_lost_client_gives_it_up_first() {
    let (mut world, file) = written_by_a_silent_client();
    let inode = file.attr.inode;
    let opening = MgrOperation::Open {
        inode,
        access: BOTH,
        truncate: false,
    };
    let waiter = park(&mut world, BOB, opening);
    let asked = recalls(&mut world, ALICE);
    answer(&mut world, ALICE, &asked);
    assert!(world.replies.remove(&waiter).unwrap().is_ok());
    for client in [ALICE, BOB] {
        ask(&mut world, client, acquire(inode, Want::WriteDirect)).unwrap();
        assert_eq!(granted(&mut world, client, inode), Some(Lease::Shared));
    }
    let look = park(&mut world, CAROL, getattr(inode));
    let asked = recalls(&mut world, BOB);
    assert_eq!(asked[0].demand, Demand::Report);
    answer(&mut world, BOB, &asked);
    // She is silent, he is not.
    world.tick(u64::from(LEASE_TIMEOUT_MS) / 2);
    ask(&mut world, BOB, MgrOperation::KeepAlive).unwrap();
    world.tick(u64::from(LEASE_TIMEOUT_MS) / 2 + 1);
    assert!(world.work.is_empty());
    let asked = recalls(&mut world, BOB);
    assert_eq!(asked[0].demand, Demand::GiveUp);
    let again = park(&mut world, BOB, acquire(inode, Want::WriteDirect));
    answer(&mut world, BOB, &asked);
    assert!(!world.replies.contains_key(&again));
    world.iods_answer(false);
    let seen = attr(world.replies.remove(&look).unwrap());
    assert_eq!(seen.size, STRIPE + 10);
    give_up_all(&mut world, CAROL);
    assert!(world.replies.remove(&again).unwrap().is_ok());
}

#[test]
fn while_an_iod_is_away_readers_go_on_and_who_extends_waits() {
    let (mut world, file) = written_by_a_silent_client();
    let inode = file.attr.inode;
    let reader = park(
        &mut world,
        BOB,
        MgrOperation::Open {
            inode,
            access: READ,
            truncate: false,
        },
    );
    silence(&mut world);
    assert!(!world.replies.contains_key(&reader), "it is settled soon");
    world.iods_answer(true);
    let opened = Memory::open_of(world.replies.remove(&reader).unwrap()).unwrap();
    assert_eq!(opened.attr.size, 100, "what is known");
    ask(&mut world, BOB, acquire(inode, Want::Read)).unwrap();
    assert_eq!(granted(&mut world, BOB, inode), Some(Lease::Read));
    assert_eq!(attr(ask(&mut world, BOB, getattr(inode))).size, 100);
    let extend = park(&mut world, CAROL, resize(inode, 3 * STRIPE));
    assert!(ask(&mut world, BOB, lookup("other")).is_ok(), "other files");
    assert!(recalls(&mut world, BOB).is_empty(), "he reads on meanwhile");
    for _ in 0..2 {
        world.tick(RETRY_MS / 2);
        ask(&mut world, BOB, MgrOperation::KeepAlive).unwrap();
    }
    assert_eq!(world.work.len(), 1, "it is tried again");
    // Meanwhile her session has ended too: what the iods said does not count any more.
    world.iods_answer(false);
    assert_eq!(world.work.len(), 1);
    world.iods_answer(false);
    assert!(!world.replies.contains_key(&extend));
    let asked = recalls(&mut world, BOB);
    assert_eq!(asked[0].demand, Demand::GiveUp, "he knows another size");
    answer(&mut world, BOB, &asked);
    assert_eq!(doubt(&world, inode), None);
    // He keeps something again as he looks.
    assert_eq!(
        attr(world.replies.remove(&extend).unwrap()).size,
        3 * STRIPE
    );
}

#[test]
fn an_iod_that_is_not_there_is_not_asked_until_it_registers() {
    let (mut world, file) = written_by_a_silent_client();
    let inode = file.attr.inode;
    let extend = park(&mut world, BOB, resize(inode, 3 * STRIPE));
    // All of them registered through this connection.
    world.batch(vec![Input::Disconnected(OPERATOR.0)]);
    silence(&mut world);
    assert!(world.work.is_empty());
    assert_eq!(attr(ask(&mut world, BOB, getattr(inode))).size, 100);
    for n in 1..=3 {
        world.register(Some(n), &format!("iod{n}:7000")).unwrap();
    }
    assert_eq!(world.work.len(), 1);
    world.iods_answer(false);
    let asked = recalls(&mut world, BOB);
    answer(&mut world, BOB, &asked);
    assert!(world.replies.contains_key(&extend));
}

#[test]
fn what_a_failed_write_left_is_cut_off_before_anybody_writes_again() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    let inode = file.attr.inode;
    grants(&mut world, ALICE);
    world.diligent = false;
    assert!(ask(&mut world, ALICE, torn(&file, 700)).is_ok());
    assert_eq!(doubt(&world, inode), Some(Doubt::Torn));
    let asked = recalls(&mut world, ALICE);
    assert_eq!(asked[0].demand, Demand::GiveUp, "also of who says so");
    // Others read what is there, when she has reported.
    let look = park(&mut world, BOB, getattr(inode));
    let more = recalls(&mut world, ALICE);
    let again = park(&mut world, ALICE, acquire(inode, Want::Write));
    assert!(world.work.is_empty(), "she may be writing");
    ask(&mut world, ALICE, torn(&file, 800)).unwrap();
    answer(&mut world, ALICE, &[asked, more].concat());
    assert_eq!(attr(world.replies.remove(&look).unwrap()).size, 800);
    let work = &world.work[0];
    let lengths: Vec<_> = work.targets.iter().map(|target| target.length).collect();
    assert_eq!((work.order, lengths), (Order::Truncate, vec![800, 0, 0]));
    assert!(!world.replies.contains_key(&again));
    let extend = park(&mut world, BOB, resize(inode, 5000));
    let fence = work_fence(&world);
    world.iods_answer(false);
    assert_eq!(attr(world.replies.remove(&extend).unwrap()).size, 5000);
    give_up_all(&mut world, BOB);
    assert!(world.replies.remove(&again).unwrap().is_ok());
    let grant = grants(&mut world, ALICE).pop().unwrap();
    assert!(grant.lease == Lease::Write && grant.fence > fence);
    assert_eq!(doubt(&world, inode), None);
    check(&world.store());
}

fn work_fence(world: &Memory) -> u64 {
    world.work[0].targets[0].fence
}

/// What others wrote meanwhile under a lease that they share is not cut off.
#[test]
fn who_shares_a_file_reports_before_what_a_failed_write_left_is_cut() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    let inode = file.attr.inode;
    let operation = MgrOperation::Open {
        inode,
        access: BOTH,
        truncate: false,
    };
    let waiter = park(&mut world, BOB, operation);
    let asked = recalls(&mut world, ALICE);
    answer(&mut world, ALICE, &asked);
    let other = Memory::open_of(world.replies.remove(&waiter).unwrap()).unwrap();
    for client in [ALICE, BOB] {
        ask(&mut world, client, acquire(inode, Want::WriteDirect)).unwrap();
        assert_eq!(granted(&mut world, client, inode), Some(Lease::Shared));
    }
    world.diligent = false;
    ask(&mut world, ALICE, torn(&file, 100)).unwrap();
    for client in [ALICE, BOB] {
        let asked = recalls(&mut world, client);
        assert_eq!(asked[0].demand, Demand::GiveUp);
        if client == BOB {
            assert!(ask(&mut world, BOB, report(&other, 4000)).is_ok());
        }
        assert!(world.work.is_empty());
        answer(&mut world, client, &asked);
    }
    assert_eq!(world.work[0].targets[0].length, 4000);
}

/// Nobody can tell any more where the file ends.
#[test]
fn a_client_that_is_lost_after_a_failed_write_leaves_what_the_iods_hold() {
    let (mut world, file) = written_by_a_silent_client();
    ask(&mut world, ALICE, torn(&file, 100)).unwrap();
    silence(&mut world);
    world.iods_answer(false);
    let seen = ask(&mut world, BOB, getattr(file.attr.inode));
    assert_eq!(attr(seen).size, STRIPE + 10);
}

#[test]
fn a_client_that_takes_no_leases_is_waited_for_until_its_session_ends() {
    let mut world = World::new();
    let opened = world.create(ROOT_INODE, "f").unwrap();
    let inode = opened.attr.inode;
    for n in 1..=3 {
        world.local.insert(IodId(n), 5);
    }
    world.tick(u64::from(SESSION_TIMEOUT_MS) + 1);
    assert_eq!(
        world
            .done
            .iter()
            .filter(|work| work.order == Order::Fence)
            .count(),
        1
    );
    assert_eq!(doubt(&world, inode), None);
    let size = world.stat(inode).unwrap().size;
    assert_eq!(size, 2 * STRIPE + 5, "the third iod's five bytes");
    world.tick(SESSION_TIMEOUT_MS.into());
    check(&world.store());
}

#[test]
fn who_leaves_with_everything_reported_and_closed_leaves_no_doubt() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    let inode = file.attr.inode;
    ask(&mut world, ALICE, report(&file, 100)).unwrap();
    close(&mut world, ALICE, inode, file.open);
    ask(&mut world, ALICE, MgrOperation::Goodbye).unwrap();
    assert!(world.done.is_empty() && doubt(&world, inode).is_none());
    let file = create(&mut world, BOB, "g");
    ask(&mut world, BOB, MgrOperation::Goodbye).unwrap();
    assert_eq!(world.done.len(), 1, "he may have written");
    assert_eq!(doubt(&world, file.attr.inode), None);
}

#[test]
fn a_removed_file_is_in_no_doubt() {
    let (mut world, file) = written_by_a_silent_client();
    let inode = file.attr.inode;
    let extend = park(&mut world, BOB, resize(inode, 3 * STRIPE));
    silence(&mut world);
    let operation = MgrOperation::Unlink {
        parent: ROOT_INODE,
        name: crate::world::name("f"),
    };
    let unlink = world.send(BOB, operation).0;
    let asked = recalls(&mut world, ALICE);
    assert!(asked.len() <= 2);
    silence(&mut world);
    assert!(world.replies.remove(&unlink).unwrap().is_ok());
    // Her open goes with her session, and the file with it.
    world.tick(SESSION_TIMEOUT_MS.into());
    world.iods_answer(true);
    assert_eq!(world.replies.remove(&extend), Some(Err(FsError::Stale)));
    assert_eq!(intent(&world, inode), None);
    check(&world.store());
}

#[test]
fn an_intent_is_stored_before_the_first_write_and_goes_when_nobody_writes_any_more() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    let inode = file.attr.inode;
    assert!(intent(&world, inode).is_some());
    ask(&mut world, ALICE, report(&file, 100)).unwrap();
    // The grace after a start is over, and the client is there.
    for _ in 0..20 {
        world.tick(u64::from(LEASE_TIMEOUT_MS) / 2);
        ask(&mut world, ALICE, MgrOperation::KeepAlive).unwrap();
    }
    assert!(intent(&world, inode).is_some(), "it is open");
    close(&mut world, ALICE, inode, file.open);
    let commits = world.store().commits;
    let again = open(&mut world, ALICE, inode, BOTH);
    assert_eq!(
        world.store().commits,
        commits,
        "one that writes again soon costs nothing"
    );
    close(&mut world, ALICE, inode, again.open);
    world.tick(INTENT_IDLE_MS);
    assert_eq!(intent(&world, inode), None);
    world.tick(INTENT_IDLE_MS);
    open(&mut world, ALICE, inode, READ);
    assert_eq!(intent(&world, inode), None);
    let again = open(&mut world, ALICE, inode, WRITE);
    assert!(intent(&world, inode).is_some());
    assert_eq!(again.attr.size, 100);
}

#[test]
fn after_a_restart_doubts_are_settled_and_who_came_back_causes_none() {
    let mut world = world();
    let (file, other) = made_by_both(&mut world);
    let layout = file.layout.clone().unwrap();
    world.local.insert(layout.iods()[1], 10);
    world.diligent = false;
    let look = park(&mut world, BOB, getattr(file.attr.inode));
    silence(&mut world);
    assert!(!world.replies.contains_key(&look));
    world.restart();
    let reopen = Reopen {
        inode: other.attr.inode,
        open: other.open,
        access: BOTH,
    };
    for client in [ALICE, CAROL] {
        greet(&mut world, client, vec![]);
    }
    greet(&mut world, BOB, vec![reopen]);
    for n in 1..=3 {
        world.register(Some(n), &format!("iod{n}:7000")).unwrap();
    }
    let objects: Vec<_> = world.work.iter().map(|work| work.object.inode).collect();
    assert_eq!(
        objects,
        [file.attr.inode],
        "the other file's writer has told all"
    );
    world.iods_answer(false);
    let seen = ask(&mut world, BOB, getattr(file.attr.inode));
    assert_eq!(attr(seen).size, STRIPE + 10);
}

/// mgr and a client ended together: nobody knows where that had written.
#[test]
fn after_a_restart_all_files_that_were_written_are_settled_where_a_client_is_missing() {
    let (mut world, file) = written_by_a_silent_client();
    let inode = file.attr.inode;
    world.restart();
    for client in [BOB, CAROL] {
        greet(&mut world, client, vec![]);
    }
    for n in 1..=3 {
        world.register(Some(n), &format!("iod{n}:7000")).unwrap();
    }
    let extend = park(&mut world, BOB, resize(inode, 3 * STRIPE));
    assert!(world.work.is_empty(), "she may come back");
    world.tick(LEASE_TIMEOUT_MS.into());
    assert_eq!(world.work.len(), 2, "the other file too: who knows");
    assert!(!world.replies.contains_key(&extend));
    world.restart();
    for client in [BOB, CAROL] {
        greet(&mut world, client, vec![]);
    }
    world.tick(LEASE_TIMEOUT_MS.into());
    for n in 1..=3 {
        world.register(Some(n), &format!("iod{n}:7000")).unwrap();
    }
    world.iods_answer(false);
    let seen = ask(&mut world, BOB, getattr(inode));
    assert_eq!(attr(seen).size, STRIPE + 10);
}

#[test]
fn a_full_store_forgets_no_doubt() {
    let (mut world, file) = written_by_a_silent_client();
    let inode = file.attr.inode;
    let extend = park(&mut world, BOB, resize(inode, 3 * STRIPE));
    world.manager().store_mut().full = true;
    silence(&mut world);
    assert_eq!(doubt(&world, inode), None, "it could not be stored");
    assert!(!world.replies.contains_key(&extend));
    world.manager().store_mut().full = false;
    iods_live(&mut world);
    world.tick(1);
    assert_eq!(doubt(&world, inode), Some(Doubt::Lost));
    world.iods_answer(false);
    world.tick(1);
    world.iods_answer(false);
    assert_eq!(doubt(&world, inode), None);
    let reply = world.replies.remove(&extend).unwrap();
    let size = attr(ask(&mut world, BOB, getattr(inode))).size;
    match reply {
        Ok(MgrResponse::Attr(seen)) => assert_eq!((seen.size, size), (3 * STRIPE, 3 * STRIPE)),
        Err(FsError::NoSpace) => assert_eq!(size, STRIPE + 10),
        other => panic!("{other:?}"),
    }
}
