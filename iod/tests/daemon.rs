// SPDX-License-Identifier: MIT
//! The real program: its command line, its life with mgr, and its death by kill -9.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::{FILE_SYSTEM, FakeMgr, SEAL, TEST_TIMEOUT, Table, object, pattern, place};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pvfs::address::Endpoint;
use pvfs::client::iod::{IodConnection, IodError};
use pvfs::client::patience::Patience;
use pvfs::client::pool::IodPool;
use pvfs::client::striped;
use pvfs::error::FsError;
use pvfs::ids::{FileSystemId, IodId};
use pvfs::layout::Layout;
use pvfs::proto::iod::{IodRequest, IodResponse};
use pvfs::proto::mgr::MgrOperation;
use pvfs_iod::store::Store;

/// A running pvfs-iod; killed when it is dropped.
struct Daemon {
    child: Child,
    lines: mpsc::Receiver<String>,
    log: mpsc::Receiver<String>,
}

fn lines(from: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // The daemon's output goes on, whether or not the test still listens.
            let _ = sender.send(line);
        }
    });
    receiver
}

impl Daemon {
    fn start(data: &Path, mgr: SocketAddr, listen: &str, more: &[&str]) -> Self {
        if !data.join("identity").exists() {
            Store::create(data).unwrap();
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_pvfs-iod"))
            .arg("--data")
            .arg(data)
            .args(["--mgr", &mgr.to_string(), "--listen", listen])
            .arg("--insecure-ports")
            .args(more)
            .env_remove("PVFS_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = lines(child.stdout.take().unwrap());
        let log = lines(child.stderr.take().unwrap());
        Self {
            child,
            lines: output,
            log,
        }
    }

    /// Waits for the line `ready ADDR:PORT`.
    fn ready(&self) -> SocketAddr {
        let line = self.lines.recv_timeout(TEST_TIMEOUT).unwrap();
        line.strip_prefix("ready ").unwrap().parse().unwrap()
    }

    /// Waits for a line of the log.
    fn logs(&self, part: &str) {
        while !self.log.recv_timeout(TEST_TIMEOUT).unwrap().contains(part) {}
    }

    fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn local() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn connect(address: SocketAddr) -> IodConnection {
    let endpoint = Endpoint {
        host: address.ip().to_string(),
        port: address.port(),
    };
    IodConnection::connect(&endpoint, TEST_TIMEOUT).unwrap()
}

#[test]
fn help_and_mistakes() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_pvfs-iod"))
            .args(arguments)
            .output()
            .unwrap()
    };
    let help = run(&["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.status.success() && text.contains("--advertise"),
        "{text}"
    );
    let mistake = run(&["--data", "/tmp", "--mgr", "host:port"]);
    let text = String::from_utf8(mistake.stderr).unwrap();
    assert!(
        !mistake.status.success() && text.contains("1 to 65535"),
        "{text}"
    );
    let foreign = run(&["--init", "--data", "/etc"]);
    let text = String::from_utf8(foreign.stderr).unwrap();
    assert!(
        !foreign.status.success() && text.contains("empty directory"),
        "{text}"
    );
}

/// The mount point of a disk that is not mounted is no new iod.
#[test]
fn an_empty_directory_becomes_an_iod_only_when_told_to() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("disk");
    std::fs::create_dir(&data).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_pvfs-iod"))
            .args(["--data", data.to_str().unwrap()])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    };
    let (started, text) = run(&["--mgr", "localhost"]);
    assert!(!started && text.contains("is its disk mounted?"), "{text}");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    assert!(run(&["--init"]).0);
    let (made, text) = run(&["--init"]);
    assert!(!made && text.contains("without --init"), "{text}");
}

#[test]
fn registers_keeps_its_number_and_ends_cleanly() {
    let mgr = FakeMgr::start(local(), FILE_SYSTEM);
    let data = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(data.path(), mgr.address, "127.0.0.1:0", &[]);
    let address = daemon.ready();
    let first = mgr.registration();
    let MgrOperation::RegisterIod {
        iod: None,
        file_system: None,
        seal: None,
        incarnation,
        accepts_older: false,
        address: told,
        report,
    } = first.operation
    else {
        panic!("{first:?}")
    };
    assert_eq!(told, address.to_string());
    assert!(report.space.bytes_total > 0 && first.sequence > 0);
    let pong = IodResponse::Pong {
        iod: Some(IodId(1)),
        file_system: Some(FILE_SYSTEM),
        incarnation: Some(incarnation),
    };
    let second = mgr.registration();
    assert_eq!(first.client, second.client);
    let MgrOperation::RegisterIod { seal, .. } = second.operation else {
        panic!("{second:?}")
    };
    assert_eq!(seal, Some(SEAL), "it shows what it was given");
    assert_eq!(connect(address).call(&IodRequest::Ping).unwrap(), pong);
    assert!(matches!(
        mgr.heard.recv_timeout(TEST_TIMEOUT).unwrap().operation,
        MgrOperation::IodHeartbeat { iod: IodId(1), .. }
    ));
    assert!(daemon.signal(Signal::SIGTERM).success());
    assert!(
        daemon.lines.recv_timeout(TEST_TIMEOUT).is_err(),
        "more than one line on stdout"
    );

    let advertise = ["--advertise", "node7.example:7007"];
    let mut daemon = Daemon::start(data.path(), mgr.address, "127.0.0.1:0", &advertise);
    daemon.ready();
    let MgrOperation::RegisterIod {
        iod,
        file_system,
        address,
        ..
    } = mgr.registration().operation
    else {
        panic!("no registration")
    };
    assert_eq!((iod, file_system), (Some(IodId(1)), Some(FILE_SYSTEM)));
    assert_eq!(address, "node7.example:7007");
    assert!(daemon.signal(Signal::SIGINT).success());
}

