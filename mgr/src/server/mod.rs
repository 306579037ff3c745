// SPDX-License-Identifier: MIT
//! The rim towards clients: a TCP listener, and two tasks for each connection.

pub mod connection;
pub mod peers;
mod refusal;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pvfs::failure_log::FailureLog;
use pvfs::limits::{LOST_AFTER_MS, RESERVED_PORT_MAX};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;

use self::connection::{IdleTimeouts, Waiter, serve};
use self::peers::Peers;
use crate::owner::Input;

/// What the owner is told.
#[derive(Debug)]
pub enum Command {
    /// Something happened.
    Input(Input<Waiter>),
    /// The process ends.
    Stop,
}

/// Connections at a time: each mount and each iod has one. Of one address:
/// [`peers::CONNECTIONS_PER_PEER_MAX`].
pub const CONNECTIONS_MAX: usize = 8192;
/// A connection without heartbeats on which nothing comes for so long ends, or after the session
/// timeout where that is longer: a tool may be busy with iods meanwhile.
const IDLE_TIMEOUT: Duration = Duration::from_secs(180);
/// A silent peer is probed after this time.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time between probes; after the kernel's usual count of them the connection ends.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Pause where the process has no descriptors left, before it accepts again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How peers are treated.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A client that is silent for so long loses its open files.
    pub session_timeout: Duration,
    /// A client that is silent for so long loses its leases.
    pub lease_timeout: Duration,
    /// Peers may come from any port, not from reserved ones alone.
    pub insecure_ports: bool,
}

/// Accepts connections for ever.
pub async fn accept(listener: TcpListener, owner: Sender<Command>, settings: Settings) {
    let lost = Duration::from_millis(LOST_AFTER_MS);
    let idle = IdleTimeouts {
        quiet: IDLE_TIMEOUT.max(settings.session_timeout),
        client: lost.max(settings.lease_timeout),
        iod: lost,
    };
    let peers = Arc::new(Peers::default());
    let refused = FailureLog::new();
    let mut full = false;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let numbers = AtomicU64::new(1);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Who is refused sees its connection end, and comes again after a pause.
                let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                    if !std::mem::replace(&mut full, true) {
                        tracing::warn!(
                            "all {CONNECTIONS_MAX} connections are in use: further ones are refused"
                        );
                    }
                    continue;
                };
                full = false;
                let Some(place) = peers.enter(peer.ip().to_canonical()) else {
                    continue;
                };
                if let Err(error) = tune(&stream) {
                    tracing::warn!("connection from {peer}: {error}");
                    continue;
                }
                if peer.port() > RESERVED_PORT_MAX && !settings.insecure_ports {
                    let why = "its port is not reserved";
                    refused.note(&format_args!("connection from {peer} refused: {why}"));
                    tokio::spawn(async move {
                        refusal::tell(stream).await;
                        drop((permit, place));
                    });
                    continue;
                }
                let id = numbers.fetch_add(1, Ordering::Relaxed);
                let owner = owner.clone();
                tokio::spawn(async move {
                    serve(stream, (peer, place), id, owner, idle).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
