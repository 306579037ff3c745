// SPDX-License-Identifier: MIT
//! Keeps mgr informed: registers the iod at start and after every reconnection, then reports its
//! disk at intervals. While mgr is away it tries again for ever; clients are served meanwhile.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use pvfs::address::Endpoint;
use pvfs::attr::Credentials;
use pvfs::client::patience::{Backoff, Cancel, Patience};
use pvfs::client::transport::enable_keepalive;
use pvfs::error::FsError;
use pvfs::ids::{ClientId, FileSystemId, IodId};
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrRequest, MgrResponse};
use pvfs::runtime::net::TcpStream;
use pvfs::runtime::random_u64;
use pvfs::runtime::thread::{self, JoinHandle};
use pvfs::wire::blocking::{ConnectionError, read_message, write_message};
use pvfs::wire::header::{FrameError, FrameKind};
use thiserror::Error;

use crate::store::{Membership, Store};

/// mgr counts an iod as away after several of these.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// Connecting to mgr takes at most so long for each of its addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// mgr answers within this time or is connected to anew. It may be reading its journal.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// What registration needs to know.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Where mgr is.
    pub mgr: Endpoint,
    /// What this iod listens on.
    pub listening: SocketAddr,
    /// Where clients reach it, if that is not to be found out.
    pub advertise: Option<Endpoint>,
}

/// Why a connection to mgr ended.
#[derive(Debug, Error)]
enum MgrError {
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error("it refuses this iod ({0}): is --mgr right? is --data from another file system?")]
    Refused(FsError),
    #[error(
        "it keeps file system {mgr:032x}, and the data here belongs to {here:032x}: \
         is --mgr right? a new iod needs an empty --data"
    )]
    OtherFileSystem { mgr: u128, here: u128 },
    #[error("it ended the connection")]
    Closed,
    #[error("it answered something else than was asked")]
    Unexpected,
    #[error("storing the iod's number failed: {0}")]
    Store(io::Error),
    #[error("the iod was told to stop")]
    Stopped,
}

impl From<io::Error> for MgrError {
    fn from(error: io::Error) -> Self {
        Self::Connection(error.into())
    }
}

/// The thread that talks to mgr; ends when it is dropped.
pub struct Registrar {
    cancel: Cancel,
    thread: Option<JoinHandle<()>>,
}

impl Registrar {
    /// Registers in the background; calls `on_registered` after the first time.
    ///
    /// # Errors
    ///
    /// Those of making a thread.
    pub fn start(
        registration: Registration,
        store: Arc<Store>,
        on_registered: impl FnOnce(Membership) + Send + 'static,
    ) -> io::Result<Self> {
        let cancel = Cancel::new();
        let patience = Patience::until_cancelled(&cancel);
        let mut worker = Worker {
            registration,
            store,
            patience,
            on_registered: Some(on_registered),
        };
        let thread = thread::Builder::new()
            .name("mgr".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            cancel,
            thread: Some(thread),
        })
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

struct Worker<F> {
    registration: Registration,
    store: Arc<Store>,
    patience: Patience,
    on_registered: Option<F>,
}

impl<F: FnOnce(Membership)> Worker<F> {
    fn run(&mut self) {
        let mut backoff = Backoff::new();
        let mut last_said = None;
        while !self.patience.is_over() {
            let mut was_registered = false;
            let error = match self.session(&mut was_registered) {
                Ok(()) | Err(MgrError::Stopped) => return,
                Err(error) => error.to_string(),
            };
            if was_registered {
                backoff = Backoff::new();
                last_said = None;
            }
            if last_said.as_ref() != Some(&error) {
                tracing::warn!("mgr at {}: {error}: trying again", self.registration.mgr);
                last_said = Some(error);
            }
            if !self.patience.wait(backoff.pause()) {
                return;
            }
        }
    }

