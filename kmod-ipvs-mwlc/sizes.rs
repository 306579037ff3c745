// SPDX-License-Identifier: GPL-2.0-only
//! Learns what connections fetch: reads requests, looks files up in the size cache, asks userspace
//! for those that are not there, and takes off what clients acknowledge.
//!
//! Only packets of watched connections come here, and of those only the ones with data, or whose
//! acknowledgement is worth counting, take a lock: that of one set of the cache.

use kernel::prelude::*;
use kernel::sync::rcu::Guard;

use crate::balancer::Balancer;
use crate::connection::Connection;
use crate::control::mwlc::{GROUP_SIZES, PUBLISHED};
use crate::director::delivered;
use crate::director::flow::FlowKey;
use crate::director::http::{parse, Fetch, Name, Segment, HEAD_BYTES_MAX};
use crate::director::mwlc_family::{encode_question, Asking, SizeAnswer, SizeQuestion};
use crate::director::packet::TcpHeader;
use crate::director::rate::TokenBucket;
use crate::director::segment::tcp_segment;
use crate::director::size_cache::{Entry, Look, Set, KNOWN_TTL_MS, SETS, UNKNOWN_TTL_MS};
use crate::director::tcp::TcpEvent;
use crate::kapi::clock::Ticks;
use crate::kapi::lock::BhLock;
use crate::kapi::packet::Packet;
use crate::kapi::pernet::Net;
use crate::kapi::random::NameKey;
use crate::uapi::mwlc::command;

/// So many questions go to userspace in a second, and [`QUESTIONS_BURST_MAX`] at once. Connections
/// beyond keep their service's expected size.
const QUESTIONS_PER_SECOND_MAX: u32 = 10_000;
/// See [`QUESTIONS_PER_SECOND_MAX`].
const QUESTIONS_BURST_MAX: u32 = 1_000;

/// Sets that share a lock: enough locks that CPUs rarely meet.
const SETS_PER_LOCK: usize = 64;

type StoredEntry = Entry<KVec<u8>>;
type StoredSet = Option<KBox<Set<KVec<u8>>>>;

/// Some sets of the cache; each is allocated when a name falls into it.
#[pin_data]
struct Shard {
    #[pin]
    sets: BhLock<[StoredSet; SETS_PER_LOCK]>,
}

/// A namespace's size cache and its questions.
#[pin_data]
pub(crate) struct Sizes {
    net: Net,
    key: NameKey,
    shards: Pin<KBox<[Shard]>>,
    #[pin]
    questions: BhLock<TokenBucket>,
}

impl Sizes {
    /// An empty cache for `net`, which outlives it.
    pub(crate) fn new(net: Net) -> Result<impl PinInit<Self>> {
        // `pin_slice` wants an initialiser with an error of its own.
        let shard = |_| {
            try_pin_init!(Shard {
                sets <- BhLock::new([const { None }; SETS_PER_LOCK]),
            }? Error)
        };
        let shards = KBox::pin_slice(shard, SETS / SETS_PER_LOCK, GFP_KERNEL)?;
        let bucket = TokenBucket::new(QUESTIONS_PER_SECOND_MAX, QUESTIONS_BURST_MAX);
        Ok(pin_init!(Sizes {
            net,
            key: NameKey::random(),
            shards,
            questions <- BhLock::new(bucket),
        }))
    }

    /// What is known of a file; if nothing is, whether to ask.
    fn look(&self, name: &Name) -> Look {
        let hash = self.key.hash(name.bytes());
        self.with_set(hash, |set| match set_or_new(set) {
            Some(set) => set.look(hash, name.bytes(), now_ms()),
            None => Look::Nothing,
        })
        .unwrap_or(Look::Nothing)
    }

    /// Takes in what somebody says about a file. Sleeps.
    pub(crate) fn put(&self, answer: &SizeAnswer) -> Result {
        let name = answer.name.bytes();
        let hash = self.key.hash(name);
        let mut stored = KVec::with_capacity(name.len(), GFP_KERNEL)?;
        stored.extend_from_slice(name, GFP_KERNEL)?;
        let default_ms = match answer.size_bytes {
            Some(_) => KNOWN_TTL_MS,
            None => UNKNOWN_TTL_MS,
        };
        let ttl_ms = answer.ttl_ms.unwrap_or(default_ms);
        let replaced = self.with_set(hash, |set| {
            let set = set_or_new(set).ok_or(ENOMEM)?;
            Ok(set.put(hash, stored, answer.size_bytes, ttl_ms, now_ms()))
        });
        // Dropped here, without the lock.
        replaced.unwrap_or(Ok(None)).map(drop)
    }

    /// Forgets one file; false if it is not known.
    pub(crate) fn forget(&self, name: &Name) -> bool {
        let hash = self.key.hash(name.bytes());
        let removed = self.with_set(hash, |set| set.as_mut()?.remove(hash, name.bytes()));
        removed.flatten().is_some()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for index in 0..SETS as u64 {
            drop(self.with_set(index, Option::take));
        }
    }

