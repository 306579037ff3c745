// SPDX-License-Identifier: MIT
//! What people and scripts read of this command: lines on standard output, notes on standard error.
//!
//! Names of files and answers of daemons may hold anything. Each line is written with its control
//! characters escaped, so that nothing that is printed moves a terminal's cursor or starts a line.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;
use thiserror::Error;

/// Standard output does not take what it is given.
#[derive(Debug, Error)]
#[error("standard output: {0}")]
pub struct OutputError(#[from] io::Error);

impl OutputError {
    /// Whether `error` says that the reader of a pipe has seen enough.
    pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
        let output = error.downcast_ref::<Self>();
        output.is_some_and(|error| error.0.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Prints a line.
///
/// # Errors
///
/// [`OutputError`], also where nobody reads the pipe any more.
pub fn line(text: impl Display) -> Result<(), OutputError> {
    raw(format!("{}\n", escaped(&text.to_string())).as_bytes())
}

/// Prints each of `lines`.
///
/// # Errors
///
/// [`OutputError`].
pub fn lines(lines: impl IntoIterator<Item = impl Display>) -> Result<(), OutputError> {
    lines.into_iter().try_for_each(line)
}

/// Writes bytes as they are.
///
/// # Errors
///
/// [`OutputError`].
pub fn raw(bytes: &[u8]) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    Ok(out.write_all(bytes).and_then(|()| out.flush())?)
}

/// Prints `value` as JSON.
///
/// # Errors
///
/// [`OutputError`].
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = escaped_json(&serde_json::to_string_pretty(value)?);
    Ok(raw(format!("{text}\n").as_bytes())?)
}

/// Prints a line on standard error. Where that is closed, nobody wants to know.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}", escaped(&text.to_string()));
}

/// Control characters as in a Rust string: `\n`, `\u{1b}`. The others stay as they are.
pub fn escaped(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => visible.extend(character.escape_default()),
            false => visible.push(character),
        }
    }
    visible
}

/// JSON whose strings have no raw control character. The format itself demands it of those below
/// U+0020 only; outside of strings there are none but line feeds.
fn escaped_json(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\u{7f}'..='\u{9f}' => visible.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => visible.push(other),
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_controls_a_terminal() {
        let hostile = "a\u{1b}[2Jb\nc\u{9b}31m\u{7f}é";
        assert_eq!(escaped(hostile), "a\\u{1b}[2Jb\\nc\\u{9b}31m\\u{7f}é");
        let json = escaped_json(&serde_json::to_string(hostile).unwrap());
        assert!(!json.chars().any(char::is_control), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
    }

    #[test]
    fn a_closed_pipe_is_told_from_other_failures() {
        let of = |kind: io::ErrorKind| anyhow::Error::from(OutputError(kind.into()));
        assert!(OutputError::is_closed_pipe(&of(io::ErrorKind::BrokenPipe)));
        assert!(!OutputError::is_closed_pipe(&of(
            io::ErrorKind::StorageFull
        )));
        // A daemon that closed its connection is not the reader of the output.
        let socket = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(!OutputError::is_closed_pipe(&socket));
    }
}
