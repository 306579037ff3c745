// SPDX-License-Identifier: MIT
//! Threads: each is a task.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::sync::{Condvar, Mutex, PoisonError};
use super::{machine, task};

/// How a thread is to be.
#[derive(Debug, Default)]
pub struct Builder {
    name: String,
}

/// Where the outcome of a task will be.
#[derive(Debug)]
struct Outcome<T> {
    value: Mutex<Option<std::thread::Result<T>>>,
    ended: Condvar,
}

/// A thread that may be waited for.
#[derive(Debug)]
pub struct JoinHandle<T>(Handle<T>);

#[derive(Debug)]
enum Handle<T> {
    Host(std::thread::JoinHandle<T>),
    Task(Arc<Outcome<T>>),
}

impl Builder {
    /// A thread without a name.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Its name.
    #[must_use]
    pub fn name(self, name: String) -> Self {
        Self { name }
    }

    /// Its stack, which is as large as the simulation says.
    #[must_use]
    pub fn stack_size(self, _bytes: usize) -> Self {
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// Those of making a thread.
    pub fn spawn<T: Send + 'static>(
        self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let Some(machine) = machine() else {
            let thread = std::thread::Builder::new().name(self.name);
            return Ok(JoinHandle(Handle::Host(thread.spawn(body)?)));
        };
        let outcome = Arc::new(Outcome {
            value: Mutex::new(None),
            ended: Condvar::new(),
        });
        let told = Arc::clone(&outcome);
        machine.spawn(
            &self.name,
            Box::new(move || {
                let result = catch_unwind(AssertUnwindSafe(body));
                let (value, panic) = match result {
                    Ok(value) => (Ok(value), None),
                    Err(panic) => {
                        let words: Box<dyn std::any::Any + Send> = Box::new("the task panicked");
                        (Err(words), Some(panic))
                    }
                };
                *told.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
                told.ended.notify_all();
                if let Some(panic) = panic {
                    // The machine is to hear of it.
                    resume_unwind(panic);
                }
            }),
        );
        Ok(JoinHandle(Handle::Task(outcome)))
    }
}

impl<T> JoinHandle<T> {
    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// What it panicked with.
    pub fn join(self) -> std::thread::Result<T> {
        match self.0 {
            Handle::Host(thread) => thread.join(),
            Handle::Task(outcome) => {
                let mut value = outcome.value.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    if let Some(value) = value.take() {
                        return value;
                    }
                    value = outcome
                        .ended
                        .wait(value)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Handle::Host(thread) => thread.is_finished(),
            Handle::Task(outcome) => outcome
                .value
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some(),
        }
    }
}

/// Starts a thread.
///
/// # Panics
///
/// Where the system gives none.
#[expect(clippy::expect_used, reason = "as std::thread::spawn does")]
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().spawn(body).expect("failed to spawn thread")
}

/// Waits.
pub fn sleep(duration: Duration) {
    let Some((machine, _)) = task() else {
        return std::thread::sleep(duration);
    };
    let end = machine.now() + duration;
    while machine.now() < end {
        machine.park(Some(end));
    }
}
