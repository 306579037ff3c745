// SPDX-License-Identifier: MIT
//! A manager over a store, with clients and iods that are played by the test.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pvfs::attr::{Attr, Credentials, FileKind, SetAttr, Space, Timestamp};
use pvfs::error::FsError;
use pvfs::ids::{ClientId, FileSystemId, Incarnation, InodeNumber, IodId, OpenId, ROOT_INODE};
use pvfs::limits::SILENCE_LOOK_MS;
use pvfs::name::Name;
use pvfs::proto::lease::{NO_LEASE, Notice};
use pvfs::proto::mgr::{
    Access, DirectoryEntry, MgrOperation, MgrReply, MgrRequest, MgrResponse, OpenResponse,
    RenameMode,
};
use pvfs::proto::report::IodReport;
use pvfs::proto::seal::Seal;
use pvfs_mgr::owner::work::{LocalFile, Order, StripeWork, Target, WorkDone};
use pvfs_mgr::owner::{Action, Config, Input, Manager, Moment};
use pvfs_mgr::store::Store;
use pvfs_mgr::store::memory::MemoryStore;

pub const FILE_SYSTEM: FileSystemId = FileSystemId(42);
pub const SESSION_TIMEOUT_MS: u32 = 1000;
pub const LEASE_TIMEOUT_MS: u32 = 400;
pub const ALICE: ClientId = ClientId(1);
pub const BOB: ClientId = ClientId(2);
/// Who registers iods.
pub const OPERATOR: ClientId = ClientId(99);
pub const READ: Access = Access {
    read: true,
    write: false,
};
pub const WRITE: Access = Access {
    read: false,
    write: true,
};
pub const BOTH: Access = Access {
    read: true,
    write: true,
};
pub const SPACE: Space = Space {
    bytes_total: 1000,
    bytes_free: 600,
    bytes_available: 500,
};
/// A disk like any other, which nobody else reports.
pub const REPORT: IodReport = IodReport {
    space: SPACE,
    inodes_total: 0,
    inodes_free: 0,
    writable: true,
    disk: None,
};

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub fn user(uid: u32) -> Credentials {
    Credentials {
        uid,
        gid: uid,
        groups: vec![],
    }
}

pub fn time(seconds: i64) -> Timestamp {
    Timestamp {
        seconds,
        nanoseconds: 0,
    }
}

/// An owner with clients and iods that a test moves.
pub struct World<S: Store = MemoryStore> {
    manager: Option<Manager<S, u32>>,
    pub ms: u64,
    sequences: HashMap<ClientId, u64>,
    /// Requests that the test may send again: mgr must keep their replies.
    may_resend: BTreeMap<ClientId, BTreeSet<u64>>,
    waiter_next: u32,
    pub replies: HashMap<u32, MgrReply>,
    /// Work that the iods have not done yet.
    pub work: Vec<StripeWork>,
    /// Work that they have done.
    pub done: Vec<StripeWork>,
    /// What each iod has of whatever file it is asked about, bytes; nothing where it is not in here.
    pub local: HashMap<IodId, u64>,
    /// The iods do all work at once.
    pub diligent: bool,
    pub expired: Vec<ClientId>,
    /// What clients were told unasked.
    pub notices: Vec<(ClientId, Notice)>,
    /// What all were told who asked for news.
    pub announced: Vec<Notice>,
    /// Where the iods are, as whoever carries out work was told.
    pub iods: HashMap<IodId, String>,
    /// On whose behalf the short forms below ask.
    pub who: Credentials,
    /// For how long what is removed lingers.
    linger_ms: u32,
    /// What the iods' directories hold.
    pub seals: HashMap<u32, Seal>,
    /// Which run of an iod introduces itself next.
    pub incarnation: Incarnation,
    /// The next start begins an era.
    pub new_era: bool,
}

/// A world in memory.
pub type Memory = World<MemoryStore>;

impl World {
    /// A new file system in memory with three live iods.
    pub fn new() -> Self {
        Self::over(MemoryStore::default()).with_iods(3)
    }

    /// The same, where what is removed lingers for so long.
    pub fn lingering(linger_ms: u32) -> Self {
        Self::started(MemoryStore::default(), linger_ms).with_iods(3)
    }
}

