// SPDX-License-Identifier: MIT
//! Our family `ipvs_mwlc` in typed form, as a client: sizes, loads, connections.

mod event;
mod sizes;

use std::net::SocketAddr;

pub use event::Event;
pub use sizes::{FileName, FileSize, NodeReport};

use ipvs_mwlc::director::address::Transport;
use ipvs_mwlc::director::conn::ConnState;
use ipvs_mwlc::director::drain::DrainPolicy;
use ipvs_mwlc::director::errno::Reject;
use ipvs_mwlc::director::load::{Learn, SizePolicy};
use ipvs_mwlc::director::netlink::{Attribute, Attributes};
use ipvs_mwlc::director::refusals::Refusals;
use ipvs_mwlc::uapi::mwlc::{FAMILY_NAME, attribute, command, conn, dest, group, service};

use crate::error::Error;
use crate::genl::{Answer, Connection, Heard};
use crate::ipvs::answer::parse_all;
use crate::names::{INVALID, ServiceName, address, parse_ip, parse_transport};

/// A full ramp: the whole weight counts.
const RAMP_FULL_PERMILLE: u32 = 1000;

const MESSAGE_SLOTS: usize = attribute::MAX as usize + 1;
const SERVICE_SLOTS: usize = service::MAX as usize + 1;

/// A connection to the director's own family.
pub struct Mwlc {
    connection: Connection,
}

/// A service and what its connections are expected to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSizes {
    /// Its name.
    pub name: ServiceName,
    /// The scheduler that decides.
    pub policy: String,
    /// The configured expected size in bytes.
    pub configured_bytes: u64,
    /// Where the expected size comes from.
    pub size_policy: SizePolicy,
    /// What a new connection starts with now, in bytes.
    pub expected_bytes: u64,
    /// How many sizes were learned.
    pub learned_count: u64,
    /// Whether sizes are learned from packets.
    pub learn: Learn,
    /// Whether sizes shrink as clients acknowledge.
    pub remaining: bool,
    /// How long a real server takes to its whole weight, in milliseconds.
    pub slow_start_ms: u32,
    /// Clients that were turned away, by cause.
    pub refused: Refusals,
}

/// Changes to a service; `None` leaves a setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The configured expected size in bytes.
    pub expected_bytes: Option<u64>,
    /// Where the expected size comes from.
    pub size_policy: Option<SizePolicy>,
    /// Whether sizes are learned from packets.
    pub learn: Option<Learn>,
    /// Whether sizes shrink as clients acknowledge.
    pub remaining: Option<bool>,
    /// How long a real server takes to its whole weight, in milliseconds.
    pub slow_start_ms: Option<u32>,
}

/// A destination and its load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestLoadEntry {
    /// Its service.
    pub service: ServiceName,
    /// Its name.
    pub address: SocketAddr,
    /// Wi.
    pub weight: u32,
    /// Ci in bytes.
    pub load_bytes: u64,
    /// Half-open connections.
    pub pending: u32,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Whether it is over its upper threshold.
    pub overloaded: bool,
    /// Connections scheduled so far.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// The part of its weight that counts, in thousandths; below 1000 in slow start.
    pub ramp_permille: u32,
    /// Persistence templates that name it.
    pub persistent: u32,
    /// How far it is, if it drains.
    pub drain: Option<Drain>,
}

/// A drain that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// What becomes of the connections that are left at its deadline.
    pub policy: DrainPolicy,
    /// Milliseconds to the deadline, if it has one.
    pub left_ms: Option<u64>,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnEntry {
    /// TCP or UDP.
    pub transport: Transport,
    /// The client.
    pub client: SocketAddr,
    /// The virtual address.
    pub virtual_address: SocketAddr,
    /// The real server.
    pub dest: SocketAddr,
    /// Its state.
    pub state: ConnState,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Whether the size was learned or set.
    pub size_known: bool,
    /// Milliseconds since it was scheduled.
    pub age_ms: u64,
    /// Milliseconds until it expires.
    pub expires_ms: u64,
}

impl Mwlc {
    /// Connects.
    pub fn open() -> Result<Mwlc, Error> {
        let connection = Connection::open(FAMILY_NAME)?.ok_or(Error::NotLoaded)?;
        Ok(Mwlc { connection })
    }

