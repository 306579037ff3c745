// SPDX-License-Identifier: MIT
//! The rim towards clients: a TCP listener, and two tasks for each connection.

pub mod connection;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;

use self::connection::serve;
use crate::owner::thread::Command;

/// Connections at a time: each mount and each iod has one.
pub const CONNECTIONS_MAX: usize = 8192;
/// A silent peer is probed after this time.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time between probes; after the kernel's usual count of them the connection ends.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Pause where the process has no descriptors left, before it accepts again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections for ever.
pub async fn accept(listener: TcpListener, owner: Sender<Command>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let numbers = AtomicU64::new(1);
    loop {
        // Without a permit, further clients wait in the listener's queue.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = tune(&stream) {
                    tracing::warn!("connection from {peer}: {error}");
                    continue;
                }
                let id = numbers.fetch_add(1, Ordering::Relaxed);
                let owner = owner.clone();
                tokio::spawn(async move {
                    serve(stream, peer, id, owner).await;
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
