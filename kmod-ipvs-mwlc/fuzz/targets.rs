// SPDX-License-Identifier: MIT
//! What fuzzing checks of the director's pure code, for any bytes at all. `cargo fuzz` calls these with bytes
//! that it makes up; `cargo test` calls them with the corpus, so neither can rot.
//!
//! Every overflow and every index out of bounds panics in these builds. In the kernel either would stop the machine.

use std::fmt::Debug;

use ipvs_mwlc::director::address::Address;
use ipvs_mwlc::director::conn::ConnState;
use ipvs_mwlc::director::delivered;
use ipvs_mwlc::director::flow::FlowKey;
use ipvs_mwlc::director::http::{self, Range, Segment, HEAD_BYTES_MAX, NAME_BYTES_MAX};
use ipvs_mwlc::director::ipvs_family::{self, RequestKind};
use ipvs_mwlc::director::limits::CONNECTION_SIZE_BYTES_MAX;
use ipvs_mwlc::director::load::{change, Cap, LoadChange, Share};
use ipvs_mwlc::director::mwlc_family;
use ipvs_mwlc::director::netlink::Attributes;
use ipvs_mwlc::director::packet::{
    parse, plain, tcp_segment, ParseError, Parsed, EXTENSIONS_BYTES_MAX,
};
use ipvs_mwlc::director::sched::mh::{self, Member, Visit, TABLE_ENTRIES};
use ipvs_mwlc::director::sched::{DestLoad, Ramp, Request, SchedState, Scheduler};
use ipvs_mwlc::director::tcp::{self, TcpEvent, Transition};

/// A target's name, which is also its corpus' folder, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const ALL: [Target; 5] = [
    ("packet", packet),
    ("http", http),
    ("netlink", netlink),
    ("ledger", ledger),
    ("schedulers", schedulers),
];

/// Takes values from the front of the bytes; zeros when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let length = N.min(self.0.len());
        let (front, rest) = self.0.split_at(length);
        taken[..length].copy_from_slice(front);
        self.0 = rest;
        taken
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// More bytes than this are never asked for: two IPv6 headers with extensions, ICMPv6, and a TCP header.
const PULLED_BYTES_MAX: usize = 2 * (40 + EXTENSIONS_BYTES_MAX) + 8 + 20;

/// A packet of either family of which more and more is made linear, as the hook does it: it must come to an
/// end, and the end must be what the whole packet gives. What takes the fast entry is what the slow one says,
/// and a TCP segment is found where that found its ports.
pub fn packet(data: &[u8]) {
    let mut bytes = Bytes(data);
    let first = usize::from(bytes.u8());
    let packet = bytes.0;
    let whole = piecemeal(packet, first, parse);
    if let Some(seen) = plain(packet, packet.len()) {
        assert_eq!(whole, Ok(Parsed::Whole(seen)));
    }
    let segment = piecemeal(packet, first, tcp_segment);
    match whole {
        Ok(Parsed::Whole(seen)) => {
            assert_eq!(FlowKey::of(&seen.key.tuple()), Some(seen.key));
            let tcp = segment.unwrap_or(None);
            assert_eq!(tcp.map(|(tcp, _)| tcp.event()), seen.event);
            if let Some((tcp, start)) = tcp {
                let ports = (tcp.source_port, tcp.destination_port);
                let tuple = seen.key.tuple();
                assert_eq!(ports, (tuple.source_port, tuple.destination_port));
                assert!(start + tcp.header_bytes + tcp.payload_bytes <= packet.len());
            }
        }
        Ok(Parsed::Error { about, .. }) => {
            let tuple = about.tuple();
            assert_eq!(tuple.reversed().reversed(), tuple);
            assert_eq!(FlowKey::of(&tuple), Some(about));
        }
        // What is no whole packet is looked at no further.
        Ok(Parsed::Fragment { .. } | Parsed::Other) | Err(_) => {
            assert!(!matches!(segment, Ok(Some(_))));
        }
    }
}

