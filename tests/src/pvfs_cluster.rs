// SPDX-License-Identifier: MIT
//! A whole PVFS on this machine, of real processes that a test may kill and restart.
//!
//! ```text
//!   test --- mount0 (pvfs-fuse) ---+--- mgr (pvfs-mgr)
//!        \-- mount1 (pvfs-fuse) ---+--- iod0, iod1, ... (pvfs-iod)
//! ```
//!
//! All on the loopback and in one temporary directory. mgr keeps its port over a restart, as its
//! address is what mounts know; an iod comes back on another port, which its clients must find out.
//! Start and restart from the thread that lives as long as the cluster: the kernel ends a daemon
//! with the thread that started it, so that a killed test leaves nothing behind.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::node::Node;
use crate::programs;
use crate::proxy::Proxy;

/// How long a daemon may take to get ready: a busy machine, a debug build.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a daemon may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// waitpid(2) has no deadline, so it is tried this often.
const POLL: Duration = Duration::from_millis(10);
/// Lines of each log that are shown when a test fails.
const LOG_TAIL_LINES_MAX: usize = 25;

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of iods.
    pub iods: usize,
    /// Number of mounts.
    pub mounts: usize,
    /// Options of each mount, as after `-o`.
    pub mount_options: String,
    /// How long mgr waits for a silent mount, milliseconds: a test that kills mounts waits so long.
    pub lease_timeout_ms: u32,
    /// Mounts reach mgr, each, and everybody reaches each iod through a [`Proxy`].
    pub proxied: bool,
    /// Where the daemons listen.
    pub host: String,
    /// Who runs on a node of its own.
    pub inside: Option<Inside>,
    /// How long mgr keeps what a silent client has open, milliseconds.
    pub session_timeout_ms: u32,
    /// Data directories that are file systems of their own.
    pub disks: Vec<SmallDisk>,
    /// The daemons take connections from any port, as a test's own peers have it.
    pub insecure_ports: bool,
    /// mgr's data directory, where it is another than `mgr` in the cluster's.
    pub mgr_data: Option<PathBuf>,
}

/// Processes in a network namespace of their own.
#[derive(Clone, Debug)]
pub struct Inside {
    namespace: String,
    address: String,
    who: Vec<Who>,
}

impl Inside {
    /// These processes on this node.
    #[must_use]
    pub fn new(node: &Node, who: &[Who]) -> Self {
        Self {
            namespace: node.name().to_owned(),
            address: node.address.clone(),
            who: who.to_vec(),
        }
    }
}

/// A small file system, so that it can be filled: ext4 where there are loop devices, else tmpfs.
#[derive(Clone, Debug)]
pub struct SmallDisk {
    /// Which data directory, such as `iod0` or `mgr`.
    pub directory: String,
    /// How large.
    pub bytes: u64,
}

