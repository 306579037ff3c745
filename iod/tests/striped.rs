// SPDX-License-Identifier: MIT
//! Striped reads and writes through real iods on loopback, against a flat array of bytes; and what
//! happens while an iod is away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Cluster, Iod, KEY, local_lengths, object, pattern, place};
use proptest::prelude::*;
use pvfs::address::Endpoint;
use pvfs::client::patience::{Cancel, Patience};
use pvfs::client::pool::{IodPool, PoolOptions};
use pvfs::client::striped;
use pvfs::client::transport::{ByteStream, Tcp, Transport};
use pvfs::error::FsError;
use pvfs::ids::{IodId, ObjectId};
use pvfs::layout::Layout;
use pvfs::limits::PAYLOAD_BYTES_MAX;
use pvfs::proto::iod::{IodRequest, IodResponse, SeekTarget};
use pvfs_iod::server::ServerLimits;

#[derive(Clone, Debug)]
enum Step {
    Write {
        offset: usize,
        length: usize,
        seed: u64,
    },
    Read {
        offset: usize,
        length: usize,
    },
    Truncate {
        size: usize,
    },
    Sync,
    Allocate {
        offset: usize,
        length: usize,
    },
    Punch {
        offset: usize,
        length: usize,
    },
    Seek {
        offset: usize,
    },
    /// From the file to a place behind it that [aligns](pvfs::layout::Layout::aligns).
    Copy {
        offset: usize,
        length: usize,
        rounds: usize,
    },
}

fn step(file_max: usize) -> impl Strategy<Value = Step> {
    let range = (0..file_max, 0..file_max / 2);
    prop_oneof![
        4 => (range.clone(), any::<u64>())
            .prop_map(|((offset, length), seed)| Step::Write { offset, length, seed }),
        4 => range.clone().prop_map(|(offset, length)| Step::Read { offset, length }),
        1 => (0..file_max).prop_map(|size| Step::Truncate { size }),
        1 => Just(Step::Sync),
        1 => range.clone().prop_map(|(offset, length)| Step::Allocate { offset, length }),
        2 => range.clone().prop_map(|(offset, length)| Step::Punch { offset, length }),
        2 => (0..file_max).prop_map(|offset| Step::Seek { offset }),
        1 => (range.clone(), 1usize..4)
            .prop_map(|((offset, length), rounds)| Step::Copy { offset, length, rounds }),
    ]
}

/// The model: all bytes of the file, and zeros beyond.
#[derive(Default)]
struct Flat(Vec<u8>);

impl Flat {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.0.len() < end && !bytes.is_empty() {
            self.0.resize(end, 0);
        }
        if !bytes.is_empty() {
            self.0[offset..end].copy_from_slice(bytes);
        }
    }

    fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.0.iter().skip(offset).take(length).copied().collect();
        bytes.resize(length, 0);
        bytes
    }
}

const FILE_MAX: usize = 300_000;

/// Local files give their space out in blocks, so a hole may be smaller than what was punched: but
/// what is no data reads as zeros, and what a hole begins with does too.
fn seek_agrees(
    pool: &IodPool,
    layout: &Layout,
    object: ObjectId,
    offset: usize,
    flat: &Flat,
) -> Result<(), TestCaseError> {
    let size = flat.0.len();
    let seek = |offset: usize, target| {
        let from = place(layout, object, offset as u64);
        let found = striped::seek(pool, &from, size as u64, target).unwrap();
        found.map(|found| found as usize)
    };
    let zeros = |from: usize, to: usize| flat.0[from..to].iter().all(|byte| *byte == 0);
    if offset >= size {
        return Ok(());
    }
    let data = seek(offset, SeekTarget::Data);
    prop_assert!(data.is_none_or(|data| (offset..size).contains(&data)));
    prop_assert!(zeros(offset, data.unwrap_or(size)), "data before {data:?}");
    let hole = seek(offset, SeekTarget::Hole).unwrap();
    prop_assert!((offset..=size).contains(&hole));
    if hole < size {
        let next = seek(hole, SeekTarget::Data).unwrap_or(size);
        prop_assert!(next > hole, "a hole at {hole} with no byte in it");
        prop_assert!(zeros(hole, next));
    }
    Ok(())
}

