// SPDX-License-Identifier: MIT
//! A PVFS file through the client library: mgr for the names, the iods for the bytes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use pvfs::address::Endpoint;
use pvfs::attr::Credentials;
use pvfs::client::mgr::{ClientOptions, MgrClient};
use pvfs::client::patience::{Cancel, Patience};
use pvfs::client::pool::{IodPool, PoolOptions};
use pvfs::client::striped::{self, Place};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, ObjectId, OpenId};
use pvfs::layout::Layout;
use pvfs::name::Name;
use pvfs::proto::lease::NO_LEASE;
use pvfs::proto::mgr::{Access, MgrOperation, MgrResponse, OpenResponse};
use pvfs::proto::peer::Peer;

use crate::rpc;
use crate::target;

/// Whether mgr and iods can be reached from here is settled within so long; else the mount is used.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);
/// A daemon that goes away during a copy may be away for so long before the copy fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A PVFS file system's daemons.
pub struct Gateway {
    mgr: Arc<MgrClient>,
    pool: IodPool,
    credentials: Credentials,
    cancel: Cancel,
}

impl Gateway {
    /// Reaches mgr and every iod; `cancel` ends the waiting for those that go away later.
    ///
    /// # Errors
    ///
    /// Which daemon cannot be reached from here.
    pub fn open(endpoint: &Endpoint, cancel: &Cancel) -> anyhow::Result<Self> {
        let mut mgr = rpc::Mgr::connect(endpoint, REACH_TIMEOUT)?;
        for status in mgr.iods()? {
            rpc::Iod::connect(&status, mgr.hello.file_system, REACH_TIMEOUT)?;
        }
        let options = ClientOptions {
            deadline: Some(PATIENCE),
            peer: Peer::of_this_process(None),
        };
        let client = Arc::new(MgrClient::start(endpoint.clone(), options)?);
        client.wait_ready(REACH_TIMEOUT)?;
        let pool = IodPool::new(Arc::clone(&client) as _, PoolOptions::default());
        Ok(Self {
            mgr: client,
            pool,
            credentials: rpc::caller(),
            cancel: cancel.clone(),
        })
    }

    /// Opens for reading.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn read(self: &Arc<Self>, inode: InodeNumber) -> anyhow::Result<DirectFile> {
        let access = Access {
            read: true,
            write: false,
        };
        self.opened(MgrOperation::Open {
            inode,
            access,
            truncate: false,
        })
    }

    /// Makes a file that is not there, under a name that nobody else knows: it is written without a
    /// lease. Its directory is on a mount of this file system; `mode` has the umask applied.
    ///
    /// # Errors
    ///
    /// mgr's, or that of looking at the directory.
    pub fn create(self: &Arc<Self>, path: &Path, mode: u16) -> anyhow::Result<DirectFile> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = target::pvfs_path(directory)?.inode;
        let name = path.file_name().context("a copy needs a name")?;
        let name = Name::new(name.as_bytes())?;
        let access = Access {
            read: true,
            write: true,
        };
        self.opened(MgrOperation::Create {
            parent,
            name,
            mode,
            exclusive: true,
            access,
            umask: 0,
        })
    }

    fn opened(self: &Arc<Self>, operation: MgrOperation) -> anyhow::Result<DirectFile> {
        match self.call(operation)? {
            MgrResponse::Open(OpenResponse {
                open,
                attr,
                layout: Some(layout),
            }) => Ok(DirectFile {
                gateway: Arc::clone(self),
                object: attr.object(),
                layout: layout.validate()?,
                open,
                filled_at_open: attr.filled,
                written_end: AtomicU64::new(0),
                written_bytes: AtomicU64::new(0),
            }),
            MgrResponse::Open(_) => bail!("it is no regular file"),
            _ => bail!("mgr's answer does not fit the question: are all programs of one version?"),
        }
    }

    fn call(&self, operation: MgrOperation) -> anyhow::Result<MgrResponse> {
        self.mgr
            .call(&self.credentials, operation)
            .map_err(|error| match self.mgr.failure() {
                Some(why) => anyhow::anyhow!("mgr {}: {error} ({why})", self.mgr.mgr_endpoint()),
                None => anyhow::anyhow!("mgr {}: {error}", self.mgr.mgr_endpoint()),
            })
    }

    fn pool(&self) -> IodPool {
        self.pool
            .with_patience(Patience::until_cancelled(&self.cancel).at_most(PATIENCE))
    }
}

/// An open file.
pub struct DirectFile {
    gateway: Arc<Gateway>,
    object: ObjectId,
    layout: Layout,
    open: OpenId,
    /// Of the file as it was when it was opened (see [`Attr::filled`](pvfs::attr::Attr::filled)).
    filled_at_open: u64,
    /// End of the furthest write, bytes; 0 where there was none.
    written_end: AtomicU64,
    /// Bytes that were written; no place is written twice.
    written_bytes: AtomicU64,
}

impl DirectFile {
    /// Fills `buffer` from `offset` on; the caller knows the size.
    ///
    /// # Errors
    ///
    /// An iod's.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> anyhow::Result<()> {
        let from = Place {
            layout: &self.layout,
            object: self.object,
            filled: self.filled_at_open,
            offset,
        };
        match striped::read(&self.gateway.pool(), &from, buffer) {
            // It may have been truncated since: then the copy is of no use either.
            Err(FsError::Missing) => bail!(
                "an iod does not have all that was written to the file: if nobody is truncating it, \
                 run pvfs fsck"
            ),
            outcome => outcome.context("reading from the iods (try pvfs ping)"),
        }
    }

    /// Stores `bytes` at `offset`.
    ///
    /// # Errors
    ///
    /// An iod's.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        striped::write(
            &self.gateway.pool(),
            &self.layout,
            self.object,
            offset,
            bytes,
        )
        .context("writing to the iods (try pvfs ping and pvfs df)")?;
        let length = bytes.len() as u64;
        self.written_end
            .fetch_max(offset.saturating_add(length), Ordering::Relaxed);
        self.written_bytes.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    ///
    /// An iod's or mgr's.
    pub fn sync(&self) -> anyhow::Result<()> {
        striped::sync(&self.gateway.pool(), &self.layout, self.object)
            .context("syncing on the iods")?;
        self.report()
    }

    /// Tells mgr the size, which makes the copy visible, and closes.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn close(self) -> anyhow::Result<()> {
        let reported = self.report();
        let inode = self.object.inode;
        let closed = self.gateway.call(MgrOperation::Close {
            inode,
            open: self.open,
            lease: NO_LEASE,
        });
        reported.and(closed.map(drop))
    }

    fn report(&self) -> anyhow::Result<()> {
        let size_min = self.written_end.load(Ordering::Relaxed);
        // The file was empty: as many bytes as it is long leave none out.
        let is_whole = self.written_bytes.load(Ordering::Relaxed) == size_min;
        if size_min > 0 {
            let (inode, open) = (self.object.inode, self.open);
            self.gateway.call(MgrOperation::Report {
                inode,
                size_min,
                modified: true,
                open,
                // Without leases, nothing is judged by it.
                known_change: 0,
                allocated: None,
                filled: if is_whole { size_min } else { 0 },
                doubt: None,
            })?;
        }
        Ok(())
    }
}
