// SPDX-License-Identifier: MIT
//! What the tests share: iods in this process, a directory that finds them, and a mgr that knows
//! how to register iods and nothing else.

#![allow(dead_code, reason = "each test program uses a part")]

pub mod peer;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use pvfs::address::Endpoint;
use pvfs::client::iod::IodDirectory;
use pvfs::client::pool::{IodPool, PoolOptions};
use pvfs::client::striped::Place;
use pvfs::ids::{ClientId, FileSystemId, InodeNumber, IodId, ObjectId};
use pvfs::layout::{Layout, LayoutSlot};
use pvfs::proto::iod::StripeRef;
use pvfs::proto::mgr::{HelloResponse, MgrOperation, MgrReply, MgrRequest, MgrResponse};
use pvfs::proto::seal::{OrderKey, Reign, Seal};
use pvfs::wire::blocking::{read_message, write_message};
use pvfs::wire::header::FrameKind;
use pvfs_iod::server::{Server, ServerLimits};
use pvfs_iod::store::{Membership, Store};
use tempfile::TempDir;

pub const FILE_SYSTEM: FileSystemId = FileSystemId(0xf5);
/// By which the iods know mgr's orders.
pub const KEY: OrderKey = OrderKey(0xb055);
/// What they were given.
pub const SEAL: Seal = Seal {
    reign: Reign {
        era: 0,
        starts: 1,
        nonce: 2,
    },
    number: 3,
    secret: 4,
};
/// Nothing here takes a fraction of it, unless it hangs.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The stripes of an inode at some place of a layout.
pub fn stripe(inode: u64) -> StripeRef {
    StripeRef {
        object: object(inode),
        place: LayoutSlot::default(),
    }
}

/// A place in a file of which nothing is known to have been written.
pub const fn place(layout: &Layout, object: ObjectId, offset: u64) -> Place<'_> {
    Place {
        layout,
        object,
        filled: 0,
        offset,
    }
}

pub fn object(inode: u64) -> ObjectId {
    ObjectId {
        inode: InodeNumber(inode),
        generation: 0,
    }
}

/// An iod in this process.
pub struct Iod {
    pub id: IodId,
    pub directory: TempDir,
    server: Option<Server>,
    store: Option<Arc<Store>>,
    pub address: SocketAddr,
    limits: ServerLimits,
}

impl Iod {
    pub fn start(id: u32, limits: ServerLimits) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let directory = tempfile::tempdir().unwrap();
        Store::create(directory.path()).unwrap();
        let mut iod = Self {
            id: IodId(id),
            directory,
            server: None,
            store: None,
            address,
            // Peers of tests have whatever ports there are.
            limits: ServerLimits {
                insecure_ports: true,
                ..limits
            },
        };
        iod.run();
        iod
    }

    /// Starts it, on the old port after the first time.
    pub fn run(&mut self) {
        let store = Arc::new(Store::open(self.directory.path(), 64).unwrap());
        store
            .join(Membership {
                iod: self.id,
                file_system: FILE_SYSTEM,
                seal: SEAL,
            })
            .unwrap();
        store.admission().obey(KEY);
        store.admission().grant();
        let listener = TcpListener::bind(self.address).unwrap();
        let server = Server::start(listener, Arc::clone(&store), self.limits).unwrap();
        self.address = server.address();
        self.server = Some(server);
        self.store = Some(store);
    }

    /// What it serves.
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(self.store.as_ref().unwrap())
    }

    pub fn stop(&mut self) {
        self.server.take().unwrap().stop();
        // Its lock goes with it.
        self.store = None;
    }
}

/// A directory whose entries a test changes.
#[derive(Default)]
pub struct Table {
    pub endpoints: Mutex<HashMap<IodId, Endpoint>>,
}

impl Table {
    pub fn set(&self, iod: IodId, address: SocketAddr) {
        let endpoint = Endpoint {
            host: address.ip().to_string(),
            port: address.port(),
        };
        self.endpoints.lock().unwrap().insert(iod, endpoint);
    }
}

impl IodDirectory for Table {
    fn endpoint(&self, iod: IodId) -> Option<Endpoint> {
        self.endpoints.lock().unwrap().get(&iod).cloned()
    }

