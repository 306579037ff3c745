// SPDX-License-Identifier: MIT
//! The bytes of a file of checksums. Pure arithmetic and parsing; the grid stands in
//! `docs/ON_DISK.md`, what the fields promise in [`super::object_file`].

use pvfs::ids::{InodeNumber, ObjectId};
use pvfs::layout::LayoutSlot;
use pvfs::wire::header::checksum;
use thiserror::Error;

/// Data under one sum. A page: writes of whole pages, which is what page caches send, need nothing
/// read, and a random read of a page reads nothing else (docs/decisions/0075).
pub const BLOCK_BYTES: u64 = 4096;
/// Data under one header: a crash makes the sums of so much be computed anew, and the first
/// overwrite in so much costs a flush.
pub const CLUSTER_BYTES: u64 = 64 << 20;
/// Blocks of a cluster.
pub const CLUSTER_BLOCKS: u64 = CLUSTER_BYTES / BLOCK_BYTES;
/// Where a cluster's sums begin: the header has a page of its own.
pub const HEADER_PAGE_BYTES: u64 = 4096;
/// The header in that page; the rest is a hole.
pub const HEADER_BYTES: usize = 64;
/// One sum.
pub const SUM_BYTES: u64 = 4;
/// A cluster in the file of sums.
pub const CLUSTER_SUMS_BYTES: u64 = HEADER_PAGE_BYTES + CLUSTER_BLOCKS * SUM_BYTES;

const MAGIC: [u8; 8] = *b"PVFSSUM1";
const INODE_AT: usize = 8;
const GENERATION_AT: usize = 16;
const COVERED_AT: usize = 20;
const CLUSTER_AT: usize = 24;
const SLOT_AT: usize = 32;
const PLACED_AT: usize = 34;
const LAYOUT_HASH_AT: usize = 36;
const STRIPE_SIZE_AT: usize = 40;
const SLOTS_AT: usize = 44;
const RESERVED_AT: usize = 46;
const CHECKSUM_AT: usize = 60;

const _: () = assert!(MAGIC.len() == INODE_AT);
const _: () = assert!(CLUSTER_AT + 8 == SLOT_AT);
const _: () = assert!(LAYOUT_HASH_AT + 4 == STRIPE_SIZE_AT);
const _: () = assert!(SLOTS_AT + 2 == RESERVED_AT);
const _: () = assert!(CHECKSUM_AT + 4 == HEADER_BYTES);
// A header is within one sector, which a disk writes whole or not at all.
const _: () = assert!(HEADER_BYTES <= 512);
const _: () = assert!(CLUSTER_SUMS_BYTES == 69_632);
const _: () = assert!(CLUSTER_BLOCKS <= u32::MAX as u64);

/// A block of zeros has this CRC-32C.
const ZEROS_CRC: u32 = crc_of_zeros();

/// CRC-32C of a block of zeros, bit by bit, at compile time.
const fn crc_of_zeros() -> u32 {
    let mut crc = u32::MAX;
    let mut bit = 0;
    while bit < BLOCK_BYTES * 8 {
        crc = if crc & 1 == 1 {
            (crc >> 1) ^ 0x82f6_3b78
        } else {
            crc >> 1
        };
        bit += 1;
    }
    !crc
}

/// The sum of a block; a shorter one counts as filled up with zeros. A block of zeros has the sum
/// 0, so that holes in the data may be holes among the sums.
///
/// Bytes beyond a block's length are ignored.
#[must_use]
pub fn block_sum(block: &[u8]) -> u32 {
    let crc = if block.len() as u64 >= BLOCK_BYTES {
        checksum(block.get(..BLOCK_BYTES as usize).unwrap_or(block))
    } else {
        let mut padded = [0; BLOCK_BYTES as usize];
        if let Some(start) = padded.get_mut(..block.len()) {
            start.copy_from_slice(block);
        }
        checksum(&padded)
    };
    crc ^ ZEROS_CRC
}