/// What `parse` makes of a packet of which `first` bytes are linear, and then as many as it asks for:
/// the same as of all at once.
fn piecemeal<T: PartialEq + Debug>(
    packet: &[u8],
    first: usize,
    parse: impl Fn(&[u8], usize) -> Result<T, ParseError>,
) -> Result<T, ParseError> {
    let whole = parse(packet, packet.len());
    assert!(
        !matches!(whole, Err(ParseError::NeedBytes(_))),
        "a whole packet needs more"
    );
    let mut linear = first.min(packet.len());
    loop {
        match parse(&packet[..linear], packet.len()) {
            Err(ParseError::NeedBytes(needed)) => {
                assert!(
                    needed > linear && needed <= packet.len(),
                    "{needed} of {linear}"
                );
                assert!(needed <= PULLED_BYTES_MAX, "{needed} bytes to be pulled");
                linear = needed;
            }
            parsed => {
                assert_eq!(parsed, whole, "with {linear} linear bytes");
                return whole;
            }
        }
    }
}

/// A segment with a request, or with anything else.
pub fn http(data: &[u8]) {
    let mut bytes = Bytes(data);
    let beyond = usize::from(bytes.u8());
    let file_bytes = bytes.u64();
    let first = &bytes.0[..bytes.0.len().min(HEAD_BYTES_MAX)];
    if let Segment::Fetch(fetch) = http::parse(first, first.len() + beyond) {
        assert!(fetch.name.bytes().len() <= NAME_BYTES_MAX);
        assert!(!fetch.name.path().is_empty());
        assert!(fetch.range.bytes_of(file_bytes) <= file_bytes);
    }
    if let Some(range) = Range::parse(first) {
        assert!(range.bytes_of(file_bytes) <= file_bytes);
    }
}

/// A request to either family. Refusals must say why.
pub fn netlink(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (number, kind) = (bytes.u8(), bytes.u8());
    let kind = if kind & 1 == 0 {
        RequestKind::Do
    } else {
        RequestKind::Dump
    };
    for refusal in [
        ipvs_family::parse_command(number, kind, bytes.0).err(),
        mwlc_family::parse_command(number, kind, bytes.0).err(),
    ]
    .into_iter()
    .flatten()
    {
        assert!(!refusal.message.is_empty());
    }
    for attribute in Attributes::new(bytes.0)
        .table::<16>()
        .iter()
        .flat_map(|table| table.get(1))
    {
        let _ = (
            attribute.u8(),
            attribute.u16(),
            attribute.u32(),
            attribute.u64(),
        );
        let _ = (attribute.be16(), attribute.string(16));
        let _ = attribute.nested().table::<16>();
    }
}

/// Connections that live through any events and sizes: what is added to a real server's counters is
/// never negative and is zero in the end.
pub fn ledger(data: &[u8]) {
    let mut bytes = Bytes(data);
    let caps = bytes.array::<4>();
    let mut shares: [Option<(ConnState, u64)>; 4] = [None; 4];
    let mut sum = LoadChange::ZERO;
    let mut book = |which: usize, old: Option<(ConnState, u64)>, new| {
        let share = |(state, size_bytes): (ConnState, u64)| Share {
            class: state.class(),
            size_bytes,
            cap: Cap::from_bits(caps[which]),
        };
        let change = change(old.map(share), Option::map(new, share));
        sum.pending += change.pending;
        sum.active += change.active;
        sum.inactive += change.inactive;
        sum.bytes += change.bytes;
        sum.capped += change.capped;
        assert!(sum.pending >= 0 && sum.active >= 0 && sum.inactive >= 0);
        assert!(0 <= sum.capped && sum.capped <= sum.bytes);
        assert!(sum.bytes <= 4 * CONNECTION_SIZE_BYTES_MAX as i64);
        sum
    };
    while !bytes.is_empty() {
        let (what, which) = (bytes.u8(), usize::from(bytes.u8()) % shares.len());
        let old = shares[which];
        let new = after(old, what, &mut bytes);
        book(which, old, new);
        shares[which] = new;
    }
    for (which, held) in shares.into_iter().enumerate() {
        book(which, held, None);
    }
    assert!(book(0, None, None).is_zero(), "something is left");
}

