// SPDX-License-Identifier: MIT
//! mgr's client: many threads share one connection, on which requests are multiplexed and
//! pipelined.
//!
//! A call waits until its reply is here. While mgr is away it waits on, as on a hard NFS mount
//! (tools set [`ClientOptions::deadline`]); a thread of [`super::mgr_link`] reconnects, greets,
//! and sends again what has no reply. [`super::session`] numbers mutating requests, so that each
//! runs exactly once whatever the connection does.
//!
//! Lock order: `state` before nothing; no lock is held while a frame is written except the
//! connection's own.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::AtomicU64;

use thiserror::Error;

use super::interrupt;
use super::iod::IodDirectory;
use super::leases::{BootTime, LeaseClock, LeaseKeeper};
use super::mgr_link::{self, Beat, Link};
pub use super::session::Hold;
use super::session::{Begun, Refused, Session};
use crate::address::Endpoint;
use crate::attr::Credentials;
use crate::error::FsError;
use crate::ids::{ClientId, FileSystemId, Incarnation, IodId};
use crate::proto::lock::LockRequest;
use crate::proto::mgr::{IodStatus, MgrOperation, MgrReply, MgrResponse};
use crate::proto::peer::Peer;
use crate::proto::report::IodState;
use crate::runtime::random_u64;
use crate::runtime::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel,
};
use crate::runtime::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use crate::runtime::thread::{self, JoinHandle};
use crate::runtime::time::{Duration, Instant};

/// First pause before a request that mgr could not serve yet is made anew, or a connection is
/// tried again.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest such pause: how long a client may sleep on after mgr is back.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// The table of iods is asked for at most so often, however many requests fail.
const IODS_REFRESH_INTERVAL: Duration = Duration::from_millis(200);
/// Refreshing the table of iods waits for mgr no longer than this: whoever needs an iod retries.
const IODS_REFRESH_DEADLINE: Duration = Duration::from_secs(2);

/// How a client behaves.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// A call that has no reply after so long fails with [`FsError::TryAgain`]; `None` waits on.
    pub deadline: Option<Duration>,
    /// Who this client says it is.
    pub peer: Peer,
}

/// mgr did not welcome this client in time.
#[derive(Clone, Debug, Error)]
#[error(
    "mgr {endpoint} does not answer after {waited_s} s ({reason}): is pvfs-mgr running there and \
     the port reachable? try `pvfs ping {endpoint}`"
)]
pub struct Unreachable {
    /// Where mgr was sought.
    pub endpoint: Endpoint,
    /// Seconds.
    pub waited_s: u64,
    /// What the last attempt met.
    pub reason: String,
}

/// An answer that is to come.
#[derive(Debug)]
pub struct Answer(Receiver<MgrReply>);

impl Answer {
    /// Waits for it.
    ///
    /// # Errors
    ///
    /// mgr's; [`FsError::Io`] where the client ends first.
    pub fn wait(self) -> MgrReply {
        self.0.recv().unwrap_or(Err(FsError::Io))
    }
}

/// What mgr said in its welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Which file system it serves.
    pub file_system: FileSystemId,
    /// A client that says nothing for so long loses its opens.
    pub session_timeout: Duration,
    /// A client that says nothing for so long loses its leases.
    pub lease_timeout: Duration,
}

/// A client's connection to mgr, which outlives mgr's restarts.
#[derive(Debug)]
pub struct MgrClient {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the callers and the client's own threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    options: ClientOptions,
    /// Who keeps leases, where this client takes any.
    pub(super) keeper: Option<Arc<dyn LeaseKeeper>>,
    pub(super) lease_clock: LeaseClock,
    /// Frames that have come from mgr: whoever looks whether it is silent compares.
    pub(super) heard: AtomicU64,
    pub(super) state: Mutex<State>,
    /// Signals: a reply made room in the window, the connection came or went, the client ends.
    pub(super) changed: Condvar,
    iods: RwLock<HashMap<IodId, KnownIod>>,
    iods_refreshed: Mutex<Option<Instant>>,
}

