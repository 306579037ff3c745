// SPDX-License-Identifier: GPL-2.0-only
//! What a service's connections are expected to fetch, and how the director finds out more.
//!
//! A service and its real servers share it, so that a connection finds it through its real server,
//! however it was scheduled.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::director::load::{ExpectedSize, Learn, SizePolicy};
use crate::director::word::Watch;
use crate::kapi::atomic::{Atomic, Relaxed};
use crate::kapi::lock::BhLock;

/// The expected size of one service's connections.
#[pin_data]
pub(crate) struct Expectation {
    #[pin]
    size: BhLock<ExpectedSize>,
    /// What `size` comes to, for those who schedule.
    bytes: Atomic<u64>,
    learns_http: Atomic<bool>,
    remaining: Atomic<bool>,
}

impl Expectation {
    /// The default size, and nothing is learned.
    pub(crate) fn new() -> Result<Arc<Expectation>> {
        let start = ExpectedSize::default();
        let expectation = pin_init!(Expectation {
            size <- BhLock::new(start),
            bytes: Atomic::new(start.bytes()),
            learns_http: Atomic::new(false),
            remaining: Atomic::new(false),
        });
        Arc::pin_init(expectation, GFP_KERNEL)
    }

    /// What a new connection is expected to fetch, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Where that comes from.
    pub(crate) fn size(&self) -> ExpectedSize {
        self.size.with(|size| *size)
    }

    /// Changes what is configured; `None` leaves a part as it is.
    pub(crate) fn configure(&self, bytes: Option<u64>, policy: Option<SizePolicy>) {
        self.change(|size| {
            size.configure(
                bytes.unwrap_or(size.configured_bytes()),
                policy.unwrap_or(size.policy()),
            )
        });
    }

    /// Takes in the size of one connection.
    pub(crate) fn learn(&self, size_bytes: u64) {
        self.change(|size| size.learn(size_bytes));
    }

    fn change(&self, next: impl FnOnce(ExpectedSize) -> ExpectedSize) {
        self.size.with(|size| {
            *size = next(*size);
            self.bytes.store(size.bytes(), Relaxed);
        });
    }

    /// How sizes are learned from packets.
    pub(crate) fn learns(&self) -> Learn {
        if self.learns_http.load(Relaxed) {
            Learn::Http
        } else {
            Learn::Off
        }
    }

    /// Whether what was delivered counts no more.
    pub(crate) fn counts_remaining(&self) -> bool {
        self.remaining.load(Relaxed)
    }

    /// Changes what new connections are watched for; `None` leaves a part as it is.
    pub(crate) fn set_watch(&self, learn: Option<Learn>, remaining: Option<bool>) {
        if let Some(learn) = learn {
            self.learns_http.store(learn == Learn::Http, Relaxed);
        }
        if let Some(remaining) = remaining {
            self.remaining.store(remaining, Relaxed);
        }
    }

    /// What a new connection is watched for.
    pub(crate) fn watch(&self) -> Watch {
        Watch {
            request: self.learns_http.load(Relaxed),
            remaining: self.counts_remaining(),
        }
    }
}
