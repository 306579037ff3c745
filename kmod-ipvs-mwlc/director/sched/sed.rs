// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Shortest expected delay as in IPVS: the smallest `(active + 1) / weight`, the first of equals.
//!
//! The one more is the connection to schedule: an idle destination of weight 1 and one of weight 2
//! with one connection expect the same. Half-open connections count as in wlc.

use core::cmp::Ordering;

use super::ratio::{compare, least};
use super::{chosen, live, Choice, DestLoad, SchedState, Server};

/// The first destination with the least expected delay.
#[inline(never)]
pub(super) fn schedule(
    servers: impl Iterator<Item: Server + Copy> + Clone,
    state: SchedState,
) -> Option<Choice> {
    least(servers, |server, milliweight| {
        u128::from(with_the_new(&server, milliweight))
    })
    .map(|index| chosen(index, state))
}

/// Whether a's expected delay is less than b's, compared without a division.
pub(super) fn is_less(a: &DestLoad, b: &DestLoad) -> bool {
    let (wa, wb) = (a.milliweight(), b.milliweight());
    compare(with_the_new(a, wa), wa, with_the_new(b, wb), wb) == Ordering::Less
}

/// The connections with the new one, 33 bits.
#[inline(always)]
fn with_the_new(server: &impl Server, milliweight: u64) -> u64 {
    live(server, milliweight).saturating_add(1)
}