/// What becomes of a connection when a packet, a size or its end comes.
fn after(
    old: Option<(ConnState, u64)>,
    what: u8,
    bytes: &mut Bytes<'_>,
) -> Option<(ConnState, u64)> {
    let event = TcpEvent::ALL.get(usize::from(what)).copied();
    match (old, event) {
        (None, Some(event)) => tcp::open(event).map(|state| (ConnState::Tcp(state), bytes.u64())),
        (None, None) => Some((ConnState::Udp, bytes.u64())),
        (Some((ConnState::Tcp(state), size)), Some(event)) => match tcp::step(state, event) {
            Transition::To(next) => Some((ConnState::Tcp(next), size)),
            Transition::Restart => None,
        },
        (Some((state, size)), None) if what & 1 == 0 => {
            let (counted, acknowledged) = (bytes.u32(), bytes.u32());
            let left = delivered::left(size, counted, acknowledged);
            assert!(
                left.is_none_or(|left| left <= size),
                "more left than there was"
            );
            Some((state, left.unwrap_or(size)))
        }
        (Some(_), None) => None,
        (Some(held), Some(_)) => Some(held),
    }
}

/// Every scheduler with any loads: whom it chooses can be chosen, and if it chooses nobody there is a
/// reason.
pub fn schedulers(data: &[u8]) {
    let mut bytes = Bytes(data);
    let state = SchedState {
        next: bytes.u32(),
        round_weight: bytes.u32(),
    };
    let expected_size_bytes = bytes.u64();
    let request = Request {
        flags: bytes.u32(),
        client: Address::V4(bytes.array()),
        client_port: bytes.u16(),
        random: bytes.u64(),
        ..Request::new(state, expected_size_bytes)
    };
    let mut loads = Vec::new();
    while !bytes.is_empty() {
        loads.push(destination(&mut bytes));
    }
    let table = maglev_table(&loads);
    for scheduler in Scheduler::ALL {
        let request = Request {
            table: if scheduler.needs_table() { &table } else { &[] },
            ..request
        };
        match scheduler.choose(&loads, &request) {
            Ok(choice) => {
                let chosen = loads.get(choice.index as usize);
                assert!(
                    chosen.is_some_and(|load| load.weight > 0 && !load.overloaded),
                    "{scheduler:?} chose {chosen:?}"
                );
            }
            Err(reason) => assert!(!reason.reason().is_empty()),
        }
    }
}

fn destination(bytes: &mut Bytes<'_>) -> DestLoad {
    let flags = bytes.u8();
    DestLoad {
        // Weights are small or of any size; small ones meet more branches.
        weight: if flags & 1 == 0 {
            u32::from(bytes.u8())
        } else {
            bytes.u32()
        },
        pending: bytes.u32(),
        active: bytes.u32(),
        inactive: bytes.u32(),
        bytes: bytes.u64(),
        capped_bytes: bytes.u64(),
        overloaded: flags & 2 != 0,
        ramp: Ramp::at(u64::from(bytes.u16()), u32::from(bytes.u16())),
    }
}

fn maglev_table(loads: &[DestLoad]) -> Vec<u16> {
    let members = loads.iter().enumerate().map(|(index, load)| Member {
        address: Address::V4((index as u32).to_be_bytes()),
        port: 80,
        last_weight: load.weight,
    });
    let mut visits = vec![Visit::default(); loads.len()];
    let mut table = vec![0; TABLE_ENTRIES];
    mh::fill(members, &mut visits, &mut table);
    table
}
