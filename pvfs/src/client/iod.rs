// SPDX-License-Identifier: MIT
//! One connection to one iod.

use std::io::{self, BufReader, IoSlice, IoSliceMut, Read, Write};

use thiserror::Error;

use super::patience::Patience;
use super::transport::{ByteStream, Tcp, Transport};
use crate::address::Endpoint;
use crate::error::FsError;
use crate::ids::{FileSystemId, Incarnation, IodId};
use crate::proto::iod::{IodReply, IodRequest, IodResponse};
use crate::runtime::time::{Duration, Instant};
use crate::wire::blocking::{ConnectionError, read_message, write_message};
use crate::wire::header::{FrameError, FrameKind, HEADER_BYTES};

/// The log says that an iod is slow when it has moved no byte for so long.
///
/// The connection is kept all the same, for as long as TCP keeps it, or until mgr says that it hears
/// nothing from the iod either.
const SILENCE_LOGGED_MS: u64 = 10_000;

/// Header and body of a reply that carries data. A reader of exactly this size takes both in one
/// system call and not one byte of the payload, which then goes straight to the caller's pages.
const DATA_REPLY_START_BYTES: usize = HEADER_BYTES + 2;

/// Finds iods. mgr's client implements it, and mgr itself.
pub trait IodDirectory: Send + Sync {
    /// Where the iod listens, if it is known.
    fn endpoint(&self, iod: IodId) -> Option<Endpoint>;

    /// Learns anew where iods are: called when one does not answer.
    fn refresh(&self);

    /// Whether the iod is there, as far as is known.
    fn is_alive(&self, _iod: IodId) -> bool {
        true
    }

    /// Which run of the iod mgr has admitted: no other one's answers count. `None` does not check it.
    fn incarnation(&self, _iod: IodId) -> Option<Incarnation> {
        None
    }

    /// Which file system the iods must belong to; `None` does not check it.
    fn file_system(&self) -> Option<FileSystemId> {
        None
    }
}

/// Why an iod gave no answer.
#[derive(Debug, Error)]
pub enum IodError {
    /// No connection.
    #[error("iod at {endpoint} does not answer ({source}): is it running? is its address right?")]
    Connect {
        /// Where it should be.
        endpoint: Endpoint,
        /// What connecting said.
        source: io::Error,
    },
    /// The connection broke, or was no PVFS connection.
    #[error("iod at {endpoint} stopped answering ({source})")]
    Connection {
        /// Where it is.
        endpoint: Endpoint,
        /// What happened.
        source: ConnectionError,
    },
    /// It answered that it cannot.
    #[error("iod at {endpoint} refused: {source}")]
    Refused {
        /// Where it is.
        endpoint: Endpoint,
        /// Its reason.
        source: FsError,
    },
}

/// A connection to an iod that carries one request at a time.
pub struct IodConnection {
    endpoint: Endpoint,
    stream: BufReader<Waiting>,
    scratch: Vec<u8>,
    request_id: u64,
    /// Which run of the iod it leads to, once that was asked.
    incarnation: Option<Incarnation>,
}

impl IodConnection {
    /// Connects over TCP, for a caller that wants an answer soon: connecting and all calls together
    /// end within about twice the `timeout`, unless [`IodConnection::set_patience`] says otherwise.
    ///
    /// # Errors
    ///
    /// [`IodError::Connect`].
    pub fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Self, IodError> {
        let mut connection = Self::connect_by(&Tcp, endpoint, timeout)?;
        connection.set_patience(Patience::endless().at_most(timeout));
        Ok(connection)
    }

    /// Connects over `transport`; calls on the connection wait for ever unless they are told
    /// otherwise.
    ///
    /// # Errors
    ///
    /// [`IodError::Connect`].
    pub fn connect_by(
        transport: &dyn Transport,
        endpoint: &Endpoint,
        timeout: Duration,
    ) -> Result<Self, IodError> {
        let stream = transport
            .connect(endpoint, timeout)
            .map_err(|source| IodError::Connect {
                endpoint: endpoint.clone(),
                source,
            })?;
        let waiting = Waiting {
            stream,
            name: endpoint.to_string(),
            patience: Patience::endless(),
            watch: None,
        };
        Ok(Self {
            endpoint: endpoint.clone(),
            stream: BufReader::with_capacity(DATA_REPLY_START_BYTES, waiting),
            scratch: Vec::new(),
            request_id: 0,
            incarnation: None,
        })
    }

    /// Where the iod is.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How long later calls on this connection go on. Running out of it breaks the connection.
    pub fn set_patience(&mut self, patience: Patience) {
        self.stream.get_mut().patience = patience;
    }

    /// It leads to this run of the iod. From now on a request that waits is given up, and with it
    /// the connection, where `watch` says that the iod is not there.
    pub(super) fn watch(&mut self, incarnation: Incarnation, watch: Watch) {
        self.incarnation = Some(incarnation);
        self.stream.get_mut().watch = Some(watch);
    }

