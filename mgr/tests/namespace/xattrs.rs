// SPDX-License-Identifier: MIT
//! Extended attributes, the virtual ones among them, and layouts.

use pvfs::attr::FileKind;
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, IodId, ROOT_INODE};
use pvfs::layout::LayoutPolicy;
use pvfs::limits::XATTR_VALUE_BYTES_MAX;
use pvfs::proto::mgr::{MgrOperation, MgrResponse, XattrMode};

use crate::check::check;
use crate::world::{ALICE, READ, World, user};

fn set(world: &mut World, inode: InodeNumber, name: &str, value: &str) -> Result<(), FsError> {
    set_mode(world, inode, name, value.as_bytes(), XattrMode::Set)
}

fn set_mode(
    world: &mut World,
    inode: InodeNumber,
    name: &str,
    value: &[u8],
    mode: XattrMode,
) -> Result<(), FsError> {
    let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
    world
        .call(MgrOperation::SetXattr {
            inode,
            name,
            value,
            mode,
        })
        .map(drop)
}

fn get(world: &mut World, inode: InodeNumber, name: &str) -> Result<String, FsError> {
    match world.call(MgrOperation::GetXattr {
        inode,
        name: name.as_bytes().to_vec(),
    })? {
        MgrResponse::Bytes(bytes) => Ok(String::from_utf8(bytes).unwrap()),
        other => panic!("{other:?}"),
    }
}

fn remove(world: &mut World, inode: InodeNumber, name: &str) -> Result<(), FsError> {
    world
        .call(MgrOperation::RemoveXattr {
            inode,
            name: name.as_bytes().to_vec(),
        })
        .map(drop)
}

fn list(world: &mut World, inode: InodeNumber) -> String {
    let Ok(MgrResponse::Names(names)) = world.call(MgrOperation::ListXattr { inode }) else {
        panic!()
    };
    let names: Vec<_> = names
        .iter()
        .map(|name| String::from_utf8_lossy(name))
        .collect();
    names.join(" ")
}

#[test]
fn set_get_list_remove() {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    assert_eq!(get(&mut world, file, "user.a"), Err(FsError::NoAttribute));
    set(&mut world, file, "user.b", "2").unwrap();
    set(&mut world, file, "user.a", "1").unwrap();
    set(&mut world, file, "user.a", "").unwrap();
    assert_eq!(get(&mut world, file, "user.a"), Ok(String::new()));
    assert_eq!(list(&mut world, file), "user.a user.b");
    remove(&mut world, file, "user.a").unwrap();
    assert_eq!(
        remove(&mut world, file, "user.a"),
        Err(FsError::NoAttribute)
    );
    assert_eq!(list(&mut world, file), "user.b");
    world.unlink(ROOT_INODE, "f").unwrap();
    check(&world.store());
}

#[test]
fn modes_and_limits() {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    let w = &mut world;
    assert_eq!(
        set_mode(w, file, "user.a", b"", XattrMode::Replace),
        Err(FsError::NoAttribute)
    );
    assert_eq!(set_mode(w, file, "user.a", b"", XattrMode::Create), Ok(()));
    assert_eq!(
        set_mode(w, file, "user.a", b"", XattrMode::Create),
        Err(FsError::Exists)
    );
    assert_eq!(
        set_mode(w, file, "user.a", b"x", XattrMode::Replace),
        Ok(())
    );
    let largest = vec![b'x'; XATTR_VALUE_BYTES_MAX];
    assert_eq!(
        set_mode(w, file, "user.a", &largest, XattrMode::Set),
        Ok(())
    );
    let larger = vec![b'x'; XATTR_VALUE_BYTES_MAX + 1];
    assert_eq!(
        set_mode(w, file, "user.a", &larger, XattrMode::Set),
        Err(FsError::TooBig)
    );
    let longest = format!("user.{}", "n".repeat(250));
    assert_eq!(set(w, file, &longest, ""), Ok(()));
    assert_eq!(
        set(w, file, &format!("{longest}n"), ""),
        Err(FsError::Range)
    );
    for bad in ["user.", "user.a\0"] {
        assert_eq!(set(w, file, bad, ""), Err(FsError::InvalidArgument));
    }
    for bad in ["system.nfs4_acl", "nonsense", ""] {
        assert_eq!(set(w, file, bad, ""), Err(FsError::NotSupported));
        assert_eq!(get(w, file, bad), Err(FsError::NotSupported));
    }
    let mut full = Ok(());
    for n in 0..300 {
        full = set(w, file, &format!("user.{n:0>250}"), "");
        if full.is_err() {
            break;
        }
    }
    assert_eq!(full, Err(FsError::NoSpace), "the names must fit a list");
}

