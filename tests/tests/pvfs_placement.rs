// SPDX-License-Identifier: MIT
//! Where new files go, and what df(1) says: by what iods report of themselves.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options, SmallDisk, Who};
use nix::sys::statvfs::{Statvfs, statvfs};

const SMALL_BYTES: u64 = 24 << 20;
const FILE_BYTES: usize = 4 << 20;

/// Three iods of which one has a small disk, and the others share a large one.
fn cluster() -> anyhow::Result<Cluster> {
    Cluster::start(Options {
        disks: vec![SmallDisk {
            directory: "iod0".into(),
            bytes: SMALL_BYTES,
        }],
        ..Options::default()
    })
}

#[test]
fn a_small_disk_that_fills_up_stops_nobody_and_df_counts_each_disk_once() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let large = statvfs(cluster.scratch())?;
    let large_bytes = large.blocks() * large.fragment_size();
    // Striped over all three, these would take twice what the small disk has.
    let content = vec![5; FILE_BYTES];
    for n in 0..36 {
        fs::write(cluster.mount(0).join(format!("f{n}")), &content)?;
    }
    let seen = statvfs(&cluster.mount(0))?;
    let seen_bytes = seen.blocks() * seen.fragment_size();
    ensure!(
        (large_bytes..=large_bytes + SMALL_BYTES + (1 << 20)).contains(&seen_bytes),
        "df says {seen_bytes} bytes, of which the large disk has {large_bytes}"
    );
    for verb in ["df", "status"] {
        let output = Command::new(programs::find("pvfs")?)
            .args([verb, "--json", cluster.mgr_address()])
            .output()?;
        let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let whole = if verb == "df" { &said["total"] } else { &said };
        let bytes = whole["bytes_total"].as_u64().unwrap_or_default();
        // statfs(2) counts in fragments.
        ensure!(
            bytes.abs_diff(seen_bytes) < seen.fragment_size(),
            "{verb}: {said}, not {seen_bytes}"
        );
        ensure!(said["iods"].as_array().is_some_and(|iods| iods.len() == 3));
    }
    cluster.finish()
}

/// Between two of its heartbeats a small disk gets no more than it has.
#[test]
fn a_disk_is_not_filled_up_before_it_can_say_so() -> anyhow::Result<()> {
    let disk = |number: usize, bytes| SmallDisk {
        directory: format!("iod{number}"),
        bytes,
    };
    let cluster = Cluster::start(Options {
        // All are small, so that the smallest is used as long as it can be.
        disks: vec![
            disk(0, SMALL_BYTES),
            disk(1, 4 * SMALL_BYTES),
            disk(2, 4 * SMALL_BYTES),
        ],
        ..Options::default()
    })?;
    let content = vec![5; FILE_BYTES];
    let start = Instant::now();
    for n in 0..30 {
        let path = cluster.mount(0).join(format!("f{n}"));
        fs::write(&path, &content).with_context(|| format!("f{n}, {:?}", start.elapsed()))?;
    }
    let used = statvfs(&cluster.iod_data(0))?;
    let left = used.blocks_available() * used.fragment_size();
    ensure!(
        left < SMALL_BYTES / 2,
        "{left} bytes are left: it was not used"
    );
    cluster.finish()
}

#[test]
fn files_made_after_an_iod_was_stopped_do_not_wait_for_it() -> anyhow::Result<()> {
    let mut cluster = cluster()?;
    cluster.stop_iod(1)?;
    let start = Instant::now();
    for n in 0..6 {
        fs::write(cluster.mount(0).join(format!("f{n}")), [5; 200_000])?;
    }
    // It took 10 s, until mgr believed that the iod was gone, and for ever for these files.
    ensure!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    cluster.restart_iod(1)?;
    cluster.finish()
}

#[test]
fn df_answers_at_once_while_mgr_is_stopped_or_dead() -> anyhow::Result<()> {
    let mut cluster = cluster()?;
    let before = statvfs(&cluster.mount(0))?;
    cluster.freeze(Who::Mgr, true)?;
    same_soon(&cluster, &before)?;
    cluster.freeze(Who::Mgr, false)?;
    cluster.kill_mgr()?;
    same_soon(&cluster, &before)?;
    cluster.restart_mgr()?;
    cluster.finish()
}

fn same_soon(cluster: &Cluster, before: &Statvfs) -> anyhow::Result<()> {
    let start = Instant::now();
    let df = Command::new("df").arg(cluster.mount(0)).output()?;
    ensure!(df.status.success(), "{df:?}");
    let seen = statvfs(&cluster.mount(0))?;
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(4), "it took {took:?}");
    ensure!(seen.blocks() == before.blocks() && seen.files() == before.files());
    Ok(())
}
