// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which connection a packet belongs to, in a form that compares and hashes in a few instructions,
//! and the short way to it for a plain packet.

use crate::director::address::{Address, Transport};
use crate::director::packet::Tuple;
use crate::director::service_key::Endpoint;
use crate::director::tcp::{self, TcpEvent};

/// What an IPv4 address has in its second word, as in `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2). An IPv6
/// packet may have such an address; its key is told apart by [`IPV6`].
const MAPPED: u64 = 0xffff_0000_0000;

const PORTS_SHIFT: u32 = 16;
const TRANSPORT_SHIFT: u32 = 32;
/// The bit of `rest` that IPv6 keys have.
const IPV6: u64 = 1 << 40;

/// Client to virtual address: both ends and the transport.
#[derive(Clone, Copy, Debug)]
pub struct FlowKey {
    /// Addresses, as big-endian words.
    source: [u64; 2],
    destination: [u64; 2],
    /// Source port, destination port, transport, family.
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

    /// The key of an IPv6 packet; ports in host order.
    #[inline]
    pub const fn ipv6(
        transport: Transport,
        source: [u8; 16],
        source_port: u16,
        destination: [u8; 16],
        destination_port: u16,
    ) -> FlowKey {
        FlowKey {
            source: halves(source),
            destination: halves(destination),
            rest: source_port as u64
                | (destination_port as u64) << PORTS_SHIFT
                | (transport.number() as u64) << TRANSPORT_SHIFT
                | IPV6,
        }
    }

    /// The key of a tuple; `None` if its addresses are of two families.
    pub const fn of(tuple: &Tuple) -> Option<FlowKey> {
        let Tuple {
            transport,
            source,
            source_port,
            destination,
            destination_port,
        } = *tuple;
        match (source, destination) {
            (Address::V4(from), Address::V4(to)) => Some(FlowKey::ipv4(
                transport,
                from,
                source_port,
                to,
                destination_port,
            )),
            (Address::V6(from), Address::V6(to)) => Some(FlowKey::ipv6(
                transport,
                from,
                source_port,
                to,
                destination_port,
            )),
            _ => None,
        }
    }

    /// The tuple again.
    pub const fn tuple(&self) -> Tuple {
        let virtual_end = self.virtual_endpoint();
        Tuple {
            transport: virtual_end.transport,
            source: self.source(),
            source_port: self.source_port(),
            destination: virtual_end.address,
            destination_port: virtual_end.port,
        }
    }

    /// The client's address.
    pub const fn source(&self) -> Address {
        self.address(self.source)
    }

    /// The client's port, in host order.
    pub const fn source_port(&self) -> u16 {
        self.rest as u16
    }

    /// What the client wants: the virtual address and port.
    pub const fn virtual_endpoint(&self) -> Endpoint {
        Endpoint {
            transport: self.transport(),
            address: self.address(self.destination),
            port: (self.rest >> PORTS_SHIFT) as u16,
        }
    }

    const fn address(&self, [high, low]: [u64; 2]) -> Address {
        if self.is_ipv6() {
            Address::V6((((high as u128) << 64) | low as u128).to_be_bytes())
        } else {
            Address::V4((low as u32).to_be_bytes())
        }
    }

    /// Whether it is of IPv6.
    #[inline]
    pub const fn is_ipv6(&self) -> bool {
        self.rest & IPV6 != 0
    }

    /// Of an IPv6 key: whether both ends are addresses of one host each, and neither is the loopback's.
    const fn is_between_hosts(&self) -> bool {
        is_of_one_host(self.source) && is_of_one_host(self.destination)
    }

    /// TCP or UDP.
    #[inline]
    pub const fn transport(&self) -> Transport {
        if (self.rest >> TRANSPORT_SHIFT) as u8 == TCP {
            Transport::Tcp
        } else {
            Transport::Udp
        }
    }

