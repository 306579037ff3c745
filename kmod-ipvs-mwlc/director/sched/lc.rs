// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Least connections as in IPVS: the smallest `256 * active + inactive`, the first of equals.
//!
//! It is wlc with every weight taken for 1: half-open connections count as active up to a bound, the
//! same for every destination, and only slow start makes a difference between them.

use super::ratio::least;
use super::{chosen, wlc, Choice, DestLoad, SchedState};

/// The first destination with the least overhead.
#[inline(never)]
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad>,
    state: SchedState,
) -> Option<Choice> {
    least(destinations, |destination| {
        wlc::ratio(&unweighted(destination))
    })
    .map(|index| chosen(index, state))
}

const fn unweighted(destination: &DestLoad) -> DestLoad {
    DestLoad {
        weight: 1,
        ..*destination
    }
}
