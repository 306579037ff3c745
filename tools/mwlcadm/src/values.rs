// SPDX-License-Identifier: MIT
//! Values as users write and read them: addresses with ports, sizes in bytes.

use std::net::{Ipv4Addr, SocketAddrV4, ToSocketAddrs};

use ipvs_mwlc::director::config::{Address, DestKey, Family, ServiceKey, Transport};

/// Parses `HOST:PORT`; the host by name or address, the port by number.
pub fn parse_endpoint(text: &str) -> Result<SocketAddrV4, String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("`{text}` has no port: give ADDRESS:PORT, like 10.0.0.100:80"))?;
    let port = parse_port(port)?;
    Ok(SocketAddrV4::new(parse_host(host)?, port))
}

/// Parses a host by address or name to its first IPv4 address.
pub fn parse_host(host: &str) -> Result<Ipv4Addr, String> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    if host.contains(':') || host.starts_with('[') {
        return Err(format!(
            "`{host}` is IPv6, which the director does not serve yet"
        ));
    }
    let addresses = (host, 0)
        .to_socket_addrs()
        .map_err(|error| format!("host `{host}` is not known: {error}"))?;
    addresses
        .filter_map(|address| match address.ip() {
            std::net::IpAddr::V4(ip) => Some(ip),
            std::net::IpAddr::V6(_) => None,
        })
        .next()
        .ok_or_else(|| format!("host `{host}` has no IPv4 address"))
}

/// Parses a port number.
pub fn parse_port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no port number (0 to 65535)"))
}

/// The service at an endpoint.
pub fn service_key(transport: Transport, endpoint: SocketAddrV4) -> ServiceKey {
    let address = Address::V4(endpoint.ip().octets());
    ServiceKey::endpoint(transport, address, endpoint.port())
}

/// The destination at an endpoint.
pub fn dest_key(endpoint: SocketAddrV4) -> DestKey {
    DestKey {
        address: Address::V4(endpoint.ip().octets()),
        port: endpoint.port(),
    }
}

/// `10.0.0.100:80`.
pub fn show_endpoint(address: Address, port: u16) -> String {
    match address {
        Address::V4(octets) => format!("{}:{port}", Ipv4Addr::from(octets)),
        Address::V6(octets) => format!("[{}]:{port}", std::net::Ipv6Addr::from(octets)),
    }
}

/// `TCP 10.0.0.100:80`, `FWM 7` or `FWM 7 IPv6`, as ipvsadm has it.
pub fn show_service(key: &ServiceKey) -> String {
    format!("{} {}", protocol_name(key), show_service_name(key))
}

/// `TCP`, `UDP`, or `FWM` for a firewall mark.
pub fn protocol_name(key: &ServiceKey) -> &'static str {
    match key {
        ServiceKey::Endpoint(endpoint) => endpoint.transport.name(),
        ServiceKey::Mark(_) => "FWM",
    }
}

/// A service's name without its protocol: `10.0.0.100:80`, `7` or `7 IPv6`.
pub fn show_service_name(key: &ServiceKey) -> String {
    match key {
        ServiceKey::Endpoint(endpoint) => show_endpoint(endpoint.address, endpoint.port),
        ServiceKey::Mark(firewall) => match firewall.family {
            Family::Ipv4 => firewall.mark.to_string(),
            Family::Ipv6 => format!("{} IPv6", firewall.mark),
        },
    }
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
    fn endpoints() {
        let endpoint = parse_endpoint("10.0.0.100:80").unwrap();
        assert_eq!(
            (*endpoint.ip(), endpoint.port()),
            (Ipv4Addr::new(10, 0, 0, 100), 80)
        );
        assert_eq!(
            parse_endpoint("localhost:1").unwrap().ip(),
            &Ipv4Addr::LOCALHOST
        );
        for wrong in [
            "10.0.0.1",
            "10.0.0.1:",
            "10.0.0.1:65536",
            "10.0.0.1:http",
            "[::1]:80",
            ":",
        ] {
            assert!(parse_endpoint(wrong).is_err(), "{wrong}");
        }
        let key = service_key(Transport::Udp, endpoint);
        assert_eq!(show_service(&key), "UDP 10.0.0.100:80");
        let mark = |family| show_service(&ServiceKey::mark(family, 7));
        assert_eq!(mark(Family::Ipv4), "FWM 7");
        assert_eq!(mark(Family::Ipv6), "FWM 7 IPv6");
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
