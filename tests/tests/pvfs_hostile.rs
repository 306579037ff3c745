// SPDX-License-Identifier: MIT
//! Hostile and outdated peers at mgr's and an iod's ports, beside a mount that works on.
//!
//! ```text
//!   mount0 (127.0.0.1) ---+--- mgr, iods
//!   attacker (127.0.66.x) +
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options, Who};
use cssns_tests::pvfs_peer::{
    attacker, call, connect_from, forged, frame, hello, request, until_the_end,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pvfs::error::FsError;
use pvfs::ids::{FileSystemId, Incarnation, InodeNumber, IodId, ObjectId, OpenId, ROOT_INODE};
use pvfs::layout::LayoutSlot;
use pvfs::name::Name;
use pvfs::proto::iod::{Change, IodReply, IodRequest, IodResponse, StripeRef};
use pvfs::proto::mgr::{Access, Doubt, MgrOperation, MgrResponse, RenameMode, Reopen};
use pvfs::proto::peer::Peer;
use pvfs::proto::report::IodReport;
use pvfs::proto::seal::{OrderKey, Reign, Seal};
use pvfs::wire::blocking::{read_message, write_message};
use pvfs::wire::codec::encode;
use pvfs::wire::header::{FrameHeader, FrameKind, HEADER_BYTES, VERSION};

/// A daemon may need so much more memory under attack, KiB: its own limits are below.
const MEMORY_KIB_MAX: u64 = 160 << 10;

fn cluster() -> Cluster {
    Cluster::start(Options {
        iods: 2,
        // Ordinary users can be hostile too, and more of them than there are reserved ports.
        insecure_ports: true,
        ..Options::default()
    })
    .unwrap()
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_ascii_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

/// A user of the mount, who goes on while it is attacked.
struct User {
    /// How long each round took.
    rounds: Receiver<Duration>,
    thread: thread::JoinHandle<()>,
}

impl User {
    fn start(mount: &Path) -> Self {
        let (done, rounds) = channel();
        let dir = mount.join("user");
        fs::create_dir_all(&dir).unwrap();
        let thread = thread::spawn(move || {
            for round in 0u64.. {
                let start = Instant::now();
                let path = dir.join(format!("f{round}"));
                fs::write(&path, round.to_le_bytes()).unwrap();
                assert_eq!(fs::read(&path).unwrap(), round.to_le_bytes());
                fs::remove_file(&path).unwrap();
                if done.send(start.elapsed()).is_err() {
                    return;
                }
            }
        });
        Self { rounds, thread }
    }

    /// Returns when so many more rounds are done; no round may take long.
    fn is_served(&self, more: usize) {
        let before: Vec<Duration> = self.rounds.try_iter().collect();
        let during = (0..more).map(|_| self.rounds.recv().unwrap());
        let slowest = before.into_iter().chain(during).max().unwrap();
        eprintln!("the mount did {more} rounds, the slowest in {slowest:?}");
        assert!(
            slowest < Duration::from_secs(10),
            "a round took {slowest:?}"
        );
    }

    fn finish(self) {
        self.is_served(1);
        drop(self.rounds);
        self.thread.join().unwrap();
    }
}

fn allow_many_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

fn stripe(inode: u64) -> StripeRef {
    StripeRef {
        object: object(inode),
        place: LayoutSlot::default(),
    }
}

fn object(inode: u64) -> ObjectId {
    ObjectId {
        inode: InodeNumber(inode),
        generation: 0,
    }
}

/// The generation of a file, by the names of its local files.
fn generation_of(cluster: &Cluster, path: &Path) -> u32 {
    let inode = fs::metadata(path).unwrap().ino();
    let hash = cluster
        .iod_data(0)
        .join(format!("objects/{:02x}", inode % 256));
    let other = cluster
        .iod_data(1)
        .join(format!("objects/{:02x}", inode % 256));
    let prefix = format!("{inode:016x}.");
    let names = [hash, other]
        .into_iter()
        .flat_map(|path| fs::read_dir(path).unwrap());
    let found = names.filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let generation = name.strip_prefix(&prefix)?.get(..8)?;
        u32::from_str_radix(generation, 16).ok()
    });
    found.max().unwrap()
}

fn iod_frame(request: &IodRequest, payload: &[u8]) -> Vec<u8> {
    frame(FrameKind::IodRequest, 5, &encode(request).unwrap(), payload)
}

