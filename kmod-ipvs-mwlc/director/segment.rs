// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The TCP segment in a packet of either family, for who wants more of it than its connection.

use crate::director::packet::{parse_ipv4, ParseError, Payload, TcpHeader};
use crate::director::packet6::parse_tcp6;

/// The TCP header of the packet that starts with `bytes` and is `packet_bytes` long in all, and where
/// it starts; `None` if the packet is none of TCP.
pub fn tcp_segment(
    bytes: &[u8],
    packet_bytes: usize,
) -> Result<Option<(TcpHeader, usize)>, ParseError> {
    match bytes.first() {
        Some(version_ihl) if version_ihl >> 4 == 6 => parse_tcp6(bytes, packet_bytes),
        _ => {
            let packet = parse_ipv4(bytes, packet_bytes)?;
            Ok(match packet.payload {
                Payload::Tcp(tcp) => Some((tcp, packet.header_bytes)),
                _ => None,
            })
        }
    }
}
