// SPDX-License-Identifier: MIT
//! The client: connections that are opened, tried and ended on command.

use crate::NETWORK_TIMEOUT;
use socket2::SockRef;
use std::collections::BTreeMap;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest name of a server.
const NAME_BYTES_MAX: usize = 64;

/// Obeys the commands on standard input until its end.
pub fn obey(service: SocketAddrV4) -> io::Result<()> {
    let mut client = Client {
        service,
        next_id: 0,
        streams: BTreeMap::new(),
        datagrams: Vec::new(),
    };
    for line in io::stdin().lock().lines() {
        let answer = client
            .obey(line?.trim())
            .unwrap_or_else(|error| format!("error {error}"));
        println!("{answer}");
    }
    Ok(())
}

struct Client {
    service: SocketAddrV4,
    next_id: u64,
    streams: BTreeMap<u64, TcpStream>,
    // Kept, so that no two flows have the same port.
    datagrams: Vec<UdpSocket>,
}

impl Client {
    fn obey(&mut self, command: &str) -> io::Result<String> {
        let unknown = || io::Error::other(format!("unknown command {command:?}"));
        let (verb, number) = command.split_once(' ').ok_or_else(unknown)?;
        let number: u64 = number.parse().map_err(|_| unknown())?;
        match verb {
            "open" => self.several(number, Self::open),
            "udp" => self.several(number, Self::exchange_datagram),
            "ping" => {
                let stream = self.streams.get_mut(&number).ok_or_else(unknown)?;
                stream.write_all(b"x")?;
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                Ok("pong".to_owned())
            }
            "close" => {
                drop(self.streams.remove(&number).ok_or_else(unknown)?);
                Ok("closed".to_owned())
            }
            "reset" => {
                let stream = self.streams.remove(&number).ok_or_else(unknown)?;
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                Ok("reset".to_owned())
            }
            _ => Err(unknown()),
        }
    }

    fn several(
        &mut self,
        count: u64,
        one: impl Fn(&mut Self) -> io::Result<String>,
    ) -> io::Result<String> {
        let answers: io::Result<Vec<String>> = (0..count).map(|_| one(self)).collect();
        Ok(answers?.join(" "))
    }

    fn open(&mut self) -> io::Result<String> {
        let (stream, name) = connect(self.service)?;
        let port = stream.local_addr()?.port();
        let id = self.take_id();
        self.streams.insert(id, stream);
        Ok(format!("{id}:{name}:{port}"))
    }

    fn exchange_datagram(&mut self) -> io::Result<String> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(self.service)?;
        socket.set_read_timeout(Some(NETWORK_TIMEOUT))?;
        socket.send(b"who?")?;
        let mut name = [0; NAME_BYTES_MAX];
        let length = socket.recv(&mut name)?;
        let name = String::from_utf8_lossy(name.get(..length).unwrap_or_default()).into_owned();
        let port = socket.local_addr()?.port();
        let id = self.take_id();
        self.datagrams.push(socket);
        Ok(format!("{id}:{}:{port}", name.trim()))
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// Connects and reads the server's name.
fn connect(service: SocketAddrV4) -> io::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(service), NETWORK_TIMEOUT)?;
    stream.set_read_timeout(Some(NETWORK_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut name = Vec::new();
    let mut byte = [0];
    while name.len() < NAME_BYTES_MAX {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
        name.extend_from_slice(&byte);
    }
    Ok((stream, String::from_utf8_lossy(&name).into_owned()))
}

/// Opens and ends connections until the time is over; answers how many succeeded and failed.
pub fn flood(service: SocketAddrV4, duration: Duration, threads: u32) -> (u64, u64) {
    /// A connection that gets no answer is given up soon, because the director comes and goes.
    const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
    let (succeeded, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + duration;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while Instant::now() < end {
                    let connected =
                        TcpStream::connect_timeout(&SocketAddr::V4(service), CONNECT_TIMEOUT);
                    let counter = if connected.is_ok() {
                        &succeeded
                    } else {
                        &failed
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    (succeeded.into_inner(), failed.into_inner())
}
