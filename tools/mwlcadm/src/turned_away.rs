// SPDX-License-Identifier: MIT
//! Clients that a service turned away, by cause.

use std::fmt;

use ipvs_mwlc::director::refusals::Refusals;
use serde::Serialize;

/// How many clients were turned away so far, by cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TurnedAway {
    /// The service had no real server.
    pub empty: u64,
    /// All had weight 0.
    pub quiesced: u64,
    /// Those with a weight were over their thresholds.
    pub overloaded: u64,
    /// All had more active connections than their weight.
    pub full: u64,
    /// The one that the client's address selects was not available.
    pub selected: u64,
}

impl From<Refusals> for TurnedAway {
    fn from(refusals: Refusals) -> Self {
        let Refusals {
            empty,
            quiesced,
            overloaded,
            full,
            selected,
        } = refusals;
        TurnedAway {
            empty,
            quiesced,
            overloaded,
            full,
            selected,
        }
    }
}

impl TurnedAway {
    /// All of them.
    pub fn total(&self) -> u64 {
        let counts = self.causes().into_iter().map(|(count, _)| count);
        counts.fold(0, u64::saturating_add)
    }

    fn causes(&self) -> [(u64, &'static str); 5] {
        [
            (self.empty, "no real server"),
            (self.quiesced, "every weight 0"),
            (self.overloaded, "all over their thresholds"),
            (self.full, "all full"),
            (self.selected, "the selected one not available"),
        ]
    }
}

/// `clients turned away: 12 (7: every weight 0; 5: all full)`.
impl fmt::Display for TurnedAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.causes().into_iter().filter(|(count, _)| *count > 0);
        let causes: Vec<String> = counts
            .map(|(count, cause)| format!("{count}: {cause}"))
            .collect();
        write!(f, "clients turned away: {}", self.total())?;
        if causes.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", causes.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_that_happened_are_named() {
        let none = TurnedAway::from(Refusals::default());
        assert_eq!(none.to_string(), "clients turned away: 0");
        let some = TurnedAway::from(Refusals {
            quiesced: 7,
            full: 5,
            ..Refusals::default()
        });
        assert_eq!(
            some.to_string(),
            "clients turned away: 12 (7: every weight 0; 5: all full)"
        );
        assert_eq!(some.total(), 12);
    }
}
