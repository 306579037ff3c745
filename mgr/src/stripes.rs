// SPDX-License-Identifier: MIT
//! The rim towards the iods: truncations and removals of stripes, several at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use pvfs::ids::{IodId, ObjectId};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use crate::owner::Input;
use crate::owner::thread::Command;
use crate::owner::work::{Order, StripeWork, Target, WorkDone};

/// Calls to iods at a time, each on a thread of its own.
pub const CALLS_RUNNING_MAX: usize = 64;

/// What mgr wants of iods. Both calls are idempotent, block, and give up by themselves.
pub trait StripeStore: Send + Sync + 'static {
    /// Cuts an object's local file to `target.length`; never extends it.
    ///
    /// # Errors
    ///
    /// Says in words why it is not done.
    fn truncate(&self, target: &Target, object: ObjectId) -> Result<(), String>;

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
        let mut calls = JoinSet::new();
        for target in targets {
            let executor = self.clone();
            calls.spawn(async move { executor.call(order, target, object).await });
        }
        while let Some(ended) = calls.join_next().await {
            match ended {
                Ok((target, Ok(()))) => drop(failed.remove(&target.iod)),
                Ok((target, Err(reason))) => drop(failed.insert(target.iod, reason)),
                Err(error) => tracing::error!("a call to an iod ended badly: {error}"),
            }
        }
        let failed = failed.into_iter().collect();
        WorkDone {
            object,
            order,
            failed,
        }
    }

    async fn call(
        &self,
        order: Order,
        target: Target,
        object: ObjectId,
    ) -> (Target, Result<(), String>) {
        let Ok(_permit) = self.permits.acquire().await else {
            return (target, Err("mgr is stopping".to_owned()));
        };
        let store = Arc::clone(&self.store);
        let at = target.clone();
        let call = move || match order {
            Order::Truncate => store.truncate(&at, object),
            Order::Remove => store.remove(&at, object),
        };
        let result = self.runtime.spawn_blocking(call).await;
        (
            target,
            result.unwrap_or_else(|error| Err(error.to_string())),
        )
    }
}
