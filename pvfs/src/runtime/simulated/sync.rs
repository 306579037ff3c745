// SPDX-License-Identifier: MIT
//! Locks, condition variables and channels: the host's, but a task that must wait parks.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
pub use std::sync::{Arc, LockResult, OnceLock, PoisonError, Weak};
use std::sync::{TryLockError, TryLockResult};
use std::time::Duration;

use super::{TaskId, machine, task};

pub mod mpsc {
    //! Channels.

    pub use super::super::channel::{Receiver, Sender, SyncSender, channel, sync_channel};
    pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
}

/// Tasks that wait for something.
#[derive(Debug, Default)]
struct Waiters(std::sync::Mutex<VecDeque<TaskId>>);

impl Waiters {
    const fn new() -> Self {
        Self(std::sync::Mutex::new(VecDeque::new()))
    }

    fn list(&self) -> std::sync::MutexGuard<'_, VecDeque<TaskId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, task: TaskId) {
        self.list().push_back(task);
    }

    fn remove(&self, task: TaskId) {
        self.list().retain(|waiting| *waiting != task);
    }

    fn contains(&self, task: TaskId) -> bool {
        self.list().contains(&task)
    }

    fn wake_one(&self) {
        let first = self.list().pop_front();
        if let (Some(first), Some(machine)) = (first, machine()) {
            machine.unpark(first);
        }
    }

    fn wake_all(&self) {
        let all = std::mem::take(&mut *self.list());
        if let Some(machine) = machine() {
            for task in all {
                machine.unpark(task);
            }
        }
    }
}

/// Takes a lock of the host by `attempt`, parking where another task has it; `None` outside of
/// tasks.
fn take<G>(waiters: &Waiters, attempt: impl Fn() -> TryLockResult<G>) -> Option<LockResult<G>> {
    let (machine, me) = task()?;
    machine.preempt();
    loop {
        match attempt() {
            Ok(guard) => return Some(Ok(guard)),
            Err(TryLockError::Poisoned(error)) => return Some(Err(error)),
            Err(TryLockError::WouldBlock) => {
                waiters.add(me);
                machine.park(None);
                waiters.remove(me);
            }
        }
    }
}

/// Wraps what was locked.
fn map<G, H>(result: LockResult<G>, wrap: impl FnOnce(G) -> H) -> LockResult<H> {
    match result {
        Ok(guard) => Ok(wrap(guard)),
        Err(error) => Err(PoisonError::new(wrap(error.into_inner()))),
    }
}

/// A lock.
#[derive(Debug, Default)]
pub struct Mutex<T: ?Sized> {
    waiters: Waiters,
    inner: std::sync::Mutex<T>,
}

/// It is held.
#[derive(Debug)]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    /// Only `None` while it is dropped or a condition variable has it.
    inner: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// Not held.
    pub const fn new(value: T) -> Self {
        Self {
            waiters: Waiters::new(),
            inner: std::sync::Mutex::new(value),
        }
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Takes it.
    ///
    /// # Errors
    ///
    /// Where somebody panicked while he held it.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let taken = take(&self.waiters, || self.inner.try_lock());
        map(taken.unwrap_or_else(|| self.inner.lock()), |inner| {
            self.guard(inner)
        })
    }

    /// Takes it without waiting.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        match self.inner.try_lock() {
            Ok(inner) => Ok(self.guard(inner)),
            Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
            Err(TryLockError::Poisoned(error)) => Err(TryLockError::Poisoned(PoisonError::new(
                self.guard(error.into_inner()),
            ))),
        }
    }

    const fn guard<'a>(&'a self, inner: std::sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard {
            mutex: self,
            inner: Some(inner),
        }
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[expect(clippy::expect_used, reason = "see the field")]
    fn deref(&self) -> &T {
        self.inner.as_ref().expect("the lock is held")
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[expect(clippy::expect_used, reason = "see the field")]
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("the lock is held")
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.inner.take());
        // Which of them gets it is for the machine to choose.
        self.mutex.waiters.wake_all();
    }
}

/// A lock that many may hold for reading.
#[derive(Debug, Default)]
pub struct RwLock<T: ?Sized> {
    waiters: Waiters,
    inner: std::sync::RwLock<T>,
}

/// It is held for reading.
#[derive(Debug)]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    waiters: &'a Waiters,
    inner: Option<std::sync::RwLockReadGuard<'a, T>>,
}

