// SPDX-License-Identifier: MIT
//! Leases around requests: who is asked for what before a request runs, and what its client keeps.

use pvfs::attr::{Attr, Credentials, SetAttr};
use pvfs::error::FsError;
use pvfs::ids::{ClientId, InodeNumber, OpenId, ROOT_INODE};
use pvfs::proto::lease::{Demand, Grant, Lease, NO_LEASE, Notice, Recall, Want};
use pvfs::proto::mgr::{Access, MgrOperation, MgrReply, MgrResponse, OpenResponse, Reopen};
use pvfs::proto::peer::Peer;

use pvfs_mgr::owner::work::RETRY_MS;

use crate::world::{
    ALICE, BOB, BOTH, LEASE_TIMEOUT_MS, Memory, READ, SESSION_TIMEOUT_MS, WRITE, World, name,
};

pub const CAROL: ClientId = ClientId(3);

/// A world whose clients take leases.
pub fn world() -> Memory {
    let mut world = World::new();
    for client in [ALICE, BOB, CAROL] {
        greet(&mut world, client, vec![]);
    }
    world
}

pub fn greet(world: &mut Memory, client: ClientId, opens: Vec<Reopen>) {
    let hello = MgrOperation::Hello {
        number: 0,
        opens,
        leases: true,
        locks: vec![],
        more: false,
        news: false,
        peer: Peer::default(),
    };
    let (waiter, _) = world.send(client, hello);
    assert!(world.replies.remove(&waiter).unwrap().is_ok());
}

/// Sends a request that is answered at once.
pub fn ask(world: &mut Memory, client: ClientId, operation: MgrOperation) -> MgrReply {
    let (waiter, _) = world.send(client, operation);
    world
        .replies
        .remove(&waiter)
        .expect("it waits for somebody")
}

/// Sends a request that has to wait.
pub fn park(world: &mut Memory, client: ClientId, operation: MgrOperation) -> u32 {
    let (waiter, _) = world.send(client, operation);
    assert!(!world.replies.contains_key(&waiter), "it waits for nobody");
    waiter
}

pub fn open(
    world: &mut Memory,
    client: ClientId,
    inode: InodeNumber,
    access: Access,
) -> OpenResponse {
    let operation = MgrOperation::Open {
        inode,
        access,
        truncate: false,
    };
    Memory::open_of(ask(world, client, operation)).unwrap()
}

pub fn create(world: &mut Memory, client: ClientId, text: &str) -> OpenResponse {
    let operation = MgrOperation::Create {
        parent: ROOT_INODE,
        name: name(text),
        mode: 0o644,
        exclusive: true,
        access: BOTH,
        umask: 0,
    };
    Memory::open_of(ask(world, client, operation)).unwrap()
}

/// Closes, under the last lease on the inode that the client has heard of.
pub fn close(world: &mut Memory, client: ClientId, inode: InodeNumber, open: OpenId) {
    let notices = world.notices.iter().rev();
    let grants = notices.filter_map(|(to, notice)| match notice {
        Notice::Granted { grants, .. } if *to == client => Some(grants),
        _ => None,
    });
    let grant = grants.flatten().find(|grant| grant.attr.inode == inode);
    let lease = grant.map_or(NO_LEASE, |grant| grant.number);
    ask(world, client, MgrOperation::Close { inode, open, lease }).unwrap();
}

/// What a client was granted since the last look.
pub fn grants(world: &mut Memory, client: ClientId) -> Vec<Grant> {
    let mut found = Vec::new();
    world.notices.retain(|(to, notice)| match notice {
        Notice::Granted { grants, .. } if *to == client => {
            found.extend(grants);
            false
        }
        _ => true,
    });
    found
}

pub fn granted(world: &mut Memory, client: ClientId, inode: InodeNumber) -> Option<Lease> {
    let grants = grants(world, client);
    let last = grants.iter().rev().find(|grant| grant.attr.inode == inode);
    last.map(|grant| grant.lease)
}

