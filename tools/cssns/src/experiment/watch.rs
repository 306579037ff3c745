// SPDX-License-Identifier: MIT
//! What the machine does while a cell runs: memory of each node, processor time of each kind of process,
//! segments that were sent again.

use super::topology::Host;
use crate::net;
use crate::plan::{Node, Plan};
use crate::process::run;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::linux::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

/// How often memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A node's memory over a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// When nothing was transferred, before the cell, bytes.
    pub idle_bytes: u64,
    /// The most that was seen, bytes.
    pub max_bytes: u64,
    /// Of that, what processes held that is not backed by files.
    pub max_process_bytes: u64,
}

/// What the nodes' processes and sockets hold at a moment. Page cache is not counted: the kernel takes it
/// back whenever somebody needs memory.
///
/// # Errors
/// When a namespace cannot be looked into.
pub fn memory(plan: &Plan, node: Node) -> anyhow::Result<(u64, u64)> {
    let namespace = Host::Node(node).namespace(plan);
    let processes = processes_in(&namespace)?
        .into_iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .map(|status| held(&status))
        .sum();
    let enter = format!("--net=/run/netns/{namespace}");
    let sockets = sockets_hold(&run(&["nsenter", &enter, "--", "ss", "-tmnaH"])?);
    Ok((processes, sockets))
}

/// Ids of the processes whose network is this namespace.
fn processes_in(namespace: &str) -> anyhow::Result<Vec<i32>> {
    let path = format!("/run/netns/{namespace}");
    let wanted = std::fs::metadata(&path).with_context(|| path)?.st_ino();
    let entries = std::fs::read_dir("/proc").context("/proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids
        .filter(|pid: &i32| {
            // Of a process that ends in this moment there is nothing to count.
            std::fs::metadata(Path::new("/proc").join(pid.to_string()).join("ns/net"))
                .is_ok_and(|net| net.st_ino() == wanted)
        })
        .collect())
}

/// Bytes of a process that no file backs, from the text of `/proc/PID/status`.
fn held(status: &str) -> u64 {
    status
        .lines()
        .filter_map(|line| {
            let rest = line
                .strip_prefix("RssAnon:")
                .or_else(|| line.strip_prefix("RssShmem:"))?;
            rest.split_ascii_whitespace().next()?.parse::<u64>().ok()
        })
        .sum::<u64>()
        .saturating_mul(1024)
}

/// Bytes that sockets hold, from `ss -m`: `skmem:(r0,rb131072,t0,tb87040,f0,w0,o0,bl0,d0)`. What was
/// received and is not read, queued to be sent, reserved ahead, and in the backlog.
fn sockets_hold(text: &str) -> u64 {
    text.split("skmem:(")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(fields, _)| {
            let number =
                |field: &str, name: &str| -> Option<u64> { field.strip_prefix(name)?.parse().ok() };
            fields
                .split(',')
                .filter_map(|field| {
                    ["r", "f", "w", "bl"]
                        .iter()
                        .find_map(|name| number(field, name))
                })
                .sum::<u64>()
        })
        .sum()
}

/// Looks at the nodes' memory until it is stopped.
#[derive(Debug)]
pub struct MemoryWatch<'scope> {
    stop: Sender<()>,
    watcher: ScopedJoinHandle<'scope, anyhow::Result<BTreeMap<u8, Memory>>>,
}

impl<'scope> MemoryWatch<'scope> {
    /// Looks once, and then again and again on a thread of its own.
    ///
    /// # Errors
    /// When the first look fails.
    pub fn start<'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        plan: &'env Plan,
        nodes: &'env [Node],
    ) -> anyhow::Result<Self> {
        let mut seen = BTreeMap::new();
        for &node in nodes {
            let (processes, sockets) = memory(plan, node)?;
            let memory = Memory {
                idle_bytes: processes + sockets,
                max_bytes: processes + sockets,
                max_process_bytes: processes,
            };
            seen.insert(node.number(), memory);
        }
        let (stop, stopped) = mpsc::channel();
        let watcher = scope.spawn(move || {
            while stopped.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                for &node in nodes {
                    let (processes, sockets) = memory(plan, node)?;
                    if let Some(known) = seen.get_mut(&node.number()) {
                        known.max_bytes = known.max_bytes.max(processes + sockets);
                        known.max_process_bytes = known.max_process_bytes.max(processes);
                    }
                }
            }
            Ok(seen)
        });
        Ok(Self { stop, watcher })
    }

    /// Ends looking; each node's memory by its number.
    ///
    /// # Errors
    /// When a look failed.
    pub fn stop(self) -> anyhow::Result<BTreeMap<u8, Memory>> {
        // Dropping the sender ends the watcher.
        drop(self.stop);
        self.watcher
            .join()
            .unwrap_or_else(|_| anyhow::bail!("the thread that watches memory died"))
    }
}

