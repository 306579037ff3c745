// SPDX-License-Identifier: MIT
//! The owner of all state: takes inputs in batches, commits what they changed, says what to send.
//!
//! [`Manager`] is still pure but for its store: time comes in with each batch, and what is to be
//! done at the rim comes out as [`Action`]s. [`crate::event_loop`] is the loop around it.
//!
//! # Invariants
//!
//! No reply to a request that changed something leaves before the commit that holds the change. A
//! commit that finds the store full leaves everything as it was before the batch.

pub mod batch;
pub mod due;
pub mod leases;
pub mod locks;
pub mod reconcile;
pub mod session_requests;
pub mod settle;
pub mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use pvfs::attr::Timestamp;
use pvfs::error::FsError;
use pvfs::ids::{ClientId, FileSystemId, Incarnation, InodeNumber, IodId};
use pvfs::proto::lease::Notice;
use pvfs::proto::mgr::{MgrReply, MgrRequest};
use pvfs::proto::seal::{OrderKey, Reign};

use self::batch::Batch;
use self::leases::{Parked, Parking};
use self::locks::LockClients;
use self::reconcile::Intents;
use self::work::{PartWanted, StripeWork, Work, WorkDone};
use crate::leases::Leases;
use crate::locks::Locks;
use crate::namespace::format::{self, Started};
use crate::namespace::intent::Intent;
use crate::namespace::key::{self, Tag};
use crate::namespace::layout::Cut;
use crate::namespace::opens::OpenTable;
use crate::namespace::value;
use crate::registry::Registry;
use crate::seals::IodRecord;
use crate::session::Sessions;
use crate::store::{Record, Store, StoreError, Usage, View};

/// What the records of one inode with one name take, bytes, about: for statfs.
pub const INODE_RECORDS_BYTES: u64 = 512;

/// How the manager behaves.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// See [`crate::session::SESSION_TIMEOUT_MS_DEFAULT`].
    pub session_timeout_ms: u32,
    /// See [`crate::session::LEASE_TIMEOUT_MS_DEFAULT`].
    pub lease_timeout_ms: u32,
    /// See [`crate::namespace::lingering::LINGER_MS_DEFAULT`]; 0 removes at once.
    pub linger_ms: u32,
    /// Drawn at random at this start: the generation of new inodes.
    pub generation: u32,
    /// Drawn at random: the identity of a file system that is made now.
    pub file_system: FileSystemId,
    /// The store was restored from a backup: see [`format::start`].
    pub new_era: bool,
    /// Draws 64 random bits that nobody can foresee.
    pub draw: fn() -> u64,
}

/// A moment: the clock that people read, and one that never jumps.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Time of day, for timestamps.
    pub now: Timestamp,
    /// Milliseconds since mgr started, for timeouts.
    pub ms: u64,
}

/// Something that happens.
#[derive(Debug)]
pub enum Input<W> {
    /// A request arrived through a connection.
    Request {
        /// Where the reply goes.
        waiter: W,
        /// The connection's number.
        connection: u64,
        /// What is asked.
        request: Box<MgrRequest>,
    },
    /// There is a new connection, of a peer at an address.
    Connected(u64, IpAddr),
    /// A connection is gone.
    Disconnected(u64),
    /// Iods did, or failed to do, what [`Action::Work`] asked.
    WorkDone(WorkDone),
    /// Time has passed.
    Tick,
}

/// Something to do at the rim.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<W> {
    /// Send a reply.
    Reply(W, MgrReply),
    /// Tell a client something. It is lost where the client is not there, or where it should go
    /// through a certain connection and the client has another one now.
    Notify {
        /// Whom.
        client: ClientId,
        /// The only connection that will do.
        connection: Option<u64>,
        /// What.
        notice: Notice,
    },
    /// Tell all clients something that have asked for news in their greetings.
    Announce(Notice),
    /// Have iods do something.
    Work(StripeWork),
    /// An iod has registered: whoever is trying to reach it should try this address, and believe no
    /// other run of it.
    IodIsAt(IodId, String, Incarnation),
    /// A client's session has ended: end its connection, so that it greets anew if it is there.
    Expired(ClientId),
    /// Give root a part of a copy of the store.
    Backup(W, PartWanted),
}

/// A mutating request that waits until an inode is settled.
#[derive(Debug)]
struct Blocked {
    connection: u64,
    request: Box<MgrRequest>,
}

/// A reply that waits for a truncation of an inode.
#[derive(Debug)]
struct Withheld {
    client: ClientId,
    sequence: u64,
    reply: MgrReply,
}

