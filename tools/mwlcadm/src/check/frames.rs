// SPDX-License-Identifier: MIT
//! Questions and answers of ARP (RFC 826) and of IPv6 neighbour discovery (RFC 4861), as Ethernet frames.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

const BROADCAST: Mac = Mac([0xff; 6]);

/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Ethernet, IPv4, lengths of their addresses: what each ARP packet of ours begins with.
const ARP_HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ARP_REPLY: [u8; 2] = [0, 2];

const NEXT_HEADER_ICMPV6: u8 = 58;
/// Neighbour discovery is believed only if no router has passed it on.
const HOP_LIMIT: u8 = 255;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE_ADDRESS: u8 = 1;
const OPTION_TARGET_ADDRESS: u8 = 2;

/// Who asks: the address of an interface, and its own Ethernet address.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The interface's Ethernet address.
    pub mac: Mac,
    /// Its IPv4 address, which must not be the one asked for; 0.0.0.0 where it has no other.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

/// The frame that asks who has this address; none if the asker has no address of the family.
pub fn question(asker: &Asker, target: IpAddr) -> Option<Vec<u8>> {
    match target {
        IpAddr::V4(target) => Some(arp_request(asker, target)),
        IpAddr::V6(target) => Some(solicitation(asker.mac, asker.ipv6?, target)),
    }
}

/// Who says in this frame that it has which address.
pub fn answer(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let (header, packet) = frame.split_first_chunk::<14>()?;
    match u16::from_be_bytes([header[12], header[13]]) {
        ETHERTYPE_ARP => arp_reply(packet),
        ETHERTYPE_IPV6 => advertisement(packet, &header[6..12]),
        _ => None,
    }
}

fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    [&to.0[..], &from.0, &ethertype.to_be_bytes()].concat()
}

fn arp_request(asker: &Asker, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, asker.mac, ETHERTYPE_ARP);
    frame.extend(ARP_HEADER);
    frame.extend(ARP_REQUEST);
    frame.extend(asker.mac.0);
    frame.extend(asker.ipv4.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

fn arp_reply(packet: &[u8]) -> Option<(IpAddr, Mac)> {
    let rest = packet.strip_prefix(&ARP_HEADER)?.strip_prefix(&ARP_REPLY)?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    let ip = rest.first_chunk::<4>()?;
    Some((IpAddr::V4(Ipv4Addr::from(*ip)), Mac(*mac)))
}

/// A solicitation goes to the group of the addresses that end with the same 24 bits.
fn solicitation(mac: Mac, from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z]);
    let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([OPTION_SOURCE_ADDRESS, 1]);
    message.extend(mac.0);
    let sum = checksum(from, group, &message).to_be_bytes();
    message.splice(2..4, sum);
    let mut frame = ethernet(Mac([0x33, 0x33, 0xff, x, y, z]), mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    // A solicitation has 32 bytes.
    frame.extend(
        u16::try_from(message.len())
            .unwrap_or_default()
            .to_be_bytes(),
    );
    frame.extend([NEXT_HEADER_ICMPV6, HOP_LIMIT]);
    frame.extend(from.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

fn advertisement(packet: &[u8], sender: &[u8]) -> Option<(IpAddr, Mac)> {
    let (header, message) = packet.split_first_chunk::<40>()?;
    let is_answer = header[6] == NEXT_HEADER_ICMPV6
        && header[7] == HOP_LIMIT
        && message.first() == Some(&NEIGHBOUR_ADVERTISEMENT);
    if !is_answer {
        return None;
    }
    let target = message.get(8..24)?.first_chunk::<16>()?;
    let option = message.get(24..32).unwrap_or_default();
    // The option may be left out; then the frame's sender has the address.
    let mac = match option {
        [OPTION_TARGET_ADDRESS, 1, mac @ ..] => mac,
        _ => sender,
    };
    let mac = Mac(*mac.first_chunk::<6>()?);
    Some((IpAddr::V6(Ipv6Addr::from(*target)), mac))
}

/// The Internet checksum with the pseudo-header of IPv6.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or_default();
    let pseudo = [
        &from.octets()[..],
        &to.octets(),
        &length.to_be_bytes(),
        &[0, 0, 0, NEXT_HEADER_ICMPV6],
        message,
    ]
    .concat();
    let sum: u32 = pseudo
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
            [high] => u32::from(*high) << 8,
            _ => 0,
        })
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn asker() -> Asker {
        Asker {
            mac: MAC,
            ipv4: Ipv4Addr::new(10, 0, 0, 1),
            ipv6: Some("fe80::1".parse().unwrap()),
        }
    }

    #[test]
    fn an_arp_request_has_rfc_826s_bytes() {
        let frame = question(&asker(), [10, 0, 0, 100].into()).unwrap();
        let expected = [
            &[0xff; 6][..],
            &MAC.0,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &MAC.0,
            &[10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 100],
        ]
        .concat();
        assert_eq!(frame, expected);
        // A question is no answer.
        assert_eq!(answer(&frame), None);
    }

    #[test]
    fn an_arp_reply_is_read() {
        let mut frame = question(&asker(), [10, 0, 0, 100].into()).unwrap();
        frame[21] = 2;
        assert_eq!(answer(&frame), Some(([10, 0, 0, 1].into(), MAC)));
        for end in 0..32 {
            assert_eq!(answer(&frame[..end]), None, "{end}");
        }
    }

    #[test]
    fn a_solicitation_goes_to_its_group_and_sums_up() {
        let target: Ipv6Addr = "2001:db8::12:3456".parse().unwrap();
        let frame = question(&asker(), target.into()).unwrap();
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
        assert_eq!(frame[38..54], group.octets());
        // With its own checksum in it, a message sums to nothing.
        assert_eq!(checksum("fe80::1".parse().unwrap(), group, &frame[54..]), 0);
        let mute = Asker {
            ipv6: None,
            ..asker()
        };
        assert_eq!(question(&mute, target.into()), None);
    }

    #[test]
    fn an_advertisement_is_read() {
        let target: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let mut frame = question(&asker(), target.into()).unwrap();
        frame[54] = NEIGHBOUR_ADVERTISEMENT;
        frame[78] = OPTION_TARGET_ADDRESS;
        frame[80..86].copy_from_slice(&OTHER.0);
        assert_eq!(answer(&frame), Some((target.into(), OTHER)));
        // Without the option, the frame's sender has it; from beyond a router, nobody.
        assert_eq!(answer(&frame[..78]), Some((target.into(), MAC)));
        frame[21] = 64;
        assert_eq!(answer(&frame), None);
    }
}
