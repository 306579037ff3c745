// SPDX-License-Identifier: MIT
//! `mwlcadm sizes` and `mwlcadm nodes`: what the director knows of files and of nodes.

use std::io::{self, Write};

use clap::Subcommand;
use ipvs_mwlc::director::load::{Learn, SizePolicy};
use serde::Serialize;

use crate::error::Error;
use crate::mwlc::{FileName, FileSize, Mwlc, NodeReport, ServiceSizes};
use crate::show::write_json;
use crate::values::{parse_duration_ms, parse_size, show_duration, show_size};

/// What to do with the sizes of files.
#[derive(Debug, Subcommand)]
pub enum Change {
    /// Tell the director the size of a file
    Set {
        /// The host that clients ask for; none where they name none
        #[arg(long, value_name = "NAME", default_value = "")]
        host: String,
        /// The file's path in requests, like /index.html
        path: String,
        /// Bytes, or with a unit: 10M or 10MiB (of 1024), 10MB (of 1000)
        #[arg(value_parser = parse_size)]
        size: u64,
        /// For how long that is believed, at most an hour; a minute unless given
        #[arg(long, value_name = "TIME", value_parser = parse_duration_ms)]
        ttl: Option<u64>,
    },
    /// Have the director forget the size of a file
    Delete {
        /// The host that clients ask for; none where they name none
        #[arg(long, value_name = "NAME", default_value = "")]
        host: String,
        /// The file's path in requests
        path: String,
    },
    /// Have the director forget the sizes of all files
    Flush,
}

/// Carries out a change.
pub fn change(change: &Change) -> Result<(), Error> {
    let name = |host: &str, path: &str| FileName {
        host: host.to_ascii_lowercase().into_bytes(),
        path: path.as_bytes().to_vec(),
    };
    let mut mwlc = Mwlc::open()?;
    match change {
        Change::Set {
            host,
            path,
            size,
            ttl,
        } => mwlc.set_file_size(&name(host, path), *size, *ttl),
        Change::Delete { host, path } => mwlc.forget_file_size(Some(&name(host, path))),
        Change::Flush => mwlc.forget_file_size(None),
    }
}

/// Everything that is known of sizes.
#[derive(Debug, PartialEq, Serialize)]
struct Sizes {
    services: Vec<ServiceRow>,
    files: Vec<FileRow>,
}

#[derive(Debug, PartialEq, Serialize)]
struct ServiceRow {
    protocol: &'static str,
    service: String,
    expected_size_bytes: u64,
    configured_size_bytes: u64,
    size_policy: &'static str,
    learned_sizes: u64,
    learn: &'static str,
    remaining: bool,
    slow_start_ms: u32,
}

#[derive(Debug, PartialEq, Serialize)]
struct FileRow {
    host: String,
    path: String,
    size_bytes: Option<u64>,
    ttl_ms: u64,
}

/// Writes what services expect and the sizes of files.
pub fn show(json: bool, output: &mut impl Write) -> Result<(), Error> {
    let mut mwlc = Mwlc::open()?;
    let sizes = sizes(mwlc.services()?, mwlc.file_sizes()?);
    if json {
        return write_json(&sizes, output);
    }
    write_sizes(&sizes, output).map_err(Error::Output)
}

fn sizes(mut services: Vec<ServiceSizes>, mut files: Vec<FileSize>) -> Sizes {
    services.sort_by_key(|service| service.name);
    files.sort_by(|one, other| one.name.cmp(&other.name));
    let service = |service: &ServiceSizes| ServiceRow {
        protocol: service.name.protocol_name(),
        service: service.name.endpoint_text(),
        expected_size_bytes: service.expected_bytes,
        configured_size_bytes: service.configured_bytes,
        size_policy: match service.size_policy {
            SizePolicy::Configured => "configured",
            SizePolicy::Learned => "learned",
        },
        learned_sizes: service.learned_count,
        learn: match service.learn {
            Learn::Off => "off",
            Learn::Http => "http",
        },
        remaining: service.remaining,
        slow_start_ms: service.slow_start_ms,
    };
    let file = |file: &FileSize| FileRow {
        host: file.name.host.escape_ascii().to_string(),
        path: file.name.path.escape_ascii().to_string(),
        size_bytes: file.size_bytes,
        ttl_ms: file.ttl_ms,
    };
    Sizes {
        services: services.iter().map(service).collect(),
        files: files.iter().map(file).collect(),
    }
}

