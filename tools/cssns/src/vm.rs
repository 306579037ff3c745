// SPDX-License-Identifier: MIT
//! A stock Debian kernel in QEMU with a small initramfs, and commands run in it.
//!
//! ```text
//!  host                                    guest (stock kernel, initramfs, no disk)
//!  Vm::run("ipvsadm -Ln")  -- RUN id .. -->  /init reads the control port, runs sh
//!      waits for           <- END id .. --   and answers with status and output
//!  DIR/console.log  <----- ttyS0 ---------   kernel log
//!  tap device       <----- virtio-net --->   eth0
//! ```

mod connection;
pub mod control;
pub mod env;
mod initramfs;
pub mod qemu;

pub use control::Output;
pub use env::KmodEnv;
pub use initramfs::Addition;
pub use qemu::{Acceleration, Tap};

use crate::splat::{self, Splat};
use connection::Connection;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long an emulated boot may take on a busy machine; 5 s is usual on an idle one.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(180);

/// How long a guest may take to power off before it is killed.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a running guest may take to answer; it serves one connection after another.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(90);

/// How often a condition of another process is looked at while waiting for it.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How many of the console's last lines an error carries.
const CONSOLE_TAIL_LINES: usize = 30;

/// What can go wrong with a guest.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The target kernel is not there.
    #[error("no target kernel: {0}")]
    NoKernel(String),
    /// A program that the host needs is not installed.
    #[error("{0} is not installed: run scripts/setup.sh, or install the package {1}")]
    MissingProgram(String, &'static str),
    /// The initramfs could not be made.
    #[error("cannot build the guest's initramfs: {0}")]
    Build(String),
    /// A file could not be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// QEMU did not start, or ended.
    #[error("the guest ended: {0}")]
    Ended(String),
    /// Something was waited for in vain.
    #[error("waited {seconds} s for {what}{detail}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long, seconds.
        seconds: u64,
        /// What is known about the reason; empty or starting with `: `.
        detail: String,
    },
    /// A script that had to succeed did not.
    #[error("in the guest, status {status}: {script}: {stderr}")]
    Script {
        /// The script's first line.
        script: String,
        /// Its exit status.
        status: i32,
        /// What it wrote to standard error.
        stderr: String,
    },
}

impl VmError {
    fn file(path: &Path, error: &std::io::Error) -> Self {
        // io::Error cannot be cloned; its kind and text are what the reader needs.
        Self::File(
            path.to_path_buf(),
            std::io::Error::new(error.kind(), error.to_string()),
        )
    }
}

/// What a guest is made of.
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// The target kernel.
    pub env: KmodEnv,
    /// A module of ours: it is put where `modprobe` finds it, and not inserted.
    pub module: Option<PathBuf>,
    /// More files for the guest.
    pub additions: Vec<Addition>,
    /// Memory, MiB. The initramfs takes about 60 of it.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// How instructions are executed.
    pub acceleration: Acceleration,
    /// Network of the guest's `eth0`; none for a guest that needs only itself.
    pub tap: Option<Tap>,
    /// Appended to the kernel's command line.
    pub kernel_arguments: String,
    /// Appended to QEMU's command line.
    pub qemu_arguments: Vec<String>,
    /// Whether the guest outlives this process ([`Vm::attach`] finds it again).
    pub detached: bool,
    /// Added to QEMU's environment.
    pub environment: Vec<(String, String)>,
}

impl VmConfig {
    /// A guest with one processor, 512 MiB, no network and no module.
    #[must_use]
    pub fn new(env: KmodEnv) -> Self {
        Self {
            env,
            module: None,
            additions: Vec::new(),
            memory_mib: 512,
            cpus: 1,
            acceleration: Acceleration::Tcg,
            tap: None,
            kernel_arguments: String::new(),
            qemu_arguments: Vec::new(),
            detached: false,
            environment: Vec::new(),
        }
    }
}

/// A running guest. Dropping it kills it, unless it is detached.
#[derive(Debug)]
pub struct Vm {
    dir: PathBuf,
    connection: Connection,
    child: Option<Child>,
    detached: bool,
}

impl Vm {
    /// Starts a guest and waits until it takes commands: [`Vm::start`] and [`Vm::wait_ready`].
    ///
    /// # Errors
    /// As of these two.
    pub fn boot(config: &VmConfig, dir: &Path) -> Result<Self, VmError> {
        let vm = Self::start(config, dir)?;
        vm.wait_ready()?;
        Ok(vm)
    }

