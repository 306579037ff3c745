// SPDX-License-Identifier: GPL-2.0-only
//! What happens to a packet: find its connection or make one, take note, send it on.

use kernel::sync::rcu::Guard;

use crate::balancer::Balancer;
use crate::connection::{Connection, Observed};
use crate::destination::Destination;
use crate::director::config::{Address, Forwarding};
use crate::director::packet::{parse_ipv4, Fragment, Ipv4Packet, Ipv4Tuple, ParseError, Payload};
use crate::director::tcp::TcpEvent;
use crate::dispatch::{Flow, Pick, Scheduled};
use crate::kapi::hashtable::{InsertError, Node};
use crate::kapi::netfilter::{PreRouting, Verdict};
use crate::kapi::packet::{Defragmented, IcmpReply, Packet};

/// A packet is looked up again when its connection ended under it. Twice is rare; more often, only
/// an attack does it.
const LOOKUPS_MAX: u32 = 3;

/// A packet is parsed again when more of it had to be made linear: IP header, ports, and both again
/// for an ICMP error.
const PULLS_MAX: u32 = 4;

impl PreRouting for Balancer {
    fn packet(&self, packet: Packet, guard: &Guard) -> Verdict {
        if !packet.is_for_this_host() {
            return Verdict::Accept(packet);
        }
        let (packet, parsed) = match parse(packet) {
            Ok(both) => both,
            // What is no packet is the stack's to count and drop.
            Err(packet) => return Verdict::Accept(packet),
        };
        if parsed.fragment == Fragment::Whole {
            return self.whole_packet(packet, &parsed, guard);
        }
        if !self.services.load(guard).have_address(parsed.destination) {
            return Verdict::Accept(packet);
        }
        // Only the first fragment has ports, and it may come last: the kernel's reassembly collects
        // them.
        let Defragmented::Whole(packet) = packet.defragment() else {
            return Verdict::Consumed;
        };
        match parse(packet) {
            Ok((packet, parsed)) => self.whole_packet(packet, &parsed, guard),
            Err(packet) => Verdict::Accept(packet),
        }
    }
}

/// Reads the headers, pulling what is not linear; the packet alone if it is none of ours.
fn parse(mut packet: Packet) -> core::result::Result<(Packet, Ipv4Packet), Packet> {
    for _ in 0..PULLS_MAX {
        match parse_ipv4(packet.linear(), packet.bytes()) {
            Ok(parsed) => return Ok((packet, parsed)),
            Err(ParseError::NeedBytes(bytes)) if packet.pull(bytes) => {}
            Err(ParseError::NeedBytes(_) | ParseError::Malformed(_)) => break,
        }
    }
    Err(packet)
}

impl Balancer {
    fn whole_packet(&self, packet: Packet, parsed: &Ipv4Packet, guard: &Guard) -> Verdict {
        match (parsed.payload, parsed.tuple()) {
            (Payload::Tcp(header), Some(tuple)) => {
                self.packet_of(packet, parsed, &tuple, Some(header.event()), guard)
            }
            (Payload::Udp(_), Some(tuple)) => self.packet_of(packet, parsed, &tuple, None, guard),
            (Payload::IcmpError(error), _) => {
                // The packet that it is about was sent by a real server, with the VIP as its
                // source, to the client.
                match self.connection(&error.embedded.reversed(), guard) {
                    Some(node) => send(packet, parsed, &node.destination, guard),
                    None => Verdict::Accept(packet),
                }
            }
            _ => Verdict::Accept(packet),
        }
    }

    fn packet_of(
        &self,
        packet: Packet,
        parsed: &Ipv4Packet,
        tuple: &Ipv4Tuple,
        event: Option<TcpEvent>,
        guard: &Guard,
    ) -> Verdict {
        let hash = self.hash(tuple);
        for _ in 0..LOOKUPS_MAX {
            if let Some(node) = self.connections.lookup(hash, tuple, guard) {
                if self.goes_on(node, event, guard) {
                    return send(packet, parsed, &node.destination, guard);
                }
            }
            let flow = flow_of(tuple, packet.mark());
            let start = |pick: Pick| (pick.one_packet, Connection::start(*tuple, pick));
            let connection = match self.schedule(&flow, event, guard, start) {
                Scheduled::Connection((false, connection)) => connection,
                // Its drop ends it: it was counted, and that is all.
                Scheduled::Connection((true, passing)) => {
                    return send(packet, parsed, &passing.destination, guard)
                }
                Scheduled::NotOurs => return Verdict::Accept(packet),
                Scheduled::NoDestination => {
                    packet.reject(IcmpReply::PortUnreachable);
                    return Verdict::Consumed;
                }
            };
            let destination = connection.destination.clone();
            let deadline = connection.deadline_with(self.timeouts(guard));
            match self.connections.insert(hash, connection, deadline) {
                Ok(()) => return send(packet, parsed, &destination, guard),
                // Another CPU had the same client's packet: that one's connection counts.
                Err(InsertError::Exists) => {}
                // The client sends its SYN again; by then there may be room.
                Err(InsertError::Full | InsertError::NoMemory) => {
                    self.complain_of_room();
                    return Verdict::Consumed;
                }
            }
        }
        Verdict::Consumed
    }

    /// Takes note of a packet of an existing connection; false if the packet belongs to none any
    /// more.
    fn goes_on(&self, node: &Node<Connection>, event: Option<TcpEvent>, guard: &Guard) -> bool {
        if node.destination.is_removed() {
            self.connections.remove(node);
            return false;
        }
        match node.observe(event) {
            Observed::Forward { entered: None } => true,
            Observed::Forward { entered: Some(_) } => {
                // The new state may have a shorter timeout than the timer knows.
                node.arm(node.deadline_with(self.timeouts(guard)));
                true
            }
            Observed::Restart => {
                self.connections.remove(node);
                false
            }
            Observed::Ended => false,
        }
    }
}

/// What scheduling is told of a packet.
pub(crate) fn flow_of(tuple: &Ipv4Tuple, mark: u32) -> Flow {
    Flow {
        transport: tuple.transport,
        client: Address::V4(tuple.source),
        client_port: tuple.source_port,
        virtual_address: Address::V4(tuple.destination),
        virtual_port: tuple.destination_port,
        mark,
    }
}

/// Sends a packet to its real server, or tells the client why not.
fn send(packet: Packet, parsed: &Ipv4Packet, destination: &Destination, guard: &Guard) -> Verdict {
    if destination.forwarding() == Forwarding::LocalNode {
        destination.traffic.packet(packet.bytes());
        return Verdict::Accept(packet);
    }
    let Address::V4(address) = destination.key().address else {
        return Verdict::Consumed;
    };
    let Some(route) = destination.route.get(packet.net(), address, guard) else {
        packet.reject(IcmpReply::HostUnreachable);
        return Verdict::Consumed;
    };
    if route.is_local() {
        destination.traffic.packet(packet.bytes());
        return Verdict::Accept(packet);
    }
    if parsed.ttl <= 1 {
        packet.reject(IcmpReply::TimeExceeded);
        return Verdict::Consumed;
    }
    if let Some(mtu) = route.mtu_exceeded_by(&packet) {
        packet.reject(IcmpReply::FragmentationNeeded { mtu });
        return Verdict::Consumed;
    }
    let bytes = packet.bytes();
    if route.forward(packet) {
        destination.traffic.packet(bytes);
    }
    Verdict::Consumed
}
