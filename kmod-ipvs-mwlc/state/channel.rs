// SPDX-License-Identifier: GPL-2.0-only
//! What a namespace tells those who listen: events to one multicast group of our netlink family, questions
//! for the sizes of files to another.

use kernel::prelude::*;
use kernel::sync::rcu::Guard;

use crate::director::event::{Event, TRAFFIC_EVENTS_BURST_MAX, TRAFFIC_EVENTS_PER_SECOND_MAX};
use crate::director::mwlc_family::{encode_event, encode_question, SizeQuestion};
use crate::director::rate::TokenBucket;
use crate::kapi::clock::Ticks;
use crate::kapi::lock::BhLock;
use crate::kapi::netlink::Published;
use crate::kapi::pernet::Net;
use crate::uapi::mwlc::{command, group};

/// Where messages of the family `ipvs_mwlc` are sent from, once it is registered.
pub(crate) static PUBLISHED: Published = Published::new();

/// The family's multicast groups, in the order of [`GROUP_EVENTS`] and [`GROUP_SIZES`].
pub(crate) const GROUPS: &[&core::ffi::CStr] = &[group::EVENTS, group::SIZES];
const GROUP_EVENTS: u32 = 0;
const GROUP_SIZES: u32 = 1;

/// So many questions go to userspace in a second, and [`QUESTIONS_BURST_MAX`] at once. Connections
/// beyond keep their service's expected size.
const QUESTIONS_PER_SECOND_MAX: u32 = 10_000;
/// Questions that may go to userspace at once.
const QUESTIONS_BURST_MAX: u32 = 1_000;

/// A namespace's channel to those who listen.
#[pin_data]
pub(crate) struct Channel {
    net: Net,
    /// How many events of traffic may still be told of.
    #[pin]
    traffic: BhLock<TokenBucket>,
    /// How many questions may still be asked.
    #[pin]
    questions: BhLock<TokenBucket>,
}

impl Channel {
    /// The channel of `net`, which outlives it.
    pub(crate) fn new(net: Net) -> impl PinInit<Self> {
        let traffic = TokenBucket::new(TRAFFIC_EVENTS_PER_SECOND_MAX, TRAFFIC_EVENTS_BURST_MAX);
        let questions = TokenBucket::new(QUESTIONS_PER_SECOND_MAX, QUESTIONS_BURST_MAX);
        pin_init!(Channel {
            net,
            traffic <- BhLock::new(traffic),
            questions <- BhLock::new(questions),
        })
    }

    /// Tells of an event; of those that packets cause, not more than the limit. Does not sleep.
    pub(crate) fn tell(&self, event: &Event, guard: &Guard) {
        let mut suppressed = 0;
        if event.is_from_traffic() {
            match self.traffic.with(|bucket| bucket.take(now_ms())) {
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

    /// Asks whoever listens for the size of a file, if the limit allows. Does not sleep.
    pub(crate) fn ask(&self, question: &SizeQuestion, guard: &Guard) {
        if self
            .questions
            .with(|bucket| bucket.take(now_ms()))
            .is_none()
        {
            return;
        }
        PUBLISHED.multicast(
            self.net,
            GROUP_SIZES,
            command::GET_SIZE,
            |to| encode_question(to, question, None),
            guard,
        );
    }
}

fn now_ms() -> u64 {
    Ticks::now().ms_since(Ticks(0))
}
