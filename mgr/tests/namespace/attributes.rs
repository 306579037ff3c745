// SPDX-License-Identifier: MIT
//! chmod, chown, utimensat and what they do to set-user-ID and set-group-ID bits.

use pvfs::attr::{Credentials, FileKind, SetAttr, SetTime, Timestamp};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, OpenId, ROOT_INODE};
use pvfs::limits::CAPABILITY_XATTR;
use pvfs::proto::mgr::{MgrOperation, MgrResponse, XattrMode};

use crate::world::{ALICE, READ, WRITE, World, time, user};

const NOW: Option<SetTime> = Some(SetTime::Now);

fn owned_by(uid: u32, gid: u32, mode: u16) -> (World, InodeNumber) {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    world.chown(file, uid, gid);
    world.chmod(file, mode);
    world.ms += 5;
    (world, file)
}

fn chmod(mode: u16) -> SetAttr {
    SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    }
}

fn chown(uid: Option<u32>, gid: Option<u32>) -> SetAttr {
    SetAttr {
        uid,
        gid,
        ..SetAttr::default()
    }
}

fn times(atime: Option<SetTime>, mtime: Option<SetTime>) -> SetAttr {
    SetAttr {
        atime,
        mtime,
        ..SetAttr::default()
    }
}

#[test]
fn who_may_chmod() {
    for (who, expected) in [
        (Credentials::ROOT, Ok(0o4711)),
        (user(7), Ok(0o4711)),
        (user(8), Err(FsError::NotPermitted)),
    ] {
        let (mut world, file) = owned_by(7, 7, 0o666);
        world.who = who;
        let changed = world.set(file, chmod(0o4711));
        assert_eq!(changed.map(|attr| attr.mode), expected);
        if let Ok(attr) = changed {
            assert_eq!(attr.ctime, world.now());
            assert!(attr.mtime < world.now());
        }
    }
    // Whoever is not in the file's group cannot make it a set-group-ID program of that group.
    let (mut world, file) = owned_by(7, 50, 0o755);
    world.who = user(7);
    assert_eq!(
        world.set(file, chmod(0o2755)).map(|attr| attr.mode),
        Ok(0o755)
    );
    world.who.groups = vec![50];
    assert_eq!(
        world.set(file, chmod(0o2755)).map(|attr| attr.mode),
        Ok(0o2755)
    );
}

#[test]
fn who_may_chown() {
    let no = Err(FsError::NotPermitted);
    let member = Credentials {
        groups: vec![50],
        ..user(7)
    };
    for (who, set, expected) in [
        (Credentials::ROOT, chown(Some(9), Some(9)), Ok((9, 9))),
        (user(7), chown(Some(9), None), no),
        (user(7), chown(Some(7), None), Ok((7, 7))),
        (user(7), chown(None, Some(50)), no),
        (member.clone(), chown(None, Some(50)), Ok((7, 50))),
        (member.clone(), chown(Some(7), Some(50)), Ok((7, 50))),
        (member, chown(Some(8), Some(50)), no),
        (user(8), chown(None, Some(8)), no),
        (user(8), chown(Some(7), Some(7)), no),
    ] {
        let (mut world, file) = owned_by(7, 7, 0o644);
        world.who = who.clone();
        let changed = world.set(file, set).map(|attr| (attr.uid, attr.gid));
        assert_eq!(changed, expected, "{who:?} {set:?}");
    }
}

#[test]
fn chown_drops_privilege_of_files() {
    for who in [Credentials::ROOT, user(7)] {
        let (mut world, file) = owned_by(7, 7, 0o6755);
        world.who = who;
        assert_eq!(
            world.set(file, chown(None, Some(7))).map(|attr| attr.mode),
            Ok(0o755)
        );
    }
    let (mut world, _) = owned_by(7, 7, 0o644);
    let directory = world
        .make(ROOT_INODE, "d", FileKind::Directory, 0o2755)
        .unwrap();
    let changed = world.set(directory.inode, chown(Some(3), Some(3)));
    assert_eq!(changed.map(|attr| attr.mode), Ok(0o2755));
}

#[test]
fn who_may_set_times() {
    let past = Some(SetTime::To(time(7)));
    for (who, mode, set, expected) in [
        (Credentials::ROOT, 0o000, times(past, past), Ok(())),
        (user(7), 0o000, times(past, None), Ok(())),
        (user(7), 0o000, times(NOW, NOW), Ok(())),
        (user(8), 0o666, times(past, NOW), Err(FsError::NotPermitted)),
        (user(8), 0o666, times(NOW, NOW), Ok(())),
        (user(8), 0o644, times(NOW, NOW), Err(FsError::AccessDenied)),
    ] {
        let (mut world, file) = owned_by(7, 7, mode);
        world.who = who.clone();
        let changed = world.set(file, set);
        assert_eq!(changed.map(drop), expected, "{who:?} {mode:o} {set:?}");
    }
    let (mut world, file) = owned_by(7, 7, 0o644);
    let attr = world.set(file, times(past, NOW)).unwrap();
    assert_eq!((attr.atime, attr.mtime), (time(7), world.now()));
    let nonsense = Some(SetTime::To(Timestamp {
        seconds: 1,
        nanoseconds: 1_000_000_000,
    }));
    assert_eq!(
        world.set(file, times(None, nonsense)),
        Err(FsError::InvalidArgument)
    );
}

/// A program of user 7 that others may change, with all privileges that there are.
fn privileged() -> (World, InodeNumber) {
    let (mut world, file) = owned_by(7, 7, 0o6757);
    set_capability(&mut world, file).unwrap();
    world.ms += 5;
    (world, file)
}

