// SPDX-License-Identifier: MIT
//! Sends well-formed TCP segments and UDP datagrams from many made-up clients, for measurements and
//! floods inside a guest. What goes out follows from the arguments alone.
//!
//! Prints the nanoseconds that sending took. The clock is the guest's own: with `-icount shift=0` it
//! counts instructions, and what the packets cause on the same processor is part of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::ensure;
use clap::{Parser, ValueEnum};
use cssns_tests::frames::{self, Mac, PacketSocket};

/// Of every client; a connection is told from another by its address.
const CLIENT_PORT: u16 = 20_000;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What each client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A SYN.
    Syn,
    /// A plain ACK.
    Ack,
    /// A SYN, then an ACK: a connection is established.
    Open,
    /// A RST.
    Rst,
    /// A datagram.
    Udp,
}

impl Kind {
    /// The frames of one client.
    fn frames(self, client: IpAddr, options: &Options) -> Vec<Vec<u8>> {
        let to = options.service;
        let from = SocketAddr::new(client, CLIENT_PORT);
        let tcp = |flags| frames::tcp(from, to, flags, options.payload);
        let packets = match self {
            Self::Syn => vec![tcp(SYN)],
            Self::Ack => vec![tcp(ACK)],
            Self::Open => vec![tcp(SYN), tcp(ACK)],
            Self::Rst => vec![tcp(RST)],
            Self::Udp => vec![frames::udp(from, to, options.payload)],
        };
        packets
            .into_iter()
            .map(|packet| frames::ethernet(options.to, &packet))
            .collect()
    }
}

/// Sends TCP segments or UDP datagrams from many clients.
#[derive(Debug, Parser)]
struct Options {
    /// What each client sends
    kind: Kind,
    /// The interface that leads to the director
    #[arg(long)]
    interface: String,
    /// The director's link-layer address on that link, like 02:00:00:00:00:01
    #[arg(long, value_parser = frames::parse_mac)]
    to: Mac,
    /// The virtual service
    #[arg(long)]
    service: SocketAddr,
    /// The first client's address, of the service's family; the others follow it
    #[arg(long)]
    first: IpAddr,
    /// How many clients there are
    #[arg(long)]
    clients: u32,
    /// How many clients' turns there are; after the last client comes the first again
    #[arg(long)]
    count: u32,
    /// Bytes behind the TCP or UDP header
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1400))]
    payload: u16,
}

/// The address that comes `count` after this one.
fn following(first: IpAddr, count: u32) -> IpAddr {
    match first {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).wrapping_add(count)).into(),
        IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).wrapping_add(count.into())).into(),
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(nanoseconds) => {
            println!("{nanoseconds}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vm-packets: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<u128> {
    ensure!(options.clients > 0, "--clients: there must be one at least");
    ensure!(
        options.first.is_ipv4() == options.service.is_ipv4(),
        "--first: {} is not of the family of {}",
        options.first,
        options.service
    );
    let socket = PacketSocket::open(&options.interface)?;
    let started = Instant::now();
    for turn in 0..options.count {
        let client = following(options.first, turn % options.clients);
        for frame in options.kind.frames(client, options) {
            socket.send(&frame)?;
        }
    }
    Ok(started.elapsed().as_nanos())
}
