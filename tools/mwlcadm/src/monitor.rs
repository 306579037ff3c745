// SPDX-License-Identifier: MIT
//! `mwlcadm monitor`: what changes and goes wrong, one line each as it happens.

use std::io::Write;

use serde::Serialize;

use crate::error::Error;
use crate::mwlc::{Event, Mwlc};
use crate::utc::{now_ms, utc_text};

/// An event as JSON.
#[derive(Debug, Serialize)]
struct Line {
    /// Milliseconds since 1970.
    time_ms: u64,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    real_server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Writes events for ever, or until `count` of them were written.
pub fn run(json: bool, count: Option<u64>, output: &mut impl Write) -> Result<(), Error> {
    let mwlc = Mwlc::open()?;
    mwlc.listen()?;
    // Who waits for this line knows that nothing is missed from here on.
    if !json {
        writeln!(output, "listening").map_err(Error::Output)?;
        output.flush().map_err(Error::Output)?;
    }
    let mut written = 0;
    while count.is_none_or(|count| written < count) {
        let heard = mwlc.events()?;
        let time_ms = now_ms();
        let lines: Vec<Line> = match heard {
            Some(events) => events
                .into_iter()
                .map(|event| line(event, time_ms))
                .collect(),
            None => vec![missed(time_ms)],
        };
        for line in lines {
            write_line(&line, json, output)?;
            written += 1;
        }
        output.flush().map_err(Error::Output)?;
    }
    Ok(())
}

fn line(event: Event, time_ms: u64) -> Line {
    Line {
        time_ms,
        event: event.name(),
        service: event.service.map(|service| service.to_string()),
        real_server: event.dest.map(|dest| dest.to_string()),
        cause: event.cause,
        suppressed: event.suppressed,
    }
}

fn missed(time_ms: u64) -> Line {
    Line {
        time_ms,
        event: "missed",
        service: None,
        real_server: None,
        cause: Some("events came faster than they were read".to_owned()),
        suppressed: 0,
    }
}

fn write_line(line: &Line, json: bool, output: &mut impl Write) -> Result<(), Error> {
    if json {
        return serde_json::to_writer(&mut *output, line)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(output))
            .map_err(Error::Output);
    }
    let parts = [
        Some(utc_text(line.time_ms)),
        Some(line.event.to_owned()),
        line.service.clone(),
        line.real_server.clone(),
        line.cause.as_ref().map(|cause| format!("({cause})")),
        (line.suppressed > 0).then(|| format!("[{} events before were not sent]", line.suppressed)),
    ];
    let words: Vec<String> = parts.into_iter().flatten().collect();
    writeln!(output, "{}", words.join(" ")).map_err(Error::Output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipvs_mwlc::director::address::Transport;
    use ipvs_mwlc::uapi::mwlc::event_kind;

    fn event() -> Event {
        Event {
            kind: event_kind::NO_DEST,
            service: Some(crate::names::ServiceName::Address(
                Transport::Tcp,
                ([10, 0, 0, 100], 80).into(),
            )),
            dest: None,
            cause: Some("all have weight 0".to_owned()),
            suppressed: 2,
        }
    }

    fn written(json: bool) -> String {
        let mut output = Vec::new();
        let line = line(event(), 1_795_696_496_789);
        write_line(&line, json, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn a_line_for_people_and_one_for_programs() {
        assert_eq!(
            written(false),
            "2026-11-26T12:34:56.789Z no-real-server TCP 10.0.0.100:80 (all have weight 0) \
             [2 events before were not sent]\n"
        );
        let value: serde_json::Value = serde_json::from_str(&written(true)).unwrap();
        assert_eq!(value["time_ms"], 1_795_696_496_789_u64);
        assert_eq!(value["event"], "no-real-server");
        assert_eq!(value["suppressed"], 2);
        assert_eq!(value.get("real_server"), None);
    }
}
