// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Counters and rates of a service or a destination, and the estimator of the rates.

/// What has been counted since the last zeroing. Direct routing sees no replies, so both `out`
/// counters stay 0; they are here because the clients of IPVS want all ten numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients, IP headers included.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

impl Counters {
    /// What was counted since `earlier`, as long as nothing has counted 2^64.
    #[must_use]
    pub const fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            connections: self.connections.wrapping_sub(earlier.connections),
            in_packets: self.in_packets.wrapping_sub(earlier.in_packets),
            out_packets: self.out_packets.wrapping_sub(earlier.out_packets),
            in_bytes: self.in_bytes.wrapping_sub(earlier.in_bytes),
            out_bytes: self.out_bytes.wrapping_sub(earlier.out_bytes),
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(&self, other: &Counters) -> Counters {
        Counters {
            connections: self.connections.wrapping_add(other.connections),
            in_packets: self.in_packets.wrapping_add(other.in_packets),
            out_packets: self.out_packets.wrapping_add(other.out_packets),
            in_bytes: self.in_bytes.wrapping_add(other.in_bytes),
            out_bytes: self.out_bytes.wrapping_add(other.out_bytes),
        }
    }
}

/// Rates per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rates {
    /// Connections per second.
    pub connections: u64,
    /// Packets from clients per second.
    pub in_packets: u64,
    /// Packets to clients per second.
    pub out_packets: u64,
    /// Bytes from clients per second.
    pub in_bytes: u64,
    /// Bytes to clients per second.
    pub out_bytes: u64,
}

/// The ten numbers that a stats nest carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stats {
    /// The five counters.
    pub counters: Counters,
    /// The five rates.
    pub rates: Rates,
}

impl Stats {
    /// The statistics of both together.
    #[must_use]
    pub const fn plus(&self, other: &Stats) -> Stats {
        Stats {
            counters: self.counters.plus(&other.counters),
            rates: Rates {
                connections: self
                    .rates
                    .connections
                    .saturating_add(other.rates.connections),
                in_packets: self.rates.in_packets.saturating_add(other.rates.in_packets),
                out_packets: self
                    .rates
                    .out_packets
                    .saturating_add(other.rates.out_packets),
                in_bytes: self.rates.in_bytes.saturating_add(other.rates.in_bytes),
                out_bytes: self.rates.out_bytes.saturating_add(other.rates.out_bytes),
            },
        }
    }
}

/// How often rates are estimated, in milliseconds; IPVS does it every two seconds.
pub const ESTIMATE_PERIOD_MS: u64 = 2000;

/// Rates are kept in 1/1024 per second, so that one connection in a while does not round to nothing.
const SCALE_SHIFT: u32 = 10;
/// Each period takes in 1/4 of the difference, as IPVS does.
const AVERAGE_SHIFT: u32 = 2;

/// A moving average of each counter's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Estimator {
    seen: Counters,
    scaled: Rates,
}

impl Estimator {
    /// Nothing seen yet.
    pub const NEW: Estimator = Estimator {
        seen: Counters {
            connections: 0,
            in_packets: 0,
            out_packets: 0,
            in_bytes: 0,
            out_bytes: 0,
        },
        scaled: Rates {
            connections: 0,
            in_packets: 0,
            out_packets: 0,
            in_bytes: 0,
            out_bytes: 0,
        },
    };

    /// Takes in the counters as they are `elapsed_ms` after the last call. Counters that went back
    /// (zeroed in between) start again without a rate.
    #[must_use]
    pub const fn estimate(self, now: Counters, elapsed_ms: u64) -> Estimator {
        let Estimator { seen, scaled } = self;
        Estimator {
            seen: now,
            scaled: Rates {
                connections: average(
                    scaled.connections,
                    seen.connections,
                    now.connections,
                    elapsed_ms,
                ),
                in_packets: average(
                    scaled.in_packets,
                    seen.in_packets,
                    now.in_packets,
                    elapsed_ms,
                ),
                out_packets: average(
                    scaled.out_packets,
                    seen.out_packets,
                    now.out_packets,
                    elapsed_ms,
                ),
                in_bytes: average(scaled.in_bytes, seen.in_bytes, now.in_bytes, elapsed_ms),
                out_bytes: average(scaled.out_bytes, seen.out_bytes, now.out_bytes, elapsed_ms),
            },
        }
    }

