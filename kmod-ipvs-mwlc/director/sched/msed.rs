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

use super::ratio::{has_the_turn, least_by};
use super::{chosen, pending_counted, Choice, SchedState, Server};

/// The destination with the least expected delay; of equals, the first at or after the turn.
#[inline(never)]
pub(super) fn schedule(
    servers: impl Iterator<Item: Server + Copy> + Clone,
    state: SchedState,
    expected_size_bytes: u64,
) -> Option<Choice> {
    // E = 0 would forget the connection to schedule, and with it the weights of idle destinations.
    let expected = expected_size_bytes.max(1);
    let delay = |server: _, milliweight: u64| delay_bytes(&server, milliweight, expected);
    least_by(servers, delay, |other, best| {
        has_the_turn(other, best, state.next)
    })
    .map(|index| chosen(index, state))
}

/// 64 bits of bytes, plus 38 of connections times 64 of size; the product with 42 of weight can pass
/// 128 bits only for sizes over their limit of 2^40, and then it saturates.
#[inline(always)]
fn delay_bytes(server: &impl Server, milliweight: u64, expected_size_bytes: u64) -> u128 {
    // 38 bits times 64.
    let new = u128::from(pending_counted(server, milliweight).saturating_add(1));
    let new_bytes = new.wrapping_mul(u128::from(expected_size_bytes));
    u128::from(server.capped_bytes()).saturating_add(new_bytes)
}
