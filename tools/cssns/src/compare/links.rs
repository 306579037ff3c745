// SPDX-License-Identifier: MIT
//! Narrow links from the nodes to the clients, shared equally by their connections.
//!
//! A kernel may lack the fair queueing disciplines, but HTB serves classes by turns: connections are
//! spread over classes by the client's port, and each class may take the whole rate if nobody else
//! wants it.

use anyhow::Context as _;
use std::fmt::Write as _;
use std::path::Path;

use crate::plan::{Node, Plan, client_address};
use crate::process::run;

/// Classes of a link: of ten connections at a time, one in seven shares its class with another.
const CLASSES: u32 = 64;

/// Gives a node's packets to the clients this rate; those to other nodes keep the whole link, so that
/// storage is not what is measured. `dir` is for a file of commands.
///
/// # Errors
/// Names the command that failed.
pub fn narrow(plan: &Plan, node: Node, mbit: u32, dir: &Path) -> anyhow::Result<()> {
    let namespace = format!("--net=/run/netns/{}", plan.node_namespace(node));
    let file = dir.join(format!("{node}.tc"));
    std::fs::write(&file, commands(mbit)).with_context(|| file.display().to_string())?;
    let file = file.display().to_string();
    run(&["nsenter", &namespace, "--", "tc", "-batch", &file]).map(drop)
}

/// The lines for `tc -batch`.
fn commands(mbit: u32) -> String {
    let kbit = mbit.saturating_mul(1000);
    let mut lines = format!(
        "qdisc add dev eth0 root handle 1: htb\n\
         class add dev eth0 parent 1: classid 1:1 htb rate {kbit}kbit burst 8k quantum 1514\n"
    );
    for class in 0..CLASSES {
        // Of the ports that one client gets for one address the lowest bit is often the same.
        let (id, port) = (class + 0x10, class << 1);
        // Writing to a String cannot fail.
        let _ = write!(
            lines,
            "class add dev eth0 parent 1:1 classid 1:{id:x} htb rate {}kbit ceil {kbit}kbit burst 2k cburst 2k \
                quantum 1514\n\
             filter add dev eth0 parent 1: protocol ip u32 match ip dst {}/32 match ip dport {port} \
                {:#06x} flowid 1:{id:x}\n",
            (kbit / CLASSES).max(1),
            client_address(),
            (CLASSES - 1) << 1,
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_a_class() {
        let lines = commands(20);
        assert_eq!(lines.lines().count() as u32, 2 + 2 * CLASSES);
        for port in [0, 2, 126] {
            assert!(
                lines.contains(&format!("dport {port} 0x007e flowid")),
                "{port}"
            );
        }
        assert!(lines.contains("rate 312kbit ceil 20000kbit"));
    }
}
