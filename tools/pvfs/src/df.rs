// SPDX-License-Identifier: MIT
//! `pvfs df`: space on each iod and in all.

use std::process::ExitCode;

use pvfs::attr::Space;
use pvfs::ids::FileSystemId;
use pvfs::proto::iod::{IodRequest, IodResponse};
use pvfs::proto::mgr::{IodStatus, MgrOperation, MgrResponse, StatFs};
use serde::Serialize;

use crate::rpc::{Iod, Mgr, TIMEOUT_DEFAULT};
use crate::target;
use crate::{human, output, table};

/// Command line of `pvfs df`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where mgr is: HOST[:PORT], or a path on a PVFS mount
    #[arg(env = target::MGR_VARIABLE)]
    mgr: Option<String>,
    /// Print JSON, sizes in bytes
    #[arg(long)]
    json: bool,
}

/// One line of the table.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    iod: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alive: Option<bool>,
    bytes_total: u64,
    bytes_used: u64,
    bytes_free: u64,
    bytes_available: u64,
}

impl Row {
    fn new(space: Space) -> Self {
        Self {
            iod: None,
            address: None,
            alive: None,
            bytes_total: space.bytes_total,
            bytes_used: space.bytes_total.saturating_sub(space.bytes_free),
            bytes_free: space.bytes_free,
            bytes_available: space.bytes_available,
        }
    }

    fn of_iod(status: &IodStatus, space: Space, alive: bool) -> Self {
        Self {
            iod: Some(status.iod.0),
            address: Some(status.address.clone()),
            alive: Some(alive),
            ..Self::new(space)
        }
    }
}

#[derive(Debug, Serialize)]
struct Table {
    mgr: String,
    iods: Vec<Row>,
    total: Row,
    inodes_used: u64,
    inodes_free: u64,
}

/// Prints the table. Status 1 where an iod is away: its line then shows what it said last.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let endpoint = target::mgr(args.mgr.as_deref())?;
    let mut mgr = Mgr::connect(&endpoint, TIMEOUT_DEFAULT)?;
    let statfs = match mgr.call(MgrOperation::StatFs)? {
        MgrResponse::StatFs(statfs) => statfs,
        _ => return Err(mgr.unexpected().into()),
    };
    let file_system = mgr.hello.file_system;
    let iods = mgr.iods()?;
    let rows: Vec<Row> = iods.iter().map(|status| ask(status, file_system)).collect();
    let all_alive = rows.iter().all(|row| row.alive == Some(true));
    let table = sum_up(endpoint.to_string(), rows, statfs);
    if args.json {
        output::json(&table)?;
    } else {
        output::lines(render(&table).lines())?;
    }
    Ok(if all_alive {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The iod's own word on its disk, or what mgr heard last.
fn ask(status: &IodStatus, file_system: FileSystemId) -> Row {
    let answer = Iod::connect(status, file_system, TIMEOUT_DEFAULT).and_then(|mut iod| {
        match iod.call(&IodRequest::Space)? {
            IodResponse::Space(space) => Ok(space),
            _ => Err(iod.unexpected()),
        }
    });
    match answer {
        Ok(space) => Row::of_iod(status, space, true),
        Err(error) => {
            output::note(format!("pvfs df: {error}"));
            Row::of_iod(status, status.report.space, false)
        }
    }
}

fn sum_up(mgr: String, iods: Vec<Row>, statfs: StatFs) -> Table {
    // The sum of the lines counts a disk as often as iods share it.
    let total = Row::new(statfs.space);
    let (inodes_used, inodes_free) = (statfs.inodes_used, statfs.inodes_free);
    Table {
        mgr,
        iods,
        total,
        inodes_used,
        inodes_free,
    }
}

fn render(table: &Table) -> String {
    let titles = ["IOD", "ADDRESS", "SIZE", "USED", "AVAIL", "USE%", ""];
    let mut lines = vec![titles.map(str::to_owned)];
    for row in &table.iods {
        let note = if row.alive == Some(true) { "" } else { "away" };
        let name = row.iod.map(|id| id.to_string()).unwrap_or_default();
        lines.push(cells(
            name,
            row.address.clone().unwrap_or_default(),
            row,
            note,
        ));
    }
    lines.push(cells(
        "total".into(),
        format!("mgr {}", table.mgr),
        &table.total,
        "",
    ));
    table::aligned(&lines, 2)
}

fn cells(name: String, address: String, row: &Row, note: &str) -> [String; 7] {
    [
        name,
        address,
        human::bytes(row.bytes_total),
        human::bytes(row.bytes_used),
        human::bytes(row.bytes_available),
        human::percent(row.bytes_used, row.bytes_available),
        note.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::attr::Timestamp;
    use pvfs::ids::{Incarnation, IodId};
    use pvfs::proto::report::{IodReport, IodState};

    fn space(total: u64, free: u64) -> Space {
        Space {
            bytes_total: total,
            bytes_free: free,
            bytes_available: free,
        }
    }

    fn status(id: u32) -> IodStatus {
        let address = format!("node{id}:7000");
        IodStatus {
            iod: IodId(id),
            address,
            incarnation: Incarnation(1),
            state: IodState::Alive,
            state_ms: 0,
            report: IodReport {
                space: space(0, 0),
                inodes_total: 0,
                inodes_free: 0,
                writable: true,
                disk: None,
            },
        }
    }

    #[test]
    fn the_whole_is_what_mgr_says_and_columns_align() {
        let rows = vec![
            Row::of_iod(&status(0), space(10 << 30, 5 << 30), true),
            Row::of_iod(&status(1), space(10 << 30, 5 << 30), true),
            Row::of_iod(&status(12), space(7 << 30, 1 << 30), false),
        ];
        let statfs = StatFs {
            space: space(10 << 30, 5 << 30),
            inodes_used: 3,
            inodes_free: 9,
            now: Timestamp::default(),
            uptime_ms: 0,
            mounts: 0,
        };
        let table = sum_up("head:3000".into(), rows, statfs);
        // Iods 0 and 1 share a disk.
        assert_eq!(table.total.bytes_total, 10 << 30);
        let expected = "\
IOD    ADDRESS        SIZE  USED  AVAIL  USE%\n\
0      node0:7000      10G  5.0G   5.0G   50%\n\
1      node1:7000      10G  5.0G   5.0G   50%\n\
12     node12:7000    7.0G  6.0G   1.0G   86%  away\n\
total  mgr head:3000   10G  5.0G   5.0G   50%\n";
        assert_eq!(render(&table), expected);
    }
}
