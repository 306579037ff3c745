// SPDX-License-Identifier: MIT
//! A node's report as a datagram, and who is believed.
//!
//! ```text
//!  0  "MWLR"       4 bytes    magic and
//!  4  version u8 = 1          version
//!  5  family u8 = 4 or 6
//!  6  zero u16
//!  8  address      16 bytes   the node's, IPv4 in the first four
//! 24  sequence u64            one more each time
//! 32  time u64                milliseconds since 1970 at the node
//! 40  open bytes u64
//! 48  open files u32
//! 52  memory u16, CPU u16     in use, in thousandths
//! 56  zero u64
//! 64  HMAC-SHA256 of bytes 0 to 63 with the shared key
//! 96
//! ```
//!
//! Integers are little-endian. A report is believed if its code is right, its time is near the
//! receiver's, and time and sequence are later than those of the node's last report. So one that was
//! recorded on the network says nothing a second time; just after the receiver's start, it says again
//! what was true half a minute before at most.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hmac::{Hmac, Mac};
use ipvs_mwlc::director::report::{NODES_MAX, Report};
use sha2::Sha256;
use thiserror::Error;

/// Length of a datagram.
pub const REPORT_BYTES: usize = 96;
/// How far the clocks of a node and the director may be apart.
pub const CLOCK_SKEW_MS_MAX: u64 = 30_000;
/// Shorter keys are guessed.
pub const KEY_BYTES_MIN: usize = 16;

const MAGIC: [u8; 4] = *b"MWLR";
const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 64;

/// The key that nodes and director share.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

/// A report of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Which node: the address that its real servers have in the director.
    pub address: IpAddr,
    /// One more each time.
    pub sequence: u64,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// What it says.
    pub report: Report,
}

/// Why a datagram is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Disbelief {
    /// Another protocol, or another version of this one.
    #[error("it is no report of this version")]
    NoReport,
    /// Another key.
    #[error("its code is wrong: is the key the same on both sides?")]
    WrongCode,
    /// Recorded, or the clocks are wrong.
    #[error("its time is {0} ms off: are the clocks synchronized?")]
    WrongTime(u64),
    /// Sent before, or overtaken.
    #[error("a later one came before")]
    Old,
    /// More nodes than any director has.
    #[error("too many nodes report")]
    TooManyNodes,
}

impl Key {
    /// A key from a file's bytes, without the end of its last line; `None` if it is too short.
    pub fn new(bytes: &[u8]) -> Option<Key> {
        let bytes = bytes.trim_ascii_end();
        if bytes.len() < KEY_BYTES_MIN {
            return None;
        }
        Hmac::new_from_slice(bytes).ok().map(Key)
    }

    fn code(&self, signed: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(signed);
        mac.finalize().into_bytes().into()
    }

    fn verifies(&self, signed: &[u8], code: &[u8]) -> bool {
        let mut mac = self.0.clone();
        mac.update(signed);
        // In constant time.
        mac.verify_slice(code).is_ok()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Key")
    }
}

/// The datagram of a report.
pub fn encode(report: &NodeReport, key: &Key) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REPORT_BYTES);
    bytes.extend(MAGIC);
    let (family, address) = match report.address {
        IpAddr::V4(address) => (4, [address.octets().to_vec(), vec![0; 12]].concat()),
        IpAddr::V6(address) => (6, address.octets().to_vec()),
    };
    bytes.extend([VERSION, family, 0, 0]);
    bytes.extend(address);
    bytes.extend(report.sequence.to_le_bytes());
    bytes.extend(report.time_ms.to_le_bytes());
    bytes.extend(report.report.open_bytes.to_le_bytes());
    bytes.extend(report.report.open_files.to_le_bytes());
    for permille in [report.report.memory_permille, report.report.cpu_permille] {
        bytes.extend(
            u16::try_from(permille)
                .unwrap_or(1000)
                .min(1000)
                .to_le_bytes(),
        );
    }
    bytes.resize(SIGNED_BYTES, 0);
    let code = key.code(&bytes);
    bytes.extend(code);
    bytes
}

/// Reads a datagram whose code is right.
pub fn decode(datagram: &[u8], key: &Key) -> Result<NodeReport, Disbelief> {
    let (signed, code) = datagram
        .split_at_checked(SIGNED_BYTES)
        .filter(|_| datagram.len() == REPORT_BYTES)
        .ok_or(Disbelief::NoReport)?;
    if !key.verifies(signed, code) {
        return Err(Disbelief::WrongCode);
    }
    parse(signed).ok_or(Disbelief::NoReport)
}

