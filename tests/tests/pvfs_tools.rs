// SPDX-License-Identifier: MIT
//! The `pvfs` command as people and scripts use it: closed pipes, Ctrl-C, kill -9, strange names.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options, Who};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far longer than anything here takes.
const DONE_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Of a file with a hole in it, which takes long enough to copy that an iod can be halted meanwhile.
const HALTED_BYTES: u64 = 8 << 30;
const COPY_BYTES: usize = 64 << 20;
/// The user `nobody`.
const NOBODY: u32 = 65_534;

fn pvfs(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(programs::find("pvfs")?);
    command.args(arguments);
    Ok(command)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("not UTF-8")
}

fn until<T>(what: &str, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(start.elapsed() < DONE_MAX, "{what}: not so");
        std::thread::sleep(POLL);
    }
}

fn words(output: &Output) -> String {
    let of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    of(&output.stdout) + &of(&output.stderr)
}

/// `| true`, `| head`: the reader has gone before a line comes.
#[test]
fn a_reader_that_has_seen_enough_is_no_error() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default())?;
    let mgr = cluster.mgr_address().to_owned();
    let mount = cluster.mount(0);
    let file = mount.join("file");
    fs::write(&file, "content")?;
    let (file, root) = (text(&file)?, text(&mount)?);
    for arguments in [
        &["ping", &mgr][..],
        &["df", &mgr],
        &["df", "--json", &mgr],
        &["fsck", "-q", &mgr],
        &["fsck", "-q", "--json", &mgr],
        &["scrub", "-q", &mgr],
        &["stat", file],
        &["layout", "get", root],
        &["cp", "-q", file, &format!("{file}.copy")],
        &["completions", "bash"],
    ] {
        let (reader, writer) = nix::unistd::pipe()?;
        drop(reader);
        let output = pvfs(arguments)?.stdout(writer).output()?;
        let status = output.status.code();
        ensure!(
            status == Some(0),
            "{arguments:?}: {status:?} {}",
            words(&output)
        );
        ensure!(
            output.stderr.is_empty(),
            "{arguments:?}: {}",
            words(&output)
        );
    }
    // Whatever is wrong, a closed standard error is no reason to panic.
    let (reader, writer) = nix::unistd::pipe()?;
    drop(reader);
    let status = pvfs(&["stat", "/proc/self/status"])?
        .stderr(writer)
        .status()?;
    ensure!(status.code() == Some(1), "{status}");
    cluster.finish()
}

/// A copy that is under way while an iod stands still, so that it is not whole for as long.
struct HaltedCopy {
    child: Child,
    target: PathBuf,
}

impl HaltedCopy {
    fn start(cluster: &Cluster, source: &Path, name: &str, more: &[&str]) -> anyhow::Result<Self> {
        let target = cluster.mount(0).join(name);
        let mut child = pvfs(&["cp", "-q"])?
            .args(more)
            .args([source, &target])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        until("a copy under a temporary name", || {
            if let Some(status) = child.try_wait()? {
                bail!("the copy ended: {status}");
            }
            let names = names(&cluster.mount(0))?;
            Ok(names
                .iter()
                .any(|name| name.ends_with(".part"))
                .then_some(()))
        })?;
        ensure!(
            !target.exists(),
            "{} is there before it is whole",
            target.display()
        );
        Ok(Self { child, target })
    }

    fn end(mut self, signal: Signal) -> anyhow::Result<(Option<i32>, String)> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?;
        let child = &mut self.child;
        let status = until("the end of the copy", || Ok(child.try_wait()?))?;
        let mut errors = String::new();
        let stderr = self.child.stderr.as_mut().context("no pipe")?;
        stderr.read_to_string(&mut errors)?;
        ensure!(
            !self.target.exists(),
            "{} is not whole",
            self.target.display()
        );
        Ok((
            status.code().or(status.signal().map(|signal| -signal)),
            errors,
        ))
    }
}

fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