/// An iod, as mgr said last.
#[derive(Clone, Debug)]
struct KnownIod {
    /// `None` where mgr's address of it is none.
    endpoint: Option<Endpoint>,
    incarnation: Incarnation,
    state: IodState,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) session: Session<SyncSender<MgrReply>>,
    /// The connection, once mgr has welcomed this client on it.
    pub(super) link: Option<Arc<Link>>,
    /// The connection on which the greeting is under way.
    pub(super) greeting: Option<Arc<Link>>,
    pub(super) welcome: Option<Welcome>,
    /// Why there is no connection.
    pub(super) failure: Option<String>,
    /// Since when mgr is away; the log has said so.
    away_since: Option<Instant>,
    pub(super) closing: bool,
}

impl State {
    /// Whether this is the connection that is in use.
    pub(super) fn is_linked_by(&self, link: &Arc<Link>) -> bool {
        self.link
            .as_ref()
            .is_some_and(|linked| Arc::ptr_eq(linked, link))
    }

    /// Requests of all waits for locks that are to be asked for now.
    pub(super) fn asks(&mut self) -> Vec<Begun> {
        std::iter::from_fn(|| self.session.next_ask()).collect()
    }
}

impl MgrClient {
    /// Starts a client, which seeks mgr at `endpoint` from now on; returns at once.
    ///
    /// # Errors
    ///
    /// Where the system gives no thread.
    pub fn start(endpoint: Endpoint, options: ClientOptions) -> io::Result<Self> {
        Self::start_with(endpoint, options, None)
    }

