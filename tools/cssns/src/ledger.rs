// SPDX-License-Identifier: MIT
//! The ledger of a run: everything it made outside itself, in order, in a file.
//!
//! A resource is written down before it is made, so whatever happens to this program, `cssns down`
//! can take the run apart: in the reverse order, and then nothing is left. There is one way of taking
//! apart, used at the end of a run, on a signal, and by `cssns down`.

use crate::plan::{NAME_PREFIX, Plan};
use crate::process::{self, Daemon, ProcessId};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Directory of the ledgers; emptied by a reboot, as what they list is.
pub const STATE_DIR: &str = "/run/cssns";

/// One thing that a run made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Resource {
    /// A directory with all that is in it.
    Directory {
        /// Its path; the last part begins with [`NAME_PREFIX`].
        path: PathBuf,
    },
    /// A network namespace, and with it its devices.
    Namespace {
        /// Its name; begins with [`NAME_PREFIX`].
        name: String,
    },
    /// A mounted file system.
    Mount {
        /// Where it is mounted.
        path: PathBuf,
    },
    /// A process.
    Process {
        /// What it is, for messages.
        name: String,
        /// Which it is.
        id: ProcessId,
    },
    /// A kernel module inserted into this machine's own kernel.
    Module {
        /// Its name.
        name: String,
    },
}

/// What is in a ledger's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was made, in order.
    pub resources: Vec<Resource>,
    /// What the run's owner wants to remember.
    pub note: serde_json::Value,
}

#[derive(Debug, Default)]
struct State {
    record: Record,
    /// Set when taking apart has begun: nothing more may be made.
    closed: bool,
}

/// What processes of a run mean that were not written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strays {
    /// The run was interrupted: its short-lived clients may still be there.
    Expected,
    /// The run is complete: there should be none.
    Fault,
}

/// The ledger of one run.
#[derive(Debug)]
pub struct Ledger {
    plan: Plan,
    file: PathBuf,
    state: Mutex<State>,
}

