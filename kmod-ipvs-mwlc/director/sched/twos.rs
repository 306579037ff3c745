// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Power of two choices as in IPVS: two destinations are drawn by lot in proportion to their weights,
//! and the one with the smaller `(256 * active + inactive) / weight` is taken, the first drawn of
//! equals.
//!
//! Directors that do not know each other's connections do not all run to the same least loaded
//! destination this way.

use super::ratio::is_less;
use super::server::{chosen, eligible, snapshots, Choice, DestLoad, Request, Server};
use super::wlc::Overhead;

/// The better of two draws; the request's random number gives 32 bits to each.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    let destinations = snapshots(servers);
    let total = eligible(destinations.clone()).fold(0u64, |sum, (_, destination)| {
        sum.saturating_add(destination.milliweight())
    });
    let first = drawn(destinations.clone(), total, request.random as u32)?;
    let second = drawn(destinations, total, (request.random >> 32) as u32)?;
    let (index, _) = if is_less(&Overhead, &second.1, &first.1) {
        second
    } else {
        first
    };
    Some(chosen(index, request.state))
}

/// The destination in whose share of `total` the lot falls, or `None` if nobody is eligible.
fn drawn(
    destinations: impl Iterator<Item = DestLoad>,
    total: u64,
    random: u32,
) -> Option<(u32, DestLoad)> {
    // 32 bits times 64, divided by 2^32: at most `total - 1`.
    let lot = (u128::from(random).wrapping_mul(u128::from(total)) >> 32) as u64;
    let mut passed = 0u64;
    for (index, destination) in eligible(destinations) {
        passed = passed.saturating_add(destination.milliweight());
        if lot < passed {
            return Some((index, destination));
        }
    }
    None
}
