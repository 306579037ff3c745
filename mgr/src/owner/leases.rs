// SPDX-License-Identifier: MIT
//! Leases around requests: what a request needs of others before it runs, what its client may keep
//! afterwards, and the requests that wait meanwhile.
//!
//! What a request changes is read off its records: whoever keeps something of a changed inode gives
//! it up before the request runs, so no operation has to know about leases.

use std::collections::{BTreeMap, BTreeSet};

use pvfs::attr::{Attr, FileKind};
use pvfs::error::FsError;
use pvfs::ids::{ClientId, InodeNumber};
use pvfs::limits::LEASES_PER_MESSAGE_MAX;
use pvfs::proto::lease::{Demand, Entry, Grant, Lease, Notice, Recall, Want};
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrRequest, MgrResponse};

use super::batch::Batch;
use super::{Action, State, store_failed};
use crate::leases::Need;
use crate::namespace::dentry::Dentry;
use crate::namespace::inode::Inode;
use crate::namespace::key::{self, Tag};
use crate::namespace::value;
use crate::store::{Records, StoreError, View};

/// Who has reported its writes of which inode since a request came.
pub(super) type Reported = BTreeSet<(ClientId, InodeNumber)>;

/// Stands among the numbers of demands for "all clients from before the start are back".
const CLIENTS_BACK: u64 = 0;

/// Batches in which an intent may fail to be stored before whoever needs it is told that the store is
/// full: one notes that it is missing, one stores it.
const INTENT_TRIES_MAX: u8 = 3;

/// A request that waits, or is about to run.
#[derive(Debug)]
pub(super) struct Parked<W> {
    pub(super) connection: u64,
    /// Of a request that changes nothing; who waits for others is known to the sessions.
    pub(super) waiter: Option<W>,
    pub(super) request: Box<MgrRequest>,
    pub(super) reported: Reported,
    waits: BTreeSet<u64>,
    /// Batches that were to store the intent that it needs.
    tries: u8,
}

impl<W> Parked<W> {
    pub(super) const fn new(connection: u64, waiter: Option<W>, request: Box<MgrRequest>) -> Self {
        Self {
            connection,
            waiter,
            request,
            reported: BTreeSet::new(),
            waits: BTreeSet::new(),
            tries: 0,
        }
    }
}

/// The requests that wait, in the order in which they came. Their number is bounded by the requests
/// that each connection may have in flight.
#[derive(Debug)]
pub(super) struct Parking<W> {
    parked: BTreeMap<u64, Parked<W>>,
    /// For which demand which of them wait.
    waiting: BTreeMap<u64, BTreeSet<u64>>,
    ready: BTreeMap<u64, Parked<W>>,
    ticket_last: u64,
}

impl<W> Default for Parking<W> {
    fn default() -> Self {
        Self {
            parked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ready: BTreeMap::new(),
            ticket_last: 0,
        }
    }
}

impl<W> Parking<W> {
    pub(super) fn park(&mut self, mut parked: Parked<W>, waits: BTreeSet<u64>) {
        self.ticket_last += 1;
        for number in &waits {
            self.waiting
                .entry(*number)
                .or_default()
                .insert(self.ticket_last);
        }
        parked.waits = waits;
        self.parked.insert(self.ticket_last, parked);
    }

    pub(super) fn park_until_clients_are_back(&mut self, parked: Parked<W>) {
        self.park(parked, BTreeSet::from([CLIENTS_BACK]));
    }

    /// Runs it after the commit of this batch.
    pub(super) fn again(&mut self, parked: Parked<W>) {
        self.ticket_last += 1;
        self.ready.insert(self.ticket_last, parked);
    }

    /// A demand has been answered, by whom and about what.
    fn answered(&mut self, number: u64, by: Option<(ClientId, InodeNumber)>) {
        for ticket in self.waiting.remove(&number).unwrap_or_default() {
            let Some(parked) = self.parked.get_mut(&ticket) else {
                continue;
            };
            parked.waits.remove(&number);
            parked.reported.extend(by);
            if parked.waits.is_empty() {
                if let Some(parked) = self.parked.remove(&ticket) {
                    self.ready.insert(ticket, parked);
                }
            }
        }
    }

