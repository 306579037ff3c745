// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The `ipvs_mwlc` family: requests, replies as golden attributes, refusals.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use ipvs_mwlc::director::address::{Address, Family, Transport};
use ipvs_mwlc::director::config::{DestKey, Forwarding};
use ipvs_mwlc::director::conn::ConnState;
use ipvs_mwlc::director::drain::{DrainPolicy, DrainRequest, DrainView, DRAIN_MS_MAX};
use ipvs_mwlc::director::errno::{Errno, Reject};
use ipvs_mwlc::director::event::Event;
use ipvs_mwlc::director::flow::FlowKey;
use ipvs_mwlc::director::flow::Tuple;
use ipvs_mwlc::director::http::{Name, Range, NAME_BYTES_MAX};
use ipvs_mwlc::director::ipvs_family::RequestKind;
use ipvs_mwlc::director::limits::CONNECTION_SIZE_BYTES_MAX;
use ipvs_mwlc::director::load::{ExpectedSize, Learn, SizePolicy};
use ipvs_mwlc::director::mwlc_family::{
    encode_connection, encode_destination, encode_event, encode_node, encode_question,
    encode_service, encode_size, parse_command, parse_question, Asking, Command, DestinationView,
    ServiceView, SizeAnswer, SizeQuestion, TableCursor, REPLY_BYTES_MAX, SIZE_REPLY_BYTES_MAX,
};
use ipvs_mwlc::director::netlink::{Attributes, Encoder, Full};
use ipvs_mwlc::director::record::ConnectionRecord;
use ipvs_mwlc::director::refusals::Refusals;
use ipvs_mwlc::director::report::Report;
use ipvs_mwlc::director::sched::{DestLoad, NoDestination, Ramp, Scheduler};
use ipvs_mwlc::director::service_key::ServiceKey;
use ipvs_mwlc::director::slow_start::SLOW_START_MS_MAX;
use ipvs_mwlc::director::stats::Counters;
use ipvs_mwlc::director::word::{Progress, Watch, Word};
use ipvs_mwlc::uapi::mwlc::{attribute, command, conn, dest, event, service, size};
use proptest::prelude::*;

