// SPDX-License-Identifier: MIT
//! One batch: the requests that are committed together.

use std::collections::BTreeSet;

use pvfs::error::FsError;
use pvfs::ids::{ClientId, InodeNumber};
use pvfs::limits::GROUPS_MAX;
use pvfs::proto::lease::Notice;
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrRequest, MgrResponse};

use super::leases::{
    Parked, Reported, attr_in, is_about_names, opens_for_writing, tells_of_writes,
};
use super::work::{Order, PartWanted};
use super::{Action, Blocked, Input, Moment, State, Withheld, store_failed};
use crate::namespace::access;
use crate::namespace::layout::{Cut, IodSlot};
use crate::namespace::lingering::Linger;
use crate::namespace::opens::Open;
use crate::namespace::transaction::{Halt, Transaction};
use crate::namespace::{self, Context, key, value};
use crate::placement::Placement;
use crate::registry::Before;
use crate::session::Admission;
use crate::store::{Records, StoreError, Usage, View};

/// What a batch has done so far.
#[derive(Debug)]
pub(super) struct Batch<W> {
    pub(super) moment: Moment,
    pub(super) usage: Usage,
    /// All iods at the batch's start.
    pub(super) slots: Vec<IodSlot>,
    /// See [`Context::linger`].
    pub(super) linger: Option<Linger>,
    pub(super) records: Records,
    /// Replies and the like that do not depend on the commit.
    pub(super) actions: Vec<Action<W>>,
    pub(super) finished: Vec<Finished>,
    pub(super) registered: Vec<Before>,
    /// What was placed on iods.
    pub(super) placements: Vec<Placement>,
    /// Truncations that iods have carried out altogether.
    pub(super) cuts_done: Vec<InodeNumber>,
    /// Truncations that mgr begins of its own accord.
    pub(super) cuts_begun: Vec<(InodeNumber, Cut)>,
    /// Files that are in doubt since this batch.
    pub(super) doubted: Vec<InodeNumber>,
    /// Files that are no longer in doubt.
    pub(super) settled: Vec<InodeNumber>,
    /// Files whose intents were missing in the store.
    pub(super) stored: Vec<InodeNumber>,
    /// Files whose intents go.
    pub(super) dropped: Vec<InodeNumber>,
    /// Clients whose sessions have ended.
    pub(super) expired: Vec<ClientId>,
    pub(super) tick: bool,
}

/// A mutating request that has its reply.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) client: ClientId,
    pub(super) sequence: u64,
    pub(super) reply: MgrReply,
    /// The request changed records.
    pub(super) durable: bool,
    /// The truncation that must be done before the reply leaves.
    pub(super) cut: Option<(InodeNumber, Cut)>,
    /// Leases that come with the reply, through this connection.
    pub(super) notice: Option<(u64, Notice)>,
}

impl<W> Batch<W> {
    pub(super) const fn new(moment: Moment, usage: Usage, slots: Vec<IodSlot>) -> Self {
        Self {
            moment,
            usage,
            slots,
            linger: None,
            records: Records::new(),
            actions: Vec::new(),
            finished: Vec::new(),
            registered: Vec::new(),
            placements: Vec::new(),
            cuts_done: Vec::new(),
            cuts_begun: Vec::new(),
            doubted: Vec::new(),
            settled: Vec::new(),
            stored: Vec::new(),
            dropped: Vec::new(),
            expired: Vec::new(),
            tick: false,
        }
    }

    pub(super) fn reply(&mut self, waiter: W, reply: MgrReply) {
        self.actions.push(Action::Reply(waiter, reply));
    }
}

/// What running a request gave.
struct Ran {
    reply: MgrReply,
    records: Records,
    placements: Vec<Placement>,
    notice: Option<(u64, Notice)>,
}

impl Ran {
    const fn refused(error: FsError) -> Self {
        Self {
            reply: Err(error),
            records: Records::new(),
            placements: Vec::new(),
            notice: None,
        }
    }
}

/// A request that ran, or has to wait for others to answer demands.
enum Outcome {
    Ran(Box<Ran>),
    Wait(BTreeSet<u64>),
}

