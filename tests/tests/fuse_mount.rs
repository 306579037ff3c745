// SPDX-License-Identifier: MIT
//! Mounting and unmounting as mount(8), fstab and people do it.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A background process ends soon after its mount.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a mount that is in use goes on after SIGTERM.
const DETACHED_TIME: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// An ordinary user, and a group that only the kernel knows it is in.
const USER: u32 = 54_321;
const GROUP: u32 = 54_322;

fn cluster(mounts: usize) -> Cluster {
    Cluster::start(Options {
        mounts,
        ..Options::default()
    })
    .unwrap()
}

/// pvfs-fuse under the name by which mount(8) calls it.
fn helper(cluster: &Cluster, options: &str, source: &str, target: &Path) -> Output {
    let link = cluster.scratch().join("mount.fuse.pvfs");
    let _ = fs::remove_file(&link);
    symlink(programs::find("pvfs-fuse").unwrap(), &link).unwrap();
    Command::new(link)
        .arg(source)
        .arg(target)
        .args(["-o", options])
        .output()
        .unwrap()
}

fn umount(target: &Path) {
    let output = Command::new("umount").arg(target).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// (source, type, options) of the mount on `target`.
fn mounted(target: &Path) -> Option<(String, String, String)> {
    let table = fs::read_to_string("/proc/mounts").unwrap();
    let lines = table
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let mut found = lines.filter(|fields| Path::new(fields[1]) == target);
    found
        .next()
        .map(|fields| (fields[0].into(), fields[2].into(), fields[3].into()))
}

/// Processes that have `target` on their command line.
fn processes(target: &Path) -> Vec<PathBuf> {
    let wanted = target.to_str().unwrap().as_bytes();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let serves = |path: &PathBuf| {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == wanted)
    };
    entries.map(|entry| entry.path()).filter(serves).collect()
}

/// The process that serves the mount on `target`.
fn process_of(target: &Path) -> Pid {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    let numbers = processes(target);
    Pid::from_raw(numbers.iter().filter_map(number).max().unwrap())
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + END_TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(POLL);
    }
}

/// Runs a shell command as USER, with GROUP as its supplementary group if `grouped`.
fn as_user(script: &str, grouped: bool) -> Output {
    let (user, group) = (USER.to_string(), GROUP.to_string());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user]);
    match grouped {
        true => command.args(["--groups", &group]),
        false => command.arg("--clear-groups"),
    };
    command.args(["sh", "-c", script]).output().unwrap()
}

#[test]
fn the_helper_mounts_in_the_background_and_umount_ends_it() {
    let cluster = cluster(0);
    let target = cluster.scratch().join("with space");
    fs::create_dir(&target).unwrap();
    let source = format!("{}:/", cluster.mgr_address());
    let fstab = "rw,_netdev,nofail,user,noexec,nosuid,nodev,x-systemd.automount,noauto";
    let output = helper(&cluster, fstab, &source, &target);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let escaped = PathBuf::from(target.to_str().unwrap().replace(' ', "\\040"));
    let (shown, kind, flags) = mounted(&escaped).unwrap();
    assert_eq!((shown, kind), (source, "fuse.pvfs".into()));
    for flag in ["rw", "noexec", "nosuid", "nodev"] {
        assert!(
            flags.split(',').any(|other| other == flag),
            "{flag} is not in {flags}"
        );
    }
    fs::write(target.join("f"), b"x").unwrap();
    assert_eq!(processes(&target).len(), 1);
    umount(&target);
    wait_until("the process ends", || processes(&target).is_empty());
    assert_eq!(mounted(&escaped), None);
    cluster.finish().unwrap();
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    let cluster = cluster(1);
    fs::write(cluster.mount(0).join("f"), b"x").unwrap();
    let target = cluster.scratch().join("ro");
    fs::create_dir(&target).unwrap();
    let source = format!("{}:/", cluster.mgr_address());
    let output = helper(&cluster, "ro", &source, &target);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(fs::read(target.join("f")).unwrap(), b"x");
    for refused in [
        fs::write(target.join("f"), b"y"),
        fs::write(target.join("g"), b"y"),
        fs::create_dir(target.join("d")),
        fs::remove_file(target.join("f")),
        fs::set_permissions(target.join("f"), fs::Permissions::from_mode(0o600)),
    ] {
        assert_eq!(
            refused.unwrap_err().kind(),
            io::ErrorKind::ReadOnlyFilesystem
        );
    }
    umount(&target);
    cluster.finish().unwrap();
}

