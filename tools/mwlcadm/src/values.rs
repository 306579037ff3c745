// SPDX-License-Identifier: MIT
//! Values as users write and read them: addresses with ports, sizes in bytes.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use ipvs_mwlc::director::address::Transport;

use crate::names::ServiceName;

/// Parses `HOST:PORT` or `[IPV6]:PORT`; the port by number or by its name in the services database.
pub fn parse_endpoint(text: &str, transport: Transport) -> Result<SocketAddr, String> {
    match split_endpoint(text)? {
        (host, Some(port)) => Ok(SocketAddr::new(
            parse_host(host)?,
            parse_port(port, transport)?,
        )),
        (_, None) => Err(format!(
            "`{text}` has no port: give ADDRESS:PORT, like 10.0.0.100:80 or [2001:db8::1]:80"
        )),
    }
}

/// Parses an endpoint of TCP, for options that do not know the transport yet.
pub fn parse_tcp_endpoint(text: &str) -> Result<SocketAddr, String> {
    parse_endpoint(text, Transport::Tcp)
}

/// Splits `HOST:PORT`, `[IPV6]:PORT`, `HOST`, `[IPV6]` or a bare `IPV6` into host and port.
pub fn split_endpoint(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((host, "")) => Ok((host, None)),
            Some((host, port)) if port.starts_with(':') => Ok((host, port.get(1..))),
            _ => Err(format!("`{text}` is no address: give [IPV6]:PORT")),
        };
    }
    match text.rsplit_once(':') {
        // Several colons without brackets are an IPv6 address.
        Some((host, _)) if host.contains(':') => Ok((text, None)),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

/// Parses a real server of a service; without a port it has the service's.
pub fn real_server(service: &ServiceName, text: &str) -> Result<SocketAddr, String> {
    let (host, port) = split_endpoint(text)?;
    let transport = service.transport().unwrap_or(Transport::Tcp);
    let port = match port {
        Some(port) => parse_port(port, transport)?,
        None => service.port(),
    };
    Ok(SocketAddr::new(parse_host(host)?, port))
}

/// Parses a host by address or name; of a name's addresses the first IPv4 one, else the first.
pub fn parse_host(host: &str) -> Result<IpAddr, String> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    if host.is_empty() || host.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("`{host}` is no address"));
    }
    let addresses: Vec<IpAddr> = (host, 0)
        .to_socket_addrs()
        .map_err(|error| format!("host `{host}` is not known: {error}"))?
        .map(|address| address.ip())
        .collect();
    addresses
        .iter()
        .find(|address| address.is_ipv4())
        .or(addresses.first())
        .copied()
        .ok_or_else(|| format!("host `{host}` has no address"))
}

/// Parses a port by number or name.
pub fn parse_port(text: &str, transport: Transport) -> Result<u16, String> {
    let wrong = || format!("`{text}` is no port number (0 to 65535) and no {transport:?} service");
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| wrong());
    }
    let hints = dns_lookup::AddrInfoHints {
        socktype: match transport {
            Transport::Tcp => dns_lookup::SockType::Stream.into(),
            Transport::Udp => dns_lookup::SockType::DGram.into(),
        },
        ..dns_lookup::AddrInfoHints::default()
    };
    let port = dns_lookup::getaddrinfo(None, Some(text), Some(hints))
        .ok()
        .and_then(|mut found| found.find_map(Result::ok))
        .map(|info| info.sockaddr.port());
    port.ok_or_else(wrong)
}

const UNITS: [&str; 4] = ["K", "M", "G", "T"];

