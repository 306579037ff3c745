// SPDX-License-Identifier: MIT
//! Clients' sessions: who is there, and the replies that make every mutating request run once.
//!
//! A request is *in flight* from its arrival until its reply leaves; a duplicate that arrives
//! meanwhile joins it. Its reply is *kept* until the client says that it has it. A reply whose
//! request changed records is kept durably, in the same commit as those. One whose request changed
//! nothing durable is kept in memory: after a restart its request may run again, which is then for
//! the first time as far as anything can tell.
//!
//! `W` is whoever waits for a reply.

use std::collections::{BTreeMap, HashMap};

use pvfs::error::FsError;
use pvfs::ids::ClientId;
use pvfs::limits::REPLIES_KEPT_PER_CLIENT_MAX;
use pvfs::proto::mgr::MgrReply;
use pvfs::proto::peer::Peer;

/// A client that says nothing for so long loses its opens and its kept replies: long enough for a
/// switch to restart, short enough that an unlinked file's space comes back.
pub const SESSION_TIMEOUT_MS_DEFAULT: u32 = 60_000;

/// A client that says nothing for so long loses its leases to whoever needs them: others wait no
/// longer for a node that is dead. Clients stop relying on theirs after six tenths of it.
pub const LEASE_TIMEOUT_MS_DEFAULT: u32 = 10_000;

/// Sessions at a time: ten times the largest clusters that PVFS ran on.
pub const SESSIONS_MAX: usize = 16_384;

/// What to do with a mutating request that arrives.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<W> {
    /// Run it; its waiter is noted.
    Run,
    /// It is being run already, and its waiter has been added.
    Joined,
    /// It ran before; here is the reply.
    Replay(W, MgrReply),
    /// It cannot run.
    Refused(W, FsError),
}

/// A greeting of a client's.
#[derive(Clone, Copy, Debug)]
struct Greeting {
    /// Its number.
    number: u64,
    /// The connection on which it came.
    connection: u64,
}

#[derive(Debug)]
struct Kept {
    reply: MgrReply,
    durable: bool,
}

#[derive(Debug)]
struct Session<W> {
    heard_ms: u64,
    /// Who it is, if it has said so.
    peer: Option<Peer>,
    /// It has greeted with leases, as mounts do.
    is_mount: bool,
    /// Its last greeting, if it has greeted.
    greeting: Option<Greeting>,
    /// It has said goodbye.
    left: bool,
    answered_below: u64,
    kept: BTreeMap<u64, Kept>,
    in_flight: HashMap<u64, Vec<W>>,
}

impl<W> Session<W> {
    fn new(now_ms: u64) -> Self {
        Self {
            heard_ms: now_ms,
            peer: None,
            is_mount: false,
            greeting: None,
            left: false,
            answered_below: 0,
            kept: BTreeMap::new(),
            in_flight: HashMap::new(),
        }
    }

    fn name(&self, client: ClientId) -> String {
        let peer = self.peer.as_ref();
        peer.map_or_else(|| number(client), Peer::to_string)
    }
}

fn number(client: ClientId) -> String {
    format!("client {client}")
}

/// A client whose session has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// Its number.
    pub client: ClientId,
    /// What it is called in the log.
    pub name: String,
    /// It went in peace.
    pub said_goodbye: bool,
}

/// The sessions of all clients.
#[derive(Debug)]
pub struct Sessions<W> {
    sessions: HashMap<ClientId, Session<W>>,
    /// Durable replies that are no longer needed: their records go with the next commit.
    trims: Vec<(ClientId, u64)>,
}

impl<W> Default for Sessions<W> {
    fn default() -> Self {
        Self {
            sessions: HashMap::new(),
            trims: Vec::new(),
        }
    }
}

impl<W> Sessions<W> {
    /// Notes that a client was heard of, and starts its session if it has none. False where there
    /// are too many.
    pub fn hear(&mut self, client: ClientId, now_ms: u64) -> bool {
        if let Some(session) = self.sessions.get_mut(&client) {
            session.heard_ms = now_ms;
            return true;
        }
        if self.sessions.len() >= SESSIONS_MAX {
            return false;
        }
        self.sessions.insert(client, Session::new(now_ms));
        true
    }

