//! The client against a small mgr in this process that loses replies and cuts connections.

use std::collections::VecDeque;
use std::io::Write as _;

use super::*;
use crate::attr::{SetAttr, Space};
use crate::client::session::tests::opened;
use crate::ids::{InodeNumber, OpenId};
use crate::proto::lease::NO_LEASE;
use crate::proto::mgr::{Access, HelloResponse, MgrRequest, Reopen};
use crate::proto::report::IodReport;
use crate::runtime::net::{TcpListener, TcpStream};
use crate::wire::blocking::{frame_start, read_message};
use crate::wire::header::FrameKind;

const WAIT: Duration = Duration::from_secs(10);
const ACCESS: Access = Access {
    read: true,
    write: true,
};

/// What the fake does with a request that is no greeting.
#[derive(Clone, Debug)]
enum Act {
    Reply(MgrReply),
    /// Carries it out but the reply is lost with the connection.
    CutBeforeReply,
    /// The connection ends within the reply's frame.
    CutWithinReply,
    /// Says nothing.
    Silence,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Vec<MgrRequest>,
    greetings: Vec<Vec<Reopen>>,
}

/// Serves one connection after another; takes its acts from a list, then answers `Done`.
struct FakeMgr {
    endpoint: Endpoint,
    seen: Arc<Mutex<Seen>>,
    file_system: Arc<Mutex<u128>>,
}

impl FakeMgr {
    fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::serve(listener, acts.into_iter().collect())
    }

    fn serve(listener: TcpListener, mut acts: VecDeque<Act>) -> Self {
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let file_system = Arc::new(Mutex::new(77));
        let fake = Self {
            endpoint: Endpoint {
                host: "127.0.0.1".into(),
                port,
            },
            seen: Arc::clone(&seen),
            file_system: Arc::clone(&file_system),
        };
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let id = *file_system.lock().unwrap();
                serve_connection(&stream, &mut acts, &seen, FileSystemId(id));
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        });
        fake
    }

    fn client(&self) -> MgrClient {
        let client = MgrClient::start(self.endpoint.clone(), ClientOptions::default()).unwrap();
        client.wait_ready(WAIT).unwrap();
        client
    }

    /// Sequence numbers of the mutating requests, in the order in which they came.
    fn sequences(&self) -> Vec<u64> {
        let seen = self.seen.lock().unwrap();
        seen.requests
            .iter()
            .map(|r| r.sequence)
            .filter(|&sequence| sequence > 0)
            .collect()
    }
}

fn serve_connection(
    mut stream: &TcpStream,
    acts: &mut VecDeque<Act>,
    seen: &Mutex<Seen>,
    file_system: FileSystemId,
) {
    let mut scratch = Vec::new();
    while let Ok(Some((header, request))) =
        read_message::<MgrRequest>(&mut stream, FrameKind::MgrRequest, &mut scratch)
    {
        let act = match &request.operation {
            MgrOperation::Hello { opens, .. } => {
                seen.lock().unwrap().greetings.push(opens.clone());
                let iods = vec![IodStatus {
                    iod: IodId(3),
                    address: "node3:7000".into(),
                    incarnation: Incarnation(1),
                    state: IodState::Alive,
                    state_ms: 0,
                    report: IodReport {
                        space: Space::default(),
                        inodes_total: 0,
                        inodes_free: 0,
                        writable: true,
                        disk: None,
                    },
                }];
                let hello = HelloResponse {
                    file_system,
                    session_timeout_ms: 600,
                    lease_timeout_ms: 600,
                    iods,
                    locks_lost: vec![],
                };
                Act::Reply(Ok(MgrResponse::Hello(hello)))
            }
            MgrOperation::KeepAlive => Act::Reply(Ok(MgrResponse::Done)),
            _ => {
                seen.lock().unwrap().requests.push(request);
                acts.pop_front()
                    .unwrap_or(Act::Reply(Ok(MgrResponse::Done)))
            }
        };
        let reply = |reply: &MgrReply| {
            frame_start(FrameKind::MgrReply, header.request_id, reply, 0).unwrap()
        };
        match act {
            Act::Reply(message) => stream.write_all(&reply(&message)).unwrap(),
            Act::Silence => {}
            Act::CutBeforeReply => return,
            Act::CutWithinReply => {
                let frame = reply(&Ok(MgrResponse::Done));
                stream.write_all(&frame[..frame.len() - 1]).unwrap();
                return;
            }
        }
    }
}

