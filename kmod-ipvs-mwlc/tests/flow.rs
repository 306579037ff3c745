// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The short way through a plain packet's headers says what the complete parser says.

use ipvs_mwlc::director::config::{Address, Transport};
use ipvs_mwlc::director::flow::{plain, FlowKey};
use ipvs_mwlc::director::packet::{parse_ipv4, Fragment, Ipv4Packet, Payload, Tuple};
use ipvs_mwlc::director::tcp::TcpEvent;
use proptest::prelude::*;

/// What the complete parser makes of what the short way is for.
fn event(packet: &Ipv4Packet) -> Option<Option<TcpEvent>> {
    match packet.payload {
        _ if packet.fragment != Fragment::Whole || packet.header_bytes != 20 => None,
        Payload::Tcp(header) => Some(Some(header.event())),
        Payload::Udp(_) => Some(None),
        Payload::IcmpError(_) | Payload::LaterFragment | Payload::Other => None,
    }
}

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

proptest! {
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
        match parse_ipv4(&bytes, packet_bytes) {
            Ok(packet) => {
                prop_assert_eq!(short.map(|seen| seen.event), event(&packet));
                if let Some(seen) = short {
                    prop_assert_eq!(Some(seen.key.tuple()), packet.tuple());
                    prop_assert_eq!(seen.ttl, packet.ttl);
                }
            }
            Err(_) => prop_assert_eq!(short, None),
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
