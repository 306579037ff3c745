// SPDX-License-Identifier: MIT
//! kill -9 of daemons at random moments under load: nothing that was acknowledged is lost, nothing
//! is done twice, and the work goes on by itself. `PVFS_CRASH_SEED` chooses the moments.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use cssns_tests::operation::Data;
use cssns_tests::pvfs_cluster::{Cluster, Options};
use cssns_tests::workload::{Work, Worker};
use fastrand::Rng;

/// Kills in one test.
const ROUNDS: usize = 6;
/// A kill comes after so many steps and so many milliseconds at most.
const STEPS_BEFORE_KILL_MAX: u64 = 12;
const MS_BEFORE_KILL_MAX: u64 = 30;

fn rng() -> anyhow::Result<Rng> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let seed = match std::env::var("PVFS_CRASH_SEED") {
        Ok(text) => text.parse().context("PVFS_CRASH_SEED is no number")?,
        Err(_) => clock,
    };
    eprintln!("PVFS_CRASH_SEED={seed}");
    Ok(Rng::with_seed(seed))
}

/// The moment is what is random here; it does not wait for anything.
fn random_moment<W: Work>(worker: &Worker<W>, rng: &mut Rng) -> anyhow::Result<()> {
    worker.wait_for_steps(rng.u64(1..=STEPS_BEFORE_KILL_MAX))?;
    std::thread::sleep(Duration::from_millis(rng.u64(0..MS_BEFORE_KILL_MAX)));
    Ok(())
}

/// Creates, renames, links, removes: each step would fail if it were run twice.
#[derive(Default)]
struct NameWork {
    /// Names that must be there, with what is in them.
    files: BTreeMap<String, Vec<u8>>,
    directories: Vec<String>,
}

impl Work for NameWork {
    fn step(&mut self, root: &Path, number: u64) -> anyhow::Result<()> {
        let directory = format!("d{}", number / 20);
        if self.directories.last() != Some(&directory) {
            std::fs::create_dir(root.join(&directory)).context("mkdir")?;
            self.directories.push(directory.clone());
        }
        let (new, renamed) = (
            format!("{directory}/new{number}"),
            format!("{directory}/f{number}"),
        );
        let content = Data {
            seed: number,
            length: 100,
        }
        .bytes();
        let mut file = File::create_new(root.join(&new)).context("create")?;
        file.write_all(&content).context("write")?;
        file.sync_all().context("fsync")?;
        drop(file);
        self.files.insert(new.clone(), content.clone());
        std::fs::rename(root.join(&new), root.join(&renamed)).context("rename")?;
        self.files.remove(&new);
        self.files.insert(renamed.clone(), content.clone());
        if number % 3 == 0 {
            let link = format!("{directory}/link{number}");
            std::fs::hard_link(root.join(&renamed), root.join(&link)).context("link")?;
            self.files.insert(link, content);
        }
        if number % 5 == 0 {
            std::fs::remove_file(root.join(&renamed)).context("unlink")?;
            self.files.remove(&renamed);
        }
        Ok(())
    }
}

impl NameWork {
    fn check(&self, root: &Path) -> anyhow::Result<()> {
        for (name, content) in &self.files {
            let found =
                std::fs::read(root.join(name)).with_context(|| format!("{name} is lost"))?;
            ensure!(found == *content, "{name} has other content");
        }
        for directory in &self.directories {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(root.join(directory))? {
                names.push(format!(
                    "{directory}/{}",
                    entry?.file_name().to_string_lossy()
                ));
            }
            names.retain(|name| !self.files.contains_key(name));
            ensure!(
                names.is_empty(),
                "names that were removed are back: {names:?}"
            );
        }
        Ok(())
    }
}

#[test]
fn mgr_killed_during_creates_and_renames() -> anyhow::Result<()> {
    let mut rng = rng()?;
    let mut cluster = Cluster::start(Options {
        mounts: 2,
        ..Options::default()
    })?;
    let worker = Worker::start(cluster.mount(0), NameWork::default());
    for _ in 0..ROUNDS {
        random_moment(&worker, &mut rng)?;
        cluster.kill_mgr()?;
        std::thread::sleep(Duration::from_millis(rng.u64(0..300)));
        cluster.restart_mgr()?;
        worker.wait_for_steps(2).context("after mgr is back")?;
    }
    let work = worker.stop()?;
    work.check(&cluster.mount(0))?;
    work.check(&cluster.mount(1))
        .context("through the other mount")?;
    cluster.crash_all()?;
    work.check(&cluster.mount(1))
        .context("after a crash of everything")?;
    cluster.finish()
}

const BLOCK_BYTES: usize = 200_000;
const BLOCKS: u64 = 12;

/// Overwrites blocks of a few files at random, and syncs.
struct BlockWork {
    rng: Rng,
    /// What the write of each (file, block) was that fsync acknowledged last.
    durable: BTreeMap<(u64, u64), Data>,
    /// And those that came after it; one of them or the durable one is found after a crash.
    pending: BTreeMap<(u64, u64), Vec<Data>>,
}

