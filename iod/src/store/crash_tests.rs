// SPDX-License-Identifier: MIT
//! Power cuts, on the disk of `memory_disk`, which makes every image that one may leave. The store must
//! open every image, hold what it acknowledged, and call nothing damaged but what is.
//!
//! `PVFS_POWERCUT_RUNS` sets the number of runs (each of [`LIVES`] images), `PVFS_POWERCUT_SEED` the
//! first seed; `make test-powercut` does thousands.

use std::collections::BTreeSet;

use super::memory_disk::{MemoryDisk, Random, World};
use super::tests::stripe;
use super::*;
use pvfs::ids::InodeNumber;

/// Power cuts of one run.
const LIVES: usize = 4;
/// Runs in `make test`.
const RUNS_DEFAULT: u64 = 100;
/// Objects of a run.
const OBJECTS: u64 = 3;
/// Bytes that are written to.
const SPACE_BYTES: u64 = 40_000;
/// In every other run files are of parts so long: data of a dozen, sums of two.
const SMALL_PART_BYTES: u64 = 4_120;

/// What an object may hold after a power cut.
#[derive(Clone, Debug, Default)]
struct Promise {
    /// For each byte, what it is now (last), and what else a power cut may leave of it.
    bytes: Vec<BTreeSet<u8>>,
    now: Vec<u8>,
    /// The file's name is on the disk.
    named: bool,
    /// The store has looked at it in this life: what an earlier one left is settled with the rest.
    touched: bool,
    /// All that was done is settled: any flipped bit must be told.
    settled: bool,
}

impl Promise {
    fn write(&mut self, offset: u64, new: &[u8]) {
        let start = offset as usize;
        let end = start + new.len();
        let length = self.now.len().max(end);
        self.now.resize(length, 0);
        self.bytes.resize(length, BTreeSet::from([0]));
        for (at, byte) in (start..end).zip(new) {
            self.now[at] = *byte;
            self.bytes[at].insert(*byte);
        }
        self.settled = false;
    }

    /// What is now is on the disk.
    fn flush(&mut self) {
        self.bytes = self
            .now
            .iter()
            .map(|byte| BTreeSet::from([*byte]))
            .collect();
    }

    fn truncate(&mut self, length: u64) {
        if (length as usize) < self.now.len() {
            self.now.truncate(length as usize);
            self.flush();
            self.settled = false;
        }
    }
}

fn object(number: u64) -> ObjectId {
    ObjectId {
        inode: InodeNumber(number),
        generation: 7,
    }
}

fn read(store: &Store, object: ObjectId, length: usize) -> io::Result<Vec<u8>> {
    let Some(file) = store.find(object)? else {
        return Ok(Vec::new());
    };
    let mut bytes = vec![0; length];
    let filled = file.read_at(&mut bytes, 0)?;
    bytes.truncate(filled);
    Ok(bytes)
}

/// One step of a life; an error is the power cut.
fn step(
    disk: &MemoryDisk,
    store: &Store,
    promises: &mut [Promise],
    random: &mut Random,
) -> io::Result<()> {
    let number = random.below(OBJECTS);
    let promise = &mut promises[number as usize];
    let object = object(number);
    // Often at the edges of blocks and sectors, where things go wrong.
    let near = |random: &mut Random| match random.below(3) {
        0 => random.below(SPACE_BYTES),
        1 => random.below(SPACE_BYTES / 512) * 512,
        _ => random.below(SPACE_BYTES / 4096) * 4096,
    };
    let (offset, length) = (near(random), 1 + random.below(9000));
    match random.below(12) {
        0..=5 => {
            let byte = random.below(256) as u8;
            let bytes: Vec<u8> = (0..length)
                .map(|at| byte.wrapping_add((at / 300) as u8))
                .collect();
            // It may happen, in part or altogether, also where the power is cut meanwhile.
            let written = store
                .find_or_create(stripe(object))
                .and_then(|file| file.write_at(&bytes, offset));
            promise.write(offset, &bytes);
            promise.touched = true;
            written?;
        }
        6 | 7 => {
            store.sync(object)?;
            promise.flush();
            promise.named |= !promise.now.is_empty();
        }
        8 => {
            let length = offset.min(promise.now.len() as u64);
            // Cut or not, if the power is cut meanwhile: then every byte beyond may be gone.
            let old = promise.clone();
            promise.truncate(length);
            if let Err(error) = store.truncate(stripe(object), length) {
                *promise = old;
                promise.bytes[length as usize..]
                    .iter_mut()
                    .for_each(|byte| {
                        byte.insert(0);
                    });
                promise.settled = false;
                return Err(error);
            }
        }
        9 => {
            let Some(file) = store.find(object)? else {
                return Ok(());
            };
            let end = promise.now.len().min((offset + length) as usize);
            if (offset as usize) < end {
                let zeros = vec![0; end - offset as usize];
                let punched = file.punch(offset, length);
                promise.write(offset, &zeros);
                punched?;
            }
        }
        10 => {
            let left = store.settle(Duration::ZERO, &|| false);
            if left == 0 && disk.world().calls_left != Some(0) {
                for promise in promises.iter_mut() {
                    promise.settled |= promise.touched;
                }
            }
        }
        _ => {
            let found = read(store, object, promise.now.len() + 10)?;
            assert!(found == promise.now, "before any power cut");
            promise.touched = true;
        }
    }
    Ok(())
}