    pub(super) fn is_somebody_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

/// Whether the reply to a request that changes nothing depends on what others keep.
pub(super) const fn is_about_names(operation: &MgrOperation) -> bool {
    matches!(
        operation,
        MgrOperation::Lookup { .. } | MgrOperation::GetAttr { .. } | MgrOperation::Acquire { .. }
    )
}

impl<W> State<W> {
    /// Whether a request must wait because somebody may have leases that mgr does not know of.
    pub(super) fn must_wait_for_clients(&self, operation: &MgrOperation) -> bool {
        // What was written before the start counts before anything new.
        let first = matches!(
            operation,
            MgrOperation::RegisterIod { .. }
                | MgrOperation::Report { .. }
                | MgrOperation::DropPrivileges { .. }
        );
        !self.returning.is_empty() && !first
    }

    /// Runs what no longer waits.
    pub(super) fn run_ready(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
    ) -> Result<(), StoreError> {
        for (_, parked) in std::mem::take(&mut self.parking.ready) {
            match parked.waiter {
                Some(_) if is_about_names(&parked.request.operation) => {
                    self.look_up(view, batch, parked)?;
                }
                Some(_) => self.test_lock(batch, parked),
                None => self.run(view, batch, parked)?,
            }
        }
        Ok(())
    }

    /// Answers a request of [`is_about_names`], or parks it.
    pub(super) fn look_up(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        mut parked: Parked<W>,
    ) -> Result<(), StoreError> {
        if self.must_wait_for_clients(&parked.request.operation) {
            self.parking.park_until_clients_are_back(parked);
            return Ok(());
        }
        let operation = &parked.request.operation;
        let reply = match operation {
            MgrOperation::Acquire { inode, .. } => self.attr_of(view, *inode),
            _ => self.look(view, batch, &parked.request),
        };
        let looked_at = looked_at(operation, &reply);
        let unsettled = |inode: &&InodeNumber| self.intents.holds_up_readers(**inode);
        if let Some(inode) = looked_at.iter().find(unsettled).copied() {
            self.wait_until_settled(inode, parked);
            return Ok(());
        }
        let changing = |inode: &InodeNumber| batch.records.contains_key(&key::inode(*inode));
        if looked_at.iter().any(changing) {
            // Its answer is what this batch commits.
            self.parking.again(parked);
            return Ok(());
        }
        if let MgrOperation::Acquire { inode, want } = operation {
            // What it writes beyond the new end would be cut off after it was acknowledged.
            let writes = matches!(want, Want::Write | Want::WriteDirect);
            if writes && self.intents.is_in_doubt(*inode) {
                self.wait_until_settled(*inode, parked);
                return Ok(());
            }
            if writes && self.work.is_cutting(*inode) {
                // Those who waited have been told already, where this batch ends it.
                match batch.cuts_done.contains(inode) {
                    true => self.parking.again(parked),
                    false => self.acquiring.entry(*inode).or_default().push(parked),
                }
                return Ok(());
            }
            let open = self.opens.is_open_at(parked.request.client, *inode);
            if writes && open && view.get(&key::intent(*inode))?.is_none() {
                return self.store_intent_first(batch, *inode, parked);
            }
        }
        let outcome = match (operation, &reply) {
            (MgrOperation::Acquire { want, .. }, Ok(MgrResponse::Attr(attr))) => {
                self.acquire(parked.request.client, attr, *want)
            }
            _ => self.keep_looked_at(view, &parked, reply),
        };
        let (reply, notice) = match outcome {
            Ok(answer) => answer,
            Err(waits) => {
                self.parking.park(parked, waits);
                return Ok(());
            }
        };
        if let Some(notice) = notice {
            batch.actions.push(Action::Notify {
                client: parked.request.client,
                connection: Some(parked.connection),
                notice,
            });
        }
        if let Some(waiter) = parked.waiter.take() {
            batch.reply(waiter, reply);
        }
        Ok(())
    }

