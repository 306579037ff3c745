// SPDX-License-Identifier: MIT
//! Logging of failures that may come by the thousand: a full or dying disk must not fill the log.

use std::fmt::Display;

use crate::runtime::sync::{Mutex, PoisonError};
use crate::runtime::time::{Duration, Instant};

/// At most one line in so long.
const INTERVAL: Duration = Duration::from_secs(1);

/// A log of failures that writes at most one line a second, and counts the rest.
#[derive(Debug)]
pub struct FailureLog {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl FailureLog {
    /// One that has written nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                last: None,
                suppressed: 0,
            }),
        }
    }

    /// Logs `failure`, or counts it where the last line is too fresh.
    pub fn note(&self, failure: &dyn Display) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.admit(Instant::now()) {
            None => {}
            Some(0) => tracing::error!("{failure}"),
            Some(more) => tracing::error!("{failure} (and {more} failures not shown)"),
        }
    }
}

impl Default for FailureLog {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Whether a line may be logged at `now`, and how many were not since the last one.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < INTERVAL)
        {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_a_count_of_the_rest() {
        let start = Instant::now();
        let mut state = State {
            last: None,
            suppressed: 0,
        };
        let at = |ms| start + Duration::from_millis(ms);
        let admitted: Vec<_> = [0, 1, 999, 1000, 1500, 2500, 9000]
            .into_iter()
            .map(|ms| state.admit(at(ms)))
            .collect();
        let expected = [Some(0), None, None, Some(2), None, Some(1), Some(0)];
        assert_eq!(admitted, expected);
    }
}
