// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How the files of IPVS in `/proc/net` spell addresses and services.

use core::fmt::{Display, Formatter, Result};

use crate::director::address::Address;
use crate::director::config::{DestKey, ServiceConfig};
use crate::director::record::ConnectionRecord;
use crate::director::service_key::{Endpoint, ServiceKey, FTP_PORT};

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

/// A service's line with its scheduler, flags and persistence. The timeout is in ticks of the second
/// parameter's frequency, as IPVS has it.
#[derive(Clone, Copy, Debug)]
pub struct ProcServiceLine<'a>(pub &'a ServiceConfig, pub u64);

impl Display for ProcServiceLine<'_> {
    fn fmt(&self, to: &mut Formatter<'_>) -> Result {
        let ProcServiceLine(config, hz) = *self;
        let scheduler = config.scheduler.name();
        write!(to, "{} {scheduler} ", ProcService(config.key))?;
        let ops = if config.is_one_packet() { "ops " } else { "" };
        // IPVS says nothing of one-packet scheduling for IPv6, and puts one more space for IPv4.
        match config.key {
            ServiceKey::Mark(_) => to.write_str(ops)?,
            ServiceKey::Endpoint(Endpoint {
                address: Address::V4(_),
                ..
            }) => write!(to, "{ops} ")?,
            ServiceKey::Endpoint(_) => {}
        }
        if config.is_persistent() {
            let timeout = u64::from(config.timeout_s).saturating_mul(hz);
            let netmask = u32::from_be_bytes(config.netmask.to_bytes());
            write!(to, "persistent {timeout} {netmask:08X}")?;
        }
        to.write_str("\n")
    }
}

/// A connection's line; nothing of one that has ended.
#[derive(Clone, Copy, Debug)]
pub struct ProcConnectionLine<'a>(pub &'a ConnectionRecord);

impl Display for ProcConnectionLine<'_> {
    fn fmt(&self, to: &mut Formatter<'_>) -> Result {
        let ProcConnectionLine(record) = *self;
        let Some(state) = record.word.state() else {
            return Ok(());
        };
        let tuple = record.key.tuple();
        writeln!(
            to,
            "{:<3} {} {:04X} {} {:04X} {} {:04X} {:<11} {:>7}",
            tuple.transport.name(),
            ProcAddress(tuple.source),
            tuple.source_port,
            ProcAddress(tuple.destination),
            tuple.destination_port,
            ProcAddress(record.destination.address),
            // Direct routing does not change it.
            tuple.destination_port,
            state.name(),
            record.expires_ms / 1000,
        )
    }
}

/// The protocol of firewall marks' templates.
const ANY_PROTOCOL: &str = "IP";

/// A persistence template's line among the connections.
#[derive(Clone, Copy, Debug)]
pub struct ProcTemplateLine {
    /// Its service.
    pub service: ServiceKey,
    /// The network of its clients.
    pub network: Address,
    /// Their real server.
    pub destination: DestKey,
    /// Whether a connection of it was established.
    pub assured: bool,
    /// When it ends if nobody asks for it.
    pub expires_s: u64,
}

