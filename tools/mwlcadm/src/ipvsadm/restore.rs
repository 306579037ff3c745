// SPDX-License-Identifier: MIT
//! Saving the configuration as command lines, and running them again.

use std::ffi::OsString;
use std::io::{BufRead, Write};

use ipvs_mwlc::director::config::{Family, Forwarding, ServiceKey, Transport};
use ipvs_mwlc::director::load::{EXPECTED_SIZE_BYTES_DEFAULT, SizePolicy};
use ipvs_mwlc::director::timeouts::{Timeouts, TimeoutsUpdate};

use super::list::flag_names;
use super::{change, parse};
use crate::error::Error;
use crate::ipvs::{DestEntry, Ipvs, ServiceEntry};
use crate::mwlc::{Mwlc, ServiceSizes};
use crate::values::show_endpoint;

/// Writes the configuration. What is as it is in a new director is left out, so that ipvsadm can
/// restore what it can express.
pub(super) fn save(ipvs: &mut Ipvs, output: &mut impl Write) -> Result<(), Error> {
    let mut lines = Vec::new();
    lines.extend(timeouts_line(ipvs.timeouts()?));
    let sizes = Mwlc::open()?.services()?;
    let mut services = ipvs.services(None)?;
    services.sort_by_key(|service| service.key);
    for service in services {
        lines.push(service_line(&service));
        lines.extend(
            sizes
                .iter()
                .find(|sizes| sizes.key == service.key)
                .and_then(expected_size_line),
        );
        let mut dests = ipvs.dests(&service.key)?;
        dests.sort_by_key(|dest| dest.config.key);
        lines.extend(dests.iter().map(|dest| dest_line(&service.key, dest)));
    }
    lines
        .iter()
        .try_for_each(|line| writeln!(output, "{line}"))
        .map_err(Error::Output)
}

/// Runs the commands of `input`, one a line; empty lines and `#` comments are passed over. It stops
/// at the first that fails and says which.
pub(super) fn restore(ipvs: &mut Ipvs, input: impl BufRead) -> Result<(), Error> {
    for (index, line) in input.lines().enumerate() {
        let line = line.map_err(Error::Input)?;
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        if words.is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        parse(words.into_iter())
            .and_then(|action| change(ipvs, action))
            .map_err(|source| Error::Line {
                line: index + 1,
                source: Box::new(source),
            })?;
    }
    Ok(())
}

/// Sets a service's expected size as a saved line has it.
pub(super) fn set_expected_size(
    key: &ServiceKey,
    configured_bytes: u64,
    learned: bool,
) -> Result<(), Error> {
    let policy = if learned {
        SizePolicy::Learned
    } else {
        SizePolicy::Configured
    };
    Mwlc::open()?.set_expected_size(key, Some(configured_bytes), Some(policy))
}

fn timeouts_line(timeouts: TimeoutsUpdate) -> Option<String> {
    let TimeoutsUpdate {
        tcp_s,
        tcp_fin_s,
        udp_s,
    } = timeouts;
    let default = Timeouts::DEFAULT;
    let unchanged =
        tcp_s == default.established_s && tcp_fin_s == default.fin_wait_s && udp_s == default.udp_s;
    (!unchanged).then(|| format!("--set {tcp_s} {tcp_fin_s} {udp_s}"))
}

fn service_option(key: &ServiceKey) -> String {
    let endpoint = match key {
        ServiceKey::Endpoint(endpoint) => endpoint,
        ServiceKey::Mark(firewall) => {
            let family = match firewall.family {
                Family::Ipv4 => "",
                Family::Ipv6 => " -6",
            };
            return format!("-f {}{family}", firewall.mark);
        }
    };
    let option = match endpoint.transport {
        Transport::Tcp => "-t",
        Transport::Udp => "-u",
    };
    let name = show_endpoint(endpoint.address, endpoint.port);
    format!("{option} {name}")
}

fn service_line(service: &ServiceEntry) -> String {
    let flags = match flag_names(service.flags) {
        names if names.is_empty() => String::new(),
        names => format!(" -b {names}"),
    };
    format!(
        "-A {} -s {}{flags}",
        service_option(&service.key),
        service.scheduler
    )
}

fn expected_size_line(sizes: &ServiceSizes) -> Option<String> {
    let learned = match sizes.size_policy {
        SizePolicy::Configured => "",
        SizePolicy::Learned => " --learned",
    };
    let unchanged = learned.is_empty() && sizes.configured_bytes == EXPECTED_SIZE_BYTES_DEFAULT;
    let option = service_option(&sizes.key);
    (!unchanged).then(|| format!("expected-size {option} {}{learned}", sizes.configured_bytes))
}

fn dest_line(of: &ServiceKey, dest: &DestEntry) -> String {
    let config = &dest.config;
    let method = match config.forwarding {
        // A local real server is one by its address; ipvsadm writes it the same way.
        Forwarding::LocalNode | Forwarding::DirectRouting => "-g",
    };
    let endpoint = show_endpoint(config.key.address, config.key.port);
    let mut line = format!(
        "-a {} -r {endpoint} {method} -w {}",
        service_option(of),
        config.weight
    );
    if config.thresholds.upper != 0 {
        line.push_str(&format!(" -x {}", config.thresholds.upper));
    }
    if config.thresholds.lower != 0 {
        line.push_str(&format!(" -y {}", config.thresholds.lower));
    }
    line
}
