// SPDX-License-Identifier: MIT
//! The real program over loopback: frames, hostile peers, signals, kill -9.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pvfs::attr::Credentials;
use pvfs::error::FsError;
use pvfs::ids::{ClientId, FileSystemId, Incarnation, IodId, ROOT_INODE};
use pvfs::limits::HEARTBEAT_INTERVAL_MS;
use pvfs::name::Name;
use pvfs::proto::mgr::{Access, MgrOperation, MgrReply, MgrRequest, MgrResponse};
use pvfs::proto::peer::Peer;
use pvfs::proto::report::IodReport;
use pvfs::proto::seal::Seal;
use pvfs::wire::blocking::{frame_start, read_message};
use pvfs::wire::header::{FrameHeader, FrameKind};
use pvfs_mgr::store::lmdb::LmdbStore;
use tempfile::TempDir;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running pvfs-mgr, killed when it goes out of scope.
struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(data: &Path, listen: &str) -> Self {
        Self::start_with(data, listen, &[])
    }

    fn start_with(data: &Path, listen: &str, options: &[&str]) -> Self {
        let mut command = command(data, listen);
        let mut child = command
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.strip_prefix("ready ").expect(&line).trim().to_owned();
        Self { child, address }
    }

    fn connect(&self, client: u64) -> Client {
        Client::connect(&self.address, client).unwrap()
    }

    fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(data: &Path, listen: &str) -> Command {
    if !data.join("data.mdb").exists() {
        LmdbStore::create(data).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_pvfs-mgr"));
    command
        .arg("--data")
        .arg(data)
        .args(["--listen", listen, "--log", "warn", "--insecure-ports"]);
    command
}

/// A client without retries: one request at a time, or several written at once.
struct Client {
    stream: TcpStream,
    client: ClientId,
    sequence: u64,
    next_id: u64,
}

impl Client {
    fn connect(address: &str, client: u64) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            client: ClientId(client),
            sequence: 0,
            next_id: 1,
        })
    }

    fn request(&mut self, operation: MgrOperation) -> MgrRequest {
        let sequence = if operation.is_mutating() {
            self.sequence += 1;
            self.sequence
        } else {
            0
        };
        MgrRequest {
            client: self.client,
            sequence,
            answered_below: sequence,
            credentials: Credentials::ROOT,
            operation,
        }
    }

    fn write(&mut self, request: &MgrRequest) -> std::io::Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let frame = frame_start(FrameKind::MgrRequest, id, request, 0).unwrap();
        self.stream.write_all(&frame)?;
        Ok(id)
    }

    /// `None`: the connection is gone.
    fn read(&mut self) -> Option<(u64, MgrReply)> {
        let kind = FrameKind::MgrReply;
        let read = read_message::<MgrReply>(&mut self.stream, kind, &mut Vec::new());
        read.ok()
            .flatten()
            .map(|(header, reply)| (header.request_id, reply))
    }

    fn try_call(&mut self, operation: MgrOperation) -> Option<MgrReply> {
        let request = self.request(operation);
        let id = self.write(&request).ok()?;
        let (answered, reply) = self.read()?;
        assert_eq!(answered, id);
        Some(reply)
    }

    fn call(&mut self, operation: MgrOperation) -> MgrReply {
        self.try_call(operation).expect("a reply")
    }

    fn register_iod(&mut self) -> IodId {
        let report = IodReport::UNKNOWN;
        let mut held: Option<(IodId, FileSystemId, Seal)> = None;
        loop {
            let registered = self.call(MgrOperation::RegisterIod {
                iod: held.map(|(iod, ..)| iod),
                file_system: held.map(|(_, file_system, _)| file_system),
                seal: held.map(|(.., seal)| seal),
                incarnation: Incarnation(1),
                accepts_older: false,
                address: "127.0.0.1:9".to_owned(),
                report,
            });
            let Ok(MgrResponse::Registered {
                iod,
                file_system,
                seal,
                ..
            }) = registered
            else {
                panic!("{registered:?}")
            };
            if held.replace((iod, file_system, seal)) == Some((iod, file_system, seal)) {
                return iod;
            }
        }
    }

    /// Registers an iod that is alive as long as the daemon is.
    fn become_iod(mut self) {
        let iod = self.register_iod();
        std::thread::spawn(move || {
            let report = IodReport::UNKNOWN;
            let beat = MgrOperation::IodHeartbeat { iod, report };
            while self.try_call(beat.clone()).is_some() {
                std::thread::sleep(Duration::from_millis(HEARTBEAT_INTERVAL_MS));
            }
        });
    }

    fn hello(&mut self) {
        let hello = self.call(MgrOperation::Hello {
            number: 0,
            opens: vec![],
            leases: false,
            locks: vec![],
            more: false,
            news: false,
            peer: Peer::default(),
        });
        assert!(matches!(hello, Ok(MgrResponse::Hello(_))), "{hello:?}");
    }
}

