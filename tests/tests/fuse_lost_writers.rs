// SPDX-License-Identifier: MIT
//! Writers that end or hang before mgr has heard of what they wrote:
//! whoever extends the file afterwards finds what was written, or zeros, and nothing else
//! (docs/SEMANTICS.md, "What a writer leaves behind").

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cssns_tests::pvfs_cluster::{Cluster, Options, SmallDisk, Who};
use nix::fcntl::{FallocateFlags, fallocate};

/// How long mgr may take to hear of a disk's room.
const ROOM_TIME_MAX: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const LEASE_TIMEOUT_MS: u32 = 3000;
/// Spans the stripes of all three iods.
const WRITTEN: usize = 50_000;
/// To which the next holder extends the file.
const EXTENDED: u64 = 200_000;

fn mounts() -> Cluster {
    let cluster = Cluster::start(Options {
        mounts: 2,
        lease_timeout_ms: LEASE_TIMEOUT_MS,
        ..Options::default()
    })
    .unwrap();
    cluster.set_small_stripes().unwrap();
    cluster
}

/// A program of its own that has written to files and keeps them open: mgr has not heard of it.
struct Writer(Child);

impl Writer {
    /// Writes [`WRITTEN`] times `S` to each path and returns when write(2) has.
    fn start(paths: &[&Path]) -> Self {
        let script = "\
import os, sys, time
files = [os.open(path, os.O_CREAT | os.O_WRONLY) for path in sys.argv[2:]]
for file in files:
    assert os.write(file, b'S' * int(sys.argv[1])) == int(sys.argv[1])
print('written', flush=True)
time.sleep(600)";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(WRITTEN.to_string())
            .args(paths)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "written\n");
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How the next holder makes the file longer.
#[derive(Clone, Copy, Debug)]
enum Extension {
    Truncate,
    Write,
    Allocate,
}

const EXTENSIONS: [Extension; 3] = [Extension::Truncate, Extension::Write, Extension::Allocate];

/// Extends a file; gives what it holds then but for the last byte.
fn extend(path: &Path, how: Extension) -> Vec<u8> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    match how {
        Extension::Truncate => file.set_len(EXTENDED).unwrap(),
        Extension::Write => file.write_all_at(b"e", EXTENDED - 1).unwrap(),
        Extension::Allocate => {
            fallocate(&file, FallocateFlags::empty(), 0, EXTENDED as i64).unwrap();
        }
    }
    let mut found = fs::read(path).unwrap();
    assert_eq!(found.len() as u64, EXTENDED);
    found.pop();
    found
}

/// What was written by a write(2) that returned is there, and nothing but zeros after it.
fn assert_kept(found: &[u8], how: Extension) {
    let (written, rest) = found.split_at(WRITTEN);
    assert!(
        written.iter().all(|byte| *byte == b'S'),
        "{how:?}: not what was written"
    );
    assert!(rest.iter().all(|byte| *byte == 0), "{how:?}: no zeros");
}

fn paths(directory: &Path) -> Vec<PathBuf> {
    let name = |how: &Extension| directory.join(format!("{how:?}"));
    EXTENSIONS.iter().map(name).collect()
}

