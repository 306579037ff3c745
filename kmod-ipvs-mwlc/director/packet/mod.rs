// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Packets of both families, from the bytes that the hook sees.
//!
//! There are two entries. [`plain`] and [`arriving`] read in one go what nearly every packet is. [`parse`] reads
//! any packet: the hook has its whole length and a first, linear part of its bytes, and if that part is too
//! short, the answer is how many bytes to pull. What the fast entry takes, the slow one says the same of.
//!
//! Nothing is judged here: checksums and addresses are the real server's business.

mod ipv4;
mod ipv6;
mod plain;
mod transport;
mod view;

pub use ipv6::{EXTENSIONS_BYTES_MAX, EXTENSIONS_MAX};
pub use plain::{arriving, plain, Arrival};
pub use transport::TcpHeader;

use crate::director::address::{Address, Transport};
use crate::director::flow::FlowKey;
use crate::director::tcp::TcpEvent;

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

/// What a packet is to the director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A segment or datagram of a client, all of it.
    Whole(Seen),
    /// A part of an IPv4 datagram.
    Fragment {
        /// Where it is sent to.
        destination: Address,
    },
    /// An ICMP error about a packet of one of our transports.
    Error {
        /// The connection that the packet was an answer in: client to virtual address.
        about: FlowKey,
        /// Time to live, or IPv6's hop limit.
        ttl: u8,
    },
    /// None of these.
    Other,
}

/// Why a packet could not be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The packet has them, but the slice does not: pull this many bytes and call again.
    NeedBytes(usize),
    /// It is no packet: a length is wrong, or its end is missing.
    Malformed,
}

/// Parses the packet that starts with `bytes` and is `packet_bytes` long in all.
pub fn parse(bytes: &[u8], packet_bytes: usize) -> Result<Parsed, ParseError> {
    if is_ipv6(bytes) {
        ipv6::parse(bytes, packet_bytes)
    } else {
        ipv4::parse(bytes, packet_bytes)
    }
}

/// The TCP header of a packet, for who wants more of a segment than its connection, and where it starts; `None`
/// if the packet is none of TCP.
pub fn tcp_segment(
    bytes: &[u8],
    packet_bytes: usize,
) -> Result<Option<(TcpHeader, usize)>, ParseError> {
    let found = if is_ipv6(bytes) {
        ipv6::transport_of(bytes, packet_bytes)?
    } else {
        ipv4::transport_of(bytes, packet_bytes)?
    };
    match found {
        Some((protocol, start, view)) if protocol == Transport::Tcp.number() => {
            Ok(Some((TcpHeader::parse(&view, start)?, start)))
        }
        _ => Ok(None),
    }
}

fn is_ipv6(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|version| version >> 4 == 6)
}