/// The first change of a session at the iod.
fn open_session(iod: &str) -> Change {
    let mut stream = connect_from(attacker(4), iod).unwrap();
    let kind = FrameKind::IodRequest;
    write_message(&mut stream, kind, 1, &IodRequest::OpenSession, &[]).unwrap();
    let answer = read_message(&mut stream, FrameKind::IodReply, &mut Vec::new()).unwrap();
    let Some((_, Ok(IodResponse::Session(session)))): Option<(FrameHeader, IodReply)> = answer
    else {
        panic!("{answer:?}")
    };
    Change {
        session,
        slot: 0,
        sequence: 1,
    }
}

#[test]
fn ten_thousand_connections_take_little_and_keep_nobody_out() {
    const CONNECTIONS: usize = 10_000;
    allow_many_descriptors();
    let cluster = cluster();
    let user = User::start(&cluster.mount(0));
    for (who, address) in [
        (Who::Mgr, cluster.mgr_address().to_owned()),
        (Who::Iod(0), cluster.iod_address(0).unwrap().to_owned()),
    ] {
        let pid = cluster.pid(who).unwrap();
        let before = resident(pid);
        let held: Vec<TcpStream> = (0..CONNECTIONS)
            .map(|_| connect_from(attacker(1), &address).unwrap())
            .collect();
        let grown = resident(pid).saturating_sub(before);
        eprintln!("{who:?} took {grown} KiB for {CONNECTIONS} connections");
        assert!(grown < MEMORY_KIB_MAX, "{who:?} took {grown} KiB");
        // A newcomer from elsewhere is let in meanwhile.
        cluster.use_another_mount().unwrap();
        user.is_served(20);
        drop(held);
    }
    user.finish();
    cluster.finish().unwrap();
}

#[test]
fn peers_that_dribble_are_bounded_and_disturb_nobody() {
    let cluster = cluster();
    let user = User::start(&cluster.mount(0));
    let mgr = cluster.mgr_address().to_owned();
    let iod = cluster.iod_address(0).unwrap().to_owned();
    let pids = [
        cluster.pid(Who::Mgr).unwrap(),
        cluster.pid(Who::Iod(0)).unwrap(),
    ];
    let before = pids.map(resident);
    let body = vec![0; pvfs::limits::BODY_BYTES_MAX];
    let to_mgr = frame(FrameKind::MgrRequest, 1, &body, &[]);
    let write = IodRequest::Write {
        stripe: stripe(1 << 60),
        offset: 0,
        fence: 0,
        change: open_session(&iod),
    };
    let to_iod = iod_frame(&write, &vec![1; pvfs::limits::PAYLOAD_BYTES_MAX]);
    let mut dribbling = Vec::new();
    for number in 0..240 {
        let mut stream = connect_from(attacker(2), &mgr).unwrap();
        // All but the last byte of the largest body, or a part of a header.
        let sent = if number % 2 == 0 { to_mgr.len() - 1 } else { 7 };
        // Beyond its memory mgr reads no more from that address, and the rest does not fit the socket.
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write(&to_mgr[..sent]);
        dribbling.push(stream);
        let mut stream = connect_from(attacker(2), &iod).unwrap();
        stream.set_nonblocking(true).unwrap();
        let sent = if number % 2 == 0 { to_iod.len() - 1 } else { 7 };
        let _ = stream.write(&to_iod[..sent]);
        dribbling.push(stream);
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        for (number, stream) in dribbling.iter_mut().enumerate() {
            let bytes = if number % 2 == 0 { &to_mgr } else { &to_iod };
            let _ = stream.write(&bytes[7..8]);
        }
        thread::sleep(Duration::from_millis(50));
    }
    for (pid, before) in pids.into_iter().zip(before) {
        let grown = resident(pid).saturating_sub(before);
        eprintln!("process {pid} took {grown} KiB for peers that dribble");
        assert!(grown < MEMORY_KIB_MAX, "{grown} KiB");
    }
    user.is_served(20);
    drop(dribbling);
    user.finish();
    cluster.finish().unwrap();
}