impl<S: Store> World<S> {
    pub fn over(store: S) -> Self {
        Self::started(store, 0)
    }

    fn started(store: S, linger_ms: u32) -> Self {
        let mut world = Self {
            manager: None,
            ms: 0,
            sequences: HashMap::new(),
            may_resend: BTreeMap::new(),
            waiter_next: 0,
            replies: HashMap::new(),
            work: Vec::new(),
            done: Vec::new(),
            local: HashMap::new(),
            diligent: true,
            expired: Vec::new(),
            notices: Vec::new(),
            announced: Vec::new(),
            iods: HashMap::new(),
            who: Credentials::ROOT,
            linger_ms,
            seals: HashMap::new(),
            incarnation: Incarnation(7),
            new_era: false,
        };
        world.start(store);
        world
    }

    fn start(&mut self, store: S) {
        let config = Config {
            session_timeout_ms: SESSION_TIMEOUT_MS,
            lease_timeout_ms: LEASE_TIMEOUT_MS,
            linger_ms: self.linger_ms,
            generation: 1,
            file_system: FILE_SYSTEM,
            new_era: std::mem::take(&mut self.new_era),
            draw: || 5,
        };
        self.ms = 0;
        self.manager = Some(Manager::start(store, config, self.now()).unwrap());
    }

    pub fn with_iods(mut self, count: u32) -> Self {
        for n in 1..=count {
            self.register(None, &format!("iod{n}:7000")).unwrap();
        }
        self
    }

    /// An iod introduces itself, as the run that it is, until it is admitted; says which it is. A
    /// number that has no seal yet comes without one.
    pub fn register(&mut self, iod: Option<u32>, address: &str) -> Result<u32, FsError> {
        let mut iod = iod;
        for _ in 0..4 {
            let held = iod.and_then(|iod| self.seals.get(&iod).copied());
            let (found, given) = self.introduce(iod, held, address)?;
            iod = Some(found);
            self.seals.insert(found, given);
            if held == Some(given) {
                return Ok(found);
            }
        }
        panic!("iod {iod:?} is never admitted")
    }

    /// An iod introduces itself once, and is given its number and a seal.
    pub fn introduce(
        &mut self,
        iod: Option<u32>,
        seal: Option<Seal>,
        address: &str,
    ) -> Result<(u32, Seal), FsError> {
        let operation = self.introduction(iod, seal, address);
        match self.call_as(OPERATOR, &Credentials::ROOT, operation)? {
            MgrResponse::Registered { iod, seal, .. } => Ok((iod.0, seal)),
            other => panic!("{other:?}"),
        }
    }

    pub fn introduction(
        &self,
        iod: Option<u32>,
        seal: Option<Seal>,
        address: &str,
    ) -> MgrOperation {
        MgrOperation::RegisterIod {
            iod: iod.map(IodId),
            file_system: iod.map(|_| FILE_SYSTEM),
            seal,
            incarnation: self.incarnation,
            accepts_older: false,
            address: address.to_owned(),
            report: REPORT,
        }
    }

    /// kill -9 and a new start; requests under way are lost.
    pub fn restart(&mut self) {
        let store = self.manager.take().unwrap().into_store();
        self.restart_over(store);
    }

    pub fn take_store(&mut self) -> S {
        self.manager.take().unwrap().into_store()
    }

    pub fn restart_over(&mut self, store: S) {
        self.work.clear();
        self.start(store);
    }

    pub fn manager(&mut self) -> &mut Manager<S, u32> {
        self.manager.as_mut().unwrap()
    }

    pub fn store(&self) -> &S {
        self.manager.as_ref().unwrap().store()
    }

    pub fn now(&self) -> Timestamp {
        time(1_000_000 + i64::try_from(self.ms).unwrap())
    }

