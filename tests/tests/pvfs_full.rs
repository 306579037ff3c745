// SPDX-License-Identifier: MIT
//! Disks that are full, for real: mgr's store or the iods' on small file systems of their own. Programs
//! are told ENOSPC, removals go on, with room again everything does, and nothing acknowledged is lost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use cssns_tests::pvfs_cluster::{Cluster, Options, SmallDisk};

const DISK_BYTES: u64 = 24 << 20;
const FILE_BYTES: usize = 1 << 20;

fn disks(names: &[&str]) -> Vec<SmallDisk> {
    names
        .iter()
        .map(|name| SmallDisk {
            directory: (*name).to_owned(),
            bytes: DISK_BYTES,
        })
        .collect()
}

fn content(number: usize) -> Vec<u8> {
    let mut bytes = vec![0; FILE_BYTES + number];
    fastrand::Rng::with_seed(number as u64).fill(&mut bytes);
    bytes
}

/// Writes a file and flushes it; only then it counts.
fn store(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes files until there is no room; which are safe then.
fn fill(mount: &Path, from: usize) -> anyhow::Result<BTreeMap<PathBuf, usize>> {
    let mut safe = BTreeMap::new();
    for number in from.. {
        let path = mount.join(format!("file{number}"));
        match store(&path, &content(number)) {
            Ok(()) => drop(safe.insert(path, number)),
            Err(error) => {
                ensure!(error.kind() == ErrorKind::StorageFull, "{error}");
                // Closed without an error that anybody saw, it may be of any length.
                fs::remove_file(&path).context("removing what did not fit")?;
                break;
            }
        }
        ensure!(number < from + 1000, "the disks do not get full");
    }
    Ok(safe)
}

fn check(safe: &BTreeMap<PathBuf, usize>) -> anyhow::Result<()> {
    for (path, number) in safe {
        let found = fs::read(path).with_context(|| format!("{}", path.display()))?;
        ensure!(found == content(*number), "{}", path.display());
    }
    Ok(())
}

#[test]
fn full_iods_say_so_and_go_on_when_there_is_room() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options {
        disks: disks(&["iod0", "iod1", "iod2"]),
        // So soon after a crash, space comes back.
        session_timeout_ms: 3000,
        ..Options::default()
    })?;
    let mount = cluster.mount(0);
    let mut safe = fill(&mount, 0)?;
    ensure!(safe.len() > 20, "only {} files fitted", safe.len());
    check(&safe)?;
    // What is there can still be read and removed, also after everything has crashed.
    cluster.crash_all()?;
    check(&safe)?;
    for _ in 0..10 {
        let (path, _) = safe.pop_first().context("no file")?;
        fs::remove_file(path)?;
    }
    // Space comes back behind the removals, at the latest when mgr's grace after its start is over.
    let more = loop {
        let more = fill(&mount, 2000)?;
        if more.len() > 5 {
            break more;
        }
        for path in more.keys() {
            fs::remove_file(path)?;
        }
    };
    safe.extend(more);
    check(&safe)?;
    cluster.crash_all()?;
    check(&safe)?;
    cluster.finish()
}

/// Names that were made, until mgr has no room.
fn fill_names(mount: &Path, prefix: &str) -> anyhow::Result<Vec<PathBuf>> {
    let value = vec![b'v'; 32 << 10];
    for number in 0.. {
        let path = mount.join(format!("{prefix}{number}"));
        let made = fs::create_dir(&path).and_then(|()| xattr::set(&path, "user.filling", &value));
        match made {
            Ok(()) => {}
            Err(error) => {
                ensure!(error.kind() == ErrorKind::StorageFull, "{error}");
                break;
            }
        }
        ensure!(number < 5000, "mgr's disk does not get full");
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(mount)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(prefix) {
            names.push(path.clone());
        }
    }
    Ok(names)
}

#[test]
fn a_full_mgr_says_so_and_lets_names_go() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options {
        disks: disks(&["mgr"]),
        // So soon after a crash, the room of what had just been removed comes back.
        session_timeout_ms: 3000,
        ..Options::default()
    })?;
    let mount = cluster.mount(0);
    let kept = content(7);
    store(&mount.join("kept"), &kept)?;
    let names = fill_names(&mount, "a")?;
    ensure!(names.len() > 100, "only {} names fitted", names.len());
    // Everything but growth goes on.
    ensure!(fs::read(mount.join("kept"))? == kept);
    fs::rename(mount.join("kept"), mount.join("renamed"))?;
    fs::rename(mount.join("renamed"), mount.join("kept"))?;
    // A disk that others have filled to the last byte as well: nothing can be committed, and
    // whatever was acknowledged stays.
    let ballast = cluster.scratch().join("mgr/ballast");
    cssns_tests::pvfs_cluster::fill(&ballast)?;
    let outcome = fs::remove_dir(&names[0]);
    let removed = outcome.is_ok();
    if let Err(error) = outcome {
        ensure!(error.kind() == ErrorKind::StorageFull, "{error}");
    }
    fs::remove_file(&ballast)?;
    if !removed {
        fs::remove_dir(&names[0]).context("removing with room again")?;
    }
    for path in &names[1..names.len() / 2] {
        fs::remove_dir(path)?;
    }
    fs::create_dir(mount.join("room again"))?;
    cluster.crash_all()?;
    for (at, path) in names.iter().enumerate() {
        ensure!(
            path.exists() == (at >= names.len() / 2),
            "{}",
            path.display()
        );
    }
    ensure!(mount.join("room again").exists());
    ensure!(fs::read(mount.join("kept"))? == kept);
    loop {
        let more = fill_names(&mount, "b")?;
        if more.len() > 30 {
            return cluster.finish();
        }
        for path in more {
            fs::remove_dir(path)?;
        }
    }
}
