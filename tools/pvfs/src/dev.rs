// SPDX-License-Identifier: MIT
//! `pvfs dev`: mgr, iods and mounts on this machine, in the foreground, until Ctrl-C.
//!
//! ```text
//!   DIR/lock        held while a run, or a daemon of a killed run, uses DIR
//!   DIR/log/*.log   one log for each daemon, that of the run before as *.log.old
//!   DIR/mgr         pvfs-mgr's data          DIR/iod0 ...   the pvfs-iods' data
//! ```
//!
//! Started in the order mgr, iods, mounts; stopped in the reverse, whatever the reason. If `pvfs dev`
//! itself is killed, the kernel sends its children SIGTERM: see [`tether`].

mod child;
mod mountpoint;
mod plan;
pub mod tether;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{Signal, SignalKind, signal};

use child::{Daemon, Ready, Running};
use mountpoint::MountpointError;
use plan::{Making, Programs};

use crate::output;

/// How long the daemons may take to get ready, each group.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the daemons of a killed run may take to end.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);
/// flock(2) has no deadline, so it is tried this often.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Command line of `pvfs dev`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many iods
    #[arg(long, default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(plan::IODS_MAX)))]
    iods: u16,
    /// Directory for the data and logs; a second start on it finds the files again
    #[arg(long)]
    data: PathBuf,
    /// Directory to mount on, made if needed; may be repeated
    #[arg(long, required = true)]
    mount: Vec<PathBuf>,
    /// Mount options
    #[arg(
        short = 'o',
        value_name = "OPTIONS",
        default_value = "allow_other",
        value_delimiter = ','
    )]
    options: Vec<String>,
    /// Port of mgr on 127.0.0.1 [default: a free one]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    mgr_port: u16,
    /// Port of the first iod on 127.0.0.1, the others follow it [default: free ones]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    iod_port: u16,
}

/// Runs the file system. Status 0 after a signal; 1 where something failed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("mounting needs root: run it as root");
    }
    // One thread: the kernel tells children of the death of the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(supervise(args))
}

async fn supervise(args: &Args) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut cluster = Cluster::prepare(args)?;
    let outcome = tokio::select! {
        result = cluster.run(args) => result,
        name = signals.wanted() => {
            output::note(format!("pvfs dev: {name}: stopping"));
            Ok(())
        }
    };
    cluster.stop().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// The signals that mean "stop".
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn wanted(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "terminated",
            _ = self.hangup.recv() => "hung up",
        }
    }
}

/// Everything that is started, in the order of the start.
struct Cluster {
    programs: Programs,
    data: PathBuf,
    log_dir: PathBuf,
    points: Vec<PathBuf>,
    lock: Flock<File>,
    child_ended: Signal,
    running: Vec<Running>,
}

impl Cluster {
    /// Checks all that can be checked before anything is started.
    fn prepare(args: &Args) -> anyhow::Result<Self> {
        let programs = find_programs()?;
        let data = prepare_data(&args.data, args.iods)?;
        let log_dir = data.join(plan::LOG_NAME);
        std::fs::create_dir_all(&log_dir).with_context(|| log_dir.display().to_string())?;
        let lock = lock(&data)?;
        let points = prepare_points(&args.mount)?;
        for making in plan::missing(&programs, &data, args.iods) {
            make(&making)?;
        }
        let child_ended = signal(SignalKind::child())?;
        Ok(Self {
            programs,
            data,
            log_dir,
            points,
            lock,
            child_ended,
            running: Vec::new(),
        })
    }

    /// Starts everything, says so, and returns only when something fails.
    async fn run(&mut self, args: &Args) -> anyhow::Result<()> {
        let privileged = nix::unistd::geteuid().is_root();
        let mgr = plan::mgr(&self.programs, &self.data, args.mgr_port, privileged);
        let address = self.start(&[mgr]).await?.concat();
        let iods: Vec<Daemon> = (0..args.iods)
            .map(|index| {
                let port = if args.iod_port == 0 {
                    0
                } else {
                    args.iod_port.saturating_add(index)
                };
                plan::iod(
                    &self.programs,
                    &self.data,
                    (index, port),
                    &address,
                    privileged,
                )
            })
            .collect();
        self.start(&iods).await?;
        let mounts: Vec<Daemon> = (self.points.iter().enumerate())
            .map(|(index, point)| {
                plan::mount(&self.programs, index, point, &args.options, &address)
            })
            .collect();
        self.start(&mounts).await?;
        self.announce(&address, args.iods)?;
        bail!(self.first_death().await);
    }

    fn announce(&self, mgr: &str, iods: u16) -> anyhow::Result<()> {
        let points: Vec<String> = self
            .points
            .iter()
            .map(|point| point.display().to_string())
            .collect();
        let mut out = std::io::stdout();
        writeln!(
            out,
            "ready mgr {mgr}, {iods} iods, mounted on {}",
            points.join(" ")
        )?;
        out.flush()?;
        output::note(format!(
            "pvfs dev: logs in {}; Ctrl-C stops everything",
            self.log_dir.display()
        ));
        Ok(())
    }

