// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Weighted least connections as in IPVS: the smallest `(256 * active + inactive) / weight`, the first
//! of equals.
//!
//! Half-open connections count as active up to a bound in proportion to the weight.

use super::ratio::{least, Measure};
use super::server::{chosen, overhead, Choice, Request, Server};

/// The first destination with the least overhead for its weight.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    least(Overhead, servers, 0).map(|index| chosen(index, request.state))
}

/// What a half-open connection that counts comes to.
const PENDING_OVERHEAD: i64 = overhead(1, 0);

/// The overhead, 42 bits.
pub(super) struct Overhead;

impl Overhead {
    /// The overhead with so many half-open connections.
    #[inline(always)]
    pub(super) fn with_pending(&self, server: &impl Server, pending: i64) -> i64 {
        // 33 bits of connections times 256.
        server
            .overhead()
            .wrapping_add(pending.wrapping_mul(PENDING_OVERHEAD))
    }
}

impl<S: Server> Measure<S> for Overhead {
    #[inline(always)]
    fn base(&self, server: &S) -> i64 {
        server.overhead()
    }

    #[inline(always)]
    fn each(&self) -> i64 {
        PENDING_OVERHEAD
    }
}
