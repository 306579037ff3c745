// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The headers of TCP and UDP.

use super::view::View;
use super::ParseError;
use crate::director::address::Transport;
use crate::director::tcp::{self, TcpEvent};

const UDP_HEADER_BYTES: usize = 8;
const TCP_HEADER_BYTES: usize = 20;
const TCP: u8 = Transport::Tcp.number();
const UDP: u8 = Transport::Udp.number();

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

/// Reads the header of this transport that starts at `start`, in a packet of which more may have to be pulled.
pub(super) fn ends_at(
    view: &View<'_>,
    transport: Transport,
    start: usize,
) -> Result<Ends, ParseError> {
    let payload_bytes = view.end.saturating_sub(start);
    let ends = match transport {
        Transport::Tcp => ends(TCP, &view.read::<TCP_HEADER_BYTES>(start)?, payload_bytes),
        Transport::Udp => ends(UDP, &view.read::<UDP_HEADER_BYTES>(start)?, payload_bytes),
    };
    ends.ok_or(ParseError::Malformed)
}

/// A TCP header's fields that the director uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHeader {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number; meaningful with ACK.
    pub acknowledgement: u32,
    /// The flags byte: CWR ECE URG ACK PSH RST SYN FIN.
    pub flags: u8,
    /// Length of the header with its options, in bytes.
    pub header_bytes: usize,
    /// Length of the data in this packet, in bytes.
    pub payload_bytes: usize,
}

impl TcpHeader {
    /// The header that starts at `start` and whose segment is the rest of the packet.
    pub(super) fn parse(view: &View<'_>, start: usize) -> Result<TcpHeader, ParseError> {
        let fixed: [u8; TCP_HEADER_BYTES] = view.read(start)?;
        let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, ..] = fixed;
        let header_bytes = usize::from(offset >> 4) << 2;
        let payload_bytes = view
            .end
            .checked_sub(start.saturating_add(header_bytes))
            .ok_or(ParseError::Malformed)?;
        if header_bytes < TCP_HEADER_BYTES {
            return Err(ParseError::Malformed);
        }
        Ok(TcpHeader {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            sequence: u32::from_be_bytes([q0, q1, q2, q3]),
            acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
            flags,
            header_bytes,
            payload_bytes,
        })
    }

    /// What the flags mean to the state machine.
    pub const fn event(&self) -> TcpEvent {
        tcp::event_of(self.flags)
    }
}
