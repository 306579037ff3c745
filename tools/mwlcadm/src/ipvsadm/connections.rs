// SPDX-License-Identifier: MIT
//! `-Lc`: the connections, from where ipvsadm has them, `/proc/net/ip_vs_conn`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipvs_mwlc::director::address::Transport;

use super::Listing;
use super::resolve::Resolver;
use crate::error::Error;

/// Where the kernel lists connections, the persistence templates among them.
const PATH: &str = "/proc/net/ip_vs_conn";

/// One line of it.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    protocol: &'a str,
    client: SocketAddr,
    vip: SocketAddr,
    dest: SocketAddr,
    state: &'a str,
    expires_s: u64,
    /// The persistence engine's name and data.
    engine: Option<(&'a str, &'a str)>,
}

/// Writes the listing, line by line as the kernel has it.
pub(super) fn write(
    listing: &Listing,
    resolver: &Resolver,
    output: &mut impl Write,
) -> Result<(), Error> {
    let file = File::open(PATH).map_err(|source| Error::File {
        path: PATH.into(),
        source,
    })?;
    writeln!(output, "{}", title(listing.engine_columns)).map_err(Error::Output)?;
    for line in BufReader::new(file).lines().skip(1) {
        let line = line.map_err(|source| Error::File {
            path: PATH.into(),
            source,
        })?;
        let entry = parse(&line).ok_or_else(|| Error::Reply {
            action: format!("reading {PATH}"),
            what: format!("`{line}` is no connection"),
        })?;
        let shown = show(&entry, listing.engine_columns, resolver);
        writeln!(output, "{shown}").map_err(Error::Output)?;
    }
    Ok(())
}

fn title(engine: bool) -> String {
    let columns = "pro expire state       source             virtual            destination";
    match engine {
        true => format!(
            "IPVS connection entries\n{columns:<79} {:<16} pe_data",
            "pe name"
        ),
        false => format!("IPVS connection entries\n{columns}"),
    }
}

fn parse(line: &str) -> Option<Entry<'_>> {
    let mut words = line.split_ascii_whitespace();
    let protocol = words.next()?;
    let mut endpoint = || {
        let address = address(words.next()?)?;
        let port = u16::from_str_radix(words.next()?, 16).ok()?;
        Some(SocketAddr::new(address, port))
    };
    Some(Entry {
        protocol,
        client: endpoint()?,
        vip: endpoint()?,
        dest: endpoint()?,
        state: words.next()?,
        expires_s: words.next()?.parse().ok()?,
        engine: words.next().zip(words.next()),
    })
}

/// An address of either family, or an IPv4 one as eight hexadecimal digits.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| {
        let bits = u32::from_str_radix(text, 16).ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(bits)))
    })
}

fn show(entry: &Entry<'_>, engine_columns: bool, resolver: &Resolver) -> String {
    let transport = match entry.protocol {
        "TCP" => Some(Transport::Tcp),
        "UDP" => Some(Transport::Udp),
        _ => None,
    };
    let name = |endpoint| resolver.endpoint(endpoint, transport);
    let expire = format!("{:02}:{:02}", entry.expires_s / 60, entry.expires_s % 60);
    let line = format!(
        "{:<3} {expire:<6} {:<11} {:<18} {:<18} ",
        entry.protocol,
        entry.state,
        name(entry.client),
        name(entry.vip)
    );
    match entry.engine {
        Some((engine, data)) if engine_columns => {
            line + &format!("{:<16} {engine:<18} {data}", name(entry.dest))
        }
        _ => line + &name(entry.dest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        show(&parse(line).unwrap(), false, &Resolver::new(true))
    }

    /// What ipvsadm 1.31 prints for the same lines.
    #[test]
    fn lines_of_both_families() {
        assert_eq!(
            shown("TCP 0A000009 9C40 0A000064 0050 0A000001 0050 ESTABLISHED     899"),
            "TCP 14:59  ESTABLISHED 10.0.0.9:40000     10.0.0.100:80      10.0.0.1:80"
        );
        assert_eq!(
            shown("UDP 2001:db8::9 9C40 2001:db8::64 0035 2001:db8::1 0035 UDP 300"),
            "UDP 05:00  UDP         [2001:db8::9]:40000 [2001:db8::64]:53  [2001:db8::1]:53"
        );
        // A template has no port of a client.
        assert_eq!(
            shown("TCP 0A000009 0000 0A000064 0050 0A000001 0050 NONE            3"),
            "TCP 00:03  NONE        10.0.0.9:0         10.0.0.100:80      10.0.0.1:80"
        );
    }

    #[test]
    fn what_is_no_line_is_none() {
        for wrong in ["", "TCP", "TCP 0A000009 XXXX", "TCP x 1 y 2 z 3 S 1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
