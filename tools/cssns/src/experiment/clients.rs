// SPDX-License-Identifier: MIT
//! Client machines: one thread in each one's namespace, on which hundreds of downloads wait for their
//! sockets. Every byte that comes is hashed and compared with what was stored.

use super::sample::Sample;
use super::topology::{CLIENTS, Host};
use super::work::Request;
use crate::net;
use crate::plan::{HTTP_PORT, Node, Plan};
use crate::workload::StoredFile;
use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 4096;

/// From the call to a round's start, so that all machines are ready.
const HEAD_START: Duration = Duration::from_millis(50);

/// One read of a body; all downloads of a client machine share the buffer.
const CHUNK_BYTES: usize = 256 << 10;

/// The client machines.
#[derive(Debug, Clone)]
pub struct Machines<'a> {
    /// The names of the run.
    pub plan: &'a Plan,
    /// Whom to ask: the VIP, or a node.
    pub server: Ipv4Addr,
    /// What is stored, by name.
    pub files: &'a HashMap<String, StoredFile>,
    /// How long a round may take.
    pub limit: Duration,
    /// Counts bytes for who looks on.
    pub received: Arc<AtomicU64>,
}

impl Machines<'_> {
    /// Makes all requests of a round in their time.
    ///
    /// # Errors
    /// The first download that failed, or had other content than was stored.
    pub fn download(&self, round: u32, requests: &[Request]) -> anyhow::Result<Vec<Sample>> {
        let began = Instant::now() + HEAD_START;
        let results: Vec<anyhow::Result<Vec<Sample>>> = std::thread::scope(|scope| {
            let machines: Vec<_> = (1..=CLIENTS)
                .map(|client| {
                    scope.spawn(move || {
                        net::inside(&Host::Client(client).namespace(self.plan), || {
                            self.machine(round, client, requests, began)
                        })
                    })
                })
                .collect();
            machines
                .into_iter()
                .map(|machine| {
                    machine
                        .join()
                        .unwrap_or_else(|_| bail!("a client machine's thread died"))
                })
                .collect()
        });
        let mut samples = Vec::with_capacity(requests.len());
        for of_machine in results {
            samples.extend(of_machine?);
        }
        samples.sort_by(|a, b| a.start_s.total_cmp(&b.start_s));
        Ok(samples)
    }

    fn machine(
        &self,
        round: u32,
        client: u8,
        requests: &[Request],
        began: Instant,
    ) -> anyhow::Result<Vec<Sample>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("starting a client machine")?;
        let local = tokio::task::LocalSet::new();
        let buffer = Rc::new(RefCell::new(vec![0; CHUNK_BYTES]));
        local.block_on(&runtime, async {
            let downloads: Vec<_> = requests
                .iter()
                .filter(|request| request.client == client)
                .map(|request| {
                    let file = self.files.get(&request.file).cloned();
                    let download = Download {
                        server: SocketAddr::from((self.server, HTTP_PORT)),
                        round,
                        request: request.clone(),
                        began,
                        buffer: Rc::clone(&buffer),
                        received: Arc::clone(&self.received),
                    };
                    let task = tokio::task::spawn_local(async move {
                        let file = file
                            .with_context(|| format!("{} is not stored", download.request.file))?;
                        download.run(&file).await
                    });
                    (request, task)
                })
                .collect();
            let deadline = tokio::time::Instant::from_std(began + self.limit);
            let mut samples = Vec::with_capacity(downloads.len());
            for (request, task) in downloads {
                let sample = tokio::time::timeout_at(deadline, task)
                    .await
                    .map_err(|_| anyhow::anyhow!("not done after {} s", self.limit.as_secs()))
                    .and_then(|joined| joined.context("a download's task died")?)
                    .with_context(|| format!("client{client} downloading {}", request.file))?;
                samples.push(sample);
            }
            Ok(samples)
        })
    }
}

struct Download {
    server: SocketAddr,
    round: u32,
    request: Request,
    began: Instant,
    buffer: Rc<RefCell<Vec<u8>>>,
    received: Arc<AtomicU64>,
}

