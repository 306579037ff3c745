// SPDX-License-Identifier: MIT
//! One cell of the experiment: which system does which work. Pure.

use crate::plan::Code;
use crate::simulate::policy::Policy;
use crate::simulate::sizes::Sizes;
use ipvs_mwlc::director::sched::Scheduler;
use serde::{Deserialize, Serialize};

use super::topology::NODES;

/// Bytes of a megabyte, as the paper counts.
pub const MEGABYTE: u64 = 1_000_000;

/// The tail of the mixed sizes: Pareto's alpha.
const MIX_ALPHA: f64 = 1.2;

/// The smallest and the largest of the mixed sizes, megabytes; their mean is 31.4 MB, that of the paper's
/// sizes is 30.
const MIX_MB: [f64; 2] = [8.0, 1600.0];

/// How a request finds a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Dispatch {
    /// There is one node, and clients know its address.
    Direct,
    /// By our module.
    Module {
        /// Its scheduler.
        scheduler: Choice,
    },
    /// By the stock `ip_vs` with wlc.
    Stock,
}

/// The schedulers that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Turns.
    Rr,
    /// Connections.
    Wlc,
    /// Bytes of the requested files: the paper's.
    Mwlc,
    /// The same, less what clients have acknowledged.
    MwlcRemaining,
    /// Bytes left to send, capped at the size expected.
    MsedRemaining,
}

impl Choice {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Rr,
        Self::Wlc,
        Self::Mwlc,
        Self::MwlcRemaining,
        Self::MsedRemaining,
    ];

    /// The policy in the director's words.
    #[must_use]
    pub fn policy(self) -> Policy {
        match self {
            Self::Rr => Policy::plain(Scheduler::RoundRobin),
            Self::Wlc => Policy::plain(Scheduler::Wlc),
            Self::Mwlc => Policy::plain(Scheduler::Mwlc),
            Self::MwlcRemaining => Policy::remaining(Scheduler::Mwlc),
            Self::MsedRemaining => Policy::remaining(Scheduler::Msed),
        }
    }

    /// Whether sizes matter to it.
    #[must_use]
    pub fn learns(self) -> bool {
        match self {
            Self::Rr | Self::Wlc => false,
            Self::Mwlc | Self::MwlcRemaining | Self::MsedRemaining => true,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wlc => "wlc",
            Self::Mwlc => "mwlc",
            Self::MwlcRemaining => "mwlc-remaining",
            Self::MsedRemaining => "msed-remaining",
        }
    }
}

impl Dispatch {
    /// The director's code, where there is a director.
    #[must_use]
    pub fn code(self) -> Option<Code> {
        match self {
            Self::Direct => None,
            Self::Module { .. } => Some(Code::Mwlc),
            Self::Stock => Some(Code::IpVs),
        }
    }
}

impl std::fmt::Display for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Module { scheduler } => scheduler.name(),
            Self::Stock => "ip_vs-wlc",
        })
    }
}

/// Which files the processes of a cell download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Files {
    /// All the same one, which no node has read before.
    Shared,
    /// Each its own, which no node has read before.
    Own,
}

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Work {
    /// The paper's: processes that start together, each downloading a file of the same size.
    Equal {
        /// FS, megabytes before scaling.
        file_mb: u32,
        /// PN.
        processes: u32,
        /// Which files.
        files: Files,
    },
    /// The same with sizes from a heavy-tailed mix, one round after another.
    Mixed {
        /// PN of each round.
        processes: u32,
        /// How many rounds.
        rounds: u32,
    },
    /// Clients that come in their own time, take a file of the mix, and keep their connection for a while.
    Browsing {
        /// Requests.
        requests: u32,
    },
}

/// One cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// Nodes that serve.
    pub nodes: u8,
    /// How requests find them.
    pub dispatch: Dispatch,
    /// What clients do.
    pub work: Work,
    /// Whether the last node's links have half the rate and its weight is half.
    pub unequal: bool,
    /// What file sizes are divided by.
    pub scale: u32,
}

impl Cell {
    /// Its name: its parameters, so that no two cells share it.
    #[must_use]
    pub fn key(&self) -> String {
        let Self {
            nodes,
            dispatch,
            scale,
            ..
        } = self;
        let work = match self.work {
            Work::Equal {
                file_mb,
                processes,
                files,
            } => {
                let own = match files {
                    Files::Shared => "",
                    Files::Own => "-own",
                };
                format!("equal{own}-fs{file_mb}-pn{processes}")
            }
            Work::Mixed { processes, rounds } => format!("mixed-pn{processes}-r{rounds}"),
            Work::Browsing { requests } => format!("browsing-{requests}"),
        };
        let unequal = if self.unequal { "-unequal" } else { "" };
        format!("{work}-n{nodes}{unequal}-{dispatch}-k{scale}")
    }

