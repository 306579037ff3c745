// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which clients persistence takes as one: the netmask of a service.

use crate::director::address::{Address, Family};

/// The longest prefix of an IPv6 address, in bits.
const IPV6_PREFIX_BITS_MAX: u32 = 128;

/// The part of a client's address that persistence looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netmask {
    /// IPv4: the bits that count, in network order.
    V4([u8; 4]),
    /// IPv6: how many leading bits count, 1 to 128.
    V6(u8),
}

impl Netmask {
    /// Every client by itself.
    pub const fn whole(family: Family) -> Netmask {
        match family {
            Family::Ipv4 => Netmask::V4([255; 4]),
            Family::Ipv6 => Netmask::V6(IPV6_PREFIX_BITS_MAX as u8),
        }
    }

    /// Reads the four bytes of the IPVS family: an IPv4 mask in network order, or an IPv6 prefix
    /// length in host order; `None` if that is not 1 to 128.
    pub const fn from_bytes(family: Family, bytes: [u8; 4]) -> Option<Netmask> {
        match family {
            Family::Ipv4 => Some(Netmask::V4(bytes)),
            Family::Ipv6 => match u32::from_ne_bytes(bytes) {
                bits @ 1..=IPV6_PREFIX_BITS_MAX => Some(Netmask::V6(bits as u8)),
                _ => None,
            },
        }
    }

    /// The four bytes of the IPVS family.
    pub const fn to_bytes(self) -> [u8; 4] {
        match self {
            Netmask::V4(bytes) => bytes,
            Netmask::V6(bits) => (bits as u32).to_ne_bytes(),
        }
    }

    /// The network of a client. An address of the other family, which no service has, stays whole.
    #[must_use]
    pub fn network_of(self, client: Address) -> Address {
        match (self, client) {
            (Netmask::V4(mask), Address::V4(bytes)) => {
                let network = u32::from_be_bytes(bytes) & u32::from_be_bytes(mask);
                Address::V4(network.to_be_bytes())
            }
            (Netmask::V6(bits), Address::V6(bytes)) => {
                let host_bits = IPV6_PREFIX_BITS_MAX.saturating_sub(u32::from(bits));
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                Address::V6((u128::from_be_bytes(bytes) & mask).to_be_bytes())
            }
            (_, other) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_and_a_prefix_is_1_to_128() {
        for bytes in [[0; 4], [255, 255, 0, 0], [255; 4]] {
            let mask = Netmask::from_bytes(Family::Ipv4, bytes);
            assert_eq!(mask.map(Netmask::to_bytes), Some(bytes));
        }
        for bits in [0u32, 1, 64, 128, 129, u32::MAX] {
            let mask = Netmask::from_bytes(Family::Ipv6, bits.to_ne_bytes());
            assert_eq!(mask.is_some(), (1..=128).contains(&bits), "{bits}");
            assert!(mask.is_none_or(|mask| mask.to_bytes() == bits.to_ne_bytes()));
        }
    }

    #[test]
    fn clients_of_one_network_are_one() {
        let mask = Netmask::V4([255, 255, 255, 0]);
        let client = Address::V4([10, 1, 2, 3]);
        assert_eq!(mask.network_of(client), Address::V4([10, 1, 2, 0]));
        assert_eq!(Netmask::whole(Family::Ipv4).network_of(client), client);
        let mut bytes = [0xff; 16];
        let client = Address::V6(bytes);
        assert_eq!(Netmask::whole(Family::Ipv6).network_of(client), client);
        bytes[8] = 0x80;
        bytes[9..].fill(0);
        assert_eq!(Netmask::V6(65).network_of(client), Address::V6(bytes));
        assert_eq!(mask.network_of(client), client);
    }
}
