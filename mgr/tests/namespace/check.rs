// SPDX-License-Identifier: MIT
//! What must hold of the records whatever happened: a small fsck.

use std::collections::{BTreeMap, BTreeSet};

use pvfs::attr::FileKind;
use pvfs::ids::{InodeNumber, ROOT_INODE};
use pvfs::layout::Layout;
use pvfs_mgr::namespace::dentry::{CookieEntry, Dentry};
use pvfs_mgr::namespace::inode::{Counters, Inode};
use pvfs_mgr::namespace::key::{self, Tag};
use pvfs_mgr::namespace::value;
use pvfs_mgr::store::View;

type Found = BTreeMap<Vec<u8>, Vec<u8>>;

fn all(view: &impl View, tag: Tag) -> Found {
    let prefix = key::all(tag);
    let mut found = Found::new();
    view.scan(
        &prefix,
        key::end_of_prefix(&prefix).as_deref(),
        &mut |key, value| {
            found.insert(key.to_vec(), value.to_vec());
            true
        },
    )
    .unwrap();
    if let Some(value) = view.get(&prefix).unwrap() {
        found.insert(prefix, value.to_vec());
    }
    found
}

/// Panics where the records contradict each other.
pub fn check(view: &impl View) {
    let inodes: BTreeMap<InodeNumber, Inode> = all(view, Tag::Inode)
        .iter()
        .map(|(key, bytes)| {
            (
                key::inode_of(key).unwrap(),
                value::decode(key, bytes).unwrap(),
            )
        })
        .collect();
    let mut names: BTreeMap<InodeNumber, u32> = BTreeMap::new();
    let mut entries: BTreeMap<InodeNumber, u64> = BTreeMap::new();
    let mut subdirectories: BTreeMap<InodeNumber, u32> = BTreeMap::new();
    let mut cookies = all(view, Tag::Cookie);
    for (key, bytes) in all(view, Tag::Dentry) {
        let parent = key::inode_of(&key).unwrap();
        let dentry: Dentry = value::decode(&key, &bytes).unwrap();
        let inode = &inodes[&dentry.inode];
        assert_eq!(inode.attr.kind, dentry.kind);
        *names.entry(dentry.inode).or_default() += 1;
        *entries.entry(parent).or_default() += 1;
        if let Some(directory) = inode.directory {
            assert_eq!(directory.parent, parent, "`..` of inode {}", dentry.inode);
            *subdirectories.entry(parent).or_default() += 1;
        }
        let cookie_key = key::cookie(parent, dentry.cookie);
        let entry = cookies
            .remove(&cookie_key)
            .expect("an entry under the cookie");
        let entry: CookieEntry = value::decode(&cookie_key, &entry).unwrap();
        assert_eq!(entry.inode, dentry.inode);
        assert_eq!(key::dentry(parent, &entry.name), key);
    }
    assert!(cookies.is_empty(), "entries without a name: {cookies:?}");
    let orphans: BTreeSet<InodeNumber> = all(view, Tag::Orphan)
        .keys()
        .map(|key| key::inode_of(key).unwrap())
        .collect();
    for (number, inode) in &inodes {
        let named = names.get(number).copied().unwrap_or_default();
        let is_root = *number == ROOT_INODE;
        assert_eq!(
            named == 0 && !is_root,
            orphans.contains(number),
            "inode {number}"
        );
        let expected = match inode.directory {
            Some(directory) => {
                assert_eq!(
                    directory.entries,
                    entries.remove(number).unwrap_or_default()
                );
                let below = subdirectories.get(number).copied().unwrap_or_default();
                if named == 1 || is_root { 2 + below } else { 0 }
            }
            None => named,
        };
        assert_eq!(inode.attr.nlink, expected, "links of inode {number}");
        let has_layout = view.get(&key::layout(*number)).unwrap().is_some();
        assert_eq!(has_layout, inode.attr.kind == FileKind::Regular);
        let has_target = view.get(&key::symlink(*number)).unwrap().is_some();
        assert_eq!(has_target, inode.attr.kind == FileKind::Symlink);
    }
    assert!(
        entries.is_empty(),
        "entries in what is no directory: {entries:?}"
    );
    for key in all(view, Tag::Xattr)
        .keys()
        .chain(all(view, Tag::Cut).keys())
        .chain(all(view, Tag::Intent).keys())
    {
        assert!(
            inodes.contains_key(&key::inode_of(key).unwrap()),
            "left behind: {key:?}"
        );
    }
    for (key, bytes) in all(view, Tag::Layout) {
        assert!(inodes.contains_key(&key::inode_of(&key).unwrap()));
        value::decode::<Layout>(&key, &bytes)
            .unwrap()
            .validate()
            .unwrap();
    }
    let key = key::counters();
    let counters: Counters = value::decode(&key, view.get(&key).unwrap().unwrap()).unwrap();
    assert_eq!(counters.inodes_used, inodes.len() as u64);
}
