// SPDX-License-Identifier: MIT
//! Work that goes on while daemons are killed, and what it was promised meanwhile.
//!
//! The work is done by a process of its own, `pvfs-workload`: step after step, one line on its output
//! for each that is acknowledged. A step follows from its number alone, so the test knows what was
//! promised by counting lines. A step may take as long as a daemon is away, but it must not fail.
//!
//! A process of its own, because a process that starts a daemon while it has a file open on the mount
//! may wait for that daemon: exec(2) closes the child's copy of the file, close flushes, and the
//! flush needs mgr.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fastrand::Rng;

use crate::operation::Data;
use crate::programs;

/// After a restart, the next step must end within so long: retries pause for a second at most, and a
/// client notices a dead peer by its closed connection. The rest is for a busy machine.
const RESUME_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a block that [`Kind::Blocks`] writes; with stripes of 512 KiB some lie on two iods.
const BLOCK_BYTES: usize = 200_000;
/// Blocks of a file.
const BLOCKS: u64 = 12;
/// Files.
const FILES: u64 = 3;

/// What kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Creates, renames, links, removes: each would fail if it were done twice.
    Names,
    /// Overwrites blocks of a few files at random, with fsync after every third.
    Blocks,
}

impl Kind {
    /// As on the command line of `pvfs-workload`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Blocks => "blocks",
        }
    }

    /// Undoes [`Self::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Names, Self::Blocks]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// One system call or two of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    MakeDirectory(String),
    /// Create, write, fsync, close.
    Create(String, Data),
    Rename(String, String),
    Link(String, String),
    Unlink(String),
    /// Into file and block.
    Write(u64, u64, Data),
    Sync(u64),
}

/// The actions of step `number`.
fn actions(kind: Kind, seed: u64, number: u64) -> Vec<Action> {
    match kind {
        Kind::Names => name_actions(number),
        Kind::Blocks => block_actions(seed, number),
    }
}

fn name_actions(number: u64) -> Vec<Action> {
    let directory = format!("d{}", number / 20);
    let (new, renamed) = (
        format!("{directory}/new{number}"),
        format!("{directory}/f{number}"),
    );
    let mut actions = Vec::new();
    if number % 20 == 0 {
        actions.push(Action::MakeDirectory(directory.clone()));
    }
    actions.push(Action::Create(
        new.clone(),
        Data {
            seed: number,
            length: 100,
        },
    ));
    actions.push(Action::Rename(new, renamed.clone()));
    if number % 3 == 0 {
        actions.push(Action::Link(
            renamed.clone(),
            format!("{directory}/link{number}"),
        ));
    }
    if number % 5 == 0 {
        actions.push(Action::Unlink(renamed));
    }
    actions
}

fn block_actions(seed: u64, number: u64) -> Vec<Action> {
    let mut rng = Rng::with_seed(seed.wrapping_add(number));
    let file = number % FILES;
    let mut actions: Vec<Action> = (0..3)
        .map(|_| {
            let data = Data {
                seed: rng.u64(..),
                length: BLOCK_BYTES,
            };
            Action::Write(file, rng.u64(0..BLOCKS), data)
        })
        .collect();
    actions.push(Action::Sync(file));
    actions
}

fn block_file(file: u64) -> String {
    format!("blocks{file}")
}

/// Does step `number` below `root`; returns when it is acknowledged.
///
/// # Errors
///
/// What a system call said.
pub fn perform(root: &Path, kind: Kind, seed: u64, number: u64) -> anyhow::Result<()> {
    let mut open: Option<File> = None;
    for action in actions(kind, seed, number) {
        perform_one(root, &action, &mut open).with_context(|| format!("{number}: {action:?}"))?;
    }
    Ok(())
}

