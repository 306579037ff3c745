// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What schedulers and their callers speak of: a destination as a scheduler sees it, the connection that wants
//! one, what is remembered between two choices, and the answer.

use super::ramp::{Ramp, RAMP_FULL_PERMILLE};
use crate::director::address::Address;
use crate::director::limits::{CONNECTIONS_MAX, LOAD_BYTES_MAX};

/// Half-open connections that count as load, per unit of weight.
///
/// They keep the SYNs of one round trip apart, which is long where answers queue before the clients'
/// links: hundreds of clients may come in it. When a flood fills every destination up to this bound, each
/// ratio load / weight has grown by the same amount, so a flood cannot steer the choice.
pub const PENDING_PER_WEIGHT_MAX: u32 = 256;

/// Half-open connections that count in all, whatever the weight: a table never holds so many.
pub const PENDING_MAX: u32 = CONNECTIONS_MAX as u32 / 2;

/// What schedulers ask of a destination. The director's own answers by reading the one counter that is
/// asked for: a service may have a thousand destinations, and each new connection asks them all.
pub trait Server {
    /// The weight that counts, in thousandths: Wi times the ramp. 0 if the destination is quiesced or
    /// over its threshold.
    fn milliweight(&self) -> u64;
    /// Whether that is this, which is not 0, and [`Server::reported_bytes`] is 0, as far as both can be
    /// told without working them out.
    fn weighs(&self, milliweight: u64) -> bool;
    /// Half-open connections, but no more than this.
    fn pending_within(&self, max: u32) -> u32;
    /// Active connections. This and what follows may look negative for a moment.
    fn active(&self) -> i64;
    /// Active and inactive connections, as [`overhead`] counts them.
    fn overhead(&self) -> i64;
    /// Ci, in bytes.
    fn bytes(&self) -> i64;
    /// Ci is not less than this, by its node's report.
    fn reported_bytes(&self) -> i64;
    /// Ci with no connection counted beyond what was expected of it, in bytes.
    fn capped_bytes(&self) -> i64;
    /// All of it.
    fn snapshot(&self) -> DestLoad;
}

impl Server for DestLoad {
    fn milliweight(&self) -> u64 {
        if self.overloaded {
            0
        } else {
            DestLoad::milliweight(self)
        }
    }

    fn weighs(&self, milliweight: u64) -> bool {
        Server::milliweight(self) == milliweight
    }

    fn pending_within(&self, max: u32) -> u32 {
        self.pending.min(max)
    }

    fn active(&self) -> i64 {
        self.active.into()
    }

    fn overhead(&self) -> i64 {
        overhead(self.active, self.inactive)
    }

    fn bytes(&self) -> i64 {
        self.bytes.min(LOAD_BYTES_MAX) as i64
    }

    /// A snapshot has what its node reports in its bytes already.
    fn reported_bytes(&self) -> i64 {
        0
    }

    fn capped_bytes(&self) -> i64 {
        self.capped_bytes.min(LOAD_BYTES_MAX) as i64
    }

    fn snapshot(&self) -> DestLoad {
        *self
    }
}

/// A destination at the moment of scheduling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DestLoad {
    /// Wi; 0: quiesced.
    pub weight: u32,
    /// Half-open connections.
    pub pending: u32,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Ci, in bytes.
    pub bytes: u64,
    /// Ci with no connection counted beyond what was expected of it, in bytes.
    pub capped_bytes: u64,
    /// Over its threshold.
    pub overloaded: bool,
    /// The part of its weight that counts while it starts slowly.
    pub ramp: Ramp,
}

impl DestLoad {
    /// Connections of all classes.
    pub const fn connections(&self) -> u32 {
        self.pending
            .saturating_add(self.active)
            .saturating_add(self.inactive)
    }

    #[inline(always)]
    pub(super) const fn is_eligible(&self) -> bool {
        self.weight > 0 && !self.overloaded
    }

    /// The weight that counts, in thousandths: Wi times the ramp. 0 only for weight 0.
    #[inline(always)]
    pub const fn milliweight(&self) -> u64 {
        // 32 bits times 10.
        (self.weight as u64).wrapping_mul(self.ramp.permille() as u64)
    }

    /// Active connections, and the half-open ones that count.
    pub(super) fn live(&self) -> u64 {
        let pending = self.pending.min(pending_max(self.milliweight()));
        u64::from(self.active).saturating_add(pending.into())
    }
}

/// What a scheduler remembers between calls; plain data, all zero for a new service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SchedState {
    /// One more than the index chosen last; 0 at the start.
    pub next: u32,
    /// wrr: the weight that a destination must have in the present round; 0 at the start.
    pub round_weight: u32,
}

