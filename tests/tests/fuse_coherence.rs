// SPDX-License-Identifier: MIT
//! What docs/SEMANTICS.md promises about bytes and sizes, within one mount and between two.
//!
//! Where a test says that something comes from the page cache, it has killed all iods first: bytes
//! that are read then can have come from nowhere else.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use cssns_tests::pvfs_cluster::{Cluster, Options};
use nix::sys::sendfile::sendfile;

/// What comes from the page cache comes at once; what waits for a dead iod never comes.
const CACHED_READ_TIMEOUT: Duration = Duration::from_secs(20);
/// A few stripes on each iod, and a part of one.
const FILE_BYTES: usize = 3 * 1024 * 1024 + 12_345;

fn two_mounts() -> Cluster {
    let options = Options {
        mounts: 2,
        ..Options::default()
    };
    Cluster::start(options).unwrap()
}

/// Bytes that differ from stripe to stripe and from `seed` to `seed`.
fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at / 4096 + at) as u8 ^ seed)
        .collect()
}

fn kill_iods(cluster: &mut Cluster) {
    for index in 0..Options::default().iods {
        cluster.kill_iod(index).unwrap();
    }
}

fn restart_iods(cluster: &mut Cluster) {
    for index in 0..Options::default().iods {
        cluster.restart_iod(index).unwrap();
    }
}

/// Reads a file in a thread; `None` where that takes longer than a page cache needs.
fn read_in_time(path: PathBuf) -> Option<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || drop(sender.send(fs::read(path).unwrap())));
    receiver.recv_timeout(CACHED_READ_TIMEOUT).ok()
}

/// Sends a file as nginx does with `sendfile on`, and returns what arrived.
fn send(path: &Path, scratch: &Path) -> Vec<u8> {
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().size() as usize;
    let target = scratch.join("sent");
    let sent = File::create(&target).unwrap();
    let mut left = length;
    while left > 0 {
        match sendfile(sent.as_fd(), file.as_fd(), None, left).unwrap() {
            0 => break,
            count => left -= count,
        }
    }
    fs::read(target).unwrap()
}

