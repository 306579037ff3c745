// SPDX-License-Identifier: MIT
//! The stock family `IPVS` in typed form, as a client: what ipvsadm's verbs do.

pub(crate) mod answer;
mod request;

use ipvs_mwlc::director::config::{DestConfig, DestKey, FlagsUpdate, ServiceKey, Thresholds};
use ipvs_mwlc::director::errno::Reject;
use ipvs_mwlc::director::netlink::{Attributes, Encoder};
use ipvs_mwlc::director::stats::Stats;
use ipvs_mwlc::director::timeouts::TimeoutsUpdate;
use ipvs_mwlc::uapi::ipvs::{FAMILY_NAME, attribute, command, info};
use ipvs_mwlc::uapi::mwlc;

use self::answer::{only, parse_all, parse_dest, parse_service};
use self::request::{dest_nest, full_dest, full_service, service_nest};
use crate::error::Error;
use crate::genl::{Answer, Connection};
use crate::values::{show_endpoint, show_service};

/// A connection to the director's stock family.
pub struct Ipvs {
    connection: Connection,
}

/// A service to add or edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewService {
    /// Its name.
    pub key: ServiceKey,
    /// The scheduler's name; the director decides whether there is one.
    pub scheduler: String,
    /// Flags to set and clear.
    pub flags: FlagsUpdate,
    /// Persistence timeout in seconds.
    pub timeout_s: u32,
    /// Persistence netmask in network order.
    pub netmask: [u8; 4],
}

/// A destination to add or edit, with the forwarding method as its number, so that the director
/// itself refuses the ones it has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDest {
    /// Its name.
    pub key: DestKey,
    /// 0 masquerading, 1 local, 2 tunnelling, 3 direct routing.
    pub forwarding: u32,
    /// Its weight.
    pub weight: u32,
    /// When it takes no more connections.
    pub thresholds: Thresholds,
}

/// A service as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Its name.
    pub key: ServiceKey,
    /// Its scheduler.
    pub scheduler: String,
    /// Its flags without `HASHED`.
    pub flags: u32,
    /// Its counters.
    pub stats: Stats,
}

/// A destination as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestEntry {
    /// Its configuration.
    pub config: DestConfig,
    /// Active connections.
    pub active: u32,
    /// Inactive connections, half-open ones included.
    pub inactive: u32,
    /// Persistent connections.
    pub persistent: u32,
    /// Its counters.
    pub stats: Stats,
}

/// Version and table size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Major, minor and patch in one byte each.
    pub version: u32,
    /// Size of the connection table.
    pub table_size: u32,
}

impl Ipvs {
    /// Connects. Our own family is looked for first: asking for `IPVS` in a kernel without the
    /// director would make it load the stock module.
    pub fn open() -> Result<Ipvs, Error> {
        Connection::open(mwlc::FAMILY_NAME)?.ok_or(Error::NotLoaded)?;
        let connection = Connection::open(FAMILY_NAME)?.ok_or(Error::NotLoaded)?;
        Ok(Ipvs { connection })
    }

    /// Version and table size.
    pub fn info(&mut self) -> Result<Info, Error> {
        let action = "asking for the version";
        let answers = self.connection.get(action, command::GET_INFO, |_| Ok(()))?;
        let parse = |answer: &Answer| -> Result<Info, Reject> {
            let table = Attributes::new(&answer.attributes).table::<3>()?;
            Ok(Info {
                version: table.require(info::VERSION, c"no version")?.u32()?,
                table_size: table
                    .require(info::CONN_TAB_SIZE, c"no table size")?
                    .u32()?,
            })
        };
        only(action, answers, parse)
    }

    /// The timeouts: TCP, TCP after FIN, UDP.
    pub fn timeouts(&mut self) -> Result<TimeoutsUpdate, Error> {
        let action = "asking for the timeouts";
        let answers = self
            .connection
            .get(action, command::GET_CONFIG, |_| Ok(()))?;
        let parse = |answer: &Answer| -> Result<TimeoutsUpdate, Reject> {
            let table = Attributes::new(&answer.attributes).table::<7>()?;
            Ok(TimeoutsUpdate {
                tcp_s: table
                    .require(attribute::TIMEOUT_TCP, c"no TCP timeout")?
                    .u32()?,
                tcp_fin_s: table
                    .require(attribute::TIMEOUT_TCP_FIN, c"no FIN timeout")?
                    .u32()?,
                udp_s: table
                    .require(attribute::TIMEOUT_UDP, c"no UDP timeout")?
                    .u32()?,
            })
        };
        only(action, answers, parse)
    }

