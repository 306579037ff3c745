// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! sh and mh: a client stays where it is, shares follow weights, and a destination that leaves takes
//! only its own clients along.

use std::collections::BTreeMap;

use ipvs_mwlc::director::address::Address;
use ipvs_mwlc::director::flags::{SERVICE_SCHED1, SERVICE_SCHED2};
use ipvs_mwlc::director::sched::mh::{self, Member, Visit, NOBODY, TABLE_ENTRIES};
use ipvs_mwlc::director::sched::{DestLoad, NoDestination, Request, SchedState, Scheduler};
use proptest::prelude::*;

use crate::{maglev_table, weights, SIZE};

const FALLBACK: u32 = SERVICE_SCHED1;
const PORT: u32 = SERVICE_SCHED2;
const HASHING: [Scheduler; 2] = [Scheduler::SourceHashing, Scheduler::MaglevHashing];

/// A service whose table was made when it had `tabled`.
struct Service {
    scheduler: Scheduler,
    flags: u32,
    table: Vec<u16>,
}

impl Service {
    fn new(scheduler: Scheduler, flags: u32, tabled: &[DestLoad]) -> Service {
        Service {
            scheduler,
            flags,
            table: maglev_table(tabled),
        }
    }

    fn choose(
        &self,
        destinations: &[DestLoad],
        client: Address,
        client_port: u16,
    ) -> Result<u32, NoDestination> {
        let request = Request {
            flags: self.flags,
            client,
            client_port,
            table: &self.table,
            ..Request::new(SchedState::NEW, SIZE)
        };
        self.scheduler
            .choose(destinations, &request)
            .map(|choice| choice.index)
    }
}

/// 10.x.y.z for a number.
fn client(number: u32) -> Address {
    Address::V4((0x0a00_0000 | number).to_be_bytes())
}

/// How many of 4,096 consecutive clients each destination gets.
fn counts(service: &Service, destinations: &[DestLoad]) -> BTreeMap<Option<u32>, u32> {
    let mut counts = BTreeMap::new();
    for number in 0..4096 {
        let index = service.choose(destinations, client(number), 0).ok();
        *counts.entry(index).or_default() += 1;
    }
    counts
}

#[test]
fn sh_deals_256_slots_by_weight() {
    // The slot of an address is the highest byte of its product with 0x61c88647; consecutive
    // addresses cover the slots evenly. By weight 1:3, slots 0, 4, 8... are the first one's.
    let destinations = weights(&[1, 3]);
    let service = Service::new(Scheduler::SourceHashing, 0, &destinations);
    for number in 0..2000u32 {
        let slot = (0x0a00_0000 | number).wrapping_mul(0x61c8_8647) >> 24;
        let expected = u32::from(slot % 4 != 0);
        assert_eq!(
            service.choose(&destinations, client(number), 7),
            Ok(expected)
        );
    }
    let counts = counts(&service, &destinations);
    assert_eq!(counts[&Some(0)] + counts[&Some(1)], 4096);
    assert!((1000..=1050).contains(&counts[&Some(0)]), "{counts:?}");
}

#[test]
fn sh_as_the_table_of_ipvs() {
    // The table dealt out slot by slot, with a fallback that starts at twice the slot.
    let weights_given = [3, 0, 2, 400, 1];
    let mut table = Vec::new();
    while table.len() < 256 {
        for (index, weight) in weights_given.iter().enumerate() {
            for _ in 0..(*weight).max(1) {
                table.push(index as u32);
            }
        }
    }
    table.truncate(256);
    for overloaded in [
        vec![],
        vec![0],
        vec![3],
        vec![0, 2],
        vec![0, 2, 3],
        vec![3, 4],
    ] {
        let mut destinations = weights(&weights_given);
        for index in &overloaded {
            destinations[*index as usize].overloaded = true;
        }
        let available = |index: u32| {
            let dest = destinations[index as usize];
            dest.weight > 0 && !dest.overloaded
        };
        let plain = Service::new(Scheduler::SourceHashing, 0, &destinations);
        let fallback = Service::new(Scheduler::SourceHashing, FALLBACK, &destinations);
        for number in 0..3000u32 {
            let slot = ((0x0a00_0000 | number).wrapping_mul(0x61c8_8647) >> 24) as usize;
            let first = Some(table[slot]).filter(|index| available(*index));
            let other = (0..256)
                .map(|offset| table[(2 * slot + offset) % 256])
                .find(|index| available(*index));
            assert_eq!(plain.choose(&destinations, client(number), 0).ok(), first);
            assert_eq!(
                fallback.choose(&destinations, client(number), 0).ok(),
                first.or(other),
                "{overloaded:?} {slot}"
            );
        }
    }
}

