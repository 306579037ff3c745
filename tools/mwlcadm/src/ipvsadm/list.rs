// SPDX-License-Identifier: MIT
//! ipvsadm's listings, column for column.

use std::io::{self, Write};

use ipvs_mwlc::director::config::{Forwarding, SERVICE_SCHED1, SERVICE_SCHED2, SERVICE_SCHED3};
use ipvs_mwlc::director::stats::{Counters, Rates, Stats};

use super::{Listing, View};
use crate::error::Error;
use crate::ipvs::{DestEntry, Info, Ipvs, ServiceEntry};
use crate::mwlc::{ConnEntry, Mwlc};
use crate::values::{protocol_name, show_endpoint, show_service_name};

/// Writes the listing.
pub(super) fn list(
    ipvs: &mut Ipvs,
    listing: &Listing,
    output: &mut impl Write,
) -> Result<(), Error> {
    match listing.view {
        View::Connections => {
            let connections = Mwlc::open()?.connections()?;
            write_connections(&connections, output).map_err(Error::Output)
        }
        View::Timeouts => {
            let timeouts = ipvs.timeouts()?;
            writeln!(
                output,
                "Timeout (tcp tcpfin udp): {} {} {}",
                timeouts.tcp_s, timeouts.tcp_fin_s, timeouts.udp_s
            )
            .map_err(Error::Output)
        }
        View::Daemon => Ok(()),
        View::Plain | View::Stats | View::Rate | View::Thresholds | View::Persistent => {
            let tables = tables(ipvs, listing)?;
            write_tables(&tables, listing, output).map_err(Error::Output)
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
        services.sort_by_key(|service| service.key);
    }
    let mut tables = Tables {
        info,
        services: Vec::new(),
    };
    for service in services {
        let mut dests = ipvs.dests(&service.key)?;
        if !listing.unsorted {
            dests.sort_by_key(|dest| dest.config.key);
        }
        tables.services.push((service, dests));
    }
    Ok(tables)
}

fn write_tables(tables: &Tables, listing: &Listing, output: &mut impl Write) -> io::Result<()> {
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
        write_service(service, listing, output)?;
        for dest in dests {
            write_dest(dest, listing, output)?;
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
    output: &mut impl Write,
) -> io::Result<()> {
    let key = &service.key;
    let name = format!("{}  {}", protocol_name(key), show_service_name(key));
    match listing.view {
        View::Stats | View::Rate => {
            let numbers = numbers(&service.stats, listing);
            writeln!(output, "{name:<33}{numbers}")
        }
        _ => writeln!(
            output,
            "{name} {}{}",
            service.scheduler,
            show_flags(service.flags)
        ),
    }
}

fn write_dest(dest: &DestEntry, listing: &Listing, output: &mut impl Write) -> io::Result<()> {
    let name = show_endpoint(dest.config.key.address, dest.config.key.port);
    let DestEntry {
        active,
        inactive,
        persistent,
        ..
    } = dest;
    let weight = dest.config.weight;
    let columns = match listing.view {
        View::Stats | View::Rate => numbers(&dest.stats, listing),
        View::Thresholds => {
            let thresholds = dest.config.thresholds;
            let (upper, lower) = (thresholds.upper, thresholds.lower);
            format!(" {upper:<10} {lower:<10} {active:<10} {inactive:<10}")
        }
        View::Persistent => {
            format!(" {weight:<9} {persistent:<11} {active:<10} {inactive:<10}")
        }
        View::Plain | View::Connections | View::Timeouts | View::Daemon => {
            let method = match dest.config.forwarding {
                Forwarding::LocalNode => "Local",
                Forwarding::DirectRouting => "Route",
            };
            format!(" {method:<7} {weight:<6} {active:<10} {inactive:<10}")
        }
    };
    writeln!(output, "  -> {name:<28}{columns}")
}

fn show_flags(flags: u32) -> String {
    let names = flag_names(flags);
    if names.is_empty() {
        String::new()
    } else {
        format!(" ({names})")
    }
}

/// `flag-1,flag-3`: as `-b` takes them.
pub(super) fn flag_names(flags: u32) -> String {
    let names = [
        (SERVICE_SCHED1, "flag-1"),
        (SERVICE_SCHED2, "flag-2"),
        (SERVICE_SCHED3, "flag-3"),
    ];
    let set: Vec<&str> = names
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .map(|(_, name)| *name)
        .collect();
    set.join(",")
}

fn numbers(stats: &Stats, listing: &Listing) -> String {
    let Counters {
        connections,
        in_packets,
        out_packets,
        in_bytes,
        out_bytes,
    } = stats.counters;
    let rates = stats.rates;
    let numbers = if listing.view == View::Rate {
        let Rates {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        } = rates;
        [connections, in_packets, out_packets, in_bytes, out_bytes]
    } else {
        [connections, in_packets, out_packets, in_bytes, out_bytes]
    };
    numbers
        .map(|number| show_number(number, listing.exact))
        .concat()
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

fn write_connections(connections: &[ConnEntry], output: &mut impl Write) -> io::Result<()> {
    writeln!(output, "IPVS connection entries")?;
    writeln!(
        output,
        "pro expire state       source             virtual            destination"
    )?;
    for conn in connections {
        let seconds = conn.expires_ms / 1000;
        let expire = format!("{:02}:{:02}", seconds / 60, seconds % 60);
        let endpoint = |(address, port)| show_endpoint(address, port);
        writeln!(
            output,
            "{:<3} {expire:<6} {:<11} {:<18} {:<18} {}",
            conn.transport.name(),
            conn.state.name(),
            endpoint(conn.client),
            endpoint(conn.virtual_address),
            endpoint(conn.dest)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipvs_mwlc::director::config::{
        Address, DestConfig, DestKey, ServiceKey, Thresholds, Transport,
    };

    fn tables() -> Tables {
        let address = |host| Address::V4([10, 0, 0, host]);
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
            key: ServiceKey::endpoint(Transport::Tcp, address(100), 80),
            scheduler: "wlc".to_owned(),
            flags: SERVICE_SCHED1 | SERVICE_SCHED3,
            stats,
        };
        let dest = DestEntry {
            config: DestConfig {
                key: DestKey {
                    address: address(1),
                    port: 80,
                },
                forwarding: Forwarding::DirectRouting,
                weight: 2,
                thresholds: Thresholds { upper: 9, lower: 4 },
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
        write_tables(&tables(), &listing, &mut output).unwrap();
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