#[test]
fn what_a_killed_mount_wrote_is_in_the_file_before_anybody_extends_it() {
    let mut cluster = mounts();
    let (here, there) = (paths(&cluster.mount(0)), paths(&cluster.mount(1)));
    let writer = Writer::start(&here.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    cluster.kill_mount(0).unwrap();
    drop(writer);
    assert_eq!(fs::metadata(&there[0]).unwrap().size(), WRITTEN as u64);
    for (path, how) in there.iter().zip(EXTENSIONS) {
        assert_kept(&extend(path, how), how);
    }
    cluster.restart_mount(0).unwrap();
    cluster.finish().unwrap();
}

/// mgr does not remember who wrote to what; the note of it does.
#[test]
fn what_a_mount_wrote_that_was_killed_together_with_mgr_is_in_the_file() {
    let mut cluster = mounts();
    let (here, there) = (paths(&cluster.mount(0)), paths(&cluster.mount(1)));
    let writer = Writer::start(&here.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    cluster.kill_mgr().unwrap();
    cluster.kill_mount(0).unwrap();
    drop(writer);
    cluster.restart_mgr().unwrap();
    for (path, how) in there.iter().zip(EXTENSIONS) {
        assert_kept(&extend(path, how), how);
    }
    cluster.restart_mount(0).unwrap();
    cluster.finish().unwrap();
}

/// It is there again after others have got its leases: what it reports then undoes nothing.
#[test]
fn what_a_mount_wrote_that_hung_is_in_the_file_before_anybody_extends_it() {
    let cluster = mounts();
    let (here, there) = (paths(&cluster.mount(0)), paths(&cluster.mount(1)));
    let writer = Writer::start(&here.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    cluster.freeze_mount(0, true).unwrap();
    for (path, how) in there.iter().zip(EXTENSIONS) {
        assert_kept(&extend(path, how), how);
    }
    OpenOptions::new()
        .write(true)
        .open(&there[0])
        .unwrap()
        .set_len(7)
        .unwrap();
    cluster.freeze_mount(0, false).unwrap();
    drop(writer);
    assert_eq!(fs::read(&here[0]).unwrap(), b"SSSSSSS");
    assert_eq!(fs::read(&there[0]).unwrap(), b"SSSSSSS");
    for (path, how) in here.iter().zip(EXTENSIONS).skip(1) {
        let mut found = fs::read(path).unwrap();
        found.pop();
        assert_kept(&found, how);
    }
    cluster.finish().unwrap();
}

/// Until the iod is back nobody knows how long the file is: what is known of it can be read, and what
/// else there is can be used.
#[test]
fn while_an_iod_is_away_a_file_that_lost_its_writer_is_read_and_not_extended() {
    const PROMPTLY: Duration = Duration::from_secs(8);
    let mut cluster = mounts();
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    fs::write(&here, b"known").unwrap();
    fs::write(cluster.mount(1).join("other"), b"").unwrap();
    let writer = Writer::start(&[&here]);
    cluster.kill_iod(2).unwrap();
    cluster.kill_mount(0).unwrap();
    drop(writer);
    let start = Instant::now();
    // Where the first iod has it: written over by the lost writer, and of the size that mgr knows.
    assert_eq!(fs::read(&there).unwrap(), b"SSSSS");
    assert!(start.elapsed() < 2 * PROMPTLY, "{:?}", start.elapsed());
    let mut extender = Command::new("truncate")
        .args(["-s", &EXTENDED.to_string()])
        .arg(&there)
        .spawn()
        .unwrap();
    let start = Instant::now();
    let mut other = OpenOptions::new()
        .append(true)
        .open(cluster.mount(1).join("other"))
        .unwrap();
    other.write_all(b"not held up").unwrap();
    assert_eq!(fs::read(&there).unwrap(), b"SSSSS");
    assert!(start.elapsed() < PROMPTLY, "{:?}", start.elapsed());
    assert!(
        extender.try_wait().unwrap().is_none(),
        "it must not know yet"
    );
    cluster.restart_iod(2).unwrap();
    assert!(extender.wait().unwrap().success());
    let found = fs::read(&there).unwrap();
    assert_eq!(found.len() as u64, EXTENDED);
    assert_kept(&found, Extension::Truncate);
    cluster.restart(Who::Mount(0)).unwrap();
    drop(other);
    cluster.finish().unwrap();
}

/// Takes all the room on an iod's disk, until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn new(path: PathBuf) -> Self {
        let mut file = File::create(&path).unwrap();
        for size in [1 << 20, 4096] {
            let error = loop {
                if let Err(error) = file
                    .write_all(&vec![1; size])
                    .and_then(|()| file.sync_all())
                {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull);
        }
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes a file that has stripes on the small disk too: mgr gives it none until it has heard that
/// there is room again.
fn on_all_iods(options: &OpenOptions, path: &Path) -> File {
    let start = Instant::now();
    loop {
        let file = options.open(path).unwrap();
        let iods = xattr::get(path, "user.pvfs.iods").unwrap().unwrap();
        if iods.split(|byte| *byte == b',').count() == Options::default().iods {
            return file;
        }
        fs::remove_file(path).unwrap();
        assert!(
            start.elapsed() < ROOM_TIME_MAX,
            "mgr does not hear of the room"
        );
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// One iod of three has no room: what the others took of a write must not come back.
#[test]
fn what_is_left_of_a_write_that_failed_is_not_in_the_file_when_it_grows() {
    // One that has much more room than another would get all new files.
    const DISK_BYTES: [u64; 3] = [24 << 20, 96 << 20, 96 << 20];
    let cluster = Cluster::start(Options {
        mounts: 2,
        lease_timeout_ms: LEASE_TIMEOUT_MS,
        disks: (0..)
            .zip(DISK_BYTES)
            .map(|(number, bytes)| SmallDisk {
                directory: format!("iod{number}"),
                bytes,
            })
            .collect(),
        ..Options::default()
    })
    .unwrap();
    cluster.set_small_stripes().unwrap();
    let (mut short, mut refused) = (0, 0);
    // Each file begins at another iod than the one before.
    for round in 0..9 {
        for (extender, how) in [0, 1]
            .into_iter()
            .zip([Extension::Truncate, Extension::Write])
        {
            let name = format!("{round}-{extender}");
            let path = cluster.mount(0).join(&name);
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true);
            if round % 2 == 1 {
                options.custom_flags(nix::libc::O_DIRECT);
            }
            let file = on_all_iods(&options, &path);
            let filler = Filler::new(cluster.scratch().join("iod0/filler"));
            let bytes = vec![b'S'; 98_304];
            let stored = match file.write_at(&bytes, 0) {
                Ok(stored) => {
                    assert!(stored < bytes.len(), "the disk is full");
                    short += 1;
                    stored
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::StorageFull);
                    refused += 1;
                    0
                }
            };
            assert_eq!(file.metadata().unwrap().size(), stored as u64);
            if extender == 1 {
                // The one who failed writes on at once.
                let beyond = if round % 2 == 1 {
                    vec![b'e'; 4096]
                } else {
                    vec![b'e']
                };
                let end = EXTENDED / 4096 * 4096;
                drop(filler);
                file.write_all_at(&beyond, end).unwrap();
                let mut found = fs::read(&path).unwrap();
                found.truncate(end as usize);
                let (written, rest) = found.split_at(stored);
                assert!(written.iter().all(|byte| *byte == b'S'));
                assert!(rest.iter().all(|byte| *byte == 0), "{name}: no zeros");
                continue;
            }
            drop(filler);
            let found = extend(&cluster.mount(1).join(&name), how);
            let (written, rest) = found.split_at(stored);
            assert!(written.iter().all(|byte| *byte == b'S'));
            assert!(rest.iter().all(|byte| *byte == 0), "{name}: no zeros");
        }
    }
    assert!(
        short > 0 && refused > 0,
        "{short} short writes, {refused} refused"
    );
    cluster.finish().unwrap();
}

#[test]
fn a_mount_that_is_unmounted_leaves_nothing_to_settle() {
    let mut cluster = mounts();
    let path = cluster.mount(0).join("f");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"reported").unwrap();
    drop(file);
    cluster.unmount(0).unwrap();
    let start = Instant::now();
    let there = cluster.mount(1).join("f");
    OpenOptions::new()
        .write(true)
        .open(&there)
        .unwrap()
        .set_len(20)
        .unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(LEASE_TIMEOUT_MS.into()),
        "it waited"
    );
    assert_eq!(
        fs::read(&there).unwrap(),
        b"reported\0\0\0\0\0\0\0\0\0\0\0\0"
    );
    cluster.restart_mount(0).unwrap();
    cluster.finish().unwrap();
}
