// SPDX-License-Identifier: MIT
//! The cluster as it goes on from event to event: requests arrive, a policy chooses a node, and the
//! node's link is shared by its transfers.
//!
//! A connection is half-open for one round trip, then its transfer starts; from then on the director
//! knows its size, or never does. After the transfer the client keeps the connection for a while,
//! then closes it, and the director holds it as inactive until FIN_WAIT times out.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use ipvs_mwlc::director::load::{Cap, ExpectedSize, SizePolicy};
use ipvs_mwlc::director::sched::DestLoad;
use serde::Serialize;

use super::link::Link;
use super::policy::{Chooser, Policy};

/// A node of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Node {
    /// Its link's rate, bytes per second.
    pub rate: f64,
    /// Wi.
    pub weight: u32,
}

/// The cluster and its clients.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cluster {
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// The rate of a client's own link, bytes per second, if that can be less than a node's.
    pub client_rate: Option<f64>,
    /// From a client's SYN to its request, seconds.
    pub round_trip_s: f64,
    /// How long a client keeps its connection after a transfer, seconds.
    pub keep_alive_s: f64,
    /// How long the director holds a connection that its client has closed, seconds.
    pub fin_wait_s: f64,
    /// Whether the director learns the size with the request, or counts what it expects for good.
    pub sizes_known: bool,
}

/// A client's request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrival {
    /// When the SYN arrives, seconds.
    pub at_s: f64,
    /// What is fetched, bytes.
    pub size: f64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Completion {
    /// From the SYN to the last byte, seconds.
    pub took_s: f64,
    /// The same in an idle cluster, seconds.
    pub alone_s: f64,
}

/// What a run came to, after the warm-up.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Every request's.
    pub completions: Vec<Completion>,
    /// Sum over the arrivals of max Ci/Wi.
    pub largest_load: f64,
    /// Sum over the arrivals of the mean Ci/Wi.
    pub mean_load: f64,
    /// Requests that no node would take.
    pub refused: u64,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    arrival: Arrival,
    number: usize,
    node: usize,
    /// What it counts in Ci at its start, bytes.
    counted: f64,
    /// The most that it counts in the capped Ci.
    cap: Cap,
}

/// What connections count.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    /// In Ci, bytes.
    bytes: f64,
    /// In the capped Ci, bytes.
    capped: f64,
}

impl Connection {
    /// What it counts when `delivered` bytes count no more.
    fn counts(&self, delivered: f64) -> Counted {
        let bytes = (self.counted - delivered).max(0.0);
        Counted {
            bytes,
            capped: bytes.min(self.cap.bytes() as f64),
        }
    }
}

#[derive(Debug, Clone)]
struct NodeState {
    link: Link<Connection>,
    weight: u32,
    pending: u32,
    /// Connections whose transfer is over and which the client keeps.
    idle: u32,
    inactive: u32,
    /// What all established connections count, idle ones included; with what is left of them
    /// counted, the idle ones alone.
    counted: Counted,
    /// The sizes of the connections in transfer.
    transferring: f64,
}

/// The end of the first transfer of a node, as known when it was noted.
#[derive(Debug, Clone, Copy, PartialEq)]
struct NotedEnd {
    at: f64,
    node: usize,
}

impl Eq for NotedEnd {}

