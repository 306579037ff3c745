// SPDX-License-Identifier: MIT
//! The bytes that docs/ON_DISK.md shows are the bytes that are stored: a change here is a change of
//! the format.

use pvfs::attr::FileKind;
use pvfs::ids::{InodeNumber, ROOT_INODE};
use pvfs::layout::LayoutPolicy;
use pvfs::proto::mgr::{MgrOperation, XattrMode};
use pvfs_mgr::namespace::key::{self, Tag};
use pvfs_mgr::namespace::value::VALUE_VERSION;

use crate::world::{ALICE, BOTH, Memory, World, name};

/// A file system with one record of each kind.
fn sample() -> World {
    let mut world = World::new();
    let policy = LayoutPolicy {
        stripe_size: 256 << 10,
        pcount: 0,
        base: None,
    };
    world
        .call(MgrOperation::SetLayout {
            inode: ROOT_INODE,
            policy: Some(policy),
        })
        .unwrap();
    let d = world.mkdir(ROOT_INODE, "dir");
    let file = world.file_of(d, "file", 70_000);
    let target = b"dir/file".to_vec();
    let parent = ROOT_INODE;
    world
        .call(MgrOperation::Symlink {
            parent,
            name: name("link"),
            target,
        })
        .unwrap();
    let (xattr, value) = (b"user.colour".to_vec(), b"red".to_vec());
    let mode = XattrMode::Set;
    world
        .call(MgrOperation::SetXattr {
            inode: file,
            name: xattr,
            value,
            mode,
        })
        .unwrap();
    world.diligent = false;
    let operation = MgrOperation::Open {
        inode: file,
        access: BOTH,
        truncate: true,
    };
    world.send(ALICE, operation);
    let opened = world.create(d, "orphan").unwrap();
    assert_eq!(opened.attr.kind, FileKind::Regular);
    world.unlink(d, "orphan").unwrap();
    world.mkfile(d, "garbage");
    world.unlink(d, "garbage").unwrap();
    world
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn grid(world: &World) -> Vec<String> {
    let tags = [
        Tag::FileSystem,
        Tag::Counters,
        Tag::Inode,
        Tag::Dentry,
        Tag::Cookie,
        Tag::Layout,
        Tag::Symlink,
        Tag::Xattr,
        Tag::Orphan,
        Tag::Cut,
        Tag::Intent,
        Tag::Garbage,
        Tag::Iod,
        Tag::Reply,
    ];
    let last = |tag: Tag| {
        let prefix = key::all(tag);
        let records = world.store().records();
        let found = records.iter().rfind(|(key, _)| key.starts_with(&prefix));
        found.unwrap_or_else(|| panic!("no record {tag:?}"))
    };
    tags.into_iter()
        .map(last)
        .map(|(key, value)| format!("{}\n    -> {}", hex(key), hex(value)))
        .collect()
}

#[test]
fn the_document_shows_the_bytes() {
    // The document breaks long lines.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let document = words(include_str!("../../../docs/ON_DISK.md"));
    for line in grid(&sample()) {
        assert!(
            document.contains(&words(&line)),
            "docs/ON_DISK.md does not show:\n    {line}"
        );
    }
}

#[test]
fn every_record_is_of_a_known_kind_and_version() {
    let world = sample();
    for (key, value) in world.store().records() {
        assert!(b"FCIDKLSXOTWGVR".contains(&key[0]), "{key:?}");
        assert_eq!(value[0], VALUE_VERSION);
    }
    let sizes = [
        (key::inode(ROOT_INODE).len(), 9),
        (key::cookie(ROOT_INODE, 1).len(), 17),
        (
            key::garbage(pvfs::ids::ObjectId {
                inode: InodeNumber(1),
                generation: 1,
            })
            .len(),
            13,
        ),
        (key::iod(pvfs::ids::IodId(1)).len(), 5),
        (key::reply(ALICE, 1).len(), 17),
    ];
    for (size, expected) in sizes {
        assert_eq!(size, expected);
    }
    assert!(!Memory::new().store().records().is_empty());
}
