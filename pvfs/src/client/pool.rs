// SPDX-License-Identifier: MIT
//! Connections to all iods, kept between requests, and the waiting while an iod is away.
//!
//! A request whose reply was lost is sent again, for as long as the caller's [`Patience`] lasts: a
//! mount waits for ever, as a hard NFS mount does, and the log says once for whom. Each change has a
//! name of its own ([`Change`]), by which the iod knows it again and makes it once.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use super::iod::{IodConnection, IodDirectory, IodError, Watch};
use super::patience::{Backoff, Patience};
use super::slots::Slots;
use super::transport::{Tcp, Transport};
use crate::error::FsError;
use crate::ids::{Incarnation, IodId, SessionId};
use crate::proto::iod::{Change, IodReply, IodRequest, IodResponse};
use crate::runtime::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::runtime::time::{Duration, Instant};
use crate::wire::blocking::ConnectionError;

/// What an owner of a pool may choose.
#[derive(Clone)]
pub struct PoolOptions {
    /// Connecting to one address takes at most so long.
    pub connect_timeout: Duration,
    /// Idle connections kept to each iod: as many as threads use at once, or each of them connects
    /// anew for every request.
    pub idle_connections_max: usize,
    /// How connections are made.
    pub transport: Arc<dyn Transport>,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            idle_connections_max: 16,
            transport: Arc::new(Tcp),
        }
    }
}

/// Connections to iods. Clones share them and differ in their [`Patience`], and in what must hold
/// for a request to be sent again.
#[derive(Clone)]
pub struct IodPool {
    shared: Arc<Shared>,
    patience: Patience,
    lease: Option<UnderLease>,
}

/// Under what changes are sent.
#[derive(Clone)]
struct UnderLease {
    is_held: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Nobody else changes the file while it is held.
    is_alone: bool,
}

struct Shared {
    directory: Arc<dyn IodDirectory>,
    options: PoolOptions,
    /// Has an entry for each iod ever asked for; ids come from checked layouts and from mgr.
    iods: Mutex<BTreeMap<IodId, IodState>>,
}

#[derive(Default)]
struct IodState {
    idle: Vec<IodConnection>,
    away_since: Option<Instant>,
    /// `None` before the first change.
    slots: Option<Slots>,
}

/// The name of a change, for as long as it may be under way.
struct Ticket {
    shared: Arc<Shared>,
    iod: IodId,
    change: Change,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut iods = self.shared.lock();
        let slots = iods.get_mut(&self.iod).and_then(|iod| iod.slots.as_mut());
        if let Some(slots) = slots {
            slots.give_back(&self.change);
        }
    }
}

/// One request to one iod and where its reply goes.
pub(super) struct Exchange<'a> {
    pub(super) iod: IodId,
    pub(super) request: IodRequest,
    /// The request's payload.
    pub(super) gather: Vec<&'a [u8]>,
    /// Where the reply's payload goes; bytes that the iod does not have become zeros.
    pub(super) scatter: Vec<&'a mut [u8]>,
    /// The reply, once it has come.
    pub(super) reply: Option<IodReply>,
    /// Of a change that has been sent, or is about to be.
    ticket: Option<Ticket>,
    /// How often it was sent under this ticket.
    copies: u32,
}

impl Exchange<'_> {
    /// A request without payload.
    pub(super) const fn control(iod: IodId, request: IodRequest) -> Self {
        Self {
            iod,
            request,
            gather: Vec::new(),
            scatter: Vec::new(),
            reply: None,
            ticket: None,
            copies: 0,
        }
    }

    /// From now on asks what became of its change, which is not to be made any more. Where no copy
    /// of it can have arrived, that is known.
    fn settle(&mut self) {
        match &self.ticket {
            Some(Ticket { change, .. }) => {
                self.request = IodRequest::Settle { change: *change };
                self.gather.clear();
            }
            None => self.answered(Err(FsError::Fenced)),
        }
    }

    fn answered(&mut self, reply: IodReply) {
        self.reply = Some(match reply {
            // It is not made, or in part: as if it had come too late.
            Ok(IodResponse::Unmade { .. }) => Err(FsError::Fenced),
            reply => reply,
        });
        self.ticket = None;
    }
}

