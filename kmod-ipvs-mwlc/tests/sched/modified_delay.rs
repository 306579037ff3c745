// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! msed: bytes up to what is expected of a connection, for the weight.

use ipvs_mwlc::director::sched::{
    DestLoad, Ramp, Request, SchedState, Scheduler, PENDING_PER_WEIGHT_MAX,
};
use proptest::prelude::*;

use crate::{choose, order, weights, SIZE};

fn loaded(weight: u32, capped_bytes: u64) -> DestLoad {
    DestLoad {
        weight,
        capped_bytes,
        ..DestLoad::default()
    }
}

#[test]
fn the_new_connection_counts_as_what_is_expected() {
    let chosen = |destinations: &[DestLoad]| choose(Scheduler::Msed, destinations);
    // (0 + 1000)/1 is more than (0 + 1000)/2; (1000 + 1000)/2 is as much, and it is 0's turn.
    assert_eq!(chosen(&[loaded(1, 0), loaded(2, 999)]), Ok(1));
    assert_eq!(chosen(&[loaded(1, 0), loaded(2, SIZE)]), Ok(0));
    // Connections and whole sizes do not matter, bytes within the caps do.
    let many = DestLoad {
        active: 1000,
        inactive: 1000,
        bytes: 1 << 40,
        ..loaded(1, 10)
    };
    assert_eq!(chosen(&[loaded(1, 11), many]), Ok(1));
}

#[test]
fn an_idle_cluster_takes_turns_and_the_heavier_first() {
    assert_eq!(
        order(Scheduler::Msed, &weights(&[1, 1, 1]), 4),
        [0, 1, 2, 0]
    );
    assert_eq!(order(Scheduler::Msed, &weights(&[1, 2, 1]), 2), [1, 1]);
}

#[test]
fn nothing_expected_still_tells_weights_apart() {
    let request = Request::new(SchedState::NEW, 0);
    let chosen = Scheduler::Msed
        .choose(&[loaded(1, 0), loaded(2, 0)], &request)
        .map(|choice| choice.index);
    assert_eq!(chosen, Ok(1));
}

proptest! {
    /// Where every connection counts what is expected, msed decides as sed but for the order of
    /// equals.
    #[test]
    fn without_sizes_it_is_sed(loads in prop::collection::vec((1u32..5, 0u32..40, 0u32..3, 0u64..2000), 1..8)) {
        let destinations: Vec<DestLoad> = loads
            .iter()
            .map(|(weight, active, pending, since_ms)| DestLoad {
                active: *active,
                pending: *pending,
                ramp: Ramp::at(*since_ms, 1000),
                ..loaded(*weight, u64::from(*active) * SIZE)
            })
            .collect();
        let delay = |index: u32| {
            let dest = &destinations[index as usize];
            let milliweight = |dest: &DestLoad| dest.weight * dest.ramp.permille();
            let pending_max = PENDING_PER_WEIGHT_MAX * milliweight(dest) / 1000;
            let live = u128::from(dest.active + dest.pending.min(pending_max));
            let others: u128 = destinations.iter().map(|dest| u128::from(milliweight(dest))).product();
            (live + 1) * others / u128::from(milliweight(dest))
        };
        let ours = choose(Scheduler::Msed, &destinations).map(delay);
        prop_assert_eq!(ours, choose(Scheduler::ShortestExpectedDelay, &destinations).map(delay));
    }
}
