// SPDX-License-Identifier: MIT
//! What names a virtual service, on the command line and on the wire.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipvs_mwlc::director::address::{Address, Family, Transport};
use ipvs_mwlc::director::errno::{Errno, Reject};
use ipvs_mwlc::director::netlink::{Attribute, AttributeTable, Encoder, Full};
use ipvs_mwlc::uapi::ipvs::service;

/// Answers are refused with one errno, which nobody sees: their message is what matters.
pub(crate) const INVALID: Errno = Errno::Invalid;

/// A virtual service's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceName {
    /// Packets to this address; port 0 is every port that has no service of its own.
    Address(Transport, SocketAddr),
    /// Packets of this family that the firewall marked so.
    Mark(Family, u32),
}

impl ServiceName {
    /// The family of its clients.
    pub fn family(&self) -> Family {
        match self {
            ServiceName::Address(_, endpoint) => address(endpoint.ip()).family(),
            ServiceName::Mark(family, _) => *family,
        }
    }

    /// The transport, unless it is a firewall mark's, which has any.
    pub const fn transport(&self) -> Option<Transport> {
        match self {
            ServiceName::Address(transport, _) => Some(*transport),
            ServiceName::Mark(..) => None,
        }
    }

    /// The port that a real server gets which is given without one.
    pub const fn port(&self) -> u16 {
        match self {
            ServiceName::Address(_, endpoint) => endpoint.port(),
            ServiceName::Mark(..) => 0,
        }
    }

    /// The options that name it: `-t 10.0.0.100:80`, `-f 7 -6`.
    pub fn options(&self) -> String {
        match self {
            ServiceName::Address(Transport::Tcp, endpoint) => format!("-t {endpoint}"),
            ServiceName::Address(Transport::Udp, endpoint) => format!("-u {endpoint}"),
            ServiceName::Mark(Family::Ipv4, mark) => format!("-f {mark}"),
            ServiceName::Mark(Family::Ipv6, mark) => format!("-f {mark} -6"),
        }
    }

    /// `TCP`, `UDP` or `FWM`.
    pub const fn protocol_name(&self) -> &'static str {
        match self {
            ServiceName::Address(transport, _) => transport.name(),
            ServiceName::Mark(..) => "FWM",
        }
    }

    /// `10.0.0.100:80`, `[2001:db8::1]:80`, `7` or `7 IPv6`.
    pub fn endpoint_text(&self) -> String {
        match self {
            ServiceName::Address(_, endpoint) => endpoint.to_string(),
            ServiceName::Mark(Family::Ipv4, mark) => mark.to_string(),
            ServiceName::Mark(Family::Ipv6, mark) => format!("{mark} IPv6"),
        }
    }

    /// ipvsadm's order: marks, families, protocols, addresses, ports.
    fn sort_key(&self) -> (u32, u16, u8, Option<IpAddr>, u16) {
        let family = self.family().number();
        match self {
            ServiceName::Address(transport, endpoint) => (
                0,
                family,
                transport.number(),
                Some(endpoint.ip()),
                endpoint.port(),
            ),
            ServiceName::Mark(_, mark) => (*mark, family, 0, None, 0),
        }
    }

    /// Writes the attributes that name it; both families number them alike but for the mark.
    pub(crate) fn encode(&self, encoder: &mut Encoder<'_>, mark_kind: u16) -> Result<(), Full> {
        encoder.u16(service::AF, self.family().number())?;
        match self {
            ServiceName::Address(transport, endpoint) => {
                encoder.u16(service::PROTOCOL, u16::from(transport.number()))?;
                encoder.bytes(service::ADDR, &address(endpoint.ip()).to_union())?;
                encoder.be16(service::PORT, endpoint.port())
            }
            ServiceName::Mark(_, mark) => encoder.u32(mark_kind, *mark),
        }
    }

    /// Reads what [`ServiceName::encode`] writes.
    pub(crate) fn parse<const N: usize>(
        table: &AttributeTable<'_, N>,
        mark_kind: u16,
    ) -> Result<ServiceName, Reject> {
        let family = table.require(service::AF, c"a service has no family")?;
        if let Some(mark) = table.get(mark_kind) {
            return Ok(ServiceName::Mark(parse_family(family)?, mark.u32()?));
        }
        let protocol = table.require(service::PROTOCOL, c"a service has no protocol")?;
        let address = table.require(service::ADDR, c"a service has no address")?;
        let port = table.require(service::PORT, c"a service has no port")?;
        let ip = parse_ip(family, address)?;
        let endpoint = SocketAddr::new(ip, port.be16()?);
        Ok(ServiceName::Address(parse_transport(protocol)?, endpoint))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {}",
            self.protocol_name(),
            self.endpoint_text()
        )
    }
}

