// SPDX-License-Identifier: MIT
//! The iods: who they are (durable), where they are and whether they are alive (in memory).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bincode::{Decode, Encode};
use pvfs::address::{Endpoint, IOD_PORT_DEFAULT};
use pvfs::client::silence::{Stage, stage};
use pvfs::error::FsError;
use pvfs::ids::{FileSystemId, IodId};
use pvfs::limits::{IODS_MAX, SILENCE_LOOK_MS};
use pvfs::proto::mgr::IodStatus;
use pvfs::proto::report::{IodReport, IodState};

use crate::namespace::layout::IodSlot;
use crate::placement::{self, Candidate, Totals};

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
    report: IodReport,
    state: IodState,
    /// When it came into that state; 0 is mgr's start.
    since_ms: u64,
    /// For how long it has been silent, as far as mgr could have heard it.
    silent_ms: u64,
    /// It has registered since mgr started.
    registered: bool,
    /// The connection through which it registered is there.
    connected: Option<u64>,
}

impl Known {
    /// It may be busy, but there is no reason to believe that it is gone.
    const fn is_here(&self) -> bool {
        matches!(self.state, IodState::Alive | IodState::Suspect)
    }

    const fn candidate(&self) -> Candidate {
        Candidate {
            state: self.state,
            report: self.report,
        }
    }

    fn status(&self, iod: IodId, now_ms: u64) -> IodStatus {
        IodStatus {
            iod,
            address: self.address.clone(),
            state: self.state,
            state_ms: now_ms.saturating_sub(self.since_ms),
            report: self.report,
        }
    }

    /// Takes what it says; true where that it is heard of is news.
    fn hear(&mut self, report: IodReport, now_ms: u64) -> bool {
        self.report = report;
        self.silent_ms = 0;
        self.change(IodState::Alive, now_ms)
    }

    /// Changes its state; true where that is news.
    fn change(&mut self, state: IodState, now_ms: u64) -> bool {
        let before = std::mem::replace(&mut self.state, state);
        if before != state {
            self.since_ms = now_ms;
        }
        before != state
    }

    /// Says what is about to become of it: once for each change.
    fn log_change(&self, iod: IodId, state: IodState, now_ms: u64) {
        let address = &self.address;
        let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
        let silent_s = seconds(self.silent_ms);
        match (self.state, state) {
            (IodState::Alive, IodState::Suspect) => {
                tracing::warn!("iod {iod} at {address} has said nothing for {silent_s:.1} s");
            }
            (IodState::Suspect, IodState::Away) => {
                tracing::warn!("iod {iod} at {address} is away after {silent_s:.1} s of silence");
            }
            (IodState::Alive, IodState::Away) => {
                tracing::warn!("iod {iod} at {address} is away: its connection ended");
            }
            (IodState::Alive | IodState::Suspect, IodState::Left) => {
                tracing::info!("iod {iod} at {address} stops");
            }
            (IodState::Suspect | IodState::Away | IodState::Left, IodState::Alive) => {
                let away_s = seconds(now_ms.saturating_sub(self.since_ms));
                tracing::info!("iod {iod} at {address} is heard of again after {away_s:.1} s");
            }
            (IodState::Alive, IodState::Alive)
            | (IodState::Suspect | IodState::Away | IodState::Left, _) => {}
        }
    }
}

/// What an entry was before a registration that is not committed yet.
#[derive(Debug)]
pub struct Before(IodId, Option<Known>);

/// The iods that have ever registered.
#[derive(Debug, Default)]
pub struct Registry {
    iods: BTreeMap<IodId, Known>,
    /// When time passed last.
    passed_ms: u64,
    /// Those whose state or address has changed, until clients are told.
    news: BTreeSet<IodId>,
}

