// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Draining a real server: no new connections, and what becomes of the old ones in the end.

/// The longest time that a drain may leave: a week.
pub const DRAIN_MS_MAX: u64 = 7 * 24 * 3600 * 1000;

/// What becomes of a real server's connections when its time is over, or when it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DrainPolicy {
    /// They end: the client's next segment is answered with a reset.
    #[default]
    Reset,
    /// They go to another real server with their next packet. A datagram is at home there; of a TCP
    /// connection that server knows nothing, and resets it.
    Redispatch,
}

impl DrainPolicy {
    /// The number in the `ipvs_mwlc` family.
    pub const fn number(self) -> u8 {
        match self {
            DrainPolicy::Reset => 0,
            DrainPolicy::Redispatch => 1,
        }
    }

    /// The policy with this number.
    pub const fn from_number(number: u8) -> Option<DrainPolicy> {
        match number {
            0 => Some(DrainPolicy::Reset),
            1 => Some(DrainPolicy::Redispatch),
            _ => None,
        }
    }
}

/// A drain that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainRequest {
    /// How long connections may go on, in milliseconds, at most [`DRAIN_MS_MAX`]; `None`: as long as
    /// they like.
    pub deadline_ms: Option<u64>,
    /// What becomes of those that are left then.
    pub policy: DrainPolicy,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainView {
    /// Until the deadline; 0: it has passed. `None`: there is none.
    pub left_ms: Option<u64>,
    /// What becomes of the connections then.
    pub policy: DrainPolicy,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_round_trip() {
        for policy in [DrainPolicy::Reset, DrainPolicy::Redispatch] {
            assert_eq!(DrainPolicy::from_number(policy.number()), Some(policy));
        }
        assert_eq!(DrainPolicy::from_number(2), None);
    }
}
