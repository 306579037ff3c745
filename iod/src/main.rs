// SPDX-License-Identifier: MIT
//! `pvfs-iod`: the I/O daemon's process.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use pvfs::address::{Endpoint, IOD_PORT_DEFAULT, MGR_PORT_DEFAULT};
use pvfs::log_filter::LogFilter;
use pvfs::runtime::net::TcpListener;
use pvfs_iod::registration::{Registrar, Registration};
use pvfs_iod::server::{Server, ServerLimits};
use pvfs_iod::store::{DESCRIPTORS_PER_OBJECT, OPEN_OBJECTS_MAX_DEFAULT, Settler, Store};

/// Descriptors that are neither connections nor objects: standard streams, listener, lock, mgr.
const DESCRIPTORS_RESERVED: u64 = 64;

/// PVFS I/O daemon: keeps stripes of files and gives them to clients.
///
/// `pvfs-iod --init --data DIR` makes a directory for a new one, once. It registers itself with mgr
/// and needs no entry in any table. Prints `ready ADDR:PORT` when it
/// can be used. SIGTERM and SIGINT end it; kill -9 loses nothing that was acknowledged.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Directory of the stripes, as --init made it. One for each iod.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Make a new iod of the empty or missing --data, and end. So a disk that is not mounted is never
    /// taken for a new one.
    #[arg(long)]
    init: bool,
    /// The data was copied here although its iod had not stopped in order (it was killed, its machine
    /// lost power), and nothing was stored by it since. Where that is not so, files have old content.
    #[arg(long, conflicts_with = "init")]
    moved: bool,
    /// The directory is older than the one that this iod had last, and that one is lost for good: say
    /// it once. What was written in between is lost; files have old content there.
    #[arg(long, conflicts_with = "init")]
    accept_older: bool,
    /// Where mgr is.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = mgr_endpoint, required_unless_present = "init")]
    mgr: Option<Endpoint>,
    /// Where to listen; port 0 picks a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value_t = format!("0.0.0.0:{IOD_PORT_DEFAULT}"))]
    listen: String,
    /// Where clients reach this iod, if not at the address from which it reaches mgr.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = iod_endpoint)]
    advertise: Option<Endpoint>,
    /// Take connections from any port. Otherwise only privileged processes of other machines are
    /// heard: those that come from a port below 1024.
    #[arg(long)]
    insecure_ports: bool,
    /// What to log to stderr: error, warn, info, debug, trace, off, or MODULE=LEVEL,
    /// with commas between several.
    #[arg(long, value_name = "LEVEL", env = "PVFS_LOG", default_value = "info")]
    log: LogFilter,
}

fn mgr_endpoint(text: &str) -> Result<Endpoint, pvfs::address::AddressError> {
    Endpoint::parse(text, MGR_PORT_DEFAULT)
}

fn iod_endpoint(text: &str) -> Result<Endpoint, pvfs::address::AddressError> {
    Endpoint::parse(text, IOD_PORT_DEFAULT)
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whether the log is set up or not, the reason is on standard error.
            let _ = writeln!(std::io::stderr(), "pvfs-iod: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    // Whatever is made belongs to this daemon alone.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    if arguments.init {
        return make(&arguments.data);
    }
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr);
    let log = log.with_ansi(std::io::stderr().is_terminal());
    let filter = tracing_subscriber::EnvFilter::new(arguments.log.as_str());
    log.with_env_filter(filter).init();
    // Blocked before any thread starts, so that all inherit it and only `wait` below takes them.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().context("block signals")?;

    let limits = ServerLimits {
        insecure_ports: arguments.insecure_ports,
        ..ServerLimits::default()
    };
    let open_objects_max = open_objects_max(limits.connections_max)?;
    // What was put back was copied at some time, perhaps while its iod ran.
    let store = Arc::new(match arguments.moved || arguments.accept_older {
        true => Store::open_moved(&arguments.data, open_objects_max)?,
        false => Store::open(&arguments.data, open_objects_max)?,
    });
    let settler = Settler::start(Arc::clone(&store)).context("start the settler")?;
    let listener = TcpListener::bind(&arguments.listen)
        .with_context(|| format!("listen on {}: is another iod running?", arguments.listen))?;
    let server = Server::start(listener, Arc::clone(&store), limits).context("start the server")?;
    let listening = server.address();
    let registration = Registration {
        mgr: arguments.mgr.context("--mgr is missing")?,
        listening,
        advertise: arguments.advertise,
        accepts_older: arguments.accept_older,
    };
    let registrar = Registrar::start(registration, Arc::clone(&store), move |_| {
        announce(&format!("ready {listening}"));
    })
    .context("start the thread that talks to mgr")?;

    let signal = signals.wait().context("wait for a signal")?;
    tracing::info!("{signal}: stopping");
    drop(registrar);
    server.stop();
    drop(settler);
    if let Err(error) = store.close() {
        tracing::warn!(
            "no copy of the data directory can be used: noting that the iod stops: {error}"
        );
    }
    Ok(())
}

fn make(data: &Path) -> Result<()> {
    Store::create(data)?;
    announce(&format!(
        "made a new iod's directory of {}: start pvfs-iod on it without --init",
        data.display()
    ));
    Ok(())
}

/// The one line on stdout. Nobody may be listening there, which is no reason to fail.
fn announce(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    if let Err(error) = written {
        tracing::debug!("write to stdout: {error}");
    }
}

/// Raises the limit of open descriptors as far as allowed and returns how many objects may be
/// kept open under it.
fn open_objects_max(connections_max: usize) -> Result<usize> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("setrlimit of open files")?;
    let left = hard.saturating_sub(connections_max as u64 + DESCRIPTORS_RESERVED);
    let objects = usize::try_from(left / DESCRIPTORS_PER_OBJECT)
        .unwrap_or(usize::MAX)
        .min(OPEN_OBJECTS_MAX_DEFAULT);
    anyhow::ensure!(
        objects > 0,
        "the limit of open files is {hard}, too low for {connections_max} connections: \
         raise it (ulimit -n, or LimitNOFILE= in the systemd unit)"
    );
    Ok(objects)
}