/// Replays random steps on fresh objects, those after `inode`, through `pool` and compares each read
/// with the model.
fn agree_with_a_flat_file(cluster: &Cluster, pool: &IodPool, inode: u64, cases: u32) {
    let inode = std::cell::Cell::new(inode);
    let strategy = (
        1usize..=5,
        12u32..17,
        prop::collection::vec(step(FILE_MAX), 1..30),
    );
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..Default::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&strategy, |(width, shift, steps)| {
        inode.set(inode.get() + 1);
        let object = object(inode.get());
        let iods = cluster.iods.iter().take(width).map(|iod| iod.id).collect();
        let layout = Layout::new(1 << shift, 0, iods).unwrap();
        let mut flat = Flat::default();
        for step in steps {
            match step {
                Step::Write {
                    offset,
                    length,
                    seed,
                } => {
                    let bytes = pattern(seed, length);
                    striped::write(pool, &layout, object, offset as u64, &bytes).unwrap();
                    flat.write(offset, &bytes);
                }
                Step::Read { offset, length } => {
                    let mut buffer = vec![0xee; length];
                    striped::read(pool, &place(&layout, object, offset as u64), &mut buffer)
                        .unwrap();
                    prop_assert!(
                        buffer == flat.read(offset, length),
                        "read {offset}+{length}"
                    );
                }
                Step::Truncate { size } => {
                    striped::truncate(pool, &layout, object, size as u64, KEY).unwrap();
                    flat.0.truncate(size);
                }
                Step::Sync => striped::sync(pool, &layout, object).unwrap(),
                Step::Allocate { offset, length } => {
                    let range = offset as u64..(offset + length) as u64;
                    striped::allocate(pool, &layout, object, 0, range).unwrap();
                }
                Step::Punch { offset, length } => {
                    let range = offset as u64..(offset + length) as u64;
                    striped::punch(pool, &layout, object, 0, range).unwrap();
                    let end = flat.0.len().min(offset + length);
                    if let Some(bytes) = flat.0.get_mut(offset..end) {
                        bytes.fill(0);
                    }
                }
                Step::Seek { offset } => seek_agrees(pool, &layout, object, offset, &flat)?,
                Step::Copy {
                    offset,
                    length,
                    rounds,
                } => {
                    // A round is a stripe at each iod; the copy must not meet what it copies.
                    let round = (width << shift) * rounds;
                    let length = length.min(round);
                    let place = |offset: usize| place(&layout, object, offset as u64);
                    let (from, to) = (place(offset), place(offset + round));
                    striped::copy_at_iods(pool, &from, &to, 0, length as u64).unwrap();
                    let bytes = flat.read(offset, length);
                    flat.write(offset + round, &bytes);
                }
            }
        }
        let mut buffer = vec![0xee; FILE_MAX * 2];
        striped::read(pool, &place(&layout, object, 0), &mut buffer).unwrap();
        prop_assert!(buffer == flat.read(0, FILE_MAX * 2), "whole file");
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn random_steps_agree_with_a_flat_file() {
    let cluster = Cluster::start(5);
    agree_with_a_flat_file(&cluster, &cluster.pool, 1, 60);
}

#[test]
fn holes_and_reserved_space_are_where_they_were_made() {
    let cluster = Cluster::start(3);
    let (layout, object) = (cluster.layout(65_536), object(9));
    let pool = &cluster.pool;
    let size = 100 * 65_536;
    let seek = |offset: u64, target| {
        striped::seek(pool, &place(&layout, object, offset), size, target).unwrap()
    };
    assert_eq!(seek(0, SeekTarget::Data), None);
    assert_eq!(seek(5, SeekTarget::Hole), Some(5));
    let write = |stripe: u64, count: usize| {
        let bytes = pattern(stripe, count * 65_536);
        striped::write(pool, &layout, object, stripe * 65_536, &bytes).unwrap();
    };
    write(10, 5);
    write(40, 1);
    assert_eq!(seek(0, SeekTarget::Data), Some(10 * 65_536));
    assert_eq!(
        seek(10 * 65_536 + 7, SeekTarget::Data),
        Some(10 * 65_536 + 7)
    );
    assert_eq!(seek(10 * 65_536, SeekTarget::Hole), Some(15 * 65_536));
    assert_eq!(seek(15 * 65_536, SeekTarget::Data), Some(40 * 65_536));
    assert_eq!(seek(41 * 65_536, SeekTarget::Data), None);
    assert_eq!(seek(40 * 65_536, SeekTarget::Hole), Some(41 * 65_536));
    let space = || striped::allocated(pool, &layout, object).unwrap();
    assert_eq!(space(), 6 * 65_536);
    striped::punch(pool, &layout, object, 0, 11 * 65_536..14 * 65_536).unwrap();
    assert_eq!(seek(10 * 65_536, SeekTarget::Hole), Some(11 * 65_536));
    assert_eq!(space(), 3 * 65_536);
    striped::allocate(pool, &layout, object, 0, 0..20 * 65_536).unwrap();
    assert_eq!(space(), 21 * 65_536, "reserved, beside stripe 40");
    let mut bytes = vec![1; 65_536];
    striped::read(pool, &place(&layout, object, 12 * 65_536), &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    let other = layout.iods().iter().copied().rev().collect();
    let other = Layout::new(65_536, 0, other).unwrap();
    let place = |layout| place(layout, object, 0);
    let refused = striped::copy_at_iods(pool, &place(&layout), &place(&other), 0, 1);
    assert_eq!(refused, Err(FsError::InvalidArgument));
}

/// The same while every connection breaks after a random number of bytes, in either direction:
/// within headers, bodies and payloads.
#[test]
fn random_steps_agree_with_a_flat_file_though_connections_break() {
    let cluster = Cluster::start(5);
    let flaky = Arc::new(Flaky {
        state: AtomicU64::new(1),
        cuts: Arc::default(),
    });
    let options = PoolOptions {
        transport: flaky.clone(),
        ..PoolOptions::default()
    };
    let pool = IodPool::new(cluster.table.clone(), options);
    // How many break in a few random cases is random too.
    let mut rounds = 0;
    while flaky.cuts.load(Ordering::Relaxed) <= 10 {
        assert!(rounds < 10, "hardly any connection broke");
        agree_with_a_flat_file(&cluster, &pool, rounds * 1000, 6);
        rounds += 1;
    }
}

/// TCP whose connections break.
struct Flaky {
    state: AtomicU64,
    cuts: Arc<AtomicU64>,
}

struct FlakyStream {
    inner: Box<dyn ByteStream>,
    left: usize,
    cuts: Arc<AtomicU64>,
}

impl Transport for Flaky {
    fn connect(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
    ) -> std::io::Result<Box<dyn ByteStream>> {
        let seed = self.state.fetch_add(1, Ordering::Relaxed);
        let random = pattern(seed, 8);
        let left = u64::from_le_bytes(random.try_into().unwrap()) as usize % 600_000;
        let inner = Tcp.connect(endpoint, timeout)?;
        Ok(Box::new(FlakyStream {
            inner,
            left,
            cuts: Arc::clone(&self.cuts),
        }))
    }
}

impl ByteStream for FlakyStream {}

impl FlakyStream {
    /// How many of `wanted` bytes may still pass.
    fn allowance(&mut self, wanted: usize) -> std::io::Result<usize> {
        if self.left == 0 {
            self.cuts.fetch_add(1, Ordering::Relaxed);
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        Ok(wanted.min(self.left))
    }
}

impl Read for FlakyStream {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let allowed = self.allowance(bytes.len())?;
        let count = self.inner.read(&mut bytes[..allowed])?;
        self.left -= count;
        Ok(count)
    }
}

impl Write for FlakyStream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let allowed = self.allowance(bytes.len())?;
        let count = self.inner.write(&bytes[..allowed])?;
        self.left -= count;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[test]
fn a_request_longer_than_a_payload_is_cut() {
    let cluster = Cluster::start(2);
    let layout = cluster.layout(64 << 10);
    let bytes = pattern(1, 2 * PAYLOAD_BYTES_MAX + 12_345);
    striped::write(&cluster.pool, &layout, object(1), 99, &bytes).unwrap();
    let mut buffer = vec![0; bytes.len()];
    striped::read(&cluster.pool, &place(&layout, object(1), 99), &mut buffer).unwrap();
    assert!(buffer == bytes);
}

#[test]
fn removing_leaves_no_local_file() {
    let cluster = Cluster::start(3);
    let layout = cluster.layout(4096);
    striped::write(&cluster.pool, &layout, object(1), 0, &pattern(1, 20_000)).unwrap();
    let lengths = |cluster: &Cluster| -> Vec<u64> {
        let of_iod = |iod: &Iod| local_lengths(iod.directory.path()).unwrap();
        cluster.iods.iter().flat_map(of_iod).collect()
    };
    assert_eq!(lengths(&cluster), [8192, 7712, 4096]);
    striped::remove(&cluster.pool, &layout, object(1), KEY).unwrap();
    assert_eq!(lengths(&cluster), [0; 0]);
    let mut buffer = [1; 100];
    striped::read(&cluster.pool, &place(&layout, object(1), 0), &mut buffer).unwrap();
    assert_eq!(buffer, [0; 100]);
}

#[test]
fn idle_connections_to_a_restarted_iod_are_replaced_unnoticed() {
    let mut cluster = Cluster::start(2);
    let layout = cluster.layout(4096);
    let bytes = pattern(5, 50_000);
    striped::write(&cluster.pool, &layout, object(1), 0, &bytes).unwrap();
    for iod in &mut cluster.iods {
        iod.stop();
        iod.run();
    }
    let hurried = cluster
        .pool
        .with_patience(Patience::endless().at_most(Duration::from_secs(10)));
    let mut buffer = vec![0; bytes.len()];
    striped::read(&hurried, &place(&layout, object(1), 0), &mut buffer).unwrap();
    assert!(buffer == bytes);
}

/// Threads write without a pause while iods go away and come back, and not one write is lost.
#[test]
fn writers_wait_for_iods_that_come_and_go() {
    const BLOCK_BYTES: usize = 40_000;
    let mut cluster = Cluster::start(3);
    let layout = cluster.layout(4096);
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (pool, layout, done) = (cluster.pool.clone(), layout.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut written = 0u64;
                while !done.load(Ordering::Relaxed) {
                    let bytes = pattern(writer * 1000 + written, BLOCK_BYTES);
                    let offset = written % 20 * BLOCK_BYTES as u64;
                    striped::write(&pool, &layout, object(writer), offset, &bytes).unwrap();
                    let mut buffer = vec![0; BLOCK_BYTES];
                    striped::read(&pool, &place(&layout, object(writer), offset), &mut buffer)
                        .unwrap();
                    assert!(buffer == bytes, "block {written} of writer {writer}");
                    written += 1;
                }
                written
            })
        })
        .collect();
    for round in 0..9 {
        let iod = &mut cluster.iods[round % 3];
        iod.stop();
        std::thread::yield_now();
        iod.run();
    }
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.join().unwrap() > 0);
    }
}

