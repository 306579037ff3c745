// SPDX-License-Identifier: MIT
//! What `top` shows: each service with its real servers, as lines or as JSON.

use std::net::SocketAddr;

use clap::ValueEnum;
use ipvs_mwlc::director::stats::Rates;
use serde::Serialize;

use crate::mwlc::{DestLoadEntry, ServiceSizes};
use crate::names::ServiceName;
use crate::show::{NO_REAL_SERVER, NO_SERVICE};
use crate::state::state;
use crate::turned_away::TurnedAway;
use crate::utc::{now_ms, utc_text};
use crate::values::show_size;

/// How wide the bar of Ci/Wi is.
const BAR_CELLS: usize = 10;

/// The order of a service's real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// By address.
    Address,
    /// By Ci/Wi, the largest first.
    Ratio,
    /// By active connections, the most first.
    Active,
    /// By new connections in a second, the most first.
    Rate,
}

impl Sort {
    /// The next one, for a key that goes round.
    pub const fn next(self) -> Sort {
        match self {
            Sort::Address => Sort::Ratio,
            Sort::Ratio => Sort::Active,
            Sort::Active => Sort::Rate,
            Sort::Rate => Sort::Address,
        }
    }

    /// Its name on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            Sort::Address => "address",
            Sort::Ratio => "Ci/Wi",
            Sort::Active => "active",
            Sort::Rate => "new connections",
        }
    }
}

/// One look at the director.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// Milliseconds since 1970.
    time_ms: u64,
    services: Vec<Service>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Service {
    protocol: &'static str,
    service: String,
    scheduler: String,
    expected_size_bytes: u64,
    /// Clients turned away so far.
    refused: u64,
    real_servers: Vec<RealServer>,
}

/// A real server.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct RealServer {
    address: SocketAddr,
    weight: u32,
    load_bytes: u64,
    load_per_weight_bytes: Option<f64>,
    pending: u32,
    active: u32,
    inactive: u32,
    connections_per_s: u64,
    in_packets_per_s: u64,
    in_bytes_per_s: u64,
    state: String,
}

impl Snapshot {
    /// Puts together what both families say.
    pub fn new(
        mut services: Vec<ServiceSizes>,
        dests: &[DestLoadEntry],
        rates: &[((ServiceName, SocketAddr), Rates)],
    ) -> Snapshot {
        services.sort_by_key(|service| service.name);
        let of = |service: &ServiceSizes| {
            let mine = dests.iter().filter(|dest| dest.service == service.name);
            mine.map(|dest| real_server(dest, rates)).collect()
        };
        let services = services
            .iter()
            .map(|service| Service {
                protocol: service.name.protocol_name(),
                service: service.name.endpoint_text(),
                scheduler: service.policy.clone(),
                expected_size_bytes: service.expected_bytes,
                refused: TurnedAway::from(service.refused).total(),
                real_servers: of(service),
            })
            .collect();
        Snapshot {
            time_ms: now_ms(),
            services,
        }
    }

    /// When it was taken.
    pub fn time(&self) -> String {
        utc_text(self.time_ms)
    }
}

fn real_server(dest: &DestLoadEntry, rates: &[((ServiceName, SocketAddr), Rates)]) -> RealServer {
    let key = (dest.service, dest.address);
    let found = rates.iter().find(|(known, _)| *known == key);
    let rates = found.map_or(Rates::default(), |(_, rates)| *rates);
    let ratio = dest.load_bytes as f64 / f64::from(dest.weight);
    RealServer {
        address: dest.address,
        weight: dest.weight,
        load_bytes: dest.load_bytes,
        load_per_weight_bytes: (dest.weight > 0).then_some(ratio),
        pending: dest.pending,
        active: dest.active,
        inactive: dest.inactive,
        connections_per_s: rates.connections,
        in_packets_per_s: rates.in_packets,
        in_bytes_per_s: rates.in_bytes,
        state: state(dest),
    }
}

/// The lines of a snapshot, none wider than `columns`.
pub fn lines(snapshot: &Snapshot, sort: Sort, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for service in &snapshot.services {
        lines.extend(service_lines(service, sort));
    }
    if lines.is_empty() {
        lines.push(NO_SERVICE.to_owned());
    }
    for line in &mut lines {
        if let Some((end, _)) = line.char_indices().nth(columns) {
            line.truncate(end);
        }
    }
    lines
}

fn service_lines(service: &Service, sort: Sort) -> Vec<String> {
    let refused = match service.refused {
        0 => String::new(),
        count => format!(", clients turned away: {count}"),
    };
    let head = format!(
        "{} {} {}, expected size {}{refused}",
        service.protocol,
        service.service,
        service.scheduler,
        show_size(service.expected_size_bytes as f64)
    );
    if service.real_servers.is_empty() {
        return vec![head, NO_REAL_SERVER.to_owned()];
    }
    let titles = format!(
        "  {:<21} {:>5} {:>10} {:>10} {:<BAR_CELLS$} {:>7} {:>7} {:>8} {:>7} {:>8} {:>12}  State",
        "Real server",
        "Wi",
        "Ci",
        "Ci/Wi",
        "",
        "Pending",
        "Active",
        "Inactive",
        "New/s",
        "Packet/s",
        "In/s"
    );
    let mut servers: Vec<&RealServer> = service.real_servers.iter().collect();
    servers.sort_by_key(|server| server.address);
    let ratio = |server: &RealServer| server.load_per_weight_bytes.unwrap_or(0.0);
    match sort {
        Sort::Address => {}
        Sort::Ratio => servers.sort_by(|one, other| ratio(other).total_cmp(&ratio(one))),
        Sort::Active => servers.sort_by_key(|server| std::cmp::Reverse(server.active)),
        Sort::Rate => servers.sort_by_key(|server| std::cmp::Reverse(server.connections_per_s)),
    }
    let largest = servers
        .iter()
        .map(|server| ratio(server))
        .fold(0.0, f64::max);
    let rows = servers.iter().map(|server| row(server, largest));
    [head, titles].into_iter().chain(rows).collect()
}

