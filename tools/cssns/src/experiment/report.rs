// SPDX-License-Identifier: MIT
//! The report: what was measured and how, tables and figures beside the paper's, goals, and why a goal is
//! missed where one is.

use super::document::{Block, html, markdown};
use super::grid::Part;
use super::links::{CONGESTION_CONTROL, CONTENT_SHARE_MAX};
use super::results::{NODE_MEMORY_BYTES, Results};
use super::sample::{self, CSV_HEAD};
use super::work::BROWSING_LOAD;
use super::{goals, picture, tables};
use anyhow::Context as _;
use std::path::Path;

/// The report's title.
const TITLE: &str = "The paper's experiment";

/// What stands before the names of pictures beside the documentation's page.
const DOCS_PREFIX: &str = "experiment-";

/// What this machine is.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Its kernel.
    pub kernel: String,
    /// Its processors.
    pub processors: usize,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn this() -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            kernel: kernel.trim().to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// The report's parts.
///
/// # Errors
/// When a figure cannot be drawn.
pub fn blocks(results: &Results, machine: &Machine) -> anyhow::Result<Vec<Block>> {
    let summary = results.summary();
    let goals = goals::all(results, &summary);
    let mut blocks = vec![
        Block::Paragraph(scope(results, machine)),
        Block::Heading("Goals".to_owned()),
        Block::Table(goals::table(&goals)),
    ];
    blocks.extend(goals::why(&goals).into_iter().map(Block::Paragraph));
    blocks.push(Block::Paragraph(limits()));
    blocks.push(Block::Heading("How it is measured".to_owned()));
    blocks.push(Block::Lines(TOPOLOGY.to_owned()));
    blocks.extend(METHOD.map(|text| Block::Paragraph(text.to_owned())));
    blocks.push(Block::Paragraph(memory_method()));
    blocks.push(Block::Heading("Tables 1 to 7".to_owned()));
    blocks.push(Block::Paragraph(
        "Our reading of the paper's seven tables. Of its values only those that stand beside ours are known here."
            .to_owned(),
    ));
    if !results.part(Part::Paper).is_empty() {
        blocks.extend(tables::papers(results).into_iter().map(Block::Table));
        blocks.push(Block::Heading("Figures 4 to 6 and equations".to_owned()));
        blocks.extend(figures(results)?);
        blocks.push(Block::Table(tables::equations(results)));
    }
    if let Some(table) = tables::own_files(results) {
        blocks.push(Block::Heading("Each process its own file".to_owned()));
        blocks.push(Block::Paragraph(
            "Nothing is read twice, so a node's link to the storage carries as much as that to the clients, \
             in the other direction, and the three I/O daemons' links together carry no more than the nodes' \
             can send."
                .to_owned(),
        ));
        blocks.push(Block::Table(table));
    }
    blocks.extend(schedulers(results));
    blocks.push(Block::Heading("What held the largest cells up".to_owned()));
    blocks.push(Block::List(tables::profiles(results)));
    Ok(blocks)
}

fn scope(results: &Results, machine: &Machine) -> String {
    let minutes = results
        .all()
        .iter()
        .map(|cell| cell.times.elapsed_s)
        .sum::<f64>()
        / 60.0;
    let downloads: usize = results.all().iter().map(|cell| cell.samples.len()).sum();
    let scaled = if results.scale == 1 {
        "File sizes are the paper's.".to_owned()
    } else {
        format!(
            "**File sizes are the paper's divided by {}**, so that it ends in time: where FS 50 MB is said, \
             {:.3} MB were downloaded. Times are as measured, with the small files; rates and ratios compare \
             with the paper's.",
            results.scale,
            50.0 / f64::from(results.scale)
        )
    };
    format!(
        "Section 4 of the paper, run for real by `make experiment`: {} cells, {downloads} downloads, \
         {minutes:.1} minutes of transfers, all in one run. {scaled} Every byte of every download was \
         compared with what was stored (SHA-256). Machine: {} processors, Linux {}; TCP congestion control \
         {CONGESTION_CONTROL}.",
        results.all().len(),
        machine.processors,
        machine.kernel
    )
}

