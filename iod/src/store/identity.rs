// SPDX-License-Identifier: MIT
//! The identity file: which iod of which file system a data directory belongs to. Pure text.

use std::fmt;
use std::str::FromStr;

use pvfs::ids::{ClientId, FileSystemId, IodId};
use pvfs::proto::seal::{Reign, Seal};
use pvfs::wire::header::checksum;
use thiserror::Error;

/// First line: the format and its version.
const FIRST_LINE: &str = "pvfs-iod data directory, format 5";

/// Whose data a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Under which id the iod registers for the first time. It is stored before the request is
    /// sent, so an iod that died before it could store its number asks again and gets the same.
    pub client: ClientId,
    /// What mgr made of it; `None` before the first registration.
    pub membership: Option<Membership>,
    /// Where an iod runs on the directory; `None` where the last one has stopped in order.
    pub open_at: Option<Place>,
}

/// What a copy of a directory has not: the inode of its lock file, and when that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number.
    pub inode: u64,
    /// Nanoseconds since the epoch; 0 where the disk's file system does not say.
    pub made: u128,
}

/// An iod's place in a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The iod's number.
    pub iod: IodId,
    /// The file system.
    pub file_system: FileSystemId,
    /// What mgr gave it last.
    pub seal: Seal,
}

/// Why an identity file is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Another format or no identity file at all.
    #[error("it is not of format 5: was it written by another version of pvfs-iod?")]
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
        let open = match self.open_at {
            None => String::new(),
            Some(Place { inode, made }) => format!("open {inode} {made}\n"),
        };
        self.membership_fields() + &open
    }

    fn membership_fields(&self) -> String {
        let client = format!("{FIRST_LINE}\nclient {:016x}\n", self.client.0);
        match self.membership {
            None => client,
            Some(Membership {
                iod,
                file_system,
                seal,
            }) => {
                let Seal {
                    reign,
                    number,
                    secret,
                } = seal;
                let Reign { era, starts, nonce } = reign;
                let member = format!("{client}iod {iod}\nfile-system {:032x}\n", file_system.0);
                format!("{member}mgr {era} {starts} {nonce:016x}\nseal {number} {secret:032x}\n")
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
            let reign = field("mgr").and_then(reign_of);
            let seal = field("seal").zip(reign).and_then(|(text, reign)| {
                let (number, secret) = text.split_once(' ')?;
                Some(Seal {
                    reign,
                    number: number.parse().ok()?,
                    secret: u128::from_str_radix(secret, 16).ok()?,
                })
            });
            let (Some(iod), Some(file_system), Some(seal)) = (iod, file_system, seal) else {
                return Err(IdentityError::Fields);
            };
            Some(Membership {
                iod: IodId(iod),
                file_system: FileSystemId(file_system),
                seal,
            })
        } else {
            None
        };
        let open_at = match text.contains("\nopen ") {
            true => Some(
                field("open")
                    .and_then(place_of)
                    .ok_or(IdentityError::Fields)?,
            ),
            false => None,
        };
        let identity = Self {
            client,
            membership,
            open_at,
        };
        // Printing it again and comparing checks the checksum and every byte of the form at once.
        if identity.to_string() == text {
            Ok(identity)
        } else {
            Err(IdentityError::Checksum)
        }
    }
}

fn place_of(text: &str) -> Option<Place> {
    let (inode, made) = text.split_once(' ')?;
    Some(Place {
        inode: inode.parse().ok()?,
        made: made.parse().ok()?,
    })
}

fn reign_of(text: &str) -> Option<Reign> {
    let mut fields = text.split(' ');
    Some(Reign {
        era: fields.next()?.parse().ok()?,
        starts: fields.next()?.parse().ok()?,
        nonce: u64::from_str_radix(fields.next()?, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Identity {
        let membership = Membership {
            iod: IodId(3),
            file_system: FileSystemId(0xabcd),
            seal: Seal {
                reign: Reign {
                    era: 0,
                    starts: 2,
                    nonce: 0x5678,
                },
                number: 4,
                secret: 0x9abc,
            },
        };
        Identity {
            client: ClientId(0x1234),
            membership: Some(membership),
            open_at: Some(Place {
                inode: 77,
                made: 88,
            }),
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
            Identity {
                open_at: None,
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