/// Why a request has not been sent.
enum Unsent {
    Broken(ConnectionError),
    /// The iod takes no change now; the connection is good.
    NotNow,
}

impl From<ConnectionError> for Unsent {
    fn from(error: ConnectionError) -> Self {
        Self::Broken(error)
    }
}

/// Why an attempt failed, for the log.
#[derive(Debug, Error)]
enum Away {
    #[error("iod {0} is not known to mgr")]
    Unknown(IodId),
    #[error("iod {0}: {1}")]
    Error(IodId, IodError),
    #[error("iod {iod} at {endpoint} does not answer ({source})")]
    Broken {
        iod: IodId,
        endpoint: String,
        source: ConnectionError,
    },
    #[error("at the address of iod {iod}, {endpoint}, another iod answers ({found})")]
    Other {
        iod: IodId,
        endpoint: String,
        found: String,
    },
    #[error("iod {0} is not ready: mgr has not admitted it, or not this run of it")]
    NotReady(IodId),
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// An idle connection was dead: the iod may be well.
    AtOnce,
    AfterPause,
}

/// A connection with a request under way on it.
struct Flight {
    position: usize,
    connection: IodConnection,
    fresh: bool,
}

impl IodPool {
    /// A pool that finds iods in `directory` and waits for them for ever.
    #[must_use]
    pub fn new(directory: Arc<dyn IodDirectory>, options: PoolOptions) -> Self {
        let shared = Shared {
            directory,
            options,
            iods: Mutex::new(BTreeMap::new()),
        };
        Self {
            shared: Arc::new(shared),
            patience: Patience::endless(),
            lease: None,
        }
    }

