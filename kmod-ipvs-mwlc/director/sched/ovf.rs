// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Overflow as in IPVS: the destination with the highest weight takes every connection until its
//! active ones exceed its weight, then the next highest does. When all have, there is none.
//!
//! Half-open connections do not count, as a flood of SYNs could otherwise fill every destination and
//! turn all clients away; so those of one round trip may exceed the weight. In slow start the limit
//! is the part of the weight that has been reached.

use super::server::{chosen, eligible, snapshots, Choice, DestLoad, Request, Server};

/// The first destination with the highest weight among those with room.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    eligible(snapshots(servers))
        .filter(|(_, destination)| has_room(destination))
        .reduce(|highest, other| {
            if other.1.weight > highest.1.weight {
                other
            } else {
                highest
            }
        })
        .map(|(index, _)| chosen(index, request.state))
}

/// Whether its active connections do not exceed its weight yet; both in thousandths.
pub(super) fn has_room(destination: &DestLoad) -> bool {
    u64::from(destination.active).saturating_mul(1000) <= destination.milliweight()
}
