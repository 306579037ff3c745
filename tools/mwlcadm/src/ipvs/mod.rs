// SPDX-License-Identifier: MIT
//! The stock family `IPVS` in typed form, as a client: what ipvsadm's verbs do.

pub(crate) mod answer;
mod request;
mod types;

use std::net::SocketAddr;

use ipvs_mwlc::director::errno::Reject;
use ipvs_mwlc::director::netlink::{Attributes, Encoder};
use ipvs_mwlc::director::timeouts::TimeoutsUpdate;
use ipvs_mwlc::uapi::ipvs::{FAMILY_NAME, attribute, command, info};
use ipvs_mwlc::uapi::mwlc;

pub use self::types::{
    Daemon, DestConfig, DestEntry, Forwarding, Info, Netmask, ServiceConfig, ServiceEntry,
};

use self::answer::{only, parse_all, parse_daemon, parse_dest, parse_service};
use self::request::{daemon_nest, dest_nest, full_dest, full_service, service_nest};
use crate::error::Error;
use crate::genl::{Answer, Connection};
use crate::names::ServiceName;

/// A connection to the director's stock family.
pub struct Ipvs {
    connection: Connection,
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
    pub fn services(&mut self, one: Option<&ServiceName>) -> Result<Vec<ServiceEntry>, Error> {
        let (action, answers) = match one {
            None => {
                let action = "listing the services".to_owned();
                let answers = self
                    .connection
                    .dump(&action, command::GET_SERVICE, |_| Ok(()))?;
                (action, answers)
            }
            Some(name) => {
                let action = format!("listing {}", name);
                let write = |encoder: &mut Encoder<'_>| service_nest(encoder, name);
                let answers = self.connection.get(&action, command::GET_SERVICE, write)?;
                (action, answers)
            }
        };
        parse_all(&action, &answers, parse_service)
    }

    /// The destinations of a service.
    pub fn dests(&mut self, name: &ServiceName) -> Result<Vec<DestEntry>, Error> {
        let action = format!("listing the real servers of {}", name);
        let write = |encoder: &mut Encoder<'_>| service_nest(encoder, name);
        let answers = self.connection.dump(&action, command::GET_DEST, write)?;
        parse_all(&action, &answers, parse_dest)
    }

    /// Adds a service.
    pub fn add_service(&mut self, new: &ServiceConfig) -> Result<(), Error> {
        let action = format!("adding service {}", new.name);
        self.connection
            .act(&action, command::NEW_SERVICE, |encoder| {
                full_service(encoder, new)
            })
    }

    /// Edits a service.
    pub fn edit_service(&mut self, new: &ServiceConfig) -> Result<(), Error> {
        let action = format!("editing service {}", new.name);
        self.connection
            .act(&action, command::SET_SERVICE, |encoder| {
                full_service(encoder, new)
            })
    }

    /// Deletes a service.
    pub fn delete_service(&mut self, name: &ServiceName) -> Result<(), Error> {
        let action = format!("deleting service {}", name);
        self.connection
            .act(&action, command::DEL_SERVICE, |encoder| {
                service_nest(encoder, name)
            })
    }

    /// Adds a destination.
    pub fn add_dest(&mut self, of: &ServiceName, new: &DestConfig) -> Result<(), Error> {
        let action = dest_action("adding", new.address, of);
        self.connection.act(&action, command::NEW_DEST, |encoder| {
            service_nest(encoder, of)?;
            full_dest(encoder, new)
        })
    }

    /// Edits a destination.
    pub fn edit_dest(&mut self, of: &ServiceName, new: &DestConfig) -> Result<(), Error> {
        let action = dest_action("editing", new.address, of);
        self.connection.act(&action, command::SET_DEST, |encoder| {
            service_nest(encoder, of)?;
            full_dest(encoder, new)
        })
    }

    /// Deletes a destination.
    pub fn delete_dest(&mut self, of: &ServiceName, dest: SocketAddr) -> Result<(), Error> {
        let action = dest_action("deleting", dest, of);
        self.connection.act(&action, command::DEL_DEST, |encoder| {
            service_nest(encoder, of)?;
            dest_nest(encoder, dest)
        })
    }

    /// The synchronisation daemons that run.
    pub fn daemons(&mut self) -> Result<Vec<Daemon>, Error> {
        let action = "listing the synchronisation daemons";
        let answers = self
            .connection
            .dump(action, command::GET_DAEMON, |_| Ok(()))?;
        parse_all(action, &answers, parse_daemon)
    }

    /// Starts a synchronisation daemon.
    pub fn start_daemon(&mut self, daemon: &Daemon) -> Result<(), Error> {
        let action = "starting the synchronisation daemon";
        self.connection.act(action, command::NEW_DAEMON, |encoder| {
            daemon_nest(encoder, daemon)
        })
    }

    /// Stops a synchronisation daemon.
    pub fn stop_daemon(&mut self, daemon: &Daemon) -> Result<(), Error> {
        let action = "stopping the synchronisation daemon";
        self.connection.act(action, command::DEL_DAEMON, |encoder| {
            daemon_nest(encoder, daemon)
        })
    }

    /// Zeroes the counters of one service or of all.
    pub fn zero(&mut self, name: Option<&ServiceName>) -> Result<(), Error> {
        self.connection.act(
            "zeroing the counters",
            command::ZERO,
            |encoder| match name {
                Some(name) => service_nest(encoder, name),
                None => Ok(()),
            },
        )
    }

    /// Deletes every service.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.connection
            .act("deleting every service", command::FLUSH, |_| Ok(()))
    }
}

fn dest_action(verb: &str, dest: SocketAddr, of: &ServiceName) -> String {
    format!("{verb} real server {dest} of {of}")
}
