// SPDX-License-Identifier: MIT
//! How long a caller waits for a daemon that is away: for ever, until a deadline, until cancelled.

use super::interrupt;
use crate::error::FsError;
use crate::runtime::sync::{Arc, Condvar, Mutex, PoisonError};
use crate::runtime::time::{Duration, Instant};

/// Ends the waiting of every [`Patience`] made from it, now and later. A mount cancels at unmount.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    shared: Arc<(Mutex<bool>, Condvar)>,
}

impl Cancel {
    /// Not cancelled yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes whoever waits; whoever comes to wait later does not.
    pub fn cancel(&self) {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.1.notify_all();
    }

    /// Whether [`Cancel::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, duration: Duration) {
        let guard = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The outcome is asked for again by the caller.
        drop(
            self.shared
                .1
                .wait_timeout_while(guard, duration, |cancelled| !*cancelled),
        );
    }
}

/// How long to go on. The default is for ever, as a hard NFS mount does.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    deadline: Option<Instant>,
    cancel: Cancel,
}

impl Patience {
    /// Waits for ever.
    #[must_use]
    pub fn endless() -> Self {
        Self::default()
    }

    /// Waits until `cancel` is cancelled.
    #[must_use]
    pub fn until_cancelled(cancel: &Cancel) -> Self {
        Self {
            deadline: None,
            cancel: cancel.clone(),
        }
    }

    /// The same, but no longer than `duration` from now.
    #[must_use]
    pub fn at_most(mut self, duration: Duration) -> Self {
        let deadline = Instant::now().checked_add(duration);
        self.deadline = match (self.deadline, deadline) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
        self
    }

    /// Whether the caller has given up.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.cancel.is_cancelled()
            || self.deadline.is_some_and(|at| at <= Instant::now())
            || interrupt::is_interrupted()
    }

    /// What a caller is told whose patience is over.
    #[must_use]
    pub fn error(&self) -> FsError {
        match interrupt::is_interrupted() {
            true => FsError::Interrupted,
            false => FsError::Io,
        }
    }

    /// What is left of `duration` under the deadline.
    #[must_use]
    pub fn shorten(&self, duration: Duration) -> Duration {
        let left = self
            .deadline
            .map(|at| at.saturating_duration_since(Instant::now()));
        left.map_or(duration, |left| left.min(duration))
    }

    /// Waits for `duration`, less if the caller gives up meanwhile; true if it has not.
    #[must_use]
    pub fn wait(&self, duration: Duration) -> bool {
        let end = Instant::now() + self.shorten(duration);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            self.cancel.wait(interrupt::shorten(left));
            if self.is_over() {
                return false;
            }
            if Instant::now() >= end {
                return true;
            }
        }
    }
}

/// Pauses between attempts: each twice as long as the last, up to a limit.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Long enough that a daemon's restart takes a handful of attempts.
    const PAUSE_MS_MIN: u64 = 20;
    /// Short enough that nobody notices how long ago the daemon came back.
    const PAUSE_MS_MAX: u64 = 1000;

    /// Starts with the shortest pause.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: Duration::from_millis(Self::PAUSE_MS_MIN),
        }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(Duration::from_millis(Self::PAUSE_MS_MAX));
        pause
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..8).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn a_deadline_ends_patience_and_the_nearer_one_counts() {
        let patience = Patience::endless()
            .at_most(Duration::ZERO)
            .at_most(Duration::from_secs(9));
        assert!(patience.is_over());
        assert!(!patience.wait(Duration::from_secs(3600)));
        assert!(!Patience::endless().is_over());
        assert!(Patience::endless().wait(Duration::from_millis(1)));
    }

    #[test]
    fn cancelling_wakes_a_waiter() {
        let cancel = Cancel::new();
        let patience = Patience::until_cancelled(&cancel);
        let waiter = std::thread::spawn(move || patience.wait(Duration::from_secs(3600)));
        cancel.cancel();
        assert!(!waiter.join().unwrap());
    }
}
