// SPDX-License-Identifier: MIT
//! Files that are replaced and removed on one node while others open them: docs/SEMANTICS.md,
//! "Between nodes".

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cssns_tests::proxy::Mood;
use cssns_tests::pvfs_cluster::{Cluster, Options, Who};
use nix::fcntl::OFlag;

/// What was removed can be opened for so long by whoever has just looked it up.
const LINGER: Duration = Duration::from_secs(1);

/// open(2) is a look-up and an open of what was found; with `O_PATH`, a program can do one after the
/// other.
#[test]
fn what_is_removed_between_look_up_and_open_is_opened() {
    const ROUNDS: usize = 20;
    let options = Options {
        mounts: 3,
        ..Options::default()
    };
    let cluster = Cluster::start(options).unwrap();
    let place = |mount: usize, name: &str| cluster.mount(mount).join(name);
    let mut opened = 0;
    for round in 0..ROUNDS {
        fs::write(place(0, "page"), format!("page {round}")).unwrap();
        fs::write(place(0, "page.new"), "the next").unwrap();
        let found = [0, 1, 2].map(|mount| {
            let mut path_only = OpenOptions::new();
            path_only.read(true).custom_flags(OFlag::O_PATH.bits());
            path_only.open(place(mount, "page")).unwrap()
        });
        let removal = Instant::now();
        match round % 2 {
            0 => fs::rename(place(0, "page.new"), place(0, "page")).unwrap(),
            _ => fs::remove_file(place(0, "page")).unwrap(),
        }
        for path_only in &found {
            let path = format!("/proc/self/fd/{}", path_only.as_raw_fd());
            match File::open(path) {
                Ok(mut file) => {
                    let mut text = String::new();
                    file.read_to_string(&mut text).unwrap();
                    assert_eq!(text, format!("page {round}"));
                    assert_eq!(file.metadata().unwrap().nlink(), 0);
                    opened += 1;
                }
                // On a machine that is this busy it has gone in between.
                Err(error) => assert!(removal.elapsed() >= LINGER, "{error}"),
            }
        }
    }
    assert!(opened >= ROUNDS, "{opened}");
    cluster.finish().unwrap();
}

/// An open is a look-up and an open of what was found. The readers' links to mgr are slow, so that the
/// name is given to other files between the two, again and again.
#[test]
fn a_file_replaced_by_rename_is_never_mixed_and_can_always_be_opened() {
    const BYTES: usize = 200_000;
    const VERSIONS: u64 = 100;
    let options = Options {
        mounts: 3,
        proxied: true,
        ..Options::default()
    };
    let cluster = Cluster::start(options).unwrap();
    let page = cluster.mount(0).join("page");
    let version = |number: u64| cluster.mount(0).join(format!("page.{number}"));
    fs::write(&page, vec![0; BYTES]).unwrap();
    for number in 1..=VERSIONS {
        fs::write(version(number), vec![number as u8; BYTES]).unwrap();
    }
    let newest = Arc::new(AtomicU64::new(0));
    let reader = |mount| {
        let newest = Arc::clone(&newest);
        let served = cluster.mount(mount).join("page");
        thread::spawn(move || {
            let mut reads = 0;
            while newest.load(Ordering::SeqCst) < VERSIONS {
                let from = newest.load(Ordering::SeqCst);
                let bytes = fs::read(&served).unwrap();
                let first = bytes[0];
                assert!(bytes.len() == BYTES && bytes.iter().all(|byte| *byte == first));
                assert!(u64::from(first) >= from, "{first} is older than {from}");
                reads += 1;
            }
            reads
        })
    };
    for mount in [1, 2] {
        let link = cluster.link(Who::Mount(mount)).unwrap();
        link.set(Mood::Slow(16));
    }
    let readers = [1, 1, 2, 2].map(reader);
    for number in 1..=VERSIONS {
        fs::rename(version(number), &page).unwrap();
        newest.store(number, Ordering::SeqCst);
    }
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    cluster.finish().unwrap();
}
