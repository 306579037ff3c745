// SPDX-License-Identifier: MIT
//! Sends garbage to the director in this network namespace: malformed netlink requests to both of its
//! families, and malformed IPv4 packets through an interface that leads to it.
//!
//! Every netlink request must be answered, and every refusal that the director itself decides must say
//! why. The sequence follows from the seed alone, so a failure can be repeated. A kernel that warned
//! or oopsed meanwhile is a failure too.

mod netlink;
mod packets;

use std::fs;
use std::net::SocketAddrV4;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;
use cssns_tests::frames::{self, Mac};
use mwlcadm::ipvs::Ipvs;
use nix::net::if_::if_nametoindex;

/// Bits of `/proc/sys/kernel/tainted` that a splat sets: an oops (7) and a warning (9).
const TAINTED_BY_SPLAT: u64 = 1 << 7 | 1 << 9;

/// Sends malformed netlink messages and packets to the director ipvs_mwlc.
#[derive(Debug, Parser)]
struct Options {
    /// Netlink messages to send
    #[arg(long, default_value_t = 10_000)]
    messages: u64,
    /// Packets to send; takes --interface and --to
    #[arg(long, default_value_t = 0, requires = "interface", requires = "to")]
    packets: u64,
    /// The interface that leads to the director
    #[arg(long)]
    interface: Option<String>,
    /// The director's link-layer address on that link, like 02:00:00:00:00:01
    #[arg(long, value_parser = frames::parse_mac)]
    to: Option<Mac>,
    /// The virtual service that the packets are for
    #[arg(long, default_value = "10.0.0.100:80")]
    service: SocketAddrV4,
    /// Where the sequence of messages starts
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(summary) => {
            println!("netlink-garbage: {summary}: ok");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("netlink-garbage: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<String> {
    let before = taint()?;
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let mut summary = format!("seed {}", options.seed);
    if options.messages > 0 {
        let tally = netlink::send(options.messages, &mut rng)?;
        summary.push_str(&format!(", {tally}"));
        reset().context("resetting the director after the messages")?;
    }
    if let (Some(interface), Some(to), 1..) = (&options.interface, options.to, options.packets) {
        if_nametoindex(interface.as_str()).with_context(|| format!("interface {interface}"))?;
        let sent = packets::send(options.packets, interface, to, options.service, &mut rng)?;
        summary.push_str(&format!(", {sent} packets on {interface}"));
    }
    let info = Ipvs::open().and_then(|mut ipvs| ipvs.info());
    info.context("the director does not answer any more")?;
    let new = taint()? & !before & TAINTED_BY_SPLAT;
    ensure!(
        new == 0,
        "the kernel warned or oopsed (taint {new:#x}): see dmesg"
    );
    Ok(summary)
}

/// Leaves no service behind, and timeouts as they are in a new director.
fn reset() -> Result<(), mwlcadm::error::Error> {
    use ipvs_mwlc::director::timeouts::{Timeouts, TimeoutsUpdate};
    let mut ipvs = Ipvs::open()?;
    ipvs.flush()?;
    ipvs.set_timeouts(TimeoutsUpdate {
        tcp_s: Timeouts::DEFAULT.established_s,
        tcp_fin_s: Timeouts::DEFAULT.fin_wait_s,
        udp_s: Timeouts::DEFAULT.udp_s,
    })
}

fn taint() -> anyhow::Result<u64> {
    let path = "/proc/sys/kernel/tainted";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{path} is no number"))
}
