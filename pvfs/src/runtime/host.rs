// SPDX-License-Identifier: MIT
//! The machine that this process runs on.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 64 random bits, never 0: the standard library seeds its hasher from the system.
#[must_use]
pub fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

/// What each thread has for itself, inside of a `thread_local!`.
#[derive(Debug, Default)]
pub struct PerTask<T>(T);

impl<T> PerTask<T> {
    /// Begins with `value`.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Shows the calling thread's own.
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0)
    }
}

/// Locks, condition variables and channels.
pub mod sync {
    pub use std::sync::{
        Arc, Condvar, LockResult, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        RwLockReadGuard, RwLockWriteGuard, Weak, mpsc,
    };
}

/// Threads.
pub mod thread {
    pub use std::thread::{Builder, JoinHandle, sleep, spawn};
}

/// Clocks.
pub mod time {
    pub use std::time::{Duration, Instant};

    use std::time::SystemTime;

    use nix::time::{ClockId, clock_gettime};

    /// The clock that people read.
    #[must_use]
    pub fn time_of_day() -> SystemTime {
        SystemTime::now()
    }

    /// Time since the machine was started, while it slept included.
    #[must_use]
    pub fn since_boot() -> Duration {
        // Every Linux since 2.6.39 has this clock; at the epoch, no lease would ever end too late.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
    }
}

/// TCP.
pub mod net {
    pub use std::net::{TcpListener, TcpStream};

    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use nix::sys::sendfile::sendfile64;
    use nix::sys::socket::{Shutdown, shutdown};
    use socket2::{SockRef, TcpKeepalive};

    /// Has the kernel end a connection whose peer answers no probe, or takes no data, for
    /// `unacknowledged_max`.
    ///
    /// # Errors
    ///
    /// As `setsockopt(2)`.
    pub fn set_keepalive(
        stream: &TcpStream,
        keepalive: &TcpKeepalive,
        unacknowledged_max: Duration,
    ) -> io::Result<()> {
        let socket = SockRef::from(stream);
        socket.set_tcp_keepalive(keepalive)?;
        // Bounds unanswered probes as well as unacknowledged data (tcp(7)).
        socket.set_tcp_user_timeout(Some(unacknowledged_max))
    }

    /// Writes bytes that others follow at once, in the same packet if they can.
    ///
    /// # Errors
    ///
    /// As `send(2)`.
    pub fn send_more(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        SockRef::from(stream).send_with_flags(bytes, libc::MSG_MORE)
    }

    /// Sends bytes of a file from `offset` on without copying them; returns how many, 0 at its end.
    ///
    /// # Errors
    ///
    /// As `sendfile(2)`.
    pub fn send_file(
        stream: &TcpStream,
        file: &File,
        offset: i64,
        length: usize,
    ) -> nix::Result<usize> {
        let mut position = offset;
        sendfile64(stream, file, Some(&mut position), length)
    }

    /// Wakes whoever waits in `accept`, which fails from now on.
    pub fn stop_listening(listener: &TcpListener) {
        // On Linux this wakes accept(2) with EINVAL.
        let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
    }
}