    /// Notes who a client says it is, whether it is a mount, and that it is there.
    pub fn introduce(&mut self, client: ClientId, peer: &Peer, leases: bool) {
        if let Some(session) = self.sessions.get_mut(&client) {
            session.peer = Some(peer.bounded());
            session.is_mount |= leases;
            session.left = false;
        }
    }

    /// Mounts that have a session.
    #[must_use]
    pub fn mounts(&self) -> u32 {
        let mounts = self.sessions.values().filter(|session| session.is_mount);
        // There are at most `SESSIONS_MAX`.
        u32::try_from(mounts.count()).unwrap_or(u32::MAX)
    }

    /// Notes a greeting, where the client's session is known. False where it has greeted later, on another
    /// connection, so that this one says nothing any more: a connection that has ended may hold
    /// messages which nobody has read.
    pub fn greet(&mut self, client: ClientId, number: u64, connection: u64) -> bool {
        let Some(session) = self.sessions.get_mut(&client) else {
            return true;
        };
        if session.greeting.is_some_and(|last| last.number > number) {
            return false;
        }
        session.greeting = Some(Greeting { number, connection });
        true
    }

    /// Whether a client has greeted on another connection since this one was its own.
    #[must_use]
    pub fn has_moved(&self, client: ClientId, connection: u64) -> bool {
        let greeting = self
            .sessions
            .get(&client)
            .and_then(|session| session.greeting);
        greeting.is_some_and(|last| last.connection != connection)
    }

    /// Notes that a client has said goodbye: its session ends when nothing of it is in flight.
    pub fn leave(&mut self, client: ClientId) {
        if let Some(session) = self.sessions.get_mut(&client) {
            session.left = true;
        }
    }

    /// What a client is called in the log.
    #[must_use]
    pub fn name(&self, client: ClientId) -> String {
        let session = self.sessions.get(&client);
        session.map_or_else(|| number(client), |session| session.name(client))
    }

    /// Notes that a client was heard of, if it has a session.
    pub fn touch(&mut self, client: ClientId, now_ms: u64) {
        if let Some(session) = self.sessions.get_mut(&client) {
            session.heard_ms = now_ms;
        }
    }

    /// Whether a client was heard of since `before_ms`.
    #[must_use]
    pub fn heard_since(&self, client: ClientId, before_ms: u64) -> bool {
        let session = self.sessions.get(&client);
        session.is_some_and(|session| session.heard_ms >= before_ms)
    }

    /// Whether a client has a session.
    #[must_use]
    pub fn knows(&self, client: ClientId) -> bool {
        self.sessions.contains_key(&client)
    }

    /// Takes a reply that was found in the store at start.
    pub fn restore(&mut self, client: ClientId, sequence: u64, reply: MgrReply, now_ms: u64) {
        let session = self
            .sessions
            .entry(client)
            .or_insert_with(|| Session::new(now_ms));
        session.kept.insert(
            sequence,
            Kept {
                reply,
                durable: true,
            },
        );
    }

    /// Decides what to do with a mutating request.
    pub fn admit(
        &mut self,
        client: ClientId,
        sequence: u64,
        answered_below: u64,
        waiter: W,
        now_ms: u64,
    ) -> Admission<W> {
        if sequence == 0 {
            return Admission::Refused(waiter, FsError::InvalidArgument);
        }
        if !self.hear(client, now_ms) {
            return Admission::Refused(waiter, FsError::TryAgain);
        }
        self.trim(client, answered_below);
        let Some(session) = self.sessions.get_mut(&client) else {
            return Admission::Refused(waiter, FsError::TryAgain);
        };
        if let Some(waiters) = session.in_flight.get_mut(&sequence) {
            waiters.push(waiter);
            return Admission::Joined;
        }
        debug_assert!(
            session
                .kept
                .keys()
                .all(|kept| *kept >= session.answered_below),
            "a reply is kept that its client has"
        );
        if let Some(kept) = session.kept.get(&sequence) {
            return Admission::Replay(waiter, kept.reply.clone());
        }
        if sequence < session.answered_below {
            return Admission::Refused(waiter, FsError::AlreadyAnswered);
        }
        if session.kept.len() + session.in_flight.len() >= REPLIES_KEPT_PER_CLIENT_MAX {
            return Admission::Refused(waiter, FsError::TryAgain);
        }
        session.in_flight.insert(sequence, vec![waiter]);
        Admission::Run
    }

