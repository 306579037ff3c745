// SPDX-License-Identifier: MIT
//! The terminal: another screen than the shell's, keys without Enter, and all as before at the end.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Options;
use crate::error::Error;
use crate::values::show_duration;

/// The shortest and the longest time between two looks that keys can set.
pub const INTERVAL_MIN: Duration = Duration::from_millis(250);
/// See [`INTERVAL_MIN`].
pub const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// The size of a terminal that does not say.
const SIZE_DEFAULT: (usize, usize) = (80, 24);

/// Switches to the other screen, hides the cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// Shows the cursor, switches back.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const CONTROL_C: u8 = 3;

/// What the user or the clock wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `q`, or a signal to end.
    Quit,
    /// `s`: another order.
    Sort,
    /// `+`: look more often.
    Faster,
    /// `-`: look less often.
    Slower,
    /// Space, or it is time.
    Refresh,
    /// Anything else, such as a terminal of another size.
    Other,
}

/// The terminal while `top` has it.
pub struct Screen<'a, W: Write> {
    output: &'a mut W,
    before: Termios,
    ended: Arc<AtomicBool>,
}

impl<'a, W: Write> Screen<'a, W> {
    /// Takes the terminal.
    pub fn open(output: &'a mut W) -> Result<Screen<'a, W>, Error> {
        let failed = |errno: Errno| Error::Terminal(errno.into());
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&ended)).map_err(Error::Terminal)?;
        }
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.local_flags
            .remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw).map_err(failed)?;
        let screen = Screen {
            output,
            before,
            ended,
        };
        write!(screen.output, "{ENTER}").map_err(Error::Output)?;
        Ok(screen)
    }

    /// Draws over what is there, without a flicker.
    pub fn show(
        &mut self,
        lines: &[String],
        (columns, rows): (usize, usize),
        options: Options,
    ) -> Result<(), Error> {
        // The last row is for the status.
        let shown = lines.len().min(rows.saturating_sub(1));
        let status: String = status(options, lines.len() - shown)
            .chars()
            .take(columns)
            .collect();
        let mut picture = String::from(HOME);
        for line in lines.iter().take(shown) {
            picture.push_str(line);
            picture.push_str(CLEAR_LINE);
            picture.push_str("\r\n");
        }
        picture.push_str(CLEAR_BELOW);
        picture.push_str(&format!("\x1b[{rows};1H{status}{CLEAR_LINE}"));
        self.output
            .write_all(picture.as_bytes())
            .and_then(|()| self.output.flush())
            .map_err(Error::Output)
    }

    /// Waits for a key, but not past this moment.
    pub fn key(&self, until: Instant) -> Result<Key, Error> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let stdin = std::io::stdin();
        let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let found = poll(&mut ready, timeout);
        if self.ended.load(Ordering::Relaxed) {
            return Ok(Key::Quit);
        }
        match found {
            Ok(0) => return Ok(Key::Refresh),
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Key::Other),
            Err(errno) => return Err(Error::Terminal(errno.into())),
        }
        let mut byte = [0];
        // Past the standard library's buffer, in which `poll` would not see further keys.
        match nix::unistd::read(stdin.as_fd(), &mut byte) {
            Ok(1) => Ok(key_of(byte[0])),
            // A terminal that is gone has no more keys.
            Ok(_) => Ok(Key::Quit),
            Err(Errno::EINTR) => Ok(Key::Other),
            Err(errno) => Err(Error::Terminal(errno.into())),
        }
    }
}

/// The last row; `hidden` lines found no room above it.
fn status(options: Options, hidden: usize) -> String {
    let interval_ms = u64::try_from(options.interval.as_millis()).unwrap_or(u64::MAX);
    let more = match hidden {
        0 => String::new(),
        hidden => format!("{hidden} lines more   "),
    };
    format!(
        "{more}every {}, by {}   q quit  s order  +/- faster, slower",
        show_duration(interval_ms),
        options.sort.name()
    )
}

/// Columns and rows.
pub fn size() -> (usize, usize) {
    match terminal_size::terminal_size() {
        Some((width, height)) => (width.0.into(), height.0.into()),
        None => SIZE_DEFAULT,
    }
}

const fn key_of(byte: u8) -> Key {
    match byte {
        b'q' | b'Q' | CONTROL_C => Key::Quit,
        b's' => Key::Sort,
        b'+' => Key::Faster,
        b'-' => Key::Slower,
        b' ' => Key::Refresh,
        _ => Key::Other,
    }
}

impl<W: Write> Drop for Screen<'_, W> {
    fn drop(&mut self) {
        // There is nobody to tell if the terminal is gone.
        let _ = write!(self.output, "{LEAVE}");
        let _ = self.output.flush();
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::Sort;

    #[test]
    fn the_status_says_what_is_not_shown() {
        let options = Options {
            interval: Duration::from_secs(2),
            sort: Sort::Ratio,
            once: false,
            json: false,
        };
        assert!(status(options, 0).starts_with("every 2s, by Ci/Wi"));
        assert!(status(options, 7).starts_with("7 lines more"));
    }
}