#[test]
fn a_mount_without_mgr_fails_in_time_and_says_what_to_do() {
    let cluster = cluster(0);
    let target = cluster.scratch().join("none");
    fs::create_dir(&target).unwrap();
    let output = helper(&cluster, "mount_timeout=1", "127.0.0.1:1:/", &target);
    assert_eq!(
        output.status.code(),
        Some(32),
        "mount(8)'s status of a failed mount"
    );
    let message = String::from_utf8_lossy(&output.stderr);
    for part in ["127.0.0.1:1", "refused", "pvfs ping"] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert_eq!(mounted(&target), None);
    cluster.finish().unwrap();
}

#[test]
fn a_wrong_command_line_is_told_apart_from_a_failed_mount() {
    let cluster = cluster(0);
    let target = cluster.scratch().to_owned();
    for (source, options, word) in [
        ("node1:/", "nonsense", "nonsense"),
        ("node1", "rw", "HOST[:PORT]:/"),
    ] {
        let output = helper(&cluster, options, source, &target);
        assert_eq!(output.status.code(), Some(1));
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
    cluster.finish().unwrap();
}

#[test]
fn sigterm_unmounts_even_a_mount_in_use() {
    let mut cluster = cluster(1);
    let point = cluster.mount(0);
    fs::write(point.join("f"), b"x").unwrap();
    let held = fs::File::open(point.join("f")).unwrap();
    kill(process_of(&point), Signal::SIGTERM).unwrap();
    wait_until("it is detached", || mounted(&point).is_none());
    let mut byte = [0];
    std::os::unix::fs::FileExt::read_exact_at(&held, &mut byte, 0).unwrap();
    assert_eq!(&byte, b"x", "who has a file open keeps it");
    drop(held);
    wait_until("the process ends", || processes(&point).is_empty());
    cluster.restart_mount(0).unwrap();
    assert_eq!(fs::read(point.join("f")).unwrap(), b"x");
    // The first process of this mount ended with status 0, but `finish` expects it to run.
    cluster.finish().unwrap();
}

/// A container or a service with a mount namespace of its own keeps a copy of every mount.
#[test]
fn sigterm_ends_a_mount_that_another_mount_namespace_has_too() {
    let cluster = cluster(1);
    let target = cluster.scratch().join("shared");
    fs::create_dir(&target).unwrap();
    let source = format!("{}:/", cluster.mgr_address());
    for signals in [1, 2] {
        let output = helper(&cluster, "allow_other", &source, &target);
        assert!(output.status.success(), "{output:?}");
        let mut other = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                "echo; read line",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let ready = other.stdout.take().unwrap();
        BufReader::new(ready).read_line(&mut line).unwrap();
        let mount = process_of(&target);
        let start = Instant::now();
        kill(mount, Signal::SIGTERM).unwrap();
        wait_until("unmounted here", || mounted(&target).is_none());
        if signals == 2 {
            // It is blocked until the thread that waits for it does.
            while kill(mount, Signal::SIGTERM).is_ok() {
                std::thread::sleep(POLL);
                assert!(
                    start.elapsed() < END_TIMEOUT,
                    "it ignores the second signal"
                );
            }
            assert!(start.elapsed() < DETACHED_TIME, "it waited all the same");
        }
        wait_until("the process has ended", || processes(&target).is_empty());
        let _ = other.kill();
        other.wait().unwrap();
    }
    cluster.finish().unwrap();
}

/// Whoever waits for the end of a pipe, or for a lock, does not wait for the unmount.
#[test]
fn a_mount_in_the_background_keeps_nothing_that_its_caller_had_open() {
    let cluster = cluster(1);
    let target = cluster.scratch().join("target");
    fs::create_dir(&target).unwrap();
    let source = format!("{}:/", cluster.mgr_address());
    let program = programs::find("pvfs-fuse").unwrap();
    // The shell gives descriptor 9 on; the pipe that `output` reads ends when the last has closed it.
    let script = format!(
        "exec 9>&1 1>/dev/null; {} {source} {}",
        program.display(),
        target.display()
    );
    let mut shell = Command::new("sh");
    let shell = shell
        .args(["-c", &script])
        .stderr(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    let mut rest = Vec::new();
    let mut pipe = child.stdout.take().unwrap();
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(pipe.read_to_end(&mut rest).unwrap()));
    assert!(child.wait().unwrap().success());
    let read = ended
        .recv_timeout(END_TIMEOUT)
        .expect("the background process has the pipe");
    assert_eq!(read, 0);
    umount(&target);
    wait_until("the process has ended", || processes(&target).is_empty());
    cluster.finish().unwrap();
}

#[test]
fn a_killed_mount_is_cleared_by_a_lazy_umount_and_mounted_again() {
    let mut cluster = cluster(1);
    let point = cluster.mount(0);
    let file = fs::File::create(point.join("f")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"kept", 0).unwrap();
    file.sync_all().unwrap();
    cluster.kill_mount(0).unwrap();
    wait_until("the mount is dead", || {
        fs::metadata(point.join("f")).is_err_and(|error| error.raw_os_error() == Some(107))
    });
    drop(file);
    let output = Command::new("umount")
        .arg("-l")
        .arg(&point)
        .output()
        .unwrap();
    assert!(output.status.success());
    cluster.restart_mount(0).unwrap();
    assert_eq!(fs::read(point.join("f")).unwrap(), b"kept");
    cluster.finish().unwrap();
}

#[test]
fn readahead_is_raised() {
    let cluster = cluster(1);
    let device = fs::metadata(cluster.mount(0)).unwrap().dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    assert_eq!(fs::read_to_string(path).unwrap().trim(), "8192");
    cluster.finish().unwrap();
}

#[test]
fn the_mode_decides_for_ordinary_users_and_supplementary_groups_count() {
    let cluster = cluster(1);
    let root = cluster.mount(0);
    fs::set_permissions(cluster.scratch(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = root.join("secret");
    fs::write(&file, b"x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    chown(&file, Some(0), Some(GROUP)).unwrap();
    let read = format!("cat {}", file.display());
    assert!(!as_user(&read, false).status.success());
    let output = as_user(&read, true);
    assert_eq!(
        output.stdout,
        b"x",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        !as_user(&format!("echo y >> {}", file.display()), true)
            .status
            .success()
    );
    assert!(
        !as_user(&format!("touch {}", root.join("new").display()), true)
            .status
            .success()
    );

    // A directory of the group: what is made there belongs to the user, and to the group if set-gid.
    let dir = root.join("shared");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(0), Some(GROUP)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o2775)).unwrap();
    let make = format!(
        "cd {} && echo y > f && mkdir d && chmod 2755 d",
        dir.display()
    );
    assert!(!as_user(&make, false).status.success());
    let output = as_user(&make, true);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let made = fs::metadata(dir.join("f")).unwrap();
    assert_eq!((made.uid(), made.gid()), (USER, GROUP));
    assert_eq!(fs::metadata(dir.join("d")).unwrap().mode() & 0o7777, 0o2755);

    // Names are read with the right to read; only what they stand for needs the right to search.
    let listed = root.join("listed");
    fs::create_dir(&listed).unwrap();
    fs::write(listed.join("name"), b"").unwrap();
    fs::set_permissions(&listed, fs::Permissions::from_mode(0o744)).unwrap();
    let names = as_user(&format!("ls -a {}", listed.display()), false);
    assert_eq!(names.stdout, b".\n..\nname\n");
    let name = listed.join("name");
    assert!(
        !as_user(&format!("stat {}", name.display()), false)
            .status
            .success()
    );
    cluster.finish().unwrap();
}

#[test]
fn a_write_by_an_ordinary_user_drops_set_uid_and_one_by_root_does_not() {
    let cluster = cluster(1);
    fs::set_permissions(cluster.scratch(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = cluster.mount(0).join("program");
    fs::write(&file, b"x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4777)).unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .and_then(|mut file| io::Write::write_all(&mut file, b"y"))
        .unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o4777);
    let output = as_user(&format!("echo z >> {}", file.display()), false);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o777);
    cluster.finish().unwrap();
}
