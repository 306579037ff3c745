// SPDX-License-Identifier: MIT
//! What fuzzing checks of what PVFS takes from the network, for any bytes at all. `cargo fuzz` calls these with bytes
//! that it makes up; `cargo test` calls them with the corpus, so neither can rot.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pvfs::attr::{Credentials, Timestamp};
use pvfs::ids::{ClientId, FileSystemId, Incarnation, IodId};
use pvfs::proto::iod::{IodReply, IodRequest};
use pvfs::proto::lease::Notice;
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrRequest};
use pvfs::proto::seal::{OrderKey, Reign, Seal};
use pvfs::wire::codec::{decode, encode};
use pvfs::wire::header::{FrameHeader, FrameKind, HEADER_BYTES, checksum};
use pvfs_iod::server::{Server, ServerLimits};
use pvfs_iod::store::{Membership, Store};
use pvfs_mgr::owner::work::WorkDone;
use pvfs_mgr::owner::{Action, Config, Input, Manager, Moment};
use pvfs_mgr::store::memory::MemoryStore;

/// A target's name, which is also its corpus' folder, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const ALL: [Target; 3] = [("wire", wire), ("mgr", mgr), ("iod", iod)];

/// What decodes encodes to what decodes to the same.
macro_rules! again {
    ($data:expr, $($message:ty),*) => {$(
        if let Ok(message) = decode::<$message>($data) {
            // What came in few bytes may take more than a body has.
            if let Ok(bytes) = encode(&message) {
                assert_eq!(decode::<$message>(&bytes), Ok(message));
            }
        }
    )*};
}

/// Frames and messages: what decodes encodes to what decodes to the same.
pub fn wire(data: &[u8]) {
    let mut header = [0; HEADER_BYTES];
    let length = data.len().min(HEADER_BYTES);
    header[..length].copy_from_slice(&data[..length]);
    if let Ok(parsed) = FrameHeader::parse(&header) {
        assert_eq!(parsed.to_bytes(), header);
    }
    // With the right beginning and checksum, so that what lies behind these is reached.
    header[..4].copy_from_slice(b"PVFS");
    header[4..6].copy_from_slice(&pvfs::wire::header::VERSION.to_le_bytes());
    let sum = checksum(&header[..28]);
    header[28..].copy_from_slice(&sum.to_le_bytes());
    if let Ok(parsed) = FrameHeader::parse(&header) {
        assert_eq!(parsed.to_bytes(), header);
    }
    again!(data, MgrRequest, MgrReply, IodRequest, IodReply, Notice);
}

/// The clients that talk to mgr.
const CLIENTS: u8 = 3;
/// Batches end by themselves.
const OPERATIONS_MAX: usize = 64;

/// What mgr gives the iod, as it is drawn below.
const SEAL: Seal = Seal {
    reign: Reign {
        era: 0,
        starts: 1,
        nonce: 5,
    },
    number: 1,
    secret: (5 << 64) | 5,
};

struct Desk {
    manager: Manager<MemoryStore, u32>,
    ms: u64,
    answered: HashSet<u32>,
    asked: u32,
}

impl Desk {
    fn new(store: MemoryStore) -> Self {
        let config = Config {
            session_timeout_ms: 60_000,
            lease_timeout_ms: 10_000,
            linger_ms: 1000,
            generation: 1,
            file_system: FileSystemId(7),
            new_era: false,
            draw: || 5,
        };
        let now = Timestamp::default();
        Self {
            manager: Manager::start(store, config, now).expect("a store in memory opens"),
            ms: 0,
            answered: HashSet::new(),
            asked: 0,
        }
    }

    fn take(&mut self, inputs: Vec<Input<u32>>) {
        let moment = Moment {
            now: Timestamp::default(),
            ms: self.ms,
        };
        let mut done = Vec::new();
        let (answered, asked) = (&mut self.answered, self.asked);
        self.manager
            .handle(inputs, moment, &mut |action| match action {
                Action::Reply(waiter, reply) => {
                    assert!(waiter <= asked && answered.insert(waiter), "answered twice");
                    // It fits a frame, or the client is told so.
                    let _ = encode(&reply);
                }
                Action::Notify { notice, .. } | Action::Announce(notice) => drop(encode(&notice)),
                Action::Work(work) => done.push(WorkDone {
                    object: work.object,
                    order: work.order,
                    failed: Vec::new(),
                    measured: Vec::new(),
                }),
                // The rim answers.
                Action::Backup(waiter, _) => assert!(answered.insert(waiter), "answered twice"),
                Action::IodIsAt(..) | Action::Expired(_) => {}
            })
            .expect("a store in memory does not fail");
        if !done.is_empty() {
            self.take(done.into_iter().map(Input::WorkDone).collect());
        }
    }

