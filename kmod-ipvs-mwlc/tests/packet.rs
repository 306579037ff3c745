// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The packet parser on packets of every shape, cut at every length, and on random bytes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may fail the test"
)]

use ipvs_mwlc::director::address::{Address, Transport};
use ipvs_mwlc::director::packet::{
    parse_ipv4, Fragment, IcmpErrorKind, Ipv4Packet, Malformed, ParseError, Payload, Tuple,
    PARSE_BYTES_MAX,
};
use ipvs_mwlc::director::tcp::TcpEvent;
use proptest::prelude::*;

const CLIENT: [u8; 4] = [10, 0, 0, 9];
const VIP: [u8; 4] = [10, 0, 0, 100];
const MORE_FRAGMENTS: u16 = 0x2000;
const DONT_FRAGMENT: u16 = 0x4000;

/// An IPv4 packet with `options` bytes of options and this payload.
fn ipv4(options: usize, flags_offset: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let total = u16::try_from(header + payload.len()).unwrap();
    let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(flags_offset.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(CLIENT);
    packet.extend(VIP);
    packet.resize(header, 1);
    packet.extend(payload);
    packet
}

fn tcp(flags: u8, options: usize, data: usize) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 8];
    segment.extend([
        u8::try_from((20 + options) / 4).unwrap() << 4,
        flags,
        1,
        0,
        0,
        0,
        0,
        0,
    ]);
    segment.resize(20 + options + data, 1);
    segment
}

fn udp(length: u16, data: usize) -> Vec<u8> {
    let mut datagram = vec![0x9c, 0x40, 0, 53];
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(8 + data, 1);
    datagram
}

fn icmp(kind: u8, code: u8, mtu: u16, embedded: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(embedded);
    message
}

fn parse(packet: &[u8]) -> Result<Ipv4Packet, ParseError> {
    parse_ipv4(packet, packet.len())
}

