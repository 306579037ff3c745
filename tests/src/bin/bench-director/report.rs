// SPDX-License-Identifier: MIT
//! The figures: above the floor, beside stock ip_vs, judged and written down.

use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use cssns::markdown::Section;
use serde::Serialize;

use crate::lab::Measured;

/// What an established packet may cost above the floor, in instructions.
pub const ESTABLISHED_INSTRUCTIONS_MAX: f64 = 800.0;

/// What the first packet of a connection may cost above the floor, in instructions, with
/// [`SERVERS_FEW`] real servers.
pub const NEW_INSTRUCTIONS_MAX: f64 = 2000.0;

/// What each further real server may add to that.
pub const SERVER_INSTRUCTIONS_MAX: f64 = 30.0;

/// The same where weights differ, which takes products to compare.
pub const UNEQUAL_SERVER_INSTRUCTIONS_MAX: f64 = 60.0;

/// The real servers that the goals are set for.
pub const SERVERS_FEW: u32 = 3;

/// What an IPv4 connection may weigh, in bytes.
pub const CONNECTION_BYTES_MAX: f64 = 128.0;

const SECTION: Section = Section {
    heading: "## Director",
    begin: "<!-- bench-director: begin, written by `make bench-director` -->",
    end: "<!-- bench-director: end -->",
};

/// On what the figures were taken.
#[derive(Debug, Serialize)]
pub struct Setup {
    /// The guest's kernel.
    pub kernel: String,
    /// Packets of each measurement.
    pub packets: u32,
}

/// Instructions of a packet, from the generator to the server's drop.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// Of a known connection; with TCP a plain ACK in ESTABLISHED.
    pub established: f64,
    /// The first of a connection; with TCP a SYN.
    pub new: f64,
}

/// The same with each generator.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Costs {
    /// pktgen, packets that are the stack's alone.
    pub udp: Cost,
    /// pktgen as it is by default: it holds a second reference, so whoever writes has to copy.
    pub udp_shared: Cost,
    /// A packet socket.
    pub tcp: Cost,
}

/// The columns, in the order of [`Costs::columns`].
const COLUMNS: [&str; 6] = [
    "UDP estab.",
    "UDP new",
    "TCP estab.",
    "TCP new",
    "shared estab.",
    "shared new",
];

/// The first of the columns in which the generator keeps a reference to each packet.
const SHARED_FROM: usize = 4;

impl Costs {
    /// Of a script that measured all.
    pub fn of(measured: &Measured) -> anyhow::Result<Self> {
        let cost = |name: &str| {
            anyhow::Ok(Cost {
                established: measured.instructions(&format!("{name}-established"), true)?,
                new: measured.instructions(&format!("{name}-new"), true)?,
            })
        };
        Ok(Self {
            udp: cost("udp")?,
            udp_shared: cost("udp-shared")?,
            tcp: cost("tcp")?,
        })
    }

    fn columns(&self) -> [f64; 6] {
        let [udp, tcp, shared] = [self.udp, self.tcp, self.udp_shared];
        [
            udp.established,
            udp.new,
            tcp.established,
            tcp.new,
            shared.established,
            shared.new,
        ]
    }

    /// What is left after the floor.
    fn above(&self, floor: &Self) -> [f64; 6] {
        let mut left = self.columns();
        for (cost, floor) in left.iter_mut().zip(floor.columns()) {
            *cost -= floor;
        }
        left
    }
}

/// A director at work.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its module.
    pub director: &'static str,
    /// Its scheduler.
    pub scheduler: &'static str,
    /// Real servers of the service.
    pub servers: u32,
    /// Their weights are 1 to this one in turn.
    pub weight_largest: u32,
    /// UDP connections in the table before measuring; of TCP there were as many, at most 20,000.
    pub entries: u32,
    /// What its packets cost.
    pub costs: Costs,
}

impl Row {
    fn weights(&self) -> String {
        match self.weight_largest {
            1 => "1".to_owned(),
            largest => format!("1 to {largest}"),
        }
    }
}

/// TCP over IPv6, with [`SERVERS_FEW`] real servers.
#[derive(Debug, Default, Serialize)]
pub struct Ipv6 {
    /// Redirected by `tc mirred`: the floor.
    pub mirred: f64,
    /// The directors.
    pub rows: Vec<Row6>,
}

/// A director at work on IPv6.
#[derive(Debug, Serialize)]
pub struct Row6 {
    /// Its module.
    pub director: &'static str,
    /// Its scheduler.
    pub scheduler: &'static str,
    /// What its packets cost.
    pub cost: Cost,
}

impl Ipv6 {
    /// What is left of a row after the floor: established, new.
    fn above(&self, row: &Row6) -> [f64; 2] {
        [
            row.cost.established - self.mirred,
            row.cost.new - self.mirred,
        ]
    }
}

