// SPDX-License-Identifier: MIT
//! The simulator's comparison, small, in a real cluster: clients ask for heavy-tailed files through
//! the director, nodes' links are narrow, and schedulers take turns with the same requests.

pub mod client;
pub mod links;

use anyhow::{Context as _, bail, ensure};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::cluster::{Cluster, Options};
use crate::director::service;
use crate::learning;
use crate::plan::{HTTP_PORT, Node};
use crate::progress::Steps;
use crate::simulate::arrivals;
use crate::simulate::measure::Figures;
use crate::simulate::policy::Policy;
use crate::simulate::scenario::ROUND_TRIP_S;
use crate::simulate::sizes::Sizes;
use crate::simulate::world::{Completion, Outcome};
use crate::simulate::{PolicyResult, Results};
use crate::workload::{self, FilePlan, StoredFile};
use client::Request;
use ipvs_mwlc::director::sched::Scheduler;

/// Files in the cluster: their sizes are as many quantiles of the distribution.
const FILES: usize = 64;

/// Between two requests for files whose sizes are to be learned.
const LEARNING_INTERVAL: Duration = Duration::from_millis(60);

/// How often files are asked for until all their sizes were learned.
const LEARNING_ROUNDS_MAX: usize = 4;

/// Requests of one scheduler's turn.
pub const REQUESTS_MAX: usize = 20_000;

/// What is compared, and how.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The schedulers, `-remaining` if sizes shrink as clients acknowledge.
    pub policies: Vec<Policy>,
    /// Each node's link towards the clients, Mbit/s.
    pub link_mbit: u32,
    /// The part of all links' rates that clients ask for.
    pub load: f64,
    /// What they fetch.
    pub sizes: Sizes,
    /// Requests of one scheduler's turn.
    pub requests: usize,
    /// How long clients keep their connections after a transfer.
    pub keep_alive: Duration,
    /// What the arrivals are drawn from.
    pub seed: u64,
}

/// Brings a cluster up, lets the schedulers take turns, takes it apart.
///
/// # Errors
/// Says which part failed and where its log is; everything is taken apart then.
pub fn run(options: &Options, comparison: &Comparison, steps: &Steps) -> anyhow::Result<Results> {
    comparison.check()?;
    let cluster = Cluster::up(options, steps)?;
    let files = steps.step("files stored, and read once on every node", || {
        store_and_warm(&cluster, &comparison.sizes)
    })?;
    let rate = f64::from(comparison.link_mbit) * 1e6 / 8.0;
    for &node in cluster.nodes() {
        links::narrow(
            cluster.run().ledger().plan(),
            node,
            comparison.link_mbit,
            cluster.run().dir(),
        )?;
    }
    let requests = comparison.requests(&files, rate * cluster.nodes().len() as f64)?;
    let namespace = cluster.run().ledger().plan().client_namespace();
    if comparison.learns() {
        steps.step("the director learns the files' sizes", || {
            learn(&cluster, &namespace, &files)
        })?;
    }
    let mut results = Vec::new();
    for &policy in &comparison.policies {
        begin_turn(&cluster, policy, mean_size(&files)).with_context(|| policy.to_string())?;
        let name = format!("{policy}: {} requests", requests.len());
        let completions = steps.step(&name, || {
            let took = client::play(&namespace, &requests, comparison.keep_alive)?;
            Ok(completions(&requests, &took, rate))
        })?;
        let outcome = Outcome {
            completions,
            ..Outcome::default()
        };
        let mut took_s: Vec<f64> = outcome.completions.iter().map(|one| one.took_s).collect();
        took_s.sort_by(f64::total_cmp);
        results.push(PolicyResult {
            policy,
            figures: Figures::of(&outcome).into_iter().collect(),
            took_s,
            refused: 0,
        });
    }
    steps.step("taken apart, nothing left behind", || cluster.down())?;
    Ok(Results { policies: results })
}

impl Comparison {
    /// Whether a scheduler among them looks at sizes.
    #[must_use]
    pub fn learns(&self) -> bool {
        self.policies.iter().any(|policy| learns(*policy))
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.policies.is_empty(), "no scheduler to compare");
        for policy in &self.policies {
            ensure!(
                matches!(policy, Policy::Director { .. }),
                "{policy} is no scheduler: it exists in the simulator only"
            );
        }
        ensure!(
            self.load > 0.0 && self.load < 1.0,
            "a load of {}: it must be above 0, and below 1 or queues grow without end",
            self.load
        );
        ensure!(
            (1..=REQUESTS_MAX).contains(&self.requests),
            "{} requests: give 1 to {REQUESTS_MAX}",
            self.requests
        );
        ensure!(self.link_mbit > 0, "a link of 0 Mbit/s");
        Ok(())
    }

    /// The same requests for every scheduler: when, and which file.
    fn requests(&self, files: &[StoredFile], rate: f64) -> anyhow::Result<Vec<Request>> {
        let per_second = self.load * rate / mean_size(files) as f64;
        // Of the arrivals only the times are used: sizes are those of the files.
        let arrivals = arrivals::poisson(self.requests, per_second, &self.sizes, self.seed)?;
        let lots = client::lots(self.requests, files.len(), self.seed);
        Ok(arrivals
            .iter()
            .zip(lots)
            .filter_map(|(arrival, lot)| {
                let file = files.get(lot)?;
                Some(Request {
                    at: Duration::from_secs_f64(arrival.at_s),
                    path: format!("/{}", file.name),
                    bytes: file.bytes,
                })
            })
            .collect())
    }
}

