// SPDX-License-Identifier: MIT
//! What docs/SEMANTICS.md promises between nodes that use the same files at the same time, on two
//! and three mounts.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use cssns_histories::linearizability::{self, Call, Event, Register};
use cssns_tests::proxy::Mood;
use cssns_tests::pvfs_cluster::{Cluster, Options, Who};
use nix::errno::Errno;

fn mounts(mounts: usize) -> Cluster {
    let options = Options {
        mounts,
        lease_timeout_ms: 4000,
        ..Options::default()
    };
    Cluster::start(options).unwrap()
}

fn open_both(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// Bytes that a process has sent over TCP so far, whole and on connections that it still has.
fn bytes_sent(pid: u32) -> u64 {
    let output = Command::new("ss").args(["-tinpH"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let owner = format!("pid={pid},");
    let mut lines = text.lines();
    let mut sum = 0;
    while let Some(line) = lines.next() {
        let details = lines.next().unwrap_or_default();
        if line.contains(&owner) {
            let mut fields = details.split_ascii_whitespace();
            let sent = fields.find_map(|field| field.strip_prefix("bytes_sent:"));
            sum += sent.map_or(0, |bytes| bytes.parse::<u64>().unwrap());
        }
    }
    sum
}

#[test]
fn a_hot_file_is_opened_and_read_without_any_message() {
    const ROUNDS: usize = 500;
    let cluster = mounts(2);
    fs::create_dir(cluster.mount(0).join("site")).unwrap();
    let bytes = vec![7; 300_000];
    fs::write(cluster.mount(0).join("site/page"), &bytes).unwrap();
    let page = cluster.mount(1).join("site/page");
    assert!(fs::read(&page).unwrap() == bytes);
    let pid = cluster.mount_pid(1).unwrap();
    let (before, start) = (bytes_sent(pid), Instant::now());
    for _ in 0..ROUNDS {
        assert_eq!(fs::metadata(&page).unwrap().size(), 300_000);
        assert_eq!(fs::read(&page).unwrap().len(), bytes.len());
        let missing = page.with_extension("gz");
        // The first look asks mgr; that there is no such name is kept as well.
        assert!(!missing.exists());
    }
    let sent = bytes_sent(pid) - before;
    // A keep-alive is a frame of 40 bytes, six in the time after which leases end.
    let alive = 100 * (2 + start.elapsed().as_millis() as u64 * 6 / 4000);
    assert!(sent <= alive + 100, "{sent} bytes in {ROUNDS} rounds");
    assert!(alive + 100 < ROUNDS as u64 * 32, "too slow to tell");
    cluster.finish().unwrap();
}

#[test]
fn an_open_descriptor_sees_each_write_of_another_node() {
    let cluster = mounts(3);
    fs::write(cluster.mount(0).join("f"), vec![0; 100_000]).unwrap();
    let files: Vec<File> = (0..3)
        .map(|n| open_both(&cluster.mount(n).join("f")))
        .collect();
    for round in 0..60u64 {
        let writer = round as usize % 3;
        let value = round.to_le_bytes();
        // Within a page, across two, and beyond the end as it was.
        for offset in [100, 4092, 50_000, 100_000 + round * 8] {
            files[writer].write_all_at(&value, offset).unwrap();
            for (reader, file) in files.iter().enumerate() {
                let mut seen = [0; 8];
                file.read_exact_at(&mut seen, offset).unwrap();
                assert_eq!(
                    seen, value,
                    "{reader} reads what {writer} wrote at {offset}"
                );
                let size = file.metadata().unwrap().size();
                assert!(size >= offset + 8, "{reader} sees {size} bytes");
            }
        }
    }
    drop(files);
    cluster.finish().unwrap();
}

/// Neither has told mgr of its writes when it asks how long the file is.
#[test]
fn writers_that_share_a_file_see_how_long_it_is() {
    let cluster = mounts(2);
    let path = |mount: usize| cluster.mount(mount).join("f");
    fs::write(path(0), "").unwrap();
    // Who opens it alone writes through its page cache, for which it needs the file for itself.
    let alone = open_both(&path(0));
    let [second, first] = [1, 0].map(|mount| {
        let written = OpenOptions::new().write(true).open(path(mount));
        written.unwrap()
    });
    for round in 0..10 {
        let start = round * 100;
        first.write_all_at(b"first", start).unwrap();
        second.write_all_at(b"second", start + 50).unwrap();
        first.write_all_at(b"first", start + 10).unwrap();
        assert_eq!(first.metadata().unwrap().len(), start + 56);
        assert_eq!(second.metadata().unwrap().len(), start + 56);
    }
    drop((alone, first, second));
    cluster.finish().unwrap();
}

/// The reader beside the writer has pages, and so needs a lease of another kind than the writer's.
#[test]
fn what_a_node_writes_beside_a_reader_of_its_own_is_seen_by_others() {
    let cluster = mounts(2);
    let path = |mount: usize| cluster.mount(mount).join("f");
    fs::write(path(0), "old").unwrap();
    let reader = File::open(path(0)).unwrap();
    let elsewhere = File::open(path(1)).unwrap();
    let writer = OpenOptions::new().write(true).open(path(0)).unwrap();
    for length in [10, 20, 30] {
        writer.write_all_at(b"new and longer", length).unwrap();
        let mut bytes = [0; 3];
        reader.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"old");
        let end = length + 14;
        assert_eq!(elsewhere.metadata().unwrap().len(), end);
        assert_eq!(elsewhere.read_at(&mut bytes, end - 2).unwrap(), 2);
    }
    drop((reader, writer, elsewhere));
    cluster.finish().unwrap();
}

#[test]
fn size_and_names_are_seen_as_soon_as_a_call_returns() {
    let cluster = mounts(3);
    let place = |mount: usize, name: &str| cluster.mount(mount).join(name);
    for round in 0..30u64 {
        let (here, there) = (round as usize % 3, (round as usize + 1) % 3);
        let name = format!("n{round}");
        assert!(!place(there, &name).exists(), "that there is none is kept");
        let file = File::create(place(here, &name)).unwrap();
        assert_eq!(fs::metadata(place(there, &name)).unwrap().size(), 0);
        file.write_all_at(&[1; 100], round * 10).unwrap();
        // Neither synced nor closed.
        assert_eq!(
            fs::metadata(place(there, &name)).unwrap().size(),
            round * 10 + 100
        );
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(place(there, &name), mode).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        let moved = format!("m{round}");
        fs::rename(place(there, &name), place(there, &moved)).unwrap();
        assert!(!place(here, &name).exists());
        assert_eq!(
            fs::metadata(place(here, &moved)).unwrap().ino(),
            file.metadata().unwrap().ino()
        );
        let names = fs::read_dir(cluster.mount(here)).unwrap();
        assert!(names.flatten().any(|entry| entry.file_name() == *moved));
        fs::remove_file(place(here, &moved)).unwrap();
        assert!(!place(there, &moved).exists());
        assert_eq!(file.metadata().unwrap().nlink(), 0);
    }
    cluster.finish().unwrap();
}

#[test]
fn appends_of_several_nodes_lose_no_byte() {
    const LINES: usize = 120;
    let cluster = mounts(3);
    let writers: Vec<_> = (0..3)
        .map(|node| {
            let path = cluster.mount(node).join("log");
            thread::spawn(move || {
                let mut log = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(path)
                    .unwrap();
                for line in 0..LINES {
                    log.write_all(format!("node {node} line {line}\n").as_bytes())
                        .unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    for mount in 0..3 {
        let text = fs::read_to_string(cluster.mount(mount).join("log")).unwrap();
        for node in 0..3 {
            let start = format!("node {node} ");
            let lines = text.lines().filter(|line| line.starts_with(&start));
            let expected = (0..LINES).map(|line| format!("node {node} line {line}"));
            assert!(lines.eq(expected), "mount {mount}, lines of node {node}");
        }
        assert_eq!(text.lines().count(), 3 * LINES);
    }
    cluster.finish().unwrap();
}

#[test]
fn nodes_that_work_in_one_directory_do_not_wait_for_each_other_for_ever() {
    const FILES: usize = 60;
    let cluster = mounts(3);
    fs::create_dir(cluster.mount(0).join("d")).unwrap();
    let workers: Vec<_> = (0..6)
        .map(|worker| {
            let dir = cluster.mount(worker % 3).join("d");
            thread::spawn(move || {
                for number in 0..FILES {
                    let name = dir.join(format!("{worker}.{number}"));
                    fs::write(&name, b"x").unwrap();
                    fs::rename(&name, dir.join(format!("{worker}.same"))).unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    for mount in 0..3 {
        assert_eq!(
            fs::read_dir(cluster.mount(mount).join("d"))
                .unwrap()
                .count(),
            6
        );
    }
    cluster.finish().unwrap();
}

/// Linux asks how long a file is before it reads at what it takes for the end, and ignores the answer where
/// somebody has written to the file since it asked.
#[test]
fn an_end_that_another_node_has_moved_is_found_while_mgr_says_nothing() {
    const PAGE: usize = 4096;
    const TIME_MAX: Duration = Duration::from_secs(20);
    let cluster = Cluster::start(Options {
        mounts: 2,
        proxied: true,
        // It holds while mgr says nothing.
        lease_timeout_ms: 60_000,
        ..Options::default()
    })
    .unwrap();
    let [here, there] = [0, 1].map(|mount| cluster.mount(mount).join("file"));
    fs::write(&here, [b'a'; PAGE]).unwrap();
    let file = open_both(&here);
    let mut other = OpenOptions::new().append(true).open(&there).unwrap();
    other.write_all(&[b'b'; PAGE]).unwrap();
    drop(other);
    // By this the node has a lease that tells the size; Linux does not hear of that.
    file.write_all_at(b"c", 0).unwrap();
    let link = cluster.link(Who::Mount(0)).unwrap();
    link.set(Mood::Still);
    let (sender, read) = channel();
    let reader = thread::spawn({
        let file = file.try_clone().unwrap();
        move || {
            let mut bytes = [0; PAGE];
            let count = file.read_at(&mut bytes, PAGE as u64).unwrap();
            sender.send(bytes[..count].to_vec()).unwrap();
        }
    });
    let early = read.recv_timeout(Duration::from_millis(200));
    file.write_all_at(b"d", 0).unwrap();
    let early = early.or_else(|_| read.recv_timeout(TIME_MAX));
    link.set(Mood::Well);
    let found = early.or_else(|_| read.recv_timeout(TIME_MAX)).unwrap();
    assert!(
        found == [b'b'; PAGE],
        "{} bytes at the old end",
        found.len()
    );
    reader.join().unwrap();
    cluster.finish().unwrap();
}

/// What was written is told to mgr before a truncation, whoever tells it.
#[test]
fn a_truncation_is_not_undone_by_what_was_written_before() {
    const ROUNDS: usize = 2_000;
    const PAGE: u64 = 4096;
    let cluster = mounts(2);
    let [here, there] = [0, 1].map(|mount| cluster.mount(mount).join("file"));
    fs::write(&here, [0; PAGE as usize]).unwrap();
    let file = open_both(&here);
    let (end, ended) = channel::<()>();
    // Its looks take the lease from the writer again and again.
    let looker = thread::spawn(move || {
        while ended.try_recv().is_err() {
            assert!(fs::metadata(&there).unwrap().len() <= 3 * PAGE);
        }
    });
    for round in 0..ROUNDS {
        file.write_all_at(b"x", 3 * PAGE - 1).unwrap();
        file.set_len(PAGE).unwrap();
        let size = file.metadata().unwrap().len();
        assert_eq!(size, PAGE, "round {round}");
    }
    end.send(()).unwrap();
    looker.join().unwrap();
    cluster.finish().unwrap();
}

/// Reads and writes four places of one file for `time`, and notes when.
fn use_registers(
    path: &Path,
    seed: u64,
    epoch: Instant,
    time: Duration,
) -> Vec<(usize, Event<Call>)> {
    // Three in one page, the last at its end, and one in another.
    const PLACES: [u64; 4] = [0, 64, 4088, 8192];
    let nanoseconds = |at: Instant| at.duration_since(epoch).as_nanos() as u64;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut history = Vec::new();
    // It fails where the mount is killed meanwhile.
    let open = || OpenOptions::new().read(true).write(true).open(path);
    let Ok(mut file) = open() else {
        return history;
    };
    let (mut number, until) = (0, Instant::now() + time);
    while Instant::now() < until {
        if rng.u32(0..20) == 0 {
            match open() {
                Ok(opened) => file = opened,
                Err(_) => return history,
            }
        }
        let place = rng.usize(0..PLACES.len());
        let start = nanoseconds(Instant::now());
        let (call, done) = if rng.u32(0..5) < 2 {
            number += 1;
            let value = seed << 32 | number;
            let done = file.write_all_at(&value.to_le_bytes(), PLACES[place]);
            (Call::Write(value), done)
        } else {
            let mut bytes = [0; 8];
            let done = file.read_exact_at(&mut bytes, PLACES[place]);
            (Call::Read(u64::from_le_bytes(bytes)), done)
        };
        let end = match (&done, call) {
            (Ok(()), _) => nanoseconds(Instant::now()),
            // Whether it took effect is unknown; the mount was killed.
            (Err(_), Call::Write(_)) => u64::MAX,
            (Err(_), Call::Read(_)) => return history,
        };
        history.push((place, Event { call, start, end }));
        if done.is_err() {
            return history;
        }
    }
    history
}

fn check_registers(histories: &[(usize, Event<Call>)]) {
    for place in 0..4 {
        let of_place = histories.iter().filter(|(at, _)| *at == place);
        let events: Vec<Event<Call>> = of_place.map(|(_, event)| *event).collect();
        let misfit = linearizability::check(Register(0), &events).err();
        assert!(
            misfit.is_none(),
            "place {place}: {misfit:?} fits nowhere among {} events",
            events.len()
        );
    }
}

#[test]
fn reads_and_writes_of_three_nodes_are_linearizable() {
    let cluster = mounts(3);
    fs::write(cluster.mount(0).join("f"), vec![0; 100_000]).unwrap();
    let epoch = Instant::now();
    let workers: Vec<_> = (0..3)
        .map(|node| {
            let path = cluster.mount(node).join("f");
            let time = Duration::from_secs(5);
            thread::spawn(move || use_registers(&path, node as u64 + 1, epoch, time))
        })
        .collect();
    let histories: Vec<_> = workers
        .into_iter()
        .flat_map(|w| w.join().unwrap())
        .collect();
    check_registers(&histories);
    cluster.finish().unwrap();
}

/// Reads lines from a child's standard output.
fn line_of(child: &mut Child) -> String {
    let mut line = String::new();
    let mut byte = [0];
    let output = child.stdout.as_mut().unwrap();
    while output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(char::from(byte[0]));
    }
    line
}

/// Maps a file of 8 KiB and obeys: `w TEXT` writes through the mapping and syncs it, `r` reads.
const MAPPING: &str = "\
import mmap, sys
with open(sys.argv[1], 'r+b') as file:
    pages = mmap.mmap(file.fileno(), 8192)
    print('ready', flush=True)
    for line in sys.stdin:
        if line[0] == 'w':
            pages[5000:5005] = line[2:7].encode()
            pages.flush()
        print(pages[5000:5005].decode(), flush=True)
";

fn mapping(path: &Path) -> Child {
    let mut child = Command::new("python3")
        .args(["-c", MAPPING])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(line_of(&mut child), "ready");
    child
}

fn tell(child: &mut Child, line: &str) -> String {
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
    line_of(child)
}

#[test]
fn mappings_of_two_nodes_see_what_was_synced() {
    let cluster = mounts(2);
    let path = cluster.mount(0).join("f");
    fs::write(&path, vec![b'.'; 8192]).unwrap();
    let mut here = mapping(&path);
    let mut there = mapping(&cluster.mount(1).join("f"));
    for round in 0..20 {
        let text = format!("{round:05}");
        let (writer, reader) = match round % 2 {
            0 => (&mut here, &mut there),
            _ => (&mut there, &mut here),
        };
        assert_eq!(tell(writer, &format!("w {text}\n")), text);
        assert_eq!(tell(reader, "r\n"), text, "round {round}");
        assert_eq!(fs::read(&path).unwrap()[5000..5005], *text.as_bytes());
    }
    for mut child in [here, there] {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
    cluster.finish().unwrap();
}

#[test]
fn a_node_that_hangs_loses_its_leases_and_notices() {
    let cluster = mounts(2);
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    fs::write(&here, b"old").unwrap();
    assert_eq!(fs::read(&there).unwrap(), b"old");
    cluster.freeze_mount(1, true).unwrap();
    let start = Instant::now();
    fs::write(&here, b"new").unwrap();
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "nobody waited for the other node"
    );
    cluster.freeze_mount(1, false).unwrap();
    assert_eq!(fs::read(&there).unwrap(), b"new");
    cluster.finish().unwrap();
}

#[test]
fn a_killed_node_holds_others_up_no_longer_than_its_leases() {
    let mut cluster = mounts(2);
    let path = cluster.mount(0).join("f");
    let mut file = File::create(cluster.mount(1).join("f")).unwrap();
    file.write_all(b"written").unwrap();
    cluster.kill_mount(1).unwrap();
    drop(file);
    // The bytes are on the iods; the size is what mgr has heard of.
    assert!(fs::metadata(&path).unwrap().size() <= 7);
    fs::write(&path, b"mine").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    cluster.restart_mount(1).unwrap();
    assert_eq!(fs::read(cluster.mount(1).join("f")).unwrap(), b"mine");
    cluster.finish().unwrap();
}

#[test]
fn what_was_kept_before_a_restart_of_mgr_is_not_served_after_it() {
    let mut cluster = mounts(2);
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    fs::write(&here, b"before").unwrap();
    let mut reader = File::open(&there).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    cluster.kill_mgr().unwrap();
    cluster.restart_mgr().unwrap();
    fs::write(&here, b"after!").unwrap();
    let mut seen = [0; 6];
    reader.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"after!");
    assert_eq!(fs::read(&there).unwrap(), b"after!");
    cluster.finish().unwrap();
}

/// A program of its own that keeps a file open to append to it: a process that starts a daemon while it
/// has a file open on a mount may wait for that daemon.
struct Appender(Child);

impl Appender {
    fn start(path: &Path) -> Self {
        let script = r#"exec 3>>"$1"; while read -r text; do printf %s "$text" >&3; echo ok; done"#;
        let child = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn append(&mut self, text: &str) {
        assert_eq!(tell(&mut self.0, &format!("{text}\n")), "ok");
    }

    fn finish(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

fn linked(mounts: usize) -> Cluster {
    let options = Options {
        mounts,
        lease_timeout_ms: 3000,
        proxied: true,
        ..Options::default()
    };
    Cluster::start(options).unwrap()
}

/// mgr does not know of it when it is killed, or when the connection breaks: it hears it before
/// anybody else may write.
#[test]
fn what_was_appended_and_not_synced_is_not_written_over_after_a_restart_or_a_cut() {
    let mut cluster = linked(2);
    let (here, there) = (cluster.mount(0).join("log"), cluster.mount(1).join("log"));
    fs::write(&here, b"").unwrap();
    let mut one = Appender::start(&here);
    let mut expected = String::new();
    for round in 0..6 {
        let (first, second) = (format!("<one {round}>"), format!("<two {round}>"));
        one.append(&first);
        if round % 2 == 0 {
            cluster.kill(Who::Mgr).unwrap();
            cluster.restart(Who::Mgr).unwrap();
        } else {
            cluster.link(Who::Mount(0)).unwrap().cut();
        }
        let mut other = OpenOptions::new().append(true).open(&there).unwrap();
        other.write_all(second.as_bytes()).unwrap();
        drop(other);
        expected.push_str(&first);
        expected.push_str(&second);
        assert_eq!(fs::read_to_string(&there).unwrap(), expected);
        assert_eq!(fs::read_to_string(&here).unwrap(), expected);
    }
    one.finish();
    cluster.finish().unwrap();
}

/// A node that was cut off for longer than its leases last tells mgr of its writes when it is back: too
/// late, where others have truncated the file meanwhile.
#[test]
fn what_a_node_reports_after_it_lost_its_leases_does_not_undo_what_others_did() {
    let cluster = linked(2);
    let (here, there) = (cluster.mount(0).join("log"), cluster.mount(1).join("log"));
    fs::write(&here, b"").unwrap();
    let mut one = OpenOptions::new().append(true).open(&here).unwrap();
    one.write_all(b"lost").unwrap();
    let link = cluster.link(Who::Mount(0)).unwrap();
    link.set(Mood::Still);
    let file = OpenOptions::new().write(true).open(&there).unwrap();
    file.set_len(0).unwrap();
    assert_eq!(file.metadata().unwrap().size(), 0);
    drop(file);
    link.set(Mood::Well);
    for path in [&here, &there, &here] {
        assert_eq!(fs::metadata(path).unwrap().size(), 0, "{}", path.display());
    }
    let told = one.sync_all().map_err(|error| error.raw_os_error());
    assert_eq!(told, Err(Some(Errno::EIO as i32)));
    one.sync_all().unwrap();
    one.write_all(b"new").unwrap();
    assert_eq!(fs::read_to_string(&there).unwrap(), "new");
    drop(one);
    assert_eq!(fs::read_to_string(&there).unwrap(), "new");
    cluster.finish().unwrap();
}

/// On each node one writes and two read the same file over and over, with a new open each time, so that
/// leases are given up while others ask for them and the kernel holds pages for both.
#[test]
fn readers_and_writers_of_one_file_on_two_nodes_all_go_on() {
    const BYTES: usize = 400_000;
    const TIME: Duration = Duration::from_secs(8);
    /// Who has not come back by then never will.
    const PATIENCE: Duration = Duration::from_secs(60);
    let cluster = mounts(2);
    fs::write(cluster.mount(0).join("f"), vec![0; BYTES]).unwrap();
    let until = Instant::now() + TIME;
    let (done, all_done) = channel();
    for worker in 0..6 {
        let (path, done) = (cluster.mount(worker % 2).join("f"), done.clone());
        thread::spawn(move || {
            while Instant::now() < until {
                if worker < 2 {
                    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
                    for _ in 0..9 {
                        file.write_all(&[1; 8192]).unwrap();
                    }
                } else {
                    assert_eq!(fs::read(&path).unwrap().len(), BYTES);
                }
            }
            done.send(worker).unwrap();
        });
    }
    for _ in 0..6 {
        all_done.recv_timeout(TIME + PATIENCE).unwrap();
    }
    cluster.finish().unwrap();
}
