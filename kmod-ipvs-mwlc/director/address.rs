// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IP addresses of both families, and the transports above them.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

/// An address family, with its number in Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// `AF_INET` or `AF_INET6`.
    pub const fn number(self) -> u16 {
        match self {
            Family::Ipv4 => 2,
            Family::Ipv6 => 10,
        }
    }

    /// The family with this number, if it is one of the two.
    pub const fn from_number(number: u16) -> Option<Family> {
        match number {
            2 => Some(Family::Ipv4),
            10 => Some(Family::Ipv6),
            _ => None,
        }
    }
}

/// An IP address; bytes in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// IPv4.
    V4([u8; 4]),
    /// IPv6.
    V6([u8; 16]),
}

impl Address {
    /// The address's family.
    pub const fn family(self) -> Family {
        match self {
            Address::V4(_) => Family::Ipv4,
            Address::V6(_) => Family::Ipv6,
        }
    }

    /// The 16 bytes of the kernel's `union nf_inet_addr`: IPv4 first, then zeros.
    pub const fn to_union(self) -> [u8; 16] {
        match self {
            Address::V4([a, b, c, d]) => [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            Address::V6(bytes) => bytes,
        }
    }

    /// Reads the kernel's `union nf_inet_addr`.
    pub const fn from_union(family: Family, bytes: [u8; 16]) -> Address {
        match family {
            Family::Ipv4 => {
                let [a, b, c, d, ..] = bytes;
                Address::V4([a, b, c, d])
            }
            Family::Ipv6 => Address::V6(bytes),
        }
    }

    /// Whether this is the unspecified address, 0.0.0.0 or `::`.
    pub fn is_unspecified(self) -> bool {
        self.to_union().iter().all(|byte| *byte == 0)
    }

    /// Whether packets for it go to one host: not `0.0.0.0/8`, `::`, multicast or IPv4's reserved
    /// class E with its broadcast address (RFC 1122, 3.2.1.3; RFC 4291, 2.4).
    pub fn is_unicast(self) -> bool {
        match self {
            Address::V4([first, ..]) => matches!(first, 1..=223),
            Address::V6([first, ..]) => first != 0xff && !self.is_unspecified(),
        }
    }
}

/// `10.0.0.100`, `2001:db8::1`.
impl fmt::Display for Address {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Address::V4(bytes) => Ipv4Addr::from(bytes).fmt(to),
            Address::V6(bytes) => Ipv6Addr::from(bytes).fmt(to),
        }
    }
}

/// A transport protocol that the director balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// The protocol number in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }
    }

    /// The transport with this protocol number, if the director balances it.
    pub const fn from_number(number: u16) -> Option<Transport> {
        match number {
            6 => Some(Transport::Tcp),
            17 => Some(Transport::Udp),
            _ => None,
        }
    }

    /// `TCP` or `UDP`, as ipvsadm prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_through_the_union() {
        let v4 = Address::V4([1, 2, 3, 4]);
        let v6 = Address::V6([9; 16]);
        for address in [v4, v6] {
            assert_eq!(
                Address::from_union(address.family(), address.to_union()),
                address
            );
            assert!(!address.is_unspecified());
        }
        assert!(Address::V4([0; 4]).is_unspecified());
        for one_host in [
            v4,
            v6,
            Address::V4([127, 0, 0, 1]),
            Address::V4([223, 255, 255, 255]),
        ] {
            assert!(one_host.is_unicast(), "{one_host}");
        }
        let nobody = [[0; 4], [0, 1, 2, 3], [224, 0, 0, 1], [255; 4]].map(Address::V4);
        for address in nobody
            .into_iter()
            .chain([[0; 16], [0xff; 16]].map(Address::V6))
        {
            assert!(!address.is_unicast(), "{address}");
        }
        for family in [Family::Ipv4, Family::Ipv6] {
            assert_eq!(Family::from_number(family.number()), Some(family));
        }
    }
}
