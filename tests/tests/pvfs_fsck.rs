// SPDX-License-Identifier: MIT
//! `pvfs fsck` and `pvfs scrub` on a whole PVFS: stores that are damaged on purpose are found out,
//! repaired and then clean; and what goes on meanwhile is never taken for damage.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options};
use pvfs::ids::{InodeNumber, ROOT_INODE};
use pvfs::name::Name;
use pvfs_mgr::namespace::dentry::Dentry;
use pvfs_mgr::namespace::inode::Inode;
use pvfs_mgr::namespace::{key, value};
use pvfs_mgr::store::lmdb::{LmdbStore, METADATA_BYTES_MAX_DEFAULT};
use pvfs_mgr::store::{Records, Store, View};
use serde_json::Value;

const STRIPE: usize = 512 << 10;
const IODS: usize = 3;
/// How long mgr may take to have an iod remove something.
const REMOVAL_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

struct Checked {
    status: i32,
    json: Value,
}

impl Checked {
    /// What was found, in words.
    fn found(&self) -> Vec<&str> {
        let list = self.json["findings"].as_array();
        let list = list.into_iter().flatten();
        list.filter_map(|finding| finding["words"].as_str())
            .collect()
    }
}

fn check(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Checked> {
    let output = Command::new(programs::find("pvfs")?)
        .args(arguments)
        .args(["--json", "--quiet", cluster.mgr_address()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&text).with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("{arguments:?}: {text}{errors}")
    })?;
    Ok(Checked {
        status: output.status.code().context("killed")?,
        json,
    })
}

/// Changes mgr's records while it is away.
fn damage_records(
    cluster: &mut Cluster,
    damage: impl FnOnce(&LmdbStore) -> anyhow::Result<Records>,
) -> anyhow::Result<()> {
    cluster.kill_mgr()?;
    let directory = cluster.scratch().join("mgr");
    let mut store = LmdbStore::open(&directory, METADATA_BYTES_MAX_DEFAULT)?;
    let records = damage(&store)?;
    store.commit(&records)?;
    drop(store);
    cluster.restart_mgr()
}

fn record<T: bincode::Decode<()>>(store: &LmdbStore, key: &[u8]) -> anyhow::Result<T> {
    let view = store.view()?;
    let bytes = view.get(key)?.context("no such record")?;
    Ok(value::decode(key, bytes)?)
}

/// The local files of an inode's data, with the iod of each.
fn objects(cluster: &Cluster, inode: u64) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for iod in 0..IODS {
        let hash = format!("iod{iod}/objects/{:02x}", inode % 256);
        for file in fs::read_dir(cluster.scratch().join(hash))? {
            let path = file?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&format!("{inode:016x}.")) && !name.ends_with(".sums") {
                found.push(path.clone());
            }
        }
    }
    Ok(found)
}

fn write_synced(path: &Path, bytes: &[u8]) -> anyhow::Result<u64> {
    fs::write(path, bytes)?;
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(file.metadata()?.ino())
}

