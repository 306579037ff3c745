// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Modified weighted least connections: node j with Cj/Wj = min(Ci/Wi), where Ci is the sum of the
//! sizes of node i's live connections in bytes.
//!
//! To Ci come the bytes that the half-open connections are expected to fetch, up to a bound in
//! proportion to the weight, so that SYNs of one round trip spread. Equal ratios are decided by the
//! connections for the weight, as wlc does, and equal ones of these by turn.

use core::cmp::Ordering;

use super::{chosen, eligible, wlc, Choice, DestLoad, SchedState};

/// The destination with the least load for its weight; of equals, the first at or after the turn.
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad>,
    state: SchedState,
    expected_size_bytes: u64,
) -> Option<Choice> {
    let is_better = |other: &(u32, DestLoad), best: &(u32, DestLoad)| {
        match compare(&other.1, &best.1, expected_size_bytes) {
            Ordering::Less => true,
            Ordering::Greater => false,
            // `best` came earlier: `other` wins only if the turn has passed the one but not the other.
            Ordering::Equal => best.0 < state.next && other.0 >= state.next,
        }
    };
    eligible(destinations)
        .reduce(|best, other| {
            if is_better(&other, &best) {
                other
            } else {
                best
            }
        })
        .map(|(index, _)| chosen(index, state))
}

/// Compares Ca/Wa with Cb/Wb as Ca*Wb with Cb*Wa, then the connections in the same way.
fn compare(a: &DestLoad, b: &DestLoad, expected_size_bytes: u64) -> Ordering {
    scaled_load(a, b, expected_size_bytes)
        .cmp(&scaled_load(b, a, expected_size_bytes))
        .then_with(|| {
            if wlc::is_less(a, b) {
                Ordering::Less
            } else if wlc::is_less(b, a) {
                Ordering::Greater
            } else {
                Ordering::Equal
            }
        })
}

/// (Ci + what the half-open connections are expected to fetch) * the other's weight.
///
/// 64 bits of Ci, plus 37 of pending connections times 64 of size, times 42 of weight can pass 128
/// bits only for sizes over their limit of 2^40, and then it saturates.
fn scaled_load(destination: &DestLoad, other: &DestLoad, expected_size_bytes: u64) -> u128 {
    let pending_bytes =
        u128::from(destination.pending_counted()).saturating_mul(u128::from(expected_size_bytes));
    u128::from(destination.bytes)
        .saturating_add(pending_bytes)
        .saturating_mul(u128::from(other.milliweight()))
}
