// SPDX-License-Identifier: MIT
//! Registration and liveness of iods; statfs.

use pvfs::attr::Credentials;
use pvfs::error::FsError;
use pvfs::ids::{FileSystemId, Incarnation, IodId, ROOT_INODE};
use pvfs::limits::{LOST_AFTER_MS, SUSPECT_AFTER_MS};
use pvfs::proto::lease::Notice;
use pvfs::proto::mgr::{MgrOperation, MgrResponse};
use pvfs::proto::report::IodState;
use pvfs_mgr::owner::Input;
use pvfs_mgr::store::memory::MemoryStore;

use crate::world::{OPERATOR, REPORT, SPACE, World};

fn alive(world: &mut World) -> Vec<bool> {
    let Ok(MgrResponse::Iods(iods)) = world.call(MgrOperation::ListIods) else {
        panic!()
    };
    iods.iter().map(|iod| iod.state.is_alive()).collect()
}

#[test]
fn ids_are_given_once() {
    let mut world = World::over(MemoryStore::default());
    assert_eq!(world.register(None, "a:1"), Ok(1));
    assert_eq!(world.register(None, "b:1"), Ok(2));
    world.restart();
    assert_eq!(alive(&mut world), [false, false]);
    assert_eq!(world.register(None, "c:1"), Ok(3));
    assert_eq!(world.register(Some(2), "b:2"), Ok(2), "it has moved");
    assert_eq!(alive(&mut world), [false, true, true]);
    assert_eq!(world.iods[&IodId(2)], "b:2");
    // A number that nobody was given.
    for number in [4, 9, u32::MAX - 1, u32::MAX] {
        let stranger = world.register(Some(number), "i:1");
        assert_eq!(stranger, Err(FsError::Deposed), "{number}");
    }
    assert_eq!(world.register(None, "j:1"), Ok(4));
}

#[test]
fn wrong_iods_are_refused() {
    let mut world = World::over(MemoryStore::default());
    world.register(None, "a:1").unwrap();
    world.incarnation = Incarnation(8);
    assert_eq!(world.register(Some(1), "b:1"), Err(FsError::Busy));
    let mut foreign = world.introduction(Some(1), Some(world.seals[&1]), "a:1");
    if let MgrOperation::RegisterIod { file_system, .. } = &mut foreign {
        *file_system = Some(FileSystemId(1));
    }
    let reply = world.call_as(OPERATOR, &Credentials::ROOT, foreign);
    assert_eq!(reply, Err(FsError::CrossDevice));
    world.batch(vec![Input::Disconnected(OPERATOR.0)]);
    assert_eq!(world.register(Some(1), "b:1"), Ok(1));
}

#[test]
fn a_lost_reply_makes_no_second_iod() {
    let mut world = World::over(MemoryStore::default());
    let operation = world.introduction(None, None, "a:1");
    let (_, request) = world.send(OPERATOR, operation);
    world.restart();
    let again = world.resend(&request);
    let Ok(MgrResponse::Registered { iod, seal, .. }) = world.replies[&again] else {
        panic!()
    };
    assert_eq!(iod, IodId(1));
    assert_eq!(alive(&mut world), [false], "it has not kept its seal yet");
    world.seals.insert(1, seal);
    assert_eq!(world.register(Some(1), "a:1"), Ok(1));
    assert_eq!(alive(&mut world), [true]);
    // A directory that was copied before it had a number asks likewise.
    let copy = world.resend(&request);
    assert_eq!(world.replies[&copy], Err(FsError::Superseded));
    assert_eq!(alive(&mut world), [true]);
}

