// SPDX-License-Identifier: MIT
//! Requests of the stock family, from typed values to attributes.

use ipvs_mwlc::director::config::{DestKey, ServiceKey};
use ipvs_mwlc::director::ipvs_family::encode_service_key;
use ipvs_mwlc::director::netlink::{Encoder, Full};
use ipvs_mwlc::uapi::ipvs::{attribute, dest, service};

use super::{NewDest, NewService};

pub(super) fn service_nest(encoder: &mut Encoder<'_>, key: &ServiceKey) -> Result<(), Full> {
    let nest = encoder.nest(attribute::SERVICE)?;
    encode_service_key(encoder, key)?;
    encoder.end_nest(nest)
}

pub(super) fn full_service(encoder: &mut Encoder<'_>, new: &NewService) -> Result<(), Full> {
    let nest = encoder.nest(attribute::SERVICE)?;
    encode_service_key(encoder, &new.key)?;
    encoder.string(service::SCHED_NAME, &new.scheduler)?;
    let flags = [new.flags.flags.to_ne_bytes(), new.flags.mask.to_ne_bytes()].concat();
    encoder.bytes(service::FLAGS, &flags)?;
    encoder.u32(service::TIMEOUT, new.timeout_s)?;
    encoder.bytes(service::NETMASK, &new.netmask)?;
    encoder.end_nest(nest)
}

fn dest_key(encoder: &mut Encoder<'_>, key: &DestKey) -> Result<(), Full> {
    encoder.u16(dest::ADDR_FAMILY, key.address.family().number())?;
    encoder.bytes(dest::ADDR, &key.address.to_union())?;
    encoder.be16(dest::PORT, key.port)
}

pub(super) fn full_dest(encoder: &mut Encoder<'_>, new: &NewDest) -> Result<(), Full> {
    let nest = encoder.nest(attribute::DEST)?;
    dest_key(encoder, &new.key)?;
    encoder.u32(dest::FWD_METHOD, new.forwarding)?;
    encoder.u32(dest::WEIGHT, new.weight)?;
    encoder.u32(dest::U_THRESH, new.thresholds.upper)?;
    encoder.u32(dest::L_THRESH, new.thresholds.lower)?;
    encoder.end_nest(nest)
}

/// A destination by its name alone.
pub(super) fn dest_nest(encoder: &mut Encoder<'_>, key: &DestKey) -> Result<(), Full> {
    let nest = encoder.nest(attribute::DEST)?;
    dest_key(encoder, key)?;
    encoder.end_nest(nest)
}
