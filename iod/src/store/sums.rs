// SPDX-License-Identifier: MIT
//! The checksums of one object: which of them may be believed, and what the disk says of them.
//!
//! # Invariants
//!
//! A cluster that is in the table is *trusted*: while nobody holds the object's lock for writing, each
//! of its sums is that of its block, or the block is damaged. What the table says of `covered` is at
//! least what the disk says after a crash of any kind, and below that block both the data and the sums
//! were on disk when it was said; so before a block below it changes, `covered` goes down durably.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use pvfs::ids::ObjectId;
use pvfs::layout::LayoutSlot;
use pvfs::runtime::time::{Duration, Instant};
use thiserror::Error;

use super::disk::LocalFile;
use super::sums_format::{
    BLOCK_BYTES, CLUSTER_BLOCKS, CLUSTER_BYTES, CLUSTER_SUMS_BYTES, ClusterHeader, ClusterState,
    HEADER_BYTES, HEADER_PAGE_BYTES, HeaderError, SUM_BYTES, block_at, block_sum, blocks_of,
    header_offset, sum_offset,
};

/// Clusters of one object that are kept in memory: of 64 GiB. Settled ones beyond it are forgotten.
const CLUSTERS_KEPT_MAX: usize = 1024;
/// Data read at once while sums are computed anew.
const CHUNK_BYTES: usize = 64 << 10;
/// Sums read by one call: of 1 MiB of data.
const SUMS_READ_BYTES: usize = 1024;

/// Something on the disk is not what was written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// A block and its sum contradict each other.
    #[error("the block at local offset {offset} does not match its checksum")]
    Block {
        /// Where the block begins, bytes.
        offset: u64,
    },
    /// A cluster's header is unreadable, so nothing is known of its blocks.
    #[error("the checksums of the 64 MiB from local offset {offset} on are damaged")]
    Header {
        /// Where the cluster begins, bytes.
        offset: u64,
    },
    /// Somebody has renamed the files.
    #[error("its checksums are those of object {object}: its files have been mixed up")]
    Foreign {
        /// Whose they are.
        object: ObjectId,
    },
    /// The object holds other stripes than those that were asked for.
    #[error("it holds {stored} of its file, and {asked} was asked for")]
    Misplaced {
        /// What is here.
        stored: LayoutSlot,
        /// What somebody wants.
        asked: LayoutSlot,
    },
    /// The local file ends before bytes that a client knows to have been written.
    #[error("it has {length} bytes, and {filled} have been written, as far as the client knows")]
    Short {
        /// What is here, bytes; 0 also where there is no local file.
        length: u64,
        /// What has been written at least.
        filled: u64,
    },
    /// There are checksums and no data.
    #[error("its data is gone, only checksums are left")]
    Lost,
}

impl Damage {
    /// The damage that an error tells of.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<Damage> for io::Error {
    fn from(damage: Damage) -> Self {
        Self::new(io::ErrorKind::InvalidData, damage)
    }
}

/// A trusted cluster.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    /// See the module's invariants.
    covered: u64,
    /// Sums beyond `covered` are to be settled.
    dirty: bool,
    /// Counts changes.
    version: u64,
    changed: Instant,
}

/// A cluster's state at the moment at which settling began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settling {
    cluster: u64,
    version: u64,
}

/// The checksums of one object's data.
#[derive(Debug)]
pub(super) struct Sums {
    object: ObjectId,
    file: Arc<dyn LocalFile>,
    clusters: BTreeMap<u64, Cluster>,
    /// Which stripes of the file these are, once it is known.
    place: Option<LayoutSlot>,
}

/// The parts of a range of blocks, cluster by cluster.
pub(super) fn by_cluster(blocks: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
    let mut next = blocks.start;
    std::iter::from_fn(move || {
        if next >= blocks.end {
            return None;
        }
        let cluster = next / CLUSTER_BLOCKS;
        let end = blocks.end.min((cluster + 1) * CLUSTER_BLOCKS);
        let part = next..end;
        next = end;
        Some((cluster, part))
    })
}

