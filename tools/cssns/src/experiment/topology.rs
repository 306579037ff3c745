// SPDX-License-Identifier: MIT
//! The three networks of the paper's figure 3, and who is on which. Pure: nothing is made here.
//!
//! ```text
//!  clients' network 198.18.0.0/24
//!  client1 .11   client2 .12   client3 .13      director .2, VIP .100      node1 .21  node2 .22  node3 .23
//!     |             |             |                |                         |          |          |
//!     +--------------------- br0 ------------------+-------------------------+----------+----------+
//!
//!  dispatch network 198.18.1.0/24                director .2                node1 .21  node2 .22  node3 .23
//!                                                  |                         |          |          |
//!     br1 -----------------------------------------+-------------------------+----------+----------+
//!
//!  storage network 198.18.2.0/24
//!  manager .150  iod1 .151  iod2 .152  iod3 .153                            node1 .21  node2 .22  node3 .23
//!     |             |          |          |                                  |          |          |
//!     br2 ----------+----------+----------+----------------------------------+----------+----------+
//! ```
//!
//! What the picture means for routes: a request goes from a client to the VIP, which the director owns on
//! the clients' network, and leaves the director on the dispatch network, where the real servers'
//! addresses are (VS/DR). The node has the VIP on `lo` and answers straight over the clients' network.
//! Stripes come over the storage network. A host has a link of its own, with its own rate, to each network
//! that it is on. No host forwards between networks but the director.

use crate::director::SecondLink;
use crate::net;
use crate::plan::{self, Node, Plan};
use std::net::Ipv4Addr;

/// Client machines, as in the paper.
pub const CLIENTS: u8 = 3;

/// I/O daemons, as in the paper.
pub const IODS: u8 = 3;

/// Nodes, as many as the paper has at most.
pub const NODES: u8 = 3;

const MANAGER_HOST: u8 = 150;
const CLIENT_HOST: u8 = 10;

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Of clients, director and nodes.
    Clients,
    /// Of director and nodes.
    Dispatch,
    /// Of nodes, metadata manager and I/O daemons.
    Storage,
}

impl Segment {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Clients, Self::Dispatch, Self::Storage];

    fn number(self) -> u8 {
        match self {
            Self::Clients => 0,
            Self::Dispatch => 1,
            Self::Storage => 2,
        }
    }

    /// The name of its bridge.
    #[must_use]
    pub fn bridge(self) -> &'static str {
        match self {
            Self::Clients => net::BRIDGE,
            Self::Dispatch => "br1",
            Self::Storage => "br2",
        }
    }

    /// The same host number on this network.
    fn address(self, on_clients: Ipv4Addr) -> Ipv4Addr {
        let [a, b, c, host] = on_clients.octets();
        Ipv4Addr::new(a, b, c.saturating_add(self.number()), host)
    }
}

impl std::fmt::Display for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Clients => "clients",
            Self::Dispatch => "dispatch",
            Self::Storage => "storage",
        })
    }
}

/// A host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Host {
    /// A client machine, from 1.
    Client(u8),
    /// The director.
    Director,
    /// A node.
    Node(Node),
    /// An I/O daemon's, from 1.
    Iod(u8),
    /// The metadata manager's.
    Manager,
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Client(number) => format!("client{number}"),
            Self::Director => net::DIRECTOR_PORT.to_owned(),
            Self::Node(node) => node.to_string(),
            Self::Iod(number) => format!("iod{number}"),
            Self::Manager => "manager".to_owned(),
        };
        f.pad(&name)
    }
}

