// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Least connections as in IPVS: the smallest `256 * active + inactive`, the first of equals.
//!
//! It is wlc with every weight taken for 1: half-open connections count as active up to a bound, the
//! same for every destination, and only slow start makes a difference between them.

use super::ratio::{least, Measure};
use super::server::{chosen, Choice, Request, Server};
use super::wlc::Overhead;

/// The first destination with the least overhead.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    least(Unweighted, servers, 0).map(|index| chosen(index, request.state))
}

/// The overhead with weight 1, but a quiesced one stays so.
struct Unweighted;

impl<S: Server> Measure<S> for Unweighted {
    #[inline(always)]
    fn base(&self, server: &S) -> i64 {
        Measure::<S>::base(&Overhead, server)
    }

    #[inline(always)]
    fn each(&self) -> i64 {
        Measure::<S>::each(&Overhead)
    }

    fn milliweight(&self, server: &S) -> u64 {
        let destination = server.snapshot();
        if destination.is_eligible() {
            u64::from(destination.ramp.permille())
        } else {
            0
        }
    }

    fn weighs(&self, server: &S, milliweight: u64) -> bool {
        self.milliweight(server) == milliweight
    }
}