/// Whether sums say that there was data on the disk: not so where its name was never flushed.
pub(super) fn claims_data(object: ObjectId, sums: &dyn LocalFile) -> io::Result<bool> {
    let mut at = 0;
    while let Some(found) = sums.next_data(at)? {
        let cluster = found / CLUSTER_SUMS_BYTES;
        let mut bytes = [0; HEADER_BYTES];
        sums.read_full(&mut bytes, header_offset(cluster))?;
        let state = ClusterHeader::decode(&bytes, object, cluster);
        if state.map_or(true, |state| state.covered > 0) {
            return Ok(true);
        }
        at = header_offset(cluster + 1);
    }
    Ok(false)
}

/// How long the file of the sums of `blocks` blocks is.
const fn length_of(blocks: u64) -> u64 {
    match blocks.checked_sub(1) {
        Some(last) => sum_offset(last) + SUM_BYTES,
        None => 0,
    }
}

impl Sums {
    pub(super) fn new(object: ObjectId, file: Arc<dyn LocalFile>) -> Self {
        Self {
            object,
            file,
            clusters: BTreeMap::new(),
            place: None,
        }
    }

    /// Which stripes of the file the disk says that these are. Unknown where that was never written,
    /// or is damaged: whatever is read of the first cluster says so.
    ///
    /// # Errors
    ///
    /// [`Damage::Foreign`], and those of the disk.
    pub(super) fn load_place(&mut self) -> io::Result<Option<LayoutSlot>> {
        match self.read_header(0) {
            Ok(state) => self.place = state.place,
            Err(error) if matches!(Damage::of(&error), Some(Damage::Header { .. })) => {}
            Err(error) => return Err(error),
        }
        Ok(self.place)
    }

    /// Writes down which stripes of the file these are, unless that stands there.
    ///
    /// # Errors
    ///
    /// [`Damage::Header`], [`Damage::Misplaced`], and those of the disk.
    pub(super) fn claim_place(&mut self, place: LayoutSlot) -> io::Result<()> {
        let state = self.read_header(0)?;
        match state.place {
            Some(stored) if stored == place => self.place = Some(place),
            Some(stored) => {
                let asked = place;
                return Err(Damage::Misplaced { stored, asked }.into());
            }
            None => {
                self.place = Some(place);
                self.write_header(0, state.covered.into())?;
            }
        }
        Ok(())
    }

    /// Whether the sums of all these blocks may be believed already.
    pub(super) fn trusts(&self, blocks: Range<u64>) -> bool {
        by_cluster(blocks).all(|(cluster, _)| self.clusters.contains_key(&cluster))
    }

    /// Whether a cluster has sums to be settled.
    pub(super) fn is_dirty(&self) -> bool {
        self.clusters.values().any(|cluster| cluster.dirty)
    }

    /// The stored sums of some blocks into `sums`, which has room for exactly these.
    pub(super) fn read(&self, blocks: Range<u64>, sums: &mut [u32]) -> io::Result<()> {
        let mut rest = sums;
        for (_, part) in by_cluster(blocks) {
            let count = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
            let Some((these, after)) = rest.split_at_mut_checked(count) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            // Sums beyond the file's end were never written: zero.
            let mut bytes = [0; SUMS_READ_BYTES];
            let mut at = sum_offset(part.start);
            for these in these.chunks_mut(bytes.len() / SUM_BYTES as usize) {
                let length = these.len() * SUM_BYTES as usize;
                let bytes = bytes.get_mut(..length).unwrap_or_default();
                let filled = self.file.read_full(bytes, at)?;
                bytes.get_mut(filled..).unwrap_or_default().fill(0);
                for (sum, bytes) in these.iter_mut().zip(bytes.chunks(SUM_BYTES as usize)) {
                    *sum = bytes.try_into().map_or(0, u32::from_le_bytes);
                }
                at += length as u64;
            }
            rest = after;
        }
        Ok(())
    }

    /// Stores the sums of blocks from `first` on, all of one cluster.
    pub(super) fn write(&self, first: u64, sums: &[u32]) -> io::Result<()> {
        let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        self.file.write_full(&bytes, sum_offset(first))
    }

