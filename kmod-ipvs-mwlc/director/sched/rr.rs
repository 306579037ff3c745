// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Round robin: each eligible destination in turn, weights beside 0 ignored.

use super::server::{chosen, eligible, snapshots, Choice, Request, Server};

/// The first eligible destination at or after the turn, else the first of all.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    let state = request.state;
    let mut first = None;
    for (index, _) in eligible(snapshots(servers)) {
        if index >= state.next {
            return Some(chosen(index, state));
        }
        first = first.or(Some(index));
    }
    first.map(|index| chosen(index, state))
}
