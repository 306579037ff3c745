// SPDX-License-Identifier: MIT
//! Answers of the stock family, from attributes to typed values.

use ipvs_mwlc::director::config::{
    Address, DestConfig, DestKey, Family, Forwarding, SERVICE_HASHED, ServiceKey, Thresholds,
    Transport,
};
use ipvs_mwlc::director::errno::Reject;
use ipvs_mwlc::director::netlink::{Attribute, AttributeTable, Attributes};
use ipvs_mwlc::director::stats::{Counters, Rates, Stats};
use ipvs_mwlc::uapi::ipvs::{attribute, dest, forwarding, service, stats};

use super::{DestEntry, ServiceEntry};
use crate::error::Error;
use crate::genl::Answer;

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
    let family = table.require(service::AF, c"a service has no family")?;
    if let Some(mark) = table.get(service::FWMARK) {
        return Ok(ServiceKey::mark(parse_family(family)?, mark.u32()?));
    }
    let protocol = table.require(service::PROTOCOL, c"a service has no protocol")?;
    let transport = Transport::from_number(protocol.u16()?)
        .ok_or(protocol.reject(INVALID, c"a service has an unknown protocol"))?;
    let address = table.require(service::ADDR, c"a service has no address")?;
    let port = table
        .require(service::PORT, c"a service has no port")?
        .be16()?;
    let address = parse_address(family, address)?;
    Ok(ServiceKey::endpoint(transport, address, port))
}

/// Answers are refused with one errno, which nobody sees: their message is what matters.
pub(crate) const INVALID: ipvs_mwlc::director::errno::Errno =
    ipvs_mwlc::director::errno::Errno::Invalid;

pub(crate) fn parse_family(family: &Attribute<'_>) -> Result<Family, Reject> {
    Family::from_number(family.u16()?)
        .ok_or(family.reject(INVALID, c"an address has an unknown family"))
}

pub(crate) fn parse_address(
    family: &Attribute<'_>,
    address: &Attribute<'_>,
) -> Result<Address, Reject> {
    Ok(Address::from_union(
        parse_family(family)?,
        address.array(c"an address has a wrong length")?,
    ))
}

pub(super) fn parse_dest(answer: &Answer) -> Result<DestEntry, Reject> {
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
    use crate::ipvs::request::{full_dest, full_service, service_nest};
    use crate::ipvs::{NewDest, NewService};
    use ipvs_mwlc::director::config::FlagsUpdate;
    use ipvs_mwlc::director::config::Netmask;
    use ipvs_mwlc::director::config::ServiceConfig;
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

    fn key() -> ServiceKey {
        ServiceKey::endpoint(Transport::Udp, Address::V4([10, 0, 0, 100]), 53)
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
            netmask: Netmask::whole(Family::Ipv4),
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
            persistent: 7,
            stats: stats(),
        };
        let entry = parse_dest(&answer(|encoder| encode_destination(encoder, &view))).unwrap();
        let expected = DestEntry {
            config: dest(),
            active: 5,
            inactive: 6,
            persistent: 7,
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
            netmask: Netmask::whole(Family::Ipv4),
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