    /// Sees to it that a cluster is trusted: sums that a crash may have left behind their data are
    /// computed anew from `data`. Returns whether that was so, which leaves sums to be settled.
    ///
    /// # Errors
    ///
    /// [`Damage::Header`], and those of the disk.
    pub(super) fn load(
        &mut self,
        cluster: u64,
        data: &dyn LocalFile,
        now: Instant,
    ) -> io::Result<bool> {
        if self.clusters.contains_key(&cluster) {
            return Ok(false);
        }
        let covered = u64::from(self.read_header(cluster)?.covered);
        let start = cluster * CLUSTER_BLOCKS;
        let of_data = blocks_of(data.length()?).saturating_sub(start);
        let sums_length = self.file.length()?;
        let of_sums = sums_length.saturating_sub(header_offset(cluster) + HEADER_PAGE_BYTES);
        let of_sums = of_sums.div_ceil(SUM_BYTES);
        let end = of_data.max(of_sums).min(CLUSTER_BLOCKS);
        let stale = end > covered;
        if stale {
            self.recompute(start + covered..start + end, data)?;
        }
        self.forget_some();
        self.clusters.insert(
            cluster,
            Cluster {
                covered,
                dirty: stale,
                version: 0,
                changed: now,
            },
        );
        Ok(stale)
    }

    fn read_header(&self, cluster: u64) -> io::Result<ClusterState> {
        let mut bytes = [0; HEADER_BYTES];
        self.file.read_full(&mut bytes, header_offset(cluster))?;
        match ClusterHeader::decode(&bytes, self.object, cluster) {
            Ok(state) => Ok(state),
            Err(HeaderError::Damaged) => {
                let offset = cluster * CLUSTER_BYTES;
                Err(Damage::Header { offset }.into())
            }
            Err(HeaderError::Foreign(object)) => Err(Damage::Foreign { object }.into()),
        }
    }

    fn write_header(&self, cluster: u64, covered: u64) -> io::Result<()> {
        let header = ClusterHeader {
            object: self.object,
            cluster,
            state: ClusterState {
                covered: u32::try_from(covered).unwrap_or(u32::MAX),
                place: self.place,
            },
        };
        self.file
            .write_full(&header.encode(), header_offset(cluster))
    }

    /// Computes the sums of some blocks of one cluster from what the data says now.
    pub(super) fn recompute(&self, blocks: Range<u64>, data: &dyn LocalFile) -> io::Result<()> {
        let count = usize::try_from(blocks.end - blocks.start).unwrap_or(usize::MAX);
        let mut sums = vec![0; count];
        let mut chunk = vec![0; CHUNK_BYTES];
        let end = blocks.end * BLOCK_BYTES;
        let mut at = blocks.start * BLOCK_BYTES;
        // Holes have the sum 0 already.
        while let Some(found) = data.next_data(at)?.filter(|found| *found < end) {
            at = found / BLOCK_BYTES * BLOCK_BYTES;
            let length = usize::try_from(end - at).unwrap_or(usize::MAX);
            let chunk = chunk.get_mut(..length.min(CHUNK_BYTES)).unwrap_or_default();
            let filled = data.read_full(chunk, at)?;
            if filled == 0 {
                break;
            }
            let first = usize::try_from(at / BLOCK_BYTES - blocks.start).unwrap_or(usize::MAX);
            let filled_blocks = chunk
                .get(..filled)
                .unwrap_or_default()
                .chunks(BLOCK_BYTES as usize);
            let places = sums.get_mut(first..).unwrap_or_default().iter_mut();
            for (sum, block) in places.zip(filled_blocks) {
                *sum = block_sum(block);
            }
            at += chunk.len() as u64;
        }
        self.write(blocks.start, &sums)
    }

    /// Notes that blocks of a trusted cluster are about to change, durably where a crash would
    /// otherwise make good data look damaged. Returns whether the cluster had nothing to be settled
    /// until now.
    ///
    /// # Errors
    ///
    /// Those of pwrite(2) and fdatasync(2): nothing may be changed then.
    pub(super) fn change(
        &mut self,
        cluster: u64,
        first: u64,
        lower_to: u64,
        now: Instant,
    ) -> io::Result<bool> {
        let Some(found) = self.clusters.get(&cluster).copied() else {
            return Err(io::Error::other("a cluster is changed that is not loaded"));
        };
        let mut covered = found.covered;
        if first < cluster * CLUSTER_BLOCKS + covered {
            self.write_header(cluster, lower_to)?;
            self.file.sync()?;
            covered = lower_to;
        }
        self.clusters.insert(
            cluster,
            Cluster {
                covered,
                dirty: true,
                version: found.version + 1,
                changed: now,
            },
        );
        Ok(!found.dirty)
    }

