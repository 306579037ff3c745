// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Modified weighted least connections: node j with Cj/Wj = min(Ci/Wi), where Ci is the sum of the
//! sizes of node i's live connections in bytes.
//!
//! To Ci come the bytes that the half-open connections are expected to fetch, up to a bound in
//! proportion to the weight, so that SYNs of one round trip spread. Equal ratios are decided by the
//! connections for the weight, as wlc does, and equal ones of these by turn.

use super::ratio::{least, Measure};
use super::server::{chosen, Choice, Request, Server};
use super::wlc::Overhead;
use crate::director::load::clamp_size;

/// The destination with the least load for its weight; of equals, the first at or after the turn.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    let bytes = Bytes {
        expected_size_bytes: clamp_size(request.expected_size_bytes),
    };
    least(bytes, servers, request.state.next).map(|index| chosen(index, request.state))
}

/// Ci + what the half-open connections are expected to fetch; then the connections.
struct Bytes {
    expected_size_bytes: i64,
}

impl<S: Server> Measure<S> for Bytes {
    #[inline(always)]
    fn base(&self, server: &S) -> i64 {
        server.bytes()
    }

    #[inline(always)]
    fn floor(&self, server: &S) -> i64 {
        server.reported_bytes()
    }

    #[inline(always)]
    fn each(&self) -> i64 {
        self.expected_size_bytes
    }

    #[inline(always)]
    fn tie(&self, server: &S, pending: i64) -> i64 {
        Overhead.with_pending(server, pending)
    }
}
