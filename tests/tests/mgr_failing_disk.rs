// SPDX-License-Identifier: MIT
//! A disk that fails under mgr's store, for real: writes and flushes answer `EIO`. mgr ends and says what
//! to do, calls wait, and when it is started on a disk that works, everything goes on; nothing that was
//! acknowledged is lost and nothing is done twice.
//!
//! ```text
//!   workers --- mount0, mount1 --- mgr --- data.mdb on a disk of this test's (FUSE)
//! ```
//!
//! The workers are processes: one that holds written files of a mount cannot start mgr while that is away,
//! since exec closes them (docs/SEMANTICS.md).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use cssns_tests::environment::{number, seed};
use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options};
use cssns_tests::recorder::{Failing, Recorder};
use fastrand::Rng;

/// Failures; `PVFS_DISK_FAILURES` asks for more.
const FAILURES_DEFAULT: u64 = 6;
const WORKERS: usize = 4;
/// How long a worker may wait for one call after a failure: mgr waits for leases after its start.
const CALL_MAX: Duration = Duration::from_secs(60);
/// Tells this program, started anew by itself, where to work and as which worker.
const DIRECTORY_VARIABLE: &str = "PVFS_FAILING_DISK_DIRECTORY";
const WORKER_VARIABLE: &str = "PVFS_FAILING_DISK_WORKER";
/// What it says after each call, and at the end of each file that is there, with its content.
const GOES_ON: &str = "goes on";
const THERE: &str = "there ";

/// What a worker knows to be there: names and what is in the files.
type Known = BTreeMap<PathBuf, String>;

/// The process that works: without its variables, this is no test. It makes, renames and removes files of
/// its own until its input ends; none of its calls may fail.
#[test]
fn work_until_told() -> anyhow::Result<()> {
    let Ok(directory) = std::env::var(DIRECTORY_VARIABLE) else {
        return Ok(());
    };
    let worker = std::env::var(WORKER_VARIABLE)?;
    static STOP: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        STOP.store(true, Ordering::SeqCst);
    });
    let mut known = Known::new();
    let directory = Path::new(&directory);
    let name = |number: usize, kind: &str| directory.join(format!("{worker}.{number}.{kind}"));
    for number in 0.. {
        if STOP.load(Ordering::SeqCst) {
            break;
        }
        let (made, renamed) = (name(number, "made"), name(number, "renamed"));
        let text = format!("file {number} of worker {worker}");
        // It fails also where it is done twice.
        let mut file = File::create_new(&made).with_context(|| format!("{}", made.display()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        drop(file);
        println!("\n{GOES_ON}");
        fs::rename(&made, &renamed).with_context(|| format!("{}", made.display()))?;
        if number % 3 == 0 {
            fs::remove_file(&renamed).with_context(|| format!("{}", renamed.display()))?;
        } else {
            known.insert(renamed, text);
        }
        println!("\n{GOES_ON}");
    }
    for (path, text) in known {
        println!("\n{THERE}{}\t{text}", path.display());
    }
    Ok(())
}

/// A process that works. Ends with its owner, whatever happens to it.
struct Worker {
    child: Child,
    reader: Option<JoinHandle<std::io::Result<Known>>>,
}

impl Worker {
    fn start(directory: &Path, worker: usize, goes_on: Sender<usize>) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "work_until_told", "--nocapture"])
            .env(DIRECTORY_VARIABLE, directory)
            .env(WORKER_VARIABLE, worker.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("no output")?;
        let reader = std::thread::spawn(move || {
            let mut known = Known::new();
            for line in BufReader::new(output).lines() {
                let line = line?;
                if line == GOES_ON {
                    // Nobody counts any more at the end.
                    let _ = goes_on.send(worker);
                }
                let there = line.strip_prefix(THERE);
                if let Some((path, text)) = there.and_then(|there| there.split_once('\t')) {
                    known.insert(path.into(), text.to_owned());
                }
            }
            Ok(known)
        });
        Ok(Self {
            child,
            reader: Some(reader),
        })
    }

    /// Has it come to an end; what is there then.
    fn finish(mut self) -> anyhow::Result<Known> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "a worker: {status}");
        let reader = self.reader.take().context("no reader")?;
        let known = reader.join().map_err(|_| anyhow::anyhow!("a reader"))?;
        Ok(known?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Not waited for: it may hang on a mount that is about to end.
        let _ = self.child.kill();
    }
}

/// Waits until each worker has ended two calls: the one that waited, and one more.
fn all_go_on(calls: &Receiver<usize>) -> anyhow::Result<()> {
    while calls.try_recv().is_ok() {}
    let mut counts = [0; WORKERS];
    while counts.iter().any(|count| *count < 2) {
        let worker = calls.recv_timeout(CALL_MAX).context("somebody waits")?;
        *counts.get_mut(worker).context("no such worker")? += 1;
    }
    Ok(())
}

#[test]
fn a_disk_that_fails_under_mgr_loses_nothing() -> anyhow::Result<()> {
    programs::require_root()?;
    let failures = number("PVFS_DISK_FAILURES", FAILURES_DEFAULT)?;
    let mut rng = Rng::with_seed(seed("PVFS_DISK_FAILURES_SEED")?);
    let scratch = tempfile::tempdir()?;
    let disk = Recorder::mount(scratch.path())?;
    let mut cluster = Cluster::start(Options {
        mounts: 2,
        mgr_data: Some(scratch.path().to_owned()),
        ..Options::default()
    })?;
    let (goes_on, calls) = channel();
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| Worker::start(&cluster.mount(worker % 2), worker, goes_on.clone()))
        .collect::<Result<_, _>>()?;
    for failure in 0..failures {
        all_go_on(&calls)?;
        let what = match failure % 3 {
            0 => Failing::Writes,
            1 => Failing::TornWrites,
            _ => Failing::Flushes,
        };
        disk.fail(what, rng.usize(..12));
        let (status, log) = cluster.await_end_of_mgr()?;
        ensure!(status.code() == Some(1), "{what:?}: {status}\n{log}");
        let said = log.lines().last().unwrap_or_default();
        for part in [
            "Input/output error",
            &scratch.path().display().to_string(),
            "start pvfs-mgr again",
        ] {
            ensure!(said.contains(part), "{what:?}: {said}");
        }
        // Started too soon, it says the same and changes nothing.
        if failure % 3 != 2 {
            let early = cluster.restart_mgr();
            ensure!(early.is_err(), "it started on a disk that fails");
        }
        disk.mend();
        cluster.restart_mgr()?;
    }
    all_go_on(&calls)?;
    let mut known = Known::new();
    for worker in workers {
        known.append(&mut worker.finish()?);
    }
    cluster.crash_all()?;
    for (path, text) in &known {
        let found = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        ensure!(found == *text, "{}: {found}", path.display());
    }
    for mount in 0..2 {
        let names = fs::read_dir(cluster.mount(mount))?.count();
        ensure!(names == known.len(), "{names} names, not {}", known.len());
    }
    eprintln!("{} files after {failures} failures", known.len());
    let fsck = Command::new(programs::find("pvfs")?)
        .args(["fsck", "--quiet", cluster.mgr_address()])
        .output()?;
    ensure!(fsck.status.success(), "{fsck:?}");
    cluster.finish()
}
