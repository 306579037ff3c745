// SPDX-License-Identifier: MIT
//! A whole cluster: network, director, storage and web servers, brought up in order.

use crate::director::{Director, Specification};
use crate::ledger::{self, Strays};
use crate::net;
use crate::plan::Node;
use crate::progress::Steps;
use crate::run::Run;
use crate::storage::{Host, Storage};
use crate::vm::Acceleration;
use crate::web::Site;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The weight of a node that nobody gave another.
pub const WEIGHT_DEFAULT: u32 = 1;

/// What a cluster is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// The director.
    pub director: Specification,
    /// How a guest's instructions are executed.
    pub acceleration: Acceleration,
    /// How many nodes.
    pub nodes: u8,
    /// Whether it outlives this process.
    pub keep: bool,
}

/// What a run's ledger notes about its cluster, for later commands.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    dir: PathBuf,
    logs: PathBuf,
    director: Specification,
    nodes: Vec<Node>,
}

/// A cluster that runs.
#[derive(Debug)]
pub struct Cluster {
    // The director goes first when a cluster is dropped, as it stands on the run's network.
    director: Director,
    run: Run,
    note: Note,
}

impl Cluster {
    /// Brings a cluster up, saying each step. What was made until an error is taken apart.
    ///
    /// # Errors
    /// Says which part failed and where its log is.
    pub fn up(options: &Options, steps: &Steps) -> anyhow::Result<Self> {
        let nodes = Node::first(options.nodes).map_err(anyhow::Error::msg)?;
        let run = Run::begin(options.keep)?;
        run.end_on_signals()?;
        steps.say(&format!(
            "run {}, logs in {}",
            run.ledger().plan().run_id(),
            run.launcher().logs.display()
        ));
        let note = Note {
            dir: run.dir().to_path_buf(),
            logs: run.launcher().logs.clone(),
            director: options.director.clone(),
            nodes: Vec::new(),
        };
        let director = steps.step("network, and a guest that boots meanwhile", || {
            net::make_switch_and_client(run.ledger()).context("network")?;
            Director::start(
                &options.director,
                options.acceleration,
                run.ledger(),
                run.launcher(),
            )
            .context("director")
        })?;
        let mut cluster = Self {
            director,
            run,
            note,
        };
        steps.step("storage: metadata manager, I/O daemons, mounts", || {
            nodes.iter().try_for_each(|&node| cluster.start_node(node))
        })?;
        steps.step("web servers", || {
            nodes
                .iter()
                .try_for_each(|&node| cluster.start_web_server(node).context("web server"))
        })?;
        steps.step("director: kernel, module, virtual service", || {
            cluster
                .director
                .configure(&cluster.note.director)
                .context("director")?;
            nodes.iter().try_for_each(|&node| {
                cluster
                    .director
                    .add_node(node, WEIGHT_DEFAULT)
                    .context("director")
            })
        })?;
        cluster.note.nodes = nodes;
        cluster.save_note()?;
        Ok(cluster)
    }

    /// Finds a kept cluster again: the run with this id, or the only one there is.
    ///
    /// # Errors
    /// When there is none, or more than one and no id, or its director does not answer.
    pub fn attach(run_id: Option<&str>) -> anyhow::Result<Self> {
        let (run, note) = find(run_id)?;
        let note: Note =
            serde_json::from_value(note).context("this run's cluster never came up")?;
        let director = Director::attach(&note.director, run.ledger(), run.launcher())?;
        Ok(Self {
            director,
            run,
            note,
        })
    }

    /// Adds a node with its storage, its web server and its place in the virtual service.
    ///
    /// # Errors
    /// Says which part failed and where its log is.
    pub fn add_node(&mut self, weight: u32) -> anyhow::Result<Node> {
        let last = self.note.nodes.iter().max().copied();
        let node = last
            .map_or(Some(Node::FIRST), Node::next)
            .context("no more nodes are possible")?;
        self.start_node(node)?;
        self.start_web_server(node).context("web server")?;
        self.director.add_node(node, weight).context("director")?;
        self.note.nodes.push(node);
        self.save_note()?;
        Ok(node)
    }

