// SPDX-License-Identifier: MIT
//! Makes the network of a run: namespaces, a bridge, veth pairs, the director's tap.
//!
//! The topology is drawn in [`crate::plan`].

use crate::ledger::{Ledger, Resource};
use crate::plan::{self, Node, PREFIX_LENGTH};
use crate::process::run;
use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::net::Ipv4Addr;

/// The name of the clients' bridge inside the switch namespace.
pub const BRIDGE: &str = "br0";

/// The tap's name inside the switch namespace.
pub const DIRECTOR_PORT: &str = "director";

/// Makes the switch and the client's namespace.
///
/// # Errors
/// Names the command that failed.
pub fn make_switch_and_client(ledger: &Ledger) -> anyhow::Result<()> {
    let plan = ledger.plan();
    make_namespace(ledger, &plan.switch_namespace())?;
    make_bridge(ledger, BRIDGE)?;
    let client = plan.client_namespace();
    make_namespace(ledger, &client)?;
    plug_in(ledger, &client, "client", plan::client_address())
}

/// Makes a bridge in the switch namespace.
///
/// # Errors
/// Names the command that failed.
pub fn make_bridge(ledger: &Ledger, name: &str) -> anyhow::Result<()> {
    let switch = ledger.plan().switch_namespace();
    let bridge = [
        "type",
        "bridge",
        "stp_state",
        "0",
        "forward_delay",
        "0",
        "mcast_snooping",
        "0",
    ];
    let mut add = vec!["ip", "-n", &switch, "link", "add", name];
    add.extend(bridge);
    run(&add)?;
    run(&["ip", "-n", &switch, "link", "set", name, "up"]).map(drop)
}

/// Makes a tap for a guest on a bridge.
///
/// # Errors
/// Names the command that failed.
pub fn make_tap(ledger: &Ledger, port: &str, bridge: &str) -> anyhow::Result<()> {
    let switch = ledger.plan().switch_namespace();
    run(&[
        "ip", "-n", &switch, "tuntap", "add", "dev", port, "mode", "tap",
    ])?;
    run(&[
        "ip", "-n", &switch, "link", "set", port, "master", bridge, "up",
    ])
    .map(drop)
}

/// Makes a namespace for a director that is this machine's own kernel: it owns the VIP.
///
/// # Errors
/// Names the command that failed.
pub fn make_director_namespace(ledger: &Ledger) -> anyhow::Result<()> {
    let name = ledger.plan().director_namespace();
    make_namespace(ledger, &name)?;
    plug_in(ledger, &name, DIRECTOR_PORT, plan::director_address())?;
    let vip = format!("{}/32", plan::vip());
    run(&["ip", "-n", &name, "address", "add", &vip, "dev", "eth0"]).map(drop)
}

/// Makes a node's namespace: its own address, and the VIP on `lo`, for which it answers no ARP.
///
/// # Errors
/// Names the command that failed.
pub fn make_node(ledger: &Ledger, node: Node) -> anyhow::Result<()> {
    let name = ledger.plan().node_namespace(node);
    make_namespace(ledger, &name)?;
    hold_vip(&name)?;
    plug_in(ledger, &name, &node.to_string(), node.address())
}

/// Gives a node's namespace the VIP on `lo`, for which it answers no ARP.
///
/// # Errors
/// Names the command that failed.
pub fn hold_vip(namespace: &str) -> anyhow::Result<()> {
    // Before the VIP exists: from the first moment only the director answers for it.
    sysctl(namespace, "net.ipv4.conf.all.arp_ignore=1")?;
    sysctl(namespace, "net.ipv4.conf.all.arp_announce=2")?;
    let vip = format!("{}/32", plan::vip());
    run(&["ip", "-n", namespace, "address", "add", &vip, "dev", "lo"]).map(drop)
}

