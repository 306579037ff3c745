// SPDX-License-Identifier: MIT
//! The iods: who they are (durable), where they are and whether they are alive (in memory).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use pvfs::address::{Endpoint, IOD_PORT_DEFAULT};
use pvfs::client::silence::{Stage, stage};
use pvfs::error::FsError;
use pvfs::ids::{FileSystemId, IodId};
use pvfs::limits::{BODY_BYTES_MAX, IODS_MAX, SILENCE_LOOK_MS};
use pvfs::proto::mgr::IodStatus;
use pvfs::proto::report::{DiskId, IodReport, IodState};
use pvfs::proto::seal::Reign;

use crate::namespace::layout::IodSlot;
use crate::placement::{self, Candidate, Placed, Placement, Totals};
use crate::seals::{self, Claim, IodRecord, Step};

/// An address is a host name, at most 253 bytes, and a port.
pub const ADDRESS_BYTES_MAX: usize = 300;
/// All addresses together: with them the table of all iods fits the reply to a greeting beside the
/// most locks that it may name.
pub const ADDRESSES_BYTES_MAX: usize = 96 << 10;
/// What an iod takes in that table beside its address, bytes.
const STATUS_BYTES_MAX: usize = 104;
/// Iods that one peer may add: a machine with as many disks. So none fills the table alone.
pub const IODS_PER_PEER_MAX: usize = 128;
/// A refusal that the log has had is said again after this time.
const REFUSAL_SAID_MS: u64 = 60_000;

const _: () = assert!(
    ADDRESSES_BYTES_MAX + IODS_MAX * STATUS_BYTES_MAX <= BODY_BYTES_MAX / 2
        && IODS_PER_PEER_MAX * ADDRESS_BYTES_MAX <= ADDRESSES_BYTES_MAX / 2
);

/// An iod that introduces itself.
#[derive(Clone, Copy, Debug)]
pub struct Introduction<'a> {
    /// Its id, if it has one.
    pub iod: Option<IodId>,
    /// Its file system, if it has one.
    pub file_system: Option<FileSystemId>,
    /// Which run of it, and what its data directory holds.
    pub claim: Claim,
    /// Where it is.
    pub address: &'a str,
    /// Who says so.
    pub peer: IpAddr,
}

/// Under what introductions are judged.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Which file system this is.
    pub file_system: FileSystemId,
    /// Which start of mgr.
    pub reign: Reign,
    /// The number that the next new iod will get: no larger one was given out.
    pub iod_next: u32,
}

#[derive(Clone, Debug)]
struct Known {
    record: IodRecord,
    report: IodReport,
    /// What was placed there since that report.
    placed: Placed,
    /// Files that were placed between it and the one before: their stripes may not have been made yet.
    files_before: u64,
    state: IodState,
    /// When it came into that state; 0 is mgr's start.
    since_ms: u64,
    /// For how long it has been silent, as far as mgr could have heard it.
    silent_ms: u64,
    /// It has registered since mgr started.
    registered: bool,
    /// The connection through which it registered is there.
    connected: Option<u64>,
    /// Somebody else has come with its seal: it is to get another before that one can have its place.
    contested: bool,
}

impl Known {
    /// One that has not been heard of.
    const fn absent(record: IodRecord, now_ms: u64) -> Self {
        Self {
            record,
            report: IodReport::UNKNOWN,
            placed: Placed { files: 0, bytes: 0 },
            files_before: 0,
            state: IodState::Away,
            since_ms: now_ms,
            silent_ms: 0,
            registered: false,
            connected: None,
            contested: false,
        }
    }

    fn judge(&self, claim: &Claim, address: &str, rule: &Rule) -> Result<Step, (FsError, String)> {
        let step = seals::judge(&self.record, claim, rule.reign).map_err(|refusal| {
            let error = match refusal.is_of_the_iod() {
                true => FsError::Superseded,
                false => FsError::Deposed,
            };
            (error, refusal.to_string())
        })?;
        if step == Step::AcceptOlder && self.is_here() {
            let reason =
                "one with a newer directory is alive: --accept-older is for when that is lost";
            return Err((FsError::Superseded, reason.to_owned()));
        }
        let is_other = self.record.incarnation != claim.incarnation;
        // At its own address there can be but one.
        if is_other && self.is_here() && self.record.address != address {
            let reason = format!(
                "it is alive at {}; was its data directory copied? stop one of them",
                self.record.address
            );
            return Err((FsError::Busy, reason));
        }
        match step {
            Step::Admit if self.contested => Ok(Step::Renew),
            step => Ok(step),
        }
    }

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

