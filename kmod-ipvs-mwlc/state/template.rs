// SPDX-License-Identifier: GPL-2.0-only
//! Persistence: a template remembers which real server a client's network has, and lives while
//! connections hold it.

use core::borrow::Borrow;

use kernel::prelude::*;
use kernel::sync::rcu::Guard;
use kernel::sync::Arc;

use crate::director::address::Address;
use crate::director::service_key::ServiceKey;
use crate::kapi::atomic::{Atomic, Relaxed};
use crate::kapi::clock::Ticks;
use crate::kapi::hashtable::{Chain, Entry, Table};
use crate::kapi::memory;
use crate::kapi::random::HashKey;
use crate::state::complaint::Complaint;
use crate::state::destination::Destination;

/// The table has `1 << TEMPLATE_BITS` buckets: 64 KiB, and chains of eight at 65,536 networks.
const TEMPLATE_BITS: u32 = 13;
/// Templates in one network namespace, on a machine that has the memory: 64 MiB of them.
const TEMPLATES_MAX: u64 = 1 << 18;
/// Templates take at most this part of the machine's RAM.
const RAM_PART: u64 = 64;
/// What a template takes: 128 bytes as the allocator rounds it, and at most 128 for its entry.
const TEMPLATE_BYTES: u64 = 256;
/// A template whose time has come while connections hold it is looked at again after its timeout,
/// and at the latest after this long, as in IPVS.
const HELD_RETRY_S_MAX: u32 = 60;

/// What a template is found by: its service, and the network of its client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TemplateKey {
    pub(crate) service: ServiceKey,
    pub(crate) network: Address,
}

/// The template.
pub(crate) struct Template {
    pub(crate) key: TemplateKey,
    /// Who gets the network's connections.
    pub(crate) destination: Arc<Destination>,
    timeout_s: Atomic<u32>,
    /// When it was last asked for, in ticks.
    used: Atomic<u64>,
    /// Connections that hold it.
    connections: Atomic<u32>,
    /// One of them was established.
    assured: Atomic<bool>,
}

impl Template {
    /// Whether it still says where connections go.
    pub(crate) fn is_usable(&self, expire_quiescent: bool) -> bool {
        let quiescent = expire_quiescent && self.destination.load().weight == 0;
        let ending = self.destination.is_removed() || self.destination.drain.is_under_way();
        !ending && !quiescent
    }

    /// Whether one of its connections was established.
    pub(crate) fn is_assured(&self) -> bool {
        self.assured.load(Relaxed)
    }

    /// When it ends if nobody asks for it.
    pub(crate) fn expires(&self) -> Ticks {
        Ticks(self.used.load(Relaxed)).after_s(self.timeout_s.load(Relaxed))
    }

    fn is_held(&self) -> bool {
        self.connections.load(Relaxed) > 0
    }
}

/// A connection's part in a template, which lives at least as long.
pub(crate) struct Hold(Arc<Template>);

impl Hold {
    fn new(template: &Arc<Template>, timeout_s: u32) -> Hold {
        template.connections.fetch_add(1, Relaxed);
        template.used.store(Ticks::now().0, Relaxed);
        template.timeout_s.store(timeout_s, Relaxed);
        Hold(template.clone())
    }

