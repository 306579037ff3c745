// SPDX-License-Identifier: MIT
//! Random calls on three nodes, with kills of daemons and mounts in between: every history could have
//! happened one call after another (docs/HISTORIES.md). `PVFS_HISTORIES` says how many,
//! `PVFS_HISTORIES_SEED` which.

use std::time::Instant;

use anyhow::ensure;
use cssns_tests::environment::{number, seed};
use cssns_tests::history::lanes::{Plan, run};
use cssns_tests::pvfs_cluster::{Cluster, Options, SmallDisk};

/// In `make test`; `make test-histories` asks for more.
const HISTORIES_DEFAULT: u64 = 120;

#[test]
fn what_three_nodes_see_could_have_happened_one_call_after_another() -> anyhow::Result<()> {
    let histories = number("PVFS_HISTORIES", HISTORIES_DEFAULT)?;
    let seed = seed("PVFS_HISTORIES_SEED")?;
    let mut cluster = Cluster::start(Options {
        mounts: 3,
        lease_timeout_ms: 3000,
        ..Options::default()
    })?;
    cluster.set_small_stripes()?;
    let plan = Plan {
        histories,
        lanes: 4,
        calls: 12,
        rounds_per_fault: 5,
        seed,
    };
    let start = Instant::now();
    let tally = run(&mut cluster, &plan)?;
    eprintln!("{tally:?} in {:.0} s", start.elapsed().as_secs_f64());
    ensure!(
        tally.calls > tally.histories * 20,
        "hardly anything was done"
    );
    ensure!(tally.kills + tally.stops > 0, "nothing was disturbed");
    cluster.finish()
}

/// A third of that: its histories are long, as each has a fault.
#[test]
fn what_is_refused_for_want_of_space_leaves_nothing_behind() -> anyhow::Result<()> {
    const IODS: usize = 3;
    const DISK_BYTES: u64 = 16 << 20;
    let histories = number("PVFS_HISTORIES", HISTORIES_DEFAULT)? / 3;
    let seed = seed("PVFS_HISTORIES_SEED")?;
    let mut cluster = Cluster::start(Options {
        iods: IODS,
        mounts: 3,
        lease_timeout_ms: 3000,
        disks: (0..IODS)
            .map(|iod| SmallDisk {
                directory: format!("iod{iod}"),
                bytes: DISK_BYTES,
            })
            .collect(),
        ..Options::default()
    })?;
    cluster.set_small_stripes()?;
    let plan = Plan {
        histories,
        lanes: 4,
        calls: 24,
        rounds_per_fault: 1,
        seed,
    };
    let start = Instant::now();
    let tally = run(&mut cluster, &plan)?;
    eprintln!("{tally:?} in {:.0} s", start.elapsed().as_secs_f64());
    ensure!(tally.fills > 0 && tally.refused > 0, "no disk was full");
    cluster.finish()
}
