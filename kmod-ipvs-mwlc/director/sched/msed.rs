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

use super::ratio::{least, Measure};
use super::server::{chosen, Choice, Request, Server};
use crate::director::load::clamp_size;

/// The destination with the least expected delay; of equals, the first at or after the turn.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    // E = 0 would forget the connection to schedule, and with it the weights of idle destinations.
    let delay = DelayBytes {
        expected_size_bytes: clamp_size(request.expected_size_bytes).max(1),
    };
    least(delay, servers, request.state.next).map(|index| chosen(index, request.state))
}

/// What is capped, and what the half-open connections and the new one are expected to fetch.
struct DelayBytes {
    expected_size_bytes: i64,
}

impl<S: Server> Measure<S> for DelayBytes {
    const NEW: i64 = 1;

    #[inline(always)]
    fn base(&self, server: &S) -> i64 {
        server.capped_bytes()
    }

    #[inline(always)]
    fn each(&self) -> i64 {
        self.expected_size_bytes
    }
}
