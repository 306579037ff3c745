// SPDX-License-Identifier: MIT
//! What proves a record: a checksum of key and value before each value, and a record of its own, the
//! *proof*, that says how many records there are and what all their keys and checksums sum up to.
//! Pure arithmetic; the grid stands in `docs/ON_DISK.md`.

use pvfs::wire::header::Checksum;

use super::StoreError;

/// Bytes of the checksum before a value: CRC-32C of the key, then the value, little-endian.
pub const SEAL_BYTES: usize = 4;

/// The key of the proof. No key of the name space begins with this byte, and it stands before all of
/// them, on a page that nearly every batch changes anyway.
pub const PROOF_KEY: &[u8] = &[0];

const PROOF_FORMAT: u8 = 1;
const PROOF_BYTES: usize = 1 + 4 * 8;

/// A key's checksum, and that of a record with that key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    key: u32,
    seal: u32,
}

impl Sums {
    /// Of a record as it should be.
    #[must_use]
    pub fn of(key: &[u8], value: &[u8]) -> Self {
        let mut sum = Checksum::new();
        sum.update(key);
        let of_key = sum.finish();
        sum.update(value);
        Self {
            key: of_key,
            seal: sum.finish(),
        }
    }

    /// Of a record with the same key as it stands in the store.
    #[must_use]
    pub fn of_older(self, sealed: &[u8]) -> Self {
        Self {
            key: self.key,
            seal: split(sealed).map_or(0, |(seal, _)| seal),
        }
    }

    /// Of a record as it stands in the store, and whether its seal is right.
    #[must_use]
    pub fn stored(key: &[u8], sealed: &[u8]) -> (Self, bool) {
        let (stored, value) = split(sealed).unwrap_or((0, &[]));
        let Self { key, seal } = Self::of(key, value);
        let right = sealed.len() >= SEAL_BYTES && seal == stored;
        (Self { key, seal: stored }, right)
    }
}

fn split(sealed: &[u8]) -> Option<(u32, &[u8])> {
    let (seal, value) = sealed.split_first_chunk::<SEAL_BYTES>()?;
    Some((u32::from_le_bytes(*seal), value))
}

/// Puts the value into `sealed` as it is stored; returns its sums.
pub fn seal(key: &[u8], value: &[u8], sealed: &mut Vec<u8>) -> Sums {
    let sums = Sums::of(key, value);
    sealed.clear();
    sealed.extend_from_slice(&sums.seal.to_le_bytes());
    sealed.extend_from_slice(value);
    sums
}

/// The value of a record that is what was stored.
///
/// # Errors
///
/// [`StoreError::Corrupt`] where key or value are not.
pub fn open<'v>(key: &[u8], sealed: &'v [u8]) -> Result<&'v [u8], StoreError> {
    match split(sealed) {
        Some((seal, value)) if seal == Sums::of(key, value).seal => Ok(value),
        Some(_) | None => Err(StoreError::Corrupt { key: key.to_vec() }),
    }
}

/// What all records together sum up to, without the proof itself. The order in which they come makes
/// no difference, so that a batch changes it by what it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many.
    pub records: u64,
    /// Of their keys.
    pub keys: u64,
    /// Of their seals.
    pub seals: u64,
}

impl Digest {
    /// Adds a record.
    pub fn add(&mut self, sums: Sums) {
        self.records = self.records.wrapping_add(1);
        self.keys = self.keys.wrapping_add(scatter(sums.key));
        self.seals = self.seals.wrapping_add(scatter(sums.seal));
    }

    /// Takes a record away.
    pub fn remove(&mut self, sums: Sums) {
        self.records = self.records.wrapping_sub(1);
        self.keys = self.keys.wrapping_sub(scatter(sums.key));
        self.seals = self.seals.wrapping_sub(scatter(sums.seal));
    }
}

