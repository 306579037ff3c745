// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Maglev hashing as in IPVS (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, section 3.4): the client's address selects an entry of a table in which each
//! destination has its share, and when a destination comes or goes, few entries change.
//!
//! Each destination visits the table's entries in an order of its own: from an offset by a skip, both
//! hashed from its address and port. In rounds, each takes the first entry of its order that is free,
//! as many per round as its weight (divided by the weights' greatest common divisor, and reduced to 6
//! bits). The caller keeps the table and makes it anew with [`fill`] when the destinations or their
//! weights change. A destination set to weight 0 keeps its last weight there, so that the clients of
//! others stay where they are.
//!
//! If the entry's destination is quiesced or overloaded, the client gets none, unless `mh-fallback`
//! (`flag-1`) is set: then further entries are tried. With `mh-port` (`flag-2`) the client's port is
//! hashed too.

use super::server::{chosen, snapshots, Choice, DestLoad, Request, Server};
use super::{hash, wrr};
use crate::director::address::Address;
use crate::director::flags::{SERVICE_SCHED1, SERVICE_SCHED2};

/// Entries of a table, a prime number so that every skip visits all of them. As IPVS has it unless
/// the kernel was configured otherwise: 8 KiB. Of 40 destinations each has its share within 1 %, of
/// 1,024 three or four entries.
pub const TABLE_ENTRIES: usize = 4093;

/// An entry of nobody.
pub const NOBODY: u16 = u16::MAX;

/// Weights, divided by their greatest common divisor, have at most this many bits, so that one
/// destination does not fill the table before the others have a turn.
const TURNS_BITS_MAX: u32 = 6;

/// Keys of the two hashes: constants, so that directors agree without a word.
const OFFSET_KEY: [u64; 2] = [2_654_435_761; 2];
const SKIP_KEY: [u64; 2] = [2_654_446_892; 2];

/// A destination for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its address.
    pub address: Address,
    /// Its port.
    pub port: u16,
    /// Its weight, or the last one before it was set to 0.
    pub last_weight: u32,
}

/// Where a destination is in its order of entries: scratch memory for [`fill`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Visit {
    entry: usize,
    skip: usize,
    turns: u32,
}

/// Fills `table`, whose length must be prime, with the members' indices in their order.
///
/// `visits` is memory to work in, one for each member; members beyond its length, or beyond
/// [`NOBODY`], get no entries. Without a member that has a weight, every entry is [`NOBODY`]'s.
pub fn fill(
    members: impl Iterator<Item = Member> + Clone,
    visits: &mut [Visit],
    table: &mut [u16],
) {
    for entry in table.iter_mut() {
        *entry = NOBODY;
    }
    let entries = table.len();
    if prepare(members, visits, entries).is_none() {
        return;
    }
    let mut free = entries;
    while free > 0 {
        let free_before = free;
        for (visit, index) in visits.iter_mut().zip(0u16..NOBODY) {
            for _ in 0..visit.turns {
                if free == 0 {
                    return;
                }
                visit.take_next_free(table, index);
                free = free.saturating_sub(1);
            }
        }
        if free == free_before {
            return;
        }
    }
}

/// Where each member starts; `None` if nobody has a weight or the table is too short.
fn prepare(
    members: impl Iterator<Item = Member> + Clone,
    visits: &mut [Visit],
    entries: usize,
) -> Option<()> {
    let weights = members.clone().map(|member| member.last_weight);
    let divisor = weights.clone().fold(0, wrr::gcd);
    let largest = weights.fold(0, u32::max).checked_div(divisor)?;
    let bits = u32::BITS.saturating_sub(largest.leading_zeros());
    let shift = bits.saturating_sub(TURNS_BITS_MAX);
    for visit in visits.iter_mut() {
        *visit = Visit::default();
    }
    for (visit, member) in visits.iter_mut().zip(members) {
        let name = hash::fold(member.address, member.port);
        let offset = hash::sip_1_3(name, OFFSET_KEY) as usize;
        let skip = hash::sip_1_3(name, SKIP_KEY) as usize;
        let turns = member.last_weight.checked_div(divisor)?.wrapping_shr(shift);
        *visit = Visit {
            entry: offset.checked_rem(entries)?,
            skip: skip.checked_rem(entries.checked_sub(1)?)?.saturating_add(1),
            turns: turns.max(u32::from(member.last_weight > 0)),
        };
    }
    Some(())
}

