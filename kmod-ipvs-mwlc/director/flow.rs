// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which connection a packet belongs to: in a form that compares and hashes in a few instructions, and in one
//! to read.

use crate::director::address::{Address, Transport};
use crate::director::service_key::Endpoint;

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

/// What an IPv4 address has in its second word, as in `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2). An IPv6
/// packet may have such an address; its key is told apart by [`IPV6`].
const MAPPED: u64 = 0xffff_0000_0000;

const PORTS_SHIFT: u32 = 16;
const TRANSPORT_SHIFT: u32 = 32;
/// The bit of `rest` that IPv6 keys have.
const IPV6: u64 = 1 << 40;

/// Client to virtual address: both ends and the transport.
#[derive(Clone, Copy, Debug)]
pub struct FlowKey {
    /// Addresses, as big-endian words.
    source: [u64; 2],
    destination: [u64; 2],
    /// Source port, destination port, transport, family.
    rest: u64,
}

// Not derived: the derived one would compare word by word, with a branch at each.
impl PartialEq for FlowKey {
    #[inline]
    fn eq(&self, other: &FlowKey) -> bool {
        let [a, b] = self.source;
        let [c, d] = other.source;
        let [e, f] = self.destination;
        let [g, h] = other.destination;
        (a ^ c) | (b ^ d) | (e ^ g) | (f ^ h) | (self.rest ^ other.rest) == 0
    }
}

impl Eq for FlowKey {}

impl FlowKey {
    /// The key of an IPv4 packet; ports in host order.
    #[inline]
    pub const fn ipv4(
        transport: Transport,
        source: [u8; 4],
        source_port: u16,
        destination: [u8; 4],
        destination_port: u16,
    ) -> FlowKey {
        FlowKey {
            source: [0, MAPPED | u32::from_be_bytes(source) as u64],
            destination: [0, MAPPED | u32::from_be_bytes(destination) as u64],
            rest: source_port as u64
                | (destination_port as u64) << PORTS_SHIFT
                | (transport.number() as u64) << TRANSPORT_SHIFT,
        }
    }

    /// The key of an IPv6 packet; ports in host order.
    #[inline]
    pub const fn ipv6(
        transport: Transport,
        source: [u8; 16],
        source_port: u16,
        destination: [u8; 16],
        destination_port: u16,
    ) -> FlowKey {
        FlowKey {
            source: halves(source),
            destination: halves(destination),
            rest: source_port as u64
                | (destination_port as u64) << PORTS_SHIFT
                | (transport.number() as u64) << TRANSPORT_SHIFT
                | IPV6,
        }
    }

    /// The key of a tuple; `None` if its addresses are of two families.
    pub const fn of(tuple: &Tuple) -> Option<FlowKey> {
        let Tuple {
            transport,
            source,
            source_port,
            destination,
            destination_port,
        } = *tuple;
        match (source, destination) {
            (Address::V4(from), Address::V4(to)) => Some(FlowKey::ipv4(
                transport,
                from,
                source_port,
                to,
                destination_port,
            )),
            (Address::V6(from), Address::V6(to)) => Some(FlowKey::ipv6(
                transport,
                from,
                source_port,
                to,
                destination_port,
            )),
            _ => None,
        }
    }

    /// The tuple again.
    pub const fn tuple(&self) -> Tuple {
        let virtual_end = self.virtual_endpoint();
        Tuple {
            transport: virtual_end.transport,
            source: self.source(),
            source_port: self.source_port(),
            destination: virtual_end.address,
            destination_port: virtual_end.port,
        }
    }

    /// The client's address.
    pub const fn source(&self) -> Address {
        self.address(self.source)
    }

    /// The client's port, in host order.
    pub const fn source_port(&self) -> u16 {
        self.rest as u16
    }

    /// What the client wants: the virtual address and port.
    pub const fn virtual_endpoint(&self) -> Endpoint {
        Endpoint {
            transport: self.transport(),
            address: self.address(self.destination),
            port: (self.rest >> PORTS_SHIFT) as u16,
        }
    }

    const fn address(&self, [high, low]: [u64; 2]) -> Address {
        if self.is_ipv6() {
            Address::V6((((high as u128) << 64) | low as u128).to_be_bytes())
        } else {
            Address::V4((low as u32).to_be_bytes())
        }
    }

    /// Whether it is of IPv6.
    #[inline]
    pub const fn is_ipv6(&self) -> bool {
        self.rest & IPV6 != 0
    }

    /// Of an IPv6 key: whether both ends are addresses of one host each, and neither is the loopback's.
    pub const fn is_between_hosts(&self) -> bool {
        is_of_one_host(self.source) && is_of_one_host(self.destination)
    }

    /// TCP or UDP.
    #[inline]
    pub const fn transport(&self) -> Transport {
        if (self.rest >> TRANSPORT_SHIFT) as u8 == Transport::Tcp.number() {
            Transport::Tcp
        } else {
            Transport::Udp
        }
    }

    /// All that differs between two IPv4 keys of one transport, for a hash.
    #[inline]
    pub const fn short_words(&self) -> [u32; 3] {
        let [_, source] = self.source;
        let [_, destination] = self.destination;
        [source as u32, destination as u32, self.rest as u32]
    }

    /// All that differs between two keys, for a hash.
    pub const fn words(&self) -> [u64; 5] {
        let [a, b] = self.source;
        let [c, d] = self.destination;
        [a, b, c, d, self.rest]
    }
}

/// An IPv6 address as two big-endian words.
#[inline]
const fn halves(address: [u8; 16]) -> [u64; 2] {
    let address = u128::from_be_bytes(address);
    [(address >> 64) as u64, address as u64]
}

/// Whether an IPv6 address is neither multicast nor the loopback's.
#[inline]
const fn is_of_one_host([high, low]: [u64; 2]) -> bool {
    high >> 56 != 0xff && (high != 0 || low != 1)
}
