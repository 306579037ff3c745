// SPDX-License-Identifier: MIT
//! `pvfs status`: the whole file system on one screen, as mgr knows it.

use std::process::ExitCode;
use std::time::Duration;

use pvfs::address::Endpoint;
use pvfs::proto::mgr::{IodStatus, MgrOperation, MgrResponse, StatFs};
use pvfs::proto::report::IodReport;
use serde::Serialize;

use crate::rpc::{Mgr, RpcError};
use crate::{human, output, ping, table, target};

/// Command line of `pvfs status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where mgr is: HOST[:PORT], or a path on a PVFS mount
    #[arg(env = target::MGR_VARIABLE)]
    mgr: Option<String>,
    /// Print JSON: sizes in bytes, times in milliseconds
    #[arg(long)]
    json: bool,
    /// Seconds that mgr may take to answer
    #[arg(long, default_value_t = 2.0, value_parser = ping::seconds)]
    timeout: f64,
}

/// What mgr says of itself and of its iods.
#[derive(Debug, Serialize)]
struct Status {
    mgr: String,
    alive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    known: Option<Known>,
}

#[derive(Debug, Serialize)]
struct Known {
    file_system: String,
    uptime_ms: u64,
    mounts: u32,
    bytes_total: u64,
    bytes_free: u64,
    bytes_available: u64,
    inodes_used: u64,
    inodes_free: u64,
    iods: Vec<Iod>,
}

#[derive(Debug, Serialize)]
struct Iod {
    iod: u32,
    address: String,
    state: &'static str,
    state_ms: u64,
    bytes_total: u64,
    bytes_free: u64,
    bytes_available: u64,
    inodes_total: u64,
    inodes_free: u64,
    writable: bool,
    #[serde(skip)]
    alive: bool,
}

impl Iod {
    fn new(status: &IodStatus) -> Self {
        let IodReport {
            space,
            inodes_total,
            inodes_free,
            writable,
            disk: _,
        } = status.report;
        Self {
            iod: status.iod.0,
            address: status.address.clone(),
            state: status.state.word(),
            state_ms: status.state_ms,
            bytes_total: space.bytes_total,
            bytes_free: space.bytes_free,
            bytes_available: space.bytes_available,
            inodes_total,
            inodes_free,
            writable,
            alive: status.state.is_alive(),
        }
    }
}

impl Known {
    fn new(file_system: u128, statfs: &StatFs, iods: &[IodStatus]) -> Self {
        Self {
            file_system: format!("{file_system:032x}"),
            uptime_ms: statfs.uptime_ms,
            mounts: statfs.mounts,
            bytes_total: statfs.space.bytes_total,
            bytes_free: statfs.space.bytes_free,
            bytes_available: statfs.space.bytes_available,
            inodes_used: statfs.inodes_used,
            inodes_free: statfs.inodes_free,
            iods: iods.iter().map(Iod::new).collect(),
        }
    }

    /// Nothing is away, and new files have a place.
    fn is_well(&self) -> bool {
        !self.iods.is_empty() && self.iods.iter().all(|iod| iod.alive)
    }
}

