// SPDX-License-Identifier: MIT
//! What a file loses when its content or owner changes: its capability always, set-uid and set-gid
//! where an ordinary user changes it. On one node and two, through the page cache and past it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use cssns_tests::mount_helper::MountHelper;
use cssns_tests::pvfs_cluster::{Cluster, Options};

/// Debian's, which ordinary users can run too.
const PYTHON: &str = "/usr/bin/python3";
/// A user who owns nothing.
const NOBODY: u32 = 65_534;
/// A group that is nobody's.
const GROUP: u32 = 4242;
/// Longer than a page, and more than one stripe.
const PROGRAM_BYTES: usize = 200_000;

/// A program with a capability, set-uid and set-gid, which everybody may write to.
fn new_program(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    fs::write(path, vec![b'p'; PROGRAM_BYTES])?;
    give_privileges(path)
}

fn give_privileges(path: &Path) -> anyhow::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o6777))?;
    set_capability(path)
}

fn set_capability(path: &Path) -> anyhow::Result<()> {
    let mut setcap = Command::new("setcap");
    let output = setcap.arg("cap_net_raw+ep").arg(path).output()?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(has_capability(path)?);
    Ok(())
}

fn has_capability(path: &Path) -> anyhow::Result<bool> {
    let output = Command::new("getcap").arg(path).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(!output.stdout.is_empty())
}

fn mode(path: &Path) -> anyhow::Result<u32> {
    Ok(fs::metadata(path)?.mode() & 0o7777)
}

/// Runs a program as nobody, who is in these groups.
fn as_nobody(groups: &str, program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let user = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, groups, program]);
    Ok(command.args(arguments).output()?)
}

/// Each changes the file `sys.argv[1]`.
const CHANGES: [(&str, &str); 10] = [
    (
        "append",
        "os.write(os.open(f, os.O_WRONLY | os.O_APPEND), b'x')",
    ),
    ("write", "os.pwrite(os.open(f, os.O_RDWR), b'x' * 70000, 5)"),
    (
        "write past the cache",
        "b = mmap.mmap(-1, 4096); os.pwritev(os.open(f, os.O_RDWR | os.O_DIRECT), [b], 0)",
    ),
    ("truncate", "os.truncate(f, 9)"),
    ("lengthen", "os.truncate(f, 300000)"),
    ("open and empty", "os.open(f, os.O_WRONLY | os.O_TRUNC)"),
    (
        "reserve",
        "os.posix_fallocate(os.open(f, os.O_RDWR), 0, 300000)",
    ),
    (
        "punch a hole",
        "c = ctypes.CDLL(None, use_errno=True); n = ctypes.c_long; \
         assert c.fallocate(os.open(f, os.O_RDWR), 3, n(0), n(4096)) == 0",
    ),
    (
        "copy a range",
        "d = os.open(f, os.O_RDWR); assert os.copy_file_range(d, d, 4096, 0, 100000) == 4096",
    ),
    (
        "write to a mapping",
        "m = mmap.mmap(os.open(f, os.O_RDWR), 4096); m[0] = 120; m.flush(); m.close()",
    ),
];

/// Changes files on one mount in all ways, and looks at them on another.
fn changes_drop_privileges(here: &Path, there: &Path, groups: &str) -> anyhow::Result<()> {
    let (file, far) = (here.join("program"), there.join("program"));
    for (what, code) in CHANGES {
        for by_root in [false, true] {
            new_program(&far)?;
            let code = format!("import os, sys, mmap, ctypes; f = sys.argv[1]; {code}");
            let arguments = ["-c", &code, file.to_str().context("it is UTF-8")?];
            let output = match by_root {
                true => Command::new(PYTHON).args(arguments).output()?,
                false => as_nobody(groups, PYTHON, &arguments)?,
            };
            let context = format!("{what}, by root: {by_root}: {output:?}");
            ensure!(output.status.success(), context);
            ensure!(!has_capability(&far)?, "a capability is left: {context}");
            let expected = if by_root { 0o6777 } else { 0o777 };
            let found = mode(&far)?;
            ensure!(found == expected, "mode {found:o}: {context}");
        }
    }
    Ok(())
}

fn cluster(mount_options: &str) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(Options {
        mounts: 2,
        mount_options: format!("{mount_options},suid,dev"),
        ..Options::default()
    })?;
    fs::set_permissions(cluster.scratch(), fs::Permissions::from_mode(0o755))?;
    Ok(cluster)
}

