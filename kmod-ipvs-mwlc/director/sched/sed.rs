// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Shortest expected delay as in IPVS: the smallest `(active + 1) / weight`, the first of equals.
//!
//! The one more is the connection to schedule: an idle destination of weight 1 and one of weight 2
//! with one connection expect the same. Half-open connections count as in wlc.

use super::{chosen, eligible, Choice, DestLoad, SchedState};

/// The first destination with the least expected delay.
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad>,
    state: SchedState,
) -> Option<Choice> {
    eligible(destinations)
        .reduce(|least, other| {
            if is_less(&other.1, &least.1) {
                other
            } else {
                least
            }
        })
        .map(|(index, _)| chosen(index, state))
}

/// Whether a's expected delay is less than b's, compared without a division.
pub(super) fn is_less(a: &DestLoad, b: &DestLoad) -> bool {
    scaled_delay(a, b) < scaled_delay(b, a)
}

/// 33 bits of connections times 42 of weight.
fn scaled_delay(destination: &DestLoad, other: &DestLoad) -> u128 {
    let with_the_new = destination.live().saturating_add(1);
    u128::from(with_the_new).wrapping_mul(u128::from(other.milliweight()))
}