    /// The connection was established.
    pub(crate) fn assure(&self) {
        if !self.0.is_assured() {
            self.0.assured.store(true, Relaxed);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// A template in its table.
pub(crate) struct Listed(Arc<Template>);

impl Listed {
    /// The template.
    pub(crate) fn template(&self) -> &Template {
        &self.0
    }
}

impl Entry for Listed {
    type Key = TemplateKey;
    type Context = ();

    fn key(&self) -> &TemplateKey {
        &self.0.key
    }

    fn deadline(&self, (): &()) -> Ticks {
        let expires = self.0.expires();
        let held = self.0.is_held() && !self.0.destination.is_removed();
        if held && expires <= Ticks::now() {
            let timeout_s = self.0.timeout_s.load(Relaxed);
            return Ticks::now().after_s(timeout_s.min(HELD_RETRY_S_MAX));
        }
        expires
    }

    fn unlinked(&self, (): &()) {
        self.0.destination.count_template(-1);
    }

    /// One that no established connection has held: half-open ones and datagrams can have any source,
    /// so a flood of them pushes out its own templates first.
    fn evictable_since(&self) -> Option<Ticks> {
        (!self.0.is_assured()).then(|| Ticks(self.0.used.load(Relaxed)))
    }
}

/// A namespace's templates.
#[pin_data]
pub(crate) struct Templates {
    #[pin]
    table: Table<Listed>,
    key: HashKey,
    /// A template found no room in the table, or no memory.
    full: Complaint,
}

/// How many templates a namespace may have on this machine.
fn templates_max() -> u32 {
    // A value from kernel 7.3 on, a reference before; both can be borrowed.
    let asked: u32 = *crate::module_parameters::templates_max.value().borrow();
    if asked != 0 {
        return asked.min(TEMPLATES_MAX as u32);
    }
    let fitting = memory::ram_bytes() / RAM_PART / TEMPLATE_BYTES;
    u32::try_from(fitting.min(TEMPLATES_MAX)).unwrap_or(u32::MAX)
}

impl Templates {
    /// An empty table.
    pub(crate) fn new() -> Result<impl PinInit<Self>> {
        let table = Table::new(TEMPLATE_BITS, templates_max(), ())?;
        Ok(pin_init!(Templates {
            table <- table,
            key: HashKey::random(),
            full: Complaint::new(),
        }))
    }

    /// A hold on the template with this key, and its real server, if there is one that is usable.
    /// One that is not is forgotten.
    pub(crate) fn hold(
        &self,
        key: &TemplateKey,
        timeout_s: u32,
        expire_quiescent: bool,
        guard: &Guard,
    ) -> Option<(Hold, Arc<Destination>)> {
        let node = self.table.lookup(self.hash(key), key, guard)?;
        let template = &node.0;
        if template.is_usable(expire_quiescent) {
            let was_s = template.timeout_s.load(Relaxed);
            let hold = Hold::new(template, timeout_s);
            if timeout_s < was_s {
                // The table waits for the longer time.
                self.table.hasten(node);
            }
            return Some((hold, template.destination.clone()));
        }
        self.table.remove(node);
        None
    }

    /// Remembers that a network has this real server. At the limit, one that may be evicted makes room;
    /// if there is none, nothing is remembered, and the log says so. Under the service's scheduling
    /// lock, so that nobody else adds a template with this key.
    pub(crate) fn remember(
        &self,
        key: TemplateKey,
        timeout_s: u32,
        destination: &Arc<Destination>,
    ) -> Option<Hold> {
        let template = Template {
            key,
            destination: destination.clone(),
            timeout_s: Atomic::new(timeout_s),
            used: Atomic::new(Ticks::now().0),
            connections: Atomic::new(0),
            assured: Atomic::new(false),
        };
        // In a softirq, which does not wait for memory.
        let template = Arc::new(template, GFP_ATOMIC).ok();
        let hold = template
            .as_ref()
            .map(|template| Hold::new(template, timeout_s));
        let added = template.is_some_and(|template| {
            // Counted first, since the table counts it down whenever it ends.
            destination.count_template(1);
            let inserted = self.table.insert(self.hash(&key), Listed(template));
            if inserted.is_err() {
                destination.count_template(-1);
            }
            inserted.is_ok()
        });
        if !added {
            self.complain_of_room();
            return None;
        }
        hold
    }

    fn complain_of_room(&self) {
        if self.full.is_due() {
            pr_warn!(
                "a client is not persistent: the table has its {} templates, or there is no memory\n",
                templates_max()
            );
        }
    }

    /// Forgets the templates of real servers that are no longer configured. Sleeps.
    pub(crate) fn forget_removed(&self) {
        self.table
            .end_those(|listed| listed.0.destination.is_removed());
    }

    /// Ends those whose time is over. Sleeps.
    pub(crate) fn sweep(&self) {
        self.table.sweep();
    }

    /// How many buckets there are.
    pub(crate) fn buckets(&self) -> usize {
        self.table.buckets()
    }

    /// The templates of a bucket.
    pub(crate) fn entries<'g>(&self, bucket: usize, guard: &'g Guard) -> Chain<'g, Listed> {
        self.table.entries(bucket, guard)
    }

    /// Where a template is in the table.
    fn hash(&self, key: &TemplateKey) -> u32 {
        let [a, b, c, d] = words(key.network);
        let mixed = self.key.hash(a, b, c);
        let (address, port, kind) = match key.service {
            ServiceKey::Endpoint(endpoint) => {
                (endpoint.address, endpoint.port, endpoint.transport.number())
            }
            ServiceKey::Mark(firewall) => (Address::V4(firewall.mark.to_ne_bytes()), 0, 0),
        };
        let [e, f, g, h] = words(address);
        let name = self
            .key
            .hash(e ^ f, g ^ h, u32::from(port) << 16 | u32::from(kind));
        self.key.hash(mixed, name, d)
    }
}

fn words(address: Address) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.to_union();
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

// Locks and timers are larger in a kernel that checks them.
#[cfg(not(CONFIG_DEBUG_LOCK_ALLOC))]
const _: () = assert!(
    size_of::<crate::kapi::hashtable::Node<Listed>>() <= 128 && size_of::<Template>() <= 120,
    "what the limit on memory counts with"
);
