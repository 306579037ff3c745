// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A destination that was just added gets a growing part of its share.

use ipvs_mwlc::director::sched::{
    DestLoad, Ramp, Request, SchedState, Scheduler, RAMP_FLOOR_PERMILLE,
};
use proptest::prelude::*;

use crate::{choose, SIZE};

#[test]
fn the_ramp_is_linear_above_its_floor() {
    let cases = [
        (0, 10_000, RAMP_FLOOR_PERMILLE),
        (499, 10_000, RAMP_FLOOR_PERMILLE),
        (500, 10_000, 50),
        (519, 10_000, 51),
        (5_000, 10_000, 500),
        (9_999, 10_000, 999),
        (10_000, 10_000, 1000),
        (u64::MAX, 10_000, 1000),
        (0, 0, 1000),
        (0, 1, RAMP_FLOOR_PERMILLE),
        (u64::from(u32::MAX) - 1, u32::MAX, 999),
    ];
    for (since_ms, slow_start_ms, permille) in cases {
        let ramp = Ramp::at(since_ms, slow_start_ms);
        assert_eq!(ramp.permille(), permille, "{since_ms} of {slow_start_ms}");
    }
    assert_eq!(Ramp::default(), Ramp::FULL);
}

/// Two destinations with ten connections of `SIZE` for each unit of weight, and a new one.
fn warm_and_new(ramp: Ramp) -> [DestLoad; 3] {
    let warm = |weight| DestLoad {
        weight,
        active: 100 * weight,
        bytes: 100 * u64::from(weight) * SIZE,
        ..DestLoad::default()
    };
    let new = DestLoad {
        weight: 2,
        ramp,
        ..DestLoad::default()
    };
    [warm(1), warm(2), new]
}

/// Connections that the new destination takes before another one gets any.
fn burst(scheduler: Scheduler, ramp: Ramp) -> u32 {
    let mut destinations = warm_and_new(ramp);
    while choose(scheduler, &destinations) == Ok(2) {
        destinations[2].active += 1;
        destinations[2].bytes += SIZE;
    }
    destinations[2].active
}

#[test]
fn a_new_one_does_not_get_every_connection() {
    for scheduler in [
        Scheduler::Wlc,
        Scheduler::ShortestExpectedDelay,
        Scheduler::NeverQueue,
        Scheduler::Mwlc,
    ] {
        let near = |ramp, expected: u32| {
            let burst = burst(scheduler, ramp);
            assert!(burst.abs_diff(expected) <= 2, "{scheduler:?} {burst}");
        };
        // Without slow start it catches up at once, to 100 for each unit of weight.
        near(Ramp::FULL, 200);
        near(Ramp::at(500, 1000), 100);
        near(Ramp::at(0, 1000), 10);
    }
    // lc ignores weights, but not slow start: 1/20 of the hundred that the least loaded has.
    let burst = burst(Scheduler::Lc, Ramp::at(0, 1000));
    assert!((4..=6).contains(&burst), "{burst}");
}

#[test]
fn half_open_connections_on_a_new_one_count_against_its_part() {
    let mut destinations = warm_and_new(Ramp::at(0, 1000));
    for warm in &mut destinations[..2] {
        warm.active *= 10;
        warm.bytes *= 10;
    }
    for scheduler in [Scheduler::Wlc, Scheduler::Mwlc] {
        // The bound is in proportion: 256 * 2 / 20 for the new one.
        destinations[2].pending = 1_000_000;
        assert_eq!(choose(scheduler, &destinations), Ok(2), "{scheduler:?}");
        destinations[2].active = 90;
        destinations[2].bytes = 90 * SIZE;
        assert_ne!(choose(scheduler, &destinations), Ok(2), "{scheduler:?}");
        destinations[2] = warm_and_new(Ramp::at(0, 1000))[2];
    }
}

#[test]
fn ovf_fills_a_new_one_to_its_part_only() {
    let mut destinations = warm_and_new(Ramp::at(500, 1000));
    destinations.iter_mut().for_each(|dest| dest.active = 0);
    destinations[2].weight = 10;
    for (active, expected) in [(0, 2), (5, 2), (6, 1)] {
        destinations[2].active = active;
        assert_eq!(choose(Scheduler::Overflow, &destinations), Ok(expected));
    }
}

#[test]
fn rr_sh_and_fo_take_no_notice() {
    for scheduler in [
        Scheduler::RoundRobin,
        Scheduler::SourceHashing,
        Scheduler::Failover,
    ] {
        let full = choose(scheduler, &warm_and_new(Ramp::FULL));
        assert_eq!(choose(scheduler, &warm_and_new(Ramp::at(0, 1000))), full);
    }
}

/// How many of 10,000 choices fall on the new destination, lots being drawn evenly.
fn chosen_by_lot(scheduler: Scheduler, ramp: Ramp) -> u32 {
    let destinations = [1, 1, 2].map(|weight| DestLoad {
        weight,
        ..DestLoad::default()
    });
    let [a, b, new] = destinations;
    let destinations = [a, b, DestLoad { ramp, ..new }];
    let mut state = SchedState::NEW;
    let mut count = 0;
    for lot in 0..10_000u64 {
        // Multiples of an odd number fill 64 bits evenly.
        let random = lot.wrapping_mul(0x9e37_79b9_7f4a_7c15).swap_bytes();
        let request = Request {
            random,
            ..Request::new(state, SIZE)
        };
        if let Ok(choice) = scheduler.choose(&destinations, &request) {
            state = choice.state;
            count += u32::from(choice.index == 2);
        }
    }
    count
}

#[test]
fn wrr_and_twos_draw_a_new_one_more_seldom() {
    for scheduler in [Scheduler::WeightedRoundRobin, Scheduler::TwoChoices] {
        let full = chosen_by_lot(scheduler, Ramp::FULL);
        assert!((4_800..=5_200).contains(&full), "{scheduler:?} {full}");
        let mut last = full;
        for since_ms in [500, 100, 50] {
            let part = chosen_by_lot(scheduler, Ramp::at(since_ms, 1000));
            assert!(part < last, "{scheduler:?} {part} of {last}");
            last = part;
        }
        // 2/20 of 2.1 is 0.048.
        assert!((200..=1_000).contains(&last), "{scheduler:?} {last}");
    }
}

proptest! {
    /// It never falls as time passes, and never leaves its bounds.
    #[test]
    fn the_ramp_never_falls(since_ms in any::<u64>(), more_ms in any::<u32>(), slow_start_ms in any::<u32>()) {
        let early = Ramp::at(since_ms, slow_start_ms);
        let late = Ramp::at(since_ms.saturating_add(u64::from(more_ms)), slow_start_ms);
        prop_assert!(early <= late);
        prop_assert!((RAMP_FLOOR_PERMILLE..=1000).contains(&early.permille()));
    }
}
