// SPDX-License-Identifier: MIT
//! Power cuts under mgr's store: whatever sectors a cut left of what was not flushed, the store opens,
//! and holds all that was committed, or that and the commit that was under way. `PVFS_POWERCUT_RUNS` says
//! how many cuts, `PVFS_POWERCUT_SEED` which.
//!
//! ```text
//!   this test = the recording disk (FUSE) <--- data.mdb --- a process of its own that commits
//!             <------------------ "committed N" / go on ------>
//! ```
//!
//! LMDB maps its file: a process that served the disk under its own mapping could wait for itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use cssns_tests::environment::{number, seed};
use cssns_tests::programs;
use cssns_tests::recorder::{Event, Recorder, image};
use fastrand::Rng;
use pvfs_mgr::store::lmdb::{LmdbStore, METADATA_BYTES_MIN};
use pvfs_mgr::store::{Records, Store, View};

/// Commits that are recorded: pages are used again after the first few.
const COMMITS: usize = 60;
/// Cuts that `make test` tries.
const CUTS_DEFAULT: u64 = 300;
const DATA: &str = "data.mdb";
/// Tells this program, started anew by itself, on which disk to commit.
const DISK_VARIABLE: &str = "PVFS_POWERCUT_DISK";
/// What it says after each commit, with its number.
const COMMITTED: &str = "committed ";

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Small records and large ones, some changed again, some removed, like those of mgr.
fn batch(rng: &mut Rng) -> Records {
    let mut records = Records::new();
    for _ in 0..rng.usize(1..40) {
        let key = format!("key{:03}", rng.u16(..200)).into_bytes();
        let length = match rng.u8(..10) {
            0 => rng.usize(..20_000),
            _ => rng.usize(..200),
        };
        let value = (rng.u8(..4) > 0).then(|| vec![rng.u8(..); length]);
        records.insert(key, value);
    }
    records
}

fn apply(model: &mut Model, records: &Records) {
    for (key, value) in records {
        match value {
            Some(value) => drop(model.insert(key.clone(), value.clone())),
            None => drop(model.remove(key)),
        }
    }
}

fn contents(store: &LmdbStore) -> anyhow::Result<Model> {
    let mut found = Model::new();
    store.view()?.scan(b"\0", None, &mut |key, value| {
        found.insert(key.to_vec(), value.to_vec());
        true
    })?;
    Ok(found)
}

/// The batches that are committed, and what the store holds after each, from none on.
fn batches(seed: u64) -> (Vec<Records>, Vec<Model>) {
    let mut rng = Rng::with_seed(seed);
    let (mut batches, mut models) = (Vec::new(), vec![Model::new()]);
    let mut model = Model::new();
    for _ in 0..COMMITS {
        let records = batch(&mut rng);
        apply(&mut model, &records);
        batches.push(records);
        models.push(model.clone());
    }
    (batches, models)
}

/// The process that commits: without its variables, this is no test.
#[test]
fn commit_when_told() -> anyhow::Result<()> {
    let Ok(disk) = std::env::var(DISK_VARIABLE) else {
        return Ok(());
    };
    let (batches, _) = batches(seed("PVFS_POWERCUT_SEED")?);
    let disk = Path::new(&disk);
    LmdbStore::create(disk)?;
    let mut store = LmdbStore::open(disk, METADATA_BYTES_MIN)?;
    for commit in 0..=batches.len() {
        if commit % 20 == 19 {
            // A restart, as after a crash of the process.
            drop(store);
            store = LmdbStore::open(disk, METADATA_BYTES_MIN)?;
        }
        if let Some(records) = commit.checked_sub(1).and_then(|at| batches.get(at)) {
            store.commit(records)?;
        }
        // Nothing of the next is written before this one is marked.
        println!("\n{COMMITTED}{commit}");
        std::io::stdout().flush()?;
        std::io::stdin().read_exact(&mut [0])?;
    }
    Ok(())
}

