// SPDX-License-Identifier: MIT
//! Keeps mgr informed: registers the iod at start and after every reconnection, then reports its
//! disk with each heartbeat, and says goodbye at the end. While mgr is away it tries again for ever;
//! clients are served meanwhile, where mgr has admitted this run of the iod before.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use pvfs::address::Endpoint;
use pvfs::attr::Credentials;
use pvfs::client::patience::{Backoff, Cancel, Patience};
use pvfs::client::silence::{Silence, Stage};
use pvfs::client::transport::{dial, enable_keepalive};
use pvfs::error::FsError;
use pvfs::ids::{ClientId, FileSystemId, Incarnation, IodId};
use pvfs::limits::{HEARTBEAT_INTERVAL_MS, LOST_AFTER_MS, SILENCE_LOOK_MS};
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrRequest, MgrResponse};
use pvfs::proto::peer::Peer;
use pvfs::proto::seal::OrderKey;
use pvfs::runtime::net::TcpStream;
use pvfs::runtime::random_u64;
use pvfs::runtime::thread::{self, JoinHandle};
use pvfs::runtime::time::{Duration, Instant};
use pvfs::wire::blocking::{ConnectionError, read_message, write_message};
use pvfs::wire::header::{FrameError, FrameKind};
use thiserror::Error;

use crate::admission::{self, Usurper};
use crate::store::{Membership, Store};

/// Connecting to mgr takes at most so long for each of its addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// mgr answers a registration within this time or is connected to anew. It may be reading its
/// journal.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages are small: where mgr takes or gives no byte of one for so long, it is gone.
const FRAME_TIMEOUT: Duration = Duration::from_millis(LOST_AFTER_MS);
/// mgr answers a goodbye within this time, or does not hear it.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// An iod is given a seal, and shows it; another mgr may start in between.
const ROUNDS_MAX: u32 = 4;

/// What registration needs to know.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Where mgr is.
    pub mgr: Endpoint,
    /// What this iod listens on.
    pub listening: SocketAddr,
    /// Where clients reach it, if that is not to be found out.
    pub advertise: Option<Endpoint>,
    /// The operator says that its directory is to be believed, though it is an older one.
    pub accepts_older: bool,
}

/// Why a connection to mgr ended.
#[derive(Debug, Error)]
enum MgrError {
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error("it refuses this iod ({0}): is --mgr right? is --data from another file system?")]
    Refused(FsError),
    #[error(
        "it refuses this data directory: it is a copy, was restored from a backup, or was emptied, and \
         another one has its place; nothing here is served (the log of mgr says more)"
    )]
    Superseded,
    #[error(
        "it does not know the seal of this data directory: its store is a copy, or was restored from a \
         backup. Stop it where another mgr rules; start it with --new-era where it was restored"
    )]
    Deposed,
    #[error("it would rule this iod, and may not: {0}")]
    Usurper(#[from] Usurper),
    #[error("another iod that is alive has this one's place: was the data directory copied?")]
    Elsewhere,
    #[error("it gives this iod one seal after another")]
    Unsettled,
    #[error(
        "it keeps file system {mgr:032x}, and the data here belongs to {here:032x}: \
         is --mgr right? a new iod needs an empty --data"
    )]
    OtherFileSystem { mgr: u128, here: u128 },
    #[error("it ended the connection")]
    Closed,
    #[error("it has said nothing for {:.1} s", .0.as_secs_f64())]
    Silent(Duration),
    #[error("it answered something else than was asked")]
    Unexpected,
    #[error("storing the iod's number failed: {0}")]
    Store(io::Error),
    #[error("the iod was told to stop")]
    Stopped,
}

impl MgrError {
    /// Whether mgr is there and something is to be mended.
    const fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::Superseded
            | Self::Elsewhere
            | Self::Deposed
            | Self::Usurper(_)
            | Self::Unsettled
            | Self::OtherFileSystem { .. }
            | Self::Store(_) => true,
            Self::Connection(_)
            | Self::Closed
            | Self::Silent(_)
            | Self::Unexpected
            | Self::Stopped => false,
        }
    }
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
            away: Away::default(),
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
    away: Away,
}

/// What the log says of a mgr that is not there.
#[derive(Debug, Default)]
struct Away {
    /// Since when it is away; the log has said so.
    since: Option<Instant>,
    /// Why it refused, as the log said last.
    refusal: Option<String>,
}

impl Away {
    /// Notes that mgr is away, or refuses. The log says it once, and another refusal too.
    fn note(&mut self, mgr: &Endpoint, error: &MgrError) {
        let text = error.to_string();
        if error.is_refusal() && self.refusal.as_ref() != Some(&text) {
            tracing::warn!("mgr at {mgr}: {text}: trying again");
            self.refusal = Some(text);
        } else if self.since.is_none() {
            tracing::warn!("mgr at {mgr} is away ({text}): trying again");
        } else {
            tracing::debug!("mgr at {mgr}: {text}");
        }
        self.since.get_or_insert_with(Instant::now);
    }

