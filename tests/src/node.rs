// SPDX-License-Identifier: MIT
//! A node of its own: a network namespace with a link that can be cut and shaped.

use std::process::Command;

use anyhow::{Context, ensure};

/// A namespace with a link to this one; both end with it.
pub struct Node {
    name: String,
    link: String,
    /// This side's address.
    pub host: String,
    /// The node's address.
    pub address: String,
}

fn run(command: &str) -> anyhow::Result<()> {
    let words: Vec<&str> = command.split_ascii_whitespace().collect();
    let (program, arguments) = words.split_first().context("nothing to run")?;
    let output = Command::new(program).args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command}: {text}");
    Ok(())
}

impl Node {
    /// Makes one; its link is up.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub fn new() -> anyhow::Result<Self> {
        // Names and addresses that no other run has.
        let pid = std::process::id();
        let net = format!("10.{}.{}", 128 + (pid >> 8) % 64, pid % 256);
        let node = Self {
            name: format!("pvfs-{pid}"),
            link: format!("pv{pid}"),
            host: format!("{net}.1"),
            address: format!("{net}.2"),
        };
        let Self {
            name,
            link,
            host,
            address,
        } = &node;
        run(&format!("ip netns add {name}"))?;
        run(&format!(
            "ip link add {link} type veth peer name node netns {name}"
        ))?;
        run(&format!("ip address add {host}/30 dev {link}"))?;
        run(&format!("ip link set {link} up"))?;
        run(&format!("ip -n {name} address add {address}/30 dev node"))?;
        run(&format!("ip -n {name} link set node up"))?;
        run(&format!("ip -n {name} link set lo up"))?;
        Ok(node)
    }

    /// The namespace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the link up or down. What is under way is lost, and nobody is told.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub fn set(&self, up: bool) -> anyhow::Result<()> {
        let state = if up { "up" } else { "down" };
        run(&format!("ip link set {} {state}", self.link))
    }

    /// Shapes the link's traffic, both ways.
    ///
    /// # Errors
    ///
    /// What `tc` says.
    pub fn shape(&self, how: &str) -> anyhow::Result<()> {
        let Self { name, link, .. } = self;
        run(&format!("tc qdisc replace dev {link} root {how}"))?;
        run(&format!("tc -n {name} qdisc replace dev node root {how}"))
    }

    /// Ends [`Self::shape`].
    ///
    /// # Errors
    ///
    /// What `tc` says.
    pub fn unshape(&self) -> anyhow::Result<()> {
        let Self { name, link, .. } = self;
        run(&format!("tc qdisc del dev {link} root"))?;
        run(&format!("tc -n {name} qdisc del dev node root"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // With the namespace goes its end of the link, and with that the other.
        let _ = run(&format!("ip link del {}", self.link));
        let _ = run(&format!("ip netns del {}", self.name));
    }
}
