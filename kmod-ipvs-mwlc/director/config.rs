// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What an administrator configures: virtual services, their destinations (real servers), limits.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use crate::director::errno::{Errno, Reject};
use crate::director::sched::Scheduler;
use crate::director::timeouts::TIMEOUT_S_MAX;

pub use crate::director::netmask::Netmask;
pub use crate::director::service_key::{Endpoint, FirewallMark, ServiceKey};

/// Virtual services in one network namespace. IPVS has no limit; one keeps a dump and a flush short.
pub const SERVICES_MAX: usize = 1024;
/// Destinations of one service. Most schedulers look at each of them for every new connection, so
/// this also bounds what a SYN can cost.
pub const DESTINATIONS_PER_SERVICE_MAX: usize = 1024;
/// The largest weight, as ipvsadm(8) has it; so a product with a load fits 128 bits by far.
pub const WEIGHT_MAX: u32 = 65_535;
/// The longest scheduler name, in bytes without the nul (`IP_VS_SCHEDNAME_MAXLEN` less one).
pub const SCHEDULER_NAME_BYTES_MAX: usize = 15;
/// The largest size that one connection may be given: 1 TiB. The sums of [`CONNECTIONS_MAX`] of
/// these fit 63 bits.
pub const CONNECTION_SIZE_BYTES_MAX: u64 = 1 << 40;
/// Connections in one network namespace: at 128 bytes each, 512 MiB at the most.
pub const CONNECTIONS_MAX: usize = 1 << 22;

/// The sum of the largest sizes of as many connections as there can be, in bytes.
pub const LOAD_BYTES_MAX: u64 = CONNECTIONS_MAX as u64 * CONNECTION_SIZE_BYTES_MAX;

const _: () = assert!(
    (CONNECTIONS_MAX as u128) * (CONNECTION_SIZE_BYTES_MAX as u128) < (1u128 << 63),
    "the sum of all connections' sizes must fit a signed 64-bit counter"
);

/// Service flag: connections of one client stay on one real server.
pub const SERVICE_PERSISTENT: u32 = 0x1;
/// Service flag: the service is in the table. Always reported; clients check it.
pub const SERVICE_HASHED: u32 = 0x2;
/// Service flag: every UDP datagram is scheduled on its own.
pub const SERVICE_ONE_PACKET: u32 = 0x4;
/// Service flag `flag-1` of the scheduler. With `wlc` it selects MWLC.
pub const SERVICE_SCHED1: u32 = 0x8;
/// Service flag `flag-2` of the scheduler; kept and reported, without effect.
pub const SERVICE_SCHED2: u32 = 0x10;
/// Service flag `flag-3` of the scheduler; kept and reported, without effect.
pub const SERVICE_SCHED3: u32 = 0x20;

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

/// A virtual service as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its name.
    pub key: ServiceKey,
    /// The scheduler as asked for; [`ServiceConfig::policy`] is the one that decides.
    pub scheduler: Scheduler,
    /// `SERVICE_*` flags, without [`SERVICE_HASHED`], which is added when reported.
    pub flags: u32,
    /// How long a client stays with its real server after its last connection, in seconds; counts
    /// with [`SERVICE_PERSISTENT`] only.
    pub timeout_s: u32,
    /// Which clients persistence takes as one.
    pub netmask: Netmask,
}

impl ServiceConfig {
    /// Whether a client stays on its real server.
    pub const fn is_persistent(&self) -> bool {
        self.flags & SERVICE_PERSISTENT != 0
    }

    /// Whether every UDP datagram is scheduled on its own.
    pub const fn is_one_packet(&self) -> bool {
        self.flags & SERVICE_ONE_PACKET != 0
    }

    /// The configuration if its parts go together, or why it is refused.
    pub const fn checked(self) -> Result<ServiceConfig, Reject> {
        if let ServiceKey::Endpoint(Endpoint { port: 0, .. }) = self.key {
            if !self.is_persistent() {
                return Err(Reject::new(
                    Errno::Invalid,
                    c"port 0 takes a persistent service: add -p",
                ));
            }
        }
        if self.is_persistent() && (self.timeout_s == 0 || self.timeout_s > TIMEOUT_S_MAX) {
            return Err(Reject::new(
                Errno::Invalid,
                c"a persistence timeout is 1 to 2147483 seconds",
            ));
        }
        Ok(self)
    }

