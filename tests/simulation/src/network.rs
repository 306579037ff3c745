// SPDX-License-Identifier: MIT
//! TCP between machines: each direction of a connection delivers what was sent in its order, late;
//! directions overtake each other. A link that is cut delivers nothing, and what waits for it comes
//! when it is whole again, as TCP sends again what is not acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pvfs::runtime::simulated::{ListenerId, SocketId, TaskId};

/// Bytes on their way and not read: a sender with more waits.
const WINDOW_BYTES: usize = 256 << 10;
/// What could not be delivered is tried again after so long.
const RETRANSMIT_AFTER: Duration = Duration::from_millis(200);
/// Data that is not delivered for so long ends the connection (`TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(120);
/// A silent peer is probed after so long, as the product asks of TCP.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// And again.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// The first port of connections.
const PORT_FIRST: u16 = 20_000;

#[derive(Debug)]
enum Packet {
    Data(Vec<u8>),
    End,
    Reset,
}

#[derive(Debug)]
struct Socket {
    local: SocketAddr,
    peer: SocketId,
    peer_address: SocketAddr,
    received: VecDeque<u8>,
    /// The peer sends no more.
    ended: bool,
    failed: Option<io::ErrorKind>,
    /// This end is shut down.
    shut: bool,
    /// On its way to the peer, each with when it arrives.
    outgoing: VecDeque<(Duration, Packet)>,
    outgoing_bytes: usize,
    /// When the first packet that waits was to arrive.
    waits_since: Option<Duration>,
    /// The last reference is gone: it remains until everything has been delivered.
    closed: bool,
    waiting: Vec<TaskId>,
}

#[derive(Debug)]
struct Listener {
    at: SocketAddr,
    queue: VecDeque<(SocketId, SocketAddr)>,
    waiting: Vec<TaskId>,
}

/// The network between simulated machines.
#[derive(Debug)]
pub struct Network {
    random: fastrand::Rng,
    numbers: u64,
    sockets: BTreeMap<SocketId, Socket>,
    listeners: BTreeMap<ListenerId, Listener>,
    /// When to look at which socket's outgoing packets.
    due: BTreeSet<(Duration, SocketId)>,
    /// Cut links, from one machine to the other.
    cuts: BTreeSet<(IpAddr, IpAddr)>,
    down: BTreeSet<IpAddr>,
    /// One packet takes so long at least, microseconds.
    latency_us: u64,
    /// And so much longer at most, mostly.
    jitter_us: u64,
    /// Of 256 packets so many are late by [`Network::late_us`] at most.
    late: u8,
    late_us: u64,
    woken: Vec<TaskId>,
}

impl Network {
    /// A network whose speed is drawn.
    #[must_use]
    pub fn new(mut random: fastrand::Rng) -> Self {
        let latency_us = random.u64(20..400);
        let jitter_us = [10, 300, 3_000][random.usize(0..3)];
        let late = [0, 2, 12][random.usize(0..3)];
        Self {
            random,
            numbers: 0,
            sockets: BTreeMap::new(),
            listeners: BTreeMap::new(),
            due: BTreeSet::new(),
            cuts: BTreeSet::new(),
            down: BTreeSet::new(),
            latency_us,
            jitter_us,
            late,
            late_us: 400_000,
            woken: Vec::new(),
        }
    }

