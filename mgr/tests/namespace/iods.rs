// SPDX-License-Identifier: MIT
//! Registration and liveness of iods; statfs.

use pvfs::attr::Credentials;
use pvfs::error::FsError;
use pvfs::ids::{FileSystemId, IodId, ROOT_INODE};
use pvfs::limits::{LOST_AFTER_MS, SUSPECT_AFTER_MS};
use pvfs::proto::lease::Notice;
use pvfs::proto::mgr::{MgrOperation, MgrResponse};
use pvfs::proto::report::IodState;
use pvfs_mgr::owner::Input;
use pvfs_mgr::store::memory::MemoryStore;

use crate::world::{FILE_SYSTEM, OPERATOR, REPORT, SPACE, World};

fn alive(world: &mut World) -> Vec<bool> {
    let Ok(MgrResponse::Iods(iods)) = world.call(MgrOperation::ListIods) else {
        panic!()
    };
    iods.iter().map(|iod| iod.state.is_alive()).collect()
}

fn registered(iod: u32) -> MgrResponse {
    MgrResponse::Registered {
        iod: IodId(iod),
        file_system: FILE_SYSTEM,
    }
}

#[test]
fn ids_are_given_once() {
    let mut world = World::over(MemoryStore::default());
    assert_eq!(world.register(None, "a:1"), Ok(registered(1)));
    assert_eq!(world.register(None, "b:1"), Ok(registered(2)));
    world.restart();
    assert_eq!(alive(&mut world), [false, false]);
    assert_eq!(world.register(None, "c:1"), Ok(registered(3)));
    assert_eq!(
        world.register(Some(2), "b:2"),
        Ok(registered(2)),
        "it has moved"
    );
    assert_eq!(alive(&mut world), [false, true, true]);
    assert_eq!(world.iods[&IodId(2)], "b:2");
    // An iod that a restored backup of the metadata does not know.
    assert_eq!(world.register(Some(9), "i:1"), Ok(registered(9)));
    assert_eq!(world.register(None, "j:1"), Ok(registered(10)));
}

#[test]
fn wrong_iods_are_refused() {
    let mut world = World::over(MemoryStore::default());
    world.register(None, "a:1").unwrap();
    assert_eq!(world.register(Some(1), "b:1"), Err(FsError::Busy));
    let foreign = MgrOperation::RegisterIod {
        iod: Some(IodId(1)),
        file_system: Some(FileSystemId(1)),
        address: "a:1".into(),
        report: REPORT,
    };
    let reply = world.call_as(OPERATOR, &Credentials::ROOT, foreign);
    assert_eq!(reply, Err(FsError::CrossDevice));
    world.batch(vec![Input::Disconnected(OPERATOR.0)]);
    assert_eq!(world.register(Some(1), "b:1"), Ok(registered(1)));
}

#[test]
fn a_lost_reply_makes_no_second_iod() {
    let mut world = World::over(MemoryStore::default());
    let operation = MgrOperation::RegisterIod {
        iod: None,
        file_system: None,
        address: "a:1".into(),
        report: REPORT,
    };
    let (_, request) = world.send(OPERATOR, operation);
    world.restart();
    let again = world.resend(&request);
    assert_eq!(world.replies[&again], Ok(registered(1)));
    assert_eq!(alive(&mut world), [true]);
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
    world.call(MgrOperation::IodHeartbeat {
        iod: IodId(iod),
        report: REPORT,
    })
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
    assert_eq!(world.register(Some(2), "b:2"), Ok(registered(2)));
    assert_eq!(news(&mut world), [(2, IodState::Alive)]);
    let goodbye = world.call_as(OPERATOR, &Credentials::ROOT, MgrOperation::Goodbye);
    assert_eq!(goodbye, Ok(MgrResponse::Done));
    assert_eq!(news(&mut world), [(2, IodState::Left)]);
    assert_eq!(beat(&mut world, 2), Err(FsError::Stale));
    world.batch(vec![Input::Disconnected(OPERATOR.0)]);
    world.pass(LOST_AFTER_MS);
    assert_eq!(news(&mut world), [], "it has left in peace");
}
