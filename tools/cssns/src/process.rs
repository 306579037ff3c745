// SPDX-License-Identifier: MIT
//! Processes: daemons that a run starts, and commands that it waits for.
//!
//! Every process of a run carries its run's id in its environment ([`RUN_VARIABLE`]), so that what is
//! left of a run can be found whoever started it.

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Environment variable that names the run a process belongs to.
pub const RUN_VARIABLE: &str = "CSSNS_RUN";

/// How often a process is looked at while something is waited for.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a process may take to end after SIGTERM before SIGKILL.
const TERM_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a process may take to vanish after SIGKILL (it may be in the middle of a write).
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// A process that can be told from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process id.
    pub pid: i32,
    /// When it started, clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_ticks: u64,
}

impl ProcessId {
    /// Identifies the process that now has this id; `None` when there is none.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let start_ticks = Stat::of(pid)?.start_ticks;
        Some(Self { pid, start_ticks })
    }

    /// The process id of its parent, while it runs.
    #[must_use]
    pub fn parent(self) -> Option<i32> {
        Some(Stat::of(self.pid)?.parent)
    }

    /// Whether the process runs (a zombie does not).
    #[must_use]
    pub fn is_running(self) -> bool {
        // Reaps it when it is our child; for others this is an error that means nothing.
        let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        Stat::of(self.pid).is_some_and(|stat| {
            stat.start_ticks == self.start_ticks && !matches!(stat.state, 'Z' | 'X')
        })
    }

    /// Ends the process: SIGTERM, and SIGKILL when that does not help.
    ///
    /// # Errors
    /// When it survives SIGKILL.
    pub fn end(self) -> anyhow::Result<()> {
        for (signal, timeout) in [
            (Signal::SIGTERM, TERM_TIMEOUT),
            (Signal::SIGKILL, KILL_TIMEOUT),
        ] {
            if !self.is_running() {
                return Ok(());
            }
            // It may have ended in this moment; whether it did is looked at next.
            let _ = kill(Pid::from_raw(self.pid), signal);
            let deadline = Instant::now() + timeout;
            while self.is_running() && Instant::now() < deadline {
                std::thread::sleep(POLL_INTERVAL);
            }
        }
        if self.is_running() {
            bail!("process {} survives SIGKILL", self.pid);
        }
        Ok(())
    }
}

/// What `/proc/PID/stat` says of a process; the fields that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    start_ticks: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Understands the text of `/proc/PID/stat` (proc_pid_stat(5)). The command's name in
    /// parentheses may contain anything, so fields count from the last parenthesis.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        // Fields 5 to 21 stand between the parent and the start time.
        let start_ticks = fields.nth(17)?.parse().ok()?;
        Some(Self {
            state,
            parent,
            start_ticks,
        })
    }
}

/// The processes that carry `run_id` in their environment, this one excepted.
#[must_use]
pub fn of_run(run_id: &str) -> Vec<ProcessId> {
    let marker = format!("{RUN_VARIABLE}={run_id}");
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|&pid| pid != own)
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environ| environ.split(|&b| b == 0).any(|e| e == marker.as_bytes()))
        })
        .filter_map(|pid| ProcessId::of(i32::try_from(pid).ok()?))
        .filter(|process| process.is_running())
        .collect()
}

/// The command line of a process, for messages.
#[must_use]
pub fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.trim().to_owned()
}

/// Where and how the processes of a run are started.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The run they belong to.
    pub run_id: String,
    /// Whether they outlive this process.
    pub detached: bool,
    /// Directory of their logs.
    pub logs: PathBuf,
}

impl Launcher {
    /// The environment variable that marks the run's processes.
    #[must_use]
    pub fn marker(&self) -> (String, String) {
        (RUN_VARIABLE.to_owned(), self.run_id.clone())
    }

    /// A command line that runs `argv` in the network namespace `namespace` (the mounts stay the
    /// host's), in a process group of its own.
    #[must_use]
    pub fn command(&self, namespace: Option<&str>, argv: &[String]) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(namespace) = namespace {
            words.extend([
                "nsenter".to_owned(),
                format!("--net=/run/netns/{namespace}"),
                "--".to_owned(),
            ]);
        }
        if !self.detached {
            words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned));
        }
        words.extend(argv.iter().cloned());
        let (program, arguments) = words
            .split_first()
            .map_or(("false", [].as_slice()), |(p, a)| (p, a));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env(RUN_VARIABLE, &self.run_id)
            .stdin(Stdio::null())
            // Ctrl-C is for this program alone, which then ends the others in order.
            .process_group(0);
        command
    }

    /// Starts a daemon whose standard error goes to `NAME.log` and whose standard output goes to
    /// `NAME.out` among the logs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn daemon(
        &self,
        name: &str,
        namespace: Option<&str>,
        argv: &[String],
    ) -> anyhow::Result<Daemon> {
        let log = self.logs.join(format!("{name}.log"));
        let out = self.logs.join(format!("{name}.out"));
        let open = |path: &Path| {
            File::create(path).with_context(|| format!("creating {}", path.display()))
        };
        let child = self
            .command(namespace, argv)
            .stdout(open(&out)?)
            .stderr(open(&log)?)
            .spawn()
            .with_context(|| format!("starting {name} ({})", argv.join(" ")))?;
        let pid = i32::try_from(child.id()).context("process id")?;
        let id = ProcessId::of(pid)
            .with_context(|| format!("{name} ended at once; log: {}", log.display()))?;
        Ok(Daemon {
            name: name.to_owned(),
            id,
            log,
            out,
        })
    }
}

