// SPDX-License-Identifier: MIT
//! The PVFS daemons of a run: a metadata manager, I/O daemons, and mounts.

use crate::ledger::{Ledger, Resource};
use crate::plan::{IOD_PORT, MGR_PORT, Node, Plan};
use crate::process::{Daemon, Launcher};
use anyhow::Context as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a daemon may take to say `ready` on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A host that daemons of the storage run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name, also of its directory.
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
    /// Its address where the storage is.
    pub address: Ipv4Addr,
}

impl Host {
    /// A node of a cluster with one network.
    #[must_use]
    pub fn of_node(plan: &Plan, node: Node) -> Self {
        Self {
            name: node.to_string(),
            namespace: plan.node_namespace(node),
            address: node.address(),
        }
    }
}

/// Starts PVFS daemons for a run whose files are below `dir`.
#[derive(Debug)]
pub struct Storage<'a> {
    /// Writes down what is started.
    pub ledger: &'a Ledger,
    /// Starts it.
    pub launcher: &'a Launcher,
    /// The run's directory.
    pub dir: &'a Path,
    /// The metadata manager's address, as all others see it.
    pub mgr: Ipv4Addr,
}

impl Storage<'_> {
    /// Where the mount of the host with this name is.
    #[must_use]
    pub fn mount_point(dir: &Path, host: &str) -> PathBuf {
        dir.join(host).join("mnt")
    }

    /// Starts the metadata manager.
    ///
    /// # Errors
    /// When it is not built, does not start, or does not become ready.
    pub fn start_mgr(&self, host: &Host) -> anyhow::Result<Daemon> {
        let data = self.make_dir(host, "mgr")?;
        let listen = format!("0.0.0.0:{MGR_PORT}");
        make("pvfs-mgr", &data)?;
        let argv = words(&[&program("pvfs-mgr")?, "--data", &data, "--listen", &listen]);
        let daemon = self.start("pvfs-mgr", host, &argv)?;
        daemon.wait_ready(READY_TIMEOUT)?;
        Ok(daemon)
    }

    /// Starts an I/O daemon; it registers itself with the manager.
    ///
    /// # Errors
    /// As [`Storage::start_mgr`].
    pub fn start_iod(&self, host: &Host) -> anyhow::Result<Daemon> {
        let data = self.make_dir(host, "iod")?;
        make("pvfs-iod", &data)?;
        let listen = format!("0.0.0.0:{IOD_PORT}");
        let advertise = format!("{}:{IOD_PORT}", host.address);
        let argv = words(&[
            &program("pvfs-iod")?,
            "--data",
            &data,
            "--mgr",
            &self.mgr_address(),
            "--listen",
            &listen,
            "--advertise",
            &advertise,
        ]);
        let daemon = self.start("pvfs-iod", host, &argv)?;
        daemon.wait_ready(READY_TIMEOUT)?;
        Ok(daemon)
    }

    /// Mounts the file system on a host and returns the mount point.
    ///
    /// # Errors
    /// As [`Storage::start_mgr`].
    pub fn mount(&self, host: &Host) -> anyhow::Result<PathBuf> {
        let mount_point = self.make_dir(host, "mnt")?;
        let source = format!("{}:/", self.mgr_address());
        let argv = words(&[&program("pvfs-fuse")?, &source, &mount_point, "-f"]);
        let path = PathBuf::from(mount_point);
        // Written before its process, so that the process is ended first and unmounts by itself;
        // what a killed one leaves is unmounted then.
        self.ledger
            .make(Resource::Mount { path: path.clone() }, || Ok(()))?;
        let daemon = self.start("pvfs-fuse", host, &argv)?;
        daemon.wait_ready(READY_TIMEOUT)?;
        Ok(path)
    }

    fn start(&self, program: &str, host: &Host, argv: &[String]) -> anyhow::Result<Daemon> {
        let name = format!("{program}-{}", host.name);
        self.ledger
            .start(|| self.launcher.daemon(&name, Some(&host.namespace), argv))
    }

    fn make_dir(&self, host: &Host, name: &str) -> anyhow::Result<String> {
        let path = self.dir.join(&host.name).join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path.display().to_string())
    }

    fn mgr_address(&self) -> String {
        format!("{}:{MGR_PORT}", self.mgr)
    }
}

/// Has a daemon make its data directory of an empty one.
fn make(name: &str, data: &str) -> anyhow::Result<()> {
    let output = Command::new(program(name)?)
        .args(["--init", "--data", data])
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "{name} --init: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn program(name: &str) -> anyhow::Result<String> {
    let path = crate::paths::program(name)
        .with_context(|| format!("{name} is not built: run `make` or `cargo build -p {name}`"))?;
    Ok(path.display().to_string())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
