// SPDX-License-Identifier: MIT
//! Answers clients: an accept loop, and a blocking thread for each connection.

mod connection;
mod deadline;
mod refusal;
mod transfer;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pvfs::client::transport::enable_keepalive;
use pvfs::failure_log::FailureLog;
use pvfs::limits::RESERVED_PORT_MAX;
use pvfs::runtime::net::{TcpListener, TcpStream, stop_listening};
use pvfs::runtime::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use pvfs::runtime::thread::{self, JoinHandle};

use crate::store::Store;
use connection::Connection;

/// What a server may use and how long it waits.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections of one address at once: a mount keeps sixteen.
    pub connections_per_peer_max: usize,
    /// Connections at once. Each takes a thread, a stack and a buffer of
    /// 256 KiB: 256 MiB of buffers for all.
    pub connections_max: usize,
    /// A peer that moves no byte for so long within a frame is cut off.
    pub stall_timeout: Duration,
    /// A peer that takes longer than this for one frame is cut off, however steadily it trickles.
    pub frame_timeout: Duration,
    /// A peer that asks for nothing for so long is cut off; its pool connects anew when it needs to.
    /// The first request must begin within `frame_timeout`.
    pub idle_timeout: Duration,
    /// Peers may come from any port, not from reserved ones alone.
    pub insecure_ports: bool,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_peer_max: 256,
            stall_timeout: Duration::from_secs(30),
            frame_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(600),
            insecure_ports: false,
        }
    }
}

/// A connection's thread needs little: no recursion, no arrays on the stack.
const STACK_BYTES: usize = 256 << 10;
/// Pause after accept(2) failed for want of descriptors or memory, or the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running server; [`Server::stop`] ends it.
pub struct Server {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    store: Arc<Store>,
    limits: ServerLimits,
    stopping: AtomicBool,
    failures: FailureLog,
    table: Arc<Table>,
}

/// The open connections, and the news that one has ended.
#[derive(Default)]
struct Table {
    connections: Mutex<Connections>,
    ended: Condvar,
}

#[derive(Default)]
struct Connections {
    next: u64,
    open: BTreeMap<u64, (IpAddr, Arc<TcpStream>)>,
}

impl Server {
    /// Answers on `listener` what `store` holds.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2) and of making a thread.
    pub fn start(
        listener: TcpListener,
        store: Arc<Store>,
        limits: ServerLimits,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let listener = Arc::new(listener);
        let shared = Arc::new(Shared {
            store,
            limits,
            stopping: AtomicBool::new(false),
            failures: FailureLog::new(),
            table: Arc::default(),
        });
        let accepting = thread::Builder::new().name("accept".into()).spawn({
            let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
            move || accept(&listener, &shared)
        })?;
        Ok(Self {
            address,
            listener,
            shared,
            accepting: Some(accepting),
        })
    }

