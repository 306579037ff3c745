// SPDX-License-Identifier: MIT
//! A file of several parts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use nix::errno::Errno;
use pvfs::runtime::net::TcpStream;
use pvfs::runtime::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::LocalStat;
use super::super::disk::{Disk, LocalFile, Stamp};
use super::name_of;

/// Sent where there is no part.
const ZEROS: [u8; 4096] = [0; 4096];

/// An object's data in as many local files as it needs.
pub(super) struct SpanningFile {
    first: Box<dyn LocalFile>,
    part_bytes: u64,
    disk: Arc<dyn Disk>,
    /// Where the other parts are, or would be.
    directory: PathBuf,
    /// There are others. Never false again.
    has_parts: AtomicBool,
    state: Mutex<State>,
    /// One at a time, so that nobody returns while what it asks for is another's to flush.
    flushing: Mutex<()>,
    /// Stamps given out.
    stamps: AtomicI64,
}

/// What there is of parts without the first.
struct State {
    /// How long each is.
    lengths: BTreeMap<u64, u64>,
    /// Those that may have something to be flushed.
    unflushed: BTreeSet<u64>,
    /// Names may have to be flushed.
    names_unflushed: bool,
    /// The one that was used last.
    open: Option<(u64, Arc<dyn LocalFile>)>,
}

impl std::fmt::Debug for SpanningFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("SpanningFile");
        text.field("first", &self.first)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// Where a byte is.
struct Place {
    part: u64,
    /// Offset in the part.
    at: u64,
    /// Bytes from there to the part's end.
    room: u64,
}

impl Place {
    /// How many of `length` bytes are in the part.
    fn clip(&self, length: usize) -> usize {
        usize::try_from(self.room).map_or(length, |room| room.min(length))
    }
}

/// Either the first part or another.
enum Part<'a> {
    First(&'a dyn LocalFile),
    Other(Arc<dyn LocalFile>),
}

impl<'a> Deref for Part<'a> {
    type Target = dyn LocalFile + 'a;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::First(file) => *file,
            Self::Other(file) => file.as_ref(),
        }
    }
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

impl SpanningFile {
    /// A file whose first part is open and whose others, so long as `lengths` says, are in a directory
    /// of a disk.
    pub(super) fn new(
        first: Box<dyn LocalFile>,
        (disk, directory): (Arc<dyn Disk>, PathBuf),
        part_bytes: u64,
        lengths: BTreeMap<u64, u64>,
    ) -> Self {
        Self {
            first,
            part_bytes,
            disk,
            directory,
            has_parts: AtomicBool::new(!lengths.is_empty()),
            state: Mutex::new(State {
                // Whoever wrote them may have been killed before it flushed them.
                unflushed: lengths.keys().copied().collect(),
                names_unflushed: true,
                lengths,
                open: None,
            }),
            flushing: Mutex::new(()),
            stamps: AtomicI64::new(0),
        }
    }

    fn place(&self, offset: u64) -> Place {
        let at = offset % self.part_bytes;
        Place {
            part: offset / self.part_bytes,
            at,
            room: self.part_bytes - at,
        }
    }

    fn start_of(&self, part: u64) -> u64 {
        part.saturating_mul(self.part_bytes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change leaves it sound, so a panic does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_parts(&self) -> bool {
        self.has_parts.load(Ordering::Acquire)
    }

    /// A part, if it is there.
    fn part(&self, part: u64) -> io::Result<Option<Part<'_>>> {
        if part == 0 {
            return Ok(Some(Part::First(self.first.as_ref())));
        }
        if !self.has_parts() {
            return Ok(None);
        }
        let mut state = self.state();
        if !state.lengths.contains_key(&part) {
            return Ok(None);
        }
        self.open_part(&mut state, part)
            .map(|file| Some(Part::Other(file)))
    }

    fn open_part(&self, state: &mut State, part: u64) -> io::Result<Arc<dyn LocalFile>> {
        match &state.open {
            Some((open, file)) if *open == part => return Ok(Arc::clone(file)),
            Some(_) | None => {}
        }
        let path = self.directory.join(name_of(part));
        let file: Arc<dyn LocalFile> = match self.disk.open(&path, false) {
            // Not the same as an object that is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(io::Error::other(format!("{} is gone", path.display())));
            }
            opened => opened?.into(),
        };
        state.open = Some((part, Arc::clone(&file)));
        Ok(file)
    }

