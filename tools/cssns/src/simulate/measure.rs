// SPDX-License-Identifier: MIT
//! Figures from runs, and how sure they are.

use serde::Serialize;

use super::world::Outcome;

/// What one run came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Mean completion time, ms.
    pub mean_ms: f64,
    /// Its 99th percentile.
    pub p99_ms: f64,
    /// Its 99.9th percentile.
    pub p999_ms: f64,
    /// Mean slowdown: completion time over that in an idle cluster.
    pub slowdown: f64,
    /// Its 99th percentile.
    pub slowdown_p99: f64,
    /// Its 99.9th percentile.
    pub slowdown_p999: f64,
    /// Time average of the largest Ci/Wi over that of the mean Ci/Wi.
    pub imbalance: f64,
}

impl Figures {
    /// The figures of a run; of none if nothing was completed.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Option<Figures> {
        let completions = &outcome.completions;
        let mut took_ms: Vec<f64> = completions.iter().map(|one| one.took_s * 1e3).collect();
        let mut slowdown: Vec<f64> = completions
            .iter()
            .map(|one| one.took_s / one.alone_s)
            .collect();
        took_ms.sort_by(f64::total_cmp);
        slowdown.sort_by(f64::total_cmp);
        Some(Figures {
            mean_ms: mean(&took_ms)?,
            p99_ms: quantile(&took_ms, 0.99)?,
            p999_ms: quantile(&took_ms, 0.999)?,
            slowdown: mean(&slowdown)?,
            slowdown_p99: quantile(&slowdown, 0.99)?,
            slowdown_p999: quantile(&slowdown, 0.999)?,
            imbalance: outcome.largest_load / outcome.mean_load,
        })
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The smallest of the sorted values that at least this part of all does not exceed.
#[must_use]
pub fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// A mean over replications, and half the width of its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the interval's width; `None` from a single replication.
    pub plus_minus: Option<f64>,
}

impl Estimate {
    /// From one value of each replication.
    #[must_use]
    pub fn of(values: &[f64]) -> Estimate {
        let count = values.len() as f64;
        let average = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - average).powi(2)).sum();
        let plus_minus = (values.len() > 1)
            .then(|| student_t(values.len() - 1) * (squares / (count - 1.0) / count).sqrt());
        Estimate {
            mean: average,
            plus_minus,
        }
    }
}

/// The 97.5th percentile of Student's t with this many degrees of freedom.
fn student_t(degrees: usize) -> f64 {
    const TABLE: [f64; 20] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    ];
    // From 21 on it falls from 2.080 to 1.960; the larger is the safe one.
    degrees
        .checked_sub(1)
        .and_then(|index| TABLE.get(index))
        .copied()
        .unwrap_or(2.080)
}

#[cfg(test)]
mod tests {
    use super::super::world::Completion;
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.99), Some(198.0));
        assert_eq!(quantile(&values, 0.5), Some(100.0));
        assert_eq!(quantile(&values, 1.0), Some(200.0));
        assert_eq!(quantile(&[7.0], 0.0), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn figures_are_those_of_the_sorted_values() {
        let completions = (1..=1000)
            .map(|number| Completion {
                took_s: f64::from(number) / 1e3,
                alone_s: 1e-3,
            })
            .collect();
        let outcome = Outcome {
            completions,
            largest_load: 30.0,
            mean_load: 10.0,
            refused: 0,
        };
        let figures = Figures::of(&outcome).unwrap();
        assert!((figures.mean_ms - 500.5).abs() < 1e-9);
        assert!((figures.p99_ms - 990.0).abs() < 1e-9);
        assert!((figures.slowdown_p999 - 999.0).abs() < 1e-9);
        assert!((figures.imbalance - 3.0).abs() < 1e-9);
        assert_eq!(Figures::of(&Outcome::default()), None);
    }

    #[test]
    fn an_interval_is_that_of_student() {
        // Mean 3, standard deviation sqrt 2.5, of 5: 2.776 * sqrt(2.5 / 5).
        let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((estimate.mean - 3.0).abs() < 1e-12);
        assert!((estimate.plus_minus.unwrap() - 1.963).abs() < 1e-3);
        assert_eq!(Estimate::of(&[7.0]).plus_minus, None);
        assert!((student_t(100) - 2.08).abs() < 1e-12);
    }
}