    /// What its report does not have yet.
    const fn unreported(&self) -> Placed {
        self.placed.with(Placed {
            files: self.files_before,
            bytes: 0,
        })
    }

    fn status(&self, iod: IodId, now_ms: u64) -> IodStatus {
        IodStatus {
            iod,
            address: self.record.address.clone(),
            incarnation: self.record.incarnation,
            state: self.state,
            state_ms: now_ms.saturating_sub(self.since_ms),
            report: self.report,
        }
    }

    /// Takes what it says; true where that it is heard of is news.
    fn hear(&mut self, report: IodReport, now_ms: u64) -> bool {
        self.report = report;
        self.files_before = std::mem::take(&mut self.placed).files;
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
        let address = &self.record.address;
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
    /// Those whose state, address or run has changed, until clients are told.
    news: BTreeSet<IodId>,
    /// The last refusal that the log has, and when it came.
    refusal: (String, u64),
}

impl Registry {
    /// Takes an iod that was found in the store at start.
    pub fn restore(&mut self, iod: IodId, record: IodRecord) {
        self.iods.insert(iod, Known::absent(record, 0));
    }

    /// Judges an introduction; of a new iod, none of whose records is there, `None`.
    ///
    /// # Errors
    ///
    /// [`FsError::InvalidArgument`] for an address that is none, or an id without a file system;
    /// [`FsError::CrossDevice`] for an iod of another file system; [`FsError::Busy`] for an id that
    /// is alive elsewhere; [`FsError::NoSpace`] for one iod too many; [`FsError::Superseded`] and
    /// [`FsError::Deposed`] as [`seals::judge`] says. The log has each in words.
    pub fn judge(
        &mut self,
        introduction: &Introduction<'_>,
        rule: &Rule,
        now_ms: u64,
    ) -> Result<Option<Step>, FsError> {
        let judged = self.look(introduction, rule);
        let known = introduction.iod.and_then(|iod| self.iods.get_mut(&iod));
        if let (Some(known), Err((FsError::Busy, _))) = (known, &judged) {
            known.contested = true;
        }
        judged.map_err(|(error, reason)| {
            let (who, address) = (introduction.iod, introduction.address);
            let start: String = address.chars().take(ADDRESS_BYTES_MAX).collect();
            let who = who.map_or_else(|| "an iod".to_owned(), |iod| format!("iod {iod}"));
            let said = format!(
                "refused {who} at {start:?} (from {}): {reason}",
                introduction.peer
            );
            let (last, said_ms) = &self.refusal;
            if *last != said || now_ms >= said_ms.saturating_add(REFUSAL_SAID_MS) {
                tracing::warn!("{said}");
                self.refusal = (said, now_ms);
            }
            error
        })
    }