    /// Builds the initramfs in `dir` (an existing directory that the caller removes later) and starts
    /// QEMU. The console goes to `dir/console.log`.
    ///
    /// # Errors
    /// Says what was missing, or what QEMU said.
    pub fn start(config: &VmConfig, dir: &Path) -> Result<Self, VmError> {
        let archive = archive_path(dir);
        let stage = dir.join("initramfs");
        initramfs::build(
            &config.env,
            config.module.as_deref(),
            &config.additions,
            &stage,
            &archive,
        )?;
        let mut child = spawn(config, dir, &archive)?;
        match connect(dir, &mut child) {
            Ok(connection) => Ok(Self {
                dir: dir.to_path_buf(),
                connection,
                child: Some(child),
                detached: config.detached,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Waits until the guest takes commands.
    ///
    /// # Errors
    /// Shows the console's last lines when the guest did not come up in [`BOOT_TIMEOUT`].
    pub fn wait_ready(&self) -> Result<(), VmError> {
        self.connection
            .wait_ready(BOOT_TIMEOUT)
            .map_err(|e| self.explain(e))?;
        // QEMU has read the archive; a kept guest should not keep 60 MB on the host's disk.
        let archive = archive_path(&self.dir);
        std::fs::remove_file(&archive).map_err(|e| VmError::file(&archive, &e))
    }

    /// Connects to a detached guest that was booted in `dir`.
    ///
    /// # Errors
    /// When nothing answers there.
    pub fn attach(dir: &Path) -> Result<Self, VmError> {
        let connection = Connection::open(&socket_path(dir))
            .map_err(|e| VmError::file(&socket_path(dir), &e))?;
        let vm = Self {
            dir: dir.to_path_buf(),
            connection,
            child: None,
            detached: true,
        };
        vm.connection.hello()?;
        match vm.connection.wait_ready(ATTACH_TIMEOUT) {
            Err(VmError::Timeout { what, seconds, .. }) => Err(VmError::Timeout {
                what,
                seconds,
                detail: ": is another command using its control port?".to_owned(),
            }),
            other => other.map(|()| vm),
        }
    }

    /// Process id of QEMU, when this value started it.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The serial console's file.
    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        console_path(&self.dir)
    }

    /// Runs a shell script in the guest, whatever its exit status. Several threads may run scripts
    /// at once.
    ///
    /// # Errors
    /// When it did not end within `timeout` (the guest then kills it), or the guest died.
    pub fn run(&self, script: &str, timeout: Duration) -> Result<Output, VmError> {
        self.connection
            .run(script, timeout)
            .map_err(|e| self.explain(e))
    }

    /// Runs a shell script that has to succeed, and returns its standard output.
    ///
    /// # Errors
    /// As [`Vm::run`], and [`VmError::Script`] when its exit status is not 0.
    pub fn check(&self, script: &str, timeout: Duration) -> Result<String, VmError> {
        let output = self.run(script, timeout)?;
        if output.success() {
            return Ok(output.stdout);
        }
        let first = script.trim().lines().next().unwrap_or_default().to_owned();
        let said = if output.stderr.trim().is_empty() {
            &output.stdout
        } else {
            &output.stderr
        };
        Err(VmError::Script {
            script: first,
            status: output.status,
            stderr: said.trim().to_owned(),
        })
    }

    /// The kernel log so far.
    ///
    /// # Errors
    /// As [`Vm::check`].
    pub fn dmesg(&self) -> Result<String, VmError> {
        self.check("dmesg", Duration::from_secs(30))
    }

    /// The kernel's complaints so far; see [`splat::find`].
    ///
    /// # Errors
    /// As [`Vm::dmesg`].
    pub fn splats(&self) -> Result<Vec<Splat>, VmError> {
        Ok(splat::find(&self.dmesg()?))
    }

    /// Powers the guest off and waits for QEMU to end; kills it when it does not.
    ///
    /// # Errors
    /// [`VmError::Timeout`] when it had to be killed.
    pub fn shutdown(mut self) -> Result<(), VmError> {
        let asked = self.connection.power_off();
        let Some(mut child) = self.child.take() else {
            return asked;
        };
        let deadline = Instant::now() + POWER_OFF_TIMEOUT;
        while Instant::now() < deadline {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return Ok(());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(VmError::Timeout {
            what: "the guest to power off".to_owned(),
            seconds: POWER_OFF_TIMEOUT.as_secs(),
            detail: format!(": it was killed; console: {}", self.console_log().display()),
        })
    }

    /// Adds the console's last lines to an error that the console may explain.
    fn explain(&self, error: VmError) -> VmError {
        let tail = console_tail(&self.dir);
        match error {
            VmError::Timeout {
                what,
                seconds,
                detail,
            } => VmError::Timeout {
                what,
                seconds,
                detail: format!("{detail}{tail}"),
            },
            VmError::Ended(why) => VmError::Ended(format!("{why}{tail}")),
            other => other,
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn socket_path(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

fn qemu_log_path(dir: &Path) -> PathBuf {
    dir.join("qemu.log")
}

fn archive_path(dir: &Path) -> PathBuf {
    dir.join("initramfs.cpio")
}

fn console_path(dir: &Path) -> PathBuf {
    dir.join("console.log")
}

fn spawn(config: &VmConfig, dir: &Path, archive: &Path) -> Result<Child, VmError> {
    let qemu = crate::paths::on_path("qemu-system-x86_64").ok_or_else(|| {
        VmError::MissingProgram("qemu-system-x86_64".to_owned(), "qemu-system-x86")
    })?;
    let mut argv: Vec<String> = Vec::new();
    if let Some(tap) = &config.tap {
        argv.extend([
            "nsenter".to_owned(),
            format!("--net=/run/netns/{}", tap.netns),
            "--".to_owned(),
        ]);
    }
    if !config.detached {
        // The kernel kills the guest should this process be killed before it can.
        argv.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned));
    }
    // Packets wait for this one process, so it goes before the others (where we may say so).
    argv.extend(["nice", "-n", "-10"].map(str::to_owned));
    argv.push(qemu.display().to_string());
    let (console, socket) = (console_path(dir), socket_path(dir));
    argv.extend(qemu::arguments(&qemu::Machine {
        acceleration: config.acceleration,
        memory_mib: config.memory_mib,
        cpus: config.cpus,
        kernel: &config.env.kernel_image,
        initramfs: archive,
        kernel_arguments: &config.kernel_arguments,
        console_log: &console,
        control_socket: &socket,
        tap: config.tap.as_ref(),
        extra: &config.qemu_arguments,
    }));
    let log_path = qemu_log_path(dir);
    let log = std::fs::File::create(&log_path).map_err(|e| VmError::file(&log_path, &e))?;
    let log_too = log.try_clone().map_err(|e| VmError::file(&log_path, &e))?;
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| VmError::Ended("no command".into()))?;
    tracing::debug!(?argv, "starting the guest");
    use std::os::unix::process::CommandExt as _;
    Command::new(program)
        .args(arguments)
        .envs(config.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_too)
        .process_group(0)
        .spawn()
        .map_err(|e| VmError::Ended(format!("{program}: {e}")))
}

/// Connects to the control socket, which QEMU makes shortly after it starts.
fn connect(dir: &Path, child: &mut Child) -> Result<Connection, VmError> {
    let deadline = Instant::now() + POWER_OFF_TIMEOUT;
    loop {
        if let Ok(connection) = Connection::open(&socket_path(dir)) {
            return Ok(connection);
        }
        if let Ok(Some(status)) = child.try_wait() {
            let log = std::fs::read_to_string(qemu_log_path(dir)).unwrap_or_default();
            return Err(VmError::Ended(format!("qemu: {status}: {}", log.trim())));
        }
        if Instant::now() > deadline {
            return Err(VmError::Timeout {
                what: format!("qemu to make {}", socket_path(dir).display()),
                seconds: POWER_OFF_TIMEOUT.as_secs(),
                detail: String::new(),
            });
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// What QEMU said, if anything, and the part of the console that tells most.
fn console_tail(dir: &Path) -> String {
    let said = std::fs::read_to_string(qemu_log_path(dir)).unwrap_or_default();
    let said = if said.trim().is_empty() {
        String::new()
    } else {
        format!("\nqemu: {}", said.trim())
    };
    let path = console_path(dir);
    let bytes = std::fs::read(&path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    // A dead guest's reason is where the kernel first complained, not where its log ends.
    if let Some(first) = splat::find(&text).into_iter().next() {
        return format!(
            "{said}\n--- {} line {} ---\n{}",
            path.display(),
            first.line_number,
            first.excerpt
        );
    }
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines
        .iter()
        .skip(lines.len().saturating_sub(CONSOLE_TAIL_LINES))
        .copied();
    let tail: Vec<&str> = tail.collect();
    format!(
        "{said}\n--- last lines of {} ---\n{}",
        path.display(),
        tail.join("\n")
    )
}
