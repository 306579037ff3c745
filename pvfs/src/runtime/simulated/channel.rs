// SPDX-License-Identifier: MIT
//! Channels over the locks beside them, with the errors of the standard library's.

use std::collections::VecDeque;
use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::time::Duration;

use super::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use super::time::Instant;

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    /// How many it holds at most.
    bound: usize,
    senders: usize,
    receiver: bool,
}

#[derive(Debug)]
struct Channel<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Channel<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a channel that may be full.
#[derive(Debug)]
pub struct SyncSender<T>(Arc<Channel<T>>);

/// One end of a channel that is never full.
#[derive(Debug)]
pub struct Sender<T>(SyncSender<T>);

/// The other end.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Channel<T>>);

/// A channel that holds `bound` values, at least one.
#[must_use]
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let channel = Arc::new(Channel {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            bound: bound.max(1),
            senders: 1,
            receiver: true,
        }),
        changed: Condvar::new(),
    });
    (SyncSender(Arc::clone(&channel)), Receiver(channel))
}

/// A channel without a bound.
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = sync_channel(usize::MAX);
    (Sender(sender), receiver)
}

impl<T> SyncSender<T> {
    /// Sends without waiting.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let mut state = self.0.lock();
        if !state.receiver {
            return Err(TrySendError::Disconnected(value));
        }
        if state.queue.len() >= state.bound {
            return Err(TrySendError::Full(value));
        }
        state.queue.push_back(value);
        drop(state);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Sends, waiting for room.
    ///
    /// # Errors
    ///
    /// Where nobody can receive it.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut value = value;
        loop {
            match self.try_send(value) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(value)) => return Err(SendError(value)),
                Err(TrySendError::Full(back)) => {
                    value = back;
                    let state = self.0.lock();
                    let full =
                        |state: &mut State<T>| state.receiver && state.queue.len() >= state.bound;
                    drop(self.0.changed.wait_while(state, full));
                }
            }
        }
    }
}

impl<T> Sender<T> {
    /// Sends.
    ///
    /// # Errors
    ///
    /// Where nobody can receive it.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.0.send(value)
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Drop for SyncSender<T> {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receiver = false;
        let rest = std::mem::take(&mut state.queue);
        drop(state);
        drop(rest);
        self.0.changed.notify_all();
    }
}

impl<T> Receiver<T> {
    /// Receives without waiting.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut state = self.0.lock();
        match state.queue.pop_front() {
            Some(value) => {
                drop(state);
                self.0.changed.notify_all();
                Ok(value)
            }
            None if state.senders == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Receives.
    ///
    /// # Errors
    ///
    /// Where nobody can send any more.
    pub fn recv(&self) -> Result<T, RecvError> {
        loop {
            match self.try_recv() {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Disconnected) => return Err(RecvError),
                Err(TryRecvError::Empty) => drop(self.0.changed.wait_while(self.0.lock(), idle)),
            }
        }
    }

    /// Receives, waiting at most for `timeout`.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let start = Instant::now();
        loop {
            match self.try_recv() {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {
                    let left = timeout.saturating_sub(start.elapsed());
                    if left.is_zero() {
                        return Err(RecvTimeoutError::Timeout);
                    }
                    let state = self.0.lock();
                    drop(self.0.changed.wait_timeout_while(state, left, idle));
                }
            }
        }
    }
}

/// Whether there is nothing to receive, and may be later.
fn idle<T>(state: &mut State<T>) -> bool {
    state.queue.is_empty() && state.senders > 0
}
