// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Weighted failover as in IPVS: every connection goes to the available destination with the highest
//! weight, the first of equals. Slow start does not apply: there is nobody to share with.

use super::server::{chosen, eligible, snapshots, Choice, Request, Server};

/// The first destination with the highest weight.
#[inline(never)]
pub(super) fn select(servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
    eligible(snapshots(servers))
        .reduce(|highest, other| {
            if other.1.weight > highest.1.weight {
                other
            } else {
                highest
            }
        })
        .map(|(index, _)| chosen(index, request.state))
}
