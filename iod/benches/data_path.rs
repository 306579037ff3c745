// SPDX-License-Identifier: MIT
//! Throughput of striped reads and writes with several iods on loopback, beside what plain TCP
//! does in the same minute: only the ratios mean something on a shared machine.
//!
//! `cargo bench -p pvfs-iod --bench data_path -- [--dir DIR] [--iods N] [--seconds S]`
//!
//! DIR should be on tmpfs (default /dev/shm). Prints one table: a row for each stripe size, the
//! columns read and write with one and two threads, in GB/s and in parts of raw TCP. Each cell is
//! the best of several short runs, taken in turn, since other load only ever slows a run down.

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
use pvfs::client::striped;
use pvfs::ids::{FileSystemId, InodeNumber, IodId, ObjectId};
use pvfs::layout::Layout;
use pvfs_iod::server::{Server, ServerLimits};
use pvfs_iod::store::{Membership, Store};

/// One request of a client.
const REQUEST_BYTES: usize = 1 << 20;
/// Each thread's file: large beside the processor's cache, small beside memory.
const FILE_BYTES: u64 = 128 << 20;
/// The stripe sizes that are compared, KiB.
const STRIPES_KIB: [u32; 5] = [64, 128, 256, 512, 1024];
/// Runs of each cell; the best counts.
const ROUNDS: usize = 3;

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

    let mut raw = [0f64; 2];
    let mut cells = vec![[0f64; 4]; STRIPES_KIB.len()];
    for _ in 0..ROUNDS {
        for (best, streams) in raw.iter_mut().zip([1, 2]) {
            *best = best.max(raw_tcp(streams, limit));
        }
        for (row, kib) in cells.iter_mut().zip(STRIPES_KIB) {
            let ids = iods.iter().map(|iod| iod.id).collect();
            let layout = Layout::new(kib << 10, 0, ids).expect("layout");
            let runs = [(true, 1), (true, 2), (false, 1), (false, 2)];
            for (best, (is_write, threads)) in row.iter_mut().zip(runs) {
                *best = best.max(run(&pool, &layout, is_write, threads, limit));
            }
        }
    }
    println!(
        "raw TCP: {:.2} GB/s with one stream, {:.2} with two",
        raw[0], raw[1]
    );
    println!("| stripe KiB | read, 1 thread | read, 2 | write, 1 | write, 2 |");
    println!("|---|---|---|---|---|");
    for (row, kib) in cells.iter().zip(STRIPES_KIB) {
        let cell = |value: f64, raw: f64| format!("{value:.2} ({:.2})", value / raw);
        let [write1, write2, read1, read2] = *row;
        println!(
            "| {kib} | {} | {} | {} | {} |",
            cell(read1, raw[0]),
            cell(read2, raw[1]),
            cell(write1, raw[0]),
            cell(write2, raw[1]),
        );
    }
}

fn parse(words: impl Iterator<Item = String>) -> Arguments {
    let mut arguments = Arguments {
        directory: "/dev/shm".into(),
        iods: 3,
        seconds: 0.7,
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
    let store = Store::open(directory, 64).expect("store");
    let id = directory
        .file_name()
        .and_then(|name| name.to_str()?.parse().ok())
        .expect("id");
    store
        .join(Membership {
            iod: IodId(id),
            file_system: FileSystemId(1),
        })
        .expect("join");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let server = Server::start(listener, Arc::new(store), ServerLimits::default()).expect("server");
    println!("{}", server.address().port());
    std::io::stdin()
        .read_to_end(&mut Vec::new())
        .expect("stdin");
    server.stop();
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

/// GB/s of `threads` threads, each on its own file, round and round.
fn run(pool: &IodPool, layout: &Layout, is_write: bool, threads: u64, limit: Duration) -> f64 {
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
                striped::read(pool, layout, object, offset, &mut buffer).expect("read");
            }
            moved += REQUEST_BYTES as u64;
        }
        moved
    })
}

/// GB/s of one process' threads writing to others' sockets: what the machine's loopback gives.
fn raw_tcp(streams: u64, limit: Duration) -> f64 {
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

/// Runs `work` in each of `threads` threads; bytes moved by all over the time until the last ends.
fn timed(threads: u64, work: impl Fn(u64) -> u64 + Sync) -> f64 {
    let start = Instant::now();
    let moved: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|t| {
                scope.spawn({
                    let work = &work;
                    move || work(t)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("worker"))
            .sum()
    });
    moved as f64 / start.elapsed().as_secs_f64() / 1e9
}