    /// The same for a client that takes leases, which `keeper` keeps.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with_leases(
        endpoint: Endpoint,
        options: ClientOptions,
        keeper: Arc<dyn LeaseKeeper>,
    ) -> io::Result<Self> {
        Self::start_with(endpoint, options, Some(keeper))
    }

    fn start_with(
        endpoint: Endpoint,
        options: ClientOptions,
        keeper: Option<Arc<dyn LeaseKeeper>>,
    ) -> io::Result<Self> {
        let state = State {
            session: Session::new(ClientId(random_u64()), options.peer.clone()),
            link: None,
            greeting: None,
            welcome: None,
            failure: None,
            away_since: None,
            closing: false,
        };
        let shared = Arc::new(Shared {
            endpoint,
            options,
            keeper,
            lease_clock: LeaseClock::default(),
            heard: AtomicU64::new(0),
            state: Mutex::new(state),
            changed: Condvar::new(),
            iods: RwLock::default(),
            iods_refreshed: Mutex::default(),
        });
        let mut client = Self {
            shared,
            threads: Vec::new(),
        };
        client.spawn("mgr-link", mgr_link::run)?;
        client.spawn("mgr-alive", mgr_link::keep_alive)?;
        Ok(client)
    }

    fn spawn(&mut self, name: &str, body: fn(&Shared)) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name(name.to_owned());
        self.threads.push(thread.spawn(move || body(&shared))?);
        Ok(())
    }

    /// Waits until mgr has welcomed this client, once since it started.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] after `timeout`.
    pub fn wait_ready(&self, timeout: Duration) -> Result<Welcome, Unreachable> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if let Some(welcome) = state.welcome {
                return Ok(welcome);
            }
            let now = Instant::now();
            if now >= deadline {
                let reason = state
                    .failure
                    .clone()
                    .unwrap_or_else(|| "no reply".to_owned());
                let endpoint = self.shared.endpoint.clone();
                return Err(Unreachable {
                    endpoint,
                    waited_s: timeout.as_secs(),
                    reason,
                });
            }
            state = self.shared.wait_timeout(state, deadline - now);
        }
    }

    /// Asks mgr to do `operation` on behalf of `credentials`, and waits for its answer. What mgr
    /// cannot do yet ([`FsError::TryAgain`], as for a file made before the first iod is there) is
    /// asked again.
    ///
    /// # Errors
    ///
    /// mgr's; [`FsError::MessageTooLong`] for a request that fits no frame; [`FsError::TryAgain`]
    /// past the deadline, and [`Self::failure`] then says why mgr could not be reached.
    pub fn call(
        &self,
        credentials: &Credentials,
        operation: MgrOperation,
    ) -> Result<MgrResponse, FsError> {
        self.call_holding(credentials, &operation, None)
    }

    /// As [`Self::call`]. `hold` is kept until mgr's reply comes, also where the caller is interrupted
    /// before: mgr may carry the request out all the same.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn call_holding(
        &self,
        credentials: &Credentials,
        operation: &MgrOperation,
        hold: Option<&Hold>,
    ) -> Result<MgrResponse, FsError> {
        let deadline = self
            .shared
            .options
            .deadline
            .map(|deadline| Instant::now() + deadline);
        let mut backoff = BACKOFF_FIRST;
        loop {
            let reply = self.shared.attempt(credentials, operation, deadline, hold);
            if reply != Err(FsError::TryAgain) || !self.shared.pause(backoff, deadline) {
                return reply;
            }
            if interrupt::is_interrupted() {
                return Err(FsError::Interrupted);
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Asks mgr once, on behalf of root, and waits for its answer no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn call_within(&self, operation: MgrOperation, timeout: Duration) -> MgrReply {
        let deadline = Some(Instant::now() + timeout);
        self.shared
            .attempt(&Credentials::ROOT, &operation, deadline, None)
    }

    /// Whether mgr is away, as far as is known: there is no connection, or it has fallen silent.
    #[must_use]
    pub fn is_away(&self) -> bool {
        let state = self.shared.lock();
        state.link.is_none() || state.away_since.is_some()
    }

    /// Begins a request without waiting for its answer; [`Answer::wait`] does.
    ///
    /// # Errors
    ///
    /// [`FsError::TryAgain`] where too many requests have no answer yet.
    pub fn begin(
        &self,
        credentials: &Credentials,
        operation: &MgrOperation,
    ) -> Result<Answer, FsError> {
        let (_, receiver) =
            self.shared
                .begin(credentials, operation, Some(Instant::now()), None)?;
        Ok(Answer(receiver))
    }

    /// The same, but mgr gets to it in any case: where the caller is interrupted only the waiting
    /// ends.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn call_to_the_end(
        &self,
        credentials: &Credentials,
        operation: &MgrOperation,
    ) -> Result<MgrResponse, FsError> {
        match self.call_or_leave(credentials, operation) {
            Ok(reply) => reply,
            Err(_left) => Err(FsError::Interrupted),
        }
    }

    /// Asks mgr once, and waits for its answer; where the caller is interrupted, `Err` is where the
    /// answer will be.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn call_or_leave(
        &self,
        credentials: &Credentials,
        operation: &MgrOperation,
    ) -> Result<MgrReply, Receiver<MgrReply>> {
        let (_, receiver) = match self.shared.begin(credentials, operation, None, None) {
            Ok(begun) => begun,
            Err(error) => return Ok(Err(error)),
        };
        match wait_for_reply(&receiver, None) {
            Waited::Reply(reply) => {
                self.shared.changed.notify_all();
                Ok(reply)
            }
            Waited::TooLong | Waited::Interrupted => Err(receiver),
        }
    }

    /// Waits for a lock without a thread: `begun` is told the number of the wait before its outcome
    /// can come, through [`LeaseKeeper::lock_settled`].
    pub fn wait_for_lock(&self, request: LockRequest, begun: impl FnOnce(u64)) {
        let (asks, link) = {
            let mut state = self.shared.lock();
            begun(state.session.wait_for_lock(request));
            (state.asks(), state.link.clone())
        };
        if let Some(link) = link {
            mgr_link::send_all(&link, &asks);
        }
    }

    /// Nobody waits for the lock any more. What mgr has granted meanwhile goes back, unless this
    /// client knows of it already.
    pub fn cancel_lock(&self, wait: u64) {
        let given_up = self.shared.lock().session.give_up_waiting(wait);
        if given_up {
            self.post(&Credentials::ROOT, &MgrOperation::CancelLock { wait });
        }
    }

    /// Tells mgr something whose answer nobody waits for, such as a close. It is sent before
    /// everything that this thread sends later, and again until mgr has it.
    pub fn post(&self, credentials: &Credentials, operation: &MgrOperation) {
        if let Err(error) = self.shared.begin(credentials, operation, None, None) {
            tracing::warn!("a message to mgr could not be sent: {error}");
        }
    }

    /// How long this client may still rely on its leases; `None` where it may not.
    #[must_use]
    pub fn leases_left(&self) -> Option<Duration> {
        self.shared.lease_clock.left(BootTime::now())
    }

    /// Makes the connection anew: mgr takes the greeting to say that this client holds no lease.
    pub fn greet_anew(&self) {
        if let Some(link) = &self.shared.lock().link {
            link.shut_down();
        }
    }

    /// Ends the client before it is dropped: whoever waits for a reply gets [`FsError::Io`].
    pub fn shut_down(&self) {
        let mut state = self.shared.lock();
        state.closing = true;
        for link in [&state.link, &state.greeting].into_iter().flatten() {
            link.shut_down();
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Where mgr is.
    #[must_use]
    pub fn mgr_endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// This client's id.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.shared.lock().session.client()
    }

    /// What mgr said when it welcomed this client, if it has.
    #[must_use]
    pub fn welcome(&self) -> Option<Welcome> {
        self.shared.lock().welcome
    }

    /// Why there is no connection to mgr at present; `None` where there is one.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let state = self.shared.lock();
        if state.link.is_some() {
            None
        } else {
            state.failure.clone()
        }
    }

    /// Where an iod is, as mgr said last.
    #[must_use]
    pub fn iod_endpoint(&self, iod: IodId) -> Option<Endpoint> {
        let iods = self
            .shared
            .iods
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        iods.get(&iod)?.endpoint.clone()
    }

    /// Asks mgr where the iods are, unless it was asked a moment ago.
    pub fn refresh_iods(&self) {
        let now = Instant::now();
        {
            let refreshed = &self.shared.iods_refreshed;
            let mut last = refreshed.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| now.duration_since(last) < IODS_REFRESH_INTERVAL) {
                return;
            }
            *last = Some(now);
        }
        let deadline = Some(now + IODS_REFRESH_DEADLINE);
        let reply =
            self.shared
                .attempt(&Credentials::ROOT, &MgrOperation::ListIods, deadline, None);
        if let Ok(MgrResponse::Iods(iods)) = reply {
            self.shared.set_iods(&iods);
        }
    }
}

