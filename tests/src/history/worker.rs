// SPDX-License-Identifier: MIT
//! Makes calls on one node, one after another, and writes down when each began and ended.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use cssns_histories::{
    CELL_BYTES, CELLS_AT_FIRST, CELLS_MAX, Call, DIRECTORIES, Got, MAPPED, NAMES,
};
use fastrand::Rng;
use nix::fcntl::AtFlags;
use nix::time::{ClockId, clock_gettime};

use super::{Answer, Note, Task};

/// Open files of a worker at a time, besides the mapped one.
const HANDLES_MAX: usize = 3;

/// The calls in [`Worker::one`] that look at pages, attributes or names.
const LOOKS: [u32; 10] = [5, 6, 7, 8, 17, 18, 19, 20, 21, 26];

/// Maps a file and obeys: `m PATH` maps it, a number reads the value at that offset.
const MAPPER: &str = "\
import mmap, struct, sys
pages = None
for line in sys.stdin:
    if line[0] == 'm':
        if pages is not None:
            pages.close()
        with open(line[2:-1], 'rb') as file:
            pages = mmap.mmap(file.fileno(), 8192, prot=mmap.PROT_READ)
        print('mapped', flush=True)
    else:
        print(struct.unpack_from('<Q', pages, int(line))[0], flush=True)
";

/// Why a history does not go on.
enum Stop {
    /// The mount is gone; the call under way may have taken effect.
    Died,
    /// No order of calls explains this.
    Impossible(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc_errno::ENOTCONN | libc_errno::ECONNABORTED | libc_errno::EIO) => Self::Died,
            _ => Self::Impossible(error.to_string()),
        }
    }
}

/// What calls on a mount whose process was killed fail with.
mod libc_errno {
    use nix::errno::Errno;

    pub(super) const ENOTCONN: i32 = Errno::ENOTCONN as i32;
    pub(super) const ECONNABORTED: i32 = Errno::ECONNABORTED as i32;
    pub(super) const EIO: i32 = Errno::EIO as i32;
}

/// An open file.
struct Handle {
    number: u64,
    file: File,
}

/// The process that maps.
struct Mapper {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Mapper {
    fn start() -> io::Result<Self> {
        let mut child = Command::new("python3")
            .args(["-c", MAPPER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            child,
            answers: BufReader::new(output),
        })
    }

    /// `None` where it has ended: a mapping of a dead mount ends its process.
    fn ask(&mut self, line: &str) -> Option<String> {
        let input = self.child.stdin.as_mut()?;
        writeln!(input, "{line}").ok()?;
        let mut answer = String::new();
        let count = self.answers.read_line(&mut answer).ok()?;
        (count > 0).then(|| answer.trim().to_owned())
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does what each line of `input` says, and answers each with a line.
///
/// # Errors
///
/// Where a line is no [`Task`], or nobody takes the answers.
pub fn serve(input: impl BufRead, mut output: impl Write) -> anyhow::Result<()> {
    let mut mapper = None;
    for line in input.lines() {
        let task: Task = serde_json::from_str(&line?).context("no task")?;
        let answer = carry_out(&task, &mut mapper);
        writeln!(output, "{}", serde_json::to_string(&answer)?)?;
        output.flush()?;
    }
    Ok(())
}

fn carry_out(task: &Task, mapper: &mut Option<Mapper>) -> Answer {
    let mut worker = Worker {
        root: &task.directory,
        rng: Rng::with_seed(task.seed),
        values: (task.worker + 1) << 32,
        synced: task.synced,
        changes_only: task.changes_only,
        mapped: 0,
        handles: Vec::new(),
        notes: Vec::new(),
        refused: 0,
        mapper,
    };
    let outcome = worker.run(task.calls);
    let Worker { notes, refused, .. } = worker;
    let done = |notes, died| Answer::Done {
        notes,
        died,
        refused,
    };
    match outcome {
        Ok(()) => done(notes, false),
        Err(Stop::Died) => {
            *mapper = None;
            done(notes, true)
        }
        Err(Stop::Impossible(reason)) => Answer::Impossible(format!("{reason}, after {notes:?}")),
    }
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC);
    time.map_or(0, |time| {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    })
}

struct Worker<'a> {
    root: &'a Path,
    rng: Rng,
    /// The last value written.
    values: u64,
    synced: bool,
    changes_only: bool,
    mapped: u64,
    handles: Vec<Handle>,
    notes: Vec<Note>,
    /// Calls that were refused for want of space.
    refused: u64,
    mapper: &'a mut Option<Mapper>,
}

impl Worker<'_> {
    fn run(&mut self, calls: usize) -> Result<(), Stop> {
        let path = self.root.join(MAPPED);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        self.mapped = file.metadata()?.ino();
        self.handles.push(Handle {
            number: self.mapped,
            file,
        });
        for _ in 0..calls {
            self.one()?;
        }
        Ok(())
    }

