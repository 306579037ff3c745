// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Weighted least connections as in IPVS: the smallest `(256 * active + inactive) / weight`, the first
//! of equals.
//!
//! Half-open connections count as active up to a bound in proportion to the weight.

use super::ratio::{least, Ratio};
use super::{chosen, overhead, Choice, DestLoad, SchedState};

/// The first destination with the least overhead for its weight.
#[inline(never)]
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad>,
    state: SchedState,
) -> Option<Choice> {
    least(destinations, ratio).map(|index| chosen(index, state))
}

/// Whether a's overhead for its weight is less than b's, compared without a division.
pub(super) fn is_less(a: &DestLoad, b: &DestLoad) -> bool {
    ratio(a).is_less(&ratio(b))
}

/// The overhead, 42 bits, for the weight.
#[inline(always)]
pub(super) fn ratio(destination: &DestLoad) -> Ratio {
    Ratio::new(u128::from(cost(destination)), destination)
}

/// The overhead, 42 bits.
#[inline(always)]
pub(super) fn cost(destination: &DestLoad) -> u64 {
    overhead(destination.live(), destination.inactive)
}
