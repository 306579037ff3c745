// SPDX-License-Identifier: MIT
//! Sizes by asking a node: a HEAD request has all of the answer but its body.
//!
//! For a director without the mount, and for what is no file. A node that does not answer in time
//! costs one timeout, then the next one is asked from then on.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A node on the same network connects in much less.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// All of one answer. The question is a second old by then, and the module asks again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Longer heads are no answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The nodes that are asked in turn.
#[derive(Debug)]
pub struct Nodes {
    addresses: Vec<SocketAddr>,
    next: AtomicUsize,
}

impl Nodes {
    /// These nodes.
    pub fn new(addresses: Vec<SocketAddr>) -> Nodes {
        Nodes {
            addresses,
            next: AtomicUsize::new(0),
        }
    }

    /// How many bytes a node would send for this path; `None` if it does not say.
    pub fn size(&self, host: &[u8], path: &[u8]) -> Option<u64> {
        // Which one is asked does not matter, as long as it is not always the same.
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let address = self
            .addresses
            .get(turn.checked_rem(self.addresses.len())?)?;
        match ask(*address, host, path) {
            Ok(head) => body_bytes(&head),
            Err(error) => {
                tracing::warn!("{address} does not answer a HEAD request: {error}");
                None
            }
        }
    }
}

/// The head of the node's answer.
fn ask(address: SocketAddr, host: &[u8], path: &[u8]) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(&request(host, path))?;
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("its head is too long"));
        }
    }
    Ok(head)
}

/// The request. The path is encoded anew, so nothing in it ends a line.
fn request(host: &[u8], path: &[u8]) -> Vec<u8> {
    let mut request = b"HEAD ".to_vec();
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            request.push(*byte);
        } else {
            request.extend(format!("%{byte:02X}").into_bytes());
        }
    }
    request.extend(b" HTTP/1.1\r\nHost: ");
    // The module lets through what can be in a host's name.
    request.extend(host.iter().filter(|byte| byte.is_ascii_graphic()));
    request.extend(b"\r\nConnection: close\r\nUser-Agent: mwlcd\r\n\r\n");
    request
}

/// How long the body would be that belongs to this head.
fn body_bytes(head: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?;
    match status {
        "200" => {}
        // Sent elsewhere, with a few bytes.
        "301" | "302" | "303" | "307" | "308" => return Some(0),
        _ => return None,
    }
    let lengths: Vec<&str> = lines
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, value)| value.trim())
        .collect();
    match lengths.as_slice() {
        [length] if length.bytes().all(|digit| digit.is_ascii_digit()) => length.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn a_body_is_as_long_as_its_head_says() {
        for (head, bytes) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n", Some(77)),
            (
                "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length:0\r\n\r\n",
                Some(0),
            ),
            ("HTTP/1.1 301 Moved\r\nContent-Length: 162\r\n\r\n", Some(0)),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n", None),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                None,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", None),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                None,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
                None,
            ),
            ("garbage", None),
            ("", None),
        ] {
            assert_eq!(body_bytes(head.as_bytes()), bytes, "{head}");
        }
    }

    #[test]
    fn nothing_in_a_path_ends_a_line() {
        let request = request(b"h\r\nx: y", b"/a b\r\nc%/d");
        let expected = "HEAD /a%20b%0D%0Ac%25/d HTTP/1.1\r\nHost: hx:y\r\nConnection: close\r\nUser-Agent: \
            mwlcd\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&request), expected);
    }

    #[test]
    fn nodes_are_asked_in_turn_and_a_dead_one_says_nothing() {
        let alive = TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = vec![alive.local_addr().unwrap(), dead.local_addr().unwrap()];
        drop(dead);
        let server = thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = alive.accept().unwrap();
                let mut request = [0; 1000];
                let count = stream.read(&mut request).unwrap();
                assert!(request[..count].starts_with(b"HEAD /f HTTP/1.1\r\nHost: h\r\n"));
                // In pieces, as a network may deliver it.
                for piece in ["HTTP/1.1 200 OK\r\nContent-", "Length: 5\r\n\r", "\n"] {
                    stream.write_all(piece.as_bytes()).unwrap();
                }
            }
        });
        let nodes = Nodes::new(addresses);
        let sizes: Vec<_> = (0..4).map(|_| nodes.size(b"h", b"/f")).collect();
        assert_eq!(sizes, [Some(5), None, Some(5), None]);
        server.join().unwrap();
        assert_eq!(Nodes::new(Vec::new()).size(b"h", b"/f"), None);
    }
}
