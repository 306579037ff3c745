// SPDX-License-Identifier: MIT
//! A node: the real mount without FUSE, over a simulated kernel, and programs on it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use pvfs::address::Endpoint;
use pvfs::client::mgr::{ClientOptions, MgrClient};
use pvfs::runtime::sync::Arc;
use pvfs::runtime::thread;
use pvfs_fuse::fs::{FsOptions, Keeper, LEASE_CHECK_INTERVAL, Pvfs, REPORT_INTERVAL};

use crate::kernel::PageCache;
use crate::mgr;

/// As `-o threads` has it, fewer.
const THREADS: usize = 8;
/// mgr is away for less.
const MOUNT_TIMEOUT: Duration = Duration::from_secs(3_600);

/// A mount.
#[derive(Clone)]
pub struct Node {
    /// The file system.
    pub fs: Arc<Pvfs>,
    /// What its kernel keeps.
    pub cache: PageCache,
}

/// The address of the node of this number.
#[must_use]
pub fn ip(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 2, number))
}

/// Mounts, as `pvfs_fuse::mount` does.
///
/// # Errors
///
/// Says what failed.
pub fn mount(direct_io: bool) -> Result<Node, String> {
    let endpoint = Endpoint {
        host: mgr::ADDRESS.ip().to_string(),
        port: mgr::ADDRESS.port(),
    };
    let keeper = Arc::new(Keeper::default());
    let options = ClientOptions::default();
    let mgr = MgrClient::start_with_leases(endpoint, options, Arc::clone(&keeper) as _);
    let mgr = Arc::new(mgr.map_err(|error| error.to_string())?);
    mgr.wait_ready(MOUNT_TIMEOUT)
        .map_err(|error| error.to_string())?;
    let threads = THREADS;
    let fs = Arc::new(Pvfs::new(mgr, FsOptions { threads, direct_io }));
    keeper.serve(&fs);
    let cache = PageCache::default();
    fs.set_kernel(Arc::new(cache.clone()));
    let weak = Arc::downgrade(&fs);
    thread::spawn(move || {
        loop {
            thread::sleep(LEASE_CHECK_INTERVAL);
            match weak.upgrade() {
                Some(fs) => fs.check_leases(),
                None => return,
            }
        }
    });
    let weak = Arc::downgrade(&fs);
    thread::spawn(move || {
        loop {
            thread::sleep(REPORT_INTERVAL);
            match weak.upgrade() {
                Some(fs) => fs.report_all(),
                None => return,
            }
        }
    });
    Ok(Node { fs, cache })
}
