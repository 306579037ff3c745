// SPDX-License-Identifier: MIT
//! `mwlcadm top`: the real servers' loads, live on a terminal, or as lines into a pipe.
//!
//! [`table`] is what is shown, without a terminal; [`screen`] is the terminal.

mod screen;
mod table;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use self::screen::{Key, Screen};
pub use self::table::Sort;
use self::table::{Snapshot, lines};
use crate::error::Error;
use crate::ipvs::Ipvs;
use crate::mwlc::Mwlc;

/// How to show it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Time between two looks.
    pub interval: Duration,
    /// The order of a service's real servers.
    pub sort: Sort,
    /// One look only.
    pub once: bool,
    /// A line of JSON for each look.
    pub json: bool,
}

/// Shows loads until the user has seen enough.
pub fn run(options: Options, output: &mut impl Write) -> Result<(), Error> {
    let mut director = Director {
        ipvs: Ipvs::open()?,
        mwlc: Mwlc::open()?,
    };
    let live = !options.once && !options.json && std::io::stdout().is_terminal();
    if live {
        return on_terminal(&mut director, options, output);
    }
    loop {
        let snapshot = director.look()?;
        if options.json {
            serde_json::to_writer(&mut *output, &snapshot)
                .map_err(std::io::Error::from)
                .map_err(Error::Output)?;
            writeln!(output).map_err(Error::Output)?;
        } else {
            // Who keeps what comes out of the pipe wants to know when it was so.
            if !options.once {
                writeln!(output, "{}", snapshot.time()).map_err(Error::Output)?;
            }
            // A pipe has any width.
            for line in lines(&snapshot, options.sort, usize::MAX) {
                writeln!(output, "{}", line.trim_end()).map_err(Error::Output)?;
            }
            if !options.once {
                writeln!(output).map_err(Error::Output)?;
            }
        }
        output.flush().map_err(Error::Output)?;
        if options.once {
            return Ok(());
        }
        std::thread::sleep(options.interval);
    }
}

struct Director {
    ipvs: Ipvs,
    mwlc: Mwlc,
}

impl Director {
    fn look(&mut self) -> Result<Snapshot, Error> {
        let services = self.mwlc.services()?;
        let dests = self.mwlc.dests(None)?;
        let mut rates = Vec::new();
        for service in &services {
            match self.ipvs.dests(&service.name) {
                Ok(found) => rates.extend(found.into_iter().map(|dest| {
                    let key = (service.name, dest.config.address);
                    (key, dest.stats.rates)
                })),
                // It was deleted since it was listed.
                Err(Error::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Snapshot::new(services, &dests, &rates))
    }
}

fn on_terminal(
    director: &mut Director,
    mut options: Options,
    output: &mut impl Write,
) -> Result<(), Error> {
    let mut screen = Screen::open(output)?;
    loop {
        let snapshot = director.look()?;
        let next = Instant::now() + options.interval;
        // Keys change how the same look is shown; the next look comes at its time.
        loop {
            let (columns, rows) = screen::size();
            screen.show(
                &lines(&snapshot, options.sort, columns),
                (columns, rows),
                options,
            )?;
            match screen.key(next)? {
                Key::Quit => return Ok(()),
                Key::Sort => options.sort = options.sort.next(),
                Key::Faster => options.interval = (options.interval / 2).max(screen::INTERVAL_MIN),
                Key::Slower => options.interval = (options.interval * 2).min(screen::INTERVAL_MAX),
                Key::Other => {}
                Key::Refresh => break,
            }
        }
    }
}
