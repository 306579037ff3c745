// SPDX-License-Identifier: MIT
//! How far a copy is: a bar on a terminal, else a line now and then.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{human, output};

/// Time between two lines where the output is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// See the module.
pub struct Progress {
    total: u64,
    done: AtomicU64,
    start: Instant,
    /// When the copying itself ended, without the verification.
    copied: Mutex<Option<(u64, Duration)>>,
    bar: Option<ProgressBar>,
    next_line: Option<Mutex<Instant>>,
}

impl Progress {
    /// Starts the clock for `total` bytes.
    pub fn new(total: u64, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| bar(total));
        let start = Instant::now();
        let next_line = (!terminal && !quiet).then(|| Mutex::new(start + LINE_INTERVAL));
        Self {
            total,
            done: AtomicU64::new(0),
            start,
            copied: Mutex::new(None),
            bar,
            next_line,
        }
    }

    /// `bytes` more are done.
    pub fn add(&self, bytes: u64) {
        let done = self
            .done
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
        // Whoever finds the lock taken need not wait: another thread writes the line.
        if let Some(Ok(mut next)) = self.next_line.as_ref().map(Mutex::try_lock) {
            let now = Instant::now();
            if now >= *next {
                *next = now + LINE_INTERVAL;
                let text = line(done, self.total, self.start.elapsed());
                output::note(format!("pvfs cp: {text}"));
            }
        }
    }

    /// Copying is over; the same bytes follow once more, for `what`.
    pub fn restart(&self, what: &'static str) {
        self.note_copied();
        self.done.store(0, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_message(what);
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.note_copied();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn note_copied(&self) {
        if let Ok(mut copied) = self.copied.lock() {
            let done = self.done.load(Ordering::Relaxed);
            copied.get_or_insert_with(|| (done, self.start.elapsed()));
        }
    }

    /// The last line: `files` were copied whole, and how many bytes how fast, which way. Units are
    /// decimal, as in u2p's MB/s.
    pub fn summary(&self, files: usize, how: &str) -> String {
        let copied = self.copied.lock().ok().and_then(|copied| *copied);
        let (bytes, time) = copied.unwrap_or((0, Duration::ZERO));
        let seconds = time.as_secs_f64();
        let rate = if seconds > 0.0 {
            bytes as f64 / seconds / 1e6
        } else {
            0.0
        };
        let plural = if files == 1 { "" } else { "s" };
        let size = human::decimal(bytes);
        format!("{files} file{plural}, {size} in {seconds:.2} s: {rate:.1} MB/s {how}")
    }
}

fn bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = "{msg:9} {wide_bar} {decimal_bytes}/{decimal_total_bytes} \
                    {decimal_bytes_per_sec} ETA {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message("copying");
    bar
}

fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    let left = total.saturating_sub(done) as f64 / rate.max(1.0);
    format!(
        "{} of {} ({percent}%), {}/s, ETA {left:.0} s",
        human::decimal(done),
        human::decimal(total),
        human::decimal(rate as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_rate_and_time_left() {
        let text = line(1 << 20, 4 << 20, Duration::from_secs(2));
        assert_eq!(text, "1.0 MB of 4.1 MB (25%), 524 kB/s, ETA 6 s");
        assert_eq!(
            line(0, 0, Duration::ZERO),
            "0 B of 0 B (0%), 0 B/s, ETA 0 s"
        );
    }

    #[test]
    fn verification_does_not_count_as_copying() {
        let progress = Progress::new(10, true);
        progress.add(10);
        progress.restart("verifying");
        progress.add(7);
        progress.finish();
        let text = progress.summary(1, "direct");
        assert!(text.starts_with("1 file, 10 B in "), "{text}");
    }
}