    /// The numbers of the commands that this director has.
    pub fn commands(&self) -> &[u8] {
        self.connection.commands()
    }

    /// Every service.
    pub fn services(&mut self) -> Result<Vec<ServiceSizes>, Error> {
        let action = "listing the services";
        let answers = self
            .connection
            .dump(action, command::GET_SERVICE, |_| Ok(()))?;
        parse_all(action, &answers, parse_service)
    }

    /// The destinations of one service, or of all.
    pub fn dests(&mut self, of: Option<&ServiceName>) -> Result<Vec<DestLoadEntry>, Error> {
        let action = "listing the loads";
        let answers = self
            .connection
            .dump(action, command::GET_DEST, |encoder| match of {
                Some(name) => {
                    let nest = encoder.nest(attribute::SERVICE)?;
                    name.encode(encoder, service::FWMARK)?;
                    encoder.end_nest(nest)
                }
                None => Ok(()),
            })?;
        parse_all(action, &answers, parse_dest)
    }

    /// Every connection.
    pub fn connections(&mut self) -> Result<Vec<ConnEntry>, Error> {
        let action = "listing the connections";
        let answers = self
            .connection
            .dump(action, command::GET_CONN, |_| Ok(()))?;
        parse_all(action, &answers, parse_conn)
    }

    /// Changes settings of a service.
    pub fn set_service(
        &mut self,
        name: &ServiceName,
        settings: &ServiceSettings,
    ) -> Result<(), Error> {
        let action = format!("setting {name}");
        self.connection
            .act(&action, command::SET_SERVICE, |encoder| {
                let nest = encoder.nest(attribute::SERVICE)?;
                name.encode(encoder, service::FWMARK)?;
                if let Some(bytes) = settings.expected_bytes {
                    encoder.u64(service::EXPECTED_SIZE, bytes)?;
                }
                if let Some(policy) = settings.size_policy {
                    encoder.u8(service::SIZE_POLICY, policy.number())?;
                }
                if let Some(learn) = settings.learn {
                    encoder.u8(service::LEARN, learn.number())?;
                }
                if let Some(remaining) = settings.remaining {
                    encoder.u8(service::REMAINING, u8::from(remaining))?;
                }
                if let Some(slow_start_ms) = settings.slow_start_ms {
                    encoder.u32(service::SLOW_START_MS, slow_start_ms)?;
                }
                encoder.end_nest(nest)
            })
    }

    /// Drains a real server: it takes no new connections from now on, and at the deadline, if there is
    /// one, the connections that are left are dealt with.
    pub fn drain(
        &mut self,
        of: &ServiceName,
        dest: SocketAddr,
        deadline_ms: Option<u64>,
        policy: DrainPolicy,
    ) -> Result<(), Error> {
        let action = format!("draining real server {dest} of {of}");
        self.connection.act(&action, command::DRAIN, |encoder| {
            let nest = encoder.nest(attribute::SERVICE)?;
            of.encode(encoder, service::FWMARK)?;
            encoder.end_nest(nest)?;
            let nest = encoder.nest(attribute::DEST)?;
            let ip = address(dest.ip());
            encoder.u16(dest::AF, ip.family().number())?;
            encoder.bytes(dest::ADDR, &ip.to_union())?;
            encoder.be16(dest::PORT, dest.port())?;
            if let Some(deadline_ms) = deadline_ms {
                encoder.u64(dest::DRAIN_LEFT_MS, deadline_ms)?;
            }
            encoder.u8(dest::DRAIN_POLICY, policy.number())?;
            encoder.end_nest(nest)
        })
    }

    /// Joins the group of events.
    pub fn listen(&self) -> Result<(), Error> {
        match self.connection.join(group::EVENTS)? {
            true => Ok(()),
            false => Err(Error::Reply {
                action: "listening for events".to_owned(),
                what: "this director has no group `events`: it is older than mwlcadm".to_owned(),
            }),
        }
    }

    /// Waits for the next events; none if some were missed.
    pub fn events(&self) -> Result<Option<Vec<Event>>, Error> {
        match self.connection.hear()? {
            Heard::Messages(messages) => {
                let action = "listening for events";
                parse_all(action, &messages, event::parse).map(Some)
            }
            Heard::Missed => Ok(None),
        }
    }

