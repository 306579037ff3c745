// SPDX-License-Identifier: GPL-2.0-only
//! The stock `IPVS` family, so that ipvsadm, keepalived and moby/ipvs configure the director
//! unchanged.

use core::ffi::CStr;

use kernel::prelude::pr_info;
use kernel::sync::rcu::{read_lock, Guard};
use kernel::sync::Arc;

use super::{
    copy_services, dump_from, find_service, namespace, no_memory, service, too_long,
    NO_DESTINATION, NO_SERVICE,
};
use crate::director::config::{DestConfig, DestKey, ServiceConfig, ServiceEdit};
use crate::director::drain::DrainPolicy;
use crate::director::errno::{Errno, Reject};
use crate::director::event::Event;
use crate::director::ipvs_family::{
    encode_config, encode_destination, encode_info, encode_service, parse_command, Command,
    DestinationView, RequestKind, ServiceView, DESTINATION_REPLY_BYTES_MAX,
    SERVICE_REPLY_BYTES_MAX,
};
use crate::director::limits::{DESTINATIONS_PER_SERVICE_MAX, SERVICES_MAX};
use crate::director::service_key::ServiceKey;
use crate::director::timeouts::{Timeouts, TimeoutsUpdate};
use crate::kapi::netlink::{
    Cursor, DumpMessage, Family, Operation, Reply, Request, REPLY_BYTES_MAX,
};
use crate::state::balancer::{table_size, Balancer};
use crate::state::complaint::Complaint;
use crate::state::destination::Destination;
use crate::state::service::Service;
use crate::state::services::Services;
use crate::uapi::ipvs::{command, FAMILY_NAME, FAMILY_VERSION};
use crate::upkeep::{drains, totals};

type Result<T = ()> = core::result::Result<T, Reject>;

const _: () = assert!(
    SERVICE_REPLY_BYTES_MAX <= REPLY_BYTES_MAX && DESTINATION_REPLY_BYTES_MAX <= REPLY_BYTES_MAX,
    "every reply fits its buffer"
);

/// The family.
pub(crate) struct Ipvs;

/// What the director does not have was asked for.
static UNSUPPORTED: Complaint = Complaint::new();

/// Says in the log what is not supported: ipvsadm has words of its own for the errno, wrong ones,
/// and hides ours.
fn complain(reject: &Reject) {
    if reject.errno == Errno::NotSupported && UNSUPPORTED.is_due() {
        let message = reject.message.to_str().unwrap_or_default();
        pr_info!("a request was refused: {}\n", message);
    }
}

