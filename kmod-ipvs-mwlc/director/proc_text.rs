// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How the files of IPVS in `/proc/net` spell addresses and services.

use core::fmt::{Display, Formatter, Result};

use crate::director::config::{Address, ServiceKey};

/// An address: IPv4 as eight hexadecimal digits, IPv6 as eight groups of four with nothing left
/// out.
#[derive(Clone, Copy, Debug)]
pub struct ProcAddress(pub Address);

impl Display for ProcAddress {
    fn fmt(&self, to: &mut Formatter<'_>) -> Result {
        match self.0 {
            Address::V4(bytes) => write!(to, "{:08X}", u32::from_be_bytes(bytes)),
            Address::V6(bytes) => {
                let mut separator = "";
                for pair in bytes.chunks_exact(2) {
                    let &[high, low] = pair else { continue };
                    write!(to, "{separator}{high:02x}{low:02x}")?;
                    separator = ":";
                }
                Ok(())
            }
        }
    }
}

/// An address with a port, IPv6 in brackets: `0A000064:0050`.
#[derive(Clone, Copy, Debug)]
pub struct ProcEndpoint(pub Address, pub u16);

impl Display for ProcEndpoint {
    fn fmt(&self, to: &mut Formatter<'_>) -> Result {
        let ProcEndpoint(address, port) = *self;
        match address {
            Address::V4(_) => write!(to, "{}:{port:04X}", ProcAddress(address)),
            Address::V6(_) => write!(to, "[{}]:{port:04X}", ProcAddress(address)),
        }
    }
}

/// A service: `TCP  0A000064:0050`, `FWM  00000007`.
#[derive(Clone, Copy, Debug)]
pub struct ProcService(pub ServiceKey);

impl Display for ProcService {
    fn fmt(&self, to: &mut Formatter<'_>) -> Result {
        match self.0 {
            ServiceKey::Endpoint(endpoint) => {
                let name = endpoint.transport.name();
                let at = ProcEndpoint(endpoint.address, endpoint.port);
                write!(to, "{name}  {at}")
            }
            ServiceKey::Mark(firewall) => write!(to, "FWM  {:08X}", firewall.mark),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::config::{Family, Transport};
    use std::string::ToString;

    #[test]
    fn as_ipvs_spells_them() {
        let four = Address::V4([10, 0, 0, 100]);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        bytes[15] = 0xab;
        let six = Address::V6(bytes);
        assert_eq!(ProcAddress(four).to_string(), "0A000064");
        let long = "2001:0db8:0000:0000:0000:0000:0000:00ab";
        assert_eq!(ProcAddress(six).to_string(), long);
        let shown = |key| ProcService(key).to_string();
        let tcp = ServiceKey::endpoint(Transport::Tcp, four, 80);
        assert_eq!(shown(tcp), "TCP  0A000064:0050");
        let udp = ServiceKey::endpoint(Transport::Udp, six, 443);
        assert_eq!(shown(udp), std::format!("UDP  [{long}]:01BB"));
        let mark = ServiceKey::mark(Family::Ipv4, 7);
        assert_eq!(shown(mark), "FWM  00000007");
    }
}