/// Stores one file for each quantile and reads all of them on every node, so that what is compared is
/// the links towards the clients and not who read a file first.
fn store_and_warm(cluster: &Cluster, sizes: &Sizes) -> anyhow::Result<Vec<StoredFile>> {
    let dir = cluster.mount_point(Node::FIRST);
    let written = AtomicU64::new(0);
    let plan = |index: usize| FilePlan {
        name: format!("tail{index:02}.bin"),
        bytes: sizes.quantile((index as f64 + 0.5) / FILES as f64) as u64,
    };
    let files = (0..FILES)
        .map(|index| workload::store(&dir, &plan(index), &written))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for &node in cluster.nodes() {
        for file in &files {
            let path = cluster.mount_point(node).join(&file.name);
            let mut input = std::fs::File::open(&path)
                .with_context(|| format!("opening {}", path.display()))?;
            std::io::copy(&mut input, &mut std::io::sink())
                .with_context(|| format!("reading {}", path.display()))?;
        }
    }
    Ok(files)
}

fn mean_size(files: &[StoredFile]) -> u64 {
    let sum: u64 = files.iter().map(|file| file.bytes).sum();
    sum / (files.len() as u64).max(1)
}

/// The virtual service anew, so that nothing of the turn before counts, with this scheduler.
fn begin_turn(cluster: &Cluster, policy: Policy, expected_bytes: u64) -> anyhow::Result<()> {
    let Policy::Director {
        scheduler,
        remaining,
    } = policy
    else {
        return Ok(());
    };
    let vip = service();
    let mut script = format!(
        "set -e\nipvsadm -C\nipvsadm -A -t {vip} -s {}\n",
        scheduler.name()
    );
    for node in cluster.nodes() {
        script += &format!(
            "ipvsadm -a -t {vip} -r {}:{HTTP_PORT} -g -w 1\n",
            node.address()
        );
    }
    script += &format!("mwlcadm expected-size {vip} {expected_bytes}\n");
    if learns(policy) {
        let remaining = if remaining { "on" } else { "off" };
        script += &format!("mwlcadm set -t {vip} --learn http --remaining {remaining}\n");
    }
    cluster.director().check(&script).map(drop)
}

/// Whether sizes matter to it.
fn learns(policy: Policy) -> bool {
    matches!(
        policy,
        Policy::Director {
            scheduler: Scheduler::Mwlc | Scheduler::Msed,
            ..
        }
    )
}

/// Starts `mwlcd` on the director and asks for each file, so that its size is in the director's cache
/// when a scheduler's turn begins; fails if sizes are not learned.
fn learn(cluster: &Cluster, namespace: &str, files: &[StoredFile]) -> anyhow::Result<()> {
    begin_turn(
        cluster,
        Policy::remaining(Scheduler::Msed),
        mean_size(files),
    )?;
    learning::start(cluster)?;
    let requests: Vec<Request> = files
        .iter()
        .zip(0u32..)
        .map(|(file, number)| Request {
            at: LEARNING_INTERVAL * number,
            path: format!("/{}", file.name),
            bytes: file.bytes,
        })
        .collect();
    // An answer may come when its connection has ended already; so again until a whole round was
    // learned.
    for _ in 0..LEARNING_ROUNDS_MAX {
        let before = learned_count(cluster)?;
        client::play(namespace, &requests, Duration::ZERO)?;
        if learned_count(cluster)? >= before + files.len() as u64 {
            return Ok(());
        }
    }
    bail!(
        "after {LEARNING_ROUNDS_MAX} rounds of {} requests the director does not learn each size",
        files.len()
    )
}

/// Sizes that the service has learned.
fn learned_count(cluster: &Cluster) -> anyhow::Result<u64> {
    let text = cluster.director().check("mwlcadm loads --json")?;
    let loads: serde_json::Value = serde_json::from_str(&text).context("mwlcadm loads --json")?;
    find_number(&loads, "learned_sizes").with_context(|| format!("no learned_sizes in {text}"))
}

/// The first number of this name, anywhere.
fn find_number(value: &serde_json::Value, name: &str) -> Option<u64> {
    match value {
        serde_json::Value::Object(fields) => match fields.get(name) {
            Some(number) => number.as_u64(),
            None => fields.values().find_map(|field| find_number(field, name)),
        },
        serde_json::Value::Array(items) => items.iter().find_map(|item| find_number(item, name)),
        _ => None,
    }
}

fn completions(requests: &[Request], took: &[Duration], rate: f64) -> Vec<Completion> {
    requests
        .iter()
        .zip(took)
        .map(|(request, took)| Completion {
            took_s: took.as_secs_f64(),
            alone_s: ROUND_TRIP_S + request.bytes as f64 / rate,
        })
        .collect()
}
