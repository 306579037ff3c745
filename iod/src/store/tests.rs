// SPDX-License-Identifier: MIT
//! The store on a real directory.

use super::*;
use pvfs::ids::{ClientId, FileSystemId, InodeNumber, IodId};
use pvfs::layout::LayoutSlot;
use pvfs::proto::seal::{Reign, Seal};
use std::fs;

/// The object's stripes, at some place of a layout.
pub(crate) fn stripe(object: ObjectId) -> StripeRef {
    StripeRef {
        object,
        place: LayoutSlot {
            slot: 1,
            slots: 2,
            stripe_size: 64 << 10,
            layout_hash: 0x00c0_ffee,
        },
    }
}

fn object(inode: u64) -> ObjectId {
    ObjectId {
        inode: InodeNumber(inode),
        generation: 1,
    }
}

fn open(path: &Path) -> Store {
    if !path.join("identity").exists() {
        Store::create(path).unwrap();
    }
    Store::open(path, 16).unwrap()
}

fn content(store: &Store, object: ObjectId) -> Vec<u8> {
    let file = store.find(object).unwrap().unwrap();
    let mut bytes = vec![0; 1 << 16];
    let length = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(length);
    bytes
}

/// What a restored backup, or a person in a hurry, makes of a directory of objects.
#[test]
fn files_under_the_name_of_another_object_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for settled in [false, true] {
        let (one, other) = (object(256), object(512));
        let store = open(directory.path());
        for (object, bytes) in [(one, b"aaa"), (other, b"bbb")] {
            let file = store.find_or_create(stripe(object)).unwrap();
            file.write_at(bytes, 0).unwrap();
        }
        if settled {
            assert_eq!(store.settle(Duration::ZERO, &|| false), 0);
        }
        let sums = |object| {
            store
                .directory
                .object_path(object)
                .with_extension("00000001.sums")
        };
        let swap = |a: &Path, b: &Path| {
            fs::rename(a, a.with_extension("held")).unwrap();
            fs::rename(b, a).unwrap();
            fs::rename(a.with_extension("held"), b).unwrap();
        };
        swap(&store.path_of(one), &store.path_of(other));
        swap(&sums(one), &sums(other));
        drop(store);
        let store = open(directory.path());
        for (object, is_of) in [(one, other), (other, one)] {
            let error = store.find(object).err().unwrap();
            assert_eq!(Damage::of(&error), Some(Damage::Foreign { object: is_of }));
            assert!(store.find_or_create(stripe(object)).is_err());
            store.remove(object).unwrap();
        }
    }
}

#[test]
fn stripes_of_another_place_are_refused_also_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let here = stripe(object(1));
    let mut elsewhere = here;
    elsewhere.place.slot = 2;
    let file = store.find_or_create(here).unwrap();
    file.write_at(b"abc", 0).unwrap();
    drop((file, store));
    let store = open(directory.path());
    let misplaced = Some(Damage::Misplaced {
        stored: here.place,
        asked: elsewhere.place,
    });
    let refused = |outcome: io::Result<()>| outcome.err().and_then(|error| Damage::of(&error));
    store.admit(here).unwrap();
    assert_eq!(refused(store.admit(elsewhere)), misplaced);
    let created = store.find_or_create(elsewhere).map(drop);
    assert_eq!(refused(created), misplaced);
    assert_eq!(content(&store, here.object), b"abc");
}

#[test]
fn what_is_written_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    assert!(store.find(object(7)).unwrap().is_none());
    store
        .find_or_create(stripe(object(7)))
        .unwrap()
        .write_at(b"abc", 5)
        .unwrap();
    store.sync(object(7)).unwrap();
    drop(store);
    let store = open(directory.path());
    assert_eq!(content(&store, object(7)), b"\0\0\0\0\0abc");
    assert_eq!(store.stat(object(7)).unwrap().length, 8);
    assert_eq!(store.stat(object(8)).unwrap(), LocalStat::default());
}

/// The path that docs/ON_DISK.md states.
#[test]
fn an_object_has_its_documented_path() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let object = ObjectId {
        inode: InodeNumber(0x12ab),
        generation: 2,
    };
    store.find_or_create(stripe(object)).unwrap();
    let path = "objects/ab/00000000000012ab.00000002";
    assert!(directory.path().join(path).is_file());
    assert!(include_str!("../../../docs/ON_DISK.md").contains(path));
}

#[test]
fn truncating_cuts_and_never_extends() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.truncate(stripe(object(1)), 5).unwrap();
    assert!(
        store.find(object(1)).unwrap().is_none(),
        "truncating made a file"
    );
    store
        .find_or_create(stripe(object(1)))
        .unwrap()
        .write_at(b"abcdef", 0)
        .unwrap();
    for (length, left) in [(10, &b"abcdef"[..]), (6, b"abcdef"), (2, b"ab"), (0, b"")] {
        store.truncate(stripe(object(1)), length).unwrap();
        assert_eq!(content(&store, object(1)), left);
    }
}

#[test]
fn a_removed_object_is_gone_for_all_but_its_reader() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let reader = store.find_or_create(stripe(object(1))).unwrap();
    reader.write_at(b"abc", 0).unwrap();
    store.remove(object(1)).unwrap();
    store.remove(object(1)).unwrap();
    assert!(store.find(object(1)).unwrap().is_none());
    let mut bytes = [0; 3];
    assert_eq!(reader.read_at(&mut bytes, 0).unwrap(), 3);
    assert_eq!(&bytes, b"abc");
    store.sync(object(1)).unwrap();
}