    /// Sets the size of one connection.
    pub fn set_connection_size(
        &mut self,
        transport: Transport,
        client: SocketAddr,
        vip: SocketAddr,
        size_bytes: u64,
    ) -> Result<(), Error> {
        let action = format!(
            "setting the size of connection {} {client} -> {vip}",
            transport.name()
        );
        let family = address(client.ip()).family();
        self.connection.act(&action, command::SET_CONN, |encoder| {
            let nest = encoder.nest(attribute::CONN)?;
            encoder.u16(conn::AF, family.number())?;
            encoder.u16(conn::PROTOCOL, u16::from(transport.number()))?;
            encoder.bytes(conn::CLIENT_ADDR, &address(client.ip()).to_union())?;
            encoder.be16(conn::CLIENT_PORT, client.port())?;
            encoder.bytes(conn::VIRTUAL_ADDR, &address(vip.ip()).to_union())?;
            encoder.be16(conn::VIRTUAL_PORT, vip.port())?;
            encoder.u64(conn::SIZE_BYTES, size_bytes)?;
            encoder.end_nest(nest)
        })
    }
}

fn parse_service(answer: &Answer) -> Result<ServiceSizes, Reject> {
    let message = Attributes::new(&answer.attributes).table::<MESSAGE_SLOTS>()?;
    let nest = message.require(attribute::SERVICE, c"no service in it")?;
    let table = nest.nested().table::<SERVICE_SLOTS>()?;
    let number = |kind, missing| table.require(kind, missing).and_then(Attribute::u64);
    let count = |kind| table.get(kind).map_or(Ok(0), Attribute::u64);
    let name = table.require(service::POLICY_NAME, c"a service has no scheduler")?;
    let policy = table.require(service::SIZE_POLICY, c"a service has no size policy")?;
    Ok(ServiceSizes {
        name: ServiceName::parse(&table, service::FWMARK)?,
        policy: String::from_utf8_lossy(name.string(usize::MAX)?).into_owned(),
        configured_bytes: number(service::EXPECTED_SIZE, c"a service has no expected size")?,
        size_policy: SizePolicy::from_number(policy.u8()?)
            .ok_or(policy.reject(INVALID, c"a service has an unknown size policy"))?,
        expected_bytes: number(service::EXPECTED_SIZE_NOW, c"a service expects no size")?,
        learned_count: number(service::LEARNED_COUNT, c"a service has no learned count")?,
        learn: match table.get(service::LEARN) {
            Some(learn) => Learn::from_number(learn.u8()?)
                .ok_or(learn.reject(INVALID, c"a service learns in an unknown way"))?,
            None => Learn::Off,
        },
        remaining: table.get(service::REMAINING).map_or(Ok(0), Attribute::u8)? != 0,
        slow_start_ms: table
            .get(service::SLOW_START_MS)
            .map_or(Ok(0), Attribute::u32)?,
        refused: Refusals {
            empty: count(service::REFUSED_EMPTY)?,
            quiesced: count(service::REFUSED_QUIESCED)?,
            overloaded: count(service::REFUSED_OVERLOADED)?,
            full: count(service::REFUSED_FULL)?,
            selected: count(service::REFUSED_SELECTED)?,
        },
    })
}