/// What a client was asked since the last look.
pub fn recalls(world: &mut Memory, client: ClientId) -> Vec<Recall> {
    let mut found = Vec::new();
    world.notices.retain(|(to, notice)| match notice {
        Notice::Recalled(recalls) if *to == client => {
            found.extend(recalls);
            false
        }
        _ => true,
    });
    found
}

pub fn answer(world: &mut Memory, client: ClientId, recalls: &[Recall]) {
    let numbers = recalls.iter().map(|recall| recall.number).collect();
    let operation = MgrOperation::Acknowledge { recalls: numbers };
    assert_eq!(ask(world, client, operation), Ok(MgrResponse::Done));
}

pub fn getattr(inode: InodeNumber) -> MgrOperation {
    MgrOperation::GetAttr { inode }
}

pub fn lookup(text: &str) -> MgrOperation {
    MgrOperation::Lookup {
        parent: ROOT_INODE,
        name: Some(name(text)),
    }
}

pub fn attr(reply: MgrReply) -> Attr {
    match reply {
        Ok(MgrResponse::Attr(attr)) => attr,
        other => panic!("{other:?}"),
    }
}

pub fn report(file: &OpenResponse, size_min: u64) -> MgrOperation {
    MgrOperation::Report {
        inode: file.attr.inode,
        size_min,
        modified: true,
        open: file.open,
        known_change: file.attr.change,
        allocated: None,
        filled: 0,
        doubt: None,
    }
}

#[test]
fn who_makes_a_file_may_write_it_and_keeps_its_directory() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    let mut leases: Vec<_> = grants(&mut world, ALICE)
        .iter()
        .map(|grant| (grant.attr.inode, grant.lease))
        .collect();
    leases.sort_by_key(|(inode, _)| *inode);
    assert_eq!(
        leases,
        [(ROOT_INODE, Lease::Read), (file.attr.inode, Lease::Write)]
    );
}

#[test]
fn a_look_at_a_file_that_is_written_waits_for_the_writers_report() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    let inode = file.attr.inode;
    let waiter = park(&mut world, BOB, getattr(inode));
    let asked = recalls(&mut world, ALICE);
    assert_eq!((asked.len(), asked[0].demand), (1, Demand::Report));
    // Both in one batch: the answer must hold what the report brought.
    let (report_waiter, report) = world.request(ALICE, &Credentials::ROOT, report(&file, 500));
    let numbers = vec![asked[0].number];
    let acknowledge = MgrOperation::Acknowledge { recalls: numbers };
    let (ack_waiter, acknowledge) = world.request(ALICE, &Credentials::ROOT, acknowledge);
    world.batch(vec![
        Memory::input(report_waiter, &report),
        Memory::input(ack_waiter, &acknowledge),
    ]);
    let reply = world.replies.remove(&waiter).expect("Alice has answered");
    assert_eq!(attr(reply).size, 500);
    grants(&mut world, ALICE);
    assert_eq!(granted(&mut world, BOB, inode), None, "Alice may write on");
}

#[test]
fn a_look_in_the_batch_of_a_change_sees_it() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    let inode = file.attr.inode;
    // Alice gives up first, so that Bob's look waits for nobody.
    let waiter = park(
        &mut world,
        BOB,
        MgrOperation::Open {
            inode,
            access: WRITE,
            truncate: false,
        },
    );
    let asked = recalls(&mut world, ALICE);
    let (first, report) = world.request(ALICE, &Credentials::ROOT, report(&file, 77));
    let numbers = asked.iter().map(|recall| recall.number).collect();
    let acknowledge = MgrOperation::Acknowledge { recalls: numbers };
    let (second, acknowledge) = world.request(ALICE, &Credentials::ROOT, acknowledge);
    let (third, look) = world.request(CAROL, &Credentials::ROOT, getattr(inode));
    world.batch(vec![
        Memory::input(first, &report),
        Memory::input(second, &acknowledge),
        Memory::input(third, &look),
    ]);
    assert_eq!(attr(world.replies.remove(&third).unwrap()).size, 77);
    assert_eq!(
        Memory::open_of(world.replies.remove(&waiter).unwrap())
            .unwrap()
            .attr
            .size,
        77
    );
}

