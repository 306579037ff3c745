// SPDX-License-Identifier: MIT
//! The figures: kept as the best of all rounds, compared with the lower limit, written down.

use std::path::Path;

use anyhow::Context;
use cssns::markdown::Section;
use serde::Serialize;

/// What cold sequential reads through PVFS must reach of the lower limit.
pub const COLD_READ_PERCENT_MIN: f64 = 40.0;

const SECTION: Section = Section {
    heading: "## PVFS",
    begin: "<!-- bench-pvfs: begin, written by `make bench-pvfs` -->",
    end: "<!-- bench-pvfs: end -->",
};

/// On what the figures were taken.
#[derive(Debug, Serialize)]
pub struct Setup {
    /// The processor's name.
    pub cpu: String,
    /// Processors.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Processes that wanted a processor in the minute before: other work disturbs the figures.
    pub load_average: f64,
    /// Number of iods.
    pub iods: u16,
    /// Bytes of each job's file.
    pub file_bytes: u64,
    /// Rounds, of which the best counts.
    pub rounds: u32,
}

/// One load. A figure that does not exist for a layer is 0.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which load.
    pub load: &'static str,
    /// Of the figures.
    pub unit: &'static str,
    /// PVFS, three iods on tmpfs.
    pub pvfs: f64,
    /// A FUSE file system that does nothing.
    pub null_fuse: f64,
    /// TCP on the loopback.
    pub tcp: f64,
    /// A local tmpfs.
    pub tmpfs: f64,
}

impl Row {
    /// A row without figures yet.
    pub const fn new(load: &'static str, unit: &'static str) -> Self {
        Self {
            load,
            unit,
            pvfs: 0.0,
            null_fuse: 0.0,
            tcp: 0.0,
            tmpfs: 0.0,
        }
    }

    /// The slowest of the layers below PVFS: nothing built on them can be faster.
    pub fn lower_limit(&self) -> f64 {
        [self.null_fuse, self.tcp, self.tmpfs]
            .into_iter()
            .filter(|figure| *figure > 0.0)
            .fold(f64::INFINITY, f64::min)
    }

    /// PVFS in percent of it.
    pub fn percent(&self) -> f64 {
        100.0 * self.pvfs / self.lower_limit()
    }
}

/// Keeps the better figure.
pub fn best(kept: &mut f64, figure: f64) {
    *kept = kept.max(figure);
}

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    /// On what.
    pub setup: Setup,
    /// The loads.
    pub rows: Vec<Row>,
}

impl Report {
    /// The table, in Markdown, that is also read well on a terminal.
    pub fn table(&self) -> String {
        let setup = &self.setup;
        let mut text = format!(
            "{} ({} cores), Linux {}; `pvfs dev` with {} iods on tmpfs, files of {} MiB, best of {} \
             rounds, all layers in the same run; load average before it {:.1}.\n\n",
            setup.cpu,
            setup.cores,
            setup.kernel,
            setup.iods,
            setup.file_bytes >> 20,
            setup.rounds,
            setup.load_average
        );
        text.push_str(&format!(
            "| {:<34} | {:<7} | {:>8} | {:>9} | {:>8} | {:>8} | {:>14} |\n",
            "load", "unit", "PVFS", "null FUSE", "TCP", "tmpfs", "of lower limit"
        ));
        text.push_str(&format!(
            "|{:-<36}|{:-<9}|{:->9}:|{:->10}:|{:->9}:|{:->9}:|{:->15}:|\n",
            "", "", "", "", "", "", ""
        ));
        for row in &self.rows {
            text.push_str(&format!(
                "| {:<34} | {:<7} | {:>8} | {:>9} | {:>8} | {:>8} | {:>13.0}% |\n",
                row.load,
                row.unit,
                figure(row.pvfs, row.unit),
                figure(row.null_fuse, row.unit),
                figure(row.tcp, row.unit),
                figure(row.tmpfs, row.unit),
                row.percent()
            ));
        }
        text.push_str(
            "\nThe lower limit of a load is the slowest of the layers that it passes: FUSE with a \
             file system that does nothing, TCP on the loopback (best of 1, 2 and 3 streams; for the \
             small loads, round trips of 64 bytes against 4 KiB), a local tmpfs.\n",
        );
        text
    }

    /// Writes `json` and the section of `document` between the markers, which is made if missing.
    ///
    /// # Errors
    ///
    /// Where a file cannot be read or written.
    pub fn write(&self, json: &Path, document: &Path) -> anyhow::Result<()> {
        if let Some(dir) = json.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(json, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| json.display().to_string())?;
        SECTION.write(document, &self.table())
    }
}

fn figure(figure: f64, unit: &str) -> String {
    match unit {
        _ if figure <= 0.0 => "-".into(),
        "GB/s" => format!("{figure:.2}"),
        _ => format!("{figure:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_layer_is_the_limit() {
        let mut row = Row::new("load", "GB/s");
        (row.pvfs, row.null_fuse, row.tcp, row.tmpfs) = (1.0, 8.0, 4.0, 6.0);
        assert!((row.percent() - 25.0).abs() < 1e-9);
        row.tcp = 0.0;
        assert!((row.lower_limit() - 6.0).abs() < 1e-9);
    }
}