    fn look(
        &self,
        introduction: &Introduction<'_>,
        rule: &Rule,
    ) -> Result<Option<Step>, (FsError, String)> {
        let Introduction {
            iod,
            file_system,
            claim,
            address,
            peer,
        } = introduction;
        let no = |error, reason: &str| Err((error, reason.to_owned()));
        let endpoint = Endpoint::parse(address, IOD_PORT_DEFAULT);
        if address.len() > ADDRESS_BYTES_MAX || endpoint.is_err() {
            return no(FsError::InvalidArgument, "its address is not HOST:PORT");
        }
        if file_system.is_some_and(|theirs| theirs != rule.file_system) {
            return no(
                FsError::CrossDevice,
                "its data belongs to another file system; give it a new --data directory, or the \
                 right --mgr",
            );
        }
        let known = iod.and_then(|iod| self.iods.get(&iod));
        let step = match iod {
            None => None,
            Some(_) if file_system.is_none() => {
                let reason = "it says which iod it is, and not of what";
                return no(FsError::InvalidArgument, reason);
            }
            Some(iod) => Some(match known {
                Some(known) => known.judge(claim, address, rule)?,
                None => judge_unknown(*iod, claim, rule)?,
            }),
        };
        if known.is_none() {
            let added = self.iods.values().map(|known| known.record.founder);
            if self.iods.len() >= IODS_MAX {
                let reason = format!("there are {IODS_MAX} already");
                return Err((FsError::NoSpace, reason));
            }
            if added.filter(|founder| founder == peer).count() >= IODS_PER_PEER_MAX {
                let reason = format!("its machine has added {IODS_PER_PEER_MAX} already");
                return Err((FsError::NoSpace, reason));
            }
        }
        let others = self.iods.iter().filter(|(id, _)| Some(**id) != *iod);
        let addresses: usize = others.map(|(_, known)| known.record.address.len()).sum();
        if addresses + address.len() > ADDRESSES_BYTES_MAX {
            return no(
                FsError::NoSpace,
                "the addresses of all iods together are too long",
            );
        }
        Ok(step)
    }

    /// What is known of an iod, as it is stored.
    #[must_use]
    pub fn record(&self, iod: IodId) -> Option<&IodRecord> {
        self.iods.get(&iod).map(|known| &known.record)
    }

    /// Notes what an iod was given; it is not there before it comes with that. [`Self::undo`] takes
    /// it back.
    pub fn give(&mut self, iod: IodId, record: IodRecord, now_ms: u64) -> Before {
        let before = self.iods.get(&iod).cloned();
        let known = self.iods.entry(iod);
        let known = known.or_insert_with(|| Known::absent(record.clone(), now_ms));
        // A mere restart of mgr is no news: the run is the same, and clients go on with it.
        if known.record.incarnation != record.incarnation {
            let address = &record.address;
            tracing::info!("iod {iod} at {address} has been started: it waits for its admission");
            known.connected = None;
            known.change(IodState::Away, now_ms);
            self.news.insert(iod);
        }
        known.record = record;
        known.contested = false;
        Before(iod, before)
    }

