// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Ci's bookkeeping against the obvious model: at every step the counters are the sums over the live
//! connections, and when all have ended they are zero.

use ipvs_mwlc::director::conn::ConnState;
use ipvs_mwlc::director::limits::CONNECTION_SIZE_BYTES_MAX;
use ipvs_mwlc::director::load::{
    change, Cap, ExpectedSize, LoadChange, LoadClass, Share, SizePolicy,
};
use ipvs_mwlc::director::tcp::{open, step, TcpEvent, Transition};
use proptest::prelude::*;

/// A destination's counters as the kernel keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    pending: i64,
    active: i64,
    inactive: i64,
    bytes: i64,
    capped: i64,
}

impl Counters {
    fn add(&mut self, change: LoadChange) {
        self.pending += i64::from(change.pending);
        self.active += i64::from(change.active);
        self.inactive += i64::from(change.inactive);
        self.bytes += change.bytes;
        self.capped += change.capped;
    }

    fn of(shares: &[Option<Share>]) -> Counters {
        let class = |wanted: LoadClass| {
            shares
                .iter()
                .flatten()
                .filter(|share| share.class == wanted)
                .count() as i64
        };
        let active = || {
            shares
                .iter()
                .flatten()
                .filter(|share| share.class == LoadClass::Active)
        };
        Counters {
            pending: class(LoadClass::Pending),
            active: class(LoadClass::Active),
            inactive: class(LoadClass::Inactive),
            bytes: active().map(|share| share.size_bytes as i64).sum(),
            capped: active()
                .map(|share| share.size_bytes.min(share.cap.bytes()) as i64)
                .sum(),
        }
    }
}

/// What can happen to one of a few connections.
#[derive(Clone, Debug)]
enum Event {
    Segment(TcpEvent),
    Datagram,
    Size(u64),
    Expire,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => prop::sample::select(TcpEvent::ALL.to_vec()).prop_map(Event::Segment),
        2 => Just(Event::Datagram),
        2 => (0..=CONNECTION_SIZE_BYTES_MAX).prop_map(Event::Size),
        1 => Just(Event::Expire),
    ]
}

/// A connection with its state; what the kernel's table does with the pure code.
#[derive(Clone, Copy, Debug)]
struct Connection {
    state: ConnState,
    size_bytes: u64,
    cap: Cap,
}

impl Connection {
    fn share(self) -> Share {
        Share {
            class: self.state.class(),
            size_bytes: self.size_bytes,
            cap: self.cap,
        }
    }
}

fn apply(old: Option<Connection>, event: &Event, expected: u64) -> Option<Connection> {
    let new = |state| Connection {
        state,
        size_bytes: expected,
        cap: Cap::of(expected),
    };
    match (old, event) {
        (None, Event::Segment(event)) => open(*event).map(ConnState::Tcp).map(new),
        (None, Event::Datagram) => Some(new(ConnState::Udp)),
        (None, Event::Size(_) | Event::Expire) | (Some(_), Event::Expire) => None,
        (Some(connection), Event::Size(size_bytes)) => Some(Connection {
            size_bytes: *size_bytes,
            ..connection
        }),
        (Some(connection), Event::Datagram) => Some(connection),
        (Some(connection), Event::Segment(event)) => match connection.state {
            ConnState::Udp => Some(connection),
            ConnState::Tcp(state) => match step(state, *event) {
                Transition::To(state) => Some(Connection {
                    state: ConnState::Tcp(state),
                    ..connection
                }),
                Transition::Restart => open(*event).map(ConnState::Tcp).map(new),
            },
        },
    }
}