    /// A part that is about to be changed, made if it is not there.
    fn part_to_change(&self, part: u64) -> io::Result<Part<'_>> {
        if part == 0 {
            return Ok(Part::First(self.first.as_ref()));
        }
        let mut state = self.state();
        if !state.lengths.contains_key(&part) {
            self.make_part(&mut state, part)?;
        }
        self.open_part(&mut state, part).map(Part::Other)
    }

    fn make_part(&self, state: &mut State, part: u64) -> io::Result<()> {
        self.disk.make_directory(&self.directory)?;
        let path = self.directory.join(name_of(part));
        let file = self.disk.open(&path, true)?;
        state.lengths.insert(part, 0);
        state.names_unflushed = true;
        state.open = Some((part, file.into()));
        self.has_parts.store(true, Ordering::Release);
        Ok(())
    }

    /// Notes that a part was changed, or that this failed: afterwards, or a flush in between could
    /// miss it.
    fn note_change(&self, part: u64) {
        if part > 0 {
            self.state().unflushed.insert(part);
        }
    }

    /// The same where the length may have changed.
    fn measured<T>(
        &self,
        part: u64,
        file: &dyn LocalFile,
        changed: io::Result<T>,
    ) -> io::Result<T> {
        self.note_change(part);
        if part > 0 {
            let length = file.length()?;
            self.state().lengths.insert(part, length);
        }
        changed
    }

    fn set_part_length(&self, part: u64, length: u64) -> io::Result<()> {
        let file = self.part_to_change(part)?;
        self.measured(part, &*file, file.set_length(length))
    }

    /// The first part from `part` on that is there.
    fn next_part(&self, part: u64) -> Option<u64> {
        match part {
            0 => Some(0),
            _ => self.state().lengths.range(part..).next().map(|(k, _)| *k),
        }
    }

    /// How many zeros follow from `offset` on, where a part is not there or has ended: at most up to
    /// the next part, and none where the file ends.
    fn gap(&self, offset: u64) -> io::Result<u64> {
        if !self.has_parts() {
            return Ok(0);
        }
        let rest = self.length()?.saturating_sub(offset);
        Ok(rest.min(self.place(offset).room))
    }

    /// Calls `act` with each piece of a range that is in one part which is there: the part's number, its
    /// file, the offset in it and the length.
    fn pieces_there(
        &self,
        offset: u64,
        length: u64,
        mut act: impl FnMut(u64, &dyn LocalFile, u64, u64) -> nix::Result<()>,
    ) -> nix::Result<()> {
        let end = offset.saturating_add(length);
        let mut next = self.next_part(self.place(offset).part);
        while let Some(part) = next.filter(|part| self.start_of(*part) < end) {
            let from = offset.max(self.start_of(part));
            let size = self.place(from).room.min(end - from);
            let found = self.part(part).map_err(|error| errno_of(&error))?;
            if let Some(file) = found {
                act(part, &*file, from - self.start_of(part), size)?;
            }
            next = self.next_part(part + 1);
        }
        Ok(())
    }

    /// Flushes what may have to be; see `flushing`.
    fn flush_parts(&self) -> io::Result<()> {
        let parts: Vec<u64> = self.state().unflushed.iter().copied().collect();
        for part in parts {
            // Taken out first: a write that comes meanwhile puts it in again.
            self.state().unflushed.remove(&part);
            let flushed = match self.part(part) {
                Ok(Some(file)) => file.sync(),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if flushed.is_err() {
                self.state().unflushed.insert(part);
                return flushed;
            }
        }
        if std::mem::take(&mut self.state().names_unflushed) {
            let names = || {
                if let Some(parent) = self.directory.parent() {
                    self.disk.sync_directory(parent)?;
                }
                self.disk.sync_directory(&self.directory)
            };
            if let Err(error) = names() {
                self.state().names_unflushed = true;
                return Err(error);
            }
        }
        Ok(())
    }
}

