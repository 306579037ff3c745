// SPDX-License-Identifier: GPL-2.0-only
//! A virtual service: what is configured, and which real server gets the next connection.
//!
//! Lists are immutable and replaced whole under the namespace's mutex, so packets read them under
//! RCU without a lock. Only scheduling a new connection takes the service's lock, so that choosing
//! a real server and counting the connection there are one step, and connections that arrive
//! together do not all find the same minimum.

use kernel::prelude::*;
use kernel::sync::rcu::{read_lock, Guard};
use kernel::sync::Arc;

use crate::director::address::Transport;
use crate::director::config::{DestKey, ServiceConfig};
use crate::director::event::Event;
use crate::director::flow::FlowKey;
use crate::director::refusals::{Refusals, CAUSES};
use crate::director::sched::{NoDestination, Request, SchedState, Scheduler};
use crate::director::service_key::ServiceKey;
use crate::director::slow_start;
use crate::director::stats::{Counters, Stats};
use crate::kapi::atomic::{Atomic, Relaxed};
use crate::kapi::lock::BhLock;
use crate::kapi::random::word;
use crate::kapi::rcu::RcuCell;
use crate::state::channel::Channel;
use crate::state::complaint::Complaint;
use crate::state::connection::Pick;
use crate::state::destination::Destination;
use crate::state::expectation::Expectation;
use crate::state::maglev;
use crate::state::settings::Settings;
use crate::state::template::{TemplateKey, Templates};

/// One virtual service.
#[pin_data]
pub(crate) struct Service {
    key: ServiceKey,
    config: RcuCell<ServiceConfig>,
    destinations: RcuCell<Destinations>,
    /// What its scheduler remembers.
    #[pin]
    scheduling: BhLock<SchedState>,
    /// What its connections are expected to fetch.
    pub(crate) expectation: Arc<Expectation>,
    /// How long a real server takes to its whole weight; [`SLOW_START_UNSET`]: what suits the
    /// scheduler.
    slow_start_ms: Atomic<u32>,
    /// Whether any of its real servers has thresholds.
    has_thresholds: Atomic<bool>,
    /// No real server could take a connection.
    refused: Complaint,
    /// How often, by cause.
    refusals: [Atomic<u64>; CAUSES],
}

/// What a service asks of its namespace when it gives a connection a real server.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// Which client has which real server already.
    pub(crate) templates: &'a Templates,
    /// What is configured by sysctl.
    pub(crate) settings: &'a Settings,
    /// Who is told when a real server reaches its threshold.
    pub(crate) channel: &'a Channel,
}

/// Beyond every slow start that can be asked for.
const SLOW_START_UNSET: u32 = u32::MAX;

/// A service's real servers, in the order in which they were added.
pub(crate) struct Destinations {
    list: KVec<Arc<Destination>>,
    /// What a scheduler looks its choice up in; empty if it needs nothing of the kind.
    table: KVec<u16>,
    /// The counters of those that were removed: they stay in the service's sums.
    retired: Counters,
}

impl Service {
    /// A service without real servers.
    pub(crate) fn new(config: ServiceConfig) -> Result<Arc<Service>> {
        let destinations = Destinations {
            list: KVec::new(),
            table: KVec::new(),
            retired: Counters::default(),
        };
        let key = config.key;
        let config = RcuCell::new(config)?;
        let destinations = RcuCell::new(destinations)?;
        let expectation = Expectation::new()?;
        let service = pin_init!(Service {
            key,
            config,
            destinations,
            scheduling <- BhLock::outer(SchedState::NEW),
            expectation,
            slow_start_ms: Atomic::new(SLOW_START_UNSET),
            has_thresholds: Atomic::new(false),
            refused: Complaint::new(),
            refusals: [const { Atomic::new(0) }; CAUSES],
        });
        Arc::pin_init(service, GFP_KERNEL)
    }

    /// The name by which packets find it.
    pub(crate) fn key(&self) -> ServiceKey {
        self.key
    }

    /// What is configured.
    pub(crate) fn config<'a>(&'a self, guard: &'a Guard) -> &'a ServiceConfig {
        self.config.load(guard)
    }

    /// Takes another configuration of the same name. A change of the scheduler begins its rounds
    /// anew. Under the namespace's mutex.
    pub(crate) fn configure(&self, config: ServiceConfig) -> Result {
        // A scheduler that needs a table must never run without one.
        let policy = config.policy();
        if policy.needs_table() {
            self.tabulate(policy)?;
        }
        self.config.replace(config)?;
        if !policy.needs_table() {
            self.tabulate(policy)?;
        }
        self.scheduling
            .with(|scheduling| *scheduling = SchedState::NEW);
        Ok(())
    }

