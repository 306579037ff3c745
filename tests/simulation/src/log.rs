// SPDX-License-Identifier: MIT
//! What happened: the last lines, and a fingerprint of everything.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::machine::World;

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

/// Takes what the product logs.
#[derive(Clone, Copy, Debug)]
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(world) = World::current() {
            world.note(String::from_utf8_lossy(bytes).trim_end());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// From now on, what the product logs goes to the log of the simulation. `SIMULATION_LOG` says how
/// much: a filter as for `--log` of the daemons.
pub fn take_product_logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SIMULATION_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(Lines)
        .finish();
    // Another test of this process has set it.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
