// SPDX-License-Identifier: MIT
//! Events of the group `events`.

use std::net::SocketAddr;

use ipvs_mwlc::director::errno::Reject;
use ipvs_mwlc::director::netlink::{Attribute, Attributes};
use ipvs_mwlc::uapi::mwlc::{attribute, dest, event, event_kind, service};

use super::{MESSAGE_SLOTS, SERVICE_SLOTS};
use crate::genl::Answer;
use crate::names::{ServiceName, parse_ip};

/// Something that changed or went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What, by its number.
    pub kind: u8,
    /// The service that it is about.
    pub service: Option<ServiceName>,
    /// The real server that it is about.
    pub dest: Option<SocketAddr>,
    /// Why a client was turned away.
    pub cause: Option<String>,
    /// Events before this one that were too many to be sent.
    pub suppressed: u32,
}

impl Event {
    /// Its name in JSON.
    pub const fn name(&self) -> &'static str {
        match self.kind {
            event_kind::SERVICE_ADDED => "service-added",
            event_kind::SERVICE_EDITED => "service-edited",
            event_kind::SERVICE_REMOVED => "service-removed",
            event_kind::DEST_ADDED => "real-server-added",
            event_kind::DEST_EDITED => "real-server-edited",
            event_kind::DEST_REMOVED => "real-server-removed",
            event_kind::DEST_OVERLOADED => "overloaded",
            event_kind::DEST_RELIEVED => "relieved",
            event_kind::DEST_DRAINED => "drained",
            event_kind::NO_DEST => "no-real-server",
            event_kind::FLOOD_BEGAN => "flood-began",
            event_kind::FLOOD_ENDED => "flood-ended",
            _ => "unknown",
        }
    }
}

pub(super) fn parse(answer: &Answer) -> Result<Event, Reject> {
    let message = Attributes::new(&answer.attributes).table::<MESSAGE_SLOTS>()?;
    let nest = message.require(attribute::EVENT, c"no event in it")?;
    let table = nest.nested().table::<4>()?;
    let of = match message.get(attribute::SERVICE) {
        Some(nest) => {
            let table = nest.nested().table::<SERVICE_SLOTS>()?;
            Some(ServiceName::parse(&table, service::FWMARK)?)
        }
        None => None,
    };
    let dest = match message.get(attribute::DEST) {
        Some(nest) => Some(endpoint(nest)?),
        None => None,
    };
    let cause = match table.get(event::CAUSE) {
        Some(cause) => {
            let text = cause.string(usize::MAX)?;
            Some(String::from_utf8_lossy(text).into_owned())
        }
        None => None,
    };
    Ok(Event {
        kind: table.require(event::KIND, c"an event has no kind")?.u8()?,
        service: of,
        dest,
        cause,
        suppressed: table.get(event::SUPPRESSED).map_or(Ok(0), Attribute::u32)?,
    })
}

fn endpoint(nest: &Attribute<'_>) -> Result<SocketAddr, Reject> {
    let table = nest.nested().table::<4>()?;
    let family = table.require(dest::AF, c"a real server has no family")?;
    let address = table.require(dest::ADDR, c"a real server has no address")?;
    let port = table.require(dest::PORT, c"a real server has no port")?;
    Ok(SocketAddr::new(parse_ip(family, address)?, port.be16()?))
}

#[cfg(test)]
mod tests {
    //! The bytes are those of docs/NETLINK.md.
    use super::*;

    #[test]
    fn an_event_is_read() {
        let mut attributes = Vec::new();
        attributes.extend([
            0x14, 0, 7, 0, 5, 0, 1, 0, 7, 0, 0, 0, 8, 0, 3, 0, 3, 0, 0, 0,
        ]);
        attributes.extend([
            0x30, 0, 1, 0, 6, 0, 1, 0, 2, 0, 0, 0, 6, 0, 2, 0, 6, 0, 0, 0,
        ]);
        attributes.extend([
            0x14, 0, 3, 0, 10, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]);
        attributes.extend([6, 0, 4, 0, 0, 0x50, 0, 0]);
        attributes.extend([0x28, 0, 2, 0, 6, 0, 1, 0, 2, 0, 0, 0, 0x14, 0, 2, 0]);
        attributes.extend([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        attributes.extend([6, 0, 3, 0, 0, 0x50, 0, 0]);
        let event = parse(&Answer {
            command: 14,
            attributes,
        })
        .unwrap();
        assert_eq!(event.name(), "overloaded");
        assert_eq!(event.suppressed, 3);
        let service = event.service.map(|service| service.to_string());
        assert_eq!(service.as_deref(), Some("TCP 10.0.0.100:80"));
        assert_eq!(event.dest, Some(([10, 0, 0, 1], 80).into()));
        assert_eq!(event.cause, None);
    }
}
