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

use super::batch::Batch;
use super::{Action, State, inodes_free, store_failed};
use crate::namespace::inode::Counters;
use crate::namespace::transaction::Halt;
use crate::namespace::{key, value};
use crate::placement::Totals;
use crate::registry::{Introduction, IodRecord};
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
                .heartbeat(*iod, *report, ms)
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

    /// Registers an iod, and numbers it if it is new.
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
            address,
            report,
        } = &request.operation
        else {
            return Err(FsError::Protocol.into());
        };
        let (iod, file_system) = (*iod, *file_system);
        let introduction = Introduction {
            iod,
            file_system,
            address,
        };
        self.registry
            .judge(introduction, self.started.file_system)?;
        let mut records = Records::new();
        let mut counters = read_counters(view, &batch.records)?;
        let iod = iod.unwrap_or(IodId(counters.iod_next));
        if iod.0 >= counters.iod_next {
            counters.iod_next = iod.0.checked_add(1).ok_or(FsError::InvalidArgument)?;
            records.insert(key::counters(), Some(value::encode(&counters)?));
        }
        if self.registry.address(iod) != Some(address) {
            let record = IodRecord {
                address: address.clone(),
            };
            records.insert(key::iod(iod), Some(value::encode(&record)?));
        }
        self.note_iod(batch, iod, address, *report, connection);
        Ok((
            MgrResponse::Registered {
                iod,
                file_system: self.started.file_system,
            },
            records,
        ))
    }
}

impl<W> State<W> {
    /// Notes in memory that an iod is there, until the batch is rolled back.
    pub(super) fn note_iod(
        &mut self,
        batch: &mut Batch<W>,
        iod: IodId,
        address: &str,
        report: IodReport,
        connection: u64,
    ) {
        tracing::info!("iod {iod} is at {address}");
        let ms = batch.moment.ms;
        let before = self.registry.register(iod, address, report, connection, ms);
        batch.registered.push(before);
        batch.actions.push(Action::IodIsAt(iod, address.to_owned()));
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
