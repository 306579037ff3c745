// SPDX-License-Identifier: MIT
//! One question, one answer: a connection that a tool uses to ask a daemon something at once.
//!
//! A mount waits for a daemon that is away; a tool that people watch must not. So every step here
//! has a deadline, and a failure says what to do about it.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use pvfs::address::Endpoint;
use pvfs::attr::Credentials;
use pvfs::client::transport::{dial_any, resolve};
use pvfs::error::FsError;
use pvfs::ids::{ClientId, FileSystemId};
use pvfs::proto::iod::{IodReply, IodRequest, IodResponse};
use pvfs::proto::mgr::{HelloResponse, IodStatus, MgrOperation, MgrReply, MgrRequest, MgrResponse};
use pvfs::proto::peer::Peer;
use pvfs::runtime::random_u64;
use pvfs::wire::blocking::{ConnectionError, read_message, write_message};
use pvfs::wire::header::{FrameError, FrameKind};
use thiserror::Error;

/// How long a daemon may take to accept a connection or to answer, unless the user says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// Why a daemon gave no answer. `who` is `mgr HOST:PORT` or `iod N HOST:PORT`.
#[derive(Debug, Error)]
pub enum RpcError {
    /// No such host.
    #[error("{who} cannot be found ({why}): is the host name right?")]
    Resolve {
        /// Which daemon.
        who: String,
        /// What the resolver said.
        why: io::Error,
    },
    /// Nobody listens there, or the network does not reach it.
    #[error("{who} does not answer ({why}): is it running?")]
    Connect {
        /// Which daemon.
        who: String,
        /// What connect(2) said.
        why: io::Error,
    },
    /// The connection failed before the answer was complete.
    #[error("{who} stopped answering ({why}): see its log")]
    Lost {
        /// Which daemon.
        who: String,
        /// How it failed.
        why: ConnectionError,
    },
    /// It reads nothing from the port that this process has.
    #[error("{who} {why}")]
    Port {
        /// Which daemon.
        who: String,
        /// In its words.
        why: ConnectionError,
    },
    /// It answered something else than what was asked.
    #[error(
        "{who} gave an answer that does not fit the question: are all programs of one version?"
    )]
    Unexpected {
        /// Which daemon.
        who: String,
    },
    /// Another daemon is at its address.
    #[error("{who} is not there: {found} answers at that address; see its log and that of mgr")]
    Other {
        /// Which daemon was looked for.
        who: String,
        /// Which was found.
        found: String,
    },
    /// It said no.
    #[error("{who} refuses: {error}")]
    Refused {
        /// Which daemon.
        who: String,
        /// Why.
        error: FsError,
    },
}

/// A connection to one daemon.
struct Connection {
    who: String,
    stream: TcpStream,
    request_id: u64,
    scratch: Vec<u8>,
}

impl Connection {
    fn open(who: String, endpoint: &Endpoint, timeout: Duration) -> Result<Self, RpcError> {
        let addresses = match resolve(endpoint) {
            Ok(addresses) => addresses,
            Err(why) => return Err(RpcError::Resolve { who, why }),
        };
        let connected = dial_any(addresses, timeout).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => Ok(Self {
                who,
                stream,
                request_id: 0,
                scratch: Vec::new(),
            }),
            Err(why) => Err(RpcError::Connect { who, why }),
        }
    }

    fn call<Request: bincode::Encode, Reply: bincode::Decode<()>>(
        &mut self,
        kinds: (FrameKind, FrameKind),
        request: &Request,
    ) -> Result<Reply, RpcError> {
        self.exchange(kinds, request).map_err(|why| {
            let who = self.who.clone();
            match why {
                ConnectionError::Frame(FrameError::PortRefused) => RpcError::Port { who, why },
                why => RpcError::Lost {
                    who,
                    why: timed_out(why),
                },
            }
        })
    }

    fn exchange<Request: bincode::Encode, Reply: bincode::Decode<()>>(
        &mut self,
        (asked, answered): (FrameKind, FrameKind),
        request: &Request,
    ) -> Result<Reply, ConnectionError> {
        self.send(asked, request)?;
        let (header, reply) = read_message(&mut self.stream, answered, &mut self.scratch)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        if header.request_id != self.request_id {
            return Err(FrameError::UnknownRequest(header.request_id).into());
        }
        if header.payload_length != 0 {
            return Err(FrameError::UnexpectedPayload(header.payload_length).into());
        }
        Ok(reply)
    }

    fn send<Request: bincode::Encode>(
        &mut self,
        kind: FrameKind,
        request: &Request,
    ) -> Result<(), ConnectionError> {
        self.request_id += 1;
        write_message(&mut self.stream, kind, self.request_id, request, &[])
    }

    /// From now on, answers may take so long.
    fn wait_for_answers(&self, timeout: Duration) -> Result<(), RpcError> {
        let set = self.stream.set_read_timeout(Some(timeout));
        set.map_err(|why| RpcError::Lost {
            who: self.who.clone(),
            why: why.into(),
        })
    }

    fn refused(&self, error: FsError) -> RpcError {
        RpcError::Refused {
            who: self.who.clone(),
            error,
        }
    }

    fn unexpected(&self) -> RpcError {
        RpcError::Unexpected {
            who: self.who.clone(),
        }
    }
}

