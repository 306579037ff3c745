// SPDX-License-Identifier: MIT
//! Malformed IPv4 packets with TCP, UDP and ICMP, through a packet socket.

use std::net::SocketAddrV4;

use anyhow::Context;
use cssns_tests::frames::{self, Mac, PacketSocket};

/// The clients' addresses; nobody has them.
const CLIENT_NETWORK: [u8; 3] = [10, 0, 0];
/// Payloads stay below the usual MTU.
const PAYLOAD_BYTES_MAX: usize = 1300;
/// Sends `count` packets to the director at `to`.
pub(crate) fn send(
    count: u64,
    interface: &str,
    to: Mac,
    service: SocketAddrV4,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<u64> {
    let socket = PacketSocket::open(interface)?;
    for index in 0..count {
        let frame = frames::ethernet(to, &packet(service, rng));
        socket
            .send(&frame)
            .with_context(|| format!("packet {index} on {interface}"))?;
    }
    Ok(count)
}

/// A packet that is right, and then mostly is not.
fn packet(service: SocketAddrV4, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut packet = match rng.u8(..5) {
        0 | 1 => ipv4(service, 6, &tcp(service, rng), rng),
        2 => ipv4(service, 17, &udp(service, rng), rng),
        3 => ipv4(service, 1, &icmp(service, rng), rng),
        _ => {
            let protocol = rng.u8(..);
            let payload = noise(rng);
            ipv4(service, protocol, &payload, rng)
        }
    };
    match rng.u8(..8) {
        // As it is.
        0 => return packet,
        // Cut: the length in the header is too long now.
        1 => packet.truncate(rng.usize(1..=packet.len())),
        // A header length of no sense.
        2 => packet[0] = 0x40 | rng.u8(..16),
        // A total length of no sense.
        3 => packet[2..4].copy_from_slice(&rng.u16(..).to_be_bytes()),
        // A fragment: first, later, or the last of 64 KiB.
        4 => packet[6..8].copy_from_slice(&rng.u16(..).to_be_bytes()),
        // The TCP header's length, or whatever is there.
        5 if packet.len() > 32 => packet[32] = rng.u8(..),
        _ => {
            for _ in 0..rng.usize(1..=6) {
                let at = rng.usize(..packet.len());
                packet[at] = rng.u8(..);
            }
        }
    }
    // The stack drops a wrong header checksum before much is looked at, so most are right.
    if rng.u8(..8) != 0 {
        correct_checksum(&mut packet);
    }
    packet
}

fn ipv4(service: SocketAddrV4, protocol: u8, payload: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let options = if rng.u8(..4) == 0 {
        rng.usize(0..=10) * 4
    } else {
        0
    };
    let header = 20 + options;
    let total = u16::try_from(header + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(total.to_be_bytes());
    packet.extend(rng.u16(..).to_be_bytes());
    packet.extend([0, 0, rng.u8(0..65), protocol, 0, 0]);
    packet.extend(CLIENT_NETWORK);
    packet.push(rng.u8(200..250));
    packet.extend(service.ip().octets());
    packet.extend(std::iter::repeat_with(|| rng.u8(..)).take(options));
    packet.extend(payload);
    correct_checksum(&mut packet);
    packet
}

fn tcp(service: SocketAddrV4, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut segment = rng.u16(1024..1100).to_be_bytes().to_vec();
    segment.extend(service.port().to_be_bytes());
    segment.extend(std::iter::repeat_with(|| rng.u8(..)).take(8));
    // Mostly the flags of a client's life: SYN, ACK, PSH ACK, FIN ACK, RST.
    let flags = match rng.u8(..4) {
        0 => rng.u8(..),
        _ => [0x02, 0x10, 0x18, 0x11, 0x04][rng.usize(..5)],
    };
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(noise(rng));
    segment
}

fn udp(service: SocketAddrV4, rng: &mut fastrand::Rng) -> Vec<u8> {
    let data = noise(rng);
    let mut datagram = rng.u16(1024..1100).to_be_bytes().to_vec();
    datagram.extend(service.port().to_be_bytes());
    datagram.extend(((8 + data.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    datagram
}

/// An ICMP message, mostly an error about a packet from the service to a client.
fn icmp(service: SocketAddrV4, rng: &mut fastrand::Rng) -> Vec<u8> {
    let kind = if rng.u8(..4) == 0 {
        rng.u8(..)
    } else {
        [3, 4, 11, 12][rng.usize(..4)]
    };
    let mut message = vec![kind, rng.u8(..6), 0, 0, 0, 0];
    message.extend(rng.u16(..).to_be_bytes());
    let mut embedded = ipv4(service, [6, 17][rng.usize(..2)], &tcp(service, rng), rng);
    embedded.truncate(rng.usize(..=48.min(embedded.len())));
    message.extend(embedded);
    message
}

fn noise(rng: &mut fastrand::Rng) -> Vec<u8> {
    // Short ones are where the mistakes are.
    let limit = if rng.bool() { 16 } else { PAYLOAD_BYTES_MAX };
    let length = rng.usize(..=limit);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

/// Writes the header's checksum (RFC 1071), as far as there is a header.
fn correct_checksum(packet: &mut [u8]) {
    let header = (usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4).max(20);
    let Some(header) = packet.get_mut(..header) else {
        return;
    };
    header[10..12].fill(0);
    let sum = frames::checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_checksum_sums_to_all_ones() {
        let service = SocketAddrV4::new([10, 0, 0, 100].into(), 80);
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            let packet = ipv4(service, 6, &tcp(service, &mut rng), &mut rng);
            let header = usize::from(packet[0] & 0x0f) * 4;
            let sum: u32 = packet[..header]
                .chunks_exact(2)
                .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
                .sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        }
    }
}
