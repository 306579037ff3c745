// SPDX-License-Identifier: MIT
//! The store on disk: what is committed is there after a crash, a full one refuses cleanly, and
//! nobody opens it twice.

use std::path::Path;

use pvfs::error::FsError;
use pvfs::ids::ROOT_INODE;
use pvfs::proto::check::{Finding, Section};
use pvfs::proto::mgr::{MgrOperation, MgrResponse, XattrMode};
use pvfs_mgr::namespace::key::{self, Tag};
use pvfs_mgr::store::lmdb::{LmdbStore, METADATA_BYTES_MIN, OpenError};
use pvfs_mgr::store::memory::MemoryStore;
use pvfs_mgr::store::{Records, Store, StoreError, View};
use tempfile::TempDir;

use crate::check::check;
use crate::world::{FILE_SYSTEM, World, name, time};

fn open(directory: &Path) -> LmdbStore {
    if !directory.join("data.mdb").exists() {
        LmdbStore::create(directory).unwrap();
    }
    LmdbStore::open(directory, METADATA_BYTES_MIN).unwrap()
}

fn dump(view: &impl View) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    // LMDB has no empty key.
    view.scan(b"\0", None, &mut |key, value| {
        all.push((key.to_vec(), value.to_vec()));
        true
    })
    .unwrap();
    all
}

/// The same batch of changes for both stores: some keys are new, some change, some go.
fn batch(round: u64) -> Records {
    let mut records = Records::new();
    for n in 0..40u64 {
        let key = format!("key{}", (n * 7 + round * 13) % 100).into_bytes();
        let length = usize::try_from((n * round) % 9000).unwrap();
        let value = (n % 4 != 0).then(|| vec![u8::try_from(round % 251).unwrap(); length]);
        records.insert(key, value);
    }
    records
}

#[test]
fn the_disk_holds_what_memory_would_after_every_crash() {
    let directory = TempDir::new().unwrap();
    let mut memory = MemoryStore::default();
    let mut disk = open(directory.path());
    for round in 0..30 {
        memory.commit(&batch(round)).unwrap();
        disk.commit(&batch(round)).unwrap();
        // What a kill -9 leaves behind is the files as they are now.
        let crashed = TempDir::new().unwrap();
        std::fs::copy(
            directory.path().join("data.mdb"),
            crashed.path().join("data.mdb"),
        )
        .unwrap();
        let reopened = open(crashed.path());
        assert_eq!(
            dump(&reopened.view().unwrap()),
            dump(&memory.view().unwrap())
        );
    }
    assert_eq!(dump(&disk.view().unwrap()), dump(&memory.view().unwrap()));
}

#[test]
fn scans_are_alike() {
    let directory = TempDir::new().unwrap();
    let mut memory = MemoryStore::default();
    let mut disk = open(directory.path());
    memory.commit(&batch(1)).unwrap();
    disk.commit(&batch(1)).unwrap();
    let range = |view: &dyn View, after: &[u8], before: Option<&[u8]>, max: usize| {
        let mut keys = Vec::new();
        view.scan(after, before, &mut |key, _| {
            keys.push(key.to_vec());
            keys.len() < max
        })
        .unwrap();
        keys
    };
    let (memory, disk) = (memory.view().unwrap(), disk.view().unwrap());
    for (after, before, max) in [
        (&b"key3"[..], Some(&b"key7"[..]), 99),
        (b"key3", None, 2),
        (b"key7", Some(b"key3"), 99),
        (b"key3", Some(b"key3"), 99),
        (b"zzz", None, 99),
    ] {
        let (a, b) = (
            range(&memory, after, before, max),
            range(&disk, after, before, max),
        );
        assert_eq!(a, b);
    }
}

#[test]
fn a_directory_has_one_owner() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let second = LmdbStore::open(directory.path(), METADATA_BYTES_MIN);
    assert!(matches!(second, Err(OpenError::InUse(_))));
    drop(store);
    drop(open(directory.path()));
}

#[test]
fn a_file_system_on_disk_survives() {
    let directory = TempDir::new().unwrap();
    let mut world = World::over(open(directory.path())).with_iods(3);
    let d = world.mkdir(ROOT_INODE, "d");
    for n in 0..50 {
        world.mkfile(d, &format!("f{n}"));
    }
    world.unlink(d, "f7").unwrap();
    let before = world.list(d);
    drop(world.take_store());
    world.restart_over(open(directory.path()));
    assert_eq!(world.list(d), before);
    assert_eq!(before.len(), 49);
    check(&world.store().view().unwrap());
    world.tick(2000);
    check(&world.store().view().unwrap());
}

