// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A token bucket: how often something may happen, with bursts.

/// The bucket. It begins full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    per_second: u32,
    burst: u32,
    /// Thousandths of a token, so that a millisecond adds a whole number of them.
    milli_tokens: u64,
    filled_ms: u64,
    denied: u32,
}

impl TokenBucket {
    /// At most `burst` at once, and `per_second` in the long run.
    pub const fn new(per_second: u32, burst: u32) -> TokenBucket {
        TokenBucket {
            per_second,
            burst,
            milli_tokens: (burst as u64).saturating_mul(1000),
            filled_ms: 0,
            denied: 0,
        }
    }

    /// Takes a token; `None` if there is none, else how often that was the answer since the last
    /// token. `now_ms` comes from a clock that does not go back; if it does, nothing is added.
    pub const fn take(&mut self, now_ms: u64) -> Option<u32> {
        let elapsed_ms = now_ms.saturating_sub(self.filled_ms);
        if elapsed_ms > 0 {
            let full = (self.burst as u64).saturating_mul(1000);
            let added = elapsed_ms.saturating_mul(self.per_second as u64);
            let sum = self.milli_tokens.saturating_add(added);
            self.milli_tokens = if sum > full { full } else { sum };
            self.filled_ms = now_ms;
        }
        match self.milli_tokens.checked_sub(1000) {
            Some(left) => {
                self.milli_tokens = left;
                let denied = self.denied;
                self.denied = 0;
                Some(denied)
            }
            None => {
                self.denied = self.denied.saturating_add(1);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_what_was_denied_is_told() {
        let mut bucket = TokenBucket::new(10, 3);
        for _ in 0..3 {
            assert_eq!(bucket.take(5_000), Some(0));
        }
        assert_eq!(bucket.take(5_000), None);
        assert_eq!(bucket.take(5_099), None);
        assert_eq!(bucket.take(5_100), Some(2));
        assert_eq!(bucket.take(5_100), None);
        // A long rest fills it to the burst and not beyond.
        let taken = (0..10).filter(|_| bucket.take(1 << 40).is_some()).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn a_clock_that_goes_back_adds_nothing_and_extremes_do_not_overflow() {
        let mut bucket = TokenBucket::new(u32::MAX, u32::MAX);
        assert_eq!(bucket.take(u64::MAX), Some(0));
        assert_eq!(bucket.take(0), Some(0));
        let mut never = TokenBucket::new(0, 0);
        assert_eq!(never.take(u64::MAX), None);
        let mut one = TokenBucket::new(1, 1);
        assert_eq!(one.take(1_000), Some(0));
        assert_eq!(one.take(0), None);
    }

    proptest::proptest! {
        #[test]
        fn no_window_sees_more_than_burst_and_rate(
            steps in proptest::collection::vec(0u64..500, 1..200),
            per_second in 1u32..50,
            burst in 1u32..20,
        ) {
            let mut bucket = TokenBucket::new(per_second, burst);
            let (mut now, mut taken) = (1_000_000u64, 0u64);
            let start = now;
            for step in steps {
                now += step;
                taken += u64::from(bucket.take(now).is_some());
                let bound = u64::from(burst) + (now - start) * u64::from(per_second) / 1000;
                proptest::prop_assert!(taken <= bound, "{} over {}", taken, bound);
            }
        }
    }
}
