// SPDX-License-Identifier: MIT
//! Makes the network of a run: namespaces, a bridge, veth pairs, the director's tap.
//!
//! The topology is drawn in [`crate::plan`].

use crate::ledger::{Ledger, Resource};
use crate::plan::{self, Node, PREFIX_LENGTH};
use crate::process::run;
use std::net::Ipv4Addr;

/// The bridge's name inside the switch namespace.
const BRIDGE: &str = "br0";

/// The tap's name inside the switch namespace.
pub const DIRECTOR_PORT: &str = "director";

/// Makes the switch and the client's namespace.
///
/// # Errors
/// Names the command that failed.
pub fn make_switch_and_client(ledger: &Ledger) -> anyhow::Result<()> {
    let plan = ledger.plan();
    let switch = plan.switch_namespace();
    make_namespace(ledger, &switch)?;
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
    let mut add = vec!["ip", "-n", &switch, "link", "add", BRIDGE];
    add.extend(bridge);
    run(&add)?;
    run(&["ip", "-n", &switch, "link", "set", BRIDGE, "up"])?;
    let client = plan.client_namespace();
    make_namespace(ledger, &client)?;
    plug_in(ledger, &client, "client", plan::client_address())
}

/// Makes the director's tap on the bridge.
///
/// # Errors
/// Names the command that failed.
pub fn make_director_tap(ledger: &Ledger) -> anyhow::Result<()> {
    let switch = ledger.plan().switch_namespace();
    run(&[
        "ip",
        "-n",
        &switch,
        "tuntap",
        "add",
        "dev",
        DIRECTOR_PORT,
        "mode",
        "tap",
    ])?;
    run(&[
        "ip",
        "-n",
        &switch,
        "link",
        "set",
        DIRECTOR_PORT,
        "master",
        BRIDGE,
        "up",
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
    // Before the VIP exists: from the first moment only the director answers for it.
    sysctl(&name, "net.ipv4.conf.all.arp_ignore=1")?;
    sysctl(&name, "net.ipv4.conf.all.arp_announce=2")?;
    let vip = format!("{}/32", plan::vip());
    run(&["ip", "-n", &name, "address", "add", &vip, "dev", "lo"])?;
    plug_in(ledger, &name, &node.to_string(), node.address())
}

fn make_namespace(ledger: &Ledger, name: &str) -> anyhow::Result<()> {
    let resource = Resource::Namespace {
        name: name.to_owned(),
    };
    ledger.make(resource, || run(&["ip", "netns", "add", name]).map(drop))?;
    run(&["ip", "-n", name, "link", "set", "lo", "up"]).map(drop)
}

/// A veth pair: `eth0` in `namespace`, `port` on the bridge.
fn plug_in(ledger: &Ledger, namespace: &str, port: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    let switch = ledger.plan().switch_namespace();
    let address = format!("{address}/{PREFIX_LENGTH}");
    run(&[
        "ip", "-n", &switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns",
        namespace,
    ])?;
    run(&[
        "ip", "-n", &switch, "link", "set", port, "master", BRIDGE, "up",
    ])?;
    run(&[
        "ip", "-n", namespace, "address", "add", &address, "dev", "eth0",
    ])?;
    run(&["ip", "-n", namespace, "link", "set", "eth0", "up"]).map(drop)
}

fn sysctl(namespace: &str, assignment: &str) -> anyhow::Result<()> {
    let file = format!("--net=/run/netns/{namespace}");
    run(&["nsenter", &file, "--", "sysctl", "-q", "-w", assignment]).map(drop)
}
