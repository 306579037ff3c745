// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Least connections as in IPVS: the smallest `256 * active + inactive`, the first of equals.
//!
//! It is wlc with every weight taken for 1: half-open connections count as active up to a bound, the
//! same for every destination, and only slow start makes a difference between them.

use super::ratio::least;
use super::{chosen, wlc, Choice, DestLoad, SchedState};

/// The first destination with the least overhead.
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad> + Clone,
    state: SchedState,
) -> Option<Choice> {
    least(destinations.map(unweighted), |server, milliweight| {
        u128::from(wlc::cost(&server, milliweight))
    })
    .map(|index| chosen(index, state))
}

/// Weight 1, but a quiesced one stays so.
fn unweighted(destination: DestLoad) -> DestLoad {
    DestLoad {
        weight: destination.weight.min(1),
        ..destination
    }
}
