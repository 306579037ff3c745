// SPDX-License-Identifier: MIT
//! How far something is that takes long: a bar on a terminal, else a line now and then. Any thread
//! may say that more is done.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{human, output};

/// Time between two lines where the output is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two pictures of a bar that does not know its end.
const TICK: Duration = Duration::from_millis(200);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Items,
    /// Bytes, whose rate is worth knowing.
    Bytes,
}

/// Where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Bar,
    Lines,
}

/// How far a program is with the phase that it is in.
pub struct Progress {
    program: &'static str,
    place: Place,
    done: AtomicU64,
    phase: Mutex<Phase>,
}

struct Phase {
    name: &'static str,
    unit: Unit,
    total: Option<u64>,
    start: Instant,
    bar: Option<ProgressBar>,
    next_line: Instant,
}

impl Phase {
    fn new(name: &'static str, unit: Unit, total: Option<u64>) -> Self {
        let start = Instant::now();
        Self {
            name,
            unit,
            total,
            start,
            bar: None,
            next_line: start + LINE_INTERVAL,
        }
    }

    /// Whether a line is due; then the next one is not for a while.
    fn is_line_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.next_line;
        if due {
            self.next_line = now + LINE_INTERVAL;
        }
        due
    }
}

impl Progress {
    /// Of nothing yet.
    pub fn new(program: &'static str, quiet: bool) -> Self {
        let place = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Place::Nowhere,
            (false, true) => Place::Bar,
            (false, false) => Place::Lines,
        };
        Self {
            program,
            place,
            done: AtomicU64::new(0),
            phase: Mutex::new(Phase::new("", Unit::Items, None)),
        }
    }

    /// A phase is replaced as a whole, so a panic leaves a sound one.
    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A phase begins, of so much where that is known.
    pub fn start(&self, name: &'static str, unit: Unit, total: Option<u64>) {
        self.finish();
        self.done.store(0, Ordering::Relaxed);
        let next_line = self.lock().next_line;
        let mut phase = Phase::new(name, unit, total);
        if self.place == Place::Bar {
            phase.bar = Some(bar(name, unit, total));
        }
        // Short phases say nothing, but all together not for long.
        phase.next_line = next_line;
        *self.lock() = phase;
    }

    /// So much more is done.
    pub fn add(&self, more: u64) {
        let before = self.done.fetch_add(more, Ordering::Relaxed);
        self.show(before.saturating_add(more));
    }

    /// So much is done in all.
    pub fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.show(done);
    }

    fn show(&self, done: u64) {
        // Whoever finds the lock taken need not wait: another thread shows it.
        let Ok(mut phase) = self.phase.try_lock() else {
            return;
        };
        if let Some(bar) = &phase.bar {
            bar.set_position(done);
        }
        if self.place == Place::Lines && phase.is_line_due() {
            let elapsed = phase.start.elapsed();
            let text = line(phase.unit, done, phase.total, elapsed);
            output::note(format!("{}: {}: {text}", self.program, phase.name));
        }
    }

    /// Says what is waited for.
    pub fn say(&self, what: &str) {
        let mut phase = self.lock();
        if let Some(bar) = &phase.bar {
            bar.set_message(format!("{} ({what})", phase.name));
        } else if self.place == Place::Lines && phase.is_line_due() {
            output::note(format!("{}: {}: {what}", self.program, phase.name));
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = self.lock().bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(name: &'static str, unit: Unit, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match (total, unit) {
        (Some(total), Unit::Items) => (
            ProgressBar::new(total),
            "{msg:12} {wide_bar} {human_pos}/{human_len} ETA {eta}",
        ),
        (Some(total), Unit::Bytes) => (
            ProgressBar::new(total),
            "{msg:12} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} \
             ETA {eta}",
        ),
        (None, _) => (ProgressBar::new_spinner(), "{msg:12} {spinner} {human_pos}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(name);
    bar.enable_steady_tick(TICK);
    bar
}

fn line(unit: Unit, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let text = |number: u64| match unit {
        Unit::Items => number.to_string(),
        Unit::Bytes => human::decimal(number),
    };
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let mut line = text(done);
    if let Some(total) = total {
        let percent = u128::from(done) * 100 / u128::from(total.max(1));
        line.push_str(&format!(" of {} ({percent}%)", text(total)));
    }
    if unit == Unit::Bytes {
        line.push_str(&format!(", {}/s", human::decimal(rate as u64)));
    }
    if let Some(total) = total {
        let left = total.saturating_sub(done) as f64 / rate.max(1.0);
        line.push_str(&format!(", ETA {left:.0} s"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_what_is_left() {
        let after = Duration::from_secs(2);
        for (unit, done, total, expected) in [
            (
                Unit::Bytes,
                1 << 20,
                Some(4 << 20),
                "1.0 MB of 4.1 MB (25%), 524 kB/s, ETA 6 s",
            ),
            (Unit::Items, 10, Some(40), "10 of 40 (25%), ETA 6 s"),
            (Unit::Items, 10, None, "10"),
            (Unit::Bytes, 2000, None, "2.0 kB, 1.0 kB/s"),
        ] {
            assert_eq!(line(unit, done, total, after), expected);
        }
        let nothing = line(Unit::Bytes, 0, Some(0), Duration::ZERO);
        assert_eq!(nothing, "0 B of 0 B (0%), 0 B/s, ETA 0 s");
    }

    #[test]
    fn threads_add_up() {
        let progress = Progress::new("test", true);
        progress.start("counting", Unit::Items, Some(400));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| progress.add(1)));
            }
        });
        assert_eq!(progress.done.load(Ordering::Relaxed), 400);
    }
}
