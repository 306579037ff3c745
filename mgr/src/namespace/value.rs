// SPDX-License-Identifier: MIT
//! Values of the metadata store: one version byte, then bincode. Nothing else in mgr knows how a
//! value looks on disk.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};

use crate::store::StoreError;

/// The version of every value's format. From the first release on, a later version reads the
/// earlier ones; version 1 was never released, and is refused.
pub const VALUE_VERSION: u8 = 2;

/// Bytes of one value: the largest is a stored reply, which is a message's body.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

const CONFIG: Configuration<LittleEndian, Varint, Limit<VALUE_BYTES_MAX>> =
    bincode::config::standard().with_limit::<VALUE_BYTES_MAX>();

/// The bytes of `value`.
///
/// # Errors
///
/// [`StoreError::TooLong`] above [`VALUE_BYTES_MAX`].
pub fn encode<T: Encode>(value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VALUE_VERSION];
    bincode::encode_into_std_write(value, &mut bytes, CONFIG).map_err(|_| StoreError::TooLong)?;
    Ok(bytes)
}

/// The value in `bytes`, which stood under `key`.
///
/// # Errors
///
/// [`StoreError::Version`] of a later version, [`StoreError::Corrupt`] where it does not decode.
pub fn decode<T: Decode<()>>(key: &[u8], bytes: &[u8]) -> Result<T, StoreError> {
    let corrupt = || StoreError::Corrupt { key: key.to_vec() };
    match bytes.split_first() {
        Some((&VALUE_VERSION, body)) => match bincode::decode_from_slice(body, CONFIG) {
            Ok((value, consumed)) if consumed == body.len() => Ok(value),
            _ => Err(corrupt()),
        },
        Some((&version, _)) => Err(StoreError::Version {
            key: key.to_vec(),
            version,
        }),
        None => Err(corrupt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_an_error() {
        let good = encode(&(5u64, vec![1u8, 2])).unwrap();
        assert_eq!(
            decode::<(u64, Vec<u8>)>(b"k", &good).unwrap(),
            (5, vec![1, 2])
        );
        let longer = [&good[..], &[0]].concat();
        for bad in [&[][..], &good[..1], &good[..good.len() - 1], &longer] {
            let read = decode::<(u64, Vec<u8>)>(b"k", bad);
            assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{bad:?}");
        }
        let read = decode::<(u64, Vec<u8>)>(b"k", &[9, 0, 0]);
        assert!(matches!(read, Err(StoreError::Version { version: 9, .. })));
    }
}