    /// Which run of the iod it leads to.
    pub(super) const fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// Sends a request without payload and waits for its reply, which may have none either.
    ///
    /// # Errors
    ///
    /// [`IodError::Refused`] leaves the connection usable, the others do not.
    pub fn call(&mut self, request: &IodRequest) -> Result<IodResponse, IodError> {
        let reply = self.send(request, &[]).and_then(|()| self.receive(&mut []));
        match reply {
            Ok((Ok(response), _)) => Ok(response),
            Ok((Err(source), _)) => Err(IodError::Refused {
                endpoint: self.endpoint.clone(),
                source,
            }),
            Err(source) => Err(IodError::Connection {
                endpoint: self.endpoint.clone(),
                source,
            }),
        }
    }

    /// Sends a request and its payload; [`IodConnection::receive`] must follow.
    ///
    /// # Errors
    ///
    /// Any: the connection is of no more use.
    pub fn send(
        &mut self,
        request: &IodRequest,
        payload: &[IoSlice<'_>],
    ) -> Result<(), ConnectionError> {
        self.request_id += 1;
        let stream = self.stream.get_mut();
        // Has the watch know whether the iod is there now.
        let _ = stream.is_there();
        write_message(
            stream,
            FrameKind::IodRequest,
            self.request_id,
            request,
            payload,
        )
    }

    /// Receives the reply to the last request sent, its payload scattered over `parts` in order.
    /// Returns the reply and the payload's length, bytes; what lies beyond it is left as it was.
    ///
    /// # Errors
    ///
    /// Any, also a payload longer than `parts`: the connection is of no more use.
    pub fn receive(
        &mut self,
        parts: &mut [&mut [u8]],
    ) -> Result<(IodReply, usize), ConnectionError> {
        let ended = || ConnectionError::Io(io::ErrorKind::UnexpectedEof.into());
        let (header, reply): (_, IodReply) =
            read_message(&mut self.stream, FrameKind::IodReply, &mut self.scratch)?
                .ok_or_else(ended)?;
        if header.request_id != self.request_id {
            return Err(FrameError::UnknownRequest(header.request_id).into());
        }
        let length = header.payload_length;
        let room: usize = parts.iter().map(|part| part.len()).sum();
        let takes_payload = matches!(reply, Ok(IodResponse::Data));
        if length > room || (length > 0 && !takes_payload) {
            return Err(FrameError::UnexpectedPayload(length).into());
        }
        read_scattered(&mut self.stream, parts, length)?;
        Ok((reply, length))
    }
}

/// Fills the first `length` bytes of `parts`, taken one after another.
fn read_scattered(
    stream: &mut impl Read,
    parts: &mut [&mut [u8]],
    length: usize,
) -> io::Result<()> {
    let mut left = length;
    let mut slices: Vec<IoSliceMut<'_>> = Vec::with_capacity(parts.len());
    for part in parts {
        let take = part.len().min(left);
        if let Some(wanted) = part.get_mut(..take).filter(|wanted| !wanted.is_empty()) {
            slices.push(IoSliceMut::new(wanted));
        }
        left -= take;
    }
    let mut slices = slices.as_mut_slice();
    while !slices.is_empty() {
        match stream.read_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => IoSliceMut::advance_slices(&mut slices, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A stream that waits for its peer as long as the caller's patience lasts.
struct Waiting {
    stream: Box<dyn ByteStream>,
    /// For the log.
    name: String,
    patience: Patience,
    watch: Option<Watch>,
}

/// Looks whether an iod is there.
pub(super) type Watch = Box<dyn Fn() -> bool + Send + Sync>;

impl Waiting {
    fn is_there(&self) -> bool {
        self.watch.as_ref().is_none_or(|is_there| is_there())
    }

    fn retry<T>(
        &mut self,
        mut attempt: impl FnMut(&mut dyn ByteStream) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut silence = Silence::default();
        loop {
            match attempt(self.stream.as_mut()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.patience.is_over() {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "gave up waiting"));
                    }
                    if !self.is_there() {
                        let error = "mgr hears nothing from it either, or from another run of it";
                        return Err(io::Error::new(io::ErrorKind::TimedOut, error));
                    }
                    if silence.is_news(Instant::now()) {
                        tracing::warn!("iod at {} has been silent for a while: waiting", self.name);
                    }
                }
                outcome => {
                    if silence.was_logged {
                        tracing::info!("iod at {} is not silent any more", self.name);
                    }
                    return outcome;
                }
            }
        }
    }
}

/// How long a peer has been silent, and whether that was said.
#[derive(Default)]
struct Silence {
    since: Option<Instant>,
    was_logged: bool,
}

impl Silence {
    /// Whether the silence is to be logged at `now`: once, when it has lasted long.
    fn is_news(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let long = Duration::from_millis(SILENCE_LOGGED_MS);
        let is_news = !self.was_logged && now.saturating_duration_since(since) >= long;
        self.was_logged |= is_news;
        is_news
    }
}

impl Read for Waiting {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.retry(|stream| stream.read(bytes))
    }

