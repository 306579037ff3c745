// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Least connections as in IPVS: the smallest `256 * active + inactive`, the first of equals.
//!
//! It is wlc with every weight taken for 1: half-open connections count as active up to a bound, the
//! same for every destination, and only slow start makes a difference between them.

use super::{chosen, eligible, wlc, Choice, DestLoad, SchedState};

/// The first destination with the least overhead.
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad>,
    state: SchedState,
) -> Option<Choice> {
    eligible(destinations)
        .reduce(|least, other| {
            if wlc::is_less(&unweighted(&other.1), &unweighted(&least.1)) {
                other
            } else {
                least
            }
        })
        .map(|(index, _)| chosen(index, state))
}

const fn unweighted(destination: &DestLoad) -> DestLoad {
    DestLoad {
        weight: 1,
        ..*destination
    }
}