    /// Starts `daemons` together and returns their ready lines.
    async fn start(&mut self, daemons: &[Daemon]) -> anyhow::Result<Vec<String>> {
        let mut owed = Vec::new();
        for daemon in daemons {
            let (running, ready) = Running::start(daemon, &self.log_dir, &self.lock)?;
            self.running.push(running);
            owed.push((daemon.name.clone(), ready));
        }
        let mut lines = Vec::new();
        let mut waiting_for = String::new();
        let outcome = tokio::select! {
            () = all_ready(owed, &mut lines, &mut waiting_for) => Ok(()),
            message = first_death(&mut self.running, &mut self.child_ended) => Err(message),
            () = tokio::time::sleep(START_TIMEOUT) => Err(String::new()),
        };
        match outcome {
            Ok(()) => Ok(lines),
            Err(message) if !message.is_empty() => bail!(message),
            Err(_) => {
                let what = format!("is not ready after {} s", START_TIMEOUT.as_secs());
                let late = self
                    .running
                    .iter()
                    .find(|running| running.name == waiting_for);
                bail!(late.map_or(what.clone(), |running| running.describe(&what)))
            }
        }
    }

    async fn first_death(&mut self) -> String {
        first_death(&mut self.running, &mut self.child_ended).await
    }

    /// Stops everything in the reverse order of the start and clears the mount points.
    async fn stop(&mut self) {
        while let Some(mut running) = self.running.pop() {
            if !running.stop().await {
                output::note(format!(
                    "pvfs dev: {}",
                    running.describe("did not stop and was killed")
                ));
            }
        }
        for point in &self.points {
            if !mountpoint::is_mounted(point) {
                continue;
            }
            match mountpoint::detach(point) {
                Ok(()) => output::note(format!(
                    "pvfs dev: {} was busy and is detached",
                    point.display()
                )),
                Err(error) => output::note(format!(
                    "pvfs dev: {} is still mounted ({error}): run umount -l on it",
                    point.display()
                )),
            }
        }
    }
}

async fn all_ready(owed: Vec<(String, Ready)>, lines: &mut Vec<String>, waiting_for: &mut String) {
    for (name, ready) in owed {
        *waiting_for = name;
        lines.push(ready.line().await);
    }
}

/// Waits until a daemon ends that nobody asked to end, and says what happened.
async fn first_death(running: &mut [Running], child_ended: &mut Signal) -> String {
    loop {
        for daemon in running.iter_mut() {
            match daemon.ended() {
                Ok(None) => {}
                Ok(Some(status)) => return daemon.describe(&format!("ended ({status})")),
                Err(error) => return daemon.describe(&format!("cannot be watched ({error})")),
            }
        }
        if child_ended.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// The daemons' programs: beside this one, as `cargo build` leaves them, else on PATH.
fn find_programs() -> anyhow::Result<Programs> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let find = |name: &str| -> anyhow::Result<PathBuf> {
        let beside = own.with_file_name(name);
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::iter::once(beside.clone())
            .chain(std::env::split_paths(&path).map(|dir| dir.join(name)))
            .find(|candidate| candidate.is_file())
            .with_context(|| {
                format!(
                    "{} is not there and {name} not on PATH: is it installed?",
                    beside.display()
                )
            })
    };
    Ok(Programs {
        mgr: find("pvfs-mgr")?,
        iod: find("pvfs-iod")?,
        fuse: find("pvfs-fuse")?,
    })
}

fn prepare_data(dir: &Path, iods: u16) -> anyhow::Result<PathBuf> {
    let at = || dir.display().to_string();
    std::fs::create_dir_all(dir).with_context(at)?;
    let data = dir.canonicalize().with_context(at)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&data).with_context(at)? {
        names.push(entry.with_context(at)?.file_name());
    }
    plan::check(&data, &names, iods)?;
    Ok(data)
}

fn make(making: &Making) -> anyhow::Result<()> {
    let at = || making.program.display().to_string();
    let output = Command::new(&making.program)
        .args(&making.arguments)
        .output();
    let output = output.with_context(at)?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn prepare_points(points: &[PathBuf]) -> Result<Vec<PathBuf>, MountpointError> {
    let mut prepared: Vec<PathBuf> = Vec::new();
    for point in points {
        let real = mountpoint::prepare(point)?;
        if prepared.contains(&real) {
            return Err(MountpointError::Twice(real));
        }
        prepared.push(real);
    }
    Ok(prepared)
}

/// Locks the data directory; waits for the daemons of a killed run, which hold the lock to their end.
fn lock(data: &Path) -> anyhow::Result<Flock<File>> {
    let path = data.join(plan::LOCK_NAME);
    let at = || path.display().to_string();
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(at)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    let mut told = false;
    let mut unlocked = file;
    loop {
        match Flock::lock(unlocked, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((file, Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                if !told {
                    output::note(format!(
                        "pvfs dev: {} is in use: waiting for that run to end",
                        data.display()
                    ));
                    told = true;
                }
                unlocked = file;
                std::thread::sleep(LOCK_POLL);
            }
            Err((_, Errno::EWOULDBLOCK)) => bail!(
                "{} is in use by another pvfs dev: stop that one, or give another --data",
                data.display()
            ),
            Err((_, errno)) => return Err(errno).with_context(at),
        }
    }
}
