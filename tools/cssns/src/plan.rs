// SPDX-License-Identifier: MIT
//! Which name and which address everything of one run has. Pure: nothing is made here.
//!
//! ```text
//!                 198.18.0.0/24, inside namespaces only
//!
//!   client 198.18.0.10      director 198.18.0.2        node1 .21   node2 .22   node3 .23 ...
//!   namespace RUN-client    QEMU guest, VIP .100       namespaces RUN-node1, RUN-node2 ...
//!   eth0                    eth0                       eth0, and the VIP on lo, not answering ARP
//!     |                       |                          |           |           |
//!   client                  director (tap)             node1       node2       node3
//!   +----------------------- br0 -- namespace RUN-switch --------------------------+
//! ```
//!
//! Request: client -> director (ARP for the VIP) -> node (its hardware address; VS/DR).
//! Answer: node -> client straight over the bridge, from the VIP.

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Most nodes of a cluster: their addresses end before the broadcast address.
pub const NODES_MAX: u8 = 99;

/// Prefix of every namespace and directory that a run makes.
pub const NAME_PREFIX: &str = "cssns-";

/// The network of a run: RFC 2544 sets 198.18.0.0/15 aside for tests of network devices.
const NETWORK: [u8; 3] = [198, 18, 0];
/// Prefix length of [`NETWORK`].
pub const PREFIX_LENGTH: u8 = 24;
const DIRECTOR_HOST: u8 = 2;
const CLIENT_HOST: u8 = 10;
const VIP_HOST: u8 = 100;
/// Node `n` has the address `NODE_HOST_BASE + n`.
const NODE_HOST_BASE: u8 = 20;
/// Nodes from this number on are beyond the VIP's address.
const NODE_BEYOND_VIP: u8 = VIP_HOST - NODE_HOST_BASE;

/// Port of the web servers and of the virtual service.
pub const HTTP_PORT: u16 = 80;
/// Port of the metadata manager.
pub const MGR_PORT: u16 = 3000;
/// Port of every I/O daemon.
pub const IOD_PORT: u16 = 7000;

/// Names of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    run_id: String,
}

impl Plan {
    /// The plan of the run `run_id`; letters and digits, so that it can be part of names.
    ///
    /// # Errors
    /// When the id has other characters, or is empty or longer than 16.
    pub fn new(run_id: &str) -> Result<Self, String> {
        let usable = run_id.len() <= 16
            && !run_id.is_empty()
            && run_id.chars().all(|c| c.is_ascii_alphanumeric());
        if usable {
            Ok(Self {
                run_id: run_id.to_owned(),
            })
        } else {
            Err(format!(
                "{run_id:?} is not a run: expected letters and digits, as `cssns list` prints"
            ))
        }
    }

    /// The run's id.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// What every namespace of this run begins with.
    #[must_use]
    pub fn namespace_prefix(&self) -> String {
        format!("{NAME_PREFIX}{}-", self.run_id)
    }

    /// Namespace of the bridge.
    #[must_use]
    pub fn switch_namespace(&self) -> String {
        format!("{}switch", self.namespace_prefix())
    }

    /// Namespace of the clients.
    #[must_use]
    pub fn client_namespace(&self) -> String {
        format!("{}client", self.namespace_prefix())
    }

    /// Namespace of the director, where it is the host's own kernel and not a guest.
    #[must_use]
    pub fn director_namespace(&self) -> String {
        format!("{}director", self.namespace_prefix())
    }

    /// Namespace of a node.
    #[must_use]
    pub fn node_namespace(&self, node: Node) -> String {
        format!("{}{node}", self.namespace_prefix())
    }
}

/// A node's number, from 1 to [`NODES_MAX`]. It prints as `node3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Node(u8);

impl Node {
    /// The first node; the metadata manager runs on it.
    pub const FIRST: Self = Self(1);

