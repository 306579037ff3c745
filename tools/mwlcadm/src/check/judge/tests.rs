// SPDX-License-Identifier: MIT
use super::*;
use ipvs_mwlc::director::address::Transport;
use ipvs_mwlc::director::load::{Learn, SizePolicy};
use ipvs_mwlc::director::refusals::Refusals;

const DIRECTOR: Mac = Mac([2, 0, 0, 0, 0, 1]);
const S1: Mac = Mac([2, 0, 0, 0, 0, 0x21]);
const S2: Mac = Mac([2, 0, 0, 0, 0, 0x22]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service() -> ServiceSizes {
    ServiceSizes {
        name: ServiceName::Address(Transport::Tcp, "10.0.0.100:80".parse().unwrap()),
        policy: "mwlc".to_owned(),
        configured_bytes: 1,
        size_policy: SizePolicy::Configured,
        expected_bytes: 1,
        learned_count: 0,
        learn: Learn::Off,
        remaining: false,
        slow_start_ms: 0,
        refused: Refusals::default(),
    }
}

fn dest(host: u8) -> DestLoadEntry {
    DestLoadEntry {
        service: service().name,
        address: ([10, 0, 0, host], 80).into(),
        weight: 1,
        load_bytes: 0,
        pending: 0,
        active: 0,
        inactive: 0,
        overloaded: false,
        connections: 0,
        in_packets: 0,
        in_bytes: 0,
        ramp_permille: 1000,
        persistent: 0,
        drain: None,
    }
}

/// A director that is well configured.
fn sound() -> Facts {
    let eth0 = Interface {
        name: "eth0".to_owned(),
        addresses: vec![(ip("10.0.0.1"), 24), (ip("10.0.0.100"), 32)],
        ..Interface::default()
    };
    let mut facts = Facts {
        services: vec![service()],
        dests: vec![dest(21), dest(22)],
        interfaces: vec![eth0],
        ..Facts::default()
    };
    answers(&mut facts, "10.0.0.21", S1);
    answers(&mut facts, "10.0.0.22", S2);
    facts
}

fn answers(facts: &mut Facts, address: &str, mac: Mac) {
    let who = ("eth0".to_owned(), mac);
    facts.answers.entry(ip(address)).or_default().insert(who);
}

/// Everything but what is all right.
fn complaints(facts: &Facts) -> Vec<Finding> {
    let mut findings = judge(facts);
    findings.retain(|finding| finding.verdict != Verdict::Ok);
    findings
}

fn only_complaint(facts: &Facts) -> Finding {
    let mut found = complaints(facts);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

#[test]
fn nothing_is_said_against_a_sound_director() {
    assert_eq!(complaints(&sound()), []);
}

#[test]
fn a_real_server_that_answers_for_the_virtual_address_is_named() {
    let mut facts = sound();
    answers(&mut facts, "10.0.0.100", S2);
    let finding = only_complaint(&facts);
    assert_eq!(finding.verdict, Verdict::Wrong);
    assert!(
        finding.what.contains("real server 10.0.0.22"),
        "{finding:?}"
    );
    assert!(finding.fix[0].contains("on 10.0.0.22: sysctl"));
    assert!(finding.fix[0].contains("arp_ignore=1") && finding.fix[0].contains("arp_announce=2"));
    assert!(finding.fix[2].contains("10.0.0.100/32 dev lo"));
}

#[test]
fn a_stranger_with_the_virtual_address_is_wrong_beside_this_director_and_a_standby_is_not() {
    let mut facts = sound();
    answers(&mut facts, "10.0.0.100", DIRECTOR);
    let finding = only_complaint(&facts);
    assert!(finding.what.contains("no real server"), "{finding:?}");
    // The same on a machine that does not have the address.
    facts.interfaces[0].addresses.pop();
    let finding = only_complaint(&facts);
    assert_eq!(finding.verdict, Verdict::Warning);
    assert!(finding.what.contains("standby"), "{finding:?}");
}

#[test]
fn the_virtual_address_must_be_somewhere() {
    let mut facts = sound();
    facts.interfaces[0].addresses.pop();
    let finding = only_complaint(&facts);
    assert!(finding.what.contains("nobody else"), "{finding:?}");
    // On lo it is answered for only if ARP is not told to be strict.
    facts.interfaces.push(Interface {
        name: "lo".to_owned(),
        loopback: true,
        addresses: vec![(ip("10.0.0.100"), 32)],
        ..Interface::default()
    });
    assert_eq!(complaints(&facts), []);
    let strict = ("net.ipv4.conf.all.arp_ignore".to_owned(), "1".to_owned());
    facts.sysctls.extend([strict]);
    assert!(only_complaint(&facts).what.contains("on lo"));
}

#[test]
fn a_real_server_must_be_one_host_on_the_same_segment() {
    let mut facts = sound();
    facts.answers.remove(&ip("10.0.0.22"));
    assert!(only_complaint(&facts).what.contains("does not answer"));
    answers(&mut facts, "10.0.0.22", S2);
    answers(&mut facts, "10.0.0.22", S1);
    assert!(only_complaint(&facts).what.contains("several hosts"));
    let mut facts = sound();
    facts.dests[1].address = "10.9.0.22:80".parse().unwrap();
    assert!(only_complaint(&facts).what.contains("no segment"));
    // A real server on the director itself needs no segment.
    facts.dests[1].address = "10.0.0.1:80".parse().unwrap();
    assert_eq!(complaints(&facts), []);
}

#[test]
fn a_service_without_a_usable_real_server_says_why() {
    let mut facts = sound();
    facts.dests[0].weight = 0;
    assert_eq!(complaints(&facts), []);
    facts.dests[1].overloaded = true;
    let finding = only_complaint(&facts);
    let words = "1 have weight 0, 1 are over their threshold";
    assert!(finding.what.contains(words), "{finding:?}");
    assert_eq!(finding.fix.len(), 2);
    facts.dests.clear();
    assert!(only_complaint(&facts).what.contains("no real server"));
    facts.services.clear();
    assert_eq!(only_complaint(&facts).verdict, Verdict::Warning);
}

#[test]
fn an_old_module_is_noticed() {
    let mut facts = sound();
    facts.missing_commands = vec!["DRAIN"];
    assert!(only_complaint(&facts).what.contains("lacks DRAIN"));
}

#[test]
fn own_connections_do_not_come_from_a_virtual_address() {
    let mut facts = sound();
    facts.sources.insert(ip("10.0.0.21"), ip("10.0.0.1"));
    assert_eq!(complaints(&facts), []);
    facts.sources.insert(ip("10.0.0.22"), ip("10.0.0.100"));
    let found = only_complaint(&facts);
    assert_eq!(found.check, "own connections");
    assert_eq!(found.subject, "10.0.0.22");
    assert!(found.what.contains("10.0.0.100"), "{found:?}");
}
