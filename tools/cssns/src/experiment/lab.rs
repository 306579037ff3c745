// SPDX-License-Identifier: MIT
//! The experiment's cluster: three networks, the director's guest, a metadata manager, I/O daemons, and
//! nodes with nginx on their mounts. One lab serves cells with one code of the director.

use super::cell::{Cell, Choice, Dispatch};
use super::links::{self, CONGESTION_CONTROL, LINK_MBIT};
use super::topology::{self, CLIENTS, Host, IODS, NODES, Segment};
use super::work;
use crate::director::{self, Director, Specification};
use crate::learning;
use crate::ledger::Strays;
use crate::net::{self, Cable};
use crate::plan::Code;
use crate::plan::{self, HTTP_PORT, Node};
use crate::progress::Steps;
use crate::run::Run;
use crate::simulate::policy::Policy;
use crate::storage::{self, Storage};
use crate::vm::Acceleration;
use crate::web::Site;
use crate::workload::{self, FilePlan, StoredFile};
use anyhow::{Context as _, ensure};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

/// Files that are made in the director's guest with one command.
const SIZES_AT_ONCE: usize = 150;

/// Where the director finds what files weigh.
const SIZES_DIR: &str = "/run/files";

/// A lab that runs.
#[derive(Debug)]
pub struct Lab {
    // The director goes first when a lab is dropped, as it stands on the run's network.
    director: Director,
    run: Run,
    specification: Specification,
    nodes: Vec<Node>,
    /// Which node has slower links now.
    slow_node: Option<u8>,
}

impl Lab {
    /// Brings a lab up, saying each step. What was made until an error is taken apart.
    ///
    /// # Errors
    /// Says which part failed and where its log is.
    pub fn up(code: Code, acceleration: Acceleration, steps: &Steps) -> anyhow::Result<Self> {
        let nodes = Node::first(NODES).map_err(anyhow::Error::msg)?;
        let run = Run::begin(false)?;
        run.end_on_signals()?;
        steps.say(&format!(
            "run {}, logs in {}",
            run.ledger().plan().run_id(),
            run.launcher().logs.display()
        ));
        let specification = Specification {
            code,
            scheduler: "wlc".to_owned(),
            on_host: false,
            learns: code == Code::Mwlc,
            second_link: topology::director_second_link(),
        };
        let director = steps.step("three networks, and a guest that boots meanwhile", || {
            make_networks(&run).context("network")?;
            Director::start(&specification, acceleration, run.ledger(), run.launcher())
                .context("director")
        })?;
        let lab = Self {
            director,
            run,
            specification,
            nodes,
            slow_node: None,
        };
        steps.step("storage: manager, I/O daemons, mounts; web servers", || {
            lab.start_storage().context("storage")?;
            lab.nodes
                .iter()
                .try_for_each(|&node| lab.start_web_server(node).context("web server"))
        })?;
        steps.step("director: kernel, module", || {
            lab.director
                .configure(&lab.specification)
                .context("director")
        })?;
        Ok(lab)
    }

    /// The lab's run.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Stores files from the manager's host, whose page cache no node has.
    ///
    /// # Errors
    /// Names the file and what failed; also when there is no room for them.
    pub fn store(&self, files: &[FilePlan]) -> anyhow::Result<HashMap<String, StoredFile>> {
        let needed: u64 = files.iter().map(|file| file.bytes).sum();
        let room = nix::sys::statvfs::statvfs(self.run.dir()).context("statvfs")?;
        let free = room.blocks_available().saturating_mul(room.fragment_size());
        ensure!(
            needed < free / 10 * 9,
            "the files need {} MB and {} has {} MB free: divide the sizes by more (--scale)",
            needed / 1_000_000,
            self.run.dir().display(),
            free / 1_000_000
        );
        let dir = self.mount_point(Host::Manager);
        let written = AtomicU64::new(0);
        files
            .iter()
            .map(|file| {
                let stored = workload::store(&dir, file, &written)?;
                Ok((stored.name.clone(), stored))
            })
            .collect()
    }