    /// How long a real server takes to its whole weight.
    pub(crate) fn slow_start_ms(&self) -> u32 {
        match self.slow_start_ms.load(Relaxed) {
            SLOW_START_UNSET => slow_start::default_ms(self.config(&read_lock()).policy()),
            set => set,
        }
    }

    /// Changes that, for real servers that come from now on; 0 also ends what is under way.
    pub(crate) fn set_slow_start(&self, slow_start_ms: u32) {
        self.slow_start_ms.store(slow_start_ms, Relaxed);
        if slow_start_ms == 0 {
            for destination in self.destinations(&read_lock()) {
                destination.begin_slowly(0);
            }
        }
    }

    /// A real server was added or has come back from weight 0: it starts slowly, unless no other has
    /// a connection, and there is nothing to catch up with.
    pub(crate) fn starts_slowly(&self, newcomer: &Destination) {
        let slow_start_ms = self.slow_start_ms();
        let guard = read_lock();
        let behind = self
            .destinations(&guard)
            .iter()
            .any(|other| !core::ptr::eq(&**other, newcomer) && other.load().active > 0);
        newcomer.begin_slowly(if behind { slow_start_ms } else { 0 });
    }

    /// How many clients were turned away, and why.
    pub(crate) fn refusals(&self) -> Refusals {
        let [a, b, c, d, e] = &self.refusals;
        Refusals::from_counters([a, b, c, d, e].map(|counter| counter.load(Relaxed)))
    }

    /// Its real servers.
    pub(crate) fn destinations<'a>(&'a self, guard: &'a Guard) -> &'a [Arc<Destination>] {
        &self.destinations.load(guard).list
    }