    /// Runs a request again when the file is settled.
    fn wait_until_settled(&mut self, inode: InodeNumber, parked: Parked<W>) {
        self.acquiring.entry(inode).or_default().push(parked);
        self.intents.want(inode);
    }

    /// A lease to write is to be granted, and the note of it is on its way to the store, or must be
    /// brought there.
    fn store_intent_first(
        &mut self,
        batch: &mut Batch<W>,
        inode: InodeNumber,
        mut parked: Parked<W>,
    ) -> Result<(), StoreError> {
        if parked.tries >= INTENT_TRIES_MAX {
            if let Some(waiter) = parked.waiter.take() {
                batch.reply(waiter, Err(FsError::NoSpace));
            }
            return Ok(());
        }
        parked.tries += 1;
        if !batch.records.contains_key(&key::intent(inode)) {
            self.intents.note_missing(inode);
        }
        self.parking.again(parked);
        Ok(())
    }

    fn attr_of(&self, view: &dyn View, inode: InodeNumber) -> MgrReply {
        match read_inode(view, inode) {
            Ok(Some(found)) => Ok(MgrResponse::Attr(found.attr)),
            Ok(None) => Err(FsError::Stale),
            Err(error) => Err(store_failed(&error)),
        }
    }

    /// Gives a lease on a file that the client has open; `Err` is what it must wait for.
    fn acquire(
        &mut self,
        client: ClientId,
        attr: &Attr,
        want: Want,
    ) -> Result<(MgrReply, Option<Notice>), BTreeSet<u64>> {
        let inode = attr.inode;
        if attr.kind != FileKind::Regular || !self.holders.contains(&client) {
            return Ok((Err(FsError::InvalidArgument), None));
        }
        if !self.opens.is_open_at(client, inode) {
            return Ok((Err(FsError::Stale), None));
        }
        let unsettled = self.intents.is_in_doubt(inode) || self.work.is_cutting(inode);
        // Under a lease to write there may be writes that mgr has not heard of, and some on their way.
        let held = self.leases.held(client, inode);
        let held = held.filter(|held| *held != Lease::Read && self.opens.writes(client, inode));
        let lease = match (want, held) {
            (Want::ReadDirect, Some(held)) => held,
            // It could write under that too.
            (Want::ReadDirect, None) if unsettled => Lease::Read,
            (Want::ReadDirect, None) if self.opens.is_written_elsewhere(client, inode) => {
                Lease::Shared
            }
            (Want::Read | Want::ReadDirect, None) => Lease::Read,
            (Want::WriteDirect, _) if self.opens.is_open_elsewhere(client, inode) => Lease::Shared,
            (Want::Read, Some(_)) | (Want::Write | Want::WriteDirect, _) => Lease::Write,
        };
        let mut waits = self
            .leases
            .demand(client, inode, Need::Hold(lease), &Reported::default());
        waits.append(&mut self.leases.contended(inode));
        if !waits.is_empty() {
            return Err(waits);
        }
        debug_assert!(
            !(lease.writes() && held.is_none() && unsettled),
            "a lease to write to inode {inode}, which is not settled"
        );
        let Some((number, fence)) = self.leases.grant(client, inode, lease) else {
            return Ok((Err(FsError::TryAgain), None));
        };
        let grant = Grant {
            number,
            attr: *attr,
            lease,
            fence,
        };
        let notice = Notice::Granted {
            grants: vec![grant],
            entries: Vec::new(),
            stale: Vec::new(),
            acquired: true,
        };
        Ok((Ok(MgrResponse::Done), Some(notice)))
    }