    fn read_vectored(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.retry(|stream| stream.read_vectored(parts))
    }
}

impl Write for Waiting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(|stream| stream.write(bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.retry(|stream| stream.write_vectored(parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// What each read returns, in turn; `None` is a wait without a byte. What is written is lost.
    struct Script(VecDeque<Option<Vec<u8>>>);

    impl Read for Script {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            match self.0.pop_front() {
                None => Ok(0),
                Some(None) => Err(io::ErrorKind::WouldBlock.into()),
                Some(Some(mut piece)) => {
                    let rest = piece.split_off(piece.len().min(bytes.len()));
                    bytes[..piece.len()].copy_from_slice(&piece);
                    if !rest.is_empty() {
                        self.0.push_front(Some(rest));
                    }
                    Ok(piece.len())
                }
            }
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl ByteStream for Script {}

    struct Scripted(std::sync::Mutex<Option<Script>>);

    impl Transport for Scripted {
        fn connect(&self, _: &Endpoint, _: Duration) -> io::Result<Box<dyn ByteStream>> {
            let script = self.0.lock().unwrap().take();
            Ok(Box::new(script.ok_or(io::ErrorKind::ConnectionRefused)?))
        }
    }

    fn frame(id: u64, reply: &IodReply, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let payload = [IoSlice::new(payload)];
        write_message(&mut bytes, FrameKind::IodReply, id, reply, &payload).unwrap();
        bytes
    }

    /// A connection on which one request was sent and the peer answers by the script.
    fn asked(script: impl IntoIterator<Item = Option<Vec<u8>>>) -> IodConnection {
        let transport = Scripted(std::sync::Mutex::new(Some(Script(
            script.into_iter().collect(),
        ))));
        let endpoint = Endpoint {
            host: "iod".into(),
            port: 7000,
        };
        let mut connection =
            IodConnection::connect_by(&transport, &endpoint, Duration::ZERO).unwrap();
        connection.send(&IodRequest::Ping, &[]).unwrap();
        connection
    }

    #[test]
    fn a_payload_is_scattered_and_what_is_missing_left_alone() {
        let whole = frame(1, &Ok(IodResponse::Data), b"abcdefg");
        // In single bytes, with waits in between: the worst that TCP may do.
        let script = whole.iter().flat_map(|byte| [None, Some(vec![*byte])]);
        for mut connection in [asked(script), asked([Some(whole.clone())])] {
            let (mut first, mut none, mut second) = ([9; 3], [0; 0], [9; 6]);
            let mut parts = [&mut first[..], &mut none[..], &mut second[..]];
            let (reply, length) = connection.receive(&mut parts).unwrap();
            assert_eq!((reply, length), (Ok(IodResponse::Data), 7));
            assert_eq!((&first, &second), (b"abc", b"defg\x09\x09"));
        }
    }

    #[test]
    fn replies_that_do_not_fit_the_request_end_the_connection() {
        let data = Ok(IodResponse::Data);
        let longer = frame(1, &data, &[0; 11]);
        let other = frame(2, &data, &[]);
        let chatty = frame(1, &Err(FsError::Io), b"x");
        let done = frame(1, &Ok(IodResponse::Done), b"x");
        let mut torn = frame(1, &data, &[0; 10]);
        torn.truncate(torn.len() - 1);
        for (bad, name) in [
            (longer, "longer"),
            (other, "other"),
            (chatty, "chatty"),
            (done, "done"),
            (torn, "torn"),
        ] {
            let mut buffer = [0; 10];
            let received = asked([Some(bad)]).receive(&mut [&mut buffer[..]]);
            assert!(received.is_err(), "{name}");
        }
        assert!(asked([]).receive(&mut []).is_err());
    }

    #[test]
    fn a_long_silence_is_news_once() {
        let start = Instant::now();
        let mut silence = Silence::default();
        let news: Vec<bool> = [0, 5_000, 9_999, 10_000, 20_000]
            .into_iter()
            .map(|ms| silence.is_news(start + Duration::from_millis(ms)))
            .collect();
        assert_eq!(news, [false, false, false, true, false]);
    }

    #[test]
    fn a_request_is_given_up_where_the_iod_is_not_there() {
        let done = frame(1, &Ok(IodResponse::Done), &[]);
        for is_there in [true, false] {
            let mut connection = asked([None, Some(done.clone())]);
            connection.watch(Incarnation(1), Box::new(move || is_there));
            assert_eq!(connection.receive(&mut []).is_ok(), is_there);
        }
    }

    #[test]
    fn waiting_ends_with_patience() {
        let mut connection = asked([None, None, None]);
        connection.set_patience(Patience::endless().at_most(Duration::ZERO));
        let error = connection.receive(&mut []).unwrap_err();
        assert!(error.to_string().contains("gave up"), "{error}");
    }
}
