// SPDX-License-Identifier: MIT
//! A directory entry's name: bytes that are known to be one.

use bincode::de::{BorrowDecoder, Decoder};
use bincode::error::DecodeError;
use bincode::{BorrowDecode, Decode, Encode};

use crate::error::FsError;
use crate::limits::NAME_BYTES_MAX;

/// A name in a directory: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
///
/// # Invariants
///
/// The bytes satisfy the sentence above; every constructor, the wire decoder included, checks it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
pub struct Name(Vec<u8>);

impl Name {
    /// Checks `bytes`.
    ///
    /// # Errors
    ///
    /// [`FsError::NameTooLong`] above 255 bytes, [`FsError::InvalidArgument`] for the rest.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, FsError> {
        let bytes = bytes.into();
        if bytes.len() > NAME_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        let forbidden = bytes.is_empty()
            || bytes == b"."
            || bytes == b".."
            || bytes.iter().any(|&b| b == b'/' || b == 0);
        if forbidden {
            Err(FsError::InvalidArgument)
        } else {
            Ok(Self(bytes))
        }
    }

    /// The bytes as they were given; names need not be UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<Context> Decode<Context> for Name {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bytes = Vec::<u8>::decode(decoder)?;
        Self::new(bytes).map_err(|_| DecodeError::Other("not a file name"))
    }
}

impl<'de, Context> BorrowDecode<'de, Context> for Name {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_posix_takes() {
        for good in [&b"a"[..], b"...", b".x", b"\xff\xfe", &[b'n'; 255]] {
            assert_eq!(Name::new(good).unwrap().as_bytes(), good);
        }
    }

    #[test]
    fn refuses_the_rest() {
        for (bad, why) in [
            (&b""[..], FsError::InvalidArgument),
            (b".", FsError::InvalidArgument),
            (b"..", FsError::InvalidArgument),
            (b"a/b", FsError::InvalidArgument),
            (b"a\0b", FsError::InvalidArgument),
            (&[b'n'; 256], FsError::NameTooLong),
        ] {
            assert_eq!(Name::new(bad), Err(why));
        }
    }

    #[test]
    fn a_hostile_name_does_not_decode() {
        let config = bincode::config::standard();
        let bytes = bincode::encode_to_vec(b"../etc/passwd".to_vec(), config).unwrap();
        assert!(bincode::decode_from_slice::<Name, _>(&bytes, config).is_err());
    }
}