#[test]
fn a_copy_has_its_name_when_it_is_whole() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default())?;
    let source = cluster.scratch().join("source");
    fs::write(&source, vec![7; COPY_BYTES])?;
    let long = cluster.scratch().join("long");
    File::create(&long)?.set_len(HALTED_BYTES)?;
    for how in [&[][..], &["--no-direct"]] {
        let interrupted = HaltedCopy::start(&cluster, &long, "interrupted", how)?;
        if how.is_empty() {
            // Nothing waits in the kernel, so it ends though the iod does not answer.
            let (status, errors) = interrupted.end(Signal::SIGINT)?;
            ensure!(status == Some(130), "{status:?}: {errors}");
            ensure!(errors.contains("interrupted"), "{errors}");
            until("nothing is left of it", || {
                Ok(names(&cluster.mount(0))?.is_empty().then_some(()))
            })?;
        } else {
            let (status, errors) = interrupted.end(Signal::SIGKILL)?;
            ensure!(status == Some(-9), "{status:?}: {errors}");
        }
        cluster.freeze(Who::Iod(0), false)?;
    }
    let left = names(&cluster.mount(0))?;
    ensure!(left.iter().all(|name| name.ends_with(".part")), "{left:?}");
    let target = cluster.mount(0).join("whole");
    let output = pvfs(&["cp", text(&source)?, text(&target)?])?.output()?;
    ensure!(output.status.success(), "{}", words(&output));
    ensure!(fs::read(&target)? == vec![7; COPY_BYTES]);
    ensure!(
        words(&output).contains("1 file, 67 MB in "),
        "{}",
        words(&output)
    );
    // A file that is not there is none that was copied.
    let output = pvfs(&[
        "cp",
        "/nonexistent/file",
        text(&source)?,
        text(&cluster.mount(0))?,
    ])?;
    let output = { output }.output()?;
    ensure!(output.status.code() == Some(1), "{}", words(&output));
    cluster.finish()
}

#[test]
fn strange_names_do_not_reach_the_terminal() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default())?;
    let name = OsStr::from_bytes(b"a\x1b[2Jb\nc\xc2\x9b31m");
    let file = cluster.mount(0).join(name);
    fs::write(&file, "content")?;
    let gone = cluster
        .mount(0)
        .join(OsStr::from_bytes(b"gone\x1b]0;x\x07"));
    for (arguments, path) in [
        (&["stat"][..], &file),
        (&["stat", "--json"], &file),
        (&["layout", "get"], &file),
        (&["stat"], &gone),
    ] {
        let output = pvfs(arguments)?.arg(path).output()?;
        let shown = words(&output);
        let control = |c: char| c.is_control() && c != '\n';
        ensure!(!shown.chars().any(control), "{arguments:?}: {shown:?}");
    }
    let output = pvfs(&["stat"])?.arg(&file).output()?;
    let iods = Options::default().iods;
    ensure!(
        words(&output).lines().count() == 1 + iods,
        "{}",
        words(&output)
    );
    cluster.finish()
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default())?;
    let mgr = cluster.mgr_address();
    let mount = cluster.mount(0);
    let root = text(&mount)?;
    let iods = Options::default().iods;
    let more = (iods + 1).to_string();
    for change in [["--pcount", &more], ["--base", &iods.to_string()]] {
        let output = pvfs(&["layout", "set", root])?.args(change).output()?;
        ensure!(output.status.code() == Some(1), "{change:?}");
        let reason = format!("there are {iods} iods");
        ensure!(words(&output).contains(&reason), "{}", words(&output));
    }
    for program in ["pvfs-mgr", "pvfs-iod", "pvfs-fuse"] {
        let nowhere = cluster.scratch().join("nowhere");
        let mut command = Command::new(programs::find(program)?);
        match program {
            "pvfs-fuse" => command.args([&format!("{mgr}:/"), text(&nowhere)?]),
            "pvfs-iod" => command.args(["--mgr", mgr, "--data", text(&nowhere)?]),
            _ => command.args(["--data", text(&nowhere)?]),
        };
        let output = command.args(["--log", "nonsense"]).output()?;
        // mount(8) says that 1 is an incorrect invocation.
        let expected = if program == "pvfs-fuse" { 1 } else { 2 };
        let status = output.status.code();
        ensure!(
            status == Some(expected),
            "{program}: {status:?} {}",
            words(&output)
        );
        ensure!(
            words(&output).contains("no log level"),
            "{}",
            words(&output)
        );
        ensure!(
            !nowhere.exists(),
            "{program} made its directory all the same"
        );
    }
    let program = programs::find("pvfs")?;
    // Somebody who may not look into the folder of this build runs a copy.
    let copy = Path::new("/tmp").join(format!("pvfs-of-nobody-{}", std::process::id()));
    fs::copy(program, &copy)?;
    let output = Command::new(&copy)
        .args(["scrub", "-q", mgr])
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    fs::remove_file(&copy)?;
    let output = output?;
    ensure!(output.status.code() == Some(8), "{}", words(&output));
    ensure!(words(&output).contains("only root"), "{}", words(&output));
    cluster.finish()
}