    /// One call, drawn at random.
    fn one(&mut self) -> Result<(), Stop> {
        let mut drawn = self.rng.u32(0..28);
        while self.changes_only && LOOKS.contains(&drawn) {
            drawn = self.rng.u32(0..28);
        }
        let (what, outcome) = match drawn {
            0..5 => ("open", self.open()),
            5..9 => ("read", self.read()),
            9..13 => ("write", self.write()),
            13..16 => ("append", self.append()),
            16 => ("truncate", self.truncate()),
            17..19 => ("stat", self.stat()),
            19..21 => ("find", self.find()),
            21 => ("list", self.list()),
            22..24 => ("rename", self.rename()),
            24 => ("unlink", self.unlink()),
            25 => ("link", self.link()),
            26 => ("read a mapping", self.read_mapping()),
            _ => ("sync or close", self.sync_or_close()),
        };
        outcome.map_err(|stop| match stop {
            Stop::Died => Stop::Died,
            Stop::Impossible(reason) => Stop::Impossible(format!("{what}: {reason}")),
        })
    }

    fn path(&self, name: usize) -> PathBuf {
        self.root.join(NAMES[name])
    }

    fn note(&mut self, call: Call, start: u64, end: u64) {
        self.notes.push(Note { call, start, end });
    }

    /// Writes a call down that changes something: also where it never returned.
    fn change<T>(
        &mut self,
        start: u64,
        outcome: io::Result<T>,
        call: impl FnOnce(Got<T>) -> Call,
    ) -> Result<(), Stop> {
        let end = now();
        match outcome {
            Ok(value) => {
                self.note(call(Got::Known(value)), start, end);
                Ok(())
            }
            // What is refused for want of space has done nothing: it is in no order of calls.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.refused += 1;
                Ok(())
            }
            Err(error) => {
                let stop = Stop::from(error);
                self.values += 1;
                let never = call(Got::Never(self.values));
                self.note(never, start, u64::MAX);
                Err(stop)
            }
        }
    }

    fn open(&mut self) -> Result<(), Stop> {
        let name = self.rng.usize(0..NAMES.len());
        let make = self.rng.u32(0..4) > 0;
        let exclusive = make && self.rng.bool();
        let path = self.path(name);
        if self.handles.len() > HANDLES_MAX {
            self.handles.remove(1);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let append = self.rng.bool();
        if append {
            options.custom_flags(nix::fcntl::OFlag::O_APPEND.bits());
        }
        options.create(make).create_new(exclusive);
        let start = now();
        let opened = options.open(&path);
        let end = now();
        let call = |got| Call::Open {
            name,
            make,
            exclusive,
            got,
        };
        let opened = match opened {
            // Where the mount dies before it tells the number, the file may be there all the same.
            Ok(file) => file
                .metadata()
                .map(|attributes| Some((file, attributes.ino()))),
            Err(error) if is_absent(&error) && !make => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && exclusive => Ok(None),
            Err(error) => Err(error),
        };
        let handle = match opened {
            Ok(handle) => handle,
            Err(error) => return self.change(start, Err(error), call),
        };
        let number = handle.as_ref().map(|(_, number)| *number);
        self.note(call(Got::Known(number)), start, end);
        if let Some((file, number)) = handle {
            // A handle that appends is told by its flags.
            self.handles.push(Handle { number, file });
        }
        Ok(())
    }

    fn handle(&mut self) -> usize {
        self.rng.usize(0..self.handles.len())
    }

    /// A handle of a file whose size may change, if there is one.
    fn resizable(&mut self) -> Option<usize> {
        let found = self.handle();
        (self.handles[found].number != self.mapped).then_some(found)
    }

    fn read(&mut self) -> Result<(), Stop> {
        let at = self.handle();
        let handle = &self.handles[at];
        let cell = self.rng.usize(0..CELLS_MAX);
        let file = handle.number;
        let mut bytes = [0; CELL_BYTES];
        let start = now();
        let count = handle
            .file
            .read_at(&mut bytes, (cell * CELL_BYTES) as u64)?;
        let end = now();
        let got = value_of(&bytes[..count]).map_err(Stop::Impossible)?;
        self.note(Call::Read { file, cell, got }, start, end);
        Ok(())
    }

    fn read_mapping(&mut self) -> Result<(), Stop> {
        let cell = self.rng.usize(0..CELLS_AT_FIRST);
        if self.mapper.is_none() {
            *self.mapper = Some(Mapper::start()?);
        }
        let path = self.root.join(MAPPED);
        let Some(mapper) = self.mapper.as_mut() else {
            return Ok(());
        };
        if mapper.ask(&format!("m {}", path.display())).is_none() {
            return Err(Stop::Died);
        }
        for _ in 0..2 {
            let start = now();
            let mapper = self.mapper.as_mut().ok_or(Stop::Died)?;
            let answer = mapper.ask(&(cell * CELL_BYTES).to_string());
            let end = now();
            let value = answer.ok_or(Stop::Died)?.parse();
            let got = Some(value.map_err(|_| Stop::Impossible("no number".to_owned()))?);
            let file = self.mapped;
            self.note(Call::Read { file, cell, got }, start, end);
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Stop> {
        let at = self.handle();
        let cells = match self.handles[at].number == self.mapped {
            true => CELLS_AT_FIRST,
            false => CELLS_MAX,
        };
        let cell = self.rng.usize(0..cells);
        self.values += 1;
        let value = self.values;
        let handle = &self.handles[at];
        let file = handle.number;
        let appends = appends(&handle.file)?;
        let offset = (cell * CELL_BYTES) as u64;
        let start = now();
        let mut outcome = handle.file.write_all_at(&bytes_of(value), offset);
        if self.synced && outcome.is_ok() {
            outcome = handle.file.sync_all();
        }
        // On Linux pwrite(2) appends where the file is open for that.
        self.change(start, outcome, |_| match appends {
            true => Call::Append { file, value },
            false => Call::Write { file, cell, value },
        })
    }

    fn append(&mut self) -> Result<(), Stop> {
        let Some(at) = self.resizable() else {
            return self.write();
        };
        if !appends(&self.handles[at].file)? {
            return self.write();
        }
        self.values += 1;
        let value = self.values;
        let handle = &self.handles[at];
        let file = handle.number;
        let start = now();
        let mut outcome = (&handle.file).write_all(&bytes_of(value));
        if self.synced && outcome.is_ok() {
            outcome = handle.file.sync_all();
        }
        self.change(start, outcome, |_| Call::Append { file, value })
    }

    fn truncate(&mut self) -> Result<(), Stop> {
        let Some(at) = self.resizable() else {
            return Ok(());
        };
        let cells = self.rng.usize(0..CELLS_MAX);
        let handle = &self.handles[at];
        let file = handle.number;
        let start = now();
        let outcome = handle.file.set_len((cells * CELL_BYTES) as u64);
        self.change(start, outcome, |_| Call::Truncate { file, cells })
    }

    fn stat(&mut self) -> Result<(), Stop> {
        let at = self.handle();
        let handle = &self.handles[at];
        let start = now();
        let attr = handle.file.metadata()?;
        let end = now();
        if attr.size() % CELL_BYTES as u64 != 0 {
            let size = attr.size();
            return Err(Stop::Impossible(format!("{size} bytes are no whole cells")));
        }
        let call = Call::Stat {
            file: handle.number,
            cells: (attr.size() / CELL_BYTES as u64) as usize,
            links: attr.nlink(),
        };
        self.note(call, start, end);
        Ok(())
    }

    fn find(&mut self) -> Result<(), Stop> {
        let name = self.rng.usize(0..NAMES.len());
        let path = self.path(name);
        let start = now();
        let found = std::fs::symlink_metadata(path);
        let end = now();
        let got = match found {
            Ok(attr) => Some(attr.ino()),
            Err(error) if is_absent(&error) => None,
            Err(error) => return Err(error.into()),
        };
        self.note(Call::Find { name, got }, start, end);
        Ok(())
    }

    fn list(&mut self) -> Result<(), Stop> {
        let directory = self.rng.usize(0..DIRECTORIES.len());
        let path = self.root.join(DIRECTORIES[directory]);
        let start = now();
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?.file_name();
            let text = format!("{}/{}", DIRECTORIES[directory], entry.to_string_lossy());
            let known = NAMES.iter().position(|name| *name == text);
            let name = known.ok_or_else(|| Stop::Impossible(format!("{text} was never made")))?;
            if !found.insert(name) {
                return Err(Stop::Impossible(format!("{text} stands there twice")));
            }
        }
        let end = now();
        for (name, text) in NAMES.iter().enumerate() {
            if text.starts_with(DIRECTORIES[directory]) {
                let got = found.contains(&name);
                self.note(Call::List { name, got }, start, end);
            }
        }
        Ok(())
    }

    fn rename(&mut self) -> Result<(), Stop> {
        let from = self.rng.usize(0..NAMES.len());
        let to = self.rng.usize(0..NAMES.len());
        let (old, new) = (self.path(from), self.path(to));
        let start = now();
        let outcome = done_unless(std::fs::rename(old, new), is_absent);
        self.change(start, outcome, |got| Call::Rename { from, to, got })
    }

    fn unlink(&mut self) -> Result<(), Stop> {
        let name = self.rng.usize(0..NAMES.len());
        let path = self.path(name);
        let start = now();
        let outcome = done_unless(std::fs::remove_file(path), is_absent);
        self.change(start, outcome, |got| Call::Unlink { name, got })
    }

    /// Through the descriptor, so that no name is looked up before.
    fn link(&mut self) -> Result<(), Stop> {
        use std::os::fd::AsRawFd;
        let Some(at) = self.resizable() else {
            return Ok(());
        };
        let name = self.rng.usize(0..NAMES.len());
        let path = self.path(name);
        let handle = &self.handles[at];
        let file = handle.number;
        let old = format!("/proc/self/fd/{}", handle.file.as_raw_fd());
        let start = now();
        let linked = nix::unistd::linkat(
            nix::fcntl::AT_FDCWD,
            Path::new(&old),
            nix::fcntl::AT_FDCWD,
            &path,
            AtFlags::AT_SYMLINK_FOLLOW,
        );
        let refused =
            |error: &io::Error| is_absent(error) || error.kind() == io::ErrorKind::AlreadyExists;
        let outcome = done_unless(linked.map_err(io::Error::from), refused);
        self.change(start, outcome, |got| Call::Link { file, name, got })
    }

    fn sync_or_close(&mut self) -> Result<(), Stop> {
        let at = self.handle();
        if at > 0 && self.rng.bool() {
            self.handles.remove(at);
        } else {
            self.handles[at].file.sync_all()?;
        }
        Ok(())
    }
}

/// True where it was done, false where it was refused for a reason that the model knows.
fn done_unless(
    outcome: io::Result<()>,
    refused: impl FnOnce(&io::Error) -> bool,
) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if refused(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn appends(file: &File) -> Result<bool, Stop> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = fcntl(file, FcntlArg::F_GETFL).map_err(io::Error::from)?;
    Ok(OFlag::from_bits_truncate(flags).contains(OFlag::O_APPEND))
}

fn bytes_of(value: u64) -> [u8; CELL_BYTES] {
    let mut bytes = [0; CELL_BYTES];
    for part in bytes.chunks_exact_mut(8) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// The value that a cell holds; `None` beyond the end.
fn value_of(bytes: &[u8]) -> Result<Option<u64>, String> {
    let Some(first) = bytes.first_chunk::<8>() else {
        return match bytes {
            [] => Ok(None),
            _ => Err(format!("a read ends after {} bytes", bytes.len())),
        };
    };
    if bytes.len() != CELL_BYTES {
        return Err(format!("a read ends after {} bytes", bytes.len()));
    }
    if bytes.chunks_exact(8).any(|part| part != first) {
        return Err("two writes are mixed in one cell".to_owned());
    }
    Ok(Some(u64::from_le_bytes(*first)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cssns_histories::linearizability::{Event, check};
    use cssns_histories::model::Files;

    #[test]
    fn mixed_and_torn_cells_are_noticed() {
        assert_eq!(value_of(&bytes_of(7)), Ok(Some(7)));
        assert_eq!(value_of(&[]), Ok(None));
        let mut mixed = bytes_of(7);
        mixed[CELL_BYTES - 1] = 1;
        assert!(value_of(&mixed).is_err());
        assert!(value_of(&bytes_of(7)[..100]).is_err());
    }

    /// The model is right about the kernel's own file system: a single worker on it passes.
    #[test]
    fn the_calls_on_a_local_file_system_fit_the_model() {
        let mut mapper = None;
        for seed in 0..40 {
            // On tmpfs no inode number comes twice.
            let dir = tempfile::tempdir_in("/dev/shm").unwrap();
            crate::history::lanes::prepare(dir.path()).unwrap();
            let mapped = std::fs::metadata(dir.path().join(MAPPED)).unwrap().ino();
            let task = Task {
                directory: dir.path().to_owned(),
                seed,
                worker: 0,
                calls: 60,
                synced: seed % 2 == 0,
                changes_only: false,
            };
            let Answer::Done {
                notes, died: false, ..
            } = carry_out(&task, &mut mapper)
            else {
                panic!("it failed");
            };
            assert!(notes.len() > 40);
            let events: Vec<_> = notes
                .into_iter()
                .map(|Note { call, start, end }| Event { call, start, end })
                .collect();
            assert_eq!(check(Files::new(mapped), &events), Ok(()), "{events:?}");
        }
    }
}