    /// Changes timeouts; 0 leaves one.
    pub fn set_timeouts(&mut self, update: TimeoutsUpdate) -> Result<(), Error> {
        self.connection
            .act("setting the timeouts", command::SET_CONFIG, |encoder| {
                encoder.u32(attribute::TIMEOUT_TCP, update.tcp_s)?;
                encoder.u32(attribute::TIMEOUT_TCP_FIN, update.tcp_fin_s)?;
                encoder.u32(attribute::TIMEOUT_UDP, update.udp_s)
            })
    }

    /// Every service, or one.
    pub fn services(&mut self, one: Option<&ServiceKey>) -> Result<Vec<ServiceEntry>, Error> {
        let (action, answers) = match one {
            None => {
                let action = "listing the services".to_owned();
                let answers = self
                    .connection
                    .dump(&action, command::GET_SERVICE, |_| Ok(()))?;
                (action, answers)
            }
            Some(key) => {
                let action = format!("listing {}", show_service(key));
                let write = |encoder: &mut Encoder<'_>| service_nest(encoder, key);
                let answers = self.connection.get(&action, command::GET_SERVICE, write)?;
                (action, answers)
            }
        };
        parse_all(&action, &answers, parse_service)
    }

    /// The destinations of a service.
    pub fn dests(&mut self, key: &ServiceKey) -> Result<Vec<DestEntry>, Error> {
        let action = format!("listing the real servers of {}", show_service(key));
        let write = |encoder: &mut Encoder<'_>| service_nest(encoder, key);
        let answers = self.connection.dump(&action, command::GET_DEST, write)?;
        parse_all(&action, &answers, parse_dest)
    }

    /// Adds a service.
    pub fn add_service(&mut self, new: &NewService) -> Result<(), Error> {
        let action = format!("adding service {}", show_service(&new.key));
        self.connection
            .act(&action, command::NEW_SERVICE, |encoder| {
                full_service(encoder, new)
            })
    }

    /// Edits a service.
    pub fn edit_service(&mut self, new: &NewService) -> Result<(), Error> {
        let action = format!("editing service {}", show_service(&new.key));
        self.connection
            .act(&action, command::SET_SERVICE, |encoder| {
                full_service(encoder, new)
            })
    }

    /// Deletes a service.
    pub fn delete_service(&mut self, key: &ServiceKey) -> Result<(), Error> {
        let action = format!("deleting service {}", show_service(key));
        self.connection
            .act(&action, command::DEL_SERVICE, |encoder| {
                service_nest(encoder, key)
            })
    }

    /// Adds a destination.
    pub fn add_dest(&mut self, of: &ServiceKey, new: &NewDest) -> Result<(), Error> {
        let action = dest_action("adding", &new.key, of);
        self.connection.act(&action, command::NEW_DEST, |encoder| {
            service_nest(encoder, of)?;
            full_dest(encoder, new)
        })
    }

    /// Edits a destination.
    pub fn edit_dest(&mut self, of: &ServiceKey, new: &NewDest) -> Result<(), Error> {
        let action = dest_action("editing", &new.key, of);
        self.connection.act(&action, command::SET_DEST, |encoder| {
            service_nest(encoder, of)?;
            full_dest(encoder, new)
        })
    }

    /// Deletes a destination.
    pub fn delete_dest(&mut self, of: &ServiceKey, key: &DestKey) -> Result<(), Error> {
        let action = dest_action("deleting", key, of);
        self.connection.act(&action, command::DEL_DEST, |encoder| {
            service_nest(encoder, of)?;
            dest_nest(encoder, key)
        })
    }

    /// Zeroes the counters of one service or of all.
    pub fn zero(&mut self, key: Option<&ServiceKey>) -> Result<(), Error> {
        self.connection
            .act("zeroing the counters", command::ZERO, |encoder| match key {
                Some(key) => service_nest(encoder, key),
                None => Ok(()),
            })
    }

    /// Deletes every service.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.connection
            .act("deleting every service", command::FLUSH, |_| Ok(()))
    }
}

fn dest_action(verb: &str, dest: &DestKey, of: &ServiceKey) -> String {
    let endpoint = show_endpoint(dest.address, dest.port);
    format!("{verb} real server {endpoint} of {}", show_service(of))
}
