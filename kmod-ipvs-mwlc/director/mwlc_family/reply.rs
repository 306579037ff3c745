// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Replies of the `ipvs_mwlc` family, from plain views to attributes.

use crate::director::config::DestKey;
use crate::director::conn::ConnState;
use crate::director::drain::DrainView;
use crate::director::event::Event;
use crate::director::flow::Tuple;
use crate::director::load::{ExpectedSize, Learn};
use crate::director::netlink::{Encoder, Full};
use crate::director::record::ConnectionRecord;
use crate::director::refusals::Refusals;
use crate::director::sched::{DestLoad, Scheduler};
use crate::director::service_key::ServiceKey;
use crate::director::stats::Counters;
use crate::uapi::mwlc::{attribute, conn, dest, event, service};

/// No reply of this family is longer.
pub const REPLY_BYTES_MAX: usize = 256;

/// What a reply says about a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// The service's name.
    pub key: ServiceKey,
    /// The scheduler that decides.
    pub policy: Scheduler,
    /// What its connections are expected to fetch.
    pub expected: ExpectedSize,
    /// Whether sizes are learned from packets.
    pub learn: Learn,
    /// Whether what was delivered counts no more.
    pub remaining: bool,
    /// How long a real server takes to its whole weight.
    pub slow_start_ms: u32,
    /// Clients that were turned away.
    pub refused: Refusals,
}

/// What a reply says about a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationView {
    /// Its service.
    pub service: ServiceKey,
    /// The destination's name within its service.
    pub key: DestKey,
    /// What schedulers see of it.
    pub load: DestLoad,
    /// Its counters.
    pub counters: Counters,
    /// Persistence templates that name it.
    pub persistent: u32,
    /// How far it is, if it drains.
    pub drain: Option<DrainView>,
    /// Its part of what its node last reported as open, in bytes, and how long ago in milliseconds;
    /// `None` if it never has.
    pub reported: Option<(u64, u64)>,
}

/// Writes a SERVICE nest.
pub fn encode_service(encoder: &mut Encoder<'_>, view: &ServiceView) -> Result<(), Full> {
    let nest = encoder.nest(attribute::SERVICE)?;
    service_key(encoder, &view.key)?;
    encoder.string(service::POLICY_NAME, view.policy.name())?;
    encoder.u64(service::EXPECTED_SIZE, view.expected.configured_bytes())?;
    encoder.u8(service::SIZE_POLICY, view.expected.policy().number())?;
    encoder.u64(service::EXPECTED_SIZE_NOW, view.expected.bytes())?;
    encoder.u64(service::LEARNED_COUNT, view.expected.learned_count())?;
    encoder.u8(service::REMAINING, u8::from(view.remaining))?;
    encoder.u32(service::SLOW_START_MS, view.slow_start_ms)?;
    encoder.u8(service::LEARN, view.learn.number())?;
    let Refusals {
        empty,
        quiesced,
        overloaded,
        full,
        selected,
    } = view.refused;
    encoder.u64(service::REFUSED_EMPTY, empty)?;
    encoder.u64(service::REFUSED_QUIESCED, quiesced)?;
    encoder.u64(service::REFUSED_OVERLOADED, overloaded)?;
    encoder.u64(service::REFUSED_FULL, full)?;
    encoder.u64(service::REFUSED_SELECTED, selected)?;
    encoder.end_nest(nest)
}

/// Writes a SERVICE nest with the service's key and a DEST nest.
pub fn encode_destination(encoder: &mut Encoder<'_>, view: &DestinationView) -> Result<(), Full> {
    let nest = encoder.nest(attribute::SERVICE)?;
    service_key(encoder, &view.service)?;
    encoder.end_nest(nest)?;
    let nest = encoder.nest(attribute::DEST)?;
    dest_key(encoder, &view.key)?;
    encoder.u32(dest::WEIGHT, view.load.weight)?;
    encoder.u64(dest::LOAD_BYTES, view.load.bytes)?;
    encoder.u32(dest::PENDING_CONNS, view.load.pending)?;
    encoder.u32(dest::ACTIVE_CONNS, view.load.active)?;
    encoder.u32(dest::INACTIVE_CONNS, view.load.inactive)?;
    encoder.u8(dest::OVERLOADED, u8::from(view.load.overloaded))?;
    encoder.u64(dest::CONNECTIONS, view.counters.connections)?;
    encoder.u64(dest::IN_PACKETS, view.counters.in_packets)?;
    encoder.u64(dest::IN_BYTES, view.counters.in_bytes)?;
    if let Some(drain) = view.drain {
        if let Some(left_ms) = drain.left_ms {
            encoder.u64(dest::DRAIN_LEFT_MS, left_ms)?;
        }
        encoder.u8(dest::DRAIN_POLICY, drain.policy.number())?;
    }
    encoder.u32(dest::RAMP_PERMILLE, view.load.ramp.permille())?;
    encoder.u32(dest::PERSISTENT_CONNS, view.persistent)?;
    if let Some((bytes, age_ms)) = view.reported {
        encoder.u64(dest::REPORTED_BYTES, bytes)?;
        encoder.u64(dest::REPORT_AGE_MS, age_ms)?;
    }
    encoder.end_nest(nest)
}