    /// Lets the client keep what it looked at; `Err` is what it must wait for.
    fn keep_looked_at(
        &mut self,
        view: &dyn View,
        parked: &Parked<W>,
        reply: MgrReply,
    ) -> Result<(MgrReply, Option<Notice>), BTreeSet<u64>> {
        let client = parked.request.client;
        let found = match &reply {
            Ok(MgrResponse::Attr(attr)) => Some(*attr),
            _ => None,
        };
        if let Some(attr) = found {
            let waits = self
                .leases
                .demand(client, attr.inode, Need::Look, &parked.reported);
            if !waits.is_empty() {
                return Err(waits);
            }
        }
        if !self.holders.contains(&client) {
            return Ok((reply, None));
        }
        let mut keep = Keep::default();
        if let Some(attr) = found {
            self.offer(client, attr, &mut keep);
        }
        if let MgrOperation::Lookup {
            parent,
            name: Some(name),
        } = &parked.request.operation
        {
            let known = matches!(reply, Ok(_) | Err(FsError::NotFound));
            if let (true, Ok(Some(directory))) = (known, read_inode(view, *parent)) {
                if self.offer(client, directory.attr, &mut keep) {
                    keep.entries.push(Entry {
                        directory: *parent,
                        name: name.clone(),
                        inode: found.map(|attr| attr.inode),
                    });
                }
            }
        }
        Ok((reply, keep.into_notice()))
    }

    /// Whether the client may keep the attributes; they go into `keep` then.
    fn offer(&mut self, client: ClientId, attr: Attr, keep: &mut Keep) -> bool {
        match self.leases.offer(client, attr.inode) {
            Some(((number, fence), lease)) => {
                keep.grants.push(Grant {
                    number,
                    attr,
                    lease,
                    fence,
                });
                true
            }
            None => {
                keep.stale.push(attr.inode);
                false
            }
        }
    }

    /// What must be answered by others before a request may change what it would.
    pub(super) fn demand_for(
        &mut self,
        request: &MgrRequest,
        response: &MgrResponse,
        records: &Records,
        reported: &Reported,
    ) -> BTreeSet<u64> {
        let client = request.client;
        let resized = resized(&request.operation);
        let mut waits = BTreeSet::new();
        let mut changed = BTreeSet::new();
        for (inode, value) in changed_inodes(records) {
            changed.insert(inode);
            let need = if tells_of_writes(&request.operation) {
                Need::Report
            } else if resized == Some(inode) || has_privileges(inode, value) {
                Need::Resize
            } else {
                Need::Change
            };
            waits.append(&mut self.leases.demand(client, inode, need, reported));
        }
        // Whoever reports is not to wait for others' reports: they may wait for this one.
        let looked_at = attr_in(response).filter(|_| !tells_of_writes(&request.operation));
        if let Some(attr) = looked_at.filter(|attr| !changed.contains(&attr.inode)) {
            let need = Need::Look;
            waits.append(&mut self.leases.demand(client, attr.inode, need, reported));
        }
        if let Some(attr) = opened_for_writing(&request.operation, response) {
            let need = Need::Hold(Lease::Write);
            waits.append(&mut self.leases.demand(client, attr.inode, need, reported));
        }
        waits
    }

    /// The same of the client itself, where it has greeted anew since it sent the request: what it keeps
    /// of what is changed it has got since, and news of the change would go to where it is no more.
    pub(super) fn demand_of_itself(
        &mut self,
        client: ClientId,
        records: &Records,
    ) -> BTreeSet<u64> {
        let changed: BTreeSet<_> = changed_inodes(records).map(|(inode, _)| inode).collect();
        let demands = changed.into_iter();
        demands
            .filter_map(|inode| self.leases.demand_of(client, inode))
            .collect()
    }

