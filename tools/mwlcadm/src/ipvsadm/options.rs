// SPDX-License-Identifier: MIT
//! What ipvsadm's options say, collected first and put to the command's needs then.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipvs_mwlc::director::address::{Family, Transport};
use ipvs_mwlc::director::flags::{SERVICE_ONE_PACKET, SERVICE_PERSISTENT};
use ipvs_mwlc::director::limits::WEIGHT_MAX;
use ipvs_mwlc::director::timeouts::TimeoutsUpdate;
use ipvs_mwlc::uapi::ipvs::forwarding;

use super::flags;
use super::grammar::{Kind, Verb, Word};
use super::{Action, Listing, View};
use crate::error::Error;
use crate::ipvs::{Daemon, DestConfig, Forwarding, Netmask, ServiceConfig};
use crate::names::{ServiceName, address};
use crate::values::{parse_host, parse_port, split_endpoint};

/// ipvsadm's default scheduler.
const SCHEDULER_DEFAULT: &str = "wlc";
/// ipvsadm's default weight.
const WEIGHT_DEFAULT: u32 = 1;
/// ipvsadm's default persistence timeout.
const PERSISTENCE_S_DEFAULT: u32 = 360;
/// ipvsadm's longest timeout: 31 days.
const TIMEOUT_S_MAX: u32 = 31 * 86_400;
/// ipvsadm's default interface of the synchronisation daemon.
const INTERFACE_DEFAULT: &str = "eth0";
/// The longest message of the synchronisation daemon: a packet less the headers of IPv4 and UDP.
const SYNC_BYTES_MAX: u32 = 65_535 - 20 - 8;

/// Everything that options can say, before it is known which command wants what.
#[derive(Default)]
pub(super) struct Options {
    verb: Option<Verb>,
    /// What stood after the command itself.
    words: Vec<String>,
    /// The options given, each with its long name and its value.
    given: HashMap<Kind, (&'static str, Option<String>)>,
}

impl Options {
    pub(super) fn set_verb(&mut self, verb: Verb, words: Vec<String>) -> Result<(), Error> {
        self.words = words;
        match self.verb.replace(verb) {
            None => Ok(()),
            Some(_) => Err(Error::Usage("give one command, not several".to_owned())),
        }
    }

    pub(super) fn take(&mut self, word: &Word<Kind>, mut values: Vec<String>) -> Result<(), Error> {
        match self.given.insert(word.what, (word.long, values.pop())) {
            Some((earlier, _)) if word.what != Kind::Sort => Err(Error::Usage(format!(
                "give one of --{earlier} and --{}, once",
                word.long
            ))),
            _ => Ok(()),
        }
    }

    fn has(&self, kind: Kind) -> bool {
        self.given.contains_key(&kind)
    }

    fn value(&self, kind: Kind) -> Option<&str> {
        self.given.get(&kind)?.1.as_deref()
    }

    /// Which of several options of one kind was given, by its long name.
    fn spelling(&self, kind: Kind) -> Option<&'static str> {
        self.given.get(&kind).map(|(long, _)| *long)
    }

    /// A number within bounds, or the default.
    fn number(&self, kind: Kind, min: u32, max: u32, default: u32) -> Result<u32, Error> {
        match (self.spelling(kind), self.value(kind)) {
            (Some(long), Some(text)) => number(long, text, min, max),
            _ => Ok(default),
        }
    }

