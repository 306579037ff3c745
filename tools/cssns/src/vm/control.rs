// SPDX-License-Identifier: MIT
//! The lines that host and guest exchange over the control port, without the port.
//!
//! Grammar, one line each way; payloads are base64 so that a line is a line:
//!
//! ```text
//! host  -> guest   RUN <id> <timeout_s> <script>      run a shell script
//! host  -> guest   HELLO                              are you there?
//! host  -> guest   OFF                                power off
//! guest -> host    READY                              up, or answering HELLO
//! guest -> host    END <id> <status> <stdout> <stderr>
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::time::Duration;

/// Longest line that the guest may send: two outputs of 8 MiB (`init.sh`) in base64, and the rest.
pub const REPLY_BYTES_MAX: usize = 2 * (8 << 20) / 3 * 4 + 4096;

/// What a script left behind in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit status of the script; 137 when the guest's own limit killed it.
    pub status: i32,
    /// Standard output, at most 8 MiB; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl Output {
    /// Whether the script ended with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == 0
    }
}

/// A line from the guest, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The guest is up.
    Ready,
    /// The script with this id ended.
    End {
        /// The id that `RUN` carried.
        id: u64,
        /// What it left.
        output: Output,
    },
}

/// The line that asks the guest to run `script`; the guest kills it after `timeout`.
#[must_use]
pub fn run_line(id: u64, timeout: Duration, script: &str) -> String {
    let seconds = timeout.as_secs().max(1);
    // The guest splits fields at blanks, and an empty field would be none.
    let script = if script.is_empty() { ":" } else { script };
    format!("RUN {id} {seconds} {}\n", BASE64.encode(script))
}

/// The line that asks whether the guest is there.
pub const HELLO_LINE: &str = "HELLO\n";

/// The line that powers the guest off.
pub const OFF_LINE: &str = "OFF\n";

/// Understands one line (without its newline) from the guest; `None` when it is not of the grammar,
/// as after a reconnect in the middle of a reply.
#[must_use]
pub fn parse_reply(line: &str) -> Option<Reply> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line == "READY" {
        return Some(Reply::Ready);
    }
    let mut fields = line.split(' ');
    if fields.next()? != "END" {
        return None;
    }
    let id = fields.next()?.parse().ok()?;
    let status = fields.next()?.parse().ok()?;
    let stdout = decode(fields.next()?)?;
    let stderr = decode(fields.next()?)?;
    if fields.next().is_some() {
        return None;
    }
    Some(Reply::End {
        id,
        output: Output {
            status,
            stdout,
            stderr,
        },
    })
}

fn decode(field: &str) -> Option<String> {
    let bytes = BASE64.decode(field).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(id: u64, status: i32, stdout: &str, stderr: &str) -> String {
        format!(
            "END {id} {status} {} {}",
            BASE64.encode(stdout),
            BASE64.encode(stderr)
        )
    }

    #[test]
    fn a_script_is_one_line_whatever_is_in_it() {
        let line = run_line(7, Duration::from_millis(100), "echo 'a\nb'\n");
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.starts_with("RUN 7 1 "));
        assert_eq!(run_line(1, Duration::ZERO, "").split(' ').count(), 4);
    }

    #[test]
    fn replies_are_understood() {
        assert_eq!(parse_reply("READY"), Some(Reply::Ready));
        assert_eq!(parse_reply("READY\r\n"), Some(Reply::Ready));
        let output = Output {
            status: 3,
            stdout: "one\ntwo\n".to_owned(),
            stderr: "why".to_owned(),
        };
        assert_eq!(
            parse_reply(&end(9, 3, "one\ntwo\n", "why")),
            Some(Reply::End { id: 9, output })
        );
        let empty = Output {
            status: 0,
            stdout: String::new(),
            stderr: String::new(),
        };
        assert_eq!(
            parse_reply("END 1 0  "),
            Some(Reply::End {
                id: 1,
                output: empty
            })
        );
    }

    #[test]
    fn torn_lines_are_not_understood() {
        for line in [
            "",
            "END",
            "END 1",
            "END 1 0",
            "END 1 0 !!! ",
            "END x 0  ",
            "END 1 0   ",
            "EADY",
        ] {
            assert_eq!(parse_reply(line), None, "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(line in ".{0,200}") {
            let _ = parse_reply(&line);
        }

        #[test]
        fn any_output_survives(id: u64, status in 0i32..256, out in "(?s).{0,200}", err in "(?s).{0,80}") {
            let expected = Output { status, stdout: out.clone(), stderr: err.clone() };
            proptest::prop_assert_eq!(
                parse_reply(&end(id, status, &out, &err)),
                Some(Reply::End { id, output: expected })
            );
        }
    }
}
