// SPDX-License-Identifier: MIT
//! ipvsadm's listings, column for column.

use std::io::{self, Write};

use ipvs_mwlc::director::flags::{SERVICE_ONE_PACKET, SERVICE_PERSISTENT};
use ipvs_mwlc::director::stats::{Counters, Rates, Stats};
use ipvs_mwlc::uapi::ipvs::forwarding;

use super::resolve::Resolver;
use super::{Listing, View, connections, flags};
use crate::error::Error;
use crate::ipvs::{Daemon, DestEntry, Forwarding, Info, Ipvs, ServiceConfig, ServiceEntry};
use crate::names::ServiceName;

/// An IPv4 name longer than its column is cut, as ipvsadm does; an IPv6 one is not.
const SERVICE_COLUMN: usize = 33;
const DEST_COLUMN: usize = 28;

/// Writes the listing.
pub(super) fn list(
    ipvs: &mut Ipvs,
    listing: &Listing,
    output: &mut impl Write,
) -> Result<(), Error> {
    let resolver = Resolver::new(listing.numeric);
    match listing.view {
        View::Connections => connections::write(listing, &resolver, output),
        View::Timeouts => {
            let timeouts = ipvs.timeouts()?;
            writeln!(
                output,
                "Timeout (tcp tcpfin udp): {} {} {}",
                timeouts.tcp_s, timeouts.tcp_fin_s, timeouts.udp_s
            )
            .map_err(Error::Output)
        }
        View::Daemon => {
            let daemons = ipvs.daemons()?;
            daemons
                .iter()
                .try_for_each(|daemon| writeln!(output, "{}", daemon_line(daemon)))
                .map_err(Error::Output)
        }
        View::Plain
        | View::Stats
        | View::Rate
        | View::Thresholds
        | View::Persistent
        | View::Tunnels => {
            let tables = tables(ipvs, listing)?;
            write_tables(&tables, listing, &resolver, output).map_err(Error::Output)
        }
    }
}

/// What the kernel has, in the order in which it is shown.
struct Tables {
    /// Left out for a single service, as ipvsadm does.
    info: Option<Info>,
    services: Vec<(ServiceEntry, Vec<DestEntry>)>,
}

fn tables(ipvs: &mut Ipvs, listing: &Listing) -> Result<Tables, Error> {
    let info = match listing.service {
        Some(_) => None,
        None => Some(ipvs.info()?),
    };
    let mut services = ipvs.services(listing.service.as_ref())?;
    if !listing.unsorted {
        services.sort_by_key(|service| service.config.name);
    }
    let mut tables = Tables {
        info,
        services: Vec::new(),
    };
    for service in services {
        let mut dests = ipvs.dests(&service.config.name)?;
        if !listing.unsorted {
            dests.sort_by_key(|dest| dest.config.address);
        }
        tables.services.push((service, dests));
    }
    Ok(tables)
}

fn write_tables(
    tables: &Tables,
    listing: &Listing,
    resolver: &Resolver,
    output: &mut impl Write,
) -> io::Result<()> {
    if let Some(Info {
        version,
        table_size,
    }) = tables.info
    {
        let [_, major, minor, patch] = version.to_be_bytes();
        writeln!(
            output,
            "IP Virtual Server version {major}.{minor}.{patch} (size={table_size})"
        )?;
    }
    write_title(listing.view, output)?;
    for (service, dests) in &tables.services {
        write_service(service, listing, resolver, output)?;
        for dest in dests {
            let transport = service.config.name.transport();
            let mut name = resolver.endpoint(dest.config.address, transport);
            if dest.config.address.is_ipv4() {
                name.truncate(DEST_COLUMN);
            }
            writeln!(
                output,
                "  -> {name:<DEST_COLUMN$}{}",
                dest_columns(dest, listing)
            )?;
        }
    }
    Ok(())
}

