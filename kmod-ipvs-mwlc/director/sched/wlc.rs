// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Weighted least connections as in IPVS: the smallest `(256 * active + inactive) / weight`, the first
//! of equals.
//!
//! Half-open connections count as active up to a bound in proportion to the weight.

use core::cmp::Ordering;

use super::ratio::{compare, least};
use super::{chosen, live, overhead, Choice, DestLoad, SchedState, Server};

/// The first destination with the least overhead for its weight.
#[inline(never)]
pub(super) fn schedule(
    servers: impl Iterator<Item: Server + Copy> + Clone,
    state: SchedState,
) -> Option<Choice> {
    least(servers, |server, milliweight| {
        u128::from(cost(&server, milliweight))
    })
    .map(|index| chosen(index, state))
}

/// Whether a's overhead for its weight is less than b's, compared without a division.
pub(super) fn is_less(a: &DestLoad, b: &DestLoad) -> bool {
    let (wa, wb) = (a.milliweight(), b.milliweight());
    compare(cost(a, wa), wa, cost(b, wb), wb) == Ordering::Less
}

/// The overhead, 42 bits.
#[inline(always)]
pub(super) fn cost(server: &impl Server, milliweight: u64) -> u64 {
    overhead(live(server, milliweight), server.inactive())
}