impl Ord for ServiceName {
    fn cmp(&self, other: &ServiceName) -> Ordering {
        self.sort_key().cmp(&other.sort_key())
    }
}

impl PartialOrd for ServiceName {
    fn partial_cmp(&self, other: &ServiceName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The director's form of an address.
pub(crate) const fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => Address::V4(ip.octets()),
        IpAddr::V6(ip) => Address::V6(ip.octets()),
    }
}

/// The standard library's form of an address.
pub(crate) fn ip(address: Address) -> IpAddr {
    match address {
        Address::V4(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
        Address::V6(octets) => IpAddr::V6(Ipv6Addr::from(octets)),
    }
}

pub(crate) fn parse_family(family: &Attribute<'_>) -> Result<Family, Reject> {
    Family::from_number(family.u16()?)
        .ok_or(family.reject(INVALID, c"an address has an unknown family"))
}

pub(crate) fn parse_ip(family: &Attribute<'_>, address: &Attribute<'_>) -> Result<IpAddr, Reject> {
    let bytes = address.array(c"an address has a wrong length")?;
    Ok(ip(Address::from_union(parse_family(family)?, bytes)))
}

pub(crate) fn parse_transport(protocol: &Attribute<'_>) -> Result<Transport, Reject> {
    Transport::from_number(protocol.u16()?)
        .ok_or(protocol.reject(INVALID, c"a service has an unknown protocol"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipvs_mwlc::director::netlink::Attributes;

    fn tcp(endpoint: &str) -> ServiceName {
        ServiceName::Address(Transport::Tcp, endpoint.parse().unwrap())
    }

    #[test]
    fn names_survive_the_wire() {
        for name in [
            tcp("10.0.0.100:80"),
            tcp("[2001:db8::1]:0"),
            ServiceName::Mark(Family::Ipv6, 7),
        ] {
            let mut buffer = [0; 128];
            let mut encoder = Encoder::new(&mut buffer);
            name.encode(&mut encoder, service::FWMARK).unwrap();
            let table = Attributes::new(encoder.written()).table::<13>().unwrap();
            assert_eq!(ServiceName::parse(&table, service::FWMARK), Ok(name));
        }
    }

    #[test]
    fn they_sort_and_read_as_ipvsadm_has_them() {
        let udp = ServiceName::Address(Transport::Udp, "10.0.0.2:53".parse().unwrap());
        let mut names = [
            ServiceName::Mark(Family::Ipv4, 2),
            tcp("[::1]:80"),
            udp,
            tcp("10.0.0.10:80"),
            tcp("10.0.0.9:90"),
            tcp("10.0.0.9:80"),
            ServiceName::Mark(Family::Ipv4, 1),
        ];
        names.sort();
        let options: Vec<String> = names.iter().map(ServiceName::options).collect();
        let expected = [
            "-t 10.0.0.9:80",
            "-t 10.0.0.9:90",
            "-t 10.0.0.10:80",
            "-u 10.0.0.2:53",
            "-t [::1]:80",
            "-f 1",
            "-f 2",
        ];
        assert_eq!(options, expected);
        assert_eq!(ServiceName::Mark(Family::Ipv6, 7).options(), "-f 7 -6");
        assert_eq!(tcp("[::1]:80").to_string(), "TCP [::1]:80");
    }
}
