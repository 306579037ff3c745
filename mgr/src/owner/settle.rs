// SPDX-License-Identifier: MIT
//! The end of a batch: after its commit, replies leave; where the store was full, everything is as
//! if the batch had never been.

use pvfs::error::FsError;

use super::batch::{Batch, Finished};
use super::{Action, State, Withheld, full_message};
use crate::namespace::key;

/// Records of answered requests go along with other changes; when so many are left, or time
/// passes, they are a reason to commit of their own.
const TRIMS_WAITING_MAX: usize = 4096;

impl<W> State<W> {
    /// Lets the records of answered requests go along with the batch's others.
    pub(super) fn add_trims(&self, batch: &mut Batch<W>) {
        let trims = self.sessions.trims();
        if batch.records.is_empty() && !batch.tick && trims.len() < TRIMS_WAITING_MAX {
            return;
        }
        for (client, sequence) in trims {
            batch.records.insert(key::reply(*client, *sequence), None);
        }
    }

    /// The batch is committed: its replies leave, but for those that wait for a truncation.
    pub(super) fn finish(&mut self, mut batch: Batch<W>, actions: &mut Vec<Action<W>>) {
        self.opens.commit();
        if !batch.records.is_empty() {
            self.sessions.trimmed();
            self.unrecorded.clear();
            self.departed.clear();
        }
        self.intents_committed(&mut batch);
        for placement in &batch.placements {
            self.registry.note_placed(placement);
        }
        self.forget_cuts(&batch.cuts_done);
        for inode in batch.cuts_done {
            for withheld in self.withheld.remove(&inode).unwrap_or_default() {
                self.send(withheld, actions);
            }
        }
        for Finished {
            client,
            sequence,
            reply,
            durable,
            cut,
            notice,
        } in batch.finished
        {
            self.sessions.keep(client, sequence, reply.clone(), durable);
            let withheld = Withheld {
                client,
                sequence,
                reply,
            };
            match cut {
                Some((inode, cut)) => {
                    self.work.add_cut(inode, cut);
                    self.withheld.entry(inode).or_default().push(withheld);
                }
                None => {
                    if let Some((connection, notice)) = notice {
                        actions.push(Action::Notify {
                            client,
                            connection: Some(connection),
                            notice,
                        });
                    }
                    self.send(withheld, actions);
                }
            }
        }
    }

    fn send(&mut self, withheld: Withheld, actions: &mut Vec<Action<W>>) {
        let Withheld {
            client,
            sequence,
            reply,
        } = withheld;
        for waiter in self.sessions.release(client, sequence) {
            actions.push(Action::Reply(waiter, reply.clone()));
        }
    }

    /// The store is full: nothing of the batch has happened, and nothing of it is remembered.
    pub(super) fn roll_back(&mut self, mut batch: Batch<W>, actions: &mut Vec<Action<W>>) {
        if !self.full {
            tracing::error!("{}", full_message(batch.usage));
        }
        self.opens.roll_back_all();
        self.intents_rolled_back(&mut batch);
        // What was to go is still there.
        self.orphans_after = Some(key::all(key::Tag::Orphan));
        for client in batch.expired {
            // Its opens are back; they go when it has been silent for another while.
            self.sessions.hear(client, batch.moment.ms);
        }
        for before in batch.registered.into_iter().rev() {
            self.registry.undo(before);
        }
        for inode in batch.cuts_done {
            self.work.again(inode, batch.moment.ms);
        }
        for Finished {
            client,
            sequence,
            reply,
            durable,
            ..
        } in batch.finished
        {
            let reply = if durable {
                Err(FsError::NoSpace)
            } else {
                reply
            };
            self.send(
                Withheld {
                    client,
                    sequence,
                    reply,
                },
                actions,
            );
        }
    }
}
