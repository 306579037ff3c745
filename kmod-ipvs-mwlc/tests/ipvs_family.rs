// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The `IPVS` family as ipvsadm, keepalived and moby/ipvs speak it, and every way to be refused.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use ipvs_mwlc::director::address::{Address, Family, Transport};
use ipvs_mwlc::director::config::{
    DestConfig, DestKey, Forwarding, ServiceConfig, ServiceEdit, Thresholds,
};
use ipvs_mwlc::director::errno::{Errno, Reject};
use ipvs_mwlc::director::flags::{
    FlagsUpdate, SERVICE_ONE_PACKET, SERVICE_PERSISTENT, SERVICE_SCHED1,
};
use ipvs_mwlc::director::ipvs_family::{
    encode_config, encode_destination, encode_info, encode_service, parse_command, Command,
    DestinationView, RequestKind, ServiceView, DESTINATION_REPLY_BYTES_MAX,
    SERVICE_REPLY_BYTES_MAX,
};
use ipvs_mwlc::director::netlink::{Attribute, Attributes, Encoder, Full};
use ipvs_mwlc::director::netmask::Netmask;
use ipvs_mwlc::director::sched::Scheduler;
use ipvs_mwlc::director::service_key::ServiceKey;
use ipvs_mwlc::director::stats::{Counters, Rates, Stats};
use ipvs_mwlc::director::timeouts::{Timeouts, TimeoutsUpdate};
use ipvs_mwlc::uapi::ipvs::{attribute, command, dest, service};
use proptest::prelude::*;

const VIP: [u8; 4] = [10, 0, 0, 100];
const NODE: [u8; 4] = [10, 0, 0, 1];

/// One attribute of a nest; `None` as payload leaves it out.
type Field = (u16, Vec<u8>);

