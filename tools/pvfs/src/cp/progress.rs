// SPDX-License-Identifier: MIT
//! How much is copied, how fast, and the line that says so at the end.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::human;
use crate::progress::{self, Unit};

/// The copying of so many bytes, and then perhaps their verification.
pub struct Progress {
    total: u64,
    shown: progress::Progress,
    done: AtomicU64,
    start: Instant,
    /// When the copying itself ended, without the verification.
    copied: OnceLock<(u64, Duration)>,
}

impl Progress {
    /// Starts the clock for `total` bytes.
    pub fn new(total: u64, quiet: bool) -> Self {
        let shown = progress::Progress::new("pvfs cp", quiet);
        shown.start("copying", Unit::Bytes, Some(total));
        Self {
            total,
            shown,
            done: AtomicU64::new(0),
            start: Instant::now(),
            copied: OnceLock::new(),
        }
    }

    /// `bytes` more are done.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.shown.add(bytes);
    }

    /// Copying is over; the same bytes follow once more, for `what`.
    pub fn restart(&self, what: &'static str) {
        self.note_copied();
        self.shown.start(what, Unit::Bytes, Some(self.total));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.note_copied();
        self.shown.finish();
    }

    fn note_copied(&self) {
        let done = self.done.load(Ordering::Relaxed);
        self.copied.get_or_init(|| (done, self.start.elapsed()));
    }

    /// The last line: `files` were copied whole, and how many bytes how fast, which way. Units are
    /// decimal, as in u2p's MB/s.
    pub fn summary(&self, files: usize, how: &str) -> String {
        let copied = self.copied.get().copied();
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

#[cfg(test)]
mod tests {
    use super::*;

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
