// SPDX-License-Identifier: MIT
//! The demo's result as a table. Pure: numbers in, text out.

use crate::learning::Learned;
use crate::plan::Node;
use std::fmt::Write as _;
use std::time::Duration;

/// Most columns of a drawing; more samples than this are merged.
const DRAWING_COLUMNS_MAX: usize = 32;

/// What one node did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeResult {
    /// The node.
    pub node: Node,
    /// Its weight, Wi.
    pub weight: u32,
    /// Connections that the director gave it.
    pub connections: u64,
    /// Bytes of bodies that it served.
    pub bytes: u64,
    /// Ci at each sample, in the order of time.
    pub loads: Vec<u64>,
}

/// What a demo came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoResult {
    /// The nodes.
    pub nodes: Vec<NodeResult>,
    /// Whether Ci is in bytes, or counts connections.
    pub load_in_bytes: bool,
    /// Downloads, all with the right SHA-256.
    pub downloads: usize,
    /// Clients at a time.
    pub clients: usize,
    /// Files that they chose from.
    pub files: usize,
    /// Bytes that clients received.
    pub bytes: u64,
    /// From the first request to the last byte.
    pub elapsed: Duration,
    /// Packets that passed the director.
    pub director_packets: u64,
    /// Bytes that passed the director.
    pub director_bytes: u64,
    /// What was learned of the connections' sizes, if anything was to be.
    pub learned: Option<Learned>,
}

/// How a drawing is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Block elements, for a terminal.
    Blocks,
    /// ASCII, for a file or a pipe.
    Ascii,
}

/// The table, ready to print.
#[must_use]
pub fn table(result: &DemoResult, style: Style) -> String {
    let mut text = String::new();
    let peak = peak_ratio(result);
    let unit = if result.load_in_bytes {
        "bytes"
    } else {
        "connections"
    };
    let title = format!("Ci/Wi ({unit}) from start to end");
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{:<7} {:>3} {:>12} {:>10} {:>6}  {title}",
        "node", "Wi", "connections", "served", "share"
    );
    for node in &result.nodes {
        let ratios: Vec<u64> = node
            .loads
            .iter()
            .map(|&load| ratio(load, node.weight))
            .collect();
        let _ = writeln!(
            text,
            "{:<7} {:>3} {:>12} {:>10} {:>5}%  |{}| peak {}",
            node.node.to_string(),
            node.weight,
            node.connections,
            human_bytes(node.bytes),
            percent(node.bytes, result.bytes),
            draw(&ratios, peak, style),
            human_load(
                ratios.iter().copied().max().unwrap_or(0),
                result.load_in_bytes
            ),
        );
    }
    let seconds = result.elapsed.as_secs_f64();
    let rate = if seconds > 0.0 {
        to_f64(result.bytes) / seconds
    } else {
        0.0
    };
    let _ = writeln!(
        text,
        "\n{} downloads of {} files by {} clients at a time, every SHA-256 right: {} in {seconds:.1} s, {}/s",
        result.downloads,
        result.files,
        result.clients,
        human_bytes(result.bytes),
        human(rate, "B"),
    );
    let share = if result.bytes > 0 {
        to_f64(result.director_bytes) * 100.0 / to_f64(result.bytes)
    } else {
        0.0
    };
    let _ = writeln!(
        text,
        "director: {} packets, {}, for {} delivered ({share:.3} %)",
        result.director_packets,
        human_bytes(result.director_bytes),
        human_bytes(result.bytes),
    );
    if let Some(Learned { exact, connections }) = result.learned {
        let _ = writeln!(
            text,
            "sizes: {exact} of {connections} connections had exactly the size of the file that they requested"
        );
    }
    text
}

fn peak_ratio(result: &DemoResult) -> u64 {
    let ratios = result
        .nodes
        .iter()
        .flat_map(|n| n.loads.iter().map(|&load| ratio(load, n.weight)));
    ratios.max().unwrap_or(0)
}

/// Ci/Wi; a node of weight 0 is drawn with its Ci, so that one sees it drain.
fn ratio(load: u64, weight: u32) -> u64 {
    load / u64::from(weight.max(1))
}

