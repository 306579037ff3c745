// SPDX-License-Identifier: GPL-2.0-only
//! The lookup table of a service that schedules by Maglev hashing.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::director::sched::mh::{self, Member, Visit, NOBODY, TABLE_ENTRIES};
use crate::director::sched::Scheduler;
use crate::state::destination::Destination;

/// The table for these real servers; empty for a scheduler that needs none. Sleeps.
pub(crate) fn table(policy: Scheduler, list: &[Arc<Destination>]) -> Result<KVec<u16>> {
    if !policy.needs_table() {
        return Ok(KVec::new());
    }
    let mut table = KVec::from_elem(NOBODY, TABLE_ENTRIES, GFP_KERNEL)?;
    let mut visits = KVec::from_elem(Visit::default(), list.len(), GFP_KERNEL)?;
    let members = list.iter().map(|destination| {
        let key = destination.key();
        Member {
            address: key.address,
            port: key.port,
            last_weight: destination.last_weight(),
        }
    });
    mh::fill(members, &mut visits, &mut table);
    Ok(table)
}