impl Display for ProcTemplateLine {
    fn fmt(&self, to: &mut Formatter<'_>) -> Result {
        let (protocol, address, port) = match self.service {
            ServiceKey::Endpoint(endpoint) => {
                // Templates of FTP are for every port.
                let port = match endpoint.port {
                    FTP_PORT => 0,
                    port => port,
                };
                (endpoint.transport.name(), endpoint.address, port)
            }
            // The mark stands where the address would, in its first four bytes.
            ServiceKey::Mark(firewall) => {
                let [a, b, c, d] = firewall.mark.to_be_bytes();
                let bytes = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                let address = Address::from_union(firewall.family, bytes);
                (ANY_PROTOCOL, address, 0)
            }
        };
        let to_port = if port == 0 { 0 } else { self.destination.port };
        writeln!(
            to,
            "{protocol:<3} {} 0000 {} {port:04X} {} {to_port:04X} {:<11} {:>7}",
            ProcAddress(self.network),
            ProcAddress(address),
            ProcAddress(self.destination.address),
            if self.assured { "ASSURED" } else { "NONE" },
            self.expires_s,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::address::{Family, Transport};
    use crate::director::config::Forwarding;
    use crate::director::conn::ConnState;
    use crate::director::flags::{SERVICE_ONE_PACKET, SERVICE_PERSISTENT};
    use crate::director::flow::FlowKey;
    use crate::director::netmask::Netmask;
    use crate::director::sched::Scheduler;
    use crate::director::tcp::TcpState;
    use crate::director::word::{Progress, Watch, Word};
    use std::string::{String, ToString};

    const FOUR: Address = Address::V4([10, 0, 0, 100]);

    fn line(key: ServiceKey, flags: u32) -> String {
        let config = ServiceConfig {
            key,
            scheduler: Scheduler::RoundRobin,
            flags,
            timeout_s: 300,
            netmask: Netmask::whole(key.family()),
        };
        ProcServiceLine(&config, 250).to_string()
    }

    /// As the stock module wrote them, spaces at the end included.
    #[test]
    fn lines_of_services() {
        let tcp = ServiceKey::endpoint(Transport::Tcp, FOUR, 80);
        let udp = ServiceKey::endpoint(Transport::Udp, Address::V6([0x11; 16]), 53);
        let mark = ServiceKey::mark(Family::Ipv4, 7);
        let six = "[1111:1111:1111:1111:1111:1111:1111:1111]";
        for (key, flags, expected) in [
            (tcp, 0, "TCP  0A000064:0050 rr  \n".into()),
            (
                tcp,
                SERVICE_PERSISTENT,
                "TCP  0A000064:0050 rr  persistent 75000 FFFFFFFF\n".into(),
            ),
            (udp, 0, std::format!("UDP  {six}:0035 rr \n")),
            (
                udp,
                SERVICE_PERSISTENT,
                std::format!("UDP  {six}:0035 rr persistent 75000 80000000\n"),
            ),
            (mark, SERVICE_ONE_PACKET, "FWM  00000007 rr ops \n".into()),
        ] {
            assert_eq!(line(key, flags), expected);
        }
    }

    #[test]
    fn lines_of_connections() {
        let word = Word::new(
            ConnState::Tcp(TcpState::Established),
            Forwarding::DirectRouting,
            1,
            Watch::default(),
        );
        let record = ConnectionRecord {
            key: FlowKey::ipv4(Transport::Tcp, [10, 0, 0, 9], 40_000, [10, 0, 0, 100], 80),
            destination: DestKey {
                address: Address::V4([10, 0, 0, 21]),
                port: 80,
            },
            word,
            progress: Progress::NONE,
            age_ms: 7,
            idle_ms: 1000,
            expires_ms: 899_999,
        };
        assert_eq!(
            ProcConnectionLine(&record).to_string(),
            "TCP 0A000009 9C40 0A000064 0050 0A000015 0050 ESTABLISHED     899\n"
        );
        let ended = ConnectionRecord {
            word: Word::ENDED,
            ..record
        };
        assert_eq!(ProcConnectionLine(&ended).to_string(), "");
    }

    #[test]
    fn lines_of_templates() {
        let template = |service| {
            let line = ProcTemplateLine {
                service,
                network: Address::V4([10, 0, 0, 0]),
                destination: DestKey {
                    address: Address::V4([10, 0, 0, 21]),
                    port: 80,
                },
                assured: false,
                expires_s: 299,
            };
            line.to_string()
        };
        let at = |port| ServiceKey::endpoint(Transport::Tcp, FOUR, port);
        for (service, expected) in [
            (
                at(80),
                "TCP 0A000000 0000 0A000064 0050 0A000015 0050 NONE            299\n",
            ),
            (
                at(0),
                "TCP 0A000000 0000 0A000064 0000 0A000015 0000 NONE            299\n",
            ),
            (
                at(21),
                "TCP 0A000000 0000 0A000064 0000 0A000015 0000 NONE            299\n",
            ),
            (
                ServiceKey::mark(Family::Ipv4, 7),
                "IP  0A000000 0000 00000007 0000 0A000015 0000 NONE            299\n",
            ),
        ] {
            assert_eq!(template(service), expected);
        }
    }

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