    /// Notes that an iod is admitted, through `connection`. [`Self::undo`] takes it back.
    pub fn admit(
        &mut self,
        iod: IodId,
        record: IodRecord,
        report: IodReport,
        connection: u64,
        now_ms: u64,
    ) -> Before {
        let before = self.iods.get(&iod).cloned();
        let known = self.iods.entry(iod);
        let known = known.or_insert_with(|| Known::absent(record.clone(), now_ms));
        if known.record.address != record.address || known.record.incarnation != record.incarnation
        {
            self.news.insert(iod);
        }
        known.record = record;
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
    /// [`FsError::Stale`] for an iod that was not admitted through `connection`, that has said that
    /// it stops, or whose seal somebody else has: it must register.
    pub fn heartbeat(
        &mut self,
        iod: IodId,
        report: IodReport,
        connection: u64,
        now_ms: u64,
    ) -> Result<(), FsError> {
        let known = self.iods.get_mut(&iod);
        let known = known.filter(|known| known.connected == Some(connection) && !known.contested);
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
        self.iods
            .get(&iod)
            .map(|known| known.record.address.as_str())
    }

    /// Whether an iod is there: heard of, and its silence, if any, is short.
    #[must_use]
    pub fn is_here(&self, iod: IodId) -> bool {
        self.iods.get(&iod).is_some_and(Known::is_here)
    }

    /// All iods in the order of their ids, as the name space sees them.
    #[must_use]
    pub fn slots(&self) -> Vec<IodSlot> {
        // Several iods may share a disk.
        let mut disks: BTreeMap<DiskId, Placed> = BTreeMap::new();
        for known in self.iods.values() {
            if let Some(disk) = known.report.disk {
                let placed = disks.entry(disk).or_default();
                *placed = placed.with(known.unreported());
            }
        }
        let candidate = |known: &Known| {
            let on_disk = known.report.disk.and_then(|disk| disks.get(&disk).copied());
            let placed = on_disk.unwrap_or_else(|| known.unreported());
            Candidate {
                report: placed.taken_from(known.report),
                ..known.candidate()
            }
        };
        let candidates: Vec<Candidate> = self.iods.values().map(candidate).collect();
        let usable = placement::usable(&candidates);
        let slot = |(iod, usable): (&IodId, bool)| IodSlot { iod: *iod, usable };
        self.iods.keys().zip(usable).map(slot).collect()
    }

    /// Notes what was placed, until the iods' reports have it.
    pub fn note_placed(&mut self, placement: &Placement) {
        for (iod, placed) in placement.parts() {
            if let Some(known) = self.iods.get_mut(&iod) {
                known.placed = known.placed.with(placed);
            }
        }
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

/// Judges an iod with a number of which there is no record: only a store that was restored from a
/// backup lacks that of an iod which it numbered.
fn judge_unknown(iod: IodId, claim: &Claim, rule: &Rule) -> Result<Step, (FsError, String)> {
    let Reign { era, .. } = rule.reign;
    let is_earlier = claim.held.is_some_and(|held| held.reign.era < era);
    if is_earlier && iod.0 < rule.iod_next {
        return Ok(Step::Adopt);
    }
    let reason = "this store has given nobody that number: it is a copy, or was restored from a backup \
                  (then start pvfs-mgr once with --new-era), or the iod has the wrong --mgr";
    Err((FsError::Deposed, reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::attr::Space;
    use pvfs::ids::Incarnation;
    use pvfs::layout::Layout;
    use pvfs::limits::{LOST_AFTER_MS, SUSPECT_AFTER_MS};
    use pvfs::proto::seal::Seal;

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

    const REIGN: Reign = Reign {
        era: 0,
        starts: 1,
        nonce: 2,
    };
    const SEAL: Seal = Seal {
        reign: REIGN,
        number: 1,
        secret: 3,
    };

    fn record(address: &str) -> IodRecord {
        IodRecord {
            address: address.into(),
            founder: [10, 0, 0, 1].into(),
            incarnation: Incarnation(1),
            seal: SEAL,
            before: None,
            confirmed: true,
        }
    }

    #[test]
    fn what_was_placed_counts_until_the_disk_reports_it() {
        let disk = |device| Some(DiskId { boot: 1, device });
        let report = |device| IodReport {
            space: Space {
                bytes_total: 100 << 20,
                bytes_free: 50 << 20,
                bytes_available: 50 << 20,
            },
            inodes_total: 4000,
            inodes_free: 2000,
            disk: disk(device),
            ..REPORT
        };
        let mut registry = Registry::default();
        // Two on one disk.
        for (iod, device) in [(1, 1), (2, 1), (3, 2)] {
            registry.admit(IodId(iod), record("a:1"), report(device), iod.into(), 0);
        }
        let usable = |registry: &Registry| -> Vec<bool> {
            registry.slots().iter().map(|slot| slot.usable).collect()
        };
        assert_eq!(usable(&registry), [true; 3]);
        let on = |iods: &[u32], end_before, end| Placement {
            layout: Layout::new(4096, 0, iods.iter().copied().map(IodId).collect()).unwrap(),
            end_before,
            end,
        };
        registry.note_placed(&on(&[1], Some(1 << 20), 46 << 20));
        assert_eq!(usable(&registry), [false, false, true], "5 MiB are left");
        registry.heartbeat(IodId(1), report(1), 1, 1).unwrap();
        assert_eq!(usable(&registry), [true; 3], "the report has them");
        for _ in 0..900 {
            registry.note_placed(&on(&[3], None, 0));
        }
        assert_eq!(usable(&registry), [true, true, false]);
        registry.heartbeat(IodId(3), report(2), 3, 2).unwrap();
        assert_eq!(
            usable(&registry),
            [true, true, false],
            "nobody has written to them yet"
        );
        registry.heartbeat(IodId(3), report(2), 3, 3).unwrap();
        assert_eq!(usable(&registry), [true; 3]);
    }

    fn judge(
        registry: &mut Registry,
        iod: Option<u32>,
        fs: Option<u128>,
        address: &str,
    ) -> Result<Option<Step>, FsError> {
        let introduction = Introduction {
            iod: iod.map(IodId),
            file_system: fs.map(FileSystemId),
            claim: Claim {
                held: iod.map(|_| SEAL),
                incarnation: Incarnation(2),
                accepts_older: false,
            },
            address,
            peer: [10, 0, 0, 2].into(),
        };
        let rule = Rule {
            file_system: OURS,
            reign: REIGN,
            iod_next: 9,
        };
        registry.judge(&introduction, &rule, 0)
    }

    #[test]
    fn judges_introductions() {
        let mut registry = Registry::default();
        registry.admit(IodId(1), record("a:1"), REPORT, 77, 900);
        for (iod, fs, address, expected) in [
            (None, None, "b:1", Ok(None)),
            (None, Some(7), "b:1", Ok(None)),
            (None, Some(8), "b:1", Err(FsError::CrossDevice)),
            (None, None, "b:0", Err(FsError::InvalidArgument)),
            (None, None, "no address", Err(FsError::InvalidArgument)),
            (Some(1), None, "a:1", Err(FsError::InvalidArgument)),
            (Some(1), Some(7), "a:1", Ok(Some(Step::Renew))),
            (Some(1), Some(7), "b:1", Err(FsError::Busy)),
            (Some(1), Some(8), "a:1", Err(FsError::CrossDevice)),
            (Some(8), Some(7), "z:1", Err(FsError::Deposed)),
        ] {
            assert_eq!(
                judge(&mut registry, iod, fs, address),
                expected,
                "{iod:?} {fs:?} {address}"
            );
        }
        registry.disconnected(77, 1000);
        let moved = judge(&mut registry, Some(1), Some(7), "b:1");
        assert_eq!(moved, Ok(Some(Step::Renew)));
    }

    #[test]
    fn the_addresses_of_all_iods_fit_a_greeting() {
        let mut registry = Registry::default();
        let address = format!("{}:1", "a".repeat(ADDRESS_BYTES_MAX - 2));
        let mut id = 1;
        while (id as usize - 1) * address.len() + address.len() <= ADDRESSES_BYTES_MAX {
            assert_eq!(judge(&mut registry, None, None, &address), Ok(None));
            registry.restore(IodId(id), record(&address));
            id += 1;
        }
        let one_more = judge(&mut registry, None, None, &address);
        assert_eq!(one_more, Err(FsError::NoSpace));
        let statuses = registry.statuses(0);
        let largest = pvfs::wire::codec::encode(&statuses).unwrap().len();
        let others = largest - statuses.len() * address.len();
        assert!(others <= statuses.len() * STATUS_BYTES_MAX, "{others}");
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
        registry.restore(IodId(2), record("h:1"));
        let early = registry.heartbeat(IodId(2), REPORT, 1, 5);
        assert_eq!(early, Err(FsError::Stale));
        assert_eq!(state(&registry, 2), IodState::Away);
        assert_eq!(registry.totals().space, Space::default());
        registry.admit(IodId(2), record("h:1"), REPORT, 1, 0);
        let elsewhere = registry.heartbeat(IodId(2), REPORT, 2, 0);
        assert_eq!(elsewhere, Err(FsError::Stale), "who has not registered");
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
        registry.heartbeat(IodId(2), REPORT, 1, lost + 7).unwrap();
        assert_eq!(state(&registry, 2), IodState::Alive);
        let told = registry.take_news(lost + 10);
        let told: Vec<_> = told.iter().map(|s| (s.state, s.state_ms)).collect();
        assert_eq!(told, [(IodState::Alive, 3)]);
        assert_eq!(registry.take_news(lost + 10), []);
    }

    #[test]
    fn a_registration_can_be_taken_back() {
        let mut registry = Registry::default();
        let first = registry.admit(IodId(1), record("a:1"), REPORT, 1, 0);
        let second = registry.admit(IodId(1), record("b:1"), REPORT, 1, 0);
        registry.undo(second);
        assert_eq!(registry.address(IodId(1)), Some("a:1"));
        registry.undo(first);
        assert_eq!(registry.address(IodId(1)), None);
    }
}
