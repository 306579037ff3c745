// SPDX-License-Identifier: MIT
//! Who a client says it is: a name for logs and for people, which nothing else relies on.

use std::fmt;
use std::path::Path;

use bincode::{Decode, Encode};

/// A host's or a program's name is shown up to so many characters.
pub const PEER_NAME_CHARS_MAX: usize = 64;
/// A mount point or a data directory is shown up to so many characters.
pub const PEER_PLACE_CHARS_MAX: usize = 256;

/// A process: `node3:/mnt (pvfs-fuse, pid 123)`.
///
/// Displaying it escapes control characters and cuts what is too long, whatever a peer has sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Peer {
    /// Name of its machine.
    pub host: String,
    /// Its mount point or data directory, where it has one.
    pub place: Option<String>,
    /// Name of the program.
    pub program: String,
    /// Process number.
    pub pid: u32,
}

impl Peer {
    /// This process, which serves `place`.
    #[must_use]
    pub fn of_this_process(place: Option<&Path>) -> Self {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let program = std::env::args_os().next().unwrap_or_default();
        let program = Path::new(&program).file_name().unwrap_or_default();
        Self {
            host: shorten(&host.to_string_lossy(), PEER_NAME_CHARS_MAX),
            place: place.map(|place| shorten(&place.to_string_lossy(), PEER_PLACE_CHARS_MAX)),
            program: shorten(&program.to_string_lossy(), PEER_NAME_CHARS_MAX),
            pid: std::process::id(),
        }
    }

    /// The same with its names cut to their limits, so that it may be kept.
    #[must_use]
    pub fn bounded(&self) -> Self {
        Self {
            host: shorten(&self.host, PEER_NAME_CHARS_MAX),
            place: self
                .place
                .as_deref()
                .map(|place| shorten(place, PEER_PLACE_CHARS_MAX)),
            program: shorten(&self.program, PEER_NAME_CHARS_MAX),
            pid: self.pid,
        }
    }
}

fn shorten(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

/// Text that a terminal or a log shows as it is: control characters and line ends are escaped.
fn printable(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    for character in text.chars().take(chars_max) {
        // Letters of all scripts stay; what moves a cursor or reorders a line does not.
        let harmless = !character.is_control() && character.escape_debug().count() == 1;
        match harmless || matches!(character, '\'' | '"') {
            true => shown.push(character),
            false => shown.extend(character.escape_unicode()),
        }
    }
    shown
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.host, PEER_NAME_CHARS_MAX))?;
        if let Some(place) = &self.place {
            write!(f, ":{}", printable(place, PEER_PLACE_CHARS_MAX))?;
        }
        let program = printable(&self.program, PEER_NAME_CHARS_MAX);
        write!(f, " ({program}, pid {})", self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: &str, place: Option<&str>) -> Peer {
        Peer {
            host: host.into(),
            place: place.map(str::to_owned),
            program: "pvfs-fuse".into(),
            pid: 123,
        }
    }

    #[test]
    fn names_are_for_people() {
        for (host, place, expected) in [
            ("node3", Some("/mnt"), "node3:/mnt (pvfs-fuse, pid 123)"),
            ("node3", None, "node3 (pvfs-fuse, pid 123)"),
            ("", Some(""), ": (pvfs-fuse, pid 123)"),
            (
                "a\nb",
                Some("/m\u{1b}[2J"),
                "a\\u{a}b:/m\\u{1b}[2J (pvfs-fuse, pid 123)",
            ),
            (
                "x\u{202e}y",
                Some("/Ü b's"),
                "x\\u{202e}y:/Ü b's (pvfs-fuse, pid 123)",
            ),
        ] {
            assert_eq!(peer(host, place).to_string(), expected);
        }
    }

    #[test]
    fn names_are_bounded() {
        let long = "\u{1}".repeat(100_000);
        let peer = peer(&long, Some(&long));
        let shown = peer.to_string();
        assert!(
            shown.len() < 4 * 1024,
            "{} bytes of {} sent",
            shown.len(),
            2 * long.len()
        );
        assert_eq!(peer.bounded().to_string(), shown);
        assert_eq!(peer.bounded().host.len(), PEER_NAME_CHARS_MAX);
    }

    #[test]
    fn this_process_has_a_name() {
        let peer = Peer::of_this_process(Some(Path::new("/mnt")));
        assert_eq!(peer.pid, std::process::id());
        assert!(!peer.program.is_empty());
        assert_eq!(peer, peer.bounded());
    }
}