/// `open` is the file that a step writes, kept open until it is synced.
fn perform_one(root: &Path, action: &Action, open: &mut Option<File>) -> anyhow::Result<()> {
    match action {
        Action::MakeDirectory(path) => std::fs::create_dir(root.join(path))?,
        Action::Create(path, data) => {
            let mut file = File::create_new(root.join(path)).context("create")?;
            file.write_all(&data.bytes()).context("write")?;
            file.sync_all().context("fsync")?;
        }
        Action::Rename(from, to) => std::fs::rename(root.join(from), root.join(to))?,
        Action::Link(from, to) => std::fs::hard_link(root.join(from), root.join(to))?,
        Action::Unlink(path) => std::fs::remove_file(root.join(path))?,
        Action::Write(file, block, data) => {
            if open.is_none() {
                let path = root.join(block_file(*file));
                let mut options = OpenOptions::new();
                let opened = options.create(true).truncate(false).write(true).open(path);
                *open = Some(opened.context("open")?);
            }
            let file = open.as_ref().context("not open")?;
            file.write_all_at(&data.bytes(), block * BLOCK_BYTES as u64)
                .context("write")?;
        }
        Action::Sync(_) => open
            .take()
            .context("not open")?
            .sync_all()
            .context("fsync")?,
    }
    Ok(())
}

/// What must be there after `done` acknowledged steps, and what may be of the step after them.
#[derive(Debug)]
pub struct Promise {
    kind: Kind,
    seed: u64,
    /// Acknowledged steps.
    pub done: u64,
    /// Whether the step after them may have begun.
    begun: bool,
}

impl Promise {
    /// Checks it below `root`.
    ///
    /// # Errors
    ///
    /// The first thing that was promised and is not there, or that is there and must not be.
    pub fn check(&self, root: &Path) -> anyhow::Result<()> {
        match self.kind {
            Kind::Names => self.check_names(root),
            Kind::Blocks => self.check_blocks(root),
        }
        .with_context(|| format!("{self:?}"))
    }

    fn check_names(&self, root: &Path) -> anyhow::Result<()> {
        ensure!(!self.begun, "names are only checked between steps");
        let mut files: BTreeMap<String, Data> = BTreeMap::new();
        let mut directories = Vec::new();
        for action in (0..self.done).flat_map(name_actions) {
            match action {
                Action::MakeDirectory(path) => directories.push(path),
                Action::Create(path, data) => {
                    files.insert(path, data);
                }
                Action::Rename(from, to) => {
                    let data = files.remove(&from).context("rename of nothing")?;
                    files.insert(to, data);
                }
                Action::Link(from, to) => {
                    let data = *files.get(&from).context("link to nothing")?;
                    files.insert(to, data);
                }
                Action::Unlink(path) => {
                    files.remove(&path);
                }
                Action::Write(..) | Action::Sync(_) => {}
            }
        }
        for (name, data) in &files {
            let found =
                std::fs::read(root.join(name)).with_context(|| format!("{name} is lost"))?;
            ensure!(found == data.bytes(), "{name} has other content");
        }
        for directory in directories {
            for entry in std::fs::read_dir(root.join(&directory))? {
                let name = format!("{directory}/{}", entry?.file_name().to_string_lossy());
                ensure!(files.contains_key(&name), "{name} was removed and is back");
            }
        }
        Ok(())
    }

    /// Each byte of a block is that of the write that fsync acknowledged last, or of a write of the
    /// step that was under way.
    fn check_blocks(&self, root: &Path) -> anyhow::Result<()> {
        let mut allowed: BTreeMap<(u64, u64), Vec<Data>> = BTreeMap::new();
        for action in (0..self.done).flat_map(|number| block_actions(self.seed, number)) {
            if let Action::Write(file, block, data) = action {
                allowed.insert((file, block), vec![data]);
            }
        }
        if self.begun {
            for action in block_actions(self.seed, self.done) {
                if let Action::Write(file, block, data) = action {
                    // A block that was never acknowledged may be anything.
                    if let Some(candidates) = allowed.get_mut(&(file, block)) {
                        candidates.push(data);
                    }
                }
            }
        }
        for ((file, block), candidates) in allowed {
            let path = root.join(block_file(file));
            let opened = File::open(&path).with_context(|| path.display().to_string())?;
            let mut found = vec![0; BLOCK_BYTES];
            opened
                .read_exact_at(&mut found, block * BLOCK_BYTES as u64)
                .with_context(|| format!("block {block} of {}", path.display()))?;
            let candidates: Vec<Vec<u8>> = candidates.into_iter().map(Data::bytes).collect();
            let wrong = found
                .iter()
                .enumerate()
                .position(|(at, byte)| candidates.iter().all(|c| c.get(at) != Some(byte)));
            ensure!(
                wrong.is_none(),
                "{} block {block}: byte {wrong:?} is not what fsync acknowledged",
                path.display()
            );
        }
        Ok(())
    }
}

