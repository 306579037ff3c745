// SPDX-License-Identifier: MIT
//! Reading what nobody reads, to find damage while there may still be a copy of it elsewhere.

use std::io;

use pvfs::ids::ObjectId;

use super::Store;
use super::object_file::{ObjectFile, VERIFIED_BYTES_MAX, VERIFY_BUFFER_BYTES};
use super::sums::Damage;
use super::sums_format::BLOCK_BYTES;

/// What came of comparing a part of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes that were compared.
    pub bytes: u64,
    /// Where what is damaged begins and ends.
    pub damage: Vec<(u64, u64)>,
    /// Where there is more to compare.
    pub next: Option<u64>,
}

impl Store {
    /// Compares what an object has from `offset` on with its checksums, `length` bytes at most. Holes
    /// cost nothing.
    ///
    /// # Errors
    ///
    /// Those of the disk, and [`Damage::Header`] or [`Damage::Lost`], where nothing can be compared.
    pub fn scrub(&self, object: ObjectId, offset: u64, length: u64) -> io::Result<Scrubbed> {
        let mut scrubbed = Scrubbed::default();
        let Some(file) = self.find(object)? else {
            return Ok(scrubbed);
        };
        let mut buffer = vec![0; VERIFY_BUFFER_BYTES];
        let mut at = offset;
        let mut covered = 0;
        loop {
            scrubbed.next = file.next_to_compare(at)?;
            match scrubbed.next {
                Some(next) if covered < length => {
                    at = next;
                    compare_piece(&file, &mut at, &mut buffer, &mut scrubbed)?;
                    covered += at.saturating_sub(next);
                }
                Some(_) | None => return Ok(scrubbed),
            }
        }
    }
}

/// Compares a piece and notes each block of it that is damaged.
fn compare_piece(
    file: &ObjectFile,
    at: &mut u64,
    buffer: &mut [u8],
    scrubbed: &mut Scrubbed,
) -> io::Result<()> {
    let end = at.saturating_add(VERIFIED_BYTES_MAX as u64);
    file.forget(*at, end - *at);
    while *at < end {
        let rest = usize::try_from(end - *at).unwrap_or(VERIFIED_BYTES_MAX);
        let damage = match file.verified(*at, rest, buffer) {
            Ok(found) => {
                scrubbed.bytes += found.len() as u64;
                None
            }
            Err(error) => match Damage::of(&error) {
                Some(Damage::Block { offset }) => Some(offset),
                Some(
                    Damage::Header { .. }
                    | Damage::Lost
                    | Damage::Short { .. }
                    | Damage::Foreign { .. }
                    | Damage::Misplaced { .. },
                )
                | None => return Err(error),
            },
        };
        let Some(start) = damage else {
            *at = end;
            return Ok(());
        };
        let next = start.saturating_add(BLOCK_BYTES);
        scrubbed.bytes += next.saturating_sub(*at);
        *at = next;
        match scrubbed.damage.last_mut() {
            Some((_, last)) if *last == start => *last = *at,
            _ => scrubbed.damage.push((start, *at)),
        }
    }
    Ok(())
}
