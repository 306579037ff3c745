// SPDX-License-Identifier: MIT
//! What a daemon is to log, as `--log` and `PVFS_LOG` say it.
//!
//! A word that is no level would be taken for the name of a module, and the daemon would log nothing
//! at all. So it is refused here.

use std::borrow::Cow;
use std::str::FromStr;

use thiserror::Error;

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Levels for all modules or for some: `info`, or `warn,pvfs_mgr::owner=debug`.
///
/// # Invariants
///
/// Each part between commas is a level, or a module's path, `=` and a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(Cow<'static, str>);

/// Why it is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no log level: write error, warn, info, debug, trace or off, or MODULE=LEVEL, with commas between several"
)]
pub struct LogFilterError(String);

impl LogFilter {
    /// Errors and warnings.
    pub const WARN: Self = Self(Cow::Borrowed("warn"));
    /// These, and what an operator wants to know of a daemon at work.
    pub const INFO: Self = Self(Cow::Borrowed("info"));
    /// These, and what a developer wants to know.
    pub const DEBUG: Self = Self(Cow::Borrowed("debug"));

    /// In the words of the logging library.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for part in text.split(',') {
            let (module, level) = part.rsplit_once('=').unwrap_or(("all", part));
            if !is_path(module) || !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
                return Err(LogFilterError(part.to_owned()));
            }
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }
}

fn is_path(module: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    module.split("::").all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for good in [
            "info",
            "WARN",
            "off",
            "warn,pvfs_mgr::owner=debug",
            "fuser=error,trace",
        ] {
            assert_eq!(good.parse::<LogFilter>().unwrap().as_str(), good);
        }
        for bad in [
            "", "nonsense", "info,", "inf", "pvfs_mgr", "a=b", "=info", "a::=info", "5",
        ] {
            assert!(bad.parse::<LogFilter>().is_err(), "{bad}");
        }
    }
}