    /// The cluster's director.
    #[must_use]
    pub fn director(&self) -> &Director {
        &self.director
    }

    /// What the director was asked to be.
    #[must_use]
    pub fn specification(&self) -> &Specification {
        &self.note.director
    }

    /// The cluster's run.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The cluster's nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.note.nodes
    }

    /// Where a node has the file system mounted.
    #[must_use]
    pub fn mount_point(&self, node: Node) -> PathBuf {
        Storage::mount_point(self.run.dir(), &node.to_string())
    }

    /// The text of a node's access log.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn access_log(&self, node: Node) -> anyhow::Result<String> {
        let path = self.site(node).access_log;
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Leaves the cluster up when this process ends.
    pub fn keep(mut self) {
        self.run.keep();
    }

    /// Takes the cluster apart in order and checks that nothing is left.
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

    fn start_node(&self, node: Node) -> anyhow::Result<()> {
        net::make_node(self.run.ledger(), node).context("network")?;
        let storage = Storage {
            ledger: self.run.ledger(),
            launcher: self.run.launcher(),
            dir: self.run.dir(),
            mgr: Node::FIRST.address(),
        };
        let host = Host::of_node(self.run.ledger().plan(), node);
        if node == Node::FIRST {
            storage.start_mgr(&host).context("storage")?;
        }
        storage.start_iod(&host).context("storage")?;
        storage.mount(&host).context("storage").map(drop)
    }

    fn start_web_server(&self, node: Node) -> anyhow::Result<()> {
        let site = self.site(node);
        let namespace = self.run.ledger().plan().node_namespace(node);
        site.start(&self.run, &namespace)
    }

    fn site(&self, node: Node) -> Site {
        let logs = &self.run.launcher().logs;
        Site {
            node,
            root: self.mount_point(node),
            scratch: self.run.dir().join(node.to_string()).join("nginx"),
            access_log: logs.join(format!("nginx-{node}-access.log")),
            error_log: logs.join(format!("nginx-{node}.log")),
        }
    }

    fn save_note(&self) -> anyhow::Result<()> {
        self.run
            .ledger()
            .set_note(serde_json::to_value(&self.note)?)
    }
}

/// Takes a run apart whatever its state is: the one with this id, or the only one there is.
///
/// # Errors
/// As [`crate::ledger::Ledger::take_apart`].
pub fn down(run_id: Option<&str>) -> anyhow::Result<String> {
    let (run, _) = find(run_id)?;
    let run_id = run.ledger().plan().run_id().to_owned();
    run.end(Strays::Expected)?;
    Ok(run_id)
}

/// The clients' namespace of a kept cluster: the run with this id, or the only one there is.
///
/// # Errors
/// When there is none, or more than one and no id.
pub fn client_namespace(run_id: Option<&str>) -> anyhow::Result<String> {
    let (run, _) = find(run_id)?;
    Ok(run.ledger().plan().client_namespace())
}

fn find(run_id: Option<&str>) -> anyhow::Result<(Run, serde_json::Value)> {
    let runs = ledger::runs();
    let run_id = match (run_id, runs.as_slice()) {
        (Some(run_id), _) => run_id,
        (None, [only]) => only,
        (None, []) => anyhow::bail!("no run is kept: `cssns demo --keep` (or KEEP=1) starts one"),
        (None, several) => anyhow::bail!("which run? there are {}", several.join(", ")),
    };
    // A run that failed early has no note; its directories follow from its name.
    let dir = std::env::temp_dir().join(format!("{}{run_id}", crate::plan::NAME_PREFIX));
    let logs = std::env::temp_dir().join(format!("{}{run_id}-logs", crate::plan::NAME_PREFIX));
    let run = Run::find(run_id, &dir, &logs)?;
    let note = run.ledger().record().note;
    match serde_json::from_value::<Note>(note.clone()) {
        Ok(known) => Ok((Run::find(run_id, &known.dir, &known.logs)?, note)),
        Err(_) => Ok((run, note)),
    }
}
