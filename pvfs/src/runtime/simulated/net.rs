// SPDX-License-Identifier: MIT
//! TCP.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use socket2::TcpKeepalive;

use super::{ListenerId, SocketId, machine};
use crate::runtime::host;

/// A connection.
#[derive(Debug)]
pub struct TcpStream(Stream);

#[derive(Debug)]
enum Stream {
    Host(std::net::TcpStream),
    Simulated(Arc<Socket>),
}

#[derive(Debug)]
struct Socket {
    id: SocketId,
    timeouts: Mutex<Timeouts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Timeouts {
    read: Option<Duration>,
    write: Option<Duration>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(machine) = machine() {
            machine.close(self.id);
        }
    }
}

impl Socket {
    fn timeouts(&self) -> std::sync::MutexGuard<'_, Timeouts> {
        self.timeouts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let timeout = self.timeouts().read;
        machine().map_or_else(gone, |machine| machine.receive(self.id, bytes, timeout))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let timeout = self.timeouts().write;
        machine().map_or_else(gone, |machine| machine.send(self.id, bytes, timeout))
    }
}

/// Connects to `to` within `timeout`. Simulated machines have no privileges, so any port will do.
///
/// # Errors
///
/// Those of connect(2).
pub fn dial(to: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(to, timeout)
}

/// A socket that has outlived its machine.
fn gone<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotConnected.into())
}

impl TcpStream {
    fn simulated(id: SocketId) -> Self {
        let timeouts = Mutex::default();
        Self(Stream::Simulated(Arc::new(Socket { id, timeouts })))
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// Those of connect(2).
    pub fn connect(to: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(Self(Stream::Host(std::net::TcpStream::connect(to)?)))
    }

    /// Connects within `timeout`.
    ///
    /// # Errors
    ///
    /// Those of connect(2).
    pub fn connect_timeout(to: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        match machine() {
            Some(machine) => Ok(Self::simulated(machine.connect(*to, timeout)?)),
            None => {
                let stream = std::net::TcpStream::connect_timeout(to, timeout)?;
                Ok(Self(Stream::Host(stream)))
            }
        }
    }

    /// Another reference to the same connection.
    ///
    /// # Errors
    ///
    /// Those of dup(2).
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(match &self.0 {
            Stream::Host(stream) => Stream::Host(stream.try_clone()?),
            Stream::Simulated(socket) => Stream::Simulated(Arc::clone(socket)),
        }))
    }

    /// Of no meaning to a simulated one.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2).
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.0 {
            Stream::Host(stream) => stream.set_nodelay(nodelay),
            Stream::Simulated(_) => Ok(()),
        }
    }

    /// How long a read waits.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2).
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.0 {
            Stream::Host(stream) => stream.set_read_timeout(timeout),
            Stream::Simulated(socket) => {
                socket.timeouts().read = timeout;
                Ok(())
            }
        }
    }

    /// How long a write waits.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2).
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.0 {
            Stream::Host(stream) => stream.set_write_timeout(timeout),
            Stream::Simulated(socket) => {
                socket.timeouts().write = timeout;
                Ok(())
            }
        }
    }

    /// Shuts one or both directions down.
    ///
    /// # Errors
    ///
    /// Those of shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.0 {
            Stream::Host(stream) => stream.shutdown(how),
            Stream::Simulated(socket) => {
                machine().map_or_else(gone, |machine| machine.shut_down(socket.id, how))
            }
        }
    }

    /// This end's address.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Stream::Host(stream) => stream.local_addr(),
            Stream::Simulated(socket) => {
                machine().map_or_else(gone, |machine| Ok(machine.local_address(socket.id)))
            }
        }
    }
}

impl Read for &TcpStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Stream::Host(stream) => (&mut &*stream).read(bytes),
            Stream::Simulated(socket) => socket.read(bytes),
        }
    }
}

impl Read for TcpStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(bytes)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Stream::Host(stream) => (&mut &*stream).write(bytes),
            Stream::Simulated(socket) => socket.write(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.0 {
            Stream::Host(stream) => (&mut &*stream).write_vectored(parts),
            Stream::Simulated(socket) => {
                let mut bytes = Vec::new();
                for part in parts {
                    bytes.extend_from_slice(part);
                }
                socket.write(&bytes)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        (&mut &*self).write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct TcpListener(Listener);

#[derive(Debug)]
enum Listener {
    Host(std::net::TcpListener),
    Simulated(ListenerId, SocketAddr),
}

impl TcpListener {
    /// Listens at the first of the addresses.
    ///
    /// # Errors
    ///
    /// Those of bind(2).
    pub fn bind(at: impl ToSocketAddrs) -> io::Result<Self> {
        let Some(machine) = machine() else {
            return Ok(Self(Listener::Host(std::net::TcpListener::bind(at)?)));
        };
        let at = at.to_socket_addrs()?.next();
        let at = at.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        Ok(Self(Listener::Simulated(machine.listen(at)?, at)))
    }

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// Those of accept(2).
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.0 {
            Listener::Host(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((TcpStream(Stream::Host(stream)), peer))
            }
            Listener::Simulated(id, _) => {
                let (socket, peer) = machine().map_or_else(gone, |machine| machine.accept(*id))?;
                Ok((TcpStream::simulated(socket), peer))
            }
        }
    }

    /// Its address.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Listener::Host(listener) => listener.local_addr(),
            Listener::Simulated(_, at) => Ok(*at),
        }
    }

    /// Connections one after another.
    pub fn incoming(&self) -> impl Iterator<Item = io::Result<TcpStream>> + '_ {
        std::iter::repeat_with(|| self.accept().map(|(stream, _)| stream))
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        if let Listener::Simulated(id, _) = self.0 {
            if let Some(machine) = machine() {
                machine.stop_listening(id);
            }
        }
    }
}

/// See the host's.
///
/// # Errors
///
/// As `setsockopt(2)`.
pub fn set_keepalive(
    stream: &TcpStream,
    keepalive: &TcpKeepalive,
    unacknowledged_max: Duration,
) -> io::Result<()> {
    match &stream.0 {
        Stream::Host(stream) => host::net::set_keepalive(stream, keepalive, unacknowledged_max),
        Stream::Simulated(_) => Ok(()),
    }
}

/// See the host's.
///
/// # Errors
///
/// As `send(2)`.
pub fn send_more(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match &stream.0 {
        Stream::Host(stream) => host::net::send_more(stream, bytes),
        Stream::Simulated(socket) => socket.write(bytes),
    }
}

/// See the host's.
///
/// # Errors
///
/// As `sendfile(2)`; a simulated disk has no files of the host.
pub fn send_file(
    stream: &TcpStream,
    file: &File,
    offset: i64,
    length: usize,
) -> nix::Result<usize> {
    match &stream.0 {
        Stream::Host(stream) => host::net::send_file(stream, file, offset, length),
        Stream::Simulated(_) => Err(Errno::ENOSYS),
    }
}

/// See the host's.
pub fn stop_listening(listener: &TcpListener) {
    match &listener.0 {
        Listener::Host(listener) => host::net::stop_listening(listener),
        Listener::Simulated(id, _) => {
            if let Some(machine) = machine() {
                machine.stop_listening(*id);
            }
        }
    }
}
