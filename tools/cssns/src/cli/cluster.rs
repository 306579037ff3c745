// SPDX-License-Identifier: MIT
//! `cssns demo` and the verbs for a cluster that was kept.

use clap::builder::FalseyValueParser;
use clap::{Args, Subcommand};
use cssns::cluster::{self, Cluster, Options, WEIGHT_DEFAULT};
use cssns::demo;
use cssns::director::Specification;
use cssns::ledger;
use cssns::plan::Code;
use cssns::plan::{self, Node};
use cssns::progress::Steps;
use cssns::report::{self, Style};
use cssns::vm::Acceleration;
use std::io::IsTerminal as _;
use std::process::ExitCode;

/// Arguments of `cssns demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Few small files and few clients: takes seconds, and is a test.
    #[arg(long)]
    small: bool,
    /// Leave the cluster up, and say how to use and stop it.
    #[arg(long, env = "KEEP", value_parser = FalseyValueParser::new())]
    keep: bool,
    /// Insert the module into this machine's own kernel instead of a guest's.
    #[arg(long, env = "HOST", value_parser = FalseyValueParser::new())]
    host: bool,
    /// How a guest's instructions are executed.
    #[arg(long, env = "ACCEL", default_value = "tcg", value_name = "tcg|kvm")]
    accel: Acceleration,
    /// Which code dispatches.
    #[arg(long, value_enum, default_value = "mwlc")]
    director: Code,
    /// Learn each connection's size from its request, with mwlcd on the director asking the nodes.
    #[arg(long, conflicts_with = "host")]
    learn: bool,
    /// The scheduler [default: mwlc, or wlc with stock ip_vs].
    #[arg(long)]
    scheduler: Option<String>,
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// How many clients download at a time.
    #[arg(long)]
    clients: Option<usize>,
    /// How many files each client downloads.
    #[arg(long)]
    per_client: Option<usize>,
}

/// Which kept cluster.
#[derive(Debug, Args)]
pub struct Which {
    /// The run's id; not needed where there is only one.
    #[arg(long, value_name = "ID")]
    run: Option<String>,
}

/// Verbs for nodes of a kept cluster.
#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// Adds a node: storage, web server, and its place in the virtual service.
    Add {
        /// Wi.
        #[arg(long, default_value_t = WEIGHT_DEFAULT)]
        weight: u32,
        #[command(flatten)]
        which: Which,
    },
    /// Sets a node's weight; with 0 it gets no new connections.
    Weight {
        /// `node2`.
        node: Node,
        /// Wi.
        weight: u32,
        #[command(flatten)]
        which: Which,
    },
}

/// Runs the demo.
pub fn demo(arguments: &Demo) -> anyhow::Result<ExitCode> {
    let mut work = if arguments.small {
        demo::SMALL
    } else {
        demo::FULL
    };
    work.clients = arguments.clients.unwrap_or(work.clients).max(1);
    work.per_client = arguments.per_client.unwrap_or(work.per_client).max(1);
    let scheduler = arguments.scheduler.as_deref();
    let options = Options {
        director: Specification {
            code: arguments.director,
            scheduler: scheduler
                .unwrap_or(arguments.director.default_scheduler())
                .to_owned(),
            on_host: arguments.host,
            learns: arguments.learn,
            second_link: None,
        },
        acceleration: arguments.accel,
        nodes: arguments.nodes,
        keep: arguments.keep,
    };
    let steps = Steps::new();
    let (cluster, result) = demo::run(&options, &work, &steps)?;
    let style = if std::io::stdout().is_terminal() {
        Style::Blocks
    } else {
        Style::Ascii
    };
    println!("\n{}", report::table(&result, style));
    if arguments.keep {
        println!("{}", how_to_use(&cluster));
        cluster.keep();
    } else {
        steps.step("taken apart, nothing left behind", || cluster.down())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn how_to_use(cluster: &Cluster) -> String {
    let plan = cluster.run().ledger().plan();
    let me = std::env::args()
        .next()
        .unwrap_or_else(|| "cssns".to_owned());
    format!(
        "The cluster is up (run {run}).
  download through the VIP      {me} client -- curl -O http://{vip}/file01.bin
  any command on the director   {me} director -- ipvsadm -Ln
  one more node                 {me} node add
  no new connections for one    {me} node weight {node} 0
  the file system on {node}      {mount}
  logs                          {logs}
  stop it, leaving nothing      {me} down",
        run = plan.run_id(),
        vip = plan::vip(),
        node = Node::FIRST,
        mount = cluster.mount_point(Node::FIRST).display(),
        logs = cluster.run().launcher().logs.display(),
    )
}

/// Takes kept clusters apart.
pub fn down(which: &Which, all: bool) -> anyhow::Result<ExitCode> {
    let runs = if all {
        ledger::runs().into_iter().map(Some).collect()
    } else {
        vec![which.run.clone()]
    };
    let mut first_error = None;
    for run in runs {
        match cluster::down(run.as_deref()) {
            Ok(run_id) => println!("run {run_id} is taken apart, nothing is left"),
            Err(error) => {
                eprintln!("cssns: {error:#}");
                first_error.get_or_insert(error);
            }
        }
    }
    Ok(if first_error.is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Lists the runs that are there.
pub fn list() -> ExitCode {
    for run in ledger::runs() {
        println!("{run}");
    }
    ExitCode::SUCCESS
}

/// Runs a verb for nodes.
pub fn node(verb: &NodeVerb) -> anyhow::Result<ExitCode> {
    match verb {
        NodeVerb::Add { weight, which } => {
            let mut cluster = Cluster::attach(which.run.as_deref())?;
            let node = Steps::new().step("one more node", || cluster.add_node(*weight))?;
            println!("{node} is at {} with weight {weight}", node.address());
            cluster.keep();
        }
        NodeVerb::Weight {
            node,
            weight,
            which,
        } => {
            let cluster = Cluster::attach(which.run.as_deref())?;
            cluster.director().set_weight(*node, *weight)?;
            println!("{node} has weight {weight}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command on the director of a kept cluster, with its output and status.
pub fn director(which: &Which, command: &[String]) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::attach(which.run.as_deref())?;
    let output = cluster.director().run(&command.join(" "))?;
    super::print_output(&output);
    Ok(ExitCode::from(u8::try_from(output.status).unwrap_or(1)))
}

/// Runs a command in the clients' namespace of a kept cluster.
pub fn client(which: &Which, command: &[String]) -> anyhow::Result<ExitCode> {
    let namespace = cluster::client_namespace(which.run.as_deref())?;
    let status = std::process::Command::new("nsenter")
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg("--")
        .args(command)
        .status()?;
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
    ))
}
