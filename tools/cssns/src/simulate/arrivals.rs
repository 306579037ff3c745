// SPDX-License-Identifier: MIT
//! When requests arrive and what they fetch: drawn by lot, or read from a trace.

use anyhow::{Context as _, bail, ensure};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand_distr::{Distribution as _, Exp};
use std::path::Path;

use super::sizes::Sizes;
use super::world::Arrival;

/// Requests of one run: 16 bytes each, so 160 MB.
pub const REQUESTS_MAX: usize = 10_000_000;

/// `count` requests that arrive independently of each other, on average `rate` of them per second.
///
/// # Errors
/// The rate is no positive number.
pub fn poisson(count: usize, rate: f64, sizes: &Sizes, seed: u64) -> anyhow::Result<Vec<Arrival>> {
    let gaps = Exp::new(rate).with_context(|| format!("{rate} requests per second"))?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut at_s = 0.0;
    let draw = |_| {
        at_s += gaps.sample(&mut random);
        let size = sizes.draw(&mut random);
        Arrival { at_s, size }
    };
    Ok((0..count).map(draw).collect())
}

/// A trace: lines of `time_s,size_bytes` in the order of time; empty lines, lines that begin with `#`
/// and a first line of words are passed over.
///
/// # Errors
/// The file cannot be read, or a line is none of these.
pub fn trace(path: &Path) -> anyhow::Result<Vec<Arrival>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse_trace(&text).with_context(|| path.display().to_string())
}

fn parse_trace(text: &str) -> anyhow::Result<Vec<Arrival>> {
    let mut arrivals: Vec<Arrival> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        let is_heading = number == 1 && line.starts_with(|first: char| first.is_alphabetic());
        if line.is_empty() || line.starts_with('#') || is_heading {
            continue;
        }
        let arrival = parse_line(line).with_context(|| format!("line {number}: {line:?}"))?;
        let last = arrivals.last().map_or(0.0, |last| last.at_s);
        ensure!(
            arrival.at_s >= last,
            "line {number} is earlier than the one before"
        );
        ensure!(
            arrivals.len() < REQUESTS_MAX,
            "more than {REQUESTS_MAX} requests"
        );
        arrivals.push(arrival);
    }
    ensure!(!arrivals.is_empty(), "no requests");
    Ok(arrivals)
}

fn parse_line(line: &str) -> anyhow::Result<Arrival> {
    let Some((at, size)) = line.split_once(',') else {
        bail!("expected time_s,size_bytes");
    };
    let at_s: f64 = at.trim().parse().context("the time")?;
    let size: f64 = size.trim().parse().context("the size")?;
    ensure!(
        at_s.is_finite() && at_s >= 0.0,
        "the time is negative or no number"
    );
    ensure!(
        size.is_finite() && size >= 1.0,
        "the size is less than a byte or no number"
    );
    Ok(Arrival { at_s, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_arrivals_have_their_rate_and_their_seed() {
        let sizes = Sizes::Constant { bytes: 5.0 };
        let arrivals = poisson(100_000, 50.0, &sizes, 3).unwrap();
        let last = arrivals.last().unwrap().at_s;
        assert!((last / 2000.0 - 1.0).abs() < 0.02, "{last}");
        // Exponential gaps: as variable as they are long.
        let gaps: Vec<f64> = arrivals
            .windows(2)
            .map(|pair| pair[1].at_s - pair[0].at_s)
            .collect();
        let squares: f64 = gaps.iter().map(|gap| gap * gap).sum::<f64>() / gaps.len() as f64;
        assert!((squares / (2.0 / 2500.0) - 1.0).abs() < 0.05, "{squares}");
        assert_eq!(arrivals, poisson(100_000, 50.0, &sizes, 3).unwrap());
        assert_ne!(arrivals, poisson(100_000, 50.0, &sizes, 4).unwrap());
        assert!(poisson(1, -1.0, &sizes, 1).is_err());
    }

    #[test]
    fn a_trace_is_read_or_says_what_is_wrong() {
        let good = "time_s,size_bytes\n# a comment\n0.5, 100\n\n0.5,7\n2,1\n";
        let sizes: Vec<f64> = parse_trace(good)
            .unwrap()
            .iter()
            .map(|one| one.size)
            .collect();
        assert_eq!(sizes, [100.0, 7.0, 1.0]);
        for (bad, words) in [
            ("", "no requests"),
            ("1,2\n0.5,2\n", "line 2 is earlier"),
            ("1\n", "line 1"),
            ("1,x\n", "line 1"),
            ("nan,5\n1,2\n1,0.5", "line 3"),
            ("-1,5\n", "line 1"),
        ] {
            let error = format!("{:#}", parse_trace(bad).unwrap_err());
            assert!(error.contains(words), "{bad:?}: {error}");
        }
    }
}