/// Processor seconds up to a moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Processor {
    /// Of all processors.
    pub capacity_s: f64,
    /// Of these, busy.
    pub busy_s: f64,
    /// By the processes' names; `clients` is this program.
    pub by_name: BTreeMap<String, f64>,
}

/// Reads the processors' time.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn processor(plan: &Plan) -> anyhow::Result<Processor> {
    let hertz = ticks_per_second();
    let text = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let (capacity, idle) = machine_ticks(&text).context("/proc/stat has no line cpu")?;
    let mut by_name = BTreeMap::new();
    let own = i32::try_from(std::process::id()).context("process id")?;
    let mut pids = vec![own];
    for host in Host::all() {
        // The director's guest is where the switch is.
        let namespace = match host {
            Host::Director => plan.switch_namespace(),
            _ => host.namespace(plan),
        };
        pids.extend(processes_in(&namespace)?);
    }
    pids.sort_unstable();
    pids.dedup();
    for pid in pids {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if let Some((name, ticks)) = process_ticks(&stat) {
            let name = if pid == own { "clients" } else { name };
            *by_name.entry(name.to_owned()).or_default() += ticks as f64 / hertz;
        }
    }
    Ok(Processor {
        capacity_s: capacity as f64 / hertz,
        busy_s: capacity.saturating_sub(idle) as f64 / hertz,
        by_name,
    })
}

fn ticks_per_second() -> f64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .map_or(100.0, |ticks| ticks as f64)
}

/// All ticks and the idle ones of all processors.
fn machine_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; what guests use is in user already.
    let idle = ticks.get(3)?.saturating_add(*ticks.get(4)?);
    Some((ticks.iter().take(8).sum(), idle))
}

/// Name and ticks of a process from `/proc/PID/stat`.
fn process_ticks(stat: &str) -> Option<(&str, u64)> {
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((name, user.saturating_add(system)))
}

impl Processor {
    /// What was used since an earlier moment.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let by_name = self
            .by_name
            .iter()
            .map(|(name, now)| {
                let then = before.by_name.get(name).copied().unwrap_or_default();
                (name.clone(), (now - then).max(0.0))
            })
            .collect();
        Self {
            capacity_s: self.capacity_s - before.capacity_s,
            busy_s: self.busy_s - before.busy_s,
            by_name,
        }
    }
}

/// TCP segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segments {
    /// Sent.
    pub sent: u64,
    /// Of these, sent again.
    pub again: u64,
}

impl Segments {
    /// Those after an earlier moment.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            again: self.again.saturating_sub(before.again),
        }
    }
}

/// The segments that a host sent so far.
///
/// # Errors
/// When its counters cannot be read.
pub fn segments(plan: &Plan, host: Host) -> anyhow::Result<Segments> {
    let text = net::inside(&host.namespace(plan), || {
        let file = "/proc/thread-self/net/snmp";
        std::fs::read_to_string(file).context(file)
    })?;
    parse_segments(&text).with_context(|| format!("{host}: no TCP counters in {text}"))
}

fn parse_segments(text: &str) -> Option<Segments> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| -> Option<u64> {
        let position = names.split(' ').position(|name| name == wanted)?;
        values.split(' ').nth(position)?.parse().ok()
    };
    let again = value("RetransSegs")?;
    // The kernel does not count those sent again among those sent.
    Some(Segments {
        sent: value("OutSegs")?.saturating_add(again),
        again,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_and_sockets_hold_is_added_up() {
        let status = "VmRSS:\t 900 kB\nRssAnon:\t 100 kB\nRssFile:\t 700 kB\nRssShmem:\t 4 kB\n";
        assert_eq!(held(status), 104 * 1024);
        let sockets = "ESTAB 0 0 a b\n\t skmem:(r10,rb131072,t7,tb87040,f20,w300,o5,bl4000,d9)\n\
                       LISTEN 0 0 a b\n\t skmem:(r1,rb1,t0,tb1,f0,w0,o0,bl0,d0) cubic\n";
        assert_eq!(sockets_hold(sockets), 10 + 20 + 300 + 4000 + 1);
        assert_eq!(sockets_hold("none"), 0);
    }

    #[test]
    fn ticks_are_where_proc_5_says() {
        let (all, idle) = machine_ticks("cpu  10 20 30 400 50 6 7 8 9 9\ncpu0 1 1 1 1\n").unwrap();
        assert_eq!((all, idle), (531, 450));
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 110 12 13 14 15\n";
        assert_eq!(process_ticks(stat), Some(("a (b) c", 122)));
        assert_eq!(process_ticks("torn"), None);
    }

    #[test]
    fn segments_are_found_by_name() {
        let text = "Ip: A\nIp: 1\nTcp: X OutSegs RetransSegs\nTcp: -1 100 7\n";
        let expected = Segments {
            sent: 107,
            again: 7,
        };
        assert_eq!(parse_segments(text), Some(expected));
        assert_eq!(parse_segments("Tcp: OutSegs\n"), None);
    }
}
