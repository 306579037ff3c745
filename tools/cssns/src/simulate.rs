// SPDX-License-Identifier: MIT
//! The director's schedulers in a simulated cluster: the same code that the module runs, thousands of
//! nodes, and the figures that say which one does what best.
//!
//! Every policy sees the same arrivals in a replication, so that policies are compared by their
//! choices and not by luck.

pub mod arrivals;
pub mod link;
pub mod measure;
pub mod picture;
pub mod policy;
pub mod scenario;
pub mod sizes;
pub mod table;
pub mod world;

use anyhow::{Context as _, ensure};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use measure::{Estimate, Figures};
use policy::Policy;
use serde::Serialize;
use sizes::Sizes;
use world::{Arrival, Cluster};

/// Nodes of a cluster: each arrival looks at every one.
pub const NODES_MAX: usize = 10_000;

/// Replications of one experiment.
pub const REPLICATIONS_MAX: usize = 1_000;

/// What requests come.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// Independent arrivals.
    Poisson {
        /// The part of all nodes' rates that they ask for.
        load: f64,
        /// What they fetch.
        sizes: Sizes,
        /// How many of them in each replication.
        requests: usize,
    },
    /// Recorded ones; the same in each replication.
    Trace {
        /// Where from.
        name: String,
        /// The requests.
        #[serde(skip)]
        arrivals: Vec<Arrival>,
    },
}

/// A comparison of policies.
#[derive(Debug, Clone, Serialize)]
pub struct Experiment {
    /// The cluster and its clients.
    pub cluster: Cluster,
    /// The requests.
    pub traffic: Traffic,
    /// The part of the requests, at the start, that is not counted.
    pub warm_up: f64,
    /// How often it is repeated with other numbers.
    pub replications: usize,
    /// The first replication's seed; the others follow it.
    pub seed: u64,
}

/// What an experiment came to.
#[derive(Debug, Clone)]
pub struct Results {
    /// One for each policy, in the order in which they were given.
    pub policies: Vec<PolicyResult>,
}

/// One policy's figures.
#[derive(Debug, Clone)]
pub struct PolicyResult {
    /// Which.
    pub policy: Policy,
    /// Of each replication.
    pub figures: Vec<Figures>,
    /// Completion times in seconds, sorted, of the first replication: for a picture.
    pub took_s: Vec<f64>,
    /// Requests that no node would take, in all replications.
    pub refused: u64,
}

impl PolicyResult {
    /// One figure over the replications.
    #[must_use]
    pub fn estimate(&self, figure: impl Fn(&Figures) -> f64) -> Estimate {
        Estimate::of(&self.figures.iter().map(figure).collect::<Vec<_>>())
    }

    /// One figure for that of another policy, over the replications that both share.
    #[must_use]
    pub fn ratio(&self, to: &PolicyResult, figure: impl Fn(&Figures) -> f64) -> Estimate {
        let ratios: Vec<f64> = self
            .figures
            .iter()
            .zip(&to.figures)
            .map(|(ours, theirs)| figure(ours) / figure(theirs))
            .collect();
        Estimate::of(&ratios)
    }
}

impl Experiment {
    /// Runs every policy in every replication, on all processors; `done` is told of each run.
    ///
    /// # Errors
    /// The experiment makes no sense, or a run completed nothing.
    pub fn run(&self, policies: &[Policy], done: impl Fn() + Sync) -> anyhow::Result<Results> {
        self.check()?;
        let arrivals = (0..self.replications as u64)
            .map(|number| self.arrivals(self.seed.wrapping_add(number)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let runs: Vec<Mutex<Option<Run>>> = (0..self.replications * policies.len())
            .map(|_| Mutex::default())
            .collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(slot) = runs.get(number) else { return };
                let (policy, replication) = (number % policies.len(), number / policies.len());
                let run = self.replicate(policies[policy], replication, &arrivals[replication]);
                if let Ok(mut slot) = slot.lock() {
                    *slot = run;
                }
                done();
            }
        };
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(runs.len());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        collect(policies, runs)
    }

    fn check(&self) -> anyhow::Result<()> {
        let nodes = self.cluster.nodes.len();
        ensure!(
            (1..=NODES_MAX).contains(&nodes),
            "{nodes} nodes: give 1 to {NODES_MAX}"
        );
        ensure!(
            (1..=REPLICATIONS_MAX).contains(&self.replications),
            "{} replications: give 1 to {REPLICATIONS_MAX}",
            self.replications
        );
        ensure!(
            self.cluster
                .nodes
                .iter()
                .all(|node| node.rate > 0.0 && node.weight > 0),
            "a node's rate or weight is 0: it would never serve"
        );
        if let Traffic::Poisson { load, requests, .. } = self.traffic {
            ensure!(
                load > 0.0 && load < 1.0,
                "a load of {load}: it must be above 0, and below 1 or queues grow without end"
            );
            ensure!(
                (1..=arrivals::REQUESTS_MAX).contains(&requests),
                "{requests} requests: give 1 to {}",
                arrivals::REQUESTS_MAX
            );
        }
        Ok(())
    }

    fn arrivals(&self, seed: u64) -> anyhow::Result<Vec<Arrival>> {
        match &self.traffic {
            Traffic::Trace { arrivals, .. } => Ok(arrivals.clone()),
            Traffic::Poisson {
                load,
                sizes,
                requests,
            } => {
                let rate: f64 = self.cluster.nodes.iter().map(|node| node.rate).sum();
                arrivals::poisson(*requests, load * rate / sizes.mean(), sizes, seed)
            }
        }
    }

