// SPDX-License-Identifier: GPL-2.0-only
//! Sends a packet to its connection's real server. Each way to send has its file.

mod direct;
mod local;

use kernel::sync::rcu::Guard;

use crate::director::config::Forwarding;
use crate::kapi::netfilter::Verdict;
use crate::kapi::packet::Packet;
use crate::state::connection::Connection;

/// Sends a packet with this time to live to its connection's real server, in the way that the connection
/// started with, or tells the client why not.
#[inline]
pub(super) fn send(packet: Packet, ttl: u8, connection: &Connection, guard: &Guard) -> Verdict {
    let destination = &*connection.destination;
    match connection.word().forwarding() {
        Forwarding::DirectRouting => direct::send(packet, ttl, destination, guard),
        Forwarding::LocalNode => local::send(packet, destination),
    }
}