#[test]
fn advertises_the_address_from_which_it_reaches_mgr() {
    let mgr = FakeMgr::start(local(), FILE_SYSTEM);
    let data = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(data.path(), mgr.address, "0.0.0.0:0", &[]);
    let port = daemon.ready().port();
    let MgrOperation::RegisterIod { address, .. } = mgr.registration().operation else {
        panic!("no registration")
    };
    assert_eq!(address, format!("127.0.0.1:{port}"));
}

/// An iod that was killed between mgr's answer and its own note of it asks again as the same
/// client, and so gets the same number.
#[test]
fn asks_for_its_number_under_the_same_client_id_until_it_has_it() {
    let mgr = FakeMgr::start(local(), FILE_SYSTEM);
    let data = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(data.path(), mgr.address, "127.0.0.1:0", &[]);
    daemon.ready();
    drop(daemon);
    let identity = data.path().join("identity");
    let text = std::fs::read_to_string(&identity).unwrap();
    assert!(text.contains("\niod 1\n"), "{text}");
    let (before, after) = text.split_once("iod 1\n").unwrap();
    let (_, open) = after.split_once("open ").unwrap();
    let (open, _) = open.split_once('\n').unwrap();
    let before = format!("{before}open {open}\n");
    let sum = pvfs::wire::header::checksum(before.as_bytes());
    std::fs::write(&identity, format!("{before}checksum {sum:08x}\n")).unwrap();
    let daemon = Daemon::start(data.path(), mgr.address, "127.0.0.1:0", &[]);
    daemon.ready();
    let (first, _) = (mgr.registration(), mgr.registration());
    let second = mgr.registration();
    assert_eq!(
        (first.client, first.sequence),
        (second.client, second.sequence)
    );
}

#[test]
fn starts_before_mgr_and_stores_nothing_until_it_is_registered() {
    let listener = local();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let data = tempfile::tempdir().unwrap();
    let reserved = local();
    let listen = reserved.local_addr().unwrap().to_string();
    drop(reserved);
    let daemon = Daemon::start(data.path(), address, &listen, &[]);
    daemon.logs("trying again");
    let mut connection = connect(listen.parse().unwrap());
    let stat = connection.call(&IodRequest::Stat { object: object(1) });
    assert!(matches!(
        stat,
        Err(IodError::Refused {
            source: FsError::TryAgain,
            ..
        })
    ));
    let pong = IodResponse::Pong {
        iod: None,
        file_system: None,
        incarnation: None,
    };
    assert_eq!(connection.call(&IodRequest::Ping).unwrap(), pong);
    let _mgr = FakeMgr::start(TcpListener::bind(address).unwrap(), FILE_SYSTEM);
    assert_eq!(daemon.ready().to_string(), listen);
    assert!(
        connection
            .call(&IodRequest::Stat { object: object(1) })
            .is_ok()
    );
}

#[test]
fn another_file_systems_mgr_is_refused_and_said_so() {
    let data = tempfile::tempdir().unwrap();
    let mgr = FakeMgr::start(local(), FILE_SYSTEM);
    Daemon::start(data.path(), mgr.address, "127.0.0.1:0", &[]).ready();
    let other = FakeMgr::start(local(), FileSystemId(0xbad));
    let daemon = Daemon::start(data.path(), other.address, "127.0.0.1:0", &[]);
    daemon.logs("empty --data");
    assert!(daemon.lines.try_recv().is_err(), "it says that it is ready");
}

#[test]
fn a_second_iod_on_the_same_data_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let mgr = FakeMgr::start(local(), FILE_SYSTEM);
    let daemon = Daemon::start(data.path(), mgr.address, "127.0.0.1:0", &[]);
    daemon.ready();
    let mut second = Daemon::start(data.path(), mgr.address, "127.0.0.1:0", &[]);
    second.logs("in use by another pvfs-iod");
    assert!(!second.child.wait().unwrap().success());
}

