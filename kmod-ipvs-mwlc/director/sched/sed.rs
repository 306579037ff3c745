// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Shortest expected delay as in IPVS: the smallest `(active + 1) / weight`, the first of equals.
//!
//! The one more is the connection to schedule: an idle destination of weight 1 and one of weight 2
//! with one connection expect the same. Half-open connections count as in wlc.

use super::ratio::{least, Measure};
use super::server::{chosen, Choice, Request, Server};

/// The first destination with the least expected delay.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    least(Delay, servers, 0).map(|index| chosen(index, request.state))
}

/// The connections with the new one, 33 bits.
pub(super) struct Delay;

impl<S: Server> Measure<S> for Delay {
    const NEW: i64 = 1;

    #[inline(always)]
    fn base(&self, server: &S) -> i64 {
        server.active()
    }

    #[inline(always)]
    fn each(&self) -> i64 {
        1
    }
}
