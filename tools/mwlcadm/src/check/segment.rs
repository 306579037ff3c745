// SPDX-License-Identifier: MIT
//! This machine's interfaces, and who answers on their segments for which address.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{LinkAddr, SockaddrStorage, bind};
use socket2::{Domain, Protocol, Socket, Type};

use super::frames::{Asker, ETHERTYPE_ARP, ETHERTYPE_IPV6, Mac, answer, question};
use crate::error::Error;

/// Every question is asked so often, for a frame may be lost.
const ROUNDS: u32 = 2;
/// An Ethernet frame without its checksum, with room for a tag.
const FRAME_BYTES_MAX: usize = 1522;
/// Linux's number of Ethernet among the kinds of hardware.
const HARDWARE_ETHERNET: u16 = 1;

/// Any port does to ask for a way.
const DISCARD_PORT: u16 = 9;

/// An interface of this machine.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its Ethernet address, where it can be asked on.
    pub link: Option<LinkAddr>,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Its addresses with the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u32)>,
}

/// For each address that somebody answered for: who, and on which interface.
pub type Answers = BTreeMap<IpAddr, BTreeSet<(String, Mac)>>;

impl Interface {
    /// Its Ethernet address.
    pub fn mac(&self) -> Option<Mac> {
        self.link.and_then(|link| link.addr()).map(Mac)
    }

    /// Whether one of its subnets has this address.
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|(own, prefix)| *own != address && same_prefix(*own, address, *prefix))
    }

    /// Who asks for `target` here: by an address of the target's subnet if there is one, never by the
    /// target itself.
    fn asker(&self, target: IpAddr) -> Option<Asker> {
        let others = || self.addresses.iter().filter(move |(own, _)| *own != target);
        let near = others()
            .filter(|(own, prefix)| same_prefix(*own, target, *prefix))
            .chain(others());
        let ipv4 = near.clone().find_map(|(own, _)| match own {
            IpAddr::V4(own) => Some(*own),
            IpAddr::V6(_) => None,
        });
        let ipv6: Option<Ipv6Addr> = near.clone().find_map(|(own, _)| match own {
            IpAddr::V6(own) => Some(*own),
            IpAddr::V4(_) => None,
        });
        Some(Asker {
            mac: self.mac()?,
            ipv4: ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED),
            ipv6,
        })
    }
}

/// Whether two addresses share their first bits.
fn same_prefix(one: IpAddr, other: IpAddr, bits: u32) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let differing = u32::from(one) ^ u32::from(other);
            differing.leading_zeros() >= bits
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let differing = u128::from(one) ^ u128::from(other);
            differing.leading_zeros() >= bits
        }
        _ => false,
    }
}

