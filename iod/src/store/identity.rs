// SPDX-License-Identifier: MIT
//! The identity file: which iod of which file system a data directory belongs to. Pure text.

use std::fmt;
use std::str::FromStr;

use pvfs::ids::{ClientId, FileSystemId, IodId};
use pvfs::wire::header::checksum;
use thiserror::Error;

/// First line: the format and its version.
const FIRST_LINE: &str = "pvfs-iod data directory, format 4";

/// Whose data a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Under which id the iod registers for the first time. It is stored before the request is
    /// sent, so an iod that died before it could store its number asks again and gets the same.
    pub client: ClientId,
    /// What mgr made of it; `None` before the first registration.
    pub membership: Option<Membership>,
}

/// An iod's place in a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The iod's number.
    pub iod: IodId,
    /// The file system.
    pub file_system: FileSystemId,
}

/// Why an identity file is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Another format or no identity file at all.
    #[error("it is not of format 4: was it written by another version of pvfs-iod?")]
    Format,
    /// Damaged.
    #[error("its checksum does not match: restore it from a backup, the stripes are still there")]
    Checksum,
    /// Fields are missing or no numbers.
    #[error("its fields are not understood")]
    Fields,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.fields();
        let checksum = checksum(text.as_bytes());
        writeln!(f, "{text}checksum {checksum:08x}")
    }
}

impl Identity {
    fn fields(&self) -> String {
        let client = format!("{FIRST_LINE}\nclient {:016x}\n", self.client.0);
        match self.membership {
            None => client,
            Some(Membership { iod, file_system }) => {
                format!("{client}iod {iod}\nfile-system {:032x}\n", file_system.0)
            }
        }
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if text.lines().next() != Some(FIRST_LINE) {
            return Err(IdentityError::Format);
        }
        let mut lines = text.lines().skip(1);
        let mut field = |name: &str| {
            let line = lines.next()?;
            line.strip_prefix(name)?.strip_prefix(' ')
        };
        let client = field("client").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let client = ClientId(client.ok_or(IdentityError::Checksum)?);
        let membership = if text.contains("\niod ") {
            let iod = field("iod").and_then(|number| number.parse().ok());
            let file_system =
                field("file-system").and_then(|hex| u128::from_str_radix(hex, 16).ok());
            let (Some(iod), Some(file_system)) = (iod, file_system) else {
                return Err(IdentityError::Fields);
            };
            Some(Membership {
                iod: IodId(iod),
                file_system: FileSystemId(file_system),
            })
        } else {
            None
        };
        let identity = Self { client, membership };
        // Printing it again and comparing checks the checksum and every byte of the form at once.
        if identity.to_string() == text {
            Ok(identity)
        } else {
            Err(IdentityError::Checksum)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Identity {
        let membership = Membership {
            iod: IodId(3),
            file_system: FileSystemId(0xabcd),
        };
        Identity {
            client: ClientId(0x1234),
            membership: Some(membership),
        }
    }

    /// The text that docs/ON_DISK.md shows.
    #[test]
    fn golden_text() {
        let text = member().to_string();
        assert!(
            include_str!("../../../docs/ON_DISK.md").contains(&text),
            "{text}"
        );
    }

    #[test]
    fn what_is_printed_is_parsed() {
        for identity in [
            member(),
            Identity {
                membership: None,
                ..member()
            },
        ] {
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let text = member().to_string();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let damaged = String::from_utf8(bytes).unwrap();
            assert!(damaged.parse::<Identity>().is_err(), "byte {at}");
            assert!(text[..at].parse::<Identity>().is_err(), "cut at {at}");
        }
    }
}
