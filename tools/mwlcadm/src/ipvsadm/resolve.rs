// SPDX-License-Identifier: MIT
//! Addresses and ports as names, unless numbers are asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ipvs_mwlc::director::address::Transport;

use crate::names::ServiceName;

/// Shows endpoints; each address is looked up once.
#[derive(Default)]
pub struct Resolver {
    numeric: bool,
    hosts: RefCell<HashMap<IpAddr, String>>,
}

impl Resolver {
    /// Shows numbers, or names where there are some.
    pub fn new(numeric: bool) -> Resolver {
        Resolver {
            numeric,
            hosts: RefCell::default(),
        }
    }

    /// `10.0.0.1:80` or `web1:http`; IPv6 in brackets.
    pub fn endpoint(&self, endpoint: SocketAddr, transport: Option<Transport>) -> String {
        if self.numeric {
            return endpoint.to_string();
        }
        let host = self.host(endpoint.ip());
        let port = transport
            .and_then(|transport| port_name(endpoint.port(), transport))
            .unwrap_or_else(|| endpoint.port().to_string());
        match endpoint {
            SocketAddr::V4(_) => format!("{host}:{port}"),
            SocketAddr::V6(_) => format!("[{host}]:{port}"),
        }
    }

    /// A service's endpoint or mark.
    pub fn service(&self, name: &ServiceName) -> String {
        match name {
            ServiceName::Address(transport, endpoint) => self.endpoint(*endpoint, Some(*transport)),
            ServiceName::Mark(..) => name.endpoint_text(),
        }
    }

    /// The options that name a service: `-t web:http`.
    pub fn service_options(&self, name: &ServiceName) -> String {
        match name {
            ServiceName::Address(Transport::Tcp, _) => format!("-t {}", self.service(name)),
            ServiceName::Address(Transport::Udp, _) => format!("-u {}", self.service(name)),
            ServiceName::Mark(..) => name.options(),
        }
    }

    fn host(&self, address: IpAddr) -> String {
        let look_up = || dns_lookup::lookup_addr(&address).unwrap_or_else(|_| address.to_string());
        self.hosts
            .borrow_mut()
            .entry(address)
            .or_insert_with(look_up)
            .clone()
    }
}

/// The name of a port in the services database.
fn port_name(port: u16, transport: Transport) -> Option<String> {
    let flags = match transport {
        Transport::Tcp => libc::NI_NUMERICHOST,
        Transport::Udp => libc::NI_NUMERICHOST | libc::NI_DGRAM,
    };
    let any = SocketAddr::from(([0, 0, 0, 0], port));
    let (_, name) = dns_lookup::getnameinfo(&any, flags).ok()?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_or_names() {
        let v6: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(Resolver::new(true).endpoint(v6, None), "[2001:db8::1]:80");
        let local: SocketAddr = "127.0.0.1:22".parse().unwrap();
        let named = Resolver::new(false);
        assert_eq!(named.endpoint(local, Some(Transport::Tcp)), "localhost:ssh");
        assert_eq!(named.endpoint(local, None), "localhost:22");
        let mark = ServiceName::Mark(ipvs_mwlc::director::address::Family::Ipv4, 7);
        assert_eq!(named.service_options(&mark), "-f 7");
    }
}
