// SPDX-License-Identifier: GPL-2.0-only
//! What happens to a packet: find its connection or make one, take note, send it on.

use kernel::sync::rcu::Guard;

use super::dispatch::{open, redispatch, Opened};
use super::transmit::send;
use super::watch::watch;
use crate::director::drain::DrainPolicy;
use crate::director::packet::{arriving, parse, plain, ParseError, Parsed, Seen, EXTENSIONS_MAX};
use crate::director::tcp::TcpEvent;
use crate::kapi::hashtable::{InsertError, Node};
use crate::kapi::ingress::Arrivals;
use crate::kapi::netfilter::{PreRouting, Verdict};
use crate::kapi::packet::{Defragmented, IcmpReply, Packet};
use crate::state::balancer::Balancer;
use crate::state::connection::{Connection, Observed};

/// A packet is scheduled again when another CPU's came first and that connection ended at once.
/// Twice is rare; more often, only an attack does it.
const LOOKUPS_MAX: u32 = 3;

/// A packet is parsed again when more of it had to be made linear: its IP header, each extension header, the
/// ports, and all of that again for an ICMP error.
const PULLS_MAX: u32 = 2 * (EXTENSIONS_MAX as u32 + 2);

impl Arrivals for Balancer {
    /// Only plain packets: what becomes of others is decided in PRE_ROUTING.
    fn arrival(&self, mut packet: Packet, guard: &Guard) -> Verdict {
        if !self.settings.takes_at_ingress() {
            return Verdict::Leave(packet);
        }
        let Some(arrival) = arriving(packet.linear(), packet.bytes()) else {
            return Verdict::Leave(packet);
        };
        if !packet.trim(arrival.bytes) {
            return Verdict::Leave(packet);
        }
        packet_of(self, packet, &arrival.seen, guard)
    }
}

impl PreRouting for Balancer {
    fn packet(&self, mut packet: Packet, guard: &Guard) -> Verdict {
        if packet.was_seen() || !packet.is_for_this_host() {
            return Verdict::Accept(packet);
        }
        match plain(packet.linear(), packet.bytes()) {
            Some(seen) => packet_of(self, packet, &seen, guard),
            None => other_packet(self, packet, guard),
        }
    }
}

/// Reads the headers, pulling what is not linear; the packet alone if it is none.
fn parsed(mut packet: Packet) -> core::result::Result<(Packet, Parsed), Packet> {
    for _ in 0..PULLS_MAX {
        match parse(packet.linear(), packet.bytes()) {
            Ok(parsed) => return Ok((packet, parsed)),
            Err(ParseError::NeedBytes(bytes)) if packet.pull(bytes) => {}
            Err(ParseError::NeedBytes(_) | ParseError::Malformed) => break,
        }
    }
    Err(packet)
}

/// The way of a packet that is not plain: fragments, options, errors, headers in pieces.
#[inline(never)]
fn other_packet(balancer: &Balancer, packet: Packet, guard: &Guard) -> Verdict {
    let (packet, destination) = match parsed(packet) {
        Ok((packet, Parsed::Fragment { destination })) => (packet, destination),
        Ok((packet, whole)) => return whole_packet(balancer, packet, &whole, guard),
        // What is no packet is the stack's to count and drop.
        Err(packet) => return Verdict::Accept(packet),
    };
    if !balancer.services.load(guard).have_address(destination) {
        return Verdict::Accept(packet);
    }
    // Only the first fragment has ports, and it may come last: the kernel's reassembly collects
    // them.
    let Defragmented::Whole(packet) = packet.defragment() else {
        return Verdict::Consumed;
    };
    match parsed(packet) {
        Ok((packet, whole)) => whole_packet(balancer, packet, &whole, guard),
        Err(packet) => Verdict::Accept(packet),
    }
}

fn whole_packet(balancer: &Balancer, packet: Packet, parsed: &Parsed, guard: &Guard) -> Verdict {
    match parsed {
        Parsed::Whole(seen) => packet_of(balancer, packet, seen, guard),
        Parsed::Error { about, ttl } => match balancer.connection(about, guard) {
            // A real server sent the packet that the error is about, so it shall hear of it.
            Some(node) => send(packet, *ttl, node, guard),
            None => Verdict::Accept(packet),
        },
        Parsed::Fragment { .. } | Parsed::Other => Verdict::Accept(packet),
    }
}

