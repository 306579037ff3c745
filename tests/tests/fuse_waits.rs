// SPDX-License-Identifier: MIT
//! Whoever needs an iod or mgr that is away waits, and nobody else does, however many wait.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cssns_tests::programs;
use cssns_tests::proxy::Mood;
use cssns_tests::pvfs_cluster::fill;
use cssns_tests::pvfs_cluster::{Cluster, Options, SmallDisk, Who};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::mount::{MsFlags, mount};

/// Many more than there are session threads, or requests that Linux has under way by default.
const WAITERS: usize = 500;
/// What does not need the iod that is away takes no longer, with a busy machine's share. Without the
/// fault it takes some tenths of a second.
const OTHERS_TIME_MAX: Duration = Duration::from_secs(20);
/// A thread that only waits.
const STACK_BYTES: usize = 64 << 10;
const FILE_BYTES: usize = 8 << 10;
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Two nodes and three iods; files in `a` lie on the first iod, those in `b` on the second.
fn cluster(proxied: bool) -> Cluster {
    cluster_of(Options {
        mounts: 2,
        proxied,
        ..Options::default()
    })
}

fn cluster_of(options: Options) -> Cluster {
    let cluster = Cluster::start(options).unwrap();
    for (name, base) in [("a", "0"), ("b", "1")] {
        let directory = cluster.mount(0).join(name);
        fs::create_dir(&directory).unwrap();
        let status = Command::new(programs::find("pvfs").unwrap())
            .args(["layout", "set", "--pcount", "1", "--base", base])
            .arg(&directory)
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }
    cluster
}

fn content(number: usize) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(number % 251).unwrap(); FILE_BYTES];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    bytes
}

/// Requests that the kernel has under way on a mount.
fn under_way(connection: u32) -> usize {
    let path = format!("{CONNECTIONS}/{connection}/waiting");
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

fn connection_of(mountpoint: &Path) -> u32 {
    if fs::read_dir(CONNECTIONS).unwrap().next().is_none() {
        let none = None::<&str>;
        mount(none, CONNECTIONS, Some("fusectl"), MsFlags::empty(), none).unwrap();
    }
    nix::libc::minor(fs::metadata(mountpoint).unwrap().dev())
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < OTHERS_TIME_MAX, "not so: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let thread = thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(work).unwrap()
}

/// Does `work` in time.
fn in_time(what: &str, work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = channel();
    let worker = thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    let start = Instant::now();
    let outcome = is_done.recv_timeout(OTHERS_TIME_MAX);
    assert!(
        outcome.is_ok(),
        "{what}: {:?} and going on",
        start.elapsed()
    );
    worker.join().unwrap();
    eprintln!("{what}: {:?}", start.elapsed());
}

/// What a user of a mount does elsewhere.
fn work_elsewhere(root: &Path, tag: &str) {
    for number in 0..10 {
        let path = root.join("b").join(format!("{tag}{number}"));
        fs::write(&path, content(number)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content(number));
        File::open(&path).unwrap().sync_all().unwrap();
        assert!(fs::read_dir(root.join("a")).unwrap().count() > 0);
        assert!(fs::read_dir(root.join("b")).unwrap().count() > 0);
        fs::rename(&path, root.join("b").join("renamed")).unwrap();
        fs::remove_file(root.join("b").join("renamed")).unwrap();
        fs::metadata(root.join("a/99")).unwrap();
    }
}

/// What may be done to files whose content is not needed, each to files of its own.
fn change_names(root: &Path, first: usize) {
    let path = |number: usize| root.join("a").join(number.to_string());
    for number in first..first + 5 {
        fs::set_permissions(path(number), Permissions::from_mode(0o600)).unwrap();
    }
    for number in first + 5..first + 10 {
        fs::remove_file(path(number)).unwrap();
    }
    for number in first + 10..first + 15 {
        let new = root.join("a").join("new");
        fs::File::create(&new).unwrap();
        fs::rename(&new, path(number)).unwrap();
    }
}

/// How an iod is away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    Stopped,
    Dead,
    Silent,
}