fn create(name: &str) -> MgrOperation {
    MgrOperation::Create {
        parent: ROOT_INODE,
        name: Name::new(name.as_bytes()).unwrap(),
        mode: 0o644,
        umask: 0,
        exclusive: true,
        access: Access {
            read: true,
            write: true,
        },
    }
}

fn lookup(name: &str) -> MgrOperation {
    MgrOperation::Lookup {
        parent: ROOT_INODE,
        name: Some(Name::new(name.as_bytes()).unwrap()),
    }
}

fn names(client: &mut Client) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut after = 0;
    loop {
        let entries_max = 500;
        let operation = MgrOperation::ReadDirectory {
            inode: ROOT_INODE,
            after,
            until: None,
            entries_max,
            plus: false,
        };
        let Ok(MgrResponse::Entries { entries, end, .. }) = client.call(operation) else {
            panic!()
        };
        after = entries.last().map_or(after, |entry| entry.cookie);
        names.extend(entries.iter().map(|entry| entry.name.to_string()));
        if end {
            return names;
        }
    }
}

#[test]
fn serves_and_stops() {
    let data = TempDir::new().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::start(data.path(), "127.0.0.1:0");
        let mut client = daemon.connect(1);
        client.hello();
        let root = client.call(MgrOperation::GetAttr { inode: ROOT_INODE });
        assert!(matches!(root, Ok(MgrResponse::Attr(_))));
        assert!(daemon.signal(signal).success());
    }
}

#[test]
fn a_second_one_on_the_same_directory_says_so() {
    let data = TempDir::new().unwrap();
    let daemon = Daemon::start(data.path(), "127.0.0.1:0");
    let second = command(data.path(), "127.0.0.1:0").output().unwrap();
    assert!(!second.status.success());
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(
        message.contains("is in use by another pvfs-mgr"),
        "{message}"
    );
    let other = TempDir::new().unwrap();
    let second = command(other.path(), &daemon.address).output().unwrap();
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(
        message.contains("cannot listen on") && message.contains("--listen"),
        "{message}"
    );
}

#[test]
fn help_answers() {
    let output = Command::new(env!("CARGO_BIN_EXE_pvfs-mgr"))
        .arg("--help")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for option in [
        "--data",
        "--listen",
        "--metadata-bytes-max",
        "--session-timeout-ms",
        "--log",
    ] {
        assert!(text.contains(option), "{option}");
    }
}

/// The mount point of a disk that is not mounted is no new file system.
#[test]
fn an_empty_directory_becomes_a_file_system_only_when_told_to() {
    let scratch = TempDir::new().unwrap();
    let data = scratch.path().join("disk");
    std::fs::create_dir(&data).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_pvfs-mgr"))
            .args(["--data", data.to_str().unwrap()])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    };
    let (started, text) = run(&["--listen", "127.0.0.1:0"]);
    assert!(!started && text.contains("is its disk mounted?"), "{text}");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    let thesis = data.join("thesis.tex");
    std::fs::write(&thesis, "").unwrap();
    let (made, text) = run(&["--init"]);
    assert!(!made && text.contains("thesis.tex"), "{text}");
    std::fs::remove_file(&thesis).unwrap();
    assert!(run(&["--init"]).0);
    let (made, text) = run(&["--init"]);
    assert!(!made && text.contains("without --init"), "{text}");
}

#[test]
fn requests_are_pipelined() {
    let data = TempDir::new().unwrap();
    let daemon = Daemon::start(data.path(), "127.0.0.1:0");
    let mut client = daemon.connect(1);
    client.register_iod();
    let mut ids = BTreeSet::new();
    for n in 0..500 {
        let mut request = client.request(create(&format!("f{n}")));
        request.answered_below = 1;
        ids.insert(client.write(&request).unwrap());
    }
    while !ids.is_empty() {
        let (id, reply) = client.read().unwrap();
        assert!(reply.is_ok(), "{reply:?}");
        assert!(ids.remove(&id));
    }
    assert_eq!(names(&mut client).len(), 500);
}

#[test]
fn a_silent_client_is_disconnected_and_an_active_one_is_not() {
    let data = TempDir::new().unwrap();
    let timeout = Duration::from_millis(600);
    let options = ["--session-timeout-ms", "600"];
    let daemon = Daemon::start_with(data.path(), "127.0.0.1:0", &options);
    let (mut silent, mut active) = (daemon.connect(1), daemon.connect(2));
    silent.hello();
    active.hello();
    let stop = Arc::new(AtomicBool::new(false));
    let beating = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(active.call(MgrOperation::KeepAlive), Ok(MgrResponse::Done));
                std::thread::sleep(timeout / 6);
            }
            active
        })
    };
    assert_eq!(silent.read(), None, "the server ends the connection");
    stop.store(true, Ordering::Relaxed);
    let mut active = beating.join().unwrap();
    assert!(active.call(MgrOperation::StatFs).is_ok());
}

