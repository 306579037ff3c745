// SPDX-License-Identifier: MIT
//! Work that goes on while daemons are killed, and what it was promised meanwhile.
//!
//! A worker thread runs steps on a mount, one after another. A step that returned is acknowledged;
//! what it was promised is checked after the crashes. A step may take as long as a daemon is away,
//! but it must not fail: the mount waits and goes on by itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};

/// After a restart, the next step must end within so long: retries pause for a second at most, and a
/// client notices a dead peer by its closed connection.
const RESUME_TIMEOUT: Duration = Duration::from_secs(30);
/// Progress is another thread's counter, looked at this often.
const POLL: Duration = Duration::from_millis(2);

/// What a worker does. Owned by the worker's thread, returned at its end.
pub trait Work: Send + 'static {
    /// One step below `root`; returns when it is acknowledged.
    ///
    /// # Errors
    ///
    /// What a system call said.
    fn step(&mut self, root: &std::path::Path, number: u64) -> anyhow::Result<()>;
}

/// A running worker.
pub struct Worker<W> {
    thread: JoinHandle<(W, anyhow::Result<()>)>,
    stop: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
}

impl<W: Work> Worker<W> {
    /// Starts it.
    #[must_use]
    pub fn start(root: PathBuf, mut work: W) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let steps = Arc::new(AtomicU64::new(0));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&steps));
        let thread = std::thread::spawn(move || {
            let mut result = Ok(());
            while result.is_ok() && !stopped.load(Ordering::Relaxed) {
                let number = counter.load(Ordering::Relaxed);
                result = work
                    .step(&root, number)
                    .with_context(|| format!("step {number}"));
                counter.fetch_add(1, Ordering::Relaxed);
            }
            (work, result)
        });
        Self {
            thread,
            stop,
            steps,
        }
    }

    /// Waits until `count` more steps are done than now.
    ///
    /// # Errors
    ///
    /// Where the worker failed, or did not get so far in time.
    pub fn wait_for_steps(&self, count: u64) -> anyhow::Result<()> {
        let goal = self.steps.load(Ordering::Relaxed) + count;
        let deadline = Instant::now() + RESUME_TIMEOUT;
        while self.steps.load(Ordering::Relaxed) < goal {
            if self.thread.is_finished() {
                bail!(
                    "the work stopped at step {}",
                    self.steps.load(Ordering::Relaxed)
                );
            }
            ensure!(
                Instant::now() < deadline,
                "no step was done within {RESUME_TIMEOUT:?}"
            );
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Ends it after the step under way.
    ///
    /// # Errors
    ///
    /// Where a step failed.
    pub fn stop(self) -> anyhow::Result<W> {
        let (work, result) = self.stop_anyhow()?;
        result.map(|()| work)
    }

    /// Ends it; a step may have failed.
    ///
    /// # Errors
    ///
    /// Where it panicked.
    pub fn stop_anyhow(self) -> anyhow::Result<(W, anyhow::Result<()>)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the worker panicked"))
    }
}
