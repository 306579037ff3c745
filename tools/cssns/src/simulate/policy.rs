// SPDX-License-Identifier: MIT
//! The ways to choose a node that are compared: the director's schedulers as they are, and two marks
//! to measure them by.

use std::fmt;
use std::str::FromStr;

use ipvs_mwlc::director::sched::{DestLoad, Request, SchedState, Scheduler};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// A way to choose a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Any node, by lot: what a director without a thought would do.
    Random,
    /// All links are one: what no choice of a node can surpass while links are shared equally.
    Pooled,
    /// One of the director's schedulers.
    Director {
        /// Which one.
        scheduler: Scheduler,
        /// Whether sizes shrink as clients acknowledge (`remaining`).
        remaining: bool,
    },
}

/// What `remaining` adds to a scheduler's name.
const REMAINING: &str = "-remaining";

impl Policy {
    /// A scheduler with sizes that count until the connection ends.
    #[must_use]
    pub const fn plain(scheduler: Scheduler) -> Policy {
        Policy::Director {
            scheduler,
            remaining: false,
        }
    }

    /// A scheduler with sizes that shrink as clients acknowledge.
    #[must_use]
    pub const fn remaining(scheduler: Scheduler) -> Policy {
        Policy::Director {
            scheduler,
            remaining: true,
        }
    }

    /// Those that are compared unless others are asked for, the marks at both ends.
    pub const COMPARED: [Policy; 12] = [
        Policy::Random,
        Policy::plain(Scheduler::RoundRobin),
        Policy::plain(Scheduler::Lc),
        Policy::plain(Scheduler::Wlc),
        Policy::plain(Scheduler::ShortestExpectedDelay),
        Policy::plain(Scheduler::NeverQueue),
        Policy::plain(Scheduler::TwoChoices),
        Policy::plain(Scheduler::Mwlc),
        Policy::remaining(Scheduler::Mwlc),
        Policy::plain(Scheduler::Msed),
        Policy::remaining(Scheduler::Msed),
        Policy::Pooled,
    ];

    /// Whether sizes shrink as clients acknowledge.
    #[must_use]
    pub const fn counts_what_is_left(self) -> bool {
        matches!(
            self,
            Policy::Director {
                remaining: true,
                ..
            }
        )
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad`, so that tables can align it.
        match self {
            Policy::Random => f.pad("random"),
            Policy::Pooled => f.pad("pooled"),
            Policy::Director {
                scheduler,
                remaining: false,
            } => f.pad(scheduler.name()),
            Policy::Director {
                scheduler,
                remaining: true,
            } => f.pad(&format!("{}{REMAINING}", scheduler.name())),
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "random" => return Ok(Policy::Random),
            "pooled" => return Ok(Policy::Pooled),
            _ => {}
        }
        let (name, remaining) = match text.strip_suffix(REMAINING) {
            Some(name) => (name, true),
            None => (text, false),
        };
        let unknown = || {
            let names = Scheduler::ALL.map(Scheduler::name).join(", ");
            format!(
                "{text:?} is no policy: give random, pooled, or one of {names}, with {REMAINING} if sizes shrink"
            )
        };
        let scheduler = Scheduler::from_name(name.as_bytes()).ok_or_else(unknown)?;
        match scheduler {
            // They follow the client's address, and clients have none here.
            Scheduler::SourceHashing | Scheduler::MaglevHashing => Err(format!(
                "{text} follows clients' addresses, which the simulation does not have"
            )),
            _ => Ok(Policy::Director {
                scheduler,
                remaining,
            }),
        }
    }
}

/// A policy at work.
#[derive(Debug)]
pub struct Chooser {
    policy: Policy,
    state: SchedState,
    lots: StdRng,
}

impl Chooser {
    /// At its start; `seed` is for its lots.
    #[must_use]
    pub fn new(policy: Policy, seed: u64) -> Chooser {
        Chooser {
            policy,
            state: SchedState::NEW,
            lots: StdRng::seed_from_u64(seed),
        }
    }

    /// The node for the next request; `None` if all refuse.
    pub fn choose(&mut self, loads: &[DestLoad], expected_size_bytes: u64) -> Option<usize> {
        let scheduler = match self.policy {
            Policy::Random => return Some(self.lots.random_range(0..loads.len())),
            Policy::Pooled => return Some(0),
            Policy::Director { scheduler, .. } => scheduler,
        };
        let random = if scheduler.draws_lots() {
            self.lots.random()
        } else {
            0
        };
        let request = Request {
            random,
            ..Request::new(self.state, expected_size_bytes)
        };
        let choice = scheduler.choose(loads, &request).ok()?;
        self.state = choice.state;
        Some(choice.index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for policy in Policy::COMPARED {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert_eq!(
            "mwlc-remaining".parse(),
            Ok(Policy::remaining(Scheduler::Mwlc))
        );
        for wrong in ["", "wlcc", "random-remaining", "sh", "mh"] {
            assert!(wrong.parse::<Policy>().is_err(), "{wrong:?}");
        }
    }
}
