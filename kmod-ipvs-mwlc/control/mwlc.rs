// SPDX-License-Identifier: GPL-2.0-only
//! Our own family `ipvs_mwlc`: expected sizes, loads and connections.

use core::ffi::CStr;

use kernel::sync::rcu::{read_lock, Guard};

use super::drain::drain;
use super::{dump_from, find_service, namespace, reports, sizes, NO_SERVICE};
use crate::director::errno::{Errno, Reject};
use crate::director::event::Event;
use crate::director::flow::{FlowKey, Tuple};
use crate::director::ipvs_family::RequestKind;
use crate::director::mwlc_family::{
    encode_connection, encode_destination, encode_node, encode_service, parse_command, Command,
    DestinationView, ServiceView, TableCursor, REPLY_BYTES_MAX as MWLC_REPLY_BYTES_MAX,
    SIZE_REPLY_BYTES_MAX,
};
use crate::director::service_key::ServiceKey;
use crate::kapi::clock::Ticks;
use crate::kapi::netlink::{
    Cursor, DumpMessage, Family, Operation, Published, Reply, Request, REPLY_BYTES_MAX,
};
use crate::state::balancer::Balancer;
use crate::state::channel::{GROUPS, PUBLISHED};
use crate::state::service::Service;
use crate::uapi::mwlc::{command, FAMILY_NAME, FAMILY_VERSION};

type Result<T = ()> = core::result::Result<T, Reject>;

const _: () = assert!(
    MWLC_REPLY_BYTES_MAX <= REPLY_BYTES_MAX && SIZE_REPLY_BYTES_MAX <= REPLY_BYTES_MAX,
    "every reply fits its buffer"
);

const NO_CONNECTION: Reject = Reject::new(
    Errno::NoEntry,
    c"no such connection: it has ended, or never was",
);

/// The family.
pub(crate) struct Mwlc;

impl Family for Mwlc {
    const NAME: &'static CStr = FAMILY_NAME;
    const VERSION: u8 = FAMILY_VERSION;
    const OPERATIONS: &'static [Operation] = &[
        Operation::dumps(command::GET_SERVICE),
        Operation::acts(command::SET_SERVICE),
        Operation::dumps(command::GET_DEST),
        Operation::dumps(command::GET_CONN),
        Operation::acts(command::SET_CONN),
        Operation::acts(command::DRAIN),
        Operation::dumps(command::GET_SIZE),
        Operation::acts(command::SET_SIZE),
        Operation::acts(command::DEL_SIZE),
        Operation::acts(command::REPORT),
        Operation::dumps(command::GET_NODE),
    ];
    const GROUPS: &'static [&'static CStr] = GROUPS;

    fn published() -> Option<&'static Published> {
        Some(&PUBLISHED)
    }

    fn act(request: &Request<'_>, _reply: &mut Reply) -> Result {
        let parsed = parse_command(request.command, RequestKind::Do, request.attributes)?;
        let namespace = namespace(request)?;
        match parsed {
            Command::SetExpectedSize {
                service,
                configured_bytes,
                policy,
                learn,
                remaining,
                slow_start_ms,
            } => namespace.configure(|balancer| {
                let service = find_service(balancer, &service)?;
                service.expectation.configure(configured_bytes, policy);
                service.expectation.set_watch(learn, remaining);
                if let Some(slow_start_ms) = slow_start_ms {
                    service.set_slow_start(slow_start_ms);
                }
                balancer.tell(&Event::ServiceEdited(service.key()));
                Ok(())
            }),
            Command::Drain(service, which, request) => {
                namespace.configure(|balancer| drain(balancer, &service, &which, request))
            }
            Command::SetConnectionSize { tuple, size_bytes } => {
                let balancer = namespace.balancer().ok_or(NO_CONNECTION)?;
                set_connection_size(&balancer, &tuple, size_bytes)
            }
            Command::SetSize(answer) => match namespace.balancer() {
                Some(balancer) => sizes::put(&balancer, &answer),
                None => Err(NO_SERVICE),
            },
            Command::Report(address, report) => {
                namespace.configure(|balancer| reports::take(balancer, address, report))
            }
            Command::ForgetSize(name) => match namespace.balancer() {
                Some(balancer) => sizes::forget(&balancer, name.as_ref()),
                None => Err(NO_SERVICE),
            },
            // `parse_command` gives these for dumps only.
            Command::DumpServices
            | Command::DumpDestinations(_)
            | Command::DumpConnections
            | Command::DumpSizes
            | Command::DumpNodes => Ok(()),
        }
    }

    fn dump(request: &Request<'_>, cursor: &mut Cursor, message: &mut DumpMessage) -> Result {
        let parsed = parse_command(request.command, RequestKind::Dump, request.attributes)?;
        let balancer = namespace(request)?.balancer();
        if let (Command::DumpNodes, Some(balancer)) = (&parsed, &balancer) {
            dump_nodes(balancer, cursor, message);
            return Ok(());
        }
        let guard = read_lock();
        match (parsed, balancer) {
            (Command::DumpServices, Some(balancer)) => {
                dump_services(&balancer, cursor, message, &guard);
            }
            (Command::DumpDestinations(key), Some(balancer)) => {
                return dump_destinations(&balancer, key.as_ref(), cursor, message, &guard);
            }
            (Command::DumpDestinations(Some(_)), None) => return Err(NO_SERVICE),
            (Command::DumpSizes, Some(balancer)) => sizes::dump(&balancer, cursor, message),
            (Command::DumpConnections, Some(balancer)) => {
                dump_connections(&balancer, cursor, message, &guard);
            }
            // Nothing is configured; and everything else is no dump.
            _ => {}
        }
        Ok(())
    }
}