fn unlink() -> MgrOperation {
    let name = crate::name::Name::new(*b"f").unwrap();
    MgrOperation::Unlink {
        parent: InodeNumber(1),
        name,
    }
}

fn open() -> MgrOperation {
    MgrOperation::Open {
        inode: InodeNumber(7),
        access: ACCESS,
        truncate: false,
    }
}

#[test]
fn a_call_is_answered_and_the_welcome_is_kept() {
    let fake = FakeMgr::start([Act::Reply(Err(FsError::NotEmpty))]);
    let client = fake.client();
    assert_eq!(
        client.call(&Credentials::ROOT, unlink()),
        Err(FsError::NotEmpty)
    );
    assert_eq!(
        client.call(&Credentials::ROOT, unlink()),
        Ok(MgrResponse::Done)
    );
    let welcome = client.welcome().unwrap();
    assert_eq!(welcome.file_system, FileSystemId(77));
    assert_eq!(
        client.iod_endpoint(IodId(3)).unwrap().to_string(),
        "node3:7000"
    );
    assert_eq!(client.iod_endpoint(IodId(4)), None);
}

#[test]
fn a_mutation_whose_reply_is_lost_comes_again_under_its_number() {
    for cut in [Act::CutBeforeReply, Act::CutWithinReply] {
        let fake = FakeMgr::start([cut.clone(), cut]);
        let client = fake.client();
        assert_eq!(
            client.call(&Credentials::ROOT, unlink()),
            Ok(MgrResponse::Done)
        );
        assert_eq!(fake.sequences(), [1, 1, 1]);
        assert_eq!(
            client.call(&Credentials::ROOT, unlink()),
            Ok(MgrResponse::Done)
        );
        assert_eq!(fake.sequences(), [1, 1, 1, 2]);
        assert_eq!(fake.seen.lock().unwrap().requests[3].answered_below, 2);
        assert_eq!(fake.seen.lock().unwrap().greetings.len(), 3);
    }
}

#[test]
fn a_connection_on_which_mgr_falls_silent_is_given_up() {
    // The first connection is welcomed and then neither read nor closed, as when a host vanishes.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (first, held) = std::sync::mpsc::channel();
    let silent = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = &stream;
        let (header, _): (_, MgrRequest) =
            read_message(&mut reader, FrameKind::MgrRequest, &mut Vec::new())
                .unwrap()
                .unwrap();
        let file_system = FileSystemId(77);
        let hello = HelloResponse {
            file_system,
            session_timeout_ms: 300,
            lease_timeout_ms: 300,
            iods: Vec::new(),
            locks_lost: vec![],
        };
        let reply: MgrReply = Ok(MgrResponse::Hello(hello));
        let frame = frame_start(FrameKind::MgrReply, header.request_id, &reply, 0).unwrap();
        (&stream).write_all(&frame).unwrap();
        first.send(stream).unwrap();
        listener
    });
    let endpoint = Endpoint {
        host: "127.0.0.1".into(),
        port: address.port(),
    };
    let client = MgrClient::start(endpoint, ClientOptions::default()).unwrap();
    client.wait_ready(WAIT).unwrap();
    let _open_but_silent = held.recv().unwrap();
    let fake = FakeMgr::serve(silent.join().unwrap(), VecDeque::new());
    assert_eq!(
        client.call(&Credentials::ROOT, unlink()),
        Ok(MgrResponse::Done)
    );
    assert_eq!(fake.sequences(), [1]);
    drop(client);
}

#[test]
fn opens_are_declared_anew() {
    let acts = [
        Act::Reply(opened(5)),
        Act::Reply(opened(6)),
        Act::CutBeforeReply,
    ];
    let fake = FakeMgr::start(acts);
    let client = fake.client();
    for _ in 0..2 {
        client.call(&Credentials::ROOT, open()).unwrap();
    }
    let close = MgrOperation::Close {
        inode: InodeNumber(7),
        open: OpenId(5),
        lease: NO_LEASE,
    };
    client.call(&Credentials::ROOT, close).unwrap();
    let seen = fake.seen.lock().unwrap();
    let held = Reopen {
        inode: InodeNumber(7),
        open: OpenId(6),
        access: ACCESS,
    };
    assert_eq!(seen.greetings, [vec![], vec![held]]);
}

