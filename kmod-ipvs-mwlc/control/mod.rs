// SPDX-License-Identifier: GPL-2.0-only
//! Configuration: the two generic-netlink families, carried out on a namespace's balancer.
//!
//! Parsing, refusing what makes no sense by itself, and writing replies are pure code in
//! `director/`. Here is what depends on what is configured already.

mod drain;
pub(crate) mod ipvs;
pub(crate) mod mwlc;
pub(crate) mod proc;
mod reports;
mod sizes;

use kernel::error::Error;
use kernel::sync::rcu::{read_lock, Guard};
use kernel::sync::Arc;

use crate::director::errno::{Errno, Reject};
use crate::director::netlink::Full;
use crate::director::service_key::ServiceKey;
use crate::kapi::netlink::Request;
use crate::kapi::pernet;
use crate::namespace::Namespace;
use crate::state::balancer::Balancer;
use crate::state::service::Service;
use crate::state::services::Services;

const NO_SERVICE: Reject = Reject::new(
    Errno::NoService,
    c"no such virtual service: ipvsadm -Ln lists them, ipvsadm -A adds one",
);
const NO_DESTINATION: Reject = Reject::new(
    Errno::NoEntry,
    c"the service has no such real server: ipvsadm -Ln lists them, ipvsadm -a adds one",
);
const NO_MEMORY: Reject = Reject::new(Errno::NoMemory, c"no memory for this change");
const REPLY_TOO_LONG: Reject = Reject::new(
    Errno::MessageSize,
    c"the reply does not fit its buffer; please report this",
);

/// The state of the namespace that a request comes from.
fn namespace<'a>(request: &'a Request<'_>) -> core::result::Result<&'a Namespace, Reject> {
    pernet::state::<Namespace>(&request.net).ok_or(Reject::new(
        Errno::Invalid,
        c"this network namespace is being taken down",
    ))
}

/// A failed change. All that can fail in one is allocation.
fn no_memory(_error: impl Into<Error>) -> Reject {
    NO_MEMORY
}

fn too_long(_full: Full) -> Reject {
    REPLY_TOO_LONG
}

/// A service that must be there.
fn service<'g>(
    balancer: &'g Balancer,
    key: &ServiceKey,
    guard: &'g Guard,
) -> core::result::Result<&'g Arc<Service>, Reject> {
    balancer.services.load(guard).get(key).ok_or(NO_SERVICE)
}

/// A service that must be there, to be kept beyond a guard.
fn find_service(
    balancer: &Balancer,
    key: &ServiceKey,
) -> core::result::Result<Arc<Service>, Reject> {
    service(balancer, key, &read_lock()).cloned()
}

/// Writes entries of a dump, from the one with index `next` on; false if one did not fit. It is then the next.
fn dump_from<T>(
    entries: impl Iterator<Item = T>,
    next: &mut u64,
    mut write: impl FnMut(T) -> core::result::Result<(), Full>,
) -> bool {
    for entry in entries.skip(*next as usize) {
        if write(entry).is_err() {
            return false;
        }
        *next = next.wrapping_add(1);
    }
    true
}

/// A list of services to change and put in the place of the present one: those that `keep` keeps,
/// and room for one more. Under the namespace's mutex.
fn copy_services(
    balancer: &Balancer,
    keep: impl Fn(&Service) -> bool,
) -> core::result::Result<Services, Reject> {
    let length = balancer.services.load(&read_lock()).all().len();
    let mut copy = Services::with_capacity_for(length).map_err(no_memory)?;
    copy.fill(balancer.services.load(&read_lock()), keep)
        .map_err(no_memory)?;
    Ok(copy)
}