fn build(write: impl FnOnce(&mut Encoder<'_>) -> Result<(), Full>) -> Vec<u8> {
    let mut buffer = [0u8; 1024];
    let mut encoder = Encoder::new(&mut buffer);
    write(&mut encoder).unwrap();
    encoder.written().to_vec()
}

fn union(address: [u8; 4]) -> Vec<u8> {
    Address::V4(address).to_union().to_vec()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn full_service() -> Vec<Field> {
    vec![
        (service::AF, 2u16.to_ne_bytes().to_vec()),
        (service::PROTOCOL, 6u16.to_ne_bytes().to_vec()),
        (service::ADDR, union(VIP)),
        (service::PORT, 80u16.to_be_bytes().to_vec()),
        (service::SCHED_NAME, b"mwlc\0".to_vec()),
        (service::FLAGS, words(&[0, u32::MAX])),
        (service::TIMEOUT, words(&[0])),
        (service::NETMASK, vec![255; 4]),
    ]
}

fn full_dest() -> Vec<Field> {
    vec![
        (dest::ADDR, union(NODE)),
        (dest::PORT, 80u16.to_be_bytes().to_vec()),
        (dest::FWD_METHOD, words(&[3])),
        (dest::WEIGHT, words(&[7])),
        (dest::U_THRESH, words(&[9])),
        (dest::L_THRESH, words(&[4])),
        (dest::ADDR_FAMILY, 2u16.to_ne_bytes().to_vec()),
    ]
}

fn nest(kind: u16, fields: &[Field]) -> Vec<u8> {
    build(|encoder| {
        let nest = encoder.nest(kind)?;
        for (kind, payload) in fields {
            encoder.bytes(*kind, payload)?;
        }
        encoder.end_nest(nest)
    })
}

fn with(mut fields: Vec<Field>, kind: u16, payload: &[u8]) -> Vec<Field> {
    fields.retain(|field| field.0 != kind);
    fields.push((kind, payload.to_vec()));
    fields
}

fn without(mut fields: Vec<Field>, kind: u16) -> Vec<Field> {
    fields.retain(|field| field.0 != kind);
    fields
}

fn act(number: u8, bytes: &[u8]) -> Result<Command, Reject> {
    parse_command(number, RequestKind::Do, bytes)
}

fn new_service(fields: &[Field]) -> Result<Command, Reject> {
    act(command::NEW_SERVICE, &nest(attribute::SERVICE, fields))
}

fn new_dest(fields: &[Field]) -> Result<Command, Reject> {
    let bytes = [
        nest(attribute::SERVICE, &key_fields()),
        nest(attribute::DEST, fields),
    ]
    .concat();
    act(command::NEW_DEST, &bytes)
}

fn key_fields() -> Vec<Field> {
    full_service().into_iter().take(4).collect()
}

fn key() -> ServiceKey {
    ServiceKey::endpoint(Transport::Tcp, Address::V4(VIP), 80)
}

fn service_config() -> ServiceConfig {
    ServiceConfig {
        key: key(),
        scheduler: Scheduler::Mwlc,
        flags: 0,
        timeout_s: 0,
        netmask: Netmask::V4([255; 4]),
    }
}

fn dest_config() -> DestConfig {
    DestConfig {
        key: DestKey {
            address: Address::V4(NODE),
            port: 80,
        },
        forwarding: Forwarding::DirectRouting,
        weight: 7,
        thresholds: Thresholds { upper: 9, lower: 4 },
    }
}

fn errno(result: Result<Command, Reject>) -> Errno {
    result.unwrap_err().errno
}

#[test]
fn every_command_with_what_it_needs() {
    let service = nest(attribute::SERVICE, &full_service());
    let by_key = nest(attribute::SERVICE, &key_fields());
    let both = [by_key.clone(), nest(attribute::DEST, &full_dest())].concat();
    let dest_key = [by_key.clone(), nest(attribute::DEST, &full_dest()[..2])].concat();
    let edit = ServiceEdit {
        key: key(),
        scheduler: Scheduler::Mwlc,
        flags: FlagsUpdate {
            flags: 0,
            mask: u32::MAX,
        },
        timeout_s: 0,
        netmask: Netmask::V4([255; 4]),
    };
    let timeouts = build(|encoder| {
        encoder.u32(attribute::TIMEOUT_TCP, 1)?;
        encoder.u32(attribute::TIMEOUT_UDP, 3)
    });
    let update = TimeoutsUpdate {
        tcp_s: 1,
        tcp_fin_s: 0,
        udp_s: 3,
    };
    let expected = [
        (
            command::NEW_SERVICE,
            &service,
            Command::NewService(service_config()),
        ),
        (command::SET_SERVICE, &service, Command::SetService(edit)),
        (command::DEL_SERVICE, &by_key, Command::DelService(key())),
        (command::GET_SERVICE, &by_key, Command::GetService(key())),
        (
            command::NEW_DEST,
            &both,
            Command::NewDestination(key(), dest_config()),
        ),
        (
            command::SET_DEST,
            &both,
            Command::SetDestination(key(), dest_config()),
        ),
        (
            command::DEL_DEST,
            &dest_key,
            Command::DelDestination(key(), dest_config().key),
        ),
        (command::SET_CONFIG, &timeouts, Command::SetConfig(update)),
        (command::GET_CONFIG, &vec![], Command::GetConfig),
        (command::GET_INFO, &vec![], Command::GetInfo),
        (command::ZERO, &vec![], Command::Zero(None)),
        (command::ZERO, &by_key, Command::Zero(Some(key()))),
        (command::FLUSH, &vec![], Command::Flush),
    ];
    for (number, bytes, command) in expected {
        assert_eq!(act(number, bytes), Ok(command), "command {number}");
    }
    let dump = |number, bytes: &[u8]| parse_command(number, RequestKind::Dump, bytes);
    assert_eq!(dump(command::GET_SERVICE, &[]), Ok(Command::DumpServices));
    assert_eq!(
        dump(command::GET_DEST, &by_key),
        Ok(Command::DumpDestinations(key()))
    );
    assert_eq!(dump(command::GET_DAEMON, &[]), Ok(Command::DumpDaemons));
    for number in [
        command::GET_DEST,
        command::GET_DAEMON,
        command::NEW_DAEMON,
        command::DEL_DAEMON,
    ] {
        assert_eq!(errno(act(number, &both)), Errno::NotSupported);
    }
    for number in [0, command::SET_INFO, 18, u8::MAX] {
        assert_eq!(errno(act(number, &both)), Errno::NotSupported);
        assert_eq!(errno(dump(number, &both)), Errno::NotSupported);
    }
}

#[test]
fn what_each_command_cannot_do_without() {
    for number in [
        command::NEW_SERVICE,
        command::SET_SERVICE,
        command::DEL_SERVICE,
        command::GET_SERVICE,
        command::NEW_DEST,
        command::SET_DEST,
        command::DEL_DEST,
    ] {
        assert_eq!(errno(act(number, &[])), Errno::Invalid, "command {number}");
    }
    for (kind, _) in full_service() {
        let fields = without(full_service(), kind);
        assert_eq!(
            errno(new_service(&fields)),
            Errno::Invalid,
            "service attribute {kind}"
        );
    }
    for (kind, _) in full_dest() {
        let result = new_dest(&without(full_dest(), kind));
        match kind {
            // Old clients leave the family out.
            dest::ADDR_FAMILY => assert!(result.is_ok()),
            _ => assert_eq!(
                errno(result),
                Errno::Invalid,
                "destination attribute {kind}"
            ),
        }
    }
}

#[test]
fn every_refusal_has_its_errno_and_points_at_the_attribute() {
    let long_name = b"a-name-of-17-byte";
    let service_cases: [(u16, &[u8], Errno); 14] = [
        (service::AF, &1u16.to_ne_bytes(), Errno::FamilyNotSupported),
        (service::AF, &[2], Errno::Invalid),
        (service::FWMARK, &[5, 0], Errno::Invalid),
        (
            service::PROTOCOL,
            &132u16.to_ne_bytes(),
            Errno::NotSupported,
        ),
        (
            service::PROTOCOL,
            &262u16.to_ne_bytes(),
            Errno::NotSupported,
        ),
        (service::ADDR, &[10, 0, 0], Errno::Invalid),
        (service::ADDR, &[0; 17], Errno::Invalid),
        (service::PORT, &[0], Errno::Invalid),
        (service::SCHED_NAME, b"lblc\0", Errno::NoEntry),
        (service::SCHED_NAME, b"", Errno::NoEntry),
        (service::SCHED_NAME, long_name, Errno::Invalid),
        (service::FLAGS, &[0; 4], Errno::Invalid),
        (service::NETMASK, &[0; 5], Errno::Invalid),
        (service::PE_NAME, b"sip\0", Errno::NoEntry),
    ];
    for (kind, payload, expected) in service_cases {
        let reject = new_service(&with(full_service(), kind, payload)).unwrap_err();
        assert_eq!(
            reject.errno, expected,
            "service attribute {kind}: {payload:?}"
        );
        assert!(
            reject.attribute_offset.is_some_and(|offset| offset >= 4),
            "attribute {kind}"
        );
        assert!(!reject.message.is_empty());
    }
    let dest_cases: [(u16, &[u8], Errno); 11] = [
        (dest::ADDR, &[], Errno::Invalid),
        (dest::FWD_METHOD, &0u32.to_ne_bytes(), Errno::NotSupported),
        (dest::FWD_METHOD, &2u32.to_ne_bytes(), Errno::NotSupported),
        (dest::FWD_METHOD, &4u32.to_ne_bytes(), Errno::NotSupported),
        (dest::FWD_METHOD, &7u32.to_ne_bytes(), Errno::NotSupported),
        (dest::WEIGHT, &65_536u32.to_ne_bytes(), Errno::Range),
        (dest::WEIGHT, &(-1i32).to_ne_bytes(), Errno::Range),
        (dest::L_THRESH, &10u32.to_ne_bytes(), Errno::Range),
        (dest::ADDR_FAMILY, &10u16.to_ne_bytes(), Errno::Invalid),
        (dest::PORT, &[1, 2, 3], Errno::Invalid),
        (dest::WEIGHT, &[1, 0], Errno::Invalid),
    ];
    for (kind, payload, expected) in dest_cases {
        let reject = new_dest(&with(full_dest(), kind, payload)).unwrap_err();
        assert_eq!(
            reject.errno, expected,
            "destination attribute {kind}: {payload:?}"
        );
        assert!(reject.attribute_offset.is_some(), "attribute {kind}");
    }
    for nobody in [[0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255]] {
        let nobody = with(full_dest(), dest::ADDR, &nobody);
        assert_eq!(errno(new_dest(&nobody)), Errno::Invalid);
    }
    let other_port = with(full_dest(), dest::PORT, &81u16.to_be_bytes());
    assert_eq!(errno(new_dest(&other_port)), Errno::Invalid);
    let too_long = build(|encoder| encoder.u32(attribute::TIMEOUT_TCP, 2_147_484));
    assert_eq!(errno(act(command::SET_CONFIG, &too_long)), Errno::Invalid);
}

#[test]
fn moby_ipvs_is_understood() {
    // Addresses of four bytes, an empty scheduler on destination commands, an empty SERVICE on dump.
    let service = with(full_service(), service::ADDR, &VIP);
    let service = with(service, service::SCHED_NAME, b"\0");
    let dest = with(full_dest(), dest::ADDR, &NODE);
    let bytes = [
        nest(attribute::SERVICE, &service),
        nest(attribute::DEST, &dest),
    ]
    .concat();
    let expected = Command::NewDestination(key(), dest_config());
    assert_eq!(act(command::NEW_DEST, &bytes), Ok(expected));
    let empty = nest(attribute::SERVICE, &[]);
    let dump = parse_command(command::GET_SERVICE, RequestKind::Dump, &empty);
    assert_eq!(dump, Ok(Command::DumpServices));
}

#[test]
fn keepalived_reaches_mwlc_by_wlc_with_flag_1() {
    let fields = with(full_service(), service::SCHED_NAME, b"wlc\0");
    let fields = with(
        fields,
        service::FLAGS,
        &words(&[SERVICE_SCHED1, SERVICE_SCHED1]),
    );
    let Command::NewService(config) = new_service(&fields).unwrap() else {
        unreachable!()
    };
    assert_eq!(
        (config.scheduler, config.flags),
        (Scheduler::Wlc, SERVICE_SCHED1)
    );
    assert_eq!(config.policy(), Scheduler::Mwlc);
    let plain = ServiceConfig { flags: 0, ..config };
    assert_eq!(plain.policy(), Scheduler::Wlc);
    let rr = ServiceConfig {
        scheduler: Scheduler::RoundRobin,
        ..config
    };
    assert_eq!(rr.policy(), Scheduler::RoundRobin);
    let sed = ServiceConfig {
        scheduler: Scheduler::ShortestExpectedDelay,
        ..config
    };
    assert_eq!(sed.policy(), Scheduler::Msed);
    let plain = ServiceConfig { flags: 0, ..sed };
    assert_eq!(plain.policy(), Scheduler::ShortestExpectedDelay);
}

#[test]
fn an_edit_changes_the_flags_under_its_mask() {
    let old = ServiceConfig {
        flags: 0x18,
        ..service_config()
    };
    let edit = ServiceEdit {
        key: key(),
        scheduler: Scheduler::Wlc,
        flags: FlagsUpdate {
            flags: 0x22,
            mask: 0x2a,
        },
        timeout_s: 5,
        netmask: Netmask::V4([255, 255, 255, 0]),
    };
    let new = edit.apply(&old).unwrap();
    // HASHED (0x2) is not kept; it is added when reported.
    assert_eq!(
        (new.flags, new.scheduler, new.timeout_s),
        (0x30, Scheduler::Wlc, 5)
    );
    assert_eq!(new.netmask, Netmask::V4([255, 255, 255, 0]));
}

#[test]
fn an_ipv6_service_and_its_destination() {
    let vip = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100];
    let fields = with(full_service(), service::AF, &10u16.to_ne_bytes());
    let fields = with(fields, service::ADDR, &vip);
    for (prefix, allowed) in [(0u32, false), (1, true), (128, true), (129, false)] {
        let fields = with(fields.clone(), service::NETMASK, &prefix.to_ne_bytes());
        assert_eq!(new_service(&fields).is_ok(), allowed, "prefix {prefix}");
    }
    let fields = with(fields, service::NETMASK, &64u32.to_ne_bytes());
    let key = ServiceKey::endpoint(Transport::Tcp, Address::V6(vip), 80);
    let config = ServiceConfig {
        key,
        netmask: Netmask::V6(64),
        ..service_config()
    };
    assert_eq!(new_service(&fields), Ok(Command::NewService(config)));
    let dest = with(full_dest(), dest::ADDR_FAMILY, &10u16.to_ne_bytes());
    let dest = with(dest, dest::ADDR, &vip);
    let both = |dest: &[Field]| {
        [
            nest(attribute::SERVICE, &fields),
            nest(attribute::DEST, dest),
        ]
        .concat()
    };
    let expected = DestConfig {
        key: DestKey {
            address: Address::V6(vip),
            port: 80,
        },
        ..dest_config()
    };
    let new = act(command::NEW_DEST, &both(&dest));
    assert_eq!(new, Ok(Command::NewDestination(key, expected)));
    // Sixteen bytes, and the service's family.
    let short = with(dest.clone(), dest::ADDR, &vip[..15]);
    let other = with(dest, dest::ADDR_FAMILY, &2u16.to_ne_bytes());
    for fields in [short, other] {
        let refused = act(command::NEW_DEST, &both(&fields));
        assert_eq!(errno(refused), Errno::Invalid);
    }
}

#[test]
fn a_firewall_mark_names_a_service_without_an_endpoint() {
    let mark = |mark: u32| (service::FWMARK, mark.to_ne_bytes().to_vec());
    let mut fields: Vec<Field> = full_service().into_iter().skip(4).collect();
    fields.push((service::AF, 2u16.to_ne_bytes().to_vec()));
    fields.push(mark(7));
    let key = ServiceKey::mark(Family::Ipv4, 7);
    let config = ServiceConfig {
        key,
        ..service_config()
    };
    assert_eq!(new_service(&fields), Ok(Command::NewService(config)));
    // Its destinations may have any port.
    for port in [0u16, 80] {
        let dest = with(full_dest(), dest::PORT, &port.to_be_bytes());
        let both = [
            nest(attribute::SERVICE, &fields),
            nest(attribute::DEST, &dest),
        ]
        .concat();
        assert!(matches!(
            act(command::NEW_DEST, &both),
            Ok(Command::NewDestination(of, dest)) if of == key && dest.key.port == port
        ));
    }
    // Mark 0 is none: then the endpoint counts, and must be there.
    fields.pop();
    fields.push(mark(0));
    assert_eq!(errno(new_service(&fields)), Errno::Invalid);
    let mut both = full_service();
    both.push(mark(0));
    assert_eq!(
        new_service(&both),
        Ok(Command::NewService(service_config()))
    );
}

#[test]
fn port_zero_is_for_persistent_services() {
    let fields = with(full_service(), service::PORT, &[0, 0]);
    assert_eq!(errno(new_service(&fields)), Errno::Invalid);
    let fields = with(
        fields,
        service::FLAGS,
        &words(&[SERVICE_PERSISTENT, u32::MAX]),
    );
    let fields = with(fields, service::TIMEOUT, &words(&[360]));
    let Ok(Command::NewService(config)) = new_service(&fields) else {
        panic!("refused");
    };
    assert!(config.is_persistent() && config.key.port() == 0);
    // An edit must not take the persistence away.
    let edit = ServiceEdit {
        key: config.key,
        scheduler: config.scheduler,
        flags: FlagsUpdate {
            flags: 0,
            mask: u32::MAX,
        },
        timeout_s: 0,
        netmask: config.netmask,
    };
    assert_eq!(edit.apply(&config).unwrap_err().errno, Errno::Invalid);
    let untouched = ServiceEdit {
        flags: FlagsUpdate::default(),
        timeout_s: 10,
        ..edit
    };
    assert_eq!(untouched.apply(&config).map(|new| new.timeout_s), Ok(10));
}

#[test]
fn a_persistence_timeout_has_a_range() {
    let fields = with(
        full_service(),
        service::FLAGS,
        &words(&[SERVICE_PERSISTENT, 1]),
    );
    for (timeout_s, allowed) in [(0, false), (1, true), (2_147_483, true), (2_147_484, false)] {
        let fields = with(fields.clone(), service::TIMEOUT, &words(&[timeout_s]));
        assert_eq!(new_service(&fields).is_ok(), allowed, "{timeout_s}");
    }
    let one_packet = with(
        full_service(),
        service::FLAGS,
        &words(&[SERVICE_ONE_PACKET, 4]),
    );
    assert!(matches!(
        new_service(&one_packet),
        Ok(Command::NewService(config)) if config.is_one_packet()
    ));
}

fn stats() -> Stats {
    Stats {
        counters: Counters {
            connections: (1 << 32) | 1,
            in_packets: 2,
            out_packets: 3,
            in_bytes: 1 << 33,
            out_bytes: 5,
        },
        rates: Rates {
            connections: 6,
            in_packets: 7,
            out_packets: 8,
            in_bytes: 9,
            out_bytes: 10,
        },
    }
}

/// Type, length and value (as a number, if it is one) of each attribute.
fn numbers(attributes: Attributes<'_>) -> Vec<(u16, u64)> {
    attributes
        .map(|attribute| {
            let attribute = attribute.unwrap();
            let value = match attribute.payload.len() {
                2 => u64::from(attribute.u16().unwrap()),
                4 => u64::from(attribute.u32().unwrap()),
                8 => attribute.u64().unwrap(),
                _ => u64::MAX,
            };
            (attribute.kind, value)
        })
        .collect()
}

fn only_nest(bytes: &[u8], kind: u16) -> Attribute<'_> {
    // The raw type, as moby/ipvs compares it: without NLA_F_NESTED.
    assert_eq!(bytes.get(2..4), Some(&kind.to_ne_bytes()[..]));
    let mut attributes = Attributes::new(bytes);
    let nest = attributes.next().unwrap().unwrap();
    assert!(attributes.next().is_none());
    nest
}

