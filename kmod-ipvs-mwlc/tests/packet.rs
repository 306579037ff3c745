// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The packet parser on packets of every shape, cut at every length, and on random bytes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may fail the test"
)]

use ipvs_mwlc::director::address::{Address, Transport};
use ipvs_mwlc::director::flow::Tuple;
use ipvs_mwlc::director::packet::{parse, tcp_segment, ParseError, Parsed, Seen, TcpHeader};
use ipvs_mwlc::director::tcp::TcpEvent;
use proptest::prelude::*;

/// Two IPv4 headers with options, ICMP, and ports: more is never asked for.
const PULLED_BYTES_MAX: usize = 60 + 8 + 60 + 8;

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

fn parsed(packet: &[u8]) -> Parsed {
    parse(packet, packet.len()).unwrap()
}

fn seen(packet: &[u8]) -> Seen {
    match parsed(packet) {
        Parsed::Whole(seen) => seen,
        other => panic!("{other:?}"),
    }
}

fn segment(packet: &[u8]) -> (TcpHeader, usize) {
    tcp_segment(packet, packet.len()).unwrap().unwrap()
}

fn assert_malformed(packet: &[u8]) {
    let parsed = parse(packet, packet.len());
    assert_eq!(parsed, Err(ParseError::Malformed), "{packet:x?}");
}

/// Client to virtual address.
fn tuple() -> Tuple {
    Tuple {
        transport: Transport::Tcp,
        source: Address::V4(CLIENT),
        source_port: 40_000,
        destination: Address::V4(VIP),
        destination_port: 80,
    }
}

#[test]
fn a_tcp_segment_with_options_everywhere() {
    let packet = ipv4(12, DONT_FRAGMENT, 6, &tcp(0x18, 12, 100));
    let seen = seen(&packet);
    assert_eq!((seen.ttl, seen.event), (64, Some(TcpEvent::Ack)));
    assert_eq!(seen.key.tuple(), tuple());
    let (header, start) = segment(&packet);
    assert_eq!((header.sequence, header.acknowledgement), (7, 8));
    assert_eq!(
        (start, header.header_bytes, header.payload_bytes),
        (32, 32, 100)
    );
    assert_eq!(header.event(), TcpEvent::Ack);
    let tuple = tuple();
    assert_eq!(tuple.reversed().reversed(), tuple);
    assert_eq!(
        (tuple.reversed().source, tuple.reversed().source_port),
        (Address::V4(VIP), 80)
    );
}

#[test]
fn every_combination_of_flags_is_one_event() {
    for flags in 0..=u8::MAX {
        let packet = ipv4(0, 0, 6, &tcp(flags, 0, 0));
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
        assert_eq!(seen(&packet).event, Some(expected), "{flags:#x}");
        assert_eq!(segment(&packet).0.event(), expected, "{flags:#x}");
    }
}

#[test]
fn frame_padding_is_not_payload() {
    let mut frame = ipv4(0, 0, 6, &tcp(0x10, 0, 0));
    frame.resize(60, 0);
    assert_eq!(segment(&frame).0.payload_bytes, 0);
}

#[test]
fn udp_lengths() {
    let datagram = ipv4(0, 0, 17, &udp(18, 10));
    let seen = seen(&datagram);
    assert_eq!((seen.event, seen.key.virtual_endpoint().port), (None, 53));
    assert_eq!(tcp_segment(&datagram, datagram.len()), Ok(None));
    assert_malformed(&ipv4(0, 0, 17, &udp(7, 10)));
    assert_malformed(&ipv4(0, 0, 17, &udp(19, 10)));
    assert_malformed(&ipv4(0, 0, 17, &udp(8, 0)[..7]));
}

/// Also a first fragment that is cut within its transport's header, which is a legal one.
#[test]
fn every_fragment_is_to_be_reassembled() {
    let fragment = Parsed::Fragment {
        destination: Address::V4(VIP),
    };
    for flags_offset in [1, MORE_FRAGMENTS, MORE_FRAGMENTS | 185, 0x1fff] {
        for (protocol, payload) in [
            (6, tcp(0x02, 0, 0)),
            (6, vec![0; 8]),
            (17, udp(3000, 1472)),
            (6, vec![]),
        ] {
            let packet = ipv4(0, flags_offset, protocol, &payload);
            assert_eq!(parsed(&packet), fragment);
            assert_eq!(tcp_segment(&packet, packet.len()), Ok(None));
        }
    }
}