fn set_away(cluster: &mut Cluster, how: Away, away: bool) {
    let iod = Who::Iod(0);
    match (how, away) {
        (Away::Stopped, _) => cluster.freeze(iod, away).unwrap(),
        (Away::Dead, true) => cluster.kill(iod).unwrap(),
        (Away::Dead, false) => cluster.restart(iod).unwrap(),
        (Away::Silent, true) => cluster.link(iod).unwrap().set(Mood::Still),
        (Away::Silent, false) => cluster.link(iod).unwrap().set(Mood::Well),
    }
}

fn readers_of_one_iod_stop_nobody_else(how: Away) {
    let mut cluster = cluster(how == Away::Silent);
    let [here, there] = [0, 1].map(|mount| cluster.mount(mount));
    for number in 0..WAITERS {
        fs::write(here.join("a").join(number.to_string()), content(number)).unwrap();
    }
    // Their names and attributes are known there, but none of their bytes.
    assert_eq!(fs::read_dir(there.join("a")).unwrap().count(), WAITERS);
    let connection = connection_of(&there);
    set_away(&mut cluster, how, true);
    let readers: Vec<_> = (0..WAITERS)
        .map(|number| {
            let path = there.join("a").join(number.to_string());
            spawn(move || fs::read(path).unwrap())
        })
        .collect();
    until("all wait", || under_way(connection) >= WAITERS);
    for (root, tag, first) in [(&there, "there", 0), (&here, "here", 100)] {
        let root: PathBuf = root.clone();
        in_time(&format!("elsewhere, {tag}"), {
            let root = root.clone();
            move || work_elsewhere(&root, tag)
        });
        in_time(&format!("names, {tag}"), move || change_names(&root, first));
    }
    assert!(readers.iter().all(|reader| !reader.is_finished()));
    set_away(&mut cluster, how, false);
    for (number, reader) in readers.into_iter().enumerate() {
        assert_eq!(reader.join().unwrap(), content(number), "file {number}");
    }
    cluster.finish().unwrap();
}

#[test]
fn readers_of_a_stopped_iod_stop_nobody_else() {
    readers_of_one_iod_stop_nobody_else(Away::Stopped);
}

#[test]
fn readers_of_a_dead_iod_stop_nobody_else() {
    readers_of_one_iod_stop_nobody_else(Away::Dead);
}

#[test]
fn readers_behind_a_silent_link_stop_nobody_else() {
    readers_of_one_iod_stop_nobody_else(Away::Silent);
}

/// How long each kind of call takes: the median of many.
type Medians = BTreeMap<&'static str, Duration>;

const REMOVE_VERY: &str = "remove the very file";
const REPLACE_VERY: &str = "replace the very file";
/// Calls of each kind in a turn.
const CALLS: usize = 30;

/// Of files elsewhere, and of `very`: [`CALLS`] files each to remove and to replace, which others may wait for.
fn medians(root: &Path, tag: &str, very: &dyn Fn(usize) -> PathBuf) -> Medians {
    let mut times: BTreeMap<&'static str, Vec<Duration>> = BTreeMap::new();
    for number in 0..CALLS {
        let [path, renamed] =
            ["", "renamed"].map(|suffix| root.join("b").join(format!("{tag}{number}{suffix}")));
        let mut time = |what, work: &dyn Fn()| {
            let start = Instant::now();
            work();
            times.entry(what).or_default().push(start.elapsed());
        };
        time("create", &|| fs::write(&path, content(number)).unwrap());
        time("read", &|| {
            assert_eq!(fs::read(&path).unwrap(), content(number));
        });
        time("list", &|| {
            assert!(fs::read_dir(root.join("b")).unwrap().count() > 0);
        });
        time("rename", &|| fs::rename(&path, &renamed).unwrap());
        time("remove", &|| fs::remove_file(&renamed).unwrap());
        time(REMOVE_VERY, &|| fs::remove_file(very(number)).unwrap());
        File::create(&path).unwrap();
        time(REPLACE_VERY, &|| {
            fs::rename(&path, very(CALLS + number)).unwrap();
        });
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let times = times.into_iter();
    times.map(|(what, times)| (what, median(times))).collect()
}

/// The shorter time of each: a busy machine makes some turns slow, and a fault all of those that it is
/// in.
fn keep_best(best: &mut Medians, turn: Medians) {
    for (what, time) in turn {
        let known = best.entry(what).or_insert(time);
        *known = time.min(*known);
    }
}

/// What many wait for.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Readers, for an iod that is stopped.
    Iod,
    /// Writers, for a client that is stopped and keeps what they write to.
    Client,
    /// Nobody waits: writers are told that the disk is full, again and again.
    Disk,
}