impl SchedState {
    /// All zero: nothing was chosen yet.
    pub const NEW: SchedState = SchedState {
        next: 0,
        round_weight: 0,
    };

    /// The state after the destination at `index` left the list, so that the turn of the others does
    /// not change.
    #[must_use]
    pub const fn after_removal(self, index: u32) -> SchedState {
        if index < self.next {
            SchedState {
                next: self.next.saturating_sub(1),
                ..self
            }
        } else {
            self
        }
    }
}

/// The connection that wants a destination, and what its service has to say about it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What the scheduler remembered at its last choice for this service.
    pub state: SchedState,
    /// What a half-open connection of this service is expected to fetch, in bytes.
    pub expected_size_bytes: u64,
    /// The service's flags; schedulers look at `SERVICE_SCHED1` to `3`.
    pub flags: u32,
    /// The client's address.
    pub client: Address,
    /// The client's port, in host order.
    pub client_port: u16,
    /// A random number, for schedulers that draw lots; 0 for any other.
    pub random: u64,
    /// The service's lookup table, for a scheduler that needs one; empty for any other.
    pub table: &'a [u16],
}

impl Request<'_> {
    /// A request of which no more than this is known: client 0.0.0.0 port 0, no flags, no table.
    pub const fn new(state: SchedState, expected_size_bytes: u64) -> Request<'static> {
        Request {
            state,
            expected_size_bytes,
            flags: 0,
            client: Address::V4([0; 4]),
            client_port: 0,
            random: 0,
            table: &[],
        }
    }
}

/// The answer of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The index of the destination in the order in which the snapshots came.
    pub index: u32,
    /// What to remember.
    pub state: SchedState,
}

/// Why no destination can take a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoDestination {
    /// The service has none.
    Empty,
    /// All of them have weight 0.
    AllQuiesced,
    /// Those with a weight are over their thresholds.
    AllOverloaded,
    /// `ovf`: those that are neither have more active connections than their weight.
    AllFull,
    /// `sh`, `mh`: some are available, but not the one that the client's address selects.
    SelectedUnavailable,
}

impl NoDestination {
    /// The cause in words, for the log.
    pub const fn reason(self) -> &'static str {
        match self {
            NoDestination::Empty => "the service has no real server: add one with ipvsadm -a",
            NoDestination::AllQuiesced => {
                "every real server has weight 0: give one a weight with ipvsadm -e"
            }
            NoDestination::AllOverloaded => {
                "every real server with a weight has reached its upper threshold"
            }
            NoDestination::AllFull => {
                "every real server has more active connections than its weight (ovf): raise the weights"
            }
            NoDestination::SelectedUnavailable => {
                "the real server that the client's address selects has weight 0 or is over its threshold: \
                 set flag-1 (sh-fallback, mh-fallback) to try others"
            }
        }
    }
}

/// The destinations as they are now, in order; each is looked at whenever the iterator comes to it.
pub(super) fn snapshots<S: Server>(servers: &[S]) -> impl Iterator<Item = DestLoad> + Clone + '_ {
    servers.iter().map(Server::snapshot)
}

/// The eligible destinations with their indices, in order.
pub(super) fn eligible(
    destinations: impl Iterator<Item = DestLoad>,
) -> impl Iterator<Item = (u32, DestLoad)> {
    // Not `enumerate`, whose counter carries an overflow check into the kernel.
    destinations
        .scan(0u32, |next, destination| {
            let index = *next;
            *next = index.wrapping_add(1);
            Some((index, destination))
        })
        .filter(|(_, destination)| destination.is_eligible())
}

/// The choice of `index`, with a state that remembers it.
pub(super) const fn chosen(index: u32, state: SchedState) -> Choice {
    Choice {
        index,
        state: SchedState {
            next: index.saturating_add(1),
            ..state
        },
    }
}

/// Half-open connections that count for a weight in thousandths.
#[inline(always)]
pub(super) const fn pending_max(milliweight: u64) -> u32 {
    let counted =
        milliweight.saturating_mul(PENDING_PER_WEIGHT_MAX as u64) / RAMP_FULL_PERMILLE as u64;
    if counted < PENDING_MAX as u64 {
        counted as u32
    } else {
        PENDING_MAX
    }
}

/// The cost of connections as IPVS counts it: a live one costs 256 inactive ones. 41 bits.
#[inline(always)]
pub(super) const fn overhead(active: u32, inactive: u32) -> i64 {
    ((active as i64) << 8).wrapping_add(inactive as i64)
}

/// What a difference of connections comes to in [`Server::overhead`].
pub fn overhead_difference(active: i32, inactive: i32) -> i64 {
    // 32 bits times 256.
    (i64::from(active) << 8).wrapping_add(i64::from(inactive))
}
