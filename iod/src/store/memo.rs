// SPDX-License-Identifier: MIT
//! What was compared with its checksums a moment ago, so that a hot file is not compared for each of
//! its readers. Pure: time and the file's stamp come in.

use std::collections::BTreeMap;

use super::disk::Stamp;
use super::sums_format::CLUSTER_BYTES;
use pvfs::runtime::time::{Duration, Instant};

/// A piece that was compared counts as good for so long, as long as the file is not touched. In this
/// time the kernel could drop it and read it again wrong; the disk that does this is found out at the
/// next comparison.
pub(super) const GOOD_FOR: Duration = Duration::from_secs(10);
/// What is remembered at once.
pub(super) const PIECE_BYTES: u64 = 256 << 10;
/// Clusters remembered of one object: 16 GiB, in 15 KiB of memory.
const CLUSTERS_MAX: usize = 256;
const PIECES_PER_CLUSTER: usize = (CLUSTER_BYTES / PIECE_BYTES) as usize;
const WORDS: usize = PIECES_PER_CLUSTER / 64;
const _: () = assert!(WORDS * 64 == PIECES_PER_CLUSTER);

/// What has lately been read and found right.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// The file as it was when all that is remembered was compared.
    stamp: Stamp,
    clusters: BTreeMap<u64, Pieces>,
}

#[derive(Clone, Copy, Debug)]
struct Pieces {
    /// When the first of them was compared.
    since: Instant,
    good: [u64; WORDS],
}

fn place(piece: u64) -> (u64, usize, u64) {
    let of_cluster = CLUSTER_BYTES / PIECE_BYTES;
    let bit = piece % of_cluster;
    let word = usize::try_from(bit / 64).unwrap_or(usize::MAX);
    (piece / of_cluster, word, 1 << (bit % 64))
}

impl Memo {
    /// Whether all of a range was compared lately, in a file that has had this stamp ever since.
    pub(super) fn is_good(&self, stamp: Stamp, offset: u64, length: u64, now: Instant) -> bool {
        let pieces = offset / PIECE_BYTES..offset.saturating_add(length).div_ceil(PIECE_BYTES);
        let good = |piece| {
            let (cluster, word, bit) = place(piece);
            self.clusters.get(&cluster).is_some_and(|pieces| {
                now.saturating_duration_since(pieces.since) < GOOD_FOR
                    && pieces.good.get(word).is_some_and(|word| word & bit != 0)
            })
        };
        self.stamp == stamp
            && pieces.clone().count() <= PIECES_PER_CLUSTER
            && pieces.into_iter().all(good)
    }

    /// Notes that a range was compared at `now` or later. Only whole pieces are remembered.
    pub(super) fn note(&mut self, stamp: Stamp, offset: u64, length: u64, now: Instant) {
        if self.stamp != stamp {
            self.clusters.clear();
            self.stamp = stamp;
        }
        let pieces = offset.div_ceil(PIECE_BYTES)..offset.saturating_add(length) / PIECE_BYTES;
        for piece in pieces {
            let (cluster, word, bit) = place(piece);
            if self.clusters.len() >= CLUSTERS_MAX && !self.clusters.contains_key(&cluster) {
                self.clusters.clear();
            }
            let fresh = Pieces {
                since: now,
                good: [0; WORDS],
            };
            let pieces = self.clusters.entry(cluster).or_insert(fresh);
            if now.saturating_duration_since(pieces.since) >= GOOD_FOR {
                *pieces = fresh;
            }
            if let Some(word) = pieces.good.get_mut(word) {
                *word |= bit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        length: 1 << 30,
        modified_ns: 5,
        changed_ns: 6,
    };

    #[test]
    fn whole_pieces_are_good_for_a_while_in_an_untouched_file() {
        let start = Instant::now();
        let later = |s| start + Duration::from_secs(s);
        let mut memo = Memo::default();
        assert!(!memo.is_good(STAMP, 0, 1, start));
        memo.note(STAMP, 100, 3 * PIECE_BYTES, start);
        assert!(!memo.is_good(STAMP, 0, PIECE_BYTES, start), "a part of it");
        assert!(memo.is_good(STAMP, PIECE_BYTES, 2 * PIECE_BYTES, start));
        assert!(memo.is_good(STAMP, 2 * PIECE_BYTES - 5, 10, later(9)));
        assert!(!memo.is_good(STAMP, PIECE_BYTES, 1, later(10)));
        for touched in [
            Stamp { length: 1, ..STAMP },
            Stamp {
                modified_ns: 9,
                ..STAMP
            },
            Stamp {
                changed_ns: 9,
                ..STAMP
            },
        ] {
            assert!(!memo.is_good(touched, PIECE_BYTES, 1, start));
        }
        // A fresh comparison does not make older ones good for longer.
        memo.note(STAMP, 4 * PIECE_BYTES, PIECE_BYTES, later(9));
        assert!(!memo.is_good(STAMP, PIECE_BYTES, 1, later(11)));
        memo.note(STAMP, 5 * PIECE_BYTES, PIECE_BYTES, later(11));
        assert!(memo.is_good(STAMP, 5 * PIECE_BYTES, 1, later(12)));
        assert!(!memo.is_good(STAMP, PIECE_BYTES, 1, later(12)));
    }

    #[test]
    fn clusters_are_bounded_and_the_last_offset_is_no_trap() {
        let start = Instant::now();
        let mut memo = Memo::default();
        for cluster in 0..2 * CLUSTERS_MAX as u64 {
            memo.note(STAMP, cluster * CLUSTER_BYTES, PIECE_BYTES, start);
            assert!(memo.clusters.len() <= CLUSTERS_MAX);
        }
        assert!(!memo.is_good(STAMP, u64::MAX - 5, 5, start));
        memo.note(STAMP, u64::MAX - 5, 5, start);
        assert!(!memo.is_good(STAMP, 0, u64::MAX, start));
    }
}