    /// What the client may keep after a request that has run: what it changed and what it was told.
    pub(super) fn grants_with(
        &mut self,
        request: &MgrRequest,
        response: &MgrResponse,
        records: &Records,
    ) -> Result<Option<Notice>, StoreError> {
        let client = request.client;
        if let MgrOperation::Close { inode, lease, .. } = &request.operation {
            if !self.opens.writes(client, *inode) {
                self.leases.stopped_writing(client, *inode, *lease);
            }
        }
        // The reply to a truncation comes much later than this: it says itself what has changed.
        let late = records
            .keys()
            .any(|key| key.first() == Some(&(Tag::Cut as u8)));
        if late || !self.holders.contains(&client) {
            return Ok(None);
        }
        let mut keep = Keep::default();
        let written = opened_for_writing(&request.operation, response);
        if let Some(attr) = written {
            // Beside others that have it open, a writer keeps nothing.
            let alone = !self.opens.is_open_elsewhere(client, attr.inode);
            let number = match attr.kind {
                FileKind::Regular if alone => self.leases.grant(client, attr.inode, Lease::Write),
                _ => None,
            };
            keep.grants.extend(number.map(|(number, fence)| Grant {
                number,
                attr,
                lease: Lease::Write,
                fence,
            }));
        }
        let mut known: BTreeSet<InodeNumber> = written.iter().map(|attr| attr.inode).collect();
        for (inode, value) in changed_inodes(records) {
            if let Some(bytes) = value.filter(|_| known.insert(inode)) {
                let found: Inode = value::decode(&key::inode(inode), bytes)?;
                self.offer(client, found.attr, &mut keep);
            }
        }
        if let Some(attr) = attr_in(response).filter(|attr| known.insert(attr.inode)) {
            self.offer(client, attr, &mut keep);
        }
        for (key, value) in of_tag(records, Tag::Dentry) {
            let Some((directory, name)) = key::dentry_of(key) else {
                continue;
            };
            let inode = match value {
                Some(bytes) => Some(value::decode::<Dentry>(key, bytes)?.inode),
                None => None,
            };
            if keep
                .grants
                .iter()
                .any(|grant| grant.attr.inode == directory)
            {
                keep.entries.push(Entry {
                    directory,
                    name,
                    inode,
                });
            }
        }
        Ok(keep.into_notice())
    }

    /// Carries out a request about leases that is no [`MgrOperation::Acquire`].
    pub(super) fn lease_request(
        &mut self,
        client: ClientId,
        operation: &MgrOperation,
    ) -> Option<MgrReply> {
        match operation {
            MgrOperation::Acknowledge { recalls } if recalls.len() <= LEASES_PER_MESSAGE_MAX => {
                for number in recalls {
                    let answered = self.leases.acknowledge(client, *number);
                    let reported = answered.filter(|(_, demand)| *demand == Demand::Report);
                    let by = reported.map(|(inode, _)| (client, inode));
                    if answered.is_some() {
                        self.parking.answered(*number, by);
                    }
                }
            }
            MgrOperation::GiveBack { leases } if leases.len() <= LEASES_PER_MESSAGE_MAX => {
                for (inode, number) in leases {
                    self.leases.give_back(client, *inode, *number);
                }
            }
            MgrOperation::Acknowledge { .. } | MgrOperation::GiveBack { .. } => {
                return Some(Err(FsError::InvalidArgument));
            }
            _ => return None,
        }
        Some(Ok(MgrResponse::Done))
    }

    /// A client greets: it holds nothing, and from now on what it is given.
    pub(super) fn client_is_back(&mut self, client: ClientId) {
        self.drop_leases(client);
        self.lapsed.remove(&client);
        if self.holders.insert(client) {
            self.unrecorded.insert(client);
            self.departed.remove(&client);
        }
        if self.returning.remove(&client) && self.returning.is_empty() {
            self.parking.answered(CLIENTS_BACK, None);
        }
    }

    /// A client is gone for good.
    pub(super) fn client_leaves(&mut self, client: ClientId) {
        self.drop_leases(client);
        self.drop_locks(client);
        self.lapsed.remove(&client);
        if self.holders.remove(&client) {
            self.unrecorded.remove(&client);
            self.departed.insert(client);
        }
    }

