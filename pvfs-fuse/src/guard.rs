// SPDX-License-Identifier: MIT
//! A process that ends a mount's FUSE connection where the mount's own process was killed and cannot.
//!
//! The kernel ends a connection when the last thread of its server is gone. A thread that drops
//! pages may wait, past any signal, for a page which a request has locked; that request waits for an
//! answer, which nobody gives any more once the process was killed. So neither ever ends, and with
//! them no program that uses the mount. The guard is told by the kernel of the death of the mount's
//! main thread (`PR_SET_PDEATHSIG`), and then aborts the connection through fusectl.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getppid};

use pvfs::mountinfo::Device;

/// The hidden first word of a guard's command line.
const GUARD: &str = "--guard";
/// Where fusectl belongs.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";
/// A killed process has so long to end by itself.
const END_TIME_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether it has.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Starts a guard for the mount of this process. The calling thread must be the main one.
///
/// # Errors
///
/// Where no process can be started.
pub fn start(device: &Device) -> Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    Command::new(program)
        .arg(GUARD)
        .arg(std::process::id().to_string())
        .arg(device.minor())
        .current_dir("/")
        // What is sent to the mount's process group, such as by a terminal, is not for this one.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting a process that ends a dead connection")?;
    Ok(())
}

/// Runs as a guard, where the command line says so.
#[must_use]
pub fn run(words: &[OsString]) -> Option<ExitCode> {
    let [_, guard, parent, connection] = words else {
        return None;
    };
    if guard != GUARD {
        return None;
    }
    let parent = parent.to_str()?.parse().ok().map(Pid::from_raw)?;
    Some(match watch(parent, connection) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn watch(parent: Pid, connection: &OsStr) -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    // It may have died before that; and a signal may be about something else.
    while getppid() == parent && !has_lost_its_head(parent) {
        signals.wait()?;
    }
    for _ in 0..END_TIME_MAX.as_millis() / LOOK_INTERVAL.as_millis() {
        if !has_lost_its_head(parent) {
            return Ok(());
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    abort(connection)
}

/// Whether a process' main thread has ended and others have not.
fn has_lost_its_head(process: Pid) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| is_headless(&stat))
}

/// The same of the text of /proc/PID/stat: the state is its third field, the number of threads its
/// twentieth; the second, the name, may hold anything.
fn is_headless(stat: &str) -> bool {
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest);
    let mut fields = fields.unwrap_or_default().split_ascii_whitespace();
    let zombie = fields.next() == Some("Z");
    let threads = fields.nth(16).and_then(|field| field.parse::<u32>().ok());
    zombie && threads.is_some_and(|threads| threads > 1)
}

/// Aborts the connection: whatever waits for it fails with ENOTCONN.
fn abort(connection: &OsStr) -> Result<()> {
    let file: PathBuf = [
        Path::new(CONNECTIONS),
        Path::new(connection),
        Path::new("abort"),
    ]
    .iter()
    .collect();
    if !file.exists() {
        // For this process alone.
        unshare(CloneFlags::CLONE_NEWNS)?;
        let nothing: Option<&str> = None;
        mount(
            nothing,
            "/",
            nothing,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            nothing,
        )?;
        mount(
            Some("fusectl"),
            CONNECTIONS,
            Some("fusectl"),
            MsFlags::empty(),
            nothing,
        )?;
    }
    fs::write(&file, "1").with_context(|| format!("{}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_command_line_makes_a_guard() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for line in [
            "pvfs-fuse node1:/ /mnt -f",
            "pvfs-fuse --guard x 5",
            "pvfs-fuse --guard 5",
        ] {
            assert!(run(&words(line)).is_none(), "{line}");
        }
    }

    #[test]
    fn a_process_that_lives_or_is_dead_is_told_from_one_between() {
        assert!(!has_lost_its_head(Pid::this()));
        assert!(!has_lost_its_head(Pid::from_raw(i32::MAX)));
        let stat = |state: &str, threads: u32| {
            let middle = vec!["0"; 16].join(" ");
            format!("7 (a) b) {state} {middle} {threads} 0 1234\n")
        };
        assert!(is_headless(&stat("Z", 2)));
        assert!(!is_headless(&stat("S", 2)), "alive");
        assert!(!is_headless(&stat("Z", 0)), "not reaped");
        assert!(!is_headless("nonsense"));
    }
}
