// SPDX-License-Identifier: MIT
//! How completion times are distributed, as a picture: for each time, the part of the requests that
//! took longer, both on logarithmic scales, so that the tail is seen.

use anyhow::anyhow;
use plotters::prelude::*;

use super::Results;
use super::policy::Policy;
use ipvs_mwlc::director::sched::Scheduler;

/// Pixels.
const SIZE: (u32, u32) = (900, 560);

/// Points of a line: more are not seen.
const POINTS_PER_LINE: usize = 300;

/// The smallest part that is drawn.
const PART_MIN: f64 = 1e-4;

/// The policies that are drawn, if they were run; more lines would hide each other.
const DRAWN: [Policy; 7] = [
    Policy::Random,
    Policy::plain(Scheduler::Wlc),
    Policy::plain(Scheduler::ShortestExpectedDelay),
    Policy::plain(Scheduler::TwoChoices),
    Policy::remaining(Scheduler::Mwlc),
    Policy::remaining(Scheduler::Msed),
    Policy::Pooled,
];

/// Colours that people with any eyes tell apart (Okabe and Ito's).
const COLOURS: [RGBColor; 7] = [
    RGBColor(153, 153, 153),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(204, 121, 167),
    RGBColor(0, 158, 115),
    RGBColor(0, 114, 178),
    RGBColor(0, 0, 0),
];

/// A policy, its colour, and points (time, part that took longer).
type Line = (Policy, RGBColor, Vec<(f64, f64)>);

/// The picture of the first replication as SVG.
///
/// # Errors
/// Nothing was completed, or the drawing library failed.
pub fn svg(title: &str, results: &Results) -> anyhow::Result<String> {
    let lines: Vec<Line> = DRAWN
        .into_iter()
        .zip(COLOURS)
        .filter_map(|(policy, colour)| {
            let result = results
                .policies
                .iter()
                .find(|result| result.policy == policy)?;
            Some((policy, colour, tail(&result.took_s)))
        })
        .collect();
    let times = || {
        lines
            .iter()
            .flat_map(|(_, _, points)| points.iter().map(|point| point.0))
    };
    let (from, to) = (
        times().fold(f64::INFINITY, f64::min),
        times().fold(0.0, f64::max),
    );
    anyhow::ensure!(from > 0.0 && from < to, "there is nothing to draw");
    let mut picture = String::new();
    draw(title, &lines, from..to, &mut picture).map_err(|error| anyhow!("drawing: {error}"))?;
    Ok(picture)
}

fn draw(
    title: &str,
    lines: &[Line],
    times: std::ops::Range<f64>,
    picture: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(picture, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(times.log_scale(), (PART_MIN..1.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("completion time, seconds")
        .y_desc("part of the requests that took longer")
        .x_label_formatter(&|time| format!("{time}"))
        .y_label_formatter(&|part| format!("{part}"))
        .light_line_style(WHITE)
        .draw()?;
    for (policy, colour, points) in lines {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(policy.to_string())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

/// Points (time, part that took longer), evenly spaced by the logarithm of the part.
fn tail(sorted: &[f64]) -> Vec<(f64, f64)> {
    let count = sorted.len() as f64;
    (0..=POINTS_PER_LINE)
        .filter_map(|point| {
            let part = PART_MIN.powf(point as f64 / POINTS_PER_LINE as f64);
            let rank = ((1.0 - part) * count) as usize;
            // With few requests the last points would all be the slowest one.
            (part * count >= 1.0).then(|| sorted.get(rank).map(|time| (*time, part)))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::PolicyResult;
    use super::*;

    #[test]
    fn a_picture_has_a_line_for_each_policy() {
        let result = |policy, scale: f64| PolicyResult {
            policy,
            figures: Vec::new(),
            took_s: (1..=10_000)
                .map(|number| f64::from(number) * scale)
                .collect(),
            refused: 0,
        };
        let results = Results {
            policies: vec![result(Policy::Random, 0.02), result(Policy::Pooled, 0.01)],
        };
        let svg = svg("a title", &results).unwrap();
        for colour in ["#999999", "#000000"] {
            assert!(svg.contains(&format!("stroke=\"{colour}\"")), "{colour}");
        }
        for words in ["a title", "random", "pooled", "completion time"] {
            assert!(svg.contains(words), "{words}");
        }
        assert!(super::svg("", &Results { policies: vec![] }).is_err());
    }

    #[test]
    fn a_tail_is_the_part_above() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        let points = tail(&sorted);
        for (time, part) in &points {
            let above = sorted.iter().filter(|other| **other > *time).count() as f64 / 1000.0;
            assert!((above - part).abs() <= 0.0011, "{time} {part}");
        }
        assert_eq!(tail(&[]), []);
    }
}
