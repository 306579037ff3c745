// SPDX-License-Identifier: GPL-2.0-only
//! A real server of one service: its settings, its load, its traffic and the way to it.

use crate::kapi::atomic::{Acquire, Atomic, Relaxed, Release};
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::director::config::{DestConfig, DestKey, Forwarding, Thresholds};
use crate::director::drain::DrainRequest;
use crate::director::load::{Learn, LoadChange};
use crate::director::report::counted;
use crate::director::sched::{overhead_difference, DestLoad, Ramp, Server};
use crate::director::service_key::ServiceKey;
use crate::director::stats::{Counters, Estimator, Stats};
use crate::kapi::clock::Ticks;
use crate::kapi::lock::BhLock;
use crate::kapi::route::RouteCell;
use crate::state::drain::Drain;
use crate::state::expectation::Expectation;
use crate::state::traffic::Traffic;

/// The real server. Packets read it while configuration changes it: each field is atomic by itself.
#[pin_data]
pub(crate) struct Destination {
    service: ServiceKey,
    key: DestKey,
    weight: Atomic<u32>,
    /// The weight, or the last one before it was set to 0.
    last_weight: Atomic<u32>,
    local: Atomic<bool>,
    upper: Atomic<u32>,
    lower: Atomic<u32>,
    overloaded: Atomic<bool>,
    /// Since when it starts slowly, in ticks; 0: it does not, or no more.
    ramp_began: Atomic<u64>,
    ramp_ms: Atomic<u32>,
    /// Whether it drains.
    pub(crate) drain: Drain,
    removed: Atomic<bool>,
    standing: Standing,
    /// Templates that name it.
    templates: Atomic<i32>,
    /// What its service's connections are expected to fetch.
    pub(crate) expectation: Arc<Expectation>,
    /// Its part of what its node last reported as open.
    reported_bytes: Atomic<u64>,
    /// When that was, in ticks; 0: never.
    reported_at: Atomic<u64>,
    /// Where its packets go.
    pub(crate) route: RouteCell,
    /// What went there.
    pub(crate) traffic: Traffic,
    #[pin]
    books: BhLock<Books>,
}

/// What every new connection of the service compares: one cache line.
#[repr(C, align(64))]
struct Standing {
    /// What [`Server::milliweight`] answers, or [`CHANGING`]. Written under the lock of the books, from
    /// what is true then, so the last one to write is right.
    milliweight: Atomic<u64>,
    /// Ci.
    bytes: Atomic<i64>,
    /// Ci with no connection counted beyond its cap.
    capped: Atomic<i64>,
    pending: Atomic<i32>,
    active: Atomic<i32>,
    inactive: Atomic<i32>,
    /// [`Server::overhead`] of the two.
    overhead: Atomic<i64>,
}

/// The weight or the load that counts depends on the time: it starts slowly, or its node reports. No
/// weight in thousandths has so many bits.
const CHANGING: u64 = u64::MAX;

impl Standing {
    const fn new() -> Standing {
        Standing {
            milliweight: Atomic::new(0),
            bytes: Atomic::new(0),
            capped: Atomic::new(0),
            pending: Atomic::new(0),
            active: Atomic::new(0),
            inactive: Atomic::new(0),
            overhead: Atomic::new(0),
        }
    }
}

/// What makes statistics of the traffic.
struct Books {
    /// What the counters had at the last zeroing.
    baseline: Counters,
    estimator: Estimator,
    estimated: Ticks,
}

impl Destination {
    /// A new one of this service, without connections.
    pub(crate) fn new(
        service: ServiceKey,
        config: &DestConfig,
        expectation: Arc<Expectation>,
    ) -> Result<Arc<Destination>> {
        let traffic = Traffic::new()?;
        let books = Books {
            baseline: Counters::default(),
            estimator: Estimator::NEW,
            estimated: Ticks::now(),
        };
        let destination = pin_init!(Destination {
            service,
            key: config.key,
            weight: Atomic::new(config.weight),
            last_weight: Atomic::new(config.weight),
            local: Atomic::new(config.forwarding == Forwarding::LocalNode),
            upper: Atomic::new(config.thresholds.upper),
            lower: Atomic::new(config.thresholds.lower),
            overloaded: Atomic::new(false),
            ramp_began: Atomic::new(0),
            ramp_ms: Atomic::new(0),
            drain: Drain::new(),
            removed: Atomic::new(false),
            standing: Standing::new(),
            templates: Atomic::new(0),
            expectation,
            reported_bytes: Atomic::new(0),
            reported_at: Atomic::new(0),
            route: RouteCell::new(),
            traffic,
            books <- BhLock::new(books),
        });
        let destination = Arc::pin_init(destination, GFP_KERNEL)?;
        destination.weigh();
        Ok(destination)
    }

    /// Notes what weight counts from now on, after anything has changed that it depends on.
    fn weigh(&self) {
        self.books.with(|_| {
            let load = self.load();
            let milliweight = if load.overloaded || load.weight == 0 {
                0
            } else if self.ramp_began.load(Relaxed) != 0 || self.has_reported() {
                CHANGING
            } else {
                load.milliweight()
            };
            self.standing.milliweight.store(milliweight, Relaxed);
        });
    }

