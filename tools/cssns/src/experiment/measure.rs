// SPDX-License-Identifier: MIT
//! Measures cells in labs, one after another, and keeps each as soon as it is done.

use super::cell::{Cell, Dispatch};
use super::clients::Machines;
use super::lab::{self, Lab};
use super::links;
use super::sample::Sample;
use super::store::{Measured, Record, Store};
use super::topology::Host;
use super::watch::{self, MemoryWatch, Segments};
use super::work;
use crate::plan::Code;
use crate::plan::Node;
use crate::progress::Steps;
use crate::vm::Acceleration;
use crate::workload::StoredFile;
use anyhow::{Context as _, ensure};
use indicatif::ProgressBar;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A round may take this much longer than planned before it counts as hung, and at least
/// [`ROUND_LIMIT_MIN`].
const ROUND_SLACK: f64 = 10.0;

/// The least time that a round may take.
const ROUND_LIMIT_MIN: Duration = Duration::from_secs(120);

/// How often the progress bar is told of bytes.
const BAR_INTERVAL: Duration = Duration::from_millis(200);

/// What all labs of an experiment share.
#[derive(Debug)]
pub struct Measurement<'a> {
    /// Where cells are kept.
    pub store: &'a Store,
    /// What the programs are.
    pub programs: &'a str,
    /// How a guest's instructions are executed.
    pub acceleration: Acceleration,
    /// Says what happens.
    pub steps: &'a Steps,
}

impl Measurement<'_> {
    /// Measures the cells that the store does not have, those of one code of the director in one lab.
    ///
    /// # Errors
    /// Says which cell failed and where logs are; what was measured until then is kept.
    pub fn run(&self, cells: &[Cell]) -> anyhow::Result<()> {
        let missing: Vec<Cell> = cells
            .iter()
            .filter(|cell| self.store.load(cell, Some(self.programs)).is_none())
            .copied()
            .collect();
        let there = cells.len() - missing.len();
        if there > 0 {
            self.steps.say(&format!(
                "{there} of {} cells are there from earlier; --fresh measures them again",
                cells.len()
            ));
        }
        let bar = self.steps.planned(planned_ms(&missing));
        let (stock, ours): (Vec<Cell>, Vec<Cell>) = missing
            .iter()
            .partition(|cell| cell.dispatch == Dispatch::Stock);
        for (code, cells) in [(Code::Mwlc, ours), (Code::IpVs, stock)] {
            if !cells.is_empty() {
                self.in_lab(code, &cells, &bar)?;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn in_lab(&self, code: Code, cells: &[Cell], bar: &ProgressBar) -> anyhow::Result<()> {
        let steps = self.steps;
        let mut lab = Lab::up(code, self.acceleration, steps)?;
        let (own, mix) = lab::files_of(cells);
        let what = format!("{} files stored", own.len() + mix.len());
        let files = steps.step(&what, || lab.store(&[own, mix.clone()].concat()))?;
        if !mix.is_empty() {
            steps.step("the mix read once on every node, its sizes known", || {
                lab.warm(&mix)?;
                lab.start_learning(&mix)
            })?;
        }
        steps.step("every link limited", || lab.limit_links())?;
        for cell in cells {
            bar.set_message(cell.key());
            let done = bar.position();
            let measured = self
                .cell(&mut lab, cell, &files, bar)
                .with_context(|| cell.key())?;
            self.store.save(&measured)?;
            bar.set_position(done + planned_ms(&[*cell]));
            bar.suspend(|| steps.say(&summary(&measured)));
        }
        steps.step("taken apart, nothing left behind", || lab.down())
    }

    fn cell(
        &self,
        lab: &mut Lab,
        cell: &Cell,
        files: &HashMap<String, StoredFile>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Measured> {
        let server = lab.prepare(cell)?;
        let rounds = work::rounds(cell)?;
        let plan = lab.run().ledger().plan();
        let serving: Vec<Node> = lab
            .nodes()
            .iter()
            .copied()
            .filter(|node| node.number() <= cell.nodes)
            .collect();
        let planned = Duration::from_secs_f64(cell.planned_s() * ROUND_SLACK);
        let received = Arc::new(AtomicU64::new(0));
        let machines = Machines {
            plan,
            server,
            files,
            limit: planned.max(ROUND_LIMIT_MIN),
            received: Arc::clone(&received),
        };
        let segments = || -> anyhow::Result<Vec<Segments>> {
            let of_node = |&node: &Node| watch::segments(plan, Host::Node(node));
            serving.iter().map(of_node).collect()
        };
        let (carried, processor, sent) =
            (links::carried(plan)?, watch::processor(plan)?, segments()?);
        let (samples, memory) = std::thread::scope(|scope| {
            let watch = MemoryWatch::start(scope, plan, &serving)?;
            let _ticker = Ticker::start(scope, bar, Arc::clone(&received), cell);
            let samples = download(&machines, &rounds);
            anyhow::Ok((samples?, watch.stop()?))
        })?;
        let segments =
            segments()?
                .into_iter()
                .zip(sent)
                .fold(Segments::default(), |sum, (now, then)| {
                    let since = now.since(then);
                    Segments {
                        sent: sum.sent + since.sent,
                        again: sum.again + since.again,
                    }
                });
        for sample in &samples {
            ensure!(
                (1..=cell.nodes).contains(&sample.node),
                "node{} answered, which does not serve in this cell",
                sample.node
            );
        }
        let record = Record {
            cell: *cell,
            programs: self.programs.to_owned(),
            measured_at_s: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            memory,
            carried: links::between(&carried, &links::carried(plan)?),
            processor: watch::processor(plan)?.since(&processor),
            segments,
        };
        Measured::new(record, samples)
    }
}

fn download(machines: &Machines<'_>, rounds: &[Vec<work::Request>]) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for (requests, number) in rounds.iter().zip(0u32..) {
        samples.extend(machines.download(number, requests)?);
    }
    Ok(samples)
}

/// Moves the bar within a cell as bytes come in; ends when it is dropped.
struct Ticker {
    _stop: std::sync::mpsc::Sender<()>,
}

impl Ticker {
    fn start<'scope, 'env: 'scope>(
        scope: &'scope std::thread::Scope<'scope, 'env>,
        bar: &'env ProgressBar,
        received: Arc<AtomicU64>,
        cell: &Cell,
    ) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel();
        let (start, span) = (bar.position(), planned_ms(&[*cell]));
        let total = cell.bytes().max(1);
        scope.spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            while stopped.recv_timeout(BAR_INTERVAL) == Err(Timeout) {
                let part = received.load(Ordering::Relaxed) as f64 / total as f64;
                bar.set_position(start + (span as f64 * part.min(1.0)) as u64);
            }
        });
        Self { _stop: stop }
    }
}

fn planned_ms(cells: &[Cell]) -> u64 {
    let seconds: f64 = cells.iter().map(Cell::planned_s).sum();
    (seconds * 1000.0) as u64
}

fn summary(measured: &Measured) -> String {
    format!(
        "  {}: {:.2} s, {:.2} MB/s, median {:.2} s, p99 {:.2} s",
        measured.record.cell.key(),
        measured.times.elapsed_s,
        measured.times.rate_mb_s(),
        measured.times.median_s,
        measured.times.p99_s
    )
}