fn row(server: &RealServer, largest: f64) -> String {
    let ratio = match server.load_per_weight_bytes {
        Some(ratio) => show_size(ratio),
        None => "-".to_owned(),
    };
    let bar = bar(server.load_per_weight_bytes.unwrap_or(0.0), largest);
    let in_rate = format!("{}/s", show_size(server.in_bytes_per_s as f64));
    format!(
        "  {:<21} {:>5} {:>10} {ratio:>10} {bar:<BAR_CELLS$} {:>7} {:>7} {:>8} {:>7} {:>8} {in_rate:>12}  {}",
        server.address.to_string(),
        server.weight,
        show_size(server.load_bytes as f64),
        server.pending,
        server.active,
        server.inactive,
        server.connections_per_s,
        server.in_packets_per_s,
        server.state
    )
}

/// A bar as long as the value is large beside the largest.
fn bar(value: f64, largest: f64) -> String {
    if largest <= 0.0 {
        return String::new();
    }
    let cells = (value / largest * BAR_CELLS as f64).round();
    let full = (0..BAR_CELLS).take_while(|cell| (*cell as f64) < cells);
    full.map(|_| '#').collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mwlc::Drain;
    use ipvs_mwlc::director::address::Transport;
    use ipvs_mwlc::director::drain::DrainPolicy;
    use ipvs_mwlc::director::load::{Learn, SizePolicy};
    use ipvs_mwlc::director::refusals::Refusals;

    fn name() -> ServiceName {
        ServiceName::Address(Transport::Tcp, ([10, 0, 0, 100], 80).into())
    }

    fn dest(host: u8, weight: u32, load_bytes: u64) -> DestLoadEntry {
        DestLoadEntry {
            service: name(),
            address: ([10, 0, 0, host], 80).into(),
            weight,
            load_bytes,
            pending: 1,
            active: u32::from(host),
            inactive: 3,
            overloaded: false,
            connections: 4,
            in_packets: 5,
            in_bytes: 6,
            ramp_permille: 1000,
            persistent: 0,
            drain: None,
        }
    }

    fn snapshot() -> Snapshot {
        let service = ServiceSizes {
            name: name(),
            policy: "mwlc".to_owned(),
            configured_bytes: 1 << 20,
            size_policy: SizePolicy::Configured,
            expected_bytes: 1 << 20,
            learned_count: 0,
            learn: Learn::Off,
            remaining: false,
            slow_start_ms: 0,
            refused: Refusals {
                quiesced: 7,
                ..Refusals::default()
            },
        };
        let mut draining = dest(3, 0, 0);
        draining.drain = Some(Drain {
            policy: DrainPolicy::Reset,
            left_ms: Some(90_500),
        });
        let rates = Rates {
            connections: 12,
            in_bytes: 2048,
            ..Rates::default()
        };
        let dests = [dest(1, 2, 10 << 20), dest(2, 1, 10 << 20), draining];
        Snapshot::new(
            vec![service],
            &dests,
            &[((name(), dests[1].address), rates)],
        )
    }

    #[test]
    fn lines_show_loads_rates_and_what_is_unusual() {
        let expected = [
            "TCP 10.0.0.100:80 mwlc, expected size 1.0 MiB, clients turned away: 7",
            concat!(
                "  Real server              Wi         Ci      Ci/Wi            Pending  Active",
                " Inactive   New/s Packet/s         In/s  State"
            ),
            concat!(
                "  10.0.0.1:80               2   10.0 MiB    5.0 MiB #####            1       1",
                "        3       0        0        0 B/s  "
            ),
            concat!(
                "  10.0.0.2:80               1   10.0 MiB   10.0 MiB ##########       1       2",
                "        3      12        0    2.0 KiB/s  "
            ),
            concat!(
                "  10.0.0.3:80               0        0 B          -                  1       3",
                "        3       0        0        0 B/s  drains, 90s left"
            ),
        ];
        assert_eq!(lines(&snapshot(), Sort::Address, 200), expected);
    }

    #[test]
    fn the_order_goes_round_and_lines_are_cut() {
        let first = |sort| lines(&snapshot(), sort, 200)[2].clone();
        assert!(first(Sort::Ratio).contains("10.0.0.2"));
        assert!(first(Sort::Active).contains("10.0.0.3"));
        assert!(first(Sort::Rate).contains("10.0.0.2"));
        let round = Sort::Address.next().next().next().next();
        assert_eq!(round, Sort::Address);
        let narrow = lines(&snapshot(), Sort::Address, 20);
        assert!(narrow.iter().all(|line| line.chars().count() <= 20));
        let empty = Snapshot {
            time_ms: 0,
            services: vec![],
        };
        assert_eq!(
            lines(&empty, Sort::Address, 80),
            ["no service is configured"]
        );
        let mut bare = snapshot();
        bare.services[0].real_servers.clear();
        assert_eq!(lines(&bare, Sort::Address, 80)[1..], ["  no real server"]);
    }
}