fn write_title(view: View, output: &mut impl Write) -> io::Result<()> {
    let service = "Prot LocalAddress:Port";
    let five = |names: [&str; 5]| {
        let [a, b, c, d, e] = names;
        format!("{service:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}\n  -> RemoteAddress:Port")
    };
    let title = match view {
        View::Stats => five(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
        View::Rate => five(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]),
        View::Thresholds => format!(
            "{service:<33} {:<10} {:<10} {:<10} {:<10}\n  -> RemoteAddress:Port",
            "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"
        ),
        View::Persistent => format!(
            "{service:<33} {:<9} {:<11} {:<10} {:<10}\n  -> RemoteAddress:Port",
            "Weight", "PersistConn", "ActiveConn", "InActConn"
        ),
        View::Tunnels => format!(
            "{service} Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn"
        ),
        View::Plain | View::Connections | View::Timeouts | View::Daemon => format!(
            "{service} Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward Weight ActiveConn InActConn"
        ),
    };
    writeln!(output, "{title}")
}

fn write_service(
    service: &ServiceEntry,
    listing: &Listing,
    resolver: &Resolver,
    output: &mut impl Write,
) -> io::Result<()> {
    let config = &service.config;
    let endpoint = resolver.service(&config.name);
    let mut name = format!("{:<4} {endpoint}", config.name.protocol_name());
    if let ServiceName::Address(_, endpoint) = config.name {
        if endpoint.is_ipv4() {
            name.truncate(SERVICE_COLUMN);
        }
    }
    match listing.view {
        View::Stats | View::Rate => {
            let numbers = service_numbers(&service.stats, listing);
            writeln!(output, "{name:<SERVICE_COLUMN$}{numbers}")
        }
        _ => writeln!(output, "{name} {}", service_words(config)),
    }
}

/// Scheduler, its flags, persistence, one-packet: `wlc (flag-1) persistent 300 mask 255.255.255.0`.
fn service_words(config: &ServiceConfig) -> String {
    let mut words = config.scheduler.clone();
    if flags::any(config.flags) {
        let names = flags::names(&config.scheduler, config.flags);
        words.push_str(&format!(" ({names})"));
    }
    if config.flags & SERVICE_PERSISTENT != 0 {
        words.push_str(&format!(" persistent {}", config.timeout_s));
        if let Some(mask) = config.netmask.text() {
            words.push_str(&format!(" mask {mask}"));
        }
        if let Some(engine) = &config.engine {
            words.push_str(&format!(" pe {engine}"));
        }
    }
    if config.flags & SERVICE_ONE_PACKET != 0 {
        words.push_str(" ops");
    }
    words
}

fn dest_columns(dest: &DestEntry, listing: &Listing) -> String {
    let DestEntry {
        active,
        inactive,
        persistent,
        ..
    } = dest;
    let config = &dest.config;
    let weight = config.weight;
    match listing.view {
        View::Stats => service_numbers(&dest.stats, listing),
        View::Rate => dest_rates(&dest.stats.rates, listing),
        View::Thresholds => {
            let (upper, lower) = (config.upper, config.lower);
            format!(" {upper:<10} {lower:<10} {active:<10} {inactive:<10}")
        }
        View::Persistent => {
            format!(" {weight:<9} {persistent:<11} {active:<10} {inactive:<10}")
        }
        View::Tunnels => {
            let method = method_name(config.forwarding);
            let tunnel = tunnel_text(config.forwarding);
            format!(" {method:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}")
        }
        View::Plain | View::Connections | View::Timeouts | View::Daemon => {
            let method = method_name(config.forwarding);
            format!(" {method:<7} {weight:<6} {active:<10} {inactive:<10}")
        }
    }
}

const fn method_name(forwarding: Forwarding) -> &'static str {
    match forwarding.method {
        forwarding::MASQ => "Masq",
        forwarding::LOCALNODE => "Local",
        forwarding::TUNNEL => "Tunnel",
        forwarding::DROUTE => "Route",
        _ => "?",
    }
}

