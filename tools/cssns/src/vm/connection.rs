// SPDX-License-Identifier: MIT
//! The host's end of the control port: many threads ask, one thread reads the answers.

use super::VmError;
use super::control::{self, Output, Reply};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How much longer than the guest's own limit the host waits for the answer.
const ANSWER_GRACE: Duration = Duration::from_secs(20);

/// What reader and askers share. One lock, held for a few instructions.
#[derive(Debug, Default)]
struct State {
    ready: bool,
    ended: bool,
    waiting: HashMap<u64, Sender<Output>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements, so a poisoned lock is usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to a guest's control port.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Mutex<UnixStream>,
    shared: Arc<Shared>,
    next_id: AtomicU64,
}

impl Connection {
    /// Connects and starts the reader.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        let reading = socket.try_clone()?;
        let shared = Arc::new(Shared::default());
        let for_reader = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("guest-reader".to_owned())
            .spawn(move || read_replies(reading, &for_reader))?;
        // Ids differ between connections, so that an answer to an earlier one is nobody's.
        let first_id = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(1, |since| u64::try_from(since.as_micros()).unwrap_or(1));
        Ok(Self {
            socket: Mutex::new(socket),
            shared,
            next_id: AtomicU64::new(first_id),
        })
    }

    /// Waits for the guest's greeting.
    pub(super) fn wait_ready(&self, timeout: Duration) -> Result<(), VmError> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if state.ready {
                return Ok(());
            }
            if state.ended {
                return Err(VmError::Ended("before it was up".to_owned()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(VmError::Timeout {
                    what: "the guest to come up".to_owned(),
                    seconds: timeout.as_secs(),
                    detail: String::new(),
                });
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Runs a script in the guest and waits for its end.
    pub(super) fn run(&self, script: &str, timeout: Duration) -> Result<Output, VmError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = mpsc::channel();
        {
            let mut state = self.shared.lock();
            if state.ended {
                return Err(VmError::Ended("no command reaches it".to_owned()));
            }
            state.waiting.insert(id, sender);
        }
        self.send(&control::run_line(id, timeout, script))?;
        let what = script.trim().lines().next().unwrap_or_default().to_owned();
        let limit = timeout + ANSWER_GRACE;
        match answer.recv_timeout(limit) {
            Ok(output) => Ok(output),
            Err(RecvTimeoutError::Disconnected) => {
                Err(VmError::Ended(format!("while it ran `{what}`")))
            }
            Err(RecvTimeoutError::Timeout) => {
                self.shared.lock().waiting.remove(&id);
                Err(VmError::Timeout {
                    what: format!("the guest to end `{what}`"),
                    seconds: limit.as_secs(),
                    detail: String::new(),
                })
            }
        }
    }

    /// Asks a guest that is already up to greet again.
    pub(super) fn hello(&self) -> Result<(), VmError> {
        self.send(control::HELLO_LINE)
    }

    /// Asks the guest to power off.
    pub(super) fn power_off(&self) -> Result<(), VmError> {
        self.send(control::OFF_LINE)
    }

    fn send(&self, line: &str) -> Result<(), VmError> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket
            .write_all(line.as_bytes())
            .map_err(|e| VmError::Ended(format!("its control port is closed ({e})")))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Ends the reader, whose clone of the socket would keep the connection open.
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = socket.shutdown(std::net::Shutdown::Both);
    }
}

fn read_replies(socket: UnixStream, shared: &Shared) {
    let mut reader = BufReader::new(socket);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = u64::try_from(control::REPLY_BYTES_MAX).unwrap_or(u64::MAX);
        match reader.by_ref().take(limit).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => take_reply(&String::from_utf8_lossy(&line), shared),
        }
    }
    let mut state = shared.lock();
    state.ended = true;
    // Dropping the senders tells every asker.
    state.waiting.clear();
    shared.changed.notify_all();
}

fn take_reply(line: &str, shared: &Shared) {
    match control::parse_reply(line) {
        Some(Reply::Ready) => {
            shared.lock().ready = true;
            shared.changed.notify_all();
        }
        Some(Reply::End { id, output }) => {
            if let Some(sender) = shared.lock().waiting.remove(&id) {
                // The asker may have given up in this moment; then nobody needs the answer.
                let _ = sender.send(output);
            }
        }
        None => tracing::debug!(bytes = line.len(), "a torn line from the guest"),
    }
}
