// SPDX-License-Identifier: MIT
//! Random operations through two mounts of one PVFS, against a reference model.
//!
//! ```text
//!   model  <-- the same operations -->  mount0 or mount1, in turn at random
//! ```
//!
//! Each operation ends, its file closed, before the next one starts on the other mount: the promise
//! is close-to-open. `PVFS_MODEL_SEED` and `PVFS_MODEL_OPERATIONS` choose the run.

use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use cssns_tests::model::Model;
use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options};
use cssns_tests::replay::{compare_all, run_random};

/// Enough to meet every operation in most states, within a minute.
const OPERATIONS_DEFAULT: u64 = 4000;

fn from_environment(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{name}={text} is no number")),
        Err(_) => Ok(default),
    }
}

fn seed() -> anyhow::Result<u64> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let seed = from_environment("PVFS_MODEL_SEED", clock as u64)?;
    eprintln!("PVFS_MODEL_SEED={seed}");
    Ok(seed)
}

/// The model itself is right: the kernel's own tmpfs or disk file system does the same.
#[test]
fn the_model_agrees_with_a_local_file_system() -> anyhow::Result<()> {
    programs::require_root()?;
    let seed = seed()?;
    for round in 0..20 {
        let dir = tempfile::tempdir_in("/dev/shm")?;
        let root = dir.path().join("root");
        std::fs::create_dir(&root)?;
        let mut model = Model::default();
        let succeeded = run_random(
            std::slice::from_ref(&root),
            &mut model,
            seed.wrapping_add(round),
            2000,
        )?;
        // Operations that all fail alike would prove nothing.
        ensure!(
            succeeded > 500,
            "only {succeeded} of 2000 operations succeeded"
        );
        compare_all(&root, &mut model)?;
    }
    Ok(())
}

#[test]
fn two_mounts_do_what_the_model_does() -> anyhow::Result<()> {
    let seed = seed()?;
    let count = usize::try_from(from_environment(
        "PVFS_MODEL_OPERATIONS",
        OPERATIONS_DEFAULT,
    )?)?;
    let mut cluster = Cluster::start(Options {
        iods: 3,
        mounts: 2,
        ..Options::default()
    })?;
    let roots: Vec<PathBuf> = (0..2).map(|index| cluster.mount(index)).collect();
    small_stripes(&roots[0])?;
    let mut model = Model::default();
    run_random(&roots, &mut model, seed, count)?;
    for root in &roots {
        compare_all(root, &mut model)?;
    }
    // What was closed stays, also when every process is killed and started again.
    for index in 0..2 {
        cluster.unmount(index)?;
        cluster.restart_mount(index)?;
    }
    cluster.crash_all()?;
    for root in &roots {
        compare_all(root, &mut model).with_context(|| format!("seed {seed}, after a crash"))?;
    }
    run_random(&roots, &mut model, seed.wrapping_add(1), count / 4)?;
    cluster.finish()
}

/// Stripes of one page, so that most operations touch all iods.
fn small_stripes(root: &std::path::Path) -> anyhow::Result<()> {
    let status = Command::new(programs::find("pvfs")?)
        .args(["layout", "set", "--stripe-size", "4K"])
        .arg(root)
        .status()?;
    ensure!(status.success(), "pvfs layout set: {status}");
    Ok(())
}