    fn drop_leases(&mut self, client: ClientId) {
        for (number, inode) in self.leases.drop_client(client) {
            self.parking.answered(number, Some((client, inode)));
        }
    }

    /// Whether a client has lost its leases and does not know it yet. It gets no answer until it
    /// greets anew, and then only to what belongs to that: an answer would tell it that its leases
    /// hold.
    pub(super) fn has_lapsed(&mut self, connection: u64, request: &MgrRequest) -> bool {
        let Some(greeting) = self.lapsed.get_mut(&request.client) else {
            return false;
        };
        match request.operation {
            MgrOperation::Hello { .. } => {
                *greeting = Some(connection);
                false
            }
            MgrOperation::Report { .. } => *greeting != Some(connection),
            _ => true,
        }
    }

    /// Whether a request is a report of a client that has no lease to write, though it takes leases.
    /// After a start nobody has, until those who had some have reported.
    pub(super) fn reports_without_a_lease(&self, request: &MgrRequest) -> bool {
        let MgrOperation::Report { inode, .. } = request.operation else {
            return false;
        };
        let client = request.client;
        let takes = self.holders.contains(&client) || self.lapsed.contains_key(&client);
        let may_write = matches!(
            self.leases.held(client, inode),
            Some(Lease::Write | Lease::Shared)
        );
        takes && !may_write && !self.returning.contains(&client)
    }

    /// Takes the leases and locks of clients that owe an answer, or have locked what others wait
    /// for, and have been silent for too long.
    pub(super) fn expire_leases(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
    ) -> Result<(), StoreError> {
        let timeout = u64::from(self.config.lease_timeout_ms);
        let Some(before_ms) = batch.moment.ms.checked_sub(timeout) else {
            return Ok(());
        };
        if !self.returning.is_empty() {
            let count = self.returning.len();
            tracing::info!("{count} clients from before the start are not back: their leases end");
            self.note_lost_writers_of_all(view, batch)?;
            self.departed.append(&mut self.returning);
            self.parking.answered(CLIENTS_BACK, None);
        }
        let silent = |client| !self.sessions.heard_since(client, before_ms);
        let mut silent_debtors = self.locks.blocking(&silent);
        silent_debtors.extend(self.leases.debtors().into_iter().filter(|c| silent(*c)));
        for client in silent_debtors {
            let name = self.sessions.name(client);
            tracing::warn!("{name} is silent while others wait: its leases end");
            for inode in self.leases.written_by(client) {
                self.note_lost_writer(view, batch, inode)?;
            }
            self.drop_leases(client);
            self.drop_locks(client);
            self.lapsed.insert(client, None);
            // If it is there after all it greets anew, and knows that it holds nothing.
            batch.actions.push(Action::Expired(client));
        }
        Ok(())
    }

    /// Notes in the store who may have leases, for the next start.
    pub(super) fn add_clients(&self, batch: &mut Batch<W>) -> Result<(), StoreError> {
        for client in &self.unrecorded {
            let value = value::encode(&())?;
            batch.records.insert(key::client(*client), Some(value));
        }
        for client in &self.departed {
            batch.records.insert(key::client(*client), None);
        }
        Ok(())
    }