fn parse(signed: &[u8]) -> Option<NodeReport> {
    let u64_at = |at: usize| {
        let bytes = signed.get(at..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let u16_at = |at: usize| {
        let bytes = signed.get(at..)?.first_chunk::<2>()?;
        Some(u32::from(u16::from_le_bytes(*bytes)))
    };
    let open_files = u32::from_le_bytes(*signed.get(48..)?.first_chunk()?);
    if signed.get(..5)? != [&MAGIC[..], &[VERSION]].concat() {
        return None;
    }
    let octets: [u8; 16] = *signed.get(8..)?.first_chunk()?;
    let [a, b, c, d, ..] = octets;
    let address = match signed.get(5)? {
        4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        6 => IpAddr::V6(Ipv6Addr::from(octets)),
        _ => return None,
    };
    Some(NodeReport {
        address,
        sequence: u64_at(24)?,
        time_ms: u64_at(32)?,
        report: Report {
            open_bytes: u64_at(40)?,
            open_files,
            memory_permille: u16_at(52)?.min(1000),
            cpu_permille: u16_at(54)?.min(1000),
        },
    })
}

/// What was believed last of each node.
#[derive(Debug, Default)]
pub struct Believed {
    last: HashMap<IpAddr, (u64, u64)>,
}

impl Believed {
    /// Whether to believe a report whose code is right; if so, it is the node's last from now on.
    pub fn believe(&mut self, report: &NodeReport, now_ms: u64) -> Result<(), Disbelief> {
        let off_ms = report.time_ms.abs_diff(now_ms);
        if off_ms > CLOCK_SKEW_MS_MAX {
            return Err(Disbelief::WrongTime(off_ms));
        }
        let new = (report.time_ms, report.sequence);
        if let Some(last) = self.last.get_mut(&report.address) {
            if new <= *last {
                return Err(Disbelief::Old);
            }
            *last = new;
            return Ok(());
        }
        if self.last.len() >= NODES_MAX {
            // Who holds the key can invent nodes; those that are gone make room.
            self.last
                .retain(|_, (time_ms, _)| time_ms.abs_diff(now_ms) <= CLOCK_SKEW_MS_MAX);
        }
        if self.last.len() >= NODES_MAX {
            return Err(Disbelief::TooManyNodes);
        }
        self.last.insert(report.address, new);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> Key {
        Key::new(b"a key of enough bytes\n").unwrap()
    }

    fn report(sequence: u64, time_ms: u64) -> NodeReport {
        NodeReport {
            address: "10.0.0.21".parse().unwrap(),
            sequence,
            time_ms,
            report: Report {
                open_bytes: 5_000_000_000,
                open_files: 3,
                memory_permille: 512,
                cpu_permille: 1000,
            },
        }
    }

    #[test]
    fn a_report_has_golden_bytes() {
        let bytes = encode(&report(0x0102_0304_0506_0708, 7), &key());
        assert_eq!(bytes.len(), REPORT_BYTES);
        let expected = [
            &b"MWLR\x01\x04\0\0"[..],
            &[10, 0, 0, 21],
            &[0; 12],
            &[8, 7, 6, 5, 4, 3, 2, 1],
            &[7, 0, 0, 0, 0, 0, 0, 0],
            &5_000_000_000u64.to_le_bytes(),
            &[3, 0, 0, 0],
            &[0, 2, 0xe8, 3],
            &[0; 8],
        ]
        .concat();
        assert_eq!(bytes[..64], expected);
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        for address in ["10.0.0.21", "fd00::21"] {
            let sent = NodeReport {
                address: address.parse().unwrap(),
                ..report(1, 2)
            };
            assert_eq!(decode(&encode(&sent, &key()), &key()), Ok(sent));
        }
    }

    #[test]
    fn one_bit_or_another_key_makes_it_worthless() {
        let bytes = encode(&report(1, 2), &key());
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&forged, &key()), Err(Disbelief::WrongCode));
        }
        let other = Key::new(b"another key of enough bytes").unwrap();
        assert_eq!(decode(&bytes, &other), Err(Disbelief::WrongCode));
        assert_eq!(decode(&bytes[..95], &key()), Err(Disbelief::NoReport));
        assert!(Key::new(b"too short      \n").is_none());
    }

    #[test]
    fn what_was_sent_before_says_nothing() {
        let mut believed = Believed::default();
        let now = 1_000_000;
        assert_eq!(believed.believe(&report(5, now), now), Ok(()));
        for (again, why) in [
            (report(5, now), Disbelief::Old),
            (report(4, now), Disbelief::Old),
            (report(9, now - 1), Disbelief::Old),
            (report(9, now - 30_001), Disbelief::WrongTime(30_001)),
            (report(9, now + 30_001), Disbelief::WrongTime(30_001)),
        ] {
            assert_eq!(believed.believe(&again, now), Err(why));
        }
        // A node that was started anew counts from one again.
        assert_eq!(believed.believe(&report(1, now + 1), now), Ok(()));
    }

    #[test]
    fn nodes_have_a_bound_and_those_that_are_gone_make_room() {
        let mut believed = Believed::default();
        let of = |number: u32, time_ms| NodeReport {
            address: IpAddr::V4(Ipv4Addr::from(number)),
            ..report(1, time_ms)
        };
        for number in 0..NODES_MAX as u32 {
            assert_eq!(believed.believe(&of(number, 100_000), 100_000), Ok(()));
        }
        let one_more = of(NODES_MAX as u32, 100_000);
        assert_eq!(
            believed.believe(&one_more, 100_000),
            Err(Disbelief::TooManyNodes)
        );
        let later = of(NODES_MAX as u32, 140_000);
        assert_eq!(believed.believe(&later, 140_000), Ok(()));
    }

    proptest! {
        #[test]
        fn hostile_datagrams_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes, &key()).is_err());
        }

        #[test]
        fn whatever_is_signed_is_read_or_refused(signed in prop::collection::vec(any::<u8>(), 64)) {
            let bytes = [&signed[..], &key().code(&signed)].concat();
            if let Ok(report) = decode(&bytes, &key()) {
                prop_assert!(report.report.cpu_permille <= 1000);
            }
        }
    }
}