#[test]
fn an_open_sees_what_was_closed_before_on_any_node() {
    let cluster = two_mounts();
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    // Same length each time, so that nothing but the content tells.
    for round in 0..5 {
        let bytes = content(round, FILE_BYTES);
        let (writer, reader) = if round % 2 == 0 {
            (&here, &there)
        } else {
            (&there, &here)
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(writer)
            .unwrap();
        file.write_all(&bytes).unwrap();
        drop(file);
        assert!(
            fs::read(reader).unwrap() == bytes,
            "round {round}, the other mount"
        );
        assert!(
            fs::read(writer).unwrap() == bytes,
            "round {round}, the same mount"
        );
    }
    cluster.finish().unwrap();
}

#[test]
fn sendfile_sends_the_new_bytes_of_a_file_rewritten_elsewhere() {
    let cluster = two_mounts();
    let (here, there) = (cluster.mount(0).join("page"), cluster.mount(1).join("page"));
    for seed in 0..4 {
        let bytes = content(seed, FILE_BYTES);
        fs::write(&here, &bytes).unwrap();
        for again in 0..2 {
            let sent = send(&there, cluster.scratch());
            assert!(sent == bytes, "seed {seed}, time {again}");
        }
    }
    cluster.finish().unwrap();
}

#[test]
fn a_warm_file_is_read_from_the_page_cache() {
    let mut cluster = two_mounts();
    let bytes = content(1, FILE_BYTES);
    fs::write(cluster.mount(0).join("f"), &bytes).unwrap();
    let warm = cluster.mount(1).join("f");
    assert!(fs::read(&warm).unwrap() == bytes);
    kill_iods(&mut cluster);
    assert!(read_in_time(warm).expect("the page cache was dropped") == bytes);
    restart_iods(&mut cluster);
    cluster.finish().unwrap();
}

#[test]
fn what_a_mount_wrote_stays_in_its_page_cache() {
    let mut cluster = two_mounts();
    let file = cluster.mount(0).join("f");
    let bytes = content(2, 1024 * 1024);
    fs::write(&file, &bytes).unwrap();
    fs::write(&file, &bytes).unwrap();
    kill_iods(&mut cluster);
    assert!(read_in_time(file).expect("the page cache was dropped") == bytes);
    restart_iods(&mut cluster);
    cluster.finish().unwrap();
}

#[test]
fn a_mount_sees_its_own_writes_at_once_through_every_descriptor() {
    let cluster = two_mounts();
    let path = cluster.mount(0).join("log");
    let writer = File::create(&path).unwrap();
    let mut reader = File::open(&path).unwrap();
    let mut seen = Vec::new();
    for line in 0..50u8 {
        writer
            .write_all_at(&[line; 100], u64::from(line) * 100)
            .unwrap();
        reader.read_to_end(&mut seen).unwrap();
        assert_eq!(seen.len(), (usize::from(line) + 1) * 100);
        assert_eq!(fs::metadata(&path).unwrap().size(), seen.len() as u64);
    }
    let expected: Vec<u8> = (0..50u8).flat_map(|line| [line; 100]).collect();
    assert_eq!(seen, expected);
    drop((writer, reader));
    cluster.finish().unwrap();
}

#[test]
fn size_and_times_are_exact_and_stable_after_a_close() {
    let cluster = two_mounts();
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    for round in 1..20u64 {
        fs::write(&here, vec![1; round as usize * 1000]).unwrap();
        let (a, b) = (fs::metadata(&here).unwrap(), fs::metadata(&there).unwrap());
        assert_eq!(a.size(), round * 1000);
        let times = |m: &fs::Metadata| {
            (
                m.size(),
                m.mtime(),
                m.mtime_nsec(),
                m.ctime(),
                m.ctime_nsec(),
            )
        };
        assert_eq!(times(&a), times(&b));
        assert_eq!(
            times(&fs::metadata(&here).unwrap()),
            times(&a),
            "it changed by being looked at"
        );
    }
    cluster.finish().unwrap();
}

#[test]
fn a_time_that_was_set_survives_the_close() {
    let cluster = two_mounts();
    let path = cluster.mount(0).join("f");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"as cp -p and rsync do it").unwrap();
    let time = std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_modified(time).unwrap();
    drop(file);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
    assert_eq!(
        fs::metadata(cluster.mount(1).join("f"))
            .unwrap()
            .modified()
            .unwrap(),
        time
    );
    cluster.finish().unwrap();
}

#[test]
fn after_fsync_another_node_sees_the_writes_of_an_open_file() {
    let cluster = two_mounts();
    let mut writer = File::create(cluster.mount(0).join("f")).unwrap();
    let mut reader = File::open(cluster.mount(1).join("f")).unwrap();
    let mut seen = Vec::new();
    for round in 0..10u8 {
        writer.write_all(&content(round, 10_000)).unwrap();
        writer.sync_all().unwrap();
        reader.read_to_end(&mut seen).unwrap();
        assert_eq!(seen.len(), (usize::from(round) + 1) * 10_000);
    }
    let expected: Vec<u8> = (0..10).flat_map(|round| content(round, 10_000)).collect();
    assert!(seen == expected);
    drop((writer, reader));
    cluster.finish().unwrap();
}

#[test]
fn a_truncation_elsewhere_is_seen_at_the_next_open() {
    let cluster = two_mounts();
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    let bytes = content(3, FILE_BYTES);
    fs::write(&here, &bytes).unwrap();
    assert!(fs::read(&there).unwrap() == bytes);
    let file = OpenOptions::new().write(true).open(&here).unwrap();
    file.set_len(1_000_000).unwrap();
    file.set_len(FILE_BYTES as u64).unwrap();
    drop(file);
    let mut expected = bytes;
    expected[1_000_000..].fill(0);
    assert!(
        fs::read(&there).unwrap() == expected,
        "the cut part must read as zeros"
    );
    assert!(fs::read(&here).unwrap() == expected);
    cluster.finish().unwrap();
}

