// SPDX-License-Identifier: MIT
//! Power cuts. A disk in memory that knows what was flushed and what was not, and makes every image
//! that a power cut may leave: of each write that was not flushed any of its sectors, of each change of
//! a directory that was not flushed any, in any combination. The store must open every image, hold
//! what it acknowledged, and call nothing damaged but what is.
//!
//! `PVFS_POWERCUT_RUNS` sets the number of runs (each of [`LIVES`] images), `PVFS_POWERCUT_SEED` the
//! first seed; `make test-powercut` does thousands.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

use super::disk::{Disk, LocalFile, Stamp};
use super::*;
use nix::errno::Errno;
use pvfs::ids::InodeNumber;
use pvfs::runtime::net::TcpStream;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
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

#[derive(Debug, Default)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // splitmix64: any seed will do.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// A file's content now, on the disk, and the changes in between.
#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    flushed: Vec<u8>,
    pending: Vec<Change>,
    /// Counts changes, as the clock does.
    touched: i64,
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, new) => {
            let start = usize::try_from(*offset).unwrap();
            let end = start + new.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(new);
        }
        Change::Length(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
    }
}

impl Content {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.pending.push(change);
        self.touched += 1;
    }

    fn flush(&mut self) {
        self.flushed.clone_from(&self.now);
        self.pending.clear();
    }

    /// What a power cut may leave.
    fn cut_off(&mut self, random: &mut Random) {
        // From nothing of what was not flushed to all of it.
        let chance = random.below(5);
        let mut image = std::mem::take(&mut self.flushed);
        for change in &self.pending {
            match change {
                Change::Length(_) => {
                    if random.below(4) < chance {
                        apply(&mut image, change);
                    }
                }
                Change::Write(offset, bytes) => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let to_sector = SECTOR_BYTES - (offset + at as u64) % SECTOR_BYTES;
                        let end = bytes.len().min(at + to_sector as usize);
                        if random.below(4) < chance {
                            let piece = bytes[at..end].to_vec();
                            apply(&mut image, &Change::Write(offset + at as u64, piece));
                        }
                        at = end;
                    }
                }
            }
        }
        self.now.clone_from(&image);
        self.flushed = image;
        self.pending.clear();
    }
}

type Names = BTreeMap<PathBuf, usize>;

/// Stands in the names for a directory.
const DIRECTORY: usize = usize::MAX;

/// What cannot be reached is not there: a part whose directory has no name.
fn reachable(names: &Names) -> Names {
    let is_there = |path: &PathBuf| {
        path.parent().is_none_or(|parent| {
            parent.extension() != Some("parts".as_ref()) || names.contains_key(parent)
        })
    };
    let there = names.iter().filter(|(path, _)| is_there(path));
    there.map(|(path, file)| (path.clone(), *file)).collect()
}

#[derive(Debug, Default)]
struct World {
    contents: Vec<Content>,
    names: Names,
    flushed_names: Names,
    /// Calls until the power is cut.
    calls_left: Option<u64>,
}

impl World {
    /// Counts a call that changes something; after the cut all fail.
    fn call(&mut self) -> io::Result<()> {
        match &mut self.calls_left {
            None => Ok(()),
            Some(0) => Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn cut_off(&mut self, random: &mut Random) {
        self.calls_left = None;
        let chance = random.below(5);
        let paths: BTreeSet<PathBuf> = self
            .names
            .keys()
            .chain(self.flushed_names.keys())
            .cloned()
            .collect();
        for path in paths {
            let (now, then) = (self.names.get(&path), self.flushed_names.get(&path));
            if now != then && random.below(4) < chance {
                match now.copied() {
                    Some(file) => drop(self.flushed_names.insert(path, file)),
                    None => drop(self.flushed_names.remove(&path)),
                }
            }
        }
        self.names = reachable(&self.flushed_names);
        self.flushed_names.clone_from(&self.names);
        for content in &mut self.contents {
            content.cut_off(random);
        }
    }
}

#[derive(Clone, Debug, Default)]
struct CrashDisk(Arc<Mutex<World>>);

impl CrashDisk {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl Disk for CrashDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn LocalFile>> {
        let mut world = self.world();
        let file = match world.names.get(path).copied() {
            Some(file) => file,
            None if create => {
                world.call()?;
                world.contents.push(Content::default());
                let file = world.contents.len() - 1;
                world.names.insert(path.to_owned(), file);
                file
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Box::new(CrashFile {
            disk: self.clone(),
            file,
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.call()?;
        world.names.remove(path);
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.call()?;
        let names = world.names.clone();
        let inside = |name: &PathBuf| name.parent() == Some(path);
        world.flushed_names.retain(|name, _| !inside(name));
        let flushed = names.into_iter().filter(|(name, _)| inside(name));
        world.flushed_names.extend(flushed);
        // What was in a directory that is gone is not in another of its name.
        world.flushed_names = reachable(&world.flushed_names);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let world = self.world();
        let inside = world
            .names
            .keys()
            .filter(|name| name.parent() == Some(path));
        Ok(inside
            .filter_map(|name| name.file_name().map(OsString::from))
            .collect())
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.call()?;
        world.names.insert(path.to_owned(), DIRECTORY);
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.remove(path)
    }
}

#[derive(Debug)]
struct CrashFile {
    disk: CrashDisk,
    file: usize,
}

impl CrashFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut world = self.disk.world();
        world.call()?;
        world.contents[self.file].change(change);
        Ok(())
    }

    fn length(&self) -> u64 {
        self.disk.world().contents[self.file].now.len() as u64
    }
}

impl LocalFile for CrashFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.disk.world();
        let content = &world.contents[self.file].now;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.change(Change::Write(offset, bytes.to_vec()))?;
        Ok(bytes.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(length))
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        world.call()?;
        world.contents[self.file].flush();
        Ok(())
    }

    fn stat(&self) -> io::Result<LocalStat> {
        let length = self.length();
        Ok(LocalStat {
            length,
            allocated: length,
        })
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let length = self.length();
        let touched = self.disk.world().contents[self.file].touched;
        Ok(Stamp {
            length,
            modified_ns: touched,
            changed_ns: touched,
        })
    }

    fn allocate(&self, _: u64, _: u64) -> nix::Result<()> {
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> nix::Result<()> {
        let end = self.length().min(offset + length);
        let zeros = vec![0; end.saturating_sub(offset) as usize];
        let changed = self.change(Change::Write(offset, zeros));
        changed.map_err(|_| Errno::EIO)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        Ok(self.length().max(offset))
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset).filter(|offset| *offset < self.length()))
    }

    fn forget(&self, _: u64, _: u64) -> nix::Result<()> {
        Ok(())
    }

    fn send(&self, _: &TcpStream, _: u64, _: usize) -> nix::Result<usize> {
        Err(Errno::ENOSYS)
    }
}

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
    disk: &CrashDisk,
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
                .find_or_create(object)
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
            if let Err(error) = store.truncate(object, length) {
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
fn flip(disk: &CrashDisk, store: &Store, promises: &[Promise], random: &mut Random, seed: u64) {
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
    let disk = CrashDisk::default();
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
    for seed in first..first + runs {
        run(directory.path(), seed);
    }
    println!(
        "{} images of {runs} runs from seed {first}",
        runs * LIVES as u64
    );
}
