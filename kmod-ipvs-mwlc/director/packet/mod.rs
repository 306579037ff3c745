// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IPv4 packets with TCP, UDP or an ICMP error, from the bytes that the hook sees.
//!
//! The hook has the packet's whole length and a first, linear part of its bytes. If that part is too
//! short, the answer is how many bytes to pull. Nothing is judged here: checksums and addresses are
//! the real server's business, and a packet that is no packet is answered with the reason.

use crate::director::address::{Address, Transport};
use crate::director::tcp::{self, TcpEvent};

/// More bytes than this are never asked for: two IPv4 headers with options, ICMP, and ports.
pub const PARSE_BYTES_MAX: usize = 60 + 8 + 60 + 8;

const IPV4_HEADER_BYTES: usize = 20;
const TCP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;
const ICMP_HEADER_BYTES: usize = 8;
const ICMP_PROTOCOL: u8 = 1;

/// Two endpoints and the transport between them; addresses in network order, ports in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// TCP or UDP.
    pub transport: Transport,
    /// Source address.
    pub source: Address,
    /// Source port.
    pub source_port: u16,
    /// Destination address, of the same family.
    pub destination: Address,
    /// Destination port.
    pub destination_port: u16,
}

impl Tuple {
    /// The same connection seen from the other end.
    #[must_use]
    pub const fn reversed(self) -> Tuple {
        Tuple {
            transport: self.transport,
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
        }
    }
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// Its first part, with the transport's header.
    First,
    /// A later part, without.
    Later,
}

/// An IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Packet {
    /// Length of the IPv4 header with its options, in bytes.
    pub header_bytes: usize,
    /// Total length in bytes, as the header says; what follows it in the frame is padding.
    pub total_bytes: usize,
    /// Time to live.
    pub ttl: u8,
    /// Whether routers may not fragment it.
    pub dont_fragment: bool,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
    /// The datagram's identification, the same in all its fragments.
    pub identification: u16,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// Protocol number.
    pub protocol: u8,
    /// What it carries.
    pub payload: Payload,
}

impl Ipv4Packet {
    /// The connection it belongs to, if it has the ports to say so.
    pub const fn tuple(&self) -> Option<Tuple> {
        let (transport, source_port, destination_port) = match self.payload {
            Payload::Tcp(tcp) => (Transport::Tcp, tcp.source_port, tcp.destination_port),
            Payload::Udp(udp) => (Transport::Udp, udp.source_port, udp.destination_port),
            Payload::LaterFragment | Payload::IcmpError(_) | Payload::Other => return None,
        };
        Some(Tuple {
            transport,
            source: Address::V4(self.source),
            source_port,
            destination: Address::V4(self.destination),
            destination_port,
        })
    }
}

/// What an IPv4 packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// TCP.
    Tcp(TcpHeader),
    /// UDP.
    Udp(UdpHeader),
    /// An ICMP error about one of our transports' packets.
    IcmpError(IcmpError),
    /// A fragment without the transport's header.
    LaterFragment,
    /// Anything else.
    Other,
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
    pub(super) fn parse(
        view: &View<'_>,
        start: usize,
        malformed: Malformed,
    ) -> Result<TcpHeader, ParseError> {
        let fixed: [u8; TCP_HEADER_BYTES] = view.read(start, malformed)?;
        let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, ..] = fixed;
        let header_bytes = usize::from(offset >> 4) << 2;
        let payload_bytes = view
            .end
            .checked_sub(start.saturating_add(header_bytes))
            .ok_or(ParseError::Malformed(malformed))?;
        if header_bytes < TCP_HEADER_BYTES {
            return Err(ParseError::Malformed(malformed));
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

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpHeader {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Length of the datagram's data, in bytes; of a first fragment, of all its fragments.
    pub payload_bytes: usize,
}

/// An ICMP error and the packet that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Which error.
    pub kind: IcmpErrorKind,
    /// The connection of the embedded packet, in that packet's direction.
    pub embedded: Tuple,
}

