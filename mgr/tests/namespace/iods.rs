// SPDX-License-Identifier: MIT
//! Registration and liveness of iods; statfs.

use pvfs::attr::Credentials;
use pvfs::error::FsError;
use pvfs::ids::{FileSystemId, IodId, ROOT_INODE};
use pvfs::proto::mgr::{MgrOperation, MgrResponse};
use pvfs_mgr::owner::Input;
use pvfs_mgr::registry::IOD_SILENCE_MS_MAX;
use pvfs_mgr::store::memory::MemoryStore;

use crate::world::{FILE_SYSTEM, OPERATOR, SPACE, World};

fn alive(world: &mut World) -> Vec<bool> {
    let Ok(MgrResponse::Iods(iods)) = world.call(MgrOperation::ListIods) else {
        panic!()
    };
    iods.iter().map(|iod| iod.alive).collect()
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
        space: SPACE,
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
        space: SPACE,
    };
    let (_, request) = world.send(OPERATOR, operation);
    world.restart();
    let again = world.resend(&request);
    assert_eq!(world.replies[&again], Ok(registered(1)));
    assert_eq!(alive(&mut world), [true]);
}

#[test]
fn heartbeats_keep_alive_and_carry_space() {
    let mut world = World::new();
    let beat = |world: &mut World, iod| {
        world.call(MgrOperation::IodHeartbeat {
            iod: IodId(iod),
            space: SPACE,
        })
    };
    world.ms += IOD_SILENCE_MS_MAX - 1;
    beat(&mut world, 2).unwrap();
    assert_eq!(alive(&mut world), [true, true, true]);
    world.ms += 1;
    assert_eq!(alive(&mut world), [false, true, false]);
    assert_eq!(beat(&mut world, 9), Err(FsError::Stale));
    let opened = world.create(ROOT_INODE, "f").unwrap();
    assert_eq!(opened.layout.unwrap().iods(), [IodId(2)]);
    let Ok(MgrResponse::StatFs(stat)) = world.call(MgrOperation::StatFs) else {
        panic!()
    };
    assert_eq!(
        (stat.space, stat.inodes_used, stat.now),
        (SPACE, 2, world.now())
    );
    assert!(stat.inodes_free > 0);
    world.restart();
    assert_eq!(
        beat(&mut world, 2),
        Err(FsError::Stale),
        "it must register anew"
    );
}