#[test]
fn a_name_is_changed_when_nobody_else_keeps_the_directory() {
    let mut world = world();
    assert_eq!(ask(&mut world, BOB, lookup("f")), Err(FsError::NotFound));
    assert_eq!(granted(&mut world, BOB, ROOT_INODE), Some(Lease::Read));
    let waiter = park(
        &mut world,
        ALICE,
        MgrOperation::Symlink {
            parent: ROOT_INODE,
            name: name("f"),
            target: b"t".to_vec(),
        },
    );
    let asked = recalls(&mut world, BOB);
    assert_eq!((asked.len(), asked[0].demand), (1, Demand::GiveUp));
    assert_eq!(
        ask(&mut world, CAROL, lookup("f")),
        Err(FsError::NotFound),
        "looking goes on meanwhile"
    );
    assert_eq!(
        granted(&mut world, CAROL, ROOT_INODE),
        None,
        "but is not kept"
    );
    answer(&mut world, BOB, &asked);
    assert!(world.replies.remove(&waiter).unwrap().is_ok());
    assert!(ask(&mut world, BOB, lookup("f")).is_ok());
}

#[test]
fn names_and_attributes_come_with_the_replies() {
    let mut world = world();
    create(&mut world, ALICE, "f");
    world.notices.clear();
    ask(&mut world, ALICE, lookup("f")).unwrap();
    assert_eq!(ask(&mut world, ALICE, lookup("g")), Err(FsError::NotFound));
    let entries: Vec<_> = world
        .notices
        .iter()
        .filter_map(|(_, notice)| match notice {
            Notice::Granted { entries, .. } => entries.first().cloned(),
            Notice::Recalled(_) | Notice::LockSettled { .. } | Notice::Iods(_) => None,
        })
        .map(|entry| (entry.name, entry.inode.is_some()))
        .collect();
    assert_eq!(entries, [(name("f"), true), (name("g"), false)]);
}

/// A file that Alice and Bob have open for writing, and on which nobody has a lease.
fn with_two_writers(world: &mut Memory) -> InodeNumber {
    let file = create(world, ALICE, "f");
    let inode = file.attr.inode;
    grants(world, ALICE);
    let operation = MgrOperation::Open {
        inode,
        access: BOTH,
        truncate: false,
    };
    let waiter = park(world, BOB, operation);
    let asked = recalls(world, ALICE);
    answer(world, ALICE, &asked);
    assert!(world.replies.remove(&waiter).unwrap().is_ok());
    assert_eq!(granted(world, BOB, inode), None, "Alice has it open");
    inode
}

/// Something that she has written may not be known yet, and more may be on its way to the iods.
#[test]
fn who_writes_is_given_no_lease_beside_which_others_may_read() {
    let mut world = world();
    let inode = with_two_writers(&mut world);
    let acquire = |want| MgrOperation::Acquire { inode, want };
    for client in [ALICE, BOB] {
        ask(&mut world, client, acquire(Want::WriteDirect)).unwrap();
    }
    grants(&mut world, ALICE);
    let waiter = park(&mut world, ALICE, acquire(Want::Read));
    let asked = recalls(&mut world, BOB);
    answer(&mut world, BOB, &asked);
    assert_eq!(world.replies.remove(&waiter), Some(Ok(MgrResponse::Done)));
    assert_eq!(granted(&mut world, ALICE, inode), Some(Lease::Write));
    park(&mut world, BOB, getattr(inode));
    let asked = recalls(&mut world, ALICE);
    assert_eq!((asked.len(), asked[0].demand), (1, Demand::Report));
}