/// What a connection weighs.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// The module.
    pub director: &'static str,
    /// Free memory before less free memory after, for each connection made.
    pub bytes_per_connection: f64,
}

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    /// On what.
    pub setup: Setup,
    /// Dropped at the director's ingress: the generator alone.
    pub drop: Costs,
    /// Redirected by `tc mirred`: the floor.
    pub mirred: Costs,
    /// Forwarded by the kernel.
    pub forward: Costs,
    /// The directors.
    pub rows: Vec<Row>,
    /// The same of IPv6.
    pub ipv6: Ipv6,
    /// Of the large table; empty in a quick run.
    pub memory: Vec<Memory>,
}

impl Report {
    /// The tables, in Markdown, that are also read well on a terminal.
    pub fn table(&self) -> String {
        let mut text = format!(
            "Linux {}, one emulated processor whose clock counts instructions (`-icount shift=0`), {} \
             packets of 60 bytes for each figure; kernel-wide instructions per packet.\n\n",
            self.setup.kernel, self.setup.packets
        );
        text.push_str(&format!(
            "| {:<40} | {:>7} | {:>7} | {:>10} |\n|{:-<42}|{:->8}:|{:->8}:|{:->11}:|\n",
            "path without a director", "UDP", "TCP", "UDP shared", "", "", "", ""
        ));
        for (what, costs) in [
            ("dropped at ingress: the generator alone", &self.drop),
            ("`tc mirred` redirect: **the floor**", &self.mirred),
            ("plain IPv4 forwarding", &self.forward),
        ] {
            text.push_str(&format!(
                "| {what:<40} | {:>7.0} | {:>7.0} | {:>10.0} |\n",
                costs.udp.established, costs.tcp.established, costs.udp_shared.established
            ));
        }
        text.push_str(
            "\nAbove the floor, and as a part of what stock ip_vs takes for the same:\n\n",
        );
        self.push_rows(&mut text, 0..SHARED_FROM);
        text.push_str(
            "\n*Shared* is pktgen's default: it keeps a reference to each packet, for which the IP layer makes \
             a clone, whose headers have to be copied before a director may write.\n\n",
        );
        self.push_rows(&mut text, SHARED_FROM..COLUMNS.len());
        self.push_ipv6(&mut text);
        if !self.memory.is_empty() {
            self.push_memory(&mut text);
        }
        text
    }

    /// A table of the columns that `shown` says.
    fn push_rows(&self, text: &mut String, shown: Range<usize>) {
        text.push_str(&format!(
            "| {:<14} | {:>7} | {:>7} | {:>7} |",
            "director", "servers", "weights", "entries"
        ));
        for column in COLUMNS.iter().take(shown.end).skip(shown.start) {
            text.push_str(&format!(" {column:>13} |"));
        }
        text.push_str(&format!(
            "\n|{:-<16}|{:->8}:|{:->8}:|{:->8}:|",
            "", "", "", ""
        ));
        text.push_str(&format!("{:->14}:|", "").repeat(shown.len()));
        text.push('\n');
        for row in &self.rows {
            text.push_str(&format!(
                "| {:<14} | {:>7} | {:>7} | {:>7} |",
                format!("{} {}", row.director, row.scheduler),
                row.servers,
                row.weights(),
                row.entries
            ));
            let stock = self.stock_for(row).map(|row| row.costs.above(&self.mirred));
            let costs = row.costs.above(&self.mirred).into_iter().enumerate();
            for (column, cost) in costs.filter(|(column, _)| shown.contains(column)) {
                let part = stock.and_then(|stock| stock.get(column).copied());
                text.push_str(&format!(" {:>13} |", cell(cost, part, row.director)));
            }
            text.push('\n');
        }
    }

    fn push_ipv6(&self, text: &mut String) {
        text.push_str(&format!(
            "\nThe same of TCP over IPv6, above a floor of {:.0}; three real servers, 1,000 entries.\n\n\
             | {:<14} | {:>13} | {:>13} |\n|{:-<16}|{:->14}:|{:->14}:|\n",
            self.ipv6.mirred, "director", "established", "new", "", "", ""
        ));
        let stock = self.ipv6.rows.iter().find(|row| row.director == "ip_vs");
        let stock = stock.map(|row| self.ipv6.above(row));
        for row in &self.ipv6.rows {
            let name = format!("{} {}", row.director, row.scheduler);
            text.push_str(&format!("| {name:<14} |"));
            for (column, cost) in self.ipv6.above(row).into_iter().enumerate() {
                let part = stock.and_then(|stock| stock.get(column).copied());
                text.push_str(&format!(" {:>13} |", cell(cost, part, row.director)));
            }
            text.push('\n');
        }
    }

    fn push_memory(&self, text: &mut String) {
        let figures: Vec<String> = self
            .memory
            .iter()
            .map(|memory| {
                format!(
                    "{} {:.0} bytes",
                    memory.director, memory.bytes_per_connection
                )
            })
            .collect();
        text.push_str(&format!(
            "\nMemory of a connection in the large table, with its part of the table, from free memory before \
             there was a service and after: {}.\n",
            figures.join(", ")
        ));
    }

