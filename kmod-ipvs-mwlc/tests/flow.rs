// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The fast entry to a plain packet's headers says what the slow one says.

use ipvs_mwlc::director::address::{Address, Transport};
use ipvs_mwlc::director::flow::{FlowKey, Tuple};
use ipvs_mwlc::director::packet::{arriving, parse, plain, Arrival, Parsed};
use proptest::prelude::*;

fn tuple(
    transport: Transport,
    source: [u8; 4],
    source_port: u16,
    destination: [u8; 4],
    destination_port: u16,
) -> Tuple {
    Tuple {
        transport,
        source: Address::V4(source),
        source_port,
        destination: Address::V4(destination),
        destination_port,
    }
}

/// The checksum of an IPv4 header as RFC 791 words it, for a header whose checksum is 0.
fn checksum(header: &[u8]) -> [u8; 2] {
    let mut sum: u32 = header
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A UDP datagram over IPv4, with the right checksum of its header.
fn datagram(addresses: [u8; 8], identification: u16, data_bytes: u8) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 28 + data_bytes, 0, 0, 0x40, 0, 64, 17, 0, 0];
    bytes[4..6].copy_from_slice(&identification.to_be_bytes());
    bytes.extend(addresses);
    bytes.extend([0x30, 0x39, 0, 53, 0, 8 + data_bytes, 0, 0]);
    bytes.extend(vec![b'x'; usize::from(data_bytes)]);
    let sum = checksum(&bytes[..20]);
    bytes[10..12].copy_from_slice(&sum);
    bytes
}

/// A UDP datagram over IPv6 between these addresses.
fn datagram6(source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
    bytes.extend(source);
    bytes.extend(destination);
    bytes.extend([0x30, 0x39, 0, 53, 0, 8, 0, 0]);
    bytes
}

#[test]
fn what_the_ip_layer_would_drop_does_not_arrive() {
    let host = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let loopback = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let any = [0; 16];
    let multicast = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let arrives = |source, destination| {
        let bytes = datagram6(source, destination);
        assert!(plain(&bytes, bytes.len()).is_some());
        arriving(&bytes, bytes.len()).map(|arrival| arrival.bytes)
    };
    assert_eq!(arrives(host, host), Some(48));
    assert_eq!(arrives(any, host), Some(48));
    for bad in [loopback, multicast] {
        assert_eq!(arrives(bad, host), None);
        assert_eq!(arrives(host, bad), None);
    }
}

proptest! {
    #[test]
    fn a_datagram_arrives_without_its_padding_if_its_header_is_whole(
        addresses: [u8; 8],
        identification: u16,
        data_bytes in 0u8..100,
        padding in 0usize..40,
        flipped in prop::option::of(0usize..160),
    ) {
        let mut frame = datagram(addresses, identification, data_bytes);
        let bytes = frame.len();
        frame.extend(vec![0xaa; padding]);
        if let Some(bit) = flipped {
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(arriving(&frame, frame.len()), None, "one wrong bit is always seen");
        } else {
            let seen = plain(&frame, frame.len());
            prop_assert!(seen.is_some());
            prop_assert_eq!(arriving(&frame, frame.len()), seen.map(|seen| Arrival { seen, bytes }));
            prop_assert_eq!(arriving(&frame, bytes - 1), None, "the end is missing");
        }
    }

    #[test]
    fn what_arrives_is_plain(
        mut bytes in prop::collection::vec(any::<u8>(), 0..80),
        is_ipv6: bool,
        longer in 0usize..40,
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = if is_ipv6 { 0x60 } else { 0x45 };
        }
        let frame_bytes = bytes.len() + longer;
        if let Some(arrival) = arriving(&bytes, frame_bytes) {
            prop_assert_eq!(plain(&bytes, frame_bytes), Some(arrival.seen));
            prop_assert!(arrival.bytes <= frame_bytes);
        }
    }

    #[test]
    fn the_short_way_and_the_complete_one_agree(
        mut bytes in prop::collection::vec(any::<u8>(), 0..80),
        looks_right in 0u8..4,
        protocol in prop::sample::select(vec![1u8, 6, 17]),
        length in 0u8..90,
        longer in 0usize..40,
    ) {
        if looks_right > 0 && bytes.len() >= 34 {
            bytes[0] = 0x45;
            bytes[2..4].copy_from_slice(&[0, length]);
            bytes[6..8].copy_from_slice(&[0x40, 0]);
            bytes[9] = protocol;
            if protocol == 6 {
                bytes[32] = 0x50 | bytes[32] & 0x2f;
            } else {
                bytes[24..26].copy_from_slice(&[0, length.saturating_sub(20 + looks_right - 1)]);
            }
        }
        let packet_bytes = bytes.len() + longer;
        let short = plain(&bytes, packet_bytes);
        match parse(&bytes, packet_bytes) {
            Ok(Parsed::Whole(seen)) => {
                let is_plain = bytes[0] == 0x45 || (bytes[0] >> 4 == 6 && [6, 17].contains(&bytes[6]));
                prop_assert_eq!(short, is_plain.then_some(seen));
            }
            Ok(_) | Err(_) => prop_assert_eq!(short, None),
        }
    }

    #[test]
    fn keys_are_equal_only_if_their_tuples_are(
        one: ([u8; 4], u16, [u8; 4], u16),
        other: ([u8; 4], u16, [u8; 4], u16),
        same in any::<[bool; 4]>(),
        transports in any::<(bool, bool)>(),
    ) {
        let transport = |tcp| if tcp { Transport::Tcp } else { Transport::Udp };
        let other = (
            if same[0] { one.0 } else { other.0 },
            if same[1] { one.1 } else { other.1 },
            if same[2] { one.2 } else { other.2 },
            if same[3] { one.3 } else { other.3 },
        );
        let one = tuple(transport(transports.0), one.0, one.1, one.2, one.3);
        let other = tuple(transport(transports.1), other.0, other.1, other.2, other.3);
        prop_assert_eq!(FlowKey::of(&one).map(|key| key.tuple()), Some(one));
        prop_assert_eq!(FlowKey::of(&one) == FlowKey::of(&other), one == other);
    }
}
