// SPDX-License-Identifier: GPL-2.0-only
//! Ends a namespace's connections and templates whose time is over.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::kapi::work::Periodic;
use crate::state::balancer::Balancer;

/// The sweeper of a balancer.
pub(crate) struct Sweeper(Arc<Balancer>);

impl Sweeper {
    /// The sweeper of this balancer.
    pub(crate) fn new(balancer: Arc<Balancer>) -> Result<Arc<Sweeper>> {
        Ok(Arc::new(Sweeper(balancer), GFP_KERNEL)?)
    }
}

impl Periodic for Sweeper {
    const PERIOD_MS: u64 = 1000;

    fn run(&self) {
        self.0.sweep();
    }
}
