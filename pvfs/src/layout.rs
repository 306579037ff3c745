// SPDX-License-Identifier: MIT
//! Striping: where each byte of a file is. Pure arithmetic.
//!
//! A file is cut into stripes of `stripe_size` bytes, dealt round-robin to the iods of its layout.
//! The stripes that one iod holds stand one after another in its local file, so a contiguous range
//! of the file is a contiguous range of every iod's local file:
//!
//! ```text
//! file      | s0 | s1 | s2 | s3 | s4 | s5 | s6 |
//! iods[0]   | s0 | s3 | s6 |
//! iods[1]   | s1 | s4 |
//! iods[2]   | s2 | s5 |
//! ```

use bincode::{Decode, Encode};

use crate::error::FsError;
use crate::ids::{IodId, ObjectId};
use crate::limits::{
    FILE_SIZE_BYTES_MAX, IODS_PER_FILE_MAX, STRIPE_SIZE_BYTES_MAX, STRIPE_SIZE_BYTES_MIN,
};
use crate::wire::header::Checksum;

/// What new files in a directory inherit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LayoutPolicy {
    /// Bytes of one stripe: a power of two within the limits.
    pub stripe_size: u32,
    /// Iods of a file (PVFS's pcount); 0 means all that are registered and alive.
    pub pcount: u32,
    /// Position, among all iods in the order of their ids, of the iod that holds a file's first
    /// stripe (PVFS's base); `None` deals files out in turn.
    pub base: Option<u32>,
}

/// Default stripe. Measured: see `docs/decisions/0020-default-stripe.md`.
pub const STRIPE_SIZE_BYTES_DEFAULT: u32 = 512 << 10;

impl Default for LayoutPolicy {
    fn default() -> Self {
        Self {
            stripe_size: STRIPE_SIZE_BYTES_DEFAULT,
            pcount: 0,
            base: None,
        }
    }
}

impl LayoutPolicy {
    /// Checks every field against its limit.
    ///
    /// # Errors
    ///
    /// [`FsError::InvalidArgument`] where one is outside.
    pub fn validate(self) -> Result<Self, FsError> {
        let sound =
            stripe_size_is_sound(self.stripe_size) && self.pcount as usize <= IODS_PER_FILE_MAX;
        if sound {
            Ok(self)
        } else {
            Err(FsError::InvalidArgument)
        }
    }
}

fn stripe_size_is_sound(bytes: u32) -> bool {
    bytes.is_power_of_two() && (STRIPE_SIZE_BYTES_MIN..=STRIPE_SIZE_BYTES_MAX).contains(&bytes)
}

/// Where a file's stripes are.
///
/// # Invariants
///
/// `stripe_size` is a power of two within its limits; `iods` holds 1 to 512 different ids. Values
/// come from [`Layout::new`] or through the wire decoder, whose receiver calls [`Layout::validate`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Layout {
    stripe_size: u32,
    base: u32,
    iods: Vec<IodId>,
    /// What the iods know the layout by, where that is not what [`Layout::hash`] computes.
    label: Option<u32>,
}

/// A place in a layout: which stripes of a file an iod holds, and how the file was cut. An iod
/// keeps it beside the stripes, so that stripes in a wrong place are noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct LayoutSlot {
    /// Position in [`Layout::iods`].
    pub slot: u16,
    /// How many of them there are.
    pub slots: u16,
    /// [`Layout::stripe_size`].
    pub stripe_size: u32,
    /// [`Layout::hash`] of the whole layout.
    pub layout_hash: u32,
}

/// The stripes that a request means: of which file, and at which place of its layout. An iod that
/// holds them under another place refuses with [`FsError::Io`], and its log says what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct StripeRef {
    /// Whose stripes.
    pub object: ObjectId,
    /// Which of them.
    pub place: LayoutSlot,
}

impl std::fmt::Display for LayoutSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            slot,
            slots,
            stripe_size,
            layout_hash,
        } = self;
        write!(
            f,
            "slot {slot} of {slots} of layout {layout_hash:08x} in stripes of {stripe_size} bytes"
        )
    }
}

