// SPDX-License-Identifier: MIT
//! The stock family `IPVS` in typed form, as a client: what ipvsadm's verbs do.

use ipvs_mwlc::director::config::{
    Address, DestConfig, DestKey, Family, FlagsUpdate, Forwarding, SERVICE_HASHED, ServiceKey,
    Thresholds, Transport,
};
use ipvs_mwlc::director::errno::Reject;
use ipvs_mwlc::director::netlink::{Attribute, AttributeTable, Attributes, Encoder, Full};
use ipvs_mwlc::director::stats::{Counters, Rates, Stats};
use ipvs_mwlc::director::timeouts::TimeoutsUpdate;
use ipvs_mwlc::uapi::ipvs::{
    FAMILY_NAME, attribute, command, dest, forwarding, info, service, stats,
};
use ipvs_mwlc::uapi::mwlc;

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
            let nest = encoder.nest(attribute::DEST)?;
            dest_key(encoder, key)?;
            encoder.end_nest(nest)
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

fn service_nest(encoder: &mut Encoder<'_>, key: &ServiceKey) -> Result<(), Full> {
    let nest = encoder.nest(attribute::SERVICE)?;
    service_key(encoder, key)?;
    encoder.end_nest(nest)
}

fn service_key(encoder: &mut Encoder<'_>, key: &ServiceKey) -> Result<(), Full> {
    encoder.u16(service::AF, key.address.family().number())?;
    encoder.u16(service::PROTOCOL, u16::from(key.transport.number()))?;
    encoder.bytes(service::ADDR, &key.address.to_union())?;
    encoder.be16(service::PORT, key.port)
}

