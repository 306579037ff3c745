// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IPv6 packets with extensions, errors and of random bytes; the short way agrees with the complete one.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use ipvs_mwlc::director::address::{Address, Transport};
use ipvs_mwlc::director::flow::{FlowKey, Tuple};
use ipvs_mwlc::director::packet::{
    self, plain, tcp_segment, ParseError, Parsed, EXTENSIONS_BYTES_MAX,
};
use ipvs_mwlc::director::tcp::TcpEvent;
use proptest::prelude::*;

/// Two headers with extensions, ICMPv6, and a TCP header: more is never asked for.
const PULLED_BYTES_MAX: usize = 2 * (40 + EXTENSIONS_BYTES_MAX) + 8 + 20;

const CLIENT: [u8; 16] = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const VIP: [u8; 16] = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next, 63];
    packet.extend(CLIENT);
    packet.extend(VIP);
    packet.extend(payload);
    packet
}

fn tcp(flags: u8) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 8, 0x50, flags];
    segment.resize(20, 0);
    segment
}

/// Extension headers of these kinds, each of 8 bytes, before a payload.
fn extended(kinds: &[u8], last: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, _) in kinds.iter().enumerate() {
        bytes.push(*kinds.get(index + 1).unwrap_or(&last));
        bytes.extend([0; 7]);
    }
    bytes.extend(payload);
    ipv6(*kinds.first().unwrap_or(&last), &bytes)
}

fn parse(packet: &[u8]) -> Result<Parsed, ParseError> {
    packet::parse(packet, packet.len())
}

fn tuple() -> Tuple {
    Tuple {
        transport: Transport::Tcp,
        source: Address::V6(CLIENT),
        source_port: 40_000,
        destination: Address::V6(VIP),
        destination_port: 80,
    }
}

#[test]
fn extensions_are_passed_over() {
    for kinds in [&[][..], &[0], &[0, 60, 43, 60]] {
        let packet = extended(kinds, 6, &tcp(0x02));
        let Ok(Parsed::Whole(seen)) = parse(&packet) else {
            unreachable!("{kinds:?}: {:?}", parse(&packet))
        };
        assert_eq!(Some(seen.key), FlowKey::of(&tuple()), "{kinds:?}");
        assert_eq!((seen.event, seen.ttl), (Some(TcpEvent::Syn), 63));
        assert_eq!(seen.key.tuple(), tuple());
        let short = plain(&packet, packet.len());
        assert_eq!(short, kinds.is_empty().then_some(seen), "{kinds:?}");
    }
}

#[test]
fn a_segment_tells_where_its_data_is() {
    for kinds in [&[][..], &[60], &[0, 60, 43, 60]] {
        let mut segment = tcp(0x18);
        segment[12] = 0x60;
        segment.extend([1, 1, 1, 0]);
        segment.extend(*b"GET /a");
        let mut packet = extended(kinds, 6, &segment);
        let length = packet.len();
        // Padding of the frame is no data.
        packet.extend([0; 9]);
        let (header, start) = tcp_segment(&packet, packet.len()).unwrap().unwrap();
        assert_eq!(
            (header.sequence, header.acknowledgement),
            (7, 8),
            "{kinds:?}"
        );
        assert_eq!((header.header_bytes, header.payload_bytes), (24, 6));
        assert_eq!(&packet[start + 24..length], b"GET /a");
        assert_eq!(header.event(), TcpEvent::Ack);
    }
    assert_eq!(tcp_segment(&ipv6(17, &[0; 8]), 48), Ok(None));
    assert_eq!(tcp_segment(&extended(&[44], 6, &tcp(0x10)), 68), Ok(None));
    let mut too_long = tcp(0x10);
    too_long[12] = 0xf0;
    assert_eq!(
        tcp_segment(&ipv6(6, &too_long), 60),
        Err(ParseError::Malformed)
    );
}