/// Calls that concern nobody's trouble take no longer than twice their time without it, on the node where
/// many wait and on another. Measured by turns.
fn others_take_their_time(trouble: Trouble) {
    const TURNS: usize = 3;
    /// A clock's tick and a hand-over between threads; where other processes are busy, a thread that
    /// wakes also waits for its turn. Who is held up by those who wait takes a tenth of a second and more.
    const SLACK: Duration = Duration::from_millis(8);
    /// A node that is asked to give up a lease waits so long for the reads that it has under way, before it has
    /// them wait without one (docs/decisions/0065, "Giving up").
    const PATIENCE: Duration = Duration::from_millis(100);
    /// Room for all files. One that has much less room than others would get no files.
    const DISKS_BYTES: [u64; 3] = [64 << 20, 128 << 20, 128 << 20];
    /// Between two writes of one of many that are refused: the processor has other things to do.
    const PAUSE: Duration = Duration::from_secs(1);
    let disks = (0..).zip(DISKS_BYTES).map(|(iod, bytes)| SmallDisk {
        directory: format!("iod{iod}"),
        bytes,
    });
    let cluster = cluster_of(Options {
        mounts: 3,
        // A client that is stopped keeps what it has for as long as a turn takes.
        lease_timeout_ms: 60_000,
        disks: match trouble {
            Trouble::Disk => disks.collect(),
            Trouble::Iod | Trouble::Client => Vec::new(),
        },
        ..Options::default()
    });
    let filler = cluster.iod_data(0).join("filler");
    let [here, there, other] = [0, 1, 2].map(|mount| cluster.mount(mount));
    let connection = connection_of(&there);
    let (mut quiet, mut troubled) = (
        [Medians::new(), Medians::new()],
        [(); 2].map(|()| Medians::new()),
    );
    for turn in 0..TURNS {
        let path = |root: &Path, number: usize| root.join("a").join(format!("{turn}.{number}"));
        until("there is room", || {
            fs::write(path(&here, 0), content(0)).is_ok()
        });
        for number in 0..WAITERS {
            fs::write(path(&here, number), content(number)).unwrap();
        }
        // Each node has files of its own to remove and to replace. Beside readers of an iod they are of those that
        // are read. What a stopped client keeps waits for it, and what lies on a full disk makes room.
        let very = |node: usize, is_troubled: bool| {
            let root = [&here, &there][node];
            let first = 2 * CALLS * node;
            let at = match (trouble, is_troubled) {
                (Trouble::Iod, true) => path(root, 0),
                (Trouble::Iod, false) => root.join("a").join(format!("quiet{turn}.0")),
                (Trouble::Client | Trouble::Disk, _) => {
                    root.join("b").join(format!("{is_troubled}{turn}.0"))
                }
            };
            move |number: usize| at.with_extension((first + number).to_string())
        };
        for (node, is_troubled) in [(0, false), (1, false), (0, true), (1, true)] {
            // Those that are read are there, and their pages are not known where they are read.
            if is_troubled && matches!(trouble, Trouble::Iod) {
                continue;
            }
            let very = very(node, is_troubled);
            for number in 0..2 * CALLS {
                fs::write(very(number), content(number)).unwrap();
            }
        }
        if matches!(trouble, Trouble::Client) {
            for number in 0..WAITERS {
                fs::read(path(&other, number)).unwrap();
            }
        }
        for (node, root) in [&here, &there].into_iter().enumerate() {
            keep_best(&mut quiet[node], medians(root, "quiet", &very(node, false)));
        }
        let stopped = match trouble {
            Trouble::Iod => Some(Who::Iod(0)),
            Trouble::Client => Some(Who::Mount(2)),
            Trouble::Disk => None,
        };
        match stopped {
            Some(who) => cluster.freeze(who, true).unwrap(),
            None => fill(&filler).unwrap(),
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let waiters: Vec<_> = (0..WAITERS)
            .map(|number| {
                let path = path(&there, number);
                let is_over = Arc::clone(&is_over);
                spawn(move || match trouble {
                    Trouble::Iod => drop(fs::read(path).unwrap()),
                    Trouble::Client => {
                        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
                    }
                    Trouble::Disk => {
                        let file = OpenOptions::new().write(true).open(path).unwrap();
                        while !is_over.load(Ordering::Relaxed) {
                            let outcome = file.write_all_at(&[1; FILE_BYTES], 1 << 20);
                            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::StorageFull);
                            thread::sleep(PAUSE);
                        }
                    }
                })
            })
            .collect();
        if stopped.is_some() {
            until("all wait", || under_way(connection) >= WAITERS);
        }
        for (node, root) in [&here, &there].into_iter().enumerate() {
            keep_best(
                &mut troubled[node],
                medians(root, "troubled", &very(node, true)),
            );
        }
        assert!(
            waiters.iter().all(|waiter| !waiter.is_finished()),
            "nobody waits"
        );
        is_over.store(true, Ordering::Relaxed);
        match stopped {
            Some(who) => cluster.freeze(who, false).unwrap(),
            None => fs::remove_file(&filler).unwrap(),
        }
        for waiter in waiters {
            waiter.join().unwrap();
        }
    }
    for (node, (quiet, troubled)) in quiet.iter().zip(&troubled).enumerate() {
        eprintln!("{trouble:?}, node {node}: {quiet:?} without, {troubled:?} beside it");
        for (what, time) in troubled {
            let patience = match *what {
                REMOVE_VERY | REPLACE_VERY => PATIENCE,
                _ => Duration::ZERO,
            };
            assert!(
                *time <= 2 * quiet[what] + patience + SLACK,
                "{trouble:?}: {what} on node {node} takes {time:?}, and {:?} without",
                quiet[what]
            );
        }
    }
    cluster.finish().unwrap();
}