impl Visit {
    /// Goes on to the next free entry and takes it; there must be one.
    fn take_next_free(&mut self, table: &mut [u16], index: u16) {
        // A prime length makes every skip reach every entry in this many steps.
        for _ in 0..table.len() {
            match table.get_mut(self.entry) {
                Some(entry) if *entry == NOBODY => {
                    *entry = index;
                    return;
                }
                _ => self.entry = self.after(table.len()),
            }
        }
    }

    /// The entry a skip further.
    const fn after(&self, entries: usize) -> usize {
        let next = self.entry.saturating_add(self.skip);
        if next >= entries {
            next.saturating_sub(entries)
        } else {
            next
        }
    }
}

/// The destination of the client's entry in the request's table.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    let destinations = snapshots(servers);
    let port = match request.flags & SERVICE_SCHED2 {
        0 => 0,
        _ => request.client_port,
    };
    let client = hash::fold(request.client, port);
    let first = entry_of(client, 0, request.table)?;
    let index = match available(destinations.clone(), first, request.table) {
        None if request.flags & SERVICE_SCHED1 != 0 => {
            fallback(destinations, client, first, request.table)
        }
        found => found,
    }?;
    Some(chosen(index, request.state))
}

/// The first available destination of the entries that further hashes of the client select.
fn fallback(
    destinations: impl Iterator<Item = DestLoad> + Clone,
    client: u32,
    first: usize,
    table: &[u16],
) -> Option<u32> {
    // Only if somebody is available, because this looks at the table as often as it is long.
    destinations.clone().find(DestLoad::is_eligible)?;
    let entries = table.len();
    (0..entries).find_map(|step| {
        let offset = step.saturating_add(first).checked_rem(entries)?;
        let entry = entry_of(client, offset, table)?;
        available(destinations.clone(), entry, table)
    })
}

/// The number of the entry that the client selects, `offset` added to its hash's input.
fn entry_of(client: u32, offset: usize, table: &[u16]) -> Option<usize> {
    let hash = hash::sip_1_3(client.wrapping_add(offset as u32), OFFSET_KEY);
    (hash as usize).checked_rem(table.len())
}

/// The destination that has this entry, if it is available.
fn available(
    mut destinations: impl Iterator<Item = DestLoad>,
    entry: usize,
    table: &[u16],
) -> Option<u32> {
    let index = *table.get(entry)?;
    let destination = destinations.nth(usize::from(index))?;
    destination.is_eligible().then_some(u32::from(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's algorithm as it is printed, for members of equal weight.
    fn paper(visits: &[Visit], entries: usize) -> [u16; 251] {
        let permutation = |i: usize, j: usize| (visits[i].entry + j * visits[i].skip) % entries;
        let mut next = [0; 5];
        let mut table = [NOBODY; 251];
        let mut n = 0;
        loop {
            for i in 0..visits.len() {
                while table[permutation(i, next[i])] != NOBODY {
                    next[i] += 1;
                }
                table[permutation(i, next[i])] = i as u16;
                next[i] += 1;
                n += 1;
                if n == entries {
                    return table;
                }
            }
        }
    }

    #[test]
    fn a_table_is_filled_as_the_paper_says() {
        let members = (1..=5).map(|last| Member {
            address: Address::V4([10, 0, 0, last]),
            port: 80,
            last_weight: 3,
        });
        let mut visits = [Visit::default(); 5];
        prepare(members.clone(), &mut visits, 251);
        let expected = paper(&visits, 251);
        let mut table = [0; 251];
        fill(members, &mut visits, &mut table);
        assert_eq!(table, expected);
    }
}