/// A read that meets its deadline is EAGAIN, which would read as "try again" to people.
fn timed_out(error: ConnectionError) -> ConnectionError {
    match error {
        ConnectionError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
            ConnectionError::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
        }
        other => other,
    }
}

/// A short session with mgr.
pub struct Mgr {
    connection: Connection,
    client: ClientId,
    sequence: u64,
    timeout: Duration,
    /// What mgr said when the session started.
    pub hello: HelloResponse,
}

impl Mgr {
    /// Connects and says hello.
    ///
    /// # Errors
    ///
    /// Any [`RpcError`].
    pub fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Self, RpcError> {
        let mut connection = Connection::open(format!("mgr {endpoint}"), endpoint, timeout)?;
        let client = ClientId(random_u64());
        let hello = MgrOperation::Hello {
            number: 0,
            opens: Vec::new(),
            leases: false,
            locks: vec![],
            more: false,
            news: false,
            peer: Peer::of_this_process(None),
        };
        let request = request(client, 0, hello);
        let reply: MgrReply = connection.call(MGR_KINDS, &request)?;
        match reply {
            Ok(MgrResponse::Hello(hello)) => Ok(Self {
                connection,
                client,
                sequence: 0,
                timeout,
                hello,
            }),
            Ok(_) => Err(connection.unexpected()),
            Err(error) => Err(connection.refused(error)),
        }
    }

    /// Asks mgr, as the user who runs this program.
    ///
    /// # Errors
    ///
    /// Any [`RpcError`].
    pub fn call(&mut self, operation: MgrOperation) -> Result<MgrResponse, RpcError> {
        let sequence = if operation.is_mutating() {
            self.sequence += 1;
            self.sequence
        } else {
            0
        };
        // Others may have to give up their leases first, or to come back after a restart of mgr.
        let waits_for_others = operation.is_mutating()
            || matches!(
                operation,
                MgrOperation::Lookup { .. } | MgrOperation::GetAttr { .. }
            );
        let lease_timeout = Duration::from_millis(self.hello.lease_timeout_ms.into());
        self.connection.wait_for_answers(match waits_for_others {
            true => self.timeout + lease_timeout,
            false => self.timeout,
        })?;
        let request = request(self.client, sequence, operation);
        let reply: MgrReply = self.connection.call(MGR_KINDS, &request)?;
        reply.map_err(|error| self.connection.refused(error))
    }

    /// What to say when [`Mgr::call`] returned a response of the wrong kind.
    pub fn unexpected(&self) -> RpcError {
        self.connection.unexpected()
    }

