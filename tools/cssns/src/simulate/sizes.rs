// SPDX-License-Identifier: MIT
//! How large the things are that clients fetch.

use rand::Rng;
use rand_distr::{Distribution as _, LogNormal};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// A distribution of sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sizes {
    /// Always the same.
    Constant {
        /// Bytes.
        bytes: f64,
    },
    /// Pareto between two bounds: P(size > x) falls as x^-alpha.
    Pareto {
        /// The tail's exponent; the smaller, the heavier.
        alpha: f64,
        /// The smallest size, bytes.
        min: f64,
        /// The largest size, bytes.
        max: f64,
    },
    /// The logarithm is normal.
    Lognormal {
        /// Bytes.
        mean: f64,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
    /// Exponential.
    Exponential {
        /// Bytes.
        mean: f64,
    },
}

impl Sizes {
    /// The mean, in bytes.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match *self {
            Sizes::Constant { bytes } => bytes,
            Sizes::Lognormal { mean, .. } | Sizes::Exponential { mean } => mean,
            Sizes::Pareto { alpha, min, max } => {
                // The integral of x times the density alpha min^alpha x^(-alpha-1) / (1 - (min/max)^alpha).
                let norm = 1.0 - (min / max).powf(alpha);
                if (alpha - 1.0).abs() < 1e-9 {
                    min * (max / min).ln() / norm
                } else {
                    alpha / (alpha - 1.0) * min * (1.0 - (min / max).powf(alpha - 1.0)) / norm
                }
            }
        }
    }

    /// One size, in bytes; at least 1.
    pub fn draw(&self, random: &mut impl Rng) -> f64 {
        match *self {
            Sizes::Lognormal { mean, sigma } => {
                // E = exp(mu + sigma^2 / 2).
                let mu = mean.ln() - sigma * sigma / 2.0;
                let drawn = LogNormal::new(mu, sigma).map_or(mean, |normal| normal.sample(random));
                drawn.max(1.0)
            }
            _ => self.quantile(random.random()),
        }
    }

    /// The size that this part of all sizes does not exceed, from 0 to below 1; at least 1 byte.
    #[must_use]
    pub fn quantile(&self, part: f64) -> f64 {
        let bytes = match *self {
            Sizes::Constant { bytes } => bytes,
            Sizes::Exponential { mean } => -mean * (1.0 - part).ln(),
            Sizes::Pareto { alpha, min, max } => {
                min * (1.0 - part * (1.0 - (min / max).powf(alpha))).powf(-1.0 / alpha)
            }
            Sizes::Lognormal { mean, sigma } => {
                let mu = mean.ln() - sigma * sigma / 2.0;
                (mu + sigma * normal_quantile(part)).exp()
            }
        };
        bytes.max(1.0)
    }
}

/// The standard normal distribution's quantile, by bisection of its distribution function.
fn normal_quantile(part: f64) -> f64 {
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..60 {
        let middle: f64 = (low + high) / 2.0;
        if normal_part_below(middle) < part {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// The part of a standard normal distribution below `x`: 1/2 and the density times the series
/// x + x^3/3 + x^5/15 + ...
fn normal_part_below(x: f64) -> f64 {
    if x.abs() > 8.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut term, mut odd) = (x, x, 3.0);
    while term.abs() > sum.abs() * 1e-16 {
        term *= x * x / odd;
        sum += term;
        odd += 2.0;
    }
    0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// The grammar, for messages.
const GRAMMAR: &str = "pareto:ALPHA:MIN:MAX, lognormal:MEAN:SIGMA, exponential:MEAN or constant:BYTES; bytes as \
    500k, 1M, 2G";

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split(':').collect();
        let sizes = match words[..] {
            ["constant", bytes] => Sizes::Constant {
                bytes: bytes_of(bytes)?,
            },
            ["exponential", mean] => Sizes::Exponential {
                mean: bytes_of(mean)?,
            },
            ["lognormal", mean, sigma] => Sizes::Lognormal {
                mean: bytes_of(mean)?,
                sigma: number(sigma)?,
            },
            ["pareto", alpha, min, max] => Sizes::Pareto {
                alpha: number(alpha)?,
                min: bytes_of(min)?,
                max: bytes_of(max)?,
            },
            _ => return Err(format!("{text:?} is no distribution: give {GRAMMAR}")),
        };
        match sizes {
            Sizes::Pareto { min, max, .. } if min >= max => Err(format!(
                "{text:?}: the smallest size is not below the largest"
            )),
            _ => Ok(sizes),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Sizes::Constant { bytes } => write!(f, "{} each", Bytes(bytes)),
            Sizes::Exponential { mean } => write!(f, "exponential, mean {}", Bytes(mean)),
            Sizes::Lognormal { mean, sigma } => {
                write!(f, "lognormal, mean {}, sigma {sigma}", Bytes(mean))
            }
            Sizes::Pareto { alpha, min, max } => write!(
                f,
                "Pareto, alpha {alpha}, {} to {}, mean {}",
                Bytes(min),
                Bytes(max),
                Bytes(self.mean())
            ),
        }
    }
}

/// Bytes for a reader, in decimal units.
#[derive(Debug, Clone, Copy)]
pub struct Bytes(pub f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scale, unit) = match self.0 {
            bytes if bytes >= 1e9 => (1e9, "GB"),
            bytes if bytes >= 1e6 => (1e6, "MB"),
            bytes if bytes >= 1e3 => (1e3, "kB"),
            _ => (1.0, "B"),
        };
        let value = format!("{:.3}", self.0 / scale);
        let short = value.trim_end_matches('0').trim_end_matches('.');
        write!(f, "{short} {unit}")
    }
}

