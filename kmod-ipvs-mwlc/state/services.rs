// SPDX-License-Identifier: GPL-2.0-only
//! The list of a namespace's virtual services, in which a packet finds its own.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::director::address::{Address, Family, Transport};
use crate::director::service_key::candidates;
use crate::director::service_key::{Endpoint, ServiceKey};
use crate::state::service::Service;

/// The services of a namespace, sorted by name, so that a packet finds its service in a few
/// comparisons.
pub(crate) struct Services {
    sorted: KVec<Arc<Service>>,
    /// Whether all names are plain: then a packet's service has the name of its endpoint, or there is
    /// none.
    all_plain: bool,
}

impl Services {
    /// An empty list.
    pub(crate) const fn new() -> Services {
        Services {
            sorted: KVec::new(),
            all_plain: true,
        }
    }

    /// The service with this name.
    pub(crate) fn get(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.sorted
            .get(self.first_from(key))
            .filter(|service| service.key() == *key)
    }

    /// The service that a packet to `endpoint` with this firewall mark is for.
    pub(crate) fn find(&self, endpoint: Endpoint, mark: u32) -> Option<&Arc<Service>> {
        if self.all_plain {
            return self.get(&ServiceKey::Endpoint(endpoint));
        }
        candidates(endpoint, mark)
            .find_map(|key| self.get(&key))
            .filter(|service| service.takes(endpoint.port))
    }

    /// Whether there are services of firewall marks for this family.
    pub(crate) fn have_marks(&self, family: Family) -> bool {
        let first = self.first_from(&ServiceKey::mark(family, 0));
        self.sorted
            .get(first)
            .is_some_and(|service| service.key().family() == family)
    }

    /// The index of the first service whose name is `key` or comes after it. Packets call this, so
    /// it is not the library's `partition_point`, whose overflow checks would be panics in the
    /// packet's path.
    fn first_from(&self, key: &ServiceKey) -> usize {
        let (mut from, mut length) = (0usize, self.sorted.len());
        while length > 0 {
            let half = length >> 1;
            let middle = from.wrapping_add(half);
            if self
                .sorted
                .get(middle)
                .is_some_and(|service| service.key() < *key)
            {
                from = middle.wrapping_add(1);
                length = length.wrapping_sub(half).wrapping_sub(1);
            } else {
                length = half;
            }
        }
        from
    }

    /// All of them, sorted.
    pub(crate) fn all(&self) -> &[Arc<Service>] {
        &self.sorted
    }

    /// Whether any service may be for this address: then fragments to it concern the director.
    pub(crate) fn have_address(&self, address: Address) -> bool {
        if self.have_marks(address.family()) {
            return true;
        }
        [Transport::Tcp, Transport::Udp]
            .into_iter()
            .any(|transport| {
                let first = self.first_from(&ServiceKey::endpoint(transport, address, 0));
                let endpoint = match self.sorted.get(first).map(|service| service.key()) {
                    Some(ServiceKey::Endpoint(endpoint)) => endpoint,
                    Some(ServiceKey::Mark(_)) | None => return false,
                };
                endpoint.transport == transport && endpoint.address == address
            })
    }

    /// A copy with room for one more, for `add` or `remove`; `length` is that of `old` under the
    /// namespace's mutex.
    pub(crate) fn with_capacity_for(length: usize) -> Result<Services> {
        Ok(Services {
            sorted: KVec::with_capacity(length.saturating_add(1), GFP_KERNEL)?,
            all_plain: true,
        })
    }

    /// Fills an empty list made by [`Services::with_capacity_for`] with those of `old` that `keep`
    /// keeps. Does not sleep.
    pub(crate) fn fill(&mut self, old: &Services, keep: impl Fn(&Service) -> bool) -> Result {
        for service in old.sorted.iter().filter(|service| keep(service)) {
            self.sorted
                .push_within_capacity(service.clone())
                .map_err(|_| EAGAIN)?;
            self.all_plain &= service.key().is_plain();
        }
        Ok(())
    }

    /// Adds a service at its place.
    pub(crate) fn insert(&mut self, service: Arc<Service>) -> Result {
        let place = self.first_from(&service.key());
        self.all_plain &= service.key().is_plain();
        self.sorted
            .insert_within_capacity(place, service)
            .map_err(|_| EAGAIN)
    }
}
