// SPDX-License-Identifier: MIT
//! What becomes due as time passes: silent clients lose their opens, and inodes without a name or an
//! open go, when they have lingered and the grace that follows a start is over.

use std::collections::BTreeSet;

use pvfs::attr::Credentials;
use pvfs::ids::{ClientId, InodeNumber, OpenId};

use super::batch::Batch;
use super::{Action, State};
use crate::namespace::lingering::Linger;
use crate::namespace::transaction::{Halt, Transaction};
use crate::namespace::{Context, key};
use crate::session::Departed;
use crate::store::{StoreError, Usage, View};

/// Orphans that are looked at in one batch after the grace: the others wait for the next tick.
const ORPHANS_PER_BATCH_MAX: usize = 256;

/// Inodes that go in one batch because they have lingered long enough: more than a batch's requests
/// can remove, so that they do not pile up.
const LINGERED_PER_BATCH_MAX: usize = 1024;

/// What takes more than one part in so many of what the iods have available does not linger: somebody
/// may be removing it because its space is needed.
const LINGER_SPACE_PARTS: u64 = 16;

static ROOT: Credentials = Credentials::ROOT;

impl<W> State<W> {
    /// Ends the sessions of silent clients.
    pub(super) fn expire(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
    ) -> Result<(), StoreError> {
        let timeout = u64::from(self.config.session_timeout_ms);
        let before = batch.moment.ms.saturating_sub(timeout);
        for departed in self.sessions.expire(before) {
            let Departed {
                client,
                name,
                said_goodbye,
            } = departed;
            let opens = self.end_client(view, batch, client)?;
            if !said_goodbye {
                tracing::info!("{name} is silent: its {opens} opens are closed");
                batch.actions.push(Action::Expired(client));
            }
            batch.expired.push(client);
        }
        Ok(())
    }

    /// Closes everything that a client has open, and ends its leases; gives the number of opens.
    pub(super) fn end_client(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        client: ClientId,
    ) -> Result<usize, StoreError> {
        let opens = self.opens.of_client(client);
        let written = self.written_by(client, &opens);
        for (open, inode) in &opens {
            self.opens.remove(client, *open);
            self.reap(view, batch, *inode)?;
        }
        for inode in written {
            self.note_lost_writer(view, batch, inode)?;
        }
        self.client_leaves(client);
        Ok(opens.len())
    }

    /// The files to which a client may have written without having reported it. What it has open for
    /// writing without a lease, while somebody else has one, it has reported before that was granted;
    /// unless it takes no leases at all.
    fn written_by(
        &self,
        client: ClientId,
        opens: &[(OpenId, InodeNumber)],
    ) -> BTreeSet<InodeNumber> {
        let mut written: BTreeSet<_> = self.leases.written_by(client).into_iter().collect();
        let leased = self.holders.contains(&client);
        for (open, inode) in opens {
            let writes = self
                .opens
                .get(client, *open)
                .is_some_and(|open| open.access.write);
            if writes && !(leased && self.leases.is_written(*inode)) {
                written.insert(*inode);
            }
        }
        written
    }

    /// How what loses its last name now lingers.
    pub(super) fn linger(&self, ms: u64, usage: Usage) -> Option<Linger> {
        let linger_ms = u64::from(self.config.linger_ms);
        let linger = || Linger {
            until_ms: ms.saturating_add(linger_ms),
            bytes_max: self.registry.totals().space.bytes_available / LINGER_SPACE_PARTS,
        };
        (linger_ms > 0 && usage.has_room()).then(linger)
    }

    /// Removes inodes without a name that have lingered and that nobody has open.
    pub(super) fn reap_lingering(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
    ) -> Result<(), StoreError> {
        for _ in 0..LINGERED_PER_BATCH_MAX {
            let Some(inode) = self.opens.lingering().take_due(batch.moment.ms) else {
                break;
            };
            self.reap(view, batch, inode)?;
        }
        Ok(())
    }

    /// After the grace, removes inodes without a name that nobody has declared open.
    pub(super) fn reap_orphans(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
    ) -> Result<(), StoreError> {
        if self.in_grace(batch.moment.ms) {
            return Ok(());
        }
        let Some(after) = self.orphans_after.take() else {
            return Ok(());
        };
        let end = key::end_of_prefix(&key::all(key::Tag::Orphan));
        let mut found = Vec::new();
        view.scan(&after, end.as_deref(), &mut |key, _| {
            found.push(key.to_vec());
            found.len() < ORPHANS_PER_BATCH_MAX
        })?;
        for inode in found.iter().filter_map(|key| key::inode_of(key)) {
            self.reap(view, batch, inode)?;
        }
        if found.len() == ORPHANS_PER_BATCH_MAX {
            self.orphans_after = found.pop();
        }
        Ok(())
    }

    /// In which mgr does something of its own accord.
    pub(super) fn own_context<'a>(&self, batch: &'a Batch<W>) -> Context<'a> {
        Context {
            now: batch.moment.now,
            generation: self.config.generation,
            grace: self.in_grace(batch.moment.ms),
            linger: None,
            room: true,
            credentials: &ROOT,
            client: ClientId(0),
            unleased: false,
            iods: &batch.slots,
        }
    }

    fn reap(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        inode: InodeNumber,
    ) -> Result<(), StoreError> {
        let context = self.own_context(batch);
        let mut tx = Transaction::new(view, &batch.records, &context, &mut self.opens);
        match tx.reap(inode) {
            Ok(()) => {
                let mut records = tx.into_records();
                batch.records.append(&mut records);
                Ok(())
            }
            // It stays, and nobody waits for it: damage of one inode is no reason to serve none.
            Err(Halt::Store(
                error @ (StoreError::Corrupt { .. }
                | StoreError::Missing { .. }
                | StoreError::Version { .. }),
            )) => {
                tracing::error!("inode {inode} without a name cannot be removed: {error}");
                Ok(())
            }
            Err(Halt::Store(error)) => Err(error),
            Err(Halt::Fs(error)) => {
                tracing::error!("inode {inode} without a name cannot be removed: {error}");
                Ok(())
            }
            Err(Halt::Blocked(_)) => Ok(()),
        }
    }
}