#[test]
fn claims_and_strangers_end_their_own_connection_only() {
    let cluster = cluster();
    let user = User::start(&cluster.mount(0));
    let mgr = cluster.mgr_address().to_owned();
    let iod = cluster.iod_address(0).unwrap().to_owned();
    let to_mgr = request(99, 0, MgrOperation::KeepAlive).unwrap();
    let to_iod = iod_frame(&IodRequest::Ping, &[]);
    for (address, good) in [(&mgr, &to_mgr), (&iod, &to_iod)] {
        let length = u32::try_from(good.len() - HEADER_BYTES).unwrap();
        for bad in [
            forged(good, VERSION, u32::MAX, 0),
            forged(good, VERSION, 1_000_000_000, 0),
            forged(good, VERSION, length, u32::MAX),
            forged(good, VERSION, length, 1 << 20),
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n................".to_vec(),
            vec![0; 64],
            [&good[..HEADER_BYTES], &vec![0xff; good.len()]].concat(),
        ] {
            let mut stream = connect_from(attacker(3), address).unwrap();
            // It may be gone before all of it is written.
            let _ = stream.write_all(&bad);
            assert_eq!(until_the_end(&mut stream).unwrap(), b"", "{bad:?}");
        }
    }
    let mut two = connect_from(attacker(3), &mgr).unwrap();
    assert!(
        call(&mut two, &request(77, 0, hello()).unwrap())
            .unwrap()
            .is_ok()
    );
    two.write_all(&request(78, 0, hello()).unwrap()).unwrap();
    assert_eq!(until_the_end(&mut two).unwrap(), b"", "it speaks for two");
    user.finish();
    cluster.finish().unwrap();
}