    /// The same connections for a caller that gives up some time.
    #[must_use]
    pub fn with_patience(&self, patience: Patience) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            patience,
            lease: self.lease.clone(),
        }
    }

    /// The same connections for requests under a lease: where `is_held` says that it has ended, no
    /// change is sent again. An iod that was restarted meanwhile would not know that it comes too
    /// late. Whether a change that was sent has been made is asked until it is known: to make it
    /// anew, under another lease, could change a second time what others have changed since.
    ///
    /// `is_alone`: while it is held nobody else changes the file. Where others may, a change is not
    /// sent anew when the iod has forgotten whether it made it: that is [`FsError::SessionLost`].
    #[must_use]
    pub fn while_held(&self, is_held: Arc<dyn Fn() -> bool + Send + Sync>, is_alone: bool) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            patience: self.patience.clone(),
            lease: Some(UnderLease { is_held, is_alone }),
        }
    }

    /// One request without payload.
    ///
    /// # Errors
    ///
    /// What the iod answered; [`FsError::Io`] where patience ended first.
    pub fn call(&self, iod: IodId, request: &IodRequest) -> Result<IodResponse, FsError> {
        let mut exchanges = [Exchange::control(iod, request.clone())];
        self.run(&mut exchanges)?;
        let [exchange] = exchanges;
        exchange.reply.unwrap_or(Err(FsError::Io))
    }

    /// Carries out all exchanges at once: all requests are sent before the first reply is awaited.
    /// Those that failed on the way are sent again, the others are not.
    ///
    /// Sending one request after another costs no parallelism: the kernel's socket buffers drain
    /// side by side, and the client's own link is what many iods share.
    ///
    /// # Errors
    ///
    /// [`FsError::Io`] where patience ended before all replies came; [`FsError::Fenced`] where the
    /// lease did.
    pub(super) fn run(&self, exchanges: &mut [Exchange<'_>]) -> Result<(), FsError> {
        let mut backoff = Backoff::new();
        let mut is_settling = false;
        loop {
            let mut retry = None;
            let mut note = |failure: Retry| match failure {
                Retry::AfterPause => retry = Some(failure),
                Retry::AtOnce => retry = retry.or(Some(failure)),
            };
            let mut flights = Vec::with_capacity(exchanges.len());
            for (position, exchange) in exchanges.iter_mut().enumerate() {
                if exchange.reply.is_none() {
                    match self.send(exchange) {
                        Ok((connection, fresh)) => {
                            flights.push(Flight {
                                position,
                                connection,
                                fresh,
                            });
                        }
                        Err(failure) => note(failure),
                    }
                }
            }
            for flight in flights {
                let Some(exchange) = exchanges.get_mut(flight.position) else {
                    continue;
                };
                if let Err(failure) = self.receive(exchange, flight) {
                    note(failure);
                }
            }
            match retry {
                None => return Ok(()),
                Some(_) if self.patience.is_over() => return Err(self.patience.error()),
                Some(Retry::AtOnce) => {}
                Some(Retry::AfterPause) => {
                    if !self.patience.wait(backoff.pause()) {
                        return Err(self.patience.error());
                    }
                    self.shared.directory.refresh();
                }
            }
            if !is_settling && self.lease.as_ref().is_some_and(|lease| !(lease.is_held)()) {
                is_settling = true;
                let unanswered = exchanges.iter_mut().filter(|one| one.reply.is_none());
                unanswered.for_each(Exchange::settle);
            }
        }
    }

    /// Sends an exchange's request; returns the connection on which the reply comes, and whether it
    /// is a fresh one.
    fn send(&self, exchange: &mut Exchange<'_>) -> Result<(IodConnection, bool), Retry> {
        let iod = exchange.iod;
        if let Some(mut connection) = self.shared.take_idle(iod) {
            connection.set_patience(self.patience.clone());
            match self.send_on(&mut connection, exchange) {
                Ok(()) => return Ok((connection, false)),
                Err(Unsent::NotNow) => return Err(self.not_now(iod, connection)),
                Err(Unsent::Broken(_)) => self.shared.forget_idle(iod),
            }
        }
        let mut connection = self
            .connect(iod)
            .map_err(|away| self.shared.note_away(iod, &away))?;
        match self.send_on(&mut connection, exchange) {
            Ok(()) => Ok((connection, true)),
            Err(Unsent::NotNow) => Err(self.not_now(iod, connection)),
            Err(Unsent::Broken(source)) => Err(self.broken(iod, &connection, source)),
        }
    }

    fn send_on(
        &self,
        connection: &mut IodConnection,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Unsent> {
        if let Some(change) = exchange.request.change_mut() {
            if exchange.ticket.is_none() {
                let ticket = self.ticket(exchange.iod, connection)?;
                *change = ticket.change;
                exchange.ticket = Some(ticket);
            }
        }
        exchange.copies = exchange.copies.saturating_add(1);
        let parts = exchange.gather.iter();
        let payload: Vec<IoSlice<'_>> = parts.map(|part| IoSlice::new(part)).collect();
        Ok(connection.send(&exchange.request, &payload)?)
    }

    /// A name for a change; asks for a session where there is none.
    fn ticket(&self, iod: IodId, connection: &mut IodConnection) -> Result<Ticket, Unsent> {
        if !self.shared.has_session(iod) {
            match connection.call(&IodRequest::OpenSession) {
                Ok(IodResponse::Session(session)) => self.shared.begin_session(iod, session),
                Err(IodError::Connection { source, .. }) => return Err(source.into()),
                Ok(_) | Err(IodError::Connect { .. } | IodError::Refused { .. }) => {
                    return Err(Unsent::NotNow);
                }
            }
        }
        let change = self.shared.take_slot(iod).ok_or(Unsent::NotNow)?;
        Ok(Ticket {
            shared: Arc::clone(&self.shared),
            iod,
            change,
        })
    }

    fn not_now(&self, iod: IodId, connection: IodConnection) -> Retry {
        self.shared.give_back(iod, connection);
        self.shared.note_away(iod, &Away::NotReady(iod))
    }

    fn receive(&self, exchange: &mut Exchange<'_>, flight: Flight) -> Result<(), Retry> {
        let mut connection = flight.connection;
        match connection.receive(&mut exchange.scatter) {
            // Another run of the iod has its place, and what this one says may be old.
            Ok(_) if !self.shared.is_current(exchange.iod, &connection) => Err(Retry::AtOnce),
            Ok((Err(FsError::TryAgain), _)) => Err(self.not_now(exchange.iod, connection)),
            Ok((Err(FsError::SessionLost), _)) => {
                self.shared.give_back(exchange.iod, connection);
                self.session_lost(exchange)
            }
            Ok((reply, length)) => {
                self.shared.give_back(exchange.iod, connection);
                self.shared.note_back(exchange.iod);
                zero_beyond(&mut exchange.scatter, length);
                exchange.answered(reply);
                Ok(())
            }
            Err(_) if !flight.fresh && !self.patience.is_over() => {
                self.shared.forget_idle(exchange.iod);
                Err(Retry::AtOnce)
            }
            Err(source) => Err(self.broken(exchange.iod, &connection, source)),
        }
    }

    /// The iod's machine has been restarted, or the iod has forgotten this client. The copy that it
    /// refused has changed nothing, one before it may have.
    fn session_lost(&self, exchange: &mut Exchange<'_>) -> Result<(), Retry> {
        if let Some(ticket) = exchange.ticket.take() {
            self.shared.end_session(exchange.iod, ticket.change.session);
        }
        let is_alone = self.lease.as_ref().is_none_or(|lease| lease.is_alone);
        let is_settling = matches!(exchange.request, IodRequest::Settle { .. });
        if is_settling || (exchange.copies > 1 && !is_alone) {
            exchange.answered(Err(FsError::SessionLost));
            return Ok(());
        }
        exchange.copies = 0;
        Err(Retry::AtOnce)
    }

    fn broken(&self, iod: IodId, connection: &IodConnection, source: ConnectionError) -> Retry {
        if self.patience.is_over() {
            // It may be well: it is the caller that has gone.
            return Retry::AfterPause;
        }
        self.shared.forget_idle(iod);
        let endpoint = connection.endpoint().to_string();
        self.shared.note_away(
            iod,
            &Away::Broken {
                iod,
                endpoint,
                source,
            },
        )
    }

    /// Connects, and makes sure that it is the right iod that answers: an address may have been
    /// taken over by another one, whose zeros would pass for the file's content.
    fn connect(&self, iod: IodId) -> Result<IodConnection, Away> {
        let directory = &self.shared.directory;
        let endpoint = directory.endpoint(iod).ok_or(Away::Unknown(iod))?;
        let options = &self.shared.options;
        let timeout = self
            .patience
            .shorten(options.connect_timeout)
            .max(CONNECT_TIMEOUT_MIN);
        let away = |error| Away::Error(iod, error);
        let mut connection =
            IodConnection::connect_by(options.transport.as_ref(), &endpoint, timeout)
                .map_err(away)?;
        connection.set_patience(self.patience.clone().at_most(PONG_TIMEOUT));
        let pong = connection.call(&IodRequest::Ping).map_err(away)?;
        connection.set_patience(self.patience.clone());
        match pong {
            IodResponse::Pong {
                iod: Some(found),
                file_system,
                incarnation,
            } if found == iod && is_expected(directory.file_system(), file_system) => {
                let incarnation = incarnation.ok_or(Away::NotReady(iod))?;
                connection.watch(incarnation, watch(Arc::clone(directory), iod, incarnation));
                match self.shared.is_current(iod, &connection) {
                    true => Ok(connection),
                    false => Err(Away::NotReady(iod)),
                }
            }
            IodResponse::Pong { iod: None, .. } => Err(Away::NotReady(iod)),
            found => {
                let endpoint = endpoint.to_string();
                Err(Away::Other {
                    iod,
                    endpoint,
                    found: format!("{found:?}"),
                })
            }
        }
    }
}

/// A process that accepts connections and does not answer may be one that was replaced: after so
/// long its address is asked for anew.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// `TcpStream::connect_timeout` refuses a timeout of zero.
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// Whether an iod is there, as far as a connection to one run of it is concerned, on which it has just
/// answered: no other run is admitted, and where
/// mgr did not hear it even then, that is between the two, until mgr has heard it again.
fn watch(directory: Arc<dyn IodDirectory>, iod: IodId, incarnation: Incarnation) -> Watch {
    let was_alive = AtomicBool::new(directory.is_alive(iod));
    Box::new(move || {
        if !is_expected(directory.incarnation(iod), Some(incarnation)) {
            return false;
        }
        let is_alive = directory.is_alive(iod);
        let was_alive = was_alive.fetch_or(is_alive, Ordering::Relaxed);
        is_alive || !was_alive
    })
}

fn is_expected<T: PartialEq>(expected: Option<T>, found: Option<T>) -> bool {
    expected.is_none() || expected == found
}

/// Zeros what lies beyond the first `length` bytes of `parts`.
fn zero_beyond(parts: &mut [&mut [u8]], length: usize) {
    let mut skip = length;
    for part in parts {
        let start = part.len().min(skip);
        skip -= start;
        if let Some(rest) = part.get_mut(start..) {
            rest.fill(0);
        }
    }
}

impl Shared {
    /// A thread that panicked with the lock held left lists that are sound at every step.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<IodId, IodState>> {
        self.iods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection used last: the rest may be dropped by the iod or a firewall in peace.
    fn take_idle(&self, iod: IodId) -> Option<IodConnection> {
        let connection = self.lock().get_mut(&iod)?.idle.pop()?;
        if self.is_current(iod, &connection) {
            return Some(connection);
        }
        self.forget_idle(iod);
        None
    }

    /// Whether a connection leads to the run of the iod that mgr has admitted.
    fn is_current(&self, iod: IodId, connection: &IodConnection) -> bool {
        is_expected(self.directory.incarnation(iod), connection.incarnation())
    }

    fn give_back(&self, iod: IodId, connection: IodConnection) {
        let mut iods = self.lock();
        let idle = &mut iods.entry(iod).or_default().idle;
        if idle.len() < self.options.idle_connections_max {
            idle.push(connection);
        }
    }

    fn has_session(&self, iod: IodId) -> bool {
        let iods = self.lock();
        iods.get(&iod).is_some_and(|state| state.slots.is_some())
    }

    /// From now on changes are made in this session, unless another thread has begun one meanwhile.
    fn begin_session(&self, iod: IodId, session: SessionId) {
        let mut iods = self.lock();
        let slots = &mut iods.entry(iod).or_default().slots;
        slots.get_or_insert_with(|| Slots::new(session));
    }

    fn end_session(&self, iod: IodId, session: SessionId) {
        let mut iods = self.lock();
        let slots = &mut iods.entry(iod).or_default().slots;
        slots.take_if(|slots| slots.session() == session);
    }

    fn take_slot(&self, iod: IodId) -> Option<Change> {
        self.lock().get_mut(&iod)?.slots.as_mut()?.take()
    }

    /// One dead connection means that the iod restarted: the others are dead too.
    fn forget_idle(&self, iod: IodId) {
        let dead = self
            .lock()
            .get_mut(&iod)
            .map(|state| std::mem::take(&mut state.idle));
        drop(dead);
    }

    /// Says once that the iod is away.
    fn note_away(&self, iod: IodId, away: &Away) -> Retry {
        let mut iods = self.lock();
        let state = iods.entry(iod).or_default();
        if state.away_since.is_none() {
            state.away_since = Some(Instant::now());
            match self.directory.is_alive(iod) {
                true => tracing::warn!("{away}: waiting"),
                // The log has that from mgr.
                false => tracing::info!("{away}: waiting"),
            }
        }
        Retry::AfterPause
    }

    /// Says that it is back, if it was away.
    fn note_back(&self, iod: IodId) {
        let since = self
            .lock()
            .get_mut(&iod)
            .and_then(|state| state.away_since.take());
        if let Some(since) = since {
            tracing::info!(
                "iod {iod} answers again after {:.1} s",
                since.elapsed().as_secs_f64()
            );
        }
    }
}