    /// The service that it serves.
    pub(crate) fn service(&self) -> ServiceKey {
        self.service
    }

    /// Its name within its service.
    pub(crate) fn key(&self) -> DestKey {
        self.key
    }

    /// Takes new settings; connections go on. A weight ends a drain.
    pub(crate) fn configure(&self, config: &DestConfig) {
        self.weight.store(config.weight, Relaxed);
        if config.weight > 0 {
            self.last_weight.store(config.weight, Relaxed);
            self.drain.cancel();
        }
        self.local
            .store(config.forwarding == Forwarding::LocalNode, Relaxed);
        self.upper.store(config.thresholds.upper, Relaxed);
        self.lower.store(config.thresholds.lower, Relaxed);
        self.weigh();
    }

    /// Its settings.
    pub(crate) fn config(&self) -> DestConfig {
        DestConfig {
            key: self.key,
            forwarding: self.forwarding(),
            weight: self.weight.load(Relaxed),
            thresholds: self.thresholds(),
        }
    }

    /// Its weight, or the last one before it was set to 0.
    pub(crate) fn last_weight(&self) -> u32 {
        self.last_weight.load(Relaxed)
    }

    /// Takes no new connections, and has so much time for the old ones.
    pub(crate) fn begin_drain(&self, request: DrainRequest) {
        self.weight.store(0, Relaxed);
        self.weigh();
        self.drain.begin(request);
    }

    /// Begins to count with a part of its weight, which takes so long to be the whole; 0 ends that.
    pub(crate) fn begin_slowly(&self, slow_start_ms: u32) {
        let began = if slow_start_ms > 0 { Ticks::now().0 } else { 0 };
        self.ramp_ms.store(slow_start_ms, Relaxed);
        self.ramp_began.store(began, Relaxed);
        self.weigh();
    }

    /// The part of its weight that counts.
    #[inline]
    fn ramp(&self) -> Ramp {
        match self.ramp_began.load(Relaxed) {
            0 => Ramp::FULL,
            began => self.ramp_since(began),
        }
    }

    #[cold]
    #[inline(never)]
    fn ramp_since(&self, began: u64) -> Ramp {
        let since_ms = Ticks::now().ms_since(Ticks(began));
        Ramp::at(since_ms, self.ramp_ms.load(Relaxed))
    }

    /// [`Server::milliweight`] while it starts slowly or its node reports.
    #[cold]
    #[inline(never)]
    fn changing_milliweight(&self) -> u64 {
        if self.ramp_began.load(Relaxed) != 0 && self.ramp() == Ramp::FULL {
            // If it has begun anew meanwhile, the weight is whole a little too early.
            self.ramp_began.store(0, Relaxed);
            self.weigh();
        }
        Server::milliweight(&self.load())
    }

    /// How packets reach it.
    pub(crate) fn forwarding(&self) -> Forwarding {
        if self.local.load(Relaxed) {
            Forwarding::LocalNode
        } else {
            Forwarding::DirectRouting
        }
    }

    fn thresholds(&self) -> Thresholds {
        Thresholds {
            upper: self.upper.load(Relaxed),
            lower: self.lower.load(Relaxed),
        }
    }

    /// Marks it as no longer configured: its connections end with their next packet.
    pub(crate) fn remove(&self) {
        self.removed.store(true, Release);
        self.route.forget();
    }

    /// Whether it is configured, and not with weight 0.
    pub(crate) fn takes_connections(&self) -> bool {
        !self.is_removed() && self.weight.load(Relaxed) > 0
    }