/// The size is the connection's from now on, and the service learns from it.
fn set_connection_size(balancer: &Balancer, tuple: &Tuple, size_bytes: u64) -> Result {
    let guard = read_lock();
    let connection = balancer
        .connection(&FlowKey::of(tuple).ok_or(NO_CONNECTION)?, &guard)
        .ok_or(NO_CONNECTION)?;
    if !connection.set_size(size_bytes) {
        return Err(NO_CONNECTION);
    }
    connection.destination.expectation.learn(size_bytes);
    Ok(())
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
        let view = ServiceView {
            key: service.key(),
            policy: service.config(guard).policy(),
            expected: service.expectation.size(),
            learn: service.expectation.learns(),
            remaining: service.expectation.counts_remaining(),
            slow_start_ms: service.slow_start_ms(),
            refused: service.refusals(),
        };
        message.entry(command::GET_SERVICE, |to| encode_service(to, &view))
    });
}

/// The cursor is the indices of the next service and its next destination. With a key, that service
/// is the only one.
fn dump_destinations(
    balancer: &Balancer,
    key: Option<&ServiceKey>,
    cursor: &mut Cursor,
    message: &mut DumpMessage,
    guard: &Guard,
) -> Result {
    let services = balancer.services.load(guard);
    if let Some(key) = key {
        let service = services.get(key).ok_or(NO_SERVICE)?;
        dump_destinations_of(service, &mut cursor[1], message, guard);
        return Ok(());
    }
    for service in services.all().iter().skip(cursor[0] as usize) {
        if !dump_destinations_of(service, &mut cursor[1], message, guard) {
            return Ok(());
        }
        *cursor = [cursor[0].wrapping_add(1), 0];
    }
    Ok(())
}

/// False if one did not fit.
fn dump_destinations_of(
    service: &Service,
    next: &mut u64,
    message: &mut DumpMessage,
    guard: &Guard,
) -> bool {
    dump_from(service.destinations(guard).iter(), next, |destination| {
        let view = DestinationView {
            service: service.key(),
            key: destination.key(),
            load: destination.load(),
            counters: destination.stats().counters,
            persistent: destination.templates(),
            drain: destination.drain.view(),
            reported: destination.reported(),
        };
        message.entry(command::GET_DEST, |to| encode_destination(to, &view))
    })
}

/// The cursor's first word is the index of the next node. Sleeps.
fn dump_nodes(balancer: &Balancer, cursor: &mut Cursor, message: &mut DumpMessage) {
    while let Some(node) = balancer.reports.get(cursor[0] as usize) {
        let age_ms = Some(Ticks::now().ms_since(node.at));
        let written = message.entry(command::GET_NODE, |to| {
            encode_node(to, node.address, &node.report, age_ms)
        });
        if written.is_err() {
            return;
        }
        cursor[0] = cursor[0].wrapping_add(1);
    }
}

/// The cursor's first word is a [`TableCursor`].
fn dump_connections(
    balancer: &Balancer,
    cursor: &mut Cursor,
    message: &mut DumpMessage,
    guard: &Guard,
) {
    let timeouts = balancer.timeouts(guard);
    let mut at = TableCursor::from_bits(cursor[0]);
    while (at.bucket as usize) < balancer.connections.buckets() {
        let chain = balancer.connections.entries(at.bucket as usize, guard);
        for connection in chain.skip(at.skip as usize) {
            if let Some(record) = connection.record(timeouts) {
                if message
                    .entry(command::GET_CONN, |to| encode_connection(to, &record))
                    .is_err()
                {
                    cursor[0] = at.to_bits();
                    return;
                }
            }
            at = at.after_entry();
        }
        at = at.after_bucket();
    }
    cursor[0] = at.to_bits();
}