/// A daemon of a run.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// What it is, for messages: `pvfs-iod-node2`.
    pub name: String,
    /// Its process.
    pub id: ProcessId,
    /// Its standard error.
    pub log: PathBuf,
    /// Its standard output.
    pub out: PathBuf,
}

impl Daemon {
    /// Waits for the line that begins with `ready` on the daemon's standard output, and returns it.
    ///
    /// # Errors
    /// When the daemon ends first, or does not say so in time; the message shows its log's end.
    pub fn wait_ready(&self, timeout: Duration) -> anyhow::Result<String> {
        let what = format!("{} to be ready", self.name);
        let ready = || -> Option<String> {
            let text = std::fs::read_to_string(&self.out).ok()?;
            // A line without its newline may be half written.
            let (complete, _) = text.rsplit_once('\n')?;
            complete
                .lines()
                .find(|line| line.starts_with("ready"))
                .map(str::to_owned)
        };
        self.wait_for(&what, timeout, ready)
    }

    /// Waits until `condition` yields something, watching that the daemon lives.
    ///
    /// # Errors
    /// As [`Daemon::wait_ready`].
    pub fn wait_for<T>(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl Fn() -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + timeout;
        loop {
            let running = self.id.is_running();
            if let Some(value) = condition() {
                return Ok(value);
            }
            if !running {
                bail!(
                    "{} ended while we waited for {what}; {}",
                    self.name,
                    self.log_tail()
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "waited {} s for {what}; {}",
                    timeout.as_secs(),
                    self.log_tail()
                );
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn log_tail(&self) -> String {
        log_tail(&self.log)
    }
}

/// How many lines of a log a message carries.
const LOG_TAIL_LINES: usize = 8;

/// Where a log is and how it ends, for messages.
#[must_use]
pub fn log_tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let tail: Vec<&str> = lines
        .iter()
        .skip(lines.len().saturating_sub(LOG_TAIL_LINES))
        .copied()
        .collect();
    if tail.is_empty() {
        format!("its log is empty: {}", log.display())
    } else {
        format!("log: {}\n  | {}", log.display(), tail.join("\n  | "))
    }
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started, or its status is not 0; the message has its command line and what it
/// wrote to standard error.
pub fn run(argv: &[&str]) -> anyhow::Result<String> {
    let (program, arguments) = argv.split_first().context("an empty command line")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .with_context(|| format!("starting {program}: is it installed? run scripts/setup.sh"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}`: {}: {}", argv.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_from_the_last_parenthesis() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 0 0";
        let expected = Stat {
            state: 'S',
            parent: 1,
            start_ticks: 98765,
        };
        assert_eq!(Stat::parse(stat), Some(expected));
        for torn in ["", "7 (a", "7 (a)", "7 (a) S 1 2"] {
            assert_eq!(Stat::parse(torn), None);
        }
    }

    #[test]
    fn this_process_runs_and_an_impostor_does_not() {
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_running());
        assert!(
            !ProcessId {
                start_ticks: own.start_ticks + 1,
                ..own
            }
            .is_running()
        );
    }

    #[test]
    fn a_child_is_ended_and_reaped() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let id = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(id.is_running());
        id.end().unwrap();
        assert!(!id.is_running());
        // Reaped by the above, so that there is nothing left to wait for.
        assert!(child.wait().is_err());
    }

    #[test]
    fn processes_of_a_run_are_found_by_their_environment() {
        let run_id = format!("unit{}", std::process::id());
        let mut child = Command::new("sleep")
            .arg("600")
            .env(RUN_VARIABLE, &run_id)
            .spawn()
            .unwrap();
        // A new program's environment can be read a moment after its parent goes on.
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut found = of_run(&run_id);
        while found.is_empty() && Instant::now() < deadline {
            std::thread::sleep(POLL_INTERVAL);
            found = of_run(&run_id);
        }
        let pids: Vec<i32> = found.iter().map(|process| process.pid).collect();
        assert_eq!(pids, [i32::try_from(child.id()).unwrap()]);
        found[0].end().unwrap();
        assert!(of_run(&run_id).is_empty());
        assert!(child.wait().is_err());
    }
}
