// SPDX-License-Identifier: MIT
//! Requests that are not about names: greetings, the iods, the totals.

use pvfs::error::FsError;
use pvfs::ids::{ClientId, IodId};
use pvfs::limits::{LOCKS_PER_MESSAGE_MAX, REOPENS_PER_MESSAGE_MAX};
use pvfs::proto::lease::Notice;
use pvfs::proto::lock::HeldLock;
use pvfs::proto::mgr::{
    HelloResponse, MgrOperation, MgrReply, MgrRequest, MgrResponse, Reopen, StatFs,
};
use pvfs::proto::peer::Peer;
use pvfs::proto::report::IodReport;
use pvfs::proto::seal::Seal;

use super::batch::Batch;
use super::{Action, State, inodes_free, store_failed};
use crate::namespace::inode::Counters;
use crate::namespace::transaction::Halt;
use crate::namespace::{key, value};
use crate::placement::Totals;
use crate::registry::{Introduction, Rule};
use crate::seals::{self, Claim, IodRecord, Step};
use crate::store::{Records, StoreError, View};

/// What a client says in [`MgrOperation::Hello`].
struct Greeting<'a> {
    opens: &'a [Reopen],
    leases: bool,
    locks: &'a [HeldLock],
    more: bool,
    peer: &'a Peer,
}

impl<W> State<W> {
    /// Answers a request that changes no record.
    pub(super) fn answer(
        &mut self,
        view: &dyn View,
        batch: &Batch<W>,
        connection: u64,
        request: &MgrRequest,
    ) -> MgrReply {
        let ms = batch.moment.ms;
        match &request.operation {
            MgrOperation::Hello {
                opens,
                leases,
                locks,
                more,
                peer,
                ..
            } => {
                let greeting = Greeting {
                    opens,
                    leases: *leases,
                    locks,
                    more: *more,
                    peer,
                };
                self.hello(view, request.client, &greeting, ms)
            }
            MgrOperation::KeepAlive => match self.sessions.hear(request.client, ms) {
                true => Ok(MgrResponse::Done),
                false => Err(FsError::TryAgain),
            },
            MgrOperation::ListIods => Ok(MgrResponse::Iods(self.registry.statuses(ms))),
            MgrOperation::IodHeartbeat { iod, report } => self
                .registry
                .heartbeat(*iod, *report, connection, ms)
                .map(|()| MgrResponse::Done),
            MgrOperation::StatFs => self.stat_fs(view, batch),
            _ => self.look(view, batch, request),
        }
    }

    /// Starts or renews a session, and takes the opens that its client still holds.
    fn hello(
        &mut self,
        view: &dyn View,
        client: ClientId,
        greeting: &Greeting<'_>,
        ms: u64,
    ) -> MgrReply {
        let Greeting {
            opens,
            leases,
            locks,
            more,
            peer,
        } = *greeting;
        if opens.len() > REOPENS_PER_MESSAGE_MAX || locks.len() > LOCKS_PER_MESSAGE_MAX {
            return Err(FsError::InvalidArgument);
        }
        if !self.sessions.hear(client, ms) {
            return Err(FsError::TryAgain);
        }
        self.sessions.introduce(client, peer, leases);
        let locks_lost = match leases {
            true => self.take_claims(client, locks, more),
            false => locks.to_vec(),
        };
        if leases && !more {
            self.client_is_back(client);
        }
        let mut gone = Vec::new();
        for reopen in opens {
            let there = view
                .get(&key::inode(reopen.inode))
                .map_err(|e| store_failed(&e))?;
            // An open that is not taken back is stale when its client uses it.
            if there.is_none() || !self.opens.reopen(client, reopen) {
                gone.push(reopen);
            }
        }
        if let Some(first) = gone.first() {
            tracing::warn!(
                "{} declares {} opens that are gone, the first is {} of inode {}",
                self.sessions.name(client),
                gone.len(),
                first.open,
                first.inode
            );
        }
        Ok(MgrResponse::Hello(HelloResponse {
            file_system: self.started.file_system,
            session_timeout_ms: self.config.session_timeout_ms,
            lease_timeout_ms: self.config.lease_timeout_ms,
            iods: self.registry.statuses(ms),
            locks_lost,
        }))
    }

