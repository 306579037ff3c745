// SPDX-License-Identifier: GPL-2.0-only
//! This host itself is the real server: the packet goes its usual way.

use crate::kapi::netfilter::Verdict;
use crate::kapi::packet::Packet;
use crate::state::destination::Destination;

/// Counts the packet and lets it go on.
pub(super) fn send(packet: Packet, destination: &Destination) -> Verdict {
    destination.traffic.packet(packet.bytes());
    Verdict::Accept(packet)
}