    pub(super) fn action(self) -> Result<Action, Error> {
        let verb = self.verb.unwrap_or(Verb::List);
        self.check_fit(verb)?;
        Ok(match verb {
            Verb::AddService => Action::AddService(self.service_config()?),
            Verb::EditService => Action::EditService(self.service_config()?),
            Verb::DeleteService => Action::DeleteService(self.service()?),
            Verb::Clear => Action::Clear,
            Verb::Restore => Action::Restore,
            Verb::Save => Action::Save {
                numeric: self.has(Kind::Numeric),
            },
            Verb::AddDest => Action::AddDest(self.service()?, self.dest_config()?),
            Verb::EditDest => Action::EditDest(self.service()?, self.dest_config()?),
            Verb::DeleteDest => Action::DeleteDest(self.service()?, self.dest(true)?),
            Verb::List => Action::List(self.listing()?),
            Verb::Zero => Action::Zero(self.optional_service()?),
            Verb::Set => Action::SetTimeouts(self.timeouts()?),
            Verb::StartDaemon => Action::StartDaemon(self.daemon()?),
            Verb::StopDaemon => Action::StopDaemon(self.daemon()?),
            Verb::Help => Action::Help,
            Verb::Version => Action::Version,
        })
    }

    /// Refuses options that the command has no use for.
    fn check_fit(&self, verb: Verb) -> Result<(), Error> {
        let stranger = self
            .given
            .iter()
            .find(|(kind, _)| !verb.options().contains(kind));
        match stranger {
            Some((_, (long, _))) => Err(Error::Usage(format!(
                "--{long} does not go with {}",
                verb.spelling()
            ))),
            None => Ok(()),
        }
    }

    fn optional_service(&self) -> Result<Option<ServiceName>, Error> {
        let (Some(long), Some(text)) = (self.spelling(Kind::Service), self.value(Kind::Service))
        else {
            return Ok(None);
        };
        let transport = match long {
            "udp-service" => Transport::Udp,
            "fwmark-service" => {
                let family = match self.has(Kind::Ipv6) {
                    true => Family::Ipv6,
                    false => Family::Ipv4,
                };
                let mark = number("fwmark-service", text, 1, u32::MAX)?;
                return Ok(Some(ServiceName::Mark(family, mark)));
            }
            "sctp-service" => {
                let text = "the director does not balance SCTP: TCP (-t) and UDP (-u) only";
                return Err(Error::Usage(text.to_owned()));
            }
            _ => Transport::Tcp,
        };
        if self.has(Kind::Ipv6) {
            let text = "-6 goes with -f MARK: an address says itself that it is IPv6";
            return Err(Error::Usage(text.to_owned()));
        }
        let endpoint = endpoint(text, transport, 0)?;
        Ok(Some(ServiceName::Address(transport, endpoint)))
    }

    fn service(&self) -> Result<ServiceName, Error> {
        self.optional_service()?.ok_or_else(|| {
            Error::Usage("which service? give -t VIP:PORT, -u VIP:PORT or -f MARK".to_owned())
        })
    }

    fn service_config(&self) -> Result<ServiceConfig, Error> {
        let name = self.service()?;
        let scheduler = self.value(Kind::Scheduler).unwrap_or(SCHEDULER_DEFAULT);
        let mut bits = match self.value(Kind::SchedFlags) {
            Some(text) => flags::parse(scheduler, text)?,
            None => 0,
        };
        let persistent = self.has(Kind::Persistent);
        if persistent {
            bits |= SERVICE_PERSISTENT;
        }
        if self.has(Kind::OnePacket) {
            bits |= SERVICE_ONE_PACKET;
        }
        if let ServiceName::Address(transport, endpoint) = name {
            if endpoint.port() == 0 && !persistent {
                let text = "a service of port 0, which is every port, must be persistent: give -p";
                return Err(Error::Usage(text.to_owned()));
            }
            if self.has(Kind::OnePacket) && transport != Transport::Udp {
                let text = "one-packet scheduling (-o) is for UDP services only";
                return Err(Error::Usage(text.to_owned()));
            }
        }
        let default = if persistent { PERSISTENCE_S_DEFAULT } else { 0 };
        Ok(ServiceConfig {
            name,
            scheduler: scheduler.to_owned(),
            flags: bits,
            timeout_s: self.number(Kind::Persistent, 1, TIMEOUT_S_MAX, default)?,
            netmask: self.netmask(name.family())?,
            engine: self.value(Kind::Engine).map(str::to_owned),
        })
    }

