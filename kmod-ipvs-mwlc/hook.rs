// SPDX-License-Identifier: GPL-2.0-only
//! What happens to a packet: find its connection or make one, take note, send it on.

use kernel::sync::rcu::Guard;

use crate::balancer::Balancer;
use crate::connection::{Connection, Observed};
use crate::destination::Destination;
use crate::director::config::{Address, Forwarding};
use crate::director::flow::{arriving, plain, FlowKey, Seen};
use crate::director::packet::{parse_ipv4, Fragment, Ipv4Packet, ParseError, Payload, Tuple};
use crate::director::packet6::{parse_ipv6, Ipv6Packet, EXTENSIONS_MAX};
use crate::director::tcp::TcpEvent;
use crate::dispatch::{Flow, Pick, Scheduled};
use crate::kapi::hashtable::{InsertError, Node, Table, Vacant};
use crate::kapi::ingress::Arrivals;
use crate::kapi::netfilter::{PreRouting, Verdict};
use crate::kapi::packet::{Defragmented, IcmpReply, Packet};
use crate::kapi::route::{TooLong, Way};

/// A packet is scheduled again when another CPU's came first and that connection ended at once.
/// Twice is rare; more often, only an attack does it.
const LOOKUPS_MAX: u32 = 3;

/// A packet is parsed again when more of it had to be made linear: IP header, ports, and both again
/// for an ICMP error.
const PULLS_MAX: u32 = 4;
/// The same of IPv6, where each extension header may be asked for.
const PULLS6_MAX: u32 = 2 * (EXTENSIONS_MAX as u32 + 2);

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
        self.packet_of(packet, &arrival.seen, guard)
    }
}

