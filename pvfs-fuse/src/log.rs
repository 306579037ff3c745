// SPDX-License-Identifier: MIT
//! Where messages go: to standard error, or from the background to the system log.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use pvfs::log_filter::LogFilter;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The system log's socket (syslog(3)).
const SYSTEM_LOG: &str = "/dev/log";
/// Facility daemon, severity notice: 3 * 8 + 5.
const PRIORITY: &str = "<29>";

/// Starts logging at `level`. Where there is no system log, a background process stays silent.
pub fn start(level: &LogFilter, background: bool) {
    let filter = EnvFilter::new(format!("{},fuser=error", level.as_str()));
    let messages = tracing_subscriber::fmt::layer().with_target(false);
    if background {
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.connect(SYSTEM_LOG)?;
            // A log daemon that hangs must not stop the file system.
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let Ok(socket) = socket else { return };
        let socket = Arc::new(socket);
        let writer = move || SystemLog(Arc::clone(&socket));
        let messages = messages.without_time().with_ansi(false).with_writer(writer);
        tracing_subscriber::registry()
            .with(messages.with_filter(LateAnswers).with_filter(filter))
            .init();
    } else {
        let colours = io::stderr().is_terminal();
        let messages = messages.with_ansi(colours).with_writer(io::stderr);
        tracing_subscriber::registry()
            .with(messages.with_filter(LateAnswers).with_filter(filter))
            .init();
    }
}

/// Drops what fuser says of an answer that the kernel no longer looks for. It answers the notice of
/// every signal by itself, after the call that the signal was for has had its answer: a program with
/// many signals would fill the log with errors that are none.
struct LateAnswers;

/// How that message begins; the rest is the system's text for ENOENT.
const LATE_ANSWER: &str = "Failed to send FUSE reply: No such file or directory";

impl<S: Subscriber> Filter<S> for LateAnswers {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let mut found = LateAnswer(false);
        event.record(&mut found);
        !found.0
    }
}

/// Whether an event is one of those.
struct LateAnswer(bool);

impl Visit for LateAnswer {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 |= format!("{value:?}").starts_with(LATE_ANSWER);
        }
    }
}

/// One message to the system log for each write: the formatter writes a message at once.
struct SystemLog(Arc<UnixDatagram>);

impl Write for SystemLog {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let head = format!("{PRIORITY}pvfs-fuse[{}]: ", std::process::id());
        let message = [head.as_bytes(), text.trim_ascii()].concat();
        // A message that the log does not take is lost, as with syslog(3).
        let _ = self.0.send(&message);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_late_answers_are_not_told_of() {
        let lines = Lines::default();
        let writer = lines.clone();
        let messages = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(messages.with_filter(LateAnswers));
        tracing::subscriber::with_default(subscriber, || {
            let late = io::Error::from_raw_os_error(libc::ENOENT);
            tracing::error!("Failed to send FUSE reply: {late}");
            let refused = io::Error::from_raw_os_error(libc::EINVAL);
            tracing::error!("Failed to send FUSE reply: {refused}");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("Invalid argument"));
    }
}