/// `gue:6080:+c`, or `n/a` for what is no tunnel.
fn tunnel_text(forwarding: Forwarding) -> String {
    let flags = match forwarding.tunnel_flags {
        0 => "-c",
        1 => "+c",
        _ => "r+c",
    };
    match (forwarding.method, forwarding.tunnel) {
        (forwarding::TUNNEL, 0) => "ipip".to_owned(),
        (forwarding::TUNNEL, 1) => format!("gue:{}:{flags}", forwarding.tunnel_port),
        (forwarding::TUNNEL, 2) => format!("gre:{flags}"),
        _ => "n/a".to_owned(),
    }
}

fn daemon_line(daemon: &Daemon) -> String {
    let role = if daemon.role & 1 != 0 {
        "master"
    } else {
        "backup"
    };
    let mut line = format!(
        "{role} sync daemon (mcast={}, syncid={}",
        daemon.interface, daemon.sync_id
    );
    if daemon.message_bytes_max > 0 {
        line.push_str(&format!(", maxlen={}", daemon.message_bytes_max));
    }
    if let Some(group) = daemon.group {
        line.push_str(&format!(", group={group}"));
    }
    if daemon.port > 0 {
        line.push_str(&format!(", port={}", daemon.port));
    }
    if daemon.ttl > 0 {
        line.push_str(&format!(", ttl={}", daemon.ttl));
    }
    line + ")"
}

fn service_numbers(stats: &Stats, listing: &Listing) -> String {
    let numbers = if listing.view == View::Rate {
        rates(&stats.rates)
    } else {
        let Counters {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        } = stats.counters;
        [connections, in_packets, out_packets, in_bytes, out_bytes]
    };
    numbers
        .map(|number| show_number(number, listing.exact))
        .concat()
}

const fn rates(rates: &Rates) -> [u64; 5] {
    let Rates {
        connections,
        in_packets,
        out_packets,
        in_bytes,
        out_bytes,
    } = *rates;
    [connections, in_packets, out_packets, in_bytes, out_bytes]
}

/// A real server's rates: ipvsadm cuts only the two of bytes.
fn dest_rates(of: &Rates, listing: &Listing) -> String {
    let [connections, in_packets, out_packets, in_bytes, out_bytes] = rates(of);
    let whole = [connections, in_packets, out_packets].map(|number| show_number(number, true));
    let cut = [in_bytes, out_bytes].map(|number| show_number(number, listing.exact));
    whole.concat() + &cut.concat()
}

