// SPDX-License-Identifier: MIT
//! Programs that wait for a daemon which is away can be ended, and nothing that was acknowledged is
//! lost by it.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cssns_tests::pvfs_cluster::{Cluster, Options, Who};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A program that has not ended by then waits.
const MOMENT: Duration = Duration::from_millis(700);
/// What a signal may take to end it: a few looks, on a busy machine.
const END_TIME_MAX: Duration = Duration::from_secs(8);

fn cluster() -> Cluster {
    let cluster = Cluster::start(Options {
        iods: 1,
        ..Options::default()
    });
    let cluster = cluster.unwrap();
    for name in ["read", "write", "sync", "grow", "trunc"] {
        fs::write(cluster.mount(0).join(name), [1; 10_000]).unwrap();
    }
    cluster
}

/// Starts a program in the mount's directory.
fn start(cluster: &Cluster, command: &str) -> Child {
    Command::new("bash")
        .args(["-c", &format!("exec {command}")])
        .current_dir(cluster.scratch())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn ends(mut child: Child, what: &str) {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < END_TIME_MAX, "{what} goes on");
        thread::sleep(Duration::from_millis(20));
    }
}

/// All of them wait, and each ends by its signal.
fn wait_until_interrupted(cluster: &Cluster, commands: &[(&str, Signal)]) {
    let started: Vec<_> = commands
        .iter()
        .map(|(command, signal)| (command, *signal, start(cluster, command)))
        .collect();
    thread::sleep(MOMENT);
    for (command, _, child) in &started {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let state = stat.rsplit_once(") ").unwrap().1.chars().next();
        assert!(matches!(state, Some('S' | 'D')), "{command}: {stat}");
    }
    for (_, by, child) in &started {
        signal(child, *by);
    }
    for (command, _, child) in started {
        ends(child, command);
    }
}

#[test]
fn a_program_that_waits_for_mgr_ends_by_a_signal() {
    let mut cluster = cluster();
    // Written and not closed: mgr does not know of it when it goes away.
    let mut unclosed = start(&cluster, "cat > mount0/unclosed");
    let mut killed = start(&cluster, "cat > mount0/killed");
    for child in [&mut unclosed, &mut killed] {
        child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"acknowledged")
            .unwrap();
    }
    let written = |name: &str| {
        let path = cluster.mount(0).join(name);
        let start = Instant::now();
        while fs::metadata(&path).is_ok_and(|attr| attr.len() < 12) {
            assert!(start.elapsed() < END_TIME_MAX);
        }
    };
    written("unclosed");
    written("killed");
    for child in [&mut unclosed, &mut killed] {
        child.stdin.as_mut().unwrap().write_all(b", too").unwrap();
    }
    thread::sleep(MOMENT);
    cluster.kill_mgr().unwrap();
    thread::sleep(MOMENT);
    wait_until_interrupted(
        &cluster,
        &[
            ("cat mount0/read", Signal::SIGINT),
            ("stat mount0/read", Signal::SIGINT),
            ("ls mount0/", Signal::SIGTERM),
            ("touch mount0/new", Signal::SIGINT),
            ("mkdir mount0/newdir", Signal::SIGQUIT),
            ("rm -f mount0/trunc", Signal::SIGINT),
            ("mv mount0/grow mount0/grown", Signal::SIGHUP),
            ("truncate -s 5 mount0/trunc", Signal::SIGKILL),
            ("flock mount0/read true", Signal::SIGINT),
            ("getfattr -n user.pvfs.base mount0/read", Signal::SIGINT),
        ],
    );
    // close(2) waits for mgr, too, as it is to hear of the size.
    drop(unclosed.stdin.take());
    thread::sleep(MOMENT);
    assert!(unclosed.try_wait().unwrap().is_none());
    signal(&unclosed, Signal::SIGINT);
    ends(unclosed, "close(2)");
    signal(&killed, Signal::SIGKILL);
    ends(killed, "the end of a killed program");
    cluster.restart_mgr().unwrap();
    for name in ["unclosed", "killed"] {
        let content = fs::read(cluster.mount(0).join(name)).unwrap();
        assert_eq!(content, b"acknowledged, too", "{name}");
    }
    assert_eq!(
        fs::read(cluster.mount(0).join("read")).unwrap().len(),
        10_000
    );
    fs::write(cluster.mount(0).join("after"), "works").unwrap();
    cluster.finish().unwrap();
}

#[test]
fn a_program_that_waits_for_an_iod_ends_by_a_signal() {
    let mut cluster = cluster();
    cluster.unmount(0).unwrap();
    cluster.restart_mount(0).unwrap();
    cluster.kill_iod(0).unwrap();
    wait_until_interrupted(
        &cluster,
        &[
            ("cat mount0/read", Signal::SIGINT),
            (
                "dd if=/dev/zero of=mount0/write conv=notrunc count=1",
                Signal::SIGTERM,
            ),
            (
                "dd if=mount0/grow iflag=direct of=/dev/null",
                Signal::SIGKILL,
            ),
            ("sync mount0/sync", Signal::SIGINT),
            ("truncate -s 5 mount0/trunc", Signal::SIGINT),
        ],
    );
    cluster.restart_iod(0).unwrap();
    assert_eq!(
        fs::read(cluster.mount(0).join("read")).unwrap(),
        [1; 10_000]
    );
    // What was interrupted may have happened, or not; and nothing is in its way.
    let cut = fs::read(cluster.mount(0).join("trunc")).unwrap();
    assert!(cut == [1; 5] || cut == [1; 10_000], "{}", cut.len());
    fs::write(cluster.mount(0).join("trunc"), "works").unwrap();
    assert_eq!(fs::read(cluster.mount(0).join("trunc")).unwrap(), b"works");
    cluster.finish().unwrap();
}