/// Everything that is not in the store.
#[derive(Debug)]
struct State<W> {
    config: Config,
    started: Started,
    reign: Reign,
    /// By which iods know orders of this mgr.
    key: OrderKey,
    /// Where connections come from.
    peers: HashMap<u64, IpAddr>,
    opens: OpenTable,
    sessions: Sessions<W>,
    registry: Registry,
    work: Work,
    intents: Intents,
    leases: Leases,
    locks: Locks,
    lock_clients: LockClients,
    parking: Parking<W>,
    /// Clients that take leases.
    holders: BTreeSet<ClientId>,
    /// Of those, whose record is to be stored.
    unrecorded: BTreeSet<ClientId>,
    /// Clients that have lost their leases and do not know it yet, each with the connection on which
    /// it has begun to greet.
    lapsed: BTreeMap<ClientId, Option<u64>>,
    /// Clients whose record is to be removed.
    departed: BTreeSet<ClientId>,
    /// Clients that may have leases from before the start and have not greeted since.
    returning: BTreeSet<ClientId>,
    blocked: HashMap<InodeNumber, VecDeque<Blocked>>,
    withheld: HashMap<InodeNumber, Vec<Withheld>>,
    /// Who wants to write to a file that is being truncated, or to use one that is in doubt.
    acquiring: HashMap<InodeNumber, Vec<Parked<W>>>,
    /// Until then, clients may still declare opens from before the start.
    grace_end_ms: u64,
    /// Inodes without a name up to this key have been looked at since the grace ended; `None` when
    /// all have.
    orphans_after: Option<Vec<u8>>,
    /// The log says that the store is full.
    full: bool,
}

/// The owner of mgr's state, which handles requests in batches.
#[derive(Debug)]
pub struct Manager<S, W> {
    store: S,
    state: State<W>,
}

impl<S: Store, W> Manager<S, W> {
    /// Takes a store over: makes a file system of it if it is empty, else loads what must be in
    /// memory.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn start(mut store: S, config: Config, now: Timestamp) -> Result<Self, StoreError> {
        let started = format::start(&mut store, config.file_system, config.new_era, now)?;
        let draw = || u128::from((config.draw)());
        let mut state = State {
            config,
            started,
            reign: Reign {
                era: started.era,
                starts: started.starts,
                nonce: (config.draw)(),
            },
            key: OrderKey((draw() << 64) | draw()),
            peers: HashMap::new(),
            opens: OpenTable::new(started.starts),
            sessions: Sessions::default(),
            registry: Registry::default(),
            work: Work::default(),
            intents: Intents::default(),
            leases: Leases::new(started.starts),
            locks: Locks::default(),
            lock_clients: LockClients::default(),
            parking: Parking::default(),
            holders: BTreeSet::new(),
            unrecorded: BTreeSet::new(),
            lapsed: BTreeMap::new(),
            departed: BTreeSet::new(),
            returning: BTreeSet::new(),
            blocked: HashMap::new(),
            withheld: HashMap::new(),
            acquiring: HashMap::new(),
            grace_end_ms: if started.fresh {
                0
            } else {
                config.session_timeout_ms.into()
            },
            orphans_after: Some(key::all(Tag::Orphan)),
            full: false,
        };
        state.load(&store.view()?)?;
        Ok(Self { store, state })
    }

    /// The file system's identity.
    #[must_use]
    pub const fn file_system(&self) -> FileSystemId {
        self.state.started.file_system
    }

    /// By which iods know orders of this mgr.
    #[must_use]
    pub const fn order_key(&self) -> OrderKey {
        self.state.key
    }

    /// The store, to look at.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The store, to break in tests, or to keep when the manager goes.
    #[must_use]
    pub fn into_store(self) -> S {
        self.store
    }

    /// The store, to break in tests.
    #[must_use]
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Takes a batch of inputs; everything that it changed is durable when this returns. What is to
    /// be done goes to `act`: at once where it does not depend on the commit, else after it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where the store failed: what is on disk is unknown, and the process must end.
    /// A full store is no such error.
    pub fn handle(
        &mut self,
        inputs: impl IntoIterator<Item = Input<W>>,
        moment: Moment,
        act: &mut dyn FnMut(Action<W>),
    ) -> Result<(), StoreError> {
        let mut inputs: Vec<Input<W>> = inputs.into_iter().collect();
        loop {
            self.handle_batch(std::mem::take(&mut inputs), moment, act)?;
            // What waited for leases sees what this batch committed, so it runs in the next.
            if !self.state.parking.is_somebody_ready() {
                return Ok(());
            }
        }
    }

    fn handle_batch(
        &mut self,
        inputs: Vec<Input<W>>,
        moment: Moment,
        act: &mut dyn FnMut(Action<W>),
    ) -> Result<(), StoreError> {
        let usage = self.store.usage()?;
        self.state.note_usage(usage);
        let mut batch = Batch::new(moment, usage, self.state.registry.slots());
        batch.linger = self.state.linger(moment.ms, usage);
        {
            let view = self.store.view()?;
            self.state.add_intents(&view, &mut batch)?;
            self.state.run_ready(&view, &mut batch)?;
            for input in inputs {
                self.state.take(&view, &mut batch, input)?;
            }
            self.state.reap_lingering(&view, &mut batch)?;
            self.state.reconcile(&view, &mut batch)?;
            self.state.drop_intents(&view, &mut batch)?;
        }
        batch.actions.drain(..).for_each(&mut *act);
        self.state.add_trims(&mut batch);
        self.state.add_clients(&mut batch)?;
        let committed = if batch.records.is_empty() {
            Ok(())
        } else {
            self.store.commit(&batch.records)
        };
        let mut actions = Vec::new();
        match committed {
            Ok(()) => self.state.finish(batch, &mut actions),
            Err(StoreError::Full) => self.state.roll_back(batch, &mut actions),
            Err(error) => return Err(error),
        }
        // After all replies: a client learns of a lease before it is to give it up.
        self.state.send_recalls(&mut actions);
        self.state.send_lock_news(&mut actions);
        self.state.send_iod_news(moment.ms, &mut actions);
        self.state
            .start_work(&self.store.view()?, moment.ms, &mut actions)?;
        actions.into_iter().for_each(act);
        Ok(())
    }
}

