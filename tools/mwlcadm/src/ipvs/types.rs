// SPDX-License-Identifier: MIT
//! What the stock family has words for: services, real servers, the synchronisation daemon.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipvs_mwlc::director::address::Family;
use ipvs_mwlc::director::stats::Stats;
use ipvs_mwlc::uapi::ipvs::forwarding;

use crate::names::ServiceName;

/// Which of a client's address bits count for persistence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netmask {
    /// A mask of IPv4.
    V4(Ipv4Addr),
    /// The length of an IPv6 prefix.
    V6(u32),
}

/// An IPv6 address's bits.
const IPV6_BITS: u32 = 128;

impl Netmask {
    /// Every bit counts.
    pub const fn whole(family: Family) -> Netmask {
        match family {
            Family::Ipv4 => Netmask::V4(Ipv4Addr::BROADCAST),
            Family::Ipv6 => Netmask::V6(IPV6_BITS),
        }
    }

    /// As `-M` takes it, or nothing where every bit counts.
    pub fn text(self) -> Option<String> {
        match self {
            Netmask::V4(Ipv4Addr::BROADCAST) | Netmask::V6(IPV6_BITS) => None,
            Netmask::V4(mask) => Some(mask.to_string()),
            Netmask::V6(bits) => Some(bits.to_string()),
        }
    }

    pub(super) const fn to_bytes(self) -> [u8; 4] {
        match self {
            Netmask::V4(mask) => mask.octets(),
            Netmask::V6(bits) => bits.to_ne_bytes(),
        }
    }

    pub(super) fn from_bytes(family: Family, bytes: [u8; 4]) -> Netmask {
        match family {
            Family::Ipv4 => Netmask::V4(Ipv4Addr::from(bytes)),
            Family::Ipv6 => Netmask::V6(u32::from_ne_bytes(bytes)),
        }
    }
}

/// A service's configuration; whether it makes sense, the director decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its name.
    pub name: ServiceName,
    /// Its scheduler's name.
    pub scheduler: String,
    /// Its flags without `HASHED`.
    pub flags: u32,
    /// Persistence timeout in seconds.
    pub timeout_s: u32,
    /// Persistence granularity.
    pub netmask: Netmask,
    /// Persistence engine.
    pub engine: Option<String>,
}

/// How packets are sent to a real server, with the numbers of the protocol, so that the director
/// itself refuses what it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// 0 masquerading, 1 local, 2 tunnelling, 3 direct routing.
    pub method: u32,
    /// The tunnel's type: 0 ipip, 1 gue, 2 gre.
    pub tunnel: u8,
    /// The tunnel's UDP port.
    pub tunnel_port: u16,
    /// The tunnel's checksum flags.
    pub tunnel_flags: u16,
}

impl Forwarding {
    /// Direct routing, ipvsadm's default.
    pub const DIRECT: Forwarding = Forwarding {
        method: forwarding::DROUTE,
        tunnel: 0,
        tunnel_port: 0,
        tunnel_flags: 0,
    };
}

/// A real server's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestConfig {
    /// Its name.
    pub address: SocketAddr,
    /// How packets are sent to it.
    pub forwarding: Forwarding,
    /// Its weight.
    pub weight: u32,
    /// It takes no more connections once it has as many; 0: as many as come.
    pub upper: u32,
    /// It takes connections again when it has less than these; 0: three quarters of `upper`.
    pub lower: u32,
}

/// A service as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Its configuration.
    pub config: ServiceConfig,
    /// Its counters.
    pub stats: Stats,
}

/// A real server as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestEntry {
    /// Its configuration.
    pub config: DestConfig,
    /// Active connections.
    pub active: u32,
    /// Inactive connections, half-open ones included.
    pub inactive: u32,
    /// Persistent connections.
    pub persistent: u32,
    /// Its counters.
    pub stats: Stats,
}

/// A synchronisation daemon, of which a host has at most one of each role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Daemon {
    /// 1 master, 2 backup.
    pub role: u32,
    /// Its multicast interface.
    pub interface: String,
    /// Its number.
    pub sync_id: u32,
    /// The longest message; 0: the kernel's choice.
    pub message_bytes_max: u16,
    /// Its multicast group, if not the default one.
    pub group: Option<IpAddr>,
    /// Its UDP port; 0: the default one.
    pub port: u16,
    /// How far its messages go; 0: the default.
    pub ttl: u8,
}

/// Version and table size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Major, minor and patch in one byte each.
    pub version: u32,
    /// Size of the connection table.
    pub table_size: u32,
}
