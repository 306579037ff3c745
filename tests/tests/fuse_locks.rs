// SPDX-License-Identifier: MIT
//! What docs/SEMANTICS.md promises of fcntl's and flock's locks, on two and three mounts.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LEASE_TIMEOUT_MS: u32 = 4000;
/// Long enough for anything on a busy machine; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);
/// What must not happen is waited for so long.
const MOMENT: Duration = Duration::from_millis(400);

fn mounts(mounts: usize) -> Cluster {
    let cluster = Cluster::start(Options {
        mounts,
        lease_timeout_ms: LEASE_TIMEOUT_MS,
        ..Options::default()
    });
    let cluster = cluster.unwrap();
    fs::write(cluster.mount(0).join("f"), [0; 64]).unwrap();
    cluster
}

fn open(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// A process that locks as it is told.
struct Locker {
    child: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl Locker {
    fn of(path: &Path) -> Self {
        let mut child = Command::new(programs::find("lock-holder").unwrap())
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            input,
            answers,
        }
    }

    fn begin(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    fn answer(&self) -> String {
        self.answers.recv_timeout(PATIENCE).unwrap()
    }

    fn ask(&mut self, command: &str) -> String {
        self.begin(command);
        self.answer()
    }

    fn still_waits(&self) -> bool {
        self.answers.recv_timeout(MOMENT) == Err(RecvTimeoutError::Timeout)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Sends a signal and waits for the process' end.
    fn end_by(mut self, signal: Signal) {
        let start = Instant::now();
        kill(self.pid(), signal).unwrap();
        self.child.wait().unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{signal} took long"
        );
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Random ranges through descriptors of three nodes, against an array of bytes.
#[test]
fn ranges_on_three_nodes_are_what_single_bytes_would_be() {
    const BYTES: usize = 16;
    const STEPS: usize = 900;
    let cluster = mounts(3);
    let files: Vec<File> = (0..6)
        .map(|owner| open(&cluster.mount(owner % 3).join("f")))
        .collect();
    let mut held = [[None; BYTES]; 6];
    let mut random = fastrand::Rng::with_seed(7);
    let mut refused = 0;
    for step in 0..STEPS {
        let owner = random.usize(..6);
        let (a, b) = (random.usize(..BYTES), random.usize(..BYTES));
        let (start, last) = (a.min(b), a.max(b));
        let kind = [libc::F_UNLCK, libc::F_RDLCK, libc::F_WRLCK][random.usize(..3)];
        let lock = libc::flock {
            l_type: kind as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: start as i64,
            // To the end of everything, now and then.
            l_len: if last + 1 == BYTES {
                0
            } else {
                (last - start + 1) as i64
            },
            l_pid: 0,
        };
        let clashes = kind != libc::F_UNLCK
            && (0..6).filter(|other| *other != owner).any(|other: usize| {
                let bytes = held[other][start..=last].iter().flatten();
                bytes
                    .into_iter()
                    .any(|had| *had == libc::F_WRLCK || kind == libc::F_WRLCK)
            });
        if kind != libc::F_UNLCK {
            let mut asked = lock;
            fcntl(files[owner].as_fd(), FcntlArg::F_OFD_GETLK(&mut asked)).unwrap();
            let found = i32::from(asked.l_type) != libc::F_UNLCK;
            assert_eq!(found, clashes, "step {step}: {asked:?}");
        }
        let outcome = fcntl(files[owner].as_fd(), FcntlArg::F_OFD_SETLK(&lock)).map(drop);
        let expected = if clashes { Err(Errno::EAGAIN) } else { Ok(()) };
        assert_eq!(outcome, expected, "step {step}: {lock:?} of {owner}");
        refused += usize::from(clashes);
        if !clashes {
            held[owner][start..=last].fill((kind != libc::F_UNLCK).then_some(kind));
        }
    }
    assert!(
        refused > STEPS / 10 && refused < STEPS * 9 / 10,
        "{refused}"
    );
    drop(files);
    // The last close has unlocked everything, some time soon.
    let mut other = Locker::of(&cluster.mount(1).join("f"));
    assert_eq!(other.ask("posix 0 15 exclusive wait"), "ok");
    drop(other);
    cluster.finish().unwrap();
}

#[test]
fn a_process_is_named_on_its_machine_and_loses_its_locks_with_any_close() {
    let cluster = mounts(2);
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    let (mut holder, mut neighbour) = (Locker::of(&here), Locker::of(&here));
    let mut stranger = Locker::of(&there);
    assert_eq!(holder.ask("posix 10 19 exclusive try"), "ok");
    assert_eq!(holder.ask("test 0 99"), "free");
    let named = format!("exclusive 10 19 {}", holder.pid());
    assert_eq!(neighbour.ask("test 0 99"), named);
    // Whoever asks through another mount of this machine knows that number, too.
    assert_eq!(stranger.ask("test 0 99"), named);
    assert_eq!(stranger.ask("posix 0 12 shared try"), "EAGAIN");
    assert_eq!(stranger.ask("posix 0 9 exclusive try"), "ok");
    assert_eq!(holder.ask("posix 14 14 none try"), "ok");
    assert_eq!(stranger.ask("posix 14 14 exclusive try"), "ok");
    assert_eq!(neighbour.ask("test 15 99"), named.replace("10 19", "15 19"));
    stranger.begin("posix 15 15 shared wait");
    assert!(stranger.still_waits());
    assert_eq!(holder.ask("again"), "ok");
    assert_eq!(stranger.answer(), "ok");
    // So does the end of the process, whatever its kind.
    stranger.end_by(Signal::SIGKILL);
    assert_eq!(neighbour.ask("posix 0 99 exclusive wait"), "ok");
    drop((holder, neighbour));
    cluster.finish().unwrap();
}

#[test]
fn flock_and_fcntl_do_not_meet_and_flock_changes_its_kind() {
    let cluster = mounts(2);
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    let (mut first, mut second) = (Locker::of(&here), Locker::of(&there));
    assert_eq!(first.ask("flock exclusive try"), "ok");
    assert_eq!(second.ask("flock shared try"), "EAGAIN");
    assert_eq!(second.ask("posix 0 99 exclusive try"), "ok");
    assert_eq!(first.ask("ofd 50 50 shared try"), "EAGAIN");
    assert_eq!(first.ask("flock shared try"), "ok");
    assert_eq!(second.ask("flock shared wait"), "ok");
    // Both want more: each gives up what it has first, so neither waits for ever.
    first.begin("flock exclusive wait");
    assert!(first.still_waits());
    second.begin("flock exclusive wait");
    assert_eq!(first.answer(), "ok");
    assert_eq!(first.ask("flock none try"), "ok");
    assert_eq!(second.answer(), "ok");
    // util-linux' flock(1), which waits for it on the other node.
    let mut program = Command::new("flock")
        .arg(&here)
        .args(["-c", "echo locked"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(MOMENT);
    assert!(program.try_wait().unwrap().is_none());
    drop(second);
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout == b"locked\n");
    drop(first);
    cluster.finish().unwrap();
}

#[test]
fn processes_that_wait_for_each_other_in_a_circle_are_told() {
    let cluster = mounts(3);
    let mut lockers: Vec<Locker> = (0..3)
        .map(|node| Locker::of(&cluster.mount(node).join("f")))
        .collect();
    for (number, locker) in lockers.iter_mut().enumerate() {
        let own = format!("posix {number} {number} exclusive try");
        assert_eq!(locker.ask(&own), "ok");
    }
    lockers[0].begin("posix 1 1 exclusive wait");
    assert!(lockers[0].still_waits());
    lockers[1].begin("posix 2 2 exclusive wait");
    assert!(lockers[1].still_waits());
    assert_eq!(lockers[2].ask("posix 0 0 shared wait"), "EDEADLK");
    assert_eq!(lockers[2].ask("posix 2 2 none try"), "ok");
    assert_eq!(lockers[1].answer(), "ok");
    drop(lockers);
    cluster.finish().unwrap();
}

/// Nobody caches what was read before the lock, and nobody's increment is lost.
#[test]
fn a_counter_under_a_lock_loses_nothing() {
    const ROUNDS: u64 = 40;
    let cluster = mounts(3);
    let workers: Vec<_> = (0..6)
        .map(|worker| {
            let path = cluster.mount(worker % 3).join("f");
            thread::spawn(move || {
                let file = open(&path);
                for round in 0..ROUNDS {
                    let mut locked = libc::flock {
                        l_type: libc::F_WRLCK as i16,
                        l_whence: libc::SEEK_SET as i16,
                        l_start: 1000,
                        l_len: 1,
                        l_pid: 0,
                    };
                    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLKW(&locked)).unwrap();
                    let mut bytes = [0; 8];
                    file.read_exact_at(&mut bytes, 0).unwrap();
                    let next = u64::from_le_bytes(bytes) + 1;
                    file.write_all_at(&next.to_le_bytes(), 0).unwrap();
                    locked.l_type = libc::F_UNLCK as i16;
                    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&locked)).unwrap();
                    assert!(next > round);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let counted = fs::read(cluster.mount(1).join("f")).unwrap();
    assert_eq!(counted[..8], (6 * ROUNDS).to_le_bytes());
    cluster.finish().unwrap();
}

#[test]
fn locks_and_waiting_survive_a_restart_of_mgr() {
    let mut cluster = mounts(3);
    let mut lockers: Vec<Locker> = (0..3)
        .map(|node| Locker::of(&cluster.mount(node).join("f")))
        .collect();
    assert_eq!(lockers[0].ask("posix 0 9 exclusive try"), "ok");
    assert_eq!(lockers[0].ask("flock shared try"), "ok");
    lockers[1].begin("posix 5 5 shared wait");
    assert!(lockers[1].still_waits());
    cluster.kill_mgr().unwrap();
    // What is asked while mgr is away is answered when all have come back.
    lockers[2].begin("posix 9 9 exclusive try");
    assert!(lockers[2].still_waits());
    cluster.restart_mgr().unwrap();
    assert_eq!(lockers[2].answer(), "EAGAIN");
    assert_eq!(lockers[2].ask("flock exclusive try"), "EAGAIN");
    let named = format!("exclusive 0 9 {}", lockers[0].pid());
    assert_eq!(lockers[2].ask("test 0 99"), named);
    assert!(lockers[1].still_waits());
    assert_eq!(lockers[0].ask("posix 0 9 none try"), "ok");
    assert_eq!(lockers[1].answer(), "ok");
    drop(lockers);
    cluster.finish().unwrap();
}

#[test]
fn locks_of_a_node_that_is_gone_or_hangs_go_to_who_waits() {
    let mut cluster = mounts(3);
    let path = cluster.mount(1).join("f");
    let (mut holder, mut waiter) = (Locker::of(&path), Locker::of(&cluster.mount(0).join("f")));
    assert_eq!(holder.ask("posix 0 9 exclusive try"), "ok");
    waiter.begin("posix 0 9 exclusive wait");
    assert!(waiter.still_waits());
    cluster.freeze_mount(1, true).unwrap();
    assert_eq!(waiter.answer(), "ok");
    cluster.freeze_mount(1, false).unwrap();
    // It finds out, and no longer trusts what it believed to have protected.
    let start = Instant::now();
    while holder.ask("posix 20 20 exclusive try") != "ENOLCK" {
        assert!(start.elapsed() < PATIENCE);
    }
    // Its last attempt before that may have succeeded.
    assert_eq!(waiter.ask("posix 21 21 exclusive try"), "ok");
    // With the close all is well again.
    assert_eq!(holder.ask("again"), "ok");
    assert_eq!(holder.ask("posix 30 30 exclusive try"), "ok");
    let named = format!("exclusive 0 9 {}", waiter.pid());
    assert_eq!(holder.ask("test 0 9"), named);
    // A killed node's locks go the same way.
    waiter.begin("posix 30 30 shared wait");
    assert!(waiter.still_waits());
    cluster.kill_mount(1).unwrap();
    assert_eq!(waiter.answer(), "ok");
    drop((holder, waiter));
    cluster.restart_mount(1).unwrap();
    cluster.finish().unwrap();
}

#[test]
fn io_under_a_lost_lock_fails() {
    let cluster = mounts(2);
    let path = cluster.mount(1).join("f");
    let file = open(&path);
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 10,
        l_pid: 0,
    };
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    file.write_all_at(&[1], 0).unwrap();
    let mut waiter = Locker::of(&cluster.mount(0).join("f"));
    waiter.begin("posix 0 9 exclusive wait");
    assert!(waiter.still_waits());
    cluster.freeze_mount(1, true).unwrap();
    assert_eq!(waiter.answer(), "ok");
    cluster.freeze_mount(1, false).unwrap();
    // Though it has not heard of its loss yet, nothing of it comes through.
    let error = file.write_all_at(&[2], 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    let other = fs::read(cluster.mount(0).join("f")).unwrap();
    assert_eq!(other[0], 1);
    // Another descriptor of the same file knows nothing of that lock.
    open(&path).write_all_at(&[3], 20).unwrap();
    let mut unlock = lock;
    unlock.l_type = libc::F_UNLCK as i16;
    unlock.l_len = 0;
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&unlock)).unwrap();
    file.write_all_at(&[4], 30).unwrap();
    drop((file, waiter));
    cluster.finish().unwrap();
}

#[test]
fn who_waits_for_a_lock_can_be_interrupted_and_has_got_nothing() {
    let cluster = mounts(2);
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    let mut holder = Locker::of(&here);
    assert_eq!(holder.ask("posix 0 9 exclusive try"), "ok");
    assert_eq!(holder.ask("flock exclusive try"), "ok");
    for (command, signal) in [
        ("posix 0 9 exclusive wait", Signal::SIGINT),
        ("ofd 5 5 shared wait", Signal::SIGTERM),
        ("flock exclusive wait", Signal::SIGKILL),
    ] {
        let mut waiter = Locker::of(&there);
        waiter.begin(command);
        assert!(waiter.still_waits());
        waiter.end_by(signal);
    }
    assert_eq!(holder.ask("posix 0 9 none try"), "ok");
    assert_eq!(holder.ask("flock none try"), "ok");
    let mut next = Locker::of(&there);
    assert_eq!(next.ask("posix 0 9 exclusive try"), "ok");
    assert_eq!(next.ask("flock exclusive try"), "ok");
    // Stopping and going on ends no waiting.
    holder.begin("posix 0 9 exclusive wait");
    assert!(holder.still_waits());
    kill(holder.pid(), Signal::SIGSTOP).unwrap();
    thread::sleep(MOMENT);
    kill(holder.pid(), Signal::SIGCONT).unwrap();
    assert!(holder.still_waits());
    assert_eq!(next.ask("posix 0 9 none try"), "ok");
    assert_eq!(holder.answer(), "ok");
    drop((holder, next));
    cluster.finish().unwrap();
}

/// The database is told to wait for locks for so long, milliseconds.
const SQLITE_TIMEOUT_MS: u32 = 120_000;

fn sqlite(database: &Path, statements: &str) -> Command {
    let mut command = Command::new("sqlite3");
    command
        .args(["-bail", "-cmd", &format!(".timeout {SQLITE_TIMEOUT_MS}")])
        .arg(database)
        .arg(statements)
        .stdout(Stdio::piped());
    command
}

fn sqlite_says(database: &Path, statements: &str) -> String {
    let output = sqlite(database, statements).output().unwrap();
    assert!(output.status.success(), "{statements}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// SQLite in its default journal mode (DELETE), and with exclusive locking.
#[test]
fn a_database_is_updated_from_three_nodes_and_loses_nothing() {
    const TRANSACTIONS: usize = 12;
    let cluster = mounts(3);
    let database = |mount: usize| cluster.mount(mount).join("db");
    let made = sqlite_says(
        &database(0),
        "pragma journal_mode; create table t (k integer primary key, n integer, who text); \
         insert into t values (1, 0, '');",
    );
    assert_eq!(made, "delete");
    // Read and changed in one transaction each: an update that is lost shows in the sum.
    let one = "begin immediate; update t set n = n + 1 where k = 1; \
               insert into t (n, who) select n, 'x' from t where k = 1; commit;";
    let running: Vec<Child> = (0..6)
        .map(|process| {
            sqlite(&database(process % 3), &one.repeat(TRANSACTIONS))
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in running {
        assert!(child.wait().unwrap().success());
    }
    // Who wants the database for itself gets it when the others are done, and not before.
    let alone = format!(
        "pragma locking_mode = exclusive; {}",
        one.repeat(TRANSACTIONS)
    );
    assert_eq!(sqlite_says(&database(1), &alone), "exclusive");
    let counted = (7 * TRANSACTIONS).to_string();
    for mount in 0..3 {
        let sum = "select n from t where k = 1; select count(distinct n) from t where k > 1; \
                   pragma integrity_check;";
        let expected = format!("{counted}\n{counted}\nok");
        assert_eq!(sqlite_says(&database(mount), sum), expected);
    }
    cluster.finish().unwrap();
}