impl<W> State<W> {
    fn load(&mut self, view: &impl View) -> Result<(), StoreError> {
        for (key, value) in all(view, Tag::Iod)? {
            let record: IodRecord = value::decode(&key, &value)?;
            let iod = key::iod_of(&key).ok_or(StoreError::Corrupt { key })?;
            self.registry.restore(iod, record);
        }
        for (key, value) in all(view, Tag::Reply)? {
            let reply: MgrReply = value::decode(&key, &value)?;
            let (client, sequence) = key::reply_of(&key).ok_or(StoreError::Corrupt { key })?;
            self.sessions.restore(client, sequence, reply, 0);
        }
        for (key, value) in all(view, Tag::Cut)? {
            let cut: Cut = value::decode(&key, &value)?;
            let inode = key::inode_of(&key).ok_or(StoreError::Corrupt { key })?;
            self.work.add_cut(inode, cut);
        }
        for (key, value) in all(view, Tag::Intent)? {
            let intent: Intent = value::decode(&key, &value)?;
            let inode = key::inode_of(&key).ok_or(StoreError::Corrupt { key })?;
            self.intents.restore(inode, intent, self.grace_end_ms);
        }
        for (key, _) in all(view, Tag::Client)? {
            let client = key::client_of(&key).ok_or(StoreError::Corrupt { key })?;
            self.returning.insert(client);
        }
        // Work that is done in the background: whoever could be told of damage is here now.
        all(view, Tag::Orphan)?;
        all(view, Tag::Garbage)?;
        Ok(())
    }

    /// Says once that the store is full, and once that it no longer is.
    fn note_usage(&mut self, usage: Usage) {
        let full = !usage.has_room();
        match (std::mem::replace(&mut self.full, full), full) {
            (false, true) => tracing::error!("{}", full_message(usage)),
            (true, false) => tracing::info!("the metadata store has room again"),
            (false, false) | (true, true) => {}
        }
    }

    /// Where a connection comes from.
    fn peer(&self, connection: u64) -> IpAddr {
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.peers.get(&connection).copied().unwrap_or(unknown)
    }

    const fn in_grace(&self, ms: u64) -> bool {
        ms < self.grace_end_ms
    }
}

fn all(view: &impl View, tag: Tag) -> Result<Vec<Record>, StoreError> {
    let prefix = key::all(tag);
    let end = key::end_of_prefix(&prefix);
    let mut found = Vec::new();
    view.scan(&prefix, end.as_deref(), &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        true
    })?;
    Ok(found)
}

fn full_message(usage: Usage) -> String {
    format!(
        "the metadata store is full ({} of {} bytes): remove files, or restart pvfs-mgr with a \
         larger --metadata-bytes-max or a larger disk under --data",
        usage.bytes_used, usage.bytes_max
    )
}

/// How much of the metadata store is free, for statfs.
const fn inodes_free(usage: Usage) -> u64 {
    usage.bytes_max.saturating_sub(usage.bytes_used) / INODE_RECORDS_BYTES
}

/// The reply to a request that the store could not run: the log says why.
fn store_failed(error: &StoreError) -> FsError {
    match error {
        StoreError::TooLong => FsError::MessageTooLong,
        StoreError::Full => FsError::NoSpace,
        StoreError::Corrupt { .. }
        | StoreError::Missing { .. }
        | StoreError::Version { .. }
        | StoreError::Backend(_) => {
            tracing::error!("{error}");
            FsError::Io
        }
    }
}
