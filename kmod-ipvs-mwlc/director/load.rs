// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a connection adds to its destination's load, as pure differences.
//!
//! Ci, the load that MWLC compares, is the sum of the sizes in bytes of destination i's *active*
//! connections. A half-open connection adds no bytes to Ci: a flood of SYNs must not look like
//! load. So that SYNs which arrive within one round trip do not all find the same minimum, half-open
//! connections are counted apart, as *pending*, and schedulers add them as a bounded term
//! (`sched::pending_counted`). A connection that the client has closed or reset is *inactive* and adds
//! no bytes either.
//!
//! Every change of a connection is a [`change`] from what it added before to what it adds now, so the
//! sum over its life, which starts and ends with `None`, is zero in every column.

use crate::director::limits::CONNECTION_SIZE_BYTES_MAX;

/// The size of a connection whose service was given none: 1 MiB.
pub const EXPECTED_SIZE_BYTES_DEFAULT: u64 = 1 << 20;

/// The moving average takes in 1/8 of each newly learned size, as TCP does with its round trips.
const LEARNED_SHIFT: u32 = 3;

/// The most that a connection counts in [`LoadChange::capped`]: a power of two from 1 KiB to 2 TiB, so
/// that a connection can keep its own in 5 bits and take out again what it has put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap(u8);

/// The smallest cap: 1 KiB, less than the smallest thing worth telling apart.
const CAP_LOG2_MIN: u32 = 10;

impl Cap {
    /// How many bits [`Cap::bits`] has.
    pub const BITS: u32 = 5;

    /// The cap nearest in ratio to what the connection is expected to fetch.
    pub const fn of(expected_bytes: u64) -> Cap {
        // 2^n reaches up to 2^(n + 1/2): the square's logarithm, rounded up and halved, is n.
        let clamped = clamp_size(expected_bytes) as u64;
        let square = (clamped as u128).saturating_mul(clamped as u128);
        let log2_of_square = (u128::BITS - 1).saturating_sub(square.leading_zeros());
        let log2 = log2_of_square.saturating_add(1) / 2;
        Cap(log2.saturating_sub(CAP_LOG2_MIN) as u8 & 0x1f)
    }

    /// Its number.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The cap with this number; only the lowest [`Cap::BITS`] bits count.
    pub const fn from_bits(bits: u8) -> Cap {
        Cap(bits & 0x1f)
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        1u64.wrapping_shl(CAP_LOG2_MIN.saturating_add(self.0 as u32))
    }
}

/// How a connection counts on its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadClass {
    /// Half-open: the client has not acknowledged yet.
    Pending,
    /// Established, or UDP: its bytes are in Ci.
    Active,
    /// Closed by the client, waiting for its timeout.
    Inactive,
}

/// What one connection adds to its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which count it is in.
    pub class: LoadClass,
    /// What it fetches, in bytes; counted in Ci while the class is active.
    pub size_bytes: u64,
    /// The most of it that is counted in [`LoadChange::capped`]; the same for a connection's life.
    pub cap: Cap,
}

impl Share {
    const fn columns(self) -> LoadChange {
        let zero = LoadChange::ZERO;
        match self.class {
            LoadClass::Pending => LoadChange { pending: 1, ..zero },
            LoadClass::Active => LoadChange {
                active: 1,
                bytes: clamp_size(self.size_bytes),
                capped: least(clamp_size(self.size_bytes), self.cap.bytes() as i64),
                ..zero
            },
            LoadClass::Inactive => LoadChange {
                inactive: 1,
                ..zero
            },
        }
    }
}

/// A difference to add to a destination's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LoadChange {
    /// Half-open connections.
    pub pending: i32,
    /// Active connections.
    pub active: i32,
    /// Inactive connections.
    pub inactive: i32,
    /// Ci, in bytes.
    pub bytes: i64,
    /// Ci with no connection counted beyond its cap, in bytes.
    pub capped: i64,
}

impl LoadChange {
    /// No change.
    pub const ZERO: LoadChange = LoadChange {
        pending: 0,
        active: 0,
        inactive: 0,
        bytes: 0,
        capped: 0,
    };

    /// Whether nothing changes.
    pub const fn is_zero(&self) -> bool {
        self.pending == 0
            && self.active == 0
            && self.inactive == 0
            && self.bytes == 0
            && self.capped == 0
    }
}

/// The difference that takes a connection from `old` to `new`; `None` is before its start and after
/// its end.
pub const fn change(old: Option<Share>, new: Option<Share>) -> LoadChange {
    let before = columns(old);
    let after = columns(new);
    LoadChange {
        pending: after.pending.wrapping_sub(before.pending),
        active: after.active.wrapping_sub(before.active),
        inactive: after.inactive.wrapping_sub(before.inactive),
        bytes: after.bytes.wrapping_sub(before.bytes),
        capped: after.capped.wrapping_sub(before.capped),
    }
}

