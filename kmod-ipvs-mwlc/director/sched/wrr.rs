// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Weighted round robin as in IPVS: rounds over the list, each for a required weight that falls from
//! the largest weight to 0 by their greatest common divisor, so that weights 4, 3, 2 give
//! `AABABCABC`.
//!
//! A destination in slow start is passed over by lot, so that it takes part in its ramp's share of
//! the choices; weights in thousandths would make the rounds a thousand times longer than the ramp.

use super::ramp::RAMP_FULL_PERMILLE;
use super::server::{chosen, eligible, snapshots, Choice, DestLoad, Request, SchedState, Server};

/// The next destination whose weight reaches the round's.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    let destinations = snapshots(servers);
    // 32 random bits times 1000, divided by 2^32: 0 to 999.
    let lot = (request.random & 0xffff_ffff).wrapping_mul(u64::from(RAMP_FULL_PERMILLE)) >> 32;
    let thinned = destinations.clone().map(move |destination| {
        let passed_over = lot >= u64::from(destination.ramp.permille());
        DestLoad {
            overloaded: destination.overloaded || passed_over,
            ..destination
        }
    });
    in_rounds(thinned, request.state).or_else(|| in_rounds(destinations, request.state))
}

fn in_rounds(
    destinations: impl Iterator<Item = DestLoad> + Clone,
    state: SchedState,
) -> Option<Choice> {
    let weights = Weights::of(destinations.clone())?;
    let round_weight = match state.round_weight {
        0 => weights.max,
        started => started.min(weights.max),
    };
    let in_this_round = |&(index, destination): &(u32, DestLoad)| {
        index >= state.next && destination.weight >= round_weight
    };
    if let Some((index, _)) = eligible(destinations.clone()).find(in_this_round) {
        return Some(chosen(
            index,
            SchedState {
                round_weight,
                ..state
            },
        ));
    }
    // The round is over. Rounds that nobody eligible can reach are skipped, because weights may be
    // 65,535 and this runs for every new connection.
    let round_weight = match round_weight.saturating_sub(weights.step) {
        0 => weights.max_eligible,
        lower => lower.min(weights.max_eligible),
    };
    eligible(destinations)
        .find(|(_, destination)| destination.weight >= round_weight)
        .map(|(index, _)| {
            chosen(
                index,
                SchedState {
                    round_weight,
                    ..state
                },
            )
        })
}

struct Weights {
    /// The largest of all weights: where the rounds begin.
    max: u32,
    /// The largest weight of an eligible destination.
    max_eligible: u32,
    /// The greatest common divisor of all weights: the step from round to round.
    step: u32,
}

impl Weights {
    /// `None` if no destination is eligible.
    fn of(destinations: impl Iterator<Item = DestLoad>) -> Option<Weights> {
        let mut weights = Weights {
            max: 0,
            max_eligible: 0,
            step: 0,
        };
        for destination in destinations {
            weights.max = weights.max.max(destination.weight);
            weights.step = gcd(weights.step, destination.weight);
            if destination.is_eligible() {
                weights.max_eligible = weights.max_eligible.max(destination.weight);
            }
        }
        (weights.max_eligible > 0).then_some(weights)
    }
}

/// The greatest common divisor; `gcd(0, n)` is `n`.
pub(super) fn gcd(mut a: u32, mut b: u32) -> u32 {
    while let Some(rest) = a.checked_rem(b) {
        a = b;
        b = rest;
    }
    a
}
