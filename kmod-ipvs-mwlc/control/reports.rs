// SPDX-License-Identifier: GPL-2.0-only
//! The command by which a node says how much it has open.

use kernel::sync::rcu::read_lock;

use crate::director::address::Address;
use crate::director::errno::{Errno, Reject};
use crate::director::report::{share, Report};
use crate::kapi::clock::Ticks;
use crate::state::balancer::Balancer;
use crate::state::reports::Reported;

/// Takes in a node's report: its real servers of every service hear of it.
pub(super) fn take(
    balancer: &Balancer,
    address: Address,
    report: Report,
) -> core::result::Result<(), Reject> {
    let at = Ticks::now();
    let (mut node_bytes, mut is_known) = (0u64, false);
    {
        let guard = read_lock();
        let destinations = || {
            let services = balancer.services.load(&guard).all();
            services
                .iter()
                .flat_map(|service| service.destinations(&guard))
                .filter(|destination| destination.key().address == address)
        };
        for destination in destinations() {
            node_bytes = node_bytes.saturating_add(destination.load().bytes);
            is_known = true;
        }
        for destination in destinations() {
            let own_bytes = destination.load().bytes;
            destination.report(share(report.open_bytes, node_bytes, own_bytes), at);
        }
    }
    if !is_known {
        return Err(Reject::new(
            Errno::NoEntry,
            c"no service has a real server with this node's address",
        ));
    }
    balancer.reports.keep(Reported {
        address,
        report,
        at,
    })
}
