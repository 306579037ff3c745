// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Modified weighted least connections: node j with Cj/Wj = min(Ci/Wi), where Ci is the sum of the
//! sizes of node i's live connections in bytes.
//!
//! To Ci come the bytes that the half-open connections are expected to fetch, up to a bound in
//! proportion to the weight, so that SYNs of one round trip spread. Equal ratios are decided by the
//! connections for the weight, as wlc does, and equal ones of these by turn.

use core::cmp::Ordering;

use super::ratio::{compare, has_the_turn, least_by, Measured};
use super::{chosen, pending_counted, wlc, Choice, SchedState, Server};

/// The destination with the least load for its weight; of equals, the first at or after the turn.
#[inline(never)]
pub(super) fn schedule(
    servers: impl Iterator<Item: Server + Copy> + Clone,
    state: SchedState,
    expected_size_bytes: u64,
) -> Option<Choice> {
    // Among many equals the best so far is mostly the same one.
    let mut known: Option<(u32, u64)> = None;
    let wins = |other: &Measured<_>, best: &Measured<_>| {
        let least = match known {
            Some((index, connections)) if index == best.index => connections,
            _ => connections(best),
        };
        known = Some((best.index, least));
        match compare(
            connections(other),
            other.milliweight,
            least,
            best.milliweight,
        ) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => has_the_turn(other, best, state.next),
        }
    };
    let load = |server: _, milliweight: u64| load_bytes(&server, milliweight, expected_size_bytes);
    least_by(servers, load, wins).map(|index| chosen(index, state))
}

/// As wlc counts them.
#[inline(always)]
fn connections<S: Server>(of: &Measured<S>) -> u64 {
    wlc::cost(&of.server, of.milliweight)
}

/// Ci + what the half-open connections are expected to fetch.
///
/// 64 bits of Ci, plus 37 of pending connections times 64 of size; the product with 42 of weight can
/// pass 128 bits only for sizes over their limit of 2^40, and then it saturates.
#[inline(always)]
fn load_bytes(server: &impl Server, milliweight: u64, expected_size_bytes: u64) -> u128 {
    let bytes = u128::from(server.bytes());
    match pending_counted(server, milliweight) {
        0 => bytes,
        // 37 bits times 64.
        pending => {
            bytes.saturating_add(u128::from(pending).wrapping_mul(u128::from(expected_size_bytes)))
        }
    }
}
