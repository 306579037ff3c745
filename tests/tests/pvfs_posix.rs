// SPDX-License-Identifier: MIT
//! What programs expect of a file system, through the mount: each promise one by one, the caller's
//! uid and gid enforced, `mount -t fuse.pvfs` and an fstab line.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cssns_tests::mount_helper::MountHelper;
use cssns_tests::operation::Data;
use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// The user and group that own nothing.
const NOBODY: u32 = 65_534;
/// A group that nobody is put into for a test; its number is of no account.
const TEAM: u32 = 54_321;

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result
        .err()
        .and_then(|error| error.raw_os_error())
        .map(Errno::from_raw)
}

fn mode(path: &Path) -> anyhow::Result<u32> {
    Ok(std::fs::symlink_metadata(path)?.mode() & 0o7777)
}

#[test]
fn files_and_directories() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options {
        mounts: 2,
        ..Options::default()
    })?;
    let (root, other) = (cluster.mount(0), cluster.mount(1));
    write_append_truncate(&root, &other)?;
    holes_and_large_offsets(&root)?;
    rename(&root)?;
    unlinked_but_open(&root, &other)?;
    directories(&root, &other)?;
    links(&root, &other)?;
    attributes(&root, &other)?;
    special_files(&root)?;
    totals(&root)?;
    cluster.finish()
}

fn write_append_truncate(root: &Path, other: &Path) -> anyhow::Result<()> {
    let path = root.join("file");
    let content = Data {
        seed: 1,
        length: 2_500_000,
    }
    .bytes();
    std::fs::write(&path, &content)?;
    ensure!(std::fs::read(other.join("file"))? == content);
    // Appends through two mounts in turn, each closed before the next: none overwrites another.
    let mut expected = content;
    for number in 0..10u8 {
        let at = if number % 2 == 0 { root } else { other };
        OpenOptions::new()
            .append(true)
            .open(at.join("file"))?
            .write_all(&[number; 3000])?;
        expected.extend([number; 3000]);
    }
    ensure!(std::fs::read(&path)? == expected);
    OpenOptions::new()
        .write(true)
        .open(other.join("file"))?
        .set_len(1_000_001)?;
    expected.truncate(1_000_001);
    ensure!(
        std::fs::read(&path)? == expected,
        "truncated through the other mount"
    );
    OpenOptions::new()
        .write(true)
        .open(&path)?
        .set_len(1_200_000)?;
    expected.resize(1_200_000, 0);
    ensure!(
        std::fs::read(other.join("file"))? == expected,
        "what was cut is zero"
    );
    File::create(&path)?;
    ensure!(other.join("file").metadata()?.len() == 0, "O_TRUNC");
    ensure!(
        errno(File::create_new(other.join("file"))) == Some(Errno::EEXIST),
        "O_EXCL"
    );
    Ok(())
}

fn holes_and_large_offsets(root: &Path) -> anyhow::Result<()> {
    let path = root.join("sparse");
    let mut file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)?;
    let far = 3 << 40;
    file.write_all_at(b"end", far)?;
    file.write_all_at(b"start", 0)?;
    ensure!(file.metadata()?.len() == far + 3, "fstat of the writer");
    let mut bytes = [1; 4];
    file.read_exact_at(&mut bytes, far - 1)?;
    ensure!(bytes == *b"\0end");
    ensure!(file.seek(SeekFrom::End(-3))? == far, "SEEK_END");
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    ensure!(rest == b"end");
    drop(file);
    ensure!(path.metadata()?.len() == far + 3);
    std::fs::remove_file(path)?;
    Ok(())
}