    /// mgr has answered.
    fn end(&mut self, mgr: &Endpoint) {
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs_f64();
            tracing::info!("mgr at {mgr} answers again after {seconds:.1} s");
        }
        self.refusal = None;
    }
}

impl<F: FnOnce(Membership)> Worker<F> {
    fn run(&mut self) {
        let mut backoff = Backoff::new();
        while !self.patience.is_over() {
            let mut was_registered = false;
            let error = match self.session(&mut was_registered) {
                Ok(()) | Err(MgrError::Stopped) => return,
                Err(error) => error,
            };
            if self.patience.is_over() {
                return;
            }
            if was_registered {
                backoff = Backoff::new();
            }
            self.away.note(&self.registration.mgr, &error);
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
            reader: BufReader::new(stream.try_clone()?),
            stream,
            client,
            scratch: Vec::new(),
            request_id: 0,
            sequence: 0,
        };
        let file_system = link.greet(self.store.path())?;
        let here = identity.membership.map(|member| member.file_system);
        if let Some(here) = here.filter(|here| *here != file_system) {
            return Err(MgrError::OtherFileSystem {
                mgr: file_system.0,
                here: here.0,
            });
        }
        let registered = self.register(&mut link, &address);
        // What the operator says of the directory is said once: mgr has heard it, and answered.
        let is_answered = registered
            .as_ref()
            .map_or_else(MgrError::is_refusal, |_| true);
        self.registration.accepts_older &= !is_answered;
        let membership = match registered {
            Err(refusal) if refusal.is_refusal() => {
                // mgr need not wait for this client.
                link.say_goodbye();
                return Err(refusal);
            }
            registered => registered?,
        };
        *was_registered = true;
        self.away.end(&self.registration.mgr);
        tracing::info!(
            "iod {} of file system {:032x}, known to mgr at {} as {address}",
            membership.iod,
            membership.file_system.0,
            self.registration.mgr,
        );
        if let Some(on_registered) = self.on_registered.take() {
            on_registered(membership);
        }
        loop {
            match self.heartbeats(&mut link, membership.iod) {
                // It gets another seal before that one can have its place: through this connection,
                // as mgr would take the end of it for the end of this iod.
                Err(MgrError::Refused(FsError::Stale)) => {
                    tracing::warn!(
                        "somebody came to mgr with a copy of this data directory: taking a new seal"
                    );
                    self.register(&mut link, &address)?;
                }
                outcome => return outcome,
            }
        }
    }

    /// Registers until mgr knows that the data directory holds what it gave it last: from then on the
    /// iod serves its data.
    fn register(&self, link: &mut Link, address: &Endpoint) -> Result<Membership, MgrError> {
        let admission = self.store.admission();
        for _ in 0..ROUNDS_MAX {
            let held = self.store.identity().membership;
            let introduction = Introduction {
                held,
                incarnation: admission.incarnation(),
                accepts_older: self.registration.accepts_older,
                address,
            };
            let registered = link.register(&introduction, &self.store);
            if let Err(MgrError::Superseded) = registered {
                admission.withdraw();
            }
            let (given, key) = registered?;
            let held_seal = held.as_ref().map(|held| &held.seal);
            admission::judge(held_seal, given.seal.reign)?;
            self.store.join(given).map_err(MgrError::Store)?;
            // Before mgr can hear that this iod has it: orders follow at once.
            admission.obey(key);
            if held == Some(given) {
                admission.grant();
                return Ok(given);
            }
        }
        Err(MgrError::Unsettled)
    }

    /// Tells mgr at intervals that this iod is there, until the connection ends or the iod is to
    /// stop, of which mgr hears too.
    fn heartbeats(&mut self, link: &mut Link, iod: IodId) -> Result<(), MgrError> {
        let look = Duration::from_millis(SILENCE_LOOK_MS);
        let mut silence = Silence::new(Instant::now());
        while !self.patience.is_over() {
            for _ in 0..HEARTBEAT_INTERVAL_MS / SILENCE_LOOK_MS {
                if self.patience.wait(look) {
                    // mgr says nothing unasked.
                    silence.look(Instant::now());
                }
            }
            let report = self.store.report()?;
            link.send(0, MgrOperation::IodHeartbeat { iod, report })?;
            while !link.has_reply(look)? && !self.patience.is_over() {
                match silence.look(Instant::now()) {
                    Stage::Heard => {}
                    Stage::Suspect => {
                        let silent = MgrError::Silent(silence.lasted());
                        self.away.note(&self.registration.mgr, &silent);
                    }
                    Stage::Lost => return Err(MgrError::Silent(silence.lasted())),
                }
            }
            if self.patience.is_over() {
                break;
            }
            link.done()?;
            silence.hear(Instant::now());
            self.away.end(&self.registration.mgr);
        }
        link.say_goodbye();
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
    let stream = dial(mgr, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(FRAME_TIMEOUT))?;
    enable_keepalive(&stream)?;
    Ok(stream)
}

/// How an iod introduces itself.
struct Introduction<'a> {
    held: Option<Membership>,
    incarnation: Incarnation,
    accepts_older: bool,
    address: &'a Endpoint,
}