    /// The rates per second, rounded.
    pub const fn rates(&self) -> Rates {
        Rates {
            connections: unscaled(self.scaled.connections),
            in_packets: unscaled(self.scaled.in_packets),
            out_packets: unscaled(self.scaled.out_packets),
            in_bytes: unscaled(self.scaled.in_bytes),
            out_bytes: unscaled(self.scaled.out_bytes),
        }
    }
}

const fn average(average: u64, seen: u64, now: u64, elapsed_ms: u64) -> u64 {
    let counted = now.saturating_sub(seen);
    let scaled = counted.saturating_mul(1000 << SCALE_SHIFT);
    // No time, no rate: the average stays.
    let Some(rate) = scaled.checked_div(elapsed_ms) else {
        return average;
    };
    // A saturated product leaves at most 2^64 / 1 here; a quarter of each cannot overflow their sum.
    if rate >= average {
        average.saturating_add((rate - average) >> AVERAGE_SHIFT)
    } else {
        average.saturating_sub((average - rate) >> AVERAGE_SHIFT)
    }
}

const fn unscaled(scaled: u64) -> u64 {
    scaled.saturating_add(1 << (SCALE_SHIFT - 1)) >> SCALE_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(connections: u64) -> Counters {
        Counters {
            connections,
            in_bytes: connections * 100,
            ..Counters::default()
        }
    }

    fn after_periods(count: u64, per_period: u64) -> Estimator {
        (1..=count).fold(Estimator::NEW, |estimator, period| {
            estimator.estimate(counters(period * per_period), ESTIMATE_PERIOD_MS)
        })
    }

    #[test]
    fn sums_and_differences_take_every_column() {
        let a = Counters {
            connections: 1,
            in_packets: 20,
            out_packets: 300,
            in_bytes: 4000,
            out_bytes: 50000,
        };
        let b = a.plus(&a);
        assert_eq!(
            b.in_bytes + b.connections + b.in_packets + b.out_packets + b.out_bytes,
            108_642
        );
        assert_eq!(b.since(&a), a);
        let rates = Rates {
            in_bytes: 7,
            ..Rates::default()
        };
        let both = Stats { counters: a, rates }.plus(&Stats { counters: a, rates });
        assert_eq!((both.counters, both.rates.in_bytes), (b, 14));
    }

    #[test]
    fn a_steady_rate_is_approached() {
        let rates = after_periods(60, 20).rates();
        assert_eq!((rates.connections, rates.in_bytes), (10, 1000));
        assert_eq!((rates.in_packets, rates.out_bytes), (0, 0));
    }

    #[test]
    fn the_first_period_counts_a_quarter() {
        assert_eq!(after_periods(1, 80).rates().connections, 10);
    }

    #[test]
    fn a_rate_decays_to_zero_when_nothing_comes() {
        let busy = after_periods(60, 2_000_000);
        let idle = (0..200).fold(busy, |estimator, _| {
            estimator.estimate(counters(120_000_000), ESTIMATE_PERIOD_MS)
        });
        assert_eq!(idle.rates(), Rates::default());
    }

    #[test]
    fn zeroed_counters_do_not_give_a_rate() {
        let zeroed = after_periods(60, 20).estimate(Counters::default(), ESTIMATE_PERIOD_MS);
        assert!(zeroed.rates().connections <= 10);
    }

    #[test]
    fn no_time_and_huge_counters_are_harmless() {
        let huge = counters(u64::MAX / 100);
        assert_eq!(Estimator::NEW.estimate(huge, 0).rates(), Rates::default());
        assert!(Estimator::NEW.estimate(huge, 1).rates().in_bytes > 0);
    }
}
