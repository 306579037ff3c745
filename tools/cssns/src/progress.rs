// SPDX-License-Identifier: MIT
//! Says what happens during long steps: spinners and bars on a terminal, lines elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Says the steps of a command on standard error.
#[derive(Debug)]
pub struct Steps {
    terminal: bool,
}

impl Steps {
    /// Says steps in the way that suits standard error.
    #[must_use]
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Says a line.
    pub fn say(&self, line: &str) {
        eprintln!("{line}");
    }

    /// Runs a step, saying its name before and its time after.
    ///
    /// # Errors
    /// The step's own.
    pub fn step<T>(
        &self,
        name: &str,
        step: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        let spinner = self.spinner(name);
        let result = step();
        spinner.finish_and_clear();
        let sign = if result.is_ok() { "+" } else { "!" };
        eprintln!("{sign} {name}: {:.1} s", started.elapsed().as_secs_f64());
        result
    }

    /// A bar for `total` bytes; hidden where there is no terminal.
    #[must_use]
    pub fn bytes(&self, name: &str, total: u64) -> ProgressBar {
        let bar = if self.terminal {
            ProgressBar::new(total)
        } else {
            ProgressBar::hidden()
        };
        let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(name.to_owned());
        bar
    }

    /// A bar over planned milliseconds, with the time that is left; hidden where there is no terminal.
    #[must_use]
    pub fn planned(&self, total_ms: u64) -> ProgressBar {
        let bar = if self.terminal {
            ProgressBar::new(total_ms)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent} % ETA {eta} {msg}") {
            bar.set_style(style);
        }
        bar
    }

    fn spinner(&self, name: &str) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let spinner = ProgressBar::new_spinner();
        spinner.set_message(name.to_owned());
        spinner.enable_steady_tick(TICK);
        spinner
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}
