// SPDX-License-Identifier: MIT
//! [`StripeStore`] over the real iods.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pvfs::address::{Endpoint, IOD_PORT_DEFAULT};
use pvfs::client::iod::IodDirectory;
use pvfs::client::patience::{Cancel, Patience};
use pvfs::client::pool::{IodPool, PoolOptions};
use pvfs::error::FsError;
use pvfs::ids::{FileSystemId, Incarnation, IodId, ObjectId};
use pvfs::proto::iod::{Change, IodRequest, IodResponse, StripeRef};
use pvfs::proto::seal::OrderKey;

use crate::owner::work::{LocalFile, Target};
use crate::stripes::StripeStore;

/// A call that has no answer after so long is given up and tried again later, when the iod may have
/// registered at another address.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Has iods do what the owner orders.
pub struct Iods {
    addresses: Arc<AddressBook>,
    pool: IodPool,
    key: OrderKey,
    cancel: Cancel,
}

/// Where each iod is: the owner says so when it registers.
struct AddressBook {
    file_system: FileSystemId,
    endpoints: Mutex<HashMap<IodId, Known>>,
}

struct Known {
    endpoint: Endpoint,
    /// `None` before the iod has registered with this start of mgr: it knows no order by its key.
    incarnation: Option<Incarnation>,
}

impl IodDirectory for AddressBook {
    fn endpoint(&self, iod: IodId) -> Option<Endpoint> {
        self.lock().get(&iod).map(|known| known.endpoint.clone())
    }

    fn incarnation(&self, iod: IodId) -> Option<Incarnation> {
        self.lock().get(&iod).and_then(|known| known.incarnation)
    }

    fn refresh(&self) {}

    fn file_system(&self) -> Option<FileSystemId> {
        Some(self.file_system)
    }
}

impl AddressBook {
    /// Every change is a single step, so a panic leaves it sound.
    fn lock(&self) -> MutexGuard<'_, HashMap<IodId, Known>> {
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// After a restart of mgr, an iod's address is the stored one until it registers.
    fn learn_if_unknown(&self, target: &Target) -> Result<(), String> {
        let endpoint = Endpoint::parse(&target.address, IOD_PORT_DEFAULT);
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        self.lock().entry(target.iod).or_insert(Known {
            endpoint,
            incarnation: None,
        });
        Ok(())
    }
}

impl Iods {
    /// Iods of this file system, to which orders go with `key`; calls end early when `cancel` is
    /// cancelled.
    #[must_use]
    pub fn new(file_system: FileSystemId, key: OrderKey, cancel: Cancel) -> Self {
        let addresses = Arc::new(AddressBook {
            file_system,
            endpoints: Mutex::default(),
        });
        let directory: Arc<dyn IodDirectory> = Arc::clone(&addresses) as _;
        let pool = IodPool::new(directory, PoolOptions::default());
        Self {
            addresses,
            pool,
            key,
            cancel,
        }
    }

    fn call(&self, target: &Target, request: &IodRequest) -> Result<IodResponse, String> {
        if target.address.is_empty() {
            return Err("it has never registered".to_owned());
        }
        self.addresses.learn_if_unknown(target)?;
        let patience = Patience::until_cancelled(&self.cancel).at_most(CALL_TIMEOUT);
        let reply = self.pool.with_patience(patience).call(target.iod, request);
        reply.map_err(|error| format!("at {}: {error}", target.address))
    }
}

impl StripeStore for Iods {
    fn iod_is_at(&self, iod: IodId, address: &str, incarnation: Incarnation) {
        // mgr registers no iod whose address does not parse.
        if let Ok(endpoint) = Endpoint::parse(address, IOD_PORT_DEFAULT) {
            let known = Known {
                endpoint,
                incarnation: Some(incarnation),
            };
            self.addresses.lock().insert(iod, known);
        }
    }

    fn truncate(&self, target: &Target, object: ObjectId) -> Result<(), String> {
        self.call(
            target,
            &IodRequest::Truncate {
                stripe: StripeRef {
                    object,
                    place: target.place,
                },
                length: target.length,
                fence: target.fence,
                number: target.number,
                change: Change::UNNAMED,
                key: self.key,
            },
        )
        .map(|_| ())
    }

    fn fence(&self, target: &Target, object: ObjectId) -> Result<LocalFile, String> {
        let request = IodRequest::Fence {
            stripe: StripeRef {
                object,
                place: target.place,
            },
            fence: target.fence,
            number: target.number,
            key: self.key,
        };
        match self.call(target, &request)? {
            IodResponse::Stat { length, allocated } => Ok(LocalFile { length, allocated }),
            _ => Err(format!("at {}: {}", target.address, FsError::Protocol)),
        }
    }

    fn remove(&self, target: &Target, object: ObjectId) -> Result<(), String> {
        let key = self.key;
        let request = IodRequest::Remove { object, key };
        self.call(target, &request).map(|_| ())
    }
}
