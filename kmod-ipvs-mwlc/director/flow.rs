// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which connection a packet belongs to, in a form that compares and hashes in a few instructions,
//! and the short way to it for a plain packet.

use crate::director::config::Transport;
use crate::director::packet::Ipv4Tuple;
use crate::director::tcp::{self, TcpEvent};

/// The four bytes that the first word of an IPv4 address ends in, as in `::ffff:a.b.c.d` (RFC 4291,
/// 2.5.5.2): no packet on a wire has such an IPv6 address.
const MAPPED: u64 = 0xffff_0000_0000;

const PORTS_SHIFT: u32 = 16;
const TRANSPORT_SHIFT: u32 = 32;

/// Client to virtual address: both ends and the transport.
#[derive(Clone, Copy, Debug)]
pub struct FlowKey {
    /// Addresses, in network order as the machine reads its bytes.
    source: [u64; 2],
    destination: [u64; 2],
    /// Source port, destination port, transport.
    rest: u64,
}

// Not derived: the derived one would compare word by word, with a branch at each.
impl PartialEq for FlowKey {
    #[inline]
    fn eq(&self, other: &FlowKey) -> bool {
        let [a, b] = self.source;
        let [c, d] = other.source;
        let [e, f] = self.destination;
        let [g, h] = other.destination;
        (a ^ c) | (b ^ d) | (e ^ g) | (f ^ h) | (self.rest ^ other.rest) == 0
    }
}

impl Eq for FlowKey {}

impl FlowKey {
    /// The key of an IPv4 packet; ports in host order.
    #[inline]
    pub const fn ipv4(
        transport: Transport,
        source: [u8; 4],
        source_port: u16,
        destination: [u8; 4],
        destination_port: u16,
    ) -> FlowKey {
        FlowKey {
            source: [0, MAPPED | u32::from_be_bytes(source) as u64],
            destination: [0, MAPPED | u32::from_be_bytes(destination) as u64],
            rest: source_port as u64
                | (destination_port as u64) << PORTS_SHIFT
                | (transport.number() as u64) << TRANSPORT_SHIFT,
        }
    }

    /// The key of an IPv4 tuple.
    pub const fn of(tuple: &Ipv4Tuple) -> FlowKey {
        FlowKey::ipv4(
            tuple.transport,
            tuple.source,
            tuple.source_port,
            tuple.destination,
            tuple.destination_port,
        )
    }

    /// The tuple again.
    pub const fn tuple(&self) -> Ipv4Tuple {
        let [_, source] = self.source;
        let [_, destination] = self.destination;
        Ipv4Tuple {
            transport: self.transport(),
            source: (source as u32).to_be_bytes(),
            source_port: self.rest as u16,
            destination: (destination as u32).to_be_bytes(),
            destination_port: (self.rest >> PORTS_SHIFT) as u16,
        }
    }

    /// TCP or UDP.
    #[inline]
    pub const fn transport(&self) -> Transport {
        if self.rest >> TRANSPORT_SHIFT == Transport::Tcp.number() as u64 {
            Transport::Tcp
        } else {
            Transport::Udp
        }
    }

    /// All that differs between two IPv4 keys of one transport, for a hash.
    #[inline]
    pub const fn words(&self) -> [u32; 3] {
        let [_, source] = self.source;
        let [_, destination] = self.destination;
        [source as u32, destination as u32, self.rest as u32]
    }
}

/// What the way of a packet depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its connection.
    pub key: FlowKey,
    /// What a TCP segment says; `None` for UDP.
    pub event: Option<TcpEvent>,
    /// Time to live.
    pub ttl: u8,
}

const PLAIN_VERSION_IHL: u8 = 0x45;
/// More fragments, and the offset; the other two bits do not matter here.
const FRAGMENT_BITS: u16 = 0x3fff;
const IPV4_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;
const TCP_HEADER_BYTES: usize = 20;
const TCP: u8 = Transport::Tcp.number();
const UDP: u8 = Transport::Udp.number();

/// What nearly every packet is: IPv4 without options, whole, TCP or UDP, its headers at hand in
/// `bytes`. `None` of any other, malformed ones included: [`crate::director::packet`] says what
/// those are, and the same of these.
#[inline]
pub fn plain(bytes: &[u8], packet_bytes: usize) -> Option<Seen> {
    let (ip, rest) = bytes.split_first_chunk::<IPV4_HEADER_BYTES>()?;
    let [version_ihl, _, l0, l1, _, _, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        *ip;
    let total_bytes = usize::from(u16::from_be_bytes([l0, l1]));
    if version_ihl != PLAIN_VERSION_IHL
        || u16::from_be_bytes([f0, f1]) & FRAGMENT_BITS != 0
        || total_bytes > packet_bytes
    {
        return None;
    }
    let payload_bytes = total_bytes.checked_sub(IPV4_HEADER_BYTES)?;
    let (transport, event) = if protocol == TCP {
        let header = rest.first_chunk::<TCP_HEADER_BYTES>()?;
        let [.., offset, flags, _, _, _, _, _, _] = *header;
        let header_bytes = usize::from(offset >> 4) << 2;
        if header_bytes < TCP_HEADER_BYTES || header_bytes > payload_bytes {
            return None;
        }
        (Transport::Tcp, Some(tcp::event_of(flags)))
    } else if protocol == UDP {
        let [_, _, _, _, l0, l1, _, _] = *rest.first_chunk::<UDP_HEADER_BYTES>()?;
        let datagram_bytes = usize::from(u16::from_be_bytes([l0, l1]));
        if datagram_bytes < UDP_HEADER_BYTES || datagram_bytes > payload_bytes {
            return None;
        }
        (Transport::Udp, None)
    } else {
        return None;
    };
    let [p0, p1, q0, q1] = *rest.first_chunk::<4>()?;
    Some(Seen {
        key: FlowKey::ipv4(
            transport,
            [s0, s1, s2, s3],
            u16::from_be_bytes([p0, p1]),
            [d0, d1, d2, d3],
            u16::from_be_bytes([q0, q1]),
        ),
        event,
        ttl,
    })
}
