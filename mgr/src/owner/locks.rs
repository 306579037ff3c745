// SPDX-License-Identifier: MIT
//! Locks around requests: who may lock, what a client's greeting says of its locks, and who is told
//! that its waiting is over.
//!
//! Locks live in memory. After a restart of mgr each client tells in its greeting which it has;
//! until all clients from before the start have greeted, or their time is over, nobody gets a lock,
//! as nobody gets anything else that depends on what others keep.

use std::collections::BTreeSet;

use pvfs::error::FsError;
use pvfs::ids::ClientId;
use pvfs::proto::lease::Notice;
use pvfs::proto::lock::HeldLock;
use pvfs::proto::mgr::{MgrOperation, MgrResponse};

use super::batch::Batch;
use super::leases::Parked;
use super::{Action, State};
use crate::locks::Verdict;

/// Whose locks mgr knows.
#[derive(Debug, Default)]
pub(super) struct LockClients {
    /// Clients that have greeted since their locks were dropped last: mgr knows better than they do.
    known: BTreeSet<ClientId>,
    /// Clients from before the start that are in the middle of a greeting in several messages.
    claiming: BTreeSet<ClientId>,
}

impl<W> State<W> {
    /// Carries out a request that changes locks.
    pub(super) fn lock_request(
        &mut self,
        client: ClientId,
        operation: &MgrOperation,
    ) -> Option<Result<MgrResponse, FsError>> {
        match operation {
            MgrOperation::SetLock(request) => {
                if !self.lock_clients.known.contains(&client) {
                    return Some(Err(FsError::InvalidArgument));
                }
                // Unlocking is always right: the file may be closed by now.
                if request.kind.is_some() && !self.opens.is_open_at(client, request.inode) {
                    return Some(Err(FsError::Stale));
                }
                Some(
                    self.locks
                        .set(client, request)
                        .map(|verdict| match verdict {
                            Verdict::Done => MgrResponse::Done,
                            Verdict::Queued => MgrResponse::LockQueued,
                        }),
                )
            }
            MgrOperation::CancelLock { wait } => {
                self.locks.cancel(client, *wait);
                Some(Ok(MgrResponse::Done))
            }
            _ => None,
        }
    }

    /// Answers [`MgrOperation::TestLock`], or parks it while locks may exist that mgr does not know.
    pub(super) fn test_lock(&mut self, batch: &mut Batch<W>, mut parked: Parked<W>) {
        if self.must_wait_for_clients(&parked.request.operation) {
            self.parking.park_until_clients_are_back(parked);
            return;
        }
        let reply = match &parked.request.operation {
            MgrOperation::TestLock {
                inode,
                owner,
                family,
                range,
                kind,
            } if range.is_sound() => {
                let who = (parked.request.client, *owner);
                let holder = self.locks.test(who, *inode, *family, (*range, *kind));
                Ok(MgrResponse::Lock(holder))
            }
            _ => Err(FsError::InvalidArgument),
        };
        if let Some(waiter) = parked.waiter.take() {
            batch.reply(waiter, reply);
        }
    }

    /// A client greets and says which locks it has; gives those that it has no more. Another
    /// greeting with further locks may follow at once.
    pub(super) fn take_claims(
        &mut self,
        client: ClientId,
        locks: &[HeldLock],
        more: bool,
    ) -> Vec<HeldLock> {
        if self.lock_clients.known.contains(&client) {
            return Vec::new();
        }
        let mut lost = locks.to_vec();
        if self.returning.contains(&client) || self.lock_clients.claiming.contains(&client) {
            self.lock_clients.claiming.insert(client);
            lost.retain(|lock| !self.locks.claim(client, lock));
        }
        if !lost.is_empty() {
            let count = lost.len();
            let name = self.sessions.name(client);
            tracing::warn!("{name} was away for too long: {count} of its locks are lost");
        }
        if !more {
            self.lock_clients.claiming.remove(&client);
            self.lock_clients.known.insert(client);
        }
        lost
    }

    /// A client has no locks any more.
    pub(super) fn drop_locks(&mut self, client: ClientId) {
        self.lock_clients.known.remove(&client);
        self.lock_clients.claiming.remove(&client);
        let count = self.locks.drop_client(client);
        if count > 0 {
            tracing::info!("{count} locks of {} end", self.sessions.name(client));
        }
    }

    /// Tells clients whose waiting for a lock is over.
    pub(super) fn send_lock_news(&mut self, actions: &mut Vec<Action<W>>) {
        for (client, wait, outcome) in self.locks.take_news() {
            actions.push(Action::Notify {
                client,
                connection: None,
                notice: Notice::LockSettled {
                    wait,
                    error: outcome.err(),
                },
            });
        }
    }
}