#[test]
fn more_objects_than_open_files_all_keep_their_content() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let open_files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open_files();
    for inode in 0..300 {
        store
            .find_or_create(stripe(object(inode)))
            .unwrap()
            .write_at(&inode.to_le_bytes(), 0)
            .unwrap();
    }
    // Other tests of this process open files too, but not hundreds.
    assert!(open_files() < before + 200, "files are not closed");
    for inode in 0..300 {
        assert_eq!(content(&store, object(inode)), inode.to_le_bytes());
    }
}

/// Stripes are read through a mount, by those who may: not in the data directory.
#[test]
fn nobody_else_reads_the_files() {
    use std::os::unix::fs::MetadataExt;
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("data");
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let store = open(&path);
    store
        .find_or_create(stripe(object(7)))
        .unwrap()
        .write_at(b"x", PART_BYTES)
        .unwrap();
    nix::sys::stat::umask(before);
    let mut left = vec![path];
    while let Some(path) = left.pop() {
        let metadata = fs::metadata(&path).unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.mode() & 0o7777, expected, "{}", path.display());
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            left.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }
}

#[test]
fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    assert!(matches!(
        Store::open(directory.path(), 1),
        Err(OpenError::Locked(_))
    ));
    drop(store);
    open(directory.path());
}

#[test]
fn a_directory_with_other_things_in_it_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("lost+found")).unwrap();
    fs::write(directory.path().join("thesis.tex"), "").unwrap();
    let error = Store::create(directory.path()).unwrap_err().to_string();
    assert!(
        error.contains("thesis.tex") && error.contains("--data"),
        "{error}"
    );
    fs::remove_file(directory.path().join("thesis.tex")).unwrap();
    open(directory.path());
}

#[test]
fn an_interrupted_format_is_completed_and_the_identity_lasts() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("objects/00")).unwrap();
    fs::write(directory.path().join("identity.new"), "half a li").unwrap();
    let store = open(directory.path());
    let ClientId(client) = store.identity().client;
    let membership = Membership {
        iod: IodId(4),
        file_system: FileSystemId(9),
        seal: Seal {
            reign: Reign {
                era: 0,
                starts: 1,
                nonce: 2,
            },
            number: 3,
            secret: 4,
        },
    };
    store.join(membership).unwrap();
    let expected = Identity {
        client: ClientId(client),
        membership: Some(membership),
        open_at: store.identity().open_at,
    };
    assert!(expected.open_at.is_some());
    drop(store);
    assert_eq!(open(directory.path()).identity(), expected);
    fs::write(
        directory.path().join("identity"),
        "pvfs-iod data directory, format 6\n",
    )
    .unwrap();
    let error = Store::open(directory.path(), 1).err().unwrap().to_string();
    assert!(error.contains("another version"), "{error}");
}

/// What an iod stores after its directory was copied is missing in the copy.
#[test]
fn a_copy_of_a_directory_in_use_is_refused_and_one_of_a_closed_directory_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let to = directory.path().join(name);
        let status = std::process::Command::new("cp")
            .arg("-a")
            .args([&directory.path().join("data"), &to])
            .status();
        assert!(status.unwrap().success());
        to
    };
    let data = directory.path().join("data");
    let store = open(&data);
    let in_use = copy("in-use");
    drop(store);
    let killed = copy("killed");
    for bad in [&in_use, &killed] {
        let refused = Store::open(bad, 1).err().unwrap().to_string();
        assert!(refused.contains("is a copy of one"), "{refused}");
    }
    let moved = Store::open_moved(&killed, 1).unwrap();
    drop(moved);
    drop(open(&killed));
    let store = open(&data);
    store.close().unwrap();
    drop(store);
    let closed = copy("closed");
    drop(open(&closed));
    drop(open(&data));
}

#[test]
fn a_directory_without_its_objects_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (data, other) = (directory.path().join("a"), directory.path().join("b"));
    for path in [&data, &other] {
        open(path).close().unwrap();
    }
    let refused = |path: &Path| {
        let error = Store::open(path, 1).err().unwrap().to_string();
        assert!(error.contains("not those of its identity file"), "{error}");
    };
    fs::copy(data.join("identity"), other.join("identity")).unwrap();
    refused(&other);
    fs::remove_dir_all(data.join("objects")).unwrap();
    refused(&data);
    fs::create_dir(data.join("objects")).unwrap();
    refused(&data);
}

#[test]
fn the_report_is_the_disks() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let report = store.report().unwrap();
    let space = report.space;
    assert!(space.bytes_total >= space.bytes_free && space.bytes_free >= space.bytes_available);
    assert!(space.bytes_total > 0 && report.writable);
    assert!(report.inodes_total >= report.inodes_free);
    let same_disk = tempfile::tempdir().unwrap();
    let other = open(same_disk.path()).report().unwrap();
    assert!(report.disk.is_some());
    assert_eq!(other.disk, report.disk, "both lie on one disk");
}

#[test]
fn ranges_end_before_the_largest_file_does() {
    assert_eq!(end_of(1, 2), Ok(3));
    assert_eq!(end_of(i64::MAX as u64, 1), Err(FsError::FileTooLarge));
    assert_eq!(end_of(u64::MAX, 1), Err(FsError::FileTooLarge));
}
