// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a node says of itself, and what that does to its load.
//!
//! The director's own sum, Ci, is exact where it learned each connection's size. Where it cannot (TLS,
//! other protocols, a service that does not learn), the sizes are the service's expectation, and
//! the node knows better: what is open there. A report is up to a period old and has all of the node's
//! services in it, so it is not put in Ci's place but under it, as the least that the node has to do.

use crate::director::limits::LOAD_BYTES_MAX;

/// A report says nothing any more after this: four of five were lost, or the node is gone.
pub const REPORT_AGE_MS_MAX: u64 = 5_000;

/// Nodes of one namespace; with their real servers they would be more only by mistake.
pub const NODES_MAX: usize = 1024;

/// What a node reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Report {
    /// The sizes of the files that are open on it, in bytes.
    pub open_bytes: u64,
    /// How many those are.
    pub open_files: u32,
    /// Memory in use, in thousandths.
    pub memory_permille: u32,
    /// Processors in use, in thousandths.
    pub cpu_permille: u32,
}

/// The part of a node's open bytes that falls to one service: what the sums of the node's other
/// services do not account for.
pub const fn share(open_bytes: u64, node_bytes: u64, own_bytes: u64) -> u64 {
    open_bytes.saturating_sub(node_bytes.saturating_sub(own_bytes))
}

/// What a scheduler shall take Ci for at least: the node's share, unless that is too old.
pub const fn counted(share_bytes: u64, age_ms: u64) -> i64 {
    if age_ms > REPORT_AGE_MS_MAX {
        0
    } else if share_bytes > LOAD_BYTES_MAX {
        LOAD_BYTES_MAX as i64
    } else {
        share_bytes as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_while_it_is_young() {
        for (share, age_ms, expected) in [
            (0, 0, 0),
            (50, 0, 50),
            (50, REPORT_AGE_MS_MAX, 50),
            (50, REPORT_AGE_MS_MAX + 1, 0),
            (u64::MAX, 0, LOAD_BYTES_MAX as i64),
        ] {
            assert_eq!(counted(share, age_ms), expected);
        }
    }

    #[test]
    fn services_of_one_node_share_its_report() {
        // Alone on its node, a service gets all of it.
        assert_eq!(share(100, 30, 30), 100);
        // The other service accounts for 50.
        assert_eq!(share(100, 80, 30), 50);
        // The others account for more than is open by now.
        assert_eq!(share(100, 500, 30), 0);
        // Sums that are read while they change.
        assert_eq!(share(100, 10, 30), 100);
    }
}