/// Makes a disk full, down to the last byte, by the new file `filler` on it.
///
/// # Errors
///
/// Those of making and writing the file, but for want of space.
pub fn fill(filler: &Path) -> std::io::Result<()> {
    let mut filler = File::create(filler)?;
    let mut size = 1 << 20;
    while size > 0 {
        match filler.write(&vec![1; size]) {
            Ok(0) => size /= 2,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Default for Options {
    fn default() -> Self {
        Self {
            iods: 3,
            mounts: 1,
            mount_options: "allow_other".into(),
            lease_timeout_ms: 10_000,
            proxied: false,
            host: "127.0.0.1".into(),
            inside: None,
            session_timeout_ms: 60_000,
            disks: Vec::new(),
            insecure_ports: false,
            mgr_data: None,
        }
    }
}

/// One of a cluster's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The metadata manager.
    Mgr,
    /// An iod.
    Iod(usize),
    /// A mount.
    Mount(usize),
}

/// A running cluster. Dropping it ends every process and every mount.
pub struct Cluster {
    dir: TempDir,
    options: Options,
    mgr_address: String,
    mgr: Option<Daemon>,
    iods: Vec<Option<Daemon>>,
    iod_addresses: Vec<String>,
    /// Of each mount to mgr.
    mgr_links: Vec<Proxy>,
    /// Of everybody to each iod.
    iod_links: Vec<Proxy>,
    mounts: Vec<Option<Daemon>>,
    passed: bool,
}

/// A process and its log.
struct Daemon {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Cluster {
    /// Starts all daemons and mounts and waits until they are ready.
    ///
    /// # Errors
    ///
    /// What failed, with the end of the log.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        programs::require_root()?;
        let dir = tempfile::Builder::new().prefix("cssns-test-").tempdir()?;
        std::fs::create_dir(dir.path().join("log"))?;
        let mut cluster = Self {
            dir,
            mgr_address: format!("{}:0", options.host),
            mgr: None,
            iods: (0..options.iods).map(|_| None).collect(),
            iod_addresses: vec![String::new(); options.iods],
            mgr_links: Vec::new(),
            iod_links: Vec::new(),
            mounts: (0..options.mounts).map(|_| None).collect(),
            options,
            passed: false,
        };
        for disk in cluster.options.disks.clone() {
            cluster.mount_disk(&disk)?;
        }
        programs::make_data("pvfs-mgr", &cluster.mgr_data())?;
        cluster.restart_mgr()?;
        if cluster.options.proxied {
            for _ in 0..cluster.iods.len() {
                // Where it leads is known when the iod has started.
                cluster.iod_links.push(Proxy::start("")?);
            }
            for _ in 0..cluster.mounts.len() {
                cluster.mgr_links.push(Proxy::start(&cluster.mgr_address)?);
            }
        }
        for index in 0..cluster.iods.len() {
            programs::make_data("pvfs-iod", &cluster.iod_data(index))?;
            cluster.restart_iod(index)?;
        }
        for index in 0..cluster.mounts.len() {
            std::fs::create_dir(cluster.mount(index))?;
            cluster.restart_mount(index)?;
        }
        Ok(cluster)
    }

    fn mount_disk(&self, disk: &SmallDisk) -> anyhow::Result<()> {
        let directory = self.dir.path().join(&disk.directory);
        std::fs::create_dir(&directory)?;
        let image = self.dir.path().join(format!("{}.image", disk.directory));
        File::create(&image)?.set_len(disk.bytes)?;
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(&image)
            .status();
        let looped = made.is_ok_and(|status| status.success())
            && Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &directory])
                .stderr(Stdio::null())
                .status()?
                .success();
        if !looped {
            eprintln!("{}: on tmpfs, as there is no loop device", disk.directory);
            let size = format!("size={}", disk.bytes);
            let (none, no_flags) = (None::<&str>, MsFlags::empty());
            mount(none, &directory, Some("tmpfs"), no_flags, Some(&*size))?;
        }
        Ok(())
    }

    /// The mount point at `index`.
    #[must_use]
    pub fn mount(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("mount{index}"))
    }

    /// A directory on the local disk that ends with the cluster.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// mgr's data directory.
    #[must_use]
    pub fn mgr_data(&self) -> PathBuf {
        let own = || self.dir.path().join("mgr");
        self.options.mgr_data.clone().unwrap_or_else(own)
    }

    /// The data directory of the iod at `index`.
    #[must_use]
    pub fn iod_data(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("iod{index}"))
    }

    /// mgr's `host:port`.
    #[must_use]
    pub fn mgr_address(&self) -> &str {
        &self.mgr_address
    }

    /// An iod's `host:port`, since it was started last.
    ///
    /// # Errors
    ///
    /// Where there is no such iod.
    pub fn iod_address(&self, index: usize) -> anyhow::Result<&str> {
        let address = self.iod_addresses.get(index);
        Ok(address.context("no such iod")?)
    }

    /// Makes one mount more, looks at it, and takes it away.
    ///
    /// # Errors
    ///
    /// Where any of it fails.
    pub fn use_another_mount(&self) -> anyhow::Result<()> {
        let point = self.dir.path().join("another");
        std::fs::create_dir_all(&point)?;
        let mut command = self.command("pvfs-fuse")?;
        command
            .arg(format!("{}:/", self.mgr_address))
            .arg(&point)
            .args(["-f", "-o", &self.options.mount_options]);
        let (daemon, _point) = self.spawn("another", command)?;
        let outcome = std::fs::write(point.join("another"), "written");
        daemon.stop()?;
        Ok(outcome?)
    }

    /// Kills mgr with SIGKILL.
    ///
    /// # Errors
    ///
    /// Where it had ended already by itself.
    pub fn kill_mgr(&mut self) -> anyhow::Result<()> {
        kill_hard(&mut self.mgr)
    }

    /// Waits until mgr ends by itself; gives its status and its log.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn await_end_of_mgr(&mut self) -> anyhow::Result<(ExitStatus, String)> {
        let mut daemon = self.mgr.take().context("it does not run")?;
        let status = daemon.wait(READY_TIMEOUT)?;
        Ok((status, std::fs::read_to_string(&daemon.log)?))
    }

    /// Waits until a mount's process ends by itself, as after an unmount; gives its status.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn await_end_of_mount(&mut self, index: usize) -> anyhow::Result<ExitStatus> {
        let daemon = self.mounts.get_mut(index).context("no such mount")?.take();
        daemon.context("it does not run")?.wait(STOP_TIMEOUT)
    }

    /// Kills an iod with SIGKILL.
    ///
    /// # Errors
    ///
    /// Where it had ended already by itself.
    pub fn kill_iod(&mut self, index: usize) -> anyhow::Result<()> {
        kill_hard(self.iods.get_mut(index).context("no such iod")?)
    }

    /// Stops an iod by SIGTERM.
    ///
    /// # Errors
    ///
    /// Where it does not end, or not with status 0.
    pub fn stop_iod(&mut self, index: usize) -> anyhow::Result<()> {
        let daemon = self.iods.get_mut(index).context("no such iod")?.take();
        daemon.map_or(Ok(()), Daemon::stop)
    }

    /// Kills a mount's process with SIGKILL; the mount point then answers ENOTCONN.
    ///
    /// # Errors
    ///
    /// Where it had ended already by itself.
    pub fn kill_mount(&mut self, index: usize) -> anyhow::Result<()> {
        kill_hard(self.mounts.get_mut(index).context("no such mount")?)
    }

    /// Starts mgr (again, after [`Self::kill_mgr`]).
    ///
    /// # Errors
    ///
    /// Where it does not get ready.
    pub fn restart_mgr(&mut self) -> anyhow::Result<()> {
        self.restart_mgr_with(&[])
    }

    /// The same with further arguments.
    ///
    /// # Errors
    ///
    /// Where it does not get ready.
    pub fn restart_mgr_with(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        let data = self.mgr_data();
        let mut command = self.command("pvfs-mgr")?;
        command
            .arg("--data")
            .arg(data)
            .args(["--listen", &self.mgr_address])
            .arg("--lease-timeout-ms")
            .arg(self.options.lease_timeout_ms.to_string())
            .arg("--session-timeout-ms")
            .arg(self.options.session_timeout_ms.to_string())
            .args(self.ports())
            .args(arguments);
        let (daemon, address) = self.spawn("mgr", command)?;
        self.mgr = Some(daemon);
        self.mgr_address = address;
        Ok(())
    }

    /// Starts an iod (again, after [`Self::kill_iod`]), on a port that the kernel chooses.
    ///
    /// # Errors
    ///
    /// Where it does not get ready, which needs mgr.
    pub fn restart_iod(&mut self, index: usize) -> anyhow::Result<()> {
        let name = format!("iod{index}");
        let mut command = self.command_of(Who::Iod(index), "pvfs-iod")?;
        let host = match self.inside(Who::Iod(index)) {
            Some(inside) => &inside.address,
            None => &self.options.host,
        };
        command
            .arg("--data")
            .arg(self.iod_data(index))
            .args(["--mgr", &self.mgr_address])
            .args(["--listen", &format!("{host}:0")])
            .args(self.ports());
        if let Some(link) = self.iod_links.get(index) {
            command.args(["--advertise", &link.address()]);
        }
        let (daemon, address) = self.spawn(&name, command)?;
        *self.iods.get_mut(index).context("no such iod")? = Some(daemon);
        if let Some(link) = self.iod_links.get(index) {
            link.lead_to(&address);
        }
        *self.iod_addresses.get_mut(index).context("no such iod")? = address;
        Ok(())
    }

    /// Mounts (again, after [`Self::kill_mount`] or [`Self::unmount`]).
    ///
    /// # Errors
    ///
    /// Where it does not get ready.
    pub fn restart_mount(&mut self, index: usize) -> anyhow::Result<()> {
        let point = self.mount(index);
        // A killed mount leaves a dead mount point; where there is none this fails, as it should.
        let _ = umount2(&point, MntFlags::MNT_DETACH);
        let link = self.mgr_links.get(index).map(Proxy::address);
        let mgr = link.unwrap_or_else(|| self.mgr_address.clone());
        let mut command = self.command_of(Who::Mount(index), "pvfs-fuse")?;
        command
            .arg(format!("{mgr}:/"))
            .arg(&point)
            .args(["-f", "-o", &self.options.mount_options]);
        let (daemon, _point) = self.spawn(&format!("mount{index}"), command)?;
        *self.mounts.get_mut(index).context("no such mount")? = Some(daemon);
        Ok(())
    }

    /// Kills any of them with SIGKILL.
    ///
    /// # Errors
    ///
    /// Where it had ended already by itself.
    pub fn kill(&mut self, who: Who) -> anyhow::Result<()> {
        match who {
            Who::Mgr => self.kill_mgr(),
            Who::Iod(index) => self.kill_iod(index),
            Who::Mount(index) => self.kill_mount(index),
        }
    }

    /// Starts any of them again.
    ///
    /// # Errors
    ///
    /// Where it does not get ready.
    pub fn restart(&mut self, who: Who) -> anyhow::Result<()> {
        match who {
            Who::Mgr => self.restart_mgr(),
            Who::Iod(index) => self.restart_iod(index),
            Who::Mount(index) => self.restart_mount(index),
        }
    }

    /// The link on which it is reached: of a mount that to mgr. None where nothing is proxied.
    #[must_use]
    pub fn link(&self, who: Who) -> Option<&Proxy> {
        match who {
            Who::Mgr => None,
            Who::Iod(index) => self.iod_links.get(index),
            Who::Mount(index) => self.mgr_links.get(index),
        }
    }

    /// How it was made.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// Has new files striped finely, so that small ones lie on several iods.
    ///
    /// # Errors
    ///
    /// What `pvfs layout` says.
    pub fn set_small_stripes(&self) -> anyhow::Result<()> {
        let status = Command::new(programs::find("pvfs")?)
            .args(["layout", "set", "--stripe-size", "4K"])
            .arg(self.mount(0))
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "pvfs layout: {status}");
        Ok(())
    }

    /// The process of any of them.
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn pid(&self, who: Who) -> anyhow::Result<u32> {
        let daemon = match who {
            Who::Mgr => self.mgr.as_ref(),
            Who::Iod(index) => self.iods.get(index).and_then(Option::as_ref),
            Who::Mount(index) => self.mounts.get(index).and_then(Option::as_ref),
        };
        Ok(daemon
            .with_context(|| format!("{who:?} does not run"))?
            .child
            .id())
    }

    /// Stops a mount's process: see [`Self::freeze`].
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn freeze_mount(&self, index: usize, frozen: bool) -> anyhow::Result<()> {
        self.freeze(Who::Mount(index), frozen)
    }

    /// Stops a process (SIGSTOP), as if its node hung, or lets it go on.
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn freeze(&self, who: Who, frozen: bool) -> anyhow::Result<()> {
        let pid = self.pid(who)?;
        let signal = if frozen {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        // Its threads go on until each has met the signal.
        let start = Instant::now();
        while frozen && !is_stopped(pid)? {
            ensure!(
                start.elapsed() < STOP_TIMEOUT,
                "process {pid} does not stop"
            );
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// The process behind a mount.
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn mount_pid(&self, index: usize) -> anyhow::Result<u32> {
        self.pid(Who::Mount(index))
    }

    /// Stops mgr by SIGTERM.
    ///
    /// # Errors
    ///
    /// Where it does not end, or not with status 0.
    pub fn stop_mgr(&mut self) -> anyhow::Result<()> {
        self.mgr.take().map_or(Ok(()), Daemon::stop)
    }

    /// Unmounts by SIGTERM.
    ///
    /// # Errors
    ///
    /// Where the mount's process does not end, or not with status 0.
    pub fn unmount(&mut self, index: usize) -> anyhow::Result<()> {
        let daemon = self.mounts.get_mut(index).context("no such mount")?.take();
        daemon.map_or(Ok(()), Daemon::stop)
    }

    /// Kills everything with SIGKILL and starts it again: what is then there was on disk.
    ///
    /// # Errors
    ///
    /// Where something does not come back.
    pub fn crash_all(&mut self) -> anyhow::Result<()> {
        for index in 0..self.mounts.len() {
            self.kill_mount(index)?;
        }
        self.kill_mgr()?;
        for index in 0..self.iods.len() {
            self.kill_iod(index)?;
        }
        self.restart_mgr()?;
        for index in 0..self.iods.len() {
            self.restart_iod(index)?;
        }
        for index in 0..self.mounts.len() {
            self.restart_mount(index)?;
        }
        Ok(())
    }

    /// Ends the test: every daemon must still run and end by SIGTERM with status 0.
    ///
    /// # Errors
    ///
    /// Which one did not.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let all = self
            .mounts
            .drain(..)
            .chain(self.iods.drain(..))
            .chain([self.mgr.take()]);
        let daemons: Vec<Daemon> = all.flatten().collect();
        for daemon in daemons {
            daemon.stop()?;
        }
        self.passed = true;
        Ok(())
    }

    /// The end of each log, for a failure's message.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let Ok(entries) = std::fs::read_dir(self.dir.path().join("log")) else {
            return text;
        };
        for entry in entries.flatten() {
            text.push_str(&format!("--- {}\n", entry.path().display()));
            let log = std::fs::read(entry.path()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            for line in lines
                .iter()
                .skip(lines.len().saturating_sub(LOG_TAIL_LINES_MAX))
            {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    fn inside(&self, who: Who) -> Option<&Inside> {
        let inside = self.options.inside.as_ref();
        inside.filter(|inside| inside.who.contains(&who))
    }

    /// The log of any of them: what it has said since the cluster was made.
    ///
    /// # Errors
    ///
    /// Where it has none.
    pub fn log(&self, who: Who) -> anyhow::Result<String> {
        let name = match who {
            Who::Mgr => "mgr".to_owned(),
            Who::Iod(index) => format!("iod{index}"),
            Who::Mount(index) => format!("mount{index}"),
        };
        let path = self.dir.path().join("log").join(format!("{name}.log"));
        Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
    }

    /// Waits until the log of any of them has a line with this text, and gives the line.
    ///
    /// # Errors
    ///
    /// Where it has none in time.
    pub fn await_log(&self, who: Who, text: &str, timeout: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            let log = self.log(who)?;
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            ensure!(Instant::now() < deadline, "{who:?} never says {text:?}");
            std::thread::sleep(POLL);
        }
    }

    /// What daemons are told of their peers' ports.
    fn ports(&self) -> Option<&'static str> {
        self.options.insecure_ports.then_some("--insecure-ports")
    }

    /// A program of any of them, on its node.
    fn command_of(&self, who: Who, program: &str) -> anyhow::Result<Command> {
        let inner = self.command(program)?;
        let Some(Inside { namespace, .. }) = self.inside(who) else {
            return Ok(inner);
        };
        // Only the network's: a mount must be seen here. The tether holds what is inside.
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{namespace}"))
            .arg(inner.get_program())
            .args(inner.get_args())
            .env("NO_COLOR", "1")
            .current_dir(self.dir.path());
        Ok(command)
    }

    /// `pvfs tether`, which ends the program with the test, and the program.
    fn command(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(programs::find("pvfs")?);
        command
            .arg("tether")
            .arg(std::process::id().to_string())
            .arg("--")
            .arg(programs::find(program)?)
            .env("NO_COLOR", "1")
            .current_dir(self.dir.path());
        Ok(command)
    }

    /// Starts a daemon and waits for its ready line, whose rest is returned.
    fn spawn(&self, name: &str, mut command: Command) -> anyhow::Result<(Daemon, String)> {
        let log = self.dir.path().join("log").join(format!("{name}.log"));
        let log_file = File::options().create(true).append(true).open(&log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stdout = child.stdout.take().context("no pipe")?;
        let mut daemon = Daemon {
            name: name.to_owned(),
            log,
            child,
        };
        match first_line(stdout).recv_timeout(READY_TIMEOUT) {
            Ok(line) if line.starts_with("ready ") => {
                let address = line.trim_start_matches("ready ").trim().to_owned();
                Ok((daemon, address))
            }
            Ok(line) => bail!("{name} printed `{line}` and not a ready line"),
            Err(RecvTimeoutError::Timeout) => {
                let _ = daemon.child.kill();
                bail!(
                    "{name} is not ready after {READY_TIMEOUT:?}\n{}",
                    self.logs()
                )
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = daemon.child.wait()?;
                bail!(
                    "{name} ended before it was ready ({status})\n{}",
                    self.logs()
                )
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.passed {
            eprintln!("the test did not pass; the logs end so:\n{}", self.logs());
            self.dir.disable_cleanup(true);
            eprintln!("data and logs stay in {}", self.dir.path().display());
        }
        for index in 0..self.options.mounts {
            // Detached first, so that no call of the test hangs on a daemon that is about to end.
            let _ = umount2(&self.mount(index), MntFlags::MNT_DETACH);
        }
        let all = self
            .mounts
            .drain(..)
            .chain(self.iods.drain(..))
            .chain([self.mgr.take()]);
        for mut daemon in all.flatten() {
            let _ = daemon.child.kill();
            let _ = daemon.child.wait();
        }
        for disk in &self.options.disks {
            // Where it was not mounted this fails, as it should.
            let _ = umount2(&self.dir.path().join(&disk.directory), MntFlags::empty());
        }
    }
}

impl Daemon {
    /// SIGTERM; must end with status 0.
    fn stop(mut self) -> anyhow::Result<()> {
        let already = self.child.try_wait()?;
        ensure!(
            already.is_none(),
            "{} ended by itself: {already:?}",
            self.name
        );
        kill(pid(&self.child)?, Signal::SIGTERM)?;
        let status = self.wait(STOP_TIMEOUT).context("after SIGTERM")?;
        ensure!(
            status.success(),
            "{} ended with {status}; log: {}",
            self.name,
            self.log.display()
        );
        Ok(())
    }

    /// Waits for its end; kills it where it lasts longer than `timeout`.
    fn wait(&mut self, timeout: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                eprintln!("{}", what_threads_do(self.child.id()));
                self.child.kill()?;
                self.child.wait()?;
                bail!(
                    "{} does not end within {timeout:?}; log: {}",
                    self.name,
                    self.log.display()
                );
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Where each thread of a process that should have ended is in the kernel.
fn what_threads_do(process: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let told = tasks.map(|task| {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        format!("{}{}{}", read("comm"), read("syscall"), read("stack"))
    });
    told.collect()
}

/// Whether no thread of a process runs or may begin to: all are stopped, or wait in the kernel for
/// something that no signal ends.
fn is_stopped(process: u32) -> anyhow::Result<bool> {
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may have ended meanwhile.
        let stat = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        if matches!(state, Some('R' | 'S')) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn kill_hard(slot: &mut Option<Daemon>) -> anyhow::Result<()> {
    let mut daemon = slot.take().context("it does not run")?;
    let already = daemon.child.try_wait()?;
    ensure!(
        already.is_none(),
        "{} ended by itself: {already:?}",
        daemon.name
    );
    daemon.child.kill()?;
    daemon.child.wait()?;
    Ok(())
}

fn pid(child: &Child) -> anyhow::Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// The first line, read by a thread that then drains the rest; disconnected at an early end.
fn first_line(stdout: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        if let Some(Ok(line)) = lines.next() {
            let _ = sender.send(line);
        }
        drop(sender);
        for line in lines {
            if line.is_err() {
                break;
            }
        }
    });
    receiver
}