    /// FS as it is measured, bytes; for the mix, the size expected.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        match self.work {
            Work::Equal { file_mb, .. } => scaled(u64::from(file_mb) * MEGABYTE, self.scale),
            Work::Mixed { .. } | Work::Browsing { .. } => mix(self.scale).mean() as u64,
        }
    }

    /// Downloads in all.
    #[must_use]
    pub fn downloads(&self) -> u32 {
        match self.work {
            Work::Equal { processes, .. } => processes,
            Work::Mixed { processes, rounds } => processes.saturating_mul(rounds),
            Work::Browsing { requests } => requests,
        }
    }

    /// Each node's weight.
    #[must_use]
    pub fn weights(&self) -> Vec<u32> {
        let slow = self.slow_node();
        (1..=self.nodes)
            .map(|node| match slow {
                None => 1,
                Some(slow) if slow == node => 1,
                Some(_) => 2,
            })
            .collect()
    }

    /// The node whose links have half the rate.
    #[must_use]
    pub fn slow_node(&self) -> Option<u8> {
        self.unequal.then_some(self.nodes)
    }

    /// Full links that the nodes' links come to.
    #[must_use]
    pub fn links(&self) -> f64 {
        f64::from(self.nodes) - if self.unequal { 0.5 } else { 0.0 }
    }

    /// Bytes that clients are to receive, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.file_bytes().saturating_mul(self.downloads().into())
    }

    /// Seconds that the links need for it, about; for planning.
    #[must_use]
    pub fn planned_s(&self) -> f64 {
        let load = match self.work {
            Work::Equal { .. } => 0.95,
            // The node with the largest file keeps the others waiting.
            Work::Mixed { .. } => 0.75,
            Work::Browsing { .. } => super::work::BROWSING_LOAD,
        };
        let rate = super::links::bytes_per_second(super::links::LINK_MBIT) * self.links();
        self.bytes() as f64 / (rate * load) + CELL_OVERHEAD_S
    }

    /// Whether the lab has what it needs.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        (1..=NODES).contains(&self.nodes)
            && (self.nodes == 1 || self.dispatch != Dispatch::Direct)
            && (self.nodes > 1 || !self.unequal)
            && self.scale > 0
            && self.downloads() > 0
            && self.file_bytes() > 0
    }
}

/// What a cell takes beside its transfers: configuring the director, reading counters, storing files.
const CELL_OVERHEAD_S: f64 = 0.7;

/// The mix of sizes, bytes.
#[must_use]
pub fn mix(scale: u32) -> Sizes {
    let [min, max] = MIX_MB.map(|mb| mb * MEGABYTE as f64 / f64::from(scale.max(1)));
    Sizes::Pareto {
        alpha: MIX_ALPHA,
        min,
        max,
    }
}

fn scaled(bytes: u64, scale: u32) -> u64 {
    bytes / u64::from(scale.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELL: Cell = Cell {
        nodes: 3,
        dispatch: Dispatch::Module {
            scheduler: Choice::Mwlc,
        },
        work: Work::Equal {
            file_mb: 50,
            processes: 450,
            files: Files::Shared,
        },
        unequal: false,
        scale: 10,
    };

    #[test]
    fn keys_name_every_parameter() {
        let others = [
            Cell { nodes: 2, ..CELL },
            Cell {
                dispatch: Dispatch::Stock,
                ..CELL
            },
            Cell {
                dispatch: Dispatch::Module {
                    scheduler: Choice::MwlcRemaining,
                },
                ..CELL
            },
            Cell {
                work: Work::Equal {
                    file_mb: 50,
                    processes: 450,
                    files: Files::Own,
                },
                ..CELL
            },
            Cell {
                unequal: true,
                ..CELL
            },
            Cell { scale: 11, ..CELL },
            Cell {
                work: Work::Browsing { requests: 450 },
                ..CELL
            },
        ];
        assert_eq!(CELL.key(), "equal-fs50-pn450-n3-mwlc-k10");
        let mut keys: Vec<String> = others.iter().map(Cell::key).collect();
        keys.push(CELL.key());
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), others.len() + 1);
    }

    #[test]
    fn the_mix_has_the_mean_of_the_papers_sizes() {
        let mean_mb = mix(1).mean() / MEGABYTE as f64;
        assert!((29.0..33.0).contains(&mean_mb), "{mean_mb}");
        assert!((mix(10).mean() * 10.0 - mix(1).mean()).abs() < 1e-3 * mix(1).mean());
    }

    #[test]
    fn the_slow_node_is_the_last() {
        let unequal = Cell {
            unequal: true,
            ..CELL
        };
        assert_eq!(unequal.weights(), [2, 2, 1]);
        assert_eq!(CELL.weights(), [1, 1, 1]);
        assert_eq!(unequal.links(), 2.5);
        assert!(unequal.planned_s() > CELL.planned_s());
        let direct = Cell {
            dispatch: Dispatch::Direct,
            ..CELL
        };
        assert!(!direct.is_possible() && CELL.is_possible());
    }
}
