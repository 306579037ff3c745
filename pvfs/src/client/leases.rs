// SPDX-License-Identifier: MIT
//! How long a client may rely on its leases, and who keeps them.
//!
//! mgr takes the leases of a client that it has not heard for a time that it announces. The client
//! counts from the moment at which it *sent* the last request that mgr has answered, and only six
//! tenths of that time, so no clock of one machine is compared with another's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::FsError;
use crate::proto::lease::Notice;
use crate::proto::lock::HeldLock;
use crate::proto::mgr::MgrReply;
use crate::runtime::time::since_boot;

/// Of the time after which mgr takes leases, the client relies on them for so many tenths: the rest
/// is for dropping what it keeps, and for clocks that do not run alike.
const RELIED_ON_TENTHS: u32 = 6;

/// Time since the machine was started, while it slept included: a laptop that wakes up has lost its
/// leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(u64);

impl BootTime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self(u64::try_from(since_boot().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Until when this client's leases hold.
#[derive(Debug, Default)]
pub struct LeaseClock {
    until_ms: AtomicU64,
}

impl LeaseClock {
    /// mgr has answered a request that was sent at `sent`.
    pub fn renew(&self, sent: BootTime, timeout: Duration) {
        let relied_on = timeout * RELIED_ON_TENTHS / 10;
        let relied_on = u64::try_from(relied_on.as_millis()).unwrap_or(u64::MAX);
        let until = sent.0.saturating_add(relied_on);
        self.until_ms.fetch_max(until, Ordering::AcqRel);
    }

    /// The connection is gone: leases end when its owner has dropped what it keeps.
    pub fn end(&self) {
        self.until_ms.store(0, Ordering::Release);
    }

    /// How long the leases still hold at `now`; `None` where they do not.
    #[must_use]
    pub fn left(&self, now: BootTime) -> Option<Duration> {
        let until = self.until_ms.load(Ordering::Acquire);
        until
            .checked_sub(now.0)
            .filter(|left| *left > 0)
            .map(Duration::from_millis)
    }
}

/// Keeps what leases allow to keep. Called by the thread that reads from mgr, in the order in which
/// things happened there.
pub trait LeaseKeeper: Send + Sync + std::fmt::Debug {
    /// Takes a notice; does not wait for anything.
    fn notice(&self, notice: Notice);

    /// The waiting for a lock, by [`MgrClient::wait_for_lock`](super::mgr::MgrClient::wait_for_lock),
    /// is over. Does not wait for anything.
    fn lock_settled(&self, wait: u64, outcome: Result<(), FsError>);

    /// Locks that this client had are lost: mgr did not hear of it for too long.
    fn locks_lost(&self, lost: Vec<HeldLock>);

    /// mgr has answered a request whose caller was interrupted. Does not wait for anything.
    fn late(&self, reply: &MgrReply);

    /// The connection is gone. Returns when nothing is kept any more: the next greeting tells mgr
    /// so.
    fn disconnected(&self);

    /// A new connection is being made: asks mgr, without waiting for its answers, to be told of
    /// all that was written and not reported. mgr hears it before anybody else can get a lease.
    fn reconnecting(&self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_hold_for_six_tenths_from_when_the_request_was_sent() {
        let clock = LeaseClock::default();
        assert_eq!(clock.left(BootTime(0)), None);
        clock.renew(BootTime(1000), Duration::from_secs(10));
        assert_eq!(clock.left(BootTime(1000)), Some(Duration::from_secs(6)));
        assert_eq!(clock.left(BootTime(6999)), Some(Duration::from_millis(1)));
        assert_eq!(clock.left(BootTime(7000)), None);
        // An answer to an older request shortens nothing.
        clock.renew(BootTime(3000), Duration::from_secs(10));
        clock.renew(BootTime(2000), Duration::from_secs(10));
        assert_eq!(clock.left(BootTime(7000)), Some(Duration::from_secs(2)));
        clock.end();
        assert_eq!(clock.left(BootTime(0)), None);
    }

    #[test]
    fn the_clock_runs() {
        let first = BootTime::now();
        assert!(first > BootTime(0) && BootTime::now() >= first);
    }
}
