// SPDX-License-Identifier: MIT
//! The paper's experiment, for real.

pub mod cell;
pub mod clients;
pub mod document;
pub mod fit;
pub mod goals;
pub mod grid;
pub mod lab;
pub mod links;
pub mod measure;
pub mod picture;
pub mod profile;
pub mod report;
pub mod results;
pub mod sample;
pub mod store;
pub mod tables;
pub mod topology;
pub mod watch;
pub mod work;

use crate::vm::Acceleration;
use anyhow::{Context as _, ensure};
use cell::Cell;
use measure::Measurement;
use std::path::{Path, PathBuf};
use store::{Measured, Store};

/// What is measured by name, beside nginx and the kernels: the programs whose change makes a cell another.
const PROGRAMS: [&str; 4] = ["pvfs-mgr", "pvfs-iod", "pvfs-fuse", "mwlcadm"];

/// How an experiment is run.
#[derive(Debug)]
pub struct Options<'a> {
    /// Where cells and results go.
    pub out: &'a Path,
    /// How a guest's instructions are executed.
    pub acceleration: Acceleration,
    /// Whether cells that are there are measured again.
    pub fresh: bool,
}

/// Measures what is missing of these cells, and returns all of them in their order.
///
/// # Errors
/// Says which cell failed; those that were measured are kept.
pub fn measure(
    cells: &[Cell],
    options: &Options<'_>,
    steps: &crate::progress::Steps,
) -> anyhow::Result<Vec<Measured>> {
    ensure!(!cells.is_empty(), "there is no cell to measure");
    let store = Store::open(options.out)?;
    if options.fresh {
        store.clear()?;
    }
    let programs = store::fingerprint(&programs()?)?;
    Measurement {
        store: &store,
        programs: &programs,
        acceleration: options.acceleration,
        steps,
    }
    .run(cells)?;
    load(&store, cells, Some(&programs))
}

/// The cells as an earlier run measured them.
///
/// # Errors
/// Names a cell that is not there.
pub fn load(
    store: &Store,
    cells: &[Cell],
    programs: Option<&str>,
) -> anyhow::Result<Vec<Measured>> {
    cells
        .iter()
        .map(|cell| {
            store
                .load(cell, programs)
                .with_context(|| format!("cell {} is not measured yet", cell.key()))
        })
        .collect()
}

fn programs() -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = PROGRAMS
        .iter()
        .map(|name| {
            crate::paths::program(name)
                .with_context(|| format!("{name} is not built: run `make build`"))
        })
        .collect::<anyhow::Result<Vec<PathBuf>>>()?;
    let module = crate::paths::checkout_file(crate::director::MODULE_FILE);
    paths.push(module.with_context(|| {
        format!(
            "{} is not here: run `make kmod`",
            crate::director::MODULE_FILE
        )
    })?);
    Ok(paths)
}
