// SPDX-License-Identifier: MIT
//! A disk in memory that knows what was flushed and what was not, and makes every image that a power
//! cut may leave: of each write that was not flushed any of its sectors, of each change of a directory
//! that was not flushed any, in any combination. For tests and the simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use pvfs::attr::Space;
use pvfs::proto::report::IodReport;
use pvfs::runtime::net::TcpStream;

use super::LocalStat;
use super::disk::{Disk, LocalFile, Stamp};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// How large it is where nobody says otherwise.
const CAPACITY_BYTES_DEFAULT: u64 = 1 << 40;
/// What one `send` carries at most.
const SENT_AT_ONCE_BYTES: usize = 64 << 10;

/// Random numbers of a seed.
#[derive(Clone, Debug, Default)]
pub(super) struct Random(pub(super) u64);

impl Random {
    /// One below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
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
pub(super) struct Content {
    pub(super) now: Vec<u8>,
    pub(super) flushed: Vec<u8>,
    pending: Vec<Change>,
    /// Counts changes, as the clock does.
    touched: i64,
}

/// A place in memory; what is beyond the memory of the host does not fit there either.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, new) => {
            let start = index(*offset);
            let end = start + new.len();
            bytes.resize(bytes.len().max(end), 0);
            if let Some(place) = bytes.get_mut(start..end) {
                place.copy_from_slice(new);
            }
        }
        Change::Length(length) => bytes.resize(index(*length), 0),
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
                        let end = bytes.len().min(at + index(to_sector));
                        if random.below(4) < chance {
                            let piece = bytes.get(at..end).unwrap_or_default().to_vec();
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

/// Everything on the disk.
#[derive(Debug)]
pub(super) struct World {
    pub(super) contents: Vec<Content>,
    pub(super) names: Names,
    flushed_names: Names,
    /// Calls until the power is cut.
    pub(super) calls_left: Option<u64>,
    capacity_bytes: u64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            contents: Vec::new(),
            names: Names::new(),
            flushed_names: Names::new(),
            calls_left: None,
            capacity_bytes: CAPACITY_BYTES_DEFAULT,
        }
    }
}

impl World {
    fn used_bytes(&self) -> u64 {
        let files = self.contents.iter();
        files.map(|content| content.now.len() as u64).sum()
    }

    /// Makes sure that a file may become so long.
    fn reserve(&self, file: usize, length: u64) -> io::Result<()> {
        let now = self
            .contents
            .get(file)
            .map_or(0, |content| content.now.len() as u64);
        let more = length.saturating_sub(now);
        match more > 0 && self.used_bytes().saturating_add(more) > self.capacity_bytes {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

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

    /// The power is cut, and comes back.
    pub(super) fn cut_off(&mut self, random: &mut Random) {
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

/// A disk in memory, of which images of a power cut can be made.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<World>>);

impl MemoryDisk {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the power and restores it: what was not flushed is there, or not, or in part, as `seed`
    /// says.
    pub fn cut_power(&self, seed: u64) {
        self.world().cut_off(&mut Random(seed));
    }

    /// What may be stored from now on, bytes; what is there stays.
    pub fn set_capacity(&self, bytes: u64) {
        self.world().capacity_bytes = bytes;
    }

    /// Bytes that are stored.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.world().used_bytes()
    }

    /// Flips one bit of what is stored, as `seed` says; false where nothing is.
    pub fn flip_bit(&self, seed: u64) -> bool {
        let mut random = Random(seed);
        let mut world = self.world();
        let bytes = world.used_bytes();
        if bytes == 0 {
            return false;
        }
        let mut place = index(random.below(bytes));
        let bit = 1 << random.below(8);
        for content in &mut world.contents {
            if place < content.now.len() {
                for image in [&mut content.now, &mut content.flushed] {
                    if let Some(byte) = image.get_mut(place) {
                        *byte ^= bit;
                    }
                }
                return true;
            }
            place -= content.now.len();
        }
        false
    }
}

impl Disk for MemoryDisk {
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
        Ok(Box::new(MemoryFile {
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

    fn report(&self, _: &Path) -> io::Result<IodReport> {
        let world = self.world();
        let free = world.capacity_bytes.saturating_sub(world.used_bytes());
        Ok(IodReport {
            space: Space {
                bytes_total: world.capacity_bytes,
                bytes_free: free,
                bytes_available: free,
            },
            writable: true,
            ..IodReport::UNKNOWN
        })
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    file: usize,
}

impl MemoryFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut world = self.disk.world();
        world.call()?;
        let end = match &change {
            Change::Write(offset, bytes) => offset.saturating_add(bytes.len() as u64),
            Change::Length(length) => *length,
        };
        world.reserve(self.file, end)?;
        if let Some(content) = world.contents.get_mut(self.file) {
            content.change(change);
        }
        Ok(())
    }

    fn look<T>(&self, look: impl FnOnce(&Content) -> T) -> T {
        let world = self.disk.world();
        match world.contents.get(self.file) {
            Some(content) => look(content),
            None => look(&Content::default()),
        }
    }

    fn length(&self) -> u64 {
        self.look(|content| content.now.len() as u64)
    }
}

impl LocalFile for MemoryFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.look(|content| {
            let mut rest = content.now.get(index(offset)..).unwrap_or_default();
            io::Read::read(&mut rest, bytes)
        })
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
        if let Some(content) = world.contents.get_mut(self.file) {
            content.flush();
        }
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
        let touched = self.look(|content| content.touched);
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
        let zeros = vec![0; index(end.saturating_sub(offset))];
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

    fn send(&self, mut stream: &TcpStream, offset: u64, length: usize) -> nix::Result<usize> {
        let mut bytes = vec![0; length.min(SENT_AT_ONCE_BYTES)];
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => Errno::EAGAIN,
            io::ErrorKind::BrokenPipe => Errno::EPIPE,
            io::ErrorKind::NotConnected | io::ErrorKind::ConnectionReset => Errno::ECONNRESET,
            _ => Errno::EIO,
        };
        let filled = self.read_at(&mut bytes, offset).map_err(failed)?;
        let bytes = bytes.get(..filled).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(0);
        }
        stream.write(bytes).map_err(failed)
    }
}