#[test]
fn writes_of_two_nodes_to_different_parts_both_stay() {
    let cluster = two_mounts();
    let paths = [cluster.mount(0).join("f"), cluster.mount(1).join("f")];
    fs::write(&paths[0], vec![0; 1 << 20]).unwrap();
    let files = paths
        .each_ref()
        .map(|path| OpenOptions::new().write(true).open(path).unwrap());
    // Interleaved below the size of a page.
    for block in 0..256u64 {
        let which = (block % 2) as usize;
        files[which]
            .write_all_at(&[which as u8 + 1; 1000], block * 1000)
            .unwrap();
    }
    drop(files);
    let mut expected = vec![0; 1 << 20];
    for block in 0..256usize {
        expected[block * 1000..][..1000].fill((block % 2) as u8 + 1);
    }
    for path in &paths {
        assert!(fs::read(path).unwrap() == expected, "{}", path.display());
    }
    cluster.finish().unwrap();
}

/// A mapping takes `unsafe` in Rust, which tests do without; Python has one.
const WRITE_THROUGH_MAPPING: &str = "\
import mmap, sys
with open(sys.argv[1], 'r+b') as file:
    with mmap.mmap(file.fileno(), 0) as pages:
        pages[5000:5010] = b'by mapping'
        pages.flush()
";

#[test]
fn what_a_shared_mapping_wrote_is_seen_elsewhere() {
    let cluster = two_mounts();
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    let mut bytes = content(4, 100_000);
    fs::write(&here, &bytes).unwrap();
    assert!(fs::read(&there).unwrap() == bytes);
    let mut python = std::process::Command::new("python3");
    let status = python
        .args(["-c", WRITE_THROUGH_MAPPING])
        .arg(&here)
        .status()
        .unwrap();
    assert!(status.success());
    bytes[5000..5010].copy_from_slice(b"by mapping");
    assert!(fs::read(&there).unwrap() == bytes);
    assert!(fs::read(&here).unwrap() == bytes);
    cluster.finish().unwrap();
}

#[test]
fn an_unlinked_open_file_lives_on_through_a_restart_of_mgr() {
    let mut cluster = two_mounts();
    let path = cluster.mount(0).join("f");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    file.write_all(b"before ").unwrap();
    fs::remove_file(cluster.mount(1).join("f")).unwrap();
    assert!(!path.exists());
    file.write_all(b"after").unwrap();
    // The process that starts mgr anew inherits the file and closes it: a close that has writes to
    // report would wait for the mgr that it is about to start.
    file.sync_all().unwrap();
    cluster.kill_mgr().unwrap();
    cluster.restart_mgr().unwrap();
    file.write_all(b" and later").unwrap();
    file.sync_all().unwrap();
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after and later");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    drop(file);
    cluster.finish().unwrap();
}

#[test]
fn a_file_appended_to_by_turns_holds_all_lines() {
    let cluster = two_mounts();
    let paths = [cluster.mount(0).join("log"), cluster.mount(1).join("log")];
    for turn in 0..40usize {
        let mut log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&paths[turn % 2])
            .unwrap();
        writeln!(log, "line {turn}").unwrap();
    }
    let expected: String = (0..40).map(|turn| format!("line {turn}\n")).collect();
    for path in &paths {
        assert_eq!(fs::read_to_string(path).unwrap(), expected);
    }
    cluster.finish().unwrap();
}

#[test]
fn a_mount_waits_while_mgr_and_iods_are_away() {
    let mut cluster = two_mounts();
    let path = cluster.mount(0).join("f");
    let bytes = content(9, FILE_BYTES);
    fs::write(&path, &bytes).unwrap();
    let cold = cluster.mount(1).join("f");
    kill_iods(&mut cluster);
    cluster.kill_mgr().unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || drop(sender.send(fs::read(cold))));
    assert!(
        receiver.recv_timeout(Duration::from_millis(300)).is_err(),
        "it failed or came from nowhere"
    );
    cluster.restart_mgr().unwrap();
    restart_iods(&mut cluster);
    assert!(receiver.recv_timeout(CACHED_READ_TIMEOUT).unwrap().unwrap() == bytes);
    cluster.finish().unwrap();
}
