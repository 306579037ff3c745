// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which destination takes the next connection.
//!
//! A scheduler looks once or twice over the destinations, in their order in the service, and answers
//! an index into them. What it must remember between calls is a [`SchedState`], which the caller keeps
//! per service. A destination with weight 0 (quiesced) or over its threshold is never chosen.

mod fo;
mod hash;
mod lc;
pub mod mh;
mod msed;
mod mwlc;
mod nq;
mod ovf;
mod ramp;
mod ratio;
mod rr;
mod sed;
mod server;
pub mod sh;
mod twos;
mod wlc;
mod wrr;

pub use ramp::{Ramp, RAMP_FLOOR_PERMILLE, RAMP_FULL_PERMILLE};
pub use server::{
    overhead_difference, Choice, DestLoad, NoDestination, Request, SchedState, Server, PENDING_MAX,
    PENDING_PER_WEIGHT_MAX,
};

use server::snapshots;

/// All there is to know of each scheduler: its variant, its name in ipvsadm, whether it looks into
/// [`Request::table`], whether it looks at [`Request::random`], and the function that selects.
macro_rules! schedulers {
    ($(
        #[doc = $doc:literal]
        $variant:ident: $name:literal, table: $needs_table:literal, lots: $draws_lots:literal, $select:path;
    )*) => {
        /// A scheduler, by its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Scheduler {
            $(
                #[doc = $doc]
                $variant,
            )*
        }

        impl Scheduler {
            /// Every scheduler.
            pub const ALL: [Scheduler; [$($name),*].len()] = [$(Scheduler::$variant,)*];

            /// Its name in ipvsadm.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Scheduler::$variant => $name,)*
                }
            }

            /// Whether it looks into [`Request::table`].
            pub const fn needs_table(self) -> bool {
                match self {
                    $(Scheduler::$variant => $needs_table,)*
                }
            }

            /// Whether [`Request::random`] matters to it.
            pub const fn draws_lots(self) -> bool {
                match self {
                    $(Scheduler::$variant => $draws_lots,)*
                }
            }

            /// The destination for the next connection, if there is one.
            #[inline(always)]
            fn select(self, servers: &[impl Server], request: &Request<'_>) -> Option<Choice> {
                match self {
                    $(Scheduler::$variant => $select(servers, request),)*
                }
            }
        }
    };
}

schedulers! {
    /// `rr`: round robin.
    RoundRobin: "rr", table: false, lots: false, rr::select;
    /// `wrr`: weighted round robin. A destination in slow start is passed over by lot.
    WeightedRoundRobin: "wrr", table: false, lots: true, wrr::select;
    /// `lc`: least connections.
    Lc: "lc", table: false, lots: false, lc::select;
    /// `wlc`: weighted least connections.
    Wlc: "wlc", table: false, lots: false, wlc::select;
    /// `sed`: shortest expected delay.
    ShortestExpectedDelay: "sed", table: false, lots: false, sed::select;
    /// `nq`: never queue.
    NeverQueue: "nq", table: false, lots: false, nq::select;
    /// `sh`: source hashing.
    SourceHashing: "sh", table: false, lots: false, sh::select;
    /// `mh`: Maglev hashing, by the table that [`mh::fill`] makes.
    MaglevHashing: "mh", table: true, lots: false, mh::select;
    /// `fo`: weighted failover.
    Failover: "fo", table: false, lots: false, fo::select;
    /// `ovf`: weighted overflow.
    Overflow: "ovf", table: false, lots: false, ovf::select;
    /// `twos`: power of two choices.
    TwoChoices: "twos", table: false, lots: true, twos::select;
    /// `mwlc`: modified weighted least connections, Ci in bytes.
    Mwlc: "mwlc", table: false, lots: false, mwlc::select;
    /// `msed`: modified shortest expected delay, bytes up to what is expected of a connection.
    Msed: "msed", table: false, lots: false, msed::select;
}

impl Scheduler {
    /// The scheduler with this name (without a nul), if there is one.
    pub fn from_name(name: &[u8]) -> Option<Scheduler> {
        Scheduler::ALL
            .into_iter()
            .find(|scheduler| scheduler.name().as_bytes() == name)
    }

    /// The destination for the next connection.
    #[inline]
    pub fn choose(
        self,
        servers: &[impl Server],
        request: &Request<'_>,
    ) -> Result<Choice, NoDestination> {
        self.select(servers, request)
            .ok_or_else(|| self.why_none(snapshots(servers)))
    }

    /// The cause, once the scheduler has found none.
    #[cold]
    #[inline(never)]
    fn why_none(self, destinations: impl Iterator<Item = DestLoad>) -> NoDestination {
        let mut cause = NoDestination::Empty;
        for destination in destinations {
            if destination.is_eligible() {
                return match self {
                    Scheduler::Overflow => NoDestination::AllFull,
                    _ => NoDestination::SelectedUnavailable,
                };
            }
            if destination.weight > 0 {
                cause = NoDestination::AllOverloaded;
            } else if cause == NoDestination::Empty {
                cause = NoDestination::AllQuiesced;
            }
        }
        cause
    }
}
