// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Never queue as in IPVS: the first idle destination, however slow; if none is idle, as sed.

use super::ratio::is_less;
use super::sed::Delay;
use super::server::{chosen, eligible, snapshots, Choice, DestLoad, Request, Server};

/// The first idle destination, else the first with the least expected delay.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    let mut least: Option<(u32, DestLoad)> = None;
    for (index, destination) in eligible(snapshots(servers)) {
        if destination.live() == 0 {
            return Some(chosen(index, request.state));
        }
        let is_better = match &least {
            Some((_, least)) => is_less(&Delay, &destination, least),
            None => true,
        };
        if is_better {
            least = Some((index, destination));
        }
    }
    least.map(|(index, _)| chosen(index, request.state))
}
