// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the director tells those who listen: changes of configuration, and what went wrong.

use crate::director::config::DestKey;
use crate::director::sched::NoDestination;
use crate::director::service_key::ServiceKey;
use crate::uapi::mwlc::event_kind;

/// Traffic can cause this many events in a second, and [`TRAFFIC_EVENTS_BURST_MAX`] at once; more are
/// counted and not sent, so that a flood of clients does not become a flood of messages. Changes of
/// configuration are always sent: an administrator makes them.
pub const TRAFFIC_EVENTS_PER_SECOND_MAX: u32 = 20;
/// Events of traffic that may be told of at once.
pub const TRAFFIC_EVENTS_BURST_MAX: u32 = 100;

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A service was configured.
    ServiceAdded(ServiceKey),
    /// A service's settings changed.
    ServiceEdited(ServiceKey),
    /// A service was removed, with its real servers.
    ServiceRemoved(ServiceKey),
    /// A real server was configured.
    DestAdded(ServiceKey, DestKey),
    /// A real server's settings changed.
    DestEdited(ServiceKey, DestKey),
    /// A real server was removed.
    DestRemoved(ServiceKey, DestKey),
    /// A real server is at its upper threshold.
    DestOverloaded(ServiceKey, DestKey),
    /// A real server is below its lower threshold again.
    DestRelieved(ServiceKey, DestKey),
    /// A draining real server has no connections any more.
    DestDrained(ServiceKey, DestKey),
    /// A client was turned away.
    NoDest(ServiceKey, NoDestination),
    /// Half-open connections are being dropped.
    FloodBegan,
    /// They no longer are.
    FloodEnded,
}

impl Event {
    /// A real server has come to its upper threshold, or below its lower one.
    pub const fn of_threshold(
        service: ServiceKey,
        destination: DestKey,
        overloaded: bool,
    ) -> Event {
        if overloaded {
            Event::DestOverloaded(service, destination)
        } else {
            Event::DestRelieved(service, destination)
        }
    }

    /// Its number.
    pub const fn kind(&self) -> u8 {
        match self {
            Event::ServiceAdded(_) => event_kind::SERVICE_ADDED,
            Event::ServiceEdited(_) => event_kind::SERVICE_EDITED,
            Event::ServiceRemoved(_) => event_kind::SERVICE_REMOVED,
            Event::DestAdded(..) => event_kind::DEST_ADDED,
            Event::DestEdited(..) => event_kind::DEST_EDITED,
            Event::DestRemoved(..) => event_kind::DEST_REMOVED,
            Event::DestOverloaded(..) => event_kind::DEST_OVERLOADED,
            Event::DestRelieved(..) => event_kind::DEST_RELIEVED,
            Event::DestDrained(..) => event_kind::DEST_DRAINED,
            Event::NoDest(..) => event_kind::NO_DEST,
            Event::FloodBegan => event_kind::FLOOD_BEGAN,
            Event::FloodEnded => event_kind::FLOOD_ENDED,
        }
    }

    /// The service that it is about.
    pub const fn service(&self) -> Option<ServiceKey> {
        match self {
            Event::ServiceAdded(key) | Event::ServiceEdited(key) | Event::ServiceRemoved(key) => {
                Some(*key)
            }
            Event::DestAdded(key, _)
            | Event::DestEdited(key, _)
            | Event::DestRemoved(key, _)
            | Event::DestOverloaded(key, _)
            | Event::DestRelieved(key, _)
            | Event::DestDrained(key, _) => Some(*key),
            Event::NoDest(key, _) => Some(*key),
            Event::FloodBegan | Event::FloodEnded => None,
        }
    }

    /// The real server that it is about.
    pub const fn destination(&self) -> Option<DestKey> {
        match self {
            Event::DestAdded(_, key)
            | Event::DestEdited(_, key)
            | Event::DestRemoved(_, key)
            | Event::DestOverloaded(_, key)
            | Event::DestRelieved(_, key)
            | Event::DestDrained(_, key) => Some(*key),
            Event::ServiceAdded(_)
            | Event::ServiceEdited(_)
            | Event::ServiceRemoved(_)
            | Event::NoDest(..)
            | Event::FloodBegan
            | Event::FloodEnded => None,
        }
    }

    /// Why a client was turned away.
    pub const fn cause(&self) -> Option<NoDestination> {
        match self {
            Event::NoDest(_, cause) => Some(*cause),
            _ => None,
        }
    }

    /// Whether packets cause it, as often as clients like.
    pub const fn is_from_traffic(&self) -> bool {
        matches!(
            self,
            Event::DestOverloaded(..)
                | Event::DestRelieved(..)
                | Event::DestDrained(..)
                | Event::NoDest(..)
                | Event::FloodBegan
                | Event::FloodEnded
        )
    }
}