/// A contiguous part of a request that lies on one iod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Position in [`Layout::iods`].
    pub slot: usize,
    /// Offset in the iod's local file, bytes.
    pub local_offset: u64,
    /// Offset from the start of the request, bytes.
    pub request_offset: usize,
    /// Bytes.
    pub length: usize,
}

impl Layout {
    /// A layout of `iods`, the first of which holds the first stripe; `base` is that iod's position
    /// among all iods when the file was made, kept for people (`pvfs stat`).
    ///
    /// # Errors
    ///
    /// [`FsError::InvalidArgument`] where the invariants do not hold.
    pub fn new(stripe_size: u32, base: u32, iods: Vec<IodId>) -> Result<Self, FsError> {
        Self {
            stripe_size,
            base,
            iods,
            label: None,
        }
        .validate()
    }

    /// The layout of a file that is put together again of stripes that say of themselves that they
    /// are those of `place`'s layout, at its other slots. Of a slot of which there are none, the iod
    /// may be another than it was.
    ///
    /// # Errors
    ///
    /// [`FsError::InvalidArgument`] where the invariants do not hold, or `place` has another number
    /// of slots.
    pub fn put_together(place: LayoutSlot, iods: Vec<IodId>) -> Result<Self, FsError> {
        if iods.len() != usize::from(place.slots) {
            return Err(FsError::InvalidArgument);
        }
        Self {
            stripe_size: place.stripe_size,
            base: 0,
            iods,
            label: Some(place.layout_hash),
        }
        .validate()
    }

    /// Whether it is of a file that was [put together](Layout::put_together).
    #[must_use]
    pub const fn is_put_together(&self) -> bool {
        self.label.is_some()
    }

    /// Checks the invariants of a layout that came from outside.
    ///
    /// # Errors
    ///
    /// [`FsError::InvalidArgument`] where they do not hold.
    pub fn validate(self) -> Result<Self, FsError> {
        let mut ids = self.iods.clone();
        ids.sort_unstable();
        ids.dedup();
        let sound = stripe_size_is_sound(self.stripe_size)
            && (1..=IODS_PER_FILE_MAX).contains(&self.iods.len())
            && ids.len() == self.iods.len();
        if sound {
            Ok(self)
        } else {
            Err(FsError::InvalidArgument)
        }
    }

    /// Bytes of one stripe.
    #[must_use]
    pub const fn stripe_size(&self) -> u32 {
        self.stripe_size
    }

    /// Position of the first iod among all iods when the file was made.
    #[must_use]
    pub const fn base(&self) -> u32 {
        self.base
    }

    /// The iods in the order in which stripes are dealt.
    #[must_use]
    pub fn iods(&self) -> &[IodId] {
        &self.iods
    }

    /// What tells this layout from others that deal stripes in another way: CRC-32C of the stripe
    /// size and of the iods' ids in their order, each a little-endian `u32`. A layout that was put
    /// together has that of the original.
    #[must_use]
    pub fn hash(&self) -> u32 {
        if let Some(label) = self.label {
            return label;
        }
        let mut sum = Checksum::new();
        sum.update(&self.stripe_size.to_le_bytes());
        for iod in &self.iods {
            sum.update(&iod.0.to_le_bytes());
        }
        sum.finish()
    }

    /// How requests name the object's stripes at a slot.
    pub fn stripes_of(&self, object: ObjectId) -> impl Fn(usize) -> StripeRef + use<> {
        let layout_hash = self.hash();
        // A layout has 512 slots at most.
        let number = |slot: usize| u16::try_from(slot).unwrap_or(u16::MAX);
        let (slots, stripe_size) = (number(self.iods.len()), self.stripe_size);
        move |slot| StripeRef {
            object,
            place: LayoutSlot {
                slot: number(slot),
                slots,
                stripe_size,
                layout_hash,
            },
        }
    }

