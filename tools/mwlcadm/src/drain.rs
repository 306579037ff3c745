// SPDX-License-Identifier: MIT
//! `mwlcadm drain`: takes a real server out of service, and waits until its connections are gone.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ipvs_mwlc::director::drain::DrainPolicy;

use crate::error::Error;
use crate::mwlc::{self, DestLoadEntry, Mwlc};
use crate::names::ServiceName;
use crate::values::show_duration;

/// How often the connections are counted while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What to drain, and how.
#[derive(Debug)]
pub struct Drain {
    /// The service.
    pub service: ServiceName,
    /// Its real server.
    pub dest: SocketAddr,
    /// When its connections are dealt with, in milliseconds from now; never without one.
    pub deadline_ms: Option<u64>,
    /// How.
    pub policy: DrainPolicy,
}

/// Starts the drain, and with `wait` shows how many connections are left until none is.
pub fn run(drain: &Drain, wait: bool, output: &mut impl Write) -> Result<(), Error> {
    let mut mwlc = Mwlc::open()?;
    mwlc.drain(&drain.service, drain.dest, drain.deadline_ms, drain.policy)?;
    if !wait {
        return Ok(());
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} connections gone {msg}") {
        bar.set_style(style);
    }
    let mut most = 0;
    loop {
        let dest = find(&mut mwlc, drain)?;
        let left = match progress(dest.as_ref().map(|dest| (dest.drain, connections(dest)))) {
            Progress::Left(0) => break,
            Progress::Left(left) => left,
            Progress::Ended(why) => {
                bar.finish_and_clear();
                return Err(Error::DrainEnded {
                    dest: drain.dest,
                    service: drain.service,
                    why,
                });
            }
        };
        most = most.max(left);
        bar.set_length(most);
        bar.set_position(most - left);
        let drains = dest.and_then(|dest| dest.drain);
        bar.set_message(drains.map(deadline_text).unwrap_or_default());
        std::thread::sleep(LOOK_EVERY);
    }
    bar.finish_and_clear();
    writeln!(
        output,
        "{} of {} is drained: {most} connections are gone",
        drain.dest, drain.service
    )
    .map_err(Error::Output)
}

/// How far a drain is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// So many connections are left.
    Left(u64),
    /// Somebody has ended it, for this reason.
    Ended(&'static str),
}

/// From the real server's drain and its connections, if it is still there.
fn progress(dest: Option<(Option<mwlc::Drain>, u64)>) -> Progress {
    match dest {
        None => Progress::Ended("the real server was deleted"),
        Some((None, _)) => Progress::Ended("the real server was given a weight again"),
        Some((Some(_), left)) => Progress::Left(left),
    }
}

/// The real server; none once it was deleted.
fn find(mwlc: &mut Mwlc, drain: &Drain) -> Result<Option<DestLoadEntry>, Error> {
    let mut dests = mwlc.dests(Some(&drain.service))?;
    dests.retain(|dest| dest.address == drain.dest);
    Ok(dests.pop())
}

/// Connections that would suffer: those of clients that have gone need no waiting for.
fn connections(dest: &DestLoadEntry) -> u64 {
    u64::from(dest.active) + u64::from(dest.pending)
}

fn deadline_text(drain: mwlc::Drain) -> String {
    match drain.left_ms {
        // Whole seconds are enough to look at.
        Some(left_ms) => format!("deadline in {}", show_duration(left_ms / 1000 * 1000)),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_goes_on_until_nothing_is_left_or_somebody_ends_it() {
        let drains = mwlc::Drain {
            policy: DrainPolicy::Reset,
            left_ms: Some(2500),
        };
        assert_eq!(progress(Some((Some(drains), 3))), Progress::Left(3));
        assert_eq!(deadline_text(drains), "deadline in 2s");
        assert!(matches!(progress(Some((None, 3))), Progress::Ended(_)));
        assert!(matches!(progress(None), Progress::Ended(_)));
    }
}