/// Of two directories with one seal the first that comes back has the place.
#[test]
fn a_copied_directory_is_known_as_one() {
    let mut world = World::new();
    let copied = world.seals[&1];
    world.incarnation = Incarnation(8);
    assert_eq!(
        world.introduce(Some(1), Some(copied), "c:1"),
        Err(FsError::Busy)
    );
    // The original gets another seal at once, so that the copy does not follow it when it ends.
    world.incarnation = Incarnation(7);
    assert_eq!(beat(&mut world, 1), Err(FsError::Stale));
    assert_eq!(alive(&mut world), [true, true, true], "it goes on serving");
    assert_eq!(world.register(Some(1), "iod1:7000"), Ok(1));
    assert_ne!(world.seals[&1], copied);
    beat(&mut world, 1).unwrap();
    world.batch(vec![Input::Disconnected(OPERATOR.0)]);
    for restarted in [false, true] {
        if restarted {
            world.restart();
        }
        world.incarnation = Incarnation(8);
        let copy = world.introduce(Some(1), Some(copied), "c:1");
        assert_eq!(copy, Err(FsError::Superseded));
        let empty = world.introduce(Some(1), None, "c:1");
        assert_eq!(empty, Err(FsError::Superseded));
        let other = world.introduce(Some(1), Some(world.seals[&2]), "c:1");
        assert!(other.is_err(), "that of iod 2");
        world.incarnation = Incarnation(9);
        assert_eq!(world.register(Some(1), "iod1:7000"), Ok(1));
        world.batch(vec![Input::Disconnected(OPERATOR.0)]);
    }
}

/// A restart of mgr is no news of an iod that went on: its run is the same.
#[test]
fn a_run_is_admitted_again_after_a_restart_of_mgr() {
    let mut world = World::new();
    let runs = |world: &mut World| {
        let Ok(MgrResponse::Iods(iods)) = world.call(MgrOperation::ListIods) else {
            panic!()
        };
        iods.iter().map(|iod| iod.incarnation.0).collect::<Vec<_>>()
    };
    assert_eq!(runs(&mut world), [7, 7, 7]);
    world.restart();
    assert_eq!(runs(&mut world), [7, 7, 7], "clients go on with it");
    assert_eq!(world.register(Some(1), "iod1:7000"), Ok(1));
    world.incarnation = Incarnation(8);
    assert_eq!(world.register(Some(2), "iod2:7000"), Ok(2));
    assert_eq!(runs(&mut world), [7, 8, 7]);
}

#[test]
fn a_store_from_a_backup_takes_what_it_does_not_know_in_a_new_era_only() {
    let mut world = World::new();
    let backup = world.store().clone();
    world.restart();
    for iod in 1..=3 {
        world
            .register(Some(iod), &format!("iod{iod}:7000"))
            .unwrap();
    }
    assert_eq!(world.register(None, "late:1"), Ok(4));
    // However often it is started.
    world.restart_over(backup.clone());
    for _ in 0..5 {
        world.restart();
        assert_eq!(world.register(Some(1), "iod1:7000"), Err(FsError::Deposed));
        assert_eq!(world.register(Some(4), "late:1"), Err(FsError::Deposed));
    }
    let store = world.take_store();
    let copy_of_one = world.seals[&1];
    world.new_era = true;
    world.restart_over(store);
    for iod in 1..=4 {
        let address = format!("iod{iod}:7000");
        assert_eq!(world.register(Some(iod), &address), Ok(iod), "{iod}");
    }
    world.batch(vec![Input::Disconnected(OPERATOR.0)]);
    let second = world.introduce(Some(1), Some(copy_of_one), "c:1");
    assert_eq!(second, Err(FsError::Superseded), "once for each");
    let new = world.register(None, "new:1").unwrap();
    assert!(new > 1000, "no number twice: {new}");
}

#[test]
fn one_peer_does_not_fill_the_table() {
    use pvfs_mgr::registry::IODS_PER_PEER_MAX;
    let mut world = World::over(MemoryStore::default());
    let peer = |n: u8| Input::Connected(OPERATOR.0, [10, 0, 0, n].into());
    world.batch(vec![peer(1)]);
    let address = format!("{}:1", "a".repeat(250));
    let mut added = 0;
    while world.introduce(None, None, &address).is_ok() {
        added += 1;
    }
    assert_eq!(added, IODS_PER_PEER_MAX);
    world.batch(vec![peer(2)]);
    assert!(world.introduce(None, None, &address).is_ok(), "another may");
    let Ok(MgrResponse::Iods(iods)) = world.call(MgrOperation::ListIods) else {
        panic!()
    };
    let bytes = pvfs::wire::codec::encode(&iods).unwrap().len();
    assert!(bytes < pvfs::limits::BODY_BYTES_MAX / 4, "{bytes} bytes");
}