impl Ledger {
    /// An empty ledger for a new run.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn create(plan: Plan) -> anyhow::Result<Self> {
        std::fs::create_dir_all(STATE_DIR).with_context(|| format!("creating {STATE_DIR}"))?;
        let ledger = Self {
            file: file_of(&plan),
            plan,
            state: Mutex::default(),
        };
        save(&ledger.file, &ledger.lock().record)?;
        Ok(ledger)
    }

    /// The ledger of an existing run.
    ///
    /// # Errors
    /// When there is no such run.
    pub fn open(plan: Plan) -> anyhow::Result<Self> {
        let file = file_of(&plan);
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("there is no run {}: see `cssns list`", plan.run_id()))?;
        let record = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a ledger", file.display()))?;
        Ok(Self {
            plan,
            file,
            state: Mutex::new(State {
                record,
                closed: false,
            }),
        })
    }

    /// The run's names.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What is written down now.
    #[must_use]
    pub fn record(&self) -> Record {
        self.lock().record.clone()
    }

    /// Writes a resource down and then makes it.
    ///
    /// # Errors
    /// When the run is being taken apart, the ledger cannot be written, or `make` fails.
    pub fn make<T>(
        &self,
        resource: Resource,
        make: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut state = self.open_state()?;
        state.record.resources.push(resource);
        save(&self.file, &state.record)?;
        // The lock is held meanwhile, so taking apart does not begin before the resource is whole.
        make()
    }

    /// Starts a daemon and writes it down.
    ///
    /// # Errors
    /// As [`Ledger::make`].
    pub fn start(&self, start: impl FnOnce() -> anyhow::Result<Daemon>) -> anyhow::Result<Daemon> {
        self.start_process(|| start().map(|daemon| (daemon.name.clone(), daemon.id, daemon)))
    }

    /// Starts a process of any kind and writes it down; `start` returns its name, which it is, and
    /// what the caller wants of it.
    ///
    /// # Errors
    /// As [`Ledger::make`].
    pub fn start_process<T>(
        &self,
        start: impl FnOnce() -> anyhow::Result<(String, ProcessId, T)>,
    ) -> anyhow::Result<T> {
        let mut state = self.open_state()?;
        let (name, id, value) = start()?;
        state.record.resources.push(Resource::Process { name, id });
        save(&self.file, &state.record)?;
        Ok(value)
    }

    /// Replaces the owner's note.
    ///
    /// # Errors
    /// As [`Ledger::make`].
    pub fn set_note(&self, note: serde_json::Value) -> anyhow::Result<()> {
        let mut state = self.open_state()?;
        state.record.note = note;
        save(&self.file, &state.record)
    }

    /// Takes everything apart, last first, and checks that nothing is left. What fails does not stop
    /// the rest. Doing it again is harmless.
    ///
    /// `strays` says whether processes of the run that were not written down are a fault.
    ///
    /// # Errors
    /// A list of what could not be taken apart, and of what was left that should not have been.
    pub fn take_apart(&self, strays: Strays) -> anyhow::Result<()> {
        let mut state = self.lock();
        state.closed = true;
        let mut complaints = Vec::new();
        if strays == Strays::Expected {
            complaints.extend(end_strays(&state.record, &self.plan));
        }
        while let Some(resource) = state.record.resources.pop() {
            let started = Instant::now();
            if let Err(error) = take_apart(&resource) {
                complaints.push(format!("{error:#}"));
            }
            tracing::debug!(?resource, elapsed = ?started.elapsed(), "taken apart");
        }
        for process in process::of_run(self.plan.run_id()) {
            complaints.push(format!(
                "process {} was not written down (`{}`)",
                process.pid,
                process::command_line(process.pid)
            ));
            if let Err(error) = process.end() {
                complaints.push(format!("{error:#}"));
            }
        }
        complaints.extend(left_over(&self.plan));
        if complaints.is_empty() {
            return remove_file_if_there(&self.file);
        }
        save(&self.file, &state.record)?;
        bail!(
            "not everything of run {} went away:\n  {}",
            self.plan.run_id(),
            complaints.join("\n  ")
        )
    }

    fn open_state(&self) -> anyhow::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.closed {
            bail!("interrupted");
        }
        Ok(state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A record is pushed or popped whole, so it is usable after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ids of all runs that have a ledger.
#[must_use]
pub fn runs() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(STATE_DIR) else {
        return Vec::new();
    };
    let mut found: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            Some(name.to_str()?.strip_suffix(".json")?.to_owned())
        })
        .collect();
    found.sort();
    found
}

fn file_of(plan: &Plan) -> PathBuf {
    Path::new(STATE_DIR).join(format!("{}.json", plan.run_id()))
}

fn save(file: &Path, record: &Record) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(record)?;
    let draft = file.with_extension("draft");
    std::fs::write(&draft, text).with_context(|| format!("writing {}", draft.display()))?;
    std::fs::rename(&draft, file).with_context(|| format!("writing {}", file.display()))
}

/// Ends the run's processes that are neither in the record nor children of one that is (which ends
/// its own); returns complaints.
fn end_strays(record: &Record, plan: &Plan) -> Vec<String> {
    let written = |pid: i32| {
        record
            .resources
            .iter()
            .any(|r| matches!(r, Resource::Process { id, .. } if id.pid == pid))
    };
    process::of_run(plan.run_id())
        .into_iter()
        .filter(|process| !written(process.pid) && !process.parent().is_some_and(written))
        .filter_map(|process| process.end().err().map(|error| format!("{error:#}")))
        .collect()
}