/// Each is answered or ends its connection; the mount and its files are as they were.
#[test]
fn requests_out_of_place_change_nothing_of_others() {
    let cluster = cluster();
    let kept = cluster.mount(0).join("kept");
    fs::write(&kept, b"content").unwrap();
    let user = User::start(&cluster.mount(0));
    let mgr = cluster.mgr_address().to_owned();
    let (inode, open) = (InodeNumber(u64::MAX), OpenId(u64::MAX));
    let both = Access {
        read: true,
        write: true,
    };
    let report = IodReport::UNKNOWN;
    let register = |iod, file_system, address: &str| MgrOperation::RegisterIod {
        iod,
        file_system,
        seal: None,
        incarnation: Incarnation(5),
        accepts_older: false,
        address: address.to_owned(),
        report,
    };
    let ours = match call(
        &mut connect_from(attacker(4), &mgr).unwrap(),
        &request(999, 0, hello()).unwrap(),
    ) {
        Ok(Ok(MgrResponse::Hello(hello))) => hello.file_system,
        other => panic!("{other:?}"),
    };
    let forged = Seal {
        reign: Reign {
            era: u32::MAX,
            starts: u32::MAX,
            nonce: 1,
        },
        number: u64::MAX,
        secret: 1,
    };
    // Numbers that nobody was given, and iods that somebody else is.
    for number in [1, 2, 3, 77, u32::MAX - 2, u32::MAX - 1, u32::MAX] {
        for seal in [None, Some(forged)] {
            let mut operation = register(Some(IodId(number)), Some(ours), "127.0.0.1:1");
            if let MgrOperation::RegisterIod { seal: held, .. } = &mut operation {
                *held = seal;
            }
            let mut stream = connect_from(attacker(4), &mgr).unwrap();
            let client = 100_000 + u64::from(number) * 2 + u64::from(seal.is_some());
            let answer = call(&mut stream, &request(client, 1, operation).unwrap()).unwrap();
            let refused = Err(FsError::Superseded) == answer || Err(FsError::Deposed) == answer;
            assert!(refused, "iod {number} with {seal:?}: {answer:?}");
        }
    }
    let operations = [
        MgrOperation::Close {
            inode,
            open,
            lease: u64::MAX,
        },
        MgrOperation::Report {
            inode: InodeNumber(2),
            size_min: u64::MAX,
            modified: true,
            open,
            known_change: 0,
            allocated: Some(u64::MAX),
            filled: u64::MAX,
            doubt: Some(Doubt::Torn),
        },
        MgrOperation::Acknowledge {
            recalls: (0..1000).collect(),
        },
        MgrOperation::GiveBack {
            leases: (0..1000).map(|n| (InodeNumber(n), n)).collect(),
        },
        MgrOperation::ReadDirectory {
            inode: ROOT_INODE,
            after: u64::MAX,
            until: Some(u64::MAX),
            entries_max: u32::MAX,
            plus: true,
        },
        MgrOperation::Open {
            inode,
            access: both,
            truncate: true,
        },
        MgrOperation::Hello {
            number: 0,
            opens: (0..1000)
                .map(|n| Reopen {
                    inode: InodeNumber(n),
                    open: OpenId(n << 32),
                    access: both,
                })
                .collect(),
            leases: true,
            locks: Vec::new(),
            more: false,
            news: true,
            peer: Peer {
                host: "\u{1b}[2J".repeat(1 << 16),
                ..Peer::default()
            },
        },
        MgrOperation::IodHeartbeat {
            iod: IodId(u32::MAX),
            report,
        },
        register(None, Some(FileSystemId(0)), "127.0.0.1:1"),
        register(Some(IodId(u32::MAX)), None, "127.0.0.1:1"),
        register(Some(IodId(1)), Some(FileSystemId(u128::MAX)), "127.0.0.1:1"),
        register(None, None, &"a".repeat(100_000)),
        register(None, None, "no address"),
        MgrOperation::Rename {
            parent: inode,
            name: Name::new(*b"a").unwrap(),
            new_parent: ROOT_INODE,
            new_name: Name::new(*b"kept").unwrap(),
            mode: RenameMode::Exchange,
        },
        MgrOperation::Goodbye,
    ];
    for (number, operation) in operations.into_iter().enumerate() {
        for sequence in [0, 1, u64::MAX - 1] {
            let mut stream = connect_from(attacker(4), &mgr).unwrap();
            let client = 1000 + number as u64;
            let sent = request(client, sequence, operation.clone()).unwrap();
            let _answer = call(&mut stream, &sent).unwrap();
        }
    }
    let iod = cluster.iod_address(0).unwrap().to_owned();
    let change = open_session(&iod);
    let key = OrderKey(0);
    let kept_stripe = StripeRef {
        object: ObjectId {
            inode: InodeNumber(fs::metadata(&kept).unwrap().ino()),
            generation: generation_of(&cluster, &kept),
        },
        place: LayoutSlot::default(),
    };
    // Orders that are not mgr's: one large number would make the file unwritable for good.
    for order in [
        IodRequest::Truncate {
            stripe: kept_stripe,
            length: 0,
            fence: u64::MAX - 1,
            number: u64::MAX - 1,
            change,
            key,
        },
        IodRequest::Fence {
            stripe: kept_stripe,
            fence: u64::MAX - 1,
            number: u64::MAX - 1,
            key,
        },
        IodRequest::Remove {
            object: kept_stripe.object,
            key,
        },
    ] {
        for number in 0..2 {
            let iod = cluster.iod_address(number).unwrap();
            let mut stream = connect_from(attacker(4), iod).unwrap();
            stream.write_all(&iod_frame(&order, &[])).unwrap();
            let kind = FrameKind::IodReply;
            let answer = read_message::<IodReply>(&mut stream, kind, &mut Vec::new()).unwrap();
            let answer = answer.map(|(_, reply)| reply);
            assert_eq!(answer, Some(Err(FsError::Deposed)), "{order:?}");
        }
    }
    for request in [
        IodRequest::Read {
            stripe: stripe(u64::MAX),
            offset: u64::MAX,
            length: u32::MAX,
            filled: u64::MAX,
        },
        IodRequest::Truncate {
            stripe: stripe(u64::MAX),
            length: u64::MAX,
            fence: u64::MAX,
            number: u64::MAX,
            change,
            key,
        },
        IodRequest::Write {
            stripe: stripe(u64::MAX),
            offset: u64::MAX,
            fence: u64::MAX,
            change: Change {
                sequence: u64::MAX,
                ..change
            },
        },
        IodRequest::OpenSession,
        IodRequest::Settle {
            change: Change {
                slot: u32::MAX,
                ..change
            },
        },
        IodRequest::Sync {
            stripe: stripe(u64::MAX),
        },
        IodRequest::Stat {
            object: object(u64::MAX),
        },
    ] {
        let mut stream = connect_from(attacker(4), &iod).unwrap();
        let payload: &[u8] = match request {
            IodRequest::Write { .. } => b"payload",
            _ => &[],
        };
        stream.write_all(&iod_frame(&request, payload)).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = until_the_end(&mut stream).unwrap();
        assert!(answer.len() > HEADER_BYTES, "{request:?}");
    }
    assert_eq!(fs::read(&kept).unwrap(), b"content");
    fs::write(&kept, b"other content").unwrap();
    assert_eq!(fs::read(&kept).unwrap(), b"other content");
    user.finish();
    cluster.finish().unwrap();
}