impl IodDirectory for MgrClient {
    fn endpoint(&self, iod: IodId) -> Option<Endpoint> {
        self.iod_endpoint(iod)
    }

    fn refresh(&self) {
        self.refresh_iods();
    }

    fn is_alive(&self, iod: IodId) -> bool {
        let iods = self.shared.iods.read();
        let iods = iods.unwrap_or_else(PoisonError::into_inner);
        iods.get(&iod).is_none_or(|known| known.state.is_alive())
    }

    fn incarnation(&self, iod: IodId) -> Option<Incarnation> {
        let iods = self.shared.iods.read();
        let iods = iods.unwrap_or_else(PoisonError::into_inner);
        iods.get(&iod).map(|known| known.incarnation)
    }

    fn file_system(&self) -> Option<FileSystemId> {
        self.welcome().map(|welcome| welcome.file_system)
    }
}

impl Drop for MgrClient {
    fn drop(&mut self) {
        self.shut_down();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to clean up.
            let _ = thread.join();
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait_timeout<'a>(
        &self,
        state: MutexGuard<'a, State>,
        timeout: Duration,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, timeout)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Notes that there is no connection, and why; true where the client ends.
    pub(super) fn disconnected(&self, failure: &str) -> bool {
        let mut state = self.lock();
        state.link = None;
        state.greeting = None;
        state.failure = Some(failure.to_owned());
        state.closing
    }