#[test]
fn damage_of_every_kind_is_found_repaired_and_gone() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options {
        // So soon after a start of mgr, sizes can be judged.
        session_timeout_ms: 3000,
        ..Options::default()
    })?;
    let mount = cluster.mount(0);
    let content = vec![7; IODS * STRIPE];
    fs::create_dir(mount.join("dir"))?;
    let linked = write_synced(&mount.join("dir/linked"), &content)?;
    let nameless = write_synced(&mount.join("dir/nameless"), b"no name")?;
    let dangling = write_synced(&mount.join("dir/dangling"), &content)?;
    let small = write_synced(&mount.join("dir/small"), &content)?;
    let lost = write_synced(&mount.join("dir/lost"), &content)?;
    let directory = InodeNumber(fs::metadata(mount.join("dir"))?.ino());
    let sound = check(&cluster, &["fsck"])?;
    ensure!(sound.status == 0, "{}", sound.json);
    ensure!(sound.json["inodes"] == 7, "{}", sound.json);

    // So that nobody has anything open or cached of what is damaged.
    cluster.unmount(0)?;
    damage_records(&mut cluster, |store| {
        let mut records = Records::new();
        let mut put = |key: Vec<u8>, value: Option<Vec<u8>>| drop(records.insert(key, value));
        let mut inode: Inode = record(store, &key::inode(InodeNumber(linked)))?;
        inode.attr.nlink = 5;
        put(
            key::inode(InodeNumber(linked)),
            Some(value::encode(&inode)?),
        );
        put(
            key::xattr(InodeNumber(4000), b"user.x"),
            Some(value::encode(&vec![1u8])?),
        );
        let name = Name::new("nameless")?;
        let dentry: Dentry = record(store, &key::dentry(directory, &name))?;
        put(key::dentry(directory, &name), None);
        put(key::cookie(directory, dentry.cookie), None);
        // Its stripes are nobody's, and its name stands for nothing.
        put(key::inode(InodeNumber(dangling)), None);
        put(key::layout(InodeNumber(dangling)), None);
        let mut inode: Inode = record(store, &key::inode(InodeNumber(small)))?;
        inode.attr.size = 100;
        put(key::inode(InodeNumber(small)), Some(value::encode(&inode)?));
        Ok(records)
    })?;
    // One iod has lost a file's data.
    for iod in 0..IODS {
        cluster.stop_iod(iod)?;
    }
    let gone = objects(&cluster, lost)?;
    ensure!(gone.len() == IODS, "{gone:?}");
    fs::remove_file(&gone[0])?;
    for iod in 0..IODS {
        cluster.restart_iod(iod)?;
    }

    let told = check(&cluster, &["fsck"])?;
    let found = told.found().join("\n");
    ensure!(told.status == 4, "{}", told.json);
    for expected in [
        format!("inode {linked} says it has 5 links and has 1"),
        format!("inode {nameless} has no name"),
        "name dangling in directory".to_owned(),
        "is of no inode".to_owned(),
        "says it has 5 entries and has 4".to_owned(),
        "mgr says that there are 7 inodes and there are 6".to_owned(),
        format!("of stripes {small:016x}."),
        format!("has lost the data of stripes {lost:016x}."),
        format!("stripes {dangling:016x}."),
    ] {
        ensure!(found.contains(&expected), "`{expected}` is not in\n{found}");
    }
    ensure!(
        found.matches("are of no file").count() == 1,
        "strays:\n{found}"
    );
    ensure!(
        told.json["findings"].to_string().contains("/dir/lost"),
        "{}",
        told.json
    );
    let again = check(&cluster, &["fsck"])?;
    ensure!(again.found() == told.found(), "a dry run changed something");

    let repaired = check(&cluster, &["fsck", "--repair"])?;
    ensure!(repaired.status == 5, "{}", repaired.json);
    let left = check(&cluster, &["fsck"])?;
    ensure!(left.status == 4 && left.found().len() == 1, "{}", left.json);
    ensure!(left.found()[0].contains("has lost the data"));

    cluster.restart_mount(0)?;
    ensure!(fs::metadata(mount.join("dir/linked"))?.nlink() == 1);
    ensure!(fs::read(mount.join("dir/linked"))? == content);
    let path = mount.join(format!("lost+found/#{nameless}"));
    ensure!(fs::read(path)? == b"no name");
    ensure!(fs::read(mount.join("dir/small"))? == content);
    ensure!(!mount.join("dir/dangling").exists());
    let mut found = Vec::new();
    for entry in fs::read_dir(mount.join("lost+found"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&format!("#{dangling:016x}.")) {
            found.push(path.clone());
        }
    }
    ensure!(found.len() == 1, "{found:?}");
    ensure!(fs::read(&found[0])? == content, "the stripes are mixed up");
    fs::remove_file(&found[0])?;
    let error = fs::read(mount.join("dir/lost")).err();
    let errno = error.and_then(|error| error.raw_os_error());
    ensure!(errno == Some(nix::libc::EIO), "{errno:?}");
    fs::remove_file(mount.join("dir/lost"))?;
    // Removals are carried out behind their commits, and nobody is told.
    let start = Instant::now();
    while !objects(&cluster, dangling)?.is_empty() || !objects(&cluster, lost)?.is_empty() {
        ensure!(start.elapsed() < REMOVAL_MAX, "strays are not removed");
        std::thread::sleep(POLL);
    }
    let clean = check(&cluster, &["fsck"])?;
    ensure!(clean.status == 0, "{}", clean.json);
    ensure!(ROOT_INODE.0 == fs::metadata(&mount)?.ino());
    cluster.finish()
}

