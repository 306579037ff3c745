// SPDX-License-Identifier: MIT
//! What one address may use of mgr: connections, and memory for requests that have no reply yet. One
//! that is hostile, or out of its mind, takes nothing from the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pvfs::limits::{BODY_BYTES_MAX, READDIR_ENTRIES_MAX, XATTR_VALUE_BYTES_MAX};
use pvfs::proto::mgr::MgrOperation;
use tokio::sync::Semaphore;

/// Connections of one address: a node has one for each mount and each iod, and many nodes may stand
/// behind one address.
pub const CONNECTIONS_PER_PEER_MAX: usize = 1024;
/// Memory for requests of one address from their arrival until their replies are written, KiB.
/// Beyond it, nothing more is read from that address.
pub const PEER_KIB_MAX: usize = 64 << 10;
/// What a directory's entry takes at most in a reply, bytes: the longest name and its attributes.
const ENTRY_BYTES: usize = 512;
/// What the table of the largest file system's iods takes in a reply, bytes.
const IODS_BYTES: usize = 256 << 10;
/// What any other request takes with its reply beside its body, bytes.
const REQUEST_BYTES: usize = 1024;

/// The addresses that have connections, and what each uses.
#[derive(Debug, Default)]
pub struct Peers {
    table: Mutex<HashMap<IpAddr, Peer>>,
}

#[derive(Debug)]
struct Peer {
    connections: usize,
    refused: u64,
    memory: Arc<Semaphore>,
}

/// A connection's place among those of its address, given up when it is dropped.
#[derive(Debug)]
pub struct Place {
    peers: Arc<Peers>,
    address: IpAddr,
    memory: Arc<Semaphore>,
}

impl Peers {
    /// Every change of the table is a single step, so a panic leaves it sound.
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Peer>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection of an address; `None` where it has enough. The log says so
    /// once until it has none left.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut table = self.lock();
        let peer = table.entry(address).or_insert_with(|| Peer {
            connections: 0,
            refused: 0,
            memory: Arc::new(Semaphore::new(PEER_KIB_MAX)),
        });
        if peer.connections >= CONNECTIONS_PER_PEER_MAX {
            peer.refused += 1;
            if peer.refused == 1 {
                tracing::warn!(
                    "{address} has {CONNECTIONS_PER_PEER_MAX} connections: further ones are refused"
                );
            }
            return None;
        }
        peer.connections += 1;
        Some(Place {
            peers: Arc::clone(self),
            address,
            memory: Arc::clone(&peer.memory),
        })
    }
}

impl Place {
    /// The memory of its address, in KiB.
    #[must_use]
    pub const fn memory(&self) -> &Arc<Semaphore> {
        &self.memory
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.peers.lock();
        if let Some(peer) = table.get_mut(&self.address) {
            peer.connections = peer.connections.saturating_sub(1);
            if peer.connections == 0 {
                // Replies that are under way still hold the memory of the one that is forgotten here;
                // they are as many as a connection may have, no more.
                table.remove(&self.address);
            }
        }
    }
}

/// What a body of so many bytes takes while it is received, KiB.
#[must_use]
pub fn kib(bytes: usize) -> u32 {
    // Limits of frames keep this far below the largest u32.
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// What a request takes with its reply, KiB.
#[must_use]
pub fn charge(body_bytes: usize, operation: &MgrOperation) -> u32 {
    let reply = match operation {
        MgrOperation::ReadDirectory { entries_max, .. } => {
            (*entries_max).min(READDIR_ENTRIES_MAX) as usize * ENTRY_BYTES
        }
        MgrOperation::GetXattr { .. } | MgrOperation::ListXattr { .. } => XATTR_VALUE_BYTES_MAX,
        MgrOperation::Hello { .. } | MgrOperation::ListIods => IODS_BYTES,
        MgrOperation::Inspect { .. } | MgrOperation::Backup { .. } => BODY_BYTES_MAX,
        _ => 0,
    };
    kib(body_bytes + REQUEST_BYTES + reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn each_address_has_its_own_places() {
        let peers = Arc::new(Peers::default());
        let (one, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let enter = |address: Ipv4Addr| peers.enter(address.into());
        let mut places: Vec<_> = (0..CONNECTIONS_PER_PEER_MAX)
            .map(|_| enter(one).unwrap())
            .collect();
        assert!(enter(one).is_none());
        assert!(enter(other).is_some());
        places.pop();
        assert!(enter(one).is_some());
        places.clear();
        assert!(peers.lock().is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn the_largest_request_finds_room() {
        let listing = MgrOperation::ReadDirectory {
            inode: pvfs::ids::ROOT_INODE,
            after: 0,
            until: None,
            entries_max: u32::MAX,
            plus: true,
        };
        let most = charge(BODY_BYTES_MAX, &listing) as usize;
        assert!(most * 16 < PEER_KIB_MAX);
        assert_eq!(charge(100, &MgrOperation::KeepAlive), 2);
    }
}