#[test]
fn a_change_through_the_page_cache_drops_privileges() -> anyhow::Result<()> {
    let cluster = cluster("allow_other")?;
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    changes_drop_privileges(&here, &here, "--clear-groups").context("one node")?;
    changes_drop_privileges(&here, &there, "--clear-groups").context("two nodes")?;
    cluster.finish()
}

#[test]
fn a_change_past_the_page_cache_drops_privileges() -> anyhow::Result<()> {
    let cluster = cluster("allow_other,direct_io")?;
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    changes_drop_privileges(&here, &here, "--clear-groups").context("one node")?;
    changes_drop_privileges(&here, &there, "--clear-groups").context("two nodes")?;
    cluster.finish()
}

#[test]
fn a_write_to_a_file_that_nodes_share_drops_privileges() -> anyhow::Result<()> {
    let cluster = cluster("allow_other")?;
    let files = [0, 1].map(|node| cluster.mount(node).join("program"));
    fs::write(&files[0], vec![b'p'; PROGRAM_BYTES])?;
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    for (giver, writer) in [(0, 1), (1, 1), (1, 0), (0, 0)] {
        // Both share it from now on, and have found it without privileges.
        let held = [open(&files[0])?, open(&files[1])?, open(&files[0])?];
        for (place, held) in held.iter().enumerate() {
            held.write_all_at(b"x", 100_000 + place as u64)?;
        }
        give_privileges(&files[giver])?;
        let arguments = ["-c", "printf evil | dd of=\"$0\" conv=notrunc status=none"];
        let path = files[writer].to_str().context("it is UTF-8")?;
        let output = as_nobody("--clear-groups", "sh", &[&arguments[..], &[path]].concat())?;
        ensure!(output.status.success(), "{output:?}");
        for file in &files {
            ensure!(
                !has_capability(file)?,
                "given by {giver}, written by {writer}"
            );
            ensure!(mode(file)? == 0o777);
        }
        ensure!(fs::read(&files[0])?.starts_with(b"evil"));
        // And once more by a descriptor of root's from before.
        give_privileges(&files[giver])?;
        held[writer].write_all_at(b"good", 0)?;
        for file in &files {
            ensure!(!has_capability(file)? && mode(file)? == 0o6777);
        }
        fs::set_permissions(&files[0], fs::Permissions::from_mode(0o777))?;
    }
    cluster.finish()
}

#[test]
fn privileges_that_are_given_after_a_write_stay() -> anyhow::Result<()> {
    let cluster = cluster("allow_other")?;
    for giver in 0..2 {
        let (file, far) = (cluster.mount(0).join("f"), cluster.mount(giver).join("f"));
        let mut writer = Command::new("setpriv");
        writer
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .args([
                "sh",
                "-c",
                "exec 3<>\"$0\"; echo new >&3; read -r go; exec 3>&-",
            ])
            .arg(&file)
            .stdin(std::process::Stdio::piped());
        fs::write(&file, "old")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o777))?;
        let mut writer = writer.spawn()?;
        while fs::read(&far)? != b"new\n" {
            ensure!(writer.try_wait()?.is_none(), "the writer has failed");
            std::thread::yield_now();
        }
        // It has written, and has not closed the file: mgr hears of it only later.
        give_privileges(&far)?;
        drop(writer.stdin.take());
        ensure!(writer.wait()?.success());
        ensure!(has_capability(&file)? && mode(&file)? == 0o6777, "{giver}");
        fs::remove_file(&file)?;
    }
    cluster.finish()
}

#[test]
fn chown_drops_privileges_whoever_does_it() -> anyhow::Result<()> {
    let cluster = cluster("allow_other")?;
    let (file, far) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    let path = file.to_str().context("it is UTF-8")?;
    for by_root in [false, true] {
        new_program(&far)?;
        std::os::unix::fs::chown(&far, Some(NOBODY), Some(NOBODY))?;
        ensure!(!has_capability(&far)? && mode(&far)? == 0o777, "by root");
        give_privileges(&far)?;
        let group = GROUP.to_string();
        let output = match by_root {
            true => Command::new("chgrp").args([&group, path]).output()?,
            false => as_nobody(&format!("--groups={group}"), "chgrp", &[&group, path])?,
        };
        ensure!(output.status.success(), "{output:?}");
        ensure!(!has_capability(&far)? && mode(&far)? == 0o777, "{by_root}");
    }
    cluster.finish()
}