/// A connection to mgr with one request under way at a time.
struct Link {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    client: ClientId,
    scratch: Vec<u8>,
    request_id: u64,
    /// Of the last registration.
    sequence: u64,
}

impl Link {
    fn greet(&mut self, data: &Path) -> Result<FileSystemId, MgrError> {
        let hello = MgrOperation::Hello {
            number: 0,
            opens: Vec::new(),
            leases: false,
            locks: vec![],
            more: false,
            news: false,
            peer: Peer::of_this_process(Some(data)),
        };
        match self.call(0, hello)? {
            MgrResponse::Hello(hello) => Ok(hello.file_system),
            _ => Err(MgrError::Unexpected),
        }
    }

    fn register(
        &mut self,
        introduction: &Introduction<'_>,
        store: &Store,
    ) -> Result<(Membership, OrderKey), MgrError> {
        let Introduction {
            held,
            incarnation,
            accepts_older,
            address,
        } = introduction;
        let operation = MgrOperation::RegisterIod {
            iod: held.map(|held| held.iod),
            file_system: held.map(|held| held.file_system),
            seal: held.map(|held| held.seal),
            incarnation: *incarnation,
            accepts_older: *accepts_older,
            address: address.to_string(),
            report: store.report()?,
        };
        self.sequence += 1;
        match self.call(self.sequence, operation) {
            Ok(MgrResponse::Registered {
                iod,
                file_system,
                seal,
                key,
            }) => Ok((
                Membership {
                    iod,
                    file_system,
                    seal,
                },
                key,
            )),
            Err(MgrError::Refused(FsError::Superseded)) => Err(MgrError::Superseded),
            Err(MgrError::Refused(FsError::Deposed)) => Err(MgrError::Deposed),
            Err(MgrError::Refused(FsError::Busy)) => Err(MgrError::Elsewhere),
            Ok(_) => Err(MgrError::Unexpected),
            Err(error) => Err(error),
        }
    }

    /// Says that this iod stops. Where mgr does not hear it, it notices that the connection ends.
    fn say_goodbye(&mut self) {
        let said = self.send(0, MgrOperation::Goodbye).and_then(|()| {
            // A heartbeat may be under way, whose reply comes first.
            self.stream.set_read_timeout(Some(GOODBYE_TIMEOUT))?;
            self.receive_until(self.request_id)
        });
        if let Err(error) = said {
            tracing::debug!("goodbye to mgr: {error}");
        }
    }

    fn call(&mut self, sequence: u64, operation: MgrOperation) -> Result<MgrResponse, MgrError> {
        self.send(sequence, operation)?;
        self.stream.set_read_timeout(Some(REGISTRATION_TIMEOUT))?;
        self.receive(self.request_id)
    }

    fn send(&mut self, sequence: u64, operation: MgrOperation) -> Result<(), MgrError> {
        self.request_id += 1;
        let request = MgrRequest {
            client: self.client,
            sequence,
            answered_below: sequence.max(1),
            credentials: Credentials::ROOT,
            operation,
        };
        let id = self.request_id;
        write_message(&mut self.stream, FrameKind::MgrRequest, id, &request, &[])?;
        Ok(())
    }

    /// Whether a reply, or the connection's end, is there within `timeout`.
    fn has_reply(&mut self, timeout: Duration) -> Result<bool, MgrError> {
        self.stream.set_read_timeout(Some(timeout))?;
        match self.reader.fill_buf() {
            Ok(_) => Ok(true),
            // A process that was stopped and goes on has its wait ended early (signal(7)).
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the reply to a heartbeat.
    fn done(&mut self) -> Result<(), MgrError> {
        self.stream.set_read_timeout(Some(FRAME_TIMEOUT))?;
        match self.receive(self.request_id)? {
            MgrResponse::Done => Ok(()),
            _ => Err(MgrError::Unexpected),
        }
    }

    /// Takes replies up to that of request `id`.
    fn receive_until(&mut self, id: u64) -> Result<(), MgrError> {
        while self.receive_next()?.0 < id {}
        Ok(())
    }

    fn receive(&mut self, id: u64) -> Result<MgrResponse, MgrError> {
        let (found, reply) = self.receive_next()?;
        if found != id {
            return Err(ConnectionError::from(FrameError::UnknownRequest(found)).into());
        }
        reply.map_err(MgrError::Refused)
    }

    fn receive_next(&mut self) -> Result<(u64, MgrReply), MgrError> {
        let reply = read_message(&mut self.reader, FrameKind::MgrReply, &mut self.scratch)?;
        let (header, reply): (_, MgrReply) = reply.ok_or(MgrError::Closed)?;
        Ok((header.request_id, reply))
    }
}