impl<W> State<W> {
    /// Takes one input.
    pub(super) fn take(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        input: Input<W>,
    ) -> Result<(), StoreError> {
        match input {
            Input::Request {
                waiter,
                connection,
                request,
            } => self.request(view, batch, waiter, connection, request),
            Input::Connected(connection, peer) => {
                self.peers.insert(connection, peer);
                Ok(())
            }
            Input::Disconnected(connection) => {
                self.peers.remove(&connection);
                self.registry.disconnected(connection, batch.moment.ms);
                Ok(())
            }
            Input::WorkDone(done) if done.order == Order::Fence => self.fenced(view, batch, &done),
            Input::WorkDone(done) => {
                if let Some(inode) = self.work.done(done, batch.moment.ms, &mut batch.records) {
                    batch.cuts_done.push(inode);
                    self.unblock(view, batch, inode)?;
                }
                Ok(())
            }
            Input::Tick => {
                batch.tick = true;
                self.registry.pass(batch.moment.ms);
                self.expire(view, batch)?;
                self.expire_leases(view, batch)?;
                self.reap_orphans(view, batch)
            }
        }
    }

    fn request(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        waiter: W,
        connection: u64,
        request: Box<MgrRequest>,
    ) -> Result<(), StoreError> {
        if request.credentials.groups.len() > GROUPS_MAX {
            batch.reply(waiter, Err(FsError::InvalidArgument));
            return Ok(());
        }
        if let MgrOperation::Hello { number, .. } = request.operation {
            let client = request.client;
            // The session is there when the greeting is noted.
            let known = self.sessions.hear(client, batch.moment.ms);
            if known && !self.sessions.greet(client, number, connection) {
                batch.reply(waiter, Err(FsError::AlreadyAnswered));
                return Ok(());
            }
        }
        if self.has_lapsed(connection, &request) {
            return Ok(());
        }
        let MgrRequest {
            client,
            sequence,
            answered_below,
            ..
        } = *request;
        if !request.operation.is_mutating() {
            self.sessions.touch(client, batch.moment.ms);
            if is_about_names(&request.operation) {
                let parked = Parked::new(connection, Some(waiter), request);
                return self.look_up(view, batch, parked);
            }
            if matches!(request.operation, MgrOperation::TestLock { .. }) {
                let parked = Parked::new(connection, Some(waiter), request);
                self.test_lock(batch, parked);
                return Ok(());
            }
            if request.operation == MgrOperation::Goodbye {
                self.registry.leave(connection, batch.moment.ms);
                self.end_client(view, batch, client)?;
                self.sessions.leave(client);
                batch.reply(waiter, Ok(MgrResponse::Done));
                return Ok(());
            }
            if let MgrOperation::Backup { copy, offset } = request.operation {
                let wanted = PartWanted {
                    client,
                    copy,
                    offset,
                };
                match access::is_root(&request.credentials) {
                    true => batch.actions.push(Action::Backup(waiter, wanted)),
                    false => batch.reply(waiter, Err(FsError::NotPermitted)),
                }
                return Ok(());
            }
            let reply = match self.lease_request(client, &request.operation) {
                Some(reply) => reply,
                None => self.answer(view, batch, connection, &request),
            };
            batch.reply(waiter, reply);
            return Ok(());
        }
        let ms = batch.moment.ms;
        match self
            .sessions
            .admit(client, sequence, answered_below, waiter, ms)
        {
            Admission::Run => {
                let parked = Parked::new(connection, None, request);
                self.run(view, batch, parked)?;
            }
            Admission::Joined => {}
            Admission::Replay(waiter, reply) => {
                self.replay(batch, waiter, &request, reply);
            }
            Admission::Refused(waiter, error) => batch.reply(waiter, Err(error)),
        }
        Ok(())
    }

    /// Answers a request again. What it did in memory may have been forgotten in a restart, and the
    /// truncation that it started may still go on.
    fn replay(&mut self, batch: &mut Batch<W>, waiter: W, request: &MgrRequest, reply: MgrReply) {
        let MgrRequest {
            client, sequence, ..
        } = *request;
        let mut inode = None;
        if let Ok(MgrResponse::Registered { iod, seal, .. }) = reply {
            batch.reply(waiter, self.register_again(iod, seal));
            return;
        }
        match (&request.operation, &reply) {
            (
                MgrOperation::Open { access, .. } | MgrOperation::Create { access, .. },
                Ok(MgrResponse::Open(opened)),
            ) => {
                inode = Some(opened.attr.inode);
                let open = Open {
                    client,
                    inode: opened.attr.inode,
                    access: *access,
                };
                if !self.opens.restore(opened.open, open) {
                    let name = self.sessions.name(client);
                    tracing::warn!("open {} of {name} cannot be restored", opened.open);
                }
            }
            (MgrOperation::SetAttr { inode: number, .. }, Ok(_)) => inode = Some(*number),
            _ => {}
        }
        match inode.filter(|inode| self.work.is_cutting(*inode)) {
            Some(inode) => {
                self.sessions.hold(client, sequence, waiter);
                let withheld = Withheld {
                    client,
                    sequence,
                    reply,
                };
                self.withheld.entry(inode).or_default().push(withheld);
            }
            None => batch.reply(waiter, reply),
        }
    }