#[test]
fn fragments_and_endless_chains_are_other() {
    for kinds in [&[44][..], &[0, 44], &[60; 9], &[0; 12]] {
        let packet = extended(kinds, 6, &tcp(0x02));
        assert_eq!(parse(&packet), Ok(Parsed::Other), "{kinds:?}");
    }
    let mut long = extended(&[0], 6, &[0; 400]);
    long[41] = 40;
    assert_eq!(parse(&long), Ok(Parsed::Other));
    assert_eq!(parse(&ipv6(59, &[])), Ok(Parsed::Other));
}

#[test]
fn errors_name_the_connection_that_they_are_about() {
    for (kinds, kind) in [(&[][..], 2), (&[0, 60], 1), (&[], 3)] {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 5, 0];
        message.extend(extended(kinds, 6, &tcp(0x10)));
        let expected = Parsed::Error {
            about: FlowKey::of(&tuple().reversed()).unwrap(),
            ttl: 63,
        };
        assert_eq!(parse(&ipv6(58, &message)), Ok(expected), "{kind}");
    }
    // An echo request is no error, and a cut one is malformed.
    assert_eq!(
        parse(&ipv6(58, &[128, 0, 0, 0, 0, 0, 0, 0])),
        Ok(Parsed::Other)
    );
    assert_eq!(
        parse(&ipv6(58, &[1, 0, 0, 0, 0, 0, 0, 0, 0x60, 0])),
        Err(ParseError::Malformed)
    );
}

#[test]
fn the_two_families_have_no_key_in_common() {
    let mapped = |last| {
        let mut address = [0; 16];
        address[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, last]);
        address
    };
    let six = FlowKey::ipv6(Transport::Udp, mapped(1), 1, mapped(2), 2);
    let four = FlowKey::ipv4(Transport::Udp, [10, 0, 0, 1], 1, [10, 0, 0, 2], 2);
    assert_ne!(six, four);
    assert_eq!(six.tuple().source, Address::V6(mapped(1)));
    assert_eq!(four.tuple().source, Address::V4([10, 0, 0, 1]));
}

proptest! {
    #[test]
    fn a_packet_in_pieces_parses_as_the_whole(
        kinds in prop::collection::vec(prop::sample::select(vec![0u8, 43, 60]), 0..6),
        flags: u8,
        first in 0usize..120,
    ) {
        let packet = extended(&kinds, 6, &tcp(flags));
        let mut linear = first.min(packet.len());
        let mut pulls = 0;
        let pieced = loop {
            match packet::parse(&packet[..linear], packet.len()) {
                Err(ParseError::NeedBytes(bytes)) => {
                    prop_assert!(bytes > linear && bytes <= packet.len() && bytes <= PULLED_BYTES_MAX);
                    linear = bytes;
                    pulls += 1;
                    prop_assert!(pulls < 12);
                }
                answer => break answer,
            }
        };
        prop_assert_eq!(pieced, parse(&packet));
    }

    #[test]
    fn random_bytes_never_panic_and_both_ways_agree(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        next in prop::sample::select(vec![0u8, 6, 17, 43, 44, 58, 60]),
        longer in 0usize..40,
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = 0x60;
        }
        if bytes.len() > 60 {
            bytes[4] = 0;
            bytes[6] = next;
        }
        let packet_bytes = bytes.len() + longer;
        let short = plain(&bytes, packet_bytes);
        match packet::parse(&bytes, packet_bytes) {
            Ok(Parsed::Whole(seen)) if bytes.get(6) == Some(&6) || bytes.get(6) == Some(&17) => {
                prop_assert_eq!(short, Some(seen));
            }
            Ok(_) | Err(ParseError::Malformed) => {
                prop_assert_eq!(short.filter(|seen| seen.key.is_ipv6()), None);
            }
            Err(ParseError::NeedBytes(needed)) => {
                prop_assert!(needed > bytes.len() && needed <= PULLED_BYTES_MAX);
            }
        }
    }
}