const fn columns(share: Option<Share>) -> LoadChange {
    match share {
        Some(share) => share.columns(),
        None => LoadChange::ZERO,
    }
}

/// A size as it is counted: at most [`CONNECTION_SIZE_BYTES_MAX`], so that it fits the signed sum.
pub const fn clamp_size(size_bytes: u64) -> i64 {
    if size_bytes > CONNECTION_SIZE_BYTES_MAX {
        CONNECTION_SIZE_BYTES_MAX as i64
    } else {
        size_bytes as i64
    }
}

const fn least(a: i64, b: i64) -> i64 {
    if a < b {
        a
    } else {
        b
    }
}

/// Where a service's expected size comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizePolicy {
    /// The administrator's number.
    Configured,
    /// The moving average of the sizes that were learned, once there is one.
    Learned,
}

impl SizePolicy {
    /// The number in the `ipvs_mwlc` family.
    pub const fn number(self) -> u8 {
        match self {
            SizePolicy::Configured => 0,
            SizePolicy::Learned => 1,
        }
    }

    /// The policy with this number.
    pub const fn from_number(number: u8) -> Option<SizePolicy> {
        match number {
            0 => Some(SizePolicy::Configured),
            1 => Some(SizePolicy::Learned),
            _ => None,
        }
    }
}

/// Whether the sizes of a service's connections are learned from their packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// They are not.
    Off,
    /// From their HTTP requests.
    Http,
}

impl Learn {
    /// The number in the `ipvs_mwlc` family.
    pub const fn number(self) -> u8 {
        match self {
            Learn::Off => 0,
            Learn::Http => 1,
        }
    }

    /// The way with this number.
    pub const fn from_number(number: u8) -> Option<Learn> {
        match number {
            0 => Some(Learn::Off),
            1 => Some(Learn::Http),
            _ => None,
        }
    }
}

/// The size that a service's new connections start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedSize {
    configured_bytes: u64,
    policy: SizePolicy,
    /// The average, shifted left by [`LEARNED_SHIFT`] so that small differences are not lost.
    learned_scaled: u64,
    learned_count: u64,
}

impl ExpectedSize {
    /// Expects this many bytes, at most [`CONNECTION_SIZE_BYTES_MAX`].
    pub const fn new(configured_bytes: u64, policy: SizePolicy) -> ExpectedSize {
        let configured_bytes = clamp_size(configured_bytes) as u64;
        ExpectedSize {
            configured_bytes,
            policy,
            learned_scaled: 0,
            learned_count: 0,
        }
    }

    /// Keeps the learned average under another configuration.
    pub const fn configure(self, configured_bytes: u64, policy: SizePolicy) -> ExpectedSize {
        let configured_bytes = clamp_size(configured_bytes) as u64;
        ExpectedSize {
            configured_bytes,
            policy,
            ..self
        }
    }

    /// What a new connection is expected to fetch, in bytes.
    pub const fn bytes(&self) -> u64 {
        match self.policy {
            SizePolicy::Learned if self.learned_count > 0 => self.learned_scaled >> LEARNED_SHIFT,
            SizePolicy::Learned | SizePolicy::Configured => self.configured_bytes,
        }
    }

    /// The administrator's number.
    pub const fn configured_bytes(&self) -> u64 {
        self.configured_bytes
    }

    /// Which of the two counts.
    pub const fn policy(&self) -> SizePolicy {
        self.policy
    }

    /// How many sizes were learned.
    pub const fn learned_count(&self) -> u64 {
        self.learned_count
    }

    /// Takes in the true size of one connection. The first is taken as it is.
    pub const fn learn(self, size_bytes: u64) -> ExpectedSize {
        // 2^40 shifted by 3 is far from overflow; the average never leaves the range of its inputs.
        let size = clamp_size(size_bytes) as u64;
        let learned_scaled = if self.learned_count == 0 {
            size << LEARNED_SHIFT
        } else {
            let kept = self
                .learned_scaled
                .wrapping_sub(self.learned_scaled >> LEARNED_SHIFT);
            kept.saturating_add(size)
        };
        let learned_count = self.learned_count.saturating_add(1);
        ExpectedSize {
            learned_scaled,
            learned_count,
            ..self
        }
    }
}

impl Default for ExpectedSize {
    fn default() -> ExpectedSize {
        ExpectedSize::new(EXPECTED_SIZE_BYTES_DEFAULT, SizePolicy::Configured)
    }
}