impl Family for Ipvs {
    const NAME: &'static CStr = FAMILY_NAME;
    const VERSION: u8 = FAMILY_VERSION;
    const OPERATIONS: &'static [Operation] = &[
        Operation::acts(command::NEW_SERVICE),
        Operation::acts(command::SET_SERVICE),
        Operation::acts(command::DEL_SERVICE),
        Operation {
            command: command::GET_SERVICE,
            acts: true,
            dumps: true,
        },
        Operation::acts(command::NEW_DEST),
        Operation::acts(command::SET_DEST),
        Operation::acts(command::DEL_DEST),
        Operation::dumps(command::GET_DEST),
        Operation::acts(command::NEW_DAEMON),
        Operation::acts(command::DEL_DAEMON),
        Operation::dumps(command::GET_DAEMON),
        Operation::acts(command::SET_CONFIG),
        Operation::acts(command::GET_CONFIG),
        Operation::acts(command::GET_INFO),
        Operation::acts(command::ZERO),
        Operation::acts(command::FLUSH),
    ];

    fn act(request: &Request<'_>, reply: &mut Reply) -> Result {
        let parsed = parse_command(request.command, RequestKind::Do, request.attributes)
            .inspect_err(complain)?;
        let namespace = namespace(request)?;
        match parsed {
            Command::NewService(config) => namespace.configure(|b| new_service(b, config)),
            Command::SetService(edit) => namespace.configure(|b| set_service(b, &edit)),
            Command::DelService(key) => namespace.configure(|b| delete_service(b, &key)),
            Command::NewDestination(key, config) => {
                namespace.configure(|b| new_destination(b, &key, &config))
            }
            Command::SetDestination(key, config) => {
                namespace.configure(|b| set_destination(b, &key, &config))
            }
            Command::DelDestination(key, gone) => {
                let gone = namespace.configure(|b| delete_destination(b, &key, &gone))?;
                // The others' connections end with their next packet.
                if gone.drain.policy() == DrainPolicy::Redispatch {
                    if let Some(balancer) = namespace.balancer() {
                        drains::evict(&balancer, &gone, DrainPolicy::Redispatch);
                    }
                }
                Ok(())
            }
            Command::SetConfig(update) => namespace.configure(|b| set_timeouts(b, update)),
            Command::Zero(key) => namespace.configure(|b| zero(b, key.as_ref())),
            Command::Flush => namespace.configure(flush),
            Command::GetService(key) => {
                let balancer = namespace.balancer().ok_or(NO_SERVICE)?;
                let guard = read_lock();
                let view = view_service(service(&balancer, &key, &guard)?, &guard);
                reply
                    .put(command::NEW_SERVICE, |to| encode_service(to, &view))
                    .map_err(too_long)
            }
            Command::GetConfig => {
                let timeouts = namespace.balancer().map_or(Timeouts::DEFAULT, |balancer| {
                    *balancer.timeouts(&read_lock())
                });
                reply
                    .put(command::SET_CONFIG, |to| encode_config(to, &timeouts))
                    .map_err(too_long)
            }
            Command::GetInfo => reply
                .put(command::SET_INFO, |to| encode_info(to, table_size()))
                .map_err(too_long),
            // `parse_command` gives these for dumps only.
            Command::DumpServices | Command::DumpDestinations(_) | Command::DumpDaemons => Ok(()),
        }
    }

    fn dump(request: &Request<'_>, cursor: &mut Cursor, message: &mut DumpMessage) -> Result {
        let parsed = parse_command(request.command, RequestKind::Dump, request.attributes)?;
        let Some(balancer) = namespace(request)?.balancer() else {
            return Ok(());
        };
        let guard = read_lock();
        match parsed {
            Command::DumpServices => dump_services(&balancer, cursor, message, &guard),
            Command::DumpDestinations(key) => {
                dump_destinations(&balancer, &key, cursor, message, &guard)
            }
            // There are no daemons, and everything else is no dump.
            _ => {}
        }
        Ok(())
    }
}

fn new_service(balancer: &Balancer, config: ServiceConfig) -> Result {
    let mut services = copy_services(balancer, |_| true)?;
    if services.get(&config.key).is_some() {
        return Err(Reject::new(
            Errno::Exists,
            c"this virtual service exists already: edit it with ipvsadm -E",
        ));
    }
    if services.all().len() >= SERVICES_MAX {
        return Err(Reject::new(
            Errno::NoSpace,
            c"a namespace has at most 1024 virtual services",
        ));
    }
    let key = config.key;
    let service = Service::new(config).map_err(no_memory)?;
    services.insert(service).map_err(no_memory)?;
    balancer.services.replace(services).map_err(no_memory)?;
    balancer.tell(&Event::ServiceAdded(key));
    Ok(())
}

fn set_service(balancer: &Balancer, edit: &ServiceEdit) -> Result {
    let service = find_service(balancer, &edit.key)?;
    let config = edit.apply(service.config(&read_lock()))?;
    service.configure(config).map_err(no_memory)?;
    balancer.tell(&Event::ServiceEdited(edit.key));
    Ok(())
}

fn delete_service(balancer: &Balancer, key: &ServiceKey) -> Result {
    let gone = find_service(balancer, key)?;
    let services = copy_services(balancer, |other| other.key() != *key)?;
    balancer.services.replace(services).map_err(no_memory)?;
    retire(balancer, &gone);
    balancer.forget_removed();
    balancer.tell(&Event::ServiceRemoved(*key));
    Ok(())
}

fn flush(balancer: &Balancer) -> Result {
    let gone = copy_services(balancer, |_| true)?;
    balancer
        .services
        .replace(Services::new())
        .map_err(no_memory)?;
    for service in gone.all() {
        retire(balancer, service);
        balancer.tell(&Event::ServiceRemoved(service.key()));
    }
    balancer.forget_removed();
    Ok(())
}

/// A service has left the table.
fn retire(balancer: &Balancer, gone: &Service) {
    gone.retire();
    for destination in gone.destinations(&read_lock()) {
        balancer.totals.retire(destination);
    }
}