/// From which address this machine would speak to another; the kernel is asked, and nothing is sent.
/// `None` without a way there.
pub fn source_to(other: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match other {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((other, DISCARD_PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The interfaces that are up, with their addresses.
pub fn interfaces() -> Result<Vec<Interface>, Error> {
    let found = getifaddrs().map_err(|errno| Error::Socket {
        what: "cannot list the interfaces",
        source: errno.into(),
    })?;
    let mut interfaces: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in found {
        if !entry.flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        let interface = interfaces
            .entry(entry.interface_name.clone())
            .or_insert_with(|| Interface {
                name: entry.interface_name.clone(),
                loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
                ..Interface::default()
            });
        let Some(address) = entry.address else {
            continue;
        };
        if let Some(link) = address.as_link_addr() {
            let ethernet = link.hatype() == HARDWARE_ETHERNET && !interface.loopback;
            interface.link = ethernet.then_some(*link);
        } else if let Some(ip) = ip_of(&address) {
            let prefix = entry.netmask.as_ref().and_then(ip_of).map_or(0, ones);
            interface.addresses.push((ip, prefix));
        }
    }
    Ok(interfaces.into_values().collect())
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
        (_, Some(v6)) => Some(IpAddr::V6(v6.ip())),
        (None, None) => None,
    }
}

fn ones(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => u32::from(mask).count_ones(),
        IpAddr::V6(mask) => u128::from(mask).count_ones(),
    }
}

/// Asks for every target on the interfaces that are listed with it, and collects who answers within
/// `wait` after each of two rounds.
pub fn ask(
    interfaces: &[Interface],
    targets: &BTreeMap<IpAddr, BTreeSet<String>>,
    wait: Duration,
) -> Result<Answers, Error> {
    let mut ears = Vec::new();
    for interface in interfaces {
        let asked = |target: &IpAddr| {
            targets
                .get(target)
                .is_some_and(|on| on.contains(&interface.name))
        };
        let wanted: Vec<IpAddr> = targets
            .keys()
            .filter(|target| asked(target))
            .copied()
            .collect();
        for ethertype in [ETHERTYPE_ARP, ETHERTYPE_IPV6] {
            let of_family = |target: &&IpAddr| target.is_ipv4() == (ethertype == ETHERTYPE_ARP);
            let wanted: Vec<IpAddr> = wanted.iter().filter(of_family).copied().collect();
            if let (Some(link), false) = (&interface.link, wanted.is_empty()) {
                ears.push(Ear::open(interface, link, ethertype, wanted)?);
            }
        }
    }
    let mut answers = Answers::new();
    for _ in 0..ROUNDS {
        ears.iter_mut().try_for_each(Ear::ask)?;
        listen(&ears, Instant::now() + wait, &mut answers)?;
    }
    Ok(answers)
}

/// A socket for frames of one protocol on one interface.
struct Ear<'a> {
    interface: &'a Interface,
    socket: Socket,
    wanted: Vec<IpAddr>,
}

impl<'a> Ear<'a> {
    fn open(
        interface: &'a Interface,
        link: &LinkAddr,
        ethertype: u16,
        wanted: Vec<IpAddr>,
    ) -> Result<Ear<'a>, Error> {
        let protocol = Protocol::from(i32::from(ethertype.to_be()));
        let socket = Socket::new(
            Domain::PACKET,
            Type::RAW.cloexec().nonblocking(),
            Some(protocol),
        )
        .map_err(|source| Error::Socket {
            what: "no socket for Ethernet frames (CAP_NET_RAW is needed)",
            source,
        })?;
        // The address names the interface; its protocol is left as the socket has it.
        bind(socket.as_raw_fd(), link).map_err(|errno| Error::Socket {
            what: "the socket for Ethernet frames cannot be bound",
            source: errno.into(),
        })?;
        Ok(Ear {
            interface,
            socket,
            wanted,
        })
    }

    fn ask(&mut self) -> Result<(), Error> {
        let questions: Vec<Vec<u8>> = self
            .wanted
            .iter()
            .filter_map(|target| question(&self.interface.asker(*target)?, *target))
            .collect();
        for frame in questions {
            (&self.socket)
                .write_all(&frame)
                .map_err(|source| Error::Socket {
                    what: "an Ethernet frame cannot be sent",
                    source,
                })?;
        }
        Ok(())
    }

    /// Takes in every frame that has come.
    fn hear(&self, answers: &mut Answers) -> Result<(), Error> {
        let mut frame = [0; FRAME_BYTES_MAX];
        loop {
            let length = match (&self.socket).read(&mut frame) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(source) => {
                    return Err(Error::Socket {
                        what: "Ethernet frames cannot be received",
                        source,
                    });
                }
            };
            let heard = frame.get(..length).and_then(answer);
            if let Some((address, mac)) = heard.filter(|(address, _)| self.wanted.contains(address))
            {
                let who = (self.interface.name.clone(), mac);
                answers.entry(address).or_default().insert(who);
            }
        }
    }
}

fn listen(ears: &[Ear<'_>], until: Instant, answers: &mut Answers) -> Result<(), Error> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // A fraction of a millisecond is waited for wholly.
        let timeout =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        if left.is_zero() {
            return Ok(());
        }
        let mut ready: Vec<PollFd<'_>> = ears
            .iter()
            .map(|ear| PollFd::new(ear.socket.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut ready, timeout).map_err(|errno| Error::Socket {
            what: "waiting for Ethernet frames failed",
            source: errno.into(),
        })?;
        ears.iter().try_for_each(|ear| ear.hear(answers))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(addresses: &[(&str, u32)]) -> Interface {
        let parse = |(address, prefix): &(&str, u32)| (address.parse().unwrap(), *prefix);
        Interface {
            name: "eth0".to_owned(),
            addresses: addresses.iter().map(parse).collect(),
            ..Interface::default()
        }
    }

    #[test]
    fn subnets() {
        let eth0 = interface(&[("10.0.0.1", 24), ("10.0.0.100", 32), ("2001:db8::1", 64)]);
        for (address, reached) in [
            ("10.0.0.21", true),
            ("10.0.0.100", true),
            ("10.0.1.21", false),
            ("2001:db8::21", true),
            ("2001:db9::21", false),
        ] {
            assert_eq!(eth0.reaches(address.parse().unwrap()), reached, "{address}");
        }
        // The whole of an address is no subnet.
        assert!(!interface(&[("10.0.0.100", 32)]).reaches([10, 0, 0, 21].into()));
        assert!(interface(&[("10.0.0.1", 0)]).reaches([192, 168, 0, 1].into()));
    }

    #[test]
    fn this_machine_has_a_loopback_interface() {
        let all = interfaces().unwrap();
        let lo = all.iter().find(|interface| interface.loopback).unwrap();
        assert!(lo.addresses.contains(&([127, 0, 0, 1].into(), 8)));
        assert_eq!(lo.mac(), None);
    }
}