#[test]
fn who_needs_no_full_disk_takes_no_longer_beside_those_who_do() {
    others_take_their_time(Trouble::Disk);
}

#[test]
fn who_needs_no_stopped_iod_takes_no_longer_beside_those_who_do() {
    others_take_their_time(Trouble::Iod);
}

#[test]
fn who_needs_nothing_of_a_stopped_client_takes_no_longer_beside_those_who_do() {
    others_take_their_time(Trouble::Client);
}

#[test]
fn writers_to_a_stopped_iod_stop_nobody_else() {
    const WRITERS: usize = 100;
    let cluster = cluster(false);
    let [here, there] = [0, 1].map(|mount| cluster.mount(mount));
    let path = |root: &Path, number: usize| root.join("a").join(number.to_string());
    for number in 0..WRITERS {
        File::create(path(&here, number)).unwrap();
    }
    let connection = connection_of(&there);
    cluster.freeze(Who::Iod(0), true).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let file = OpenOptions::new().write(true).open(path(&there, number));
            let file = file.unwrap();
            spawn(move || file.write_all_at(&content(number), 0).unwrap())
        })
        .collect();
    until("all wait", || under_way(connection) >= WRITERS);
    for root in [there.clone(), here.clone()] {
        in_time("elsewhere", move || work_elsewhere(&root, "w"));
    }
    // Another node need not wait for a write that may take for ever.
    in_time("chmod", {
        let path = path(&here, 3);
        move || fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap()
    });
    cluster.freeze(Who::Iod(0), false).unwrap();
    for writer in writers {
        writer.join().unwrap();
    }
    for number in 0..WRITERS {
        assert_eq!(fs::read(path(&here, number)).unwrap(), content(number));
    }
    cluster.finish().unwrap();
}

