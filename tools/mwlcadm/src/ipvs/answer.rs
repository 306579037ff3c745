// SPDX-License-Identifier: MIT
//! Answers of the stock family, from attributes to typed values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipvs_mwlc::director::errno::Reject;
use ipvs_mwlc::director::flags::SERVICE_HASHED;
use ipvs_mwlc::director::netlink::{Attribute, Attributes};
use ipvs_mwlc::director::stats::{Counters, Rates, Stats};
use ipvs_mwlc::uapi::ipvs::{attribute, daemon, dest, forwarding, service, stats};

use super::types::{
    Daemon, DestConfig, DestEntry, Forwarding, Netmask, ServiceConfig, ServiceEntry,
};
use crate::error::Error;
use crate::genl::Answer;
use crate::names::{ServiceName, parse_ip};

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

pub(super) fn only<T>(
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

pub(super) fn parse_service(answer: &Answer) -> Result<ServiceEntry, Reject> {
    let message = Attributes::new(&answer.attributes).table::<7>()?;
    let nest = message.require(attribute::SERVICE, c"no service in it")?;
    let table = nest.nested().table::<13>()?;
    let name = ServiceName::parse(&table, service::FWMARK)?;
    let scheduler = table.require(service::SCHED_NAME, c"a service has no scheduler")?;
    let flags = table.require(service::FLAGS, c"a service has no flags")?;
    let [f0, f1, f2, f3, ..] = flags.array::<8>(c"a service's flags have a wrong length")?;
    let netmask = table.require(service::NETMASK, c"a service has no netmask")?;
    let engine = match table.get(service::PE_NAME) {
        Some(engine) => Some(text(engine)?).filter(|engine| !engine.is_empty()),
        None => None,
    };
    Ok(ServiceEntry {
        config: ServiceConfig {
            name,
            scheduler: text(scheduler)?,
            flags: u32::from_ne_bytes([f0, f1, f2, f3]) & !SERVICE_HASHED,
            timeout_s: table
                .require(service::TIMEOUT, c"a service has no timeout")?
                .u32()?,
            netmask: Netmask::from_bytes(
                name.family(),
                netmask.array(c"a service's netmask has a wrong length")?,
            ),
            engine,
        },
        stats: parse_stats(table.get(service::STATS64))?,
    })
}

fn text(attribute: &Attribute<'_>) -> Result<String, Reject> {
    Ok(String::from_utf8_lossy(attribute.string(usize::MAX)?).into_owned())
}

pub(super) fn parse_dest(answer: &Answer) -> Result<DestEntry, Reject> {
    let message = Attributes::new(&answer.attributes).table::<7>()?;
    let nest = message.require(attribute::DEST, c"no real server in it")?;
    let table = nest.nested().table::<16>()?;
    let number = |kind, missing| table.require(kind, missing).and_then(Attribute::u32);
    let family = table.require(dest::ADDR_FAMILY, c"a real server has no family")?;
    let address = table.require(dest::ADDR, c"a real server has no address")?;
    let port = table.require(dest::PORT, c"a real server has no port")?;
    let method = number(dest::FWD_METHOD, c"a real server has no forwarding method")?;
    Ok(DestEntry {
        config: DestConfig {
            address: SocketAddr::new(parse_ip(family, address)?, port.be16()?),
            forwarding: Forwarding {
                method: method & forwarding::MASK,
                tunnel: table.get(dest::TUN_TYPE).map_or(Ok(0), Attribute::u8)?,
                tunnel_port: table.get(dest::TUN_PORT).map_or(Ok(0), Attribute::be16)?,
                tunnel_flags: table.get(dest::TUN_FLAGS).map_or(Ok(0), Attribute::u16)?,
            },
            weight: number(dest::WEIGHT, c"a real server has no weight")?,
            upper: number(dest::U_THRESH, c"a real server has no upper threshold")?,
            lower: number(dest::L_THRESH, c"a real server has no lower threshold")?,
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

pub(super) fn parse_daemon(answer: &Answer) -> Result<Daemon, Reject> {
    let message = Attributes::new(&answer.attributes).table::<7>()?;
    let nest = message.require(attribute::DAEMON, c"no daemon in it")?;
    let table = nest.nested().table::<9>()?;
    let group = match (
        table.get(daemon::MCAST_GROUP),
        table.get(daemon::MCAST_GROUP6),
    ) {
        (Some(group), _) => Some(IpAddr::V4(Ipv4Addr::from(
            group.array::<4>(c"a multicast group has a wrong length")?,
        ))),
        (None, Some(group)) => Some(IpAddr::V6(Ipv6Addr::from(
            group.array::<16>(c"a multicast group has a wrong length")?,
        ))),
        (None, None) => None,
    };
    Ok(Daemon {
        role: table
            .require(daemon::STATE, c"a daemon has no role")?
            .u32()?,
        interface: text(table.require(daemon::MCAST_IFN, c"a daemon has no interface")?)?,
        sync_id: table
            .require(daemon::SYNC_ID, c"a daemon has no number")?
            .u32()?,
        message_bytes_max: table
            .get(daemon::SYNC_MAXLEN)
            .map_or(Ok(0), Attribute::u16)?,
        group,
        port: table
            .get(daemon::MCAST_PORT)
            .map_or(Ok(0), Attribute::u16)?,
        ttl: table.get(daemon::MCAST_TTL).map_or(Ok(0), Attribute::u8)?,
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
    use crate::ipvs::request::{daemon_nest, full_dest, full_service, service_nest};
    use ipvs_mwlc::director::address::{Family, Transport};
    use ipvs_mwlc::director::config;
    use ipvs_mwlc::director::ipvs_family::{
        Command, DestinationView, RequestKind, ServiceView, encode_destination, encode_service,
        parse_command,
    };
    use ipvs_mwlc::director::netlink::{Encoder, Full};
    use ipvs_mwlc::director::sched::Scheduler;
    use ipvs_mwlc::uapi::ipvs::command;

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

    fn name() -> ServiceName {
        ServiceName::Address(Transport::Udp, "10.0.0.100:53".parse().unwrap())
    }

    fn their_service(scheduler: Scheduler) -> config::ServiceConfig {
        let request = build(|encoder| full_service(encoder, &our_service(scheduler.name())));
        match parse_command(command::NEW_SERVICE, RequestKind::Do, &request) {
            Ok(Command::NewService(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    fn our_service(scheduler: &str) -> ServiceConfig {
        ServiceConfig {
            name: name(),
            scheduler: scheduler.to_owned(),
            flags: 0x8,
            timeout_s: 0,
            netmask: Netmask::whole(Family::Ipv4),
            engine: None,
        }
    }

    fn our_dest() -> DestConfig {
        DestConfig {
            address: "10.0.0.1:53".parse().unwrap(),
            forwarding: Forwarding::DIRECT,
            weight: 7,
            upper: 9,
            lower: 4,
        }
    }

    fn their_dest() -> config::DestConfig {
        let request = build(|encoder| {
            service_nest(encoder, &name())?;
            full_dest(encoder, &our_dest())
        });
        match parse_command(command::SET_DEST, RequestKind::Do, &request) {
            Ok(Command::SetDestination(key, dest)) => {
                assert_eq!(key, their_service(Scheduler::Wlc).key);
                dest
            }
            other => panic!("{other:?}"),
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
    fn a_service_that_was_asked_for_is_read_back() {
        let view = ServiceView {
            config: their_service(Scheduler::Mwlc),
            stats: stats(),
        };
        let entry = parse_service(&answer(|encoder| encode_service(encoder, &view))).unwrap();
        let expected = ServiceEntry {
            config: our_service("mwlc"),
            stats: stats(),
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn a_real_server_that_was_asked_for_is_read_back() {
        let view = DestinationView {
            config: their_dest(),
            active: 5,
            inactive: 6,
            persistent: 7,
            stats: stats(),
        };
        let entry = parse_dest(&answer(|encoder| encode_destination(encoder, &view))).unwrap();
        let expected = DestEntry {
            config: our_dest(),
            active: 5,
            inactive: 6,
            persistent: 7,
            stats: stats(),
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn a_daemon_is_read_as_it_is_written() {
        for group in [None, Some("224.0.0.81"), Some("ff02::1")] {
            let daemon = Daemon {
                role: 2,
                interface: "eth0".to_owned(),
                sync_id: 7,
                message_bytes_max: 1400,
                group: group.map(|group| group.parse().unwrap()),
                port: 8848,
                ttl: 1,
            };
            let written = answer(|encoder| daemon_nest(encoder, &daemon));
            assert_eq!(parse_daemon(&written), Ok(daemon));
        }
    }

    #[test]
    fn an_answer_that_lacks_something_is_an_error_and_not_a_guess() {
        let view = DestinationView {
            config: their_dest(),
            active: 5,
            inactive: 6,
            persistent: 7,
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