    /// Sends what has been demanded.
    pub(super) fn send_recalls(&mut self, actions: &mut Vec<Action<W>>) {
        let mut by_client: BTreeMap<ClientId, Vec<Recall>> = BTreeMap::new();
        for (client, recall) in self.leases.take_recalls() {
            by_client.entry(client).or_default().push(recall);
        }
        for (client, recalls) in by_client {
            for recalls in recalls.chunks(LEASES_PER_MESSAGE_MAX) {
                actions.push(Action::Notify {
                    client,
                    connection: None,
                    notice: Notice::Recalled(recalls.to_vec()),
                });
            }
        }
    }
}

/// What a client may keep after a request.
#[derive(Default)]
struct Keep {
    grants: Vec<Grant>,
    entries: Vec<Entry>,
    stale: Vec<InodeNumber>,
}

impl Keep {
    fn into_notice(self) -> Option<Notice> {
        let Self {
            grants,
            entries,
            stale,
        } = self;
        let something = !grants.is_empty() || !stale.is_empty();
        something.then_some(Notice::Granted {
            grants,
            entries,
            stale,
            acquired: false,
        })
    }
}

fn read_inode(view: &dyn View, inode: InodeNumber) -> Result<Option<Inode>, StoreError> {
    let key = key::inode(inode);
    let bytes = view.get(&key)?;
    bytes.map(|bytes| value::decode(&key, bytes)).transpose()
}

/// Whether an operation is a part of its client's own writing, which others need not wait for.
pub(super) const fn tells_of_writes(operation: &MgrOperation) -> bool {
    matches!(
        operation,
        MgrOperation::Report { .. } | MgrOperation::DropPrivileges { .. }
    )
}

/// Whether a changed inode may have privileges.
fn has_privileges(inode: InodeNumber, value: Option<&[u8]>) -> bool {
    value.is_some_and(|bytes| {
        let found = value::decode::<Inode>(&key::inode(inode), bytes);
        found.map_or(true, |found| found.attr.privileges().is_some())
    })
}

/// The inodes whose attributes or names are in a reply.
fn looked_at(operation: &MgrOperation, reply: &MgrReply) -> BTreeSet<InodeNumber> {
    let mut inodes = BTreeSet::new();
    match operation {
        MgrOperation::Lookup { parent, .. } => inodes.insert(*parent),
        MgrOperation::GetAttr { inode } | MgrOperation::Acquire { inode, .. } => {
            inodes.insert(*inode)
        }
        _ => false,
    };
    inodes.extend(reply.as_ref().ok().and_then(attr_in).map(|attr| attr.inode));
    inodes
}

pub(super) const fn attr_in(response: &MgrResponse) -> Option<Attr> {
    match response {
        MgrResponse::Attr(attr) | MgrResponse::Report { attr, .. } => Some(*attr),
        MgrResponse::Open(opened) => Some(opened.attr),
        _ => None,
    }
}

/// The file whose size or layout an operation sets.
const fn resized(operation: &MgrOperation) -> Option<InodeNumber> {
    match operation {
        MgrOperation::SetAttr { inode, set, .. } if set.size.is_some() => Some(*inode),
        MgrOperation::Open {
            inode,
            truncate: true,
            ..
        }
        | MgrOperation::SetLayout { inode, .. } => Some(*inode),
        _ => None,
    }
}

fn opened_for_writing(operation: &MgrOperation, response: &MgrResponse) -> Option<Attr> {
    match (operation, response) {
        (
            MgrOperation::Open { access, .. } | MgrOperation::Create { access, .. },
            MgrResponse::Open(opened),
        ) if access.write => Some(opened.attr),
        _ => None,
    }
}

/// Whether a request has opened a file for writing of which `so` is true.
pub(super) fn opens_for_writing(
    operation: &MgrOperation,
    response: &MgrResponse,
    so: impl FnOnce(InodeNumber) -> bool,
) -> bool {
    let attr = opened_for_writing(operation, response);
    attr.is_some_and(|attr| attr.kind == FileKind::Regular && so(attr.inode))
}

fn of_tag(records: &Records, tag: Tag) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    let start = key::all(tag);
    records
        .range(start..)
        .take_while(move |(key, _)| key.first() == Some(&(tag as u8)))
        .map(|(key, value)| (key.as_slice(), value.as_deref()))
}

fn changed_inodes(records: &Records) -> impl Iterator<Item = (InodeNumber, Option<&[u8]>)> {
    of_tag(records, Tag::Inode).filter_map(|(key, value)| Some((key::inode_of(key)?, value)))
}