    /// Waits for a connection on which mgr has welcomed this client, and says how long mgr bears
    /// silence; `None` where the client ends.
    pub(super) fn linked(&self) -> Option<(Arc<Link>, Welcome)> {
        let mut state = self.lock();
        loop {
            if state.closing {
                return None;
            }
            if let (Some(link), Some(welcome)) = (&state.link, state.welcome) {
                return Some((Arc::clone(link), welcome));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A heartbeat to be sent, and where its answer will be.
    pub(super) fn beat(&self) -> Option<(Arc<[u8]>, Beat)> {
        let (sender, receiver) = sync_channel(1);
        let session = &mut self.lock().session;
        let begun = session.begin(&Credentials::ROOT, &MgrOperation::KeepAlive, sender);
        Some((begun.ok()?.frame, Beat(receiver)))
    }

    /// Takes what mgr says of iods: all of them in its replies, those that changed in its notices.
    /// Says what is new.
    pub(super) fn set_iods(&self, statuses: &[IodStatus]) {
        let mut iods = self.iods.write().unwrap_or_else(PoisonError::into_inner);
        for status in statuses {
            let endpoint = Endpoint::parse(&status.address, crate::address::IOD_PORT_DEFAULT);
            if let Err(error) = &endpoint {
                tracing::warn!("mgr's address of iod {}: {error}", status.iod);
            }
            let known = KnownIod {
                endpoint: endpoint.ok(),
                incarnation: status.incarnation,
                state: status.state,
            };
            let before = iods.insert(status.iod, known);
            say_change(status, before.map(|known| known.state));
        }
    }

    /// Says once that mgr is away, however that shows.
    pub(super) fn note_away(&self, why: &dyn std::fmt::Display) {
        let mut state = self.lock();
        if state.away_since.is_none() && !state.closing {
            state.away_since = Some(Instant::now());
            tracing::warn!("mgr {} is away ({why}): waiting for it", self.endpoint);
        }
    }

    /// Something has come from it on the connection that is in use: says that it is back, if it was
    /// away.
    pub(super) fn note_back(&self, link: &Arc<Link>) {
        let mut state = self.lock();
        if !state.is_linked_by(link) {
            return;
        }
        if let Some(since) = state.away_since.take() {
            let seconds = since.elapsed().as_secs_f64();
            tracing::info!("mgr {} answers again after {seconds:.1} s", self.endpoint);
        }
    }

    /// Sends one request under a number of its own, and waits for the reply.
    pub(super) fn attempt(
        &self,
        credentials: &Credentials,
        operation: &MgrOperation,
        deadline: Option<Instant>,
        hold: Option<&Hold>,
    ) -> MgrReply {
        let (id, receiver) = self.begin(credentials, operation, deadline, hold)?;
        let waited = wait_for_reply(&receiver, deadline);
        if !matches!(waited, Waited::Reply(_)) {
            self.lock().session.abandon(id);
        }
        self.changed.notify_all();
        match waited {
            Waited::Reply(reply) => reply,
            Waited::TooLong => Err(FsError::TryAgain),
            Waited::Interrupted => Err(FsError::Interrupted),
        }
    }

    /// Tells mgr something from a thread that must not wait: where the window is full it is not
    /// said, and the log has it.
    pub(super) fn note(&self, operation: &MgrOperation) {
        let (sender, _) = sync_channel(1);
        let (begun, link) = {
            let mut state = self.lock();
            let begun = state.session.begin(&Credentials::ROOT, operation, sender);
            (begun, state.link.clone())
        };
        match (begun, link) {
            (Ok(begun), Some(link)) => link.send(&begun.frame),
            (Ok(_), None) => {}
            (Err(refused), _) => tracing::warn!("mgr is not told ({refused:?}): {operation:?}"),
        }
    }

    /// Sends one request under a number of its own.
    fn begin(
        &self,
        credentials: &Credentials,
        operation: &MgrOperation,
        deadline: Option<Instant>,
        hold: Option<&Hold>,
    ) -> Result<(u64, Receiver<MgrReply>), FsError> {
        let (sender, receiver) = sync_channel(1);
        let (begun, link) = {
            let mut state = self.lock();
            loop {
                if state.closing {
                    return Err(FsError::Io);
                }
                match state.session.begin(credentials, operation, sender.clone()) {
                    Ok(begun) => {
                        if let Some(hold) = hold {
                            state.session.hold(begun.id, hold);
                        }
                        break (begun, state.link.clone());
                    }
                    Err(Refused::Error(error)) => return Err(error),
                    Err(Refused::WindowFull) => {
                        let pause = interrupt::shorten(BACKOFF_MAX);
                        let Some(pause) = remaining(deadline, pause) else {
                            return Err(FsError::TryAgain);
                        };
                        state = self.wait_timeout(state, pause);
                        if interrupt::is_interrupted() {
                            return Err(FsError::Interrupted);
                        }
                    }
                }
            }
        };
        // Without a connection, the thread that makes the next one sends the frame. So it does
        // where this write fails.
        if let Some(link) = link {
            link.send(&begun.frame);
        }
        Ok((begun.id, receiver))
    }

    /// Sleeps; false where the deadline passed or the client ends.
    pub(super) fn pause(&self, pause: Duration, deadline: Option<Instant>) -> bool {
        let end = Instant::now() + pause;
        if deadline.is_some_and(|deadline| deadline < end) {
            return false;
        }
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.closing || now >= end {
                return !state.closing;
            }
            state = self.wait_timeout(state, end - now);
        }
    }
}

/// Says what mgr thinks of an iod from now on, where that is another thing than before.
fn say_change(status: &IodStatus, before: Option<IodState>) {
    let IodStatus { iod, address, .. } = status;
    match (before.is_none_or(IodState::is_alive), status.state) {
        (true, IodState::Alive) | (false, IodState::Suspect | IodState::Away | IodState::Left) => {}
        (false, IodState::Alive) => tracing::info!("iod {iod} at {address} is there again"),
        (true, IodState::Suspect) => {
            tracing::warn!("mgr hears nothing from iod {iod} at {address}: waiting for it");
        }
        (true, IodState::Away) => tracing::warn!("iod {iod} at {address} is away, says mgr"),
        (true, IodState::Left) => tracing::warn!("iod {iod} at {address} has been stopped"),
    }
}

/// How the waiting for a reply ended.
enum Waited {
    Reply(MgrReply),
    TooLong,
    Interrupted,
}

fn wait_for_reply(receiver: &Receiver<MgrReply>, deadline: Option<Instant>) -> Waited {
    loop {
        let waited = match remaining(deadline, interrupt::LOOK_INTERVAL) {
            Some(_) if deadline.is_none() && !interrupt::is_possible() => {
                receiver.recv().map_err(RecvTimeoutError::from)
            }
            Some(slice) => receiver.recv_timeout(slice),
            None => receiver.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            }),
        };
        match waited {
            Ok(reply) => return Waited::Reply(reply),
            // A dropped sender is the end of the client.
            Err(RecvTimeoutError::Disconnected) => return Waited::Reply(Err(FsError::Io)),
            Err(RecvTimeoutError::Timeout) if remaining(deadline, BACKOFF_MAX).is_none() => {
                return Waited::TooLong;
            }
            Err(RecvTimeoutError::Timeout) if interrupt::is_interrupted() => {
                return Waited::Interrupted;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Time until the deadline, at most `max`; `None` past it.
fn remaining(deadline: Option<Instant>, max: Duration) -> Option<Duration> {
    let Some(deadline) = deadline else {
        return Some(max);
    };
    let left = deadline.checked_duration_since(Instant::now())?;
    if left.is_zero() {
        None
    } else {
        Some(left.min(max))
    }
}

#[cfg(test)]
#[path = "mgr_tests.rs"]
mod tests;
