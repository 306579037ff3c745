// SPDX-License-Identifier: MIT
//! A program on a node: random calls in one small directory, each written down with what came back.
//! The calls and the file system that they are judged by are those of `cssns_histories`.

use std::sync::{Arc as HostArc, Mutex as HostMutex, PoisonError};
use std::time::Duration;

use cssns_histories::linearizability::Event;
use cssns_histories::{CELL_BYTES, CELLS_AT_FIRST, CELLS_MAX, Call, Got, NAMES};
use pvfs::error::FsError;
use pvfs::proto::mgr::RenameMode;
use pvfs::runtime::thread;

use crate::kernel::{OpenFile, ROOT};
use crate::machine::World;
use crate::node::Node;

/// Files that a program has open at most, besides the one that is always there.
const OPEN_MAX: usize = 4;
/// How long a program thinks at most between calls.
const THINKING_MS_MAX: u64 = 40;

/// All calls of a run. Its lock is never held by a task that waits.
#[derive(Clone, Debug, Default)]
pub struct History(HostArc<HostMutex<Vec<Event<Call>>>>);

impl History {
    /// Writes a call down; gives its place.
    fn begin(&self, call: Call) -> usize {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(Event {
            call,
            start: tick(),
            end: u64::MAX,
        });
        events.len() - 1
    }

    fn set(&self, at: usize, call: Call, end: u64) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(event) = events.get_mut(at) {
            event.call = call;
            event.end = end;
        }
    }

    /// Takes a call back that had no effect and saw nothing.
    fn cancel(&self, at: usize) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(event) = events.get_mut(at) {
            event.start = u64::MAX;
        }
    }

    /// The calls that count.
    #[must_use]
    pub fn events(&self) -> Vec<Event<Call>> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = events.iter().filter(|event| event.start != u64::MAX);
        counts.cloned().collect()
    }
}

fn tick() -> u64 {
    World::current().map_or(0, |world| world.tick())
}

/// Where things are that were made before programs start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// The two directories' inodes.
    pub directories: [u64; 2],
    /// The file that is always there.
    pub mapped: u64,
}

/// How a program behaves.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Draws the calls.
    pub seed: u64,
    /// How many.
    pub calls: usize,
    /// A write is over when it is synced: its node may die.
    pub synced: bool,
    /// Calls may fail with `EIO` or `ENOSPC`.
    pub may_fail: bool,
}

struct Program<'a> {
    node: &'a Node,
    place: Place,
    manner: Manner,
    history: History,
    random: fastrand::Rng,
    files: Vec<OpenFile>,
}

/// Makes the calls, then closes what it has open.
pub fn run(node: &Node, place: Place, manner: Manner, history: History) {
    let mut program = Program {
        node,
        place,
        random: fastrand::Rng::with_seed(manner.seed),
        manner,
        history,
        files: Vec::new(),
    };
    program.all();
}