#[test]
fn a_second_writer_shares_and_nobody_keeps_pages() {
    let mut world = world();
    let inode = with_two_writers(&mut world);
    let acquire = |want| MgrOperation::Acquire { inode, want };
    for client in [ALICE, BOB] {
        ask(&mut world, client, acquire(Want::WriteDirect)).unwrap();
        assert_eq!(granted(&mut world, client, inode), Some(Lease::Shared));
        ask(&mut world, client, acquire(Want::ReadDirect)).unwrap();
        assert_eq!(granted(&mut world, client, inode), Some(Lease::Shared));
    }
    // To append, Alice needs it for herself.
    let waiter = park(&mut world, ALICE, acquire(Want::Write));
    let asked = recalls(&mut world, BOB);
    assert_eq!((asked.len(), asked[0].demand), (1, Demand::GiveUp));
    // Bob's next request for the file comes after hers.
    let behind = park(&mut world, BOB, acquire(Want::WriteDirect));
    answer(&mut world, BOB, &asked);
    assert_eq!(world.replies.remove(&waiter), Some(Ok(MgrResponse::Done)));
    assert_eq!(granted(&mut world, ALICE, inode), Some(Lease::Write));
    let asked = recalls(&mut world, ALICE);
    assert_eq!(asked.len(), 1);
    answer(&mut world, ALICE, &asked);
    assert_eq!(world.replies.remove(&behind), Some(Ok(MgrResponse::Done)));
    assert_eq!(granted(&mut world, BOB, inode), Some(Lease::Shared));
}

#[test]
fn who_has_closed_for_writing_reads_on_beside_others() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    close(&mut world, ALICE, file.attr.inode, file.open);
    grants(&mut world, ALICE);
    assert!(ask(&mut world, BOB, getattr(file.attr.inode)).is_ok());
    assert_eq!(granted(&mut world, BOB, file.attr.inode), Some(Lease::Read));
    assert_eq!(recalls(&mut world, ALICE), []);
}

#[test]
fn a_lease_needs_an_open() {
    let mut world = world();
    let inode = world.mkfile(ROOT_INODE, "f");
    let acquire = MgrOperation::Acquire {
        inode,
        want: Want::Read,
    };
    assert_eq!(ask(&mut world, BOB, acquire.clone()), Err(FsError::Stale));
    open(&mut world, BOB, inode, READ);
    assert_eq!(ask(&mut world, BOB, acquire), Ok(MgrResponse::Done));
}

fn chmod(inode: InodeNumber) -> MgrOperation {
    MgrOperation::SetAttr {
        inode,
        set: SetAttr {
            mode: Some(0o600),
            ..SetAttr::default()
        },
        open: None,
    }
}

/// To 10 bytes.
pub fn truncation(inode: InodeNumber) -> MgrOperation {
    MgrOperation::SetAttr {
        inode,
        set: SetAttr {
            size: Some(10),
            ..SetAttr::default()
        },
        open: None,
    }
}

#[test]
fn a_truncation_makes_everybody_give_up() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    let inode = file.attr.inode;
    ask(&mut world, ALICE, report(&file, 4000)).unwrap();
    let cut = truncation(inode);
    let waiter = park(&mut world, BOB, cut);
    let asked = recalls(&mut world, ALICE);
    assert_eq!((asked.len(), asked[0].demand), (1, Demand::GiveUp));
    answer(&mut world, ALICE, &asked);
    assert_eq!(attr(world.replies.remove(&waiter).unwrap()).size, 10);
}

#[test]
fn a_silent_client_loses_its_leases_and_hears_nothing_until_it_greets() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    let inode = file.attr.inode;
    let waiter = park(&mut world, BOB, getattr(inode));
    for _ in 0..3 {
        world.tick(u64::from(LEASE_TIMEOUT_MS) / 2);
        ask(&mut world, BOB, MgrOperation::KeepAlive).unwrap();
    }
    assert!(
        world.replies.remove(&waiter).is_some(),
        "Alice held Bob up for too long"
    );
    assert_eq!(world.expired, [ALICE]);
    let (late, _) = world.send(ALICE, MgrOperation::KeepAlive);
    assert_eq!(
        world.replies.remove(&late),
        None,
        "it would believe in its leases"
    );
    let reopen = Reopen {
        inode,
        open: file.open,
        access: BOTH,
    };
    greet(&mut world, ALICE, vec![reopen]);
    // What she wrote is told late: Bob has looked meanwhile, and must forget what he saw.
    let waiter = park(&mut world, ALICE, report(&file, 9));
    let asked = recalls(&mut world, BOB);
    answer(&mut world, BOB, &asked);
    assert!(world.replies.remove(&waiter).unwrap().is_ok());
    ask(&mut world, ALICE, MgrOperation::KeepAlive).unwrap();
}