fn new_destination(balancer: &Balancer, key: &ServiceKey, config: &DestConfig) -> Result {
    let service = find_service(balancer, key)?;
    let (exists, count) = {
        let guard = read_lock();
        (
            service.destination(&config.key, &guard).is_some(),
            service.destinations(&guard).len(),
        )
    };
    if exists {
        return Err(Reject::new(
            Errno::Exists,
            c"the service has this real server already: edit it with ipvsadm -e",
        ));
    }
    if count >= DESTINATIONS_PER_SERVICE_MAX {
        return Err(Reject::new(
            Errno::NoSpace,
            c"a virtual service has at most 1024 real servers",
        ));
    }
    let expectation = service.expectation.clone();
    let destination = Destination::new(*key, config, expectation).map_err(no_memory)?;
    service.starts_slowly(&destination);
    service.add(destination).map_err(no_memory)?;
    balancer.tell(&Event::DestAdded(*key, config.key));
    Ok(())
}

fn set_destination(balancer: &Balancer, key: &ServiceKey, config: &DestConfig) -> Result {
    let service = find_service(balancer, key)?;
    let destination = service
        .destination(&config.key, &read_lock())
        .cloned()
        .ok_or(NO_DESTINATION)?;
    if destination.config().weight == 0 && config.weight > 0 {
        service.starts_slowly(&destination);
    }
    destination.configure(config);
    service.follow_settings().map_err(no_memory)?;
    balancer.tell(&Event::DestEdited(*key, config.key));
    Ok(())
}

/// The real server that is gone.
fn delete_destination(
    balancer: &Balancer,
    key: &ServiceKey,
    gone: &DestKey,
) -> Result<Arc<Destination>> {
    let service = find_service(balancer, key)?;
    let gone: Arc<Destination> = service
        .destination(gone, &read_lock())
        .cloned()
        .ok_or(NO_DESTINATION)?;
    service.remove(&gone).map_err(no_memory)?;
    balancer.totals.retire(&gone);
    balancer.forget_removed();
    balancer.tell(&Event::DestRemoved(*key, gone.key()));
    Ok(gone)
}

fn set_timeouts(balancer: &Balancer, update: TimeoutsUpdate) -> Result {
    let timeouts = update.apply(balancer.timeouts(&read_lock()))?;
    balancer.set_timeouts(timeouts).map_err(no_memory)
}

fn zero(balancer: &Balancer, key: Option<&ServiceKey>) -> Result {
    if let Some(key) = key {
        return find_service(balancer, key)?.zero().map_err(no_memory);
    }
    for service in copy_services(balancer, |_| true)?.all() {
        service.zero().map_err(no_memory)?;
    }
    totals::zero(balancer);
    Ok(())
}

fn view_service(service: &Service, guard: &Guard) -> ServiceView {
    ServiceView {
        config: *service.config(guard),
        stats: service.stats(guard),
    }
}

fn view_destination(destination: &Destination) -> DestinationView {
    let load = destination.load();
    DestinationView {
        config: destination.config(),
        active: load.active,
        inactive: load.inactive.saturating_add(load.pending),
        persistent: destination.templates(),
        stats: destination.stats(),
    }
}

/// The cursor's first word is the index of the next service.
fn dump_services(
    balancer: &Balancer,
    cursor: &mut Cursor,
    message: &mut DumpMessage,
    guard: &Guard,
) {
    let services = balancer.services.load(guard).all();
    let _all = dump_from(services.iter(), &mut cursor[0], |service| {
        let view = view_service(service, guard);
        message.entry(command::NEW_SERVICE, |to| encode_service(to, &view))
    });
}

/// The cursor's first word is the index of the next destination. Without the service there is
/// nothing to say.
fn dump_destinations(
    balancer: &Balancer,
    key: &ServiceKey,
    cursor: &mut Cursor,
    message: &mut DumpMessage,
    guard: &Guard,
) {
    let Some(service) = balancer.services.load(guard).get(key) else {
        return;
    };
    let destinations = service.destinations(guard);
    let _all = dump_from(destinations.iter(), &mut cursor[0], |destination| {
        let view = view_destination(destination);
        message.entry(command::NEW_DEST, |to| encode_destination(to, &view))
    });
}
