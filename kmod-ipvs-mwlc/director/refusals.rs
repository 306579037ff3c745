// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How many clients a service turned away, and why.

use crate::director::sched::NoDestination;

/// How many causes there are.
pub const CAUSES: usize = 5;

/// Clients turned away, by cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Refusals {
    /// The service has no real server.
    pub empty: u64,
    /// All have weight 0.
    pub quiesced: u64,
    /// Those with a weight are over their thresholds.
    pub overloaded: u64,
    /// All have more active connections than their weight (`ovf`).
    pub full: u64,
    /// The one that the client's address selects is not available (`sh`, `mh`).
    pub selected: u64,
}

impl Refusals {
    /// The place of a cause among [`CAUSES`] counters.
    pub const fn place(cause: NoDestination) -> usize {
        match cause {
            NoDestination::Empty => 0,
            NoDestination::AllQuiesced => 1,
            NoDestination::AllOverloaded => 2,
            NoDestination::AllFull => 3,
            NoDestination::SelectedUnavailable => 4,
        }
    }

    /// Reads the counters from their places.
    pub const fn from_counters(counters: [u64; CAUSES]) -> Refusals {
        let [empty, quiesced, overloaded, full, selected] = counters;
        Refusals {
            empty,
            quiesced,
            overloaded,
            full,
            selected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_place_of_its_own() {
        let count = |cause| {
            let mut counters = [0; CAUSES];
            counters[Refusals::place(cause)] += 1;
            Refusals::from_counters(counters)
        };
        assert_eq!(count(NoDestination::Empty).empty, 1);
        assert_eq!(count(NoDestination::AllQuiesced).quiesced, 1);
        assert_eq!(count(NoDestination::AllOverloaded).overloaded, 1);
        assert_eq!(count(NoDestination::AllFull).full, 1);
        assert_eq!(count(NoDestination::SelectedUnavailable).selected, 1);
    }
}
