// SPDX-License-Identifier: MIT
//! How far a check is: a bar on a terminal, else a line now and then.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Time between two lines where the output is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two pictures of a bar that does not know its end.
const TICK: Duration = Duration::from_millis(200);

/// See the module.
pub struct Progress {
    program: &'static str,
    quiet: bool,
    terminal: bool,
    phase: &'static str,
    done: u64,
    total: Option<u64>,
    bar: Option<ProgressBar>,
    next_line: Instant,
}

impl Progress {
    /// Of nothing yet.
    pub fn new(program: &'static str, quiet: bool) -> Self {
        Self {
            program,
            quiet,
            terminal: std::io::stderr().is_terminal(),
            phase: "",
            done: 0,
            total: None,
            bar: None,
            next_line: Instant::now() + LINE_INTERVAL,
        }
    }

    /// A phase begins, of so much where that is known.
    pub fn start(&mut self, phase: &'static str, total: Option<u64>) {
        self.finish();
        (self.phase, self.done, self.total) = (phase, 0, total);
        if self.terminal && !self.quiet {
            self.bar = Some(bar(phase, total));
        }
    }

    /// A phase begins that is counted in bytes.
    pub fn start_bytes(&mut self, phase: &'static str, total: Option<u64>) {
        self.start(phase, total);
        let template = "{msg:12} {wide_bar} {binary_bytes} {binary_bytes_per_sec}";
        if let (Some(bar), Ok(style)) = (&self.bar, ProgressStyle::with_template(template)) {
            bar.set_style(style);
        }
    }

    /// So much more is done.
    pub fn add(&mut self, more: u64) {
        self.done += more;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
        if !self.terminal && !self.quiet && Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_INTERVAL;
            let of = self.total.map(|total| format!(" of {total}"));
            let of = of.unwrap_or_default();
            let (program, phase) = (self.program, self.phase);
            output::note(format!("{program}: {phase}: {}{of}", self.done));
        }
    }

    /// Says what is waited for.
    pub fn say(&mut self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{} ({what})", self.phase)),
            None if !self.quiet && Instant::now() >= self.next_line => {
                self.next_line = Instant::now() + LINE_INTERVAL;
                output::note(format!("{}: {}: {what}", self.program, self.phase));
            }
            None => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(phase: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg:12} {wide_bar} {human_pos}/{human_len} ETA {eta}",
        ),
        None => (ProgressBar::new_spinner(), "{msg:12} {spinner} {human_pos}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(phase);
    bar.enable_steady_tick(TICK);
    bar
}
