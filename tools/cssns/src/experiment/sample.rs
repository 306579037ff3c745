// SPDX-License-Identifier: MIT
//! One download as it was measured, and the file of all of them. Pure.

use anyhow::{Context as _, bail};
use std::fmt::Write as _;

use crate::simulate::measure::quantile;

/// The first line of a file of samples.
pub const CSV_HEAD: &str =
    "cell,round,client,node,path,bytes,start_s,connected_s,first_byte_s,end_s";

/// One download. Times are seconds since its round began.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// From 0.
    pub round: u32,
    /// The client machine, from 1.
    pub client: u8,
    /// The node that answered, from 1.
    pub node: u8,
    /// What was downloaded.
    pub path: String,
    /// How many bytes came, all of them right.
    pub bytes: u64,
    /// The process began to connect.
    pub start_s: f64,
    /// The connection was there.
    pub connected_s: f64,
    /// The answer began.
    pub first_byte_s: f64,
    /// The last byte came.
    pub end_s: f64,
}

impl Sample {
    /// From the first SYN to the last byte.
    #[must_use]
    pub fn took_s(&self) -> f64 {
        self.end_s - self.start_s
    }

    /// A line of the file.
    fn line(&self, key: &str) -> String {
        let Self {
            round,
            client,
            node,
            path,
            bytes,
            start_s,
            connected_s,
            first_byte_s,
            end_s,
        } = self;
        format!(
            "{key},{round},{client},{node},{path},{bytes},{start_s:.6},{connected_s:.6},{first_byte_s:.6},{end_s:.6}"
        )
    }

    fn parse(line: &str) -> anyhow::Result<(String, Self)> {
        let fields: Vec<&str> = line.split(',').collect();
        let [
            key,
            round,
            client,
            node,
            path,
            bytes,
            start,
            connected,
            first,
            end,
        ] = fields[..]
        else {
            bail!("{} fields instead of 10", fields.len());
        };
        let sample = Self {
            round: round.parse()?,
            client: client.parse()?,
            node: node.parse()?,
            path: path.to_owned(),
            bytes: bytes.parse()?,
            start_s: start.parse()?,
            connected_s: connected.parse()?,
            first_byte_s: first.parse()?,
            end_s: end.parse()?,
        };
        Ok((key.to_owned(), sample))
    }
}

/// Lines for the samples of a cell.
#[must_use]
pub fn to_lines(key: &str, samples: &[Sample]) -> String {
    samples.iter().fold(String::new(), |mut text, sample| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", sample.line(key));
        text
    })
}

/// The samples in a file with its first line, each with its cell's key, in the file's order.
///
/// # Errors
/// Names the line that is not of that form.
pub fn from_csv(text: &str) -> anyhow::Result<Vec<(String, Sample)>> {
    let mut lines = text.lines().zip(1u32..);
    let head = lines.next().map(|(line, _)| line);
    if head != Some(CSV_HEAD) {
        bail!("the first line is {head:?} instead of {CSV_HEAD:?}");
    }
    lines
        .map(|(line, number)| Sample::parse(line).with_context(|| format!("line {number}: {line}")))
        .collect()
}

/// What the samples of a cell come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// From the first process's start to the last one's last byte, added over rounds.
    pub elapsed_s: f64,
    /// Mean of the downloads' times.
    pub mean_s: f64,
    /// Median of them.
    pub median_s: f64,
    /// What 99 of 100 did not exceed.
    pub p99_s: f64,
    /// 95 % confidence interval of that, as if downloads were independent.
    pub p99_interval_s: (f64, f64),
    /// Bytes of all.
    pub bytes: u64,
}