fn parse_dest(answer: &Answer) -> Result<DestLoadEntry, Reject> {
    let message = Attributes::new(&answer.attributes).table::<MESSAGE_SLOTS>()?;
    let of = message.require(attribute::SERVICE, c"no service in it")?;
    let nest = message.require(attribute::DEST, c"no real server in it")?;
    let table = nest.nested().table::<{ dest::MAX as usize + 1 }>()?;
    let small = |kind, missing| table.require(kind, missing).and_then(Attribute::u32);
    let large = |kind, missing| table.require(kind, missing).and_then(Attribute::u64);
    let family = table.require(dest::AF, c"a real server has no family")?;
    let address = table.require(dest::ADDR, c"a real server has no address")?;
    let port = table.require(dest::PORT, c"a real server has no port")?;
    Ok(DestLoadEntry {
        service: ServiceName::parse(&of.nested().table::<SERVICE_SLOTS>()?, service::FWMARK)?,
        address: SocketAddr::new(parse_ip(family, address)?, port.be16()?),
        weight: small(dest::WEIGHT, c"a real server has no weight")?,
        load_bytes: large(dest::LOAD_BYTES, c"a real server has no load")?,
        pending: small(
            dest::PENDING_CONNS,
            c"a real server has no pending connections",
        )?,
        active: small(
            dest::ACTIVE_CONNS,
            c"a real server has no active connections",
        )?,
        inactive: small(
            dest::INACTIVE_CONNS,
            c"a real server has no inactive connections",
        )?,
        overloaded: table
            .require(dest::OVERLOADED, c"a real server has no flag")?
            .u8()?
            != 0,
        connections: large(dest::CONNECTIONS, c"a real server has no connection count")?,
        in_packets: large(dest::IN_PACKETS, c"a real server has no packet count")?,
        in_bytes: large(dest::IN_BYTES, c"a real server has no byte count")?,
        ramp_permille: table
            .get(dest::RAMP_PERMILLE)
            .map_or(Ok(RAMP_FULL_PERMILLE), Attribute::u32)?,
        persistent: table
            .get(dest::PERSISTENT_CONNS)
            .map_or(Ok(0), Attribute::u32)?,
        drain: match table.get(dest::DRAIN_POLICY) {
            Some(policy) => Some(Drain {
                policy: DrainPolicy::from_number(policy.u8()?)
                    .ok_or(policy.reject(INVALID, c"a real server drains in an unknown way"))?,
                left_ms: table
                    .get(dest::DRAIN_LEFT_MS)
                    .map(Attribute::u64)
                    .transpose()?,
            }),
            None => None,
        },
    })
}

fn parse_conn(answer: &Answer) -> Result<ConnEntry, Reject> {
    let message = Attributes::new(&answer.attributes).table::<MESSAGE_SLOTS>()?;
    let nest = message.require(attribute::CONN, c"no connection in it")?;
    let table = nest.nested().table::<14>()?;
    let number = |kind, missing| table.require(kind, missing).and_then(Attribute::u64);
    let family = table.require(conn::AF, c"a connection has no family")?;
    let endpoint = |address, port| -> Result<SocketAddr, Reject> {
        let address = table.require(address, c"a connection has an address missing")?;
        let port = table.require(port, c"a connection has a port missing")?;
        Ok(SocketAddr::new(parse_ip(family, address)?, port.be16()?))
    };
    let state = table.require(conn::STATE, c"a connection has no state")?;
    Ok(ConnEntry {
        transport: parse_transport(
            table.require(conn::PROTOCOL, c"a connection has no protocol")?,
        )?,
        client: endpoint(conn::CLIENT_ADDR, conn::CLIENT_PORT)?,
        virtual_address: endpoint(conn::VIRTUAL_ADDR, conn::VIRTUAL_PORT)?,
        dest: endpoint(conn::DEST_ADDR, conn::DEST_PORT)?,
        state: ConnState::from_u8(state.u8()?)
            .ok_or(state.reject(INVALID, c"a connection has an unknown state"))?,
        size_bytes: number(conn::SIZE_BYTES, c"a connection has no size")?,
        size_known: table
            .require(conn::SIZE_KNOWN, c"a connection has no flag")?
            .u8()?
            != 0,
        age_ms: number(conn::AGE_MS, c"a connection has no age")?,
        expires_ms: number(conn::EXPIRES_MS, c"a connection has no expiry")?,
    })
}

#[cfg(test)]
mod tests {
    //! The director's own encoders write the answers that are read here.
    use super::*;
    use ipvs_mwlc::director::address::Address;
    use ipvs_mwlc::director::config::{DestKey, Forwarding};
    use ipvs_mwlc::director::drain::DrainView;
    use ipvs_mwlc::director::flow::FlowKey;
    use ipvs_mwlc::director::flow::Tuple;
    use ipvs_mwlc::director::load::ExpectedSize;
    use ipvs_mwlc::director::mwlc_family::{
        DestinationView, ServiceView, encode_connection, encode_destination, encode_service,
    };
    use ipvs_mwlc::director::netlink::{Encoder, Full};
    use ipvs_mwlc::director::record::ConnectionRecord;
    use ipvs_mwlc::director::sched::{DestLoad, Scheduler};
    use ipvs_mwlc::director::service_key::ServiceKey;
    use ipvs_mwlc::director::stats::Counters;
    use ipvs_mwlc::director::tcp::TcpState;
    use ipvs_mwlc::director::word::{Progress, Watch, Word};