    fn netmask(&self, family: Family) -> Result<Netmask, Error> {
        let Some(text) = self.value(Kind::Netmask) else {
            return Ok(Netmask::whole(family));
        };
        match family {
            Family::Ipv4 => text.parse::<Ipv4Addr>().map(Netmask::V4).map_err(|_| {
                Error::Usage(format!(
                    "`{text}` is no netmask: give one like 255.255.255.0"
                ))
            }),
            Family::Ipv6 => number("netmask", text, 1, 128).map(Netmask::V6),
        }
    }

    /// The server of `-r`; without a port it is the service's.
    fn dest(&self, keeps_port: bool) -> Result<SocketAddr, Error> {
        let service = self.service()?;
        let text = self.value(Kind::Server).ok_or_else(|| {
            Error::Usage("which real server? give -r SERVER or SERVER:PORT".to_owned())
        })?;
        let transport = service.transport().unwrap_or(Transport::Tcp);
        let mut dest = endpoint(text, transport, service.port())?;
        // As ipvsadm has it: unless addresses are translated, the port is the service's whatever is given.
        if !keeps_port && matches!(service, ServiceName::Address(..)) {
            dest.set_port(service.port());
        }
        Ok(dest)
    }

    fn dest_config(&self) -> Result<DestConfig, Error> {
        let forwarding = self.forwarding()?;
        let dest = self.dest(forwarding.method == forwarding::MASQ)?;
        let family = self.service()?.family();
        if address(dest.ip()).family() != family && forwarding.method != forwarding::TUNNEL {
            let text = format!("{dest} is of another family than its service");
            return Err(Error::Usage(text));
        }
        const THRESHOLD_MAX: u32 = i32::MAX as u32;
        Ok(DestConfig {
            address: dest,
            forwarding,
            weight: self.number(Kind::Weight, 0, WEIGHT_MAX, WEIGHT_DEFAULT)?,
            upper: self.number(Kind::Upper, 0, THRESHOLD_MAX, 0)?,
            lower: self.number(Kind::Lower, 0, THRESHOLD_MAX, 0)?,
        })
    }

    fn forwarding(&self) -> Result<Forwarding, Error> {
        let method = match self.spelling(Kind::Forward) {
            Some("masquerading") => forwarding::MASQ,
            Some("ipip") => forwarding::TUNNEL,
            _ => forwarding::DROUTE,
        };
        let checksum = [
            Kind::TunnelNoChecksum,
            Kind::TunnelChecksum,
            Kind::TunnelRemoteChecksum,
        ];
        let tunnel_options = [Kind::TunnelType, Kind::TunnelPort];
        let mut given = checksum.iter().chain(&tunnel_options);
        if method != forwarding::TUNNEL && given.any(|kind| self.has(*kind)) {
            let text = "options of a tunnel go with -i only";
            return Err(Error::Usage(text.to_owned()));
        }
        let tunnel = match self.value(Kind::TunnelType) {
            None | Some("ipip") => 0,
            Some("gue") => 1,
            Some("gre") => 2,
            Some(other) => {
                let text = format!("`{other}` is no type of tunnel: ipip, gue or gre");
                return Err(Error::Usage(text));
            }
        };
        let port = self.number(Kind::TunnelPort, 1, u16::MAX.into(), 0)?;
        let flag = |kind, bit| if self.has(kind) { bit } else { 0 };
        Ok(Forwarding {
            method,
            tunnel,
            tunnel_port: u16::try_from(port).unwrap_or_default(),
            tunnel_flags: flag(Kind::TunnelChecksum, 1) | flag(Kind::TunnelRemoteChecksum, 2),
        })
    }