#[inline]
fn packet_of(balancer: &Balancer, mut packet: Packet, seen: &Seen, guard: &Guard) -> Verdict {
    let hash = balancer.hash(&seen.key);
    let Some(node) = balancer.connections.lookup(hash, &seen.key, guard) else {
        return packet_of_none(balancer, packet, seen, hash, guard);
    };
    if !goes_on(balancer, node, seen.event, guard) {
        return packet_of_ended(balancer, packet, seen, hash, guard);
    }
    if node.word().is_watched() {
        watch(balancer, node, &mut packet, guard);
    }
    send(packet, seen.ttl, node, guard)
}

/// The way of a packet whose connection has just ended: it may go on at another real server.
#[cold]
#[inline(never)]
fn packet_of_ended(
    balancer: &Balancer,
    packet: Packet,
    seen: &Seen,
    hash: u32,
    guard: &Guard,
) -> Verdict {
    match balancer.connections.lookup(hash, &seen.key, guard) {
        Some(node) if goes_on(balancer, node, seen.event, guard) => {
            send(packet, seen.ttl, node, guard)
        }
        _ => packet_of_none(balancer, packet, seen, hash, guard),
    }
}

/// The way of a packet that belongs to no connection.
#[inline(never)]
fn packet_of_none(
    balancer: &Balancer,
    packet: Packet,
    seen: &Seen,
    hash: u32,
    guard: &Guard,
) -> Verdict {
    if balancer.waits_for_marks() && !packet.is_marked() {
        return Verdict::Leave(packet);
    }
    for _ in 0..LOOKUPS_MAX {
        let opened = open(balancer, &seen.key, hash, packet.mark(), seen.event, guard);
        let (made, one_packet) = match opened {
            Opened::Connection { made, one_packet } => (made, one_packet),
            Opened::NotOurs => return Verdict::Accept(packet),
            Opened::Dropped => return Verdict::Consumed,
            Opened::NoMemory => {
                balancer.complain_of_room();
                return Verdict::Consumed;
            }
            Opened::NoDestination => {
                packet.reject(IcmpReply::PortUnreachable);
                return Verdict::Consumed;
            }
        };
        if one_packet {
            // Its drop ends it: it was counted, and that is all.
            return send(packet, seen.ttl, &made, guard);
        }
        match balancer.insert(made, guard) {
            Ok(node) => return send(packet, seen.ttl, node, guard),
            // The client sends its SYN again; by then there may be room.
            Err(InsertError::Full | InsertError::NoMemory) => {
                balancer.complain_of_room();
                return Verdict::Consumed;
            }
            Err(InsertError::Exists) => {}
        }
        // Another CPU had the same client's packet: that one's connection counts.
        if let Some(node) = balancer.connections.lookup(hash, &seen.key, guard) {
            if goes_on(balancer, node, seen.event, guard) {
                return send(packet, seen.ttl, node, guard);
            }
        }
    }
    Verdict::Consumed
}

/// Takes note of a packet of an existing connection; false if the packet belongs to none any
/// more, or to one that has just taken the place of this one.
#[inline]
fn goes_on(
    balancer: &Balancer,
    node: &Node<Connection>,
    event: Option<TcpEvent>,
    guard: &Guard,
) -> bool {
    if node.destination.is_removed() {
        leave_removed(balancer, node, guard);
        return false;
    }
    match node.observe(event, balancer.connections.context()) {
        Observed::Forward { entered: None } => true,
        Observed::Forward { entered: Some(_) } => {
            // The new state may have a shorter timeout.
            balancer.connections.hasten(node);
            true
        }
        Observed::Restart => {
            balancer.connections.remove(node);
            false
        }
        Observed::Ended => false,
    }
}

/// The real server of a connection was removed: it moves to another one if the removal was to have that,
/// or else ends.
#[cold]
#[inline(never)]
fn leave_removed(balancer: &Balancer, node: &Node<Connection>, guard: &Guard) {
    let moves = node.destination.drain.policy() == DrainPolicy::Redispatch;
    if !(moves && redispatch(balancer, node, guard)) {
        balancer.connections.remove(node);
    }
}