/// Parses a size in bytes: `1048576`, `10M`, `10MiB` (powers of 1024), `10MB` (powers of 1000).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("`{text}` is no size: give bytes, or a number with K, M, G, T, KiB, KB...");
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = unit.trim().to_ascii_uppercase();
    if unit.is_empty() || unit == "B" {
        return Ok(number);
    }
    let power = UNITS
        .iter()
        .position(|name| unit.starts_with(name))
        .ok_or_else(wrong)?;
    let base: u64 = match &unit[1..] {
        "" | "IB" => 1024,
        "B" => 1000,
        _ => return Err(wrong()),
    };
    let exponent = u32::try_from(power + 1).map_err(|_| wrong())?;
    base.checked_pow(exponent)
        .and_then(|factor| number.checked_mul(factor))
        .ok_or_else(wrong)
}

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Parses a time to milliseconds: `250ms`, `30s`, `5m`, `2h`, `1d`; a bare number is seconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no time: give seconds, or a number with ms, s, m, h or d");
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = if unit.is_empty() { "s" } else { unit };
    DURATION_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .and_then(|(_, ms)| number.checked_mul(*ms))
        .ok_or_else(wrong)
}

/// A time in the largest unit that is exact, as [`parse_duration_ms`] reads it: `0s`, `5m`, `90s`.
pub fn show_duration(ms: u64) -> String {
    let exact = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, unit_ms)| ms >= *unit_ms && ms % unit_ms == 0);
    match exact {
        Some((name, unit_ms)) => format!("{}{name}", ms / unit_ms),
        None => "0s".to_owned(),
    }
}

/// A size with a binary unit and one decimal: `0 B`, `1023 B`, `1.0 KiB`, `47.7 MiB`.
pub fn show_size(bytes: f64) -> String {
    if bytes < 1023.5 {
        return format!("{bytes:.0} B");
    }
    let mut value = bytes;
    let mut unit = "B";
    for name in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = name;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_both_families() {
        for (text, shown) in [
            ("10.0.0.100:80", "10.0.0.100:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("localhost:1", "127.0.0.1:1"),
            ("10.0.0.1:http", "10.0.0.1:80"),
        ] {
            let endpoint = parse_tcp_endpoint(text).map(|endpoint| endpoint.to_string());
            assert_eq!(endpoint.as_deref(), Ok(shown));
        }
        for (text, parts) in [
            ("10.0.0.1", ("10.0.0.1", None)),
            ("::1", ("::1", None)),
            ("[::1]", ("::1", None)),
            ("[::1]:", ("::1", Some(""))),
            ("a:b", ("a", Some("b"))),
        ] {
            assert_eq!(split_endpoint(text), Ok(parts));
        }
        for wrong in [
            "10.0.0.1",
            "10.0.0.1:",
            "10.0.0.1:65536",
            "10.0.0.1:no-such-service",
            "80:80",
            "[::1",
            "[::1]80",
            "[::1]",
            ":",
            "",
        ] {
            assert!(parse_tcp_endpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_read_and_shown() {
        for (text, ms) in [
            ("0", 0),
            ("5", 5000),
            ("250ms", 250),
            ("90s", 90_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
            assert_eq!(parse_duration_ms(&show_duration(ms)), Ok(ms), "{text}");
        }
        for wrong in [
            "",
            "s",
            "-1",
            "1.5s",
            "1w",
            "99999999999999999999",
            "300000000000d",
        ] {
            assert!(parse_duration_ms(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("123", 123),
            ("5B", 5),
            ("1K", 1024),
            ("10M", 10 << 20),
            ("10MiB", 10 << 20),
            ("10mib", 10 << 20),
            ("10MB", 10_000_000),
            ("3 GiB", 3 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for wrong in [
            "",
            "M",
            "1.5M",
            "-1",
            "1X",
            "1Mi",
            "1MiBs",
            "99999999999999999999",
            "20000000T",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_shown() {
        for (bytes, text) in [
            (0.0, "0 B"),
            (1023.0, "1023 B"),
            (1024.0, "1.0 KiB"),
            (1_048_575.0, "1.0 MiB"),
            (50_000_000.0, "47.7 MiB"),
            ((1u64 << 62) as f64, "4.0 EiB"),
        ] {
            assert_eq!(show_size(bytes), text);
        }
    }
}
