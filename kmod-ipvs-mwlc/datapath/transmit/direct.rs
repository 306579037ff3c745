// SPDX-License-Identifier: GPL-2.0-only
//! Direct routing: only the link-layer destination changes, so the packet reaches the real server with the
//! virtual address on it.

use kernel::sync::rcu::Guard;

use super::local;
use crate::kapi::netfilter::Verdict;
use crate::kapi::packet::{IcmpReply, Packet};
use crate::kapi::route::{TooLong, Way};
use crate::state::destination::Destination;

/// Sends the packet by the real server's route, or tells the client why not.
#[inline]
pub(super) fn send(packet: Packet, ttl: u8, destination: &Destination, guard: &Guard) -> Verdict {
    let address = destination.key().address;
    let bytes = packet.bytes();
    let route = match destination.route.get(packet.net(), address, guard) {
        Way::Remote(route) => route,
        Way::Local => return local::send(packet, destination),
        Way::None => {
            packet.reject(IcmpReply::HostUnreachable);
            return Verdict::Consumed;
        }
    };
    if ttl <= 1 {
        packet.reject(IcmpReply::TimeExceeded);
        return Verdict::Consumed;
    }
    let sent = if bytes <= route.mtu() as usize {
        route.forward(packet)
    } else {
        match route.forward_long(packet) {
            Ok(sent) => sent,
            Err(TooLong { packet, mtu }) => {
                packet.reject(IcmpReply::FragmentationNeeded { mtu });
                return Verdict::Consumed;
            }
        }
    };
    if sent {
        destination.traffic.packet(bytes);
    }
    Verdict::Consumed
}