    /// Puts a request that has its reply back among those in flight: see
    /// [`Admission::Replay`], where the reply may not leave yet.
    pub fn hold(&mut self, client: ClientId, sequence: u64, waiter: W) {
        if let Some(session) = self.sessions.get_mut(&client) {
            session.in_flight.entry(sequence).or_default().push(waiter);
        }
    }

    /// Whether the client still wants this reply to be kept.
    #[must_use]
    pub fn wants(&self, client: ClientId, sequence: u64) -> bool {
        let session = self.sessions.get(&client);
        session.is_some_and(|session| sequence >= session.answered_below)
    }

    /// Keeps a reply that the client may ask for again; the request stays in flight. One that it no
    /// longer wants, since it has given up waiting, leaves at most its record to be removed.
    pub fn keep(&mut self, client: ClientId, sequence: u64, reply: MgrReply, durable: bool) {
        let session = self.sessions.get_mut(&client);
        match session.filter(|session| sequence >= session.answered_below) {
            Some(session) => drop(session.kept.insert(sequence, Kept { reply, durable })),
            None if durable => self.trims.push((client, sequence)),
            None => {}
        }
    }

    /// Ends a request's flight: who waits for its reply.
    #[must_use]
    pub fn release(&mut self, client: ClientId, sequence: u64) -> Vec<W> {
        let session = self.sessions.get_mut(&client);
        session
            .and_then(|session| session.in_flight.remove(&sequence))
            .unwrap_or_default()
    }

    /// Forgets replies that the client has.
    fn trim(&mut self, client: ClientId, answered_below: u64) {
        let Some(session) = self.sessions.get_mut(&client) else {
            return;
        };
        if answered_below <= session.answered_below {
            return;
        }
        session.answered_below = answered_below;
        let needed = session.kept.split_off(&answered_below);
        let answered = std::mem::replace(&mut session.kept, needed);
        let durable = answered.into_iter().filter(|(_, kept)| kept.durable);
        self.trims
            .extend(durable.map(|(sequence, _)| (client, sequence)));
    }

    /// Ends the sessions of clients that were not heard of since `before_ms` or have said goodbye,
    /// and have nothing in flight; the caller closes their opens.
    #[must_use]
    pub fn expire(&mut self, before_ms: u64) -> Vec<Departed> {
        let expired = |session: &Session<W>| {
            (session.left || session.heard_ms < before_ms) && session.in_flight.is_empty()
        };
        let departed = |(client, session): (&ClientId, &Session<W>)| {
            expired(session).then(|| Departed {
                client: *client,
                name: session.name(*client),
                said_goodbye: session.left,
            })
        };
        let mut gone: Vec<Departed> = self.sessions.iter().filter_map(departed).collect();
        // The same inputs have the same outcome, whatever the order of a hash table.
        gone.sort_unstable_by_key(|departed| departed.client);
        for Departed { client, .. } in &gone {
            if let Some(session) = self.sessions.remove(client) {
                let durable = session.kept.into_iter().filter(|(_, kept)| kept.durable);
                self.trims
                    .extend(durable.map(|(sequence, _)| (*client, sequence)));
            }
        }
        gone
    }

    /// Stored replies that are no longer needed, so far.
    #[must_use]
    pub fn trims(&self) -> &[(ClientId, u64)] {
        &self.trims
    }

    /// Says that the records of all [`Self::trims`] are gone.
    pub fn trimmed(&mut self) {
        self.trims.clear();
    }

    /// Sessions at present.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::proto::mgr::MgrResponse;

    const CLIENT: ClientId = ClientId(5);
    const DONE: MgrReply = Ok(MgrResponse::Done);

    fn admit(
        sessions: &mut Sessions<u32>,
        sequence: u64,
        below: u64,
        waiter: u32,
    ) -> Admission<u32> {
        sessions.admit(CLIENT, sequence, below, waiter, 0)
    }

    #[test]
    fn a_request_runs_once() {
        let mut sessions = Sessions::default();
        assert_eq!(admit(&mut sessions, 1, 1, 10), Admission::Run);
        assert_eq!(admit(&mut sessions, 1, 1, 11), Admission::Joined);
        sessions.keep(CLIENT, 1, DONE, true);
        assert_eq!(sessions.release(CLIENT, 1), [10, 11]);
        assert_eq!(admit(&mut sessions, 1, 1, 12), Admission::Replay(12, DONE));
        assert_eq!(admit(&mut sessions, 2, 2, 13), Admission::Run);
        assert_eq!(sessions.trims(), [(CLIENT, 1)]);
        let late = Admission::Refused(14, FsError::AlreadyAnswered);
        assert_eq!(admit(&mut sessions, 1, 1, 14), late);
    }

