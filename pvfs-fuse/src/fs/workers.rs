// SPDX-License-Identifier: MIT
//! Threads for what may have to wait: started when needed, kept for a while, bounded.

use std::collections::VecDeque;
use std::time::Duration;

use pvfs::runtime::sync::{Arc, Condvar, Mutex, PoisonError};
use pvfs::runtime::thread;

/// A thread without work ends after so long.
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Workers {
    name: &'static str,
    threads_max: usize,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Workers {
    /// At most `threads_max` threads; further jobs wait for one.
    pub(crate) fn new(name: &'static str, threads_max: usize) -> Self {
        Self {
            name,
            threads_max,
            shared: Arc::default(),
        }
    }

    /// Runs `job`, now or as soon as a thread is free. Where the system gives no thread at all it
    /// runs in this one.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let (lock, wake) = &*self.shared;
        let start = {
            let mut state = lock.lock().unwrap_or_else(PoisonError::into_inner);
            state.jobs.push_back(Box::new(job));
            let start = state.idle < state.jobs.len() && state.threads < self.threads_max;
            state.threads += usize::from(start);
            wake.notify_one();
            start
        };
        if start {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name(self.name.to_owned());
            if let Err(error) = thread.spawn(move || work(&shared)) {
                tracing::warn!("starting a thread: {error}");
                work(&self.shared);
            }
        }
    }
}

fn work((lock, wake): &(Mutex<State>, Condvar)) {
    let mut state = lock.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        while let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = lock.lock().unwrap_or_else(PoisonError::into_inner);
        }
        state.idle += 1;
        let (woken, timeout) = wake
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

    #[test]
    fn jobs_that_wait_for_each_other_run_side_by_side() {
        let workers = Workers::new("test", 8);
        let barrier = Arc::new(Barrier::new(9));
        for _ in 0..8 {
            let barrier = Arc::clone(&barrier);
            workers.run(move || {
                barrier.wait();
            });
        }
        barrier.wait();
    }

    #[test]
    fn more_jobs_than_threads_all_run() {
        let workers = Workers::new("test", 2);
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