/// One character per sample, or per group of samples where there are many, the group's largest.
fn draw(values: &[u64], peak: u64, style: Style) -> String {
    let group = values.len().div_ceil(DRAWING_COLUMNS_MAX).max(1);
    values
        .chunks(group)
        .map(|part| glyph(part.iter().copied().max().unwrap_or(0), peak, style))
        .collect()
}

fn glyph(value: u64, peak: u64, style: Style) -> char {
    let ramp = match style {
        Style::Blocks => " ▁▂▃▄▅▆▇█",
        Style::Ascii => " .:-=+*#@",
    };
    let top = u128::try_from(ramp.chars().count().saturating_sub(1)).unwrap_or(0);
    // Rounded up, so that only nothing is drawn as nothing.
    let level = if peak == 0 {
        0
    } else {
        (u128::from(value) * top).div_ceil(u128::from(peak))
    };
    ramp.chars()
        .nth(usize::try_from(level.min(top)).unwrap_or(0))
        .unwrap_or(' ')
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100)
        .saturating_add(whole / 2)
        .checked_div(whole)
        .unwrap_or(0)
}

fn human_load(load: u64, in_bytes: bool) -> String {
    if in_bytes {
        human_bytes(load)
    } else {
        load.to_string()
    }
}

/// Bytes in decimal units with three digits: `1.23 GB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    human(to_f64(bytes), "B")
}

fn human(mut value: f64, unit: &str) -> String {
    for prefix in ["", "k", "M", "G"] {
        if value < 999.5 {
            let digits = if prefix.is_empty() || value >= 99.95 {
                0
            } else if value >= 9.995 {
                1
            } else {
                2
            };
            return format!("{value:.digits$} {prefix}{unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.2} T{unit}")
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn to_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> DemoResult {
        let node = |number: u8, weight, bytes, loads: &[u64]| NodeResult {
            node: Node::try_from(number).unwrap(),
            weight,
            connections: 10,
            bytes,
            loads: loads.to_vec(),
        };
        DemoResult {
            nodes: vec![
                node(1, 1, 1_000_000_000, &[0, 100_000_000, 400_000_000, 0]),
                node(2, 2, 2_000_000_000, &[0, 800_000_000, 2, 0]),
            ],
            load_in_bytes: true,
            downloads: 120,
            clients: 30,
            files: 12,
            bytes: 3_000_000_000,
            elapsed: Duration::from_secs(10),
            director_packets: 24_000,
            director_bytes: 1_300_000,
            learned: None,
        }
    }

    #[test]
    fn the_table_is_what_a_reader_expects() {
        let expected = "\
node     Wi  connections     served  share  Ci/Wi (bytes) from start to end
node1     1           10    1.00 GB    33%  | :@ | peak 400 MB
node2     2           10    2.00 GB    67%  | @. | peak 400 MB

120 downloads of 12 files by 30 clients at a time, every SHA-256 right: 3.00 GB in 10.0 s, 300 MB/s
director: 24000 packets, 1.30 MB, for 3.00 GB delivered (0.043 %)
";
        assert_eq!(table(&result(), Style::Ascii), expected);
        assert!(table(&result(), Style::Blocks).contains("| ▂█ |"));
    }

    #[test]
    fn nothing_at_all_makes_a_table_too() {
        let mut empty = result();
        empty.nodes.iter_mut().for_each(|node| {
            node.loads.clear();
            node.bytes = 0;
        });
        empty.bytes = 0;
        empty.elapsed = Duration::ZERO;
        assert!(table(&empty, Style::Ascii).contains("|| peak 0 B"));
    }

    #[test]
    fn drawings_have_a_limited_width() {
        let values: Vec<u64> = (0..1000).collect();
        assert!(draw(&values, 999, Style::Ascii).chars().count() <= DRAWING_COLUMNS_MAX);
        assert_eq!(draw(&[0, 1, 8], 8, Style::Ascii), " .@");
    }

    #[test]
    fn bytes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345, "12.3 kB"),
            (999_999, "1.00 MB"),
            (50_000_000, "50.0 MB"),
            (3_600_000_000, "3.60 GB"),
            (u64::MAX, "18446744.07 TB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(human_bytes(bytes), expected);
        }
    }
}