#[test]
fn a_client_stays_unless_its_port_is_hashed() {
    let destinations = weights(&[1, 1, 1, 1]);
    for scheduler in HASHING {
        let sticky = Service::new(scheduler, 0, &destinations);
        let by_port = Service::new(scheduler, PORT, &destinations);
        for number in 0..50 {
            let home = sticky.choose(&destinations, client(number), 0);
            let mut seen = [false; 4];
            for port in 0..200 {
                assert_eq!(sticky.choose(&destinations, client(number), port), home);
                let index = by_port
                    .choose(&destinations, client(number), port)
                    .unwrap_or(9);
                seen[index as usize] = true;
            }
            assert_eq!(seen, [true; 4], "{scheduler:?}: ports spread");
        }
    }
}

#[test]
fn without_fallback_a_client_of_an_unavailable_one_gets_none() {
    let available = weights(&[1, 1, 1]);
    let mut quiesced = available.clone();
    quiesced[1].weight = 0;
    let mut overloaded = available.clone();
    overloaded[1].overloaded = true;
    for scheduler in HASHING {
        let plain = Service::new(scheduler, 0, &available);
        let fallback = Service::new(scheduler, FALLBACK, &available);
        for destinations in [&quiesced, &overloaded] {
            for number in 0..500 {
                let home = plain.choose(&available, client(number), 0);
                let now = plain.choose(destinations, client(number), 0);
                let other = fallback.choose(destinations, client(number), 0);
                if home == Ok(1) {
                    assert_eq!(now, Err(NoDestination::SelectedUnavailable));
                    assert!(matches!(other, Ok(0 | 2)), "{other:?}");
                } else {
                    assert_eq!((now, other), (home, home), "the others stay");
                }
            }
        }
    }
}

#[test]
fn a_fallback_of_mh_spreads_the_clients_of_one_over_all_others() {
    // That of sh does not where the number of slots is a multiple of the weights' sum: from twice a
    // slot of the third of four, it always comes to the first. Stock directors do the same.
    let mut destinations = weights(&[1, 1, 1, 1]);
    let tabled = destinations.clone();
    destinations[2].overloaded = true;
    let service = Service::new(Scheduler::MaglevHashing, FALLBACK, &tabled);
    let counts = counts(&service, &destinations);
    assert_eq!(
        counts.keys().copied().collect::<Vec<_>>(),
        [Some(0), Some(1), Some(3)]
    );
    for count in counts.values() {
        // 1,024 of their own, and a third of 1,024.
        assert!((1150..=1600).contains(count), "{counts:?}");
    }
}

#[test]
fn an_ipv6_client_is_hashed_by_all_its_words() {
    let destinations = weights(&[1; 8]);
    for scheduler in HASHING {
        let service = Service::new(scheduler, 0, &destinations);
        for word in 0..4 {
            let mut seen = [false; 8];
            for number in 0..200u8 {
                let mut bytes = [0x20; 16];
                bytes[word * 4 + 3] = number;
                let index = service
                    .choose(&destinations, Address::V6(bytes), 0)
                    .unwrap_or(9);
                seen[index as usize] = true;
            }
            assert_eq!(seen, [true; 8], "{scheduler:?} word {word}");
        }
    }
}

