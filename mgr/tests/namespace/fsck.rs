// SPDX-License-Identifier: MIT
//! fsck's part at mgr: each kind of damage, done to the records on purpose, is found, told, repaired,
//! and then gone. What is found by counting is counted here by hand.

use pvfs::attr::{Credentials, FileKind};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, IodId, ObjectId, ROOT_INODE};
use pvfs::layout::LayoutSlot;
use pvfs::limits::CAPABILITY_XATTR;
use pvfs::proto::check::{Counted, Finding, Section, Seen, StrayPart, Verdict};
use pvfs::proto::mgr::{MgrOperation, MgrResponse};
use pvfs_mgr::namespace::dentry::{CookieEntry, Dentry};
use pvfs_mgr::namespace::inode::{Counters, Garbage, Inode};
use pvfs_mgr::namespace::{key, value};
use pvfs_mgr::owner::work::Order;
use pvfs_mgr::store::{Records, Store};

use crate::check::check;
use crate::world::{ALICE, BOTH, Memory, World, name, user};

/// A tree with something of everything.
struct Tree {
    world: Memory,
    directory: InodeNumber,
    file: InodeNumber,
    link: InodeNumber,
}

const FILE_BYTES: u64 = 3 << 20;

fn tree() -> Tree {
    let mut world = World::new();
    let directory = world.mkdir(ROOT_INODE, "directory");
    let file = world.file_of(directory, "file", FILE_BYTES);
    world.link(file, ROOT_INODE, "other name").unwrap();
    let symlink = MgrOperation::Symlink {
        parent: directory,
        name: name("link"),
        target: b"file".to_vec(),
    };
    let link = match world.call(symlink) {
        Ok(MgrResponse::Attr(attr)) => attr.inode,
        other => panic!("{other:?}"),
    };
    world.mkdir(directory, "below");
    world.ms += 1;
    Tree {
        world,
        directory,
        file,
        link,
    }
}

