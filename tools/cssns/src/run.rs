// SPDX-License-Identifier: MIT
//! One run: its id, its directories, its ledger, and how it ends, also on a signal.

use crate::ledger::{Ledger, Resource, Strays};
use crate::plan::{NAME_PREFIX, Plan};
use crate::process::Launcher;
use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Characters of a run's id after which two runs are unlikely to have the same.
const RUN_ID_CHARACTERS: usize = 5;

/// A shell's exit status for a program that a signal ended is this and the signal's number.
const STATUS_SIGNAL: i32 = 128;

/// Set when a signal came: from then on the signal's thread alone ends the program.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The runs that a signal takes apart, one after another in a program that makes several.
static LIVE: Mutex<Live> = Mutex::new(Live {
    runs: Vec::new(),
    watched: false,
});

/// Runs with their logs, and whether a thread waits for signals.
struct Live {
    runs: Vec<(Arc<Ledger>, PathBuf)>,
    watched: bool,
}

fn live_runs() -> MutexGuard<'static, Live> {
    // It is consistent between any two statements.
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run. Dropping it takes it apart, unless it was kept or ended.
#[derive(Debug)]
pub struct Run {
    ledger: Arc<Ledger>,
    dir: PathBuf,
    launcher: Launcher,
    owned: bool,
}

impl Run {
    /// Begins a run: a directory with a new name below `$TMPDIR`, another for logs, and the ledger.
    ///
    /// # Errors
    /// When these cannot be made: we are not root, or there is no space.
    pub fn begin(detached: bool) -> anyhow::Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            anyhow::bail!("only root can make network namespaces and mounts: run this with sudo");
        }
        let dir = tempfile::Builder::new()
            .prefix(NAME_PREFIX)
            .rand_bytes(RUN_ID_CHARACTERS)
            .tempdir()
            .context("making the run's directory")?
            .keep();
        let name = dir
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let run_id = name.strip_prefix(NAME_PREFIX).unwrap_or_default();
        let plan = Plan::new(run_id).map_err(anyhow::Error::msg)?;
        let ledger = Arc::new(Ledger::create(plan)?);
        ledger.make(Resource::Directory { path: dir.clone() }, || Ok(()))?;
        let logs = dir.with_file_name(format!("{name}-logs"));
        std::fs::create_dir(&logs).with_context(|| format!("creating {}", logs.display()))?;
        let launcher = Launcher {
            run_id: run_id.to_owned(),
            detached,
            logs,
        };
        Ok(Self {
            ledger,
            dir,
            launcher,
            owned: true,
        })
    }

    /// Finds a kept run again.
    ///
    /// # Errors
    /// When there is none with this id.
    pub fn find(run_id: &str, dir: &Path, logs: &Path) -> anyhow::Result<Self> {
        let plan = Plan::new(run_id).map_err(anyhow::Error::msg)?;
        let ledger = Arc::new(Ledger::open(plan)?);
        let launcher = Launcher {
            run_id: run_id.to_owned(),
            detached: true,
            logs: logs.to_path_buf(),
        };
        Ok(Self {
            ledger,
            dir: dir.to_path_buf(),
            launcher,
            owned: false,
        })
    }

    /// The run's ledger.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The run's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts processes of the run.
    #[must_use]
    pub fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    /// From now on SIGINT, SIGTERM and SIGHUP take the run apart and end this program.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn end_on_signals(&self) -> anyhow::Result<()> {
        let first = {
            let mut live = live_runs();
            live.runs
                .push((Arc::clone(&self.ledger), self.launcher.logs.clone()));
            !std::mem::replace(&mut live.watched, true)
        };
        if !first {
            return Ok(());
        }
        on_signal(|| {
            INTERRUPTED.store(true, Ordering::SeqCst);
            let runs = live_runs().runs.clone();
            for (ledger, logs) in runs {
                let run_id = ledger.plan().run_id();
                eprintln!("\ncssns: interrupted; taking run {run_id} apart");
                match ledger.take_apart(Strays::Expected) {
                    Ok(()) => drop(std::fs::remove_dir_all(&logs)),
                    Err(error) => eprintln!("cssns: {error:#}\nlogs: {}", logs.display()),
                }
            }
        })
    }

    /// Leaves the run as it is, for `cssns down` to take apart.
    pub fn keep(&mut self) {
        self.owned = false;
    }

    /// From now on a signal does not take this run apart: whoever ends it does.
    fn forget(&self) {
        live_runs()
            .runs
            .retain(|(ledger, _)| !Arc::ptr_eq(ledger, &self.ledger));
    }

    /// Takes the run apart and removes its logs.
    ///
    /// # Errors
    /// As [`Ledger::take_apart`]; the logs then stay.
    pub fn end(mut self, strays: Strays) -> anyhow::Result<()> {
        self.owned = false;
        self.ledger.take_apart(strays)?;
        self.forget();
        let logs = &self.launcher.logs;
        match std::fs::remove_dir_all(logs) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("removing {}", logs.display()))
            }
            _ => Ok(()),
        }
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP remove `dir` and end this program, and with it a guest that
/// is not detached.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn remove_on_signals(dir: &Path) -> anyhow::Result<()> {
    let dir = dir.to_path_buf();
    on_signal(move || drop(std::fs::remove_dir_all(&dir)))
}

fn on_signal(clean_up: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("installing signal handlers")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                clean_up();
                std::process::exit(STATUS_SIGNAL + signal);
            }
        })?;
    Ok(())
}

impl Drop for Run {
    fn drop(&mut self) {
        // What failed now failed because everything is being taken apart; that thread then exits.
        while INTERRUPTED.load(Ordering::SeqCst) {
            std::thread::park();
        }
        if self.owned {
            // Only after an error: the logs stay, for whoever looks for its cause.
            if let Err(error) = self.ledger.take_apart(Strays::Expected) {
                eprintln!("cssns: {error:#}");
            }
            self.forget();
            // Nothing was logged when the directory can be removed.
            if std::fs::remove_dir(&self.launcher.logs).is_err() {
                eprintln!("cssns: logs are in {}", self.launcher.logs.display());
            }
        }
    }
}
