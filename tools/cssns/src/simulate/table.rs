// SPDX-License-Identifier: MIT
//! Results as text, as Markdown and as JSON. Pure: numbers in, text out.

use serde_json::{Value, json};
use std::fmt::Write as _;

use super::measure::{Estimate, Figures};
use super::policy::Policy;
use super::world::Cluster;
use super::{Experiment, PolicyResult, Results, Traffic};
use ipvs_mwlc::director::sched::Scheduler;

/// A column: its heading, its decimals, its figure.
type Column = (&'static str, usize, fn(&Figures) -> f64);

const COLUMNS: [Column; 7] = [
    ("mean ms", 1, |figures| figures.mean_ms),
    ("p99 ms", 1, |figures| figures.p99_ms),
    ("p99.9 ms", 0, |figures| figures.p999_ms),
    ("slowdown", 2, |figures| figures.slowdown),
    ("p99", 2, |figures| figures.slowdown_p99),
    ("p99.9", 2, |figures| figures.slowdown_p999),
    ("imbalance", 2, |figures| figures.imbalance),
];

/// What the others' p99 is compared with.
const REFERENCE: Policy = Policy::plain(Scheduler::Wlc);

/// The heading of the comparison.
const COMPARISON: &str = "p99 / wlc's";

/// What the columns mean, in lines.
pub const LEGEND: &str = "\
Completion time from SYN to last byte, slowdown = completion time / that in an idle cluster,
imbalance = max Ci/Wi over its mean, both averaged over time. ± is half the 95 % confidence interval over the
replications, which all policies share.";

/// The experiment in a few lines.
#[must_use]
pub fn describe(experiment: &Experiment) -> String {
    let cluster = &experiment.cluster;
    let traffic = match &experiment.traffic {
        Traffic::Poisson {
            load,
            sizes,
            requests,
        } => format!(
            "{requests} requests, Poisson at {} % load; sizes {sizes}",
            (load * 1e4).round() / 1e2
        ),
        Traffic::Trace { name, arrivals } => format!("{} requests of {name}", arrivals.len()),
    };
    format!(
        "{}; {traffic}; round trip {} ms, connections kept {} s, FIN_WAIT {} s{}; {} replications from seed {}",
        describe_nodes(cluster),
        cluster.round_trip_s * 1e3,
        cluster.keep_alive_s,
        cluster.fin_wait_s,
        if cluster.sizes_known {
            ""
        } else {
            ", sizes never learned"
        },
        experiment.replications,
        experiment.seed,
    )
}

fn describe_nodes(cluster: &Cluster) -> String {
    let mut kinds: Vec<(f64, u32, usize)> = Vec::new();
    for node in &cluster.nodes {
        match kinds
            .iter_mut()
            .find(|kind| (kind.0, kind.1) == (node.rate, node.weight))
        {
            Some(kind) => kind.2 += 1,
            None => kinds.push((node.rate, node.weight, 1)),
        }
    }
    let kinds: Vec<String> = kinds
        .iter()
        .map(|(rate, weight, count)| {
            format!("{count} of {} Mbit/s and weight {weight}", rate * 8.0 / 1e6)
        })
        .collect();
    let clients = cluster.client_rate.map_or_else(String::new, |rate| {
        format!(", clients of {} Mbit/s", rate * 8.0 / 1e6)
    });
    format!("nodes: {}{clients}", kinds.join(", "))
}

/// A table for a terminal or a pipe.
#[must_use]
pub fn text(results: &Results) -> String {
    let mut text = format!("{:<16}", "policy");
    // Writing to a String cannot fail.
    for (heading, ..) in COLUMNS {
        let _ = write!(text, "{heading:>16}");
    }
    let _ = writeln!(text, "{COMPARISON:>16}");
    for result in &results.policies {
        let _ = write!(text, "{:<16}", result.policy);
        for (_, decimals, figure) in COLUMNS {
            let _ = write!(text, "{:>16}", shown(result.estimate(figure), decimals));
        }
        let _ = writeln!(text, "{:>16}", compared(results, result));
        if result.refused > 0 {
            let _ = writeln!(text, "{:<16}  {} requests were refused", "", result.refused);
        }
    }
    text
}

/// The same in Markdown.
#[must_use]
pub fn markdown(results: &Results) -> String {
    let mut text = String::from("| policy |");
    for (heading, ..) in COLUMNS {
        let _ = write!(text, " {heading} |");
    }
    let _ = writeln!(text, " {COMPARISON} |");
    let _ = writeln!(text, "|---|{}", "---|".repeat(COLUMNS.len() + 1));
    for result in &results.policies {
        let _ = write!(text, "| {} |", result.policy);
        for (_, decimals, figure) in COLUMNS {
            let _ = write!(text, " {} |", shown(result.estimate(figure), decimals));
        }
        let _ = writeln!(text, " {} |", compared(results, result));
    }
    text
}

fn compared(results: &Results, result: &PolicyResult) -> String {
    results
        .policies
        .iter()
        .find(|other| other.policy == REFERENCE)
        .map_or_else(String::new, |wlc| {
            shown(result.ratio(wlc, |figures| figures.p99_ms), 2)
        })
}

fn shown(estimate: Estimate, decimals: usize) -> String {
    if !estimate.mean.is_finite() {
        return "-".to_owned();
    }
    // Three digits that say something, or all those of a whole number.
    let digits_before = estimate.mean.abs().max(1.0).log10().floor() as usize;
    let decimals = decimals.min(2_usize.saturating_sub(digits_before));
    match estimate.plus_minus {
        Some(half) => format!("{:.decimals$} ±{half:.decimals$}", estimate.mean),
        None => format!("{:.decimals$}", estimate.mean),
    }
}

/// The experiment and its results.
#[must_use]
pub fn json(name: &str, experiment: &Experiment, results: &Results) -> Value {
    json!({ "name": name, "experiment": experiment, "policies": json_policies(results) })
}

/// The results alone.
#[must_use]
pub fn json_policies(results: &Results) -> Vec<Value> {
    results
        .policies
        .iter()
        .map(|result| {
            json!({
                "policy": result.policy.to_string(),
                "mean_ms": result.estimate(|figures| figures.mean_ms),
                "p99_ms": result.estimate(|figures| figures.p99_ms),
                "p999_ms": result.estimate(|figures| figures.p999_ms),
                "slowdown": result.estimate(|figures| figures.slowdown),
                "slowdown_p99": result.estimate(|figures| figures.slowdown_p99),
                "slowdown_p999": result.estimate(|figures| figures.slowdown_p999),
                "imbalance": result.estimate(|figures| figures.imbalance),
                "refused": result.refused,
                "replications": result.figures,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::scenario;
    use super::*;

    fn figures(p99_ms: f64) -> Figures {
        Figures {
            mean_ms: 1.0,
            p99_ms,
            p999_ms: 3.0,
            slowdown: 1.5,
            slowdown_p99: 2.5,
            slowdown_p999: 3.5,
            imbalance: 4.5,
        }
    }

    fn results() -> Results {
        let result = |policy, p99s: [f64; 2], refused| PolicyResult {
            policy,
            figures: p99s.map(figures).to_vec(),
            took_s: Vec::new(),
            refused,
        };
        Results {
            policies: vec![
                result(REFERENCE, [10.0, 20.0], 0),
                result(Policy::plain(Scheduler::Overflow), [5.0, 10.0], 7),
            ],
        }
    }

    #[test]
    fn tables_compare_with_wlc_replication_by_replication() {
        let text = text(&results());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("15.0 ±63.5"), "{text}");
        assert!(lines[2].ends_with("0.50 ±0.00"), "{text}");
        assert!(lines[3].contains("7 requests were refused"), "{text}");
        let markdown = markdown(&results());
        assert!(
            markdown.contains("| ovf | 1.0 ±0.0 | 7.5 ±31.8 |"),
            "{markdown}"
        );
    }

    #[test]
    fn an_experiment_is_described_and_numbers_are_kept() {
        let scenario = &scenario::all(1000, 2, 9)[2];
        let said = describe(&scenario.experiment);
        assert!(
            said.starts_with(
                "nodes: 6 of 2000 Mbit/s and weight 2, 3 of 1000 Mbit/s and weight 1; 1000 requests"
            ),
            "{said}"
        );
        let value = json(scenario.name, &scenario.experiment, &results());
        assert_eq!(value["policies"][1]["refused"], 7);
        assert_eq!(value["experiment"]["seed"], 9);
    }
}