    /// Cuts `length` bytes at `offset` of the file into extents, in file order.
    ///
    /// # Errors
    ///
    /// [`FsError::FileTooLarge`] where the range ends beyond the largest file.
    pub fn extents(&self, offset: u64, length: usize) -> Result<Extents, FsError> {
        let end = offset
            .checked_add(length as u64)
            .ok_or(FsError::FileTooLarge)?;
        if end > FILE_SIZE_BYTES_MAX {
            return Err(FsError::FileTooLarge);
        }
        Ok(Extents {
            stripe_size: u64::from(self.stripe_size.max(1)),
            iods: (self.iods.len() as u64).max(1),
            offset,
            done: 0,
            length,
        })
    }

    /// Where in the file the byte at `local_offset` of the local file at `slot` stands; `None` where
    /// that is beyond the largest file.
    #[must_use]
    pub fn file_offset(&self, slot: usize, local_offset: u64) -> Option<u64> {
        let stripe = u64::from(self.stripe_size.max(1));
        let iods = (self.iods.len() as u64).max(1);
        let number = (local_offset / stripe)
            .checked_mul(iods)?
            .checked_add(slot as u64)?;
        let offset = number
            .checked_mul(stripe)?
            .checked_add(local_offset % stripe)?;
        (offset <= FILE_SIZE_BYTES_MAX).then_some(offset)
    }

    /// The bytes of the local file at `slot` that belong to the file's bytes from `start` to `end`.
    #[must_use]
    pub fn local_range(&self, slot: usize, start: u64, end: u64) -> std::ops::Range<u64> {
        self.local_size(slot, start)..self.local_size(slot, end)
    }

    /// Whether byte `offset` of a file with this layout and byte `other_offset` of one with `other`
    /// are at the same iod, and so all that follow.
    #[must_use]
    pub fn aligns(&self, offset: u64, other: &Self, other_offset: u64) -> bool {
        let round = u64::from(self.stripe_size.max(1)) * (self.iods.len() as u64).max(1);
        self.stripe_size == other.stripe_size
            && self.iods == other.iods
            && offset % round == other_offset % round
    }

    /// Bytes that the iod at `slot` holds of a file of `file_size` bytes without holes: the length
    /// to which its local file is cut when the file is truncated.
    #[must_use]
    pub fn local_size(&self, slot: usize, file_size: u64) -> u64 {
        let stripe = u64::from(self.stripe_size.max(1));
        let iods = (self.iods.len() as u64).max(1);
        let slot = slot as u64;
        let full_stripes = file_size / stripe;
        let rounds = full_stripes / iods;
        let rest = full_stripes % iods;
        let whole = rounds.saturating_mul(stripe);
        match slot.cmp(&rest) {
            std::cmp::Ordering::Less => whole.saturating_add(stripe),
            std::cmp::Ordering::Equal => whole.saturating_add(file_size % stripe),
            std::cmp::Ordering::Greater => whole,
        }
    }
}

/// Iterator over the extents of a range: see [`Layout::extents`].
#[derive(Clone, Debug)]
pub struct Extents {
    stripe_size: u64,
    iods: u64,
    offset: u64,
    done: usize,
    length: usize,
}

