// SPDX-License-Identifier: MIT
//! `pvfs stat`: where a file's bytes are (PVFS 1's pvstat, and the bytes on each iod).

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pvfs::ids::{FileSystemId, IodId, ObjectId};
use pvfs::layout::{Layout, LayoutPolicy};
use pvfs::proto::iod::{IodRequest, IodResponse};
use pvfs::proto::mgr::{IodStatus, MgrOperation, MgrResponse};
use serde::Serialize;

use crate::rpc::{Iod, Mgr, RpcError, TIMEOUT_DEFAULT};
use crate::target::{self, PvfsPath};
use crate::{human, output};

/// Command line of `pvfs stat`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files or directories on a PVFS mount
    #[arg(required = true, value_name = "FILE")]
    paths: Vec<PathBuf>,
    /// Print JSON, sizes in bytes
    #[arg(long)]
    json: bool,
}

/// The stripes of a file on one iod.
#[derive(Debug, Serialize)]
struct Part {
    iod: u32,
    address: String,
    /// Length of the local file, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// Disk space that it takes, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    allocated: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What is printed of one path.
#[derive(Debug, Serialize)]
struct Report {
    path: String,
    inode: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    /// Bytes; 0 for a directory.
    size: u64,
    base: Option<u32>,
    pcount: u32,
    stripe_size: u32,
    iods: Vec<Part>,
    directory: bool,
}

/// Status 1 where an iod of a file is away: its line says so.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut reports = Vec::new();
    for path in &args.paths {
        reports.push(examine(path)?);
    }
    if args.json {
        output::json(&reports)?;
    } else {
        for report in &reports {
            output::lines(render(report).lines())?;
        }
    }
    let complete = reports
        .iter()
        .flat_map(|report| &report.iods)
        .all(|part| part.error.is_none());
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn examine(path: &Path) -> anyhow::Result<Report> {
    let target = target::pvfs_path(path)?;
    let mut mgr = Mgr::connect(&target.mgr, TIMEOUT_DEFAULT)?;
    let size = match mgr.call(MgrOperation::GetAttr {
        inode: target.inode,
    })? {
        MgrResponse::Attr(attr) => attr.size,
        _ => return Err(mgr.unexpected().into()),
    };
    match mgr.call(MgrOperation::GetLayout {
        inode: target.inode,
    })? {
        MgrResponse::Layout {
            layout: Some(layout),
            object: Some(object),
            ..
        } => {
            let iods = mgr.iods()?;
            let (layout, file_system) = (layout.validate()?, mgr.hello.file_system);
            Ok(of_file(&target, size, &layout, object, file_system, &iods))
        }
        MgrResponse::Layout {
            layout: None,
            policy: Some(policy),
            ..
        } => Ok(of_directory(&target, policy)),
        MgrResponse::Layout { .. } => {
            anyhow::bail!(
                "{} is neither a file nor a directory: it has no layout",
                path.display()
            )
        }
        _ => Err(mgr.unexpected().into()),
    }
}

fn of_file(
    target: &PvfsPath,
    size: u64,
    layout: &Layout,
    object: ObjectId,
    file_system: FileSystemId,
    iods: &[IodStatus],
) -> Report {
    Report {
        path: target.path.display().to_string(),
        inode: target.inode.0,
        object: Some(object.to_string()),
        size,
        base: Some(layout.base()),
        pcount: u32::try_from(layout.iods().len()).unwrap_or(u32::MAX),
        stripe_size: layout.stripe_size(),
        iods: layout
            .iods()
            .iter()
            .map(|iod| part(*iod, file_system, object, iods))
            .collect(),
        directory: false,
    }
}

fn of_directory(target: &PvfsPath, policy: LayoutPolicy) -> Report {
    Report {
        path: target.path.display().to_string(),
        inode: target.inode.0,
        object: None,
        size: 0,
        base: policy.base,
        pcount: policy.pcount,
        stripe_size: policy.stripe_size,
        iods: Vec::new(),
        directory: true,
    }
}

fn part(iod: IodId, file_system: FileSystemId, object: ObjectId, iods: &[IodStatus]) -> Part {
    let Some(status) = iods.iter().find(|status| status.iod == iod) else {
        let error = Some(format!("mgr does not know iod {iod}"));
        return Part {
            iod: iod.0,
            address: String::new(),
            bytes: None,
            allocated: None,
            error,
        };
    };
    let answer = ask(status, file_system, object);
    let (bytes, allocated, error) = match answer {
        Ok((length, allocated)) => (Some(length), Some(allocated), None),
        Err(error) => (None, None, Some(error.to_string())),
    };
    Part {
        iod: iod.0,
        address: status.address.clone(),
        bytes,
        allocated,
        error,
    }
}

fn ask(
    status: &IodStatus,
    file_system: FileSystemId,
    object: ObjectId,
) -> Result<(u64, u64), RpcError> {
    let mut iod = Iod::connect(status, file_system, TIMEOUT_DEFAULT)?;
    match iod.call(&IodRequest::Stat { object }) {
        Ok(IodResponse::Stat { length, allocated }) => Ok((length, allocated)),
        Ok(_) => Err(iod.unexpected()),
        // An iod that holds no byte of the file has no local file either.
        Err(RpcError::Refused {
            error: pvfs::error::FsError::NotFound,
            ..
        }) => Ok((0, 0)),
        Err(error) => Err(error),
    }
}

fn render(report: &Report) -> String {
    let stripe = human::bytes(u64::from(report.stripe_size));
    let mut text = format!("{}: ", output::escaped(&report.path));
    if report.directory {
        let pcount = if report.pcount == 0 {
            "all iods".to_owned()
        } else {
            report.pcount.to_string()
        };
        let base = report
            .base
            .map_or_else(|| "in turn".to_owned(), |base| base.to_string());
        text.push_str(&format!(
            "directory, inode {}; new files get base {base}, pcount {pcount}, stripe size {stripe}\n",
            report.inode
        ));
        return text;
    }
    text.push_str(&format!(
        "{} bytes, inode {}, base {}, pcount {}, stripe size {stripe}\n",
        report.size,
        report.inode,
        report.base.unwrap_or(0),
        report.pcount
    ));
    for part in &report.iods {
        let line = match (&part.error, part.bytes, part.allocated) {
            (None, Some(bytes), Some(allocated)) => {
                format!("{bytes} bytes, {} on disk", human::bytes(allocated))
            }
            (error, ..) => error.clone().unwrap_or_default(),
        };
        text.push_str(&format!(
            "  iod {:<4} {:<21} {line}\n",
            part.iod, part.address
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_a_directory_read_well() {
        let mut report = Report {
            path: "/mnt/f".into(),
            inode: 12,
            object: Some("12.0".into()),
            size: 70_000,
            base: Some(1),
            pcount: 2,
            stripe_size: 65_536,
            iods: vec![
                Part {
                    iod: 1,
                    address: "n:7001".into(),
                    bytes: Some(65_536),
                    allocated: Some(65_536),
                    error: None,
                },
                Part {
                    iod: 2,
                    address: "n:7002".into(),
                    bytes: None,
                    allocated: None,
                    error: Some("away".into()),
                },
            ],
            directory: false,
        };
        let expected = "\
/mnt/f: 70000 bytes, inode 12, base 1, pcount 2, stripe size 64K
  iod 1    n:7001                65536 bytes, 64K on disk
  iod 2    n:7002                away
";
        assert_eq!(render(&report), expected);
        report.directory = true;
        report.pcount = 0;
        report.base = None;
        let text = render(&report);
        assert!(
            text.contains("base in turn, pcount all iods, stripe size 64K"),
            "{text}"
        );
    }
}