    /// Reads files on every node, so that what is measured afterwards is not who read a file first.
    ///
    /// # Errors
    /// Names the file and what failed.
    pub fn warm(&self, files: &[FilePlan]) -> anyhow::Result<()> {
        for &node in &self.nodes {
            for file in files {
                let path = self.mount_point(Host::Node(node)).join(&file.name);
                let failed = || format!("reading {}", path.display());
                let mut input = std::fs::File::open(&path).with_context(failed)?;
                std::io::copy(&mut input, &mut std::io::sink()).with_context(failed)?;
            }
        }
        Ok(())
    }

    /// Lets every link have its rate.
    ///
    /// # Errors
    /// Names the command that failed.
    pub fn limit_links(&self) -> anyhow::Result<()> {
        Host::all()
            .into_iter()
            .try_for_each(|host| self.limit_host(host, LINK_MBIT))
    }

    fn limit_host(&self, host: Host, mbit: u32) -> anyhow::Result<()> {
        links::limit(self.run.ledger().plan(), &self.director, host, mbit)
    }

    /// Starts `mwlcd` on the director, which answers what files weigh. The guest has no mount of PVFS: a
    /// directory with files of the same names and sizes, all holes, stands for it.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_learning(&self, files: &[FilePlan]) -> anyhow::Result<()> {
        if self.specification.code == Code::IpVs {
            return Ok(());
        }
        // Lines of the control channel have a bound, so the names and sizes go there in parts.
        for some in files.chunks(SIZES_AT_ONCE) {
            self.director.check(&sizes_script(some))?;
        }
        learning::start_mwlcd(&self.director, &format!("--root {SIZES_DIR}"))
    }

    /// Configures director and links for a cell; returns whom its clients ask.
    ///
    /// # Errors
    /// Says which command failed.
    pub fn prepare(&mut self, cell: &Cell) -> anyhow::Result<Ipv4Addr> {
        if self.slow_node != cell.slow_node() {
            for &node in &self.nodes {
                let mbit = if cell.slow_node() == Some(node.number()) {
                    LINK_MBIT / 2
                } else {
                    LINK_MBIT
                };
                self.limit_host(Host::Node(node), mbit)?;
            }
            self.slow_node = cell.slow_node();
        }
        match cell.dispatch {
            Dispatch::Direct => Ok(Node::FIRST.address()),
            Dispatch::Module { scheduler } => {
                self.configure(cell, Some(scheduler))?;
                Ok(plan::vip())
            }
            Dispatch::Stock => {
                self.configure(cell, None)?;
                Ok(plan::vip())
            }
        }
    }

    fn configure(&self, cell: &Cell, choice: Option<Choice>) -> anyhow::Result<()> {
        let addresses = self
            .nodes
            .iter()
            .filter_map(|&node| Host::Node(node).address(Segment::Dispatch));
        let script = service_script(cell, choice, &addresses.collect::<Vec<_>>());
        self.director.check(&script).map(drop)
    }

    /// Takes the lab apart in order and checks that nothing is left.
    ///
    /// # Errors
    /// Lists what was left, or what the director's kernel complained of.
    pub fn down(self) -> anyhow::Result<()> {
        let Self { director, run, .. } = self;
        let kernel = director.check_kernel_log();
        let shutdown = director.shutdown();
        kernel?;
        shutdown?;
        run.end(Strays::Fault)
    }

    fn start_storage(&self) -> anyhow::Result<()> {
        let manager = self.storage_host(Host::Manager)?;
        let storage = Storage {
            ledger: self.run.ledger(),
            launcher: self.run.launcher(),
            dir: self.run.dir(),
            mgr: manager.address,
        };
        storage.start_mgr(&manager)?;
        for number in 1..=IODS {
            storage.start_iod(&self.storage_host(Host::Iod(number))?)?;
        }
        storage.mount(&manager)?;
        for &node in &self.nodes {
            storage.mount(&self.storage_host(Host::Node(node))?)?;
        }
        Ok(())
    }

    fn storage_host(&self, host: Host) -> anyhow::Result<storage::Host> {
        Ok(storage::Host {
            name: host.to_string(),
            namespace: host.namespace(self.run.ledger().plan()),
            address: host
                .address(Segment::Storage)
                .with_context(|| format!("{host} is not on the storage network"))?,
        })
    }

    fn mount_point(&self, host: Host) -> PathBuf {
        Storage::mount_point(self.run.dir(), &host.to_string())
    }

    fn start_web_server(&self, node: Node) -> anyhow::Result<()> {
        let logs = &self.run.launcher().logs;
        let site = Site {
            node,
            root: self.mount_point(Host::Node(node)),
            scratch: self.run.dir().join(node.to_string()).join("nginx"),
            access_log: logs.join(format!("nginx-{node}-access.log")),
            error_log: logs.join(format!("nginx-{node}.log")),
        };
        let namespace = Host::Node(node).namespace(self.run.ledger().plan());
        site.start(&self.run, &namespace)
    }
}

