// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! When a real server starts slowly, and for how long; how its weight grows is `sched::Ramp`.

use crate::director::sched::Scheduler;

/// The longest slow start: an hour.
pub const SLOW_START_MS_MAX: u32 = 3_600_000;

/// How long a real server takes to its whole weight, unless the service says otherwise: long enough
/// for caches to warm and for the first connections to show in its load, and short beside the hours
/// between two changes.
pub const SLOW_START_MS_DEFAULT: u32 = 30_000;

/// The slow start of a service that was given none. Schedulers that look at loads would send a new
/// real server, which has none, every connection; the others send it its share, and start nothing
/// slowly.
pub const fn default_ms(scheduler: Scheduler) -> u32 {
    match scheduler {
        Scheduler::Lc
        | Scheduler::Wlc
        | Scheduler::ShortestExpectedDelay
        | Scheduler::NeverQueue
        | Scheduler::TwoChoices
        | Scheduler::Mwlc
        | Scheduler::Msed => SLOW_START_MS_DEFAULT,
        Scheduler::RoundRobin
        | Scheduler::WeightedRoundRobin
        | Scheduler::SourceHashing
        | Scheduler::MaglevHashing
        | Scheduler::Failover
        | Scheduler::Overflow => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedulers_of_load_start_slowly() {
        let slow = Scheduler::ALL
            .into_iter()
            .filter(|scheduler| default_ms(*scheduler) > 0)
            .count();
        assert_eq!(slow, 7);
        assert_eq!(default_ms(Scheduler::RoundRobin), 0);
        const { assert!(SLOW_START_MS_DEFAULT <= SLOW_START_MS_MAX) };
    }
}
