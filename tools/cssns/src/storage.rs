// SPDX-License-Identifier: MIT
//! The PVFS daemons of a run: one metadata manager, an I/O daemon and a mount on each node.

use crate::ledger::{Ledger, Resource};
use crate::plan::{IOD_PORT, MGR_PORT, Node};
use crate::process::{Daemon, Launcher};
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a daemon may take to say `ready` on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts PVFS daemons for a run whose files are below `dir`.
#[derive(Debug)]
pub struct Storage<'a> {
    /// Writes down what is started.
    pub ledger: &'a Ledger,
    /// Starts it.
    pub launcher: &'a Launcher,
    /// The run's directory.
    pub dir: &'a Path,
}

impl Storage<'_> {
    /// Where a node's mount is.
    #[must_use]
    pub fn mount_point(dir: &Path, node: Node) -> PathBuf {
        dir.join(node.to_string()).join("mnt")
    }

    /// Starts the metadata manager, on the first node.
    ///
    /// # Errors
    /// When it is not built, does not start, or does not become ready.
    pub fn start_mgr(&self) -> anyhow::Result<Daemon> {
        let data = self.make_dir(Node::FIRST, "mgr")?;
        let listen = format!("0.0.0.0:{MGR_PORT}");
        let argv = words(&[&program("pvfs-mgr")?, "--data", &data, "--listen", &listen]);
        let daemon = self.start(&format!("pvfs-mgr-{}", Node::FIRST), Node::FIRST, &argv)?;
        daemon.wait_ready(READY_TIMEOUT)?;
        Ok(daemon)
    }

    /// Starts the I/O daemon of a node; it registers itself with the manager.
    ///
    /// # Errors
    /// As [`Storage::start_mgr`].
    pub fn start_iod(&self, node: Node) -> anyhow::Result<Daemon> {
        let data = self.make_dir(node, "iod")?;
        let listen = format!("0.0.0.0:{IOD_PORT}");
        let advertise = format!("{}:{IOD_PORT}", node.address());
        let argv = words(&[
            &program("pvfs-iod")?,
            "--data",
            &data,
            "--mgr",
            &mgr_address(),
            "--listen",
            &listen,
            "--advertise",
            &advertise,
        ]);
        let daemon = self.start(&format!("pvfs-iod-{node}"), node, &argv)?;
        daemon.wait_ready(READY_TIMEOUT)?;
        Ok(daemon)
    }

    /// Mounts the file system on a node and returns the mount point.
    ///
    /// # Errors
    /// As [`Storage::start_mgr`].
    pub fn mount(&self, node: Node) -> anyhow::Result<PathBuf> {
        let mount_point = self.make_dir(node, "mnt")?;
        let source = format!("{}:/", mgr_address());
        let argv = words(&[&program("pvfs-fuse")?, &source, &mount_point, "-f"]);
        let path = PathBuf::from(mount_point);
        // Written before its process, so that the process is ended first and unmounts by itself;
        // what a killed one leaves is unmounted then.
        self.ledger
            .make(Resource::Mount { path: path.clone() }, || Ok(()))?;
        let daemon = self.start(&format!("pvfs-fuse-{node}"), node, &argv)?;
        daemon.wait_ready(READY_TIMEOUT)?;
        Ok(path)
    }

    fn start(&self, name: &str, node: Node, argv: &[String]) -> anyhow::Result<Daemon> {
        let namespace = self.ledger.plan().node_namespace(node);
        self.ledger
            .start(|| self.launcher.daemon(name, Some(&namespace), argv))
    }

    fn make_dir(&self, node: Node, name: &str) -> anyhow::Result<String> {
        let path = self.dir.join(node.to_string()).join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path.display().to_string())
    }
}

/// The manager's address as the nodes see it.
#[must_use]
pub fn mgr_address() -> String {
    format!("{}:{MGR_PORT}", Node::FIRST.address())
}

fn program(name: &str) -> anyhow::Result<String> {
    let path = crate::paths::program(name)
        .with_context(|| format!("{name} is not built: run `make` or `cargo build -p {name}`"))?;
    Ok(path.display().to_string())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
