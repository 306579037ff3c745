// SPDX-License-Identifier: MIT
//! `pvfs ping`: are mgr and every iod alive, and how far away are they?

use std::process::ExitCode;
use std::time::{Duration, Instant};

use pvfs::ids::FileSystemId;
use pvfs::proto::mgr::IodStatus;

use crate::rpc::{Iod, Mgr, RpcError};
use crate::{output, target};

/// Command line of `pvfs ping`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where mgr is: HOST[:PORT], or a path on a PVFS mount
    #[arg(env = target::MGR_VARIABLE)]
    mgr: Option<String>,
    /// Seconds that a daemon may take to answer
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    timeout: f64,
}

/// Exit status where the command line does not say whom to ask; clap uses the same.
pub const USAGE_STATUS: u8 = 2;

/// Reads a number of seconds that a person has patience for.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 3600.0 => Ok(seconds),
        _ => Err("write seconds above 0 and up to 3600, such as 0.5".into()),
    }
}

/// Status 0: all alive; 1: something is away (its line says what); 2: whom to ask is not clear.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let endpoint = match target::mgr(args.mgr.as_deref()) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            output::note(format!("pvfs ping: {error}"));
            return Ok(ExitCode::from(USAGE_STATUS));
        }
    };
    let timeout = Duration::from_secs_f64(args.timeout);
    let start = Instant::now();
    let (mut mgr, iods) = match greet(&endpoint, timeout) {
        Ok(answered) => answered,
        Err(error) => {
            output::line(error)?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let connected = start.elapsed();
    // The first exchange included the connection; the round trip is that of one more.
    let start = Instant::now();
    let again = mgr.iods();
    let trip = start.elapsed();
    output::line(format!(
        "mgr {endpoint} alive, {} (connected in {})",
        millis(trip),
        millis(connected)
    ))?;
    let mut all_alive = again.is_ok();
    for status in &iods {
        match ping_iod(status, &mgr) {
            Ok(line) => output::line(line)?,
            Err(line) => {
                all_alive = false;
                output::line(line)?;
            }
        }
    }
    if iods.is_empty() {
        output::line(no_iod(&endpoint.to_string()))?;
        all_alive = false;
    }
    Ok(if all_alive {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is said of an mgr without iods.
pub fn no_iod(mgr: &str) -> String {
    format!("no iod has registered with mgr {mgr}: start pvfs-iod --mgr {mgr}")
}

fn greet(
    endpoint: &pvfs::address::Endpoint,
    timeout: Duration,
) -> Result<(Mgr, Vec<IodStatus>), RpcError> {
    let mut mgr = Mgr::connect(endpoint, timeout)?;
    let iods = mgr.iods()?;
    Ok((mgr, iods))
}

fn ping_iod(status: &IodStatus, mgr: &Mgr) -> Result<String, String> {
    let who = format!("iod {} {}", status.iod, status.address);
    let trip = exchange(status, mgr.timeout(), mgr.hello.file_system).map_err(|e| e.to_string())?;
    if status.state.is_alive() {
        Ok(format!("{who} alive, {}", millis(trip)))
    } else {
        Err(format!(
            "{who} answers here ({}) but not mgr, to which it is {}: see its log",
            millis(trip),
            status.state.word()
        ))
    }
}

/// The time of one round trip; a daemon that is another one than mgr says is refused.
fn exchange(
    status: &IodStatus,
    timeout: Duration,
    expected: FileSystemId,
) -> Result<Duration, RpcError> {
    let mut iod = Iod::connect(status, expected, timeout)?;
    // Connecting was more than one round trip.
    let start = Instant::now();
    iod.ping(status, expected)?;
    Ok(start.elapsed())
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_parse() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for bad in ["0", "-1", "nan", "inf", "x", "3601"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
