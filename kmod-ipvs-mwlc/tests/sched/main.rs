// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The schedulers.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use ipvs_mwlc::director::address::Address;
use ipvs_mwlc::director::sched::mh::{self, Member, Visit};
use ipvs_mwlc::director::sched::{DestLoad, NoDestination, Request, SchedState, Scheduler};

mod connections;
mod counting;
mod hashing;
mod modified_delay;
mod slow_start;

const SIZE: u64 = 1000;

fn weights(weights: &[u32]) -> Vec<DestLoad> {
    weights
        .iter()
        .map(|weight| DestLoad {
            weight: *weight,
            ..DestLoad::default()
        })
        .collect()
}

/// The indices that `count` calls choose when nothing changes but the scheduler's state.
fn order(scheduler: Scheduler, destinations: &[DestLoad], count: usize) -> Vec<u32> {
    let mut state = SchedState::NEW;
    (0..count)
        .map(|_| {
            let choice = scheduler
                .choose(destinations, &Request::new(state, SIZE))
                .unwrap();
            state = choice.state;
            choice.index
        })
        .collect()
}

fn choose(scheduler: Scheduler, destinations: &[DestLoad]) -> Result<u32, NoDestination> {
    scheduler
        .choose(destinations, &Request::new(SchedState::NEW, SIZE))
        .map(|choice| choice.index)
}

/// The table of destinations at 10.0.0.1 and following, port 80.
fn maglev_table(destinations: &[DestLoad]) -> Vec<u16> {
    let mut table = vec![0; mh::TABLE_ENTRIES];
    let mut visits = vec![Visit::default(); destinations.len()];
    let members = destinations.iter().zip(1..).map(|(dest, last)| Member {
        address: Address::V4([10, 0, 0, last]),
        port: 80,
        last_weight: dest.weight,
    });
    mh::fill(members, &mut visits, &mut table);
    table
}