    /// The stock director's row of the same servers and entries.
    fn stock_for(&self, row: &Row) -> Option<&Row> {
        self.rows.iter().find(|stock| {
            stock.director == "ip_vs"
                && stock.servers == row.servers
                && stock.weight_largest == row.weight_largest
                && stock.entries == row.entries
        })
    }

    /// Says what of the goals is missed; whether all are reached.
    pub fn judge(&self) -> bool {
        let mut missed = Vec::new();
        for row in self.rows.iter().filter(|row| row.director != "ip_vs") {
            let further = row.servers.saturating_sub(SERVERS_FEW);
            let each = match row.weight_largest {
                1 => SERVER_INSTRUCTIONS_MAX,
                _ => UNEQUAL_SERVER_INSTRUCTIONS_MAX,
            };
            let new_max = NEW_INSTRUCTIONS_MAX + each * f64::from(further);
            let limits = [ESTABLISHED_INSTRUCTIONS_MAX, new_max].into_iter().cycle();
            let costs = row.costs.above(&self.mirred).into_iter().zip(limits);
            for (what, (cost, limit)) in COLUMNS.into_iter().zip(costs) {
                if cost > limit {
                    missed.push(format!(
                        "{} with {} real servers of weight {} and {} entries, {what}: {cost:.0} above the \
                            floor, {limit} wanted",
                        row.scheduler, row.servers, row.weights(), row.entries
                    ));
                }
            }
        }
        for row in self.ipv6.rows.iter().filter(|row| row.director != "ip_vs") {
            let limits = [ESTABLISHED_INSTRUCTIONS_MAX, NEW_INSTRUCTIONS_MAX];
            let costs = self.ipv6.above(row).into_iter().zip(limits);
            for (what, (cost, limit)) in ["established", "new"].into_iter().zip(costs) {
                if cost > limit {
                    missed.push(format!(
                        "{} over IPv6, {what}: {cost:.0} above the floor, {limit} wanted",
                        row.scheduler
                    ));
                }
            }
        }
        for memory in self
            .memory
            .iter()
            .filter(|memory| memory.director != "ip_vs")
        {
            if memory.bytes_per_connection > CONNECTION_BYTES_MAX {
                missed.push(format!(
                    "a connection weighs {:.0} bytes, {CONNECTION_BYTES_MAX} wanted",
                    memory.bytes_per_connection
                ));
            }
        }
        for text in &missed {
            println!("missed: {text}");
        }
        missed.is_empty()
    }

    /// Writes `json` and the section of `document` between the markers, which is made if missing.
    pub fn write(&self, json: &Path, document: &Path) -> anyhow::Result<()> {
        if let Some(dir) = json.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(json, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| json.display().to_string())?;
        SECTION.write(document, &self.table())
    }
}

/// A cost, and as a part of stock ip_vs's if it is another director's.
fn cell(cost: f64, stock: Option<f64>, director: &str) -> String {
    match stock {
        Some(stock) if director != "ip_vs" => format!("{cost:.0} ({:.0}%)", 100.0 * cost / stock),
        _ => format!("{cost:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(established: f64, new: f64) -> Costs {
        let cost = Cost { established, new };
        Costs {
            udp: cost,
            udp_shared: cost,
            tcp: cost,
        }
    }

    fn row6(director: &'static str, established: f64) -> Row6 {
        Row6 {
            director,
            scheduler: "wlc",
            cost: Cost {
                established,
                new: established + 1000.0,
            },
        }
    }

    fn report(ours: f64, ours6: f64) -> Report {
        let row = |director, scheduler, each| Row {
            director,
            scheduler,
            servers: 3,
            weight_largest: 1,
            entries: 1000,
            costs: costs(each, each + 1000.0),
        };
        let flat = |each| costs(each, each);
        Report {
            setup: Setup {
                kernel: "7".into(),
                packets: 1,
            },
            drop: flat(3000.0),
            mirred: flat(4000.0),
            forward: flat(7000.0),
            rows: vec![row("ip_vs", "wlc", 8000.0), row("ipvs_mwlc", "mwlc", ours)],
            ipv6: Ipv6 {
                mirred: 4000.0,
                rows: vec![row6("ip_vs", 8000.0), row6("ipvs_mwlc", ours6)],
            },
            memory: Vec::new(),
        }
    }

    #[test]
    fn costs_are_above_the_floor_and_beside_ip_vs() {
        let table = report(5000.0, 6000.0).table();
        assert!(table.contains("1000 (25%)"), "{table}");
        assert!(table.contains("2000 (40%)"), "{table}");
        assert!(
            table.contains("| ipvs_mwlc wlc  |    2000 (50%) |    3000 (60%) |"),
            "{table}"
        );
    }

    #[test]
    fn goals_are_judged() {
        assert!(report(4800.0, 4800.0).judge());
        assert!(!report(4801.0, 4800.0).judge());
        assert!(!report(4800.0, 4801.0).judge());
    }
}