fn limits() -> String {
    format!(
        "A link's 12.5 MB/s are counted in Ethernet frames; of a full frame {:.1} % are content, which is the \
         most that any share of a link here can be. Ratios of completion times are sums over the grid's \
         cells, so large cells weigh most.",
        CONTENT_SHARE_MAX * 100.0
    )
}

/// The networks; drawn whole in `experiment/topology.rs`.
const TOPOLOGY: &str = "
clients' network    client1 client2 client3     director (VIP)     node1 node2 node3
dispatch network                                director           node1 node2 node3
storage network     manager iod1 iod2 iod3                         node1 node2 node3
";

/// How it is measured, in words.
const METHOD: [&str; 4] = [
    "**Networks.** Three, as in the paper's figure 3. A request goes to the VIP on the clients' network, \
     leaves the director on the dispatch network, where the real servers' addresses are, and is answered by \
     the node straight over the clients' network. Stripes come over the storage network. Every host has a \
     link of its own to each network that it is on, 100 Mbit/s in each direction by a token bucket of 16 kB \
     at both ends; the I/O daemons and the manager are hosts of their own. One node without a director means \
     that clients ask the node's own address.",
    "**Downloads.** PN processes on three client machines, started 1 ms apart on each, each one download over \
     a connection of its own. Completion time: from the first SYN to the last byte of the last process. All \
     processes of a cell download the same file, which is how we read the paper (it names files by their size \
     alone); no node has read it before the cell begins, so each node fetches it once from the I/O daemons, \
     and after that it is in the node's page cache under a lease. The other reading, each process its own \
     file, is measured for the largest cell.",
    "**Mixed sizes.** Pareto, alpha 1.2, 8 MB to 1,600 MB before scaling, mean 31 MB: 450 files, each \
     downloaded once in a round, in another order each round, the same for all schedulers; processes start 10 \
     ms apart on each client machine. Files are read once on every node beforehand, so that scheduling is \
     what differs, and `mwlcd` on the director answers what they weigh when a client asks for one.",
    "**Director.** A guest with the stock Debian kernel and our module (or the stock `ip_vs`), emulated. Its \
     share of bytes: what its link to the clients' network received, over what the client machines' links \
     received, frames with all headers.",
];

fn memory_method() -> String {
    format!(
        "**Memory.** U: what a node's processes hold that no file backs, and what its sockets hold, the most \
         that was seen in looks every half second, in percent of {} GiB, an ordinary PC's memory (the paper's \
         is not known here). Page cache is not counted: the kernel takes it back when somebody needs memory. \
         P S is PN times FS before scaling: buffers depend on how many transfers there are, not on how long \
         they last.",
        NODE_MEMORY_BYTES >> 30
    )
}

fn figures(results: &Results) -> anyhow::Result<Vec<Block>> {
    let picture = |name: &str, title: &str, svg: String| Block::Picture {
        name: name.to_owned(),
        title: title.to_owned(),
        svg,
    };
    Ok(vec![
        picture(
            "figure4",
            "Figure 4: completion time over processes, largest files",
            picture::completion_times(results)?,
        ),
        picture(
            "figure5",
            "Figure 5: performance over added nodes, equation (4)",
            picture::performance(results)?,
        ),
        picture(
            "figure6",
            "Figure 6: memory utility over work, equation (5)",
            picture::memory(results)?,
        ),
    ])
}

