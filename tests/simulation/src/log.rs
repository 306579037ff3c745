// SPDX-License-Identifier: MIT
//! What happened: the last lines, and a fingerprint of everything.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::time::Duration;

/// Lines that are kept to be shown where a seed fails.
const LINES_MAX: usize = 400;

/// What happened in a run.
#[derive(Debug)]
pub struct Log {
    lines: VecDeque<String>,
    fingerprint: DefaultHasher,
    /// All lines go to standard error at once, for whoever replays a seed.
    aloud: bool,
}

impl Log {
    /// Nothing has happened.
    #[must_use]
    pub fn new(aloud: bool) -> Self {
        Self {
            lines: VecDeque::new(),
            fingerprint: DefaultHasher::new(),
            aloud,
        }
    }

    /// Notes something that leaves no line.
    pub fn mix(&mut self, what: impl Hash) {
        what.hash(&mut self.fingerprint);
    }

    /// Notes a line.
    pub fn line(&mut self, at: Duration, who: &str, what: &str) {
        let line = format!("{:>12.6} {who:<18} {what}", at.as_secs_f64());
        line.hash(&mut self.fingerprint);
        if self.aloud {
            use std::io::Write;
            // Nobody may be reading.
            let _ = writeln!(io::stderr(), "{line}");
        }
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The last lines.
    #[must_use]
    pub fn tail(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        lines.join("\n")
    }

    /// Two runs of one seed have the same.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.finish()
    }
}