    /// The bound address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections and waits for their threads. Requests under way are not acknowledged.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        stop_listening(&self.listener);
        if let Some(accepting) = self.accepting.take() {
            // A thread that panicked has ended as well.
            let _ = accepting.join();
        }
        let table = &self.shared.table;
        let mut connections = table.lock();
        for (_, stream) in connections.open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        while !connections.open.is_empty() {
            connections = table
                .ended
                .wait(connections)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Table {
    /// Entries come and go by single calls, so a panic leaves the table sound.
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        match accepted {
            Ok((stream, peer)) => {
                if let Err(error) = serve(stream, peer, shared) {
                    shared
                        .failures
                        .note(&format_args!("connection from {peer} refused: {error}"));
                }
            }
            Err(error) => {
                shared
                    .failures
                    .note(&format_args!("accepting connections fails: {error}"));
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Starts a connection's thread. Where there are too many already, the connection is closed: the
/// client sees its end, waits and comes again.
fn serve(stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(shared.limits.stall_timeout))?;
    stream.set_write_timeout(Some(shared.limits.stall_timeout))?;
    enable_keepalive(&stream)?;
    let stream = Arc::new(stream);
    let slot = Slot::take(&shared.table, &shared.limits, (peer.ip(), &stream))?;
    let name = format!("client {peer}");
    let shared = Arc::clone(shared);
    let work = move || {
        // Dropped in reverse order: when the slot is free, the store is no longer held.
        let _slot = slot;
        let shared = shared;
        if peer.port() > RESERVED_PORT_MAX && !shared.limits.insecure_ports {
            let why = format_args!("connection from {peer} refused: its port is not reserved");
            shared.failures.note(&why);
            return refusal::tell(&stream);
        }
        let mut connection = Connection::new(
            &stream,
            peer,
            &shared.store,
            &shared.limits,
            &shared.failures,
        );
        match connection.run() {
            Ok(()) => tracing::debug!("{peer}: closed"),
            Err(_) if shared.stopping.load(Ordering::Acquire) => {}
            Err(error) => tracing::info!("connection from {peer} ended: {error}"),
        }
    };
    thread::Builder::new()
        .name(name)
        .stack_size(STACK_BYTES)
        .spawn(work)?;
    Ok(())
}

/// A place among the connections, given up when it is dropped.
struct Slot {
    table: Arc<Table>,
    number: u64,
}

impl Slot {
    fn take(
        table: &Arc<Table>,
        limits: &ServerLimits,
        (peer, stream): (IpAddr, &Arc<TcpStream>),
    ) -> io::Result<Self> {
        let limit = limits.connections_max;
        let mut connections = table.lock();
        let of_peer = connections.open.values().filter(|(of, _)| *of == peer);
        let limit_of_peer = limits.connections_per_peer_max;
        if of_peer.count() >= limit_of_peer {
            return Err(io::Error::other(format!(
                "all {limit_of_peer} connections of its address are in use"
            )));
        }
        if connections.open.len() >= limit {
            return Err(io::Error::other(format!(
                "all {limit} connections are in use"
            )));
        }
        let number = connections.next;
        connections.next += 1;
        connections.open.insert(number, (peer, Arc::clone(stream)));
        Ok(Self {
            table: Arc::clone(table),
            number,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.table.lock().open.remove(&self.number);
        self.table.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Membership;
    use crate::store::faulty::{Act, Fault, FaultyDisk, Part};
    use pvfs::address::Endpoint;
    use pvfs::client::iod::IodConnection;
    use pvfs::error::FsError;
    use pvfs::ids::{FileSystemId, InodeNumber, IodId, ObjectId};
    use pvfs::layout::LayoutSlot;
    use pvfs::proto::iod::{IodRequest, StripeRef};
    use pvfs::proto::seal::{Reign, Seal};

    /// A disk that fails after a reply has begun ends the connection without a whole frame, and the
    /// next attempt is told what is the matter.
    #[test]
    fn a_disk_that_fails_half_way_is_told_at_the_second_attempt() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        Store::create(directory.path()).unwrap();
        let store = Store::open_on(Arc::new(disk.clone()), directory.path(), 64).unwrap();
        let store = Arc::new(store);
        let file_system = FileSystemId(1);
        store
            .join(Membership {
                iod: IodId(1),
                file_system,
                seal: Seal {
                    reign: Reign {
                        era: 0,
                        starts: 1,
                        nonce: 2,
                    },
                    number: 3,
                    secret: 4,
                },
            })
            .unwrap();
        store.admission().grant();
        let object = ObjectId {
            inode: InodeNumber(9),
            generation: 0,
        };
        let length = 3 << 20;
        let stripe = StripeRef {
            object,
            place: LayoutSlot::default(),
        };
        let file = store.find_or_create(stripe).unwrap();
        file.write_at(&vec![7; length], 0).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let limits = ServerLimits {
            insecure_ports: true,
            ..ServerLimits::default()
        };
        let server = Server::start(listener, store, limits).unwrap();
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: server.address().port(),
        };
        let read = || {
            let mut connection =
                IodConnection::connect(&endpoint, Duration::from_secs(10)).unwrap();
            let request = IodRequest::Read {
                stripe,
                offset: 0,
                length: length as u32,
                filled: length as u64,
            };
            connection.send(&request, &[]).unwrap();
            let mut bytes = vec![0; length];
            let received = connection.receive(&mut [&mut bytes]);
            received.map(|(reply, filled)| {
                bytes.truncate(filled);
                (reply, bytes)
            })
        };
        // The first part is read to be checked, piece by piece, and to be sent; then the disk fails.
        disk.add(Fault {
            after: 5,
            ..Fault::always(Act::Read, Part::Data, libc::EIO)
        });
        assert!(read().is_err());
        assert_eq!(read().unwrap().0, Err(FsError::Io));
        disk.heal();
        assert_eq!(read().unwrap().1, vec![7; length]);
    }
}
