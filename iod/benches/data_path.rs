// SPDX-License-Identifier: MIT
//! Throughput of striped reads and writes with several iods on loopback, beside what plain TCP
//! does in the same minute: only the ratios mean something on a shared machine.
//!
//! `cargo bench -p pvfs-iod --bench data_path -- [--dir DIR] [--iods N] [--seconds S]`
//!
//! DIR should be on tmpfs (default /dev/shm). Prints one table: a row for each stripe size, the
//! columns read and write with one and two threads. A cell says GB/s, the same in parts of raw TCP,
//! and processor seconds of client and iods for each GB. The throughput is the best of several short
//! runs, taken in turn, since other load only ever slows a run down; the processor time is that of
//! all runs, and other load hardly touches it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that fails has nothing to clean up"
)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pvfs::address::Endpoint;
use pvfs::client::buffer::AlignedBuffer;
use pvfs::client::iod::IodDirectory;
use pvfs::client::pool::{IodPool, PoolOptions};
use pvfs::client::striped::{self, Place};
use pvfs::ids::{FileSystemId, InodeNumber, IodId, ObjectId};
use pvfs::layout::Layout;
use pvfs::proto::seal::{Reign, Seal};
use pvfs_iod::server::{Server, ServerLimits};
use pvfs_iod::store::{Membership, Settler, Store};

/// One request of a client.
const REQUEST_BYTES: usize = 1 << 20;
/// Each thread's file: large beside the processor's cache, small beside memory.
const FILE_BYTES: u64 = 128 << 20;
/// The stripe sizes that are compared, KiB.
const STRIPES_KIB: [u32; 5] = [64, 128, 256, 512, 1024];
/// Runs of each cell; the best counts.
const ROUNDS: usize = 6;

struct Arguments {
    directory: PathBuf,
    iods: u32,
    seconds: f64,
}

fn main() {
    let arguments = parse(std::env::args().skip(1));
    // An iod of its own process, as in life: this program starts itself for each.
    if let Ok(directory) = std::env::var("PVFS_BENCH_IOD") {
        return serve(Path::new(&directory));
    }
    let scratch = tempfile::tempdir_in(&arguments.directory).expect("scratch directory");
    let iods: Vec<Process> = (1..=arguments.iods)
        .map(|id| Process::start(&scratch.path().join(id.to_string()), id))
        .collect();
    let table = iods
        .iter()
        .map(|iod| (iod.id, iod.endpoint.clone()))
        .collect();
    let pool = IodPool::new(Arc::new(Table(table)), PoolOptions::default());
    let limit = Duration::from_secs_f64(arguments.seconds);

    let mut raw = [Cell::default(); 2];
    let mut cells = [[Cell::default(); 4]; STRIPES_KIB.len()];
    let processes: Vec<u32> = iods.iter().map(|iod| iod.child.id()).collect();
    for _ in 0..ROUNDS {
        for (cell, streams) in raw.iter_mut().zip([1, 2]) {
            cell.add(&[], || raw_tcp(streams, limit));
        }
        for (row, kib) in cells.iter_mut().zip(STRIPES_KIB) {
            let ids = iods.iter().map(|iod| iod.id).collect();
            let layout = Layout::new(kib << 10, 0, ids).expect("layout");
            let runs = [(true, 1), (true, 2), (false, 1), (false, 2)];
            for (cell, (is_write, threads)) in row.iter_mut().zip(runs) {
                cell.add(&processes, || run(&pool, &layout, is_write, threads, limit));
            }
        }
    }
    println!(
        "raw TCP, one stream: {}; two: {}",
        raw[0].show(&raw[0]),
        raw[1].show(&raw[1])
    );
    println!("| stripe KiB | read, 1 thread | read, 2 | write, 1 | write, 2 |");
    println!("|---|---|---|---|---|");
    for ([write1, write2, read1, read2], kib) in cells.iter().zip(STRIPES_KIB) {
        println!(
            "| {kib} | {} | {} | {} | {} |",
            read1.show(&raw[0]),
            read2.show(&raw[1]),
            write1.show(&raw[0]),
            write2.show(&raw[1]),
        );
    }
}

/// What some runs of the same kind came to.
#[derive(Clone, Copy, Default)]
struct Cell {
    best: f64,
    bytes: u64,
    cpu_seconds: f64,
}

impl Cell {
    /// Adds a run, which returns bytes and seconds, and the processor time that it took in this
    /// process and in `processes`.
    fn add(&mut self, processes: &[u32], run: impl FnOnce() -> (u64, f64)) {
        let before = cpu_seconds(processes);
        let (bytes, seconds) = run();
        self.cpu_seconds += cpu_seconds(processes) - before;
        self.bytes += bytes;
        self.best = self.best.max(bytes as f64 / seconds / 1e9);
    }

    fn show(&self, raw: &Self) -> String {
        let cpu = self.cpu_seconds / (self.bytes as f64 / 1e9);
        format!("{:.2} ({:.2}) {cpu:.2}", self.best, self.best / raw.best)
    }
}

