// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! rr, wrr, lc, wlc and mwlc against their definitions by brute force, and in the orders that are
//! known from IPVS; and what holds for every scheduler.

use ipvs_mwlc::director::address::Address;
use ipvs_mwlc::director::flags::SERVICE_SCHED1;
use ipvs_mwlc::director::limits::LOAD_BYTES_MAX;
use ipvs_mwlc::director::sched::{
    overhead_difference, DestLoad, NoDestination, Ramp, Request, SchedState, Scheduler, Server,
    PENDING_MAX, PENDING_PER_WEIGHT_MAX,
};
use proptest::prelude::*;

use crate::{choose, maglev_table, order, weights, SIZE};

#[test]
fn names_are_those_of_ipvsadm() {
    let names = Scheduler::ALL.map(Scheduler::name);
    assert_eq!(
        names,
        ["rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "mh", "fo", "ovf", "twos", "mwlc", "msed"]
    );
    for scheduler in Scheduler::ALL {
        assert_eq!(
            Scheduler::from_name(scheduler.name().as_bytes()),
            Some(scheduler)
        );
    }
    for unknown in ["", "r", "rrr", "WLC", "wlc\0", "dh", "lblc", "lblcr"] {
        assert_eq!(
            Scheduler::from_name(unknown.as_bytes()),
            None,
            "{unknown:?}"
        );
    }
}

#[test]
fn round_robin_takes_turns() {
    assert_eq!(
        order(Scheduler::RoundRobin, &weights(&[1, 9, 1]), 7),
        [0, 1, 2, 0, 1, 2, 0]
    );
}

#[test]
fn round_robin_passes_over_quiesced_and_overloaded() {
    let mut destinations = weights(&[1, 0, 1, 1]);
    destinations[3].overloaded = true;
    assert_eq!(order(Scheduler::RoundRobin, &destinations, 4), [0, 2, 0, 2]);
}

#[test]
fn round_robin_goes_on_after_a_removal() {
    let three = weights(&[1, 1, 1]);
    let choice = Scheduler::RoundRobin
        .choose(&three, &Request::new(SchedState::NEW, SIZE))
        .unwrap();
    let choice = Scheduler::RoundRobin
        .choose(&three, &Request::new(choice.state, SIZE))
        .unwrap();
    assert_eq!(choice.index, 1);
    // Node 0 leaves: it is now the turn of what was node 2 and is node 1.
    let state = choice.state.after_removal(0);
    let two = weights(&[1, 1]);
    assert_eq!(
        Scheduler::RoundRobin
            .choose(&two, &Request::new(state, SIZE))
            .unwrap()
            .index,
        1
    );
    // A node behind the turn leaves: nothing changes.
    assert_eq!(choice.state.after_removal(2), choice.state);
}

#[test]
fn weighted_round_robin_interleaves_as_ipvs_does() {
    let wrr = Scheduler::WeightedRoundRobin;
    assert_eq!(
        order(wrr, &weights(&[4, 3, 2]), 9),
        [0, 0, 1, 0, 1, 2, 0, 1, 2]
    );
    assert_eq!(
        order(wrr, &weights(&[4, 3, 2]), 18)[9..],
        [0, 0, 1, 0, 1, 2, 0, 1, 2]
    );
    assert_eq!(order(wrr, &weights(&[100, 300]), 4), [1, 1, 0, 1]);
    assert_eq!(order(wrr, &weights(&[1, 1]), 4), [0, 1, 0, 1]);
    assert_eq!(order(wrr, &weights(&[65_535]), 3), [0, 0, 0]);
}

#[test]
fn weighted_round_robin_without_its_heaviest_goes_on_with_the_others() {
    let mut destinations = weights(&[65_535, 2, 1]);
    destinations[0].overloaded = true;
    assert_eq!(
        order(Scheduler::WeightedRoundRobin, &destinations, 6),
        [1, 1, 2, 1, 1, 2]
    );
}

#[test]
fn why_nothing_can_be_chosen() {
    let mut overloaded = weights(&[0, 3]);
    overloaded[1].overloaded = true;
    let mut quiesced = weights(&[0, 0]);
    quiesced[0].overloaded = true;
    for scheduler in Scheduler::ALL {
        assert_eq!(choose(scheduler, &[]), Err(NoDestination::Empty));
        assert_eq!(
            choose(scheduler, &quiesced),
            Err(NoDestination::AllQuiesced)
        );
        assert_eq!(
            choose(scheduler, &overloaded),
            Err(NoDestination::AllOverloaded)
        );
    }
}

#[test]
fn an_idle_cluster_takes_turns_under_mwlc() {
    assert_eq!(
        order(Scheduler::Mwlc, &weights(&[1, 1, 1]), 6),
        [0, 1, 2, 0, 1, 2]
    );
}

#[test]
fn mwlc_compares_bytes_for_the_weight_not_connections() {
    let mut destinations = weights(&[1, 3]);
    destinations[0] = DestLoad {
        bytes: 10_000,
        active: 1,
        ..destinations[0]
    };
    destinations[1] = DestLoad {
        bytes: 29_999,
        active: 50,
        ..destinations[1]
    };
    assert_eq!(choose(Scheduler::Mwlc, &destinations), Ok(1));
    destinations[1].bytes = 30_001;
    assert_eq!(choose(Scheduler::Mwlc, &destinations), Ok(0));
    // Equal loads: fewer connections for the weight.
    destinations[1].bytes = 30_000;
    assert_eq!(choose(Scheduler::Mwlc, &destinations), Ok(0));
    destinations[1].active = 2;
    assert_eq!(choose(Scheduler::Mwlc, &destinations), Ok(1));
}

#[test]
fn syns_of_one_round_trip_spread_by_weight() {
    for scheduler in [Scheduler::Lc, Scheduler::Wlc, Scheduler::Mwlc] {
        let mut destinations = weights(&[1, 1, 2]);
        let mut state = SchedState::NEW;
        for _ in 0..40 {
            let choice = scheduler
                .choose(&destinations, &Request::new(state, SIZE))
                .unwrap();
            destinations[choice.index as usize].pending += 1;
            state = choice.state;
        }
        let pending: Vec<u32> = destinations.iter().map(|dest| dest.pending).collect();
        match scheduler {
            Scheduler::Lc => assert!(pending.iter().all(|count| (13..=14).contains(count))),
            _ => assert_eq!(pending, [10, 10, 20], "{scheduler:?}"),
        }
    }
}

#[test]
fn a_flood_of_half_open_connections_cannot_steer() {
    let mut destinations = weights(&[1, 5]);
    destinations[0] = DestLoad {
        bytes: 1_000_000,
        active: 10,
        ..destinations[0]
    };
    destinations[1] = DestLoad {
        bytes: 4_900_000,
        active: 49,
        ..destinations[1]
    };
    for flooded in [0, 1_000_000] {
        for (destination, more) in destinations.iter_mut().zip([0, 123_456]) {
            destination.pending = flooded * PENDING_PER_WEIGHT_MAX + flooded.min(1) * more;
        }
        for scheduler in [Scheduler::Wlc, Scheduler::Mwlc] {
            assert_eq!(
                choose(scheduler, &destinations),
                Ok(1),
                "{scheduler:?} {flooded}"
            );
        }
    }
}

#[test]
fn the_largest_loads_do_not_overflow() {
    let largest = DestLoad {
        weight: u32::MAX,
        pending: u32::MAX,
        active: u32::MAX,
        inactive: u32::MAX,
        bytes: u64::MAX,
        capped_bytes: u64::MAX,
        overloaded: false,
        ramp: Ramp::FULL,
    };
    let table = maglev_table(&[largest; 3]);
    for scheduler in Scheduler::ALL {
        let request = Request {
            random: u64::MAX,
            table: &table,
            ..Request::new(
                SchedState {
                    next: u32::MAX,
                    round_weight: u32::MAX,
                },
                u64::MAX,
            )
        };
        let choice = scheduler.choose(&[largest; 3], &request);
        // 4,294,967,295 active connections do not exceed a weight of as many.
        assert!(choice.is_ok(), "{scheduler:?}");
    }
}

/// Weights and loads that are often equal, and now and then as large as they can be.
fn destination() -> impl Strategy<Value = DestLoad> {
    let weight = prop_oneof![1 => Just(0u32), 4 => Just(1u32), 4 => 1u32..5, 1 => 1u32..=65_535];
    let bytes = prop_oneof![
        4 => (0u64..3).prop_map(|connections| connections * SIZE),
        2 => 0u64..5000,
        1 => 0u64..(1 << 62),
        1 => any::<u64>(),
    ];
    let pending = prop_oneof![2 => Just(0u32), 2 => 0u32..80, 1 => any::<u32>()];
    // Milliseconds since the start of a slow start of a second; mostly it is over.
    let since_ms = prop_oneof![3 => Just(1000u64), 1 => 0u64..1000];
    (
        (weight, since_ms, prop::bool::weighted(0.1)),
        (pending, 0u32..4, 0u32..600),
        bytes,
    )
        .prop_map(
            |((weight, since_ms, overloaded), (pending, active, inactive), bytes)| DestLoad {
                weight,
                pending,
                active,
                inactive,
                bytes,
                capped_bytes: bytes / 2,
                overloaded,
                ramp: Ramp::at(since_ms, 1000),
            },
        )
}

/// The sizes that a connection may be expected to have.
fn expected_size() -> impl Strategy<Value = u64> {
    prop_oneof![Just(SIZE), 0u64..10_000, 0u64..=(1 << 40)]
}

fn state() -> impl Strategy<Value = SchedState> {
    (0u32..8, 0u32..6).prop_map(|(next, round_weight)| SchedState { next, round_weight })
}

/// A load as a fraction, compared without rounding.
type Ratio = (u128, u128);

fn ratio_cmp(a: Ratio, b: Ratio) -> std::cmp::Ordering {
    (a.0 * b.1).cmp(&(b.0 * a.1))
}

/// The schedulers that choose the least load, as docs/SCHEDULING.md defines it.
const LEAST: [Scheduler; 5] = [
    Scheduler::Lc,
    Scheduler::Wlc,
    Scheduler::ShortestExpectedDelay,
    Scheduler::Mwlc,
    Scheduler::Msed,
];

/// The load for the weight, and what decides between equal ones; the definition, without a short cut.
fn definition(scheduler: Scheduler, dest: &DestLoad, size: u64) -> (Ratio, Ratio) {
    let weight = match scheduler {
        Scheduler::Lc => 1,
        _ => u128::from(dest.weight),
    };
    let milliweight = weight * u128::from(dest.ramp.permille());
    let pending_max =
        (u128::from(PENDING_PER_WEIGHT_MAX) * milliweight / 1000).min(u128::from(PENDING_MAX));
    let pending = u128::from(dest.pending).min(pending_max);
    let connections = (u128::from(dest.active) + pending) * 256 + u128::from(dest.inactive);
    let (size, none) = (u128::from(size), (0, 1));
    // No sum of real connections is larger.
    let counted = |bytes: u64| u128::from(bytes.min(LOAD_BYTES_MAX));
    match scheduler {
        Scheduler::ShortestExpectedDelay => {
            ((u128::from(dest.active) + pending + 1, milliweight), none)
        }
        Scheduler::Mwlc => (
            (counted(dest.bytes) + pending * size, milliweight),
            (connections, milliweight),
        ),
        Scheduler::Msed => {
            let new = (pending + 1) * size.max(1);
            ((counted(dest.capped_bytes) + new, milliweight), none)
        }
        _ => ((connections, milliweight), none),
    }
}

/// A destination whose weight always has to be worked out, as one's in slow start.
struct Unsettled(DestLoad);

impl Server for Unsettled {
    fn milliweight(&self) -> u64 {
        Server::milliweight(&self.0)
    }
    fn weighs(&self, _milliweight: u64) -> bool {
        false
    }
    fn pending_within(&self, max: u32) -> u32 {
        self.0.pending_within(max)
    }
    fn active(&self) -> i64 {
        Server::active(&self.0)
    }
    fn overhead(&self) -> i64 {
        self.0.overhead()
    }
    fn bytes(&self) -> i64 {
        0
    }
    fn reported_bytes(&self) -> i64 {
        Server::bytes(&self.0)
    }
    fn capped_bytes(&self) -> i64 {
        Server::capped_bytes(&self.0)
    }
    fn snapshot(&self) -> DestLoad {
        self.0
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// The definition in words: no eligible destination has a smaller ratio than the chosen one, and of
    /// equals it is the one whose turn it is, or the first.
    #[test]
    fn the_chosen_one_has_the_least_load(
        destinations in prop::collection::vec(destination(), 1..8),
        state in state(),
        size in expected_size(),
    ) {
        let eligible: Vec<(usize, &DestLoad)> = destinations
            .iter()
            .enumerate()
            .filter(|(_, dest)| dest.weight > 0 && !dest.overloaded)
            .collect();
        for scheduler in LEAST {
            let choice = scheduler.choose(&destinations, &Request::new(state, size));
            prop_assert_eq!(choice.is_ok(), !eligible.is_empty());
            let Ok(choice) = choice else { continue };
            let chosen = choice.index as usize;
            prop_assert!(eligible.iter().any(|(index, _)| *index == chosen));
            let best = definition(scheduler, &destinations[chosen], size);
            let mut equals = Vec::new();
            for (index, other) in &eligible {
                let other = definition(scheduler, other, size);
                let order = ratio_cmp(other.0, best.0).then(ratio_cmp(other.1, best.1));
                prop_assert_ne!(order, std::cmp::Ordering::Less, "{:?}", scheduler);
                if order.is_eq() {
                    equals.push(*index);
                }
            }
            let turn = state.next as usize;
            let expected = match scheduler {
                Scheduler::Mwlc | Scheduler::Msed => {
                    equals.iter().find(|index| **index >= turn).or(equals.first())
                }
                _ => equals.first(),
            };
            prop_assert_eq!(Some(&chosen), expected, "{:?}", scheduler);
        }
    }

    /// It is the same whether a destination's weight is told at once or has to be worked out, and whether
    /// its bytes are counted or reported.
    #[test]
    fn short_cuts_choose_the_same(
        destinations in prop::collection::vec(destination(), 1..8),
        state in state(),
        size in expected_size(),
    ) {
        let unsettled: Vec<Unsettled> = destinations.iter().copied().map(Unsettled).collect();
        for scheduler in LEAST {
            let request = Request::new(state, size);
            let expected = scheduler.choose(&destinations, &request);
            prop_assert_eq!(scheduler.choose(&unsettled, &request), expected, "{:?}", scheduler);
        }
    }

    /// A list of connections counted one by one comes to what the sum of the differences does.
    #[test]
    fn overhead_is_the_sum_of_its_differences(
        changes in prop::collection::vec((-3i32..4, -3i32..4), 0..20),
    ) {
        let (mut active, mut inactive, mut sum) = (100i32, 100i32, overhead_difference(100, 100));
        for (more_active, more_inactive) in changes {
            active += more_active;
            inactive += more_inactive;
            sum += overhead_difference(more_active, more_inactive);
        }
        let load = DestLoad { active: active as u32, inactive: inactive as u32, ..DestLoad::default() };
        prop_assert_eq!(sum, load.overhead());
    }
}

proptest! {
    /// In the long run wrr gives each destination its share, whatever the weights.
    #[test]
    fn weighted_round_robin_is_fair_over_a_cycle(
        weights_given in prop::collection::vec(0u32..40, 1..6),
    ) {
        let total: u32 = weights_given.iter().sum();
        prop_assume!(total > 0);
        let chosen = order(Scheduler::WeightedRoundRobin, &weights(&weights_given), total as usize);
        let gcd = weights_given.iter().fold(0, |a, b| gcd(a, *b));
        let cycles = gcd;
        for (index, weight) in weights_given.iter().enumerate() {
            let count = chosen.iter().filter(|chosen| **chosen as usize == index).count();
            prop_assert_eq!(count as u32, weight / gcd * cycles);
        }
    }

    /// Whatever state is left from another list, and whatever the lots say, a choice is an eligible
    /// destination; and there is one if there can be one.
    #[test]
    fn any_state_gives_an_eligible_choice(
        destinations in prop::collection::vec(destination(), 1..8),
        (next, round_weight) in any::<(u32, u32)>(),
        random in any::<u64>(),
        client in any::<[u8; 4]>(),
        since_ms in 0u64..2000,
    ) {
        let destinations: Vec<DestLoad> = destinations
            .into_iter()
            .enumerate()
            .map(|(index, dest)| DestLoad { ramp: Ramp::at(since_ms * index as u64, 1000), ..dest })
            .collect();
        let table = maglev_table(&destinations);
        let state = SchedState { next, round_weight };
        let eligible = destinations.iter().any(|dest| dest.weight > 0 && !dest.overloaded);
        for scheduler in Scheduler::ALL {
            for flags in [0, SERVICE_SCHED1] {
                let request = Request {
                    flags,
                    client: Address::V4(client),
                    random,
                    table: &table,
                    ..Request::new(state, SIZE)
                };
                match scheduler.choose(&destinations, &request) {
                    Ok(choice) => {
                        let dest = destinations[choice.index as usize];
                        prop_assert!(dest.weight > 0 && !dest.overloaded);
                    }
                    Err(NoDestination::AllFull) => {
                        prop_assert_eq!(scheduler, Scheduler::Overflow);
                        prop_assert!(eligible);
                    }
                    Err(NoDestination::SelectedUnavailable) => {
                        prop_assert!(eligible);
                        // A fallback tries every destination that was dealt a slot or an entry. Of
                        // the 256 slots of sh, a huge weight can take all.
                        match scheduler {
                            Scheduler::MaglevHashing => prop_assert_eq!(flags, 0),
                            _ => prop_assert_eq!(scheduler, Scheduler::SourceHashing),
                        }
                    }
                    Err(_) => prop_assert!(!eligible, "{:?}", scheduler),
                }
            }
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
    }
}