impl Download {
    async fn run(self, file: &StoredFile) -> anyhow::Result<Sample> {
        let since = || self.began.elapsed().as_secs_f64();
        let at = tokio::time::Instant::from_std(self.began + self.request.at);
        tokio::time::sleep_until(at).await;
        let start_s = since();
        let mut connection = TcpStream::connect(self.server)
            .await
            .with_context(|| format!("connecting to {}", self.server))?;
        let connected_s = since();
        // In one segment: the director does not put requests together.
        let asked = format!(
            "GET /{} HTTP/1.1\r\nHost: {}\r\n\r\n",
            file.name,
            self.server.ip()
        );
        connection
            .write_all(asked.as_bytes())
            .await
            .context("asking")?;
        let mut body = Body::new(file.bytes);
        let mut first_byte_s = 0.0;
        while !body.is_complete() {
            connection.readable().await?;
            let mut buffer = self.buffer.borrow_mut();
            match connection.try_read(&mut buffer) {
                Ok(0) => bail!(
                    "the answer ended after {} of {} bytes",
                    body.received,
                    file.bytes
                ),
                Ok(count) => {
                    if first_byte_s == 0.0 {
                        first_byte_s = since();
                    }
                    self.received.fetch_add(count as u64, Ordering::Relaxed);
                    body.take(buffer.get(..count).unwrap_or_default())?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("reading"),
            }
        }
        let end_s = since();
        let node = body.finish(file)?;
        tokio::time::sleep(self.request.keep).await;
        Ok(Sample {
            round: self.round,
            client: self.request.client,
            node: node.number(),
            path: format!("/{}", file.name),
            bytes: file.bytes,
            start_s,
            connected_s,
            first_byte_s,
            end_s,
        })
    }
}

/// An answer as it comes in.
struct Body {
    expected: u64,
    received: u64,
    head: Vec<u8>,
    node: Option<Node>,
    digest: Sha256,
}

impl Body {
    fn new(expected: u64) -> Self {
        Self {
            expected,
            received: 0,
            head: Vec::new(),
            node: None,
            digest: Sha256::new(),
        }
    }

    fn is_complete(&self) -> bool {
        self.node.is_some() && self.received >= self.expected
    }

    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if self.node.is_some() {
            self.digest.update(bytes);
            self.received = self.received.saturating_add(bytes.len() as u64);
            return Ok(());
        }
        self.head.extend_from_slice(bytes);
        let end = self.head.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            ensure!(
                self.head.len() < HEAD_BYTES_MAX,
                "the head of the answer does not end"
            );
            return Ok(());
        };
        let rest = self.head.split_off(end + 4);
        self.node = Some(served_by(&String::from_utf8_lossy(&self.head))?);
        self.take(&rest)
    }

    fn finish(self, file: &StoredFile) -> anyhow::Result<Node> {
        ensure!(
            self.received == self.expected,
            "{} bytes came instead of {}",
            self.received,
            self.expected
        );
        let digest: [u8; 32] = self.digest.finalize().into();
        ensure!(
            digest == file.digest,
            "the content is not what was stored (SHA-256 differs)"
        );
        self.node.context("the answer has no head")
    }
}

/// Which node gave this answer, if it is a good one.
fn served_by(head: &str) -> anyhow::Result<Node> {
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 200 "), "{status}");
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("served-by"))
        .context("the answer does not say which node gave it")?
        .1
        .trim()
        .parse()
        .map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(content: &[u8]) -> StoredFile {
        StoredFile {
            name: "f".to_owned(),
            bytes: content.len() as u64,
            digest: Sha256::digest(content).into(),
        }
    }

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nServed-By: node2\r\n\r\n";

    #[test]
    fn an_answer_may_come_in_any_pieces() {
        let content = b"0123456789";
        let whole = [HEAD, content].concat();
        for piece in 1..whole.len() {
            let mut body = Body::new(10);
            for part in whole.chunks(piece) {
                assert!(!body.is_complete());
                body.take(part).unwrap();
            }
            assert!(body.is_complete());
            assert_eq!(body.finish(&stored(content)).unwrap().number(), 2);
        }
    }

    #[test]
    fn wrong_answers_are_errors() {
        let mut wrong = Body::new(3);
        wrong.take(&[HEAD, b"abd"].concat()).unwrap();
        assert!(wrong.finish(&stored(b"abc")).is_err());
        let mut long = Body::new(3);
        long.take(&[HEAD, b"abcd"].concat()).unwrap();
        assert!(long.is_complete() && long.finish(&stored(b"abc")).is_err());
        let mut missing = Body::new(3);
        let error = missing.take(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err();
        assert!(error.to_string().contains("404"));
        assert!(Body::new(3).take(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        let mut endless = Body::new(3);
        assert!(endless.take(&[b'x'; HEAD_BYTES_MAX]).is_err());
    }
}
