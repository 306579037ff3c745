// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What names a virtual service, and which of the names a packet may be meant by.

use core::fmt;

use crate::director::address::{Address, Family, Transport};

/// The control port of FTP, whose data connections a persistent service takes along, as in IPVS.
pub const FTP_PORT: u16 = 21;
/// The port from which an active FTP server opens its data connections.
const FTP_DATA_PORT: u16 = 20;
/// The first port that needs no privilege: a passive FTP server's data ports are from here on.
const UNPRIVILEGED_PORT_MIN: u16 = 1024;

/// A transport protocol, a virtual IP and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// TCP or UDP.
    pub transport: Transport,
    /// The virtual IP.
    pub address: Address,
    /// The port, in host order; 0 is every port that has no service of its own (persistent
    /// services only).
    pub port: u16,
}

/// A mark that the firewall has put on packets of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FirewallMark {
    /// The packets' address family.
    pub family: Family,
    /// The mark; never 0, which is that of unmarked packets.
    pub mark: u32,
}

/// What names a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceKey {
    /// Transport, virtual IP and port.
    Endpoint(Endpoint),
    /// A firewall mark, whatever the transport, address and port.
    Mark(FirewallMark),
}

impl ServiceKey {
    /// The service of an endpoint.
    pub const fn endpoint(transport: Transport, address: Address, port: u16) -> ServiceKey {
        ServiceKey::Endpoint(Endpoint {
            transport,
            address,
            port,
        })
    }

    /// The service of a firewall mark.
    pub const fn mark(family: Family, mark: u32) -> ServiceKey {
        ServiceKey::Mark(FirewallMark { family, mark })
    }

    /// The address family of its packets.
    pub const fn family(&self) -> Family {
        match self {
            ServiceKey::Endpoint(endpoint) => endpoint.address.family(),
            ServiceKey::Mark(mark) => mark.family,
        }
    }

    /// Its port; 0 if it is for many.
    pub const fn port(&self) -> u16 {
        match self {
            ServiceKey::Endpoint(endpoint) => endpoint.port,
            ServiceKey::Mark(_) => 0,
        }
    }

    /// Whether it takes packets to its own endpoint only, so that [`candidates`] has it for those
    /// and no others.
    pub const fn is_plain(&self) -> bool {
        match self {
            ServiceKey::Endpoint(endpoint) => endpoint.port != 0 && endpoint.port != FTP_PORT,
            ServiceKey::Mark(_) => false,
        }
    }
}

/// As the log has it: `TCP 10.0.0.100:80`, `UDP [2001:db8::1]:53`, `FWM 7`.
impl fmt::Display for ServiceKey {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceKey::Endpoint(endpoint) => {
                write!(to, "{} ", endpoint.transport.name())?;
                match endpoint.address {
                    Address::V4(_) => write!(to, "{}:{}", endpoint.address, endpoint.port),
                    Address::V6(_) => write!(to, "[{}]:{}", endpoint.address, endpoint.port),
                }
            }
            ServiceKey::Mark(firewall) => write!(to, "FWM {}", firewall.mark),
        }
    }
}

/// The names under which a packet's service is looked for, the first that exists counts: its mark,
/// its endpoint, FTP's control port for what may be an FTP data connection, port 0. The order is
/// that of IPVS.
pub fn candidates(endpoint: Endpoint, mark: u32) -> impl Iterator<Item = ServiceKey> {
    let family = endpoint.address.family();
    let at_port = move |port| ServiceKey::Endpoint(Endpoint { port, ..endpoint });
    let data_port = endpoint.port == FTP_DATA_PORT || endpoint.port >= UNPRIVILEGED_PORT_MIN;
    let may_be_ftp = endpoint.transport == Transport::Tcp && data_port;
    [
        (mark != 0).then_some(ServiceKey::mark(family, mark)),
        Some(ServiceKey::Endpoint(endpoint)),
        may_be_ftp.then_some(at_port(FTP_PORT)),
        Some(at_port(0)),
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    const VIP: Address = Address::V4([10, 0, 0, 100]);

    fn names(transport: Transport, port: u16, mark: u32) -> Vec<ServiceKey> {
        let endpoint = Endpoint {
            transport,
            address: VIP,
            port,
        };
        candidates(endpoint, mark).collect()
    }

    #[test]
    fn the_mark_comes_first_and_port_zero_last() {
        let at = |port| ServiceKey::endpoint(Transport::Tcp, VIP, port);
        let mark = ServiceKey::mark(Family::Ipv4, 7);
        assert_eq!(names(Transport::Tcp, 80, 7), [mark, at(80), at(0)]);
        assert_eq!(names(Transport::Tcp, 80, 0), [at(80), at(0)]);
    }

    #[test]
    fn ftp_data_connections_find_the_control_port() {
        let at = |port| ServiceKey::endpoint(Transport::Tcp, VIP, port);
        for port in [20, 1024, 65_535] {
            assert_eq!(names(Transport::Tcp, port, 0), [at(port), at(21), at(0)]);
            assert_eq!(names(Transport::Udp, port, 0).len(), 2, "only TCP");
        }
        for port in [19, 21, 1023] {
            assert_eq!(names(Transport::Tcp, port, 0), [at(port), at(0)]);
        }
    }

    #[test]
    fn a_plain_name_is_found_by_its_own_endpoint_only() {
        for transport in [Transport::Tcp, Transport::Udp] {
            for port in 0..=u16::MAX {
                let own = ServiceKey::endpoint(transport, VIP, port);
                let others = names(transport, port, 7).into_iter();
                assert!(others
                    .filter(|name| *name != own)
                    .all(|name| !name.is_plain()));
                assert_eq!(own.is_plain(), port != 0 && port != FTP_PORT);
            }
        }
    }

    #[test]
    fn names_for_the_log() {
        let mut six = [0; 16];
        six[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        six[15] = 1;
        let names = [
            ServiceKey::endpoint(Transport::Tcp, VIP, 80),
            ServiceKey::endpoint(Transport::Udp, Address::V6(six), 53),
            ServiceKey::mark(Family::Ipv4, 7),
        ];
        let shown = names.map(|name| name.to_string());
        let expected = ["TCP 10.0.0.100:80", "UDP [2001:db8::1]:53", "FWM 7"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_mark_has_a_family_and_no_port() {
        let six = ServiceKey::mark(Family::Ipv6, 1);
        assert_ne!(six, ServiceKey::mark(Family::Ipv4, 1));
        assert_eq!((six.family(), six.port()), (Family::Ipv6, 0));
        let web = ServiceKey::endpoint(Transport::Tcp, VIP, 80);
        assert_eq!((web.family(), web.port()), (Family::Ipv4, 80));
    }
}
