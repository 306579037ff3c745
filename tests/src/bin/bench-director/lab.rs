// SPDX-License-Identifier: MIT
//! The guest that is measured in, and what its scripts print.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cssns::vm::{Addition, KmodEnv, Vm, VmConfig};
use cssns_tests::programs;
use tempfile::TempDir;

/// The functions that scripts call.
const FUNCTIONS: &str = include_str!("lab.sh");

/// A million entries of stock ip_vs and the initramfs fit; an eighth of it is what this module
/// allows itself.
const MEMORY_MIB: u32 = 3072;

/// One script, in the host's time: a million connections are made in it, on a busy machine.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(3600);

/// The clients' addresses begin here; each use has 2^24 of its own.
#[derive(Debug, Clone, Copy)]
pub enum Clients {
    /// Their connections were made before measuring.
    UdpKnown = 11,
    /// Nobody saw them before.
    UdpNew = 12,
    /// As with UDP.
    TcpKnown = 13,
    /// As with UDP.
    TcpNew = 14,
}

impl Clients {
    /// The address of client `number`.
    pub fn address(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(((self as u32) << 24) + number)
    }

    /// The same of IPv6.
    pub fn address6(self, number: u32) -> Ipv6Addr {
        let [high, low] = [(number >> 16) as u16, number as u16];
        Ipv6Addr::new(0xfd00, self as u16, 0, 0, 0, 0, high, low)
    }
}

/// Samples of the same that differ by more are complained of: counted instructions repeat.
const SPREAD_MAX: f64 = 0.01;

/// What a script measured, by its name for it.
#[derive(Debug, Default)]
pub struct Measured(BTreeMap<String, Vec<Sample>>);

/// One line of a script.
#[derive(Debug, Clone, Copy)]
struct Sample {
    packets: u64,
    figure: u64,
    arrived: u64,
}

impl Measured {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut measured = Self::default();
        for line in text.lines() {
            let parsed = parse_line(line).with_context(|| format!("the guest said {line:?}"))?;
            measured.0.entry(parsed.0).or_default().push(parsed.1);
        }
        Ok(measured)
    }

    fn samples(&self, what: &str) -> anyhow::Result<&[Sample]> {
        let samples = self.0.get(what).map(Vec::as_slice);
        samples.with_context(|| format!("the guest did not measure {what}"))
    }

    /// Instructions of each packet, all of which must have arrived at the server, or none. Of several
    /// samples the smallest: what disturbs only adds.
    pub fn instructions(&self, what: &str, arriving: bool) -> anyhow::Result<f64> {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for sample in self.samples(what)? {
            let expected = if arriving { sample.packets } else { 0 };
            if sample.arrived != expected {
                bail!(
                    "{what}: {} packets were sent, {expected} should have reached the server and {} did",
                    sample.packets,
                    sample.arrived
                );
            }
            let each = sample.figure as f64 / sample.packets as f64;
            (least, most) = (least.min(each), most.max(each));
        }
        if most > least * (1.0 + SPREAD_MAX) {
            eprintln!(
                "{what}: samples from {least:.0} to {most:.0} instructions: something disturbs"
            );
        }
        Ok(least)
    }

    /// A figure that is no instructions, like free KiB.
    pub fn figure(&self, what: &str) -> anyhow::Result<u64> {
        let sample = self.samples(what)?.first();
        Ok(sample.context("no sample")?.figure)
    }
}

fn parse_line(line: &str) -> Option<(String, Sample)> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let mut number = || words.next()?.parse().ok();
    let sample = Sample {
        packets: number()?,
        figure: number()?,
        arrived: number()?,
    };
    Some((name, sample))
}

/// The guest, with generator, director and server.
#[derive(Debug)]
pub struct Lab {
    vm: Vm,
    dir: TempDir,
}

impl Lab {
    /// Boots it with one processor that counts instructions.
    pub fn boot(qemu_arguments: &[String]) -> anyhow::Result<Self> {
        let module = cssns::paths::checkout_file(cssns::director::MODULE_FILE)
            .context("the module is not built: run `make kmod` first")?;
        let mut config = VmConfig::new(KmodEnv::locate()?);
        config.module = Some(module);
        config.memory_mib = MEMORY_MIB;
        // The kernel's tests of its own cryptography take seconds of the one processor after booting.
        config.kernel_arguments = "cryptomgr.notests".into();
        config.qemu_arguments = vec!["-icount".into(), "shift=0,sleep=off".into()];
        config.qemu_arguments.extend_from_slice(qemu_arguments);
        config.additions.push(Addition {
            source: programs::find("vm-packets")?,
            guest_path: PathBuf::from("/usr/sbin/vm-packets"),
        });
        let dir = tempfile::Builder::new()
            .prefix("bench-director-")
            .tempdir()?;
        let vm = Vm::boot(&config, dir.path())?;
        let lab = Self { vm, dir };
        lab.run("set_up")?;
        Ok(lab)
    }

    /// Runs a script of the functions in `lab.sh`; what it measured.
    pub fn measure(&self, script: &str) -> anyhow::Result<Measured> {
        Measured::parse(&self.run(script)?)
    }

    /// Runs a script of the functions in `lab.sh`; what it printed.
    pub fn run(&self, script: &str) -> anyhow::Result<String> {
        let whole = format!("{FUNCTIONS}\n{script}\n");
        let output = self.vm.run(&whole, SCRIPT_TIMEOUT)?;
        ensure!(
            output.success(),
            "in the guest, `{}`: {}{}",
            script.trim(),
            output.stdout,
            output.stderr
        );
        Ok(output.stdout)
    }

    /// Checks that the kernel complained of nothing, and powers the guest off.
    pub fn finish(self) -> anyhow::Result<()> {
        let splats = self.vm.splats()?;
        let excerpts: Vec<&str> = splats.iter().map(|splat| splat.excerpt.as_str()).collect();
        ensure!(
            splats.is_empty(),
            "the kernel complained:\n{}",
            excerpts.join("\n---\n")
        );
        self.vm.shutdown()?;
        Ok(self.dir.close()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_packets_instructions_arrived() {
        let measured = Measured::parse("a 10 71 10\na 10 70 10\nb 10 30 0\nmem 0 99 0\n").unwrap();
        assert!((measured.instructions("a", true).unwrap() - 7.0).abs() < 1e-9);
        assert!((measured.instructions("b", false).unwrap() - 3.0).abs() < 1e-9);
        assert!(measured.instructions("b", true).is_err());
        assert_eq!(measured.figure("mem").unwrap(), 99);
        assert!(measured.figure("c").is_err());
        assert!(Measured::parse("a 10").is_err());
    }

    #[test]
    fn clients_do_not_overlap() {
        assert_eq!(Clients::UdpKnown.address(257).to_string(), "11.0.1.1");
        assert_eq!(Clients::UdpNew.address(0).to_string(), "12.0.0.0");
        assert_eq!(
            Clients::TcpKnown.address6(65_537).to_string(),
            "fd00:d::1:1"
        );
    }
}