#[test]
fn a_service_reply_has_what_libipvs_reads() {
    let view = ServiceView {
        config: service_config(),
        stats: stats(),
    };
    let bytes = build(|encoder| encode_service(encoder, &view));
    assert!(bytes.len() <= SERVICE_REPLY_BYTES_MAX);
    let nest = only_nest(&bytes, attribute::SERVICE);
    let kinds: Vec<u16> = numbers(nest.nested())
        .iter()
        .map(|number| number.0)
        .collect();
    assert_eq!(kinds, [1, 2, 3, 4, 6, 7, 8, 9, 10, 12]);
    let table = nest.nested().table::<13>().unwrap();
    // HASHED is always reported.
    assert_eq!(
        table.get(service::FLAGS).unwrap().payload,
        words(&[2, u32::MAX])
    );
    assert_eq!(table.get(service::SCHED_NAME).unwrap().payload, b"mwlc\0");
    assert_eq!(table.get(service::PORT).unwrap().be16(), Ok(80));
    let old: Vec<_> = numbers(table.get(service::STATS).unwrap().nested());
    let low: [u64; 10] = [1, 2, 3, 1 << 33, 5, 6, 7, 8, 9, 10];
    assert_eq!(old, (1..=10).zip(low).collect::<Vec<_>>());
    let new = numbers(table.get(service::STATS64).unwrap().nested());
    let all: [u64; 10] = [(1 << 32) | 1, 2, 3, 1 << 33, 5, 6, 7, 8, 9, 10];
    assert_eq!(new, (1..=10).zip(all).collect::<Vec<_>>());
}

