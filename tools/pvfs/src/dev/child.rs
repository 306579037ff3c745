// SPDX-License-Identifier: MIT
//! One daemon under `pvfs dev`: its start, its ready line, its log, its end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout};

use super::tether;

/// How long a daemon may take from SIGTERM to its end before it is killed. A mount flushes first.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a log's end is shown with a failure: the last lines, within this many bytes.
const LOG_TAIL_BYTES_MAX: u64 = 4096;
/// And at most so many lines, to fit a screen.
const LOG_TAIL_LINES_MAX: usize = 15;

/// A daemon to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// How it is called in messages and which log it writes: `mgr`, `iod0`, `mount0`.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// A daemon that runs.
pub struct Running {
    /// As [`Daemon::name`].
    pub name: String,
    log: PathBuf,
    child: Child,
}

impl Running {
    /// Starts `daemon` with its log in `log_dir` (the log of the run before is kept as `.old`).
    ///
    /// The child gets `lock` as its standard input: the lock on the data directory is held until
    /// the last daemon of a run has ended, even when `pvfs dev` itself was killed.
    ///
    /// # Errors
    ///
    /// Where the log cannot be written or the program cannot be started.
    pub fn start(daemon: &Daemon, log_dir: &Path, lock: &File) -> anyhow::Result<(Self, Ready)> {
        let log = log_dir.join(format!("{}.log", daemon.name));
        if log.exists() {
            std::fs::rename(&log, log.with_extension("log.old"))
                .with_context(|| format!("cannot set aside {}", log.display()))?;
        }
        let log_file =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = tether::command(&daemon.program, &daemon.arguments)
            .context("cannot find this program's own file")?;
        command
            .stdin(Stdio::from(
                lock.try_clone().context("cannot pass on the lock")?,
            ))
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log_file))
            // A log is read with less and grep.
            .env("NO_COLOR", "1")
            // Ctrl-C on the terminal goes to `pvfs dev` alone, which ends its children in order.
            .process_group(0);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", daemon.program.display()))?;
        let stdout = child
            .stdout
            .take()
            .context("a child has no standard output")?;
        Ok((
            Self {
                name: daemon.name.clone(),
                log,
                child,
            },
            Ready { stdout },
        ))
    }

    /// Its status if it has ended.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Ends it: SIGTERM, and SIGKILL where that does not help in time (then false).
    pub async fn stop(&mut self) -> bool {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else {
            return true;
        };
        // The child is not reaped yet, so that the number is still its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait())
            .await
            .is_ok()
        {
            return true;
        }
        let _ = self.child.kill().await;
        false
    }

    /// A message about this daemon: what happened, where the log is, and how the log ends.
    pub fn describe(&self, what: &str) -> String {
        let mut message = format!("{} {what}; its log is {}", self.name, self.log.display());
        match tail(&self.log) {
            Ok(lines) if lines.is_empty() => message.push_str(" (empty)"),
            Ok(lines) => {
                message.push_str(" and ends:");
                for line in lines {
                    message.push_str("\n    ");
                    message.push_str(&line);
                }
            }
            Err(error) => message.push_str(&format!(" (unreadable: {error})")),
        }
        message
    }
}

/// The ready line that a daemon still owes.
pub struct Ready {
    stdout: ChildStdout,
}

impl Ready {
    /// What follows `ready ` on the daemon's only line. Pends for ever where the daemon ends or
    /// closes its output first: that it ended is noticed elsewhere, and the start has a deadline.
    pub async fn line(self) -> String {
        let mut lines = BufReader::new(self.stdout).lines();
        loop {
            match lines.next_line().await {
                Ok(Some(line)) => {
                    if let Some(what) = line.strip_prefix("ready") {
                        // Whatever it may still print must not block it, nor end it by SIGPIPE.
                        tokio::spawn(
                            async move { while let Ok(Some(_)) = lines.next_line().await {} },
                        );
                        return what.trim().to_owned();
                    }
                }
                Ok(None) | Err(_) => std::future::pending::<()>().await,
            }
        }
    }
}

fn tail(path: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let skip = lines.len().saturating_sub(LOG_TAIL_LINES_MAX);
    Ok(lines.into_iter().skip(skip).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_short_and_ends_with_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&log, text).unwrap();
        let lines = tail(&log).unwrap();
        assert_eq!(lines.len(), LOG_TAIL_LINES_MAX);
        assert_eq!(lines.last().unwrap(), "line 9999");
        std::fs::write(&log, "").unwrap();
        assert!(tail(&log).unwrap().is_empty());
    }
}