impl Registry {
    /// Takes an iod that was found in the store at start.
    pub fn restore(&mut self, iod: IodId, record: IodRecord) {
        let IodRecord { address } = record;
        let known = Known {
            address,
            report: IodReport::UNKNOWN,
            state: IodState::Away,
            since_ms: 0,
            silent_ms: 0,
            registered: false,
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
    pub fn judge(&self, introduction: Introduction<'_>, ours: FileSystemId) -> Result<(), FsError> {
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
            Some(iod) => self.judge_known(iod, file_system, address),
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
    ) -> Result<(), FsError> {
        if file_system.is_none() {
            tracing::warn!("refused iod at {address}: it says it is iod {iod}, but of what?");
            return Err(FsError::InvalidArgument);
        }
        match self.iods.get(&iod) {
            Some(known) if known.address != address && known.is_here() => {
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
        report: IodReport,
        connection: u64,
        now_ms: u64,
    ) -> Before {
        let before = self.iods.get(&iod).cloned();
        let known = self.iods.entry(iod).or_insert_with(|| Known {
            address: address.to_owned(),
            report,
            state: IodState::Away,
            since_ms: now_ms,
            silent_ms: 0,
            registered: false,
            connected: None,
        });
        if known.address != address {
            address.clone_into(&mut known.address);
            self.news.insert(iod);
        }
        if known.registered {
            known.log_change(iod, IodState::Alive, now_ms);
        }
        known.registered = true;
        known.connected = Some(connection);
        if known.hear(report, now_ms) {
            self.news.insert(iod);
        }
        Before(iod, before)
    }

    /// Takes a registration back that could not be stored.
    pub fn undo(&mut self, before: Before) {
        let Before(iod, known) = before;
        self.news.insert(iod);
        match known {
            Some(known) => drop(self.iods.insert(iod, known)),
            None => drop(self.iods.remove(&iod)),
        }
    }

    /// Notes a heartbeat.
    ///
    /// # Errors
    ///
    /// [`FsError::Stale`] for an iod that has not registered since mgr started, or that has said that
    /// it stops: it must register.
    pub fn heartbeat(&mut self, iod: IodId, report: IodReport, now_ms: u64) -> Result<(), FsError> {
        let known = self.iods.get_mut(&iod);
        let known = known.filter(|known| known.registered && known.state != IodState::Left);
        let known = known.ok_or(FsError::Stale)?;
        known.log_change(iod, IodState::Alive, now_ms);
        if known.hear(report, now_ms) {
            self.news.insert(iod);
        }
        Ok(())
    }

    /// Notes that time has passed. Called at least each [`SILENCE_LOOK_MS`], in turn with what has
    /// arrived; no call counts for more than that, so that a mgr that was itself busy or stopped
    /// finds nobody silent.
    pub fn pass(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.passed_ms).min(SILENCE_LOOK_MS);
        self.passed_ms = now_ms;
        for (iod, known) in self.iods.iter_mut().filter(|(_, known)| known.is_here()) {
            known.silent_ms += passed;
            let state = match stage(Duration::from_millis(known.silent_ms)) {
                Stage::Heard => continue,
                Stage::Suspect => IodState::Suspect,
                Stage::Lost => IodState::Away,
            };
            known.log_change(*iod, state, now_ms);
            if known.change(state, now_ms) {
                self.news.insert(*iod);
            }
        }
    }

    /// Notes that a connection is gone: an iod that used it may come back elsewhere at once.
    pub fn disconnected(&mut self, connection: u64, now_ms: u64) {
        self.end(connection, IodState::Away, now_ms);
    }

    /// Notes that whoever uses a connection stops; true where that is an iod.
    pub fn leave(&mut self, connection: u64, now_ms: u64) -> bool {
        self.end(connection, IodState::Left, now_ms)
    }

    fn end(&mut self, connection: u64, state: IodState, now_ms: u64) -> bool {
        let mut found = false;
        for (iod, known) in &mut self.iods {
            if known.connected != Some(connection) {
                continue;
            }
            found = true;
            known.connected = None;
            known.log_change(*iod, state, now_ms);
            if known.change(state, now_ms) {
                self.news.insert(*iod);
            }
        }
        found
    }

    /// What clients have not been told yet.
    pub fn take_news(&mut self, now_ms: u64) -> Vec<IodStatus> {
        let news = std::mem::take(&mut self.news);
        let known = |iod: IodId| Some(self.iods.get(&iod)?.status(iod, now_ms));
        news.into_iter().filter_map(known).collect()
    }

    /// Where an iod is, if it is known.
    #[must_use]
    pub fn address(&self, iod: IodId) -> Option<&str> {
        self.iods.get(&iod).map(|known| known.address.as_str())
    }

    /// Whether an iod is there: heard of, and its silence, if any, is short.
    #[must_use]
    pub fn is_here(&self, iod: IodId) -> bool {
        self.iods.get(&iod).is_some_and(Known::is_here)
    }

    /// All iods in the order of their ids, as the name space sees them.
    #[must_use]
    pub fn slots(&self) -> Vec<IodSlot> {
        let candidates: Vec<Candidate> = self.iods.values().map(Known::candidate).collect();
        let usable = placement::usable(&candidates);
        let slot = |(iod, usable): (&IodId, bool)| IodSlot { iod: *iod, usable };
        self.iods.keys().zip(usable).map(slot).collect()
    }

    /// All iods, as clients see them.
    #[must_use]
    pub fn statuses(&self, now_ms: u64) -> Vec<IodStatus> {
        let status = |(iod, known): (&IodId, &Known)| known.status(*iod, now_ms);
        self.iods.iter().map(status).collect()
    }

    /// What the iods that are there have and can take, together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        placement::totals(self.iods.values().map(Known::candidate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::attr::Space;
    use pvfs::limits::{LOST_AFTER_MS, SUSPECT_AFTER_MS};

    const OURS: FileSystemId = FileSystemId(7);
    const SPACE: Space = Space {
        bytes_total: 10,
        bytes_free: 5,
        bytes_available: 4,
    };
    const REPORT: IodReport = IodReport {
        space: SPACE,
        writable: true,
        ..IodReport::UNKNOWN
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
        registry.judge(introduction, OURS)
    }

    #[test]
    fn judges_introductions() {
        let mut registry = Registry::default();
        registry.register(IodId(1), "a:1", REPORT, 77, 900);
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
        registry.disconnected(77, 1000);
        assert_eq!(
            judge(&registry, Some(1), Some(7), "b:1"),
            Ok(()),
            "it moved"
        );
    }

    /// Time passes in steps as it does, up to `end_ms`.
    fn pass(registry: &mut Registry, end_ms: u64) {
        while registry.passed_ms < end_ms {
            registry.pass(end_ms.min(registry.passed_ms + SILENCE_LOOK_MS));
        }
    }

    fn state(registry: &Registry, iod: u32) -> IodState {
        registry.iods[&IodId(iod)].state
    }

    #[test]
    fn lives_by_heartbeats() {
        let mut registry = Registry::default();
        let address = "h:1".into();
        registry.restore(IodId(2), IodRecord { address });
        assert_eq!(registry.heartbeat(IodId(2), REPORT, 5), Err(FsError::Stale));
        assert_eq!(state(&registry, 2), IodState::Away);
        assert_eq!(registry.totals().space, Space::default());
        registry.register(IodId(2), "h:1", REPORT, 1, 0);
        pass(&mut registry, SUSPECT_AFTER_MS - 1);
        assert_eq!(state(&registry, 2), IodState::Alive);
        pass(&mut registry, SUSPECT_AFTER_MS);
        assert_eq!(state(&registry, 2), IodState::Suspect);
        assert_eq!(
            registry.totals().space,
            SPACE,
            "it is busy, as far as is known"
        );
        let lost = LOST_AFTER_MS;
        pass(&mut registry, lost - 1);
        assert!(registry.is_here(IodId(2)));
        pass(&mut registry, lost);
        assert_eq!(state(&registry, 2), IodState::Away);
        assert_eq!(registry.totals().space, Space::default());
        registry.heartbeat(IodId(2), REPORT, lost + 7).unwrap();
        assert_eq!(state(&registry, 2), IodState::Alive);
        let told = registry.take_news(lost + 10);
        let told: Vec<_> = told.iter().map(|s| (s.state, s.state_ms)).collect();
        assert_eq!(told, [(IodState::Alive, 3)]);
        assert_eq!(registry.take_news(lost + 10), []);
    }

    #[test]
    fn a_registration_can_be_taken_back() {
        let mut registry = Registry::default();
        let first = registry.register(IodId(1), "a:1", REPORT, 1, 0);
        let second = registry.register(IodId(1), "b:1", REPORT, 1, 0);
        registry.undo(second);
        assert_eq!(registry.address(IodId(1)), Some("a:1"));
        registry.undo(first);
        assert_eq!(registry.address(IodId(1)), None);
    }
}