/// ICMP's error messages (RFC 792, RFC 1191).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpErrorKind {
    /// Destination unreachable, beside the next.
    Unreachable {
        /// The code.
        code: u8,
    },
    /// Fragmentation needed but not allowed.
    FragmentationNeeded {
        /// The next hop's MTU in bytes; 0 from old routers.
        mtu_bytes: u16,
    },
    /// Source quench.
    SourceQuench,
    /// Time to live exceeded, or fragment reassembly time.
    TimeExceeded {
        /// The code.
        code: u8,
    },
    /// Parameter problem.
    ParameterProblem {
        /// The code.
        code: u8,
    },
}

/// Why bytes are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than an IPv4 header.
    TooShort,
    /// The version is not 4.
    NotIpv4,
    /// The IPv4 header claims less than 20 bytes.
    HeaderLength,
    /// The total length does not cover the header, or goes beyond the packet.
    TotalLength,
    /// The TCP header is cut off or claims less than 20 bytes.
    TcpHeader,
    /// The UDP header is cut off, or its length is wrong.
    UdpHeader,
    /// The version is not 6.
    NotIpv6,
    /// An IPv6 extension header is cut off.
    Extension,
    /// The header of TCP or UDP over IPv6 is cut off, or its length is wrong.
    TransportHeader,
    /// The ICMP error, or the packet embedded in it, is cut off.
    IcmpError,
}

/// Why a packet could not be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The packet has them, but the slice does not: pull this many bytes and call again. At most
    /// [`PARSE_BYTES_MAX`].
    NeedBytes(usize),
    /// It is no packet.
    Malformed(Malformed),
}

/// Parses the IPv4 packet that starts with `bytes` and is `packet_bytes` long in all.
pub fn parse_ipv4(bytes: &[u8], packet_bytes: usize) -> Result<Ipv4Packet, ParseError> {
    let outer = View {
        bytes,
        end: packet_bytes,
    };
    let fixed: [u8; IPV4_HEADER_BYTES] = outer.read(0, Malformed::TooShort)?;
    let header = Ipv4Header::parse(&fixed)?;
    if header.total_bytes < header.header_bytes || header.total_bytes > packet_bytes {
        return Err(ParseError::Malformed(Malformed::TotalLength));
    }
    let view = View {
        bytes,
        end: header.total_bytes,
    };
    let payload = match (header.fragment, header.protocol) {
        (Fragment::Later, _) => Payload::LaterFragment,
        (_, protocol) if protocol == Transport::Tcp.number() => {
            let tcp = TcpHeader::parse(&view, header.header_bytes, Malformed::TcpHeader)?;
            Payload::Tcp(tcp)
        }
        (_, protocol) if protocol == Transport::Udp.number() => parse_udp(&view, &header)?,
        (_, ICMP_PROTOCOL) => parse_icmp(&view, &header)?,
        _ => Payload::Other,
    };
    Ok(Ipv4Packet {
        header_bytes: header.header_bytes,
        total_bytes: header.total_bytes,
        ttl: header.ttl,
        dont_fragment: header.dont_fragment,
        fragment: header.fragment,
        identification: header.identification,
        source: header.source,
        destination: header.destination,
        protocol: header.protocol,
        payload,
    })
}

/// A packet of which the first bytes are at hand.
pub(super) struct View<'a> {
    pub(super) bytes: &'a [u8],
    /// Where the packet ends; `bytes` may end before or after.
    pub(super) end: usize,
}

impl View<'_> {
    /// `N` bytes at `start`: beyond the packet's end it is `cut_off`, beyond the slice's it needs more.
    pub(super) fn read<const N: usize>(
        &self,
        start: usize,
        cut_off: Malformed,
    ) -> Result<[u8; N], ParseError> {
        let end = start.saturating_add(N);
        if end > self.end {
            return Err(ParseError::Malformed(cut_off));
        }
        self.bytes
            .get(start..)
            .and_then(|rest| rest.first_chunk::<N>())
            .copied()
            .ok_or(ParseError::NeedBytes(end))
    }
}

/// An IPv4 header by itself: of the packet, or embedded in an ICMP error.
struct Ipv4Header {
    header_bytes: usize,
    total_bytes: usize,
    ttl: u8,
    dont_fragment: bool,
    fragment: Fragment,
    identification: u16,
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
}