    /// Stops trusting a cluster: the next use computes its sums anew, where they are not covered.
    pub(super) fn distrust(&mut self, cluster: u64) {
        self.clusters.remove(&cluster);
    }

    /// The first block from `block` on whose sum is not in a hole of the sums; `None` where none is.
    pub(super) fn next_summed(&self, block: u64) -> io::Result<Option<u64>> {
        let found = self.file.next_data(sum_offset(block))?;
        Ok(found.map(|at| block_at(at).max(block)))
    }

    /// Whether they say that there was data on the disk beyond `blocks` blocks.
    pub(super) fn claim_beyond(&self, blocks: u64) -> io::Result<bool> {
        let mut at = header_offset(blocks / CLUSTER_BLOCKS);
        while let Some(found) = self.file.next_data(at)? {
            let cluster = found / CLUSTER_SUMS_BYTES;
            match self.read_header(cluster) {
                Ok(state) if cluster * CLUSTER_BLOCKS + u64::from(state.covered) <= blocks => {}
                Ok(_) => return Ok(true),
                Err(error) if Damage::of(&error).is_some() => return Ok(true),
                Err(error) => return Err(error),
            }
            at = header_offset(cluster + 1);
        }
        Ok(false)
    }

    /// Cuts the sums durably for an object that will be cut to `blocks` blocks: none beyond the cut,
    /// and none from `keep` on covered any more.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(super) fn cut(&mut self, keep: u64, blocks: u64, now: Instant) -> io::Result<()> {
        let cluster = keep / CLUSTER_BLOCKS;
        let covered = self.clusters.get(&cluster).map_or(0, |found| found.covered);
        if covered > keep % CLUSTER_BLOCKS {
            self.write_header(cluster, keep % CLUSTER_BLOCKS)?;
            // A crash must not leave the sums gone of what counts as covered.
            self.file.sync()?;
        }
        let length = length_of(blocks);
        if self.file.length()? > length {
            self.file.set_length(length)?;
        }
        self.file.sync()?;
        self.clusters.retain(|number, _| *number <= cluster);
        if let Some(found) = self.clusters.get_mut(&cluster) {
            found.covered = found.covered.min(keep % CLUSTER_BLOCKS);
            found.dirty = true;
            found.version += 1;
            found.changed = now;
        }
        Ok(())
    }

    /// The clusters that have rested for `idle` and are not settled.
    pub(super) fn begin_settling(&self, now: Instant, idle: Duration) -> Vec<Settling> {
        self.clusters
            .iter()
            .filter(|(_, found)| {
                found.dirty && now.saturating_duration_since(found.changed) >= idle
            })
            .map(|(cluster, found)| Settling {
                cluster: *cluster,
                version: found.version,
            })
            .collect()
    }

    /// Says of clusters whose data and sums have been flushed since [`Sums::begin_settling`] that
    /// they are covered; a flush of the sums makes that durable. Those that changed meanwhile stay.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(super) fn settle(&mut self, settling: &[Settling], data_length: u64) -> io::Result<()> {
        for Settling { cluster, version } in settling {
            let found = self.clusters.get(cluster).copied();
            let Some(found) = found.filter(|found| found.version == *version) else {
                continue;
            };
            let blocks = blocks_of(data_length).saturating_sub(cluster * CLUSTER_BLOCKS);
            let covered = blocks.min(CLUSTER_BLOCKS);
            // What stands here counts as covered from now on, also where writing it fails half way.
            let raised = Cluster {
                covered: covered.max(found.covered),
                ..found
            };
            self.clusters.insert(*cluster, raised);
            self.write_header(*cluster, covered)?;
            let settled = Cluster {
                dirty: false,
                ..raised
            };
            self.clusters.insert(*cluster, settled);
        }
        Ok(())
    }

    fn forget_some(&mut self) {
        if self.clusters.len() >= CLUSTERS_KEPT_MAX {
            self.clusters.retain(|_, cluster| cluster.dirty);
        }
    }
}
