// SPDX-License-Identifier: MIT
//! What others wrote, on a mount of three iods: pjdfstest (POSIX call by call), fsx (random operations
//! on one file against its own model), and programs that people use.
//!
//! `make setup-test` installs them; a test does not skip what is not there, it fails.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cssns_tests::mount_helper::MountHelper;
use cssns_tests::pvfs_cluster::{Cluster, Options};

/// Operations of fsx in each of its tests; `make test-posix` asks for a million.
const FSX_OPERATIONS_VARIABLE: &str = "FSX_OPERATIONS";
const FSX_OPERATIONS: usize = 6000;
/// The most operations of one run: fsx 0.3.2 never unmaps what it has read through a mapping, and the kernel
/// gives a process 65,530 mappings (vm.max_map_count), which is some 370,000 operations of these weights.
const FSX_OPERATIONS_OF_A_RUN: usize = 300_000;
/// How long a file stays with one mount before it is opened through the other.
const TURN: Duration = Duration::from_millis(20);

/// All optional features that Linux has and docs/SEMANTICS.md does not exclude, and two ordinary users
/// that Debian always has.
const PJDFSTEST: &str = "\
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = ALLOW_REMOUNT
[dummy_auth]
entries = [ [\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"] ]
";

/// Everything that fsx can do, more often what this file system does itself. Nothing of no bytes: fsx
/// 0.3.2 would reserve them too, which is EINVAL everywhere, and take that for a want of posix_fallocate.
const FSX: &str = "\
flen = 1000000
[opsize]
max = 32768
min = 1
[weights]
close_open = 2
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 3
fsync = 1
fdatasync = 1
posix_fallocate = 2
punch_hole = 5
sendfile = 5
posix_fadvise = 1
copy_file_range = 5
";

/// A program that cargo installed, wherever it is told to put them.
fn suite(name: &str) -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = home.map(|home| home.join("bin"));
    let mut directories = directories.into_iter().chain(std::env::split_paths(&path));
    directories
        .find_map(|directory| Some(directory.join(name)).filter(|file| file.is_file()))
        .unwrap_or_else(|| panic!("{name} is not installed: `make setup-test` does it"))
}

fn cluster(mounts: usize) -> Cluster {
    Cluster::start(Options {
        mounts,
        ..Options::default()
    })
    .unwrap()
}

/// The tests that docs/SEMANTICS.md lists as not applying, by the beginnings of their names.
fn excluded() -> Vec<String> {
    let document = include_str!("../../docs/SEMANTICS.md");
    let (_, rest) = document
        .split_once("| pjdfstest does not run | because |")
        .expect("the table of exclusions");
    let rows = rest
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| {
        let cell = row.split('|').nth(1).unwrap_or_default();
        let names: Vec<String> = cell
            .split(',')
            .map(|name| name.trim().trim_matches('`').to_owned())
            .collect();
        names
    })
    .collect()
}

/// What one run of pjdfstest passed and skipped; it must have failed nothing.
fn pjdfstest(cluster: &Cluster, remounts: bool, only: &[&str]) -> (Vec<String>, Vec<String>) {
    let place = cluster.mount(0).join("pjdfstest");
    let configuration = cluster.scratch().join("pjdfstest.toml");
    let allowed = PJDFSTEST.replace("ALLOW_REMOUNT", &remounts.to_string());
    fs::write(&configuration, allowed).unwrap();
    let output = Command::new(suite("pjdfstest"))
        .arg("-c")
        .arg(&configuration)
        .arg("-p")
        .arg(&place)
        .args(["-s", "/dev/shm", "--"])
        .args(only)
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let of = |outcome: &'static str| {
        let lines = text.lines().filter(|line| line.contains("::"));
        let lines = lines.filter_map(move |line| line.strip_suffix(outcome));
        lines.map(|line| line.trim().to_owned()).collect()
    };
    (of(" ok"), of(" skipped"))
}

