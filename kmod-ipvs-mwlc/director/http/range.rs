// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The part of a file that a request asks for (RFC 9110, 14.1).

/// One range of bytes, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// All.
    Whole,
    /// From the first number to the second, which is included and not less.
    Within(u64, u64),
    /// From this one on.
    From(u64),
    /// The last so many, at least one.
    Last(u64),
}

impl Range {
    /// Reads a `Range` header's value; `None` if it names several ranges, or none that makes sense.
    /// Servers ignore units that they do not know, so such a header is [`Range::Whole`].
    pub fn parse(value: &[u8]) -> Option<Range> {
        const UNIT: &[u8] = b"bytes=";
        let Some((unit, rest)) = value.split_at_checked(UNIT.len()) else {
            return Some(Range::Whole);
        };
        if !unit.eq_ignore_ascii_case(UNIT) {
            return Some(Range::Whole);
        }
        let rest = rest.trim_ascii();
        let dash = rest.iter().position(|byte| *byte == b'-')?;
        let (first, last) = rest.split_at_checked(dash)?;
        let last = last.get(1..)?;
        match (first.is_empty(), last.is_empty()) {
            (true, true) => None,
            (true, false) => match number(last)? {
                0 => None,
                count => Some(Range::Last(count)),
            },
            (false, true) => Some(Range::From(number(first)?)),
            (false, false) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Range::Within(first, last))
            }
        }
    }

    /// How many bytes of a file of this size are sent. A range beyond its end is refused (416), with
    /// nothing to speak of.
    pub const fn bytes_of(self, file_bytes: u64) -> u64 {
        match self {
            Range::Whole => file_bytes,
            Range::From(first) => file_bytes.saturating_sub(first),
            Range::Last(count) if count < file_bytes => count,
            Range::Last(_) => file_bytes,
            Range::Within(first, last) => {
                let end = last.saturating_add(1);
                let end = if end < file_bytes { end } else { file_bytes };
                end.saturating_sub(first)
            }
        }
    }
}

/// Decimal digits and nothing else, less than 2^64.
fn number(digits: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value
            .checked_mul(10)?
            .checked_add(u64::from(digit.wrapping_sub(b'0')))?;
    }
    Some(value)
}