#[test]
fn a_damaged_record_is_an_error_and_the_rest_is_served() {
    let directory = TempDir::new().unwrap();
    let mut world = World::over(open(directory.path())).with_iods(1);
    let files: Vec<_> = (0..5)
        .map(|n| world.mkfile(ROOT_INODE, &format!("f{n}")))
        .collect();
    drop(world.take_store());
    // The first byte behind each copy of the key: old ones are on pages that are free.
    let data = directory.path().join("data.mdb");
    let mut content = std::fs::read(&data).unwrap();
    let bad = key::inode(files[2]);
    let places: Vec<_> = (0..content.len() - bad.len())
        .filter(|at| content[*at..].starts_with(&bad))
        .collect();
    for at in places {
        content[at + bad.len()] ^= 4;
    }
    std::fs::write(&data, content).unwrap();
    world.restart_over(open(directory.path()));
    for (n, file) in files.iter().enumerate() {
        let expected = match n {
            2 => Err(FsError::Io),
            _ => Ok(*file),
        };
        let found = world.lookup(ROOT_INODE, &format!("f{n}"));
        assert_eq!(found.map(|attr| attr.inode), expected);
    }
    assert_eq!(world.unlink(ROOT_INODE, "f2"), Err(FsError::Io));
    world.unlink(ROOT_INODE, "f3").unwrap();
    // What looks at all records tells of this one, and sees those behind it.
    let inspect = MgrOperation::Inspect {
        section: Section::Inodes,
        after: Vec::new(),
    };
    let Ok(MgrResponse::Page(page)) = world.call(inspect) else {
        panic!("no page")
    };
    assert_eq!(page.findings, [Finding::Unreadable { key: bad.clone() }]);
    assert_eq!(page.next, Some(bad.clone()));
    let inspect = MgrOperation::Inspect {
        section: Section::Inodes,
        after: bad,
    };
    let Ok(MgrResponse::Page(page)) = world.call(inspect) else {
        panic!("no page")
    };
    assert!(page.records > 0 && page.findings.is_empty() && page.next.is_none());
}

/// A name whose inode is gone is not a name that is not there.
#[test]
fn a_missing_record_is_an_error() {
    let mut world = World::new().with_iods(1);
    let file = world.mkfile(ROOT_INODE, "file");
    let other = world.mkfile(ROOT_INODE, "other");
    let mut store = world.take_store();
    let gone = [key::inode(file), key::layout(other)];
    store
        .commit(&gone.into_iter().map(|key| (key, None)).collect())
        .unwrap();
    world.restart_over(store);
    assert_eq!(world.lookup(ROOT_INODE, "file").map(drop), Err(FsError::Io));
    assert_eq!(world.unlink(ROOT_INODE, "file"), Err(FsError::Io));
    assert_eq!(
        world.lookup(ROOT_INODE, "other").map(|attr| attr.inode),
        Ok(other)
    );
    let layout = MgrOperation::GetLayout { inode: other };
    assert_eq!(world.call(layout), Err(FsError::Io));
    let mut store = world.take_store();
    let counters = Records::from([(key::counters(), None)]);
    store.commit(&counters).unwrap();
    let started = pvfs_mgr::namespace::format::start(&mut store, FILE_SYSTEM, false, time(1));
    assert!(matches!(started, Err(StoreError::Missing { key }) if key == key::counters()));
}

#[test]
fn a_full_store_still_reads_and_removes() {
    let directory = TempDir::new().unwrap();
    let mut world = World::over(open(directory.path())).with_iods(1);
    let fill = |world: &mut World<LmdbStore>, n: u32| {
        let set = MgrOperation::SetXattr {
            inode: ROOT_INODE,
            name: format!("user.{n}").into_bytes(),
            value: vec![7; 60_000],
            mode: XattrMode::Set,
        };
        world.call(set)
    };
    world.mkfile(ROOT_INODE, "f");
    let mut filled = 0;
    let full = loop {
        match fill(&mut world, filled) {
            Ok(_) => filled += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full, FsError::NoSpace);
    assert!(filled > 200, "{filled}");
    let created = world.make(ROOT_INODE, "g", pvfs::attr::FileKind::Directory, 0o755);
    assert_eq!(created, Err(FsError::NoSpace));
    let Ok(MgrResponse::StatFs(stat)) = world.call(MgrOperation::StatFs) else {
        panic!()
    };
    assert_eq!(stat.inodes_free, 0);
    world.unlink(ROOT_INODE, "f").unwrap();
    assert_eq!(world.lookup(ROOT_INODE, "f"), Err(FsError::NotFound));
    for n in 0..filled {
        let name = format!("user.{n}").into_bytes();
        world
            .call(MgrOperation::RemoveXattr {
                inode: ROOT_INODE,
                name,
            })
            .unwrap();
    }
    let made = world.call(MgrOperation::Symlink {
        parent: ROOT_INODE,
        name: name("l"),
        target: b"x".to_vec(),
    });
    assert!(made.is_ok(), "there is room again");
}

#[test]
fn a_store_of_a_later_version_is_refused() {
    use pvfs_mgr::owner::{Config, Manager};
    use pvfs_mgr::store::StoreError;
    let mut store = MemoryStore::default();
    let records = [(key::all(Tag::FileSystem), Some(vec![3, 0, 0]))]
        .into_iter()
        .collect();
    store.commit(&records).unwrap();
    let config = Config {
        session_timeout_ms: 1000,
        lease_timeout_ms: 500,
        linger_ms: 0,
        generation: 1,
        file_system: crate::world::FILE_SYSTEM,
        new_era: false,
        draw: || 5,
    };
    let started = Manager::<_, u32>::start(store, config, crate::world::time(0));
    let Err(error) = started else { panic!() };
    assert!(matches!(error, StoreError::Version { version: 3, .. }));
    assert!(error.to_string().contains("run the version that wrote it"));
}
