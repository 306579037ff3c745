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

use anyhow::{Context, ensure};
use cssns_tests::environment::{number, seed};
use cssns_tests::model::Model;
use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options};
use cssns_tests::replay::{compare_all, run_random};

/// Enough to meet every operation in most states, within a minute.
const OPERATIONS_DEFAULT: u64 = 4000;

/// The model itself is right: the kernel's own tmpfs or disk file system does the same.
#[test]
fn the_model_agrees_with_a_local_file_system() -> anyhow::Result<()> {
    programs::require_root()?;
    let seed = seed("PVFS_MODEL_SEED")?;
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
    let seed = seed("PVFS_MODEL_SEED")?;
    let count = usize::try_from(number("PVFS_MODEL_OPERATIONS", OPERATIONS_DEFAULT)?)?;
    let mut cluster = Cluster::start(Options {
        iods: 3,
        mounts: 2,
        ..Options::default()
    })?;
    let roots: Vec<PathBuf> = (0..2).map(|index| cluster.mount(index)).collect();
    cluster.set_small_stripes()?;
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