/// Spreads a checksum over 64 bits (the finalizer of SplitMix64), so that sums of many do not cancel
/// each other out.
const fn scatter(sum: u32) -> u64 {
    let mut x = (sum as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The proof's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The number of the transaction that wrote it: the meta page that leads to it says the same.
    pub transaction: u64,
    /// What the records of that transaction sum up to.
    pub digest: Digest,
}

impl Proof {
    /// The value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Digest {
            records,
            keys,
            seals,
        } = self.digest;
        let mut value = Vec::with_capacity(PROOF_BYTES);
        value.push(PROOF_FORMAT);
        for field in [self.transaction, records, keys, seals] {
            value.extend_from_slice(&field.to_le_bytes());
        }
        value
    }

    /// The fields of a value; `None` where it is none of a proof.
    #[must_use]
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (&[PROOF_FORMAT], rest) = value.split_first_chunk::<1>()? else {
            return None;
        };
        let (transaction, rest) = rest.split_first_chunk::<8>()?;
        let (records, rest) = rest.split_first_chunk::<8>()?;
        let (keys, rest) = rest.split_first_chunk::<8>()?;
        let (seals, rest) = rest.split_first_chunk::<8>()?;
        rest.is_empty().then(|| Self {
            transaction: u64::from_le_bytes(*transaction),
            digest: Digest {
                records: u64::from_le_bytes(*records),
                keys: u64::from_le_bytes(*keys),
                seals: u64::from_le_bytes(*seals),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_key_or_value_is_noticed() {
        let (key, mut sealed) = (b"Dkey".to_vec(), Vec::new());
        seal(&key, b"some value", &mut sealed);
        assert_eq!(open(&key, &sealed).unwrap(), b"some value");
        for bit in 0..key.len() * 8 {
            let mut bad = key.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open(&bad, &sealed), Err(StoreError::Corrupt { key }) if key == bad));
        }
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open(&key, &bad), Err(StoreError::Corrupt { .. })));
        }
        assert!(open(&key, b"abc").is_err());
    }

    #[test]
    fn a_digest_is_that_of_the_records_in_any_order() {
        let all = [(&b"a"[..], &b"1"[..]), (b"b", b"2"), (b"c", b"")];
        let mut one = Digest::default();
        let mut other = Digest::default();
        for (key, value) in all {
            one.add(Sums::of(key, value));
        }
        other.add(Sums::of(b"x", b"y"));
        for (key, value) in all.into_iter().rev() {
            other.add(Sums::of(key, value));
        }
        assert_ne!(one, other);
        other.remove(Sums::of(b"x", b"y"));
        assert_eq!(one, other);
        other.remove(Sums::of(b"c", b""));
        other.add(Sums::of(b"c", b"older"));
        assert_eq!((one.records, one.keys), (other.records, other.keys));
        assert_ne!(one.seals, other.seals);
    }

    /// The bytes that docs/ON_DISK.md shows: the counters as the only record, in transaction 7.
    #[test]
    fn golden_seal_and_proof() {
        let (key, value) = (b"C", [2, 7, 5, 4, 1, 3]);
        let mut digest = Digest::default();
        let (mut sealed, mut sealed_proof) = (Vec::new(), Vec::new());
        digest.add(seal(key, &value, &mut sealed));
        let proof = Proof {
            transaction: 7,
            digest,
        };
        seal(PROOF_KEY, &proof.encode(), &mut sealed_proof);
        let document = include_str!("../../../docs/ON_DISK.md");
        for bytes in [sealed, sealed_proof] {
            let lines = bytes.chunks(16).map(|line| {
                let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
                hex.join(" ")
            });
            let grid = lines.collect::<Vec<_>>().join("\n");
            assert!(document.contains(&grid), "{grid}");
        }
    }

    #[test]
    fn a_proof_makes_the_round_trip() {
        let mut digest = Digest::default();
        digest.add(Sums::of(b"a", b"1"));
        let proof = Proof {
            transaction: 7,
            digest,
        };
        let value = proof.encode();
        assert_eq!(value.len(), PROOF_BYTES);
        assert_eq!(Proof::decode(&value), Some(proof));
        assert_eq!(Proof::decode(&value[1..]), None);
        assert_eq!(Proof::decode(&[&value[..], &[0]].concat()), None);
        assert_eq!(Proof::decode(&[]), None);
    }
}
