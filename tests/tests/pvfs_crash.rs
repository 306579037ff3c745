// SPDX-License-Identifier: MIT
//! kill -9 of daemons at random moments under load: nothing that was acknowledged is lost, nothing
//! is done twice, and the work goes on by itself. `PVFS_CRASH_SEED` chooses the moments.

use std::time::Duration;

use anyhow::{Context, ensure};
use cssns_tests::environment::seed;
use cssns_tests::pvfs_cluster::{Cluster, Options};
use cssns_tests::workload::{Kind, Worker};
use fastrand::Rng;

/// Kills in one test.
const ROUNDS: usize = 6;
/// A kill comes after so many steps and so many milliseconds at most.
const STEPS_BEFORE_KILL_MAX: u64 = 12;
const MS_BEFORE_KILL_MAX: u64 = 30;
/// And the daemon is away for so long at most, besides the time that it takes to start.
const MS_AWAY_MAX: u64 = 300;

fn rng() -> anyhow::Result<Rng> {
    Ok(Rng::with_seed(seed("PVFS_CRASH_SEED")?))
}

/// The moment is what is random here; the sleep does not wait for anything.
fn random_moment(worker: &mut Worker, rng: &mut Rng) -> anyhow::Result<()> {
    worker.wait_for_steps(rng.u64(1..=STEPS_BEFORE_KILL_MAX))?;
    random_pause(rng, MS_BEFORE_KILL_MAX);
    Ok(())
}

fn random_pause(rng: &mut Rng, ms_max: u64) {
    std::thread::sleep(Duration::from_millis(rng.u64(0..ms_max)));
}

/// Runs `kind` on one mount, does `crash` to the cluster again and again, and checks what was
/// promised: on the same mount, on the other, and after everything was killed.
fn crash_under_load(
    kind: Kind,
    crash: impl Fn(&mut Cluster, &mut Rng) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut rng = rng()?;
    let mut cluster = Cluster::start(Options {
        mounts: 2,
        ..Options::default()
    })?;
    let mut worker = Worker::start(&cluster.mount(0), kind, rng.u64(..))?;
    for round in 0..ROUNDS {
        random_moment(&mut worker, &mut rng)?;
        crash(&mut cluster, &mut rng)?;
        worker
            .wait_for_steps(2)
            .with_context(|| format!("after crash {round}"))?;
    }
    let promise = worker.stop()?;
    promise.check(&cluster.mount(0))?;
    promise
        .check(&cluster.mount(1))
        .context("through the other mount")?;
    cluster.crash_all()?;
    promise
        .check(&cluster.mount(1))
        .context("after a crash of everything")?;
    cluster.finish()
}

#[test]
fn mgr_killed_during_creates_and_renames() -> anyhow::Result<()> {
    crash_under_load(Kind::Names, |cluster, rng| {
        cluster.kill_mgr()?;
        random_pause(rng, MS_AWAY_MAX);
        cluster.restart_mgr()
    })
}

#[test]
fn mgr_killed_during_writes() -> anyhow::Result<()> {
    crash_under_load(Kind::Blocks, |cluster, rng| {
        cluster.kill_mgr()?;
        random_pause(rng, MS_AWAY_MAX);
        cluster.restart_mgr()
    })
}

#[test]
fn iods_killed_during_writes() -> anyhow::Result<()> {
    crash_under_load(Kind::Blocks, |cluster, rng| {
        let iod = rng.usize(0..3);
        cluster.kill_iod(iod)?;
        random_pause(rng, MS_AWAY_MAX);
        cluster.restart_iod(iod)
    })
}

#[test]
fn mgr_and_an_iod_killed_together_during_writes() -> anyhow::Result<()> {
    crash_under_load(Kind::Blocks, |cluster, rng| {
        let iod = rng.usize(0..3);
        cluster.kill_iod(iod)?;
        cluster.kill_mgr()?;
        cluster.restart_mgr()?;
        cluster.restart_iod(iod)
    })
}

#[test]
fn everything_killed_during_writes() -> anyhow::Result<()> {
    let mut rng = rng()?;
    let mut cluster = Cluster::start(Options::default())?;
    for round in 0..3 {
        let mut worker = Worker::start(&cluster.mount(0), Kind::Blocks, rng.u64(..))?;
        worker.wait_for_steps(4)?;
        random_moment(&mut worker, &mut rng)?;
        cluster.crash_all()?;
        // The step under way failed with its mount; what it had not been promised may be lost.
        let promise = worker.killed()?;
        ensure!(promise.done >= 4, "nothing was acknowledged");
        promise
            .check(&cluster.mount(0))
            .with_context(|| format!("round {round}"))?;
    }
    cluster.finish()
}