    /// How long the next packet takes.
    pub fn latency(&mut self) -> Duration {
        let mut us = self.latency_us + self.random.u64(0..=self.jitter_us);
        if self.random.u8(..) < self.late {
            us += self.random.u64(0..=self.late_us);
        }
        Duration::from_micros(us)
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Cuts or mends a link in one direction.
    pub fn cut(&mut self, from: IpAddr, to: IpAddr, cut: bool) {
        match cut {
            true => self.cuts.insert((from, to)),
            false => self.cuts.remove(&(from, to)),
        };
    }

    /// Mends everything.
    pub fn mend(&mut self) {
        self.cuts.clear();
    }

    /// A machine has gone or come back.
    pub fn is_up(&mut self, ip: IpAddr, up: bool) {
        match up {
            true => self.down.remove(&ip),
            false => self.down.insert(ip),
        };
    }

    fn is_cut(&self, from: IpAddr, to: IpAddr) -> bool {
        self.cuts.contains(&(from, to)) || self.down.contains(&to)
    }

    /// All sockets of a machine are gone; its peers hear of it, or not.
    pub fn vanish(&mut self, ip: IpAddr, now: Duration, silently: bool) {
        self.listeners.retain(|_, listener| listener.at.ip() != ip);
        let mine: Vec<SocketId> = {
            let mine = self
                .sockets
                .iter()
                .filter(|(_, socket)| socket.local.ip() == ip);
            mine.map(|(id, _)| *id).collect()
        };
        for id in mine {
            if silently {
                if let Some(socket) = self.sockets.remove(&id) {
                    self.due.insert((now + KEEPALIVE_AFTER, socket.peer));
                }
            } else {
                self.post(id, now, Packet::Reset);
                if let Some(socket) = self.sockets.get_mut(&id) {
                    socket.closed = true;
                    socket.shut = true;
                }
            }
        }
        if silently {
            self.is_up(ip, false);
        }
    }

    /// Breaks all connections between two machines: both ends are told.
    pub fn break_connections(&mut self, one: IpAddr, other: IpAddr) -> Vec<TaskId> {
        let between = |socket: &Socket| {
            let ends = (socket.local.ip(), socket.peer_address.ip());
            ends == (one, other) || ends == (other, one)
        };
        for socket in self.sockets.values_mut().filter(|socket| between(socket)) {
            socket.outgoing.clear();
            socket.outgoing_bytes = 0;
            socket.failed.get_or_insert(io::ErrorKind::ConnectionReset);
            self.woken.append(&mut socket.waiting);
        }
        std::mem::take(&mut self.woken)
    }

    fn post(&mut self, from: SocketId, now: Duration, packet: Packet) {
        let latency = self.latency();
        let Some(socket) = self.sockets.get_mut(&from) else {
            return;
        };
        let last = socket.outgoing.back().map_or(Duration::ZERO, |(at, _)| *at);
        let at = last.max(now + latency);
        if let Packet::Data(bytes) = &packet {
            socket.outgoing_bytes += bytes.len();
        }
        socket.outgoing.push_back((at, packet));
        self.due.insert((at, from));
    }

    /// When something happens next.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Delivers what is due; gives who is to wake up.
    pub fn deliver(&mut self, now: Duration) -> Vec<TaskId> {
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            self.pump(id, now);
        }
        std::mem::take(&mut self.woken)
    }

    fn pump(&mut self, id: SocketId, now: Duration) {
        loop {
            let Some(socket) = self.sockets.get_mut(&id) else {
                return;
            };
            let Some((at, _)) = socket.outgoing.front() else {
                if socket.closed {
                    self.sockets.remove(&id);
                } else {
                    self.probe(id, now);
                }
                return;
            };
            if *at > now {
                return;
            }
            let first_at = *at;
            let (from, to) = (socket.local.ip(), socket.peer_address.ip());
            let peer = socket.peer;
            if self.is_cut(from, to) {
                self.wait_for_link(id, first_at, now);
                return;
            }
            let Some(socket) = self.sockets.get_mut(&id) else {
                return;
            };
            socket.waits_since = None;
            let Some((_, packet)) = socket.outgoing.pop_front() else {
                return;
            };
            self.arrive(id, peer, packet);
        }
    }

    /// Where the peer is gone without a word, its machine says so as soon as it is up again.
    fn probe(&mut self, id: SocketId, now: Duration) {
        let Some(socket) = self.sockets.get(&id) else {
            return;
        };
        if self.sockets.contains_key(&socket.peer) || socket.failed.is_some() {
            return;
        }
        if self.is_cut(socket.local.ip(), socket.peer_address.ip()) {
            self.due.insert((now + KEEPALIVE_INTERVAL, id));
        } else if let Some(socket) = self.sockets.get_mut(&id) {
            socket.failed = Some(io::ErrorKind::ConnectionReset);
            self.woken.append(&mut socket.waiting);
        }
    }

