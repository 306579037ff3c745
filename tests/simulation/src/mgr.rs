// SPDX-License-Identifier: MIT
//! mgr: the real owner ([`Manager`]) and the real work on iods, over a store in memory that stands for
//! the disk. The rim, which is asynchronous in the real process, is made of tasks here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::time::Duration;

use pvfs::attr::Timestamp;
use pvfs::client::patience::Cancel;
use pvfs::error::FsError;
use pvfs::ids::{ClientId, FileSystemId};
use pvfs::proto::lease::Notice;
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrRequest};
use pvfs::runtime::net::{TcpListener, TcpStream};
use pvfs::runtime::sync::mpsc::{Receiver, Sender, channel};
use pvfs::runtime::sync::{Arc, Mutex, MutexGuard, PoisonError};
use pvfs::runtime::thread;
use pvfs::runtime::time::Instant;
use pvfs::wire::blocking::{frame_start, read_message};
use pvfs::wire::header::FrameKind;
use pvfs_mgr::iods::Iods;
use pvfs_mgr::owner::work::{Order, StripeWork, WorkDone};
use pvfs_mgr::owner::{Action, Config, Input, Manager, Moment};
use pvfs_mgr::store::memory::MemoryStore;
use pvfs_mgr::store::{Records, Store, StoreError, Usage, View};
use pvfs_mgr::stripes::StripeStore;

use crate::machine::World;

/// Where mgr listens.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 3000);
/// As the real process has it.
const TICK: Duration = Duration::from_millis(pvfs::limits::SILENCE_LOOK_MS);
/// Inputs of one batch.
const BATCH_INPUTS_MAX: usize = 256;
/// As the real process has them by default.
const SESSION_TIMEOUT_MS: u32 = 60_000;
/// As the real process has it by default.
pub const LEASE_TIMEOUT_MS: u32 = 10_000;
/// As the real process has it by default.
const LINGER_MS: u32 = 1_000;

/// mgr's disk: what is committed survives the process, and the power.
#[derive(Clone, Debug, Default)]
pub struct MgrDisk(std::sync::Arc<std::sync::Mutex<MemoryStore>>);

/// What is on it.
#[derive(Debug)]
pub struct DiskView<'a>(std::sync::MutexGuard<'a, MemoryStore>);

impl MgrDisk {
    fn store(&self) -> std::sync::MutexGuard<'_, MemoryStore> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether commits fail for want of room.
    pub fn set_full(&self, full: bool) {
        self.store().full = full;
    }
}

impl View for DiskView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        Ok(self.0.records().get(key).map(Vec::as_slice))
    }

    fn scan(
        &self,
        after: &[u8],
        before: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        (&*self.0).scan(after, before, visit)
    }
}

impl Store for MgrDisk {
    type View<'a> = DiskView<'a>;

    fn view(&self) -> Result<DiskView<'_>, StoreError> {
        Ok(DiskView(self.store()))
    }

    fn commit(&mut self, records: &Records) -> Result<(), StoreError> {
        // The process may be killed before, and between the disk's doing it and hearing of that.
        let us = World::current().map_or(0, |world| world.draw().u64(50..4_000));
        thread::sleep(Duration::from_micros(us));
        self.store().commit(records)?;
        thread::sleep(Duration::from_micros(us / 4));
        Ok(())
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        self.store().usage()
    }
}

/// A connection, to reply to and to close.
#[derive(Debug)]
struct Connection {
    id: u64,
    stream: TcpStream,
    outgoing: Mutex<Sender<Vec<u8>>>,
}

impl Connection {
    fn lock(&self) -> MutexGuard<'_, Sender<Vec<u8>>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, frame: Vec<u8>) {
        // A connection that has ended took its client's leases with it.
        let _ = self.lock().send(frame);
    }

    fn notify(&self, notice: &Notice) {
        if let Ok(frame) = frame_start(FrameKind::MgrNotice, 0, notice, 0) {
            self.send(frame);
        }
    }
}