#[test]
fn a_deadline_ends_the_waiting() {
    let mut cluster = Cluster::start(2);
    cluster.iods[1].stop();
    let layout = cluster.layout(4096);
    let patience = Patience::endless().at_most(Duration::from_millis(300));
    let pool = cluster.pool.with_patience(patience);
    let start = Instant::now();
    let outcome = striped::read(&pool, &place(&layout, object(1), 0), &mut [0; 10_000]);
    assert_eq!(outcome, Err(FsError::Io));
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(start.elapsed() < Duration::from_secs(20));
    // A range that lies on the other iod alone needs no waiting, but its deadline has passed too.
    assert_eq!(
        striped::read(&cluster.pool, &place(&layout, object(1), 0), &mut [0; 4096]),
        Ok(())
    );
}

#[test]
fn cancelling_ends_the_waiting() {
    let mut cluster = Cluster::start(1);
    cluster.iods[0].stop();
    let cancel = Cancel::new();
    let pool = cluster
        .pool
        .with_patience(Patience::until_cancelled(&cancel));
    let waiter = std::thread::spawn(move || pool.call(IodId(1), &IodRequest::Space));
    cancel.cancel();
    assert_eq!(waiter.join().unwrap(), Err(FsError::Io));
}

/// Zeros from an iod that took over the address of another must never pass for file content.
#[test]
fn another_iod_at_the_address_is_not_believed() {
    let cluster = Cluster::start(2);
    let layout = cluster.layout(4096);
    striped::write(&cluster.pool, &layout, object(1), 0, &pattern(1, 8192)).unwrap();
    let right = cluster.iods[1].address;
    cluster.table.set(IodId(2), cluster.iods[0].address);
    let fresh = IodPool::new(cluster.table.clone(), Default::default());
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 8192];
        striped::read(&fresh, &place(&layout, object(1), 0), &mut buffer).map(|()| buffer)
    });
    let hurried = Patience::endless().at_most(Duration::from_millis(100));
    let fresh = IodPool::new(cluster.table.clone(), Default::default());
    let refused = fresh
        .with_patience(hurried)
        .call(IodId(2), &IodRequest::Space);
    assert_eq!(refused, Err(FsError::Io));
    cluster.table.set(IodId(2), right);
    assert!(reader.join().unwrap().unwrap() == pattern(1, 8192));
}