impl PartialOrd for NotedEnd {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NotedEnd {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at
            .total_cmp(&other.at)
            .then(self.node.cmp(&other.node))
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Event {
    Arrival(usize),
    Request(Connection),
    TransferEnds(usize),
    Close(Connection),
    Forget(usize),
}

/// One run.
struct World<'a> {
    cluster: &'a Cluster,
    nodes: Vec<NodeState>,
    arrivals: &'a [Arrival],
    next_arrival: usize,
    /// Connections on their way to their request, to their close and out of FIN_WAIT. Each delay is
    /// constant, so they come out in the order in which they went in.
    opening: VecDeque<(f64, Connection)>,
    idle: VecDeque<(f64, Connection)>,
    closed: VecDeque<(f64, usize)>,
    /// May hold ends that another start has moved since; `next_end` drops those.
    ends: BinaryHeap<Reverse<NotedEnd>>,
    expected: ExpectedSize,
    /// Whether sizes shrink as clients acknowledge.
    counts_left: bool,
    outcome: Outcome,
    warm_up: usize,
}

/// Runs `arrivals`, in the order of time, through the cluster; the first `warm_up` are not counted.
#[must_use]
pub fn run(
    cluster: &Cluster,
    policy: Policy,
    arrivals: &[Arrival],
    warm_up: usize,
    seed: u64,
) -> Outcome {
    let pooled;
    let cluster = if policy == Policy::Pooled {
        pooled = pool(cluster);
        &pooled
    } else {
        cluster
    };
    let mut chooser = Chooser::new(policy, seed);
    let mut world = World::new(cluster, policy, arrivals, warm_up);
    let mut loads = Vec::with_capacity(world.nodes.len());
    while let Some((now, event)) = world.next() {
        match event {
            Event::Arrival(number) => {
                world.snapshot(now, &mut loads);
                match chooser.choose(&loads, world.expected.bytes()) {
                    Some(node) => world.arrive(now, number, node),
                    None => world.outcome.refused += 1,
                }
            }
            Event::Request(connection) => world.request(now, connection),
            Event::TransferEnds(node) => world.transfer_ends(now, node),
            Event::Close(connection) => world.close(now, &connection),
            Event::Forget(node) => world.nodes[node].inactive -= 1,
        }
    }
    world.outcome
}

/// All nodes' links as one, on which no transfer is faster than on the fastest of them: what no
/// choice of a node can surpass while transfers share links equally.
fn pool(cluster: &Cluster) -> Cluster {
    let rate = cluster.nodes.iter().map(|node| node.rate).sum();
    let fastest = cluster
        .nodes
        .iter()
        .map(|node| node.rate)
        .fold(0.0, f64::max);
    Cluster {
        nodes: vec![Node { rate, weight: 1 }],
        client_rate: Some(cluster.client_rate.unwrap_or(fastest).min(fastest)),
        ..cluster.clone()
    }
}

impl<'a> World<'a> {
    fn new(cluster: &'a Cluster, policy: Policy, arrivals: &'a [Arrival], warm_up: usize) -> Self {
        let client_rate = cluster.client_rate.unwrap_or(f64::INFINITY);
        let node = |node: &Node| NodeState {
            link: Link::new(node.rate, client_rate),
            weight: node.weight,
            pending: 0,
            idle: 0,
            inactive: 0,
            counted: Counted::default(),
            transferring: 0.0,
        };
        World {
            cluster,
            nodes: cluster.nodes.iter().map(node).collect(),
            arrivals,
            next_arrival: 0,
            opening: VecDeque::new(),
            idle: VecDeque::new(),
            closed: VecDeque::new(),
            ends: BinaryHeap::new(),
            expected: ExpectedSize::new(mean_size(arrivals), SizePolicy::Learned),
            counts_left: policy.counts_what_is_left(),
            outcome: Outcome::default(),
            warm_up,
        }
    }

    /// The earliest event. Without further arrivals nothing is left to compare, so the run ends when
    /// the last transfer does.
    fn next(&mut self) -> Option<(f64, Event)> {
        let arrival = self.arrivals.get(self.next_arrival).map(|next| next.at_s);
        let request = self.opening.front().map(|(at, _)| *at);
        let end = self.next_end();
        let close = self.idle.front().map(|(at, _)| *at);
        let forget = self.closed.front().map(|(at, _)| *at);
        if arrival.is_none() && request.is_none() && end.is_none() {
            return None;
        }
        let is_next = |candidate: Option<f64>| {
            let others = [arrival, request, end.map(|end| end.at), close, forget];
            candidate.is_some_and(|at| others.into_iter().flatten().all(|other| at <= other))
        };
        if is_next(request) {
            self.opening
                .pop_front()
                .map(|(at, connection)| (at, Event::Request(connection)))
        } else if is_next(end.map(|end| end.at)) {
            self.ends.pop();
            end.map(|end| (end.at, Event::TransferEnds(end.node)))
        } else if is_next(close) {
            self.idle
                .pop_front()
                .map(|(at, connection)| (at, Event::Close(connection)))
        } else if is_next(forget) {
            self.closed
                .pop_front()
                .map(|(at, node)| (at, Event::Forget(node)))
        } else {
            let number = self.next_arrival;
            self.next_arrival += 1;
            arrival.map(|at| (at, Event::Arrival(number)))
        }
    }

    /// The next end of any transfer.
    fn next_end(&mut self) -> Option<NotedEnd> {
        while let Some(Reverse(noted)) = self.ends.peek() {
            if self.nodes[noted.node].link.next_end() == Some(noted.at) {
                return Some(*noted);
            }
            self.ends.pop();
        }
        None
    }