/// A read that waits for one iod has the bytes of another one already, when those are written over.
#[test]
fn what_a_waiting_read_brings_is_not_older_than_what_others_wrote() {
    const LENGTH: usize = 6 * 4096;
    const PLACE: usize = 4096;
    let cluster = cluster(false);
    cluster.set_small_stripes().unwrap();
    let [here, there] = [0, 1].map(|mount| cluster.mount(mount).join("file"));
    let connection = connection_of(&cluster.mount(1));
    for iod in 0..3 {
        // Nothing of it is kept there.
        fs::write(&here, vec![b'o'; LENGTH]).unwrap();
        cluster.freeze(Who::Iod(iod), true).unwrap();
        let before = under_way(connection);
        let reader = spawn({
            let there = there.clone();
            move || fs::read(there).unwrap()
        });
        until("it waits", || under_way(connection) > before);
        let byte = b'0' + u8::try_from(iod).unwrap();
        let (done, is_done) = channel();
        let writer = thread::spawn({
            let here = here.clone();
            move || {
                let file = OpenOptions::new().write(true).open(here).unwrap();
                for page in 0..LENGTH / PLACE {
                    let place = (page * PLACE) as u64;
                    file.write_all_at(&[byte; PLACE], place).unwrap();
                    done.send(page).unwrap();
                }
            }
        });
        // Pages of the other iods are written, until one that lies on this iod comes.
        let mut written = 0;
        while written < 2 && is_done.recv_timeout(OTHERS_TIME_MAX / 4).is_ok() {
            written += 1;
        }
        cluster.freeze(Who::Iod(iod), false).unwrap();
        writer.join().unwrap();
        let read = reader.join().unwrap();
        assert_eq!(read.len(), LENGTH);
        let again = fs::read(&there).unwrap();
        assert!(again == vec![byte; LENGTH], "iod {iod}: old bytes are kept");
    }
    cluster.finish().unwrap();
}

/// A read that waits for an iod when another node cuts the file brings old bytes, or ends where the file
/// does then. Linux knows the old end meanwhile: it must not show zeros up to there.
#[test]
fn a_read_that_waits_while_the_file_is_cut_shows_no_zeros() {
    const PAGES: usize = 64;
    const PAGE: usize = 4096;
    let cluster = cluster_of(Options {
        mounts: 3,
        ..Options::default()
    });
    let [here, there, elsewhere] = [0, 1, 2].map(|mount| cluster.mount(mount).join("a/file"));
    for place in [PAGES / 2, PAGES - 1] {
        fs::write(&here, vec![b'o'; PAGES * PAGE]).unwrap();
        let file = File::open(&there).unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
        // Pages are kept that must go when the file is cut.
        file.read_exact_at(&mut [0; PAGE], 0).unwrap();
        cluster.freeze(Who::Iod(0), true).unwrap();
        let connection = connection_of(&cluster.mount(1));
        let before = under_way(connection);
        let reader = spawn(move || {
            let mut bytes = vec![b'?'; PAGE];
            let read = file.read_at(&mut bytes, (place * PAGE) as u64).unwrap();
            bytes.truncate(read);
            bytes
        });
        until("it waits", || under_way(connection) > before);
        let cutter = spawn({
            let here = here.clone();
            move || {
                let file = OpenOptions::new().write(true).open(here).unwrap();
                file.set_len(PAGE as u64).unwrap();
            }
        });
        until("mgr has the new size", || {
            fs::metadata(&elsewhere).unwrap().len() == PAGE as u64
        });
        cluster.freeze(Who::Iod(0), false).unwrap();
        cutter.join().unwrap();
        let read = reader.join().unwrap();
        assert!(
            read.is_empty() || read == [b'o'; PAGE],
            "{} bytes, the first {:?}",
            read.len(),
            read.first()
        );
        assert_eq!(fs::read(&there).unwrap(), [b'o'; PAGE]);
    }
    cluster.finish().unwrap();
}

