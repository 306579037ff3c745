// SPDX-License-Identifier: GPL-2.0-only
//! The pure code compiled alone with the kernel's flags, so that the build can look for panic
//! symbols in it. Nothing is linked from here. Generic functions are instantiated below, so that
//! they are looked at as well.

pub mod director;
pub mod uapi;

use director::sched::mh::{self, Member, Visit};
use director::sched::{Choice, DestLoad, NoDestination, Request, Scheduler};

/// Every scheduler, over a slice as the module has it.
#[inline(never)]
pub fn check_schedule(
    scheduler: Scheduler,
    destinations: &[DestLoad],
    request: &Request<'_>,
) -> Result<Choice, NoDestination> {
    scheduler.choose(destinations, request)
}

/// A Maglev table from a slice.
#[inline(never)]
pub fn check_fill(members: &[Member], visits: &mut [Visit], table: &mut [u16]) {
    mh::fill(members.iter().copied(), visits, table);
}
