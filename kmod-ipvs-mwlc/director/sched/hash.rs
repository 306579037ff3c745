// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Hashes of addresses, with the numbers that stock IPVS has, so that a director of either kind sends
//! a client to the same destination.

use crate::director::address::Address;

/// 2^32 divided by the golden ratio squared, which spreads consecutive addresses.
const GOLDEN_RATIO: u32 = 0x61c8_8647;

/// An address and a port in 32 bits: the address's 32-bit words combined by exclusive or, plus the
/// port.
pub(super) const fn fold(address: Address, port: u16) -> u32 {
    let word = match address {
        Address::V4(bytes) => u32::from_be_bytes(bytes),
        Address::V6(bytes) => {
            let whole = u128::from_be_bytes(bytes);
            let halves = (whole >> 64) as u64 ^ whole as u64;
            (halves >> 32) as u32 ^ halves as u32
        }
    };
    word.wrapping_add(port as u32)
}

/// The multiplicative hash of a word in its 8 highest bits.
pub(super) const fn multiplicative_8_bits(word: u32) -> u8 {
    (word.wrapping_mul(GOLDEN_RATIO) >> 24) as u8
}

/// SipHash-1-3 of the four bytes of `word` (little-endian) under a 128-bit key, its lower 32 bits.
pub(super) const fn sip_1_3(word: u32, key: [u64; 2]) -> u32 {
    let [k0, k1] = key;
    let state = Sip {
        v0: k0 ^ 0x736f_6d65_7073_6575,
        v1: k1 ^ 0x646f_7261_6e64_6f6d,
        v2: k0 ^ 0x6c79_6765_6e65_7261,
        v3: k1 ^ 0x7465_6462_7974_6573,
    };
    // The last block: the length in the highest byte, the bytes that are left in the lowest.
    let block = (4u64 << 56) | word as u64;
    let state = Sip {
        v3: state.v3 ^ block,
        ..state
    }
    .round();
    let state = Sip {
        v0: state.v0 ^ block,
        v2: state.v2 ^ 0xff,
        ..state
    }
    .round()
    .round()
    .round();
    (state.v0 ^ state.v1 ^ state.v2 ^ state.v3) as u32
}

/// The state of SipHash.
#[derive(Clone, Copy)]
struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl Sip {
    const fn round(self) -> Sip {
        let Sip {
            mut v0,
            mut v1,
            mut v2,
            mut v3,
        } = self;
        v0 = v0.wrapping_add(v1);
        v1 = v1.rotate_left(13) ^ v0;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v3);
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.wrapping_add(v3);
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.wrapping_add(v1);
        v1 = v1.rotate_left(17) ^ v2;
        v2 = v2.rotate_left(32);
        Sip { v0, v1, v2, v3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::hash_map::DefaultHasher;
    use std::hash::Hasher;

    #[test]
    fn siphash_is_that_of_the_standard_library() {
        for word in [0, 1, 0xff, 0x0a00_0001, 0xdead_beef, u32::MAX] {
            let mut reference = DefaultHasher::new();
            reference.write(&word.to_le_bytes());
            assert_eq!(
                sip_1_3(word, [0, 0]),
                reference.finish() as u32,
                "{word:#x}"
            );
        }
        assert_ne!(sip_1_3(7, [0, 0]), sip_1_3(7, [1, 0]));
        assert_ne!(sip_1_3(7, [0, 0]), sip_1_3(7, [0, 1]));
    }

    #[test]
    fn addresses_fold_to_their_words() {
        assert_eq!(fold(Address::V4([10, 0, 0, 1]), 0), 0x0a00_0001);
        assert_eq!(fold(Address::V4([10, 0, 0, 1]), 80), 0x0a00_0051);
        assert_eq!(fold(Address::V4([255; 4]), 2), 1);
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = index as u8;
        }
        // 0x00010203 ^ 0x04050607 ^ 0x08090a0b ^ 0x0c0d0e0f
        assert_eq!(fold(Address::V6(bytes), 0), 0);
        bytes[0] = 0x20;
        assert_eq!(fold(Address::V6(bytes), 1), 0x2000_0001);
    }
}
