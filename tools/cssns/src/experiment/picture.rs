// SPDX-License-Identifier: MIT
//! The paper's figures 4, 5 and 6 with our points: SVG by plotters, PNG out of the same SVG.

use super::cell::Files;
use super::fit::Line;
use super::results::{PAPERS_LARGEST_MB, Results};
use super::topology::NODES;
use anyhow::{Context as _, anyhow, ensure};
use plotters::prelude::*;
use resvg::{tiny_skia, usvg};
use std::ops::Range;
use std::sync::Arc;

/// Pixels.
const SIZE: (u32, u32) = (900, 520);

/// Pixels of a PNG for each of the SVG's.
const PNG_ZOOM: f32 = 2.0;

/// Colours that people with any eyes tell apart (Okabe and Ito's), for one, two, three nodes.
const COLOURS: [RGBColor; 3] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
];

/// The paper's line.
const PAPERS: RGBColor = RGBColor(120, 120, 120);

/// The paper's equation (4).
#[must_use]
pub fn papers_equation_4(added: f64) -> f64 {
    0.4 * added + 1.2
}

/// The paper's equation (5).
#[must_use]
pub fn papers_equation_5(work_mb: f64) -> f64 {
    0.001 * work_mb + 0.9051
}

/// Points or a line with a name.
struct Series {
    name: String,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
    joined: bool,
    marked: bool,
}

/// What a figure says at its edges.
struct Frame<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
}

/// Figure 4: completion time over the number of processes, largest files, for each system.
///
/// # Errors
/// Nothing was measured, or the drawing library failed.
pub fn completion_times(results: &Results) -> anyhow::Result<String> {
    let (file_mb, _) = results.largest().context("no sizes")?;
    let series = (1..=NODES)
        .zip(COLOURS)
        .map(|(nodes, colour)| Series {
            name: system_name(nodes),
            colour,
            points: results
                .plan
                .processes
                .iter()
                .filter_map(|&processes| {
                    let cell = results.system(nodes, file_mb, processes, Files::Shared)?;
                    Some((f64::from(processes), cell.times.elapsed_s))
                })
                .collect(),
            joined: true,
            marked: true,
        })
        .collect::<Vec<_>>();
    let title = format!(
        "Figure 4: completion time, files of {file_mb} MB divided by {}",
        results.scale
    );
    draw(
        &Frame {
            title: &title,
            x: "processes that download at once (PN)",
            y: "seconds until the last has its file",
        },
        &series,
    )
}

/// The cells themselves.
fn measured(points: Vec<(f64, f64)>) -> Series {
    Series {
        name: "measured, each cell of the grid".to_owned(),
        colour: COLOURS[1],
        points,
        joined: false,
        marked: true,
    }
}

/// A straight line from 0 to `end`.
fn straight(end: f64, name: String, colour: RGBColor, of: &dyn Fn(f64) -> f64) -> Series {
    Series {
        name,
        colour,
        points: [0.0, end].into_iter().map(|x| (x, of(x))).collect(),
        joined: true,
        marked: false,
    }
}

/// Figure 5: performance over added nodes, with the fitted line and the paper's.
///
/// # Errors
/// As [`completion_times`].
pub fn performance(results: &Results) -> anyhow::Result<String> {
    let line = results.equation_4().context("no performance to draw")?;
    let end = f64::from(NODES) - 1.0;
    let series = [
        measured(line.points.clone()),
        straight(end, fitted("N'", &line), COLOURS[1], &|x| line.at(x)),
        straight(end, "ideal: N' + 1".to_owned(), COLOURS[2], &|x| x + 1.0),
        straight(
            end,
            "the paper: 0.4 N' + 1.2".to_owned(),
            PAPERS,
            &papers_equation_4,
        ),
    ];
    draw(
        &Frame {
            title: "Figure 5: performance over added nodes",
            x: "nodes added to the first (N')",
            y: "one node's completion time over this system's",
        },
        &series,
    )
}

/// Figure 6: memory over work, with the fitted line, where more than one amount of work was measured,
/// and the paper's.
///
/// # Errors
/// As [`completion_times`].
pub fn memory(results: &Results) -> anyhow::Result<String> {
    let points = results.memory_points();
    ensure!(!points.is_empty(), "no memory to draw");
    let end = PAPERS_LARGEST_MB;
    let mut series = vec![measured(points)];
    if let Some(line) = results.equation_5() {
        let name = fitted("P S", &line);
        series.push(straight(end, name, COLOURS[1], &|x| line.at(x)));
    }
    series.push(straight(
        end,
        "the paper: 0.001 P S + 0.9051".to_owned(),
        PAPERS,
        &papers_equation_5,
    ));
    draw(
        &Frame {
            title: "Figure 6: memory utility of the busiest node",
            x: "processes times file size (P S), MB before scaling",
            y: "U, percent",
        },
        &series,
    )
}

/// A fitted line's name.
fn fitted(variable: &str, line: &Line) -> String {
    let sign = if line.intercept < 0.0 { '-' } else { '+' };
    format!(
        "fitted: {} {variable} {sign} {:.3}",
        significant(line.slope),
        line.intercept.abs()
    )
}

/// A slope with three figures, however small.
#[must_use]
pub fn significant(value: f64) -> String {
    if value == 0.0 || value.abs() >= 0.1 {
        format!("{value:.3}")
    } else {
        format!("{value:.2e}")
    }
}

