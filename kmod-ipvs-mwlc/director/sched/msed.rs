// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Modified shortest expected delay: node j with the least (E + sum over its connections of
//! min(size, E)) / Wj, where E is the size that a connection is expected to fetch.
//!
//! While transfers share a node's link equally, a new transfer of size x is held up by another one
//! only for as long as both are there: by min(what is left of the other, x) bytes. As x is not known
//! when the SYN arrives, E stands for it. So a large transfer counts as one connection until little
//! of it is left, and an idle connection, of which nothing is left, counts for nothing. Where sizes
//! are never learned, every connection counts E, and this is sed.
//!
//! Each connection keeps the cap that it started with (`load::Cap`, near E). Half-open connections
//! count E each up to their bound. Equal delays are decided by turn.

use core::cmp::Ordering;

use super::ratio::{best, Ratio};
use super::{chosen, Choice, DestLoad, SchedState};

/// The destination with the least expected delay; of equals, the first at or after the turn.
#[inline(never)]
pub(super) fn schedule(
    destinations: impl Iterator<Item = DestLoad>,
    state: SchedState,
    expected_size_bytes: u64,
) -> Option<Choice> {
    // E = 0 would forget the connection to schedule, and with it the weights of idle destinations.
    let expected = expected_size_bytes.max(1);
    let measure = |destination: &DestLoad| Ratio::new(delay(destination, expected), destination);
    let is_better = |other: &(u32, Ratio), best: &(u32, Ratio)| match other.1.compare(&best.1) {
        Ordering::Less => true,
        Ordering::Greater => false,
        Ordering::Equal => best.0 < state.next && other.0 >= state.next,
    };
    best(destinations, measure, is_better).map(|index| chosen(index, state))
}

/// 64 bits of bytes, plus 38 of connections times 64 of size; the product with 42 of weight can pass
/// 128 bits only for sizes over their limit of 2^40, and then it saturates.
#[inline(always)]
fn delay(destination: &DestLoad, expected_size_bytes: u64) -> u128 {
    // 38 bits times 64.
    let new = u128::from(destination.pending_counted().saturating_add(1));
    let new_bytes = new.wrapping_mul(u128::from(expected_size_bytes));
    u128::from(destination.capped_bytes).saturating_add(new_bytes)
}