#[test]
fn name_spaces_and_permissions() {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    let fifo = world
        .make(ROOT_INODE, "p", FileKind::Fifo, 0o666)
        .unwrap()
        .inode;
    let w = &mut world;
    assert_eq!(set(w, fifo, "user.a", ""), Err(FsError::NotPermitted));
    assert_eq!(get(w, fifo, "user.a"), Err(FsError::NoAttribute));
    for name in ["trusted.a", "security.a", "user.a"] {
        set(w, file, name, "v").unwrap();
    }
    w.who = user(7);
    assert_eq!(get(w, file, "trusted.a"), Err(FsError::NoAttribute));
    assert_eq!(get(w, file, "security.a"), Ok("v".into()));
    assert_eq!(get(w, file, "user.a"), Ok("v".into()));
    assert_eq!(list(w, file), "security.a user.a");
    assert_eq!(set(w, file, "user.a", ""), Err(FsError::AccessDenied));
    assert_eq!(remove(w, file, "user.a"), Err(FsError::AccessDenied));
    for name in ["trusted.a", "security.a"] {
        assert_eq!(set(w, file, name, ""), Err(FsError::NotPermitted));
    }
    w.chmod(file, 0o622);
    assert_eq!(set(w, file, "user.a", ""), Ok(()));
    assert_eq!(get(w, file, "user.a"), Err(FsError::AccessDenied));
    let sticky = w.lookup(ROOT_INODE, "f").unwrap().inode;
    w.chmod(ROOT_INODE, 0o1777);
    assert_eq!(set(w, ROOT_INODE, "user.a", ""), Err(FsError::NotPermitted));
    assert_eq!(sticky, file);
}

#[test]
fn layouts_show_as_attributes_and_are_inherited() {
    let mut world = World::new();
    let d = world.mkdir(ROOT_INODE, "d");
    let below = world.mkdir(d, "below");
    let w = &mut world;
    assert_eq!(get(w, below, "user.pvfs.base"), Ok("auto".into()));
    assert_eq!(get(w, d, "user.pvfs.iods"), Err(FsError::NoAttribute));
    set(w, d, "user.pvfs.stripe_size", "65536").unwrap();
    set(w, d, "user.pvfs.pcount", "2").unwrap();
    set(w, d, "user.pvfs.base", "1").unwrap();
    assert_eq!(
        set(w, d, "user.pvfs.stripe_size", "1000"),
        Err(FsError::InvalidArgument)
    );
    assert_eq!(set(w, d, "user.pvfs.iods", "1"), Err(FsError::NotPermitted));
    assert_eq!(
        set(w, d, "user.pvfs.colour", "1"),
        Err(FsError::NotSupported)
    );
    assert_eq!(list(w, d), "", "they are not listed");
    let file = w.create(below, "f").unwrap();
    let layout = file.layout.unwrap();
    assert_eq!((layout.stripe_size(), layout.base()), (65_536, 1));
    assert_eq!(layout.iods(), [IodId(2), IodId(3)]);
    for (name, value) in [
        ("stripe_size", "65536"),
        ("base", "1"),
        ("pcount", "2"),
        ("iods", "2,3"),
    ] {
        let name = format!("user.pvfs.{name}");
        assert_eq!(get(w, file.attr.inode, &name).as_deref(), Ok(value));
    }
    remove(w, d, "user.pvfs.base").unwrap();
    assert_eq!(
        get(w, below, "user.pvfs.pcount"),
        Ok("0".into()),
        "all of the policy is gone"
    );
    assert_eq!(remove(w, d, "user.pvfs.base"), Err(FsError::NoAttribute));
}

#[test]
fn an_empty_file_is_laid_out_anew() {
    let mut world = World::new();
    let file = world.mkfile(ROOT_INODE, "f");
    let before = world.stat(file).unwrap();
    let policy = LayoutPolicy {
        stripe_size: 4096,
        pcount: 1,
        base: Some(2),
    };
    let set_layout = |inode, policy| MgrOperation::SetLayout { inode, policy };
    world.call(set_layout(file, Some(policy))).unwrap();
    let Ok(MgrResponse::Layout {
        layout,
        object,
        policy: None,
    }) = world.call(MgrOperation::GetLayout { inode: file })
    else {
        panic!()
    };
    assert_eq!(layout.unwrap().iods(), [IodId(3)]);
    assert_ne!(
        object.unwrap(),
        before.object(),
        "old stripes are never met again"
    );
    world.tick(2000);
    assert_eq!(world.done.len(), 1);
    assert_eq!(world.done[0].object, before.object());
    assert_eq!(
        world.call(set_layout(file, None)),
        Err(FsError::InvalidArgument)
    );
    let open = world.open(ALICE, file, READ, false).unwrap().open;
    assert_eq!(
        world.call(set_layout(file, Some(policy))),
        Err(FsError::Busy)
    );
    world.close(ALICE, file, open);
    let full = world.file_of(ROOT_INODE, "g", 1);
    assert_eq!(
        world.call(set_layout(full, Some(policy))),
        Err(FsError::Busy)
    );
    world.who = user(7);
    assert_eq!(
        world.call(set_layout(file, Some(policy))),
        Err(FsError::AccessDenied)
    );
    check(&world.store());
}

#[test]
fn files_are_dealt_out_in_turn() {
    let mut world = World::new();
    let policy = LayoutPolicy {
        pcount: 1,
        ..LayoutPolicy::default()
    };
    world
        .call(MgrOperation::SetLayout {
            inode: ROOT_INODE,
            policy: Some(policy),
        })
        .unwrap();
    let mut firsts = Vec::new();
    for n in 0..6 {
        // Directories in between do not disturb the turns.
        world.mkdir(ROOT_INODE, &format!("d{n}"));
        let opened = world.create(ROOT_INODE, &format!("f{n}")).unwrap();
        firsts.push(opened.layout.unwrap().iods()[0].0);
    }
    assert_eq!(firsts, [1, 2, 3, 1, 2, 3]);
}