fn rename(root: &Path) -> anyhow::Result<()> {
    let dir = root.join("rename");
    std::fs::create_dir_all(dir.join("full/child"))?;
    std::fs::create_dir(dir.join("empty"))?;
    let at = |name: &str| dir.join(name);
    std::fs::write(at("a"), "a")?;
    std::fs::write(at("b"), "b")?;
    std::fs::rename(at("a"), at("b"))?;
    ensure!(std::fs::read(at("b"))? == b"a", "replaced");
    ensure!(errno(std::fs::rename(at("a"), at("c"))) == Some(Errno::ENOENT));
    ensure!(errno(std::fs::rename(at("empty"), at("full"))) == Some(Errno::ENOTEMPTY));
    ensure!(errno(std::fs::rename(at("full"), at("full/child/x"))) == Some(Errno::EINVAL));
    ensure!(errno(std::fs::rename(at("b"), at("empty"))) == Some(Errno::EISDIR));
    ensure!(errno(std::fs::rename(at("empty"), at("b"))) == Some(Errno::ENOTDIR));
    std::fs::rename(at("full"), at("empty"))?;
    ensure!(
        at("empty/child").is_dir(),
        "a directory replaces an empty one"
    );
    std::fs::write(at("x"), "x")?;
    let flags = |flags| renameat2(AT_FDCWD, &at("x"), AT_FDCWD, &at("b"), flags);
    ensure!(flags(RenameFlags::RENAME_NOREPLACE) == Err(Errno::EEXIST));
    flags(RenameFlags::RENAME_EXCHANGE)?;
    ensure!(
        std::fs::read(at("x"))? == b"a" && std::fs::read(at("b"))? == b"x",
        "exchanged"
    );
    Ok(())
}

fn unlinked_but_open(root: &Path, other: &Path) -> anyhow::Result<()> {
    let content = Data {
        seed: 2,
        length: 700_000,
    }
    .bytes();
    for remover in [root, other] {
        std::fs::write(root.join("gone"), &content)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(root.join("gone"))?;
        std::fs::remove_file(remover.join("gone"))?;
        ensure!(errno(std::fs::metadata(remover.join("gone"))) == Some(Errno::ENOENT));
        file.write_all_at(b"still", 0)?;
        let mut found = Vec::new();
        file.read_to_end(&mut found)?;
        ensure!(
            found[..5] == *b"still" && found[5..] == content[5..],
            "an open file lives on"
        );
    }
    std::fs::write(root.join("over"), "old")?;
    let mut old = File::open(root.join("over"))?;
    std::fs::write(root.join("new"), "new")?;
    std::fs::rename(root.join("new"), root.join("over"))?;
    let mut found = String::new();
    old.read_to_string(&mut found)?;
    ensure!(
        found == "old",
        "what a rename replaced lives on while it is open"
    );
    Ok(())
}