fn set_capability(world: &mut World, inode: InodeNumber) -> Result<(), FsError> {
    let operation = MgrOperation::SetXattr {
        inode,
        name: CAPABILITY_XATTR.to_vec(),
        value: vec![1, 2, 3],
        mode: XattrMode::Set,
    };
    world.call(operation).map(drop)
}

fn capability(world: &mut World, inode: InodeNumber) -> Result<MgrResponse, FsError> {
    let name = CAPABILITY_XATTR.to_vec();
    world.call(MgrOperation::GetXattr { inode, name })
}

#[test]
fn what_is_dropped_before_a_write_is_gone_and_a_report_drops_nothing() {
    for mode_bits in [false, true] {
        let (mut world, file) = privileged();
        let attr = world.stat(file).unwrap();
        assert!(attr.has_capability && capability(&mut world, file).is_ok());
        world.who = user(8);
        let open = world.open(ALICE, file, WRITE, false).unwrap().open;
        let dropped = world.drop_privileges(ALICE, file, open, mode_bits).unwrap();
        let mode = if mode_bits { 0o757 } else { 0o6757 };
        assert_eq!((dropped.mode, dropped.has_capability), (mode, false));
        assert_eq!((dropped.ctime, dropped.mtime), (world.now(), attr.mtime));
        assert_eq!((dropped.size, dropped.change), (attr.size, attr.change));
        let gone = capability(&mut world, file);
        assert_eq!(gone, Err(FsError::NoAttribute));
        world.ms += 5;
        let again = world.drop_privileges(ALICE, file, open, mode_bits);
        assert_eq!(again, Ok(dropped), "nothing is left that could change");
        // What is given later stays: it is for the bytes that a report tells of.
        world.who = Credentials::ROOT;
        world.chmod(file, 0o6757);
        set_capability(&mut world, file).unwrap();
        world.who = user(8);
        let (attr, before) = world.report(ALICE, file, open, 10).unwrap();
        assert_eq!((attr.mode, attr.has_capability), (0o6757, true));
        assert_eq!((attr.size, attr.change), (10, before + 1));
        assert_eq!((attr.mtime, attr.ctime), (world.now(), world.now()));
    }
}

#[test]
fn privileges_are_dropped_for_whoever_may_write_alone() {
    let (mut world, file) = privileged();
    let read = world.open(ALICE, file, READ, false).unwrap().open;
    let refused = world.drop_privileges(ALICE, file, read, true);
    assert_eq!(refused, Err(FsError::AccessDenied));
    let refused = world.drop_privileges(ALICE, file, OpenId(12_345), true);
    assert_eq!(refused, Err(FsError::Stale));
    assert!(world.stat(file).unwrap().has_capability);
}

#[test]
fn truncations_and_chown_drop_privileges() {
    let size = |size| SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    for (who, mode) in [(user(8), 0o757), (Credentials::ROOT, 0o6757)] {
        for set in [size(0), size(10)] {
            let (mut world, file) = privileged();
            world.who = who.clone();
            let attr = world.set(file, set).unwrap();
            assert_eq!((attr.mode, attr.has_capability), (mode, false), "{who:?}");
            let gone = capability(&mut world, file);
            assert_eq!(gone, Err(FsError::NoAttribute));
        }
        let (mut world, file) = privileged();
        world.who = who;
        let attr = world.open(ALICE, file, WRITE, true).unwrap().attr;
        assert_eq!((attr.mode, attr.has_capability), (mode, false));
    }
    for (who, set) in [
        (user(7), chown(None, Some(7))),
        (Credentials::ROOT, chown(Some(9), None)),
    ] {
        let (mut world, file) = privileged();
        world.who = who;
        let attr = world.set(file, set).unwrap();
        assert_eq!((attr.mode, attr.has_capability), (0o757, false));
        let gone = capability(&mut world, file);
        assert_eq!(gone, Err(FsError::NoAttribute));
    }
}

#[test]
fn set_group_id_without_execution_stays_for_members_alone() {
    let mut member = user(8);
    member.groups = vec![7];
    for (who, mode) in [
        (user(8), 0o666),
        (member, 0o2666),
        (Credentials::ROOT, 0o2666),
    ] {
        let (mut world, file) = owned_by(7, 7, 0o2666);
        world.who = who;
        let open = world.open(ALICE, file, WRITE, false).unwrap().open;
        let dropped = world.drop_privileges(ALICE, file, open, true);
        assert_eq!(dropped.map(|attr| attr.mode), Ok(mode));
    }
}

#[test]
fn a_capability_is_marked_as_long_as_it_is_there() {
    let (mut world, file) = privileged();
    let name = CAPABILITY_XATTR.to_vec();
    let remove = MgrOperation::RemoveXattr { inode: file, name };
    world.call(remove).unwrap();
    assert!(!world.stat(file).unwrap().has_capability);
    world.who = user(7);
    let refused = set_capability(&mut world, file);
    assert_eq!(refused, Err(FsError::NotPermitted));
    assert!(!world.stat(file).unwrap().has_capability);
}

#[test]
fn no_change_at_all_is_anybodys() {
    let (mut world, file) = owned_by(7, 7, 0o600);
    let before = world.stat(file).unwrap();
    world.who = user(8);
    assert_eq!(world.set(file, SetAttr::default()), Ok(before));
    assert_eq!(world.stat(file), Ok(before));
}

#[test]
fn a_refused_change_changes_nothing() {
    let (mut world, file) = owned_by(7, 7, 0o644);
    let before = world.stat(file);
    world.who = user(7);
    let both = SetAttr {
        mode: Some(0o600),
        uid: Some(9),
        ..SetAttr::default()
    };
    assert_eq!(world.set(file, both), Err(FsError::NotPermitted));
    assert_eq!(world.stat(file), before);
}