#[test]
fn a_destination_reply_has_what_libipvs_reads() {
    let view = DestinationView {
        config: dest_config(),
        active: 11,
        inactive: 12,
        persistent: 13,
        stats: stats(),
    };
    let bytes = build(|encoder| encode_destination(encoder, &view));
    assert!(bytes.len() <= DESTINATION_REPLY_BYTES_MAX);
    let values = numbers(only_nest(&bytes, attribute::DEST).nested());
    let kinds: Vec<u16> = values.iter().map(|number| number.0).collect();
    assert_eq!(kinds, [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 10, 12]);
    let plain: Vec<u64> = values
        .iter()
        .skip(2)
        .take(8)
        .map(|number| number.1)
        .collect();
    assert_eq!(plain, [3, 7, 9, 4, 11, 12, 13, 2]);
}

#[test]
fn services_of_every_kind_can_be_sent_back() {
    let v6 = Address::V6([9; 16]);
    for key in [
        ServiceKey::endpoint(Transport::Udp, v6, 53),
        ServiceKey::mark(Family::Ipv4, 1),
        ServiceKey::mark(Family::Ipv6, u32::MAX),
    ] {
        let config = ServiceConfig {
            key,
            flags: SERVICE_PERSISTENT,
            timeout_s: 300,
            netmask: Netmask::whole(key.family()),
            ..service_config()
        };
        let view = ServiceView {
            config,
            stats: Stats::default(),
        };
        let bytes = build(|encoder| encode_service(encoder, &view));
        let new = act(command::NEW_SERVICE, &bytes);
        assert_eq!(new, Ok(Command::NewService(config)));
    }
}

