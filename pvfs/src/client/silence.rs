// SPDX-License-Identifier: MIT
//! How long a peer has been silent, as far as this process could have heard it.
//!
//! A process that was stopped, or that waited for a processor, has heard nothing meanwhile, and what
//! was sent to it lies in its socket. So its own pauses do not count: each look adds at most
//! [`SILENCE_LOOK_MS`], however long ago the last one was.

use crate::runtime::time::{Duration, Instant};

use crate::limits::{LOST_AFTER_MS, SILENCE_LOOK_MS, SUSPECT_AFTER_MS};

/// How far a peer's silence has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It was heard of lately.
    Heard,
    /// Silent for [`SUSPECT_AFTER_MS`]: worth a word in the log.
    Suspect,
    /// Silent for [`LOST_AFTER_MS`]: the connection is to be given up.
    Lost,
}

/// For how long a peer has said nothing. Whoever uses it looks at least each [`SILENCE_LOOK_MS`].
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    looked: Instant,
    silent: Duration,
}

impl Silence {
    /// The peer is there at `now`.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            looked: now,
            silent: Duration::ZERO,
        }
    }

    /// Something came from the peer.
    pub const fn hear(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// Nothing has come since the last look.
    pub fn look(&mut self, now: Instant) -> Stage {
        let passed = now.saturating_duration_since(self.looked);
        self.silent += passed.min(Duration::from_millis(SILENCE_LOOK_MS));
        self.looked = now;
        stage(self.silent)
    }

    /// For how long the peer has been silent.
    #[must_use]
    pub const fn lasted(&self) -> Duration {
        self.silent
    }
}

/// How far a silence of this length is.
#[must_use]
pub fn stage(silent: Duration) -> Stage {
    if silent >= Duration::from_millis(LOST_AFTER_MS) {
        Stage::Lost
    } else if silent >= Duration::from_millis(SUSPECT_AFTER_MS) {
        Stage::Suspect
    } else {
        Stage::Heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(SILENCE_LOOK_MS);

    /// Looks until the stage is reached; gives the milliseconds that it took.
    fn until(silence: &mut Silence, now: &mut Instant, stage: Stage) -> u128 {
        let start = *now;
        loop {
            *now += LOOK;
            if silence.look(*now) >= stage {
                return (*now - start).as_millis();
            }
        }
    }

    #[test]
    fn a_silence_becomes_suspect_and_then_lost() {
        let mut now = Instant::now();
        let mut silence = Silence::new(now);
        assert_eq!(until(&mut silence, &mut now, Stage::Suspect), 1500);
        assert_eq!(until(&mut silence, &mut now, Stage::Lost), 3500);
        silence.hear(now);
        assert_eq!(until(&mut silence, &mut now, Stage::Suspect), 1500);
    }

    #[test]
    fn its_own_sleep_is_nobodys_silence() {
        let mut now = Instant::now();
        let mut silence = Silence::new(now);
        for _ in 0..5 {
            now += Duration::from_secs(3600);
            assert_eq!(silence.look(now), Stage::Heard);
        }
        now += Duration::from_secs(3600);
        assert_eq!(silence.look(now), Stage::Suspect);
        assert_eq!(silence.lasted(), Duration::from_millis(SUSPECT_AFTER_MS));
    }
}
