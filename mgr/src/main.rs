// SPDX-License-Identifier: MIT
//! pvfs-mgr, the process: start in order, run until told to stop, stop in the reverse order.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use pvfs::attr::Timestamp;
use pvfs::client::patience::Cancel;
use pvfs::ids::FileSystemId;
use pvfs::limits::SILENCE_LOOK_MS;
use pvfs::log_filter::LogFilter;
use pvfs::runtime::random_u64;
use pvfs_mgr::backup::Desk;
use pvfs_mgr::cli::Arguments;
use pvfs_mgr::event_loop::{self, INPUTS_WAITING_MAX};
use pvfs_mgr::iods::Iods;
use pvfs_mgr::namespace::format;
use pvfs_mgr::namespace::lingering::LINGER_MS_DEFAULT;
use pvfs_mgr::owner::{Config, Input, Manager};
use pvfs_mgr::server::connection::Waiter;
use pvfs_mgr::server::{self, Command};
use pvfs_mgr::store::StoreError;
use pvfs_mgr::store::lmdb::LmdbStore;
use pvfs_mgr::stripes::{CALLS_RUNNING_MAX, Executor};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

/// How often the owner looks at what has become due, silence among it.
const TICK: Duration = Duration::from_millis(SILENCE_LOOK_MS);
/// Connections and calls that are under way when the process ends get so long.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whether the log is set up or not, the reason is on standard error.
            let _ = writeln!(std::io::stderr(), "pvfs-mgr: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    // Whatever is made belongs to this daemon alone.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    if arguments.init {
        return make(&arguments.data);
    }
    set_up_log(&arguments.log);
    if let Some(copy) = &arguments.restore {
        return restore(copy, arguments);
    }
    raise_descriptor_limit();
    let store = LmdbStore::open(&arguments.data, arguments.metadata_bytes_max)?;
    let copier = store.copier().with_context(|| store_failed(arguments))?;
    let backups = Desk::open(copier)?;
    let mut manager = start(store, arguments).with_context(|| store_failed(arguments))?;
    // A call to an iod has a thread for itself; without the bound, the runtime would start a new
    // one for each call while the last is still on its way to rest.
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(CALLS_RUNNING_MAX)
        .build()
        .context("cannot start the runtime")?;
    let listener = listen(&runtime, arguments)?;
    let (owner, mut commands) = channel(INPUTS_WAITING_MAX);
    let cancel = Cancel::new();
    let (file_system, key) = (manager.file_system(), manager.order_key());
    let iods = Arc::new(Iods::new(file_system, key, cancel.clone()));
    let executor = Executor::new(iods, runtime.handle().clone(), owner.clone());
    let (ended, owner_ended) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("owner".to_owned())
        .spawn(move || {
            let result = event_loop::run(&mut manager, &mut commands, &executor, &backups);
            // Nobody listens any more where the process is stopping already.
            let _ = ended.send(());
            result
        })?;
    let address = listener.local_addr()?;
    runtime.spawn(tick(owner.clone()));
    runtime.spawn(server::accept(
        listener,
        owner.clone(),
        server::Settings {
            session_timeout: Duration::from_millis(arguments.session_timeout_ms.into()),
            lease_timeout: Duration::from_millis(arguments.lease_timeout_ms.into()),
            insecure_ports: arguments.insecure_ports,
        },
    ));
    // Whoever reads that it is ready may end it.
    let signals = runtime.block_on(async { Signals::catch() })?;
    announce(&format!("ready {address}"))?;
    runtime.block_on(wait(signals, owner, owner_ended))?;
    let result = thread
        .join()
        .map_err(|_| anyhow::anyhow!("the owner thread panicked"))?;
    cancel.cancel();
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result.with_context(|| store_failed(arguments))
}

fn make(data: &Path) -> Result<()> {
    LmdbStore::create(data)?;
    announce(&format!(
        "made a file system in {}: start pvfs-mgr on it without --init",
        data.display()
    ))
}

/// Makes a data directory of a backup, and begins the era that follows on it.
fn restore(copy: &Path, arguments: &Arguments) -> Result<()> {
    let data = &arguments.data;
    let what = || format!("cannot restore {} to {}", copy.display(), data.display());
    LmdbStore::restore(data, copy).with_context(what)?;
    let mut store = LmdbStore::open(data, arguments.metadata_bytes_max)?;
    let started = format::start(&mut store, file_system(), true, Timestamp::now());
    let started = started.with_context(what)?;
    announce(&format!(
        "restored file system {:032x} to {}, era {}: start pvfs-mgr on it, and no other one",
        started.file_system.0,
        data.display(),
        started.era
    ))
}

/// What whoever reads the log is to know and do.
fn store_failed(arguments: &Arguments) -> String {
    format!(
        "the metadata store in {} cannot be used; nothing that was acknowledged is lost, and clients \
         wait. See what the kernel says about its disk (dmesg), then start pvfs-mgr again, on a copy \
         of the directory where the disk is bad",
        arguments.data.display()
    )
}

fn set_up_log(level: &LogFilter) {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level.as_str()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Each connection takes a descriptor; the usual soft limit of 1024 is for programs that select(2).
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("the limit of open descriptors cannot be raised: {error}");
    }
}

fn start(
    store: LmdbStore,
    arguments: &Arguments,
) -> Result<Manager<LmdbStore, Waiter>, StoreError> {
    let config = Config {
        session_timeout_ms: arguments.session_timeout_ms,
        lease_timeout_ms: arguments.lease_timeout_ms,
        linger_ms: LINGER_MS_DEFAULT,
        generation: u32::try_from(random_u64() >> 32).unwrap_or_default(),
        file_system: file_system(),
        new_era: arguments.new_era,
        draw: random_u64,
    };
    let manager = Manager::start(store, config, Timestamp::now())?;
    let file_system = manager.file_system().0;
    tracing::info!(
        "file system {file_system:032x} in {}",
        arguments.data.display()
    );
    Ok(manager)
}

/// The identity of a file system that is made now.
fn file_system() -> FileSystemId {
    FileSystemId((u128::from(random_u64()) << 64) | u128::from(random_u64()))
}

fn listen(runtime: &Runtime, arguments: &Arguments) -> Result<TcpListener> {
    let address = arguments.listen;
    runtime
        .block_on(TcpListener::bind(address))
        .with_context(|| {
            format!(
                "cannot listen on {address}: is another pvfs-mgr running? try --listen ADDR:PORT"
            )
        })
}

fn announce(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}

async fn tick(owner: Sender<Command>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if owner.send(Command::Input(Input::Tick)).await.is_err() {
            return;
        }
    }
}

/// The signals that end the process in order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they no longer end it at once.
    fn catch() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Waits for a signal, or for the owner to end by itself because its store failed.
async fn wait(
    mut signals: Signals,
    owner: Sender<Command>,
    owner_ended: oneshot::Receiver<()>,
) -> Result<()> {
    tokio::select! {
        _ = signals.terminate.recv() => {}
        _ = signals.interrupt.recv() => {}
        _ = owner_ended => return Ok(()),
    }
    tracing::info!("stopping");
    // A failure means that the owner has ended by itself meanwhile.
    let _ = owner.send(Command::Stop).await;
    Ok(())
}
