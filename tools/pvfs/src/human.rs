// SPDX-License-Identifier: MIT
//! Sizes as people read and write them. Pure.

use std::time::Duration;

use thiserror::Error;

const UNITS: [&str; 7] = ["B", "K", "M", "G", "T", "P", "E"];

/// `bytes` with at most four digits and a unit of 1024, as `df -h` writes them.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes;
    let mut tenths = 0;
    let mut unit = 0;
    while value >= 1024 && unit + 1 < UNITS.len() {
        tenths = (value % 1024) * 10 / 1024;
        value /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    match (unit, value) {
        (0, _) => format!("{value}{name}"),
        (_, 0..=9) => format!("{value}.{tenths}{name}"),
        _ => format!("{value}{name}"),
    }
}

/// How much of what is used or can be used is used, rounded up, as `df` counts.
pub fn percent(used: u64, available: u64) -> String {
    match u128::from(used) + u128::from(available) {
        0 => "-".to_owned(),
        all => format!("{}%", (u128::from(used) * 100).div_ceil(all)),
    }
}

/// A time in its two largest units.
pub fn time(time: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let seconds = time.as_secs();
    match seconds {
        DAY.. => format!("{} d {} h", seconds / DAY, seconds % DAY / HOUR),
        HOUR.. => format!("{} h {} min", seconds / HOUR, seconds % HOUR / MINUTE),
        MINUTE.. => format!("{} min {} s", seconds / MINUTE, seconds % MINUTE),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

const DECIMAL_UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// `bytes` with up to three digits and a unit of 1000, as rates are written.
pub fn decimal(bytes: u64) -> String {
    let mut value = bytes;
    let mut tenths = 0;
    let mut unit = 0;
    while value >= 1000 {
        tenths = value % 1000 / 100;
        value /= 1000;
        unit += 1;
    }
    let name = DECIMAL_UNITS.get(unit).copied().unwrap_or("B");
    match (unit, value) {
        (1.., 0..=9) => format!("{value}.{tenths} {name}"),
        _ => format!("{value} {name}"),
    }
}

/// What is wrong with a size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SizeError {
    /// Not digits and a unit.
    #[error("`{0}` is no size: write bytes, or a number with K, M or G, such as 256K or 1M")]
    Syntax(String),
    /// Above what the number can hold.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// Parses `262144`, `256K`, `256k`, `256KiB`, `1M` or `1G`; units are of 1024.
///
/// # Errors
///
/// [`SizeError`], which says what to write.
pub fn parse_u32(text: &str) -> Result<u32, SizeError> {
    let syntax = || SizeError::Syntax(text.to_owned());
    let too_large = || SizeError::TooLarge(text.to_owned());
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    if digits.is_empty() {
        return Err(syntax());
    }
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "ki" | "kib" => 10,
        "m" | "mi" | "mib" => 20,
        "g" | "gi" | "gib" => 30,
        _ => return Err(syntax()),
    };
    let number: u64 = digits.parse().map_err(|_| too_large())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(too_large)?;
    u32::try_from(bytes).map_err(|_| too_large())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units() {
        for (seconds, text) in [
            (0, "0.0 s"),
            (59, "59.0 s"),
            (61, "1 min 1 s"),
            (3 * 3600 + 240, "3 h 4 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(time(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn percentages_are_rounded_up() {
        assert_eq!(percent(1, 999), "1%");
        assert_eq!(percent(0, 5), "0%");
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percent(u64::MAX, 0), "100%");
    }

    #[test]
    fn sizes_are_short() {
        for (count, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (1536, "1.5K"),
            (10 << 10, "10K"),
            ((1 << 20) - 1, "1023K"),
            (5 << 30, "5.0G"),
            (u64::MAX, "15E"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn sizes_beside_rates_are_decimal() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_999_999, "1.9 MB"),
            (12_000_000, "12 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(decimal(count), text);
        }
    }

    #[test]
    fn sizes_parse() {
        for (text, count) in [
            ("0", 0),
            ("4096", 4096),
            ("64k", 64 << 10),
            ("1MiB", 1 << 20),
            ("1G", 1 << 30),
        ] {
            assert_eq!(parse_u32(text), Ok(count));
        }
        for bad in ["", "k", "-1", "1.5M", "1X", "0x10", "1 M"] {
            assert_eq!(parse_u32(bad), Err(SizeError::Syntax(bad.into())));
        }
        for large in ["4G", "99999999999999999999", "4294967296"] {
            assert_eq!(parse_u32(large), Err(SizeError::TooLarge(large.into())));
        }
    }
}