/// A client that has greeted.
struct Greeted {
    number: u64,
    /// The connection on which it did.
    on: Arc<Connection>,
    /// It wants to be told of iods.
    news: bool,
}

/// Whoever waits for a reply.
#[derive(Debug)]
struct Waiter {
    connection: Arc<Connection>,
    request_id: u64,
}

impl Waiter {
    fn send(&self, reply: &MgrReply) {
        if let Ok(frame) = frame_start(FrameKind::MgrReply, self.request_id, reply, 0) {
            self.connection.send(frame);
        }
    }
}

/// The process.
pub fn main(disk: MgrDisk) {
    let config = Config {
        session_timeout_ms: SESSION_TIMEOUT_MS,
        lease_timeout_ms: LEASE_TIMEOUT_MS,
        linger_ms: LINGER_MS,
        generation: (pvfs::runtime::random_u64() >> 40) as u32,
        file_system: FileSystemId(u128::from(pvfs::runtime::random_u64())),
        new_era: false,
        draw: pvfs::runtime::random_u64,
    };
    let manager = Manager::start(disk, config, Timestamp::now());
    let mut manager = match manager {
        Ok(manager) => manager,
        Err(error) => return fail(&format!("mgr does not start: {error}")),
    };
    let (file_system, key) = (manager.file_system(), manager.order_key());
    let iods = Arc::new(Iods::new(file_system, key, Cancel::new()));
    let (owner, inputs) = channel();
    let accepting = owner.clone();
    let listener = match TcpListener::bind(ADDRESS) {
        Ok(listener) => listener,
        Err(error) => return fail(&format!("mgr cannot listen: {error}")),
    };
    thread::spawn(move || accept(&listener, &accepting));
    let ticking = owner.clone();
    thread::spawn(move || {
        while ticking.send(Input::Tick).is_ok() {
            thread::sleep(TICK);
        }
    });
    if let Err(error) = own(&mut manager, &inputs, &owner, &iods) {
        fail(&format!("mgr's store: {error}"));
    }
}

fn fail(reason: &str) {
    if let Some(world) = World::current() {
        world.fail(reason);
    }
}

fn accept(listener: &TcpListener, owner: &Sender<Input<Waiter>>) {
    let mut id = 0;
    while let Ok((stream, _)) = listener.accept() {
        id += 1;
        let (sender, frames) = channel();
        let Ok(reading) = stream.try_clone() else {
            return;
        };
        let connection = Arc::new(Connection {
            id,
            stream,
            outgoing: Mutex::new(sender),
        });
        let writing = Arc::clone(&connection);
        let owner = owner.clone();
        thread::spawn(move || write(&writing, &frames));
        thread::spawn(move || read(reading, &connection, &owner));
    }
}

fn write(connection: &Connection, frames: &Receiver<Vec<u8>>) {
    use std::io::Write;
    while let Ok(frame) = frames.recv() {
        let mut stream = &connection.stream;
        if stream.write_all(&frame).is_err() {
            break;
        }
    }
    // An error means that it has ended already.
    let _ = connection.stream.shutdown(Shutdown::Both);
}

fn read(mut stream: TcpStream, connection: &Arc<Connection>, owner: &Sender<Input<Waiter>>) {
    let mut scratch = Vec::new();
    while let Ok(Some((header, request))) =
        read_message::<MgrRequest>(&mut stream, FrameKind::MgrRequest, &mut scratch)
    {
        let waiter = Waiter {
            connection: Arc::clone(connection),
            request_id: header.request_id,
        };
        tracing::trace!("connection {}: {request:?}", connection.id);
        // The owner is gone only when the process ends.
        let _ = owner.send(Input::Request {
            waiter,
            connection: connection.id,
            request: Box::new(request),
        });
    }
    // An error means that it has ended already.
    let _ = stream.shutdown(Shutdown::Both);
    // The owner is gone only when the process ends.
    let _ = owner.send(Input::Disconnected(connection.id));
}