/// kill -9 in the middle of writes, several times: what was acknowledged is there afterwards, and
/// the writer notices nothing but the wait.
#[test]
fn acknowledged_writes_survive_kill_9() {
    const BLOCK_BYTES: usize = 100_000;
    let mgr = FakeMgr::start(local(), FILE_SYSTEM);
    let data = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(data.path(), mgr.address, "127.0.0.1:0", &[]);
    let address = daemon.ready();
    let table = Arc::new(Table::default());
    table.set(IodId(1), address);
    let pool = IodPool::new(table, pvfs::client::pool::PoolOptions::default());
    let layout = Layout::new(4096, 0, vec![IodId(1)]).unwrap();

    let (done, written) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let writer = std::thread::spawn({
        let (pool, layout) = (pool.clone(), layout.clone());
        let (done, written) = (Arc::clone(&done), Arc::clone(&written));
        move || {
            while !done.load(Ordering::Acquire) {
                let block = written.load(Ordering::Acquire);
                let bytes = pattern(block, BLOCK_BYTES);
                let offset = block * BLOCK_BYTES as u64;
                striped::write(&pool, &layout, object(block % 3), offset, &bytes).unwrap();
                written.store(block + 1, Ordering::Release);
            }
        }
    });
    for _ in 0..5 {
        let target = written.load(Ordering::Acquire) + 10;
        while written.load(Ordering::Acquire) < target {
            std::thread::yield_now();
        }
        daemon.signal(Signal::SIGKILL);
        daemon = Daemon::start(data.path(), mgr.address, &address.to_string(), &[]);
        daemon.ready();
    }
    done.store(true, Ordering::Release);
    writer.join().unwrap();
    let blocks = written.load(Ordering::Acquire);
    assert!(blocks >= 50);
    let mut buffer = vec![0; BLOCK_BYTES];
    for block in 0..blocks {
        let offset = block * BLOCK_BYTES as u64;
        striped::read(
            &pool,
            &place(&layout, object(block % 3), offset),
            &mut buffer,
        )
        .unwrap();
        assert!(
            buffer == pattern(block, BLOCK_BYTES),
            "block {block} of {blocks}"
        );
    }
    for inode in 0..3 {
        striped::sync(&pool, &layout, object(inode)).unwrap();
    }
}

/// Stops a process and waits until it stands still: on a busy machine its threads go on for a moment.
fn stop(process: Pid) {
    kill(process, Signal::SIGSTOP).unwrap();
    let stopped = waitpid(process, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(process, Signal::SIGSTOP));
}

/// Receiving with a timeout gives EINTR after a stop, signal(7) says, also where no signal is caught.
#[test]
fn a_stop_and_its_end_leave_connections_open() {
    const STOPS: u32 = 100;
    let mgr = FakeMgr::start(local(), FILE_SYSTEM);
    let data = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(data.path(), mgr.address, "127.0.0.1:0", &[]);
    let mut connection = connect(daemon.ready());
    let process = Pid::from_raw(daemon.child.id() as i32);
    for _ in 0..STOPS {
        stop(process);
        kill(process, Signal::SIGCONT).unwrap();
        assert!(connection.call(&IodRequest::Ping).is_ok());
    }
}

/// A process that hangs keeps its connections: a mount waits, a tool with a deadline gives up.
#[test]
fn a_hanging_iod_is_waited_for_and_given_up_by_a_deadline() {
    let mgr = FakeMgr::start(local(), FILE_SYSTEM);
    let data = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(data.path(), mgr.address, "127.0.0.1:0", &[]);
    let table = Arc::new(Table::default());
    table.set(IodId(1), daemon.ready());
    let pool = IodPool::new(table, pvfs::client::pool::PoolOptions::default());
    let layout = Layout::new(4096, 0, vec![IodId(1)]).unwrap();
    let bytes = pattern(1, 3 << 20);
    striped::write(&pool, &layout, object(1), 0, &bytes).unwrap();
    let process = Pid::from_raw(daemon.child.id() as i32);
    stop(process);
    let deadline = Patience::endless().at_most(Duration::from_millis(200));
    let hurried = pool.with_patience(deadline);
    let outcome = striped::read(&hurried, &place(&layout, object(1), 0), &mut [0; 100]);
    assert_eq!(outcome, Err(FsError::Io));
    let writer = std::thread::spawn({
        let (pool, layout, bytes) = (pool.clone(), layout.clone(), bytes.clone());
        move || striped::write(&pool, &layout, object(2), 0, &bytes)
    });
    kill(process, Signal::SIGCONT).unwrap();
    assert_eq!(writer.join().unwrap(), Ok(()));
    let mut buffer = vec![0; bytes.len()];
    striped::read(&pool, &place(&layout, object(2), 0), &mut buffer).unwrap();
    assert!(buffer == bytes);
}