    /// The iods as mgr knows them now, in the order of their ids.
    ///
    /// # Errors
    ///
    /// Any [`RpcError`].
    pub fn iods(&mut self) -> Result<Vec<IodStatus>, RpcError> {
        match self.call(MgrOperation::ListIods)? {
            MgrResponse::Iods(mut iods) => {
                iods.sort_by_key(|status| status.iod);
                Ok(iods)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// How long this session waits for a daemon.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl Drop for Mgr {
    /// Says goodbye: mgr need not wait for this program, nor speak of it in its log.
    fn drop(&mut self) {
        let request = request(self.client, 0, MgrOperation::Goodbye);
        // Nobody waits for the answer; where mgr does not hear it, its session times out.
        let _ = self.connection.send(FrameKind::MgrRequest, &request);
    }
}

const MGR_KINDS: (FrameKind, FrameKind) = (FrameKind::MgrRequest, FrameKind::MgrReply);
const IOD_KINDS: (FrameKind, FrameKind) = (FrameKind::IodRequest, FrameKind::IodReply);

/// This session has one request under way at a time, so that all below the current one are answered.
fn request(client: ClientId, sequence: u64, operation: MgrOperation) -> MgrRequest {
    MgrRequest {
        client,
        sequence,
        answered_below: sequence,
        credentials: caller(),
        operation,
    }
}

/// The ids of the user who runs this program.
pub fn caller() -> Credentials {
    let groups = nix::unistd::getgroups().unwrap_or_default();
    Credentials {
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
    }
}

/// A short session with an iod.
pub struct Iod {
    connection: Connection,
}

impl Iod {
    /// Connects, and makes sure that it is this iod of this file system that answers: another one's
    /// answers would pass for its own.
    ///
    /// # Errors
    ///
    /// Any [`RpcError`].
    pub fn connect(
        status: &IodStatus,
        file_system: FileSystemId,
        timeout: Duration,
    ) -> Result<Self, RpcError> {
        let who = format!("iod {} {}", status.iod, status.address);
        let endpoint =
            Endpoint::parse(&status.address, pvfs::address::IOD_PORT_DEFAULT).map_err(|error| {
                RpcError::Resolve {
                    who: who.clone(),
                    why: io::Error::other(error),
                }
            })?;
        let mut iod = Self {
            connection: Connection::open(who, &endpoint, timeout)?,
        };
        iod.ping(status, file_system)?;
        Ok(iod)
    }

    /// Asks who it is.
    ///
    /// # Errors
    ///
    /// [`RpcError::Other`] where it is not the run that mgr has admitted of that iod of
    /// `file_system`, and those of [`Self::call`].
    pub fn ping(&mut self, status: &IodStatus, file_system: FileSystemId) -> Result<(), RpcError> {
        match self.call(&IodRequest::Ping)? {
            IodResponse::Pong {
                iod: Some(found),
                file_system: Some(of),
                incarnation,
            } => match (found == status.iod, of == file_system) {
                (true, true) if incarnation == Some(status.incarnation) => Ok(()),
                (true, true) => {
                    Err(self.other(format!("a run of iod {found} that mgr has not admitted")))
                }
                (false, true) => Err(self.other(format!("iod {found}"))),
                (_, false) => Err(self.other(format!("iod {found} of another file system"))),
            },
            IodResponse::Pong { .. } => {
                Err(self.other("an iod that has not registered with its mgr yet".to_owned()))
            }
            _ => Err(self.unexpected()),
        }
    }

    fn other(&self, found: String) -> RpcError {
        RpcError::Other {
            who: self.connection.who.clone(),
            found,
        }
    }

    /// Asks the iod.
    ///
    /// # Errors
    ///
    /// Any [`RpcError`].
    pub fn call(&mut self, request: &IodRequest) -> Result<IodResponse, RpcError> {
        let reply: IodReply = self.connection.call(IOD_KINDS, request)?;
        reply.map_err(|error| self.connection.refused(error))
    }

    /// What to say when [`Iod::call`] returned a response of the wrong kind.
    pub fn unexpected(&self) -> RpcError {
        self.connection.unexpected()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn endpoint(listener: &TcpListener) -> Endpoint {
        let address = listener.local_addr().unwrap();
        Endpoint {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }

    #[test]
    fn a_port_without_a_daemon_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = endpoint(&listener);
        drop(listener);
        let error = Mgr::connect(&free, Duration::from_secs(1)).err().unwrap();
        assert!(matches!(error, RpcError::Connect { .. }));
        assert!(
            error
                .to_string()
                .contains(&format!("mgr {free} does not answer"))
        );
    }

    #[test]
    fn a_silent_daemon_does_not_block_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = Mgr::connect(&endpoint(&listener), Duration::from_millis(50))
            .err()
            .unwrap();
        assert!(error.to_string().contains("no answer in time"), "{error}");
    }

    #[test]
    fn another_protocol_is_named() {
        use std::io::{Read, Write};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = endpoint(&listener);
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 32];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&[b'H'; 64]).unwrap();
            let _ = stream.read(&mut request);
        });
        let error = Mgr::connect(&endpoint, Duration::from_secs(5))
            .err()
            .unwrap();
        assert!(error.to_string().contains("another protocol"), "{error}");
        server.join().unwrap();
    }
}