    fn wait_for_link(&mut self, id: SocketId, first_at: Duration, now: Duration) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        let since = *socket.waits_since.get_or_insert(first_at);
        if now.saturating_sub(since) > UNACKNOWLEDGED_MAX {
            socket.failed = Some(io::ErrorKind::TimedOut);
            socket.outgoing.clear();
            self.woken.append(&mut socket.waiting);
            return;
        }
        self.due.insert((now + RETRANSMIT_AFTER, id));
    }

    fn arrive(&mut self, from: SocketId, to: SocketId, packet: Packet) {
        match self.sockets.get_mut(&to) {
            Some(peer) if !peer.closed => {
                match packet {
                    Packet::Data(bytes) if peer.shut => {
                        // Nobody reads it: the sender may go on.
                        let length = bytes.len();
                        self.read(from, length);
                        return;
                    }
                    Packet::Data(bytes) => peer.received.extend(bytes),
                    Packet::End => peer.ended = true,
                    Packet::Reset => {
                        peer.failed.get_or_insert(io::ErrorKind::ConnectionReset);
                    }
                }
                self.woken.append(&mut peer.waiting);
            }
            // Whoever was there is gone.
            Some(_) | None => {
                if let (Some(sender), Packet::Data(_)) = (self.sockets.get_mut(&from), packet) {
                    sender.failed.get_or_insert(io::ErrorKind::ConnectionReset);
                    sender.outgoing.clear();
                    self.woken.append(&mut sender.waiting);
                }
            }
        }
    }

    /// The peer of `sender` has read bytes: there is room for others.
    fn read(&mut self, sender: SocketId, length: usize) {
        if let Some(sender) = self.sockets.get_mut(&sender) {
            sender.outgoing_bytes = sender.outgoing_bytes.saturating_sub(length);
            self.woken.append(&mut sender.waiting);
        }
    }

    /// Makes a connection; `None` where nobody answers.
    pub fn connect(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<io::Result<(SocketId, Vec<TaskId>)>> {
        if self.is_cut(from.ip(), to.ip()) || self.is_cut(to.ip(), from.ip()) {
            return None;
        }
        let listener = self
            .listeners
            .iter()
            .find(|(_, listener)| listener.at == to);
        let Some((listener, _)) = listener else {
            return Some(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let listener = *listener;
        let (near, far) = (SocketId(self.number()), SocketId(self.number()));
        let port = PORT_FIRST + u16::try_from(self.numbers % 40_000).unwrap_or(0);
        let from = SocketAddr::new(from.ip(), port);
        for (id, peer, local, peer_address) in [(near, far, from, to), (far, near, to, from)] {
            let socket = Socket {
                local,
                peer,
                peer_address,
                received: VecDeque::new(),
                ended: false,
                failed: None,
                shut: false,
                outgoing: VecDeque::new(),
                outgoing_bytes: 0,
                waits_since: None,
                closed: false,
                waiting: Vec::new(),
            };
            self.sockets.insert(id, socket);
        }
        let listener = self.listeners.get_mut(&listener)?;
        listener.queue.push_back((far, from));
        Some(Ok((near, std::mem::take(&mut listener.waiting))))
    }

    /// Listens.
    ///
    /// # Errors
    ///
    /// Where somebody does already.
    pub fn listen(&mut self, at: SocketAddr) -> io::Result<ListenerId> {
        if self.listeners.values().any(|listener| listener.at == at) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = ListenerId(self.number());
        let listener = Listener {
            at,
            queue: VecDeque::new(),
            waiting: Vec::new(),
        };
        self.listeners.insert(id, listener);
        Ok(id)
    }

    /// The next connection; `None` where `task` has to wait for one.
    pub fn accept(
        &mut self,
        listener: ListenerId,
        task: TaskId,
    ) -> Option<io::Result<(SocketId, SocketAddr)>> {
        let Some(listener) = self.listeners.get_mut(&listener) else {
            return Some(Err(io::ErrorKind::InvalidInput.into()));
        };
        let next = listener.queue.pop_front();
        if next.is_none() {
            listener.waiting.push(task);
        }
        next.map(Ok)
    }

    /// Ends listening; gives who waits for connections.
    pub fn stop_listening(&mut self, listener: ListenerId) -> Vec<TaskId> {
        self.listeners
            .remove(&listener)
            .map(|listener| listener.waiting)
            .unwrap_or_default()
    }

    /// Receives; `None` where `task` has to wait.
    pub fn receive(
        &mut self,
        id: SocketId,
        bytes: &mut [u8],
        task: TaskId,
    ) -> Option<io::Result<usize>> {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return Some(Err(io::ErrorKind::NotConnected.into()));
        };
        if socket.shut {
            return Some(Ok(0));
        }
        if !socket.received.is_empty() {
            let count = match io::Read::read(&mut socket.received, bytes) {
                Ok(count) => count,
                Err(error) => return Some(Err(error)),
            };
            let peer = socket.peer;
            self.read(peer, count);
            return Some(Ok(count));
        }
        match socket.failed {
            Some(kind) => Some(Err(kind.into())),
            None if socket.ended => Some(Ok(0)),
            None => {
                socket.waiting.push(task);
                None
            }
        }
    }

    /// Sends; `None` where `task` has to wait.
    pub fn send(
        &mut self,
        id: SocketId,
        bytes: &[u8],
        now: Duration,
        task: TaskId,
    ) -> Option<io::Result<usize>> {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return Some(Err(io::ErrorKind::NotConnected.into()));
        };
        if let Some(kind) = socket.failed {
            return Some(Err(kind.into()));
        }
        if socket.shut {
            return Some(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW_BYTES.saturating_sub(socket.outgoing_bytes);
        if room == 0 {
            socket.waiting.push(task);
            return None;
        }
        // Sometimes only a part is taken, as a socket may.
        let mut length = bytes.len().min(room);
        if length > 64 && self.random.u8(..) < 8 {
            length = self.random.usize(1..=length);
        }
        let part = bytes.get(..length).unwrap_or_default().to_vec();
        self.post(id, now, Packet::Data(part));
        Some(Ok(length))
    }

    /// Shuts both directions down; gives who is to wake up.
    pub fn shut_down(&mut self, id: SocketId, now: Duration) -> Vec<TaskId> {
        let Some(socket) = self.sockets.get_mut(&id).filter(|socket| !socket.shut) else {
            return Vec::new();
        };
        socket.shut = true;
        let woken = std::mem::take(&mut socket.waiting);
        self.post(id, now, Packet::End);
        woken
    }

    /// The last reference to a socket is gone; gives who is to wake up.
    pub fn close(&mut self, id: SocketId, now: Duration) -> Vec<TaskId> {
        let unread = self
            .sockets
            .get(&id)
            .is_some_and(|socket| !socket.received.is_empty());
        let shut = self.sockets.get(&id).is_none_or(|socket| socket.shut);
        if unread {
            self.post(id, now, Packet::Reset);
        } else if !shut {
            self.post(id, now, Packet::End);
        }
        match self.sockets.get_mut(&id) {
            Some(socket) => {
                socket.closed = true;
                socket.shut = true;
                if socket.outgoing.is_empty() {
                    self.sockets.remove(&id);
                    return Vec::new();
                }
                std::mem::take(&mut socket.waiting)
            }
            None => Vec::new(),
        }
    }

    /// A socket's own address.
    #[must_use]
    pub fn local_address(&self, id: SocketId) -> SocketAddr {
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        self.sockets
            .get(&id)
            .map_or(unspecified, |socket| socket.local)
    }
}
