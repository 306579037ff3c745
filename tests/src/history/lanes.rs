// SPDX-License-Identifier: MIT
//! Many histories: several directories at a time, a worker on every node in each, and faults meanwhile.
//!
//! ```text
//!   lane 0: worker on mount0, worker on mount1, worker on mount2   in one directory
//!   lane 1: the same in another directory, at the same time        ...
//! ```

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cssns_histories::linearizability::{Event, check};
use cssns_histories::model::Files;
use cssns_histories::{CELL_BYTES, CELLS_AT_FIRST, Call, DIRECTORIES, MAPPED};
use fastrand::Rng;

use super::{Answer, Note, Task};
use crate::programs;
use crate::proxy::Mood;
use crate::pvfs_cluster::{Cluster, Options, Who, fill};

/// A history whose daemons are all back ends within this time; a busy machine has most of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// A fault comes at most so long after the calls began: a history takes about as long.
const MS_BEFORE_FAULT_MAX: u64 = 40;
/// A daemon is away for so long at most, besides the time that it takes to start. Less than the
/// leases last, so that a daemon that was stopped goes on with what it had.
const MS_AWAY_MAX: u64 = 300;

/// How many histories, and which.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many in all.
    pub histories: u64,
    /// How many at a time.
    pub lanes: usize,
    /// Calls of each worker in one history.
    pub calls: usize,
    /// A fault in one of so many rounds of all lanes.
    pub rounds_per_fault: u64,
    /// Draws calls and faults.
    pub seed: u64,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Histories that were judged, all of which passed.
    pub histories: u64,
    /// Their calls.
    pub calls: u64,
    /// Calls that never returned.
    pub unreturned: u64,
    /// Histories during which something was killed or stopped.
    pub disturbed: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Processes that were stopped for a while.
    pub stops: u64,
    /// Links that were cut, slow, still or deaf.
    pub links: u64,
    /// Disks of iods that were full for a while.
    pub fills: u64,
    /// Calls that were refused for want of space.
    pub refused: u64,
}

/// Makes a directory for one history.
///
/// # Errors
///
/// Those of the file system.
pub fn prepare(directory: &Path) -> anyhow::Result<()> {
    for name in DIRECTORIES {
        std::fs::create_dir_all(directory.join(name))?;
    }
    std::fs::write(directory.join(MAPPED), vec![0; CELLS_AT_FIRST * CELL_BYTES])?;
    Ok(())
}

/// A process that makes calls.
struct Worker {
    child: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl Worker {
    fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(programs::find("pvfs-history")?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("no pipe")?;
        let output = child.stdout.take().context("no pipe")?;
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                if line.is_ok_and(|line| sender.send(line).is_err()) {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            input,
            answers,
        })
    }

    fn begin(&mut self, task: &Task) -> anyhow::Result<()> {
        writeln!(self.input, "{}", serde_json::to_string(task)?)?;
        Ok(self.input.flush()?)
    }

    /// What it did, whether its mount died, and how many calls were refused for want of space.
    fn end(&self) -> anyhow::Result<(Vec<Note>, bool, u64)> {
        let line = self.answers.recv_timeout(ANSWER_TIMEOUT);
        let line = line.with_context(|| format!("no answer within {ANSWER_TIMEOUT:?}"))?;
        match serde_json::from_str(&line)? {
            Answer::Done {
                notes,
                died,
                refused,
            } => Ok((notes, died, refused)),
            Answer::Impossible(reason) => bail!("{reason}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Not waited for: it may hang on a mount that is about to end.
        let _ = self.child.kill();
    }
}

/// What is done to a daemon.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill(Who),
    /// SIGSTOP, for milliseconds.
    Stop(Who, u64),
    /// The same of a mount, until others have its leases.
    Hang(usize, u64),
    /// Its link ends all connections.
    Cut(Who),
    /// Its link is in this mood, for milliseconds, and then cuts what it has.
    Link(Who, Mood, u64),
    /// The small disk of an iod is full, for milliseconds.
    Fill(usize, u64),
}

impl Fault {
    /// The mount that may forget what it has acknowledged and mgr has not heard: its leases were over
    /// before mgr could hear it (docs/SEMANTICS.md, "Durability and failures").
    fn forgetful(self, options: &Options) -> Option<usize> {
        match self {
            Self::Link(Who::Mount(index), _, ms) if ms >= u64::from(options.lease_timeout_ms) => {
                Some(index)
            }
            Self::Kill(_)
            | Self::Stop(..)
            | Self::Hang(..)
            | Self::Cut(_)
            | Self::Link(..)
            | Self::Fill(..) => None,
        }
    }

