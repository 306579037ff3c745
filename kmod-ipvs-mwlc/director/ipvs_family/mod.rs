// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The stock `IPVS` generic-netlink family: requests as typed commands, replies as attributes.
//!
//! Refusals are decided here as far as they do not depend on what is configured. Left to the table:
//! `ESRCH` for a service that does not exist, `EEXIST` for one that does, the same for destinations,
//! and the limits on their number.

mod parse;
mod reply;

pub use parse::parse_command;
pub use reply::{
    encode_config, encode_destination, encode_info, encode_service, encode_service_key,
    DestinationView, ServiceView, DESTINATION_REPLY_BYTES_MAX, SERVICE_REPLY_BYTES_MAX,
};

use crate::director::config::{DestConfig, DestKey, ServiceConfig, ServiceEdit};
use crate::director::service_key::ServiceKey;
use crate::director::timeouts::TimeoutsUpdate;

/// Whether a request wants one answer or a dump (`NLM_F_DUMP`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// One action or one answer.
    Do,
    /// Every entry, over as many messages as it takes.
    Dump,
}

/// A well-formed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Add a service; `EEXIST` if there is one.
    NewService(ServiceConfig),
    /// Edit a service; `ESRCH` if there is none.
    SetService(ServiceEdit),
    /// Delete a service and its destinations; `ESRCH`.
    DelService(ServiceKey),
    /// Answer with one service, as `NEW_SERVICE`; `ESRCH`.
    GetService(ServiceKey),
    /// Answer with every service, each as `NEW_SERVICE`.
    DumpServices,
    /// Add a destination; `ESRCH` without the service, `EEXIST` if there is one.
    NewDestination(ServiceKey, DestConfig),
    /// Edit a destination; `ESRCH` without the service, `ENOENT` without the destination.
    SetDestination(ServiceKey, DestConfig),
    /// Delete a destination; `ESRCH`, `ENOENT`.
    DelDestination(ServiceKey, DestKey),
    /// Answer with every destination of a service, each as `NEW_DEST`. Without the service: nothing.
    DumpDestinations(ServiceKey),
    /// Answer with nothing: there is no sync daemon.
    DumpDaemons,
    /// Change timeouts.
    SetConfig(TimeoutsUpdate),
    /// Answer with the timeouts, as `SET_CONFIG`.
    GetConfig,
    /// Answer with the version and the connection table's size, as `SET_INFO`.
    GetInfo,
    /// Zero the counters of one service and its destinations (`ESRCH`), or all.
    Zero(Option<ServiceKey>),
    /// Delete every service.
    Flush,
}
