// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How much of an answer has arrived, from the client's acknowledgement numbers alone.
//!
//! In VS/DR the director never sees an answer, but every acknowledgement passes it: bytes that the
//! client acknowledges have been delivered. Only the cumulative number counts. What is in SACK blocks
//! may be thrown away again (RFC 2018, 8), and is acknowledged soon if it is not.
//!
//! | segment | here |
//! |---|---|
//! | a retransmission, an old or doubled acknowledgement | the number is not ahead: nothing |
//! | a keepalive, an answer to a window probe | the number has not moved: nothing |
//! | a number that is ahead by more than a window | not true: nothing |
//! | numbers that wrap | differences modulo 2^32 |
//!
//! A client can acknowledge what it never received; then its own connection counts for less.

/// Acknowledgements are counted when they come to this much together, or to all that is left, so
/// that a connection's word is not written for each of them. A size is too large by less than this.
pub const GRANULE_BYTES: u32 = 64 * 1024;

/// No acknowledgement is truly further ahead: the largest window of RFC 7323 is smaller.
pub const ADVANCE_BYTES_MAX: u32 = 1 << 30;

/// How far `acknowledged` is ahead of `counted`, in bytes; `None` if it is not, or cannot be.
pub const fn ahead(counted: u32, acknowledged: u32) -> Option<u32> {
    match acknowledged.wrapping_sub(counted) {
        0 => None,
        bytes if bytes > ADVANCE_BYTES_MAX => None,
        bytes => Some(bytes),
    }
}

/// What is left of `left_bytes` when the client has acknowledged everything before `acknowledged`, of
/// which everything before `counted` was taken off already. `None`: not worth counting yet. The
/// answer's headers are counted as if they were part of the file, so the end is a little early.
pub const fn left(left_bytes: u64, counted: u32, acknowledged: u32) -> Option<u64> {
    match ahead(counted, acknowledged) {
        Some(bytes) => {
            let is_all = left_bytes > 0 && bytes as u64 >= left_bytes;
            if bytes >= GRANULE_BYTES || is_all {
                Some(left_bytes.saturating_sub(bytes as u64))
            } else {
                None
            }
        }
        None => None,
    }
}

/// The size of an answer that is learned late: `size_bytes`, less what was delivered between the
/// request, which acknowledged everything before `at_request`, and `counted`.
pub const fn left_since(size_bytes: u64, at_request: u32, counted: u32) -> u64 {
    match ahead(at_request, counted) {
        Some(bytes) => size_bytes.saturating_sub(bytes as u64),
        None => size_bytes,
    }
}

/// Whether a segment that begins at `sequence` was sent before, given where the last request began.
pub const fn is_repeated(last_request: u32, sequence: u32) -> bool {
    last_request.wrapping_sub(sequence) <= ADVANCE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_ahead_counts_for_nothing() {
        for (counted, acknowledged, expected) in [
            (100, 100, None),
            (100, 99, None),
            (100, 101, Some(1)),
            (u32::MAX, 0, Some(1)),
            (u32::MAX - 9, 10, Some(20)),
            (0, u32::MAX, None),
            (5, 5 + ADVANCE_BYTES_MAX, Some(ADVANCE_BYTES_MAX)),
            (5, 6 + ADVANCE_BYTES_MAX, None),
        ] {
            assert_eq!(
                ahead(counted, acknowledged),
                expected,
                "{counted} {acknowledged}"
            );
        }
    }

    #[test]
    fn small_steps_wait_for_a_granule_or_for_the_end() {
        let size = 1_000_000;
        assert_eq!(left(size, 0, GRANULE_BYTES - 1), None);
        assert_eq!(
            left(size, 0, GRANULE_BYTES),
            Some(size - u64::from(GRANULE_BYTES))
        );
        assert_eq!(left(1000, 0, 999), None);
        assert_eq!(left(1000, 0, 1000), Some(0));
        assert_eq!(left(1000, 0, 1300), Some(0));
        // When nothing is left, the numbers are still followed, in granules.
        assert_eq!(left(0, 0, 1), None);
        assert_eq!(left(0, 0, GRANULE_BYTES), Some(0));
    }

    #[test]
    fn a_size_that_is_learned_late_is_what_is_left_then() {
        assert_eq!(left_since(1000, 50, 50), 1000);
        assert_eq!(left_since(1000, u32::MAX, 99), 900);
        assert_eq!(left_since(1000, 0, 5000), 0);
        // Nothing was counted since, or the numbers belong to another request.
        assert_eq!(left_since(1000, 50, 49), 1000);
    }

    #[test]
    fn a_request_that_comes_again_is_no_new_one() {
        assert!(is_repeated(1000, 1000));
        assert!(is_repeated(1000, 999));
        assert!(!is_repeated(1000, 1001));
        assert!(!is_repeated(u32::MAX, 5));
        assert!(is_repeated(5, u32::MAX));
    }

    proptest! {
        /// A whole download, with acknowledgements lost, doubled, old and forged: what is left is
        /// never less than the truth, and too much by less than a granule.
        #[test]
        fn what_is_left_follows_the_acknowledgements(
            start in any::<u32>(),
            size in 1u64..50_000_000,
            steps in prop::collection::vec((0u32..300_000, 0u8..8, any::<u32>()), 1..300),
        ) {
            let (mut counted, mut left_bytes) = (start, size);
            let mut delivered = 0u64;
            for (step, kind, noise) in steps {
                delivered = (delivered + u64::from(step)).min(size);
                let truth = start.wrapping_add(delivered as u32);
                let acknowledged = match kind {
                    0 => continue,
                    1 => truth.wrapping_sub(noise % 1_000_000),
                    2 => counted.wrapping_add(ADVANCE_BYTES_MAX + 1 + noise % ADVANCE_BYTES_MAX),
                    _ => truth,
                };
                if let Some(now) = left(left_bytes, counted, acknowledged) {
                    counted = acknowledged;
                    left_bytes = now;
                }
                prop_assert!(left_bytes >= size - delivered);
                if kind > 2 {
                    let late = left_bytes - (size - delivered);
                    prop_assert!(late < u64::from(GRANULE_BYTES), "{} late", late);
                }
            }
            let end = start.wrapping_add(size as u32);
            if let Some(now) = left(left_bytes, counted, end) {
                left_bytes = now;
            }
            prop_assert_eq!(left_bytes, 0);
        }
    }
}
