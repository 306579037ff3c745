// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The destination that has the least load for its weight, compared without a division.
//!
//! Every new connection measures every destination of its service. One that weighs what the best so far
//! weighs takes no multiplication by weights, and nothing that can be known beforehand is looked at
//! twice. Nothing overflows: a load has at most 63 bits and a sign (see [`LOAD_BYTES_MAX`]).

use super::server::{pending_max, Server, PENDING_MAX};
use crate::director::limits::{CONNECTION_SIZE_BYTES_MAX, LOAD_BYTES_MAX};

// What is counted, what is half open and the new connection fit together.
const _: () = assert!(
    LOAD_BYTES_MAX + (PENDING_MAX as u64 + 1) * CONNECTION_SIZE_BYTES_MAX <= i64::MAX as u64
);

/// What a scheduler compares: of each destination `base + each * (half-open ones + NEW)` for its weight.
pub(super) trait Measure<S: Server> {
    /// 1 if the connection to schedule counts already, else 0.
    const NEW: i64 = 0;

    /// What counts whatever is half open, at most [`LOAD_BYTES_MAX`]. It looks negative for a moment
    /// where two CPUs count.
    fn base(&self, server: &S) -> i64;

    /// The least that it counts as, if the server is none of those that [`Server::weighs`] knows.
    #[inline(always)]
    fn floor(&self, _server: &S) -> i64 {
        0
    }

    /// What each half-open connection that counts comes to, at most [`CONNECTION_SIZE_BYTES_MAX`].
    fn each(&self) -> i64;

    /// What decides between equal loads, for the weight as well: the less, the better.
    #[inline(always)]
    fn tie(&self, _server: &S, _pending: i64) -> i64 {
        0
    }

    /// The weight in thousandths that counts; 0: it cannot be chosen.
    #[inline(always)]
    fn milliweight(&self, server: &S) -> u64 {
        server.milliweight()
    }

    /// Whether the weight is this, which is not 0; as [`Server::weighs`].
    #[inline(always)]
    fn weighs(&self, server: &S, milliweight: u64) -> bool {
        server.weighs(milliweight)
    }
}

/// A destination that can be chosen.
#[derive(Clone, Copy)]
struct Measured {
    index: usize,
    /// In thousandths.
    milliweight: u64,
    /// Half-open connections that count for this weight.
    pending_max: u32,
    load: i64,
    tie: i64,
}

impl Measured {
    /// Whether it is better; of equals neither is. a/wa is compared with b/wb as a*wb with b*wa.
    #[inline(always)]
    fn is_less(&self, other: &Measured) -> bool {
        let ours = |load| wide(load, other.milliweight);
        let theirs = |load| wide(load, self.milliweight);
        let (load, other_load) = (ours(self.load), theirs(other.load));
        // Not `Ordering`, for which the compiler makes numbers.
        load < other_load || (load == other_load && ours(self.tie) < theirs(other.tie))
    }
}

/// 64 bits times 64 always fit, and a weight in thousandths has no sign.
#[inline(always)]
fn wide(load: i64, milliweight: u64) -> i128 {
    i128::from(load).wrapping_mul(i128::from(milliweight as i64))
}

/// The index of the destination with the least load for its weight; of equals the first at or after
/// `next`, or else the first.
#[inline(always)]
pub(super) fn least<S: Server>(measure: impl Measure<S>, servers: &[S], next: u32) -> Option<u32> {
    // The first of equals wins, so those whose turn it is come first.
    let next = next as usize;
    let best = search(&measure, servers, next, None);
    let passed = servers.get(..next).unwrap_or(servers);
    let best = search(&measure, passed, 0, best)?;
    u32::try_from(best.index).ok()
}

/// The best of `best` and of these from `index` on.
#[inline(always)]
fn search<S: Server>(
    measure: &impl Measure<S>,
    servers: &[S],
    mut index: usize,
    mut best: Option<Measured>,
) -> Option<Measured> {
    while best.is_none() {
        best = measured(measure, servers.get(index)?, index);
        index = index.wrapping_add(1);
    }
    let mut best = best?;
    while let Some(server) = servers.get(index) {
        if measure.weighs(server, best.milliweight) {
            let pending = i64::from(server.pending_within(best.pending_max));
            let load = load(measure, measure.base(server), pending);
            let wins =
                load < best.load || (load == best.load && measure.tie(server, pending) < best.tie);
            if wins {
                let tie = measure.tie(server, pending);
                best = Measured {
                    index,
                    load,
                    tie,
                    ..best
                };
            }
        } else if let Some(other) = measured(measure, server, index) {
            if other.is_less(&best) {
                best = other;
            }
        }
        index = index.wrapping_add(1);
    }
    Some(best)
}

/// At most [`PENDING_MAX`] half-open connections count, so it fits.
#[inline(always)]
fn load<S: Server, M: Measure<S>>(measure: &M, base: i64, pending: i64) -> i64 {
    let count = pending.wrapping_add(M::NEW);
    base.wrapping_add(measure.each().wrapping_mul(count))
}

/// What one comes to, if it can be chosen.
#[inline(always)]
fn measured<S: Server>(measure: &impl Measure<S>, server: &S, index: usize) -> Option<Measured> {
    let milliweight = measure.milliweight(server);
    if milliweight == 0 {
        return None;
    }
    let pending_max = pending_max(milliweight);
    let pending = i64::from(server.pending_within(pending_max));
    let base = measure.base(server).max(measure.floor(server));
    Some(Measured {
        index,
        milliweight,
        pending_max,
        load: load(measure, base, pending),
        tie: measure.tie(server, pending),
    })
}

/// Whether the one has less load for its weight than the other; both can be chosen.
pub(super) fn is_less<S: Server>(measure: &impl Measure<S>, one: &S, other: &S) -> bool {
    match (measured(measure, one, 0), measured(measure, other, 1)) {
        (Some(one), Some(other)) => one.is_less(&other),
        _ => false,
    }
}
