// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IPv4 packets with options, fragments and ICMP errors.

use super::transport::ends_at;
use super::view::View;
use super::{ParseError, Parsed, Seen};
use crate::director::address::{Address, Transport};
use crate::director::flow::FlowKey;

/// A header without options.
pub(super) const IPV4_HEADER_BYTES: usize = 20;

const ICMP_HEADER_BYTES: usize = 8;
const ICMP: u8 = 1;
/// The types of ICMP's errors: unreachable, source quench, time exceeded, parameter problem (RFC 792).
const ICMP_ERRORS: [u8; 4] = [3, 4, 11, 12];

const MORE_FRAGMENTS_BIT: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// What an IPv4 packet is to the director.
pub(super) fn parse(bytes: &[u8], packet_bytes: usize) -> Result<Parsed, ParseError> {
    let (header, view) = outermost(bytes, packet_bytes)?;
    if header.is_fragment {
        return Ok(Parsed::Fragment {
            destination: Address::V4(header.destination),
        });
    }
    match Transport::from_number(u16::from(header.protocol)) {
        Some(transport) => {
            let ends = ends_at(&view, transport, header.header_bytes)?;
            Ok(Parsed::Whole(Seen {
                key: FlowKey::ipv4(
                    transport,
                    header.source,
                    ends.source_port,
                    header.destination,
                    ends.destination_port,
                ),
                event: ends.event,
                ttl: header.ttl,
            }))
        }
        None if header.protocol == ICMP => error(&view, &header),
        None => Ok(Parsed::Other),
    }
}

/// The transport's protocol number, where its header starts, and the packet; `None` of a fragment.
pub(super) fn transport_of(
    bytes: &[u8],
    packet_bytes: usize,
) -> Result<Option<(u8, usize, View<'_>)>, ParseError> {
    let (header, view) = outermost(bytes, packet_bytes)?;
    Ok((!header.is_fragment).then_some((header.protocol, header.header_bytes, view)))
}

/// The packet's own header, and the packet without what follows it in the frame.
fn outermost(bytes: &[u8], packet_bytes: usize) -> Result<(Header, View<'_>), ParseError> {
    let outer = View {
        bytes,
        end: packet_bytes,
    };
    let header = Header::parse(&outer, 0)?;
    let end = header.total_bytes;
    if end < header.header_bytes || end > packet_bytes {
        return Err(ParseError::Malformed);
    }
    Ok((header, View { bytes, end }))
}

/// A header by itself: of the packet, or embedded in an ICMP error.
struct Header {
    header_bytes: usize,
    total_bytes: usize,
    ttl: u8,
    /// It is a part of a datagram, the first or a later one.
    is_fragment: bool,
    /// It is a later part, without the transport's header.
    is_later_fragment: bool,
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
}

impl Header {
    fn parse(view: &View<'_>, start: usize) -> Result<Header, ParseError> {
        let [version_ihl, _, l0, l1, _, _, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            view.read::<IPV4_HEADER_BYTES>(start)?;
        let header_bytes = usize::from(version_ihl & 0x0f) << 2;
        if version_ihl >> 4 != 4 || header_bytes < IPV4_HEADER_BYTES {
            return Err(ParseError::Malformed);
        }
        let flags_offset = u16::from_be_bytes([f0, f1]);
        Ok(Header {
            header_bytes,
            total_bytes: usize::from(u16::from_be_bytes([l0, l1])),
            ttl,
            is_fragment: flags_offset & (MORE_FRAGMENTS_BIT | OFFSET_MASK) != 0,
            is_later_fragment: flags_offset & OFFSET_MASK != 0,
            source: [s0, s1, s2, s3],
            destination: [d0, d1, d2, d3],
            protocol,
        })
    }
}

/// An ICMP message that is no error, or is about a packet without ports, is [`Parsed::Other`].
fn error(view: &View<'_>, outer: &Header) -> Result<Parsed, ParseError> {
    let start = outer.header_bytes;
    let [kind, ..] = view.read::<ICMP_HEADER_BYTES>(start)?;
    if !ICMP_ERRORS.contains(&kind) {
        return Ok(Parsed::Other);
    }
    let start = start.saturating_add(ICMP_HEADER_BYTES);
    let header = Header::parse(view, start)?;
    let transport = match Transport::from_number(u16::from(header.protocol)) {
        Some(transport) if !header.is_later_fragment => transport,
        _ => return Ok(Parsed::Other),
    };
    let [s0, s1, d0, d1] = view.read(start.saturating_add(header.header_bytes))?;
    // The packet that it is about went the other way.
    let about = FlowKey::ipv4(
        transport,
        header.destination,
        u16::from_be_bytes([d0, d1]),
        header.source,
        u16::from_be_bytes([s0, s1]),
    );
    Ok(Parsed::Error {
        about,
        ttl: outer.ttl,
    })
}
