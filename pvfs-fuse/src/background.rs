// SPDX-License-Identifier: MIT
//! A mount that outlives the command that made it, without fork(2): the command starts this
//! program again, and waits until that says on its standard output that the mount is usable.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use crate::cli::{Arguments, MOUNT_FAILURE};

/// What the detached process writes once the mount is usable.
const READY: &str = "ready";

/// Starts the detached process and waits for it to say how the mount went; errors it prints
/// itself.
#[must_use]
pub fn launch(arguments: &Arguments) -> ExitCode {
    match start(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(MOUNT_FAILURE),
        Err(error) => {
            eprintln!("pvfs-fuse: starting the background process: {error}");
            ExitCode::from(MOUNT_FAILURE)
        }
    }
}

/// The first descriptor beside the standard streams.
const DESCRIPTOR_FIRST: i32 = 3;

/// Closes what the caller had open and did not mean for a process that lives on: a lock, a pipe whose
/// reader waits for its end. This process has opened nothing itself yet.
fn close_inherited() -> io::Result<()> {
    let number = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let numbers: Vec<i32> = fs::read_dir("/proc/self/fd")?.filter_map(number).collect();
    for number in numbers
        .into_iter()
        .filter(|number| *number >= DESCRIPTOR_FIRST)
    {
        // One of them was that of the directory, which is closed by now.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

fn start(arguments: &Arguments) -> io::Result<bool> {
    close_inherited()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(&arguments.source.text)
        .arg(&arguments.mountpoint);
    command.args(["--detached", "--log", arguments.log.as_str()]);
    for text in &arguments.option_texts {
        command.args(["-o", text]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    if line.trim_end() == READY {
        return Ok(true);
    }
    // It has ended or is about to, and has said why.
    child.wait()?;
    Ok(false)
}

/// In the detached process, when the mount is usable: leaves the session and the files of the
/// command that started it, and tells that command.
pub fn detached() {
    if let Err(error) = leave() {
        tracing::warn!("detaching from the terminal: {error}");
    }
}

fn leave() -> io::Result<()> {
    // Fails only for the leader of a process group, which a child of the command is not.
    let _ = nix::unistd::setsid();
    std::env::set_current_dir("/")?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stderr(&null)?;
    writeln!(io::stdout(), "{READY}")?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(())
}