/// Checks an image against the promises, which then start from what is there.
fn check(store: &Store, promises: &mut [Promise], seed: u64) {
    for (number, promise) in promises.iter_mut().enumerate() {
        let length = promise.now.len();
        let found = read(store, object(number as u64), length + 10)
            .unwrap_or_else(|error| panic!("seed {seed}: object {number}: {error}"));
        assert!(found.len() <= length, "seed {seed}: it has grown");
        for (at, may_be) in promise.bytes.iter().enumerate() {
            // What lies beyond the file's end is zeros.
            let byte = found.get(at).copied().unwrap_or_default();
            let lost = !promise.named && byte == 0;
            assert!(
                may_be.contains(&byte) || lost,
                "seed {seed}: object {number}, byte {at} is {byte}, not of {may_be:?}"
            );
        }
        promise.now = found;
        promise.flush();
        let there = store
            .find(object(number as u64))
            .expect("it was found before");
        promise.named = there.is_some();
    }
}

/// How long the parts of a run's files are.
const fn part_bytes(seed: u64) -> u64 {
    match seed % 2 {
        0 => SMALL_PART_BYTES,
        _ => u64::MAX,
    }
}

/// The file that has a byte of an object, and where in it; `None` where there is a hole.
fn file_of(world: &World, object: ObjectId, at: usize, seed: u64) -> Option<(usize, usize)> {
    let (part, at) = (at as u64 / part_bytes(seed), at as u64 % part_bytes(seed));
    let mut name = format!("{:016x}.{:08x}", object.inode.0, object.generation);
    if part > 0 {
        name = format!("{name}.parts/{part:08x}");
    }
    let named = world.names.iter().find(|(path, _)| path.ends_with(&name));
    assert!(named.is_some() || part > 0, "an object has its first part");
    let file = *named?.1;
    let length = world.contents[file].now.len() as u64;
    let is_there = at < length;
    assert!(is_there || part_bytes(seed) == SMALL_PART_BYTES, "one file");
    is_there.then_some((file, at as usize))
}

/// In an object that was settled and not touched since, every flipped bit is told after the cut.
fn flip(disk: &MemoryDisk, store: &Store, promises: &[Promise], random: &mut Random, seed: u64) {
    for (number, promise) in promises.iter().enumerate() {
        if !promise.settled || promise.now.is_empty() {
            continue;
        }
        let object = object(number as u64);
        let at = random.below(promise.now.len() as u64) as usize;
        let Some((file, place)) = file_of(&disk.world(), object, at, seed) else {
            continue;
        };
        let flip = || {
            let mut world = disk.world();
            world.contents[file].now[place] ^= 4;
            world.contents[file].flushed[place] ^= 4;
        };
        flip();
        let Err(error) = read(store, object, promise.now.len()) else {
            panic!("seed {seed}: the flipped bit of byte {at} of object {number} was not told");
        };
        assert!(Damage::of(&error).is_some(), "seed {seed}: {error}");
        flip();
    }
}

fn run(directory: &Path, seed: u64) {
    let mut random = Random(seed);
    let disk = MemoryDisk::default();
    let open = || {
        let spanning = SpanningDisk::new(Arc::new(disk.clone()), part_bytes(seed));
        Store::open_on(Arc::new(spanning), directory, 64).unwrap()
    };
    let mut promises = vec![Promise::default(); OBJECTS as usize];
    for _ in 0..LIVES {
        let store = open();
        disk.world().calls_left = Some(random.below(60));
        while step(&disk, &store, &mut promises, &mut random).is_ok() {
            if disk.world().calls_left == Some(0) {
                break;
            }
        }
        // The image is complete before anybody else looks at it.
        disk.world().calls_left = Some(0);
        drop(store);
        disk.world().cut_off(&mut random);
        let settled: Vec<bool> = promises.iter().map(|promise| promise.settled).collect();
        let store = open();
        check(&store, &mut promises, seed);
        for (promise, settled) in promises.iter_mut().zip(settled) {
            promise.settled = settled;
        }
        drop(store);
        let store = open();
        flip(&disk, &store, &promises, &mut random, seed);
        for promise in &mut promises {
            promise.settled = false;
            promise.touched = false;
        }
    }
}

#[test]
fn every_image_of_a_power_cut_opens_and_holds_what_was_acknowledged() {
    let number = |name: &str, default| {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let first = number("PVFS_POWERCUT_SEED", 1);
    let runs = number("PVFS_POWERCUT_RUNS", RUNS_DEFAULT);
    Store::create(directory.path()).unwrap();
    for seed in first..first + runs {
        run(directory.path(), seed);
    }
    println!(
        "{} images of {runs} runs from seed {first}",
        runs * LIVES as u64
    );
}
