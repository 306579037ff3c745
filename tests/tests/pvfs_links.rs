// SPDX-License-Identifier: MIT
//! A node whose network link goes down and comes up, gets slow, or loses packets, in a network
//! namespace of its own.
//!
//! ```text
//!   namespace:  mount0 (pvfs-fuse) -- NODE ====veth==== HOST -- mgr, iods, mount1
//! ```

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use cssns_tests::environment::seed;
use cssns_tests::pvfs_cluster::{Cluster, Options};
use cssns_tests::workload::{Kind, Worker};
use fastrand::Rng;

/// Short enough that one of the faults outlasts it.
const LEASE_TIMEOUT_MS: u32 = 2000;

/// A namespace with a link to this one; both end with it.
struct Node {
    name: String,
    link: String,
    host: String,
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
    fn new() -> anyhow::Result<Self> {
        // Names and addresses that no other run has.
        let pid = std::process::id();
        let net = format!("10.{}.{}", 128 + (pid >> 8) % 64, pid % 256);
        let node = Self {
            name: format!("pvfs-{pid}"),
            link: format!("pv{pid}"),
            host: format!("{net}.1"),
        };
        let Self { name, link, host } = &node;
        run(&format!("ip netns add {name}"))?;
        run(&format!(
            "ip link add {link} type veth peer name node netns {name}"
        ))?;
        run(&format!("ip address add {host}/30 dev {link}"))?;
        run(&format!("ip link set {link} up"))?;
        run(&format!("ip -n {name} address add {net}.2/30 dev node"))?;
        run(&format!("ip -n {name} link set node up"))?;
        run(&format!("ip -n {name} link set lo up"))?;
        Ok(node)
    }

    fn set(&self, up: bool) -> anyhow::Result<()> {
        let state = if up { "up" } else { "down" };
        run(&format!("ip link set {} {state}", self.link))
    }

    /// Both ways.
    fn shape(&self, how: &str) -> anyhow::Result<()> {
        let Self { name, link, .. } = self;
        run(&format!("tc qdisc replace dev {link} root {how}"))?;
        run(&format!("tc -n {name} qdisc replace dev node root {how}"))
    }

    fn unshape(&self) -> anyhow::Result<()> {
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

fn links_fail_under(kind: Kind) -> anyhow::Result<()> {
    let mut rng = Rng::with_seed(seed("PVFS_LINKS_SEED")?);
    let node = Node::new()?;
    let cluster = Cluster::start(Options {
        mounts: 2,
        lease_timeout_ms: LEASE_TIMEOUT_MS,
        host: node.host.clone(),
        first_mount_in: Some(node.name.clone()),
        ..Options::default()
    })?;
    let mut worker = Worker::start(&cluster.mount(0), kind, rng.u64(..))?;
    worker.wait_for_steps(3)?;
    let pause = |ms| std::thread::sleep(Duration::from_millis(ms));
    for round in 0..3 {
        let ms = match round {
            0 => u64::from(LEASE_TIMEOUT_MS) + 800,
            _ => rng.u64(50..600),
        };
        node.set(false)?;
        pause(ms);
        if round == 0 {
            // Its leases have ended: others go on.
            std::fs::write(cluster.mount(1).join("meanwhile"), "written")?;
        }
        node.set(true)?;
        worker
            .wait_for_steps(2)
            .with_context(|| format!("after {ms} ms without a link"))?;
        // The second drops what does not fit its short queue.
        for how in [
            "tbf rate 40mbit burst 64kb latency 200ms",
            "tbf rate 30mbit burst 16kb limit 24kb",
        ] {
            node.shape(how)?;
            worker.wait_for_steps(1).context(how)?;
            node.unshape()?;
        }
    }
    let promise = worker.stop()?;
    promise.check(&cluster.mount(0))?;
    promise
        .check(&cluster.mount(1))
        .context("through the other mount")?;
    ensure!(std::fs::read(cluster.mount(0).join("meanwhile"))? == b"written");
    cluster.finish()
}

#[test]
fn links_go_down_and_get_slow_during_writes() -> anyhow::Result<()> {
    links_fail_under(Kind::Blocks)
}

#[test]
fn links_go_down_and_get_slow_during_creates_and_renames() -> anyhow::Result<()> {
    links_fail_under(Kind::Names)
}
