// SPDX-License-Identifier: MIT
//! Addresses as people write them: `HOST[:PORT]` of a daemon, `HOST[:PORT]:/` of a file system.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// mgr's port, as PVFS has had it.
pub const MGR_PORT_DEFAULT: u16 = 3000;
/// An iod's port, as PVFS has had it.
pub const IOD_PORT_DEFAULT: u16 = 7000;

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Nothing before the colon.
    #[error("`{0}` names no host: write HOST, HOST:PORT or [IPV6]:PORT")]
    NoHost(String),
    /// No name or address has such characters.
    #[error("`{0}` names no host: a name is of letters, digits, dots and hyphens")]
    HostName(String),
    /// The port is no number from 1 to 65535.
    #[error("`{0}` has no valid port: write HOST:PORT with a port from 1 to 65535")]
    Port(String),
    /// A bracket without its partner.
    #[error("`{0}` is no IPv6 address in brackets: write [IPV6]:PORT")]
    Bracket(String),
    /// No `:/` at the end.
    #[error("`{0}` names no file system: write HOST[:PORT]:/")]
    NoRoot(String),
    /// A directory below the root.
    #[error("`{0}` names a directory in the file system, only its root `:/` can be mounted")]
    Subdirectory(String),
}

/// A host name or IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// Parses `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with `text` and what to write.
    pub fn parse(text: &str, port_default: u16) -> Result<Self, AddressError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let bad = || AddressError::Bracket(text.to_owned());
                let (host, after) = rest.split_once(']').ok_or_else(bad)?;
                match after.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if after.is_empty() => (host, None),
                    None => return Err(bad()),
                }
            }
            None => match text.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => {
                    return Err(AddressError::Bracket(text.to_owned()));
                }
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() {
            return Err(AddressError::NoHost(text.to_owned()));
        }
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
        if !host.chars().all(of_a_name) {
            return Err(AddressError::HostName(text.to_owned()));
        }
        let port = match port {
            None => port_default,
            Some(digits) => match digits.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(AddressError::Port(text.to_owned())),
            },
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What is mounted: `HOST[:PORT]:/`, shown in /proc/mounts as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSource {
    /// Where mgr is.
    pub mgr: Endpoint,
    /// As it was written.
    pub text: String,
}

impl FromStr for MountSource {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let no_root = || AddressError::NoRoot(text.to_owned());
        let (endpoint, path) = text.split_once(":/").ok_or_else(no_root)?;
        if !path.is_empty() {
            return Err(AddressError::Subdirectory(text.to_owned()));
        }
        Ok(Self {
            mgr: Endpoint::parse(endpoint, MGR_PORT_DEFAULT)?,
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_parse_and_print() {
        for (text, host, port, printed) in [
            ("node1", "node1", 9, "node1:9"),
            ("node1:3000", "node1", 3000, "node1:3000"),
            ("10.0.0.1:1", "10.0.0.1", 1, "10.0.0.1:1"),
            ("[::1]", "::1", 9, "[::1]:9"),
            ("[fe80::2]:65535", "fe80::2", 65535, "[fe80::2]:65535"),
        ] {
            let endpoint = Endpoint::parse(text, 9).unwrap();
            assert_eq!(
                endpoint,
                Endpoint {
                    host: host.into(),
                    port
                }
            );
            assert_eq!(endpoint.to_string(), printed);
        }
    }

    #[test]
    fn bad_endpoints_say_what_to_write() {
        for bad in [
            "", ":1", "h:", "h:0", "h:65536", "h:x", "::1", "[::1", "[::1]x", "[]:1",
        ] {
            let error = Endpoint::parse(bad, 9).unwrap_err();
            assert!(error.to_string().contains("write"), "{bad}: {error}");
        }
    }

    #[test]
    fn mount_sources() {
        let source: MountSource = "node1:/".parse().unwrap();
        assert_eq!(source.mgr.to_string(), "node1:3000");
        assert_eq!(source.text, "node1:/");
        assert_eq!(
            "[::1]:5:/".parse::<MountSource>().unwrap().mgr.to_string(),
            "[::1]:5"
        );
        assert!(matches!(
            "node1".parse::<MountSource>(),
            Err(AddressError::NoRoot(_))
        ));
        assert!(matches!(
            "node1:/a".parse::<MountSource>(),
            Err(AddressError::Subdirectory(_))
        ));
        assert!(matches!(
            ":/".parse::<MountSource>(),
            Err(AddressError::NoHost(_))
        ));
    }
}