    /// One connection to mgr, from greeting to end.
    fn session(&mut self, was_registered: &mut bool) -> Result<(), MgrError> {
        let stream = connect(&self.registration.mgr)?;
        let address = self.advertised(&stream)?;
        let identity = self.store.identity();
        // A member registers under a new client id each time, since it needs no exactly-once.
        let client = match identity.membership {
            None => identity.client,
            Some(_) => ClientId(random_u64()),
        };
        let mut link = Link {
            stream,
            client,
            scratch: Vec::new(),
            request_id: 0,
        };
        let file_system = link.greet()?;
        let here = identity.membership.map(|member| member.file_system);
        if let Some(here) = here.filter(|here| *here != file_system) {
            return Err(MgrError::OtherFileSystem {
                mgr: file_system.0,
                here: here.0,
            });
        }
        let membership = link.register(identity.membership, &address, &self.store)?;
        self.store.join(membership).map_err(MgrError::Store)?;
        *was_registered = true;
        tracing::info!(
            "iod {} of file system {:032x}, known to mgr at {} as {address}",
            membership.iod,
            membership.file_system.0,
            self.registration.mgr,
        );
        if let Some(on_registered) = self.on_registered.take() {
            on_registered(membership);
        }
        while self.patience.wait(HEARTBEAT_INTERVAL) {
            link.beat(membership.iod, &self.store)?;
        }
        Err(MgrError::Stopped)
    }

    /// Where clients reach this iod: as told, or where it listens, or the address from which it
    /// reaches mgr.
    fn advertised(&self, stream: &TcpStream) -> Result<Endpoint, MgrError> {
        if let Some(endpoint) = &self.registration.advertise {
            return Ok(endpoint.clone());
        }
        let listening = self.registration.listening;
        let ip = if listening.ip().is_unspecified() {
            stream.local_addr()?.ip().to_canonical()
        } else {
            listening.ip()
        };
        if ip.is_loopback() {
            tracing::debug!("clients on other machines do not reach {ip}: consider --advertise");
        }
        Ok(Endpoint {
            host: ip.to_string(),
            port: listening.port(),
        })
    }
}

fn connect(mgr: &Endpoint) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (mgr.host.as_str(), mgr.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
                stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
                enable_keepalive(&stream)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connection to mgr with one request under way at a time.
struct Link {
    stream: TcpStream,
    client: ClientId,
    scratch: Vec<u8>,
    request_id: u64,
}

impl Link {
    fn greet(&mut self) -> Result<FileSystemId, MgrError> {
        let hello = MgrOperation::Hello {
            opens: Vec::new(),
            leases: false,
            locks: vec![],
            more: false,
        };
        match self.call(0, hello)? {
            MgrResponse::Hello(hello) => Ok(hello.file_system),
            _ => Err(MgrError::Unexpected),
        }
    }

    fn register(
        &mut self,
        membership: Option<Membership>,
        address: &Endpoint,
        store: &Store,
    ) -> Result<Membership, MgrError> {
        let operation = MgrOperation::RegisterIod {
            iod: membership.map(|member| member.iod),
            file_system: membership.map(|member| member.file_system),
            address: address.to_string(),
            space: store.space()?,
        };
        match self.call(1, operation)? {
            MgrResponse::Registered { iod, file_system } => Ok(Membership { iod, file_system }),
            _ => Err(MgrError::Unexpected),
        }
    }

    fn beat(&mut self, iod: IodId, store: &Store) -> Result<(), MgrError> {
        match self.call(
            0,
            MgrOperation::IodHeartbeat {
                iod,
                space: store.space()?,
            },
        )? {
            MgrResponse::Done => Ok(()),
            _ => Err(MgrError::Unexpected),
        }
    }

    fn call(&mut self, sequence: u64, operation: MgrOperation) -> Result<MgrResponse, MgrError> {
        self.request_id += 1;
        let request = MgrRequest {
            client: self.client,
            sequence,
            answered_below: 1,
            credentials: Credentials::ROOT,
            operation,
        };
        let id = self.request_id;
        write_message(&mut self.stream, FrameKind::MgrRequest, id, &request, &[])?;
        let reply = read_message(&mut self.stream, FrameKind::MgrReply, &mut self.scratch)?;
        let (header, reply): (_, MgrReply) = reply.ok_or(MgrError::Closed)?;
        if header.request_id != id {
            return Err(
                ConnectionError::from(FrameError::UnknownRequest(header.request_id)).into(),
            );
        }
        reply.map_err(MgrError::Refused)
    }
}
