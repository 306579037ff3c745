// SPDX-License-Identifier: MIT
//! `lock-holder FILE`: a process that locks as it is told. Each line of its input is a command, and
//! each gets a line of output, such as `ok`, `EAGAIN`, or what `test` found.
//!
//! ```text
//! posix|ofd START LAST shared|exclusive|none try|wait
//! flock shared|exclusive|none try|wait
//! test START LAST              free, or KIND START LAST PID
//! again                        opens and closes another descriptor of the file
//! ```

use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).context("which file?")?;
    let path = PathBuf::from(path);
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let answer = match words.as_slice() {
            ["posix", start, last, kind, how] => {
                let lock = lock(kind, start.parse()?, last.parse()?)?;
                said(fcntl(
                    &file,
                    match *how {
                        "wait" => FcntlArg::F_SETLKW(&lock),
                        _ => FcntlArg::F_SETLK(&lock),
                    },
                ))
            }
            ["ofd", start, last, kind, how] => {
                let lock = lock(kind, start.parse()?, last.parse()?)?;
                said(fcntl(
                    &file,
                    match *how {
                        "wait" => FcntlArg::F_OFD_SETLKW(&lock),
                        _ => FcntlArg::F_OFD_SETLK(&lock),
                    },
                ))
            }
            ["flock", kind, how] => said(flock(&file, kind, how)?),
            ["test", start, last] => {
                let mut found = lock("exclusive", start.parse()?, last.parse()?)?;
                fcntl(&file, FcntlArg::F_GETLK(&mut found))?;
                match i32::from(found.l_type) {
                    libc::F_UNLCK => "free".to_owned(),
                    libc::F_RDLCK => describe("shared", &found),
                    _ => describe("exclusive", &found),
                }
            }
            ["again"] => {
                drop(File::open(&path)?);
                "ok".to_owned()
            }
            _ => anyhow::bail!("what is {line}?"),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn describe(kind: &str, found: &libc::flock) -> String {
    let last = found.l_start + found.l_len - 1;
    format!("{kind} {} {last} {}", found.l_start, found.l_pid)
}

fn said<T>(outcome: Result<T, Errno>) -> String {
    outcome.map_or_else(|errno| format!("{errno:?}"), |_| "ok".to_owned())
}

fn lock(kind: &str, start: i64, last: i64) -> anyhow::Result<libc::flock> {
    let kind = match kind {
        "shared" => libc::F_RDLCK,
        "exclusive" => libc::F_WRLCK,
        "none" => libc::F_UNLCK,
        _ => anyhow::bail!("what kind is {kind}?"),
    };
    Ok(libc::flock {
        l_type: i16::try_from(kind)?,
        l_whence: i16::try_from(libc::SEEK_SET)?,
        l_start: start,
        l_len: last - start + 1,
        l_pid: 0,
    })
}

/// flock(2) by a number, as the same descriptor is used again.
fn flock(file: &File, kind: &str, how: &str) -> anyhow::Result<Result<(), Errno>> {
    use nix::fcntl::FlockArg;
    let arg = match (kind, how) {
        ("shared", "wait") => FlockArg::LockShared,
        ("shared", _) => FlockArg::LockSharedNonblock,
        ("exclusive", "wait") => FlockArg::LockExclusive,
        ("exclusive", _) => FlockArg::LockExclusiveNonblock,
        ("none", _) => FlockArg::Unlock,
        _ => anyhow::bail!("what kind is {kind}?"),
    };
    #[expect(deprecated, reason = "the guard of nix would give the descriptor away")]
    Ok(nix::fcntl::flock(file.as_raw_fd(), arg))
}
