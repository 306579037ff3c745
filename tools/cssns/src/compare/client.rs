// SPDX-License-Identifier: MIT
//! Clients that ask when they are to, whether earlier requests are done or not, and keep their
//! connections for a while.

use anyhow::{Context as _, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::net;
use crate::plan::{HTTP_PORT, vip};

/// How long a request may take before it counts as hung.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 4096;

/// One read of a body.
const CHUNK_BYTES: usize = 64 << 10;

/// The stack of a client's thread: a buffer on the heap and little else.
const STACK_BYTES: usize = 128 << 10;

/// A request to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When, from the start.
    pub at: Duration,
    /// For what.
    pub path: String,
    /// How large it is.
    pub bytes: u64,
}

/// `count` numbers below `bound`, by lot.
#[must_use]
pub fn lots(count: usize, bound: usize, seed: u64) -> Vec<usize> {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(1));
    (0..count)
        .map(|_| random.random_range(0..bound.max(1)))
        .collect()
}

/// Makes every request in its time from a namespace, each from a connection of its own that is kept for
/// `keep_alive` after the answer; how long each took from its SYN to its last byte.
///
/// # Errors
/// The first request that failed, or had another size than it should.
pub fn play(
    namespace: &str,
    requests: &[Request],
    keep_alive: Duration,
) -> anyhow::Result<Vec<Duration>> {
    net::inside(namespace, || play_here(requests, keep_alive))
}

fn play_here(requests: &[Request], keep_alive: Duration) -> anyhow::Result<Vec<Duration>> {
    let started = Instant::now();
    std::thread::scope(|scope| {
        let mut clients = Vec::with_capacity(requests.len());
        for request in requests {
            std::thread::sleep(request.at.saturating_sub(started.elapsed()));
            let client = std::thread::Builder::new().stack_size(STACK_BYTES);
            let client = client.spawn_scoped(scope, move || {
                let begun = Instant::now();
                let connection = fetch(request).with_context(|| request.path.clone())?;
                let took = begun.elapsed();
                std::thread::sleep(keep_alive);
                drop(connection);
                anyhow::Ok(took)
            })?;
            clients.push(client);
        }
        clients
            .into_iter()
            .map(|client| {
                client
                    .join()
                    .unwrap_or_else(|_| bail!("a client's thread died"))
            })
            .collect()
    })
}

/// Gets the whole answer; the connection stays open.
fn fetch(request: &Request) -> anyhow::Result<TcpStream> {
    let address = SocketAddr::from((vip(), HTTP_PORT));
    let mut connection =
        TcpStream::connect_timeout(&address, REQUEST_TIMEOUT).context("connecting")?;
    connection.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let Request { path, bytes, .. } = request;
    // In one segment: the director does not put requests together.
    let asked = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", vip());
    connection.write_all(asked.as_bytes()).context("asking")?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut filled = 0;
    let head = loop {
        let room = buffer.get_mut(filled..HEAD_BYTES_MAX).unwrap_or_default();
        let read = connection.read(room).context("reading the head")?;
        ensure!(read > 0, "the head of the answer does not end");
        filled += read;
        let so_far = buffer.get(..filled).unwrap_or_default();
        if let Some(end) = so_far.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default());
    ensure!(
        text.starts_with("HTTP/1.1 200 "),
        "{}",
        text.lines().next().unwrap_or_default()
    );
    let mut received = (filled - head) as u64;
    while received < *bytes {
        let read = connection.read(&mut buffer).context("reading the body")?;
        ensure!(read > 0, "the body ended after {received} of {bytes} bytes");
        received += read as u64;
    }
    ensure!(
        received == *bytes,
        "{received} bytes came instead of {bytes}"
    );
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lots_are_even_and_repeat() {
        let drawn = lots(64_000, 64, 5);
        assert_eq!(drawn, lots(64_000, 64, 5));
        for index in 0..64 {
            let count = drawn.iter().filter(|lot| **lot == index).count();
            assert!((850..=1150).contains(&count), "{index}: {count}");
        }
    }
}