/// What was announced since the last look, in order.
fn news(world: &mut World) -> Vec<(u32, IodState)> {
    let announced = std::mem::take(&mut world.announced);
    let statuses = announced.into_iter().flat_map(|notice| match notice {
        Notice::Iods(statuses) => statuses,
        other => panic!("{other:?}"),
    });
    statuses
        .map(|status| (status.iod.0, status.state))
        .collect()
}

fn beat(world: &mut World, iod: u32) -> Result<MgrResponse, FsError> {
    let beat = MgrOperation::IodHeartbeat {
        iod: IodId(iod),
        report: REPORT,
    };
    world.call_as(OPERATOR, &Credentials::ROOT, beat)
}

#[test]
fn heartbeats_keep_alive_and_carry_space() {
    let mut world = World::new();
    world.announced.clear();
    world.pass(SUSPECT_AFTER_MS - 1);
    beat(&mut world, 2).unwrap();
    assert_eq!(alive(&mut world), [true, true, true]);
    assert_eq!(news(&mut world), []);
    world.tick(1);
    assert_eq!(alive(&mut world), [false, true, false]);
    let suspect = [(1, IodState::Suspect), (3, IodState::Suspect)];
    assert_eq!(news(&mut world), suspect);
    assert_eq!(beat(&mut world, 9), Err(FsError::Stale));
    let opened = world.create(ROOT_INODE, "f").unwrap();
    assert_eq!(opened.layout.unwrap().iods(), [IodId(2)]);
    for _ in 0..10 {
        world.pass(LOST_AFTER_MS / 10);
        beat(&mut world, 2).unwrap();
    }
    assert_eq!(
        news(&mut world),
        [(1, IodState::Away), (3, IodState::Away)],
        "each change is told once"
    );
    let Ok(MgrResponse::StatFs(stat)) = world.call(MgrOperation::StatFs) else {
        panic!()
    };
    assert_eq!(
        (stat.space, stat.inodes_used, stat.now),
        (SPACE, 2, world.now())
    );
    assert!(stat.inodes_free > 0);
    beat(&mut world, 1).unwrap();
    assert_eq!(news(&mut world), [(1, IodState::Alive)]);
    world.restart();
    assert_eq!(
        beat(&mut world, 2),
        Err(FsError::Stale),
        "it must register anew"
    );
}

#[test]
fn a_mgr_that_was_stopped_finds_nobody_silent() {
    let mut world = World::new();
    world.announced.clear();
    for _ in 0..5 {
        // A second in which it did nothing at all; what the iods said meanwhile comes afterwards.
        world.tick(1000);
        for iod in 1..=3 {
            beat(&mut world, iod).unwrap();
        }
    }
    assert_eq!(alive(&mut world), [true, true, true]);
    assert_eq!(news(&mut world), []);
}

#[test]
fn a_connection_that_ends_and_a_goodbye_are_told_at_once() {
    let mut world = World::new();
    world.announced.clear();
    // All have registered through it.
    world.batch(vec![Input::Disconnected(OPERATOR.0)]);
    let away = [1, 2, 3].map(|iod| (iod, IodState::Away));
    assert_eq!(news(&mut world), away);
    assert_eq!(world.register(Some(2), "b:2"), Ok(2));
    assert_eq!(news(&mut world), [(2, IodState::Alive)]);
    let goodbye = world.call_as(OPERATOR, &Credentials::ROOT, MgrOperation::Goodbye);
    assert_eq!(goodbye, Ok(MgrResponse::Done));
    assert_eq!(news(&mut world), [(2, IodState::Left)]);
    assert_eq!(beat(&mut world, 2), Err(FsError::Stale));
    world.batch(vec![Input::Disconnected(OPERATOR.0)]);
    world.pass(LOST_AFTER_MS);
    assert_eq!(news(&mut world), [], "it has left in peace");
}
