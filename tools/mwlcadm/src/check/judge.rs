// SPDX-License-Identifier: MIT
//! From what was found to what is wrong and what to do: no system call here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use super::frames::Mac;
use super::segment::{Answers, Interface};
use crate::mwlc::{DestLoadEntry, ServiceSizes};
use crate::names::ServiceName;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Perhaps meant so.
    Warning,
    /// It cannot work so.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: &'static str,
    /// What it looked at.
    pub subject: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen.
    pub what: String,
    /// What to do, one step each.
    pub fix: Vec<String>,
}

/// Everything that was found out.
#[derive(Debug, Default)]
pub struct Facts {
    /// The services.
    pub services: Vec<ServiceSizes>,
    /// Their real servers.
    pub dests: Vec<DestLoadEntry>,
    /// This machine's interfaces.
    pub interfaces: Vec<Interface>,
    /// Who answered for which address.
    pub answers: Answers,
    /// Names of commands of the director's family that this program uses and the module lacks.
    pub missing_commands: Vec<&'static str>,
    /// From which address this machine would speak to a real server, where the kernel says so.
    pub sources: BTreeMap<IpAddr, IpAddr>,
    /// Settings of this machine as `/proc/sys` has them.
    pub sysctls: BTreeMap<String, String>,
}

impl Facts {
    /// The virtual addresses, each once.
    pub fn vips(&self) -> BTreeSet<IpAddr> {
        let address = |service: &ServiceSizes| match service.name {
            ServiceName::Address(_, endpoint) => Some(endpoint.ip()),
            ServiceName::Mark(..) => None,
        };
        self.services.iter().filter_map(address).collect()
    }

    /// The real servers' addresses, each once; not those of this machine.
    pub fn real_servers(&self) -> BTreeSet<IpAddr> {
        let address = |dest: &DestLoadEntry| dest.address.ip();
        let mut servers: BTreeSet<IpAddr> = self.dests.iter().map(address).collect();
        servers.retain(|server| self.holder(*server).is_none());
        servers
    }

    /// The interface of this machine that has an address.
    pub fn holder(&self, address: IpAddr) -> Option<&Interface> {
        let has =
            |interface: &&Interface| interface.addresses.iter().any(|(own, _)| *own == address);
        // Loopback last: an address on both is found by its neighbours.
        let holders = || self.interfaces.iter().filter(has);
        holders()
            .find(|interface| !interface.loopback)
            .or(holders().next())
    }

    fn answers_for(&self, address: IpAddr) -> Vec<&(String, Mac)> {
        let own: Vec<Mac> = self.interfaces.iter().filter_map(Interface::mac).collect();
        self.answers
            .get(&address)
            .into_iter()
            .flatten()
            .filter(|(_, mac)| !own.contains(mac))
            .collect()
    }

    /// Which real server has this Ethernet address.
    fn real_server_of(&self, mac: Mac) -> Option<IpAddr> {
        let has = |server: &IpAddr| {
            self.answers_for(*server)
                .iter()
                .any(|(_, found)| *found == mac)
        };
        self.real_servers().into_iter().find(has)
    }
}

/// Judges everything, in the order in which one would set it up.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![module(facts)];
    for vip in facts.vips() {
        findings.push(vip_is_here(facts, vip));
        findings.extend(vip_answered(facts, vip));
    }
    for server in facts.real_servers() {
        findings.push(reachable(facts, server));
        findings.extend(own_source(facts, server));
    }
    for service in &facts.services {
        findings.push(usable(facts, service));
    }
    if facts.services.is_empty() {
        findings.push(Finding {
            check: "service",
            subject: "the director".to_owned(),
            verdict: Verdict::Warning,
            what: "no service is configured".to_owned(),
            fix: vec!["mwlcadm -A -t VIP:PORT -s mwlc".to_owned()],
        });
    }
    findings.push(forwarding(facts));
    findings
}

fn module(facts: &Facts) -> Finding {
    let missing = facts.missing_commands.join(", ");
    let (verdict, what, fix) = if missing.is_empty() {
        let what = "it has every command that this program uses".to_owned();
        (Verdict::Ok, what, vec![])
    } else {
        let what = format!("it is older than this program: it lacks {missing}");
        let fix =
            "install the module of the same version, then: rmmod ipvs_mwlc && modprobe ipvs_mwlc";
        (Verdict::Warning, what, vec![fix.to_owned()])
    };
    Finding {
        check: "module",
        subject: "ipvs_mwlc".to_owned(),
        verdict,
        what,
        fix,
    }
}

