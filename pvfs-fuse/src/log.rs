// SPDX-License-Identifier: MIT
//! Where messages go: to standard error, or from the background to the system log.

use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

/// The system log's socket (syslog(3)).
const SYSTEM_LOG: &str = "/dev/log";
/// Facility daemon, severity notice: 3 * 8 + 5.
const PRIORITY: &str = "<29>";

/// Starts logging at `level`. Where there is no system log, a background process stays silent.
pub fn start(level: &str, background: bool) {
    let filter = EnvFilter::try_new(format!("{level},fuser=error"))
        .unwrap_or_else(|_| EnvFilter::new("info,fuser=error"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false);
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
        builder
            .without_time()
            .with_ansi(false)
            .with_writer(writer)
            .init();
    } else {
        let colours = io::stderr().is_terminal();
        builder.with_ansi(colours).with_writer(io::stderr).init();
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