proptest! {
    #[test]
    fn counters_are_the_sums_and_end_at_zero(
        events in prop::collection::vec((0usize..6, event()), 0..200),
        expected in 0..=CONNECTION_SIZE_BYTES_MAX,
    ) {
        let mut connections: Vec<Option<Connection>> = vec![None; 6];
        let mut counters = Counters::default();
        for (which, event) in events {
            let old = connections[which];
            let new = apply(old, &event, expected);
            counters.add(change(old.map(Connection::share), new.map(Connection::share)));
            connections[which] = new;
            let shares: Vec<_> =
                connections.iter().map(|connection| connection.map(Connection::share)).collect();
            prop_assert_eq!(counters, Counters::of(&shares));
        }
        for connection in connections {
            counters.add(change(connection.map(Connection::share), None));
        }
        prop_assert_eq!(counters, Counters::default());
    }

    #[test]
    fn a_size_over_the_limit_counts_as_the_limit_and_still_cancels(size in any::<u64>()) {
        let share = Some(Share { class: LoadClass::Active, size_bytes: size, cap: Cap::of(size) });
        let up = change(None, share);
        let down = change(share, None);
        prop_assert_eq!(up.bytes as u64, size.min(CONNECTION_SIZE_BYTES_MAX));
        prop_assert_eq!(up.bytes + down.bytes, 0);
        prop_assert!(change(share, share).is_zero());
    }

    #[test]
    fn a_cap_is_the_power_of_two_nearest_in_ratio(expected in 1024u64..=CONNECTION_SIZE_BYTES_MAX) {
        let cap = Cap::of(expected).bytes();
        prop_assert!(cap.is_power_of_two());
        // Between expected / sqrt 2 and expected * sqrt 2.
        let (cap, expected) = (u128::from(cap), u128::from(expected));
        prop_assert!(expected * expected <= 2 * cap * cap && cap * cap <= 2 * expected * expected);
    }

    #[test]
    fn the_average_stays_between_the_sizes_it_learned(
        sizes in prop::collection::vec(0..=CONNECTION_SIZE_BYTES_MAX, 1..100),
    ) {
        let start = ExpectedSize::new(77, SizePolicy::Learned);
        prop_assert_eq!(start.bytes(), 77);
        let learned = sizes.iter().fold(start, |expected, size| expected.learn(*size));
        let (least, most) = (sizes.iter().min(), sizes.iter().max());
        // Integer steps lose less than one byte of the average.
        prop_assert!(learned.bytes() + 1 >= *least.unwrap());
        prop_assert!(learned.bytes() <= *most.unwrap());
        prop_assert_eq!(learned.learned_count(), sizes.len() as u64);
        prop_assert_eq!(learned.configure(5, SizePolicy::Configured).bytes(), 5);
        prop_assert_eq!(learned.configure(5, SizePolicy::Learned).bytes(), learned.bytes());
    }
}

#[test]
fn a_steady_size_is_learned_exactly() {
    let start = ExpectedSize::new(1, SizePolicy::Learned).learn(1_000_000);
    let learned = (0..200).fold(start, |expected, _| expected.learn(50_000_000));
    assert!(
        (49_999_990..=50_000_000).contains(&learned.bytes()),
        "{}",
        learned.bytes()
    );
}

#[test]
fn a_half_open_connection_adds_no_bytes_and_a_finished_one_neither() {
    for class in [LoadClass::Pending, LoadClass::Inactive] {
        assert_eq!(
            change(
                None,
                Some(Share {
                    class,
                    size_bytes: 9,
                    cap: Cap::of(9)
                })
            )
            .bytes,
            0
        );
    }
}

#[test]
fn a_cap_fits_its_bits_and_has_bounds() {
    for (expected, bytes) in [
        (0, 1 << 10),
        (1, 1 << 10),
        (1 << 10, 1 << 10),
        (1_000_000, 1 << 20),
        (1_500_000, 1 << 21),
        (CONNECTION_SIZE_BYTES_MAX, 1 << 40),
        (u64::MAX, 1 << 40),
    ] {
        let cap = Cap::of(expected);
        assert_eq!(cap.bytes(), bytes, "{expected}");
        assert_eq!(Cap::from_bits(cap.bits()), cap);
        assert!(u32::from(cap.bits()) < 1 << Cap::BITS);
    }
    assert_eq!(Cap::from_bits(0xff).bytes(), 1 << 41);
}

#[test]
fn a_connection_counts_up_to_its_cap_in_the_capped_sum() {
    let cap = Cap::of(1 << 20);
    let capped = |class, size_bytes| {
        let share = Share {
            class,
            size_bytes,
            cap,
        };
        change(None, Some(share)).capped
    };
    assert_eq!(capped(LoadClass::Active, 7), 7);
    assert_eq!(capped(LoadClass::Active, (1 << 20) + 1), 1 << 20);
    assert_eq!(capped(LoadClass::Active, u64::MAX), 1 << 20);
    assert_eq!(capped(LoadClass::Pending, 7), 0);
    assert_eq!(capped(LoadClass::Inactive, 7), 0);
}
