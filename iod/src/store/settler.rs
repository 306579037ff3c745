// SPDX-License-Identifier: MIT
//! The thread that brings checksums to disk once they have rested.

use std::io;

use super::Store;
use pvfs::runtime::sync::{Arc, Condvar, Mutex, PoisonError};
use pvfs::runtime::thread::{self, JoinHandle};
use pvfs::runtime::time::{Duration, Instant};

/// Sums that have not changed for so long are settled. What changed later than this before a crash is
/// summed up anew after it, so that damage from in between goes unseen; and a region that is
/// overwritten more often pays for one flush altogether.
pub const SETTLE_IDLE: Duration = Duration::from_secs(5);
/// How often the thread looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long an orderly stop settles what is left. The rest is summed up anew at its next use.
const STOP_SETTLING_MAX: Duration = Duration::from_secs(5);

/// Settles a store's checksums in the background; dropping it settles the rest.
#[derive(Debug)]
pub struct Settler {
    stopping: Arc<Stopping>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stopping {
    told: Mutex<bool>,
    news: Condvar,
}

impl Stopping {
    fn is_told(&self) -> bool {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `time` or until told; returns whether told.
    fn wait(&self, time: Duration) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.news.wait_timeout_while(told, time, |told| !*told);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Settler {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// Those of making a thread.
    pub fn start(store: Arc<Store>) -> io::Result<Self> {
        let stopping = Arc::new(Stopping::default());
        let thread = thread::Builder::new().name("settler".into()).spawn({
            let stopping = Arc::clone(&stopping);
            move || {
                while !stopping.wait(INTERVAL) {
                    store.settle(SETTLE_IDLE, &|| stopping.is_told());
                }
                let deadline = Instant::now() + STOP_SETTLING_MAX;
                store.settle(Duration::ZERO, &|| Instant::now() >= deadline);
            }
        })?;
        Ok(Self {
            stopping,
            thread: Some(thread),
        })
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        *self
            .stopping
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.stopping.news.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }
}