fn build(write: impl FnOnce(&mut Encoder<'_>) -> Result<(), Full>) -> Vec<u8> {
    let mut buffer = [0u8; 1024];
    let mut encoder = Encoder::new(&mut buffer);
    write(&mut encoder).unwrap();
    assert!(encoder.used() <= REPLY_BYTES_MAX);
    encoder.written().to_vec()
}

/// As [`build`], for messages with a file's name.
fn build_long(write: impl FnOnce(&mut Encoder<'_>) -> Result<(), Full>) -> Vec<u8> {
    let mut buffer = [0u8; SIZE_REPLY_BYTES_MAX];
    let mut encoder = Encoder::new(&mut buffer);
    write(&mut encoder).unwrap();
    encoder.written().to_vec()
}

fn key() -> ServiceKey {
    ServiceKey::endpoint(Transport::Tcp, Address::V4([10, 0, 0, 100]), 80)
}

fn dest_key() -> DestKey {
    DestKey {
        address: Address::V4([10, 0, 0, 1]),
        port: 80,
    }
}

fn tuple() -> Tuple {
    Tuple {
        transport: Transport::Udp,
        source: Address::V4([10, 0, 0, 9]),
        source_port: 40_000,
        destination: Address::V4([10, 0, 0, 100]),
        destination_port: 80,
    }
}

fn service_reply(expected: ExpectedSize) -> Vec<u8> {
    let view = ServiceView {
        key: key(),
        policy: Scheduler::Mwlc,
        expected,
        learn: Learn::Http,
        remaining: true,
        slow_start_ms: 30_000,
        refused: Refusals {
            full: 5,
            ..Refusals::default()
        },
    };
    build(|encoder| encode_service(encoder, &view))
}

fn connection_reply(size_bytes: u64) -> Vec<u8> {
    let word = Word::new(
        ConnState::Udp,
        Forwarding::DirectRouting,
        0,
        Watch::default(),
    );
    let record = ConnectionRecord {
        key: FlowKey::of(&tuple()).unwrap(),
        destination: dest_key(),
        word: word.with_size(size_bytes, true).unwrap(),
        progress: Progress::NONE,
        age_ms: 1500,
        idle_ms: 0,
        expires_ms: 300_000,
    };
    build(|encoder| encode_connection(encoder, &record))
}

fn act(number: u8, bytes: &[u8]) -> Result<Command, Reject> {
    parse_command(number, RequestKind::Do, bytes)
}

fn dump(number: u8, bytes: &[u8]) -> Result<Command, Reject> {
    parse_command(number, RequestKind::Dump, bytes)
}

#[test]
fn a_service_as_reported_sets_the_same_expected_size() {
    let bytes = service_reply(ExpectedSize::new(5 << 20, SizePolicy::Learned));
    let expected = Command::SetExpectedSize {
        service: key(),
        configured_bytes: Some(5 << 20),
        policy: Some(SizePolicy::Learned),
        learn: Some(Learn::Http),
        remaining: Some(true),
        slow_start_ms: Some(30_000),
    };
    assert_eq!(act(command::SET_SERVICE, &bytes), Ok(expected));
    assert_eq!(
        dump(command::GET_DEST, &bytes),
        Ok(Command::DumpDestinations(Some(key())))
    );
}

#[test]
fn a_connection_as_reported_names_itself() {
    let expected = Command::SetConnectionSize {
        tuple: tuple(),
        size_bytes: 77,
    };
    assert_eq!(act(command::SET_CONN, &connection_reply(77)), Ok(expected));
}

#[test]
fn dumps_need_nothing() {
    assert_eq!(dump(command::GET_SERVICE, &[]), Ok(Command::DumpServices));
    assert_eq!(
        dump(command::GET_DEST, &[]),
        Ok(Command::DumpDestinations(None))
    );
    assert_eq!(dump(command::GET_CONN, &[]), Ok(Command::DumpConnections));
}

#[test]
fn refusals() {
    let largest = CONNECTION_SIZE_BYTES_MAX.to_ne_bytes();
    let mut size = connection_reply(CONNECTION_SIZE_BYTES_MAX);
    let at = size.windows(8).position(|bytes| bytes == largest).unwrap();
    size[at..at + 8].copy_from_slice(&(CONNECTION_SIZE_BYTES_MAX + 1).to_ne_bytes());
    assert_eq!(
        act(command::SET_CONN, &size).unwrap_err().errno,
        Errno::Range
    );
    for number in [command::SET_CONN, command::SET_SERVICE, command::DRAIN] {
        assert_eq!(act(number, &[]).unwrap_err().errno, Errno::Invalid);
        assert_eq!(dump(number, &[]).unwrap_err().errno, Errno::NotSupported);
    }
    for number in [
        command::GET_SERVICE,
        command::GET_DEST,
        command::GET_CONN,
        0,
        15,
        255,
    ] {
        assert_eq!(act(number, &[]).unwrap_err().errno, Errno::NotSupported);
    }
    let bad_policy = build(|encoder| {
        let nest = encoder.nest(attribute::SERVICE)?;
        encoder.u16(service::AF, 2)?;
        encoder.u16(service::PROTOCOL, 6)?;
        encoder.bytes(service::ADDR, &[0; 16])?;
        encoder.be16(service::PORT, 1)?;
        encoder.u8(service::SIZE_POLICY, 2)?;
        encoder.end_nest(nest)
    });
    let reject = act(command::SET_SERVICE, &bad_policy).unwrap_err();
    assert_eq!(
        (reject.errno, reject.attribute_offset),
        (Errno::Invalid, Some(48))
    );
    let appletalk = build(|encoder| {
        let nest = encoder.nest(attribute::SERVICE)?;
        encoder.u16(service::AF, 5)?;
        encoder.end_nest(nest)
    });
    let reject = act(command::SET_SERVICE, &appletalk).unwrap_err();
    assert_eq!(reject.errno, Errno::FamilyNotSupported);
}

#[test]
fn services_of_every_kind_are_named() {
    for key in [
        ServiceKey::endpoint(Transport::Udp, Address::V6([9; 16]), 53),
        ServiceKey::mark(Family::Ipv6, 7),
    ] {
        let view = ServiceView {
            key,
            policy: Scheduler::Mwlc,
            expected: ExpectedSize::default(),
            learn: Learn::Off,
            remaining: false,
            slow_start_ms: 0,
            refused: Refusals::default(),
        };
        let bytes = build(|encoder| encode_service(encoder, &view));
        let set = act(command::SET_SERVICE, &bytes);
        assert!(matches!(set, Ok(Command::SetExpectedSize { service, .. }) if service == key));
    }
}

#[test]
fn every_part_of_a_connection_is_needed() {
    let whole = connection_reply(1);
    let nest = Attributes::new(&whole).next().unwrap().unwrap();
    let needed = [
        conn::AF,
        conn::PROTOCOL,
        conn::CLIENT_ADDR,
        conn::CLIENT_PORT,
        conn::VIRTUAL_ADDR,
        conn::VIRTUAL_PORT,
        conn::SIZE_BYTES,
    ];
    for left_out in conn::AF..=conn::EXPIRES_MS {
        let bytes = build(|encoder| {
            let open = encoder.nest(attribute::CONN)?;
            for attribute in nest.nested().flatten().filter(|one| one.kind != left_out) {
                encoder.bytes(attribute.kind, attribute.payload)?;
            }
            encoder.end_nest(open)
        });
        let result = act(command::SET_CONN, &bytes);
        assert_eq!(
            result.is_err(),
            needed.contains(&left_out),
            "attribute {left_out}"
        );
    }
}

#[test]
fn a_destination_reply_has_ci_and_wi() {
    let load = DestLoad {
        weight: 3,
        pending: 4,
        active: 5,
        inactive: 6,
        bytes: 50_000_000,
        capped_bytes: 0,
        overloaded: true,
        ramp: Ramp::FULL,
    };
    let counters = Counters {
        connections: 7,
        in_packets: 8,
        in_bytes: 9,
        ..Counters::default()
    };
    let view = DestinationView {
        service: key(),
        key: dest_key(),
        load,
        counters,
        persistent: 10,
        drain: Some(DrainView {
            left_ms: Some(11),
            policy: DrainPolicy::Redispatch,
        }),
        reported: Some((40, 1500)),
    };
    let bytes = build(|encoder| encode_destination(encoder, &view));
    let message = Attributes::new(&bytes).table::<4>().unwrap();
    let service = message
        .get(attribute::SERVICE)
        .unwrap()
        .nested()
        .table::<10>()
        .unwrap();
    assert_eq!(service.get(service::PORT).unwrap().be16(), Ok(80));
    let table = message
        .get(attribute::DEST)
        .unwrap()
        .nested()
        .table::<19>()
        .unwrap();
    let u32_of = |kind| table.get(kind).unwrap().u32().unwrap();
    let u64_of = |kind| table.get(kind).unwrap().u64().unwrap();
    assert_eq!(u32_of(dest::WEIGHT), 3);
    assert_eq!(u64_of(dest::LOAD_BYTES), 50_000_000);
    let counts = [
        dest::PENDING_CONNS,
        dest::ACTIVE_CONNS,
        dest::INACTIVE_CONNS,
    ]
    .map(u32_of);
    assert_eq!(counts, [4, 5, 6]);
    assert_eq!(
        [dest::CONNECTIONS, dest::IN_PACKETS, dest::IN_BYTES].map(u64_of),
        [7, 8, 9]
    );
    assert_eq!(
        [dest::REPORTED_BYTES, dest::REPORT_AGE_MS].map(u64_of),
        [40, 1500]
    );
    assert_eq!(table.get(dest::OVERLOADED).unwrap().u8(), Ok(1));
    assert_eq!(u64_of(dest::DRAIN_LEFT_MS), 11);
    assert_eq!(table.get(dest::DRAIN_POLICY).unwrap().u8(), Ok(1));
    assert_eq!(u32_of(dest::RAMP_PERMILLE), 1000);
    assert_eq!(u32_of(dest::PERSISTENT_CONNS), 10);
}

#[test]
fn a_drain_has_a_deadline_and_a_policy() {
    let request = |left_ms: Option<u64>, policy: Option<u8>| {
        let bytes = build(|encoder| {
            let nest = encoder.nest(attribute::SERVICE)?;
            encoder.u16(service::AF, 2)?;
            encoder.u32(service::FWMARK, 7)?;
            encoder.end_nest(nest)?;
            let nest = encoder.nest(attribute::DEST)?;
            encoder.u16(dest::AF, 2)?;
            encoder.bytes(dest::ADDR, &dest_key().address.to_union())?;
            encoder.be16(dest::PORT, 80)?;
            if let Some(left_ms) = left_ms {
                encoder.u64(dest::DRAIN_LEFT_MS, left_ms)?;
            }
            if let Some(policy) = policy {
                encoder.u8(dest::DRAIN_POLICY, policy)?;
            }
            encoder.end_nest(nest)
        });
        act(command::DRAIN, &bytes)
    };
    let drain = |deadline_ms, policy| {
        let mark = ServiceKey::mark(Family::Ipv4, 7);
        let request = DrainRequest {
            deadline_ms,
            policy,
        };
        Ok(Command::Drain(mark, dest_key(), request))
    };
    assert_eq!(request(None, None), drain(None, DrainPolicy::Reset));
    let longest = request(Some(DRAIN_MS_MAX), Some(1));
    assert_eq!(longest, drain(Some(DRAIN_MS_MAX), DrainPolicy::Redispatch));
    let too_long = request(Some(DRAIN_MS_MAX + 1), None).unwrap_err();
    assert_eq!(too_long.errno, Errno::Range);
    assert_eq!(request(Some(0), Some(2)).unwrap_err().errno, Errno::Invalid);
    let service_only = service_reply(ExpectedSize::default());
    let refused = act(command::DRAIN, &service_only).unwrap_err();
    assert_eq!(refused.errno, Errno::Invalid);
}

#[test]
fn a_slow_start_is_an_hour_at_most() {
    let set = |slow_start_ms: u32| {
        let bytes = build(|encoder| {
            let nest = encoder.nest(attribute::SERVICE)?;
            encoder.u16(service::AF, 2)?;
            encoder.u32(service::FWMARK, 7)?;
            encoder.u32(service::SLOW_START_MS, slow_start_ms)?;
            encoder.end_nest(nest)
        });
        act(command::SET_SERVICE, &bytes)
    };
    for allowed in [0, SLOW_START_MS_MAX] {
        assert!(matches!(
            set(allowed),
            Ok(Command::SetExpectedSize { slow_start_ms: Some(set), .. }) if set == allowed
        ));
    }
    let refused = set(SLOW_START_MS_MAX + 1).unwrap_err();
    assert_eq!(refused.errno, Errno::Range);
}

proptest! {
    #[test]
    fn cursors_round_trip(bits in any::<u64>()) {
        let cursor = TableCursor::from_bits(bits);
        prop_assert_eq!(cursor.to_bits(), bits);
        prop_assert_eq!(cursor.after_bucket().skip, 0);
        prop_assert!(cursor.after_entry().to_bits() >= bits);
    }

    #[test]
    fn hostile_requests_are_answered(
        number in 0u8..=14,
        is_dump in any::<bool>(),
        random in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        which in 0u8..4,
    ) {
        let mut bytes = match which {
            0 => random,
            1 => service_reply(ExpectedSize::default()),
            2 => build_long(|encoder| encode_question(encoder, &question(Range::From(1)), Some(1))),
            _ => connection_reply(1),
        };
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let kind = if is_dump { RequestKind::Dump } else { RequestKind::Do };
        if let Err(reject) = parse_command(number, kind, &bytes) {
            prop_assert!(reject.attribute_offset.is_none_or(|offset| offset < bytes.len()));
        }
    }
}

#[test]
fn what_a_service_watches_for_has_two_values_each() {
    let set = |kind, value| {
        let bytes = build(|encoder| {
            let nest = encoder.nest(attribute::SERVICE)?;
            encoder.u16(service::AF, 2)?;
            encoder.u16(service::PROTOCOL, 6)?;
            encoder.bytes(service::ADDR, &Address::V4([10, 0, 0, 100]).to_union())?;
            encoder.be16(service::PORT, 80)?;
            encoder.u8(kind, value)?;
            encoder.end_nest(nest)
        });
        act(command::SET_SERVICE, &bytes)
    };
    let unchanged = |learn, remaining| {
        Ok(Command::SetExpectedSize {
            service: key(),
            configured_bytes: None,
            policy: None,
            learn,
            remaining,
            slow_start_ms: None,
        })
    };
    assert_eq!(set(service::LEARN, 0), unchanged(Some(Learn::Off), None));
    assert_eq!(set(service::LEARN, 1), unchanged(Some(Learn::Http), None));
    assert_eq!(set(service::REMAINING, 0), unchanged(None, Some(false)));
    assert_eq!(set(service::REMAINING, 1), unchanged(None, Some(true)));
    for kind in [service::LEARN, service::REMAINING] {
        assert_eq!(set(kind, 2).unwrap_err().errno, Errno::Invalid);
    }
}

fn question(range: Range) -> SizeQuestion {
    SizeQuestion {
        name: Name::new(b"files", b"/a/b").unwrap(),
        asking: Asking {
            tuple: Tuple {
                transport: Transport::Tcp,
                ..tuple()
            },
            range,
            sequence: 0xfeed_0001,
            acknowledgement: 7,
        },
    }
}

#[test]
fn an_answer_repeats_its_question() {
    for range in [
        Range::Whole,
        Range::Within(0, u64::MAX),
        Range::From(3),
        Range::Last(9),
    ] {
        let question = question(range);
        let bytes = build_long(|encoder| encode_question(encoder, &question, None));
        assert_eq!(parse_question(&bytes), Ok(question));
        for size_bytes in [None, Some(0), Some(CONNECTION_SIZE_BYTES_MAX)] {
            let bytes = build_long(|encoder| encode_question(encoder, &question, size_bytes));
            let expected = SizeAnswer {
                name: question.name,
                size_bytes,
                ttl_ms: None,
                asking: Some(question.asking),
            };
            assert_eq!(
                act(command::SET_SIZE, &bytes),
                Ok(Command::SetSize(expected))
            );
        }
        let too_large = Some(CONNECTION_SIZE_BYTES_MAX + 1);
        let bytes = build_long(|encoder| encode_question(encoder, &question, too_large));
        assert_eq!(
            act(command::SET_SIZE, &bytes).unwrap_err().errno,
            Errno::Range
        );
    }
}

#[test]
fn a_size_as_dumped_can_be_set_and_forgotten() {
    let bytes = build_long(|encoder| encode_size(encoder, b"h:8080", b"/%", Some(5), 1000));
    let name = Name::of_parts(b"h:8080", b"/%").unwrap();
    let expected = SizeAnswer {
        name,
        size_bytes: Some(5),
        ttl_ms: Some(1000),
        asking: None,
    };
    assert_eq!(
        act(command::SET_SIZE, &bytes),
        Ok(Command::SetSize(expected))
    );
    assert_eq!(
        act(command::DEL_SIZE, &bytes),
        Ok(Command::ForgetSize(Some(name)))
    );
    assert_eq!(act(command::DEL_SIZE, &[]), Ok(Command::ForgetSize(None)));
    assert_eq!(dump(command::GET_SIZE, &[]), Ok(Command::DumpSizes));
    let believed_too_long = build_long(|encoder| encode_size(encoder, b"", b"/", None, 3_600_001));
    assert_eq!(
        act(command::SET_SIZE, &believed_too_long)
            .unwrap_err()
            .errno,
        Errno::Range
    );
}

#[test]
fn the_longest_question_fits_its_buffer() {
    let path = [&b"/"[..], &[b'x'; NAME_BYTES_MAX - 2]].concat();
    let longest = SizeQuestion {
        name: Name::new(b"h", &path).unwrap(),
        ..question(Range::Within(1, 2))
    };
    build_long(|encoder| encode_question(encoder, &longest, Some(1)));
    assert_eq!(Name::of_parts(b"hh", &path), None);
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let report = Report {
        open_bytes: 1 << 50,
        open_files: 3,
        memory_permille: 1000,
        cpu_permille: 0,
    };
    for address in [Address::V4([10, 0, 0, 1]), Address::V6([0xfd; 16])] {
        for age_ms in [None, Some(5)] {
            let bytes = build(|encoder| encode_node(encoder, address, &report, age_ms));
            let expected = Command::Report(address, report);
            assert_eq!(act(command::REPORT, &bytes), Ok(expected));
        }
    }
    assert_eq!(dump(command::GET_NODE, &[]), Ok(Command::DumpNodes));
    let overworked = Report {
        cpu_permille: 1001,
        ..report
    };
    let address = Address::V4([10, 0, 0, 1]);
    let bytes = build(|encoder| encode_node(encoder, address, &overworked, None));
    assert_eq!(
        act(command::REPORT, &bytes).unwrap_err().errno,
        Errno::Range
    );
    assert_eq!(act(command::REPORT, &[]).unwrap_err().errno, Errno::Invalid);
}

#[test]
fn what_names_no_file_is_refused() {
    let nest = |write: &dyn Fn(&mut Encoder<'_>) -> Result<(), Full>| {
        build_long(|encoder| {
            let nest = encoder.nest(attribute::SIZE)?;
            write(encoder)?;
            encoder.end_nest(nest)
        })
    };
    let parts = |host: &'static [u8], path: &'static [u8]| {
        nest(&move |encoder| {
            encoder.bytes(size::HOST, host)?;
            encoder.bytes(size::PATH, path)
        })
    };
    let ranged = |first: Option<u64>, last: Option<u64>, suffix: Option<u64>| {
        build_long(|encoder| {
            let nest = encoder.nest(attribute::SIZE)?;
            encoder.bytes(size::HOST, b"")?;
            encoder.bytes(size::PATH, b"/")?;
            encoder.u32(size::SEQUENCE, 1)?;
            encoder.u32(size::ACKNOWLEDGEMENT, 1)?;
            for (kind, number) in [
                (size::RANGE_FIRST, first),
                (size::RANGE_LAST, last),
                (size::RANGE_SUFFIX, suffix),
            ] {
                if let Some(number) = number {
                    encoder.u64(kind, number)?;
                }
            }
            encoder.end_nest(nest)?;
            let whole = connection_reply(1);
            encoder.bytes(attribute::CONN, &whole[4..])
        })
    };
    assert!(act(command::SET_SIZE, &ranged(Some(1), Some(2), None)).is_ok());
    for bytes in [
        vec![],
        parts(b"h", b""),
        parts(b"h", b"a"),
        parts(b"h/", b"/a"),
        nest(&|encoder| encoder.bytes(size::PATH, b"/")),
        nest(&|encoder| encoder.bytes(size::HOST, b"")),
        ranged(Some(2), Some(1), None),
        ranged(None, Some(1), None),
        ranged(Some(1), None, Some(1)),
    ] {
        let refused = act(command::SET_SIZE, &bytes).unwrap_err();
        assert_eq!(refused.errno, Errno::Invalid, "{bytes:?}");
    }
}

/// The bytes of a grid in docs/NETLINK.md: the pairs of digits at the start of each line.
fn documented(grid: usize) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/NETLINK.md");
    let page = std::fs::read_to_string(path).unwrap();
    let grid = page.split("```").nth(2 * grid + 1).unwrap();
    let is_byte = |word: &&str| {
        word.len() == 2
            && word
                .bytes()
                .all(|digit| b"0123456789abcdef".contains(&digit))
    };
    grid.lines()
        .flat_map(|line| line.split_whitespace().take_while(is_byte))
        .map(|word| u8::from_str_radix(word, 16).unwrap())
        .collect()
}

#[test]
#[cfg(target_endian = "little")]
fn the_documented_bytes_are_what_is_sent() {
    assert_eq!(connection_reply(77), documented(0));
    let overloaded = Event::DestOverloaded(key(), dest_key());
    assert_eq!(
        build(|encoder| encode_event(encoder, &overloaded, 3)),
        documented(1)
    );
    let asked = question(Range::From(3));
    assert_eq!(
        build_long(|encoder| encode_question(encoder, &asked, None)),
        documented(2)
    );
}

#[test]
fn every_event_has_its_own_number_and_names_what_it_is_about() {
    let (service, destination) = (key(), dest_key());
    let events = [
        Event::ServiceAdded(service),
        Event::ServiceEdited(service),
        Event::ServiceRemoved(service),
        Event::DestAdded(service, destination),
        Event::DestEdited(service, destination),
        Event::DestRemoved(service, destination),
        Event::DestOverloaded(service, destination),
        Event::DestRelieved(service, destination),
        Event::DestDrained(service, destination),
        Event::NoDest(service, NoDestination::Empty),
        Event::FloodBegan,
        Event::FloodEnded,
    ];
    for (event, number) in events.iter().zip(1u8..) {
        assert_eq!(event.kind(), number);
        let bytes = build(|encoder| encode_event(encoder, event, 0));
        let message = Attributes::new(&bytes).table::<8>().unwrap();
        let nest = message.get(attribute::EVENT).unwrap().nested();
        let table = nest.table::<4>().unwrap();
        assert_eq!(table.get(event::KIND).unwrap().u8(), Ok(number));
        assert!(table.get(event::SUPPRESSED).is_none());
        assert_eq!(
            table.get(event::CAUSE).is_some(),
            matches!(event, Event::NoDest(..))
        );
        assert_eq!(message.get(attribute::SERVICE).is_some(), number <= 10);
        assert_eq!(
            message.get(attribute::DEST).is_some(),
            (4..=9).contains(&number)
        );
        // Only an administrator's own changes are never held back.
        assert_eq!(event.is_from_traffic(), number >= 7);
    }
}
