// SPDX-License-Identifier: MIT
//! Threads for what may have to wait: started when needed, kept for a while.
//!
//! Jobs wait for daemons, for pages and for each other, so no job is kept from running by others that
//! wait: each has a thread of its own, up to a number that no machine's programs reach.

use std::collections::VecDeque;
use std::time::Duration;

use pvfs::runtime::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use pvfs::runtime::thread;

/// A thread without work ends after so long.
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);
/// Each waits for a program, or works for one that does: half of the process numbers that Linux gives
/// out by default. Beyond it, jobs wait for a thread.
const THREADS_MAX: usize = 16 << 10;
/// Stack of a thread, bytes: address space, of which a few pages are touched.
const STACK_BYTES: usize = 512 << 10;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Signals: there is a job.
    wake: Condvar,
}

impl Shared {
    /// A thread that panicked outside of its job left counts that are sound at every step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Threads for jobs of one kind.
#[derive(Clone)]
pub(crate) struct Workers {
    name: &'static str,
    shared: Arc<Shared>,
}

impl Workers {
    /// Threads of this name, none yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            shared: Arc::default(),
        }
    }

    /// Runs `job`, at once unless there are [`THREADS_MAX`] already. Where the system gives no more
    /// threads it waits for one of those that are there; where there is none it runs in this one.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let start = {
            let mut state = self.shared.lock();
            state.jobs.push_back(Box::new(job));
            let start = state.idle < state.jobs.len() && state.threads < THREADS_MAX;
            state.threads += usize::from(start);
            self.shared.wake.notify_one();
            start
        };
        if !start {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name(self.name.to_owned())
            .stack_size(STACK_BYTES);
        let Err(error) = thread.spawn(move || work(&shared)) else {
            return;
        };
        tracing::warn!("starting a thread: {error}");
        let alone = {
            let mut state = self.shared.lock();
            state.threads = state.threads.saturating_sub(1);
            state.threads == 0
        };
        if alone {
            while let Some(job) = self.next() {
                job();
            }
        }
    }

    fn next(&self) -> Option<Job> {
        self.shared.lock().jobs.pop_front()
    }
}

fn work(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        while let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = shared.lock();
        }
        state.idle += 1;
        let (woken, timeout) = shared
            .wake
            .wait_timeout_while(state, IDLE_TIME_MAX, |state| state.jobs.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        state = woken;
        state.idle = state.idle.saturating_sub(1);
        if timeout.timed_out() && state.jobs.is_empty() {
            state.threads = state.threads.saturating_sub(1);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::mpsc::channel;

    /// However many wait, the next one does not wait for them.
    #[test]
    fn jobs_that_wait_for_each_other_run_side_by_side() {
        const JOBS: usize = 600;
        let workers = Workers::new("test");
        let barrier = Arc::new(Barrier::new(JOBS + 1));
        for _ in 0..JOBS {
            let barrier = Arc::clone(&barrier);
            workers.run(move || {
                barrier.wait();
            });
        }
        barrier.wait();
    }

    #[test]
    fn all_jobs_run() {
        let workers = Workers::new("test");
        let (sender, receiver) = channel();
        for number in 0..100 {
            let sender = sender.clone();
            workers.run(move || sender.send(number).unwrap());
        }
        drop(sender);
        let mut numbers: Vec<i32> = receiver.iter().collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..100));
    }
}