fn schedulers(results: &Results) -> Vec<Block> {
    let browsing = format!(
        "Clients that come in their own time ({:.0} % of the links' rate), take a file of the mix and keep \
            their connection for 5 s",
        BROWSING_LOAD * 100.0
    );
    let parts = [
        (Part::Equal, "Equal sizes, the largest cell, three nodes"),
        (Part::Mixed, "Mixed sizes, three equal nodes"),
        (
            Part::Unequal,
            "Mixed sizes, node 3 with half the rate, weights 2:2:1",
        ),
        (Part::Browsing, browsing.as_str()),
    ];
    let tables: Vec<Block> = parts
        .into_iter()
        .filter_map(|(part, title)| tables::schedulers(results, part, title))
        .map(Block::Table)
        .collect();
    if tables.is_empty() {
        return tables;
    }
    let mut blocks = vec![
        Block::Heading("Schedulers".to_owned()),
        Block::Paragraph(
            "By turns in the same cluster. `mwlc` counts the whole size of each requested file until its \
             connection ends, as in the paper; `-remaining`: less what the client has acknowledged. What each \
             counts: docs/SCHEDULING.md. A p99 is followed by its 95 % confidence interval (order statistics, \
             as if downloads were independent): where intervals overlap by much, one run does not tell \
             schedulers apart."
                .to_owned(),
        ),
    ];
    blocks.extend(tables);
    blocks
}

/// Writes report.html, summary.json, samples.csv, and each figure as SVG and PNG into a directory.
///
/// # Errors
/// Names the file that cannot be written, or says why a figure cannot be drawn.
pub fn write(results: &Results, machine: &Machine, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let blocks = blocks(results, machine)?;
    put(dir, "report.html", html(TITLE, &blocks).as_bytes())?;
    for block in &blocks {
        if let Block::Picture { name, svg, .. } = block {
            put(dir, &format!("{name}.svg"), svg.as_bytes())?;
            put(dir, &format!("{name}.png"), &picture::png(svg)?)?;
        }
    }
    let samples = results
        .all()
        .iter()
        .map(|cell| sample::to_lines(&cell.record.cell.key(), &cell.samples))
        .collect::<String>();
    put(
        dir,
        "samples.csv",
        format!("{CSV_HEAD}\n{samples}").as_bytes(),
    )?;
    let summary = serde_json::to_string_pretty(&results.summary())?;
    put(dir, "summary.json", format!("{summary}\n").as_bytes())
}

/// Writes the documentation's page and its pictures beside it.
///
/// # Errors
/// As [`write()`].
pub fn write_docs(results: &Results, machine: &Machine, file: &Path) -> anyhow::Result<()> {
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let blocks = blocks(results, machine)?;
    for block in &blocks {
        if let Block::Picture { name, svg, .. } = block {
            put(dir, &format!("{DOCS_PREFIX}{name}.svg"), svg.as_bytes())?;
        }
    }
    let text = markdown(TITLE, &blocks, DOCS_PREFIX);
    std::fs::write(file, text).with_context(|| file.display().to_string())
}

fn put(dir: &Path, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, content).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::grid::Grid;
    use super::super::results::tests::ideal;
    use super::super::sample::from_csv;
    use super::*;

    #[test]
    fn everything_is_written_and_the_samples_are_all_there() {
        let home = tempfile::tempdir().unwrap();
        let results = ideal(Grid::Quick, 200);
        write(&results, &Machine::this(), home.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap();
        let downloads: usize = results.all().iter().map(|cell| cell.samples.len()).sum();
        assert_eq!(from_csv(&read("samples.csv")).unwrap().len(), downloads);
        let summary: serde_json::Value = serde_json::from_str(&read("summary.json")).unwrap();
        assert_eq!(summary["scale"], 200);
        assert!(summary["three_nodes_ratio"].is_f64());
        let page = read("report.html");
        assert_eq!(page.matches("<svg").count(), 3);
        for words in ["divided by 200", "Table 7", "Goals", "wlc of stock ip_vs"] {
            assert!(page.contains(words), "{words}");
        }
        for figure in ["figure4", "figure5", "figure6"] {
            for extension in ["svg", "png"] {
                let path = home.path().join(format!("{figure}.{extension}"));
                assert!(path.metadata().unwrap().len() > 1000, "{}", path.display());
            }
        }
        let docs = home.path().join("EXPERIMENT.md");
        write_docs(&results, &Machine::this(), &docs).unwrap();
        let text = read("EXPERIMENT.md");
        assert!(text.contains("(experiment-figure5.svg)"));
        assert!(home.path().join("experiment-figure5.svg").exists());
    }
}
