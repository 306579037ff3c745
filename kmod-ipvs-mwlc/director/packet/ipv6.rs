// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IPv6 packets with extension headers or an ICMPv6 error, from the bytes that the hook sees.
//!
//! As [`crate::director::packet`] does for IPv4. The kernel's reassembly has run before the hook, so
//! a packet that still is a fragment is not the director's. The chain of extension headers is
//! followed for [`EXTENSIONS_MAX`] of them and [`EXTENSIONS_BYTES_MAX`] bytes; a longer one is no client's.

use crate::director::address::{Address, Transport};
use crate::director::flow::{ends, FlowKey, Seen};
use crate::director::packet::{Malformed, ParseError, TcpHeader, Tuple, View};

/// Extension headers of a packet that are passed over: each kind once, and room to spare.
pub const EXTENSIONS_MAX: usize = 8;
/// Bytes that they may have in all.
pub const EXTENSIONS_BYTES_MAX: usize = 256;
/// More bytes than this are never asked for: two IPv6 headers with extensions, ICMPv6, and a TCP
/// header.
pub const PARSE6_BYTES_MAX: usize = 2 * (IPV6_HEADER_BYTES + EXTENSIONS_BYTES_MAX) + 8 + 20;

const IPV6_HEADER_BYTES: usize = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
/// ICMPv6's errors have the types below this (RFC 4443, 2.1).
const ICMPV6_INFORMATIONAL: u8 = 128;

/// What the director does with an IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6Packet {
    /// A segment or datagram of a client.
    Plain(Seen),
    /// An ICMPv6 error about a packet of one of our transports.
    Error {
        /// The connection of the embedded packet, in that packet's direction.
        embedded: Tuple,
        /// Hop limit.
        hop_limit: u8,
    },
    /// None of these.
    Other,
}

/// Parses the IPv6 packet that starts with `bytes` and is `packet_bytes` long in all.
pub fn parse_ipv6(bytes: &[u8], packet_bytes: usize) -> Result<Ipv6Packet, ParseError> {
    let (header, view) = outermost(bytes, packet_bytes)?;
    let Some((protocol, start)) = transport_of(&view, header.next, IPV6_HEADER_BYTES)? else {
        return Ok(Ipv6Packet::Other);
    };
    match Transport::from_number(u16::from(protocol)) {
        Some(transport) => seen(&view, &header, transport, start),
        None if protocol == ICMPV6 => error(&view, &header, start),
        None => Ok(Ipv6Packet::Other),
    }
}

/// The TCP header of such a packet, and where it starts; `None` of any other.
pub fn parse_tcp6(
    bytes: &[u8],
    packet_bytes: usize,
) -> Result<Option<(TcpHeader, usize)>, ParseError> {
    let (header, view) = outermost(bytes, packet_bytes)?;
    match transport_of(&view, header.next, IPV6_HEADER_BYTES)? {
        Some((protocol, start)) if protocol == Transport::Tcp.number() => {
            let tcp = TcpHeader::parse(&view, start, Malformed::TransportHeader)?;
            Ok(Some((tcp, start)))
        }
        _ => Ok(None),
    }
}

/// The packet's own header, and the packet without what follows it in the frame.
fn outermost(bytes: &[u8], packet_bytes: usize) -> Result<(Header, View<'_>), ParseError> {
    let outer = View {
        bytes,
        end: packet_bytes,
    };
    let header = Header::parse(&outer, 0, Malformed::TooShort)?;
    let end = IPV6_HEADER_BYTES.saturating_add(header.payload_bytes);
    if end > packet_bytes {
        return Err(ParseError::Malformed(Malformed::TotalLength));
    }
    Ok((header, View { bytes, end }))
}

struct Header {
    payload_bytes: usize,
    next: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

impl Header {
    fn parse(view: &View<'_>, start: usize, cut_off: Malformed) -> Result<Header, ParseError> {
        let [version, _, _, _, l0, l1, next, hop_limit] = view.read(start, cut_off)?;
        if version >> 4 != 6 {
            return Err(ParseError::Malformed(Malformed::NotIpv6));
        }
        Ok(Header {
            payload_bytes: usize::from(u16::from_be_bytes([l0, l1])),
            next,
            hop_limit,
            source: view.read(start.saturating_add(8), cut_off)?,
            destination: view.read(start.saturating_add(24), cut_off)?,
        })
    }
}

/// The first header that is no extension, and where it starts. `None` of a fragment, and of a chain
/// that is too long.
fn transport_of(
    view: &View<'_>,
    mut next: u8,
    start: usize,
) -> Result<Option<(u8, usize)>, ParseError> {
    let mut at = start;
    for _ in 0..=EXTENSIONS_MAX {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let [following, units] = view.read(at, Malformed::Extension)?;
                next = following;
                // In units of 8 bytes, without the first (RFC 8200, 4).
                at = at.saturating_add((usize::from(units) << 3).saturating_add(8));
                if at.saturating_sub(start) > EXTENSIONS_BYTES_MAX {
                    return Ok(None);
                }
            }
            FRAGMENT => return Ok(None),
            protocol => return Ok(Some((protocol, at))),
        }
    }
    Ok(None)
}

fn seen(
    view: &View<'_>,
    header: &Header,
    transport: Transport,
    start: usize,
) -> Result<Ipv6Packet, ParseError> {
    let cut_off = Malformed::TransportHeader;
    let payload_bytes = view.end.saturating_sub(start);
    let ends = match transport {
        Transport::Tcp => {
            let header: [u8; 20] = view.read(start, cut_off)?;
            ends(transport.number(), &header, payload_bytes)
        }
        Transport::Udp => {
            let header: [u8; 8] = view.read(start, cut_off)?;
            ends(transport.number(), &header, payload_bytes)
        }
    };
    let ends = ends.ok_or(ParseError::Malformed(cut_off))?;
    Ok(Ipv6Packet::Plain(Seen {
        key: FlowKey::ipv6(
            transport,
            header.source,
            ends.source_port,
            header.destination,
            ends.destination_port,
        ),
        event: ends.event,
        ttl: header.hop_limit,
    }))
}

/// An ICMPv6 message that is no error, or is about a packet without ports, is `Other`.
fn error(view: &View<'_>, outer: &Header, start: usize) -> Result<Ipv6Packet, ParseError> {
    let cut_off = Malformed::IcmpError;
    let [kind, _, _, _, _, _, _, _] = view.read(start, cut_off)?;
    if kind >= ICMPV6_INFORMATIONAL {
        return Ok(Ipv6Packet::Other);
    }
    let start = start.saturating_add(8);
    let header = Header::parse(view, start, cut_off)?;
    let inner = start.saturating_add(IPV6_HEADER_BYTES);
    let Some((protocol, at)) = transport_of(view, header.next, inner)? else {
        return Ok(Ipv6Packet::Other);
    };
    let Some(transport) = Transport::from_number(u16::from(protocol)) else {
        return Ok(Ipv6Packet::Other);
    };
    let [s0, s1, d0, d1] = view.read(at, cut_off)?;
    Ok(Ipv6Packet::Error {
        embedded: Tuple {
            transport,
            source: Address::V6(header.source),
            source_port: u16::from_be_bytes([s0, s1]),
            destination: Address::V6(header.destination),
            destination_port: u16::from_be_bytes([d0, d1]),
        },
        hop_limit: outer.hop_limit,
    })
}
