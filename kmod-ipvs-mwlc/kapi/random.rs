// SPDX-License-Identifier: GPL-2.0-only
//! Randomness, and the keyed hash that keeps a stranger from choosing hash-table buckets.

use super::bindings;

/// 64 random bits.
pub(crate) fn word() -> u64 {
    // SAFETY: No requirements; it may be called in any context.
    unsafe { bindings::get_random_u64() }
}

/// A secret key of HalfSipHash (on 64-bit machines SipHash-1-3).
pub(crate) struct HashKey(bindings::hsiphash_key_t);

impl HashKey {
    /// A new random key.
    pub(crate) fn random() -> HashKey {
        let mut key = [0; 2];
        // SAFETY: The buffer is writable for its whole size.
        unsafe { bindings::get_random_bytes(key.as_mut_ptr().cast(), size_of_val(&key)) };
        HashKey(bindings::hsiphash_key_t { key })
    }

    /// The keyed hash of five words.
    pub(crate) fn hash_long(&self, words: &[u64; 5]) -> u32 {
        // SAFETY: The words are readable and aligned for their whole size, and the key is a valid
        // reference for the call.
        unsafe { bindings::mwlc_hsiphash(words.as_ptr().cast(), size_of_val(words), &self.0) }
    }

    /// The keyed hash of three words.
    pub(crate) fn hash(&self, a: u32, b: u32, c: u32) -> u32 {
        // SAFETY: The key is a valid reference for the call.
        unsafe { bindings::hsiphash_3u32(a, b, c, &self.0) }
    }
}

/// A secret key of SipHash-2-4, for names of any length.
pub(crate) struct NameKey(bindings::siphash_key_t);

impl NameKey {
    /// A new random key.
    pub(crate) fn random() -> NameKey {
        let mut key = [0; 2];
        // SAFETY: The buffer is writable for its whole size.
        unsafe { bindings::get_random_bytes(key.as_mut_ptr().cast(), size_of_val(&key)) };
        NameKey(bindings::siphash_key_t { key })
    }

    /// The keyed hash of some bytes.
    pub(crate) fn hash(&self, bytes: &[u8]) -> u64 {
        // SAFETY: Both are valid references for the call.
        unsafe { bindings::mwlc_siphash(bytes.as_ptr().cast(), bytes.len(), &self.0) }
    }
}