    fn replicate(&self, policy: Policy, replication: usize, arrivals: &[Arrival]) -> Option<Run> {
        let warm_up = (self.warm_up * arrivals.len() as f64) as usize;
        let seed = self.seed.wrapping_add(replication as u64);
        let outcome = world::run(&self.cluster, policy, arrivals, warm_up, seed);
        let figures = Figures::of(&outcome)?;
        let mut took_s = Vec::new();
        if replication == 0 {
            took_s.extend(outcome.completions.iter().map(|one| one.took_s));
            took_s.sort_by(f64::total_cmp);
        }
        Some(Run {
            figures,
            took_s,
            refused: outcome.refused,
        })
    }
}

#[derive(Debug)]
struct Run {
    figures: Figures,
    took_s: Vec<f64>,
    refused: u64,
}

/// The runs, which are in the order of replications, by policy.
fn collect(policies: &[Policy], runs: Vec<Mutex<Option<Run>>>) -> anyhow::Result<Results> {
    let empty = |policy: &Policy| PolicyResult {
        policy: *policy,
        figures: Vec::new(),
        took_s: Vec::new(),
        refused: 0,
    };
    let mut results: Vec<PolicyResult> = policies.iter().map(empty).collect();
    for (run, index) in runs.into_iter().zip((0..policies.len()).cycle()) {
        let run = run.into_inner().ok().flatten();
        let result = &mut results[index];
        let run = run.with_context(|| format!("{}: nothing was completed", result.policy))?;
        result.figures.push(run.figures);
        result.refused += run.refused;
        if !run.took_s.is_empty() {
            result.took_s = run.took_s;
        }
    }
    Ok(Results { policies: results })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipvs_mwlc::director::sched::Scheduler;

    fn experiment(nodes: usize, load: f64, sizes: &str, requests: usize) -> Experiment {
        Experiment {
            cluster: scenario::cluster(nodes, &[1]),
            traffic: Traffic::Poisson {
                load,
                sizes: sizes.parse().unwrap(),
                requests,
            },
            warm_up: 0.1,
            replications: 4,
            seed: 1,
        }
    }

    fn slowdowns(experiment: &Experiment, policies: &[Policy]) -> Vec<f64> {
        let results = experiment.run(policies, || {}).unwrap();
        results
            .policies
            .iter()
            .map(|one| one.estimate(|figures| figures.slowdown).mean)
            .collect()
    }

    #[test]
    fn processor_sharing_has_its_known_slowdown() {
        // An M/G/1 queue with processor sharing slows by 1 / (1 - load), whatever the sizes; and so
        // does each of several nodes that are chosen by lot.
        for (nodes, sizes) in [
            (1, "constant:1M"),
            (1, "exponential:1M"),
            (4, "lognormal:1M:1"),
        ] {
            let mut experiment = experiment(nodes, 0.6, sizes, 60_000);
            experiment.cluster.round_trip_s = 0.0;
            let slowdown = slowdowns(&experiment, &[Policy::Random])[0];
            assert!(
                (slowdown / 2.5 - 1.0).abs() < 0.06,
                "{nodes} {sizes}: {slowdown}"
            );
        }
    }

    #[test]
    fn every_scheduler_is_between_the_marks() {
        let policies = Policy::COMPARED;
        let slowdowns = slowdowns(&experiment(5, 0.7, "exponential:1M", 20_000), &policies);
        let best = slowdowns[policies.len() - 1];
        let wlc = slowdowns[3];
        assert!(wlc < slowdowns[0], "wlc is better than chance");
        assert!(
            slowdowns.iter().all(|slowdown| *slowdown >= best),
            "{slowdowns:?}"
        );
    }

    #[test]
    fn a_run_repeats_with_its_seed() {
        let experiment = experiment(3, 0.8, "pareto:1.2:100k:1G", 5_000);
        let policies = [
            Policy::plain(Scheduler::TwoChoices),
            Policy::remaining(Scheduler::Msed),
        ];
        let figures = || -> Vec<Vec<Figures>> {
            let results = experiment.run(&policies, || {}).unwrap();
            results
                .policies
                .into_iter()
                .map(|one| one.figures)
                .collect()
        };
        assert_eq!(figures(), figures());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = experiment(2, 0.5, "constant:1k", 100);
        for (load, nodes) in [(1.0, 2), (0.0, 2), (0.5, 0)] {
            let mut bad = experiment(nodes, load, "constant:1k", 100);
            bad.replications = 1;
            assert!(bad.run(&[Policy::Random], || {}).is_err(), "{load} {nodes}");
        }
        assert!(good.run(&[Policy::Random], || {}).is_ok());
    }

    #[test]
    fn sizes_beat_counts_where_connections_are_kept() {
        // Heavy tails, connections kept for 5 s: counting connections is no better than chance,
        // what is left to send tells the nodes apart.
        let mut experiment = experiment(10, 0.8, "pareto:1.2:100k:1G", 40_000);
        experiment.cluster.keep_alive_s = 5.0;
        let policies = [
            Policy::plain(Scheduler::Wlc),
            Policy::remaining(Scheduler::Msed),
        ];
        let results = experiment.run(&policies, || {}).unwrap();
        let [wlc, msed] = &results.policies[..] else {
            unreachable!()
        };
        let ratio = msed.ratio(wlc, |figures| figures.p99_ms).mean;
        assert!(ratio < 0.75, "p99 {ratio} of wlc's");
    }
}
