// SPDX-License-Identifier: MIT
//! A reader that ends a frame which takes too long.

use std::io::{self, Read};

use pvfs::runtime::net::TcpStream;
use pvfs::runtime::time::{Duration, Instant};

/// Reads a socket; within a frame, a timeout of the socket or of the frame is an error. Between
/// frames the peer may be silent for longer, before its first one it may not.
pub(super) struct DeadlineReader<'a> {
    stream: &'a TcpStream,
    frame_timeout: Duration,
    idle_timeout: Duration,
    deadline: Option<Instant>,
    /// When the last frame ended, or the connection began.
    idle_since: Instant,
    /// How long the next frame may take to begin.
    patience: Duration,
}

impl<'a> DeadlineReader<'a> {
    pub(super) fn new(
        stream: &'a TcpStream,
        frame_timeout: Duration,
        idle_timeout: Duration,
    ) -> Self {
        Self {
            stream,
            frame_timeout,
            idle_timeout,
            deadline: None,
            idle_since: Instant::now(),
            patience: frame_timeout,
        }
    }

    /// A frame begins: it must have been read when its time is over.
    pub(super) fn begin_frame(&mut self) {
        self.deadline = Instant::now().checked_add(self.frame_timeout);
    }

    /// A frame has been read.
    pub(super) fn end_frame(&mut self) {
        self.deadline = None;
        self.idle_since = Instant::now();
        self.patience = self.idle_timeout;
    }
}

impl Read for DeadlineReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            if self
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now())
            {
                return Err(timed_out("the peer takes too long for one frame"));
            }
            match self.stream.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.deadline.is_some() {
                        return Err(timed_out("the peer stalled within a frame"));
                    }
                    if self.idle_since.elapsed() >= self.patience {
                        return Err(timed_out("the peer asks for nothing"));
                    }
                }
                // As after SIGSTOP and SIGCONT, where a socket has a timeout.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}

pub(super) fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}