/// Ends with its owner, whatever happens to it.
struct Committer(Child);

impl Drop for Committer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was written to the disk while the batches were committed.
fn record(point: &Path, seed: u64) -> anyhow::Result<Vec<Event>> {
    let recorder = Recorder::mount(point)?;
    let child = Command::new(std::env::current_exe()?)
        .args(["--exact", "commit_when_told", "--nocapture"])
        .env(DISK_VARIABLE, point)
        .env("PVFS_POWERCUT_SEED", seed.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut committer = Committer(child);
    let output = committer.0.stdout.take().context("no output")?;
    let mut input = committer.0.stdin.take().context("no input")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(commit) = line.strip_prefix(COMMITTED) {
            recorder.mark(commit.parse()?);
            input.write_all(b"\n")?;
        }
    }
    let status = committer.0.wait()?;
    ensure!(status.success(), "the process that commits: {status}");
    Ok(recorder.events())
}

#[test]
fn every_image_of_a_power_cut_opens_and_holds_what_was_committed() -> anyhow::Result<()> {
    programs::require_root()?;
    let cuts = number("PVFS_POWERCUT_RUNS", CUTS_DEFAULT)?;
    let seed = seed("PVFS_POWERCUT_SEED")?;
    let mut rng = Rng::with_seed(seed);
    let scratch = tempfile::tempdir_in("/dev/shm")?;
    let point = scratch.path().join("recorded");
    std::fs::create_dir(&point)?;
    let (_, models) = batches(seed);
    let events = record(&point, seed)?;
    let named = events
        .iter()
        .enumerate()
        .find_map(|(at, event)| match event {
            Event::Name { file, name } if name == DATA => Some((at, *file)),
            _ => None,
        });
    let (named, file) = named.context("no data file")?;
    let writes = events
        .iter()
        .filter(|event| matches!(event, Event::Write { file: of, .. } if *of == file));
    ensure!(writes.count() > 2 * COMMITS, "too little was recorded");

    let (mut unnamed, mut behind) = (0, 0);
    for cut in 0..cuts {
        let at = rng.usize(..events.len());
        let past = events.get(..=at).unwrap_or_default();
        let acknowledged = past.iter().rev().find_map(|event| match event {
            Event::Mark(commit) => Some(*commit),
            _ => None,
        });
        let crashed = tempfile::tempdir_in(scratch.path())?;
        // A name that was not flushed may be there or not.
        let since = past.get(named..).unwrap_or_default();
        if !since.is_empty() && (since.contains(&Event::SyncDirectory) || rng.bool()) {
            std::fs::write(crashed.path().join(DATA), image(past, file, &mut rng))?;
        } else {
            unnamed += 1;
        }
        let what = || format!("cut {cut} after event {at}");
        if !crashed.path().join(DATA).exists() {
            // Nobody was told that it was made, and it can be made now.
            LmdbStore::create(crashed.path()).with_context(what)?;
        }
        let store = LmdbStore::open(crashed.path(), METADATA_BYTES_MIN).with_context(what)?;
        let found = contents(&store).with_context(what)?;
        let is = |commit: usize| models.get(commit).is_some_and(|model| *model == found);
        let expected = acknowledged.unwrap_or_default();
        ensure!(
            is(expected) || (acknowledged.is_some() && is(expected + 1)),
            "{}: {} records are not those of commit {acknowledged:?}",
            what(),
            found.len()
        );
        behind += usize::from(!is(expected + 1));
    }
    ensure!(
        unnamed * 4 < cuts,
        "{unnamed} cuts before there was a store"
    );
    // Some cuts must have come before the end of a commit, and some after, or nothing was tried.
    let cuts = usize::try_from(cuts)?;
    ensure!(
        cuts < 100 || (behind > 0 && behind < cuts),
        "{behind} of {cuts}"
    );
    Ok(())
}
