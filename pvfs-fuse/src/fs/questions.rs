// SPDX-License-Identifier: MIT
//! What the kernel asks for attributes, until it has its answer.
//!
//! Linux ignores an answer where pages of the file were dropped since it asked, and goes on with the size
//! that it knew: a read(2) would find the file's end where it was before another node wrote. So whoever
//! is about to drop pages first answers what was asked for the size's sake, by the lease that still holds.

use pvfs::attr::Attr;
use pvfs::error::FsError;
use pvfs::runtime::sync::{Arc, Mutex, PoisonError};
use pvfs::runtime::time::Duration;

use super::inode::Inode;
use super::lease::Io;
use super::{Pvfs, number};

/// Without a lease that tells the size, pages are dropped though questions have no answer after so long:
/// mgr's may wait for whoever waits for these pages.
const ANSWERS_WAIT_MAX: Duration = Duration::from_millis(50);

/// Sends the kernel its answer.
pub type AttrReply = Box<dyn FnOnce(Result<Attr, FsError>) + Send>;

/// What was asked.
pub(super) struct Asked {
    /// For the size's sake alone.
    size_only: bool,
    /// `None` once it is answered.
    reply: Mutex<Option<AttrReply>>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size_only = &self.size_only;
        let mut fields = f.debug_struct("Asked");
        fields.field("size_only", size_only).finish_non_exhaustive()
    }
}

impl Asked {
    /// Answers it, unless somebody has.
    fn answer(&self, outcome: Result<Attr, FsError>) {
        let reply = self
            .reply
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(reply) = reply {
            reply(outcome);
        }
    }
}

/// The kernel asks for the attributes of an inode.
#[derive(Debug)]
pub struct Question {
    node: u64,
    /// `None` where nothing is known of it here: then no pages are kept.
    inode: Option<Arc<Inode>>,
    asked: Arc<Asked>,
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(inode) = &self.inode {
            let mut state = inode.state();
            let is_other = |other: &Arc<Asked>| !Arc::ptr_eq(other, &self.asked);
            state.questions.retain(is_other);
            drop(state);
            inode.wake();
        }
    }
}

impl Pvfs {
    /// Takes a question, as soon as its request is here: [`Self::answer`] follows. `size_only`: nothing but
    /// the size has to be right.
    pub fn question(&self, node: u64, size_only: bool, reply: AttrReply) -> Question {
        let reply = Mutex::new(Some(reply));
        let asked = Arc::new(Asked { size_only, reply });
        let inode = self.files.inode(number(node));
        if let Some(inode) = &inode {
            inode.state().questions.push(Arc::clone(&asked));
        }
        Question { node, inode, asked }
    }

    /// Answers a question.
    pub fn answer(&self, question: Question) {
        let Question { node, inode, asked } = &question;
        let by_lease = || {
            let inode = inode.as_ref().filter(|_| asked.size_only);
            inode.is_some_and(|inode| self.answer_by_lease(inode, asked))
        };
        if by_lease() {
            return;
        }
        let outcome = self.getattr(*node);
        // Where a lease came along with mgr's answer, the size is that of this moment.
        if outcome.is_err() || !by_lease() {
            asked.answer(outcome);
        }
    }

    /// Answers with the size that the lease tells; false where there is none. Whoever wants the lease back
    /// waits until the answer is sent.
    fn answer_by_lease(&self, inode: &Inode, asked: &Asked) -> bool {
        if self.mgr.leases_left().is_none() || self.is_changing(inode.number) {
            return false;
        }
        let mut state = inode.state();
        let Some(attr) = state.size_under_lease() else {
            return false;
        };
        let permit = state.lease.begin_at_last(Io::DirectRead);
        drop(state);
        asked.answer(Ok(attr));
        self.end(inode, permit, Io::DirectRead, (0, 0));
        true
    }

    /// Pages are about to be dropped: sees to it that what was asked before is answered before.
    pub(super) fn answer_questions(&self, inode: &Inode) {
        let known = self.mgr.leases_left().is_some() && !self.is_changing(inode.number);
        let (attr, open) = {
            let state = inode.state();
            (state.size_under_lease(), state.questions.clone())
        };
        if let Some(attr) = attr.filter(|_| known) {
            for asked in open.iter().filter(|asked| asked.size_only) {
                asked.answer(Ok(attr));
            }
        }
        let is_open = |asked: &Arc<Asked>| {
            let reply = asked.reply.lock();
            reply.unwrap_or_else(PoisonError::into_inner).is_some()
        };
        inode.wait_while(ANSWERS_WAIT_MAX, |state| {
            state.questions.iter().any(is_open)
        });
    }
}
