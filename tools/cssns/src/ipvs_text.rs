// SPDX-License-Identifier: MIT
//! Understands what `ipvsadm -L -n --exact` prints, with and without `--stats`.
//!
//! ```text
//! IP Virtual Server version 1.2.1 (size=4096)
//! Prot LocalAddress:Port Scheduler Flags
//!   -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
//! TCP  198.18.0.100:80 mwlc
//!   -> 198.18.0.21:80               Route   1      3          0
//! ```

use std::net::SocketAddrV4;

/// A virtual service in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service<D> {
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// The virtual address.
    pub address: SocketAddrV4,
    /// What stands after the address: the scheduler and flags, or the service's counters.
    pub rest: Vec<String>,
    /// Its real servers, in the order of the listing.
    pub destinations: Vec<D>,
}

/// A real server in a plain listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its address.
    pub address: SocketAddrV4,
    /// Forwarding method, as ipvsadm names it: `Route`, `Masq`, `Tunnel`.
    pub forward: String,
    /// Wi.
    pub weight: u32,
    /// Established connections.
    pub active: u64,
    /// Other connections.
    pub inactive: u64,
}

/// Counters of a real server or a service in a `--stats` listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Whose they are.
    pub address: SocketAddrV4,
    /// Connections since the entry was made.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients that passed the director; none in VS/DR.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients that passed the director.
    pub bytes_out: u64,
}

impl<D> Service<D> {
    /// The scheduler's name, in a plain listing.
    #[must_use]
    pub fn scheduler(&self) -> &str {
        self.rest.first().map_or("", String::as_str)
    }
}

impl Service<Counters> {
    /// The service's own counters.
    #[must_use]
    pub fn counters(&self) -> Option<Counters> {
        let fields: Vec<&str> = self.rest.iter().map(String::as_str).collect();
        counters(self.address, &fields)
    }
}

/// IPv4 services in the output of `ipvsadm -L -n --exact`. Lines of other kinds are left out.
#[must_use]
pub fn parse_listing(text: &str) -> Vec<Service<Destination>> {
    parse(text, |address, fields| {
        let &[forward, weight, active, inactive] = fields else {
            return None;
        };
        Some(Destination {
            address,
            forward: forward.to_owned(),
            weight: weight.parse().ok()?,
            active: active.parse().ok()?,
            inactive: inactive.parse().ok()?,
        })
    })
}

/// IPv4 services in the output of `ipvsadm -L -n --stats --exact`.
#[must_use]
pub fn parse_statistics(text: &str) -> Vec<Service<Counters>> {
    parse(text, counters)
}

fn counters(address: SocketAddrV4, fields: &[&str]) -> Option<Counters> {
    let &[connections, packets_in, packets_out, bytes_in, bytes_out] = fields else {
        return None;
    };
    Some(Counters {
        address,
        connections: connections.parse().ok()?,
        packets_in: packets_in.parse().ok()?,
        packets_out: packets_out.parse().ok()?,
        bytes_in: bytes_in.parse().ok()?,
        bytes_out: bytes_out.parse().ok()?,
    })
}

fn parse<D>(
    text: &str,
    destination: impl Fn(SocketAddrV4, &[&str]) -> Option<D>,
) -> Vec<Service<D>> {
    let mut services: Vec<Service<D>> = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let Some((&first, rest)) = fields.split_first() else {
            continue;
        };
        let Some((address, rest)) = rest.split_first() else {
            continue;
        };
        let Ok(address) = address.parse() else {
            continue;
        };
        match first {
            "TCP" | "UDP" => services.push(Service {
                protocol: first.to_owned(),
                address,
                rest: rest.iter().map(|&word| word.to_owned()).collect(),
                destinations: Vec::new(),
            }),
            "->" => {
                if let (Some(service), Some(found)) =
                    (services.last_mut(), destination(address, rest))
                {
                    service.destinations.push(found);
                }
            }
            _ => {}
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_understood() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port Scheduler Flags\n  \
              -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n\
            TCP  198.18.0.100:80 mwlc persistent 300\n  \
              -> 198.18.0.21:80               Route   1      3          4         \n  \
              -> 198.18.0.22:80               Route   0      0          0         \n\
            UDP  198.18.0.100:53 rr\n";
        let services = parse_listing(text);
        assert_eq!(services.len(), 2);
        assert_eq!(services[0].scheduler(), "mwlc");
        assert_eq!(services[0].destinations.len(), 2);
        let first = &services[0].destinations[0];
        assert_eq!((first.weight, first.active, first.inactive), (1, 3, 4));
        assert_eq!(first.forward, "Route");
        assert_eq!(services[1].protocol, "UDP");
        assert!(services[1].destinations.is_empty());
    }

    #[test]
    fn statistics_are_understood() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  \
              -> RemoteAddress:Port\n\
            TCP  198.18.0.100:80                   120    24000        0  1300000        0\n  \
              -> 198.18.0.21:80                     40     8000        0   433000        0\n";
        let services = parse_statistics(text);
        assert_eq!(services[0].counters().map(|c| c.packets_in), Some(24000));
        assert_eq!(services[0].destinations[0].connections, 40);
        assert_eq!(services[0].destinations[0].bytes_in, 433_000);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "((TCP|UDP|->|[ 0-9.:]{1,9}|\n) ?){0,40}") {
            let _ = parse_listing(&text);
            let _ = parse_statistics(&text);
        }
    }
}
