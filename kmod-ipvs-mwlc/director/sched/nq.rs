// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Never queue as in IPVS: the first idle destination, however slow; if none is idle, as sed.

use super::ratio::is_less;
use super::sed::Delay;
use super::{chosen, eligible, Choice, DestLoad, SchedState};

/// The first idle destination, else the first with the least expected delay.
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad>,
    state: SchedState,
) -> Option<Choice> {
    let mut least: Option<(u32, DestLoad)> = None;
    for (index, destination) in eligible(destinations) {
        if destination.live() == 0 {
            return Some(chosen(index, state));
        }
        let is_better = match &least {
            Some((_, least)) => is_less(&Delay, &destination, least),
            None => true,
        };
        if is_better {
            least = Some((index, destination));
        }
    }
    least.map(|(index, _)| chosen(index, state))
}
