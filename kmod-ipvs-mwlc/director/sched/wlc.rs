// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Weighted least connections as in IPVS: the smallest `(256 * active + inactive) / weight`, the first
//! of equals.
//!
//! Half-open connections count as active up to a bound in proportion to the weight.

use super::{chosen, eligible, overhead, pending_counted, Choice, DestLoad, SchedState};

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
    scaled_overhead(a, b.weight) < scaled_overhead(b, a.weight)
}

fn scaled_overhead(destination: &DestLoad, other_weight: u32) -> u128 {
    let pending = pending_counted(destination.pending, destination.weight);
    u128::from(overhead(pending, destination)).wrapping_mul(u128::from(other_weight))
}