fn directories(root: &Path, other: &Path) -> anyhow::Result<()> {
    let dir = root.join("many");
    std::fs::create_dir(&dir)?;
    // More than one reply to a directory read holds.
    let count = 2500;
    for number in 0..count {
        File::create(dir.join(format!("a file with a longish name, number {number}")))?;
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(other.join("many"))? {
        let entry = entry?;
        ensure!(entry.metadata()?.is_file() && entry.metadata()?.nlink() == 1);
        names.push(entry.file_name());
    }
    names.sort();
    names.dedup();
    ensure!(names.len() == count, "{} names of {count}", names.len());
    // Removing while reading skips nothing.
    for entry in std::fs::read_dir(&dir)? {
        std::fs::remove_file(entry?.path())?;
    }
    ensure!(std::fs::read_dir(other.join("many"))?.next().is_none());
    std::fs::create_dir(dir.join("sub"))?;
    ensure!(dir.metadata()?.nlink() == 3, "a subdirectory's `..` counts");
    ensure!(dir.join("sub/..").metadata()?.ino() == dir.metadata()?.ino());
    ensure!(errno(std::fs::remove_dir(&dir)) == Some(Errno::ENOTEMPTY));
    ensure!(errno(std::fs::create_dir(&dir)) == Some(Errno::EEXIST));
    ensure!(errno(std::fs::remove_file(&dir)) == Some(Errno::EISDIR));
    std::fs::remove_dir(other.join("many/sub"))?;
    std::fs::remove_dir(&dir)?;
    let long = "n".repeat(255);
    std::fs::write(root.join(&long), "")?;
    ensure!(errno(std::fs::write(root.join(long + "n"), "")) == Some(Errno::ENAMETOOLONG));
    Ok(())
}

fn links(root: &Path, other: &Path) -> anyhow::Result<()> {
    let at = |name: &str| root.join(name);
    std::fs::write(at("one"), "1")?;
    std::fs::hard_link(at("one"), at("two"))?;
    let (one, two) = (other.join("one").metadata()?, other.join("two").metadata()?);
    ensure!(one.ino() == two.ino() && one.nlink() == 2);
    std::fs::write(other.join("two"), "written")?;
    ensure!(std::fs::read(at("one"))? == b"written", "one inode");
    std::fs::remove_file(at("one"))?;
    ensure!(at("two").metadata()?.nlink() == 1);
    ensure!(errno(std::fs::hard_link(root, at("dir"))) == Some(Errno::EPERM));
    std::os::unix::fs::symlink("two", at("sym"))?;
    ensure!(std::fs::read_link(other.join("sym"))? == Path::new("two"));
    ensure!(std::fs::read(other.join("sym"))? == b"written", "followed");
    std::os::unix::fs::symlink("loop", at("loop"))?;
    ensure!(errno(File::open(at("loop"))) == Some(Errno::ELOOP));
    std::os::unix::fs::symlink("nowhere", at("dangling"))?;
    ensure!(errno(File::open(at("dangling"))) == Some(Errno::ENOENT));
    Ok(())
}

fn attributes(root: &Path, other: &Path) -> anyhow::Result<()> {
    let (path, seen) = (root.join("attributes"), other.join("attributes"));
    std::fs::write(&path, "x")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4751))?;
    ensure!(mode(&seen)? == 0o4751);
    std::os::unix::fs::chown(&path, Some(12), Some(34))?;
    let metadata = seen.metadata()?;
    ensure!((metadata.uid(), metadata.gid()) == (12, 34));
    let time = std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let times = std::fs::FileTimes::new()
        .set_modified(time)
        .set_accessed(time);
    OpenOptions::new()
        .write(true)
        .open(&path)?
        .set_times(times)?;
    ensure!(seen.metadata()?.modified()? == time, "nanoseconds are kept");
    std::fs::write(&path, "changed")?;
    ensure!(seen.metadata()?.modified()? > time, "a write advances it");
    xattr::set(&path, "user.test", b"value")?;
    ensure!(xattr::get(&seen, "user.test")?.as_deref() == Some(&b"value"[..]));
    ensure!(xattr::list(&seen)?.any(|name| name == "user.test"));
    xattr::set(&path, "user.large", &[7; 60_000])?;
    ensure!(xattr::get(&seen, "user.large")?.is_some_and(|value| value == [7; 60_000]));
    xattr::remove(&seen, "user.test")?;
    ensure!(xattr::get(&path, "user.test")?.is_none());
    Ok(())
}

fn special_files(root: &Path) -> anyhow::Result<()> {
    let fifo = root.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    let reader = {
        let fifo = fifo.clone();
        std::thread::spawn(move || std::fs::read(fifo))
    };
    std::fs::write(&fifo, "through")?;
    let read = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    ensure!(read == b"through", "a named pipe");
    Ok(())
}

fn totals(root: &Path) -> anyhow::Result<()> {
    let totals = nix::sys::statvfs::statvfs(root)?;
    ensure!(totals.blocks() > 0 && totals.blocks_free() <= totals.blocks());
    ensure!(totals.name_max() == 255 && totals.files() > 0);
    Ok(())
}

/// Runs a shell command in `dir` as a user without privileges.
fn as_nobody(dir: &Path, groups: &str, script: &str) -> anyhow::Result<Output> {
    let ids = [
        format!("--reuid={NOBODY}"),
        format!("--regid={NOBODY}"),
        groups.to_owned(),
    ];
    Command::new("setpriv")
        .args(ids)
        .args(["--", "sh", "-c", script])
        .current_dir(dir)
        .output()
        .context("setpriv (package util-linux)")
}

