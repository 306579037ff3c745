// SPDX-License-Identifier: GPL-2.0-only
//! The command that drains a real server.

use kernel::sync::rcu::read_lock;

use super::{find_service, no_memory, NO_DESTINATION};
use crate::director::config::DestKey;
use crate::director::drain::DrainRequest;
use crate::director::errno::Reject;
use crate::director::event::Event;
use crate::director::service_key::ServiceKey;
use crate::state::balancer::Balancer;

/// Begins a drain, or changes one. Under the namespace's mutex.
pub(super) fn drain(
    balancer: &Balancer,
    key: &ServiceKey,
    which: &DestKey,
    request: DrainRequest,
) -> core::result::Result<(), Reject> {
    let service = find_service(balancer, key)?;
    service
        .destination(which, &read_lock())
        .ok_or(NO_DESTINATION)?
        .begin_drain(request);
    service.follow_settings().map_err(no_memory)?;
    balancer.tell(&Event::DestEdited(*key, *which));
    Ok(())
}
