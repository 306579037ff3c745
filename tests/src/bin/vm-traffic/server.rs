// SPDX-License-Identifier: MIT
//! The server: says its name, then echoes.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};

/// Longest datagram and largest piece that is echoed at a time.
const BUFFER_BYTES: usize = 2048;

/// Serves until it is killed.
pub fn serve(address: SocketAddrV4, name: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let datagrams = UdpSocket::bind(address)?;
    std::thread::scope(|scope| {
        scope.spawn(move || answer_datagrams(&datagrams, name));
        for stream in listener.incoming() {
            let stream = stream?;
            // A connection that breaks is its client's business.
            scope.spawn(move || drop(echo(stream, name)));
        }
        Ok(())
    })
}

fn answer_datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        if let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name}\n").as_bytes(), from);
        }
    }
}

fn echo(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.write_all(format!("{name}\n").as_bytes())?;
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(buffer.get(..length).unwrap_or_default())?;
    }
}
