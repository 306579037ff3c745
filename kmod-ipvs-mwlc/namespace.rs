// SPDX-License-Identifier: GPL-2.0-only
//! What each network namespace has: nothing at first, a balancer with its hook once something is
//! configured.
//!
//! # Lock order
//!
//! 1. the namespace's mutex: every change of configuration, one at a time; under it RTNL, when the
//!    hooks at devices come and go;
//! 2. a service's scheduling lock, the only outer spinlock (see `kapi/lock.rs`);
//! 3. a leaf: a bucket's lock of connections or templates, a destination's books, some sets of the size
//!    cache, an expected size, a limit on events or questions. Never two of them.
//!
//! Packets take no lock for an established connection. For a new one they take 2, and under it a
//! template's bucket if the service is persistent; then, without it, the connection's bucket. When a
//! connection moves to another real server, its bucket is taken under 2.

use kernel::prelude::*;
use kernel::sync::rcu::read_lock;
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::director::address::Family;
use crate::director::errno::{Errno, Reject};
use crate::kapi::devices;
use crate::kapi::ingress;
use crate::kapi::netfilter;
use crate::kapi::pernet::{Net, PerNet, Slot};
use crate::kapi::rcu;
use crate::kapi::work::Repeater;
use crate::state::balancer::Balancer;
use crate::state::settings::Settings;
use crate::upkeep::sweeper::Sweeper;
use crate::upkeep::Upkeep;

/// A namespace's state.
#[pin_data]
pub(crate) struct Namespace {
    net: Net,
    settings: Arc<Settings>,
    #[pin]
    running: Mutex<Option<Running>>,
}

const NO_START: Reject = Reject::new(
    Errno::NoMemory,
    c"no memory for the connection table and its hook",
);

const NO_HOOK: Reject = Reject::new(
    Errno::NoMemory,
    c"no memory for the hook that sees firewall marks: the service has none",
);

/// A balancer at work. The fields are dropped in this order: first nothing repeats any more, then
/// no packet comes any more, then services and connections go.
struct Running {
    _upkeep: Pin<KBox<Repeater<Upkeep>>>,
    _sweeper: Pin<KBox<Repeater<Sweeper>>>,
    /// Before the IP layer, of kernels that can.
    _ingress_hook: Option<ingress::Registration<Balancer>>,
    /// For services of firewall marks, while there are any.
    marks_hook: Option<netfilter::Registration<Balancer>>,
    _hook: netfilter::Registration<Balancer>,
    _devices: devices::Registration<Balancer>,
    balancer: Arc<Balancer>,
}

impl Namespace {
    /// The balancer, if anything was ever configured.
    pub(crate) fn balancer(&self) -> Option<Arc<Balancer>> {
        self.running
            .lock()
            .as_ref()
            .map(|running| running.balancer.clone())
    }

    /// Changes the configuration, alone; makes the balancer if there is none yet.
    pub(crate) fn configure<R>(
        &self,
        change: impl FnOnce(&Balancer) -> core::result::Result<R, Reject>,
    ) -> core::result::Result<R, Reject> {
        let mut running = self.running.lock();
        let running: &mut Running = match &mut *running {
            Some(running) => running,
            nothing => nothing
                .insert(Running::start(self.net, self.settings.clone()).map_err(|_| NO_START)?),
        };
        let done = change(&running.balancer)?;
        running.follow_marks(self.net).map_err(|_| NO_HOOK)?;
        Ok(done)
    }
}

impl Running {
    /// Has the second hook if and only if a service is named by a firewall mark: marks are made after
    /// the first one.
    fn follow_marks(&mut self, net: Net) -> Result {
        let wanted = {
            let guard = read_lock();
            let services = self.balancer.services.load(&guard);
            services.have_marks(Family::Ipv4) || services.have_marks(Family::Ipv6)
        };
        if wanted && self.marks_hook.is_none() {
            let target = self.balancer.clone();
            self.marks_hook = Some(netfilter::Registration::after_mangle(net, target)?);
            // Packets that are on their way between the hooks do not meet it yet.
            rcu::synchronize();
            self.balancer.wait_for_marks(true);
        } else if !wanted && self.marks_hook.is_some() {
            // Packets that were left to it still meet it: netfilter goes on with the hooks that it
            // began with.
            self.balancer.wait_for_marks(false);
            self.marks_hook = None;
        }
        Ok(())
    }

    fn start(net: Net, settings: Arc<Settings>) -> Result<Running> {
        let balancer = Balancer::new(net, settings)?;
        let devices = devices::Registration::new(net, balancer.clone())?;
        let hook = netfilter::Registration::first(net, balancer.clone())?;
        // After the other one, which takes off what this one notes on packets that it leaves.
        let ingress_hook = ingress::Registration::new(net, balancer.clone())?;
        let upkeep = Repeater::start(Upkeep::new(balancer.clone())?)?;
        let sweeper = Repeater::start(Sweeper::new(balancer.clone())?)?;
        Ok(Running {
            _upkeep: upkeep,
            _sweeper: sweeper,
            _ingress_hook: ingress_hook,
            marks_hook: None,
            _hook: hook,
            _devices: devices,
            balancer,
        })
    }
}

static SLOT: Slot<Namespace> = Slot::new();

impl PerNet for Namespace {
    fn new(net: Net) -> Result<Pin<KBox<Namespace>>> {
        let settings = Arc::new(Settings::new(net)?, GFP_KERNEL)?;
        KBox::pin_init(
            pin_init!(Namespace {
                net,
                settings,
                running <- new_mutex!(None, "ipvs_mwlc"),
            }),
            GFP_KERNEL,
        )
    }

    fn slot() -> &'static Slot<Namespace> {
        &SLOT
    }
}
