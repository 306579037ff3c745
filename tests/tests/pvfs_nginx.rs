// SPDX-License-Identifier: MIT
//! nginx with sendfile and open_file_cache on three nodes, while files are replaced by rename and
//! rewritten in place: no reply is stale, and none mixes two versions.
//!
//! ```text
//!   writer --- mount0 --- nginx0 <--+
//!              mount1 --- nginx1 <--+-- clients with kept-alive connections
//!              mount2 --- nginx2 <--+
//! ```
//!
//! `open_file_cache_valid 0`: nginx itself looks at a name before it uses what it has open; with a larger
//! value it serves the old file for so long on any file system.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cssns_tests::pvfs_cluster::{Cluster, Options};

const NODES: usize = 3;
/// Several stripes, and more than a socket's buffer.
const BYTES: usize = 1_500_000;
/// For how long files are replaced.
const TIME: Duration = Duration::from_secs(5);
const READY_TIMEOUT: Duration = Duration::from_secs(30);

struct Nginx {
    child: Child,
    address: String,
}

impl Nginx {
    fn start(root: &Path, scratch: &Path) -> Self {
        fs::create_dir_all(scratch).unwrap();
        // Nobody else takes it in the moment until nginx does: ports are dealt out in turn.
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap().to_string();
        drop(port);
        let (root, dir) = (root.display(), scratch.display());
        let configuration = format!(
            "daemon off; user root; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;
             events {{ worker_connections 256; }}
             http {{
                 access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
                 open_file_cache max=1000 inactive=60s; open_file_cache_valid 0;
                 open_file_cache_min_uses 1; open_file_cache_errors on;
                 client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;
                 uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
                 server {{ listen {address}; root {root}; etag off; }}
             }}"
        );
        let file = scratch.join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .args(["-e", &format!("{dir}/error.log")])
            .spawn()
            .unwrap();
        let start = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(start.elapsed() < READY_TIMEOUT, "nginx does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, address }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or_default());
        // SIGTERM, so that the master ends its worker too.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// A client with one connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(READY_TIMEOUT)).unwrap();
        Self(BufReader::new(stream))
    }

    /// The status and the body.
    fn get(&mut self, path: &str) -> (u16, Vec<u8>) {
        let request = format!("GET /{path} HTTP/1.1\r\nHost: pvfs\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "nginx hung up");
            let line = line.trim_end();
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            }
            if let Some(rest) = line.strip_prefix("Content-Length: ") {
                length = rest.parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, body)
    }
}

/// A version of the file: its size differs from others', and every eight bytes tell which it is.
fn content(version: u64) -> Vec<u8> {
    let words = BYTES / 8 + (version as usize * 977) % 5000;
    version.to_le_bytes().repeat(words)
}

/// The version that a body is, all of it.
fn version_of(body: &[u8]) -> u64 {
    let version = u64::from_le_bytes(body[..8].try_into().unwrap());
    assert!(body == content(version), "a mixture, or cut short");
    version
}

fn nodes() -> (Cluster, Vec<Nginx>) {
    let cluster = Cluster::start(Options {
        mounts: NODES,
        ..Options::default()
    })
    .unwrap();
    let nginx = (0..NODES)
        .map(|node| {
            let scratch = cluster.scratch().join(format!("nginx{node}"));
            Nginx::start(&cluster.mount(node), &scratch)
        })
        .collect();
    (cluster, nginx)
}

fn replace(mount: &Path, version: u64) {
    let new = mount.join("page.new");
    fs::write(&new, content(version)).unwrap();
    fs::rename(&new, mount.join("page")).unwrap();
}

#[test]
fn a_file_that_is_replaced_by_rename_is_served_new_and_whole_on_every_node() {
    let (cluster, nginx) = nodes();
    replace(&cluster.mount(0), 1);
    let (newest, stop) = (
        Arc::new(AtomicU64::new(1)),
        Arc::new(AtomicBool::new(false)),
    );
    let clients: Vec<_> = (0..NODES * 2)
        .map(|number| {
            let address = nginx[number % NODES].address.clone();
            let (newest, stop) = (Arc::clone(&newest), Arc::clone(&stop));
            thread::spawn(move || {
                let mut client = Client::connect(&address);
                let mut served = 0;
                while !stop.load(Ordering::SeqCst) {
                    let from = newest.load(Ordering::SeqCst);
                    let (status, body) = client.get("page");
                    assert_eq!(status, 200);
                    let version = version_of(&body);
                    assert!(version >= from, "{version} is served after {from}");
                    served += 1;
                }
                served
            })
        })
        .collect();
    let start = Instant::now();
    let mut version = 1;
    while start.elapsed() < TIME {
        version += 1;
        replace(&cluster.mount(version as usize % NODES), version);
        newest.store(version, Ordering::SeqCst);
    }
    stop.store(true, Ordering::SeqCst);
    let served: u64 = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    eprintln!("{served} replies while {version} versions came");
    assert!(served > 50 && version > 20);
    drop(nginx);
    cluster.finish().unwrap();
}

/// Rewritten on one node, served by all once the writer has closed it; also a name that was served as
/// missing, and one that is gone.
#[test]
fn a_file_that_is_rewritten_in_place_is_served_new_after_the_close_on_every_node() {
    let (cluster, nginx) = nodes();
    let mut clients: Vec<Client> = nginx.iter().map(|n| Client::connect(&n.address)).collect();
    fs::write(cluster.mount(0).join("page"), content(0)).unwrap();
    let start = Instant::now();
    let mut version = 0;
    while start.elapsed() < TIME || version < 12 {
        for client in &mut clients {
            let (status, body) = client.get("page");
            assert_eq!((status, version_of(&body)), (200, version));
            assert_eq!(client.get("other").0, 404);
        }
        version += 1;
        let mount = cluster.mount(version as usize % NODES);
        let bytes = content(version);
        match version % 3 {
            0 => fs::write(mount.join("page"), &bytes).unwrap(),
            1 => {
                let file = OpenOptions::new()
                    .write(true)
                    .open(mount.join("page"))
                    .unwrap();
                // From its end to its beginning, then to its size.
                for piece in bytes
                    .chunks(200_000)
                    .enumerate()
                    .collect::<Vec<_>>()
                    .iter()
                    .rev()
                {
                    file.write_all_at(piece.1, piece.0 as u64 * 200_000)
                        .unwrap();
                }
                file.set_len(bytes.len() as u64).unwrap();
            }
            _ => {
                let mut file = File::create(mount.join("page")).unwrap();
                for piece in bytes.chunks(100_001) {
                    file.write_all(piece).unwrap();
                }
            }
        }
        fs::write(mount.join("other"), "here").unwrap();
        for client in &mut clients {
            assert_eq!(client.get("other"), (200, b"here".to_vec()));
        }
        fs::remove_file(mount.join("other")).unwrap();
    }
    eprintln!("{version} versions");
    drop(nginx);
    cluster.finish().unwrap();
}