/// The cases of read-only file systems run apart, before all others: some of the suite's cases leave
/// removed files open, and then no file system can be remounted read-only (nor can tmpfs).
#[test]
fn pjdfstest_finds_nothing() {
    // Its cases are about privileges and devices too.
    let cluster = Cluster::start(Options {
        mount_options: "allow_other,suid,dev".into(),
        ..Options::default()
    })
    .unwrap();
    let place = cluster.mount(0).join("pjdfstest");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    // Ordinary users go through it.
    fs::set_permissions(cluster.scratch(), fs::Permissions::from_mode(0o755)).unwrap();
    // What mount(8) calls for a remount.
    let _helper = MountHelper::install().unwrap();
    let (mut passed, _) = pjdfstest(&cluster, true, &["erofs"]);
    let (others, skipped) = pjdfstest(&cluster, false, &[]);
    passed.extend(others);
    assert!(passed.len() > 390, "only {} ran", passed.len());
    let excluded = excluded();
    for name in skipped.iter().filter(|name| !passed.contains(name)) {
        let listed = excluded
            .iter()
            .any(|start| name.starts_with(start.as_str()));
        assert!(
            listed,
            "{name} does not run, and docs/SEMANTICS.md does not say why"
        );
    }
    cluster.finish().unwrap();
}

/// All operations of fsx on `file`, in as many runs as it takes, each with the next seed; it writes what
/// it finds into `scratch`. An error says which run found a difference.
fn fsx(file: &Path, scratch: &Path, first_seed: usize) -> Result<(), String> {
    let configuration = scratch.join("fsx.toml");
    fs::write(&configuration, FSX).map_err(|error| error.to_string())?;
    let total: usize = match std::env::var(FSX_OPERATIONS_VARIABLE) {
        Ok(total) => total.parse().map_err(|_| format!("{total} operations"))?,
        Err(_) => FSX_OPERATIONS,
    };
    for (seed, done) in (first_seed..).zip((0..total).step_by(FSX_OPERATIONS_OF_A_RUN)) {
        let operations = FSX_OPERATIONS_OF_A_RUN.min(total - done);
        let status = Command::new(suite("fsx"))
            .arg("-f")
            .arg(&configuration)
            .args(["-N", &operations.to_string()])
            .args(["-S", &seed.to_string()])
            .arg("-P")
            .arg(scratch)
            .arg(file)
            .stdout(Stdio::null())
            .status()
            .map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!(
                "{operations} operations from seed {seed}: {status}"
            ));
        }
    }
    Ok(())
}

#[test]
fn fsx_finds_no_difference_on_one_mount() {
    let cluster = cluster(1);
    fsx(&cluster.mount(0).join("fsx"), cluster.scratch(), 1).unwrap();
    cluster.finish().unwrap();
}

/// fsx closes and opens its file by name time and again: the name leads to one mount and the other
/// in turn.
#[test]
fn fsx_finds_no_difference_on_two_mounts_in_turn() {
    let cluster = cluster(2);
    let name = cluster.scratch().join("turn");
    let point = |mount: usize| {
        let new = cluster.scratch().join("turn.new");
        symlink(cluster.mount(mount).join("fsx"), &new).unwrap();
        fs::rename(&new, &name).unwrap();
    };
    point(0);
    let over = AtomicBool::new(false);
    let (outcome, turns) = std::thread::scope(|scope| {
        let turning = scope.spawn(|| {
            let mut turns = 0;
            while !over.load(Ordering::Relaxed) {
                turns += 1;
                point(turns % 2);
                std::thread::sleep(TURN);
            }
            turns
        });
        let outcome = fsx(&name, cluster.scratch(), 1001);
        over.store(true, Ordering::Relaxed);
        (outcome, turning.join().unwrap())
    });
    outcome.unwrap();
    assert!(turns > 10, "it stayed with one mount");
    cluster.finish().unwrap();
}

fn shell(directory: &Path, script: &str) -> String {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "t")
        .env("GIT_AUTHOR_EMAIL", "t@example.org")
        .env("GIT_COMMITTER_NAME", "t")
        .env("GIT_COMMITTER_EMAIL", "t@example.org")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{stdout}\n{stderr}");
    stdout
}

/// A tree with all that archives and copies know: links, holes, modes, times, attributes, lists.
const TREE: &str = "\
mkdir -p tree/sub/deep 'tree/with space'
for n in $(seq 40); do seq $n $((n * 300)) > tree/sub/file$n; done
ln tree/sub/file1 tree/hard
ln -s sub/file2 tree/soft
ln -s /nowhere/at/all tree/dangling
truncate -s 3M tree/sparse && printf x | dd of=tree/sparse bs=1 seek=2000000 conv=notrunc status=none
mkfifo tree/fifo
chmod 4751 tree/sub/file3; chmod 2770 'tree/with space'
touch -d '2001-02-03 04:05:06.123456789' tree/sub/file4
setfattr -n user.note -v hello tree/sub/file5
setfacl -m u:65534:r tree/sub/file6
setfacl -d -m g:65534:rwx tree/sub/deep
chown 65534:65534 tree/sub/file7
";