/// A request that was heard on the wire and is sent again by somebody else is answered as it was, and
/// is not done again.
#[test]
fn a_replayed_request_is_not_done_again() {
    let cluster = cluster();
    let mgr = cluster.mgr_address().to_owned();
    let name = |text: &str| Name::new(text.as_bytes().to_vec()).unwrap();
    let make = MgrOperation::Symlink {
        parent: ROOT_INODE,
        name: name("link"),
        target: b"t".to_vec(),
    };
    let unlink = MgrOperation::Unlink {
        parent: ROOT_INODE,
        name: name("link"),
    };
    let mut first = connect_from(attacker(5), &mgr).unwrap();
    for (sequence, operation) in [(0, hello()), (1, make.clone()), (2, unlink.clone())] {
        let sent = request(4711, sequence, operation).unwrap();
        assert!(call(&mut first, &sent).unwrap().is_ok());
    }
    let again = request(4711, 3, make).unwrap();
    let made = call(&mut first, &again).unwrap();
    assert!(matches!(made, Ok(MgrResponse::Attr(_))));
    let mut other = connect_from(attacker(6), &mgr).unwrap();
    let replayed = request(4711, 2, unlink).unwrap();
    assert_eq!(call(&mut other, &replayed).unwrap(), Ok(MgrResponse::Done));
    assert!(
        fs::symlink_metadata(cluster.mount(0).join("link")).is_ok(),
        "it was unlinked once more"
    );
    assert_eq!(call(&mut other, &again).unwrap(), made);
    cluster.finish().unwrap();
}

/// docs/WIRE.md, "Versions".
#[test]
fn peers_of_another_version_are_told_which_one_this_is() {
    let cluster = cluster();
    let mgr = cluster.mgr_address().to_owned();
    let iod = cluster.iod_address(0).unwrap().to_owned();
    let to_mgr = request(55, 0, hello()).unwrap();
    let to_iod = iod_frame(&IodRequest::Ping, &[]);
    for (address, good, kind) in [
        (&mgr, &to_mgr, FrameKind::MgrReply),
        (&iod, &to_iod, FrameKind::IodReply),
    ] {
        for version in [1, 2, VERSION + 1, u16::MAX] {
            let length = u32::try_from(good.len() - HEADER_BYTES).unwrap();
            let mut stream = connect_from(attacker(7), address).unwrap();
            stream.write_all(&forged(good, version, length, 0)).unwrap();
            let answer = until_the_end(&mut stream).unwrap();
            let header = FrameHeader::parse(answer.first_chunk().unwrap()).unwrap();
            assert_eq!((header.kind, header.request_id), (kind, 0));
            let body = &answer[HEADER_BYTES..];
            assert_eq!(body, encode(&Err::<(), _>(FsError::Protocol)).unwrap());
        }
        // Those of the right version are served on.
        let mut stream = connect_from(attacker(7), address).unwrap();
        stream.write_all(good).unwrap();
        let mut answer = [0; HEADER_BYTES];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(FrameHeader::parse(&answer).unwrap().kind, kind);
    }
    cluster.finish().unwrap();
}

/// A mgr of the future, as far as today's programs can tell: it answers with its version.
fn future_mgr() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let body = encode(&Err::<(), _>(FsError::Protocol)).unwrap();
            let reply = frame(FrameKind::MgrReply, 0, &body, &[]);
            let length = u32::try_from(body.len()).unwrap();
            // It ends the connection when the peer has seen it and gone.
            let _ = stream.write_all(&forged(&reply, VERSION + 6, length, 0));
            let _ = until_the_end(&mut stream);
        }
    });
    address
}

#[test]
fn programs_that_meet_a_newer_mgr_say_so() {
    let mgr = future_mgr();
    let dir = tempfile::tempdir().unwrap();
    let expected = format!("peer speaks protocol version {}", VERSION + 6);
    let output = Command::new(programs::find("pvfs-fuse").unwrap())
        .arg(format!("{mgr}:/"))
        .arg(dir.path())
        .args(["-f", "-o", "mount_timeout=2"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains(&expected),
        "{text}"
    );
    let output = Command::new(programs::find("pvfs").unwrap())
        .args(["df", &mgr])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains(&expected),
        "{text}"
    );
    let log = dir.path().join("log");
    programs::make_data("pvfs-iod", &dir.path().join("iod")).unwrap();
    let mut iod = Command::new(programs::find("pvfs-iod").unwrap())
        .arg("--data")
        .arg(dir.path().join("iod"))
        .args(["--mgr", &mgr, "--listen", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !fs::read_to_string(&log).unwrap().contains(&expected) {
        let text = fs::read_to_string(&log).unwrap();
        assert!(start.elapsed() < Duration::from_secs(60), "{text}");
        thread::sleep(Duration::from_millis(20));
    }
    iod.kill().unwrap();
    iod.wait().unwrap();
}