fn full_service(encoder: &mut Encoder<'_>, new: &NewService) -> Result<(), Full> {
    let nest = encoder.nest(attribute::SERVICE)?;
    service_key(encoder, &new.key)?;
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

fn full_dest(encoder: &mut Encoder<'_>, new: &NewDest) -> Result<(), Full> {
    let nest = encoder.nest(attribute::DEST)?;
    dest_key(encoder, &new.key)?;
    encoder.u32(dest::FWD_METHOD, new.forwarding)?;
    encoder.u32(dest::WEIGHT, new.weight)?;
    encoder.u32(dest::U_THRESH, new.thresholds.upper)?;
    encoder.u32(dest::L_THRESH, new.thresholds.lower)?;
    encoder.end_nest(nest)
}

/// Parses the answers with `parse`, whose refusal becomes an error about the kernel.
pub(crate) fn parse_all<T>(
    action: &str,
    answers: &[Answer],
    parse: impl Fn(&Answer) -> Result<T, Reject>,
) -> Result<Vec<T>, Error> {
    let wrong = |reject: Reject| Error::Reply {
        action: action.to_owned(),
        what: reject.message.to_string_lossy().into_owned(),
    };
    answers
        .iter()
        .map(|answer| parse(answer).map_err(wrong))
        .collect()
}

fn only<T>(
    action: &str,
    answers: Vec<Answer>,
    parse: impl Fn(&Answer) -> Result<T, Reject>,
) -> Result<T, Error> {
    parse_all(action, &answers, parse)?
        .pop()
        .ok_or_else(|| Error::Reply {
            action: action.to_owned(),
            what: "there is no answer".to_owned(),
        })
}

fn parse_service(answer: &Answer) -> Result<ServiceEntry, Reject> {
    let message = Attributes::new(&answer.attributes).table::<7>()?;
    let nest = message.require(attribute::SERVICE, c"no service in it")?;
    let table = nest.nested().table::<13>()?;
    let scheduler = table.require(service::SCHED_NAME, c"a service has no scheduler")?;
    let flags = table.require(service::FLAGS, c"a service has no flags")?;
    let [f0, f1, f2, f3, ..] = flags.array::<8>(c"a service's flags have a wrong length")?;
    Ok(ServiceEntry {
        key: parse_service_key(&table)?,
        scheduler: String::from_utf8_lossy(scheduler.string(usize::MAX)?).into_owned(),
        flags: u32::from_ne_bytes([f0, f1, f2, f3]) & !SERVICE_HASHED,
        stats: parse_stats(table.get(service::STATS64))?,
    })
}

fn parse_service_key<const N: usize>(table: &AttributeTable<'_, N>) -> Result<ServiceKey, Reject> {
    let protocol = table.require(service::PROTOCOL, c"a service has no protocol")?;
    let transport = Transport::from_number(protocol.u16()?)
        .ok_or(protocol.reject(INVALID, c"a service has an unknown protocol"))?;
    let family = table.require(service::AF, c"a service has no family")?;
    let address = table.require(service::ADDR, c"a service has no address")?;
    let port = table
        .require(service::PORT, c"a service has no port")?
        .be16()?;
    Ok(ServiceKey {
        transport,
        address: parse_address(family, address)?,
        port,
    })
}

/// Answers are refused with one errno, which nobody sees: their message is what matters.
pub(crate) const INVALID: ipvs_mwlc::director::errno::Errno =
    ipvs_mwlc::director::errno::Errno::Invalid;

pub(crate) fn parse_address(
    family: &Attribute<'_>,
    address: &Attribute<'_>,
) -> Result<Address, Reject> {
    let family = Family::from_number(family.u16()?)
        .ok_or(family.reject(INVALID, c"an address has an unknown family"))?;
    Ok(Address::from_union(
        family,
        address.array(c"an address has a wrong length")?,
    ))
}

fn parse_dest(answer: &Answer) -> Result<DestEntry, Reject> {
    let message = Attributes::new(&answer.attributes).table::<7>()?;
    let nest = message.require(attribute::DEST, c"no real server in it")?;
    let table = nest.nested().table::<16>()?;
    let number = |kind, missing| table.require(kind, missing).and_then(Attribute::u32);
    let family = table.require(dest::ADDR_FAMILY, c"a real server has no family")?;
    let address = table.require(dest::ADDR, c"a real server has no address")?;
    let port = table
        .require(dest::PORT, c"a real server has no port")?
        .be16()?;
    let method = table.require(dest::FWD_METHOD, c"a real server has no forwarding method")?;
    let forwarding = match method.u32()? & forwarding::MASK {
        forwarding::LOCALNODE => Forwarding::LocalNode,
        forwarding::DROUTE => Forwarding::DirectRouting,
        _ => return Err(method.reject(INVALID, c"a real server has an unknown method")),
    };
    Ok(DestEntry {
        config: DestConfig {
            key: DestKey {
                address: parse_address(family, address)?,
                port,
            },
            forwarding,
            weight: number(dest::WEIGHT, c"a real server has no weight")?,
            thresholds: Thresholds {
                upper: number(dest::U_THRESH, c"a real server has no upper threshold")?,
                lower: number(dest::L_THRESH, c"a real server has no lower threshold")?,
            },
        },
        active: number(
            dest::ACTIVE_CONNS,
            c"a real server has no active connections",
        )?,
        inactive: number(
            dest::INACT_CONNS,
            c"a real server has no inactive connections",
        )?,
        persistent: number(
            dest::PERSIST_CONNS,
            c"a real server has no persistent connections",
        )?,
        stats: parse_stats(table.get(dest::STATS64))?,
    })
}

fn parse_stats(nest: Option<&Attribute<'_>>) -> Result<Stats, Reject> {
    let Some(nest) = nest else {
        return Ok(Stats::default());
    };
    let table = nest.nested().table::<11>()?;
    let number = |kind| table.get(kind).map_or(Ok(0), Attribute::u64);
    Ok(Stats {
        counters: Counters {
            connections: number(stats::CONNS)?,
            in_packets: number(stats::INPKTS)?,
            out_packets: number(stats::OUTPKTS)?,
            in_bytes: number(stats::INBYTES)?,
            out_bytes: number(stats::OUTBYTES)?,
        },
        rates: Rates {
            connections: number(stats::CPS)?,
            in_packets: number(stats::INPPS)?,
            out_packets: number(stats::OUTPPS)?,
            in_bytes: number(stats::INBPS)?,
            out_bytes: number(stats::OUTBPS)?,
        },
    })
}

#[cfg(test)]
mod tests {
    //! The director's own encoders write the answers that are read here, and its parser reads the
    //! requests that are written here: both sides of the wire, without one.
    use super::*;
    use ipvs_mwlc::director::config::ServiceConfig;
    use ipvs_mwlc::director::ipvs_family::{
        Command, DestinationView, RequestKind, ServiceView, encode_destination, encode_service,
        parse_command,
    };
    use ipvs_mwlc::director::sched::Scheduler;

    fn build(write: impl FnOnce(&mut Encoder<'_>) -> Result<(), Full>) -> Vec<u8> {
        let mut buffer = [0; 1024];
        let mut encoder = Encoder::new(&mut buffer);
        write(&mut encoder).unwrap();
        encoder.written().to_vec()
    }

    fn answer(write: impl FnOnce(&mut Encoder<'_>) -> Result<(), Full>) -> Answer {
        Answer {
            command: 0,
            attributes: build(write),
        }
    }

    fn key() -> ServiceKey {
        ServiceKey {
            transport: Transport::Udp,
            address: Address::V4([10, 0, 0, 100]),
            port: 53,
        }
    }

    fn dest() -> DestConfig {
        DestConfig {
            key: DestKey {
                address: Address::V4([10, 0, 0, 1]),
                port: 53,
            },
            forwarding: Forwarding::DirectRouting,
            weight: 7,
            thresholds: Thresholds { upper: 9, lower: 4 },
        }
    }

    fn stats() -> Stats {
        let counters = Counters {
            connections: 1 << 40,
            in_bytes: 2,
            ..Counters::default()
        };
        Stats {
            counters,
            rates: Rates {
                in_packets: 3,
                ..Rates::default()
            },
        }
    }

    #[test]
    fn a_service_is_read() {
        let config = ServiceConfig {
            key: key(),
            scheduler: Scheduler::Wlc,
            flags: 0x8,
            timeout_s: 0,
            netmask: [255; 4],
        };
        let view = ServiceView {
            config,
            stats: stats(),
        };
        let entry = parse_service(&answer(|encoder| encode_service(encoder, &view))).unwrap();
        let expected = ServiceEntry {
            key: key(),
            scheduler: "wlc".to_owned(),
            flags: 0x8,
            stats: stats(),
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn a_real_server_is_read() {
        let view = DestinationView {
            config: dest(),
            active: 5,
            inactive: 6,
            stats: stats(),
        };
        let entry = parse_dest(&answer(|encoder| encode_destination(encoder, &view))).unwrap();
        let expected = DestEntry {
            config: dest(),
            active: 5,
            inactive: 6,
            persistent: 0,
            stats: stats(),
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn what_is_asked_for_is_understood() {
        let new = NewService {
            key: key(),
            scheduler: "mwlc".to_owned(),
            flags: FlagsUpdate {
                flags: 0x8,
                mask: !SERVICE_HASHED,
            },
            timeout_s: 0,
            netmask: [255; 4],
        };
        let service = build(|encoder| full_service(encoder, &new));
        let config = ServiceConfig {
            key: key(),
            scheduler: Scheduler::Mwlc,
            flags: 0x8,
            timeout_s: 0,
            netmask: [255; 4],
        };
        let parsed = parse_command(command::NEW_SERVICE, RequestKind::Do, &service);
        assert_eq!(parsed, Ok(Command::NewService(config)));
        let new = NewDest {
            key: dest().key,
            forwarding: forwarding::DROUTE,
            weight: 7,
            thresholds: dest().thresholds,
        };
        let both = build(|encoder| {
            service_nest(encoder, &key())?;
            full_dest(encoder, &new)
        });
        let parsed = parse_command(command::SET_DEST, RequestKind::Do, &both);
        assert_eq!(parsed, Ok(Command::SetDestination(key(), dest())));
    }

    #[test]
    fn an_answer_that_lacks_something_is_an_error_and_not_a_guess() {
        let view = DestinationView {
            config: dest(),
            active: 5,
            inactive: 6,
            stats: stats(),
        };
        let whole = answer(|encoder| encode_destination(encoder, &view)).attributes;
        for end in 0..whole.len() {
            let torn = Answer {
                command: 0,
                attributes: whole[..end].to_vec(),
            };
            assert!(parse_dest(&torn).is_err(), "{end}");
        }
    }
}