/// A running `pvfs-workload`.
pub struct Worker {
    kind: Kind,
    seed: u64,
    child: Child,
    /// Its end asks the process to stop after the step under way.
    input: Option<ChildStdin>,
    acknowledged: Receiver<u64>,
    done: u64,
}

impl Worker {
    /// Starts it on the mount `root`.
    ///
    /// # Errors
    ///
    /// Where the program is missing.
    pub fn start(root: &Path, kind: Kind, seed: u64) -> anyhow::Result<Self> {
        let mut child = Command::new(programs::find("pvfs-workload")?)
            .args([kind.name(), &seed.to_string()])
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("no pipe")?;
        let (sender, acknowledged) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let number = line.ok().and_then(|line| line.parse().ok());
                if number.is_none_or(|number| sender.send(number).is_err()) {
                    break;
                }
            }
        });
        Ok(Self {
            kind,
            seed,
            child,
            input,
            acknowledged,
            done: 0,
        })
    }

    /// Waits until `count` more steps are acknowledged.
    ///
    /// # Errors
    ///
    /// Where a step failed, or did not end in time.
    pub fn wait_for_steps(&mut self, count: u64) -> anyhow::Result<()> {
        while let Ok(number) = self.acknowledged.try_recv() {
            self.done = number + 1;
        }
        let goal = self.done + count;
        let deadline = Instant::now() + RESUME_TIMEOUT;
        while self.done < goal {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.acknowledged.recv_timeout(left) {
                Ok(number) => self.done = number + 1,
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "step {} is not acknowledged after {RESUME_TIMEOUT:?}",
                        self.done
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let complaint = self.complaint();
                    bail!("the work failed at step {}: {complaint}", self.done)
                }
            }
        }
        Ok(())
    }

    fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            // What cannot be read is missing from a message that says enough without it.
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }

    /// Ends it after the step under way.
    ///
    /// # Errors
    ///
    /// Where a step failed.
    pub fn stop(mut self) -> anyhow::Result<Promise> {
        drop(self.input.take());
        let promise = self.collect(false);
        let status = self.child.wait()?;
        ensure!(status.success(), "the work failed: {}", self.complaint());
        Ok(promise)
    }

    /// After its mount was killed: it has failed, or does so now.
    ///
    /// # Errors
    ///
    /// As waitpid(2).
    pub fn killed(mut self) -> anyhow::Result<Promise> {
        drop(self.input.take());
        let promise = self.collect(true);
        self.child.wait()?;
        Ok(promise)
    }

    /// Counts what is still in the pipe.
    fn collect(&mut self, begun: bool) -> Promise {
        while let Ok(number) = self.acknowledged.recv() {
            self.done = number + 1;
        }
        Promise {
            kind: self.kind,
            seed: self.seed,
            done: self.done,
            begun,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            // Not waited for: it may hang on a mount whose daemons are about to be killed.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promises_hold_on_a_local_file_system() {
        let dir = tempfile::tempdir().unwrap();
        for kind in [Kind::Names, Kind::Blocks] {
            for number in 0..30 {
                perform(dir.path(), kind, 7, number).unwrap();
            }
            let promise = Promise {
                kind,
                seed: 7,
                done: 30,
                begun: false,
            };
            promise.check(dir.path()).unwrap();
        }
        // And are noticed when they are broken.
        std::fs::write(dir.path().join("d0/new1"), "").unwrap();
        let names = Promise {
            kind: Kind::Names,
            seed: 7,
            done: 30,
            begun: false,
        };
        assert!(format!("{:#}", names.check(dir.path()).unwrap_err()).contains("is back"));
        let file = OpenOptions::new()
            .write(true)
            .open(dir.path().join("blocks1"))
            .unwrap();
        file.write_all_at(&[0; BLOCK_BYTES], 0).unwrap();
        file.write_all_at(&[0; BLOCK_BYTES], BLOCK_BYTES as u64)
            .unwrap();
        let blocks = Promise {
            kind: Kind::Blocks,
            seed: 7,
            done: 30,
            begun: false,
        };
        assert!(blocks.check(dir.path()).is_err());
    }
}
