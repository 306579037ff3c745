// SPDX-License-Identifier: MIT
//! Ctrl-C while something is copied: what is under way ends, and what is not whole is removed.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::bail;
use pvfs::client::patience::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::output;

/// Exit statuses of programs that a signal ended begin here, as in a shell.
const SIGNAL_STATUS_BASE: i32 = 128;

/// Whether a signal has ended the copy.
#[derive(Clone)]
pub struct Interruption {
    cancel: Cancel,
    /// Which came first; 0: none has come.
    signal: Arc<AtomicI32>,
}

impl Interruption {
    /// Takes SIGINT, SIGTERM and SIGHUP from now on, on behalf of `program`. A second one ends the
    /// process at once.
    ///
    /// # Errors
    ///
    /// Where the system gives no thread or no handler.
    pub fn watch(program: &'static str) -> std::io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let interruption = Self {
            cancel: Cancel::new(),
            signal: Arc::default(),
        };
        let told = interruption.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    if told.signal.swap(signal, Ordering::AcqRel) != 0 {
                        std::process::exit(SIGNAL_STATUS_BASE + signal);
                    }
                    output::note(format!(
                        "{program}: interrupted: removing what is not whole"
                    ));
                    told.cancel.cancel();
                }
            })?;
        Ok(interruption)
    }

    /// Ends the waiting for daemons that are away.
    pub const fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// # Errors
    ///
    /// Once a signal has come.
    pub fn check(&self) -> anyhow::Result<()> {
        match self.cancel.is_cancelled() {
            true => bail!("interrupted"),
            false => Ok(()),
        }
    }

    /// The exit status that tells of the signal, if one has come.
    pub fn status(&self) -> Option<ExitCode> {
        let signal = self.signal.load(Ordering::Acquire);
        let status = u8::try_from(SIGNAL_STATUS_BASE + signal).ok()?;
        (signal != 0).then(|| ExitCode::from(status))
    }
}
