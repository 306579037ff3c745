// SPDX-License-Identifier: MIT
//! Loads and connections as tables for people and as JSON for programs.

use std::io::{self, Write};

use ipvs_mwlc::director::load::SizePolicy;
use serde::Serialize;

use crate::error::Error;
use crate::mwlc::{ConnEntry, DestLoadEntry, ServiceSizes};
use crate::names::ServiceName;
use crate::state::state;
use crate::turned_away::TurnedAway;
use crate::values::show_size;

/// A service and the loads of its real servers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceLoads {
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// `VIP:PORT`.
    pub service: String,
    /// The scheduler that decides.
    pub scheduler: String,
    /// What a new connection is expected to fetch, in bytes.
    pub expected_size_bytes: u64,
    /// The configured part of it, in bytes.
    pub configured_size_bytes: u64,
    /// `configured` or `learned`.
    pub size_policy: &'static str,
    /// How many sizes were learned.
    pub learned_sizes: u64,
    /// Clients turned away so far.
    pub refused: u64,
    /// The same by cause.
    pub refused_by_cause: TurnedAway,
    /// Its real servers.
    pub real_servers: Vec<RealServerLoad>,
}

/// A real server's load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RealServerLoad {
    /// `ADDRESS:PORT`.
    pub address: String,
    /// Wi.
    pub weight: u32,
    /// Ci in bytes.
    pub load_bytes: u64,
    /// Ci/Wi in bytes; none for weight 0, which takes no connections.
    pub load_per_weight_bytes: Option<f64>,
    /// Half-open connections.
    pub pending: u32,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Whether it is over its upper threshold.
    pub overloaded: bool,
    /// Connections scheduled so far.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// What is not usual about it, in words.
    pub state: String,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnRow {
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// The client's `ADDRESS:PORT`.
    pub client: String,
    /// `VIP:PORT`.
    pub service: String,
    /// The real server's `ADDRESS:PORT`.
    pub real_server: String,
    /// Its state.
    pub state: &'static str,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Whether the size was learned or set, rather than expected.
    pub size_known: bool,
    /// Milliseconds since it was scheduled.
    pub age_ms: u64,
    /// Milliseconds until it expires if no packet comes.
    pub expires_ms: u64,
}

/// Puts each destination to its service; sorted, and only the service that was asked for.
pub fn loads(
    mut services: Vec<ServiceSizes>,
    mut dests: Vec<DestLoadEntry>,
    only: Option<&ServiceName>,
) -> Vec<ServiceLoads> {
    services.sort_by_key(|service| service.name);
    dests.sort_by_key(|dest| dest.address);
    let wanted = |service: &ServiceSizes| only.is_none_or(|name| *name == service.name);
    services
        .into_iter()
        .filter(wanted)
        .map(|service| ServiceLoads {
            protocol: service.name.protocol_name(),
            service: service.name.endpoint_text(),
            scheduler: service.policy,
            expected_size_bytes: service.expected_bytes,
            configured_size_bytes: service.configured_bytes,
            size_policy: policy_name(service.size_policy),
            learned_sizes: service.learned_count,
            refused: TurnedAway::from(service.refused).total(),
            refused_by_cause: service.refused.into(),
            real_servers: dests
                .iter()
                .filter(|dest| dest.service == service.name)
                .map(real_server)
                .collect(),
        })
        .collect()
}

fn real_server(dest: &DestLoadEntry) -> RealServerLoad {
    let ratio = dest.load_bytes as f64 / f64::from(dest.weight);
    RealServerLoad {
        address: dest.address.to_string(),
        weight: dest.weight,
        load_bytes: dest.load_bytes,
        load_per_weight_bytes: (dest.weight > 0).then_some(ratio),
        pending: dest.pending,
        active: dest.active,
        inactive: dest.inactive,
        overloaded: dest.overloaded,
        connections: dest.connections,
        in_packets: dest.in_packets,
        in_bytes: dest.in_bytes,
        state: state(dest),
    }
}

