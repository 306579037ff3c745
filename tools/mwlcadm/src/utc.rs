// SPDX-License-Identifier: MIT
//! Moments as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, now.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The moment in UTC, as RFC 3339 has it: `2026-11-26T12:34:56.789Z`. After the year 9999, which no clock of a
/// director shows, it is that year's end.
pub fn utc_text(ms: u64) -> String {
    const YEAR_9999_ENDS_MS: u64 = 253_402_300_799_999;
    let moment = UNIX_EPOCH + Duration::from_millis(ms.min(YEAR_9999_ENDS_MS));
    humantime::format_rfc3339_millis(moment).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_date_1() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_712_842_077, "2026-11-26T17:07:22.077Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(utc_text(ms), text);
        }
    }
}
