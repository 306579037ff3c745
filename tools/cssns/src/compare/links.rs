// SPDX-License-Identifier: MIT
//! Narrow links from the nodes to the clients.

use crate::plan::{Node, Plan, client_address};
use crate::process::run;

/// Gives a node's packets to the clients this rate; those to other nodes keep the whole link, so that
/// storage is not what is measured.
///
/// # Errors
/// Names the command that failed.
pub fn narrow(plan: &Plan, node: Node, mbit: u32) -> anyhow::Result<()> {
    let namespace = format!("--net=/run/netns/{}", plan.node_namespace(node));
    let rate = format!("{mbit}mbit");
    let client = format!("{}/32", client_address());
    let tc = |words: &[&str]| {
        let mut argv = vec!["nsenter", &namespace, "--", "tc"];
        argv.extend(words);
        run(&argv).map(drop)
    };
    tc(&["qdisc", "add", "dev", "eth0", "root", "handle", "1:", "htb"])?;
    tc(&[
        "class", "add", "dev", "eth0", "parent", "1:", "classid", "1:1", "htb", "rate", &rate,
        "burst", "32k", "quantum", "30000",
    ])?;
    tc(&[
        "filter", "add", "dev", "eth0", "parent", "1:", "protocol", "ip", "u32", "match", "ip",
        "dst", &client, "flowid", "1:1",
    ])
}