fn take_apart(resource: &Resource) -> anyhow::Result<()> {
    match resource {
        Resource::Process { name, id } => id.end().with_context(|| name.clone()),
        Resource::Mount { path } => unmount(path),
        Resource::Namespace { name } => {
            if !Path::new("/run/netns").join(name).exists() {
                return Ok(());
            }
            process::run(&["ip", "netns", "delete", name]).map(drop)
        }
        Resource::Directory { path } => remove_directory(path),
        Resource::Module { name } => {
            if !Path::new("/sys/module").join(name).exists() {
                return Ok(());
            }
            process::run(&["rmmod", name]).map(drop)
        }
    }
}

fn unmount(path: &Path) -> anyhow::Result<()> {
    while is_mounted(path)? {
        let path = path.display().to_string();
        if let Err(error) = process::run(&["umount", &path]) {
            // Detached lazily, it at least is in nobody's way; but somebody uses it, which is a fault.
            process::run(&["umount", "--lazy", &path])?;
            return Err(error);
        }
    }
    Ok(())
}

fn is_mounted(path: &Path) -> anyhow::Result<bool> {
    Ok(mounts()?.iter().any(|mounted| mounted == path))
}

fn remove_directory(path: &Path) -> anyhow::Result<()> {
    let ours = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(NAME_PREFIX));
    if !ours {
        bail!("{} is not a directory of ours and stays", path.display());
    }
    if let Some(mounted) = mounts()?.iter().find(|mounted| mounted.starts_with(path)) {
        bail!(
            "{} stays, because {} is still mounted",
            path.display(),
            mounted.display()
        );
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove_file_if_there(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// What carries the run's name although its ledger is empty.
fn left_over(plan: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    let prefix = plan.namespace_prefix();
    for entry in std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            found.push(format!("network namespace {name} is left"));
        }
    }
    let directory = format!("{NAME_PREFIX}{}", plan.run_id());
    for mount in mounts().unwrap_or_default() {
        let inside = mount
            .components()
            .any(|part| part.as_os_str() == directory.as_str());
        if inside {
            found.push(format!("{} is still mounted", mount.display()));
        }
    }
    for process in process::of_run(plan.run_id()) {
        found.push(format!(
            "process {} is left (`{}`)",
            process.pid,
            process::command_line(process.pid)
        ));
    }
    found
}

fn mounts() -> anyhow::Result<Vec<PathBuf>> {
    let text =
        std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    Ok(parse_mountinfo(&text))
}

/// Mount points in the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5): field 5, with octal
/// escapes for blanks and backslashes).
fn parse_mountinfo(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| {
            let plain = field
                .replace("\\040", " ")
                .replace("\\011", "\t")
                .replace("\\012", "\n");
            PathBuf::from(plain.replace("\\134", "\\"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_the_fifth_field() {
        let text = "22 27 0:20 / /proc rw,nosuid - proc proc rw\n\
                    90 27 0:55 / /tmp/a\\040b rw - fuse.pvfs mgr:/ rw\n\nbroken\n";
        assert_eq!(
            parse_mountinfo(text),
            [PathBuf::from("/proc"), PathBuf::from("/tmp/a b")]
        );
    }

    #[test]
    fn a_record_survives_its_file() {
        let record = Record {
            resources: vec![
                Resource::Directory {
                    path: "/tmp/cssns-x".into(),
                },
                Resource::Namespace {
                    name: "cssns-x-switch".into(),
                },
                Resource::Mount {
                    path: "/tmp/cssns-x/m".into(),
                },
                Resource::Process {
                    name: "p".into(),
                    id: ProcessId {
                        pid: 1,
                        start_ticks: 2,
                    },
                },
                Resource::Module { name: "m".into() },
            ],
            note: serde_json::json!({"nodes": 3}),
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }

    #[test]
    fn only_directories_of_ours_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let foreign = home.path().join("precious");
        std::fs::create_dir(&foreign).unwrap();
        assert!(remove_directory(&foreign).is_err());
        assert!(foreign.exists());
        let ours = home.path().join("cssns-x");
        std::fs::create_dir(&ours).unwrap();
        remove_directory(&ours).unwrap();
        assert!(!ours.exists());
        remove_directory(&ours).unwrap();
    }
}