    fn ask(&mut self, client: u8, sequence: u64, operation: MgrOperation) {
        self.asked += 1;
        let request = MgrRequest {
            client: ClientId(u64::from(client) + 1),
            sequence,
            answered_below: 0,
            credentials: Credentials::ROOT,
            operation,
        };
        self.take(vec![Input::Request {
            waiter: self.asked,
            connection: client.into(),
            request: Box::new(request),
        }]);
    }
}

/// Operations of three clients on mgr, in any order and state: each is answered at most once, and the
/// store that is left can be taken over again.
///
/// An operation is a byte that says who asks and how, its length, and its body.
pub fn mgr(data: &[u8]) {
    let mut desk = Desk::new(MemoryStore::default());
    let report = pvfs::proto::report::IodReport::UNKNOWN;
    for (sequence, seal) in [(1, None), (2, Some(SEAL))] {
        let register = MgrOperation::RegisterIod {
            iod: seal.map(|_| IodId(1)),
            file_system: seal.map(|_| FileSystemId(7)),
            seal,
            incarnation: Incarnation(1),
            accepts_older: false,
            address: "iod:7000".to_owned(),
            report,
        };
        desk.ask(CLIENTS, sequence, register);
    }
    let mut rest = data;
    let mut sequence = 1;
    for _ in 0..OPERATIONS_MAX {
        let [how, length, after @ ..] = rest else {
            break;
        };
        let (body, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        let client = how % CLIENTS;
        if how & 0x80 != 0 {
            desk.ms += 3000;
            desk.take(vec![Input::Tick]);
        }
        if how & 0x40 != 0 {
            desk.take(vec![Input::Disconnected(client.into())]);
        }
        if let Ok(operation) = decode::<MgrOperation>(body) {
            // Some requests come again under the number of the last.
            sequence += u64::from(how & 0x20 == 0);
            let sequence = if operation.is_mutating() { sequence } else { 0 };
            desk.ask(client, sequence, operation);
        }
    }
    for _ in 0..3 {
        desk.ms += 61_000;
        desk.take(vec![Input::Tick]);
    }
    let mut after = Desk::new(desk.manager.into_store());
    after.ms = 61_000;
    after.take(vec![Input::Tick]);
}

/// The iod that is fuzzed: one for all inputs, as in life.
fn iod_address() -> SocketAddr {
    static SERVER: OnceLock<(Server, tempfile::TempDir)> = OnceLock::new();
    let (server, _) = SERVER.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        Store::create(directory.path()).expect("an empty directory");
        let store = Store::open(directory.path(), 64).expect("a store");
        let membership = Membership {
            iod: IodId(1),
            file_system: FileSystemId(7),
            seal: SEAL,
        };
        store.join(membership).expect("a number");
        store.admission().obey(OrderKey(1));
        store.admission().grant();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let limits = ServerLimits {
            insecure_ports: true,
            ..ServerLimits::default()
        };
        let server = Server::start(listener, Arc::new(store), limits).expect("a server");
        (server, directory)
    });
    server.address()
}

/// What an iod that hangs does not do in so long.
const IOD_TIMEOUT: Duration = Duration::from_secs(20);

fn exchange(bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(iod_address()).expect("the iod accepts");
    stream
        .set_read_timeout(Some(IOD_TIMEOUT))
        .expect("a timeout");
    // It may have closed the connection in the middle.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut replies = Vec::new();
    if let Err(error) = stream.read_to_end(&mut replies) {
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "it hangs"
        );
    }
    replies
}

fn frame(body: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader::new(FrameKind::IodRequest, 9, body, payload.len());
    [&header.to_bytes(), body, payload].concat()
}

/// A connection to an iod: raw bytes, or frames whose bodies and payloads are made up. The iod ends
/// the connection or answers, and serves the next one.
pub fn iod(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let bytes = match how % 4 {
        0 => data.to_vec(),
        _ => {
            let mut frames = Vec::new();
            let mut rest = data;
            while let [length, payload, after @ ..] = rest {
                let (body, after) = after.split_at(after.len().min(usize::from(*length)));
                let (payload, after) = after.split_at(after.len().min(usize::from(*payload)));
                frames.extend(frame(body, payload));
                rest = after;
            }
            frames
        }
    };
    exchange(&bytes);
    let ping = encode(&IodRequest::Ping).expect("it is short");
    let pong = exchange(&frame(&ping, &[]));
    assert!(pong.len() > HEADER_BYTES, "it does not answer any more");
}