fn write_sizes(sizes: &Sizes, output: &mut impl Write) -> io::Result<()> {
    let switch = |on| if on { "on" } else { "off" };
    writeln!(
        output,
        "{:<4} {:<21} {:>10} {:>10} {:<10} {:>8} {:<5} {:<9} Slow start",
        "Prot", "Service", "Expected", "Configured", "Policy", "Learned", "Learn", "Remaining"
    )?;
    for row in &sizes.services {
        writeln!(
            output,
            "{:<4} {:<21} {:>10} {:>10} {:<10} {:>8} {:<5} {:<9} {}",
            row.protocol,
            row.service,
            show_size(row.expected_size_bytes as f64),
            show_size(row.configured_size_bytes as f64),
            row.size_policy,
            row.learned_sizes,
            row.learn,
            switch(row.remaining),
            show_duration(row.slow_start_ms.into())
        )?;
    }
    writeln!(output, "\n{:>10} {:>10}  File", "Size", "Expires in")?;
    for row in &sizes.files {
        let size = match row.size_bytes {
            Some(bytes) => show_size(bytes as f64),
            None => "unknown".to_owned(),
        };
        // Whole seconds are enough to look at.
        let ttl = show_duration(row.ttl_ms / 1000 * 1000);
        writeln!(output, "{size:>10} {ttl:>10}  {}{}", row.host, row.path)?;
    }
    Ok(())
}

/// Writes what nodes report.
pub fn show_nodes(json: bool, output: &mut impl Write) -> Result<(), Error> {
    let mut nodes = Mwlc::open()?.nodes()?;
    nodes.sort_by_key(|node| node.address);
    if json {
        return write_json(&nodes, output);
    }
    write_nodes(&nodes, output).map_err(Error::Output)
}

fn write_nodes(nodes: &[NodeReport], output: &mut impl Write) -> io::Result<()> {
    writeln!(
        output,
        "{:<21} {:>10} {:>10} {:>7} {:>7} {:>9}",
        "Node", "Open", "Files", "Memory", "CPU", "Reported"
    )?;
    let percent = |permille: Option<u32>| match permille {
        Some(permille) => format!("{}.{} %", permille / 10, permille % 10),
        None => "-".to_owned(),
    };
    for node in nodes {
        let files = node
            .open_files
            .map_or("-".to_owned(), |count| count.to_string());
        writeln!(
            output,
            "{:<21} {:>10} {files:>10} {:>7} {:>7} {:>9}",
            node.address.to_string(),
            show_size(node.open_bytes as f64),
            percent(node.memory_permille),
            percent(node.cpu_permille),
            format!("{} ago", show_duration(node.age_ms / 1000 * 1000))
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_nodes_are_tables() {
        let file = |path: &[u8], size_bytes| FileSize {
            name: FileName {
                host: b"files".to_vec(),
                path: path.to_vec(),
            },
            size_bytes,
            ttl_ms: 59_500,
        };
        let shown = sizes(vec![], vec![file(b"/b\n", None), file(b"/a", Some(2048))]);
        let mut output = Vec::new();
        write_sizes(&shown, &mut output).unwrap();
        let text = String::from_utf8(output).unwrap();
        let tail = "      Size Expires in  File\n   2.0 KiB        59s  files/a\n   unknown        59s  files/b\\n\n";
        assert!(text.ends_with(tail), "{text}");
        let node = NodeReport {
            address: [10, 0, 0, 1].into(),
            open_bytes: 1 << 20,
            open_files: Some(3),
            memory_permille: Some(415),
            cpu_permille: None,
            age_ms: 1_200,
        };
        let mut output = Vec::new();
        write_nodes(&[node], &mut output).unwrap();
        let text = String::from_utf8(output).unwrap();
        let row = "10.0.0.1                 1.0 MiB          3  41.5 %       -    1s ago";
        assert_eq!(text.lines().nth(1), Some(row), "{text}");
    }
}