#[test]
fn what_is_reported_can_be_sent_back() {
    for scheduler in Scheduler::ALL {
        for flags in [0, SERVICE_SCHED1] {
            let config = ServiceConfig {
                scheduler,
                flags,
                ..service_config()
            };
            let view = ServiceView {
                config,
                stats: Stats::default(),
            };
            let service = build(|encoder| encode_service(encoder, &view));
            let new = act(command::NEW_SERVICE, &service);
            assert_eq!(new, Ok(Command::NewService(config)));
            let view = DestinationView {
                config: dest_config(),
                active: 0,
                inactive: 0,
                persistent: 0,
                stats: Stats::default(),
            };
            let dest = build(|encoder| encode_destination(encoder, &view));
            let new = act(command::NEW_DEST, &[service, dest].concat());
            assert_eq!(new, Ok(Command::NewDestination(key(), dest_config())));
        }
    }
}

#[test]
fn config_and_info_replies() {
    let config = build(|encoder| encode_config(encoder, &Timeouts::DEFAULT));
    assert_eq!(
        numbers(Attributes::new(&config)),
        [(4, 900), (5, 120), (6, 300)]
    );
    let info = build(|encoder| encode_info(encoder, 4096));
    assert_eq!(numbers(Attributes::new(&info)), [(1, 0x010201), (2, 4096)]);
}

#[test]
fn a_reply_that_does_not_fit_says_so() {
    let view = ServiceView {
        config: service_config(),
        stats: stats(),
    };
    let whole = build(|encoder| encode_service(encoder, &view)).len();
    for length in 0..whole {
        let mut buffer = vec![0; length];
        assert_eq!(
            encode_service(&mut Encoder::new(&mut buffer), &view),
            Err(Full)
        );
    }
}

/// Bytes that are nearly a request: a good one, changed at some places and cut.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(changes, end, cut)| {
        let mut bytes = [
            nest(attribute::SERVICE, &full_service()),
            nest(attribute::DEST, &full_dest()),
        ]
        .concat();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    })
}

proptest! {
    #[test]
    fn hostile_requests_are_answered(
        number in 0u8..=20,
        dump in any::<bool>(),
        bytes in prop_oneof![mutated(), prop::collection::vec(any::<u8>(), 0..300)],
    ) {
        let kind = if dump { RequestKind::Dump } else { RequestKind::Do };
        if let Err(reject) = parse_command(number, kind, &bytes) {
            prop_assert!(!reject.message.is_empty());
            if let Some(offset) = reject.attribute_offset {
                prop_assert!(offset < bytes.len());
            }
        }
    }
}
