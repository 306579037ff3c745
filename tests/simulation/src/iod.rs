// SPDX-License-Identifier: MIT
//! An iod: the real store, server, settler and registration, over a disk in memory.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use pvfs::address::Endpoint;
use pvfs::runtime::net::TcpListener;
use pvfs::runtime::thread;
use pvfs_iod::registration::{Registrar, Registration};
use pvfs_iod::server::{Server, ServerLimits};
use pvfs_iod::store::memory_disk::MemoryDisk;
use pvfs_iod::store::{Settler, Store};

use crate::machine::World;
use crate::mgr;

/// Objects whose files are kept open: few, so that some are closed.
const OPEN_OBJECTS_MAX: usize = 4;
/// Longer than any run.
const FOR_EVER: std::time::Duration = std::time::Duration::from_secs(1 << 30);

/// Where the iod of this number listens.
#[must_use]
pub fn address(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, number)), 7000)
}

/// The process. `directory` is on the host, for the few files beside the objects.
pub fn main(number: u8, disk: MemoryDisk, directory: PathBuf) {
    let outcome = serve(number, disk, directory);
    if let (Some(world), Err(reason)) = (World::current(), outcome) {
        world.fail(format!("iod {number} does not start: {reason}"));
    }
}

fn serve(number: u8, disk: MemoryDisk, directory: PathBuf) -> Result<(), String> {
    let store = Store::open_on(Arc::new(disk), &directory, OPEN_OBJECTS_MAX);
    let store = Arc::new(store.map_err(|error| error.to_string())?);
    let words = |error: std::io::Error| error.to_string();
    let _settler = Settler::start(Arc::clone(&store)).map_err(words)?;
    let listener = TcpListener::bind(address(number)).map_err(words)?;
    // The network that it is on has no reserved ports.
    let limits = ServerLimits {
        insecure_ports: true,
        ..ServerLimits::default()
    };
    let server = Server::start(listener, Arc::clone(&store), limits).map_err(words)?;
    let registration = Registration {
        mgr: Endpoint {
            host: mgr::ADDRESS.ip().to_string(),
            port: mgr::ADDRESS.port(),
        },
        listening: server.address(),
        advertise: None,
        accepts_older: false,
    };
    let _registrar = Registrar::start(registration, store, |_| {}).map_err(words)?;
    loop {
        thread::sleep(FOR_EVER);
    }
}