#[test]
fn hostile_peers_lose_their_connection_and_nobody_else_does() {
    let data = TempDir::new().unwrap();
    let daemon = Daemon::start(data.path(), "127.0.0.1:0");
    let mut good = daemon.connect(1);
    good.hello();
    let whole = {
        let request = good.request(MgrOperation::StatFs);
        frame_start(FrameKind::MgrRequest, 1, &request, 0).unwrap()
    };
    let with_payload = {
        let request = good.request(MgrOperation::StatFs);
        frame_start(FrameKind::MgrRequest, 1, &request, 5).unwrap()
    };
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let wrong_kind = {
        let header = FrameHeader::new(FrameKind::IodRequest, 1, &[], 0);
        header.to_bytes().to_vec()
    };
    let no_request = {
        let body = [0xff; 100];
        let header = FrameHeader::new(FrameKind::MgrRequest, 1, &body, 0);
        [&header.to_bytes()[..], &body].concat()
    };
    let http = b"GET / HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n".to_vec();
    for bad in [
        http,
        damaged,
        with_payload,
        wrong_kind,
        no_request,
        vec![0; 4096],
    ] {
        let mut stream = TcpStream::connect(&daemon.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&bad).unwrap();
        let mut rest = Vec::new();
        // The peer may also be reset, since it sent more than was read.
        if let Ok(count) = stream.read_to_end(&mut rest) {
            assert_eq!(count, 0, "no reply");
        }
    }
    // A frame that stops in the middle, at every byte.
    for cut in 0..whole.len() {
        let mut stream = TcpStream::connect(&daemon.address).unwrap();
        stream.write_all(&whole[..cut]).unwrap();
    }
    assert!(good.call(MgrOperation::StatFs).is_ok());
}

#[test]
fn kill_9_loses_no_acknowledged_create() {
    let data = TempDir::new().unwrap();
    let mut daemon = Daemon::start(data.path(), "127.0.0.1:0");
    daemon.connect(1000).become_iod();
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        let stop = Arc::new(AtomicBool::new(false));
        let created = Arc::new(Mutex::new(Vec::new()));
        let workers: Vec<_> = (0..16)
            .map(|worker| {
                let (stop, created) = (Arc::clone(&stop), Arc::clone(&created));
                let address = daemon.address.clone();
                std::thread::spawn(move || {
                    let mut client = Client::connect(&address, 1 + worker + 100 * round).unwrap();
                    for n in 0.. {
                        let name = format!("r{round}w{worker}n{n}");
                        match client.try_call(create(&name)) {
                            Some(reply) => {
                                assert!(reply.is_ok(), "{reply:?}");
                                created.lock().unwrap().push(name);
                            }
                            None => break,
                        }
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                })
            })
            .collect();
        let deadline = Instant::now() + PATIENCE;
        while created.lock().unwrap().len() < 300 {
            assert!(Instant::now() < deadline, "too slow");
            std::thread::sleep(Duration::from_millis(1));
        }
        daemon.signal(Signal::SIGKILL);
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().unwrap();
        }
        acknowledged.extend(created.lock().unwrap().drain(..));
        daemon = Daemon::start(data.path(), "127.0.0.1:0");
        let mut client = daemon.connect(2000 + round);
        let found = names(&mut client);
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let one = acknowledged.first().unwrap();
        assert!(client.call(lookup(one)).is_ok());
        assert_eq!(client.call(create(one)), Err(FsError::Exists));
        client.become_iod();
    }
}

#[test]
fn a_request_sent_again_after_kill_9_runs_once() {
    let data = TempDir::new().unwrap();
    let mut daemon = Daemon::start(data.path(), "127.0.0.1:0");
    let mut client = daemon.connect(5);
    client.register_iod();
    let request = client.request(create("f"));
    client.write(&request).unwrap();
    let (_, first) = client.read().unwrap();
    daemon.signal(Signal::SIGKILL);
    let daemon = Daemon::start(data.path(), "127.0.0.1:0");
    let mut again = daemon.connect(5);
    again.hello();
    again.write(&request).unwrap();
    let (_, second) = again.read().unwrap();
    assert_eq!(first, second);
    let iods = again.call(MgrOperation::ListIods);
    let Ok(MgrResponse::Iods(iods)) = iods else {
        panic!()
    };
    assert_eq!(
        iods.iter().map(|iod| iod.iod).collect::<Vec<_>>(),
        [IodId(1)]
    );
}
