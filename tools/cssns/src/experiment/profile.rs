// SPDX-License-Identifier: MIT
//! What held a cell up: its links, processors, segments that were sent again, and its slowest downloads. Pure.

use super::links::{LINK_MBIT, bytes_per_second};
use super::store::Measured;
use super::topology::{Host, Link};
use crate::simulate::measure::quantile;

/// A link in one direction, and how much of its rate was used.
#[derive(Debug, Clone, PartialEq)]
pub struct Used {
    /// The link.
    pub link: Link,
    /// Whether towards the host.
    pub to_host: bool,
    /// The part of its rate over the cell's whole time.
    pub part: f64,
}

/// All links of a cell, the busiest first.
#[must_use]
pub fn links(measured: &Measured) -> Vec<Used> {
    let cell = &measured.record.cell;
    let mut used: Vec<Used> =
        Host::all()
            .into_iter()
            .flat_map(Host::links)
            .filter_map(|link| {
                let carried = *measured.record.carried.get(&link.port)?;
                let half = match link.host {
                    Host::Node(node) => cell.slow_node() == Some(node.number()),
                    _ => false,
                };
                let rate = bytes_per_second(LINK_MBIT) * if half { 0.5 } else { 1.0 };
                let part = |bytes: u64| bytes as f64 / (rate * measured.times.elapsed_s);
                Some([(true, carried.to_host), (false, carried.from_host)].map(
                    |(to_host, bytes)| Used {
                        link: link.clone(),
                        to_host,
                        part: part(bytes),
                    },
                ))
            })
            .flatten()
            .collect();
    used.sort_by(|a, b| b.part.total_cmp(&a.part));
    used
}

/// The profile in words.
#[must_use]
pub fn words(measured: &Measured) -> String {
    let record = &measured.record;
    let elapsed = measured.times.elapsed_s;
    let mut parts = Vec::new();
    let busiest: Vec<String> = links(measured)
        .into_iter()
        .take(LINKS_NAMED)
        .map(|used| {
            let Link { host, segment, .. } = used.link;
            let direction = if used.to_host { "to" } else { "from" };
            format!("{direction} {host} ({segment}) {}", percent(used.part))
        })
        .collect();
    if !busiest.is_empty() {
        parts.push(format!("busiest links: {}", busiest.join(", ")));
    }
    let processor = &record.processor;
    if processor.capacity_s > 0.0 {
        let mut users: Vec<(&String, &f64)> = processor.by_name.iter().collect();
        users.sort_by(|a, b| b.1.total_cmp(a.1));
        let users: Vec<String> = users
            .into_iter()
            .take(USERS_NAMED)
            .map(|(name, seconds)| format!("{name} {}", percent(seconds / processor.capacity_s)))
            .collect();
        parts.push(format!(
            "processors {} busy (of them {})",
            percent(processor.busy_s / processor.capacity_s),
            users.join(", ")
        ));
    }
    if record.segments.sent > 0 {
        let again = record.segments.again as f64 / record.segments.sent as f64;
        parts.push(format!("segments sent again: {}", percent(again)));
    }
    if let Some(tail) = tail_s(measured) {
        parts.push(format!(
            "the slowest 1 % of downloads alone: {tail:.2} s of {elapsed:.2} s ({})",
            percent(tail / elapsed)
        ));
    }
    parts.push(balance(measured));
    parts.join("; ")
}

/// Links that are named.
const LINKS_NAMED: usize = 4;

/// Programs that are named.
const USERS_NAMED: usize = 5;

/// How long the last hundredth of a round's downloads was alone, added over rounds: links are not full then.
#[must_use]
pub fn tail_s(measured: &Measured) -> Option<f64> {
    let rounds = measured.samples.iter().map(|sample| sample.round).max()?;
    (0..=rounds)
        .map(|round| {
            let of_round = measured.samples.iter().filter(|one| one.round == round);
            let mut ends: Vec<f64> = of_round.map(|sample| sample.end_s).collect();
            ends.sort_by(f64::total_cmp);
            Some(ends.last()? - quantile(&ends, 0.99)?)
        })
        .sum()
}

/// What each node served.
fn balance(measured: &Measured) -> String {
    let shares: Vec<String> = (1..=measured.record.cell.nodes)
        .map(|node| {
            let of_node = measured.samples.iter().filter(|one| one.node == node);
            let bytes: u64 = of_node.map(|sample| sample.bytes).sum();
            percent(bytes as f64 / measured.times.bytes.max(1) as f64)
        })
        .collect();
    format!("bytes by node: {}", shares.join(", "))
}

/// A part as it is written.
#[must_use]
pub fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::grid::{Grid, Part};
    use super::super::results::tests::ideal;
    use super::*;

    #[test]
    fn a_profile_names_the_busiest_links_first() {
        let results = ideal(Grid::Quick, 100);
        let cell = results.part(Part::Equal)[0];
        let used = links(cell);
        assert!(used.windows(2).all(|two| two[0].part >= two[1].part));
        assert_eq!(used[0].link.host, Host::Client(1));
        let words = words(cell);
        assert!(words.contains("busiest links: to client1"), "{words}");
        assert!(words.contains("bytes by node: 33.3 %"), "{words}");
        assert_eq!(tail_s(cell), Some(0.0));
    }
}