fn prefix_of_one(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn vip_is_here(facts: &Facts, vip: IpAddr) -> Finding {
    let prefix = prefix_of_one(vip);
    let elsewhere = facts
        .answers_for(vip)
        .into_iter()
        .find(|(_, mac)| facts.real_server_of(*mac).is_none());
    let finding = |verdict, what, fix| Finding {
        check: "virtual address",
        subject: vip.to_string(),
        verdict,
        what,
        fix,
    };
    match (facts.holder(vip), elsewhere) {
        (Some(holder), _) if holder.loopback && ignores_arp(facts) => finding(
            Verdict::Wrong,
            format!(
                "it is on {} and this machine answers ARP for addresses of the asked interface only",
                holder.name
            ),
            vec![
                format!("here: ip address del {vip}/{prefix} dev {}", holder.name),
                format!("here: ip address add {vip}/{prefix} dev INTERFACE-OF-THE-CLIENTS"),
            ],
        ),
        (Some(holder), _) => finding(
            Verdict::Ok,
            format!("it is on {} of this director", holder.name),
            vec![],
        ),
        (None, Some((interface, mac))) => finding(
            Verdict::Warning,
            format!("it is not here; {mac} on {interface} has it: is this the standby director?"),
            vec![],
        ),
        (None, None) => finding(
            Verdict::Wrong,
            "this director does not have it, and nobody else: clients cannot find it".to_owned(),
            vec![format!(
                "here: ip address add {vip}/{prefix} dev INTERFACE-OF-THE-CLIENTS"
            )],
        ),
    }
}

fn ignores_arp(facts: &Facts) -> bool {
    let value = facts.sysctls.get("net.ipv4.conf.all.arp_ignore");
    value.is_some_and(|value| value != "0")
}

/// The ARP problem of direct routing: a real server that answers for the virtual address takes the
/// clients past the director.
fn vip_answered(facts: &Facts, vip: IpAddr) -> Vec<Finding> {
    let here = facts.holder(vip).is_some();
    let mut findings: Vec<Finding> = facts
        .answers_for(vip)
        .into_iter()
        .filter_map(|(interface, mac)| {
            let guilty = facts.real_server_of(*mac);
            let (what, fix) = match guilty {
                Some(server) => (
                    format!("real server {server} ({mac}) answers for it on {interface}: clients go past the director"),
                    silence(vip, server),
                ),
                // That there is another director was said already.
                None if !here => return None,
                None => (
                    format!("{mac} on {interface}, which is no real server, answers for it too"),
                    vec![format!("find the host with {mac} and take {vip} off it; a second director shares it \
                        through keepalived")],
                ),
            };
            Some(Finding {
                check: "answers for the virtual address",
                subject: vip.to_string(),
                verdict: Verdict::Wrong,
                what,
                fix,
            })
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding {
            check: "answers for the virtual address",
            subject: vip.to_string(),
            verdict: Verdict::Ok,
            what: "no real server answers for it".to_owned(),
            fix: vec![],
        });
    }
    findings
}

fn silence(vip: IpAddr, server: IpAddr) -> Vec<String> {
    let prefix = prefix_of_one(vip);
    let mut steps = Vec::new();
    if vip.is_ipv4() {
        steps.push(format!(
            "on {server}: sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"
        ));
        steps.push(format!(
            "on {server}: the same two lines in /etc/sysctl.d/, so that they last"
        ));
    }
    steps.push(format!(
        "on {server}: {vip}/{prefix} on lo and on no other interface: ip address add {vip}/{prefix} dev lo"
    ));
    steps
}

fn reachable(facts: &Facts, server: IpAddr) -> Finding {
    let answers = facts.answers_for(server);
    let macs: BTreeSet<Mac> = answers.iter().map(|(_, mac)| *mac).collect();
    let near = facts
        .interfaces
        .iter()
        .any(|interface| interface.reaches(server));
    let finding = |verdict, what, fix: Vec<String>| Finding {
        check: "real server",
        subject: server.to_string(),
        verdict,
        what,
        fix,
    };
    match answers.as_slice() {
        [(interface, mac), ..] if macs.len() == 1 => {
            finding(Verdict::Ok, format!("{mac} on {interface}"), vec![])
        }
        [] if near => finding(
            Verdict::Wrong,
            "it does not answer on its segment".to_owned(),
            vec![format!("is {server} up, its cable in, and its address right?")],
        ),
        [] => finding(
            Verdict::Wrong,
            "it is on no segment of this director: direct routing changes the Ethernet address only, so no \
                router may be between".to_owned(),
            vec![format!("give this director an address in the subnet of {server}, on the same switch")],
        ),
        _ => {
            let names: Vec<String> = macs.iter().map(Mac::to_string).collect();
            finding(
                Verdict::Wrong,
                format!("several hosts answer for it: {}", names.join(", ")),
                vec![format!("take {server} off all of them but one")],
            )
        }
    }
}

/// What this machine itself sends to a real server, as to see whether it is well, must not come from a
/// virtual address: the real server has it too and would answer itself. IPv6 prefers the longest
/// prefix, so a virtual address of 128 bits is chosen unless it is deprecated.
fn own_source(facts: &Facts, server: IpAddr) -> Option<Finding> {
    let source = *facts.sources.get(&server)?;
    let holder = facts.holder(source)?;
    facts.vips().contains(&source).then(|| {
        let change = if source.is_ipv4() {
            format!("here: ip route change SUBNET dev {} src OWN-ADDRESS", holder.name)
        } else {
            format!(
                "here: ip address change {source}/128 dev {} preferred_lft 0 (keepalived adds it so)",
                holder.name
            )
        };
        Finding {
            check: "own connections",
            subject: server.to_string(),
            verdict: Verdict::Wrong,
            what: format!("they would come from the virtual address {source}, which {server} has too: health \
                checks and mwlcd --head get no answer"),
            fix: vec![change],
        }
    })
}

fn usable(facts: &Facts, service: &ServiceSizes) -> Finding {
    let dests: Vec<&DestLoadEntry> = facts
        .dests
        .iter()
        .filter(|dest| dest.service == service.name)
        .collect();
    let count = |test: fn(&DestLoadEntry) -> bool| dests.iter().filter(|dest| test(dest)).count();
    let quiesced = count(|dest| dest.weight == 0);
    let overloaded = count(|dest| dest.weight > 0 && dest.overloaded);
    let usable = dests.len() - quiesced - overloaded;
    let name = service.name.options();
    let finding = |verdict, what, fix: Vec<String>| Finding {
        check: "service",
        subject: service.name.to_string(),
        verdict,
        what,
        fix,
    };
    if usable > 0 {
        let what = format!("{usable} of {} real servers take connections", dests.len());
        return finding(Verdict::Ok, what, vec![]);
    }
    if dests.is_empty() {
        let fix = format!("mwlcadm -a {name} -r SERVER -g");
        return finding(
            Verdict::Wrong,
            "it has no real server".to_owned(),
            vec![fix],
        );
    }
    let mut fix = Vec::new();
    if quiesced > 0 {
        fix.push(format!(
            "mwlcadm -e {name} -r SERVER -w WEIGHT, with a weight above 0"
        ));
    }
    if overloaded > 0 {
        fix.push(format!(
            "mwlcadm -e {name} -r SERVER -x UPPER, with a higher threshold"
        ));
    }
    let what = format!(
        "no real server takes connections: {quiesced} have weight 0, {overloaded} are over their threshold"
    );
    finding(Verdict::Wrong, what, fix)
}

/// What people set for routers and stock IPVS, and this director does not need.
fn forwarding(facts: &Facts) -> Finding {
    let value = |name: &str| {
        let value = facts.sysctls.get(name).map_or("?", String::as_str);
        let short = name
            .trim_start_matches("net.ipv4.")
            .trim_start_matches("conf.all.");
        format!("{short}={value}")
    };
    Finding {
        check: "forwarding",
        subject: "this machine".to_owned(),
        verdict: Verdict::Ok,
        what: format!(
            "{} and {} do not matter: the director sends before the kernel routes",
            value("net.ipv4.ip_forward"),
            value("net.ipv4.conf.all.rp_filter")
        ),
        fix: vec![],
    }
}

#[cfg(test)]
mod tests;
