// SPDX-License-Identifier: MIT
//! Holes, reserved space, and copies that the file system makes itself: fallocate(2), lseek(2),
//! copy_file_range(2), `st_blocks`, within one mount and between two.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use cssns_tests::pvfs_cluster::{Cluster, Options};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, copy_file_range, fallocate};
use nix::unistd::{Whence, lseek};

/// The default stripe.
const STRIPE: u64 = 256 << 10;
const BLOCK: u64 = 512;

fn two_mounts() -> Cluster {
    Cluster::start(Options {
        mounts: 2,
        ..Options::default()
    })
    .unwrap()
}

fn pattern(seed: u64, length: u64) -> Vec<u8> {
    (0..length)
        .map(|at| (at / 4096 + at * 7 + seed) as u8 | 1)
        .collect()
}

fn make(path: &Path) -> File {
    OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

fn seek(file: &File, offset: u64, whence: Whence) -> Result<u64, Errno> {
    lseek(file.as_fd(), i64::try_from(offset).unwrap(), whence).map(|found| found as u64)
}

fn change(file: &File, flags: FallocateFlags, offset: u64, length: u64) -> Result<(), Errno> {
    let signed = |number: u64| i64::try_from(number).unwrap();
    fallocate(file.as_fd(), flags, signed(offset), signed(length))
}

#[test]
fn fallocate_reserves_punches_and_zeroes() {
    const KEEP: FallocateFlags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let cluster = two_mounts();
    let (path, other) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    let file = make(&path);
    let blocks = || file.metadata().unwrap().blocks() * BLOCK;
    change(&file, FallocateFlags::empty(), 0, 4 * STRIPE).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4 * STRIPE);
    assert_eq!(
        fs::metadata(&other).unwrap().len(),
        4 * STRIPE,
        "seen elsewhere"
    );
    assert_eq!(blocks(), 4 * STRIPE);
    assert!(fs::read(&other).unwrap().iter().all(|byte| *byte == 0));
    change(&file, KEEP, 4 * STRIPE, 2 * STRIPE).unwrap();
    assert_eq!(
        file.metadata().unwrap().len(),
        4 * STRIPE,
        "the size is kept"
    );
    assert_eq!(blocks(), 6 * STRIPE);
    assert_eq!(fs::metadata(&other).unwrap().blocks() * BLOCK, 6 * STRIPE);

    let mut bytes = pattern(3, 4 * STRIPE);
    file.write_all_at(&bytes, 0).unwrap();
    // Both mounts have the pages of what is punched.
    let reader = File::open(&other).unwrap();
    assert!(fs::read(&other).unwrap() == bytes);
    let (start, end) = (STRIPE / 2 + 100, 3 * STRIPE + 77);
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | KEEP;
    change(&file, punch, start, end - start).unwrap();
    bytes[start as usize..end as usize].fill(0);
    assert!(fs::read(&path).unwrap() == bytes, "zeros here");
    let mut found = vec![0; bytes.len()];
    reader.read_exact_at(&mut found, 0).unwrap();
    assert!(found == bytes, "zeros through a descriptor that was open");
    assert!(blocks() < 4 * STRIPE + BLOCK * 16, "space is given back");

    change(&file, FallocateFlags::FALLOC_FL_ZERO_RANGE, 100, STRIPE).unwrap();
    bytes[100..100 + STRIPE as usize].fill(0);
    assert!(fs::read(&other).unwrap() == bytes);
    let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE;
    change(&file, zero, 4 * STRIPE - 5, STRIPE).unwrap();
    bytes[4 * STRIPE as usize - 5..].fill(0);
    bytes.resize(5 * STRIPE as usize - 5, 0);
    assert!(
        fs::read(&other).unwrap() == bytes,
        "it grows where it is zeroed"
    );
    change(&file, zero | KEEP, 5 * STRIPE, STRIPE).unwrap();
    assert_eq!(fs::metadata(&other).unwrap().len(), bytes.len() as u64);

    for refused in [
        FallocateFlags::FALLOC_FL_COLLAPSE_RANGE,
        FallocateFlags::FALLOC_FL_INSERT_RANGE,
    ] {
        assert_eq!(change(&file, refused, 0, STRIPE), Err(Errno::EOPNOTSUPP));
    }
    assert_eq!(
        change(&file, FallocateFlags::empty(), 0, 0),
        Err(Errno::EINVAL)
    );
    let beyond = i64::MAX as u64;
    assert_eq!(change(&file, KEEP, beyond, 2), Err(Errno::EFBIG));
    assert_eq!(change(&reader, KEEP, 0, 1), Err(Errno::EBADF));
    drop((file, reader));
    cluster.finish().unwrap();
}