impl Iterator for Extents {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        if self.done >= self.length {
            return None;
        }
        let position = self.offset + self.done as u64;
        let stripe = position / self.stripe_size;
        let within = position % self.stripe_size;
        let rest = (self.length - self.done) as u64;
        let length = rest.min(self.stripe_size - within) as usize;
        let extent = Extent {
            slot: (stripe % self.iods) as usize,
            local_offset: stripe / self.iods * self.stripe_size + within,
            request_offset: self.done,
            length,
        };
        self.done += length;
        Some(extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(stripe_size: u32, iods: u32) -> Layout {
        Layout::new(stripe_size, 0, (0..iods).map(IodId).collect()).unwrap()
    }

    #[test]
    fn deals_stripes_in_turn() {
        let extents: Vec<_> = layout(4096, 3).extents(4000, 9000).unwrap().collect();
        let expected = [
            Extent {
                slot: 0,
                local_offset: 4000,
                request_offset: 0,
                length: 96,
            },
            Extent {
                slot: 1,
                local_offset: 0,
                request_offset: 96,
                length: 4096,
            },
            Extent {
                slot: 2,
                local_offset: 0,
                request_offset: 4192,
                length: 4096,
            },
            Extent {
                slot: 0,
                local_offset: 4096,
                request_offset: 8288,
                length: 712,
            },
        ];
        assert_eq!(extents, expected);
    }

    #[test]
    fn refuses_what_breaks_the_invariants() {
        let ids = |n: &[u32]| n.iter().copied().map(IodId).collect::<Vec<_>>();
        for (stripe_size, iods) in [
            (0, ids(&[1])),
            (4095, ids(&[1])),
            (6000, ids(&[1])),
            (1 << 31, ids(&[1])),
            (4096, ids(&[])),
            (4096, ids(&[1, 2, 1])),
            (4096, (0..513).map(IodId).collect()),
        ] {
            assert_eq!(
                Layout::new(stripe_size, 0, iods),
                Err(FsError::InvalidArgument)
            );
        }
    }

    #[test]
    fn files_align_where_each_byte_meets_its_fellow() {
        let two = layout(4096, 2);
        assert!(two.aligns(100, &two, 100 + 8192));
        assert!(!two.aligns(0, &two, 4096), "the other iod");
        assert!(!two.aligns(0, &layout(8192, 2), 0));
        assert!(!two.aligns(0, &layout(4096, 3), 0));
        assert_eq!(two.file_offset(1, u64::MAX / 2), None);
    }

    #[test]
    fn refuses_a_range_beyond_the_largest_file() {
        let layout = layout(4096, 2);
        assert!(layout.extents(i64::MAX as u64, 0).is_ok());
        assert!(matches!(
            layout.extents(i64::MAX as u64, 1),
            Err(FsError::FileTooLarge)
        ));
        assert!(matches!(
            layout.extents(u64::MAX, 1),
            Err(FsError::FileTooLarge)
        ));
    }

    proptest! {
        /// Byte by byte, against the definition: stripe s of the file is stripe s / n of iod s % n.
        #[test]
        fn extents_place_every_byte(
            shift in 12u32..15,
            iods in 1u32..7,
            offset in 0u64..1 << 40,
            length in 0usize..100_000,
        ) {
            let layout = layout(1 << shift, iods);
            let mut covered = 0usize;
            for extent in layout.extents(offset, length).unwrap() {
                prop_assert_eq!(extent.request_offset, covered);
                prop_assert!(extent.length > 0);
                for byte in [0, extent.length - 1] {
                    let position = offset + (extent.request_offset + byte) as u64;
                    let stripe = position >> shift;
                    prop_assert_eq!(extent.slot as u64, stripe % u64::from(iods));
                    let local = ((stripe / u64::from(iods)) << shift) + position % (1 << shift);
                    prop_assert_eq!(extent.local_offset + byte as u64, local);
                }
                covered += extent.length;
            }
            prop_assert_eq!(covered, length);
        }

        /// An iod's part ends where the last byte that it holds ends, and the parts add up.
        #[test]
        fn local_sizes_follow_the_extents(iods in 1u32..6, size in 0usize..200_000) {
            let layout = layout(4096, iods);
            let mut ends = vec![0u64; iods as usize];
            for extent in layout.extents(0, size).unwrap() {
                ends[extent.slot] = extent.local_offset + extent.length as u64;
            }
            for (slot, end) in ends.iter().enumerate() {
                prop_assert_eq!(layout.local_size(slot, size as u64), *end);
            }
            prop_assert_eq!(ends.iter().sum::<u64>(), size as u64);
        }

        /// A byte's place at its iod leads back to it, and a range's parts are its bytes.
        #[test]
        fn local_offsets_lead_back(iods in 1u32..6, start in 0u64..200_000, length in 1usize..50_000) {
            let layout = layout(4096, iods);
            let end = start + length as u64;
            for extent in layout.extents(start, length).unwrap() {
                let position = start + extent.request_offset as u64;
                prop_assert_eq!(layout.file_offset(extent.slot, extent.local_offset), Some(position));
                let range = layout.local_range(extent.slot, start, end);
                prop_assert!(range.contains(&extent.local_offset));
            }
            let ranges = (0..iods as usize).map(|slot| layout.local_range(slot, start, end));
            prop_assert_eq!(ranges.map(|range| range.end - range.start).sum::<u64>(), length as u64);
        }
    }
}
