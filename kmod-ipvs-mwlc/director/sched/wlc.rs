// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Weighted least connections as in IPVS: the smallest `(256 * active + inactive) / weight`, the first
//! of equals.
//!
//! Half-open connections count as active up to a bound in proportion to the weight.

use super::{chosen, eligible, overhead, Choice, DestLoad, SchedState};

/// The first destination with the least overhead for its weight.
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

/// Whether a's overhead for its weight is less than b's, compared without a division.
pub(super) fn is_less(a: &DestLoad, b: &DestLoad) -> bool {
    scaled_overhead(a, b) < scaled_overhead(b, a)
}

/// 42 bits of overhead times 42 of weight.
fn scaled_overhead(destination: &DestLoad, other: &DestLoad) -> u128 {
    let overhead = overhead(destination.live(), destination.inactive);
    u128::from(overhead).wrapping_mul(u128::from(other.milliweight()))
}
