// SPDX-License-Identifier: MIT
//! On a node: looks at what is open on the mount, at memory and processors, and reports it.
//!
//! What is open is read from /proc: the descriptors of every process that lead into the mount. That
//! works with any web server and any file system, and costs a look at each descriptor of the node.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use ipvs_mwlc::director::report::Report;

use crate::receiver::now_ms;
use crate::report::{Key, NodeReport, encode};

/// What a node sends, and where to.
#[derive(Debug)]
pub struct Reporter {
    /// Below this, open files count.
    pub mount: PathBuf,
    /// The director's mwlcd, as HOST:PORT.
    pub director: String,
    /// The address that this node's real servers have there; `None` for the one that leads there.
    pub address: Option<IpAddr>,
    /// Time between two reports.
    pub interval: Duration,
}

impl Reporter {
    /// Reports until it is stopped. What cannot be sent is lost: the next one says more.
    pub fn run(&self, key: &Key) -> Result<()> {
        let mut processors = Processors::default();
        // The first reading is only there to be compared with.
        let _since_boot = processors.permille(&read("/proc/stat")?);
        let mut sequence = 0u64;
        tracing::info!(
            "reporting what is open below {} to {}",
            self.mount.display(),
            self.director
        );
        loop {
            thread::sleep(self.interval);
            sequence = sequence.wrapping_add(1);
            let report = self.look(&mut processors)?;
            if let Err(error) = self.send(report, sequence, key) {
                tracing::warn!("report {sequence} is lost: {error:#}");
            }
        }
    }

    fn look(&self, processors: &mut Processors) -> Result<Report> {
        let (open_bytes, open_files) = open_below(Path::new("/proc"), &self.mount);
        Ok(Report {
            open_bytes,
            open_files,
            memory_permille: memory_permille(&read("/proc/meminfo")?),
            cpu_permille: processors.permille(&read("/proc/stat")?),
        })
    }

    /// A new socket each time: addresses and routes may change under a daemon that runs for years.
    fn send(&self, report: Report, sequence: u64, key: &Key) -> Result<()> {
        let director = self
            .director
            .to_socket_addrs()?
            .next()
            .with_context(|| format!("{} has no address", self.director))?;
        let any: IpAddr = if director.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(director)?;
        let address = match self.address {
            Some(address) => address,
            None => socket.local_addr()?.ip(),
        };
        let report = NodeReport {
            address,
            sequence,
            time_ms: now_ms(),
            report,
        };
        tracing::debug!(?report, "report");
        socket.send(&encode(&report, key))?;
        Ok(())
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{path}: cannot be read"))
}

/// Sizes and number of the files below `mount` that any process has open for itself. What ends while
/// it is looked at counts or not.
fn open_below(proc: &Path, mount: &Path) -> (u64, u32) {
    let (mut bytes, mut files) = (0u64, 0u32);
    // A descriptor that was inherited is one open file: fork gives the children the same.
    let mut seen = HashSet::new();
    let processes = fs::read_dir(proc).into_iter().flatten().flatten();
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let parent = parent_of(&process.path());
        let descriptors = fs::read_dir(process.path().join("fd"));
        for descriptor in descriptors.into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else {
                continue;
            };
            if !target.starts_with(mount) {
                continue;
            }
            let Ok(metadata) = fs::metadata(descriptor.path()) else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            let number = descriptor.file_name();
            let inherited = parent
                .is_some_and(|parent| seen.contains(&(parent, number.clone(), metadata.ino())));
            seen.insert((pid, number, metadata.ino()));
            if !inherited {
                bytes = bytes.saturating_add(metadata.size());
                files = files.saturating_add(1);
            }
        }
    }
    (bytes, files)
}

fn parent_of(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// Memory that is neither free nor could be freed, in thousandths.
fn memory_permille(meminfo: &str) -> u32 {
    let kilobytes = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    match (kilobytes("MemTotal:"), kilobytes("MemAvailable:")) {
        (Some(total), Some(available)) => permille(total.saturating_sub(available), total),
        _ => 0,
    }
}

/// The processors' times, to compare with.
#[derive(Debug, Default)]
struct Processors {
    busy: u64,
    all: u64,
}

impl Processors {
    /// How busy they were since the last call, in thousandths.
    fn permille(&mut self, stat: &str) -> u32 {
        let times: Vec<u64> = stat
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("cpu "))
            .map(|times| {
                times
                    .split_whitespace()
                    .take(8)
                    .filter_map(|time| time.parse().ok())
                    .collect()
            })
            .unwrap_or_default();
        let all: u64 = times.iter().sum();
        // Fields 4 and 5 are idle and waiting for a disk.
        let idle: u64 = times.iter().skip(3).take(2).sum();
        let busy = all.saturating_sub(idle);
        let since = permille(busy.saturating_sub(self.busy), all.saturating_sub(self.all));
        *self = Processors { busy, all };
        since
    }
}

fn permille(part: u64, whole: u64) -> u32 {
    let permille = part.saturating_mul(1000).checked_div(whole).unwrap_or(0);
    u32::try_from(permille.min(1000)).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_has_open_counts_once() {
        let directory = tempfile::tempdir().unwrap();
        let mount = directory.path().canonicalize().unwrap();
        fs::write(mount.join("a"), vec![0; 1000]).unwrap();
        fs::write(mount.join("b"), vec![0; 30]).unwrap();
        let proc = Path::new("/proc");
        assert_eq!(open_below(proc, &mount), (0, 0));
        let first = fs::File::open(mount.join("a")).unwrap();
        let second = fs::File::open(mount.join("a")).unwrap();
        let other = fs::File::open(mount.join("b")).unwrap();
        let a_directory = fs::File::open(&mount).unwrap();
        assert_eq!(open_below(proc, &mount), (2030, 3));
        // A child that inherits a descriptor has nothing more open.
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(first.try_clone().unwrap())
            .spawn()
            .unwrap();
        let with_child = open_below(proc, &mount);
        child.kill().unwrap();
        child.wait().unwrap();
        // Its standard input is another number than ours, so it counts: 0 is not our descriptor.
        assert_eq!(with_child, (3030, 4));
        drop((first, second, other, a_directory));
        assert_eq!(open_below(proc, &mount), (0, 0));
        assert_eq!(open_below(&mount, &mount), (0, 0));
    }

    #[test]
    fn memory_in_use_is_what_cannot_be_had() {
        let meminfo = "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    250 kB\n";
        assert_eq!(memory_permille(meminfo), 750);
        assert_eq!(memory_permille("nothing"), 0);
    }

    #[test]
    fn processors_are_busy_since_the_last_look() {
        let mut processors = Processors::default();
        processors.permille("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3");
        // 100 more in all, 25 of them idle or waiting.
        let busy = processors.permille("cpu  150 0 125 715 110 0 0 0 0 0\n");
        assert_eq!(busy, 750);
        assert_eq!(processors.permille("cpu  150 0 125 715 110 0 0 0 0 0\n"), 0);
        assert_eq!(processors.permille("garbage"), 0);
    }
}
