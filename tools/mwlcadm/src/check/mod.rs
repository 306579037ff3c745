// SPDX-License-Identifier: MIT
//! `mwlcadm check`: what commonly goes wrong with direct routing, and what to set.
//!
//! [`frames`] and [`judge`] decide and do no I/O; [`segment`] asks on the wire.

mod frames;
mod judge;
mod segment;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use ipvs_mwlc::uapi::mwlc::command;

use self::judge::{Facts, Finding, Verdict, judge};
use crate::error::Error;
use crate::mwlc::Mwlc;
use crate::show::write_json;

/// Commands of the family that this program uses.
const COMMANDS: [(u8, &str); 10] = [
    (command::GET_SERVICE, "GET_SERVICE"),
    (command::SET_SERVICE, "SET_SERVICE"),
    (command::GET_DEST, "GET_DEST"),
    (command::GET_CONN, "GET_CONN"),
    (command::SET_CONN, "SET_CONN"),
    (command::DRAIN, "DRAIN"),
    (command::GET_SIZE, "GET_SIZE"),
    (command::SET_SIZE, "SET_SIZE"),
    (command::DEL_SIZE, "DEL_SIZE"),
    (command::GET_NODE, "GET_NODE"),
];

/// Settings that the checks look at or speak of.
const SYSCTLS: [&str; 3] = [
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.ip_forward",
];

/// Checks everything and writes what was found; an error if something is wrong.
pub fn run(wait: Duration, json: bool, output: &mut impl Write) -> Result<(), Error> {
    let findings = judge(&gather(wait)?);
    if json {
        write_json(&findings, output)?;
    } else {
        write_text(&findings, output).map_err(Error::Output)?;
    }
    let wrong = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Wrong)
        .count();
    match wrong {
        0 => Ok(()),
        count => Err(Error::Unsound(count)),
    }
}

fn gather(wait: Duration) -> Result<Facts, Error> {
    let mut mwlc = Mwlc::open()?;
    let mut facts = Facts {
        services: mwlc.services()?,
        dests: mwlc.dests(None)?,
        interfaces: segment::interfaces()?,
        ..Facts::default()
    };
    facts.services.sort_by_key(|service| service.name);
    let has = mwlc.commands();
    facts.missing_commands = COMMANDS
        .iter()
        .filter(|(number, _)| !has.contains(number))
        .map(|(_, name)| *name)
        .collect();
    facts.sysctls = SYSCTLS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), sysctl(name)?)))
        .collect();
    facts.sources = facts
        .real_servers()
        .into_iter()
        .filter_map(|server| Some((server, segment::source_to(server)?)))
        .collect();
    facts.answers = segment::ask(&facts.interfaces, &targets(&facts), wait)?;
    Ok(facts)
}

fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(text.trim().to_owned())
}

/// Whom to ask for, and on which interfaces: where the address's subnet is, a virtual one also where it
/// is itself and where its real servers are; on all of them if that is none.
fn targets(facts: &Facts) -> BTreeMap<IpAddr, BTreeSet<String>> {
    let near = |address: IpAddr| {
        let reaches = facts
            .interfaces
            .iter()
            .filter(move |interface| interface.link.is_some() && interface.reaches(address));
        reaches.map(|interface| interface.name.clone())
    };
    let every = || {
        let asked = facts.interfaces.iter().filter(|one| one.link.is_some());
        asked.map(|one| one.name.clone()).collect()
    };
    let mut targets: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for server in facts.real_servers() {
        targets.entry(server).or_default().extend(near(server));
    }
    for vip in facts.vips() {
        let on = targets.entry(vip).or_default();
        on.extend(near(vip));
        on.extend(facts.holder(vip).map(|holder| holder.name.clone()));
        on.extend(facts.real_servers().into_iter().flat_map(near));
    }
    for on in targets.values_mut() {
        if on.is_empty() {
            *on = every();
        }
    }
    targets
}

fn write_text(findings: &[Finding], output: &mut impl Write) -> io::Result<()> {
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Wrong => "WRONG  ",
        };
        writeln!(
            output,
            "{mark}  {} {}: {}",
            finding.check, finding.subject, finding.what
        )?;
        for step in &finding.fix {
            writeln!(output, "           {step}")?;
        }
    }
    Ok(())
}