fn malformed(packet: &[u8]) -> Malformed {
    match parse(packet) {
        Err(ParseError::Malformed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tcp_segment_with_options_everywhere() {
    let packet = parse(&ipv4(12, DONT_FRAGMENT, 6, &tcp(0x18, 12, 100))).unwrap();
    assert_eq!(
        (packet.header_bytes, packet.total_bytes, packet.ttl),
        (32, 164, 64)
    );
    assert_eq!(
        (packet.fragment, packet.dont_fragment),
        (Fragment::Whole, true)
    );
    assert_eq!((packet.identification, packet.protocol), (0x1234, 6));
    let Payload::Tcp(header) = packet.payload else {
        panic!("{packet:?}")
    };
    assert_eq!((header.sequence, header.acknowledgement), (7, 8));
    assert_eq!((header.header_bytes, header.payload_bytes), (32, 100));
    assert_eq!(header.event(), TcpEvent::Ack);
    let tuple = packet.tuple().unwrap();
    let expected = Tuple {
        transport: Transport::Tcp,
        source: Address::V4(CLIENT),
        source_port: 40_000,
        destination: Address::V4(VIP),
        destination_port: 80,
    };
    assert_eq!(tuple, expected);
    assert_eq!(tuple.reversed().reversed(), tuple);
    assert_eq!(
        (tuple.reversed().source, tuple.reversed().source_port),
        (Address::V4(VIP), 80)
    );
}

#[test]
fn every_combination_of_flags_is_one_event() {
    for flags in 0..=u8::MAX {
        let packet = parse(&ipv4(0, 0, 6, &tcp(flags, 0, 0))).unwrap();
        let Payload::Tcp(header) = packet.payload else {
            panic!("{packet:?}")
        };
        let (fin, syn) = (flags & 1 != 0, flags & 2 != 0);
        let (rst, ack) = (flags & 4 != 0, flags & 16 != 0);
        let expected = match (rst, syn, ack, fin) {
            (true, _, _, _) => TcpEvent::Rst,
            (_, true, true, _) => TcpEvent::SynAck,
            (_, true, false, _) => TcpEvent::Syn,
            (_, _, _, true) => TcpEvent::Fin,
            (_, _, true, _) => TcpEvent::Ack,
            _ => TcpEvent::Other,
        };
        assert_eq!(header.event(), expected, "{flags:#x}");
    }
}

#[test]
fn frame_padding_is_not_payload() {
    let mut frame = ipv4(0, 0, 6, &tcp(0x10, 0, 0));
    frame.resize(60, 0);
    let Payload::Tcp(header) = parse(&frame).unwrap().payload else {
        panic!()
    };
    assert_eq!(header.payload_bytes, 0);
}

#[test]
fn udp_lengths() {
    let packet = parse(&ipv4(0, 0, 17, &udp(18, 10))).unwrap();
    let Payload::Udp(header) = packet.payload else {
        panic!("{packet:?}")
    };
    assert_eq!(header.payload_bytes, 10);
    assert_eq!(packet.tuple().unwrap().destination_port, 53);
    assert_eq!(
        malformed(&ipv4(0, 0, 17, &udp(7, 10))),
        Malformed::UdpHeader
    );
    assert_eq!(
        malformed(&ipv4(0, 0, 17, &udp(19, 10))),
        Malformed::UdpHeader
    );
    assert_eq!(
        malformed(&ipv4(0, 0, 17, &udp(8, 0)[..7])),
        Malformed::UdpHeader
    );
    // A first fragment carries less than its datagram.
    let first = parse(&ipv4(0, MORE_FRAGMENTS, 17, &udp(3000, 1472))).unwrap();
    let Payload::Udp(header) = first.payload else {
        panic!("{first:?}")
    };
    assert_eq!(
        (first.fragment, header.payload_bytes),
        (Fragment::First, 2992)
    );
}

#[test]
fn later_fragments_have_no_ports() {
    for flags_offset in [1, MORE_FRAGMENTS | 185, 0x1fff] {
        let packet = parse(&ipv4(0, flags_offset, 6, &[])).unwrap();
        assert_eq!(packet.fragment, Fragment::Later);
        assert_eq!(
            (packet.payload, packet.tuple()),
            (Payload::LaterFragment, None)
        );
    }
}

#[test]
fn icmp_errors_carry_the_embedded_connection() {
    let embedded = ipv4(8, 0, 6, &tcp(0x10, 0, 0));
    let kinds = [
        (3, 4, IcmpErrorKind::FragmentationNeeded { mtu_bytes: 1400 }),
        (3, 1, IcmpErrorKind::Unreachable { code: 1 }),
        (4, 0, IcmpErrorKind::SourceQuench),
        (11, 0, IcmpErrorKind::TimeExceeded { code: 0 }),
        (12, 2, IcmpErrorKind::ParameterProblem { code: 2 }),
    ];
    for (kind, code, expected) in kinds {
        // Routers send the embedded header and eight bytes of its payload.
        let packet = parse(&ipv4(0, 0, 1, &icmp(kind, code, 1400, &embedded[..36]))).unwrap();
        let Payload::IcmpError(error) = packet.payload else {
            panic!("{packet:?}")
        };
        assert_eq!(error.kind, expected);
        assert_eq!(
            (error.embedded.source, error.embedded.source_port),
            (Address::V4(CLIENT), 40_000)
        );
        assert_eq!(
            (error.embedded.destination, error.embedded.destination_port),
            (Address::V4(VIP), 80)
        );
        assert_eq!(packet.tuple(), None);
    }
}

#[test]
fn icmp_that_is_no_error_of_ours_is_other() {
    let tcp_packet = ipv4(0, 0, 6, &tcp(0x10, 0, 0));
    let later = ipv4(0, 9, 6, &tcp(0x10, 0, 0));
    let gre = ipv4(0, 0, 47, &[0; 8]);
    for message in [
        icmp(8, 0, 1, &[0; 56]),
        icmp(0, 0, 1, &[]),
        icmp(5, 1, 0, &tcp_packet),
        icmp(3, 3, 0, &later),
        icmp(3, 3, 0, &gre),
    ] {
        assert_eq!(
            parse(&ipv4(0, 0, 1, &message)).unwrap().payload,
            Payload::Other
        );
    }
    assert_eq!(parse(&ipv4(0, 0, 47, &[])).unwrap().payload, Payload::Other);
}

#[test]
fn what_is_no_packet() {
    let good = ipv4(0, 0, 6, &tcp(2, 0, 0));
    let with = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    assert_eq!(malformed(&good[..19]), Malformed::TooShort);
    assert_eq!(malformed(&[]), Malformed::TooShort);
    assert_eq!(malformed(&with(0, 0x65)), Malformed::NotIpv4);
    assert_eq!(malformed(&with(0, 0x44)), Malformed::HeaderLength);
    assert_eq!(malformed(&with(3, 19)), Malformed::TotalLength);
    assert_eq!(malformed(&with(3, 41)), Malformed::TotalLength);
    assert_eq!(malformed(&with(3, 39)), Malformed::TcpHeader);
    assert_eq!(malformed(&with(32, 0x40)), Malformed::TcpHeader);
    assert_eq!(malformed(&with(32, 0x60)), Malformed::TcpHeader);
    // The header's options reach beyond the packet.
    assert_eq!(malformed(&with(0, 0x4f)), Malformed::TotalLength);
    let embedded = ipv4(0, 0, 6, &tcp(0, 0, 0));
    for end in 0..24 {
        let packet = ipv4(0, 0, 1, &icmp(3, 3, 0, &embedded[..end]));
        assert_eq!(malformed(&packet), Malformed::IcmpError, "{end}");
    }
    let mut wrong_version = embedded.clone();
    wrong_version[0] = 0x75;
    assert_eq!(
        malformed(&ipv4(0, 0, 1, &icmp(3, 3, 0, &wrong_version))),
        Malformed::IcmpError
    );
    assert_eq!(malformed(&ipv4(0, 0, 1, &[3, 3, 0])), Malformed::IcmpError);
}

/// The hook's loop: pull as many bytes as are asked for until there is an answer.
fn parse_pulling(packet: &[u8], first: usize) -> Result<Ipv4Packet, Malformed> {
    let mut linear = first.min(packet.len());
    for _ in 0..8 {
        match parse_ipv4(&packet[..linear], packet.len()) {
            Ok(parsed) => return Ok(parsed),
            Err(ParseError::Malformed(reason)) => return Err(reason),
            Err(ParseError::NeedBytes(bytes)) => {
                assert!(bytes > linear && bytes <= packet.len() && bytes <= PARSE_BYTES_MAX);
                linear = bytes;
            }
        }
    }
    panic!("the parser asks again and again");
}

proptest! {
    #[test]
    fn a_packet_in_pieces_parses_as_the_whole(
        options in 0usize..=10,
        tcp_options in 0usize..=10,
        protocol in prop::sample::select(vec![1u8, 6, 17, 47]),
        first in 0usize..200,
        data in 0usize..200,
    ) {
        let payload = match protocol {
            1 => icmp(3, 4, 900, &ipv4(options * 4, 0, 6, &tcp(0x10, 0, data))),
            6 => tcp(0x10, tcp_options * 4, data),
            17 => udp(u16::try_from(8 + data).unwrap(), data),
            _ => vec![0; data],
        };
        let packet = ipv4(options * 4, 0, protocol, &payload);
        let whole = parse(&packet).unwrap();
        prop_assert_eq!(parse_pulling(&packet, first), Ok(whole));
    }

    #[test]
    fn random_bytes_never_panic_and_are_never_asked_for_too_many(
        mut bytes in prop::collection::vec(any::<u8>(), 0..160),
        looks_right in any::<bool>(),
        longer in 0usize..2000,
    ) {
        if looks_right && bytes.len() > 10 {
            bytes[0] = 0x45 | (bytes[0] & 0x0a);
            bytes[2] = 0;
            bytes[6] &= 0x20;
            bytes[7] = 0;
            bytes[9] = [1, 6, 17][usize::from(bytes[9]) % 3];
        }
        let packet_bytes = bytes.len() + longer;
        match parse_ipv4(&bytes, packet_bytes) {
            Ok(packet) => {
                prop_assert!(packet.header_bytes >= 20);
                prop_assert!(packet.header_bytes <= packet.total_bytes);
                prop_assert!(packet.total_bytes <= packet_bytes);
            }
            Err(ParseError::NeedBytes(needed)) => {
                prop_assert!(needed > bytes.len() && needed <= packet_bytes);
                prop_assert!(needed <= PARSE_BYTES_MAX);
            }
            Err(ParseError::Malformed(_)) => {}
        }
        let _ = parse_pulling(&bytes, 0);
    }
}