#[test]
fn uid_and_gid_are_enforced() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default())?;
    // A temporary directory is private; the mount itself must be reachable for nobody.
    std::fs::set_permissions(cluster.scratch(), std::fs::Permissions::from_mode(0o755))?;
    let root = cluster.mount(0);
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755))?;
    prepare_owners(&root)?;
    let alone = "--clear-groups";
    let allowed = |groups: &str, script: &str| -> anyhow::Result<()> {
        let output = as_nobody(&root, groups, script)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "must be allowed: {script}: {stderr}"
        );
        Ok(())
    };
    let denied = |groups: &str, script: &str, why: &str| -> anyhow::Result<()> {
        let output = as_nobody(&root, groups, script)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "must be denied: {script}");
        ensure!(stderr.contains(why), "{script}: {stderr}");
        Ok(())
    };
    let permission = "Permission denied";
    let operation = "Operation not permitted";
    allowed(alone, "cat public")?;
    denied(alone, "cat private", permission)?;
    denied(alone, "cat secret/inner", permission)?;
    denied(alone, "echo x >> public", permission)?;
    denied(alone, "touch new", permission)?;
    denied(alone, "rm -f public", permission)?;
    denied(alone, "mv public shared/", permission)?;
    denied(alone, "chmod 777 public", operation)?;
    denied(alone, "chown 65534 public", operation)?;
    allowed(alone, "echo mine > shared/mine && test -O shared/mine")?;
    allowed(
        alone,
        "mkdir shared/dir && echo x > shared/dir/f && chmod 700 shared/dir",
    )?;
    denied(alone, "chown 0 shared/mine", operation)?;
    denied(alone, "chgrp 54321 shared/mine", operation)?;
    denied(alone, "rm -f shared/sticky/root-owned", operation)?;
    denied(
        alone,
        "mv shared/sticky/root-owned shared/sticky/other",
        operation,
    )?;
    allowed(alone, "echo x > shared/sticky/own && rm shared/sticky/own")?;
    denied(alone, "cat team", permission)?;
    allowed(&format!("--groups={TEAM}"), "cat team && echo more >> team")?;
    allowed(alone, "umask 027 && echo x > shared/masked")?;
    ensure!(mode(&root.join("shared/masked"))? == 0o640, "umask");
    allowed(alone, "echo x > setgid/f && mkdir setgid/d")?;
    let (file, dir) = (
        root.join("setgid/f").metadata()?,
        root.join("setgid/d").metadata()?,
    );
    ensure!(
        file.gid() == TEAM && dir.gid() == TEAM && dir.mode() & 0o2000 != 0,
        "setgid"
    );
    let mine = root.join("shared/mine").metadata()?;
    ensure!(
        (mine.uid(), mine.gid()) == (NOBODY, NOBODY),
        "the creator owns it"
    );
    cluster.finish()
}

fn prepare_owners(root: &Path) -> anyhow::Result<()> {
    let make = |name: &str, mode: u32, group: Option<u32>| -> anyhow::Result<()> {
        let path = root.join(name);
        if let Some(name) = name.strip_suffix('/') {
            std::fs::create_dir(root.join(name))?;
        } else {
            std::fs::write(&path, name)?;
        }
        std::os::unix::fs::chown(&path, Some(0), group)?;
        Ok(std::fs::set_permissions(
            &path,
            std::fs::Permissions::from_mode(mode),
        )?)
    };
    make("public", 0o644, None)?;
    make("private", 0o600, None)?;
    make("secret/", 0o755, None)?;
    make("secret/inner", 0o644, None)?;
    std::fs::set_permissions(root.join("secret"), std::fs::Permissions::from_mode(0o700))?;
    make("shared/", 0o777, None)?;
    make("shared/sticky/", 0o1777, None)?;
    make("shared/sticky/root-owned", 0o666, None)?;
    make("team", 0o660, Some(TEAM))?;
    make("setgid/", 0o2777, Some(TEAM))
}

/// A mount made by mount(8), taken away at the end whatever happens.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}: {stderr}",
        output.status
    );
    Ok(())
}

