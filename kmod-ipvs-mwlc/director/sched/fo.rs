// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Weighted failover as in IPVS: every connection goes to the available destination with the highest
//! weight, the first of equals. Slow start does not apply: there is nobody to share with.

use super::{chosen, eligible, Choice, DestLoad, SchedState};

/// The first destination with the highest weight.
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad>,
    state: SchedState,
) -> Option<Choice> {
    eligible(destinations)
        .reduce(|highest, other| {
            if other.1.weight > highest.1.weight {
                other
            } else {
                highest
            }
        })
        .map(|(index, _)| chosen(index, state))
}