    /// All that differs between two IPv4 keys of one transport, for a hash.
    #[inline]
    pub const fn short_words(&self) -> [u32; 3] {
        let [_, source] = self.source;
        let [_, destination] = self.destination;
        [source as u32, destination as u32, self.rest as u32]
    }

    /// All that differs between two keys, for a hash.
    pub const fn words(&self) -> [u64; 5] {
        let [a, b] = self.source;
        let [c, d] = self.destination;
        [a, b, c, d, self.rest]
    }
}

/// An IPv6 address as two big-endian words.
#[inline]
const fn halves(address: [u8; 16]) -> [u64; 2] {
    let address = u128::from_be_bytes(address);
    [(address >> 64) as u64, address as u64]
}

/// Whether an IPv6 address is neither multicast nor the loopback's.
#[inline]
const fn is_of_one_host([high, low]: [u64; 2]) -> bool {
    high >> 56 != 0xff && (high != 0 || low != 1)
}

/// What the way of a packet depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its connection.
    pub key: FlowKey,
    /// What a TCP segment says; `None` for UDP.
    pub event: Option<TcpEvent>,
    /// Time to live, or IPv6's hop limit.
    pub ttl: u8,
}

const PLAIN_VERSION_IHL: u8 = 0x45;
/// More fragments, and the offset; the other two bits do not matter here.
const FRAGMENT_BITS: u16 = 0x3fff;
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const UDP_HEADER_BYTES: usize = 8;
const TCP_HEADER_BYTES: usize = 20;
const TCP: u8 = Transport::Tcp.number();
const UDP: u8 = Transport::Udp.number();

/// What nearly every packet is: IPv4 without options or IPv6 without extensions, whole, TCP or UDP,
/// its headers at hand in `bytes`. `None` of any other, malformed ones included:
/// [`crate::director::packet`] and [`crate::director::packet6`] say what those are, and the same of
/// these.
#[inline]
pub fn plain(bytes: &[u8], packet_bytes: usize) -> Option<Seen> {
    let header = bytes.first_chunk::<IPV4_HEADER_BYTES>()?;
    let plain = if is_ipv6(header) {
        plain_ipv6(bytes, packet_bytes)?
    } else {
        plain_ipv4(header, bytes, packet_bytes)?
    };
    Some(plain.seen)
}

/// A plain packet, and where it ends; in its frame there may be padding behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// What its way depends on.
    pub seen: Seen,
    /// Its length with the IP header.
    pub bytes: usize,
}

/// The same as [`plain`] of a packet that the IP layer has not looked at yet, `frame_bytes` from the IP
/// header to the end of its frame. `None` also of one that the IP layer would drop: its header's
/// checksum is wrong (RFC 1122, 3.2.1.2), or it has an IPv6 address that no packet on a link has
/// (RFC 4291, 2.5.3 and 2.7).
#[inline]
pub fn arriving(bytes: &[u8], frame_bytes: usize) -> Option<Arrival> {
    let header = bytes.first_chunk::<IPV4_HEADER_BYTES>()?;
    if is_ipv6(header) {
        return plain_ipv6(bytes, frame_bytes)
            .filter(|arrival| arrival.seen.key.is_between_hosts());
    }
    if !sums_up(header) {
        return None;
    }
    plain_ipv4(header, bytes, frame_bytes)
}

#[inline]
const fn is_ipv6(header: &[u8; IPV4_HEADER_BYTES]) -> bool {
    let [version, ..] = *header;
    version >> 4 == 6
}

/// Whether a header's words sum to all ones in one's complement (RFC 1071), in which neither the
/// order of bytes nor the size of words matters.
#[inline]
const fn sums_up(header: &[u8; IPV4_HEADER_BYTES]) -> bool {
    let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, e0, e1, e2, e3] = *header;
    let sum = (u32::from_ne_bytes([a0, a1, a2, a3]) as u64)
        .wrapping_add(u32::from_ne_bytes([b0, b1, b2, b3]) as u64)
        .wrapping_add(u32::from_ne_bytes([c0, c1, c2, c3]) as u64)
        .wrapping_add(u32::from_ne_bytes([d0, d1, d2, d3]) as u64)
        .wrapping_add(u32::from_ne_bytes([e0, e1, e2, e3]) as u64);
    // Below 2^35, then 2^33, 2^18, 2^17: each step adds what is above to what is below.
    let sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    sum == 0xffff
}