impl Host {
    /// Every host.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let nodes = Node::first(NODES).unwrap_or_default();
        (1..=CLIENTS)
            .map(Self::Client)
            .chain([Self::Director])
            .chain(nodes.into_iter().map(Self::Node))
            .chain((1..=IODS).map(Self::Iod))
            .chain([Self::Manager])
            .collect()
    }

    /// The networks that it is on, in the order of its devices.
    #[must_use]
    pub fn segments(self) -> &'static [Segment] {
        match self {
            Self::Client(_) => &[Segment::Clients],
            Self::Director => &[Segment::Clients, Segment::Dispatch],
            Self::Node(_) => &Segment::ALL,
            Self::Iod(_) | Self::Manager => &[Segment::Storage],
        }
    }

    /// Its network namespace; the director's guest has none.
    #[must_use]
    pub fn namespace(self, plan: &Plan) -> String {
        format!("{}{self}", plan.namespace_prefix())
    }

    /// Its links.
    #[must_use]
    pub fn links(self) -> Vec<Link> {
        let on_clients = match self {
            Self::Client(number) => plan::host(CLIENT_HOST.saturating_add(number)),
            Self::Director => plan::director_address(),
            Self::Node(node) => node.address(),
            Self::Iod(number) => plan::host(MANAGER_HOST.saturating_add(number)),
            Self::Manager => plan::host(MANAGER_HOST),
        };
        self.segments()
            .iter()
            .zip(0u8..)
            .map(|(&segment, number)| Link {
                host: self,
                segment,
                device: format!("eth{number}"),
                // The director's first tap has its name from the demo's cluster.
                port: match (self, segment) {
                    (Self::Director, Segment::Clients) => net::DIRECTOR_PORT.to_owned(),
                    _ => format!("{self}-{}", segment.number()),
                },
                address: segment.address(on_clients),
            })
            .collect()
    }

    /// Its address on a network that it is on.
    #[must_use]
    pub fn address(self, segment: Segment) -> Option<Ipv4Addr> {
        self.links()
            .into_iter()
            .find(|link| link.segment == segment)
            .map(|link| link.address)
    }
}

/// A host's link to a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The host.
    pub host: Host,
    /// The network.
    pub segment: Segment,
    /// The host's end.
    pub device: String,
    /// The bridge's end, in the switch namespace.
    pub port: String,
    /// The host's address.
    pub address: Ipv4Addr,
}

/// The director's link to the dispatch network.
#[must_use]
pub fn director_second_link() -> Option<SecondLink> {
    let links = Host::Director.links();
    let link = links
        .into_iter()
        .find(|link| link.segment == Segment::Dispatch)?;
    let [a, b, c, d] = link.address.octets();
    Some(SecondLink {
        bridge: Segment::Dispatch.bridge().to_owned(),
        port: link.port,
        address: link.address,
        mac: format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_link_has_its_own_address_and_port_that_a_device_can_have() {
        let links: Vec<Link> = Host::all().into_iter().flat_map(Host::links).collect();
        assert_eq!(links.len(), 3 + 2 + 3 * 3 + 3 + 1);
        let addresses: HashSet<Ipv4Addr> = links.iter().map(|link| link.address).collect();
        assert_eq!(addresses.len(), links.len());
        assert!(!addresses.contains(&plan::vip()));
        let ports: HashSet<&str> = links.iter().map(|link| link.port.as_str()).collect();
        assert_eq!(ports.len(), links.len());
        // IFNAMSIZ is 16 with the terminating zero.
        assert!(ports.iter().all(|port| port.len() < 16));
    }

    #[test]
    fn requests_and_answers_take_different_networks() {
        let node = Host::Node(Node::FIRST);
        assert_eq!(node.segments().len(), 3);
        let dispatch = node.address(Segment::Dispatch).unwrap();
        assert_eq!(dispatch.octets(), [198, 18, 1, 21]);
        assert_eq!(node.address(Segment::Clients), Some(Node::FIRST.address()));
        assert_eq!(Host::Client(1).address(Segment::Storage), None);
        assert_eq!(Host::Iod(1).address(Segment::Clients), None);
        let second = director_second_link().unwrap();
        assert_eq!(second.address.octets()[..3], dispatch.octets()[..3]);
    }
}
