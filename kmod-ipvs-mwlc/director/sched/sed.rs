// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Shortest expected delay as in IPVS: the smallest `(active + 1) / weight`, the first of equals.
//!
//! The one more is the connection to schedule: an idle destination of weight 1 and one of weight 2
//! with one connection expect the same. Half-open connections count as in wlc.

use super::ratio::{least, Ratio};
use super::{chosen, Choice, DestLoad, SchedState};

/// The first destination with the least expected delay.
#[inline(never)]
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad>,
    state: SchedState,
) -> Option<Choice> {
    least(destinations, ratio).map(|index| chosen(index, state))
}

/// Whether a's expected delay is less than b's, compared without a division.
pub(super) fn is_less(a: &DestLoad, b: &DestLoad) -> bool {
    ratio(a).is_less(&ratio(b))
}

/// The connections with the new one, 33 bits, for the weight.
#[inline(always)]
fn ratio(destination: &DestLoad) -> Ratio {
    let with_the_new = destination.live().saturating_add(1);
    Ratio::new(u128::from(with_the_new), destination)
}