#[test]
fn set_gid_without_execution_stays_for_the_groups_members() -> anyhow::Result<()> {
    let cluster = cluster("allow_other")?;
    let file = cluster.mount(0).join("f");
    let path = file.to_str().context("it is UTF-8")?;
    let member = format!("--groups={GROUP}");
    for (groups, expected) in [(&*member, 0o2666), ("--clear-groups", 0o666)] {
        for script in [
            "echo x >> \"$0\"",
            "truncate -s 1 \"$0\"",
            "echo x > \"$0\"",
        ] {
            File::create(&file)?;
            std::os::unix::fs::chown(&file, Some(0), Some(GROUP))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o2666))?;
            let output = as_nobody(groups, "sh", &["-c", script, path])?;
            ensure!(output.status.success(), "{output:?}");
            let found = mode(&file)?;
            ensure!(found == expected, "{script} with {groups}: mode {found:o}");
        }
    }
    cluster.finish()
}

/// The user that a set-uid program on the mount is run as by nobody, and whether a device node there
/// can be opened.
fn what_takes_effect(mount: &Path) -> anyhow::Result<(String, bool)> {
    let program = mount.join("id").to_string_lossy().into_owned();
    let output = as_nobody("--clear-groups", &program, &["-u"])?;
    ensure!(output.status.success(), "{output:?}");
    let user = String::from_utf8(output.stdout)?.trim().to_owned();
    match File::open(mount.join("null")) {
        Ok(_) => Ok((user, true)),
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EACCES as i32) => {
            Ok((user, false))
        }
        Err(error) => Err(error).context("the device node"),
    }
}

/// Runs mount(8) or umount(8).
fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    Ok(())
}

#[test]
fn set_uid_programs_and_devices_work_only_where_they_are_asked_for() -> anyhow::Result<()> {
    let options = Options::default();
    let plain = Cluster::start(options)?;
    fs::set_permissions(plain.scratch(), fs::Permissions::from_mode(0o755))?;
    let first = plain.mount(0);
    fs::set_permissions(&first, fs::Permissions::from_mode(0o755))?;
    fs::copy("/usr/bin/id", first.join("id"))?;
    fs::set_permissions(first.join("id"), fs::Permissions::from_mode(0o4755))?;
    let null = first.join("null");
    run("mknod", &[null.to_str().context("UTF-8")?, "c", "1", "3"])?;
    let nobody = NOBODY.to_string();
    ensure!(
        what_takes_effect(&first)? == (nobody.clone(), false),
        "pvfs-fuse"
    );

    let _helper = MountHelper::install()?;
    let source = format!("{}:/", plain.mgr_address());
    let point = plain.scratch().join("by-mount");
    fs::create_dir(&point)?;
    let target = point.to_str().context("UTF-8")?;
    let root = "0".to_owned();
    for (options, expected) in [
        ("rw", (nobody.clone(), false)),
        ("allow_suid", (root.clone(), false)),
        ("allow_dev", (nobody.clone(), true)),
        ("allow_suid,allow_dev", (root.clone(), true)),
    ] {
        run(
            "mount",
            &["-t", "fuse.pvfs", "-o", options, &source, target],
        )?;
        let found = what_takes_effect(&point)?;
        ensure!(found == expected, "-o {options}: {found:?}");
        run("mount", &["-o", "remount,noatime", target])?;
        let found = what_takes_effect(&point)?;
        ensure!(found == expected, "-o {options}, remounted: {found:?}");
        run("mount", &["-o", "remount,allow_suid,allow_dev", target])?;
        let found = what_takes_effect(&point)?;
        ensure!(found == (root.clone(), true), "remounted: {found:?}");
        run("umount", &[target])?;
    }
    let fstab = plain.scratch().join("fstab");
    let table = fstab.to_str().context("UTF-8")?;
    for (options, expected) in [
        ("_netdev,nofail", (nobody.clone(), false)),
        ("_netdev,nofail,allow_suid,allow_dev", (root.clone(), true)),
    ] {
        fs::write(
            &fstab,
            format!("{source} {target} fuse.pvfs {options} 0 0\n"),
        )?;
        run("mount", &["-T", table, target])?;
        let found = what_takes_effect(&point)?;
        ensure!(found == expected, "fstab with {options}: {found:?}");
        run("umount", &[target])?;
    }
    plain.finish()
}