/// Makes a network namespace with its `lo` up.
///
/// # Errors
/// Names the command that failed.
pub fn make_namespace(ledger: &Ledger, name: &str) -> anyhow::Result<()> {
    let resource = Resource::Namespace {
        name: name.to_owned(),
    };
    ledger.make(resource, || run(&["ip", "netns", "add", name]).map(drop))?;
    run(&["ip", "-n", name, "link", "set", "lo", "up"]).map(drop)
}

fn plug_in(ledger: &Ledger, namespace: &str, port: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    Cable {
        namespace,
        device: "eth0",
        address,
        bridge: BRIDGE,
        port,
    }
    .lay(ledger)
}

/// A veth pair: `device` in a host's namespace, `port` on a bridge of the switch.
#[derive(Debug, Clone, Copy)]
pub struct Cable<'a> {
    /// The host's namespace.
    pub namespace: &'a str,
    /// The host's end.
    pub device: &'a str,
    /// The host's address there.
    pub address: Ipv4Addr,
    /// The bridge.
    pub bridge: &'a str,
    /// The bridge's end.
    pub port: &'a str,
}

impl Cable<'_> {
    /// Makes the pair, with both ends up.
    ///
    /// # Errors
    /// Names the command that failed.
    pub fn lay(&self, ledger: &Ledger) -> anyhow::Result<()> {
        let Self {
            namespace,
            device,
            bridge,
            port,
            ..
        } = *self;
        let switch = ledger.plan().switch_namespace();
        let address = format!("{}/{PREFIX_LENGTH}", self.address);
        run(&[
            "ip", "-n", &switch, "link", "add", port, "type", "veth", "peer", "name", device,
            "netns", namespace,
        ])?;
        run(&[
            "ip", "-n", &switch, "link", "set", port, "master", bridge, "up",
        ])?;
        run(&[
            "ip", "-n", namespace, "address", "add", &address, "dev", device,
        ])?;
        run(&["ip", "-n", namespace, "link", "set", device, "up"]).map(drop)
    }
}

/// Sets a kernel parameter in a namespace.
///
/// # Errors
/// When it cannot be set.
pub fn sysctl(namespace: &str, assignment: &str) -> anyhow::Result<()> {
    let file = format!("--net=/run/netns/{namespace}");
    run(&["nsenter", &file, "--", "sysctl", "-q", "-w", assignment]).map(drop)
}

/// Chooses the congestion control of all TCP connections over a device's own network. It is a property of
/// the route: a namespace's sysctl may only be set to what the machine lets users choose.
///
/// # Errors
/// When the kernel does not have it, or the route is not there.
pub fn control_congestion(
    namespace: &str,
    device: &str,
    address: Ipv4Addr,
    algorithm: &str,
) -> anyhow::Result<()> {
    let network = network_of(address);
    let route = format!(
        "{network}/{PREFIX_LENGTH} dev {device} proto kernel scope link src {address} congctl {algorithm}"
    );
    let mut argv = vec!["ip", "-n", namespace, "route", "change"];
    argv.extend(route.split(' '));
    run(&argv).map(drop)
}

/// The network that a host's address is in.
fn network_of(address: Ipv4Addr) -> Ipv4Addr {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(PREFIX_LENGTH))
        .unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

/// Does something in a network namespace, on a thread of its own that enters it; threads that it starts
/// are born there.
///
/// # Errors
/// When the namespace cannot be entered, the thread dies, or `work` fails.
pub fn inside<T: Send>(
    namespace: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let path = format!("/run/netns/{namespace}");
    let there = File::open(&path).with_context(|| path.clone())?;
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            setns(&there, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {path}"))?;
            work()
        });
        worker
            .join()
            .unwrap_or_else(|_| bail!("a thread in {namespace} died"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_in_its_network() {
        let network = network_of(Ipv4Addr::new(10, 77, 2, 101));
        assert_eq!(network, Ipv4Addr::new(10, 77, 2, 0));
    }
}