    /// Runs a mutating request that has not run before.
    pub(super) fn run(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        parked: Parked<W>,
    ) -> Result<(), StoreError> {
        let (client, sequence) = (parked.request.client, parked.request.sequence);
        if self.must_wait_for_clients(&parked.request.operation) {
            self.parking.park_until_clients_are_back(parked);
            return Ok(());
        }
        let outcome = self.execute(
            view,
            batch,
            parked.connection,
            &parked.request,
            &parked.reported,
        );
        match outcome {
            Ok(Outcome::Ran(ran)) => self.note(batch, client, sequence, *ran),
            Ok(Outcome::Wait(waits)) => {
                self.parking.park(parked, waits);
                Ok(())
            }
            Err(Halt::Blocked(inode)) => {
                let blocked = Blocked {
                    connection: parked.connection,
                    request: parked.request,
                };
                self.blocked.entry(inode).or_default().push_back(blocked);
                self.intents.want(inode);
                Ok(())
            }
            Err(Halt::Fs(FsError::TryAgain)) => {
                // It has not run: the client may try again under the same number or another.
                for waiter in self.sessions.release(client, sequence) {
                    batch.reply(waiter, Err(FsError::TryAgain));
                }
                Ok(())
            }
            Err(Halt::Fs(error)) => self.note(batch, client, sequence, Ran::refused(error)),
            Err(Halt::Store(error)) => {
                let refused = Ran::refused(store_failed(&error));
                self.note(batch, client, sequence, refused)
            }
        }
    }

    /// Runs a request in a transaction of its own; a request that fails or has to wait leaves no
    /// trace.
    fn execute(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        connection: u64,
        request: &MgrRequest,
        reported: &Reported,
    ) -> Result<Outcome, Halt> {
        if matches!(request.operation, MgrOperation::RegisterIod { .. }) {
            let (reply, records) = self.register_iod(view, batch, connection, request)?;
            return Ok(Outcome::Ran(Box::new(Ran {
                reply: Ok(reply),
                records,
                placements: Vec::new(),
                notice: None,
            })));
        }
        if let Some(outcome) = self.lock_request(request.client, &request.operation) {
            return Ok(Outcome::Ran(Box::new(Ran {
                reply: Ok(outcome?),
                records: Records::new(),
                placements: Vec::new(),
                notice: None,
            })));
        }
        let stops_writing = self.closes_writer(request);
        let savepoint = self.opens.savepoint();
        let context = Context {
            unleased: self.reports_without_a_lease(request),
            ..context(
                batch,
                self.in_grace(batch.moment.ms),
                self.config.generation,
                request,
            )
        };
        let mut tx = Transaction::new(view, &batch.records, &context, &mut self.opens);
        let (response, placements, records) = match namespace::apply(&mut tx, &request.operation) {
            Ok(response) => (response, tx.take_placements(), tx.into_records()),
            Err(halt) => {
                drop(tx);
                self.opens.roll_back(savepoint);
                return Err(halt);
            }
        };
        if let Some(inode) = self.told_too_early(request, &response) {
            self.opens.roll_back(savepoint);
            return Err(Halt::Blocked(inode));
        }
        let mut waits = self.demand_for(request, &response, &records, reported);
        if self.sessions.has_moved(request.client, connection) {
            waits.append(&mut self.demand_of_itself(request.client, &records));
        }
        if !waits.is_empty() {
            self.opens.roll_back(savepoint);
            return Ok(Outcome::Wait(waits));
        }
        debug_assert!(
            !opens_for_writing(&request.operation, &response, |inode| {
                let key = key::intent(inode);
                let added = records.contains_key(&key) || batch.records.contains_key(&key);
                !added && view.get(&key).is_ok_and(|intent| intent.is_none())
            }),
            "an open for writing without an intent: {request:?}"
        );
        let notice = self.grants_with(request, &response, &records)?;
        self.note_doubts(&records, &mut batch.doubted)?;
        if let Some(inode) = stops_writing.filter(|inode| !self.opens.has_writers(*inode)) {
            self.intents.note_idle(inode, batch.moment.ms);
        }
        Ok(Outcome::Ran(Box::new(Ran {
            reply: Ok(response),
            records,
            placements,
            notice: notice.map(|notice| (connection, notice)),
        })))
    }