/// Positive bytes with an optional decimal unit k, M, G or T.
fn bytes_of(text: &str) -> Result<f64, String> {
    let scale = match text.chars().last() {
        Some('k') => 1e3,
        Some('M') => 1e6,
        Some('G') => 1e9,
        Some('T') => 1e12,
        _ => 1.0,
    };
    let digits = text.trim_end_matches(['k', 'M', 'G', 'T']);
    Ok(number(digits)? * scale)
}

fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err(format!("{text:?} is no positive number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    #[test]
    fn draws_have_the_mean_that_is_stated() {
        for (text, tolerance) in [
            ("constant:5k", 1e-9),
            ("exponential:1M", 0.02),
            ("lognormal:1M:1", 0.02),
            // Bounds close together, so that the mean settles.
            ("pareto:1.5:1k:100k", 0.02),
            ("pareto:1:1k:100k", 0.02),
            ("pareto:0.8:1k:100k", 0.02),
        ] {
            let sizes: Sizes = text.parse().unwrap();
            let mut random = StdRng::seed_from_u64(7);
            let count = 200_000;
            let sum: f64 = (0..count).map(|_| sizes.draw(&mut random)).sum();
            let mean = sum / f64::from(count);
            let error = (mean / sizes.mean() - 1.0).abs();
            assert!(error < tolerance, "{text}: {mean} for {}", sizes.mean());
        }
    }

    #[test]
    fn quantiles_are_those_of_the_draws() {
        for text in [
            "exponential:1M",
            "lognormal:1M:1.5",
            "pareto:1.2:100k:1G",
            "constant:7",
        ] {
            let sizes: Sizes = text.parse().unwrap();
            let mut random = StdRng::seed_from_u64(11);
            let mut draws: Vec<f64> = (0..100_000).map(|_| sizes.draw(&mut random)).collect();
            draws.sort_by(f64::total_cmp);
            for part in [0.1, 0.5, 0.9] {
                let ratio = draws[(part * 1e5) as usize] / sizes.quantile(part);
                assert!((ratio - 1.0).abs() < 0.03, "{text} {part}: {ratio}");
            }
        }
        assert!((normal_quantile(0.975) - 1.959_964).abs() < 1e-6);
        assert!((normal_quantile(0.5)).abs() < 1e-9);
    }

    #[test]
    fn a_pareto_tail_has_its_exponent_and_its_bounds() {
        let sizes: Sizes = "pareto:1.2:1k:1G".parse().unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let draws: Vec<f64> = (0..100_000).map(|_| sizes.draw(&mut random)).collect();
        assert!(draws.iter().all(|size| (1e3..=1e9).contains(size)));
        for (threshold, expected) in [(2e3, 0.4353), (1e4, 0.0631)] {
            let above = draws.iter().filter(|size| **size > threshold).count();
            let part = above as f64 / draws.len() as f64;
            assert!((part / expected - 1.0).abs() < 0.03, "{threshold}: {part}");
        }
    }

    #[test]
    fn distributions_are_read_and_written() {
        let sizes: Sizes = "pareto:1.2:100k:1G".parse().unwrap();
        assert_eq!(
            sizes.to_string(),
            "Pareto, alpha 1.2, 100 kB to 1 GB, mean 504.914 kB"
        );
        assert_eq!(Bytes(1.0).to_string(), "1 B");
        for wrong in [
            "",
            "pareto",
            "pareto:1.2:2:1",
            "constant:-1",
            "constant:k",
            "normal:1",
        ] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong:?}");
        }
    }
}