fn make_networks(run: &Run) -> anyhow::Result<()> {
    let ledger = run.ledger();
    let plan = ledger.plan();
    net::make_namespace(ledger, &plan.switch_namespace())?;
    for segment in Segment::ALL {
        net::make_bridge(ledger, segment.bridge())?;
    }
    let hosts = Host::all();
    for host in hosts.iter().filter(|host| **host != Host::Director) {
        let namespace = host.namespace(plan);
        net::make_namespace(ledger, &namespace)?;
        if let Host::Node(_) = host {
            net::hold_vip(&namespace)?;
            // A request comes over the dispatch network, and its answer leaves over the clients'.
            net::sysctl(&namespace, "net.ipv4.conf.all.rp_filter=0")?;
            net::sysctl(&namespace, "net.ipv4.conf.default.rp_filter=0")?;
        }
        for link in host.links() {
            Cable {
                namespace: &namespace,
                device: &link.device,
                address: link.address,
                bridge: link.segment.bridge(),
                port: &link.port,
            }
            .lay(ledger)?;
            net::control_congestion(&namespace, &link.device, link.address, CONGESTION_CONTROL)?;
        }
    }
    Ok(())
}

/// Makes files of nothing but holes; busybox does it without starting a program for each.
fn sizes_script(files: &[FilePlan]) -> String {
    let lines: String = files
        .iter()
        .map(|FilePlan { name, bytes }| format!("{name} {bytes}\n"))
        .collect();
    format!(
        "set -e\nmkdir -p {SIZES_DIR}\ncd {SIZES_DIR}\n\
         busybox sh -c 'while read name bytes; do truncate -s $bytes $name || exit; done' <<END\n{lines}END\n"
    )
}

/// The virtual service anew, so that nothing of the cell before counts.
fn service_script(cell: &Cell, choice: Option<Choice>, nodes: &[Ipv4Addr]) -> String {
    let vip = director::service();
    let scheduler = match choice.map(Choice::policy) {
        Some(Policy::Director { scheduler, .. }) => scheduler.name(),
        _ => "wlc",
    };
    let mut script = format!("set -e\nipvsadm -C\nipvsadm -A -t {vip} -s {scheduler}\n");
    for (address, weight) in nodes.iter().zip(cell.weights()) {
        script += &format!("ipvsadm -a -t {vip} -r {address}:{HTTP_PORT} -g -w {weight}\n");
    }
    if let Some(choice) = choice {
        script += &format!("mwlcadm expected-size {vip} {}\n", cell.file_bytes());
        if choice.learns() {
            let remaining = if choice.policy().counts_what_is_left() {
                "on"
            } else {
                "off"
            };
            script += &format!("mwlcadm set -t {vip} --learn http --remaining {remaining}\n");
        }
    }
    script
}

/// Every file that cells need, and whether the mix is among them.
#[must_use]
pub fn files_of(cells: &[Cell]) -> (Vec<FilePlan>, Vec<FilePlan>) {
    let own = cells.iter().flat_map(work::files).collect();
    let mut scales: Vec<u32> = cells
        .iter()
        .filter(|cell| work::files(cell).is_empty())
        .map(|cell| cell.scale)
        .collect();
    scales.sort_unstable();
    scales.dedup();
    let mix = scales.into_iter().flat_map(work::mix_files).collect();
    (own, mix)
}

/// How many client machines there are.
#[must_use]
pub fn client_hosts() -> Vec<Host> {
    (1..=CLIENTS).map(Host::Client).collect()
}