#[test]
fn control_calls_reach_the_iod() {
    let cluster = Cluster::start(1);
    let layout = cluster.layout(4096);
    striped::write(&cluster.pool, &layout, object(1), 0, &[1; 5000]).unwrap();
    let stat = cluster
        .pool
        .call(IodId(1), &IodRequest::Stat { object: object(1) });
    let Ok(IodResponse::Stat {
        length: 5000,
        allocated,
    }) = stat
    else {
        panic!("{stat:?}")
    };
    assert!(allocated >= 5000);
    let space = cluster.pool.call(IodId(1), &IodRequest::Space);
    assert!(matches!(space, Ok(IodResponse::Space(space)) if space.bytes_total > 0));
    let stripe = layout.stripes_of(object(1))(0);
    let read = IodRequest::Read {
        stripe,
        offset: u64::MAX,
        length: 1,
        filled: 0,
    };
    assert_eq!(
        cluster.pool.call(IodId(1), &read),
        Err(FsError::FileTooLarge)
    );
    let read = IodRequest::Read {
        stripe,
        offset: 0,
        length: u32::MAX,
        filled: 0,
    };
    assert_eq!(
        cluster.pool.call(IodId(1), &read),
        Err(FsError::MessageTooLong)
    );
}

#[test]
fn a_full_server_makes_clients_wait_their_turn() {
    let limits = ServerLimits {
        connections_max: 1,
        ..ServerLimits::default()
    };
    let iod = Iod::start(1, limits);
    let table = Arc::new(common::Table::default());
    table.set(iod.id, iod.address);
    let pool = |table: &Arc<common::Table>| IodPool::new(table.clone(), Default::default());
    let first = pool(&table);
    first.call(IodId(1), &IodRequest::Space).unwrap();
    let second = pool(&table);
    let hurried = second.with_patience(Patience::endless().at_most(Duration::from_millis(100)));
    assert_eq!(hurried.call(IodId(1), &IodRequest::Space), Err(FsError::Io));
    drop(first);
    assert!(second.call(IodId(1), &IodRequest::Space).is_ok());
}