    /// Runs a request that changes nothing.
    pub(super) fn look(
        &mut self,
        view: &dyn View,
        batch: &Batch<W>,
        request: &MgrRequest,
    ) -> MgrReply {
        let nothing = Records::new();
        let context = context(
            batch,
            self.in_grace(batch.moment.ms),
            self.config.generation,
            request,
        );
        let mut tx = Transaction::new(view, &nothing, &context, &mut self.opens);
        match namespace::apply(&mut tx, &request.operation) {
            Ok(response) => Ok(response),
            Err(Halt::Fs(error)) => Err(error),
            Err(Halt::Blocked(_)) => Err(FsError::TryAgain),
            Err(Halt::Store(error)) => Err(store_failed(&error)),
        }
    }

    /// Adds what a request changed to the batch, its reply with it.
    fn note(
        &self,
        batch: &mut Batch<W>,
        client: ClientId,
        sequence: u64,
        ran: Ran,
    ) -> Result<(), StoreError> {
        let Ran {
            reply,
            mut records,
            mut placements,
            notice,
        } = ran;
        let durable = !records.is_empty();
        let cut = new_cut(&records)?;
        if durable && self.sessions.wants(client, sequence) {
            records.insert(key::reply(client, sequence), Some(value::encode(&reply)?));
        }
        batch.records.append(&mut records);
        batch.placements.append(&mut placements);
        batch.finished.push(Finished {
            client,
            sequence,
            reply,
            durable,
            cut,
            notice,
        });
        Ok(())
    }

    /// The file of which a request closes an open for writing.
    fn closes_writer(&self, request: &MgrRequest) -> Option<InodeNumber> {
        let MgrOperation::Close { open, .. } = request.operation else {
            return None;
        };
        let known = self.opens.get(request.client, open);
        known
            .filter(|open| open.access.write)
            .map(|open| open.inode)
    }

    /// The file that a reply would tell of before it is settled, though that will be soon.
    fn told_too_early(&self, request: &MgrRequest, response: &MgrResponse) -> Option<InodeNumber> {
        // Whoever reports may be asked for just that so that the file can be settled.
        let told = attr_in(response)
            .filter(|_| !tells_of_writes(&request.operation))?
            .inode;
        self.intents.holds_up_readers(told).then_some(told)
    }

    /// Runs what waited for a truncation, in the order in which it came.
    fn unblock(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        inode: InodeNumber,
    ) -> Result<(), StoreError> {
        for Blocked {
            connection,
            request,
        } in self.blocked.remove(&inode).unwrap_or_default()
        {
            self.run(view, batch, Parked::new(connection, None, request))?;
        }
        for parked in self.acquiring.remove(&inode).unwrap_or_default() {
            self.parking.again(parked);
        }
        Ok(())
    }
}

/// The truncation that a request started, if it did.
fn new_cut(records: &Records) -> Result<Option<(InodeNumber, Cut)>, StoreError> {
    let prefix = key::all(key::Tag::Cut);
    for (key, value) in records.range(prefix..) {
        let Some(inode) = key::inode_of(key).filter(|inode| *key == key::cut(*inode)) else {
            break;
        };
        if let Some(value) = value {
            return Ok(Some((inode, value::decode(key, value)?)));
        }
    }
    Ok(None)
}

fn context<'a, W>(
    batch: &'a Batch<W>,
    grace: bool,
    generation: u32,
    request: &'a MgrRequest,
) -> Context<'a> {
    Context {
        now: batch.moment.now,
        generation,
        grace,
        linger: batch.linger,
        room: batch.usage.has_room(),
        credentials: &request.credentials,
        client: request.client,
        unleased: false,
        iods: &batch.slots,
    }
}
