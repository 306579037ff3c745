// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Round robin: each eligible destination in turn, weights beside 0 ignored.

use super::{chosen, eligible, Choice, DestLoad, SchedState};

/// The first eligible destination at or after the turn, else the first of all.
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad>,
    state: SchedState,
) -> Option<Choice> {
    let mut first = None;
    for (index, _) in eligible(destinations) {
        if index >= state.next {
            return Some(chosen(index, state));
        }
        first = first.or(Some(index));
    }
    first.map(|index| chosen(index, state))
}