/// ipvsadm's column of nine characters: a large number is cut to K, M, G or T (of 1000).
fn show_number(number: u64, exact: bool) -> String {
    match number {
        _ if exact => format!(" {number:>8}"),
        0..100_000_000 => format!("{number:>9}"),
        100_000_000..1_000_000_000 => format!("{:>8}K", number / 1_000),
        1_000_000_000..100_000_000_000 => format!("{:>8}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{:>8}G", number / 1_000_000_000),
        _ => format!("{:>8}T", number / 1_000_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipvs::{DestConfig, Netmask};
    use ipvs_mwlc::director::address::{Family, Transport};
    use ipvs_mwlc::director::flags::{SERVICE_SCHED1, SERVICE_SCHED3};

    fn tables() -> Tables {
        let stats = Stats {
            counters: Counters {
                connections: 12,
                in_packets: 123_456_789,
                ..Counters::default()
            },
            rates: Rates {
                in_bytes: 99,
                ..Rates::default()
            },
        };
        let service = ServiceEntry {
            config: ServiceConfig {
                name: ServiceName::Address(Transport::Tcp, ([10, 0, 0, 100], 80).into()),
                scheduler: "wlc".to_owned(),
                flags: SERVICE_SCHED1 | SERVICE_SCHED3,
                timeout_s: 0,
                netmask: Netmask::whole(Family::Ipv4),
                engine: None,
            },
            stats,
        };
        let dest = DestEntry {
            config: DestConfig {
                address: ([10, 0, 0, 1], 80).into(),
                forwarding: Forwarding::DIRECT,
                weight: 2,
                upper: 9,
                lower: 4,
            },
            active: 3,
            inactive: 5,
            persistent: 0,
            stats,
        };
        let info = Info {
            version: 0x01_02_01,
            table_size: 4096,
        };
        Tables {
            info: Some(info),
            services: vec![(service, vec![dest])],
        }
    }

    fn shown(listing: Listing) -> String {
        let mut output = Vec::new();
        write_tables(&tables(), &listing, &Resolver::new(true), &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    fn view(view: View) -> Listing {
        Listing {
            view,
            ..Listing::default()
        }
    }

    /// What ipvsadm 1.31 prints for the same answers.
    #[test]
    fn every_column_is_ipvsadms() {
        assert_eq!(
            shown(view(View::Plain)),
            "IP Virtual Server version 1.2.1 (size=4096)\n\
             Prot LocalAddress:Port Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n\
             TCP  10.0.0.100:80 wlc (flag-1,flag-3)\n  \
             -> 10.0.0.1:80                  Route   2      3          5         \n"
        );
        let stats = shown(view(View::Stats));
        assert!(stats.contains("Prot LocalAddress:Port               Conns   InPkts  OutPkts"));
        assert!(stats.contains("TCP  10.0.0.100:80                      12  123456K        0"));
        assert!(stats.contains("  -> 10.0.0.1:80                        12  123456K        0"));
        let rate = shown(view(View::Rate));
        assert!(
            rate.contains("TCP  10.0.0.100:80                       0        0        0       99")
        );
        let thresholds = shown(view(View::Thresholds));
        assert!(thresholds.contains("  -> 10.0.0.1:80                  9          4          3"));
        let persistent = shown(view(View::Persistent));
        assert!(persistent.contains("  -> 10.0.0.1:80                  2         0           3"));
    }

    #[test]
    fn a_services_words() {
        let mut config = tables().services.remove(0).0.config;
        config.flags = SERVICE_PERSISTENT | SERVICE_ONE_PACKET;
        config.timeout_s = 360;
        assert_eq!(service_words(&config), "wlc persistent 360 ops");
        config.netmask = Netmask::V4([255, 255, 255, 0].into());
        config.engine = Some("sip".to_owned());
        assert_eq!(
            service_words(&config),
            "wlc persistent 360 mask 255.255.255.0 pe sip ops"
        );
        config.netmask = Netmask::V6(64);
        config.engine = None;
        config.flags = SERVICE_PERSISTENT;
        assert_eq!(service_words(&config), "wlc persistent 360 mask 64");
    }

    #[test]
    fn tunnels_and_daemons() {
        let tunnel = Forwarding {
            method: forwarding::TUNNEL,
            tunnel: 1,
            tunnel_port: 6080,
            tunnel_flags: 2,
        };
        assert_eq!(tunnel_text(tunnel), "gue:6080:r+c");
        assert_eq!(tunnel_text(Forwarding::DIRECT), "n/a");
        let daemon = Daemon {
            role: 1,
            interface: "eth0".to_owned(),
            sync_id: 7,
            ttl: 1,
            ..Daemon::default()
        };
        assert_eq!(
            daemon_line(&daemon),
            "master sync daemon (mcast=eth0, syncid=7, ttl=1)"
        );
    }

    #[test]
    fn large_numbers_are_cut_unless_exact() {
        for (number, text) in [
            (0, "        0"),
            (99_999_999, " 99999999"),
            (100_000_000, "  100000K"),
            (1_000_000_000, "    1000M"),
            (100_000_000_000, "     100G"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(show_number(number, false), text);
        }
        assert_eq!(show_number(100_000_000, true), " 100000000");
    }
}