#[test]
fn a_client_that_answers_nothing_but_is_there_keeps_its_leases() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    let waiter = park(&mut world, BOB, getattr(file.attr.inode));
    for _ in 0..6 {
        world.tick(u64::from(LEASE_TIMEOUT_MS) / 2);
        ask(&mut world, ALICE, MgrOperation::KeepAlive).unwrap();
        ask(&mut world, BOB, MgrOperation::KeepAlive).unwrap();
    }
    assert!(
        !world.replies.contains_key(&waiter),
        "what it writes is not known yet"
    );
}

#[test]
fn after_a_restart_everything_waits_for_those_who_had_leases() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    ask(&mut world, CAROL, MgrOperation::Goodbye).unwrap();
    world.restart();
    greet(&mut world, BOB, vec![]);
    let look = park(&mut world, BOB, getattr(file.attr.inode));
    let make = park(
        &mut world,
        BOB,
        MgrOperation::Unlink {
            parent: ROOT_INODE,
            name: name("f"),
        },
    );
    greet(&mut world, ALICE, vec![]);
    assert!(world.replies.remove(&look).unwrap().is_ok());
    // Only now Bob keeps what he looked at, and only his own.
    assert!(world.replies.remove(&make).unwrap().is_ok());
}

#[test]
fn after_a_restart_who_does_not_come_back_is_waited_for_no_longer_than_its_lease() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    world.restart();
    greet(&mut world, BOB, vec![]);
    let look = park(&mut world, BOB, getattr(file.attr.inode));
    world.tick(u64::from(LEASE_TIMEOUT_MS) - 1);
    assert!(!world.replies.contains_key(&look));
    world.tick(1);
    assert!(world.replies.remove(&look).unwrap().is_ok());
    // The next start waits only for who is there now.
    world.tick(1);
    world.restart();
    let again = park(&mut world, CAROL, getattr(file.attr.inode));
    greet(&mut world, BOB, vec![]);
    assert!(world.replies.remove(&again).unwrap().is_ok());
}

#[test]
fn a_session_that_ends_ends_its_leases() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    world.tick(u64::from(SESSION_TIMEOUT_MS) + 1);
    greet(&mut world, BOB, vec![]);
    assert!(ask(&mut world, BOB, getattr(file.attr.inode)).is_ok());
    assert_eq!(granted(&mut world, BOB, file.attr.inode), Some(Lease::Read));
}

#[test]
fn what_is_given_back_is_not_asked_for() {
    let mut world = world();
    let inode = world.mkfile(ROOT_INODE, "f");
    world.notices.clear();
    ask(&mut world, BOB, getattr(inode)).unwrap();
    let number = grants(&mut world, BOB)[0].number;
    let leases = vec![(inode, number)];
    ask(&mut world, BOB, MgrOperation::GiveBack { leases }).unwrap();
    // Alice made the file and keeps its attributes.
    let waiter = park(&mut world, CAROL, chmod(inode));
    assert_eq!(recalls(&mut world, BOB), []);
    let asked = recalls(&mut world, ALICE);
    answer(&mut world, ALICE, &asked);
    assert!(world.replies.remove(&waiter).unwrap().is_ok());
}

