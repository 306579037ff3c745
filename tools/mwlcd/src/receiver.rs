// SPDX-License-Identifier: MIT
//! On the director: takes nodes' reports from the network and passes them to the module.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use ipvs_mwlc::director::address::Address;
use ipvs_mwlc::director::mwlc_family::encode_node;
use ipvs_mwlc::uapi::mwlc::command;
use mwlcadm::genl::Connection;

use crate::report::{Believed, Key, NodeReport, REPORT_BYTES, decode};

/// The log hears of trouble with reports at most this often.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(10);

/// Starts taking reports on this address, in a thread of its own.
pub fn start(listen: SocketAddr, key: Key, connection: Connection) -> Result<()> {
    let socket = UdpSocket::bind(listen)
        .with_context(|| format!("--listen {listen}: cannot take reports there"))?;
    tracing::info!("taking nodes' reports on {}", socket.local_addr()?);
    thread::Builder::new()
        .name("reports".to_owned())
        .spawn(move || receive(&socket, &key, connection))
        .context("cannot start a thread")?;
    Ok(())
}

fn receive(socket: &UdpSocket, key: &Key, mut connection: Connection) {
    let mut believed = Believed::default();
    let mut complained: Option<Instant> = None;
    // One more than a report, so that a longer datagram is seen to be longer.
    let mut buffer = [0; REPORT_BYTES + 1];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) => {
                tracing::error!("no more reports can be read: {error}");
                return;
            }
        };
        let datagram = buffer.get(..length).unwrap_or_default();
        let believable = decode(datagram, key)
            .and_then(|report| believed.believe(&report, now_ms()).map(|()| report));
        let trouble = match believable {
            Ok(report) => pass_on(&report, &mut connection).err(),
            Err(disbelief) => Some(anyhow::Error::from(disbelief)),
        };
        if let Some(trouble) = trouble {
            if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PERIOD) {
                tracing::warn!("a report from {from} is not used: {trouble:#}");
                complained = Some(Instant::now());
            }
        }
    }
}

fn pass_on(report: &NodeReport, connection: &mut Connection) -> Result<()> {
    tracing::debug!(?report, "report");
    let address = match report.address {
        IpAddr::V4(address) => Address::V4(address.octets()),
        IpAddr::V6(address) => Address::V6(address.octets()),
    };
    let action = format!("passing on the report of {}", report.address);
    connection.act(&action, command::REPORT, |encoder| {
        encode_node(encoder, address, &report.report, None)
    })?;
    Ok(())
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