impl PreRouting for Balancer {
    fn packet(&self, mut packet: Packet, guard: &Guard) -> Verdict {
        if packet.was_seen() || !packet.is_for_this_host() {
            return Verdict::Accept(packet);
        }
        match plain(packet.linear(), packet.bytes()) {
            Some(seen) => self.packet_of(packet, &seen, guard),
            None => self.other_packet(packet, guard),
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
    /// The way of a packet that is not plain: fragments, options, errors, headers in pieces.
    #[inline(never)]
    fn other_packet(&self, packet: Packet, guard: &Guard) -> Verdict {
        if packet.is_ipv6() {
            return self.other_ipv6_packet(packet, guard);
        }
        let (packet, parsed) = match parse(packet) {
            Ok(both) => both,
            // What is no packet is the stack's to count and drop.
            Err(packet) => return Verdict::Accept(packet),
        };
        if parsed.fragment == Fragment::Whole {
            return self.whole_packet(packet, &parsed, guard);
        }
        if !self
            .services
            .load(guard)
            .have_address(Address::V4(parsed.destination))
        {
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

    fn whole_packet(&self, packet: Packet, parsed: &Ipv4Packet, guard: &Guard) -> Verdict {
        let event = match parsed.payload {
            Payload::Tcp(header) => Some(header.event()),
            Payload::Udp(_) => None,
            Payload::IcmpError(error) => {
                // The packet that it is about was sent by a real server, with the VIP as its
                // source, to the client.
                return self.error_about(packet, &error.embedded.reversed(), parsed.ttl, guard);
            }
            Payload::LaterFragment | Payload::Other => return Verdict::Accept(packet),
        };
        let Some(key) = parsed.tuple().as_ref().and_then(FlowKey::of) else {
            return Verdict::Accept(packet);
        };
        let seen = Seen {
            key,
            event,
            ttl: parsed.ttl,
        };
        self.packet_of(packet, &seen, guard)
    }

    /// As [`Balancer::other_packet`], of IPv6.
    fn other_ipv6_packet(&self, mut packet: Packet, guard: &Guard) -> Verdict {
        for _ in 0..PULLS6_MAX {
            match parse_ipv6(packet.linear(), packet.bytes()) {
                Ok(Ipv6Packet::Plain(seen)) => return self.packet_of(packet, &seen, guard),
                Ok(Ipv6Packet::Error {
                    embedded,
                    hop_limit,
                }) => return self.error_about(packet, &embedded.reversed(), hop_limit, guard),
                Err(ParseError::NeedBytes(bytes)) if packet.pull(bytes) => {}
                Ok(Ipv6Packet::Other) | Err(_) => break,
            }
        }
        Verdict::Accept(packet)
    }

    /// The way of an ICMP error about a packet that a real server sent to this connection's client.
    fn error_about(&self, packet: Packet, tuple: &Tuple, ttl: u8, guard: &Guard) -> Verdict {
        let node = FlowKey::of(tuple).and_then(|key| self.connection(&key, guard));
        match node {
            Some(node) => send(packet, ttl, &node.destination, guard),
            None => Verdict::Accept(packet),
        }
    }

    #[inline]
    fn packet_of(&self, mut packet: Packet, seen: &Seen, guard: &Guard) -> Verdict {
        let hash = self.hash(&seen.key);
        if let Some(node) = self.connections.lookup(hash, &seen.key, guard) {
            if self.goes_on(node, seen.event) {
                if node.word().is_watched() {
                    self.watch(node, &mut packet, guard);
                }
                return send(packet, seen.ttl, &node.destination, guard);
            }
        }
        self.packet_of_none(packet, seen, hash, guard)
    }

    /// The way of a packet that belongs to no connection.
    #[inline(never)]
    fn packet_of_none(&self, packet: Packet, seen: &Seen, hash: u32, guard: &Guard) -> Verdict {
        if self.waits_for_marks() && !packet.is_marked() {
            return Verdict::Leave(packet);
        }
        let flow = flow_of(&seen.key.tuple(), packet.mark());
        let start = |vacant: Vacant<Connection>, pick: Pick| {
            let one_packet = pick.one_packet;
            let made = vacant.fill(hash, Connection::start(seen.key, pick));
            (one_packet, made)
        };
        for _ in 0..LOOKUPS_MAX {
            let scheduled = self.schedule(&flow, seen.event, guard, Table::reserve, start);
            let (one_packet, made) = match scheduled {
                Scheduled::Connection(started) => started,
                Scheduled::NotOurs => return Verdict::Accept(packet),
                Scheduled::Dropped => return Verdict::Consumed,
                Scheduled::NoMemory => {
                    self.complain_of_room();
                    return Verdict::Consumed;
                }
                Scheduled::NoDestination => {
                    packet.reject(IcmpReply::PortUnreachable);
                    return Verdict::Consumed;
                }
            };
            if one_packet {
                // Its drop ends it: it was counted, and that is all.
                return send(packet, seen.ttl, &made.destination, guard);
            }
            match self.insert(made, guard) {
                Ok(node) => return send(packet, seen.ttl, &node.destination, guard),
                // The client sends its SYN again; by then there may be room.
                Err(InsertError::Full | InsertError::NoMemory) => {
                    self.complain_of_room();
                    return Verdict::Consumed;
                }
                Err(InsertError::Exists) => {}
            }
            // Another CPU had the same client's packet: that one's connection counts.
            if let Some(node) = self.connections.lookup(hash, &seen.key, guard) {
                if self.goes_on(node, seen.event) {
                    return send(packet, seen.ttl, &node.destination, guard);
                }
            }
        }
        Verdict::Consumed
    }

    /// Takes note of a packet of an existing connection; false if the packet belongs to none any
    /// more.
    #[inline]
    fn goes_on(&self, node: &Node<Connection>, event: Option<TcpEvent>) -> bool {
        if node.destination.is_removed() {
            self.connections.remove(node);
            return false;
        }
        match node.observe(event, self.connections.context()) {
            Observed::Forward { entered: None } => true,
            Observed::Forward { entered: Some(_) } => {
                // The new state may have a shorter timeout.
                self.connections.hasten(node);
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
pub(crate) fn flow_of(tuple: &Tuple, mark: u32) -> Flow {
    Flow {
        transport: tuple.transport,
        client: tuple.source,
        client_port: tuple.source_port,
        virtual_address: tuple.destination,
        virtual_port: tuple.destination_port,
        mark,
    }
}

/// Sends a packet to its real server, or tells the client why not.
fn send(packet: Packet, ttl: u8, destination: &Destination, guard: &Guard) -> Verdict {
    let address = destination.key().address;
    let bytes = packet.bytes();
    let way = match destination.forwarding() {
        Forwarding::LocalNode => Way::Local,
        Forwarding::DirectRouting => destination.route.get(packet.net(), address, guard),
    };
    let route = match way {
        Way::Remote(route) => route,
        Way::Local => {
            destination.traffic.packet(bytes);
            return Verdict::Accept(packet);
        }
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
