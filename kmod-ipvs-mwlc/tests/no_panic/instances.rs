// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The director with its generic functions instantiated, so that an object file has all of its code.
#![no_std]
#![forbid(unsafe_code)]

#[path = "../../director/mod.rs"]
pub mod director;
#[path = "../../uapi.rs"]
pub mod uapi;

use director::netlink::{AttributeTable, Attributes};
use director::sched::mh::{self, Member, Visit};
use director::sched::{Choice, DestLoad, NoDestination, Request, Scheduler};
use director::size_cache::{Look, Set};

/// Every scheduler over a slice.
#[inline(never)]
pub fn schedule(
    scheduler: Scheduler,
    destinations: &[DestLoad],
    request: &Request<'_>,
) -> Result<Choice, NoDestination> {
    scheduler.choose(destinations, request)
}

/// A table of the most slots in use.
#[inline(never)]
pub fn table(bytes: &[u8]) -> Option<AttributeTable<'_, 16>> {
    Attributes::new(bytes).table().ok()
}

/// A Maglev table from a slice.
#[inline(never)]
pub fn fill(members: &[Member], visits: &mut [Visit], table: &mut [u16]) {
    mh::fill(members.iter().copied(), visits, table);
}

/// The set of a size cache, with names that own nothing.
#[inline(never)]
pub fn size_cache(set: &mut Set<&'static [u8]>, name: &'static [u8], now_ms: u64) -> Look {
    drop(set.put(1, name, Some(1), 1, now_ms));
    drop(set.remove(1, name));
    let _count = set.entries(now_ms).next();
    set.look(1, name, now_ms)
}