/// Whether a thread of the process can be reached by no signal.
fn has_stuck_thread(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    threads.into_iter().flatten().flatten().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('D'))
    })
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < END_TIME_MAX, "{what}: not so");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes to a page of `mount1/f`, says so by a file of this name, and stores it when told to.
const MAPPER: &str = "python3 -c 'import mmap, sys
file = open(\"mount1/f\", \"r+b\")
pages = mmap.mmap(file.fileno(), 4096)
pages[0] = 2
open(\"written\", \"w\")
sys.stdin.readline()
pages.flush()'";

/// What a mapping wrote waits for an iod that hangs; mgr hangs as well, so the mount loses its leases and
/// drops the pages, for which it waits past any signal. Then it is killed.
#[test]
fn a_mount_that_is_killed_while_it_waits_for_a_page_ends() {
    const KILLS: usize = 4;
    let mut cluster = Cluster::start(Options {
        iods: 1,
        mounts: 2,
        lease_timeout_ms: 1000,
        ..Options::default()
    })
    .unwrap();
    for round in 0..KILLS {
        fs::write(cluster.mount(0).join("f"), vec![1; 400_000]).unwrap();
        let mut mapper = start(&cluster, MAPPER);
        let written = cluster.scratch().join("written");
        until("the page is written to", || written.exists());
        fs::remove_file(written).unwrap();
        cluster.freeze(Who::Iod(0), true).unwrap();
        let stdin = mapper.stdin.as_mut().unwrap();
        stdin.write_all(b"store it\n").unwrap();
        let waits = || {
            let stack = fs::read_to_string(format!("/proc/{}/wchan", mapper.id()));
            stack.is_ok_and(|at| at.contains("folio") || at.contains("page"))
        };
        until("it waits for the page", waits);
        cluster.freeze(Who::Mgr, true).unwrap();
        let process = cluster.mount_pid(1).unwrap();
        until("a thread of the mount does", || has_stuck_thread(process));
        // Returns when all its threads have ended.
        let start = Instant::now();
        cluster.kill_mount(1).unwrap();
        assert!(start.elapsed() < END_TIME_MAX, "round {round}");
        ends(mapper, &format!("the mapper of round {round}"));
        let error = fs::read(cluster.mount(1).join("f")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTCONN));
        cluster.freeze(Who::Mgr, false).unwrap();
        cluster.freeze(Who::Iod(0), false).unwrap();
        cluster.restart_mount(1).unwrap();
        assert_eq!(fs::read(cluster.mount(1).join("f")).unwrap().len(), 400_000);
    }
    cluster.finish().unwrap();
}

/// Reads on one mount what another writes, so that pages are dropped all the time, and kills the
/// process of the reading one: programs on it end, and do not hang past any signal.
#[test]
fn programs_on_a_mount_whose_process_is_killed_do_not_hang() {
    const KILLS: u64 = 8;
    let mut cluster = Cluster::start(Options {
        iods: 1,
        mounts: 2,
        lease_timeout_ms: 1000,
        ..Options::default()
    })
    .unwrap();
    fs::write(cluster.mount(0).join("f"), vec![1; 400_000]).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    for round in 0..KILLS {
        let path = |mount: usize| cluster.mount(mount).join("f").display().to_string();
        let write = format!(
            "bash -c 'while dd if=/dev/zero of={} bs=8k count=9 oflag=direct conv=notrunc; do :; done'",
            path(0)
        );
        let read = format!("bash -c 'while cat {}; do :; done'", path(1));
        let others = [start(&cluster, &write)];
        let doomed = [(); 3].map(|()| start(&cluster, &read));
        thread::sleep(Duration::from_millis(300 + random.u64(..200)));
        cluster.kill_mount(1).unwrap();
        for child in doomed {
            // Its programs get ENOTCONN; what could hang is within the kernel.
            ends(child, &format!("a program of round {round}"));
        }
        for mut child in others {
            child.kill().unwrap();
            ends(child, "a program on the other mount");
        }
        cluster.restart_mount(1).unwrap();
        assert_eq!(fs::read(cluster.mount(1).join("f")).unwrap().len(), 400_000);
    }
    cluster.finish().unwrap();
}

/// Looking at a program whose call waits must not wait for that program. An execve(2) closes files, which
/// waits for mgr where they were written to, and holds a lock meanwhile that files of /proc wait for.
#[test]
fn a_program_that_starts_another_while_mgr_is_away_goes_on() {
    let cluster = cluster();
    let path = cluster.mount(0).join("exec");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"mgr has not heard of this").unwrap();
    cluster.freeze(Who::Mgr, true).unwrap();
    // The program that is started closes its copy of the descriptor.
    let starter = thread::spawn(|| Command::new("true").status().unwrap());
    // It is looked at several times meanwhile.
    thread::sleep(3 * MOMENT);
    assert!(!starter.is_finished(), "nothing is waited for");
    cluster.freeze(Who::Mgr, false).unwrap();
    let start = Instant::now();
    while !starter.is_finished() {
        assert!(start.elapsed() < END_TIME_MAX, "it hangs");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(starter.join().unwrap().success());
    drop(file);
    cluster.finish().unwrap();
}