    /// Shows the entries of one set, until `show` answers false; false if it did.
    pub(crate) fn entries(
        &self,
        index: u64,
        mut show: impl FnMut(&StoredEntry, u64) -> bool,
    ) -> bool {
        let now_ms = now_ms();
        self.with_set(index, |set| match set {
            Some(set) => set.entries(now_ms).all(|entry| show(entry, now_ms)),
            None => true,
        })
        .unwrap_or(true)
    }

    /// The set that a hash belongs to, under its lock.
    fn with_set<R>(&self, hash: u64, critical: impl FnOnce(&mut StoredSet) -> R) -> Option<R> {
        let index = hash as usize & (SETS - 1);
        let shard = self.shards.get(index / SETS_PER_LOCK)?;
        shard.sets.with(|sets| {
            let set = sets.get_mut(index & (SETS_PER_LOCK - 1))?;
            Some(critical(set))
        })
    }

    /// Asks whoever listens, if the limit allows.
    fn ask(&self, question: &SizeQuestion, guard: &Guard) {
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

/// The set, made if need be; `None` if there is no memory.
fn set_or_new(set: &mut StoredSet) -> Option<&mut Set<KVec<u8>>> {
    if set.is_none() {
        *set = KBox::new(Set::new(), GFP_ATOMIC).ok();
    }
    set.as_deref_mut()
}

fn now_ms() -> u64 {
    Ticks::now().ms_since(Ticks(0))
}

impl Balancer {
    /// Looks at a packet of a watched connection, before it is sent on.
    #[inline(never)]
    pub(crate) fn watch(&self, connection: &Connection, packet: &mut Packet, guard: &Guard) {
        let Ok(Some((tcp, start))) = tcp_segment(packet.linear(), packet.bytes()) else {
            return;
        };
        // A reset has no acknowledgement to speak of, and a SYN none at all.
        if !matches!(tcp.event(), TcpEvent::Ack | TcpEvent::Fin) {
            return;
        }
        let watch = connection.word().watch();
        if watch.remaining {
            connection.acknowledged(tcp.sequence, tcp.acknowledgement);
        }
        if watch.request && tcp.payload_bytes > 0 && connection.is_new_data(tcp.sequence) {
            let head = start.saturating_add(tcp.header_bytes);
            let looked_at = tcp.payload_bytes.min(HEAD_BYTES_MAX);
            let end = head.saturating_add(looked_at);
            if packet.linear().len() < end && !packet.pull(end) {
                return;
            }
            let Some(first) = packet.linear().get(head..end) else {
                return;
            };
            self.data(connection, parse(first, tcp.payload_bytes), &tcp, guard);
        }
    }

    /// The client has sent data.
    fn data(&self, connection: &Connection, segment: Segment, tcp: &TcpHeader, guard: &Guard) {
        let expectation = &connection.destination.expectation;
        match segment {
            Segment::NoRequest => {}
            Segment::Nothing => {
                connection.begin_request(tcp.sequence, tcp.acknowledgement);
                connection.set_size(0);
            }
            Segment::Unknown => {
                connection.begin_request(tcp.sequence, tcp.acknowledgement);
                connection.assume_size(expectation.bytes());
            }
            Segment::Fetch(fetch) => {
                connection.begin_request(tcp.sequence, tcp.acknowledgement);
                self.fetch(connection, &fetch, tcp, guard);
            }
        }
    }

    /// The client wants a file.
    fn fetch(&self, connection: &Connection, fetch: &Fetch, tcp: &TcpHeader, guard: &Guard) {
        let expectation = &connection.destination.expectation;
        let look = self.sizes.look(&fetch.name);
        if let Look::Known(file_bytes) = look {
            let size_bytes = fetch.range.bytes_of(file_bytes);
            connection.set_size(size_bytes);
            expectation.learn(size_bytes);
            return;
        }
        connection.assume_size(expectation.bytes());
        if look == Look::Ask {
            let question = SizeQuestion {
                name: fetch.name,
                asking: Asking {
                    tuple: connection.tuple(),
                    range: fetch.range,
                    sequence: tcp.sequence,
                    acknowledgement: tcp.acknowledgement,
                },
            };
            self.sizes.ask(&question, guard);
        }
    }

    /// An answer has come: the connection that asked gets its size, if it still waits for it.
    pub(crate) fn answered(&self, asking: &Asking, file_bytes: u64, guard: &Guard) {
        let connection = FlowKey::of(&asking.tuple).and_then(|key| self.connection(&key, guard));
        let Some(connection) = connection else {
            return;
        };
        let size_bytes = asking.range.bytes_of(file_bytes);
        let Some(counted) = connection.counted_since(asking.sequence) else {
            return;
        };
        let left_bytes = delivered::left_since(size_bytes, asking.acknowledgement, counted);
        if connection.set_size(left_bytes) {
            connection.destination.expectation.learn(size_bytes);
        }
    }
}