/// Everything that may look half-done to somebody who reads the records page by page.
fn disturb(mount: &Path, stop: &AtomicBool, seed: u64) -> anyhow::Result<u64> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (here, there) = (
        mount.join(format!("a{seed}")),
        mount.join(format!("b{seed}")),
    );
    fs::create_dir_all(&here)?;
    fs::create_dir_all(&there)?;
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("f{}", rng.u8(..20));
        let (from, to) = match rng.bool() {
            true => (&here, &there),
            false => (&there, &here),
        };
        let length = rng.usize(..2 * STRIPE);
        fs::write(from.join(&name), vec![1; length])?;
        let _ = fs::hard_link(from.join(&name), to.join(format!("l{name}")));
        let _ = fs::rename(from.join(&name), to.join(&name));
        if let Ok(file) = OpenOptions::new().write(true).open(to.join(&name)) {
            file.set_len(length as u64 / 2)?;
            file.write_all_at(b"beyond", length as u64)?;
        }
        let below = from.join("directory");
        fs::create_dir_all(&below)?;
        let _ = fs::rename(&below, to.join("directory"));
        let _ = fs::remove_dir(to.join("directory"));
        let _ = fs::remove_file(to.join(format!("l{name}")));
        if rng.bool() {
            let _ = fs::remove_file(to.join(&name));
        }
        rounds += 1;
    }
    Ok(rounds)
}

#[test]
fn what_goes_on_meanwhile_is_no_damage() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options {
        mounts: 2,
        ..Options::default()
    })?;
    let mounts = [cluster.mount(0), cluster.mount(1)];
    let stop = AtomicBool::new(false);
    let checked = std::thread::scope(|scope| -> anyhow::Result<()> {
        let workers: Vec<_> = mounts
            .iter()
            .enumerate()
            .map(|(seed, mount)| {
                let stop = &stop;
                scope.spawn(move || disturb(mount, stop, seed as u64))
            })
            .collect();
        let mut outcome = Ok(());
        for round in 0..10 {
            // A repair must find as little to do as a look.
            let arguments: &[&str] = match round % 2 {
                0 => &["fsck"],
                _ => &["fsck", "--repair"],
            };
            outcome = check(&cluster, arguments).and_then(|checked| {
                ensure!(checked.status == 0, "round {round}: {}", checked.json);
                Ok(())
            });
            if outcome.is_err() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            let rounds = worker
                .join()
                .map_err(|_| anyhow::anyhow!("a worker panicked"))??;
            ensure!(rounds > 3, "only {rounds} rounds");
        }
        outcome
    });
    checked?;
    let quiet = check(&cluster, &["fsck"])?;
    ensure!(quiet.status == 0, "{}", quiet.json);
    cluster.finish()
}

#[test]
fn a_scrub_names_the_files_that_are_damaged() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default())?;
    let mount = cluster.mount(0);
    fs::create_dir_all(mount.join("deep/er"))?;
    let mut content = vec![0; IODS * STRIPE];
    fastrand::Rng::with_seed(1).fill(&mut content);
    let inode = write_synced(&mount.join("deep/er/file"), &content)?;
    write_synced(&mount.join("sound"), &content)?;
    let clean = check(&cluster, &["scrub"])?;
    ensure!(clean.status == 0, "{}", clean.json);
    ensure!(clean.json["objects"] == 2 * IODS, "{}", clean.json);
    let bytes = clean.json["bytes"].as_u64().unwrap_or_default();
    ensure!(bytes >= 2 * (IODS * STRIPE) as u64, "{}", clean.json);

    let paths = objects(&cluster, inode)?;
    let mut expected = BTreeSet::new();
    for (slot, at) in [(0, 0), (0, 4096), (1, 300_000)] {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&paths[slot])?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 1], at)?;
        // Which stripe an iod has, its content tells.
        let mut start = vec![0; 4096];
        file.read_exact_at(&mut start, at / 4096 * 4096)?;
        let block = start.len();
        let place = (0..content.len() / block).find(|place| {
            let there = &content[place * block..][..block];
            there.iter().zip(&start).filter(|(a, b)| a != b).count() <= 1
        });
        expected.insert(place.context("no such block")?);
    }
    let damaged = check(&cluster, &["scrub", "--rate", "16M"])?;
    ensure!(damaged.status == 4, "{}", damaged.json);
    let mut found = BTreeSet::new();
    for part in damaged.json["damaged"].as_array().context("no list")? {
        ensure!(part["path"] == "/deep/er/file", "{part}");
        for range in part["file_bytes"].as_array().context("no bytes")? {
            let (start, end) = (range[0].as_u64(), range[1].as_u64());
            let (start, end) = start.zip(end).context("no numbers")?;
            found.extend((start / 4096..end / 4096).map(|block| block as usize));
        }
    }
    ensure!(found == expected, "{found:?} and not {expected:?}");
    // What is written anew is whole again.
    write_synced(&mount.join("deep/er/file"), &content)?;
    let clean = check(&cluster, &["scrub"])?;
    ensure!(clean.status == 0, "{}", clean.json);
    cluster.finish()
}