/// The owner's loop, as `pvfs_mgr::event_loop` has it.
fn own(
    manager: &mut Manager<MgrDisk, Waiter>,
    inputs: &Receiver<Input<Waiter>>,
    owner: &Sender<Input<Waiter>>,
    iods: &Arc<Iods>,
) -> Result<(), StoreError> {
    let start = Instant::now();
    let mut clients: BTreeMap<ClientId, Greeted> = BTreeMap::new();
    loop {
        let mut batch = Vec::new();
        match inputs.recv() {
            Ok(input) => batch.push(input),
            Err(_) => return Ok(()),
        }
        while batch.len() < BATCH_INPUTS_MAX {
            match inputs.try_recv() {
                Ok(input) => batch.push(input),
                Err(_) => break,
            }
        }
        note_clients(&batch, &mut clients);
        let moment = Moment {
            now: Timestamp::now(),
            ms: start.elapsed().as_millis() as u64,
        };
        manager.handle(batch, moment, &mut |action| match action {
            Action::Reply(waiter, reply) => waiter.send(&reply),
            Action::Notify {
                client,
                connection,
                notice,
            } => {
                let found = clients.get(&client);
                let found = found.filter(|found| connection.is_none_or(|only| only == found.on.id));
                if let Some(greeted) = found {
                    greeted.on.notify(&notice);
                }
            }
            Action::Announce(notice) => {
                for greeted in clients.values().filter(|greeted| greeted.news) {
                    greeted.on.notify(&notice);
                }
            }
            Action::Work(work) => start_work(work, owner, iods),
            Action::IodIsAt(iod, address, incarnation) => {
                iods.iod_is_at(iod, &address, incarnation);
            }
            Action::Backup(waiter, _) => waiter.send(&Err(FsError::NotSupported)),
            Action::Expired(client) => {
                if let Some(greeted) = clients.remove(&client) {
                    // An error means that it has ended already.
                    let _ = greeted.on.stream.shutdown(Shutdown::Both);
                }
            }
        })?;
    }
}

fn note_clients(inputs: &[Input<Waiter>], clients: &mut BTreeMap<ClientId, Greeted>) {
    for input in inputs {
        match input {
            Input::Request {
                waiter, request, ..
            } => {
                if let MgrOperation::Hello { number, news, .. } = request.operation {
                    let known = clients.get(&request.client);
                    if known.is_none_or(|known| known.number <= number) {
                        let on = Arc::clone(&waiter.connection);
                        clients.insert(request.client, Greeted { on, number, news });
                    }
                }
            }
            Input::Disconnected(id) => clients.retain(|_, greeted| greeted.on.id != *id),
            Input::Connected(..) | Input::WorkDone(_) | Input::Tick => {}
        }
    }
}

/// Has iods do something, all at once.
fn start_work(work: StripeWork, owner: &Sender<Input<Waiter>>, iods: &Arc<Iods>) {
    let StripeWork {
        object,
        order,
        targets,
    } = work;
    let owner = owner.clone();
    let iods = Arc::clone(iods);
    thread::spawn(move || {
        let calls: Vec<_> = targets
            .into_iter()
            .map(|target| {
                let iods = Arc::clone(&iods);
                thread::spawn(move || {
                    let outcome = match order {
                        Order::Truncate => iods.truncate(&target, object).map(|()| None),
                        Order::Remove => iods.remove(&target, object).map(|()| None),
                        Order::Fence => iods.fence(&target, object).map(Some),
                    };
                    (target.iod, outcome)
                })
            })
            .collect();
        let (mut failed, mut measured) = (Vec::new(), Vec::new());
        for (iod, outcome) in calls.into_iter().filter_map(|call| call.join().ok()) {
            match outcome {
                Ok(found) => measured.extend(found.map(|found| (iod, found))),
                Err(reason) => failed.push((iod, reason)),
            }
        }
        let done = WorkDone {
            object,
            order,
            failed,
            measured,
        };
        // The owner is gone only when the process ends.
        let _ = owner.send(Input::WorkDone(done));
    });
}