impl LocalFile for SpanningFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let place = self.place(offset);
        let room = place.clip(bytes.len());
        let Some(bytes) = bytes.get_mut(..room) else {
            return Ok(0);
        };
        let filled = match self.part(place.part)? {
            Some(part) => part.read_at(bytes, place.at)?,
            None => 0,
        };
        if filled > 0 || bytes.is_empty() {
            return Ok(filled);
        }
        let gap = usize::try_from(self.gap(offset)?).unwrap_or(usize::MAX);
        let zeros = bytes.len().min(gap);
        bytes.iter_mut().take(zeros).for_each(|byte| *byte = 0);
        Ok(zeros)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let place = self.place(offset);
        let bytes = bytes.get(..place.clip(bytes.len())).unwrap_or(bytes);
        let part = self.part_to_change(place.part)?;
        self.measured(place.part, &*part, part.write_at(bytes, place.at))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let last = length.saturating_sub(1) / self.part_bytes;
        // From the end on, so that what a failure leaves is a file that was cut.
        if self.has_parts() {
            let beyond: Vec<u64> = self
                .state()
                .lengths
                .range(last + 1..)
                .map(|(part, _)| *part)
                .collect();
            for part in beyond.into_iter().rev() {
                self.set_part_length(part, 0)?;
            }
        }
        self.set_part_length(last, length - self.start_of(last))
    }

    fn sync(&self) -> io::Result<()> {
        self.first.sync()?;
        if !self.has_parts() {
            return Ok(());
        }
        let _one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush_parts()
    }

    fn length(&self) -> io::Result<u64> {
        if self.has_parts() {
            let state = self.state();
            let last = state.lengths.iter().rfind(|(_, length)| **length > 0);
            if let Some((part, length)) = last {
                return Ok(self.start_of(*part) + length);
            }
        }
        self.first.length()
    }

    fn stat(&self) -> io::Result<LocalStat> {
        let mut stat = self.first.stat()?;
        if self.has_parts() {
            stat.length = self.length()?;
            let mut next = self.next_part(1);
            while let Some(part) = next {
                if let Some(file) = self.part(part)? {
                    stat.allocated = stat.allocated.saturating_add(file.stat()?.allocated);
                }
                next = self.next_part(part + 1);
            }
        }
        Ok(stat)
    }

    /// Of a file of several parts no stamp is ever the same as another, so that whoever remembers it
    /// looks again: to ask each part would cost more.
    fn stamp(&self) -> io::Result<Stamp> {
        let stamp = self.first.stamp()?;
        if !self.has_parts() {
            return Ok(stamp);
        }
        Ok(Stamp {
            length: self.length()?,
            modified_ns: self.stamps.fetch_add(1, Ordering::Relaxed),
            changed_ns: stamp.changed_ns,
        })
    }

    fn allocate(&self, offset: u64, length: u64) -> nix::Result<()> {
        let end = offset.saturating_add(length);
        let mut offset = offset;
        while offset < end {
            let Place { part, at, room } = self.place(offset);
            let size = room.min(end - offset);
            let file = self.part_to_change(part);
            let file = file.map_err(|error| errno_of(&error))?;
            let allocated = file.allocate(at, size);
            self.note_change(part);
            allocated?;
            offset += size;
        }
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> nix::Result<()> {
        self.pieces_there(offset, length, |part, file, at, size| {
            let punched = file.punch(at, size);
            self.note_change(part);
            punched
        })
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        let mut offset = offset;
        loop {
            let place = self.place(offset);
            let Some(part) = self.part(place.part)? else {
                return Ok(offset);
            };
            let hole = part.next_hole(place.at)?;
            if hole < self.part_bytes {
                return Ok(self.start_of(place.part) + hole);
            }
            offset = self.start_of(place.part + 1);
        }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let Place { part, mut at, .. } = self.place(offset);
        let mut next = self.next_part(part);
        while let Some(there) = next {
            if there > part {
                at = 0;
            }
            let found = match self.part(there)? {
                Some(file) => file.next_data(at)?,
                None => None,
            };
            if let Some(found) = found {
                return Ok(Some(self.start_of(there) + found));
            }
            next = self.next_part(there + 1);
        }
        Ok(None)
    }

    fn forget(&self, offset: u64, length: u64) -> nix::Result<()> {
        self.pieces_there(offset, length, |_, file, at, size| file.forget(at, size))
    }

    fn send(&self, mut stream: &TcpStream, offset: u64, length: usize) -> nix::Result<usize> {
        let place = self.place(offset);
        let wanted = place.clip(length);
        let sent = match self.part(place.part).map_err(|error| errno_of(&error))? {
            Some(part) => part.send(stream, place.at, wanted)?,
            None => 0,
        };
        if sent > 0 {
            return Ok(sent);
        }
        let gap = self.gap(offset).map_err(|error| errno_of(&error))?;
        let gap = usize::try_from(gap).unwrap_or(usize::MAX);
        let zeros = ZEROS.get(..gap.min(wanted)).unwrap_or(&ZEROS);
        if zeros.is_empty() {
            return Ok(0);
        }
        stream.write(zeros).map_err(|error| errno_of(&error))
    }
}
