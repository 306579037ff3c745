// SPDX-License-Identifier: MIT
//! A lock that is held while daemons are waited for: whoever waits for it can be interrupted.

use pvfs::client::interrupt;
use pvfs::error::FsError;
use pvfs::runtime::sync::{Condvar, Mutex, PoisonError};

/// A lock that is given to whoever came first.
#[derive(Debug, Default)]
pub(super) struct Turn {
    taken: Mutex<bool>,
    /// Signals: it is free.
    freed: Condvar,
}

/// Holds a [`Turn`].
#[derive(Debug)]
pub(super) struct TurnGuard<'a>(&'a Turn);

impl Turn {
    /// Waits until nobody has it, and takes it.
    ///
    /// # Errors
    ///
    /// [`FsError::Interrupted`].
    pub(super) fn take(&self) -> Result<TurnGuard<'_>, FsError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            taken = if interrupt::is_possible() {
                let (taken, _) = self
                    .freed
                    .wait_timeout(taken, interrupt::LOOK_INTERVAL)
                    .unwrap_or_else(PoisonError::into_inner);
                if *taken && interrupt::is_interrupted() {
                    return Err(FsError::Interrupted);
                }
                taken
            } else {
                let waited = self.freed.wait(taken);
                waited.unwrap_or_else(PoisonError::into_inner)
            };
        }
        *taken = true;
        Ok(TurnGuard(self))
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_at_a_time_and_who_waits_can_be_interrupted() {
        let turn = Turn::default();
        let guard = turn.take().unwrap();
        let interrupted = interrupt::on_behalf_of(|| true, || turn.take().map(drop));
        assert_eq!(interrupted, Err(FsError::Interrupted));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| turn.take().map(drop));
            drop(guard);
            assert_eq!(other.join().unwrap(), Ok(()));
        });
        assert!(turn.take().is_ok());
    }
}