    /// The scheduler that decides: `wlc` with `flag-1` is `mwlc`, `sed` with it is `msed`.
    ///
    /// keepalived has a closed list of scheduler names, but passes the flag for any of them.
    pub const fn policy(&self) -> Scheduler {
        match self.scheduler {
            Scheduler::Wlc if self.flags & SERVICE_SCHED1 != 0 => Scheduler::Mwlc,
            Scheduler::ShortestExpectedDelay if self.flags & SERVICE_SCHED1 != 0 => Scheduler::Msed,
            asked => asked,
        }
    }
}

/// Changes to a service's flags: the bits of `mask` are set to those of `flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FlagsUpdate {
    /// New values.
    pub flags: u32,
    /// The bits that change.
    pub mask: u32,
}

impl FlagsUpdate {
    /// The flags after the update.
    pub const fn apply(self, old: u32) -> u32 {
        ((old & !self.mask) | (self.flags & self.mask)) & !SERVICE_HASHED
    }
}

/// An edit of an existing service (`ipvsadm -E`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEdit {
    /// Which service.
    pub key: ServiceKey,
    /// Its scheduler from now on.
    pub scheduler: Scheduler,
    /// Its flags' changes.
    pub flags: FlagsUpdate,
    /// Persistence timeout in seconds.
    pub timeout_s: u32,
    /// Persistence netmask.
    pub netmask: Netmask,
}

impl ServiceEdit {
    /// The configuration of a new service.
    pub const fn added(&self) -> Result<ServiceConfig, Reject> {
        self.over(0)
    }

    /// The service's configuration after the edit.
    pub const fn apply(&self, old: &ServiceConfig) -> Result<ServiceConfig, Reject> {
        self.over(old.flags)
    }

    const fn over(&self, flags: u32) -> Result<ServiceConfig, Reject> {
        let config = ServiceConfig {
            key: self.key,
            scheduler: self.scheduler,
            flags: self.flags.apply(flags),
            timeout_s: self.timeout_s,
            netmask: self.netmask,
        };
        config.checked()
    }
}

/// What names a destination within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestKey {
    /// The real server's address.
    pub address: Address,
    /// Its port, in host order. In VS/DR the service's, since ports do not change; of a
    /// firewall-mark service any, without effect.
    pub port: u16,
}

/// How packets reach a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// The director itself serves (`LOCALNODE`, 1).
    LocalNode,
    /// Direct routing (`DROUTE`, 3): only the link-layer destination changes.
    DirectRouting,
}

impl Forwarding {
    /// The number in the IPVS family.
    pub const fn number(self) -> u32 {
        match self {
            Forwarding::LocalNode => 1,
            Forwarding::DirectRouting => 3,
        }
    }
}

/// A destination (real server) as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestConfig {
    /// Its name.
    pub key: DestKey,
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// Wi, 0 to [`WEIGHT_MAX`]; 0 quiesces: no new connections.
    pub weight: u32,
    /// When it takes no more connections.
    pub thresholds: Thresholds,
}

/// Connection counts at which a destination stops and resumes taking connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Thresholds {
    /// Overloaded at this many connections; 0: never.
    pub upper: u32,
    /// No longer overloaded below this many; 0: three quarters of `upper`.
    pub lower: u32,
}

impl Thresholds {
    /// Whether a destination with this many connections (all classes) is overloaded, given whether
    /// it was. As IPVS has it: on at `upper`, off below `lower` or below three quarters of `upper`.
    pub const fn overloaded(self, was: bool, connections: u32) -> bool {
        if self.upper == 0 {
            return false;
        }
        if connections >= self.upper {
            return true;
        }
        if !was {
            return false;
        }
        if self.lower != 0 {
            connections >= self.lower
        } else {
            (connections as u64).saturating_mul(4) >= (self.upper as u64).saturating_mul(3)
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

    #[test]
    fn thresholds_have_hysteresis() {
        let none = Thresholds::default();
        assert!(!none.overloaded(true, u32::MAX));
        let both = Thresholds {
            upper: 10,
            lower: 5,
        };
        let cases = [
            (false, 9, false),
            (false, 10, true),
            (true, 5, true),
            (true, 4, false),
        ];
        for (was, connections, expected) in cases {
            assert_eq!(both.overloaded(was, connections), expected, "{connections}");
        }
        // Without a lower one, three quarters of the upper.
        let upper = Thresholds { upper: 8, lower: 0 };
        for (was, connections, expected) in [(true, 6, true), (true, 5, false), (false, 7, false)] {
            assert_eq!(
                upper.overloaded(was, connections),
                expected,
                "{connections}"
            );
        }
    }
}