    /// The mount on which a call may fail.
    fn broken(self, options: &Options) -> Option<usize> {
        match self {
            Self::Kill(Who::Mount(index)) | Self::Hang(index, _) => Some(index),
            Self::Kill(_) | Self::Stop(..) | Self::Cut(_) | Self::Link(..) | Self::Fill(..) => {
                self.forgetful(options)
            }
        }
    }
}

fn draw_fault(rng: &mut Rng, options: &Options) -> Fault {
    let (iod, mount) = (
        Who::Iod(rng.usize(0..options.iods)),
        Who::Mount(rng.usize(0..options.mounts)),
    );
    let linked = if rng.bool() { iod } else { mount };
    let ms = rng.u64(0..=MS_AWAY_MAX);
    // Full disks come as often as all else where there are small ones.
    if !options.disks.is_empty() && rng.bool() {
        return Fault::Fill(rng.usize(0..options.iods), ms);
    }
    let faults = if options.proxied { 18 } else { 9 };
    match rng.u32(0..faults) {
        0 | 1 => Fault::Kill(Who::Mgr),
        2 => Fault::Kill(iod),
        3 => Fault::Kill(mount),
        4 => Fault::Stop(Who::Mgr, ms),
        5 => Fault::Stop(iod, ms),
        6 => Fault::Stop(mount, ms),
        7 => Fault::Kill(mount),
        8 => {
            let lease_ms = u64::from(options.lease_timeout_ms);
            Fault::Hang(rng.usize(0..options.mounts), lease_ms + ms)
        }
        9..12 => Fault::Cut(linked),
        12..15 => Fault::Link(linked, Mood::Deaf, ms),
        15 => Fault::Link(linked, Mood::Slow(rng.u32(4..200)), ms),
        16 => Fault::Link(linked, Mood::Still, ms),
        // Longer than leases last: what the node keeps is worth nothing when it is back.
        _ => Fault::Link(
            linked,
            Mood::Still,
            u64::from(options.lease_timeout_ms) + ms,
        ),
    }
}

/// The moment is what is random here; the sleep does not wait for anything.
fn random_pause(rng: &mut Rng, ms_max: u64) {
    std::thread::sleep(Duration::from_millis(rng.u64(0..=ms_max)));
}

fn suffer(cluster: &mut Cluster, rng: &mut Rng, fault: Fault) -> anyhow::Result<()> {
    if !matches!(fault, Fault::Fill(..)) {
        random_pause(rng, MS_BEFORE_FAULT_MAX);
    }
    match fault {
        Fault::Kill(who) => {
            cluster.kill(who)?;
            random_pause(rng, MS_AWAY_MAX / 3);
            cluster.restart(who)
        }
        Fault::Stop(who, ms) => stop(cluster, who, ms),
        Fault::Hang(index, ms) => stop(cluster, Who::Mount(index), ms),
        Fault::Fill(iod, ms) => be_full(&cluster.iod_data(iod), ms),
        Fault::Cut(who) => {
            cluster.link(who).context("no link")?.cut();
            Ok(())
        }
        Fault::Link(who, mood, ms) => {
            let link = cluster.link(who).context("no link")?;
            link.set(mood);
            std::thread::sleep(Duration::from_millis(ms));
            if mood == Mood::Deaf {
                // TCP loses no bytes of a connection that lives on.
                link.cut();
            }
            link.set(Mood::Well);
            Ok(())
        }
    }
}

/// How long it is stopped is the fault; the sleep does not wait for anything.
fn stop(cluster: &Cluster, who: Who, ms: u64) -> anyhow::Result<()> {
    cluster.freeze(who, true)?;
    std::thread::sleep(Duration::from_millis(ms));
    cluster.freeze(who, false)
}

/// How long the disk under `directory` is full is the fault; the sleep does not wait for anything.
fn be_full(directory: &Path, ms: u64) -> anyhow::Result<()> {
    let filler = directory.join("filler");
    fill(&filler)?;
    std::thread::sleep(Duration::from_millis(ms));
    std::fs::remove_file(&filler).context("making room again")
}

/// Runs the plan on a cluster, all of whose mounts take part.
///
/// # Errors
///
/// The first history that is rejected, with all its calls; or what failed otherwise.
pub fn run(cluster: &mut Cluster, plan: &Plan) -> anyhow::Result<Tally> {
    let mounts = cluster.options().mounts;
    let mut rng = Rng::with_seed(plan.seed);
    let mut lanes = Vec::new();
    for _ in 0..plan.lanes {
        let workers: anyhow::Result<Vec<Worker>> = (0..mounts).map(|_| Worker::start()).collect();
        lanes.push(workers?);
    }
    let mut tally = Tally::default();
    let mut round = 0;
    while tally.histories < plan.histories {
        let due = round % plan.rounds_per_fault == plan.rounds_per_fault - 1;
        let fault = due.then(|| draw_fault(&mut rng, cluster.options()));
        let name = format!("round{round}");
        run_round(
            cluster,
            &mut lanes,
            plan,
            (&name, fault),
            (&mut rng, &mut tally),
        )
        .with_context(|| format!("round {round} of seed {}, {fault:?}", plan.seed))?;
        round += 1;
    }
    Ok(tally)
}

fn run_round(
    cluster: &mut Cluster,
    lanes: &mut [Vec<Worker>],
    plan: &Plan,
    (name, fault): (&str, Option<Fault>),
    (rng, tally): (&mut Rng, &mut Tally),
) -> anyhow::Result<()> {
    let forgetful = fault.and_then(|fault| fault.forgetful(cluster.options()));
    let broken = fault.and_then(|fault| fault.broken(cluster.options()));
    let hung = match fault {
        Some(Fault::Hang(index, _)) => Some(index),
        _ => None,
    };
    let inside = |lane: usize| PathBuf::from(format!("{name}.{lane}"));
    let mut mapped = Vec::new();
    for lane in 0..lanes.len() {
        let directory = cluster.mount(0).join(inside(lane));
        prepare(&directory).context("preparing the directory")?;
        mapped.push(std::fs::metadata(directory.join(MAPPED))?.ino());
    }
    for (lane, workers) in lanes.iter_mut().enumerate() {
        for (mount, worker) in workers.iter_mut().enumerate() {
            let task = Task {
                directory: cluster.mount(mount).join(inside(lane)),
                seed: rng.u64(..),
                worker: mount as u64,
                calls: plan.calls,
                synced: forgetful.is_some(),
                changes_only: hung == Some(mount),
            };
            worker.begin(&task)?;
        }
    }
    if let Some(fault) = fault {
        suffer(cluster, rng, fault)?;
        match fault {
            Fault::Kill(_) => tally.kills += 1,
            Fault::Stop(..) | Fault::Hang(..) => tally.stops += 1,
            Fault::Cut(_) | Fault::Link(..) => tally.links += 1,
            Fault::Fill(..) => tally.fills += 1,
        }
    }
    for (lane, workers) in lanes.iter().enumerate() {
        let mut events = Vec::new();
        for (mount, worker) in workers.iter().enumerate() {
            let (notes, died, refused) = worker
                .end()
                .with_context(|| format!("worker on mount {mount} in {name}.{lane}"))?;
            tally.refused += refused;
            ensure!(
                !died || broken == Some(mount),
                "a call on mount {mount} failed in {name}.{lane}: {:?}",
                notes.last()
            );
            events.extend(notes.into_iter().map(|note| Event {
                call: note.call,
                start: note.start,
                end: note.end,
            }));
        }
        judge(mapped[lane], &events).with_context(|| format!("in {name}.{lane}"))?;
        tally.histories += 1;
        tally.calls += events.len() as u64;
        tally.disturbed += u64::from(fault.is_some());
        let unreturned = events.iter().filter(|event| event.end == u64::MAX);
        tally.unreturned += unreturned.count() as u64;
    }
    Ok(())
}

fn judge(mapped: u64, events: &[Event<Call>]) -> anyhow::Result<()> {
    let Err(rejected) = check(Files::new(mapped), events) else {
        return Ok(());
    };
    let mut order: Vec<(usize, &Event<Call>)> = events.iter().enumerate().collect();
    order.sort_by_key(|(_, event)| event.start);
    let first = order.first().map_or(0, |(_, event)| event.start);
    let mut text = String::new();
    for (at, event) in order {
        let mark = if Some(at) == rejected.event {
            "=>"
        } else {
            "  "
        };
        let end = match event.end {
            u64::MAX => "never".to_owned(),
            end => ((end - first) / 1000).to_string(),
        };
        let start = (event.start - first) / 1000;
        text.push_str(&format!(
            "{mark} {start:>7} {end:>7} us  {:?}\n",
            event.call
        ));
    }
    bail!("no order of these calls explains what they returned:\n{text}")
}
