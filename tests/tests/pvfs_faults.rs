// SPDX-License-Identifier: MIT
//! One fault after another under load: kill -9 and SIGSTOP of mgr, iods and mounts; links that are cut,
//! slow, still, or lose replies, so that requests come twice. Judged by the model of docs/HISTORIES.md:
//! nothing that was acknowledged is lost, nothing is done twice or half, and whoever waits goes on.
//! `PVFS_FAULTS` says how many, `PVFS_FAULTS_SEED` which.

use std::time::Instant;

use anyhow::ensure;
use cssns_tests::environment::{number, seed};
use cssns_tests::history::lanes::{Plan, run};
use cssns_tests::pvfs_cluster::{Cluster, Options};

/// In `make test`; `make test-faults` asks for more.
const FAULTS_DEFAULT: u64 = 24;
const LANES: usize = 2;

#[test]
fn nothing_is_lost_or_done_twice_whatever_fails() -> anyhow::Result<()> {
    let faults = number("PVFS_FAULTS", FAULTS_DEFAULT)?;
    let seed = seed("PVFS_FAULTS_SEED")?;
    let mut cluster = Cluster::start(Options {
        mounts: 3,
        lease_timeout_ms: 3000,
        proxied: true,
        ..Options::default()
    })?;
    cluster.set_small_stripes()?;
    let plan = Plan {
        histories: faults * LANES as u64,
        lanes: LANES,
        calls: 16,
        rounds_per_fault: 1,
        seed,
    };
    let start = Instant::now();
    let tally = run(&mut cluster, &plan)?;
    eprintln!("{tally:?} in {:.0} s", start.elapsed().as_secs_f64());
    ensure!(tally.kills + tally.stops + tally.links >= faults);
    cluster.finish()
}