#[test]
fn git_clones_checks_out_and_collects() {
    let cluster = cluster(2);
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    shell(&here, TREE);
    shell(
        &here,
        "cd tree && rm fifo && rmdir sub/deep 'with space' && git init -q && git add -A && git commit -qm one \
            && git gc -q &&
         for n in $(seq 30); do echo $n >> sub/file$n; git commit -qam $n; done",
    );
    shell(
        &there,
        "git clone -q --no-local tree clone && cd clone && git fsck --strict --no-progress &&
         git checkout -q HEAD~15 && git checkout -q - && git gc -q --prune=now &&
         git fsck --strict --no-progress && git status --porcelain=v1 | wc -l | grep -qx 0",
    );
    // What one node made, the other takes.
    let log = "git -C clone log --format=%H && git -C clone diff --stat HEAD";
    assert_eq!(shell(&here, log), shell(&there, log));
    shell(&here, "diff -r --no-dereference -x .git tree clone");
    cluster.finish().unwrap();
}

#[test]
fn tar_and_rsync_bring_everything_there_and_back() {
    let cluster = cluster(2);
    let (here, there, local) = (
        cluster.mount(0),
        cluster.mount(1),
        cluster.scratch().join("local"),
    );
    fs::create_dir(&local).unwrap();
    shell(&local, TREE);
    let (from, to) = (local.display(), here.display());
    shell(&local, &format!("rsync -aHAX --sparse tree {to}/"));
    // Nothing is left to do by content and by everything else.
    let again = format!(
        "rsync -aHAX --checksum --itemize-changes {from}/tree {}/",
        there.display()
    );
    assert_eq!(shell(&local, &again), "");
    let back = format!(
        "rsync -aHAX --checksum {}/tree back/ && cd back &&
                        rsync -aHAX --checksum --itemize-changes {from}/tree ./",
        there.display()
    );
    assert_eq!(shell(&local, &format!("mkdir back && {back}")), "");
    let tar = "tar --create --sparse --acls --xattrs --file archive.tar tree && mkdir unpacked &&
               tar --extract --acls --xattrs --xattrs-include='*' --same-owner --file archive.tar --directory unpacked";
    shell(&there, tar);
    let compare = format!("rsync -aHAX --checksum --itemize-changes {to}/unpacked/tree ./");
    assert_eq!(shell(&local, &compare), "");
    let blocks = shell(&there, "stat -c %b unpacked/tree/sparse");
    assert!(
        blocks.trim().parse::<u64>().unwrap() < 1000,
        "holes stay holes: {blocks}"
    );
    cluster.finish().unwrap();
}

#[test]
fn cargo_builds_and_runs_a_program() {
    let cluster = cluster(1);
    let project = cluster.mount(0).join("hello");
    fs::create_dir_all(project.join("src")).unwrap();
    let manifest =
        "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(project.join("Cargo.toml"), manifest).unwrap();
    fs::write(
        project.join("src/lib.rs"),
        "pub fn greeting() -> &'static str { \"hello\" }\n",
    )
    .unwrap();
    let main = "fn main() { println!(\"{}\", hello::greeting()) }\n";
    fs::write(project.join("src/main.rs"), main).unwrap();
    let build = "env -u CARGO_TARGET_DIR cargo build -q --offline && target/debug/hello &&
                 touch src/lib.rs && env -u CARGO_TARGET_DIR cargo run -q --offline";
    assert_eq!(shell(&project, build), "hello\nhello\n");
    cluster.finish().unwrap();
}

/// Programs that load a file system and check what they read; minutes, so `make test-posix` runs them.
#[test]
#[ignore = "minutes: `make test-posix` runs it"]
fn stressing_programs_find_nothing() {
    let cluster = cluster(2);
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    shell(
        &here,
        "fio --name=v --size=64m --bs=64k --rw=randwrite --verify=crc32c --do_verify=1 --verify_fatal=1 \
         --ioengine=psync --numjobs=2 --group_reporting --fsync=64 --directory=.",
    );
    shell(&there, "dbench --directory=. --timelimit=20 4");
    // Not binderfs: it mounts that file system, which not every kernel has, and looks at no other.
    shell(
        &here,
        "stress-ng --class filesystem --exclude binderfs --seq 1 --timeout 1 --verify --temp-path .",
    );
    cluster.finish().unwrap();
}
