// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A file's name as servers understand it: host and path, brought to one spelling.
//!
//! Two spellings of one file shall be one entry of the size cache, and the path shall be the one that
//! a server opens below its root: percent-encoding decoded, `//` and `.` and `..` resolved, as nginx
//! does before it looks for the file.

use core::fmt;

/// The longest name, host and path together, in bytes. Paths of files are shorter; the bound keeps a
/// cache entry and the kernel's stack small.
pub const NAME_BYTES_MAX: usize = 512;
/// The longest host: that of DNS, and a port.
const HOST_BYTES_MAX: usize = 253 + 6;
/// The port that clients leave out.
const DEFAULT_PORT: &[u8] = b"80";

const _: () = assert!(NAME_BYTES_MAX <= u16::MAX as usize, "lengths are u16");

/// A name.
#[derive(Clone, Copy)]
pub struct Name {
    /// What lies beyond `used` means nothing.
    bytes: [u8; NAME_BYTES_MAX],
    host_bytes: u16,
    used: u16,
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.host_bytes == other.host_bytes && self.bytes() == other.bytes()
    }
}

impl Eq for Name {}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Name")
            .field(&self.host().escape_ascii())
            .field(&self.path().escape_ascii())
            .finish()
    }
}

impl Name {
    /// The name that a request's host and path spell; `None` if a server refuses them, or they are
    /// too long.
    pub fn new(host: &[u8], path: &[u8]) -> Option<Name> {
        let mut name = Name {
            bytes: [0; NAME_BYTES_MAX],
            host_bytes: 0,
            used: 0,
        };
        name.push_host(host)?;
        name.push_path(path)?;
        Some(name)
    }

    /// A name from its parts as they are, that is as [`Name::host`] and [`Name::path`] give them;
    /// `None` if they are none, or too long.
    pub fn of_parts(host: &[u8], path: &[u8]) -> Option<Name> {
        if !path.starts_with(b"/") || host.contains(&b'/') {
            return None;
        }
        let mut name = Name {
            bytes: [0; NAME_BYTES_MAX],
            host_bytes: u16::try_from(host.len()).ok()?,
            used: 0,
        };
        for byte in host.iter().chain(path) {
            name.push(*byte)?;
        }
        Some(name)
    }

    /// The host in lower case, with its port unless that is 80; empty if the client gave none.
    pub fn host(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.host_bytes))
            .unwrap_or_default()
    }

    /// The path, which starts with `/` and has no `//`, `.` or `..` in it.
    pub fn path(&self) -> &[u8] {
        self.bytes
            .get(usize::from(self.host_bytes)..usize::from(self.used))
            .unwrap_or_default()
    }

    /// Both, one after the other. A host has no `/`, so the bytes say where the path begins.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.used)).unwrap_or_default()
    }

    fn push_host(&mut self, host: &[u8]) -> Option<()> {
        let (host, port) = split_port(host)?;
        let host = host.strip_suffix(b".").unwrap_or(host);
        if host.len() > HOST_BYTES_MAX {
            return None;
        }
        for byte in host {
            self.push(byte.to_ascii_lowercase())?;
        }
        if !port.is_empty() && port != DEFAULT_PORT {
            self.push(b':')?;
            for digit in port {
                self.push(*digit)?;
            }
        }
        self.host_bytes = self.used;
        Some(())
    }

    fn push_path(&mut self, path: &[u8]) -> Option<()> {
        let mut rest = path.strip_prefix(b"/")?;
        self.push(b'/')?;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            let decoded = match byte {
                b'?' | b'#' => break,
                b'%' => {
                    let (digits, after) = rest.split_first_chunk::<2>()?;
                    rest = after;
                    let [high, low] = *digits;
                    hex(high)?.wrapping_shl(4) | hex(low)?
                }
                0..=b' ' | 0x7f => return None,
                byte => *byte,
            };
            match decoded {
                0 => return None,
                b'/' => self.end_component(true)?,
                byte => self.push(byte)?,
            }
        }
        self.end_component(false)
    }

    /// The component after the last `/` is complete; a `/` follows it, or the path's end.
    fn end_component(&mut self, slash_follows: bool) -> Option<()> {
        let component = self.last_component();
        let dots = match component {
            b"." => 1u16,
            b".." => 2,
            // `//` is `/`.
            b"" => return Some(()),
            _ if slash_follows => return self.push(b'/'),
            _ => return Some(()),
        };
        self.used = self.used.saturating_sub(dots);
        if dots == 2 {
            // Back over the `/` and the component before it; the root has none.
            self.used = self.used.saturating_sub(1);
            if self.used <= self.host_bytes {
                return None;
            }
            let parent = self.last_component().len();
            self.used = self.used.saturating_sub(u16::try_from(parent).ok()?);
        }
        Some(())
    }

    /// What stands after the last `/` of the path.
    fn last_component(&self) -> &[u8] {
        let path = self.path();
        let slash = path.iter().rposition(|byte| *byte == b'/');
        slash
            .and_then(|slash| path.get(slash..)?.get(1..))
            .unwrap_or(path)
    }

    fn push(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(usize::from(self.used))? = byte;
        self.used = self.used.checked_add(1)?;
        Some(())
    }
}

/// Host and port of a host header's value; the port is empty if there is none. `None` if it is no
/// host.
fn split_port(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let host_end = match value.first() {
        Some(b'[') => {
            let end = value.iter().position(|byte| *byte == b']')?;
            let literal = value.get(1..end)?;
            let is_ipv6 = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            if !literal.iter().all(is_ipv6) {
                return None;
            }
            end.checked_add(1)?
        }
        _ => {
            let is_name =
                |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if value.windows(2).any(|two| two == b"..") {
                return None;
            }
            let end = value.iter().position(|byte| !is_name(byte));
            end.unwrap_or(value.len())
        }
    };
    let (host, after) = value.split_at_checked(host_end)?;
    let port = match after.split_first() {
        None => after,
        Some((b':', port)) => port,
        Some(_) => return None,
    };
    let is_port = port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    is_port.then_some((host, port))
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
        b'A'..=b'F' => Some(digit.wrapping_sub(b'A').wrapping_add(10)),
        _ => None,
    }
}