    fn answer(write: impl FnOnce(&mut Encoder<'_>) -> Result<(), Full>) -> Answer {
        let mut buffer = [0; 1024];
        let mut encoder = Encoder::new(&mut buffer);
        write(&mut encoder).unwrap();
        Answer {
            command: 0,
            attributes: encoder.written().to_vec(),
        }
    }

    fn key() -> ServiceKey {
        ServiceKey::endpoint(Transport::Tcp, Address::V4([10, 0, 0, 100]), 80)
    }

    fn name() -> ServiceName {
        ServiceName::Address(Transport::Tcp, "10.0.0.100:80".parse().unwrap())
    }

    fn dest_key() -> DestKey {
        DestKey {
            address: Address::V4([10, 0, 0, 1]),
            port: 80,
        }
    }

    #[test]
    fn a_service_is_read() {
        let expected = ExpectedSize::new(9, SizePolicy::Learned).learn(5);
        let refused = Refusals {
            overloaded: 7,
            ..Refusals::default()
        };
        let view = ServiceView {
            key: key(),
            policy: Scheduler::Mwlc,
            expected,
            learn: Learn::Http,
            remaining: true,
            slow_start_ms: 30_000,
            refused,
        };
        let sizes = parse_service(&answer(|encoder| encode_service(encoder, &view))).unwrap();
        let expected = ServiceSizes {
            name: name(),
            policy: "mwlc".to_owned(),
            configured_bytes: 9,
            size_policy: SizePolicy::Learned,
            expected_bytes: 5,
            learned_count: 1,
            learn: Learn::Http,
            remaining: true,
            slow_start_ms: 30_000,
            refused,
        };
        assert_eq!(sizes, expected);
    }

    #[test]
    fn a_load_is_read() {
        let load = DestLoad {
            weight: 1,
            pending: 2,
            active: 3,
            inactive: 4,
            bytes: 5,
            capped_bytes: 0,
            overloaded: true,
            ..DestLoad::default()
        };
        let counters = Counters {
            connections: 6,
            in_packets: 7,
            in_bytes: 8,
            ..Counters::default()
        };
        let view = DestinationView {
            service: key(),
            key: dest_key(),
            load,
            counters,
            persistent: 9,
            drain: Some(DrainView {
                policy: DrainPolicy::Redispatch,
                left_ms: Some(5),
            }),
            reported: None,
        };
        let entry = parse_dest(&answer(|encoder| encode_destination(encoder, &view))).unwrap();
        let expected = DestLoadEntry {
            service: name(),
            address: "10.0.0.1:80".parse().unwrap(),
            weight: 1,
            load_bytes: 5,
            pending: 2,
            active: 3,
            inactive: 4,
            overloaded: true,
            connections: 6,
            in_packets: 7,
            in_bytes: 8,
            ramp_permille: RAMP_FULL_PERMILLE,
            persistent: 9,
            drain: Some(Drain {
                policy: DrainPolicy::Redispatch,
                left_ms: Some(5),
            }),
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn a_connection_is_read() {
        let tuple = Tuple {
            transport: Transport::Tcp,
            source: Address::V4([10, 0, 0, 9]),
            source_port: 40_000,
            destination: Address::V4([10, 0, 0, 100]),
            destination_port: 80,
        };
        let word = Word::new(
            ConnState::Tcp(TcpState::FinWait),
            Forwarding::DirectRouting,
            0,
            Watch::default(),
        );
        let record = ConnectionRecord {
            key: FlowKey::of(&tuple).unwrap(),
            destination: dest_key(),
            word: word.with_size(1, true).unwrap(),
            progress: Progress::NONE,
            age_ms: 2,
            idle_ms: 0,
            expires_ms: 3,
        };
        let entry = parse_conn(&answer(|encoder| encode_connection(encoder, &record))).unwrap();
        let expected = ConnEntry {
            transport: Transport::Tcp,
            client: "10.0.0.9:40000".parse().unwrap(),
            virtual_address: "10.0.0.100:80".parse().unwrap(),
            dest: "10.0.0.1:80".parse().unwrap(),
            state: ConnState::Tcp(TcpState::FinWait),
            size_bytes: 1,
            size_known: true,
            age_ms: 2,
            expires_ms: 3,
        };
        assert_eq!(entry, expected);
    }
}