/// It is held for writing.
#[derive(Debug)]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    waiters: &'a Waiters,
    inner: Option<std::sync::RwLockWriteGuard<'a, T>>,
}

impl<T> RwLock<T> {
    /// Not held.
    pub const fn new(value: T) -> Self {
        Self {
            waiters: Waiters::new(),
            inner: std::sync::RwLock::new(value),
        }
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Takes it for reading.
    ///
    /// # Errors
    ///
    /// Where somebody panicked while he held it for writing.
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        let taken = take(&self.waiters, || self.inner.try_read());
        map(taken.unwrap_or_else(|| self.inner.read()), |inner| {
            RwLockReadGuard {
                waiters: &self.waiters,
                inner: Some(inner),
            }
        })
    }

    /// Takes it for writing.
    ///
    /// # Errors
    ///
    /// Where somebody panicked while he held it for writing.
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        let taken = take(&self.waiters, || self.inner.try_write());
        map(taken.unwrap_or_else(|| self.inner.write()), |inner| {
            RwLockWriteGuard {
                waiters: &self.waiters,
                inner: Some(inner),
            }
        })
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[expect(clippy::expect_used, reason = "only `None` while it is dropped")]
    fn deref(&self) -> &T {
        self.inner.as_ref().expect("the lock is held")
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[expect(clippy::expect_used, reason = "only `None` while it is dropped")]
    fn deref(&self) -> &T {
        self.inner.as_ref().expect("the lock is held")
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[expect(clippy::expect_used, reason = "only `None` while it is dropped")]
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("the lock is held")
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.inner.take());
        self.waiters.wake_all();
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.inner.take());
        self.waiters.wake_all();
    }
}

/// A condition variable.
#[derive(Debug, Default)]
pub struct Condvar {
    waiters: Waiters,
    inner: std::sync::Condvar,
}

/// Whether waiting ended by its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether it did.
    #[must_use]
    pub const fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// Nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            waiters: Waiters::new(),
            inner: std::sync::Condvar::new(),
        }
    }

    /// Waits.
    ///
    /// # Errors
    ///
    /// Where somebody panicked while he held the lock.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let waited = self.wait_until(guard, None);
        map(waited, |(guard, _)| guard)
    }

    /// Waits until `condition` is false.
    ///
    /// # Errors
    ///
    /// Where somebody panicked while he held the lock.
    pub fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        while condition(&mut *guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Waits, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// Where somebody panicked while he held the lock.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        self.wait_until(guard, Some(timeout))
    }

    /// Waits until `condition` is false, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// Where somebody panicked while he held the lock.
    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let start = super::time::Instant::now();
        loop {
            if !condition(&mut *guard) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            let left = match timeout.checked_sub(start.elapsed()) {
                Some(left) if !left.is_zero() => left,
                _ => return Ok((guard, WaitTimeoutResult(true))),
            };
            guard = self.wait_timeout(guard, left)?.0;
        }
    }

    /// Ends the waiting of one.
    pub fn notify_one(&self) {
        self.waiters.wake_one();
        self.inner.notify_one();
    }

    /// Ends the waiting of all.
    pub fn notify_all(&self) {
        self.waiters.wake_all();
        self.inner.notify_all();
    }

    fn wait_until<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Option<Duration>,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let mutex = guard.mutex;
        let Some((machine, me)) = task() else {
            return self.wait_on_host(guard, timeout);
        };
        self.waiters.add(me);
        drop(guard.inner.take());
        drop(guard);
        let deadline = timeout.map(|timeout| machine.now() + timeout);
        machine.park(deadline);
        let told = !self.waiters.contains(me);
        self.waiters.remove(me);
        let over = deadline.is_some_and(|deadline| machine.now() >= deadline);
        map(mutex.lock(), |guard| {
            (guard, WaitTimeoutResult(over && !told))
        })
    }

    fn wait_on_host<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Option<Duration>,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let mutex = guard.mutex;
        let Some(inner) = guard.inner.take() else {
            return Ok((guard, WaitTimeoutResult(false)));
        };
        drop(guard);
        match timeout {
            None => map(self.inner.wait(inner), |inner| {
                (mutex.guard(inner), WaitTimeoutResult(false))
            }),
            Some(timeout) => map(self.inner.wait_timeout(inner, timeout), |(inner, over)| {
                (mutex.guard(inner), WaitTimeoutResult(over.timed_out()))
            }),
        }
    }
}