    /// One of its real servers.
    pub(crate) fn destination<'a>(
        &'a self,
        key: &DestKey,
        guard: &'a Guard,
    ) -> Option<&'a Arc<Destination>> {
        self.destinations(guard)
            .iter()
            .find(|destination| destination.key() == *key)
    }

    /// Adds a real server. Under the namespace's mutex.
    pub(crate) fn add(&self, destination: Arc<Destination>) -> Result {
        let (mut list, retired) = self.copy_destinations()?;
        list.push_within_capacity(destination).map_err(|_| EAGAIN)?;
        self.replace_destinations(list, retired)
    }

    /// Removes a real server, which ends its connections with their next packet. Under the
    /// namespace's mutex.
    pub(crate) fn remove(&self, gone: &Arc<Destination>) -> Result {
        let (mut list, retired) = self.copy_destinations()?;
        let Some(index) = list.iter().position(|other| Arc::ptr_eq(other, gone)) else {
            return Err(ENOENT);
        };
        list.remove(index).map_err(|_| ENOENT)?;
        let retired = retired.plus(&gone.stats().counters);
        self.replace_destinations(list, retired)?;
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.scheduling
            .with(|scheduling| *scheduling = scheduling.after_removal(index));
        gone.remove();
        Ok(())
    }

    /// The service leaves the table: every real server is removed.
    pub(crate) fn retire(&self) {
        for destination in self.destinations(&read_lock()) {
            destination.remove();
        }
    }

    /// The settings of one of its real servers were changed. Under the namespace's mutex.
    pub(crate) fn follow_settings(&self) -> Result {
        let policy = {
            let guard = read_lock();
            self.look_for_thresholds(self.destinations(&guard));
            self.config(&guard).policy()
        };
        if policy.needs_table() {
            self.tabulate(policy)?;
        }
        Ok(())
    }

    /// Notes whether connections have to be compared with thresholds; most services have none.
    fn look_for_thresholds(&self, list: &[Arc<Destination>]) {
        let any = list.iter().any(|destination| destination.has_thresholds());
        self.has_thresholds.store(any, Relaxed);
    }

    /// Makes the lookup table that this scheduler needs. Under the namespace's mutex.
    fn tabulate(&self, policy: Scheduler) -> Result {
        let (list, retired) = self.copy_destinations()?;
        self.install(policy, list, retired)
    }

    /// Puts another list in the place of the present one. Under the namespace's mutex.
    fn replace_destinations(&self, list: KVec<Arc<Destination>>, retired: Counters) -> Result {
        let policy = self.config(&read_lock()).policy();
        self.install(policy, list, retired)
    }

    /// Shows packets this list, with the lookup table that `policy` needs.
    fn install(
        &self,
        policy: Scheduler,
        list: KVec<Arc<Destination>>,
        retired: Counters,
    ) -> Result {
        let table = maglev::table(policy, &list)?;
        self.look_for_thresholds(&list);
        Ok(self.destinations.replace(Destinations {
            list,
            table,
            retired,
        })?)
    }

    /// A list to change and put in the place of the present one. Under the namespace's mutex, so it
    /// does not change between.
    fn copy_destinations(&self) -> Result<(KVec<Arc<Destination>>, Counters)> {
        let length = self.destinations(&read_lock()).len();
        // Room for one more; allocated first, because that may sleep and a guard forbids it.
        let mut list = KVec::with_capacity(length.saturating_add(1), GFP_KERNEL)?;
        let guard = read_lock();
        let present = self.destinations.load(&guard);
        for destination in &present.list {
            list.push_within_capacity(destination.clone())
                .map_err(|_| EAGAIN)?;
        }
        Ok((list, present.retired))
    }

    /// The sums over its real servers, removed ones included.
    pub(crate) fn stats(&self, guard: &Guard) -> Stats {
        let destinations = self.destinations.load(guard);
        let retired = Stats {
            counters: destinations.retired,
            ..Stats::default()
        };
        destinations
            .list
            .iter()
            .fold(retired, |sum, destination| sum.plus(&destination.stats()))
    }

    /// Starts counting anew. Under the namespace's mutex.
    pub(crate) fn zero(&self) -> Result {
        let (list, _) = self.copy_destinations()?;
        for destination in &list {
            destination.zero();
        }
        self.replace_destinations(list, Counters::default())
    }

    /// Whether packets to this port are its own, as far as it was found for them: FTP's data
    /// connections are those of a persistent service only.
    pub(crate) fn takes(&self, port: u16) -> bool {
        match self.key {
            ServiceKey::Endpoint(endpoint) => {
                endpoint.port == port || self.config(&read_lock()).is_persistent()
            }
            ServiceKey::Mark(_) => true,
        }
    }

    /// Gives a connection a real server; `start` counts it there. Both happen under the scheduling lock,
    /// so that connections which arrive together do not all find the same minimum.
    pub(crate) fn assign<C>(
        &self,
        flow: &FlowKey,
        around: Surroundings<'_>,
        guard: &Guard,
        start: impl FnOnce(Pick) -> C,
    ) -> core::result::Result<C, NoDestination> {
        let config = self.config(guard);
        let one_packet = config.is_one_packet() && flow.transport() == Transport::Udp;
        let persistence = config.is_persistent().then(|| TemplateKey {
            service: self.key,
            network: config.netmask.network_of(flow.source()),
        });
        let templates = around.templates;
        self.scheduling.with(|scheduling| {
            let held = persistence.and_then(|key| {
                let expire_quiescent = around.settings.expires_quiescent_templates();
                templates.hold(&key, config.timeout_s, expire_quiescent, guard)
            });
            let (hold, destination) = match held {
                Some((hold, destination)) => (Some(hold), destination),
                None => {
                    let chosen = self.choose(flow, scheduling, around.channel, guard)?;
                    let remember = |key| templates.remember(key, config.timeout_s, chosen);
                    (persistence.and_then(remember), chosen.clone())
                }
            };
            Ok(start(Pick {
                destination,
                size_bytes: self.expectation.bytes(),
                watch: self.expectation.watch(),
                hold,
                one_packet,
            }))
        })
    }

    /// The scheduler's choice.
    fn choose<'g>(
        &'g self,
        flow: &FlowKey,
        scheduling: &mut SchedState,
        channel: &Channel,
        guard: &'g Guard,
    ) -> core::result::Result<&'g Arc<Destination>, NoDestination> {
        let config = self.config(guard);
        let policy = config.policy();
        let random = if policy.draws_lots() { word() } else { 0 };
        let Destinations {
            list: destinations,
            table,
            ..
        } = self.destinations.load(guard);
        if self.has_thresholds.load(Relaxed) {
            self.compare_with_thresholds(destinations, channel, guard);
        }
        let request = Request {
            flags: config.flags,
            client: flow.source(),
            client_port: flow.source_port(),
            random,
            table,
            ..Request::new(*scheduling, self.expectation.bytes())
        };
        let choice = policy.choose(destinations, &request)?;
        let chosen = destinations
            .get(choice.index as usize)
            .ok_or(NoDestination::Empty)?;
        *scheduling = choice.state;
        Ok(chosen)
    }

    /// Under the scheduling lock.
    #[inline(never)]
    fn compare_with_thresholds(
        &self,
        destinations: &[Arc<Destination>],
        channel: &Channel,
        guard: &Guard,
    ) {
        for destination in destinations {
            if let Some(overloaded) = destination.update_overload() {
                let event = Event::of_threshold(self.key, destination.key(), overloaded);
                channel.tell(&event, guard);
            }
        }
    }

    /// Counts a client that was turned away, and says why in the log; not for every client.
    pub(crate) fn complain(&self, cause: NoDestination) {
        if let Some(counter) = self.refusals.get(Refusals::place(cause)) {
            counter.fetch_add(1, Relaxed);
        }
        if !self.refused.is_due() {
            return;
        }
        pr_warn!(
            "{}: a client was refused: {}\n",
            core::format_args!("{}", self.key),
            cause.reason()
        );
    }
}