    /// Whether it is no longer configured.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Acquire)
    }

    /// Counts a connection's change.
    pub(crate) fn apply(&self, change: LoadChange) {
        let LoadChange {
            pending,
            active,
            inactive,
            bytes,
            capped,
        } = change;
        let standing = &self.standing;
        for (counter, difference) in [
            (&standing.pending, pending),
            (&standing.active, active),
            (&standing.inactive, inactive),
        ] {
            if difference != 0 {
                counter.fetch_add(difference, Relaxed);
            }
        }
        let overhead = overhead_difference(active, inactive);
        if overhead != 0 {
            standing.overhead.fetch_add(overhead, Relaxed);
        }
        if bytes != 0 {
            standing.bytes.fetch_add(bytes, Relaxed);
        }
        if capped != 0 {
            standing.capped.fetch_add(capped, Relaxed);
        }
    }

    /// Counts a persistence template that comes (1) or goes (-1).
    pub(crate) fn count_template(&self, difference: i32) {
        self.templates.fetch_add(difference, Relaxed);
    }

    /// Persistence templates that name it.
    pub(crate) fn templates(&self) -> u32 {
        count(&self.templates)
    }

    /// Its load, as it is counted here.
    pub(crate) fn load(&self) -> DestLoad {
        let standing = &self.standing;
        DestLoad {
            weight: self.weight.load(Relaxed),
            pending: count(&standing.pending),
            active: count(&standing.active),
            inactive: count(&standing.inactive),
            bytes: sum(&standing.bytes),
            capped_bytes: sum(&standing.capped),
            overloaded: self.overloaded.load(Relaxed),
            ramp: self.ramp(),
        }
    }

    fn has_reported(&self) -> bool {
        self.reported_at.load(Relaxed) != 0
    }

    /// [`Server::reported_bytes`] of one whose node reports.
    #[cold]
    #[inline(never)]
    fn counted_report(&self) -> i64 {
        match self.reported() {
            Some((share_bytes, age_ms)) if self.expectation.learns() == Learn::Off => {
                counted(share_bytes, age_ms)
            }
            Some(_) | None => 0,
        }
    }

    /// [`Server::pending_within`] beyond its bound, and when the counter looks negative.
    #[cold]
    #[inline(never)]
    fn much_pending(&self, max: u32) -> u32 {
        count(&self.standing.pending).min(max)
    }

    /// Takes its part of what its node reports.
    pub(crate) fn report(&self, share_bytes: u64, at: Ticks) {
        let is_first = !self.has_reported();
        self.reported_bytes.store(share_bytes, Relaxed);
        self.reported_at.store(at.0, Release);
        if is_first {
            self.weigh();
        }
    }

    /// Its part of what its node last reported, in bytes, and how long ago in milliseconds.
    pub(crate) fn reported(&self) -> Option<(u64, u64)> {
        match self.reported_at.load(Acquire) {
            0 => None,
            at => Some((
                self.reported_bytes.load(Relaxed),
                Ticks::now().ms_since(Ticks(at)),
            )),
        }
    }

    /// Whether its connections have to be compared with thresholds.
    pub(crate) fn has_thresholds(&self) -> bool {
        self.upper.load(Relaxed) != 0 || self.overloaded.load(Relaxed)
    }

    /// Compares its connections with its thresholds; whether that has changed anything, and to
    /// what. Under the service's scheduling lock.
    pub(crate) fn update_overload(&self) -> Option<bool> {
        let was = self.overloaded.load(Relaxed);
        let connections = self.load().connections();
        let now = self.thresholds().overloaded(was, connections);
        if now == was {
            return None;
        }
        self.overloaded.store(now, Relaxed);
        self.weigh();
        Some(now)
    }

    /// Its counters since the last zeroing, and its rates.
    pub(crate) fn stats(&self) -> Stats {
        let total = self.traffic.total();
        self.books.with(|books| Stats {
            counters: total.since(&books.baseline),
            rates: books.estimator.rates(),
        })
    }

    /// Starts counting anew.
    pub(crate) fn zero(&self) {
        let total = self.traffic.total();
        self.books.with(|books| books.baseline = total);
    }

    /// Estimates the rates anew, over the time since the last estimate.
    pub(crate) fn estimate(&self) {
        let total = self.traffic.total();
        let now = Ticks::now();
        self.books.with(|books| {
            let elapsed_ms = now.ms_since(books.estimated);
            books.estimated = now;
            books.estimator = books.estimator.estimate(total, elapsed_ms);
        });
    }
}

/// What a scheduler sees of it: its load, with what its node reports if that is to count. A service that
/// learns the sizes of its connections knows better.
impl Server for Arc<Destination> {
    #[inline(always)]
    fn milliweight(&self) -> u64 {
        match self.standing.milliweight.load(Relaxed) {
            CHANGING => self.changing_milliweight(),
            settled => settled,
        }
    }

    #[inline(always)]
    fn weighs(&self, milliweight: u64) -> bool {
        self.standing.milliweight.load(Relaxed) == milliweight
    }

    #[inline(always)]
    fn pending_within(&self, max: u32) -> u32 {
        // What looks negative for a moment is above every bound.
        let pending = self.standing.pending.load(Relaxed) as u32;
        if pending > max {
            return self.much_pending(max);
        }
        pending
    }

    #[inline(always)]
    fn active(&self) -> i64 {
        self.standing.active.load(Relaxed).into()
    }

    #[inline(always)]
    fn overhead(&self) -> i64 {
        self.standing.overhead.load(Relaxed)
    }

    #[inline(always)]
    fn bytes(&self) -> i64 {
        self.standing.bytes.load(Relaxed)
    }

    #[inline(always)]
    fn reported_bytes(&self) -> i64 {
        match self.has_reported() {
            false => 0,
            true => self.counted_report(),
        }
    }

    #[inline(always)]
    fn capped_bytes(&self) -> i64 {
        self.standing.capped.load(Relaxed)
    }

    fn snapshot(&self) -> DestLoad {
        self.load()
    }
}

/// A counter as it is read: additions and subtractions of two CPUs may be seen in either order, so
/// it can look negative for a moment.
#[inline(always)]
fn count(counter: &Atomic<i32>) -> u32 {
    u32::try_from(counter.load(Relaxed)).unwrap_or(0)
}

/// A sum of bytes as it is read; as a counter, it can look negative for a moment.
#[inline(always)]
fn sum(counter: &Atomic<i64>) -> u64 {
    u64::try_from(counter.load(Relaxed)).unwrap_or(0)
}
