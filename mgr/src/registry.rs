// SPDX-License-Identifier: MIT
//! The iods: who they are (durable), where they are and whether they are alive (in memory).

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use pvfs::address::{Endpoint, IOD_PORT_DEFAULT};
use pvfs::attr::Space;
use pvfs::error::FsError;
use pvfs::ids::{FileSystemId, IodId};
use pvfs::limits::IODS_MAX;
use pvfs::proto::mgr::IodStatus;

use crate::namespace::layout::IodSlot;

/// An iod is alive if it was heard of within this time: five of its heartbeats.
pub const IOD_SILENCE_MS_MAX: u64 = 10_000;
/// An address is a host name, at most 253 bytes, and a port.
pub const ADDRESS_BYTES_MAX: usize = 300;

/// An iod as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IodRecord {
    /// Where it was at last.
    pub address: String,
}

/// An iod that introduces itself.
#[derive(Clone, Copy, Debug)]
pub struct Introduction<'a> {
    /// Its id, if it has one.
    pub iod: Option<IodId>,
    /// Its file system, if it has one.
    pub file_system: Option<FileSystemId>,
    /// Where it is.
    pub address: &'a str,
}

#[derive(Clone, Debug)]
struct Known {
    address: String,
    space: Space,
    /// When it was heard of since mgr started.
    heard_ms: Option<u64>,
    /// The connection through which it registered is there.
    connected: Option<u64>,
}

impl Known {
    fn alive(&self, now_ms: u64) -> bool {
        self.heard_ms
            .is_some_and(|heard| now_ms.saturating_sub(heard) < IOD_SILENCE_MS_MAX)
    }
}

/// What an entry was before a registration that is not committed yet.
#[derive(Debug)]
pub struct Before(IodId, Option<Known>);

/// See the module.
#[derive(Debug, Default)]
pub struct Registry {
    iods: BTreeMap<IodId, Known>,
}

impl Registry {
    /// Takes an iod that was found in the store at start.
    pub fn restore(&mut self, iod: IodId, record: IodRecord) {
        let IodRecord { address } = record;
        let known = Known {
            address,
            space: Space::default(),
            heard_ms: None,
            connected: None,
        };
        self.iods.insert(iod, known);
    }

    /// Judges an introduction.
    ///
    /// # Errors
    ///
    /// [`FsError::InvalidArgument`] for an address that is none, or an id without a file system;
    /// [`FsError::CrossDevice`] for an iod of another file system; [`FsError::Busy`] for an id that
    /// is alive elsewhere; [`FsError::NoSpace`] for one iod too many.
    pub fn judge(
        &self,
        introduction: Introduction<'_>,
        ours: FileSystemId,
        now_ms: u64,
    ) -> Result<(), FsError> {
        let Introduction {
            iod,
            file_system,
            address,
        } = introduction;
        let endpoint = Endpoint::parse(address, IOD_PORT_DEFAULT);
        if address.len() > ADDRESS_BYTES_MAX || endpoint.is_err() {
            let start: String = address.chars().take(ADDRESS_BYTES_MAX).collect();
            tracing::warn!("refused an iod whose address {start:?} is not HOST:PORT");
            return Err(FsError::InvalidArgument);
        }
        if file_system.is_some_and(|theirs| theirs != ours) {
            tracing::warn!(
                "refused iod at {address}: its data belongs to another file system; \
                 give it an empty --data directory, or the right --mgr"
            );
            return Err(FsError::CrossDevice);
        }
        match iod {
            Some(iod) => self.judge_known(iod, file_system, address, now_ms),
            None if self.iods.len() >= IODS_MAX => {
                tracing::warn!("refused iod at {address}: there are {IODS_MAX} already");
                Err(FsError::NoSpace)
            }
            None => Ok(()),
        }
    }

    fn judge_known(
        &self,
        iod: IodId,
        file_system: Option<FileSystemId>,
        address: &str,
        now_ms: u64,
    ) -> Result<(), FsError> {
        if file_system.is_none() {
            tracing::warn!("refused iod at {address}: it says it is iod {iod}, but of what?");
            return Err(FsError::InvalidArgument);
        }
        match self.iods.get(&iod) {
            Some(known)
                if known.address != address && known.connected.is_some() && known.alive(now_ms) =>
            {
                tracing::warn!(
                    "refused iod at {address}: iod {iod} is alive at {}; \
                     was its data directory copied? stop one of them",
                    known.address
                );
                Err(FsError::Busy)
            }
            _ => Ok(()),
        }
    }

    /// Notes that an iod registered through `connection`. [`Self::undo`] takes it back.
    pub fn register(
        &mut self,
        iod: IodId,
        address: &str,
        space: Space,
        connection: u64,
        now_ms: u64,
    ) -> Before {
        let known = Known {
            address: address.to_owned(),
            space,
            heard_ms: Some(now_ms),
            connected: Some(connection),
        };
        Before(iod, self.iods.insert(iod, known))
    }

    /// Takes a registration back that could not be stored.
    pub fn undo(&mut self, before: Before) {
        match before {
            Before(iod, Some(known)) => drop(self.iods.insert(iod, known)),
            Before(iod, None) => drop(self.iods.remove(&iod)),
        }
    }

