// SPDX-License-Identifier: MIT
//! Straight lines through points, by least squares. Pure.

/// A fitted line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its slope.
    pub slope: f64,
    /// Its value at 0.
    pub intercept: f64,
    /// The points.
    pub points: Vec<(f64, f64)>,
}

impl Line {
    /// The line with the least sum of squared distances in y; `None` unless there are points at two places.
    #[must_use]
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let together: f64 = points
            .iter()
            .map(|(x, y)| (x - mean_x) * (y - mean_y))
            .sum();
        // Of no points at all the spread is 0 too.
        (spread > 0.0).then(|| {
            let slope = together / spread;
            Self {
                slope,
                intercept: mean_y - slope * mean_x,
                points: points.to_vec(),
            }
        })
    }

    /// Its value.
    #[must_use]
    pub fn at(&self, x: f64) -> f64 {
        self.slope * x + self.intercept
    }

    /// How far each point is above it.
    #[must_use]
    pub fn residuals(&self) -> Vec<f64> {
        self.points.iter().map(|&(x, y)| y - self.at(x)).collect()
    }

    /// The largest distance of a point.
    #[must_use]
    pub fn residual_max(&self) -> f64 {
        self.residuals()
            .into_iter()
            .map(f64::abs)
            .fold(0.0, f64::max)
    }

    /// The root of the mean squared distance.
    #[must_use]
    pub fn residual_rms(&self) -> f64 {
        let squares = self
            .residuals()
            .into_iter()
            .map(|residual| residual * residual);
        (squares.sum::<f64>() / self.points.len().max(1) as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_a_line_give_that_line() {
        let points = [(1.0, 1.6), (2.0, 2.0), (3.0, 2.4)];
        let line = Line::through(&points).unwrap();
        assert!((line.slope - 0.4).abs() < 1e-12 && (line.intercept - 1.2).abs() < 1e-12);
        assert!(line.residual_max() < 1e-12 && line.residual_rms() < 1e-12);
    }

    #[test]
    fn residuals_add_up_to_nothing_and_no_other_line_is_nearer() {
        let points = [(0.0, 1.0), (1.0, 3.0), (2.0, 2.0), (4.0, 6.0)];
        let line = Line::through(&points).unwrap();
        assert!(line.residuals().iter().sum::<f64>().abs() < 1e-9);
        for (slope, intercept) in [(0.01, 0.0), (-0.01, 0.0), (0.0, 0.01), (0.0, -0.01)] {
            let other = Line {
                slope: line.slope + slope,
                intercept: line.intercept + intercept,
                ..line.clone()
            };
            assert!(other.residual_rms() > line.residual_rms());
        }
    }

    #[test]
    fn points_at_one_place_give_none() {
        assert_eq!(Line::through(&[]), None);
        assert_eq!(Line::through(&[(1.0, 2.0), (1.0, 3.0)]), None);
    }
}
