// SPDX-License-Identifier: MIT
//! chmod, chown, utimensat and what they do to set-user-ID and set-group-ID bits.

use pvfs::attr::{Credentials, FileKind, SetAttr, SetTime, Timestamp};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, ROOT_INODE};

use crate::world::{ALICE, WRITE, World, time, user};

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

#[test]
fn writing_drops_privilege_unless_root_writes() {
    for (who, expected) in [(user(8), 0o755), (Credentials::ROOT, 0o6755)] {
        let (mut world, file) = owned_by(7, 7, 0o6757);
        world.who = who.clone();
        let open = world.open(ALICE, file, WRITE, false).unwrap();
        // The world's mode bits are read anew: 0o6757 has execution for all.
        let (attr, before) = world.report(ALICE, file, open.open, 10).unwrap();
        assert_eq!(attr.mode & 0o7755, expected, "{who:?}");
        assert_eq!((attr.size, attr.change), (10, before + 1));
        assert_eq!((attr.mtime, attr.ctime), (world.now(), world.now()));
    }
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
