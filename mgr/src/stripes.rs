// SPDX-License-Identifier: MIT
//! The rim towards the iods: truncations and removals of stripes, several at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use pvfs::ids::{Incarnation, IodId, ObjectId};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use crate::owner::Input;
use crate::owner::work::{LocalFile, Order, StripeWork, Target, WorkDone};
use crate::server::Command;

/// Calls to iods at a time, each on a thread of its own.
pub const CALLS_RUNNING_MAX: usize = 64;

/// What mgr wants of iods. Both calls are idempotent, block, and give up by themselves.
pub trait StripeStore: Send + Sync + 'static {
    /// Learns where an iod is, and which run of it, also for calls that are trying to reach it.
    fn iod_is_at(&self, iod: IodId, address: &str, incarnation: Incarnation);

    /// Cuts an object's local file to `target.length`; never extends it.
    ///
    /// # Errors
    ///
    /// Says in words why it is not done.
    fn truncate(&self, target: &Target, object: ObjectId) -> Result<(), String>;

    /// Has an iod refuse writes to an object under older leases, and measures its local file.
    ///
    /// # Errors
    ///
    /// Says in words why it is not done.
    fn fence(&self, target: &Target, object: ObjectId) -> Result<LocalFile, String>;

    /// Removes an object's local file, if there is one.
    ///
    /// # Errors
    ///
    /// Says in words why it is not done.
    fn remove(&self, target: &Target, object: ObjectId) -> Result<(), String>;
}

/// Runs work on iods and reports to the owner.
#[derive(Clone)]
pub struct Executor {
    store: Arc<dyn StripeStore>,
    runtime: Handle,
    permits: Arc<Semaphore>,
    owner: Sender<Command>,
}

impl Executor {
    /// An executor whose tasks run on `runtime`.
    #[must_use]
    pub fn new(store: Arc<dyn StripeStore>, runtime: Handle, owner: Sender<Command>) -> Self {
        Self {
            store,
            runtime,
            permits: Arc::new(Semaphore::new(CALLS_RUNNING_MAX)),
            owner,
        }
    }

    /// Tells calls that are under way where an iod is, and which run of it.
    pub fn iod_is_at(&self, iod: IodId, address: &str, incarnation: Incarnation) {
        self.store.iod_is_at(iod, address, incarnation);
    }

    /// Starts some work, on all of its iods at once; [`Input::WorkDone`] follows.
    pub fn start(&self, work: StripeWork) {
        let executor = self.clone();
        self.runtime.spawn(async move {
            let done = executor.run(work).await;
            // The owner is gone only when the process ends.
            let _ = executor
                .owner
                .send(Command::Input(Input::WorkDone(done)))
                .await;
        });
    }

    async fn run(&self, work: StripeWork) -> WorkDone {
        let StripeWork {
            object,
            order,
            targets,
        } = work;
        // Only what an iod has acknowledged is done, whatever else may happen to a call.
        let unanswered = |target: &Target| (target.iod, "no answer".to_owned());
        let mut failed: BTreeMap<IodId, String> = targets.iter().map(unanswered).collect();
        let mut measured = Vec::new();
        let mut calls = JoinSet::new();
        for target in targets {
            let executor = self.clone();
            calls.spawn(async move { executor.call(order, target, object).await });
        }
        while let Some(ended) = calls.join_next().await {
            match ended {
                Ok((target, Ok(found))) => {
                    failed.remove(&target.iod);
                    measured.extend(found.map(|found| (target.iod, found)));
                }
                Ok((target, Err(reason))) => drop(failed.insert(target.iod, reason)),
                Err(error) => tracing::error!("a call to an iod ended badly: {error}"),
            }
        }
        let failed = failed.into_iter().collect();
        WorkDone {
            object,
            order,
            failed,
            measured,
        }
    }

    async fn call(
        &self,
        order: Order,
        target: Target,
        object: ObjectId,
    ) -> (Target, Result<Option<LocalFile>, String>) {
        let Ok(_permit) = self.permits.acquire().await else {
            return (target, Err("mgr is stopping".to_owned()));
        };
        let store = Arc::clone(&self.store);
        let at = target.clone();
        let call = move || match order {
            Order::Truncate => store.truncate(&at, object).map(|()| None),
            Order::Remove => store.remove(&at, object).map(|()| None),
            Order::Fence => store.fence(&at, object).map(Some),
        };
        let result = self.runtime.spawn_blocking(call).await;
        (
            target,
            result.unwrap_or_else(|error| Err(error.to_string())),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::ids::InodeNumber;
    use tokio::sync::mpsc::channel;

    const OBJECT: ObjectId = ObjectId {
        inode: InodeNumber(4),
        generation: 1,
    };

    /// The iod with an even id refuses, number 7 panics, the others do what they are told.
    struct Moody;

    impl StripeStore for Moody {
        fn iod_is_at(&self, _: IodId, _: &str, _: Incarnation) {}

        fn truncate(&self, target: &Target, object: ObjectId) -> Result<(), String> {
            assert_ne!(target.iod, IodId(7));
            assert_eq!(
                (target.length, object),
                (u64::from(target.iod.0) * 10, OBJECT)
            );
            if target.iod.0 % 2 == 0 {
                Err("busy".to_owned())
            } else {
                Ok(())
            }
        }

        fn fence(&self, target: &Target, _: ObjectId) -> Result<LocalFile, String> {
            Ok(LocalFile {
                length: target.length,
                allocated: 4096,
            })
        }

        fn remove(&self, _: &Target, _: ObjectId) -> Result<(), String> {
            Ok(())
        }
    }

    async fn run(order: Order, iods: &[u32]) -> Vec<(IodId, String)> {
        done(order, iods).await.failed
    }

    async fn done(order: Order, iods: &[u32]) -> WorkDone {
        let (owner, mut reports) = channel(1);
        let executor = Executor::new(Arc::new(Moody), Handle::current(), owner);
        let target = |iod: &u32| {
            let (iod, length) = (IodId(*iod), u64::from(*iod) * 10);
            Target {
                iod,
                address: String::new(),
                place: pvfs::layout::LayoutSlot::default(),
                length,
                fence: 1,
                number: 1,
            }
        };
        let targets = iods.iter().map(target).collect();
        executor.start(StripeWork {
            object: OBJECT,
            order,
            targets,
        });
        match reports.recv().await {
            Some(Command::Input(Input::WorkDone(done))) => {
                assert_eq!((done.object, done.order), (OBJECT, order));
                done
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn only_what_was_acknowledged_is_done() {
        let many: Vec<u32> = (100..100 + 2 * CALLS_RUNNING_MAX as u32).collect();
        assert_eq!(run(Order::Truncate, &many).await.len(), CALLS_RUNNING_MAX);
        let failed = run(Order::Truncate, &[1, 2, 3, 7]).await;
        assert_eq!(
            failed.iter().map(|(iod, _)| iod.0).collect::<Vec<_>>(),
            [2, 7]
        );
        assert_eq!(failed.first(), Some(&(IodId(2), "busy".to_owned())));
        assert_eq!(run(Order::Remove, &[1, 2, 3]).await, []);
    }

    #[tokio::test]
    async fn what_was_measured_is_told() {
        let mut measured = done(Order::Fence, &[1, 3]).await.measured;
        measured.sort_by_key(|(iod, _)| *iod);
        let lengths: Vec<_> = measured
            .iter()
            .map(|(iod, file)| (iod.0, file.length))
            .collect();
        assert_eq!(lengths, [(1, 10), (3, 30)]);
        assert_eq!(done(Order::Truncate, &[1]).await.measured, []);
    }
}
