// SPDX-License-Identifier: MIT
//! `make bench-director`: what a packet costs in instructions, with this module and with stock ip_vs,
//! in one run of one guest whose clock counts instructions.
//!
//! What is common to every path (the generator, two links, the server's drop) is measured too: the
//! floor is `tc mirred`, the least that moving a packet from one link to another costs in this kernel.

mod lab;
mod profile;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use lab::{Clients, Lab, Measured};
use report::{Cost, Costs, Ipv6, Memory, Report, Row, Row6, Setup};

/// Packets of each measurement: enough that the kernel's ticks do not show.
const PACKETS: u32 = 20_000;

/// Measurements of the same, of which the least counts.
const ROUNDS: u32 = 2;

/// Packets before a measurement that are not counted.
const WARM_UP_PACKETS: u32 = 2_000;

/// Measure the director's cost per packet in instructions, beside stock ip_vs and the floor
#[derive(Debug, Parser)]
struct Args {
    /// Three real servers and a small table only; nothing is written
    #[arg(long)]
    quick: bool,
    /// Say where the instructions of such packets go, instead
    #[arg(long, value_name = "PACKETS")]
    profile: Option<Profiled>,
    /// The module that is profiled: ipvs_mwlc or ip_vs
    #[arg(long, default_value = "ipvs_mwlc", requires = "profile")]
    module: String,
    /// The scheduler that is profiled
    #[arg(long, default_value = "wlc", requires = "profile")]
    scheduler: String,
    /// Entries of the large table
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(20_000..=4_000_000))]
    entries: u32,
    /// Where the JSON goes
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../build/bench-director.json"))]
    json: PathBuf,
    /// The document whose section is written
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PERFORMANCE.md"))]
    document: PathBuf,
}

/// Packets that can be profiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profiled {
    /// Datagrams of known connections.
    UdpEstablished,
    /// The first datagrams of connections.
    UdpNew,
    /// Plain ACKs in ESTABLISHED.
    TcpEstablished,
    /// SYNs.
    TcpNew,
    /// Datagrams redirected without a director.
    Floor,
}

/// The directors compared: name, module, schedulers.
const DIRECTORS: [(&str, &str, &[&str]); 2] = [
    ("ip_vs", "ip_vs", &["wlc"]),
    ("ipvs_mwlc", "ipvs_mwlc", &["wlc", "mwlc"]),
];

/// Weights 1 to this one in turn, where they are not all 1.
const WEIGHT_LARGEST: u32 = 7;

/// Entries of the small table, of each protocol.
const ENTRIES_FEW: u32 = 1_000;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-director: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<bool> {
    if let Some(packets) = args.profile {
        return profiled(packets, &args.module, &args.scheduler);
    }
    let started = Instant::now();
    let say = |text: &str| eprintln!("{:>5} s  {text}", started.elapsed().as_secs());
    say("booting the guest");
    let lab = Lab::boot(&[])?;
    say("the paths without a director");
    let mut report = Report {
        setup: setup()?,
        drop: floor(&lab, "drop", false)?,
        mirred: floor(&lab, "mirred", true)?,
        forward: floor(&lab, "forward", true)?,
        rows: Vec::new(),
        ipv6: Ipv6::default(),
        memory: Vec::new(),
    };
    // How many real servers, and their largest weight.
    let servers: &[(u32, u32)] = if args.quick {
        &[(3, 1)]
    } else {
        &[(3, 1), (30, 1), (300, 1), (300, WEIGHT_LARGEST)]
    };
    for (name, module, schedulers) in DIRECTORS {
        for &(servers, weight_largest) in servers {
            for scheduler in schedulers {
                say(&format!("{name}, {scheduler}, {servers} real servers"));
                let script = format!(
                    "director {module}\nservices {scheduler} {servers} {weight_largest}\n{}{}",
                    fill(ENTRIES_FEW),
                    costs(ENTRIES_FEW, 0).0
                );
                let measured = lab.measure(&script)?;
                report.rows.push(Row {
                    director: name,
                    scheduler,
                    servers,
                    weight_largest,
                    entries: ENTRIES_FEW,
                    costs: Costs::of(&measured)?,
                });
            }
        }
        if !args.quick {
            say(&format!("{name}, {} entries", args.entries));
            large_table(&lab, args.entries, (name, module, schedulers), &mut report)?;
        }
    }
    say("IPv6");
    report.ipv6 = ipv6(&lab)?;
    lab.finish()?;
    print!("{}", report.table());
    say("done");
    if !args.quick {
        report.write(&args.json, &args.document)?;
    }
    Ok(report.judge())
}

/// Datagrams as pktgen sends them with and without its flag.
const UDP_FLAGS: [(&str, &str); 2] = [("udp", "!SHARED"), ("udp-shared", "SHARED")];