    fn refresh(&self) {}

    fn file_system(&self) -> Option<FileSystemId> {
        Some(FILE_SYSTEM)
    }
}

/// Several iods and a pool that knows them.
pub struct Cluster {
    pub iods: Vec<Iod>,
    pub table: Arc<Table>,
    pub pool: IodPool,
}

impl Cluster {
    pub fn start(count: u32) -> Self {
        let iods: Vec<Iod> = (1..=count)
            .map(|id| Iod::start(id, ServerLimits::default()))
            .collect();
        let table = Arc::new(Table::default());
        for iod in &iods {
            table.set(iod.id, iod.address);
        }
        let pool = IodPool::new(table.clone(), PoolOptions::default());
        Self { iods, table, pool }
    }

    pub fn layout(&self, stripe_size: u32) -> Layout {
        Layout::new(stripe_size, 0, self.iods.iter().map(|iod| iod.id).collect()).unwrap()
    }
}

/// Content that differs at every offset and for every seed.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What the fake mgr heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub client: ClientId,
    pub sequence: u64,
    pub operation: MgrOperation,
}

/// Gives every new iod the next number, and the same client the same number again.
pub struct FakeMgr {
    pub address: SocketAddr,
    pub heard: mpsc::Receiver<Heard>,
}

impl FakeMgr {
    pub fn start(listener: TcpListener, file_system: FileSystemId) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, heard) = mpsc::channel();
        let known = Arc::new(Mutex::new(Vec::new()));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sender, known) = (sender.clone(), Arc::clone(&known));
                std::thread::spawn(move || answer(stream, file_system, &known, &sender));
            }
        });
        Self { address, heard }
    }

    /// The next registration.
    pub fn registration(&self) -> Heard {
        loop {
            let heard = self.heard.recv_timeout(TEST_TIMEOUT).unwrap();
            if matches!(heard.operation, MgrOperation::RegisterIod { .. }) {
                return heard;
            }
        }
    }
}

fn answer(
    mut stream: TcpStream,
    file_system: FileSystemId,
    known: &Mutex<Vec<ClientId>>,
    sender: &mpsc::Sender<Heard>,
) {
    let mut scratch = Vec::new();
    while let Ok(Some((header, request))) =
        read_message::<MgrRequest>(&mut stream, FrameKind::MgrRequest, &mut scratch)
    {
        let response = match &request.operation {
            MgrOperation::Hello { .. } => MgrResponse::Hello(HelloResponse {
                file_system,
                session_timeout_ms: 10_000,
                lease_timeout_ms: 10_000,
                iods: Vec::new(),
                locks_lost: vec![],
            }),
            MgrOperation::RegisterIod { iod: Some(iod), .. } => MgrResponse::Registered {
                iod: *iod,
                file_system,
                seal: SEAL,
                key: KEY,
            },
            MgrOperation::RegisterIod { .. } => {
                let mut known = known.lock().unwrap();
                let position = known.iter().position(|client| *client == request.client);
                let position = position.unwrap_or_else(|| {
                    known.push(request.client);
                    known.len() - 1
                });
                MgrResponse::Registered {
                    iod: IodId(1 + position as u32),
                    file_system,
                    seal: SEAL,
                    key: KEY,
                }
            }
            _ => MgrResponse::Done,
        };
        let reply: MgrReply = Ok(response);
        let id = header.request_id;
        if write_message(&mut stream, FrameKind::MgrReply, id, &reply, &[]).is_err() {
            return;
        }
        let MgrRequest {
            client,
            sequence,
            operation,
            ..
        } = request;
        let _ = sender.send(Heard {
            client,
            sequence,
            operation,
        });
    }
}

/// Bytes of all objects' data below `path`.
pub fn local_lengths(path: &Path) -> io::Result<Vec<u64>> {
    let mut lengths = Vec::new();
    for hash in std::fs::read_dir(path.join("objects"))? {
        let hash = hash?;
        if !hash.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(hash.path())? {
            let file = file?;
            if !file.file_name().to_string_lossy().ends_with(".sums") {
                lengths.push(file.metadata()?.len());
            }
        }
    }
    Ok(lengths)
}