/// It would be told that its bytes are stored, and the truncation would then cut them off.
#[test]
fn nobody_gets_a_lease_to_write_while_a_file_is_cut() {
    let mut world = world();
    let made = create(&mut world, BOB, "f");
    ask(&mut world, BOB, report(&made, 1 << 20)).unwrap();
    let file = made.attr.inode;
    grants(&mut world, BOB);
    world.diligent = false;
    let truncate = truncation(file);
    let cut = park(&mut world, ALICE, truncate);
    let asked = recalls(&mut world, BOB);
    answer(&mut world, BOB, &asked);
    assert_eq!(world.work.len(), 1, "the iods are told");
    let acquire = |want| MgrOperation::Acquire { inode: file, want };
    assert!(ask(&mut world, BOB, acquire(Want::Read)).is_ok());
    let waiter = park(&mut world, BOB, acquire(Want::Write));
    let fence = world.work[0].targets[0].fence;
    world.iods_answer(false);
    assert!(world.replies.remove(&cut).unwrap().is_ok());
    assert!(world.replies.remove(&waiter).unwrap().is_ok());
    let granted = grants(&mut world, BOB).pop().unwrap();
    assert_eq!((granted.lease, granted.attr.size), (Lease::Write, 10));
    assert!(granted.fence > fence, "what was sent before comes too late");
}

#[test]
fn who_asks_in_the_batch_that_ends_a_cut_is_not_forgotten() {
    let mut world = world();
    let made = create(&mut world, BOB, "f");
    ask(&mut world, BOB, report(&made, 1 << 20)).unwrap();
    let file = made.attr.inode;
    world.diligent = false;
    let truncate = truncation(file);
    park(&mut world, ALICE, truncate);
    let asked = recalls(&mut world, BOB);
    answer(&mut world, BOB, &asked);
    let work = world.work.remove(0);
    let done = world.note_done(work);
    let want = Want::Write;
    let acquire = MgrOperation::Acquire { inode: file, want };
    let (waiter, request) = world.request(BOB, &Credentials::ROOT, acquire);
    world.batch(vec![done, Memory::input(waiter, &request)]);
    assert!(world.replies.remove(&waiter).unwrap().is_ok());
}

#[test]
fn each_attempt_to_cut_has_a_larger_number_also_after_a_restart() {
    let mut world = world();
    let file = world.file_of(ROOT_INODE, "f", 1 << 20);
    world.diligent = false;
    let truncate = truncation(file);
    park(&mut world, ALICE, truncate);
    let number = |world: &Memory| {
        let target = &world.work[0].targets[0];
        (target.fence, target.number)
    };
    let first = number(&world);
    world.iods_answer(true);
    world.tick(RETRY_MS);
    let second = number(&world);
    assert!(second.0 >= first.0 && second.1 > first.1);
    world.work.clear();
    world.restart();
    for iod in 1..=3 {
        let address = format!("iod{iod}:7000");
        world.register(Some(iod), &address).unwrap();
    }
    let third = number(&world);
    assert!(third.0 > second.0 && third.1 > second.1);
}

#[test]
fn reports_from_before_a_restart_come_before_everything_else() {
    let mut world = world();
    let file = create(&mut world, ALICE, "f");
    ask(&mut world, CAROL, MgrOperation::Goodbye).unwrap();
    world.restart();
    greet(&mut world, BOB, vec![]);
    let look = park(&mut world, BOB, getattr(file.attr.inode));
    let reopen = Reopen {
        inode: file.attr.inode,
        open: file.open,
        access: BOTH,
    };
    let declare = MgrOperation::Hello {
        number: 0,
        locks: Vec::new(),
        more: false,
        news: false,
        peer: Peer::default(),
        opens: vec![reopen],
        leases: false,
    };
    assert!(ask(&mut world, ALICE, declare).is_ok());
    assert!(ask(&mut world, ALICE, report(&file, 500)).is_ok());
    assert!(!world.replies.contains_key(&look), "she has not greeted");
    greet(&mut world, ALICE, vec![]);
    assert_eq!(attr(world.replies.remove(&look).unwrap()).size, 500);
}