    /// Gives the manager one batch.
    pub fn batch(&mut self, inputs: Vec<Input<u32>>) {
        let moment = Moment {
            now: self.now(),
            ms: self.ms,
        };
        let mut actions = self.handle(inputs, moment);
        while !actions.is_empty() {
            let mut done = Vec::new();
            for action in actions.drain(..) {
                match action {
                    Action::Reply(waiter, reply) => {
                        assert!(
                            self.replies.insert(waiter, reply).is_none(),
                            "answered twice"
                        );
                    }
                    Action::Notify { client, notice, .. } => self.notices.push((client, notice)),
                    Action::Announce(notice) => self.announced.push(notice),
                    Action::Backup(waiter, _) => {
                        let nothing = Err(FsError::NotSupported);
                        assert!(self.replies.insert(waiter, nothing).is_none());
                    }
                    Action::Expired(client) => self.expired.push(client),
                    Action::IodIsAt(iod, address, _) => drop(self.iods.insert(iod, address)),
                    Action::Work(work) if self.diligent => done.push(self.note_done(work)),
                    Action::Work(work) => self.work.push(work),
                }
            }
            if !done.is_empty() {
                let moment = Moment {
                    now: self.now(),
                    ms: self.ms,
                };
                actions = self.handle(done, moment);
            }
        }
    }

    fn handle(&mut self, inputs: Vec<Input<u32>>, moment: Moment) -> Vec<Action<u32>> {
        let mut actions = Vec::new();
        self.manager()
            .handle(inputs, moment, &mut |action| actions.push(action))
            .unwrap();
        actions
    }

    pub fn note_done(&mut self, work: StripeWork) -> Input<u32> {
        let local = |target: &Target| {
            let length = self.local.get(&target.iod).copied().unwrap_or_default();
            let allocated = length.next_multiple_of(4096);
            (target.iod, LocalFile { length, allocated })
        };
        let measured = match work.order {
            Order::Fence => work.targets.iter().map(local).collect(),
            Order::Truncate | Order::Remove => vec![],
        };
        let done = WorkDone {
            object: work.object,
            order: work.order,
            failed: vec![],
            measured,
        };
        self.done.push(work);
        Input::WorkDone(done)
    }

    /// Lets the iods do what they were told, or fail at it.
    pub fn iods_answer(&mut self, fail: bool) {
        for work in std::mem::take(&mut self.work) {
            let why = "refused".to_owned();
            let failed = work
                .targets
                .iter()
                .map(|target| (target.iod, why.clone()))
                .collect();
            let input = if fail {
                let (object, order) = (work.object, work.order);
                Input::WorkDone(WorkDone {
                    object,
                    order,
                    failed,
                    measured: vec![],
                })
            } else {
                self.note_done(work)
            };
            self.batch(vec![input]);
        }
    }

    /// Time passes as it does, in small steps, with nothing else happening.
    pub fn pass(&mut self, ms: u64) {
        for _ in 0..ms / SILENCE_LOOK_MS {
            self.tick(SILENCE_LOOK_MS);
        }
        self.tick(ms % SILENCE_LOOK_MS);
    }

    pub fn tick(&mut self, ms: u64) {
        self.ms += ms;
        self.batch(vec![Input::Tick]);
    }

    /// A new request of a client, and the waiter for its reply.
    pub fn request(
        &mut self,
        client: ClientId,
        who: &Credentials,
        operation: MgrOperation,
    ) -> (u32, MgrRequest) {
        let mut sequence = 0;
        if operation.is_mutating() {
            let last = self.sequences.entry(client).or_default();
            *last += 1;
            sequence = *last;
        }
        let credentials = who.clone();
        let request = MgrRequest {
            client,
            sequence,
            answered_below: 0,
            credentials,
            operation,
        };
        self.waiter_next += 1;
        (self.waiter_next, request)
    }

    pub fn input(waiter: u32, request: &MgrRequest) -> Input<u32> {
        Input::Request {
            waiter,
            connection: request.client.0,
            request: Box::new(request.clone()),
        }
    }

    /// Sends a request and does not wait; the reply is in `replies` when it comes.
    pub fn send(&mut self, client: ClientId, operation: MgrOperation) -> (u32, MgrRequest) {
        let who = self.who.clone();
        let (waiter, request) = self.request(client, &who, operation);
        if request.sequence > 0 {
            self.may_resend
                .entry(client)
                .or_default()
                .insert(request.sequence);
        }
        self.batch(vec![Self::input(waiter, &request)]);
        (waiter, request)
    }

    /// The same through a connection of this number; all others come through one that has the client's.
    pub fn send_through(
        &mut self,
        connection: u64,
        client: ClientId,
        operation: MgrOperation,
    ) -> u32 {
        let who = self.who.clone();
        let (waiter, request) = self.request(client, &who, operation);
        self.batch(vec![Input::Request {
            waiter,
            connection,
            request: Box::new(request),
        }]);
        waiter
    }