/// Where the sum of a block of the object stands.
#[must_use]
pub const fn sum_offset(block: u64) -> u64 {
    let cluster = block / CLUSTER_BLOCKS;
    cluster * CLUSTER_SUMS_BYTES + HEADER_PAGE_BYTES + block % CLUSTER_BLOCKS * SUM_BYTES
}

/// The block whose sum stands at an offset; at a header, the cluster's first.
#[must_use]
pub const fn block_at(offset: u64) -> u64 {
    let within = (offset % CLUSTER_SUMS_BYTES).saturating_sub(HEADER_PAGE_BYTES);
    offset / CLUSTER_SUMS_BYTES * CLUSTER_BLOCKS + within / SUM_BYTES
}

/// Where a cluster's header stands.
#[must_use]
pub const fn header_offset(cluster: u64) -> u64 {
    cluster * CLUSTER_SUMS_BYTES
}

/// How many blocks `bytes` take.
#[must_use]
pub const fn blocks_of(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES)
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// It is nobody's.
    #[error("the header of its checksums is damaged")]
    Damaged,
    /// It is whole, and that of another object.
    #[error("its checksums are those of object {0}")]
    Foreign(ObjectId),
}

/// A cluster's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterHeader {
    /// Whose sums these are.
    pub object: ObjectId,
    /// Which part of it.
    pub cluster: u64,
    /// What stands there.
    pub state: ClusterState,
}

/// What a header says of its cluster; of one that was never written, the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// So many blocks from the cluster's start are on disk as their sums say, both of them.
    pub covered: u32,
    /// Which stripes of the file these are; `None` where nobody has said so.
    pub place: Option<LayoutSlot>,
}

impl ClusterHeader {
    /// The bytes on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        };
        put(0, &MAGIC);
        put(INODE_AT, &self.object.inode.0.to_le_bytes());
        put(GENERATION_AT, &self.object.generation.to_le_bytes());
        put(COVERED_AT, &self.state.covered.to_le_bytes());
        put(CLUSTER_AT, &self.cluster.to_le_bytes());
        if let Some(place) = self.state.place {
            put(SLOT_AT, &place.slot.to_le_bytes());
            put(PLACED_AT, &[1]);
            put(LAYOUT_HASH_AT, &place.layout_hash.to_le_bytes());
            put(STRIPE_SIZE_AT, &place.stripe_size.to_le_bytes());
            put(SLOTS_AT, &place.slots.to_le_bytes());
        }
        let sum = checksum(bytes.get(..CHECKSUM_AT).unwrap_or_default());
        if let Some(place) = bytes.get_mut(CHECKSUM_AT..) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        bytes
    }

    /// What the header at `cluster` of the object's sums says. Zeros are a header that was never
    /// written: nothing is covered.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] for anything else than this cluster's header.
    pub fn decode(
        bytes: &[u8; HEADER_BYTES],
        object: ObjectId,
        cluster: u64,
    ) -> Result<ClusterState, HeaderError> {
        if bytes == &[0; HEADER_BYTES] {
            return Ok(ClusterState::default());
        }
        let header = Self::parse(bytes);
        // Printing it again compares magic, reserved bytes and checksum at once.
        if &header.encode() != bytes || u64::from(header.state.covered) > CLUSTER_BLOCKS {
            Err(HeaderError::Damaged)
        } else if header.object != object {
            Err(HeaderError::Foreign(header.object))
        } else if header.cluster != cluster {
            Err(HeaderError::Damaged)
        } else {
            Ok(header.state)
        }
    }

    /// The fields, whatever they are.
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let u16_at = |at| field(bytes, at).map_or(u16::MAX, u16::from_le_bytes);
        let u32_at = |at| field(bytes, at).map_or(u32::MAX, u32::from_le_bytes);
        let u64_at = |at| field(bytes, at).map_or(u64::MAX, u64::from_le_bytes);
        let place = LayoutSlot {
            slot: u16_at(SLOT_AT),
            slots: u16_at(SLOTS_AT),
            stripe_size: u32_at(STRIPE_SIZE_AT),
            layout_hash: u32_at(LAYOUT_HASH_AT),
        };
        Self {
            object: ObjectId {
                inode: InodeNumber(u64_at(INODE_AT)),
                generation: u32_at(GENERATION_AT),
            },
            cluster: u64_at(CLUSTER_AT),
            state: ClusterState {
                covered: u32_at(COVERED_AT),
                place: (bytes.get(PLACED_AT) == Some(&1)).then_some(place),
            },
        }
    }
}