#[test]
fn holes_and_data_are_found_where_they_are() {
    let cluster = two_mounts();
    let path = cluster.mount(0).join("f");
    let file = make(&path);
    file.set_len(100 * STRIPE + 10).unwrap();
    assert_eq!(seek(&file, 0, Whence::SeekData), Err(Errno::ENXIO));
    assert_eq!(seek(&file, 0, Whence::SeekHole), Ok(0));
    assert_eq!(file.metadata().unwrap().blocks(), 0);
    file.write_all_at(&pattern(1, 2 * STRIPE), 10 * STRIPE)
        .unwrap();
    file.write_all_at(b"x", 50 * STRIPE + 5).unwrap();
    // The other mount sees it as soon as it was written.
    let other = File::open(cluster.mount(1).join("f")).unwrap();
    for file in [&file, &other] {
        let data = |offset| seek(file, offset, Whence::SeekData);
        let hole = |offset| seek(file, offset, Whence::SeekHole);
        assert_eq!(data(0), Ok(10 * STRIPE));
        assert_eq!(data(10 * STRIPE + 17), Ok(10 * STRIPE + 17));
        assert_eq!(hole(0), Ok(0));
        assert_eq!(hole(10 * STRIPE), Ok(12 * STRIPE));
        assert_eq!(data(12 * STRIPE), Ok(50 * STRIPE));
        assert_eq!(hole(50 * STRIPE), Ok(50 * STRIPE + 6));
        assert_eq!(data(51 * STRIPE), Err(Errno::ENXIO));
        assert_eq!(hole(100 * STRIPE + 9), Ok(100 * STRIPE + 9));
        assert_eq!(hole(100 * STRIPE + 10), Err(Errno::ENXIO), "the end");
        assert_eq!(data(200 * STRIPE), Err(Errno::ENXIO));
    }
    let full = make(&cluster.mount(0).join("full"));
    full.write_all_at(&pattern(1, 3 * STRIPE + 1), 0).unwrap();
    assert_eq!(seek(&full, 0, Whence::SeekHole), Ok(3 * STRIPE + 1));
    assert_eq!(seek(&full, 0, Whence::SeekData), Ok(0));
    let blocks = fs::metadata(cluster.mount(1).join("f")).unwrap().blocks();
    assert_eq!(blocks * BLOCK, 2 * STRIPE + 4096, "what the iods hold");
    let dense = full.metadata().unwrap().blocks();
    assert_eq!(dense * BLOCK, 3 * STRIPE + 4096);
    drop((file, other, full));
    cluster.finish().unwrap();
}

/// Writes through a mapping and, before that is synced, looks for it through descriptors of two
/// mounts. A mapping takes `unsafe` in Rust, which tests do without; Python has one.
const SEEK_MAPPED: &str = "\
import mmap, os, sys
with open(sys.argv[1], 'r+b') as file:
    pages = mmap.mmap(file.fileno(), 4 << 18)
    pages[2 << 18] = 1
    assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 2 << 18
    pages[1 << 18] = 1
    with open(sys.argv[2], 'rb') as other:
        assert os.lseek(other.fileno(), 0, os.SEEK_DATA) == 1 << 18
";

#[test]
fn pages_that_a_mapping_wrote_are_data() {
    let cluster = two_mounts();
    let (path, other) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    make(&path).set_len(4 * STRIPE).unwrap();
    let mut python = Command::new("python3");
    let python = python.args(["-c", SEEK_MAPPED]).args([&path, &other]);
    assert!(python.status().unwrap().success());
    cluster.finish().unwrap();
}

