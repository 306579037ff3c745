// SPDX-License-Identifier: MIT
//! Links of a stated rate in both directions: token buckets at both ends of each host's cable, and the
//! counters of what went over them.
//!
//! A bucket counts whole Ethernet frames, without the preamble and the gap between frames. It is
//! [`BURST_BYTES`] deep, 1.3 ms at 100 Mbit/s, so that no transfer is faster than its link for any time
//! that matters; larger packets are cut to frames by the kernel.

use super::topology::{Host, Link};
use crate::director::Director;
use crate::net;
use crate::plan::Plan;
use crate::process::run;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The paper's links, Mbit/s.
pub const LINK_MBIT: u32 = 100;

/// Every host's TCP: Linux's default, whatever this machine's is, so that results do not depend on it.
pub const CONGESTION_CONTROL: &str = "cubic";

/// The depth of a bucket.
const BURST_BYTES: u32 = 16 << 10;

/// What waits at most in the switch for a host: 1,000 full frames.
const SWITCH_QUEUE_BYTES: u32 = 1000 * 1514;

/// What waits at most in a host for its own link. Never reached: TCP stops before its own host drops
/// what it sends.
const HOST_QUEUE_BYTES: u32 = 64 << 20;

/// Headers in a full frame of 1,514 bytes: Ethernet 14, IPv4 20, TCP with timestamps 32. The rest is content.
pub const CONTENT_SHARE_MAX: f64 = 1448.0 / 1514.0;

/// Bytes a second of a link.
#[must_use]
pub fn bytes_per_second(mbit: u32) -> f64 {
    f64::from(mbit) * 1e6 / 8.0
}

/// Sets the rate of all links of a host, both directions, whether they had one or not.
///
/// # Errors
/// Names the command that failed.
pub fn limit(plan: &Plan, director: &Director, host: Host, mbit: u32) -> anyhow::Result<()> {
    let switch = plan.switch_namespace();
    for link in host.links() {
        let Link { device, port, .. } = &link;
        // From the switch to the host.
        tc_in(&switch, &bucket(port, mbit, SWITCH_QUEUE_BYTES))?;
        let own = bucket(device, mbit, HOST_QUEUE_BYTES);
        match host {
            Host::Director => director
                .check(&format!("modprobe sch_tbf; tc {own}"))
                .map(drop)?,
            _ => tc_in(&host.namespace(plan), &own)?,
        }
    }
    Ok(())
}

fn tc_in(namespace: &str, arguments: &str) -> anyhow::Result<()> {
    let enter = format!("--net=/run/netns/{namespace}");
    let mut argv = vec!["nsenter", &enter, "--", "tc"];
    argv.extend(arguments.split(' '));
    run(&argv).map(drop)
}

fn bucket(device: &str, mbit: u32, queue_bytes: u32) -> String {
    format!(
        "qdisc replace dev {device} root tbf rate {mbit}mbit burst {BURST_BYTES} limit {queue_bytes}"
    )
}

/// Bytes that a link carried, as the switch's end counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// From the host.
    pub from_host: u64,
    /// To the host.
    pub to_host: u64,
}

/// What each link carried since it was made, by the name of its port.
///
/// # Errors
/// When the switch's counters cannot be read.
pub fn carried(plan: &Plan) -> anyhow::Result<BTreeMap<String, Carried>> {
    let text = net::inside(&plan.switch_namespace(), || {
        let file = "/proc/thread-self/net/dev";
        std::fs::read_to_string(file).context(file)
    })?;
    Ok(parse_counters(&text))
}

/// Understands `/proc/net/dev`: after the name, received bytes first and sent bytes ninth. What a port
/// received came from its host.
fn parse_counters(text: &str) -> BTreeMap<String, Carried> {
    text.lines()
        .filter_map(|line| {
            let (name, numbers) = line.split_once(':')?;
            let mut numbers = numbers.split_ascii_whitespace();
            let from_host = numbers.next()?.parse().ok()?;
            let to_host = numbers.nth(7)?.parse().ok()?;
            let carried = Carried { from_host, to_host };
            Some((name.trim().to_owned(), carried))
        })
        .collect()
}

/// What was carried between two looks.
#[must_use]
pub fn between(
    before: &BTreeMap<String, Carried>,
    after: &BTreeMap<String, Carried>,
) -> BTreeMap<String, Carried> {
    after
        .iter()
        .map(|(port, now)| {
            let then = before.get(port).copied().unwrap_or_default();
            let carried = Carried {
                from_host: now.from_host.saturating_sub(then.from_host),
                to_host: now.to_host.saturating_sub(then.to_host),
            };
            (port.clone(), carried)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_the_first_and_the_ninth_number() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets\n\
                    node1-0: 1000 2 0 0 0 0 0 0 3000 4 0 0 0 0 0 0\n  lo: broken\n";
        let counters = parse_counters(text);
        let expected = Carried {
            from_host: 1000,
            to_host: 3000,
        };
        assert_eq!(counters.len(), 1);
        assert_eq!(counters.get("node1-0"), Some(&expected));
        let later = parse_counters(&text.replace("1000", "1500"));
        let moved = between(&counters, &later);
        assert_eq!(moved.get("node1-0").map(|c| c.from_host), Some(500));
    }

    #[test]
    fn a_bucket_holds_a_few_frames_only() {
        let burst_s = f64::from(BURST_BYTES) / bytes_per_second(LINK_MBIT);
        assert!(burst_s < 0.002);
        assert!(bucket("eth0", 50, 1).contains("rate 50mbit"));
    }
}