/// Writes a CONN nest; its state is 0 if the connection has ended.
pub fn encode_connection(encoder: &mut Encoder<'_>, record: &ConnectionRecord) -> Result<(), Full> {
    let nest = encoder.nest(attribute::CONN)?;
    encode_connection_key(encoder, &record.key.tuple())?;
    encoder.bytes(conn::DEST_ADDR, &record.destination.address.to_union())?;
    encoder.be16(conn::DEST_PORT, record.destination.port)?;
    encoder.u8(conn::STATE, record.word.state().map_or(0, ConnState::to_u8))?;
    encoder.u64(conn::SIZE_BYTES, record.word.size_bytes())?;
    encoder.u8(conn::SIZE_KNOWN, u8::from(record.word.size_known()))?;
    encoder.u64(conn::AGE_MS, record.age_ms)?;
    encoder.u64(conn::EXPIRES_MS, record.expires_ms)?;
    encoder.end_nest(nest)
}

/// Writes a connection's client and virtual address.
pub(super) fn encode_connection_key(encoder: &mut Encoder<'_>, tuple: &Tuple) -> Result<(), Full> {
    let client = tuple.source;
    let vip = tuple.destination;
    encoder.u16(conn::AF, client.family().number())?;
    encoder.u16(conn::PROTOCOL, u16::from(tuple.transport.number()))?;
    encoder.bytes(conn::CLIENT_ADDR, &client.to_union())?;
    encoder.be16(conn::CLIENT_PORT, tuple.source_port)?;
    encoder.bytes(conn::VIRTUAL_ADDR, &vip.to_union())?;
    encoder.be16(conn::VIRTUAL_PORT, tuple.destination_port)
}

/// Writes an EVENT nest, then nests with the keys of the service and the real server that it is
/// about. `suppressed` events were not sent before it.
pub fn encode_event(encoder: &mut Encoder<'_>, told: &Event, suppressed: u32) -> Result<(), Full> {
    let nest = encoder.nest(attribute::EVENT)?;
    encoder.u8(event::KIND, told.kind())?;
    if let Some(cause) = told.cause() {
        encoder.string(event::CAUSE, cause.reason())?;
    }
    if suppressed > 0 {
        encoder.u32(event::SUPPRESSED, suppressed)?;
    }
    encoder.end_nest(nest)?;
    if let Some(key) = told.service() {
        let nest = encoder.nest(attribute::SERVICE)?;
        service_key(encoder, &key)?;
        encoder.end_nest(nest)?;
    }
    if let Some(key) = told.destination() {
        let nest = encoder.nest(attribute::DEST)?;
        dest_key(encoder, &key)?;
        encoder.end_nest(nest)?;
    }
    Ok(())
}

fn dest_key(encoder: &mut Encoder<'_>, key: &DestKey) -> Result<(), Full> {
    encoder.u16(dest::AF, key.address.family().number())?;
    encoder.bytes(dest::ADDR, &key.address.to_union())?;
    encoder.be16(dest::PORT, key.port)
}

fn service_key(encoder: &mut Encoder<'_>, key: &ServiceKey) -> Result<(), Full> {
    encoder.u16(service::AF, key.family().number())?;
    match key {
        ServiceKey::Mark(firewall) => encoder.u32(service::FWMARK, firewall.mark),
        ServiceKey::Endpoint(endpoint) => {
            encoder.u16(service::PROTOCOL, u16::from(endpoint.transport.number()))?;
            encoder.bytes(service::ADDR, &endpoint.address.to_union())?;
            encoder.be16(service::PORT, endpoint.port)
        }
    }
}
