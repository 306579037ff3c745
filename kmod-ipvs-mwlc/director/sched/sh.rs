// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Source hashing as in IPVS, the paper's ONE-IP: a client's address selects its destination, and
//! nothing is remembered.
//!
//! 256 slots are dealt out in the destinations' order, to each as many as its weight (a quiesced one:
//! one), around and around. The client's address is hashed to a slot. If the slot's destination is
//! quiesced or overloaded, the client gets none, unless `sh-fallback` (`flag-1`) is set: then the
//! slots after twice the slot's number are tried in turn. With `sh-port` (`flag-2`) the client's port
//! is hashed too, so that one client's connections spread.

use super::hash;
use super::server::{chosen, snapshots, Choice, DestLoad, Request, Server};
use crate::director::flags::{SERVICE_SCHED1, SERVICE_SCHED2};

/// Slots that are dealt out.
pub const SLOTS: u32 = 256;

/// The destination of the client's slot.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    let destinations = snapshots(servers);
    let port = match request.flags & SERVICE_SCHED2 {
        0 => 0,
        _ => request.client_port,
    };
    let slot = u32::from(hash::multiplicative_8_bits(hash::fold(
        request.client,
        port,
    )));
    let run = |first: u32, count: u32| available_in(destinations.clone(), first, count);
    let index = match run(slot, 1) {
        None if request.flags & SERVICE_SCHED1 != 0 => {
            let restart = slot.wrapping_mul(2) & SLOTS.wrapping_sub(1);
            run(restart, SLOTS.wrapping_sub(restart)).or_else(|| run(0, restart))
        }
        found => found,
    }?;
    Some(chosen(index, request.state))
}

/// The first available destination of the slots from `first`, `count` of them, which does not reach
/// beyond the last slot.
///
/// The slots need no table: the number of a slot, modulo the sum of all shares, falls into the share
/// of its destination.
fn available_in(
    destinations: impl Iterator<Item = DestLoad> + Clone,
    first: u32,
    count: u32,
) -> Option<u32> {
    let total = destinations.clone().fold(0u64, |sum, destination| {
        sum.saturating_add(share(&destination))
    });
    let first = u64::from(first).checked_rem(total)?;
    let mut nearest: Option<(u64, u32)> = None;
    let mut start = 0u64;
    let mut index = 0u32;
    for destination in destinations {
        let end = start.saturating_add(share(&destination));
        // Slots from `first` to this destination's next one, 0 if `first` is its own.
        let distance = if end > first {
            start.saturating_sub(first)
        } else {
            start.saturating_add(total).saturating_sub(first)
        };
        let is_nearer = nearest.is_none_or(|(least, _)| distance < least);
        if destination.is_eligible() && distance < u64::from(count) && is_nearer {
            nearest = Some((distance, index));
        }
        start = end;
        index = index.wrapping_add(1);
    }
    nearest.map(|(_, index)| index)
}

/// Slots that a destination is dealt in one round.
fn share(destination: &DestLoad) -> u64 {
    u64::from(destination.weight.max(1))
}