/// Alice is silent, Bob truncates; then she reports what she wrote before.
#[test]
fn a_report_under_a_lost_lease_counts_only_where_nobody_changed_the_file() {
    for somebody_changes_it in [false, true] {
        let mut world = world();
        let file = create(&mut world, ALICE, "f");
        let waiter = park(
            &mut world,
            BOB,
            MgrOperation::Open {
                inode: file.attr.inode,
                access: WRITE,
                truncate: somebody_changes_it,
            },
        );
        world.tick(u64::from(LEASE_TIMEOUT_MS) + 1);
        let opened = Memory::open_of(world.replies.remove(&waiter).unwrap()).unwrap();
        if somebody_changes_it {
            ask(&mut world, BOB, report(&opened, 10)).unwrap();
        }
        close(&mut world, BOB, file.attr.inode, opened.open);
        let (lost, _) = world.send(ALICE, report(&file, 500));
        assert!(!world.replies.contains_key(&lost), "she does not know yet");
        let declare = MgrOperation::Hello {
            number: 0,
            locks: Vec::new(),
            more: false,
            news: false,
            peer: Peer::default(),
            opens: vec![],
            leases: false,
        };
        assert!(ask(&mut world, ALICE, declare).is_ok());
        let reply = ask(&mut world, ALICE, report(&file, 500)).unwrap();
        let MgrResponse::Report { attr, .. } = reply else {
            panic!("{reply:?}");
        };
        let size = if somebody_changes_it { 10 } else { 500 };
        assert_eq!(attr.size, size);
    }
}

fn greeting(number: u64) -> MgrOperation {
    MgrOperation::Hello {
        number,
        opens: vec![],
        leases: true,
        locks: vec![],
        more: false,
        news: false,
        peer: Peer::default(),
    }
}

/// It was under way when its connection ended, and nobody had read it.
#[test]
fn a_greeting_that_comes_after_a_later_one_takes_no_lease_away() {
    let mut world = world();
    let made = create(&mut world, BOB, "f");
    let file = made.attr.inode;
    close(&mut world, BOB, file, made.open);
    assert!(ask(&mut world, ALICE, greeting(2)).is_ok());
    ask(&mut world, ALICE, getattr(file)).unwrap();
    let late = world.send_through(99, ALICE, greeting(1));
    let reply = world.replies.remove(&late).unwrap();
    assert_eq!(reply, Err(FsError::AlreadyAnswered));
    let changed = park(&mut world, BOB, chmod(file));
    let recalled = recalls(&mut world, ALICE);
    answer(&mut world, ALICE, &recalled);
    assert!(world.replies.remove(&changed).unwrap().is_ok());
}

/// What the change brings is told on the connection that has ended.
#[test]
fn a_change_from_before_a_greeting_takes_what_its_client_has_got_since() {
    let mut world = world();
    let file = create(&mut world, CAROL, "f");
    close(&mut world, CAROL, file.attr.inode, file.open);
    ask(&mut world, CAROL, MgrOperation::Goodbye).unwrap();
    ask(&mut world, BOB, getattr(file.attr.inode)).unwrap();
    let unlink = MgrOperation::Unlink {
        parent: ROOT_INODE,
        name: name("f"),
    };
    let removed = world.send_through(1, ALICE, unlink);
    let recalled = recalls(&mut world, BOB);
    assert!(!recalled.is_empty());
    let again = world.send_through(2, ALICE, greeting(1));
    assert!(world.replies.remove(&again).unwrap().is_ok());
    let found = world.send_through(2, ALICE, lookup("f"));
    assert!(world.replies.remove(&found).unwrap().is_ok());
    assert_eq!(granted(&mut world, ALICE, ROOT_INODE), Some(Lease::Read));
    answer(&mut world, BOB, &recalled);
    let recalled = recalls(&mut world, ALICE);
    assert!(!recalled.is_empty(), "she keeps a name that is going");
    assert!(!world.replies.contains_key(&removed));
    answer(&mut world, ALICE, &recalled);
    assert!(world.replies.remove(&removed).unwrap().is_ok());
}