    /// Notes a heartbeat.
    ///
    /// # Errors
    ///
    /// [`FsError::Stale`] for an iod that has not registered since mgr started: it must.
    pub fn heartbeat(&mut self, iod: IodId, space: Space, now_ms: u64) -> Result<(), FsError> {
        let known = self
            .iods
            .get_mut(&iod)
            .filter(|known| known.heard_ms.is_some());
        let known = known.ok_or(FsError::Stale)?;
        known.heard_ms = Some(now_ms);
        known.space = space;
        Ok(())
    }

    /// Notes that a connection is gone: an iod that used it may come back elsewhere at once.
    pub fn disconnected(&mut self, connection: u64) {
        for known in self
            .iods
            .values_mut()
            .filter(|known| known.connected == Some(connection))
        {
            known.connected = None;
        }
    }

    /// Where an iod is, if it is known.
    #[must_use]
    pub fn address(&self, iod: IodId) -> Option<&str> {
        self.iods.get(&iod).map(|known| known.address.as_str())
    }

    /// Whether an iod is alive.
    #[must_use]
    pub fn is_alive(&self, iod: IodId, now_ms: u64) -> bool {
        self.iods.get(&iod).is_some_and(|known| known.alive(now_ms))
    }

    /// All iods in the order of their ids, as the name space sees them.
    #[must_use]
    pub fn slots(&self, now_ms: u64) -> Vec<IodSlot> {
        let slot = |(iod, known): (&IodId, &Known)| IodSlot {
            iod: *iod,
            alive: known.alive(now_ms),
        };
        self.iods.iter().map(slot).collect()
    }

    /// All iods, as clients see them.
    #[must_use]
    pub fn statuses(&self, now_ms: u64) -> Vec<IodStatus> {
        let status = |(iod, known): (&IodId, &Known)| IodStatus {
            iod: *iod,
            address: known.address.clone(),
            alive: known.alive(now_ms),
            space: known.space,
        };
        self.iods.iter().map(status).collect()
    }

    /// Space of all live iods together.
    #[must_use]
    pub fn space(&self, now_ms: u64) -> Space {
        let alive = self.iods.values().filter(|known| known.alive(now_ms));
        alive.fold(Space::default(), |sum, known| Space {
            bytes_total: sum.bytes_total.saturating_add(known.space.bytes_total),
            bytes_free: sum.bytes_free.saturating_add(known.space.bytes_free),
            bytes_available: sum
                .bytes_available
                .saturating_add(known.space.bytes_available),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: FileSystemId = FileSystemId(7);
    const SPACE: Space = Space {
        bytes_total: 10,
        bytes_free: 5,
        bytes_available: 4,
    };

    fn judge(
        registry: &Registry,
        iod: Option<u32>,
        fs: Option<u128>,
        address: &str,
    ) -> Result<(), FsError> {
        let introduction = Introduction {
            iod: iod.map(IodId),
            file_system: fs.map(FileSystemId),
            address,
        };
        registry.judge(introduction, OURS, 1000)
    }

    #[test]
    fn judges_introductions() {
        let mut registry = Registry::default();
        registry.register(IodId(1), "a:1", SPACE, 77, 900);
        for (iod, fs, address, expected) in [
            (None, None, "b:1", Ok(())),
            (None, Some(7), "b:1", Ok(())),
            (None, Some(8), "b:1", Err(FsError::CrossDevice)),
            (None, None, "b:0", Err(FsError::InvalidArgument)),
            (None, None, "no address", Err(FsError::InvalidArgument)),
            (Some(1), None, "a:1", Err(FsError::InvalidArgument)),
            (Some(1), Some(7), "a:1", Ok(())),
            (Some(1), Some(7), "b:1", Err(FsError::Busy)),
            (Some(1), Some(8), "a:1", Err(FsError::CrossDevice)),
            (Some(9), Some(7), "z:1", Ok(())),
        ] {
            assert_eq!(
                judge(&registry, iod, fs, address),
                expected,
                "{iod:?} {fs:?} {address}"
            );
        }
        registry.disconnected(77);
        assert_eq!(
            judge(&registry, Some(1), Some(7), "b:1"),
            Ok(()),
            "it moved"
        );
    }

    #[test]
    fn lives_by_heartbeats() {
        let mut registry = Registry::default();
        registry.restore(
            IodId(2),
            IodRecord {
                address: "h:1".into(),
            },
        );
        assert_eq!(registry.heartbeat(IodId(2), SPACE, 5), Err(FsError::Stale));
        assert!(!registry.is_alive(IodId(2), 5));
        registry.register(IodId(2), "h:1", SPACE, 1, 5);
        let end = 5 + IOD_SILENCE_MS_MAX;
        assert!(registry.is_alive(IodId(2), end - 1) && !registry.is_alive(IodId(2), end));
        assert_eq!(registry.space(end - 1), SPACE);
        assert_eq!(registry.space(end), Space::default());
        registry.heartbeat(IodId(2), SPACE, end).unwrap();
        assert!(registry.is_alive(IodId(2), end));
    }

    #[test]
    fn a_registration_can_be_taken_back() {
        let mut registry = Registry::default();
        let first = registry.register(IodId(1), "a:1", SPACE, 1, 0);
        let second = registry.register(IodId(1), "b:1", SPACE, 1, 0);
        registry.undo(second);
        assert_eq!(registry.address(IodId(1)), Some("a:1"));
        registry.undo(first);
        assert_eq!(registry.address(IodId(1)), None);
    }
}