    fn listing(&self) -> Result<Listing, Error> {
        let exclusive = [Kind::Connection, Kind::Service, Kind::Timeout, Kind::Daemon];
        let tables = [
            (Kind::Stats, View::Stats),
            (Kind::Rate, View::Rate),
            (Kind::Thresholds, View::Thresholds),
            (Kind::PersistentConn, View::Persistent),
            (Kind::TunnelInfo, View::Tunnels),
        ];
        let apart: Vec<&str> = exclusive
            .iter()
            .filter_map(|kind| self.spelling(*kind))
            .collect();
        if let [one, other, ..] = apart.as_slice() {
            return Err(Error::Usage(format!("--{one} does not go with --{other}")));
        }
        let table = tables.iter().find(|(kind, _)| self.has(*kind));
        let view = match apart.first().copied() {
            Some("connection") => View::Connections,
            Some("timeout") => View::Timeouts,
            Some("daemon") => View::Daemon,
            _ => table.map_or(View::Plain, |(_, view)| *view),
        };
        let alone = matches!(view, View::Connections | View::Timeouts | View::Daemon);
        // ipvsadm shows the persistence engine's column with -c.
        if alone && table.is_some() && !self.has(Kind::PersistentConn) {
            let text = "counters, rates, thresholds and tunnels are of services, not of these";
            return Err(Error::Usage(text.to_owned()));
        }
        Ok(Listing {
            service: self.optional_service()?,
            view,
            engine_columns: self.has(Kind::PersistentConn),
            exact: self.has(Kind::Exact),
            unsorted: self.has(Kind::NoSort),
            numeric: self.has(Kind::Numeric),
        })
    }

    fn timeouts(&self) -> Result<TimeoutsUpdate, Error> {
        let mut seconds = self
            .words
            .iter()
            .map(|word| number("set", word, 0, TIMEOUT_S_MAX));
        let mut next = || seconds.next().unwrap_or(Ok(0));
        Ok(TimeoutsUpdate {
            tcp_s: next()?,
            tcp_fin_s: next()?,
            udp_s: next()?,
        })
    }

    fn daemon(&self) -> Result<Daemon, Error> {
        let role = match self.words.first().map(String::as_str) {
            Some("master") => 1,
            Some("backup") => 2,
            _ => return Err(Error::Usage("the daemon is master or backup".to_owned())),
        };
        let group = match self.value(Kind::Group) {
            Some(text) => Some(multicast(text)?),
            None => None,
        };
        let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let ttl = self.number(Kind::GroupTtl, 1, u8::MAX.into(), 0)?;
        Ok(Daemon {
            role,
            interface: self
                .value(Kind::Interface)
                .unwrap_or(INTERFACE_DEFAULT)
                .to_owned(),
            sync_id: self.number(Kind::SyncId, 0, u8::MAX.into(), 0)?,
            message_bytes_max: small(self.number(Kind::SyncMaxLength, 1, SYNC_BYTES_MAX, 0)?),
            group,
            port: small(self.number(Kind::GroupPort, 1, u16::MAX.into(), 0)?),
            ttl: u8::try_from(ttl).unwrap_or(u8::MAX),
        })
    }
}

fn endpoint(text: &str, transport: Transport, port_default: u16) -> Result<SocketAddr, Error> {
    let parse = || {
        let (host, port) = split_endpoint(text)?;
        let port = match port {
            Some(port) => parse_port(port, transport)?,
            None => port_default,
        };
        Ok(SocketAddr::new(parse_host(host)?, port))
    };
    parse().map_err(Error::Usage)
}

fn multicast(text: &str) -> Result<IpAddr, Error> {
    match text.parse::<IpAddr>() {
        Ok(group) if group.is_multicast() => Ok(group),
        _ => Err(Error::Usage(format!("`{text}` is no multicast address"))),
    }
}

fn number(long: &str, text: &str, min: u32, max: u32) -> Result<u32, Error> {
    match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(Error::Usage(format!(
            "--{long} takes a whole number from {min} to {max}, not `{text}`"
        ))),
    }
}