    #[test]
    fn a_greeting_that_comes_after_a_later_one_says_nothing() {
        let mut sessions = Sessions::<u32>::default();
        assert!(sessions.greet(CLIENT, 5, 1) && !sessions.has_moved(CLIENT, 1));
        sessions.hear(CLIENT, 0);
        assert!(sessions.greet(CLIENT, 7, 2) && sessions.greet(CLIENT, 8, 2));
        assert!(!sessions.greet(CLIENT, 6, 1));
        assert!(sessions.has_moved(CLIENT, 1) && !sessions.has_moved(CLIENT, 2));
    }

    #[test]
    fn what_was_refused_may_run_later() {
        let mut sessions = Sessions::default();
        assert_eq!(admit(&mut sessions, 1, 1, 10), Admission::Run);
        assert_eq!(sessions.release(CLIENT, 1), [10]);
        assert_eq!(admit(&mut sessions, 1, 1, 11), Admission::Run);
    }

    #[test]
    fn a_client_cannot_fill_the_memory() {
        let mut sessions = Sessions::default();
        for sequence in 1..=REPLIES_KEPT_PER_CLIENT_MAX as u64 {
            assert_eq!(admit(&mut sessions, sequence, 1, 0), Admission::Run);
            if sequence % 2 == 0 {
                sessions.keep(CLIENT, sequence, DONE, false);
                let _ = sessions.release(CLIENT, sequence);
            }
        }
        let next = REPLIES_KEPT_PER_CLIENT_MAX as u64 + 1;
        assert_eq!(
            admit(&mut sessions, next, 1, 0),
            Admission::Refused(0, FsError::TryAgain)
        );
        assert_eq!(admit(&mut sessions, next, 3, 0), Admission::Run);
        assert_eq!(sessions.trims(), [], "replies in memory leave no records");
        for client in 0..SESSIONS_MAX as u64 + 2 {
            sessions.hear(ClientId(client), 0);
        }
        assert_eq!(sessions.len(), SESSIONS_MAX);
    }

    #[test]
    fn a_silent_client_expires_unless_something_is_in_flight() {
        let mut sessions = Sessions::default();
        sessions.restore(CLIENT, 7, DONE, 0);
        let expire = |sessions: &mut Sessions<u32>, before_ms| -> Vec<ClientId> {
            let gone = sessions.expire(before_ms);
            gone.into_iter().map(|departed| departed.client).collect()
        };
        assert_eq!(expire(&mut sessions, 0), []);
        assert_eq!(admit(&mut sessions, 8, 1, 1), Admission::Run);
        assert_eq!(expire(&mut sessions, 10), []);
        let _ = sessions.release(CLIENT, 8);
        sessions.touch(CLIENT, 10);
        assert_eq!(expire(&mut sessions, 10), []);
        assert_eq!(expire(&mut sessions, 11), [CLIENT]);
        assert_eq!(sessions.trims(), [(CLIENT, 7)]);
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_goodbye_ends_a_session_at_once_unless_something_is_in_flight() {
        let mut sessions = Sessions::default();
        let peer = Peer {
            host: "node3".into(),
            place: Some("/mnt".into()),
            program: "pvfs-fuse".into(),
            pid: 123,
        };
        assert_eq!(sessions.name(CLIENT), "client 5");
        assert_eq!(admit(&mut sessions, 1, 1, 1), Admission::Run);
        sessions.introduce(CLIENT, &peer, false);
        assert_eq!(sessions.name(CLIENT), "node3:/mnt (pvfs-fuse, pid 123)");
        sessions.leave(CLIENT);
        assert_eq!(sessions.expire(0), []);
        let _ = sessions.release(CLIENT, 1);
        let departed = Departed {
            client: CLIENT,
            name: peer.to_string(),
            said_goodbye: true,
        };
        assert_eq!(sessions.expire(0), [departed]);
        assert!(sessions.is_empty());
    }
}