    fn note_end(&mut self, node: usize) {
        if let Some(at) = self.nodes[node].link.next_end() {
            self.ends.push(Reverse(NotedEnd { at, node }));
        }
    }

    /// What the director sees of the nodes, and its sample of the imbalance.
    fn snapshot(&mut self, now: f64, loads: &mut Vec<DestLoad>) {
        loads.clear();
        let (mut largest, mut sum) = (0.0f64, 0.0);
        for node in &self.nodes {
            let ratio = node.transferring / f64::from(node.weight.max(1));
            largest = largest.max(ratio);
            sum += ratio;
            loads.push(node.load(now, self.counts_left));
        }
        if self.next_arrival > self.warm_up {
            self.outcome.largest_load += largest;
            self.outcome.mean_load += sum / self.nodes.len() as f64;
        }
    }

    fn arrive(&mut self, now: f64, number: usize, node: usize) {
        self.nodes[node].pending += 1;
        let connection = Connection {
            arrival: self.arrivals[number],
            number,
            node,
            counted: self.expected.bytes() as f64,
            cap: Cap::of(self.expected.bytes()),
        };
        let at = now + self.cluster.round_trip_s;
        self.opening.push_back((at, connection));
    }

    fn request(&mut self, now: f64, mut connection: Connection) {
        let size = connection.arrival.size;
        if self.cluster.sizes_known {
            connection.counted = size;
            self.expected = self.expected.learn(size as u64);
        }
        let node = &mut self.nodes[connection.node];
        node.pending -= 1;
        if !self.counts_left {
            node.counted.add(connection.counts(0.0));
        }
        node.transferring += size;
        node.link.start(now, size, connection);
        self.note_end(connection.node);
    }

    fn transfer_ends(&mut self, now: f64, node: usize) {
        let Some(connection) = self.nodes[node].link.end(now) else {
            return;
        };
        self.note_end(node);
        let state = &mut self.nodes[node];
        state.transferring -= connection.arrival.size;
        state.idle += 1;
        if self.counts_left {
            state
                .counted
                .add(connection.counts(connection.arrival.size));
        }
        if state.link.transfers() == 0 {
            // So that rounding errors do not pile up.
            state.transferring = 0.0;
        }
        if connection.number >= self.warm_up {
            let alone_s = self.cluster.round_trip_s + state.link.alone_s(connection.arrival.size);
            let took_s = now - connection.arrival.at_s;
            self.outcome
                .completions
                .push(Completion { took_s, alone_s });
        }
        self.idle
            .push_back((now + self.cluster.keep_alive_s, connection));
    }

    fn close(&mut self, now: f64, connection: &Connection) {
        let node = &mut self.nodes[connection.node];
        node.idle -= 1;
        node.inactive += 1;
        let delivered = if self.counts_left {
            connection.arrival.size
        } else {
            0.0
        };
        node.counted.subtract(connection.counts(delivered));
        if node.idle == 0 && node.link.transfers() == 0 {
            // So that rounding errors do not pile up.
            node.counted = Counted::default();
        }
        self.closed
            .push_back((now + self.cluster.fin_wait_s, connection.node));
    }
}

impl Counted {
    fn add(&mut self, other: Counted) {
        self.bytes += other.bytes;
        self.capped += other.capped;
    }

    fn subtract(&mut self, other: Counted) {
        self.bytes -= other.bytes;
        self.capped -= other.capped;
    }
}

impl NodeState {
    fn load(&self, now: f64, counts_left: bool) -> DestLoad {
        let mut counted = self.counted;
        if counts_left {
            for (connection, left) in self.link.each(now) {
                counted.add(connection.counts(connection.arrival.size - left));
            }
        }
        DestLoad {
            weight: self.weight,
            pending: self.pending,
            active: self.link.transfers() as u32 + self.idle,
            inactive: self.inactive,
            bytes: counted.bytes as u64,
            capped_bytes: counted.capped as u64,
            ..DestLoad::default()
        }
    }
}

/// What a director expects that has learned for a long time: the mean.
fn mean_size(arrivals: &[Arrival]) -> u64 {
    let sum: f64 = arrivals.iter().map(|arrival| arrival.size).sum();
    (sum / arrivals.len().max(1) as f64) as u64
}