#[test]
fn what_mgr_cannot_do_yet_is_asked_again_under_a_new_number() {
    let fake = FakeMgr::start([Act::Reply(Err(FsError::TryAgain)), Act::Reply(opened(1))]);
    let client = fake.client();
    assert_eq!(client.call(&Credentials::ROOT, open()), opened(1));
    assert_eq!(fake.sequences(), [1, 2]);
}

#[test]
fn a_deadline_ends_a_call_and_says_why() {
    let fake = FakeMgr::start([Act::Silence]);
    let options = ClientOptions {
        deadline: Some(Duration::from_millis(200)),
        ..ClientOptions::default()
    };
    let client = MgrClient::start(fake.endpoint.clone(), options.clone()).unwrap();
    client.wait_ready(WAIT).unwrap();
    assert_eq!(
        client.call(&Credentials::ROOT, unlink()),
        Err(FsError::TryAgain)
    );

    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let endpoint = Endpoint {
        host: "127.0.0.1".into(),
        port: closed,
    };
    let client = MgrClient::start(endpoint, options).unwrap();
    assert_eq!(
        client.call(&Credentials::ROOT, unlink()),
        Err(FsError::TryAgain)
    );
    assert!(client.failure().unwrap().contains("refused"));
    let unreachable = client.wait_ready(Duration::from_millis(50)).unwrap_err();
    assert!(
        unreachable
            .to_string()
            .contains("try `pvfs ping 127.0.0.1:"),
        "{unreachable}"
    );
}

#[test]
fn another_file_system_is_never_written_to() {
    let fake = FakeMgr::start([Act::Reply(Ok(MgrResponse::Done)), Act::CutBeforeReply]);
    let client = fake.client();
    client.call(&Credentials::ROOT, unlink()).unwrap();
    *fake.file_system.lock().unwrap() = 78;
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call(&Credentials::ROOT, unlink()));
        let deadline = Instant::now() + WAIT;
        while !client
            .failure()
            .is_some_and(|why| why.contains("another file system"))
        {
            assert!(Instant::now() < deadline, "{:?}", client.failure());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(fake.sequences(), [1, 2]);
        *fake.file_system.lock().unwrap() = 77;
        assert_eq!(call.join().unwrap(), Ok(MgrResponse::Done));
    });
    assert_eq!(fake.sequences(), [1, 2, 2]);
}

#[test]
fn many_threads_share_the_connection_and_each_mutation_arrives_in_full() {
    const THREADS: u32 = 8;
    const CALLS: u32 = 200;
    let mut acts = VecDeque::new();
    for round in 0..THREADS * CALLS {
        let cut = round % 97 == 50;
        acts.push_back(if cut {
            Act::CutWithinReply
        } else {
            Act::Reply(Ok(MgrResponse::Done))
        });
    }
    let fake = FakeMgr::start(acts);
    let client = fake.client();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let client = &client;
            scope.spawn(move || {
                for call in 0..CALLS {
                    let set = SetAttr {
                        uid: Some(thread),
                        gid: Some(call),
                        ..SetAttr::default()
                    };
                    let inode = InodeNumber(1);
                    let operation = MgrOperation::SetAttr {
                        inode,
                        set,
                        open: None,
                    };
                    assert_eq!(
                        client.call(&Credentials::ROOT, operation),
                        Ok(MgrResponse::Done)
                    );
                }
            });
        }
    });
    // Whatever came more than once came under the number and with the content of the first time.
    let mut by_number = std::collections::BTreeMap::new();
    for request in &fake.seen.lock().unwrap().requests {
        let first = by_number
            .entry(request.sequence)
            .or_insert_with(|| request.operation.clone());
        assert_eq!(*first, request.operation);
    }
    let numbers: Vec<u64> = by_number.keys().copied().collect();
    assert_eq!(
        numbers,
        (1..=u64::from(THREADS * CALLS)).collect::<Vec<_>>()
    );
}
