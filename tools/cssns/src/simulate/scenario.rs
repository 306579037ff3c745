// SPDX-License-Identifier: MIT
//! The experiments whose figures stand in docs/SCHEDULING.md.

use super::sizes::Sizes;
use super::world::{Cluster, Node};
use super::{Experiment, Traffic};

/// A gigabit per second, in bytes.
pub const GIGABIT: f64 = 125e6;

/// How long IPVS holds a closed connection unless told otherwise, seconds.
pub const FIN_WAIT_S: f64 = 120.0;

/// From a client's SYN to its request, seconds.
pub const ROUND_TRIP_S: f64 = 0.001;

/// An experiment with its name.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// In one word.
    pub name: &'static str,
    /// What it asks.
    pub title: &'static str,
    /// The experiment.
    pub experiment: Experiment,
}

/// Nodes with weights from the list, around and around, each with a gigabit for each unit of weight
/// of the lightest; clients close after their transfer.
#[must_use]
pub fn cluster(nodes: usize, weights: &[u32]) -> Cluster {
    let lightest = f64::from(weights.iter().copied().min().unwrap_or(1).max(1));
    let nodes = weights.iter().cycle().take(nodes);
    Cluster {
        nodes: nodes
            .map(|weight| Node {
                rate: GIGABIT * f64::from(*weight) / lightest,
                weight: *weight,
            })
            .collect(),
        client_rate: None,
        round_trip_s: ROUND_TRIP_S,
        keep_alive_s: 0.0,
        fin_wait_s: FIN_WAIT_S,
        sizes_known: true,
    }
}

/// The heavy tail that most scenarios have: half of what is fetched is in under 1 % of the requests.
const HEAVY: Sizes = Sizes::Pareto {
    alpha: 1.2,
    min: 100e3,
    max: 1e9,
};

/// Every scenario, `requests` in each of `replications`.
#[must_use]
pub fn all(requests: usize, replications: usize, seed: u64) -> Vec<Scenario> {
    let scenario = |name, title, cluster, sizes, load| Scenario {
        name,
        title,
        experiment: Experiment {
            cluster,
            traffic: Traffic::Poisson {
                load,
                sizes,
                requests,
            },
            // Closed connections count for wlc: until FIN_WAIT has passed once, too few of them do.
            warm_up: 0.5,
            replications,
            seed,
        },
    };
    let ten = cluster(10, &[1]);
    let kept = |keep_alive_s| Cluster {
        keep_alive_s,
        ..ten.clone()
    };
    let slow_clients = Cluster {
        client_rate: Some(GIGABIT / 10.0),
        ..ten.clone()
    };
    let mut hundred = cluster(100, &[1]);
    for node in &mut hundred.nodes {
        node.rate = GIGABIT / 10.0;
    }
    let unknown = Cluster {
        sizes_known: false,
        ..ten.clone()
    };
    let lognormal = Sizes::Lognormal {
        mean: 1e6,
        sigma: 1.5,
    };
    let constant = Sizes::Constant { bytes: 1e6 };
    let lighter = Sizes::Pareto {
        alpha: 1.5,
        min: 100e3,
        max: 1e9,
    };
    vec![
        scenario(
            "close",
            "10 equal nodes, clients close after each transfer",
            ten.clone(),
            HEAVY,
            0.8,
        ),
        scenario(
            "keep-alive",
            "10 equal nodes, clients keep connections for 15 s",
            kept(15.0),
            HEAVY,
            0.8,
        ),
        scenario(
            "unequal",
            "9 nodes with weights 2:2:1",
            cluster(9, &[2, 2, 1]),
            HEAVY,
            0.8,
        ),
        scenario("three", "3 equal nodes", cluster(3, &[1]), HEAVY, 0.8),
        scenario(
            "hundred",
            "100 equal nodes with a tenth of the rate",
            hundred,
            HEAVY,
            0.8,
        ),
        scenario(
            "slow-clients",
            "clients' own links have a tenth of a node's rate",
            slow_clients,
            HEAVY,
            0.8,
        ),
        scenario("unknown", "sizes are never learned", unknown, HEAVY, 0.8),
        scenario("busy", "95 % load", ten.clone(), HEAVY, 0.95),
        scenario("lighter", "a lighter tail", ten.clone(), lighter, 0.8),
        scenario("lognormal", "lognormal sizes", ten.clone(), lognormal, 0.8),
        scenario("constant", "equal sizes", ten, constant, 0.8),
    ]
}
