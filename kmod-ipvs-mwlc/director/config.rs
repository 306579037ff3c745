// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What an administrator configures: virtual services and their destinations (real servers).

use crate::director::address::Address;
use crate::director::errno::{Errno, Reject};
use crate::director::flags::{FlagsUpdate, SERVICE_ONE_PACKET, SERVICE_PERSISTENT, SERVICE_SCHED1};
use crate::director::netmask::Netmask;
use crate::director::sched::Scheduler;
use crate::director::service_key::{Endpoint, ServiceKey};
use crate::director::timeouts::TIMEOUT_S_MAX;

/// A virtual service as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The service's name.
    pub key: ServiceKey,
    /// The scheduler as asked for; [`ServiceConfig::policy`] is the one that decides.
    pub scheduler: Scheduler,
    /// `SERVICE_*` flags, without `SERVICE_HASHED`, which is added when reported.
    pub flags: u32,
    /// How long a client stays with its real server after its last connection, in seconds; counts
    /// with [`SERVICE_PERSISTENT`] only.
    pub timeout_s: u32,
    /// Which clients persistence takes as one.
    pub netmask: Netmask,
}

impl ServiceConfig {
    /// Whether a client stays on its real server.
    pub const fn is_persistent(&self) -> bool {
        self.flags & SERVICE_PERSISTENT != 0
    }

    /// Whether every UDP datagram is scheduled on its own.
    pub const fn is_one_packet(&self) -> bool {
        self.flags & SERVICE_ONE_PACKET != 0
    }

    /// The configuration if its parts go together, or why it is refused.
    pub const fn checked(self) -> Result<ServiceConfig, Reject> {
        if let ServiceKey::Endpoint(Endpoint { port: 0, .. }) = self.key {
            if !self.is_persistent() {
                return Err(Reject::new(
                    Errno::Invalid,
                    c"port 0 takes a persistent service: add -p",
                ));
            }
        }
        if self.is_persistent() && (self.timeout_s == 0 || self.timeout_s > TIMEOUT_S_MAX) {
            return Err(Reject::new(
                Errno::Invalid,
                c"a persistence timeout is 1 to 2147483 seconds",
            ));
        }
        Ok(self)
    }

    /// The scheduler that decides: `wlc` with `flag-1` is `mwlc`, `sed` with it is `msed`.
    ///
    /// keepalived has a closed list of scheduler names, but passes the flag for any of them.
    pub const fn policy(&self) -> Scheduler {
        match self.scheduler {
            Scheduler::Wlc if self.flags & SERVICE_SCHED1 != 0 => Scheduler::Mwlc,
            Scheduler::ShortestExpectedDelay if self.flags & SERVICE_SCHED1 != 0 => Scheduler::Msed,
            asked => asked,
        }
    }
}

/// An edit of an existing service (`ipvsadm -E`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEdit {
    /// Which service.
    pub key: ServiceKey,
    /// Its scheduler from now on.
    pub scheduler: Scheduler,
    /// Its flags' changes.
    pub flags: FlagsUpdate,
    /// Persistence timeout in seconds.
    pub timeout_s: u32,
    /// Persistence netmask.
    pub netmask: Netmask,
}

impl ServiceEdit {
    /// The configuration of a new service.
    pub const fn added(&self) -> Result<ServiceConfig, Reject> {
        self.over(0)
    }

    /// The service's configuration after the edit.
    pub const fn apply(&self, old: &ServiceConfig) -> Result<ServiceConfig, Reject> {
        self.over(old.flags)
    }

    const fn over(&self, flags: u32) -> Result<ServiceConfig, Reject> {
        let config = ServiceConfig {
            key: self.key,
            scheduler: self.scheduler,
            flags: self.flags.apply(flags),
            timeout_s: self.timeout_s,
            netmask: self.netmask,
        };
        config.checked()
    }
}

/// What names a destination within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestKey {
    /// The real server's address.
    pub address: Address,
    /// Its port, in host order. In VS/DR the service's, since ports do not change; of a
    /// firewall-mark service any, without effect.
    pub port: u16,
}

/// How packets reach a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// The director itself serves (`LOCALNODE`, 1).
    LocalNode,
    /// Direct routing (`DROUTE`, 3): only the link-layer destination changes.
    DirectRouting,
}

impl Forwarding {
    /// Every way.
    pub const ALL: [Forwarding; 2] = [Forwarding::LocalNode, Forwarding::DirectRouting];

    /// The way with this number in the IPVS family, if the director has it.
    pub const fn from_number(number: u32) -> Option<Forwarding> {
        match number {
            1 => Some(Forwarding::LocalNode),
            3 => Some(Forwarding::DirectRouting),
            _ => None,
        }
    }

    /// Its name in `/proc/net/ip_vs`.
    pub const fn name(self) -> &'static str {
        match self {
            Forwarding::LocalNode => "Local",
            Forwarding::DirectRouting => "Route",
        }
    }

    /// The number in the IPVS family, below 8.
    pub const fn number(self) -> u32 {
        match self {
            Forwarding::LocalNode => 1,
            Forwarding::DirectRouting => 3,
        }
    }
}

/// A destination (real server) as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestConfig {
    /// The destination's name within its service.
    pub key: DestKey,
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// Wi, 0 to [`crate::director::limits::WEIGHT_MAX`]; 0 quiesces: no new connections.
    pub weight: u32,
    /// When it takes no more connections.
    pub thresholds: Thresholds,
}

/// Connection counts at which a destination stops and resumes taking connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Thresholds {
    /// Overloaded at this many connections; 0: never.
    pub upper: u32,
    /// No longer overloaded below this many; 0: three quarters of `upper`.
    pub lower: u32,
}

impl Thresholds {
    /// Whether a destination with this many connections (all classes) is overloaded, given whether
    /// it was. As IPVS has it: on at `upper`, off below `lower` or below three quarters of `upper`.
    pub const fn overloaded(self, was: bool, connections: u32) -> bool {
        if self.upper == 0 {
            return false;
        }
        if connections >= self.upper {
            return true;
        }
        if !was {
            return false;
        }
        if self.lower != 0 {
            connections >= self.lower
        } else {
            (connections as u64).saturating_mul(4) >= (self.upper as u64).saturating_mul(3)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_have_hysteresis() {
        let none = Thresholds::default();
        assert!(!none.overloaded(true, u32::MAX));
        let both = Thresholds {
            upper: 10,
            lower: 5,
        };
        let cases = [
            (false, 9, false),
            (false, 10, true),
            (true, 5, true),
            (true, 4, false),
        ];
        for (was, connections, expected) in cases {
            assert_eq!(both.overloaded(was, connections), expected, "{connections}");
        }
        // Without a lower one, three quarters of the upper.
        let upper = Thresholds { upper: 8, lower: 0 };
        for (was, connections, expected) in [(true, 6, true), (true, 5, false), (false, 7, false)] {
            assert_eq!(
                upper.overloaded(was, connections),
                expected,
                "{connections}"
            );
        }
    }
}
