// SPDX-License-Identifier: GPL-2.0-only
//! Tells those who listen to the multicast group `events` what happens in a namespace.

use kernel::prelude::*;
use kernel::sync::rcu::Guard;

use crate::control::mwlc::{GROUP_EVENTS, PUBLISHED};
use crate::director::event::{Event, TRAFFIC_EVENTS_BURST_MAX, TRAFFIC_EVENTS_PER_SECOND_MAX};
use crate::director::mwlc_family::encode_event;
use crate::director::rate::TokenBucket;
use crate::kapi::clock::Ticks;
use crate::kapi::lock::BhLock;
use crate::kapi::pernet::Net;
use crate::uapi::mwlc::command;

/// A namespace's events.
#[pin_data]
pub(crate) struct Events {
    net: Net,
    #[pin]
    traffic: BhLock<TokenBucket>,
}

impl Events {
    /// Events of `net`, which outlives them.
    pub(crate) fn new(net: Net) -> impl PinInit<Self> {
        let bucket = TokenBucket::new(TRAFFIC_EVENTS_PER_SECOND_MAX, TRAFFIC_EVENTS_BURST_MAX);
        pin_init!(Events {
            net,
            traffic <- BhLock::new(bucket),
        })
    }

    /// Tells of an event; of those that packets cause, not more than the limit. Does not sleep.
    pub(crate) fn notify(&self, event: &Event, guard: &Guard) {
        let mut suppressed = 0;
        if event.is_from_traffic() {
            let now_ms = Ticks::now().ms_since(Ticks(0));
            match self.traffic.with(|bucket| bucket.take(now_ms)) {
                Some(denied) => suppressed = denied,
                None => return,
            }
        }
        PUBLISHED.multicast(
            self.net,
            GROUP_EVENTS,
            command::EVENT,
            |to| encode_event(to, event, suppressed),
            guard,
        );
    }
}