/// A path without a director, with each generator.
fn floor(lab: &Lab, path: &str, arriving: bool) -> anyhow::Result<Costs> {
    // Plain forwarding needs a destination beyond the director.
    let to = if path == "forward" {
        "10.2.0.2"
    } else {
        "$VIP"
    };
    let first = Clients::UdpKnown.address(0);
    let last = Clients::UdpKnown.address(ENTRIES_FEW - 1);
    let tcp = Clients::TcpKnown.address(0);
    let mut script = format!("path {path}\n");
    for (name, packets) in [("warm-up", WARM_UP_PACKETS)].into_iter().chain(rounds("")) {
        for (udp, flag) in UDP_FLAGS {
            script.push_str(&format!(
                "udp {udp}{name} {flag} {to} {first} {last} {packets}\n"
            ));
        }
        script.push_str(&format!(
            "tcp tcp{name} ack {to} {tcp} {ENTRIES_FEW} {packets}\n"
        ));
    }
    let measured = lab.measure(&script)?;
    let cost = |what| {
        let each = measured.instructions(what, arriving)?;
        anyhow::Ok(Cost {
            established: each,
            new: each,
        })
    };
    Ok(Costs {
        udp: cost("udp")?,
        udp_shared: cost("udp-shared")?,
        tcp: cost("tcp")?,
    })
}

/// The rounds that count, under one name.
fn rounds(name: &str) -> impl Iterator<Item = (&str, u32)> {
    (0..ROUNDS).map(move |_| (name, PACKETS))
}

/// Makes `entries` UDP connections and as many as are measured with TCP.
fn fill(entries: u32) -> String {
    let flows = entries.min(PACKETS);
    format!(
        "udp fill !SHARED $VIP {} {} {entries}\ntcp fill open $VIP {} {flows} {flows}\n",
        Clients::UdpKnown.address(0),
        Clients::UdpKnown.address(entries - 1),
        Clients::TcpKnown.address(0),
    )
}

/// Established and new connections with each generator. The new clients begin at number `fresh`; the
/// number behind them is returned.
fn costs(entries: u32, mut fresh: u32) -> (String, u32) {
    let flows = entries.min(PACKETS);
    let mut script = String::new();
    let known = [
        Clients::UdpKnown.address(0),
        Clients::UdpKnown.address(flows - 1),
    ];
    let known_tcp = Clients::TcpKnown.address(0);
    for (round, packets) in [("warm-up", WARM_UP_PACKETS)]
        .into_iter()
        .chain(rounds("established"))
    {
        for (udp, flag) in UDP_FLAGS {
            script.push_str(&format!(
                "udp {udp}-{round} {flag} $VIP {} {} {packets}\n",
                known[0], known[1]
            ));
        }
        script.push_str(&format!(
            "tcp tcp-{round} ack $VIP {known_tcp} {flows} {packets}\n"
        ));
    }
    for (round, packets) in [("warm-up", WARM_UP_PACKETS)]
        .into_iter()
        .chain(rounds("new"))
    {
        for (udp, flag) in UDP_FLAGS {
            script.push_str(&format!(
                "udp {udp}-{round} {flag} $VIP {} {} {packets}\n",
                Clients::UdpNew.address(fresh),
                Clients::UdpNew.address(fresh + packets - 1)
            ));
            fresh += packets;
        }
        script.push_str(&format!(
            "tcp tcp-{round} syn $VIP {} {packets} {packets}\n",
            Clients::TcpNew.address(fresh)
        ));
        fresh += packets;
    }
    (script, fresh)
}