/// What mgr shows of all sections.
fn inspect(world: &mut Memory) -> (Vec<Seen>, Vec<Finding>) {
    let (mut seen, mut findings) = (Vec::new(), Vec::new());
    for section in Section::ALL {
        let mut after = Vec::new();
        loop {
            match world.call(MgrOperation::Inspect { section, after }) {
                Ok(MgrResponse::Page(page)) => {
                    seen.extend(page.seen);
                    findings.extend(page.findings);
                    match page.next {
                        Some(next) => after = next,
                        None => break,
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    (seen, findings)
}

fn read<T: bincode::Decode<()>>(world: &Memory, key: &[u8]) -> T {
    let store = world.store();
    let bytes = store.records().get(key).expect("a record");
    value::decode(key, bytes).unwrap()
}

fn store(world: &mut Memory, records: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>) {
    let records: Records = records.into_iter().collect();
    world.manager().store_mut().commit(&records).unwrap();
}

fn verdict(world: &mut Memory, operation: MgrOperation) -> Verdict {
    match world.call(operation) {
        Ok(MgrResponse::Verdict(verdict)) => verdict,
        other => panic!("{other:?}"),
    }
}

/// Examining changes nothing; a repair makes it be gone.
fn examine_and_repair(world: &mut Memory, finding: &Finding) {
    let before = world.store().records().clone();
    let examine = MgrOperation::Examine(finding.clone());
    assert_eq!(
        verdict(world, examine.clone()),
        Verdict::Repairable,
        "{finding:?}"
    );
    assert_eq!(*world.store().records(), before, "{finding:?}");
    let repair = MgrOperation::Repair(finding.clone());
    assert_eq!(verdict(world, repair), Verdict::Repairable, "{finding:?}");
    assert_eq!(verdict(world, examine), Verdict::Gone, "{finding:?}");
}

#[test]
fn a_sound_file_system_has_nothing_to_find() {
    let mut tree = tree();
    let (seen, findings) = inspect(&mut tree.world);
    assert_eq!(findings, []);
    let inodes = seen
        .iter()
        .filter(|seen| matches!(seen, Seen::Inode { .. }));
    assert_eq!(inodes.count(), 5);
    let names = seen
        .iter()
        .filter(|seen| matches!(seen, Seen::Dentry { .. }));
    assert_eq!(names.count(), 5);
    assert!(seen.iter().any(|seen| matches!(
        seen,
        Seen::File { object, size: FILE_BYTES, filled: FILE_BYTES, .. } if object.inode == tree.file
    )));
    check(&tree.world.store());
}

#[test]
fn only_root_may_check() {
    let mut tree = tree();
    tree.world.who = user(1000);
    let finding = Finding::NoLayout { inode: tree.file };
    let backup = MgrOperation::Backup { copy: 1, offset: 0 };
    for operation in [
        MgrOperation::Inspect {
            section: Section::Inodes,
            after: Vec::new(),
        },
        MgrOperation::FindStray {
            iod: IodId(1),
            objects: Vec::new(),
        },
        MgrOperation::Examine(finding.clone()),
        MgrOperation::Repair(finding),
        backup.clone(),
    ] {
        assert_eq!(tree.world.call(operation), Err(FsError::NotPermitted));
    }
    tree.world.who = Credentials::ROOT;
    // The rim makes the copies.
    assert_eq!(tree.world.call(backup), Err(FsError::NotSupported));
    let wrong = MgrOperation::Inspect {
        section: Section::Inodes,
        after: key::counters(),
    };
    assert_eq!(tree.world.call(wrong), Err(FsError::InvalidArgument));
}

/// A kind of damage and whether a finding is the one that it must give.
type Damage = (&'static str, fn(&mut Tree), fn(&Tree, &Finding) -> bool);

fn directory_file_key(tree: &Tree) -> Vec<u8> {
    key::dentry(tree.directory, &name("file"))
}

const LOCAL_DAMAGE: &[Damage] = &[
    (
        "a name without an inode",
        |tree| {
            let gone = InodeNumber(999);
            let dentry = Dentry {
                inode: gone,
                kind: FileKind::Regular,
                cookie: 50,
            };
            let place = CookieEntry {
                name: name("gone"),
                inode: gone,
                kind: FileKind::Regular,
            };
            let mut parent: Inode = read(&tree.world, &key::inode(tree.directory));
            let directory = parent.directory.as_mut().unwrap();
            directory.entries += 1;
            directory.cookie_next = 51;
            let records = [
                (
                    key::dentry(tree.directory, &name("gone")),
                    Some(value::encode(&dentry).unwrap()),
                ),
                (
                    key::cookie(tree.directory, 50),
                    Some(value::encode(&place).unwrap()),
                ),
                (
                    key::inode(tree.directory),
                    Some(value::encode(&parent).unwrap()),
                ),
            ];
            store(&mut tree.world, records);
        },
        |tree, finding| matches!(finding, Finding::DanglingName { directory, .. } if *directory == tree.directory),
    ),
    (
        "a name in what is no directory",
        |tree| {
            let dentry = Dentry {
                inode: tree.link,
                kind: FileKind::Symlink,
                cookie: 1,
            };
            let key = key::dentry(tree.file, &name("strange"));
            let records = [(key, Some(value::encode(&dentry).unwrap()))];
            store(&mut tree.world, records);
        },
        |tree, finding| {
            matches!(
                finding,
                Finding::NameWithoutDirectory { directory, .. } if *directory == tree.file
            )
        },
    ),
    (
        "a name of the wrong kind",
        |tree| {
            let key = directory_file_key(tree);
            let mut dentry: Dentry = read(&tree.world, &key);
            dentry.kind = FileKind::Fifo;
            let records = [(key, Some(value::encode(&dentry).unwrap()))];
            store(&mut tree.world, records);
        },
        |_, finding| matches!(finding, Finding::WrongKind { .. }),
    ),
    (
        "a name without a place",
        |tree| {
            let dentry: Dentry = read(&tree.world, &directory_file_key(tree));
            let place = key::cookie(tree.directory, dentry.cookie);
            store(&mut tree.world, [(place, None)]);
        },
        |_, finding| matches!(finding, Finding::NoPlace { .. }),
    ),
    (
        "a place without a name",
        |tree| {
            let place = CookieEntry {
                name: name("nobody"),
                inode: tree.file,
                kind: FileKind::Regular,
            };
            let key = key::cookie(tree.directory, 77);
            let records = [(key, Some(value::encode(&place).unwrap()))];
            store(&mut tree.world, records);
        },
        |_, finding| matches!(finding, Finding::StrayPlace { cookie: 77, .. }),
    ),
    (
        "a directory that is elsewhere",
        |tree| {
            let mut found: Inode = read(&tree.world, &key::inode(tree.directory));
            found.directory.as_mut().unwrap().parent = tree.directory;
            let key = key::inode(tree.directory);
            let records = [(key, Some(value::encode(&found).unwrap()))];
            store(&mut tree.world, records);
        },
        |tree, finding| matches!(finding, Finding::WrongParent { inode, .. } if *inode == tree.directory),
    ),
    (
        "an attribute of nobody",
        |tree| {
            let key = key::xattr(InodeNumber(999), b"user.x");
            let records = [(key, Some(value::encode(&b"y".to_vec()).unwrap()))];
            store(&mut tree.world, records);
        },
        |_, finding| matches!(finding, Finding::StrayRecord { .. }),
    ),
    (
        "a layout of a link",
        |tree| {
            let (from, to) = (key::layout(tree.file), key::layout(tree.link));
            let bytes = tree.world.store().records().get(&from).cloned();
            store(&mut tree.world, [(to, bytes)]);
        },
        |_, finding| matches!(finding, Finding::StrayRecord { .. }),
    ),
    (
        "a target of a file",
        |tree| {
            let key = key::symlink(tree.file);
            let records = [(key, Some(value::encode(&b"y".to_vec()).unwrap()))];
            store(&mut tree.world, records);
        },
        |_, finding| matches!(finding, Finding::StrayRecord { .. }),
    ),
    (
        "an orphan with a name",
        |tree| {
            let key = key::orphan(tree.file);
            let records = [(key, Some(value::encode(&()).unwrap()))];
            store(&mut tree.world, records);
        },
        |_, finding| matches!(finding, Finding::StrayRecord { .. }),
    ),
    (
        "garbage that lives",
        |tree| {
            let found: Inode = read(&tree.world, &key::inode(tree.file));
            let garbage = Garbage {
                // One that is away holds it up.
                iods: vec![IodId(1), IodId(44)],
            };
            let key = key::garbage(found.attr.object());
            let records = [(key, Some(value::encode(&garbage).unwrap()))];
            store(&mut tree.world, records);
        },
        |tree, finding| matches!(finding, Finding::LiveGarbage { object } if object.inode == tree.file),
    ),
    (
        "a missing mark of a list",
        |tree| {
            let mut found: Inode = read(&tree.world, &key::inode(tree.file));
            found.attr.has_acl = true;
            let key = key::inode(tree.file);
            let records = [(key, Some(value::encode(&found).unwrap()))];
            store(&mut tree.world, records);
        },
        |tree, finding| matches!(finding, Finding::WrongXattrMark { inode } if *inode == tree.file),
    ),
    (
        "a missing mark of a capability",
        |tree| {
            let key = key::xattr(tree.file, CAPABILITY_XATTR);
            let value = value::encode(&b"\x01".to_vec()).unwrap();
            store(&mut tree.world, [(key, Some(value))]);
        },
        |tree, finding| matches!(finding, Finding::WrongXattrMark { inode } if *inode == tree.file),
    ),
];

#[test]
fn damage_between_neighbours_is_found_and_repaired() {
    for (what, damage, is_it) in LOCAL_DAMAGE {
        let mut tree = tree();
        damage(&mut tree);
        let (_, findings) = inspect(&mut tree.world);
        assert!(!findings.is_empty(), "{what}");
        assert!(
            findings.iter().any(|finding| is_it(&tree, finding)),
            "{what}: {findings:?}"
        );
        for finding in &findings {
            // One repair may mend what another finding is about.
            let examine = MgrOperation::Examine(finding.clone());
            if verdict(&mut tree.world, examine) != Verdict::Gone {
                examine_and_repair(&mut tree.world, finding);
            }
        }
        let (_, findings) = inspect(&mut tree.world);
        assert_eq!(findings, [], "{what}");
        check(&tree.world.store());
    }
}

#[test]
fn what_is_lost_is_told() {
    let mut tree = tree();
    let mut other = tree.world.file_of(ROOT_INODE, "unknown iod", 5);
    std::mem::swap(&mut other, &mut tree.file);
    let layout = pvfs::layout::Layout::new(65536, 0, vec![IodId(1), IodId(9)]).unwrap();
    let records = [
        (key::layout(other), None),
        (key::symlink(tree.link), None),
        (
            key::layout(tree.file),
            Some(value::encode(&layout).unwrap()),
        ),
        (key::xattr(other, b"user.bad"), Some(vec![2, 255, 255])),
    ];
    store(&mut tree.world, records);
    let (_, findings) = inspect(&mut tree.world);
    let bad = key::xattr(other, b"user.bad");
    for expected in [
        Finding::NoLayout { inode: other },
        Finding::NoTarget { inode: tree.link },
        Finding::UnknownIod {
            inode: tree.file,
            iod: IodId(9),
        },
        Finding::Unreadable { key: bad },
    ] {
        assert!(findings.contains(&expected), "{expected:?} in {findings:?}");
        let repair = MgrOperation::Repair(expected.clone());
        assert_eq!(verdict(&mut tree.world, repair), Verdict::Lost);
    }
    assert_eq!(findings.len(), 4);
}

#[test]
fn counts_are_set_where_nothing_has_changed_since() {
    let mut tree = tree();
    let mut found: Inode = read(&tree.world, &key::inode(tree.file));
    let ctime = found.attr.ctime;
    found.attr.nlink = 7;
    let mut directory: Inode = read(&tree.world, &key::inode(tree.directory));
    directory.directory.as_mut().unwrap().entries = 0;
    let mut counters: Counters = read(&tree.world, &key::counters());
    counters.inodes_used = 100;
    let records = [
        (key::inode(tree.file), Some(value::encode(&found).unwrap())),
        (
            key::inode(tree.directory),
            Some(value::encode(&directory).unwrap()),
        ),
        (key::counters(), Some(value::encode(&counters).unwrap())),
    ];
    store(&mut tree.world, records);
    let links = Finding::WrongLinks {
        inode: tree.file,
        ctime,
        nlink: 7,
        counted: 2,
    };
    let entries = Finding::WrongEntries {
        inode: tree.directory,
        ctime: directory.attr.ctime,
        entries: 0,
        counted: 3,
    };
    let count = Finding::WrongCount {
        counters: Counted {
            inode_next: counters.inode_next,
            inodes_used: 100,
        },
        counted: 5,
    };
    for finding in [&links, &entries, &count] {
        examine_and_repair(&mut tree.world, finding);
    }
    check(&tree.world.store());
    // A name that came in between makes the count worthless.
    found.attr.nlink = 7;
    let records = [(key::inode(tree.file), Some(value::encode(&found).unwrap()))];
    store(&mut tree.world, records);
    tree.world.ms += 1;
    tree.world.link(tree.file, ROOT_INODE, "third").unwrap();
    let repair = MgrOperation::Repair(links);
    assert_eq!(verdict(&mut tree.world, repair), Verdict::Gone);
}

#[test]
fn what_has_lost_its_names_is_put_into_lost_and_found() {
    let mut tree = tree();
    // Without its name, the directory keeps what is in it.
    let dentry: Dentry = read(&tree.world, &key::dentry(ROOT_INODE, &name("directory")));
    let mut root: Inode = read(&tree.world, &key::inode(ROOT_INODE));
    root.attr.nlink -= 1;
    root.directory.as_mut().unwrap().entries -= 1;
    let records = [
        (key::dentry(ROOT_INODE, &name("directory")), None),
        (key::cookie(ROOT_INODE, dentry.cookie), None),
        (key::inode(ROOT_INODE), Some(value::encode(&root).unwrap())),
    ];
    store(&mut tree.world, records);
    let found: Inode = read(&tree.world, &key::inode(tree.directory));
    let finding = Finding::NoName {
        inode: tree.directory,
        ctime: found.attr.ctime,
    };
    tree.world.ms += 1;
    examine_and_repair(&mut tree.world, &finding);
    check(&tree.world.store());
    let lost = tree.world.lookup(ROOT_INODE, "lost+found").unwrap();
    assert_eq!(lost.mode & 0o777, 0o700);
    let name = format!("#{}", tree.directory);
    assert_eq!(
        tree.world.lookup(lost.inode, &name).unwrap().inode,
        tree.directory
    );
    // One that is to have no name goes.
    let opened = tree.world.create(ROOT_INODE, "to go").unwrap();
    tree.world.unlink(ROOT_INODE, "to go").unwrap();
    let inode = opened.attr.inode;
    store(&mut tree.world, [(key::orphan(inode), None)]);
    tree.world.ms += 1;
    let found: Inode = read(&tree.world, &key::inode(inode));
    let finding = Finding::NoName {
        inode,
        ctime: found.attr.ctime,
    };
    examine_and_repair(&mut tree.world, &finding);
    check(&tree.world.store());
    tree.world.close(ALICE, inode, opened.open);
    check(&tree.world.store());
    assert_eq!(tree.world.stat(inode), Err(FsError::Stale));
}

#[test]
fn stray_objects_are_removed_and_no_others() {
    let mut tree = tree();
    let found: Inode = read(&tree.world, &key::inode(tree.file));
    let of_file = found.attr.object();
    let older = ObjectId {
        generation: of_file.generation + 1,
        ..of_file
    };
    let of_directory = ObjectId {
        inode: tree.directory,
        generation: 1,
    };
    let from_the_future = ObjectId {
        inode: InodeNumber(5000),
        generation: 1,
    };
    let objects = vec![of_file, older, of_directory, from_the_future];
    let question = |iod| MgrOperation::FindStray {
        iod,
        objects: objects.clone(),
    };
    let strays = vec![older, of_directory, from_the_future];
    assert_eq!(
        tree.world.call(question(IodId(1))),
        Ok(MgrResponse::Objects(strays))
    );
    assert_eq!(
        tree.world.call(question(IodId(8))),
        Err(FsError::InvalidArgument)
    );
    tree.world.diligent = false;
    let part = |length| StrayPart {
        iod: IodId(1),
        length,
        place: None,
    };
    // One that holds something, and nobody knows what.
    let kept = Finding::StrayObject {
        object: older,
        parts: vec![part(1)],
    };
    assert_eq!(
        verdict(&mut tree.world, MgrOperation::Repair(kept)),
        Verdict::Lost
    );
    for object in [older, of_directory] {
        let iod = IodId(1);
        let parts = vec![part(0)];
        examine_and_repair(&mut tree.world, &Finding::StrayObject { object, parts });
        // The removal is a later batch's.
        tree.world.tick(1000);
        let orders = tree.world.work.iter();
        let mut orders = orders.filter(|work| work.object == object);
        let targets = &orders.next().unwrap().targets;
        assert_eq!(targets.len(), 1);
        assert_eq!(targets[0].iod, iod);
    }
    let living = Finding::StrayObject {
        object: of_file,
        parts: vec![part(1)],
    };
    assert_eq!(
        verdict(&mut tree.world, MgrOperation::Repair(living)),
        Verdict::Gone
    );
    // Written under records that are newer than these.
    let newer = Finding::StrayObject {
        object: from_the_future,
        parts: vec![StrayPart {
            place: Some(place(0, 2)),
            ..part(1)
        }],
    };
    assert_eq!(
        verdict(&mut tree.world, MgrOperation::Repair(newer)),
        Verdict::Lost
    );
    tree.world.iods_answer(false);
    check(&tree.world.store());
}

const STRIPE: u32 = 64 << 10;

fn place(slot: u16, slots: u16) -> LayoutSlot {
    LayoutSlot {
        slot,
        slots,
        stripe_size: STRIPE,
        layout_hash: 0x0102_0304,
    }
}

/// What was made after a backup that was restored: stripes that mgr knows nothing of.
#[test]
fn stray_stripes_become_a_file_where_they_are_and_late_ones_join_it() {
    let mut tree = tree();
    let store_before = tree.world.take_store();
    tree.world.new_era = true;
    tree.world.restart_over(store_before);
    let object = ObjectId {
        inode: InodeNumber(5000),
        generation: 9,
    };
    let part = |iod, slot, length| StrayPart {
        iod: IodId(iod),
        length,
        place: Some(place(slot, 3)),
    };
    // Slot 1 is at an iod that is away.
    let parts = vec![part(2, 0, u64::from(STRIPE)), part(1, 2, 100)];
    let finding = Finding::StrayObject {
        object,
        parts: parts.clone(),
    };
    examine_and_repair(&mut tree.world, &finding);
    let lost = tree.world.lookup(ROOT_INODE, "lost+found").unwrap().inode;
    let name = format!("#{object}");
    let attr = tree.world.lookup(lost, &name).unwrap();
    assert_eq!(attr.object(), object);
    assert_eq!(attr.size, 2 * u64::from(STRIPE) + 100);
    assert_eq!((attr.mode & 0o777, attr.nlink), (0o600, 1));
    check(&tree.world.store());
    let layout = |world: &mut World| match world.call(MgrOperation::GetLayout {
        inode: object.inode,
    }) {
        Ok(MgrResponse::Layout {
            layout: Some(layout),
            ..
        }) => layout,
        other => panic!("{other:?}"),
    };
    let found = layout(&mut tree.world);
    assert_eq!(found.iods(), [2, 3, 1].map(IodId));
    let stripe = found.stripes_of(object)(2);
    assert_eq!(stripe.place, place(2, 3), "as the iods know it");
    let again = verdict(&mut tree.world, MgrOperation::Repair(finding));
    assert_eq!(again, Verdict::Gone);
    // The fourth iod comes back with slot 1, and more at the end of it.
    tree.world.register(None, "iod4:7000").unwrap();
    let mut all = parts;
    let late = tree.world.seals.keys().copied().max().unwrap();
    all.push(part(late, 1, u64::from(STRIPE) + 7));
    let finding = Finding::StrayObject { object, parts: all };
    let opened = tree.world.open(ALICE, object.inode, BOTH, false).unwrap();
    let busy = tree.world.call(MgrOperation::Repair(finding.clone()));
    assert_eq!(busy, Err(FsError::Busy));
    tree.world.close(ALICE, object.inode, opened.open);
    examine_and_repair(&mut tree.world, &finding);
    let found = layout(&mut tree.world);
    assert_eq!(found.iods(), [2, late, 1].map(IodId));
    let attr = tree.world.stat(object.inode).unwrap();
    assert_eq!(attr.size, 4 * u64::from(STRIPE) + 7);
    // Two that say that they are the same part are left alone.
    let twice = Finding::StrayObject {
        object: ObjectId {
            generation: 10,
            ..object
        },
        parts: vec![part(1, 0, 5), part(2, 0, 5)],
    };
    let left = verdict(&mut tree.world, MgrOperation::Repair(twice));
    assert_eq!(left, Verdict::Lost);
    tree.world.diligent = false;
    tree.world.unlink(lost, &name).unwrap();
    tree.world.tick(1000);
    check(&tree.world.store());
}

#[test]
fn a_size_grows_over_what_was_written_while_nobody_writes() {
    let mut tree = tree();
    let opened = tree.world.open(ALICE, tree.file, BOTH, false).unwrap();
    let attr = opened.attr;
    let layout = opened.layout.unwrap();
    let slot = 1;
    let iod = layout.iods()[slot];
    let length = layout.local_size(slot, attr.size) + 10;
    let finding = Finding::SmallSize {
        iod,
        object: attr.object(),
        length,
        ctime: attr.ctime,
    };
    let short = Finding::ShortObject {
        iod,
        object: attr.object(),
        length: None,
        ctime: attr.ctime,
    };
    // Its writer may not have said so yet.
    for finding in [&finding, &short] {
        let repair = MgrOperation::Repair(finding.clone());
        assert_eq!(verdict(&mut tree.world, repair), Verdict::Gone);
    }
    tree.world.close(ALICE, tree.file, opened.open);
    let told = MgrOperation::Examine(short);
    assert_eq!(verdict(&mut tree.world, told), Verdict::Lost);
    tree.world.ms += 1;
    tree.world.local.insert(iod, length);
    tree.world.done.clear();
    let examine = MgrOperation::Examine(finding.clone());
    assert_eq!(verdict(&mut tree.world, examine), Verdict::Repairable);
    assert_eq!(tree.world.stat(tree.file).unwrap().size, attr.size);
    let repair = MgrOperation::Repair(finding.clone());
    assert_eq!(verdict(&mut tree.world, repair), Verdict::Repairable);
    let grown = tree.world.stat(tree.file).unwrap();
    let end = layout.file_offset(slot, length - 1).unwrap() + 1;
    assert_eq!(grown.size, end);
    assert!(grown.change > attr.change);
    let fenced = tree.world.done.iter();
    let fenced = fenced.filter(|work| work.order == Order::Fence);
    assert_eq!(fenced.count(), 1, "late writes come too late");
    // After a start, clients may have opens that mgr does not know of.
    tree.world.restart();
    let later = Finding::SmallSize {
        iod,
        object: attr.object(),
        length: length + 10,
        ctime: grown.ctime,
    };
    assert_eq!(
        tree.world.call(MgrOperation::Repair(later.clone())),
        Err(FsError::TryAgain)
    );
    tree.world = tree.world.with_iods(0);
    tree.world.tick(2000);
    assert_eq!(
        verdict(&mut tree.world, MgrOperation::Repair(later)),
        Verdict::Repairable
    );
}