#[test]
fn copy_file_range_copies_between_files_and_mounts_of_one_file() {
    let cluster = two_mounts();
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    let bytes = pattern(9, 40 * STRIPE + 1234);
    fs::write(here.join("from"), &bytes).unwrap();
    let source = OpenOptions::new()
        .read(true)
        .write(true)
        .open(here.join("from"))
        .unwrap();
    let copy = |from: &File, from_at: u64, to: &File, to_at: u64, length: u64| {
        let (mut from_at, mut to_at) = (from_at as i64, to_at as i64);
        let (mut left, mut copied) = (length as usize, 0);
        while left > 0 {
            let step = copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), left)?;
            if step == 0 {
                break;
            }
            left -= step;
            copied += step;
        }
        Ok::<u64, Errno>(copied as u64)
    };
    let target = make(&here.join("to"));
    // Alike, shifted by some bytes, and beyond the end of what is copied.
    for (from_at, to_at) in [(0, 0), (0, 12 * STRIPE), (1, 0), (STRIPE, 77)] {
        target.set_len(0).unwrap();
        let length = bytes.len() as u64 - from_at;
        assert_eq!(
            copy(&source, from_at, &target, to_at, length + 5),
            Ok(length)
        );
        let mut expected = vec![0; to_at as usize];
        expected.extend(&bytes[from_at as usize..]);
        assert!(
            fs::read(here.join("to")).unwrap() == expected,
            "{from_at} {to_at}"
        );
        assert!(
            fs::read(there.join("to")).unwrap() == expected,
            "{from_at} {to_at}"
        );
    }
    // Within one file, over pages that both mounts have.
    let mut expected = bytes.clone();
    assert!(fs::read(there.join("from")).unwrap() == expected);
    assert_eq!(
        copy(&source, 100, &source, 20 * STRIPE, 5 * STRIPE),
        Ok(5 * STRIPE)
    );
    expected.copy_within(100..100 + 5 * STRIPE as usize, 20 * STRIPE as usize);
    assert!(fs::read(here.join("from")).unwrap() == expected);
    assert!(fs::read(there.join("from")).unwrap() == expected);
    // What the other node wrote a moment ago is what is copied.
    let writer = OpenOptions::new()
        .write(true)
        .open(there.join("from"))
        .unwrap();
    writer.write_all_at(b"just now", 0).unwrap();
    assert_eq!(copy(&source, 0, &target, 0, 8), Ok(8));
    assert_eq!(&fs::read(there.join("to")).unwrap()[..8], b"just now");
    assert_eq!(
        copy(&source, 0, &source, 10, 100),
        Err(Errno::EINVAL),
        "overlap"
    );
    assert_eq!(
        copy(&source, 1 << 40, &target, 0, 100),
        Ok(0),
        "past the end"
    );
    drop((source, target, writer));
    cluster.finish().unwrap();
}

/// Two nodes that copy between the same two files in opposite directions do not wait for each other
/// for ever.
#[test]
fn copies_in_opposite_directions_go_on() {
    let cluster = two_mounts();
    let length = 4 * STRIPE;
    fs::write(cluster.mount(0).join("a"), pattern(1, length)).unwrap();
    fs::write(cluster.mount(0).join("b"), pattern(2, length)).unwrap();
    let copiers = [(0, "a", "b"), (1, "b", "a")].map(|(mount, from, to)| {
        let mount = cluster.mount(mount);
        std::thread::spawn(move || {
            let open = |name| {
                let mut options = OpenOptions::new();
                options
                    .read(true)
                    .write(true)
                    .open(mount.join(name))
                    .unwrap()
            };
            let (from, to) = (open(from), open(to));
            for _ in 0..50 {
                let (mut from_at, mut to_at) = (0, 0);
                let wanted = length as usize;
                copy_file_range(&from, Some(&mut from_at), &to, Some(&mut to_at), wanted).unwrap();
            }
        })
    });
    for copier in copiers {
        copier.join().unwrap();
    }
    // Whoever copied last, each byte is one of the two that were there.
    let (one, two) = (pattern(1, length), pattern(2, length));
    for name in ["a", "b"] {
        let found = fs::read(cluster.mount(1).join(name)).unwrap();
        let sound = |at: usize| found[at] == one[at] || found[at] == two[at];
        assert!((0..found.len()).all(sound));
    }
    cluster.finish().unwrap();
}
