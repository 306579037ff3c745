// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Modified weighted least connections: node j with Cj/Wj = min(Ci/Wi), where Ci is the sum of the
//! sizes of node i's live connections in bytes.
//!
//! To Ci come the bytes that the half-open connections are expected to fetch, up to a bound in
//! proportion to the weight, so that SYNs of one round trip spread. Equal ratios are decided by the
//! connections for the weight, as wlc does, and equal ones of these by turn.

use core::cmp::Ordering;

use super::ratio::{best, Ratio};
use super::{chosen, wlc, Choice, DestLoad, SchedState};

/// What decides about a destination.
struct Measure {
    load: Ratio,
    /// As wlc has them.
    connections: u64,
}

/// The destination with the least load for its weight; of equals, the first at or after the turn.
#[inline(never)]
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad>,
    state: SchedState,
    expected_size_bytes: u64,
) -> Option<Choice> {
    let measure = |destination: &DestLoad| Measure {
        load: Ratio::new(load(destination, expected_size_bytes), destination),
        connections: wlc::cost(destination),
    };
    let is_better = |other: &(u32, Measure), best: &(u32, Measure)| {
        let (ours, least) = (&other.1, &best.1);
        let by_connections = || {
            ours.load
                .compare_others(ours.connections, &least.load, least.connections)
        };
        match ours.load.compare(&least.load).then_with(by_connections) {
            Ordering::Less => true,
            Ordering::Greater => false,
            // `best` came earlier: `other` wins only if the turn has passed the one but not the other.
            Ordering::Equal => best.0 < state.next && other.0 >= state.next,
        }
    };
    best(destinations, measure, is_better).map(|index| chosen(index, state))
}

/// Ci + what the half-open connections are expected to fetch.
///
/// 64 bits of Ci, plus 37 of pending connections times 64 of size; the product with 42 of weight can
/// pass 128 bits only for sizes over their limit of 2^40, and then it saturates.
#[inline(always)]
fn load(destination: &DestLoad, expected_size_bytes: u64) -> u128 {
    // 37 bits times 64.
    let pending_bytes =
        u128::from(destination.pending_counted()).wrapping_mul(u128::from(expected_size_bytes));
    u128::from(destination.bytes).saturating_add(pending_bytes)
}