/// Processor time of this process and of `processes` since they started (proc_pid_stat(5)).
fn cpu_seconds(processes: &[u32]) -> f64 {
    /// `_SC_CLK_TCK`, which is this on every Linux.
    const TICKS_PER_SECOND: f64 = 100.0;
    let others = processes.iter().map(u32::to_string);
    let ticks = others.chain(["self".to_owned()]).map(|process| {
        let text = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("stat");
        let (_, fields) = text.rsplit_once(')').expect("a command's name");
        let times = fields.split_whitespace().skip(11).take(2);
        times
            .map(|ticks| ticks.parse::<f64>().expect("ticks"))
            .sum::<f64>()
    });
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

fn parse(words: impl Iterator<Item = String>) -> Arguments {
    let mut arguments = Arguments {
        directory: "/dev/shm".into(),
        iods: 3,
        seconds: 0.4,
    };
    let mut words = words.filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        match word.as_str() {
            "--dir" => arguments.directory = value.into(),
            "--iods" => arguments.iods = value.parse().expect("--iods NUMBER"),
            "--seconds" => arguments.seconds = value.parse().expect("--seconds NUMBER"),
            _ => panic!("unknown argument {word}: --dir DIR, --iods N, --seconds S"),
        }
    }
    arguments
}

/// The part of an iod's process: prints its port and serves until its stdin ends.
fn serve(directory: &Path) {
    Store::create(directory).expect("an empty directory");
    let store = Arc::new(Store::open(directory, 64).expect("store"));
    let id = directory
        .file_name()
        .and_then(|name| name.to_str()?.parse().ok())
        .expect("id");
    store
        .join(Membership {
            iod: IodId(id),
            file_system: FileSystemId(1),
            seal: Seal {
                reign: Reign {
                    era: 0,
                    starts: 1,
                    nonce: 2,
                },
                number: 3,
                secret: 4,
            },
        })
        .expect("join");
    store.admission().grant();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let settler = Settler::start(Arc::clone(&store)).expect("settler");
    let limits = ServerLimits {
        insecure_ports: true,
        ..ServerLimits::default()
    };
    let server = Server::start(listener, store, limits).expect("server");
    println!("{}", server.address().port());
    std::io::stdin()
        .read_to_end(&mut Vec::new())
        .expect("stdin");
    server.stop();
    drop(settler);
}

struct Process {
    child: Child,
    id: IodId,
    endpoint: Endpoint,
}

impl Process {
    fn start(directory: &Path, id: u32) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .env("PVFS_BENCH_IOD", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("iod");
        let mut line = String::new();
        let output = child.stdout.take().expect("stdout");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("port");
        let port = line.trim().parse().expect("port");
        Self {
            child,
            id: IodId(id),
            endpoint: Endpoint {
                host: "127.0.0.1".into(),
                port,
            },
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

struct Table(HashMap<IodId, Endpoint>);

impl IodDirectory for Table {
    fn endpoint(&self, iod: IodId) -> Option<Endpoint> {
        self.0.get(&iod).cloned()
    }

    fn refresh(&self) {}
}

/// Bytes and seconds of `threads` threads, each on its own file, round and round.
fn run(
    pool: &IodPool,
    layout: &Layout,
    is_write: bool,
    threads: u64,
    limit: Duration,
) -> (u64, f64) {
    timed(threads, |thread| {
        let object = ObjectId {
            inode: InodeNumber(100 + thread),
            generation: layout.stripe_size(),
        };
        let mut buffer = AlignedBuffer::new(REQUEST_BYTES);
        buffer.fill(thread as u8);
        let start = Instant::now();
        let mut moved = 0u64;
        while start.elapsed() < limit {
            let offset = moved % FILE_BYTES;
            if is_write {
                striped::write(pool, layout, object, offset, &buffer).expect("write");
            } else {
                let from = Place {
                    layout,
                    object,
                    filled: 0,
                    offset,
                };
                striped::read(pool, &from, &mut buffer).expect("read");
            }
            moved += REQUEST_BYTES as u64;
        }
        moved
    })
}

/// Bytes and seconds of threads that write to others' sockets: what the machine's loopback gives.
fn raw_tcp(streams: u64, limit: Duration) -> (u64, f64) {
    timed(streams, |_| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let sender = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).expect("connect");
            let buffer = AlignedBuffer::new(REQUEST_BYTES);
            while stream.write_all(&buffer).is_ok() {}
        });
        let (mut stream, _) = listener.accept().expect("accept");
        let mut buffer = AlignedBuffer::new(REQUEST_BYTES);
        let start = Instant::now();
        let mut moved = 0u64;
        while start.elapsed() < limit {
            stream.read_exact(&mut buffer).expect("read");
            moved += REQUEST_BYTES as u64;
        }
        drop(stream);
        sender.join().expect("sender");
        moved
    })
}

/// Runs `work` in each of `threads` threads; bytes moved by all, and seconds until the last ended.
fn timed(threads: u64, work: impl Fn(u64) -> u64 + Sync) -> (u64, f64) {
    let start = Instant::now();
    let work = &work;
    let moved: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("worker"))
            .sum()
    });
    (moved, start.elapsed().as_secs_f64())
}