impl Times {
    /// Adds samples up; `None` when there are none.
    #[must_use]
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let rounds = samples.iter().map(|sample| sample.round).max()?;
        let elapsed_s = (0..=rounds)
            .map(|round| {
                let of_round = || samples.iter().filter(move |sample| sample.round == round);
                let start = of_round().map(|one| one.start_s).fold(f64::MAX, f64::min);
                let end = of_round().map(|one| one.end_s).fold(0.0, f64::max);
                (end - start).max(0.0)
            })
            .sum();
        let mut took: Vec<f64> = samples.iter().map(Sample::took_s).collect();
        took.sort_by(f64::total_cmp);
        Some(Self {
            elapsed_s,
            mean_s: took.iter().sum::<f64>() / took.len() as f64,
            median_s: quantile(&took, 0.5)?,
            p99_s: quantile(&took, 0.99)?,
            p99_interval_s: quantile_interval(&took, 0.99)?,
            bytes: samples.iter().map(|sample| sample.bytes).sum(),
        })
    }

    /// Megabytes a second over the whole time, the paper's unit.
    #[must_use]
    pub fn rate_mb_s(&self) -> f64 {
        self.bytes as f64 / super::cell::MEGABYTE as f64 / self.elapsed_s.max(f64::MIN_POSITIVE)
    }
}

/// 95 % confidence interval of that quantile of what the sorted values were drawn from, by order statistics: how many
/// values are below it is binomial, here taken as normal (Conover, Practical Nonparametric Statistics, 3.2).
#[must_use]
pub fn quantile_interval(sorted: &[f64], part: f64) -> Option<(f64, f64)> {
    const NORMAL_97_5: f64 = 1.96;
    let half = NORMAL_97_5 * (part * (1.0 - part) / sorted.len() as f64).sqrt();
    let least = quantile(sorted, part - half)?;
    Some((least, quantile(sorted, (part + half).min(1.0))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: u32, start_s: f64, end_s: f64) -> Sample {
        Sample {
            round,
            client: 1,
            node: 3,
            path: "/f".to_owned(),
            bytes: 1_000_000,
            start_s,
            connected_s: start_s + 0.1,
            first_byte_s: start_s + 0.2,
            end_s,
        }
    }

    #[test]
    fn samples_survive_their_file() {
        let samples = [sample(0, 0.25, 2.0), sample(1, 0.0, 0.125)];
        let text = format!("{CSV_HEAD}\n{}", to_lines("a-cell", &samples));
        let read = from_csv(&text).unwrap();
        assert_eq!(read.len(), 2);
        for ((key, got), sample) in read.iter().zip(&samples) {
            assert_eq!((key.as_str(), got), ("a-cell", sample));
        }
        let torn = text.get(..text.len() - 12).unwrap();
        let error = format!("{:#}", from_csv(torn).unwrap_err());
        assert!(error.contains("line 3"), "{error}");
        assert!(from_csv("cell\n").is_err() && from_csv("").is_err());
    }

    #[test]
    fn rounds_add_up_and_the_slowest_counts() {
        let samples = [
            sample(0, 0.5, 2.5),
            sample(0, 0.0, 2.0),
            sample(1, 0.0, 1.0),
        ];
        let times = Times::of(&samples).unwrap();
        assert!((times.elapsed_s - 3.5).abs() < 1e-9);
        assert!((times.mean_s - 5.0 / 3.0).abs() < 1e-9);
        assert_eq!((times.median_s, times.p99_s), (2.0, 2.0));
        assert!((times.rate_mb_s() - 3.0 / 3.5).abs() < 1e-9);
        assert!(Times::of(&[]).is_none());
    }

    /// 1.96 times the root of 1000 * 0.5 * 0.5 is 30.99, of 1000 * 0.99 * 0.01 it is 6.17.
    #[test]
    fn intervals_of_quantiles_are_order_statistics() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(quantile_interval(&values, 0.5), Some((470.0, 531.0)));
        assert_eq!(quantile_interval(&values, 0.99), Some((984.0, 997.0)));
        assert_eq!(quantile_interval(&values[..100], 0.99), Some((98.0, 100.0)));
        assert_eq!(quantile_interval(&[7.0], 0.99), Some((7.0, 7.0)));
        assert_eq!(quantile_interval(&[], 0.99), None);
    }
}
