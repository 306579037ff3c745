// SPDX-License-Identifier: MIT
//! Ethernet frames made by hand, and the packet socket that sends them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};

/// A link-layer address.
pub type Mac = [u8; 6];

/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER_BYTES: usize = 20;

/// The protocol numbers that these frames carry.
pub const IPPROTO_TCP: u8 = 6;
/// See [`IPPROTO_TCP`].
pub const IPPROTO_UDP: u8 = 17;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// The first byte of an IPv6 packet of traffic class 0.
const IPV6_FIRST_BYTE: u8 = 0x60;
/// Nobody has it, so nobody answers.
const SOURCE_MAC: Mac = [0x02, 0xba, 0xdb, 0xad, 0, 1];
const TIME_TO_LIVE: u8 = 64;
/// How long the interface's queue may stay full.
const QUEUE_MS_MAX: u16 = 10_000;

/// Parses six bytes in hexadecimal with colons.
///
/// # Errors
/// What the address should look like.
pub fn parse_mac(text: &str) -> Result<Mac, String> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes
        .and_then(|bytes| Mac::try_from(bytes).ok())
        .ok_or_else(|| format!("`{text}` is no link-layer address like 02:00:00:00:00:01"))
}

/// A frame with an IP packet in it; what does not begin as IPv6 goes as IPv4.
#[must_use]
pub fn ethernet(to: Mac, packet: &[u8]) -> Vec<u8> {
    let ethertype = match packet.first() {
        Some(&IPV6_FIRST_BYTE) => ETHERTYPE_IPV6,
        _ => ETHERTYPE_IPV4,
    };
    [&to[..], &SOURCE_MAC, &ethertype, packet].concat()
}

/// An IP packet with a TCP segment of sequence and acknowledgement number 1. Its own checksum is left
/// out: only the segment's receiver looks at it.
#[must_use]
pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8, payload: u16) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20 + usize::from(payload));
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    segment.resize(segment.len() + usize::from(payload), b'x');
    ip(from.ip(), to.ip(), IPPROTO_TCP, &segment)
}

/// An IP packet with a UDP datagram without a checksum.
#[must_use]
pub fn udp(from: SocketAddr, to: SocketAddr, payload: u16) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + usize::from(payload));
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend((8 + payload).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(datagram.len() + usize::from(payload), b'x');
    ip(from.ip(), to.ip(), IPPROTO_UDP, &datagram)
}

/// An IPv4 packet between two of its addresses, and otherwise one of IPv6.
fn ip(from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let long = |address| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, protocol, body),
        _ => ipv6(long(from), long(to), protocol, body),
    }
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let start = [
        IPV6_FIRST_BYTE,
        0,
        0,
        0,
        length[0],
        length[1],
        protocol,
        TIME_TO_LIVE,
    ];
    [&start[..], &from.octets(), &to.octets(), body].concat()
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let total = u16::try_from(IPV4_HEADER_BYTES + body.len()).unwrap_or(u16::MAX);
    let mut packet = Vec::with_capacity(usize::from(total));
    packet.extend([0x45, 0]);
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0, 0, TIME_TO_LIVE, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(body);
    let sum = checksum(&packet[..IPV4_HEADER_BYTES]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The internet checksum (RFC 1071) of an even number of bytes.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A packet socket that only sends: its protocol is none, so it receives nothing.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens one on `interface`.
    ///
    /// # Errors
    /// Without the capability, or where there is no such interface.
    pub fn open(interface: &str) -> anyhow::Result<Self> {
        let socket = socket::socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .context("opening a packet socket")?;
        for entry in getifaddrs().context("listing interfaces")? {
            let address = entry
                .address
                .as_ref()
                .and_then(|address| address.as_link_addr());
            if let (true, Some(address)) = (entry.interface_name == interface, address) {
                socket::bind(socket.as_raw_fd(), address).context("binding the packet socket")?;
                return Ok(Self(socket));
            }
        }
        bail!("interface {interface} has no link-layer address")
    }

    /// Sends a whole frame; waits while the interface's queue is full.
    ///
    /// # Errors
    /// Where the queue stays full, or the interface refuses the frame.
    pub fn send(&self, frame: &[u8]) -> anyhow::Result<()> {
        loop {
            match socket::send(self.0.as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::ENOBUFS | Errno::EAGAIN) => {
                    let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
                    if poll(&mut ready, PollTimeout::from(QUEUE_MS_MAX))? == 0 {
                        bail!("the interface's queue stays full");
                    }
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_right() {
        let from = SocketAddr::from(([10, 0, 0, 1], 1000));
        let to = SocketAddr::from(([10, 0, 0, 2], 80));
        for (packet, bytes) in [(tcp(from, to, 2, 3), 43), (udp(from, to, 3), 31)] {
            assert_eq!(packet.len(), bytes);
            assert_eq!(packet[3], packet.len() as u8);
            // A header with its checksum sums up to nothing.
            assert_eq!(checksum(&packet[..IPV4_HEADER_BYTES]), 0);
            assert_eq!(&packet[20..24], [3, 232, 0, 80]);
            assert_eq!(ethernet([0; 6], &packet)[12..14], ETHERTYPE_IPV4);
        }
    }

    #[test]
    fn long_headers_are_right() {
        let from = SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 1000));
        let to = SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 2], 80));
        let packet = tcp(from, to, 2, 3);
        assert_eq!(packet.len(), 40 + 20 + 3);
        assert_eq!(packet[4..8], [0, 23, IPPROTO_TCP, TIME_TO_LIVE]);
        assert_eq!((packet[23], packet[39]), (1, 2));
        assert_eq!(packet[40..44], [3, 232, 0, 80]);
        assert_eq!(ethernet([0; 6], &packet)[12..14], ETHERTYPE_IPV6);
    }

    #[test]
    fn link_layer_addresses() {
        assert_eq!(parse_mac("02:00:0a:ff:00:01"), Ok([2, 0, 10, 255, 0, 1]));
        for wrong in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:01",
            "zz:00:00:00:00:01",
        ] {
            assert!(parse_mac(wrong).is_err(), "{wrong}");
        }
    }
}