/// The append may need what mgr says of the iod, and so the connection whose end took its lease.
#[test]
fn an_append_that_waits_for_an_iod_goes_on_after_mgr_was_away() {
    let mut cluster = cluster(false);
    let [here, there] = [0, 1].map(|mount| cluster.mount(mount).join("a/log"));
    // In another process: one that starts mgr closes in between all files that it has open.
    let append = |text: &str| {
        let script = "printf '%s' \"$1\" >>\"$0\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(&here).arg(text);
        shell.spawn().unwrap()
    };
    assert!(append("first ").wait().unwrap().success());
    let connection = connection_of(&cluster.mount(0));
    let before = under_way(connection);
    cluster.kill(Who::Iod(0)).unwrap();
    let mut appender = append("second ");
    until("it waits", || {
        let log = cluster.log(Who::Mount(0)).unwrap();
        log.contains("does not answer") && under_way(connection) > before
    });
    cluster.kill(Who::Mgr).unwrap();
    cluster.restart(Who::Mgr).unwrap();
    cluster.restart(Who::Iod(0)).unwrap();
    in_time("the append", move || {
        assert!(appender.wait().unwrap().success());
    });
    let mut other = OpenOptions::new().append(true).open(&there).unwrap();
    other.write_all(b"third").unwrap();
    for path in [here, there] {
        assert_eq!(fs::read(path).unwrap(), b"first second third");
    }
    drop(other);
    cluster.finish().unwrap();
}

#[test]
fn an_unmount_waits_for_no_daemon() {
    let mut cluster = cluster(false);
    let root = cluster.mount(0);
    fs::write(root.join("a/file"), content(1)).unwrap();
    cluster.freeze(Who::Mgr, true).unwrap();
    for iod in 0..3 {
        cluster.freeze(Who::Iod(iod), true).unwrap();
    }
    in_time("umount", move || {
        nix::mount::umount2(&root, nix::mount::MntFlags::empty()).unwrap();
    });
    assert!(cluster.await_end_of_mount(0).unwrap().success());
    cluster.freeze(Who::Mgr, false).unwrap();
    for iod in 0..3 {
        cluster.freeze(Who::Iod(iod), false).unwrap();
    }
    cluster.finish().unwrap();
}

/// What a node holds a lease for needs no mgr: reads and writes of such files take no longer while mgr is stopped
/// and many wait for it.
#[test]
fn who_needs_no_mgr_takes_no_longer_while_it_is_away() {
    const ROUNDS: u64 = 200;
    const SLACK: Duration = Duration::from_millis(8);
    let cluster = cluster_of(Options {
        mounts: 2,
        lease_timeout_ms: 60_000,
        ..Options::default()
    });
    let nodes = [0, 1].map(|mount| cluster.mount(mount));
    let files: Vec<File> = nodes
        .iter()
        .enumerate()
        .map(|(node, root)| {
            let path = root.join("b").join(format!("hot{node}"));
            fs::write(&path, vec![1; FILE_BYTES]).unwrap();
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .unwrap()
        })
        .collect();
    let median_of_both = || {
        let times = |file: &File| {
            let mut times: Vec<Duration> = (0..ROUNDS)
                .map(|round| {
                    let start = Instant::now();
                    file.write_all_at(&round.to_le_bytes(), 0).unwrap();
                    let mut bytes = [0; 8];
                    file.read_exact_at(&mut bytes, 0).unwrap();
                    assert_eq!(u64::from_le_bytes(bytes), round);
                    start.elapsed()
                })
                .collect();
            times.sort_unstable();
            times[times.len() / 2]
        };
        [times(&files[0]), times(&files[1])]
    };
    let quiet = median_of_both();
    let connection = connection_of(&nodes[1]);
    cluster.freeze(Who::Mgr, true).unwrap();
    let waiters: Vec<_> = (0..WAITERS)
        .map(|number| {
            let path = nodes[1].join("a").join(format!("new{number}"));
            spawn(move || drop(File::create(path).unwrap()))
        })
        .collect();
    until("all wait", || under_way(connection) >= 1);
    let away = median_of_both();
    let all_wait = waiters.iter().all(|waiter| !waiter.is_finished());
    // Closing a file waits for mgr, also where the test fails.
    cluster.freeze(Who::Mgr, false).unwrap();
    for waiter in waiters {
        waiter.join().unwrap();
    }
    assert!(all_wait, "nobody waits");
    eprintln!("{quiet:?} with mgr, {away:?} without");
    for (quiet, away) in quiet.into_iter().zip(away) {
        assert!(
            away <= 2 * quiet + SLACK,
            "{away:?}, and {quiet:?} with mgr"
        );
    }
    cluster.finish().unwrap();
}