const fn policy_name(policy: SizePolicy) -> &'static str {
    match policy {
        SizePolicy::Configured => "configured",
        SizePolicy::Learned => "learned",
    }
}

/// What the tables of loads say instead of nothing.
pub(crate) const NO_SERVICE: &str = "no service is configured";
/// The same of a service's real servers.
pub(crate) const NO_REAL_SERVER: &str = "  no real server";

/// Writes loads as a table for each service, or as a JSON array.
pub fn write_loads(
    services: &[ServiceLoads],
    json: bool,
    output: &mut impl Write,
) -> Result<(), Error> {
    if json {
        return write_json(services, output);
    }
    if services.is_empty() {
        return writeln!(output, "{NO_SERVICE}").map_err(Error::Output);
    }
    services
        .iter()
        .try_for_each(|service| write_service(service, output))
        .map_err(Error::Output)
}

fn write_service(service: &ServiceLoads, output: &mut impl Write) -> io::Result<()> {
    writeln!(
        output,
        "{} {} {}, expected size {} ({}){}",
        service.protocol,
        service.service,
        service.scheduler,
        show_size(service.expected_size_bytes as f64),
        service.size_policy,
        match service.refused {
            0 => String::new(),
            _ => format!(", {}", service.refused_by_cause),
        }
    )?;
    if service.real_servers.is_empty() {
        return writeln!(output, "{NO_REAL_SERVER}");
    }
    writeln!(
        output,
        "  {:<21} {:>5} {:>10} {:>10} {:>7} {:>7} {:>8} {:>10}  State",
        "Real server", "Wi", "Ci", "Ci/Wi", "Pending", "Active", "Inactive", "Conns"
    )?;
    for server in &service.real_servers {
        let ratio = match server.load_per_weight_bytes {
            Some(ratio) => show_size(ratio),
            None => "-".to_owned(),
        };
        let line = format!(
            "  {:<21} {:>5} {:>10} {ratio:>10} {:>7} {:>7} {:>8} {:>10}  {}",
            server.address,
            server.weight,
            show_size(server.load_bytes as f64),
            server.pending,
            server.active,
            server.inactive,
            server.connections,
            server.state
        );
        writeln!(output, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Connections as rows, in the kernel's order.
pub fn conns(entries: &[ConnEntry]) -> Vec<ConnRow> {
    let row = |entry: &ConnEntry| ConnRow {
        protocol: entry.transport.name(),
        client: entry.client.to_string(),
        service: entry.virtual_address.to_string(),
        real_server: entry.dest.to_string(),
        state: entry.state.name(),
        size_bytes: entry.size_bytes,
        size_known: entry.size_known,
        age_ms: entry.age_ms,
        expires_ms: entry.expires_ms,
    };
    entries.iter().map(row).collect()
}

/// Writes connections as a table, or as a JSON array.
pub fn write_conns(rows: &[ConnRow], json: bool, output: &mut impl Write) -> Result<(), Error> {
    if json {
        return write_json(rows, output);
    }
    write_conn_table(rows, output).map_err(Error::Output)
}

fn write_conn_table(rows: &[ConnRow], output: &mut impl Write) -> io::Result<()> {
    writeln!(
        output,
        "{:<4} {:<21} {:<21} {:<21} {:<11} {:>11} {:>8} {:>8}",
        "Prot", "Client", "Service", "Real server", "State", "Size", "Age", "Expires"
    )?;
    for row in rows {
        // A `~` marks a size that is only expected.
        let mark = if row.size_known { "" } else { "~" };
        let size = format!("{mark}{}", show_size(row.size_bytes as f64));
        writeln!(
            output,
            "{:<4} {:<21} {:<21} {:<21} {:<11} {size:>11} {:>8} {:>8}",
            row.protocol,
            row.client,
            row.service,
            row.real_server,
            row.state,
            show_seconds(row.age_ms),
            show_seconds(row.expires_ms)
        )?;
    }
    Ok(())
}

fn show_seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

/// Writes a value as JSON, for people to read as well.
pub(crate) fn write_json(
    value: &(impl Serialize + ?Sized),
    output: &mut impl Write,
) -> Result<(), Error> {
    serde_json::to_writer_pretty(&mut *output, value)
        .map_err(io::Error::from)
        .and_then(|()| writeln!(output))
        .map_err(Error::Output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipvs_mwlc::director::address::Transport;
    use ipvs_mwlc::director::conn::ConnState;
    use ipvs_mwlc::director::load::Learn;
    use ipvs_mwlc::director::refusals::Refusals;

    fn name(port: u16) -> ServiceName {
        ServiceName::Address(Transport::Tcp, ([10, 0, 0, 100], port).into())
    }

    fn service(port: u16) -> ServiceSizes {
        ServiceSizes {
            name: name(port),
            policy: "mwlc".to_owned(),
            configured_bytes: 10 << 20,
            size_policy: SizePolicy::Configured,
            expected_bytes: 10 << 20,
            learned_count: 0,
            learn: Learn::Off,
            remaining: false,
            slow_start_ms: 0,
            refused: Refusals::default(),
        }
    }

    fn dest(host: u8, weight: u32, load_bytes: u64) -> DestLoadEntry {
        DestLoadEntry {
            service: name(80),
            address: ([10, 0, 0, host], 80).into(),
            weight,
            load_bytes,
            pending: 1,
            active: 2,
            inactive: 3,
            overloaded: host == 2,
            connections: 4,
            in_packets: 5,
            in_bytes: 6,
            ramp_permille: 1000,
            persistent: 0,
            drain: None,
        }
    }

    fn text(write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>) -> String {
        let mut output = Vec::new();
        write(&mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn the_table_shows_ci_wi_and_their_ratio() {
        let dests = vec![dest(2, 0, 0), dest(1, 4, 30 << 20)];
        let services = loads(vec![service(81), service(80)], dests, Some(&name(80)));
        let expected = "\
TCP 10.0.0.100:80 mwlc, expected size 10.0 MiB (configured)
  Real server              Wi         Ci      Ci/Wi Pending  Active Inactive      Conns  State
  10.0.0.1:80               4   30.0 MiB    7.5 MiB       1       2        3          4
  10.0.0.2:80               0        0 B          -       1       2        3          4  quiesced
";
        assert_eq!(
            text(|output| write_loads(&services, false, output)),
            expected
        );
    }

    #[test]
    fn json_has_the_same_numbers() {
        let services = loads(vec![service(80)], vec![dest(1, 4, 10)], None);
        let json = text(|output| write_loads(&services, true, output));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let server = &value[0]["real_servers"][0];
        assert_eq!(server["load_per_weight_bytes"], 2.5);
        assert_eq!(server["load_bytes"], 10);
        assert_eq!(value[0]["expected_size_bytes"], 10 << 20);
    }

    #[test]
    fn connections_are_rows() {
        let entry = ConnEntry {
            transport: Transport::Tcp,
            client: ([10, 0, 0, 9], 40_000).into(),
            virtual_address: ([10, 0, 0, 100], 80).into(),
            dest: ([10, 0, 0, 1], 80).into(),
            state: ConnState::Udp,
            size_bytes: 1 << 20,
            size_known: false,
            age_ms: 1_250,
            expires_ms: 300_000,
        };
        let table = text(|output| write_conns(&conns(&[entry]), false, output));
        let line = table.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected = [
            "TCP",
            "10.0.0.9:40000",
            "10.0.0.100:80",
            "10.0.0.1:80",
            "UDP",
            "~1.0",
            "MiB",
            "1.2",
            "s",
            "300.0",
            "s",
        ];
        assert_eq!(words, expected);
    }
}
