// SPDX-License-Identifier: MIT
//! Ethernet frames made by hand, and the packet socket that sends them.

use std::net::SocketAddrV4;
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

/// A frame with an IPv4 packet in it.
#[must_use]
pub fn ethernet(to: Mac, packet: &[u8]) -> Vec<u8> {
    [&to[..], &SOURCE_MAC, &ETHERTYPE_IPV4, packet].concat()
}

/// An IPv4 packet with a TCP segment of sequence and acknowledgement number 1. Its own checksum is
/// left out: only the segment's receiver looks at it.
#[must_use]
pub fn tcp(from: SocketAddrV4, to: SocketAddrV4, flags: u8, payload: u16) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20 + usize::from(payload));
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    segment.resize(segment.len() + usize::from(payload), b'x');
    ipv4(from, to, IPPROTO_TCP, &segment)
}

/// An IPv4 packet with a UDP datagram without a checksum.
#[must_use]
pub fn udp(from: SocketAddrV4, to: SocketAddrV4, payload: u16) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + usize::from(payload));
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend((8 + payload).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(datagram.len() + usize::from(payload), b'x');
    ipv4(from, to, IPPROTO_UDP, &datagram)
}

fn ipv4(from: SocketAddrV4, to: SocketAddrV4, protocol: u8, body: &[u8]) -> Vec<u8> {
    let total = u16::try_from(IPV4_HEADER_BYTES + body.len()).unwrap_or(u16::MAX);
    let mut packet = Vec::with_capacity(usize::from(total));
    packet.extend([0x45, 0]);
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0, 0, TIME_TO_LIVE, protocol, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
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
        let from = SocketAddrV4::new([10, 0, 0, 1].into(), 1000);
        let to = SocketAddrV4::new([10, 0, 0, 2].into(), 80);
        for (packet, bytes) in [(tcp(from, to, 2, 3), 43), (udp(from, to, 3), 31)] {
            assert_eq!(packet.len(), bytes);
            assert_eq!(packet[3], packet.len() as u8);
            // A header with its checksum sums up to nothing.
            assert_eq!(checksum(&packet[..IPV4_HEADER_BYTES]), 0);
            assert_eq!(&packet[20..24], [3, 232, 0, 80]);
        }
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
