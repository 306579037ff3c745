// SPDX-License-Identifier: MIT
//! The machine that this process runs on.

/// 64 random bits of the kernel's, never 0. Nobody can guess them: they name clients and runs, and
/// whoever knows such a name can speak for its owner.
#[must_use]
pub fn random_u64() -> u64 {
    match getrandom::u64() {
        Ok(bits) => bits.max(1),
        // Only where a sandbox forbids the call. Names that others can guess are worse than no start.
        Err(error) => {
            tracing::error!("the kernel gives no random numbers: {error}");
            std::process::abort();
        }
    }
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
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use nix::sys::sendfile::sendfile64;
    use nix::sys::socket::{Shutdown, shutdown};
    use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

    use super::random_u64;
    use crate::limits::RESERVED_PORT_MAX;

    /// Reserved ports from here on are tried first: few services have their own there.
    const PREFERRED_PORT_MIN: u16 = 512;

    /// Connects to `to` within `timeout`, from a reserved port where this process may bind one, else
    /// from any. Connections to different destinations share a port.
    ///
    /// # Errors
    ///
    /// Those of connect(2); `AddrNotAvailable` where each reserved port has a connection to `to`, or
    /// had one a minute ago.
    pub fn dial(to: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        for port in reserved_ports(random_u64()) {
            // A socket that connects to its own port talks to itself.
            if port == to.port() {
                continue;
            }
            match dial_from(port, to, timeout) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return TcpStream::connect_timeout(to, timeout);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
                    ) => {}
                outcome => return outcome,
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            format!(
                "none of the ports 1 to {RESERVED_PORT_MAX} is free for a connection to {to}: \
                 see ss -tan, or try again in a minute"
            ),
        ))
    }

    /// Each reserved port once, the preferred ones first, from a random place on: processes that
    /// connect at the same time seldom try the same one.
    fn reserved_ports(random: u64) -> impl Iterator<Item = u16> {
        let rotated = move |first: u16, last: u16| {
            let count = last - first + 1;
            // Less than `count`, which is a u16.
            let start = u16::try_from(random % u64::from(count)).unwrap_or(0);
            (0..count).map(move |step| first + (start + step) % count)
        };
        rotated(PREFERRED_PORT_MIN, RESERVED_PORT_MAX).chain(rotated(1, PREFERRED_PORT_MIN - 1))
    }

    fn dial_from(port: u16, to: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let any = match to {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        };
        let socket = Socket::new(Domain::for_address(*to), Type::STREAM, Some(Protocol::TCP))?;
        // Lets other connections and a service that starts later have the same port.
        socket.set_reuse_address(true)?;
        socket.bind(&any.into())?;
        socket.connect_timeout(&(*to).into(), timeout)?;
        Ok(socket.into())
    }

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

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::collections::BTreeSet;

        #[test]
        fn each_reserved_port_is_tried_once_and_the_preferred_first() {
            for random in [0, 1, 511, 512, u64::MAX] {
                let ports: Vec<u16> = reserved_ports(random).collect();
                let distinct: BTreeSet<u16> = ports.iter().copied().collect();
                assert_eq!(ports.len(), usize::from(RESERVED_PORT_MAX));
                assert!(distinct.iter().copied().eq(1..=RESERVED_PORT_MAX));
                let preferred = ports.iter().take(512);
                assert!(preferred.copied().all(|port| port >= PREFERRED_PORT_MIN));
            }
        }
    }
}
