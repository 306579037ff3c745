// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! sed, nq, fo, ovf and twos, which look at weights and connections only.

use ipvs_mwlc::director::sched::{
    DestLoad, NoDestination, Request, SchedState, Scheduler, PENDING_PER_WEIGHT_MAX,
};
use proptest::prelude::*;

use crate::{choose, order, weights, SIZE};

fn busy(weight: u32, active: u32) -> DestLoad {
    DestLoad {
        weight,
        active,
        ..DestLoad::default()
    }
}

/// The indices of `count` connections that stay.
fn filled(scheduler: Scheduler, mut destinations: Vec<DestLoad>, count: usize) -> Vec<u32> {
    (0..count)
        .filter_map(|_| {
            let index = choose(scheduler, &destinations).ok()?;
            destinations[index as usize].active += 1;
            Some(index)
        })
        .collect()
}

#[test]
fn sed_expects_the_new_connection_too() {
    // (0+1)/1, (0+1)/2, (0+1)/3: the fastest first, until it would be as slow as an idle one.
    assert_eq!(
        filled(Scheduler::ShortestExpectedDelay, weights(&[1, 2, 3]), 6),
        [2, 1, 2, 0, 1, 2]
    );
    // Inactive connections do not count, unlike in wlc.
    let inactive = DestLoad {
        inactive: 100_000,
        ..busy(2, 0)
    };
    let sed = Scheduler::ShortestExpectedDelay;
    assert_eq!(choose(sed, &[busy(1, 0), inactive]), Ok(1));
}

#[test]
fn nq_takes_an_idle_one_however_slow() {
    assert_eq!(
        filled(Scheduler::NeverQueue, weights(&[1, 2, 3]), 6),
        [0, 1, 2, 2, 1, 2]
    );
    let nq = Scheduler::NeverQueue;
    assert_eq!(choose(nq, &[busy(9, 1), busy(1, 5), busy(1, 0)]), Ok(2));
    // A half-open connection is one.
    let half_open = DestLoad {
        pending: 1,
        ..busy(1, 0)
    };
    assert_eq!(choose(nq, &[half_open, busy(1, 0)]), Ok(1));
}

#[test]
fn half_open_connections_count_in_sed_and_nq_up_to_the_bound() {
    for scheduler in [Scheduler::ShortestExpectedDelay, Scheduler::NeverQueue] {
        for pending in [PENDING_PER_WEIGHT_MAX, 1_000_000] {
            let flooded = DestLoad {
                pending,
                ..busy(1, 0)
            };
            let bound = PENDING_PER_WEIGHT_MAX;
            assert_eq!(choose(scheduler, &[flooded, busy(1, bound + 1)]), Ok(0));
            assert_eq!(choose(scheduler, &[flooded, busy(1, bound - 1)]), Ok(1));
        }
    }
}

#[test]
fn fo_stays_with_the_highest_weight_that_is_available() {
    let mut destinations = weights(&[1, 3, 3, 2]);
    destinations[1].active = 1_000_000;
    assert_eq!(order(Scheduler::Failover, &destinations, 3), [1, 1, 1]);
    destinations[1].overloaded = true;
    assert_eq!(order(Scheduler::Failover, &destinations, 2), [2, 2]);
    destinations[2].weight = 0;
    assert_eq!(order(Scheduler::Failover, &destinations, 2), [3, 3]);
}

#[test]
fn ovf_fills_the_highest_weight_and_flows_over() {
    // A destination takes one more while its connections do not exceed its weight.
    assert_eq!(
        filled(Scheduler::Overflow, weights(&[1, 3]), 7),
        [1, 1, 1, 1, 0, 0]
    );
    let full = [busy(1, 2), busy(3, 4)];
    assert_eq!(
        choose(Scheduler::Overflow, &full),
        Err(NoDestination::AllFull)
    );
    // A flood of SYNs fills nothing.
    let flooded = [
        busy(1, 2),
        DestLoad {
            pending: u32::MAX,
            ..busy(3, 3)
        },
    ];
    assert_eq!(choose(Scheduler::Overflow, &flooded), Ok(1));
}

/// A draw for the first choice and one for the second, each a part of all weights in 2^-32.
fn draw(destinations: &[DestLoad], first: u32, second: u32) -> u32 {
    let request = Request {
        random: u64::from(second) << 32 | u64::from(first),
        ..Request::new(SchedState::NEW, SIZE)
    };
    Scheduler::TwoChoices
        .choose(destinations, &request)
        .map(|choice| choice.index)
        .unwrap_or(u32::MAX)
}

#[test]
fn twos_takes_the_better_of_two_draws() {
    let quarter = 1 << 30;
    let destinations = [busy(1, 4), busy(2, 6), busy(1, 2)];
    // Lots of 0 fall to the first, of 1/4 to the second, of 3/4 to the third.
    assert_eq!(draw(&destinations, 0, 0), 0);
    assert_eq!(draw(&destinations, quarter - 1, 0), 0);
    assert_eq!(draw(&destinations, quarter, quarter), 1);
    assert_eq!(draw(&destinations, 3 * quarter - 1, quarter), 1);
    assert_eq!(draw(&destinations, 3 * quarter, u32::MAX), 2);
    // 6/2 is less than 4/1, 2/1 less than both, whichever is drawn first.
    for (a, b, better) in [(0, 1, 1), (1, 0, 1), (0, 3, 2), (3, 1, 2), (1, 3, 2)] {
        assert_eq!(draw(&destinations, a * quarter, b * quarter), better);
    }
    // Of equals, the first drawn.
    let equal = [busy(1, 3), busy(1, 3)];
    assert_eq!(draw(&equal, u32::MAX, 0), 1);
    assert_eq!(draw(&equal, 0, u32::MAX), 0);
}

proptest! {
    /// Among destinations with equal loads, twos gives each its weight's share.
    #[test]
    fn twos_is_fair(weights_given in prop::collection::vec(0u32..20, 1..8)) {
        let total: u32 = weights_given.iter().sum();
        prop_assume!(total > 0);
        let destinations = weights(&weights_given);
        let draws = 64 * total;
        let mut counts = vec![0u32; weights_given.len()];
        for lot in 0..draws {
            // The middle of each of as many equal parts of 2^32.
            let random = ((u64::from(lot) * 2 + 1) << 31) / u64::from(draws);
            counts[draw(&destinations, random as u32, random as u32) as usize] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights_given) {
            prop_assert_eq!(*count, 64 * weight);
        }
    }

    /// No eligible destination has a shorter expected delay than the one that sed chose.
    #[test]
    fn sed_chooses_the_least(loads in prop::collection::vec((0u32..5, 0u32..50, any::<bool>()), 1..8)) {
        let destinations: Vec<DestLoad> = loads
            .iter()
            .map(|(weight, active, overloaded)| DestLoad { overloaded: *overloaded, ..busy(*weight, *active) })
            .collect();
        if let Ok(index) = choose(Scheduler::ShortestExpectedDelay, &destinations) {
            let chosen = destinations[index as usize];
            for other in destinations.iter().filter(|dest| dest.weight > 0 && !dest.overloaded) {
                prop_assert!((chosen.active + 1) * other.weight <= (other.active + 1) * chosen.weight);
            }
        }
    }
}