impl BlockWork {
    fn new(seed: u64) -> Self {
        let (durable, pending) = (BTreeMap::new(), BTreeMap::new());
        Self {
            rng: Rng::with_seed(seed),
            durable,
            pending,
        }
    }

    /// Every block is what was last made durable, or a later write of it, whole or in part mixed
    /// with what was there before. Without pending writes: exactly what was made durable.
    fn check(&self, root: &Path) -> anyhow::Result<()> {
        for (&(file, block), durable) in &self.durable {
            let path = root.join(format!("blocks{file}"));
            let opened = File::open(&path).with_context(|| path.display().to_string())?;
            let mut found = vec![0; BLOCK_BYTES];
            opened
                .read_exact_at(&mut found, block * BLOCK_BYTES as u64)
                .with_context(|| format!("block {block} of {}", path.display()))?;
            let mut allowed = vec![durable.bytes()];
            let later = self.pending.get(&(file, block));
            allowed.extend(later.into_iter().flatten().map(|data| data.bytes()));
            let wrong = (0..BLOCK_BYTES).find(|&at| allowed.iter().all(|a| a[at] != found[at]));
            ensure!(
                wrong.is_none(),
                "{} block {block}: byte {wrong:?} is not what fsync acknowledged",
                path.display()
            );
        }
        Ok(())
    }
}

impl Work for BlockWork {
    fn step(&mut self, root: &Path, number: u64) -> anyhow::Result<()> {
        let file_number = number % 3;
        let path = root.join(format!("blocks{file_number}"));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .context("open")?;
        for _ in 0..3 {
            let block = self.rng.u64(0..BLOCKS);
            let data = Data {
                seed: self.rng.u64(..),
                length: BLOCK_BYTES,
            };
            self.pending
                .entry((file_number, block))
                .or_default()
                .push(data);
            file.write_all_at(&data.bytes(), block * BLOCK_BYTES as u64)
                .context("write")?;
        }
        file.sync_all().context("fsync")?;
        for ((file, block), writes) in std::mem::take(&mut self.pending) {
            if let Some(last) = writes.last() {
                self.durable.insert((file, block), *last);
            }
        }
        Ok(())
    }
}

#[test]
fn iods_killed_during_writes() -> anyhow::Result<()> {
    let mut rng = rng()?;
    let mut cluster = Cluster::start(Options {
        mounts: 2,
        ..Options::default()
    })?;
    let worker = Worker::start(cluster.mount(0), BlockWork::new(rng.u64(..)));
    for _ in 0..ROUNDS {
        random_moment(&worker, &mut rng)?;
        let iod = rng.usize(0..3);
        cluster.kill_iod(iod)?;
        std::thread::sleep(Duration::from_millis(rng.u64(0..300)));
        cluster.restart_iod(iod)?;
        worker.wait_for_steps(2).context("after the iod is back")?;
    }
    let work = worker.stop()?;
    ensure!(work.pending.is_empty(), "the worker stops between steps");
    work.check(&cluster.mount(0))?;
    work.check(&cluster.mount(1))
        .context("through the other mount")?;
    cluster.crash_all()?;
    work.check(&cluster.mount(1))
        .context("after a crash of everything")?;
    cluster.finish()
}

#[test]
fn mgr_and_an_iod_killed_together_during_writes() -> anyhow::Result<()> {
    let mut rng = rng()?;
    let mut cluster = Cluster::start(Options {
        mounts: 2,
        ..Options::default()
    })?;
    let worker = Worker::start(cluster.mount(0), BlockWork::new(rng.u64(..)));
    for _ in 0..ROUNDS {
        random_moment(&worker, &mut rng)?;
        let iod = rng.usize(0..3);
        cluster.kill_iod(iod)?;
        cluster.kill_mgr()?;
        cluster.restart_mgr()?;
        cluster.restart_iod(iod)?;
        worker.wait_for_steps(2).context("after both are back")?;
    }
    let work = worker.stop()?;
    work.check(&cluster.mount(1))
        .context("through the other mount")?;
    cluster.finish()
}

#[test]
fn everything_killed_during_writes() -> anyhow::Result<()> {
    let mut rng = rng()?;
    let mut cluster = Cluster::start(Options::default())?;
    for round in 0..3 {
        let worker = Worker::start(cluster.mount(0), BlockWork::new(rng.u64(..)));
        worker.wait_for_steps(4)?;
        random_moment(&worker, &mut rng)?;
        cluster.crash_all()?;
        // The step under way failed, as its mount is gone; what it had not been promised may be lost.
        let (work, _failed) = worker.stop_anyhow()?;
        ensure!(!work.durable.is_empty(), "nothing was acknowledged");
        work.check(&cluster.mount(0))
            .with_context(|| format!("round {round}"))?;
    }
    cluster.finish()
}
