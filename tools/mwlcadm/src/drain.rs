// SPDX-License-Identifier: MIT
//! `mwlcadm drain`: takes a real server out of service, and waits until its connections are gone.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ipvs_mwlc::director::drain::DrainPolicy;

use crate::error::Error;
use crate::mwlc::{DestLoadEntry, Mwlc};
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
    while let Some(dest) = find(&mut mwlc, drain)? {
        let left = connections(&dest);
        if left == 0 {
            break;
        }
        most = most.max(left);
        bar.set_length(most);
        bar.set_position(most - left);
        bar.set_message(deadline_text(&dest));
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

/// The real server; none once it was deleted, which ends a drain too.
fn find(mwlc: &mut Mwlc, drain: &Drain) -> Result<Option<DestLoadEntry>, Error> {
    let mut dests = mwlc.dests(Some(&drain.service))?;
    dests.retain(|dest| dest.address == drain.dest);
    Ok(dests.pop())
}

/// Connections that would suffer: those of clients that have gone need no waiting for.
fn connections(dest: &DestLoadEntry) -> u64 {
    u64::from(dest.active) + u64::from(dest.pending)
}

fn deadline_text(dest: &DestLoadEntry) -> String {
    match dest.drain.and_then(|drain| drain.left_ms) {
        // Whole seconds are enough to look at.
        Some(left_ms) => format!("deadline in {}", show_duration(left_ms / 1000 * 1000)),
        None => String::new(),
    }
}