    fn stat_fs(&self, view: &dyn View, batch: &Batch<W>) -> MgrReply {
        let counters = read_counters(view, &Records::new()).map_err(|e| store_failed(&e))?;
        let Totals { space, files_free } = self.registry.totals();
        let inodes_free = inodes_free(batch.usage);
        Ok(MgrResponse::StatFs(StatFs {
            space,
            inodes_used: counters.inodes_used,
            inodes_free: files_free.map_or(inodes_free, |files| files.min(inodes_free)),
            now: batch.moment.now,
            uptime_ms: batch.moment.ms,
            mounts: self.sessions.mounts(),
        }))
    }

    /// Hears an iod that introduces itself, and numbers it if it is new: gives it a seal, or admits
    /// it where it comes with the one that it was given.
    pub(super) fn register_iod(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        connection: u64,
        request: &MgrRequest,
    ) -> Result<(MgrResponse, Records), Halt> {
        let MgrOperation::RegisterIod {
            iod,
            file_system,
            seal,
            incarnation,
            accepts_older,
            address,
            report,
        } = &request.operation
        else {
            return Err(FsError::Protocol.into());
        };
        let mut counters = read_counters(view, &batch.records)?;
        let introduction = Introduction {
            iod: *iod,
            file_system: *file_system,
            claim: Claim {
                held: *seal,
                incarnation: *incarnation,
                accepts_older: *accepts_older,
            },
            address,
            peer: self.peer(connection),
        };
        let step = self.judge(&introduction, counters.iod_next, report, batch.moment.ms)?;
        let mut records = Records::new();
        let iod = match iod {
            Some(iod) => *iod,
            None => {
                let iod = IodId(counters.iod_next);
                counters.iod_next = iod.0.checked_add(1).ok_or(FsError::NoSpace)?;
                records.insert(key::counters(), Some(value::encode(&counters)?));
                iod
            }
        };
        let record = self.record_after(step, iod, &introduction);
        if self.registry.record(iod) != Some(&record) {
            records.insert(key::iod(iod), Some(value::encode(&record)?));
        }
        match step {
            Step::Admit => self.admit_iod(batch, iod, &record, *report, connection),
            Step::Adopt => {
                let held = seal.map_or_else(|| "no seal".to_owned(), |seal| seal.to_string());
                tracing::warn!(
                    "iod {iod} at {address} is believed, once in this era: it holds {held}, and \
                     this store knows nothing of it"
                );
                self.give_iod(batch, iod, &record);
            }
            Step::AcceptOlder => {
                let held = seal.map_or_else(|| "no seal".to_owned(), |seal| seal.to_string());
                let given = self
                    .registry
                    .record(iod)
                    .map(|known| known.seal.to_string());
                tracing::warn!(
                    "iod {iod} at {address} is believed with an older directory, as its operator says: \
                     it holds {held}, and {} was given since. What was written to it in between is lost: \
                     files may have old content there, and pvfs fsck names those that are too short",
                    given.unwrap_or_else(|| "another".to_owned())
                );
                self.give_iod(batch, iod, &record);
            }
            Step::Renew => self.give_iod(batch, iod, &record),
        }
        Ok((self.registered(iod, &record), records))
    }

    /// What is to be done with an iod that introduces itself.
    fn judge(
        &mut self,
        introduction: &Introduction<'_>,
        iod_next: u32,
        report: &IodReport,
        ms: u64,
    ) -> Result<Step, FsError> {
        let rule = Rule {
            file_system: self.started.file_system,
            reign: self.reign,
            iod_next,
        };
        // A new one gets its first seal.
        let step = self
            .registry
            .judge(introduction, &rule, ms)?
            .unwrap_or(Step::Renew);
        let known = introduction.iod.and_then(|iod| self.registry.record(iod));
        let held = introduction.claim.held;
        // It could keep no other on a disk that cannot be written to, and what it has does not change.
        let keeps = !report.writable && known.is_some_and(|known| Some(known.seal) == held);
        Ok(match step {
            Step::Renew if keeps => Step::Admit,
            step => step,
        })
    }