impl Program<'_> {
    fn all(&mut self) {
        for _ in 0..self.manner.calls {
            if self.random.u8(..) < 160 {
                let ms = self.random.u64(0..=THINKING_MS_MAX);
                thread::sleep(Duration::from_millis(ms));
            }
            match self.random.u32(0..28) {
                0..6 => self.open(),
                6..11 => self.read(),
                11..16 => self.write(),
                16 => self.truncate(),
                17..19 => self.stat(),
                19..21 => self.find(),
                21..23 => self.rename(),
                23 => self.unlink(),
                24 => self.link(),
                _ => self.sync_or_close(),
            }
        }
        for file in std::mem::take(&mut self.files) {
            self.close(&file);
        }
    }

    fn name(&mut self) -> usize {
        self.random.usize(0..NAMES.len())
    }

    fn parts(&self, name: usize) -> (u64, &'static [u8]) {
        let (directory, entry) = NAMES[name].split_once('/').unwrap_or_default();
        let at = usize::from(directory == "y");
        (self.place.directories[at], entry.as_bytes())
    }

    /// Makes one call. What changes something and fails may have happened all the same, or may yet.
    fn call<T>(
        &self,
        changes: bool,
        mut work: impl FnMut() -> Result<T, FsError>,
        call: impl Fn(Got<T>) -> Call,
        pending: Call,
    ) {
        let at = self.history.begin(pending.clone());
        let text = format!("{pending:?}");
        note(&format!("calls   {text}"));
        // The kernel looks names up once more where what it found is gone.
        let outcome = match work() {
            Err(FsError::Stale) => work(),
            outcome => outcome,
        };
        match outcome {
            Ok(value) => {
                let call = call(Got::Known(value));
                note(&format!("returns {call:?}"));
                self.history.set(at, call, tick());
            }
            Err(error) => {
                note(&format!("fails   {text}: {error}"));
                let tolerated = self.manner.may_fail
                    && matches!(error, FsError::Io | FsError::NoSpace | FsError::Fenced);
                if !tolerated {
                    fail(&format!("{text}: {error}"));
                }
                if !changes {
                    self.history.cancel(at);
                }
            }
        }
    }

    fn open(&mut self) {
        let name = self.name();
        let make = self.random.u8(0..4) > 0;
        let exclusive = make && self.random.bool();
        let append = self.random.u8(0..3) == 0;
        if self.files.len() >= OPEN_MAX {
            let file = self.files.remove(0);
            self.close(&file);
        }
        let place = self.parts(name);
        let call = |got| Call::Open {
            name,
            make,
            exclusive,
            got,
        };
        let mut opened = None;
        let never = call(Got::Never(tick()));
        let work = || {
            let found = self
                .node
                .cache
                .open(&self.node.fs, place, (make, exclusive, append))?;
            opened = found;
            Ok(found.map(|file| file.node))
        };
        self.call(make, work, call, never);
        self.files.extend(opened);
    }

    fn any_file(&mut self) -> Option<OpenFile> {
        (!self.files.is_empty()).then(|| self.files[self.random.usize(0..self.files.len())])
    }

    fn read(&mut self) {
        let Some(file) = self.any_file() else {
            return self.open();
        };
        let cell = self.random.usize(0..CELLS_MAX);
        let read = |got| Call::Read {
            file: file.node,
            cell,
            got,
        };
        let call = |got| match got {
            Got::Known(value) => read(value),
            Got::Never(_) => read(None),
        };
        let offset = (cell * CELL_BYTES) as u64;
        let work = || {
            let bytes = self
                .node
                .cache
                .read(&self.node.fs, &file, offset, CELL_BYTES)?;
            Ok(value_of(&bytes))
        };
        self.call(false, work, call, read(None));
    }

    fn write(&mut self) {
        let Some(file) = self.any_file() else {
            return self.open();
        };
        let cells = match file.node == self.place.mapped {
            true => CELLS_AT_FIRST,
            false => CELLS_MAX,
        };
        let cell = self.random.usize(0..cells);
        let value = tick();
        let number = file.node;
        let call = match file.append {
            true => Call::Append {
                file: number,
                value,
            },
            false => Call::Write {
                file: number,
                cell,
                value,
            },
        };
        let offset = (cell * CELL_BYTES) as u64;
        let bytes = value.to_le_bytes().repeat(CELL_BYTES / 8);
        let work = || {
            self.node
                .cache
                .write(&self.node.fs, &file, offset, &bytes)?;
            if self.manner.synced {
                ROOT.serve(|| self.node.fs.fsync(file.handle))?;
            }
            Ok(())
        };
        self.call(true, work, |_| call.clone(), call.clone());
    }

    fn truncate(&mut self) {
        let Some(file) = self
            .any_file()
            .filter(|file| file.node != self.place.mapped)
        else {
            return;
        };
        let cells = self.random.usize(0..CELLS_MAX);
        let call = Call::Truncate {
            file: file.node,
            cells,
        };
        let size = (cells * CELL_BYTES) as u64;
        let work = || self.node.cache.truncate(&self.node.fs, &file, size);
        self.call(true, work, |_| call.clone(), call.clone());
    }

    fn stat(&mut self) {
        let Some(file) = self.any_file() else {
            return;
        };
        let stat = |(cells, links)| Call::Stat {
            file: file.node,
            cells,
            links,
        };
        let call = |got| match got {
            Got::Known(seen) => stat(seen),
            Got::Never(_) => stat((0, 0)),
        };
        let work = || {
            let attr = self.node.cache.getattr(&self.node.fs, file.node)?;
            if attr.size % CELL_BYTES as u64 != 0 {
                fail(&format!("{} bytes are no whole cells", attr.size));
            }
            Ok((
                (attr.size / CELL_BYTES as u64) as usize,
                u64::from(attr.nlink),
            ))
        };
        self.call(false, work, call, stat((0, 0)));
    }

    fn find(&mut self) {
        let name = self.name();
        let place = self.parts(name);
        let call = |got| match got {
            Got::Known(got) => Call::Find { name, got },
            Got::Never(_) => Call::Find { name, got: None },
        };
        let work = || {
            let found = self.node.cache.lookup(&self.node.fs, place)?;
            Ok(found.map(|attr| attr.inode.0))
        };
        self.call(false, work, call, Call::Find { name, got: None });
    }

    fn rename(&mut self) {
        let (from, to) = (self.name(), self.name());
        let (old, new) = (self.parts(from), self.parts(to));
        let call = |got| Call::Rename { from, to, got };
        let Node { fs, cache } = self.node;
        let work = || {
            let Some(found) = cache.lookup(fs, old)? else {
                return Ok(false);
            };
            // The kernel has nothing to do where both names are of one file.
            if cache
                .lookup(fs, new)?
                .is_some_and(|there| there.inode == found.inode)
            {
                return Ok(true);
            }
            done(ROOT.serve(|| fs.rename(ROOT, old, new, RenameMode::Replace)))
        };
        self.call(true, work, call, call(Got::Never(tick())));
    }

    fn unlink(&mut self) {
        let name = self.name();
        let (parent, entry) = self.parts(name);
        let call = |got| Call::Unlink { name, got };
        let Node { fs, cache } = self.node;
        let work = || match cache.lookup(fs, (parent, entry))? {
            None => Ok(false),
            Some(_) => done(ROOT.serve(|| fs.unlink(ROOT, parent, entry))),
        };
        self.call(true, work, call, call(Got::Never(tick())));
    }

    fn link(&mut self) {
        let Some(file) = self
            .any_file()
            .filter(|file| file.node != self.place.mapped)
        else {
            return;
        };
        let name = self.name();
        let (parent, entry) = self.parts(name);
        let call = |got| Call::Link {
            file: file.node,
            name,
            got,
        };
        let Node { fs, cache } = self.node;
        let work = || match cache.lookup(fs, (parent, entry))? {
            Some(_) => Ok(false),
            None => done(ROOT.serve(|| fs.link(ROOT, file.node, parent, entry).map(drop))),
        };
        self.call(true, work, call, call(Got::Never(tick())));
    }

    fn sync_or_close(&mut self) {
        if self.files.is_empty() {
            return;
        }
        let at = self.random.usize(0..self.files.len());
        if self.random.bool() {
            let file = self.files.remove(at);
            self.close(&file);
        } else {
            let handle = self.files[at].handle;
            let synced = ROOT.serve(|| self.node.fs.fsync(handle));
            self.tolerate("fsync", synced);
        }
    }

    fn close(&self, file: &OpenFile) {
        let flushed = ROOT.serve(|| self.node.fs.flush(file.handle));
        self.tolerate("close", flushed);
        ROOT.serve(|| self.node.fs.release(file.handle));
    }

    fn tolerate(&self, what: &str, outcome: Result<(), FsError>) {
        if let Err(error) = outcome {
            note(&format!("{what}: {error}"));
            if !self.manner.may_fail {
                fail(&format!("{what}: {error}"));
            }
        }
    }
}

/// True where it was done, false where the model knows why not.
fn done(outcome: Result<(), FsError>) -> Result<bool, FsError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(FsError::NotFound | FsError::Exists) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The value that a cell holds; `None` beyond the end.
fn value_of(bytes: &[u8]) -> Option<u64> {
    let first = *bytes.first_chunk::<8>()?;
    if bytes.len() != CELL_BYTES || bytes.chunks_exact(8).any(|part| part != first) {
        fail("a cell is mixed or short");
    }
    Some(u64::from_le_bytes(first))
}

fn note(what: &str) {
    if let Some(world) = World::current() {
        world.note(what);
    }
}

fn fail(reason: &str) {
    if let Some(world) = World::current() {
        world.fail(reason);
    }
}