    /// Sends a request once more.
    pub fn resend(&mut self, request: &MgrRequest) -> u32 {
        self.waiter_next += 1;
        let waiter = self.waiter_next;
        self.batch(vec![Self::input(waiter, request)]);
        waiter
    }

    pub fn call_as(
        &mut self,
        client: ClientId,
        who: &Credentials,
        operation: MgrOperation,
    ) -> MgrReply {
        let (waiter, mut request) = self.request(client, who, operation);
        let oldest = self
            .may_resend
            .get(&client)
            .and_then(|sequences| sequences.first());
        request.answered_below = oldest.copied().unwrap_or(request.sequence);
        self.batch(vec![Self::input(waiter, &request)]);
        self.replies.remove(&waiter).expect("a reply")
    }

    pub fn call(&mut self, operation: MgrOperation) -> MgrReply {
        let who = self.who.clone();
        self.call_as(ALICE, &who, operation)
    }

    fn attr_of(&mut self, operation: MgrOperation) -> Result<Attr, FsError> {
        match self.call(operation)? {
            MgrResponse::Attr(attr) => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    fn done_of(&mut self, operation: MgrOperation) -> Result<(), FsError> {
        match self.call(operation)? {
            MgrResponse::Done => Ok(()),
            other => panic!("{other:?}"),
        }
    }

    pub fn open_of(reply: MgrReply) -> Result<OpenResponse, FsError> {
        match reply? {
            MgrResponse::Open(open) => Ok(open),
            other => panic!("{other:?}"),
        }
    }

    pub fn lookup(&mut self, parent: InodeNumber, text: &str) -> Result<Attr, FsError> {
        self.attr_of(MgrOperation::Lookup {
            parent,
            name: Some(name(text)),
        })
    }

    pub fn stat(&mut self, inode: InodeNumber) -> Result<Attr, FsError> {
        self.attr_of(MgrOperation::GetAttr { inode })
    }

    pub fn root(&mut self) -> Attr {
        self.stat(ROOT_INODE).unwrap()
    }

    pub fn make(
        &mut self,
        parent: InodeNumber,
        text: &str,
        kind: FileKind,
        mode: u16,
    ) -> Result<Attr, FsError> {
        let name = name(text);
        self.attr_of(MgrOperation::MakeNode {
            parent,
            name,
            kind,
            mode,
            rdev: 5,
            umask: 0,
        })
    }

    pub fn mkdir(&mut self, parent: InodeNumber, text: &str) -> InodeNumber {
        self.make(parent, text, FileKind::Directory, 0o755)
            .unwrap()
            .inode
    }

    pub fn mkfile(&mut self, parent: InodeNumber, text: &str) -> InodeNumber {
        self.make(parent, text, FileKind::Regular, 0o644)
            .unwrap()
            .inode
    }

    pub fn create(&mut self, parent: InodeNumber, text: &str) -> Result<OpenResponse, FsError> {
        self.create_with(ALICE, parent, text, false)
    }

    pub fn create_with(
        &mut self,
        client: ClientId,
        parent: InodeNumber,
        text: &str,
        exclusive: bool,
    ) -> Result<OpenResponse, FsError> {
        let name = name(text);
        let operation = MgrOperation::Create {
            parent,
            name,
            mode: 0o644,
            exclusive,
            access: BOTH,
            umask: 0,
        };
        let who = self.who.clone();
        Self::open_of(self.call_as(client, &who, operation))
    }

    pub fn open(
        &mut self,
        client: ClientId,
        inode: InodeNumber,
        access: Access,
        truncate: bool,
    ) -> Result<OpenResponse, FsError> {
        let who = self.who.clone();
        let operation = MgrOperation::Open {
            inode,
            access,
            truncate,
        };
        Self::open_of(self.call_as(client, &who, operation))
    }

    pub fn close(&mut self, client: ClientId, inode: InodeNumber, open: OpenId) {
        let reply = self.call_as(
            client,
            &Credentials::ROOT,
            MgrOperation::Close {
                inode,
                open,
                lease: NO_LEASE,
            },
        );
        assert_eq!(reply, Ok(MgrResponse::Done));
    }

    pub fn report(
        &mut self,
        client: ClientId,
        inode: InodeNumber,
        open: OpenId,
        size_min: u64,
    ) -> Result<(Attr, u64), FsError> {
        let who = self.who.clone();
        let operation = MgrOperation::Report {
            inode,
            size_min,
            modified: true,
            open,
            known_change: 0,
            allocated: None,
            filled: size_min,
            doubt: None,
        };
        match self.call_as(client, &who, operation)? {
            MgrResponse::Report {
                attr,
                change_before,
            } => Ok((attr, change_before)),
            other => panic!("{other:?}"),
        }
    }

    /// What a mount does before it writes.
    pub fn drop_privileges(
        &mut self,
        client: ClientId,
        inode: InodeNumber,
        open: OpenId,
        mode_bits: bool,
    ) -> Result<Attr, FsError> {
        let who = self.who.clone();
        let operation = MgrOperation::DropPrivileges {
            inode,
            open,
            mode_bits,
        };
        match self.call_as(client, &who, operation)? {
            MgrResponse::Attr(attr) => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    /// A file with content, closed.
    pub fn file_of(&mut self, parent: InodeNumber, text: &str, size: u64) -> InodeNumber {
        let opened = self.create(parent, text).unwrap();
        let inode = opened.attr.inode;
        self.report(ALICE, inode, opened.open, size).unwrap();
        self.close(ALICE, inode, opened.open);
        inode
    }

    pub fn set(&mut self, inode: InodeNumber, set: SetAttr) -> Result<Attr, FsError> {
        self.attr_of(MgrOperation::SetAttr {
            inode,
            set,
            open: None,
        })
    }

    pub fn chmod(&mut self, inode: InodeNumber, mode: u16) {
        let root = Credentials::ROOT;
        let set = SetAttr {
            mode: Some(mode),
            ..SetAttr::default()
        };
        let operation = MgrOperation::SetAttr {
            inode,
            set,
            open: None,
        };
        self.call_as(ALICE, &root, operation).unwrap();
    }

    pub fn chown(&mut self, inode: InodeNumber, uid: u32, gid: u32) {
        let root = Credentials::ROOT;
        let set = SetAttr {
            uid: Some(uid),
            gid: Some(gid),
            ..SetAttr::default()
        };
        let operation = MgrOperation::SetAttr {
            inode,
            set,
            open: None,
        };
        self.call_as(ALICE, &root, operation).unwrap();
    }

    pub fn link(
        &mut self,
        inode: InodeNumber,
        parent: InodeNumber,
        text: &str,
    ) -> Result<Attr, FsError> {
        self.attr_of(MgrOperation::Link {
            inode,
            parent,
            name: name(text),
        })
    }

    pub fn unlink(&mut self, parent: InodeNumber, text: &str) -> Result<(), FsError> {
        self.done_of(MgrOperation::Unlink {
            parent,
            name: name(text),
        })
    }

    pub fn rmdir(&mut self, parent: InodeNumber, text: &str) -> Result<(), FsError> {
        self.done_of(MgrOperation::RemoveDirectory {
            parent,
            name: name(text),
        })
    }

    pub fn rename(
        &mut self,
        (parent, old): (InodeNumber, &str),
        (new_parent, new): (InodeNumber, &str),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let (name, new_name) = (name(old), name(new));
        self.done_of(MgrOperation::Rename {
            parent,
            name,
            new_parent,
            new_name,
            mode,
        })
    }

    pub fn list(&mut self, inode: InodeNumber) -> Vec<DirectoryEntry> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let operation = MgrOperation::ReadDirectory {
                inode,
                after,
                until: None,
                entries_max: 3,
                plus: true,
            };
            let Ok(MgrResponse::Entries { entries, end, .. }) = self.call(operation) else {
                panic!("no listing");
            };
            assert!(end || entries.len() == 3);
            after = entries.last().map_or(after, |entry| entry.cookie);
            all.extend(entries);
            if end {
                return all;
            }
        }
    }

    pub fn names(&mut self, inode: InodeNumber) -> String {
        let entries = self.list(inode);
        let names: Vec<String> = entries.iter().map(|entry| entry.name.to_string()).collect();
        names.join(" ")
    }
}