fn field<const LENGTH: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> Option<[u8; LENGTH]> {
    bytes.get(at..at + LENGTH)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: ObjectId = ObjectId {
        inode: InodeNumber(0x12ab),
        generation: 2,
    };

    fn header(covered: u32) -> ClusterHeader {
        ClusterHeader {
            object: OBJECT,
            cluster: 1,
            state: state(covered),
        }
    }

    fn state(covered: u32) -> ClusterState {
        ClusterState {
            covered,
            place: Some(LayoutSlot {
                slot: 3,
                slots: 5,
                stripe_size: 64 << 10,
                layout_hash: 0x0102_0304,
            }),
        }
    }

    /// The header that docs/ON_DISK.md shows.
    #[test]
    fn golden_header() {
        let bytes = header(700).encode();
        let lines = bytes.chunks(16).map(|line| {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            hex.join(" ")
        });
        let grid = lines.collect::<Vec<_>>().join("\n");
        let document = include_str!("../../../docs/ON_DISK.md");
        assert!(document.contains(&grid), "{grid}");
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let good = header(700).encode();
        assert_eq!(ClusterHeader::decode(&good, OBJECT, 1), Ok(state(700)));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                ClusterHeader::decode(&bad, OBJECT, 1),
                Err(HeaderError::Damaged)
            );
        }
        assert_eq!(
            ClusterHeader::decode(&good, OBJECT, 2),
            Err(HeaderError::Damaged),
            "a header of another cluster"
        );
        let other = ObjectId {
            generation: 3,
            ..OBJECT
        };
        assert_eq!(
            ClusterHeader::decode(&good, other, 1),
            Err(HeaderError::Foreign(OBJECT))
        );
        let beyond = header(CLUSTER_BLOCKS as u32 + 1).encode();
        assert_eq!(
            ClusterHeader::decode(&beyond, OBJECT, 1),
            Err(HeaderError::Damaged)
        );
        assert_eq!(
            ClusterHeader::decode(&[0; HEADER_BYTES], OBJECT, 1),
            Ok(ClusterState::default()),
            "a hole"
        );
    }

    #[test]
    fn zeros_have_the_sum_zero_and_short_blocks_count_as_filled_up() {
        assert_eq!(block_sum(&[0; 4096]), 0);
        assert_eq!(block_sum(&[]), 0);
        assert_eq!(block_sum(&[0; 100]), 0);
        let mut block = [0; 4096];
        block[..3].copy_from_slice(b"abc");
        assert_ne!(block_sum(&block), 0);
        assert_eq!(block_sum(b"abc"), block_sum(&block));
        assert_eq!(
            block_sum(&[&block[..], b"more"].concat()),
            block_sum(&block)
        );
    }

    #[test]
    fn sums_stand_one_after_another_behind_their_header() {
        assert_eq!(sum_offset(0), HEADER_PAGE_BYTES);
        assert_eq!(sum_offset(1), HEADER_PAGE_BYTES + 4);
        assert_eq!(sum_offset(CLUSTER_BLOCKS - 1) + 4, header_offset(1));
        assert_eq!(
            sum_offset(CLUSTER_BLOCKS),
            header_offset(1) + HEADER_PAGE_BYTES
        );
        for block in [0, 1, CLUSTER_BLOCKS - 1, CLUSTER_BLOCKS, 1 << 40] {
            assert_eq!(block_at(sum_offset(block)), block);
        }
        assert_eq!(block_at(header_offset(3) + 8), 3 * CLUSTER_BLOCKS);
        // The largest offset of a file fits.
        assert!(sum_offset(blocks_of(i64::MAX as u64)) < i64::MAX as u64);
    }
}