/// The large table with three real servers: what a packet costs, and what an entry weighs.
fn large_table(
    lab: &Lab,
    entries: u32,
    (name, module, schedulers): (&'static str, &str, &'static [&'static str]),
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut first = true;
    let mut fresh = 0;
    let mut script = format!("director {module}\n");
    for scheduler in schedulers {
        // One script for each scheduler: between scripts the guest's clock races, so timeouts are long.
        if first {
            script.push_str(&format!(
                "memory before\nservices {scheduler} 3\n{}memory after\n",
                fill(entries)
            ));
        } else {
            script = format!("scheduler {scheduler}\n");
        }
        let (measuring, next) = costs(entries, fresh);
        fresh = next;
        script.push_str(&measuring);
        let measured = lab.measure(&script)?;
        if first {
            report.memory.push(memory(name, entries, &measured)?);
            first = false;
        }
        report.rows.push(Row {
            director: name,
            scheduler,
            servers: 3,
            weight_largest: 1,
            entries,
            costs: Costs::of(&measured)?,
        });
    }
    Ok(())
}

/// TCP over IPv6 with three real servers and a small table.
fn ipv6(lab: &Lab) -> anyhow::Result<Ipv6> {
    lab.run("set_up6")?;
    let known = Clients::TcpKnown.address6(0);
    let acks = |what| format!("tcp {what} ack \"[$VIP6]\" {known} {ENTRIES_FEW}");
    let mut script = "path mirred\n".to_owned();
    for (name, packets) in [("warm-up", WARM_UP_PACKETS)]
        .into_iter()
        .chain(rounds("mirred"))
    {
        script.push_str(&format!("{} {packets}\n", acks(name)));
    }
    let mirred = lab.measure(&script)?.instructions("mirred", true)?;
    let mut rows = Vec::new();
    for (director, module, schedulers) in DIRECTORS {
        for scheduler in schedulers {
            let mut script = format!(
                "director {module}\nservices6 {scheduler}\n\
                 tcp fill open \"[$VIP6]\" {known} {ENTRIES_FEW} {ENTRIES_FEW}\n"
            );
            for (name, packets) in [("warm-up", WARM_UP_PACKETS)]
                .into_iter()
                .chain(rounds("established"))
            {
                script.push_str(&format!("{} {packets}\n", acks(name)));
            }
            let mut fresh = 0;
            for (name, packets) in [("warm-up", WARM_UP_PACKETS)]
                .into_iter()
                .chain(rounds("new"))
            {
                let first = Clients::TcpNew.address6(fresh);
                script.push_str(&format!(
                    "tcp {name} syn \"[$VIP6]\" {first} {packets} {packets}\n"
                ));
                fresh += packets;
            }
            let measured = lab.measure(&script)?;
            rows.push(Row6 {
                director,
                scheduler,
                cost: Cost {
                    established: measured.instructions("established", true)?,
                    new: measured.instructions("new", true)?,
                },
            });
        }
    }
    Ok(Ipv6 { mirred, rows })
}

fn memory(director: &'static str, entries: u32, measured: &Measured) -> anyhow::Result<Memory> {
    let before = measured.figure("before")?;
    let after = measured.figure("after")?;
    let made = f64::from(entries + entries.min(PACKETS));
    Ok(Memory {
        director,
        bytes_per_connection: 1024.0 * before.saturating_sub(after) as f64 / made,
    })
}

/// Prints where the instructions of `packets` go.
fn profiled(packets: Profiled, module: &str, scheduler: &str) -> anyhow::Result<bool> {
    let dir = tempfile::Builder::new()
        .prefix("bench-director-")
        .tempdir()?;
    let socket = dir.path().join("monitor.sock");
    let lab = Lab::boot(&profile::qemu_arguments(&socket))?;
    let clients = |clients: Clients, count: u32| {
        format!("{} {}", clients.address(0), clients.address(count - 1))
    };
    let known = clients(Clients::UdpKnown, ENTRIES_FEW);
    let tcp = |kind, clients: Clients, count| {
        format!(
            "tcp profiled {kind} $VIP {} {count} {}",
            clients.address(0),
            u32::MAX
        )
    };
    // Addresses enough that no client comes twice.
    let (endless, stop) = match packets {
        Profiled::UdpEstablished | Profiled::Floor => (udp_endless(&known), STOP_PKTGEN),
        Profiled::UdpNew => (udp_endless(&clients(Clients::UdpNew, 1 << 24)), STOP_PKTGEN),
        Profiled::TcpEstablished => (tcp("ack", Clients::TcpKnown, ENTRIES_FEW), STOP_PACKETS),
        Profiled::TcpNew => (tcp("syn", Clients::TcpNew, 1 << 24), STOP_PACKETS),
    };
    let path = match packets {
        Profiled::Floor => "path mirred\n".to_owned(),
        _ => format!(
            "director {module}\nservices {scheduler} 3\n{}",
            fill(ENTRIES_FEW)
        ),
    };
    // Only packets are to be seen, not the start of programs.
    let start = format!(
        "{path}\nbegun=$(arrived)\n{{ {endless}; }} >/dev/null 2>&1 &
         until [ \"$(arrived)\" -gt $((begun + {PACKETS})) ]; do :; done\n"
    );
    print!("{}", profile::profile(&lab, &socket, &start, stop)?);
    lab.finish()?;
    Ok(true)
}

/// Datagrams without an end: a count of 0 means that to pktgen.
fn udp_endless(clients: &str) -> String {
    format!("udp profiled !SHARED $VIP {clients} 0")
}

const STOP_PKTGEN: &str = "echo stop >/proc/net/pktgen/pgctrl";
const STOP_PACKETS: &str = "killall vm-packets";

fn setup() -> anyhow::Result<Setup> {
    Ok(Setup {
        kernel: cssns::vm::KmodEnv::locate()?.kver,
        packets: PACKETS,
    })
}