/// Type and source of the mount on `point`, as /proc/mounts has them.
fn mounted(point: &Path) -> anyhow::Result<Option<(String, String, String)>> {
    let table = std::fs::read_to_string("/proc/mounts")?;
    Ok(table.lines().find_map(|line| {
        let mut words = line.split(' ').map(str::to_owned);
        let (source, at, fs_type) = (words.next()?, words.next()?, words.next()?);
        (Path::new(&at) == point).then_some((source, fs_type, words.next()?))
    }))
}

fn wait_for_end(point: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let needle = point.to_string_lossy().into_owned();
    loop {
        let mut left = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let line = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains(&needle) && line.contains("pvfs:/") | line.contains(":/\0") {
                left.push(line);
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "still running: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn mount_and_an_fstab_line() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options {
        mounts: 0,
        ..Options::default()
    })?;
    let _helper = MountHelper::install()?;
    let source = format!("{}:/", cluster.mgr_address());
    let point = cluster.scratch().join("by hand");
    std::fs::create_dir(&point)?;
    let mount = Mounted(point.clone());

    run(Command::new("mount")
        .args(["-t", "fuse.pvfs", &source, "-o", "allow_other"])
        .arg(&point))?;
    let escaped = PathBuf::from(point.to_string_lossy().replace(' ', "\\040"));
    let (seen, fs_type, _) = mounted(&escaped)?.context("not mounted")?;
    ensure!(seen == source && fs_type == "fuse.pvfs", "{seen} {fs_type}");
    std::fs::write(point.join("f"), "content")?;
    run(Command::new("umount").arg(&point))?;
    wait_for_end(&point)?;

    run(Command::new("mount")
        .args(["-t", "fuse.pvfs", &source, "-o", "ro"])
        .arg(&point))?;
    ensure!(std::fs::read(point.join("f"))? == b"content");
    ensure!(
        errno(std::fs::write(point.join("g"), "")) == Some(Errno::EROFS),
        "ro is enforced"
    );
    ensure!(errno(std::fs::remove_file(point.join("f"))) == Some(Errno::EROFS));
    run(Command::new("umount").arg(&point))?;
    wait_for_end(&point)?;
    drop(mount);

    let point = cluster.scratch().join("from-fstab");
    std::fs::create_dir(&point)?;
    let mount = Mounted(point.clone());
    let fstab = cluster.scratch().join("fstab");
    let options = "_netdev,nofail,allow_other,noatime,nosuid,x-systemd.automount";
    std::fs::write(
        &fstab,
        format!("{source} {} fuse.pvfs {options} 0 0\n", point.display()),
    )?;
    run(Command::new("mount").arg("-T").arg(&fstab).arg(&point))?;
    let (seen, fs_type, flags) = mounted(&point)?.context("not mounted")?;
    ensure!(seen == source && fs_type == "fuse.pvfs", "{seen} {fs_type}");
    ensure!(
        flags.contains("nosuid") && flags.contains("noatime"),
        "{flags}"
    );
    ensure!(std::fs::read(point.join("f"))? == b"content");
    run(Command::new("umount").arg(&point))?;
    wait_for_end(&point)?;
    run(Command::new("mount").arg("-a").arg("-T").arg(&fstab))?;
    ensure!(std::fs::read(point.join("f"))? == b"content", "mount -a");
    run(Command::new("umount").arg(&point))?;
    wait_for_end(&point)?;
    drop(mount);
    cluster.finish()
}

#[test]
fn a_mount_that_cannot_work_says_why() -> anyhow::Result<()> {
    programs::require_root()?;
    let dir = tempfile::tempdir()?;
    let point = dir.path().join("m");
    std::fs::create_dir(&point)?;
    for (source, why) in [("nohost", ":/"), ("127.0.0.1:0:/", "port"), (":/", "host")] {
        let output = Command::new(programs::find("pvfs-fuse")?)
            .arg(source)
            .arg(&point)
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && stderr.contains(why),
            "{source}: {stderr}"
        );
    }
    Ok(())
}