impl Ipv4Header {
    fn parse(fixed: &[u8; IPV4_HEADER_BYTES]) -> Result<Ipv4Header, ParseError> {
        let [version_ihl, _tos, l0, l1, i0, i1, f0, f1, ttl, protocol, _c0, _c1, s0, s1, s2, s3, d0, d1, d2, d3] =
            *fixed;
        if version_ihl >> 4 != 4 {
            return Err(ParseError::Malformed(Malformed::NotIpv4));
        }
        let header_bytes = usize::from(version_ihl & 0x0f) << 2;
        if header_bytes < IPV4_HEADER_BYTES {
            return Err(ParseError::Malformed(Malformed::HeaderLength));
        }
        let flags_offset = u16::from_be_bytes([f0, f1]);
        let more_fragments = flags_offset & 0x2000 != 0;
        let fragment = match (flags_offset & 0x1fff, more_fragments) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First,
            (_, _) => Fragment::Later,
        };
        Ok(Ipv4Header {
            header_bytes,
            total_bytes: usize::from(u16::from_be_bytes([l0, l1])),
            ttl,
            dont_fragment: flags_offset & 0x4000 != 0,
            fragment,
            identification: u16::from_be_bytes([i0, i1]),
            source: [s0, s1, s2, s3],
            destination: [d0, d1, d2, d3],
            protocol,
        })
    }
}

fn parse_udp(view: &View<'_>, ip: &Ipv4Header) -> Result<Payload, ParseError> {
    let malformed = ParseError::Malformed(Malformed::UdpHeader);
    let fixed: [u8; UDP_HEADER_BYTES] = view.read(ip.header_bytes, Malformed::UdpHeader)?;
    let [s0, s1, d0, d1, l0, l1, ..] = fixed;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let payload_bytes = length.checked_sub(UDP_HEADER_BYTES).ok_or(malformed)?;
    // A first fragment carries less than the datagram's length; a whole packet all of it.
    if ip.fragment == Fragment::Whole && length > ip.total_bytes.saturating_sub(ip.header_bytes) {
        return Err(malformed);
    }
    Ok(Payload::Udp(UdpHeader {
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        payload_bytes,
    }))
}

/// An ICMP message that is no error, or is about a packet without ports, is `Other`.
fn parse_icmp(view: &View<'_>, ip: &Ipv4Header) -> Result<Payload, ParseError> {
    let cut_off = Malformed::IcmpError;
    let start = ip.header_bytes;
    let [kind, code, _, _, _, _, m0, m1] =
        view.read::<ICMP_HEADER_BYTES>(start, Malformed::IcmpError)?;
    let kind = match (kind, code) {
        (3, 4) => IcmpErrorKind::FragmentationNeeded {
            mtu_bytes: u16::from_be_bytes([m0, m1]),
        },
        (3, code) => IcmpErrorKind::Unreachable { code },
        (4, _) => IcmpErrorKind::SourceQuench,
        (11, code) => IcmpErrorKind::TimeExceeded { code },
        (12, code) => IcmpErrorKind::ParameterProblem { code },
        _ => return Ok(Payload::Other),
    };
    let start = start.saturating_add(ICMP_HEADER_BYTES);
    let fixed: [u8; IPV4_HEADER_BYTES] = view.read(start, cut_off)?;
    let embedded =
        Ipv4Header::parse(&fixed).map_err(|_| ParseError::Malformed(Malformed::IcmpError))?;
    let transport = match Transport::from_number(u16::from(embedded.protocol)) {
        Some(transport) if embedded.fragment != Fragment::Later => transport,
        _ => return Ok(Payload::Other),
    };
    let [s0, s1, d0, d1] = view.read(start.saturating_add(embedded.header_bytes), cut_off)?;
    Ok(Payload::IcmpError(IcmpError {
        kind,
        embedded: Tuple {
            transport,
            source: Address::V4(embedded.source),
            source_port: u16::from_be_bytes([s0, s1]),
            destination: Address::V4(embedded.destination),
            destination_port: u16::from_be_bytes([d0, d1]),
        },
    }))
}