    /// The node's number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// The node after this one, if there may be one.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        Self::try_from(self.0.checked_add(1)?).ok()
    }

    /// The first `count` nodes.
    ///
    /// # Errors
    /// When `count` is 0 or above [`NODES_MAX`].
    pub fn first(count: u8) -> Result<Vec<Self>, String> {
        Self::try_from(count)?;
        (1..=count).map(Self::try_from).collect()
    }

    /// The node's address.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        // Node 80 would be the VIP; from there on addresses are one further.
        let skip = u8::from(self.0 >= NODE_BEYOND_VIP);
        host(NODE_HOST_BASE.saturating_add(self.0).saturating_add(skip))
    }

    /// The node that has this address.
    #[must_use]
    pub fn with_address(address: Ipv4Addr) -> Option<Self> {
        (1..=NODES_MAX)
            .map(Self)
            .find(|node| node.address() == address)
    }
}

impl TryFrom<u8> for Node {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        if (1..=NODES_MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!(
                "there is no node {number}: nodes are 1 to {NODES_MAX}"
            ))
        }
    }
}

impl From<Node> for u8 {
    fn from(node: Node) -> Self {
        node.0
    }
}

impl std::str::FromStr for Node {
    type Err = String;

    /// Understands `3` and `node3`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("node").unwrap_or(text);
        let number: u8 = number
            .parse()
            .map_err(|_| format!("{text}: expected node1, node2 ..."))?;
        Self::try_from(number)
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("node{}", self.0))
    }
}

/// The virtual address that clients use.
#[must_use]
pub fn vip() -> Ipv4Addr {
    host(VIP_HOST)
}

/// The director's own address.
#[must_use]
pub fn director_address() -> Ipv4Addr {
    host(DIRECTOR_HOST)
}

/// The clients' address.
#[must_use]
pub fn client_address() -> Ipv4Addr {
    host(CLIENT_HOST)
}

/// The hardware address of the director's guest; locally administered.
#[must_use]
pub fn director_mac() -> String {
    format!(
        "02:00:{:02x}:{:02x}:{:02x}:{DIRECTOR_HOST:02x}",
        NETWORK[0], NETWORK[1], NETWORK[2]
    )
}

/// The host of this number in the network.
#[must_use]
pub fn host(last: u8) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, last)
}

/// Which code dispatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Code {
    /// Our module, `ipvs_mwlc`.
    Mwlc,
    /// Stock `ip_vs`, for comparison.
    IpVs,
}

impl Code {
    /// The scheduler that is used when none is named.
    #[must_use]
    pub fn default_scheduler(self) -> &'static str {
        match self {
            Self::Mwlc => "mwlc",
            Self::IpVs => "wlc",
        }
    }

    /// The name of its module.
    #[must_use]
    pub fn module(self) -> &'static str {
        match self {
            Self::Mwlc => "ipvs_mwlc",
            Self::IpVs => "ip_vs",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn all_addresses_differ_and_are_in_the_network() {
        let mut seen = HashSet::from([vip(), director_address(), client_address()]);
        assert_eq!(seen.len(), 3);
        for node in Node::first(NODES_MAX).unwrap() {
            assert!(
                seen.insert(node.address()),
                "{node} has the address of another"
            );
            assert_eq!(Node::with_address(node.address()), Some(node));
        }
        assert!(
            seen.iter()
                .all(|a| a.octets()[..3] == NETWORK && a.octets()[3] < 255)
        );
    }

    #[test]
    fn nodes_are_named_and_counted() {
        assert_eq!("node3".parse(), Ok(Node(3)));
        assert_eq!("3".parse(), Ok(Node(3)));
        for bad in ["", "0", "node", "node0", "100", "256", "-1"] {
            assert!(bad.parse::<Node>().is_err(), "{bad}");
        }
        assert_eq!(Node(7).to_string(), "node7");
        assert_eq!(Node::FIRST.next(), Some(Node(2)));
        assert_eq!(Node(NODES_MAX).next(), None);
        assert!(Node::first(0).is_err());
        assert_eq!(Node::first(3).unwrap().len(), 3);
    }

    #[test]
    fn run_ids_are_letters_and_digits() {
        let plan = Plan::new("Ab12").unwrap();
        assert_eq!(plan.node_namespace(Node(1)), "cssns-Ab12-node1");
        for bad in ["", "a/b", "..", "a b", "12345678901234567"] {
            assert!(Plan::new(bad).is_err(), "{bad}");
        }
    }
}
