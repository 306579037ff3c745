// SPDX-License-Identifier: MIT
//! A link between two processes that can be cut, be slow, stand still, or lose what comes back: TCP
//! connections through this process. What is lost is lost with its connection, as TCP has it: the
//! peer asks again on the next one, so that requests arrive twice.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pvfs::address::{Endpoint, MGR_PORT_DEFAULT};
use pvfs::client::transport::dial;

/// Where it leads is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes taken at once.
const BUFFER_BYTES: usize = 64 << 10;

/// What a link does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Passes it on.
    Well,
    /// Keeps it until the mood changes.
    Still,
    /// Passes so many KiB a second on, each way of each connection.
    Slow(u32),
    /// Passes requests on and loses what comes back.
    Deaf,
}

/// A link that a test spoils. Connections end with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    target: String,
    mood: Mood,
    connections: Vec<(TcpStream, TcpStream)>,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mood once it is none in which everything waits.
    fn mood(&self) -> Mood {
        let mut state = self.lock();
        while state.mood == Mood::Still && !state.ended {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.mood
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, way: Way) {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            match self.mood() {
                Mood::Deaf if way == Way::Back => continue,
                Mood::Slow(kib) => {
                    // What makes it slow is this pause; nothing is waited for.
                    let seconds = count as f64 / (f64::from(kib) * 1024.0);
                    std::thread::sleep(Duration::from_secs_f64(seconds));
                }
                Mood::Well | Mood::Still | Mood::Deaf => {}
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // Either end of a connection ends all of it.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for near in listener.incoming().flatten() {
            let target = {
                let state = self.lock();
                if state.ended {
                    return;
                }
                state.target.clone()
            };
            let far = Endpoint::parse(&target, MGR_PORT_DEFAULT);
            let Some(far) = far.ok().and_then(|far| dial(&far, CONNECT_TIMEOUT).ok()) else {
                continue;
            };
            // It is slow enough without.
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let copies = (
                near.try_clone(),
                far.try_clone(),
                near.try_clone(),
                far.try_clone(),
            );
            let (Ok(a), Ok(b), Ok(c), Ok(d)) = copies else {
                continue;
            };
            self.lock().connections.push((near, far));
            let (there, back) = (Arc::clone(self), Arc::clone(self));
            std::thread::spawn(move || there.pump(a, b, Way::There));
            std::thread::spawn(move || back.pump(d, c, Way::Back));
        }
    }
}

impl Proxy {
    /// A link to `target`, which may not be there yet.
    ///
    /// # Errors
    ///
    /// Where there is no port.
    pub fn start(target: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                target: target.to_owned(),
                mood: Mood::Well,
                connections: Vec::new(),
                ended: false,
            }),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accepting.accept(&listener));
        Ok(Self { address, shared })
    }

    /// Where it listens, `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where new connections lead from now on.
    pub fn lead_to(&self, target: &str) {
        target.clone_into(&mut self.shared.lock().target);
    }

    /// Changes what it does.
    pub fn set(&self, mood: Mood) {
        self.shared.lock().mood = mood;
        self.shared.changed.notify_all();
    }

    /// Ends all connections.
    pub fn cut(&self) {
        let connections = std::mem::take(&mut self.shared.lock().connections);
        for (near, far) in connections {
            let _ = near.shutdown(Shutdown::Both);
            let _ = far.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that answers each byte with itself.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while let Ok(1) = stream.read(&mut byte) {
                        stream.write_all(&byte).unwrap();
                    }
                });
            }
        });
        address
    }

    #[test]
    fn each_mood_does_what_it_says() {
        let proxy = Proxy::start(&echo().to_string()).unwrap();
        let connect = || {
            let stream = TcpStream::connect(proxy.address()).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_millis(300)))
                .unwrap();
            stream
        };
        let mut byte = [0];
        let mut stream = connect();
        stream.write_all(b"a").unwrap();
        assert!(stream.read(&mut byte).is_ok() && byte == *b"a");
        proxy.set(Mood::Still);
        stream.write_all(b"b").unwrap();
        assert!(stream.read(&mut byte).is_err(), "it stands still");
        proxy.set(Mood::Well);
        stream.read_exact(&mut byte).unwrap();
        proxy.set(Mood::Deaf);
        stream.write_all(b"c").unwrap();
        assert!(stream.read(&mut byte).is_err(), "the answer is lost");
        proxy.cut();
        assert!(matches!(stream.read(&mut byte), Ok(0) | Err(_)));
        proxy.set(Mood::Well);
        let mut stream = connect();
        stream.write_all(b"d").unwrap();
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"d");
    }
}
