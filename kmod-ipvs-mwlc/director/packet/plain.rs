// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The fast entry: what nearly every packet is, read in one go.

use super::ipv4::IPV4_HEADER_BYTES;
use super::ipv6::IPV6_HEADER_BYTES;
use super::transport::ends;
use super::Seen;
use crate::director::flow::FlowKey;

const PLAIN_VERSION_IHL: u8 = 0x45;
/// More fragments, and the offset; the other two bits do not matter here.
const FRAGMENT_BITS: u16 = 0x3fff;

/// What nearly every packet is: IPv4 without options or IPv6 without extensions, whole, TCP or UDP,
/// its headers at hand in `bytes`. `None` of any other, malformed ones included: [`super::parse`] says what
/// those are, and that these are whole.
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

/// As [`plain`], of a packet that the IP layer has not looked at yet, `frame_bytes` from the IP
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