    /// What is stored of an iod from then on.
    fn record_after(&self, step: Step, iod: IodId, introduction: &Introduction<'_>) -> IodRecord {
        let Introduction {
            claim,
            address,
            peer,
            ..
        } = introduction;
        let known = self.registry.record(iod);
        match (step, known) {
            (Step::Admit, Some(known)) => IodRecord {
                address: (*address).to_owned(),
                incarnation: claim.incarnation,
                before: None,
                confirmed: true,
                ..known.clone()
            },
            (Step::Admit | Step::Renew | Step::Adopt | Step::AcceptOlder, _) => {
                let draw = || u128::from((self.config.draw)());
                let given = known.map(|known| known.seal);
                let secret = (draw() << 64) | draw();
                IodRecord {
                    address: (*address).to_owned(),
                    founder: known.map_or(*peer, |known| known.founder),
                    incarnation: claim.incarnation,
                    seal: seals::next(given, claim.held, self.reign, secret),
                    before: claim.held,
                    confirmed: false,
                }
            }
        }
    }

    fn registered(&self, iod: IodId, record: &IodRecord) -> MgrResponse {
        MgrResponse::Registered {
            iod,
            file_system: self.started.file_system,
            seal: record.seal,
            key: self.key,
        }
    }

    /// The reply to a new iod that asks again, since it has not kept its number. Where somebody has
    /// come with its seal meanwhile, that is another directory, copied before it had a number.
    pub(super) fn register_again(&self, iod: IodId, was_given: Seal) -> MgrReply {
        let record = self.registry.record(iod);
        match record.filter(|record| !record.confirmed && record.seal == was_given) {
            Some(record) => Ok(self.registered(iod, record)),
            None => {
                tracing::warn!(
                    "refused a new iod that was to be iod {iod}: its data directory was copied \
                     before it had a number, and the copy has that; make another by pvfs-iod --init"
                );
                Err(FsError::Superseded)
            }
        }
    }

    /// Notes in memory what an iod was given, until the batch is rolled back.
    fn give_iod(&mut self, batch: &mut Batch<W>, iod: IodId, record: &IodRecord) {
        let before = self.registry.give(iod, record.clone(), batch.moment.ms);
        batch.registered.push(before);
        batch.actions.push(Action::IodIsAt(
            iod,
            record.address.clone(),
            record.incarnation,
        ));
    }

    /// Notes in memory that an iod is there, until the batch is rolled back.
    fn admit_iod(
        &mut self,
        batch: &mut Batch<W>,
        iod: IodId,
        record: &IodRecord,
        report: IodReport,
        connection: u64,
    ) {
        tracing::info!("iod {iod} is at {}", record.address);
        let ms = batch.moment.ms;
        let before = self
            .registry
            .admit(iod, record.clone(), report, connection, ms);
        batch.registered.push(before);
        batch.actions.push(Action::IodIsAt(
            iod,
            record.address.clone(),
            record.incarnation,
        ));
        self.work.iod_is_back();
    }
}

impl<W> State<W> {
    /// Tells clients what has become of iods.
    pub(super) fn send_iod_news(&mut self, ms: u64, actions: &mut Vec<Action<W>>) {
        let news = self.registry.take_news(ms);
        if !news.is_empty() {
            actions.push(Action::Announce(Notice::Iods(news)));
        }
    }
}

fn read_counters(view: &dyn View, batch: &Records) -> Result<Counters, StoreError> {
    let key = key::counters();
    let bytes = match batch.get(&key) {
        Some(changed) => changed.as_deref(),
        None => view.get(&key)?,
    };
    bytes.map_or(Ok(Counters::FIRST), |bytes| value::decode(&key, bytes))
}