/// What a system is called.
#[must_use]
pub fn system_name(nodes: u8) -> String {
    match nodes {
        1 => "one node with PVFS, no director".to_owned(),
        nodes => format!("cluster of {nodes} nodes"),
    }
}

fn draw(frame: &Frame<'_>, series: &[Series]) -> anyhow::Result<String> {
    let points = || series.iter().flat_map(|series| series.points.iter());
    anyhow::ensure!(points().next().is_some(), "there is nothing to draw");
    let x = range(points().map(|point| point.0));
    let y = range(points().map(|point| point.1));
    let mut picture = String::new();
    draw_on(frame, series, x, y, &mut picture).map_err(|error| anyhow!("drawing: {error}"))?;
    Ok(picture)
}

/// From 0 to a little above the largest.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let largest = values.fold(0.0, f64::max);
    0.0..(if largest > 0.0 { largest * 1.06 } else { 1.0 })
}

fn draw_on(
    frame: &Frame<'_>,
    series: &[Series],
    x: Range<f64>,
    y: Range<f64>,
    picture: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(picture, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(frame.title, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(frame.x)
        .y_desc(frame.y)
        .light_line_style(WHITE)
        .draw()?;
    for Series {
        name,
        colour,
        points,
        joined,
        marked,
    } in series
    {
        let style = colour.stroke_width(2);
        if *joined {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        if *marked {
            let marks = points
                .iter()
                .map(|&point| Circle::new(point, 3, colour.filled()));
            let drawn = chart.draw_series(marks)?;
            if !joined {
                let colour = *colour;
                drawn
                    .label(name)
                    .legend(move |(x, y)| Circle::new((x + 10, y), 3, colour.filled()));
            }
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

/// A PNG of an SVG, with whatever font without serifs this machine has.
///
/// # Errors
/// When there is no font, or the SVG is none.
pub fn png(svg: &str) -> anyhow::Result<Vec<u8>> {
    let mut options = usvg::Options::default();
    let fonts = Arc::make_mut(&mut options.fontdb);
    fonts.load_system_fonts();
    let family = fonts
        .faces()
        .filter_map(|face| Some(face.families.first()?.0.clone()))
        .min_by_key(|family| {
            let liked = FONTS_LIKED.iter().position(|liked| family == liked);
            (liked.unwrap_or(FONTS_LIKED.len()), family.clone())
        })
        .context("this machine has no font to draw with: apt-get install fonts-dejavu-core")?;
    fonts.set_sans_serif_family(family);
    let tree = usvg::Tree::from_str(svg, &options).context("reading the picture")?;
    let size = tree
        .size()
        .to_int_size()
        .scale_by(PNG_ZOOM)
        .context("the picture's size")?;
    let mut pixels =
        tiny_skia::Pixmap::new(size.width(), size.height()).context("the picture's size")?;
    let zoom = tiny_skia::Transform::from_scale(PNG_ZOOM, PNG_ZOOM);
    resvg::render(&tree, zoom, &mut pixels.as_mut());
    pixels.encode_png().context("writing PNG")
}

/// Fonts that are taken before others.
const FONTS_LIKED: [&str; 3] = ["DejaVu Sans", "Liberation Sans", "Noto Sans"];

#[cfg(test)]
mod tests {
    use super::super::grid::{Grid, Plan};
    use super::super::results::tests::{ideal, ideal_of};
    use super::*;

    #[test]
    fn figures_have_a_mark_for_each_cell() {
        let results = ideal(Grid::Full, 80);
        let times = completion_times(&results).unwrap();
        // Eight numbers of processes, three systems.
        assert_eq!(times.matches("<circle").count(), 24);
        assert!(times.contains("files of 50 MB divided by 80"));
        let performance = performance(&results).unwrap();
        // Forty cells, two systems, and the legend's own.
        assert_eq!(performance.matches("<circle").count(), 81);
        assert!(
            performance.contains("fitted: 1.000 N&apos; + 1.000"),
            "{performance}"
        );
        assert!(memory(&results).unwrap().contains("the paper: 0.001 P S"));
        let nothing = Results::new(Plan::of(Grid::Full), 80, Vec::new());
        assert!(completion_times(&nothing).is_err());
        assert!(super::performance(&nothing).is_err());
        assert!(memory(&nothing).is_err());
    }

    #[test]
    fn a_single_cell_of_each_system_is_drawn_without_a_line_through_it() {
        let plan = Plan {
            file_mb: vec![50],
            processes: vec![450],
            ..Plan::of(Grid::Quick)
        };
        let results = ideal_of(plan, 80);
        assert!(completion_times(&results).is_ok());
        assert!(performance(&results).is_ok());
        let memory = memory(&results).unwrap();
        assert!(memory.contains("the paper: 0.001 P S"));
        assert!(!memory.contains("fitted"));
    }

    #[test]
    fn a_png_has_the_pictures_size() {
        let svg = completion_times(&ideal(Grid::Quick, 80)).unwrap();
        let png = png(&svg).unwrap();
        assert_eq!(png.get(..8), Some(b"\x89PNG\r\n\x1a\n".as_slice()));
        let width = png
            .get(16..20)
            .map(|b| b.iter().fold(0, |n, b| n << 8 | u32::from(*b)));
        assert_eq!(width, Some(1800));
        assert!(super::png("no picture").is_err());
    }

    #[test]
    fn small_slopes_keep_their_figures() {
        assert_eq!(significant(0.98765), "0.988");
        assert_eq!(significant(0.00012345), "1.23e-4");
        assert_eq!(significant(0.0), "0.000");
    }
}
