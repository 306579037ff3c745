// SPDX-License-Identifier: MIT
//! A node whose network link goes down and comes up, gets slow, or loses packets, in a network
//! namespace of its own.
//!
//! ```text
//!   namespace:  mount0 (pvfs-fuse) -- NODE ====veth==== HOST -- mgr, iods, mount1
//! ```

use std::time::Duration;

use anyhow::{Context, ensure};
use cssns_tests::environment::seed;
use cssns_tests::node::Node;
use cssns_tests::pvfs_cluster::{Cluster, Inside, Options, Who};
use cssns_tests::workload::{Kind, Worker};
use fastrand::Rng;

/// Short enough that one of the faults outlasts it.
const LEASE_TIMEOUT_MS: u32 = 2000;

fn links_fail_under(kind: Kind) -> anyhow::Result<()> {
    let mut rng = Rng::with_seed(seed("PVFS_LINKS_SEED")?);
    let node = Node::new()?;
    let cluster = Cluster::start(Options {
        mounts: 2,
        lease_timeout_ms: LEASE_TIMEOUT_MS,
        host: node.host.clone(),
        inside: Some(Inside::new(&node, &[Who::Mount(0)])),
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