/// Status 0: mgr and all iods are alive; 1: something is not; 2: whom to ask is not clear.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let endpoint = match target::mgr(args.mgr.as_deref()) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            output::note(format!("pvfs status: {error}"));
            return Ok(ExitCode::from(ping::USAGE_STATUS));
        }
    };
    let timeout = Duration::from_secs_f64(args.timeout);
    let asked = ask(&endpoint, timeout);
    let is_well = asked.as_ref().is_ok_and(Known::is_well);
    let mgr = endpoint.to_string();
    if args.json {
        let (known, error) = match asked {
            Ok(known) => (Some(known), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let alive = known.is_some();
        output::json(&Status {
            mgr,
            alive,
            error,
            known,
        })?;
    } else {
        match asked {
            Ok(known) => output::lines(render(&mgr, &known).lines())?,
            Err(error) => output::line(error)?,
        }
    }
    Ok(match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn ask(endpoint: &Endpoint, timeout: Duration) -> Result<Known, RpcError> {
    let mut mgr = Mgr::connect(endpoint, timeout)?;
    let statfs = match mgr.call(MgrOperation::StatFs)? {
        MgrResponse::StatFs(statfs) => statfs,
        _ => return Err(mgr.unexpected()),
    };
    let iods = mgr.iods()?;
    Ok(Known::new(mgr.hello.file_system.0, &statfs, &iods))
}

fn render(mgr: &str, known: &Known) -> String {
    let up = human::time(Duration::from_millis(known.uptime_ms));
    let mounts = match known.mounts {
        1 => "1 mount".to_owned(),
        mounts => format!("{mounts} mounts"),
    };
    let titles = [
        "IOD", "ADDRESS", "STATE", "FOR", "SIZE", "USED", "AVAIL", "USE%", "IUSE%", "",
    ];
    let mut lines = vec![titles.map(str::to_owned)];
    lines.extend(known.iods.iter().map(|iod| {
        let space = (iod.bytes_total, iod.bytes_free, iod.bytes_available);
        let inodes_used = iod.inodes_total.saturating_sub(iod.inodes_free);
        let [size, used, available, percent] = sizes(space);
        [
            iod.iod.to_string(),
            iod.address.clone(),
            iod.state.to_owned(),
            human::time(Duration::from_millis(iod.state_ms)),
            size,
            used,
            available,
            percent,
            human::percent(inodes_used, iod.inodes_free),
            if iod.writable { "" } else { "not writable" }.to_owned(),
        ]
    }));
    let space = (known.bytes_total, known.bytes_free, known.bytes_available);
    let [size, used, available, percent] = sizes(space);
    lines.push([
        "total".to_owned(),
        String::new(),
        String::new(),
        String::new(),
        size,
        used,
        available,
        percent,
        human::percent(known.inodes_used, known.inodes_free),
        String::new(),
    ]);
    let mut text = format!(
        "file system {}\nmgr {mgr} alive, up {up}, {mounts}\n",
        known.file_system
    );
    if known.iods.is_empty() {
        text.push_str(&ping::no_iod(mgr));
        text.push('\n');
    } else {
        text.push_str(&table::aligned(&lines, 4));
    }
    text
}

fn sizes((total, free, available): (u64, u64, u64)) -> [String; 4] {
    let used = total.saturating_sub(free);
    [
        human::bytes(total),
        human::bytes(used),
        human::bytes(available),
        human::percent(used, available),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::attr::{Space, Timestamp};
    use pvfs::ids::{Incarnation, IodId};
    use pvfs::proto::report::IodState;

    fn statfs() -> StatFs {
        StatFs {
            space: Space {
                bytes_total: 10 << 30,
                bytes_free: 5 << 30,
                bytes_available: 5 << 30,
            },
            inodes_used: 3,
            inodes_free: 9,
            now: Timestamp::default(),
            uptime_ms: 7_440_000,
            mounts: 1,
        }
    }

    fn iod(id: u32, state: IodState, writable: bool) -> IodStatus {
        let StatFs { space, .. } = statfs();
        IodStatus {
            iod: IodId(id),
            address: format!("node{id}:7000"),
            incarnation: Incarnation(1),
            state,
            state_ms: 2500,
            report: IodReport {
                space,
                inodes_total: 100,
                inodes_free: 75,
                writable,
                disk: None,
            },
        }
    }

    #[test]
    fn one_screen_says_what_is_the_matter() {
        let iods = [
            iod(0, IodState::Alive, true),
            iod(1, IodState::Suspect, false),
        ];
        let known = Known::new(7, &statfs(), &iods);
        let expected = "\
file system 00000000000000000000000000000007\n\
mgr head:3000 alive, up 2 h 4 min, 1 mount\n\
IOD    ADDRESS     STATE    FOR    SIZE  USED  AVAIL  USE%  IUSE%\n\
0      node0:7000  alive    2.5 s   10G  5.0G   5.0G   50%    25%\n\
1      node1:7000  suspect  2.5 s   10G  5.0G   5.0G   50%    25%  not writable\n\
total                               10G  5.0G   5.0G   50%    25%\n";
        assert_eq!(render("head:3000", &known), expected);
    }

    #[test]
    fn all_is_well_where_every_iod_is_alive_and_there_is_one() {
        use IodState::{Alive, Away, Left, Suspect};
        let is_well = |states: &[IodState]| {
            let iods: Vec<_> = (0..).zip(states).map(|(id, s)| iod(id, *s, true)).collect();
            Known::new(7, &statfs(), &iods).is_well()
        };
        assert!(is_well(&[Alive, Alive]));
        for bad in [&[][..], &[Suspect], &[Alive, Away], &[Alive, Left]] {
            assert!(!is_well(bad), "{bad:?}");
        }
    }
}