#[test]
fn icmp_errors_name_the_connection_that_they_are_about() {
    let embedded = ipv4(8, 0, 6, &tcp(0x10, 0, 0));
    for (kind, code) in [(3, 4), (3, 1), (4, 0), (11, 0), (12, 2)] {
        // Routers send the embedded header and eight bytes of its payload.
        let packet = ipv4(0, 0, 1, &icmp(kind, code, 1400, &embedded[..36]));
        let Parsed::Error { about, ttl } = parsed(&packet) else {
            panic!("{packet:?}")
        };
        assert_eq!((about.tuple().reversed(), ttl), (tuple(), 64));
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
        assert_eq!(parsed(&ipv4(0, 0, 1, &message)), Parsed::Other);
    }
    assert_eq!(parsed(&ipv4(0, 0, 47, &[])), Parsed::Other);
}

#[test]
fn what_is_no_packet() {
    let good = ipv4(0, 0, 6, &tcp(2, 0, 0));
    let with = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    assert_malformed(&good[..19]);
    assert_malformed(&[]);
    for (at, byte) in [
        // Another version, or a header of less than 20 bytes.
        (0, 0x55),
        (0, 0x65),
        (0, 0x44),
        // Too short for the headers, or longer than the packet.
        (3, 19),
        (3, 39),
        (3, 41),
        // The segment's header is too short or too long.
        (32, 0x40),
        (32, 0x60),
        // The header's options reach beyond the packet.
        (0, 0x4f),
    ] {
        assert_malformed(&with(at, byte));
    }
    let embedded = ipv4(0, 0, 6, &tcp(0, 0, 0));
    for end in 0..24 {
        assert_malformed(&ipv4(0, 0, 1, &icmp(3, 3, 0, &embedded[..end])));
    }
    let mut wrong_version = embedded.clone();
    wrong_version[0] = 0x75;
    assert_malformed(&ipv4(0, 0, 1, &icmp(3, 3, 0, &wrong_version)));
    assert_malformed(&ipv4(0, 0, 1, &[3, 3, 0]));
}

/// The hook's loop: pull as many bytes as are asked for until there is an answer.
fn parse_pulling(packet: &[u8], first: usize) -> Result<Parsed, ParseError> {
    let mut linear = first.min(packet.len());
    for _ in 0..8 {
        match parse(&packet[..linear], packet.len()) {
            Err(ParseError::NeedBytes(bytes)) => {
                assert!(bytes > linear && bytes <= packet.len() && bytes <= PULLED_BYTES_MAX);
                linear = bytes;
            }
            answer => return answer,
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
        prop_assert_eq!(parse_pulling(&packet, first), Ok(parsed(&packet)));
    }

    #[test]
    fn random_bytes_never_panic_and_are_never_asked_for_too_many(
        mut bytes in prop::collection::vec(any::<u8>(), 0..160),
        looks_right in any::<bool>(),
        longer in 0usize..2000,
    ) {
        if let Some(first) = bytes.first_mut() {
            // Of another version it may be one of IPv6.
            *first = 0x40 | *first & 0x0f;
        }
        if looks_right && bytes.len() > 10 {
            bytes[0] = 0x45 | (bytes[0] & 0x0a);
            bytes[2] = 0;
            bytes[6] &= 0x20;
            bytes[7] = 0;
            bytes[9] = [1, 6, 17][usize::from(bytes[9]) % 3];
        }
        let packet_bytes = bytes.len() + longer;
        if let Err(ParseError::NeedBytes(needed)) = parse(&bytes, packet_bytes) {
            prop_assert!(needed > bytes.len() && needed <= packet_bytes);
            prop_assert!(needed <= PULLED_BYTES_MAX);
        }
        let _ = parse_pulling(&bytes, 0);
    }
}
