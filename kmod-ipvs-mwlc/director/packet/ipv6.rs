// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IPv6 packets with extension headers, and ICMPv6 errors.
//!
//! The kernel's reassembly has run before the hook, so a packet that still is a fragment is not the
//! director's. The chain of extension headers is followed for [`EXTENSIONS_MAX`] of them and
//! [`EXTENSIONS_BYTES_MAX`] bytes; a longer one is no client's.

use super::transport::ends_at;
use super::view::View;
use super::{ParseError, Parsed, Seen};
use crate::director::address::Transport;
use crate::director::flow::FlowKey;

/// Extension headers of a packet that are passed over: each kind once, and room to spare.
pub const EXTENSIONS_MAX: usize = 8;
/// Bytes that they may have in all.
pub const EXTENSIONS_BYTES_MAX: usize = 256;

/// A header without extensions.
pub(super) const IPV6_HEADER_BYTES: usize = 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
const ICMPV6_HEADER_BYTES: usize = 8;
/// ICMPv6's errors have the types below this (RFC 4443, 2.1).
const ICMPV6_INFORMATIONAL: u8 = 128;

/// What an IPv6 packet is to the director.
pub(super) fn parse(bytes: &[u8], packet_bytes: usize) -> Result<Parsed, ParseError> {
    let (header, view) = outermost(bytes, packet_bytes)?;
    let Some((protocol, start)) = after_extensions(&view, header.next, IPV6_HEADER_BYTES)? else {
        return Ok(Parsed::Other);
    };
    match Transport::from_number(u16::from(protocol)) {
        Some(transport) => {
            let ends = ends_at(&view, transport, start)?;
            Ok(Parsed::Whole(Seen {
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
        None if protocol == ICMPV6 => error(&view, &header, start),
        None => Ok(Parsed::Other),
    }
}

/// The transport's protocol number, where its header starts, and the packet; `None` of a fragment, and of a
/// chain of extensions that is too long.
pub(super) fn transport_of(
    bytes: &[u8],
    packet_bytes: usize,
) -> Result<Option<(u8, usize, View<'_>)>, ParseError> {
    let (header, view) = outermost(bytes, packet_bytes)?;
    let found = after_extensions(&view, header.next, IPV6_HEADER_BYTES)?;
    Ok(found.map(|(protocol, start)| (protocol, start, view)))
}

/// The packet's own header, and the packet without what follows it in the frame.
fn outermost(bytes: &[u8], packet_bytes: usize) -> Result<(Header, View<'_>), ParseError> {
    let outer = View {
        bytes,
        end: packet_bytes,
    };
    let header = Header::parse(&outer, 0)?;
    let end = IPV6_HEADER_BYTES.saturating_add(header.payload_bytes);
    if end > packet_bytes {
        return Err(ParseError::Malformed);
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
    fn parse(view: &View<'_>, start: usize) -> Result<Header, ParseError> {
        let [version, _, _, _, l0, l1, next, hop_limit] = view.read(start)?;
        if version >> 4 != 6 {
            return Err(ParseError::Malformed);
        }
        Ok(Header {
            payload_bytes: usize::from(u16::from_be_bytes([l0, l1])),
            next,
            hop_limit,
            source: view.read(start.saturating_add(8))?,
            destination: view.read(start.saturating_add(24))?,
        })
    }
}

/// The first header that is no extension, and where it starts. `None` of a fragment, and of a chain
/// that is too long.
fn after_extensions(
    view: &View<'_>,
    mut next: u8,
    start: usize,
) -> Result<Option<(u8, usize)>, ParseError> {
    let mut at = start;
    for _ in 0..=EXTENSIONS_MAX {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let [following, units] = view.read(at)?;
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

/// An ICMPv6 message that is no error, or is about a packet without ports, is [`Parsed::Other`].
fn error(view: &View<'_>, outer: &Header, start: usize) -> Result<Parsed, ParseError> {
    let [kind, ..] = view.read::<ICMPV6_HEADER_BYTES>(start)?;
    if kind >= ICMPV6_INFORMATIONAL {
        return Ok(Parsed::Other);
    }
    let start = start.saturating_add(ICMPV6_HEADER_BYTES);
    let header = Header::parse(view, start)?;
    let inner = start.saturating_add(IPV6_HEADER_BYTES);
    let Some((protocol, at)) = after_extensions(view, header.next, inner)? else {
        return Ok(Parsed::Other);
    };
    let Some(transport) = Transport::from_number(u16::from(protocol)) else {
        return Ok(Parsed::Other);
    };
    let [s0, s1, d0, d1] = view.read(at)?;
    // The packet that it is about went the other way.
    let about = FlowKey::ipv6(
        transport,
        header.destination,
        u16::from_be_bytes([d0, d1]),
        header.source,
        u16::from_be_bytes([s0, s1]),
    );
    Ok(Parsed::Error {
        about,
        ttl: outer.hop_limit,
    })
}