#[inline]
fn plain_ipv4(
    header: &[u8; IPV4_HEADER_BYTES],
    bytes: &[u8],
    packet_bytes: usize,
) -> Option<Arrival> {
    let [version_ihl, _, l0, l1, _, _, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        *header;
    let rest = bytes.get(IPV4_HEADER_BYTES..)?;
    let total_bytes = usize::from(u16::from_be_bytes([l0, l1]));
    if version_ihl != PLAIN_VERSION_IHL
        || u16::from_be_bytes([f0, f1]) & FRAGMENT_BITS != 0
        || total_bytes > packet_bytes
    {
        return None;
    }
    let payload_bytes = total_bytes.checked_sub(IPV4_HEADER_BYTES)?;
    let ends = ends(protocol, rest, payload_bytes)?;
    let seen = Seen {
        key: FlowKey::ipv4(
            ends.transport,
            [s0, s1, s2, s3],
            ends.source_port,
            [d0, d1, d2, d3],
            ends.destination_port,
        ),
        event: ends.event,
        ttl,
    };
    Some(Arrival {
        seen,
        bytes: total_bytes,
    })
}

fn plain_ipv6(bytes: &[u8], packet_bytes: usize) -> Option<Arrival> {
    let (fixed, rest) = bytes.split_first_chunk::<8>()?;
    let (source, rest) = rest.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    let [_, _, _, _, l0, l1, protocol, hop_limit] = *fixed;
    let payload_bytes = usize::from(u16::from_be_bytes([l0, l1]));
    if payload_bytes > packet_bytes.checked_sub(IPV6_HEADER_BYTES)? {
        return None;
    }
    let ends = ends(protocol, rest, payload_bytes)?;
    let seen = Seen {
        key: FlowKey::ipv6(
            ends.transport,
            *source,
            ends.source_port,
            *destination,
            ends.destination_port,
        ),
        event: ends.event,
        ttl: hop_limit,
    };
    Some(Arrival {
        seen,
        bytes: payload_bytes.wrapping_add(IPV6_HEADER_BYTES),
    })
}

/// What a transport's header says.
pub(super) struct Ends {
    pub(super) transport: Transport,
    pub(super) event: Option<TcpEvent>,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
}

/// Reads the transport's header at the front of `bytes`; `None` if it is neither TCP nor UDP, not at
/// hand, or malformed.
#[inline]
pub(super) fn ends(protocol: u8, bytes: &[u8], payload_bytes: usize) -> Option<Ends> {
    let (transport, event) = if protocol == TCP {
        let header = bytes.first_chunk::<TCP_HEADER_BYTES>()?;
        let [.., offset, flags, _, _, _, _, _, _] = *header;
        let header_bytes = usize::from(offset >> 4) << 2;
        if header_bytes < TCP_HEADER_BYTES || header_bytes > payload_bytes {
            return None;
        }
        (Transport::Tcp, Some(tcp::event_of(flags)))
    } else if protocol == UDP {
        let [_, _, _, _, l0, l1, _, _] = *bytes.first_chunk::<UDP_HEADER_BYTES>()?;
        let datagram_bytes = usize::from(u16::from_be_bytes([l0, l1]));
        if datagram_bytes < UDP_HEADER_BYTES || datagram_bytes > payload_bytes {
            return None;
        }
        (Transport::Udp, None)
    } else {
        return None;
    };
    let [p0, p1, q0, q1] = *bytes.first_chunk::<4>()?;
    Some(Ends {
        transport,
        event,
        source_port: u16::from_be_bytes([p0, p1]),
        destination_port: u16::from_be_bytes([q0, q1]),
    })
}