#[test]
fn mh_shares_its_table_by_weight() {
    // In rounds of 2 + 2 + 1 entries; the last round may be cut short.
    let table = maglev_table(&weights(&[2, 2, 1, 0]));
    let share = |index| table.iter().filter(|entry| **entry == index).count();
    assert_eq!(
        [share(0), share(1), share(2), share(3)],
        [1638, 1637, 818, 0]
    );
    // Divided by the common divisor, so that rounds are short.
    assert_eq!(table, maglev_table(&weights(&[2000, 2000, 1000, 0])));
    // At most 6 bits of turns a round, and at least one for whoever has a weight: 65,535 has
    // 16 bits, is shifted by 10, and gives 63 turns to 1.
    let uneven = maglev_table(&weights(&[65_535, 1]));
    let small = uneven.iter().filter(|entry| **entry == 1).count();
    assert_eq!(small, TABLE_ENTRIES / 64);
}

#[test]
fn mh_without_a_table_or_members_chooses_nobody() {
    let destinations = weights(&[1, 1]);
    let mut service = Service::new(Scheduler::MaglevHashing, FALLBACK, &weights(&[0, 0]));
    assert!(service.table.iter().all(|entry| *entry == NOBODY));
    for table in [service.table.clone(), Vec::new(), vec![7; 3]] {
        service.table = table;
        assert_eq!(
            service.choose(&destinations, client(1), 0),
            Err(NoDestination::SelectedUnavailable)
        );
    }
    for entries in 0..3 {
        let mut short = vec![9; entries];
        let member = Member {
            address: client(1),
            port: 80,
            last_weight: 1,
        };
        mh::fill([member].into_iter(), &mut [Visit::default()], &mut short);
        let filled = if entries < 2 { NOBODY } else { 0 };
        assert_eq!(short, vec![filled; entries]);
    }
}

/// Sets of addresses of which the mean is taken.
const SETS: u16 = 4;

proptest! {
    /// When one of several leaves, its entries go to the others and few others change hands: by the
    /// paper's figures a few per cent, in the mean of some sets of addresses; a single set may have more.
    #[test]
    fn mh_disrupts_little_when_one_leaves(count in 4usize..40, gone in 0usize..40, subnet in any::<u16>()) {
        let gone = gone % count;
        let table = |subnet: u16, members: &[usize]| -> Vec<usize> {
            let [high, low] = subnet.to_be_bytes();
            let mut table = vec![0; TABLE_ENTRIES];
            let mut visits = vec![Visit::default(); members.len()];
            let named = members.iter().map(|id| Member {
                address: Address::V4([10, high, low, *id as u8]),
                port: 80,
                last_weight: 1,
            });
            mh::fill(named, &mut visits, &mut table);
            table.iter().map(|entry| members[usize::from(*entry)]).collect()
        };
        let all: Vec<usize> = (0..count).collect();
        let left: Vec<usize> = all.iter().copied().filter(|id| *id != gone).collect();
        let mut moved = 0;
        for set in 0..SETS {
            let subnet = subnet.wrapping_add(set);
            let (before, after) = (table(subnet, &all), table(subnet, &left));
            for (old, new) in before.iter().zip(&after) {
                prop_assert_ne!(*new, gone);
                moved += usize::from(*old != gone && old != new);
            }
            // Nobody has much more or less than the others.
            for id in &left {
                let share = after.iter().filter(|entry| *entry == id).count();
                prop_assert!(share.abs_diff(TABLE_ENTRIES / left.len()) <= 1, "{share}");
            }
        }
        // Rendezvous of all entries anew would move all but 1/count of them.
        let entries = TABLE_ENTRIES * usize::from(SETS);
        prop_assert!(moved * 10 < entries, "{moved} of {entries} moved besides");
    }

    /// Whatever the weights, every entry is somebody's with a weight.
    #[test]
    fn mh_leaves_no_entry_free(given in prop::collection::vec(0u32..=65_535, 1..20)) {
        let table = maglev_table(&weights(&given));
        let any = given.iter().any(|weight| *weight > 0);
        for entry in table {
            let weight = given.get(usize::from(entry));
            prop_assert_eq!(weight.is_some_and(|weight| *weight > 0), any);
        }
    }
}
