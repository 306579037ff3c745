// SPDX-License-Identifier: MIT
//! Clocks.

use std::ops::{Add, AddAssign, Sub};
use std::sync::OnceLock;
pub use std::time::Duration;
use std::time::SystemTime;

use super::machine;
use crate::runtime::host;

/// A moment of a clock that never jumps: what [`std::time::Instant`] is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        static START: OnceLock<std::time::Instant> = OnceLock::new();
        let on_host = || START.get_or_init(std::time::Instant::now).elapsed();
        Self(machine().map_or_else(on_host, |machine| machine.now()))
    }

    /// Time since then.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Self::now().saturating_duration_since(*self)
    }

    /// Time from `earlier` to this, zero where it is later.
    #[must_use]
    pub fn duration_since(&self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }

    /// Time from `earlier` to this, zero where it is later.
    #[must_use]
    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Time from `earlier` to this, `None` where it is later.
    #[must_use]
    pub fn checked_duration_since(&self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0)
    }

    /// So much later.
    #[must_use]
    pub fn checked_add(&self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration).map(Self)
    }

    /// So much earlier.
    #[must_use]
    pub fn checked_sub(&self, duration: Duration) -> Option<Self> {
        self.0.checked_sub(duration).map(Self)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// The clock that people read.
#[must_use]
pub fn time_of_day() -> SystemTime {
    machine().map_or_else(host::time::time_of_day, |machine| {
        SystemTime::UNIX_EPOCH + machine.time_of_day()
    })
}

/// Time since the machine was started, while it slept included.
#[must_use]
pub fn since_boot() -> Duration {
    machine().map_or_else(host::time::since_boot, |machine| machine.now())
}
