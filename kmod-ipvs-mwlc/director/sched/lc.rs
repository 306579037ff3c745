// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Least connections as in IPVS: the smallest `256 * active + inactive`, the first of equals.
//!
//! Half-open connections count as active up to a bound, the same for every destination.

use super::{chosen, eligible, overhead, pending_counted, Choice, DestLoad, SchedState};

/// The first destination with the least overhead.
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad>,
    state: SchedState,
) -> Option<Choice> {
    eligible(destinations)
        .map(|(index, destination)| {
            (
                index,
                overhead(pending_counted(destination.pending, 1), &destination),
            )
        })
        .reduce(|least, other| if other.1 < least.1 { other } else { least })
        .map(|(index, _)| chosen(index, state))
}
