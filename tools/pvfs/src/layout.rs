// SPDX-License-Identifier: MIT
//! `pvfs layout`: how a directory's new files, or an empty file, are striped.

use std::path::PathBuf;
use std::process::ExitCode;

use pvfs::layout::{Layout, LayoutPolicy};
use pvfs::limits::{IODS_PER_FILE_MAX, STRIPE_SIZE_BYTES_MAX, STRIPE_SIZE_BYTES_MIN};
use pvfs::proto::mgr::{MgrOperation, MgrResponse};
use serde::Serialize;

use crate::human;
use crate::rpc::{Mgr, TIMEOUT_DEFAULT};
use crate::{output, target};

/// Command line of `pvfs layout`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Show a file's layout, or what new files in a directory get
    Get {
        /// File or directory on a PVFS mount
        path: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Set what new files in a directory get, or lay out an empty file anew
    Set {
        /// Directory or empty file on a PVFS mount
        path: PathBuf,
        #[command(flatten)]
        change: Change,
    },
}

/// What `pvfs layout set` changes; what is not given stays as it is.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct Change {
    /// Bytes of a stripe, a power of two from 4K to 1G
    #[arg(long, value_parser = stripe_size)]
    stripe_size: Option<u32>,
    /// Iods of a file; 0 for all
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=IODS_PER_FILE_MAX as i64))]
    pcount: Option<u32>,
    /// Position of the iod with the first stripe; `turn` deals files out in turn
    #[arg(long, value_parser = base)]
    base: Option<Base>,
    /// Make the directory inherit from the one above it again
    #[arg(long, conflicts_with_all = ["stripe_size", "pcount", "base"])]
    inherit: bool,
}

/// `--base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Each file starts on the next iod.
    Turn,
    /// Every file starts on the iod at this position.
    At(u32),
}

fn base(text: &str) -> Result<Base, String> {
    match text {
        "turn" => Ok(Base::Turn),
        number => number
            .parse()
            .map(Base::At)
            .map_err(|_| "write a number or `turn`".into()),
    }
}

fn stripe_size(text: &str) -> Result<u32, String> {
    let bytes = human::parse_u32(text).map_err(|error| error.to_string())?;
    let sound =
        bytes.is_power_of_two() && (STRIPE_SIZE_BYTES_MIN..=STRIPE_SIZE_BYTES_MAX).contains(&bytes);
    if sound {
        Ok(bytes)
    } else {
        Err("write a power of two from 4K to 1G".into())
    }
}

/// Shows or sets.
pub fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Get { path, json } => get(path, *json)?,
        Verb::Set { path, change } => set(path, change)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What GetLayout answered.
enum Current {
    File(Layout),
    Directory(LayoutPolicy),
}

fn current(mgr: &mut Mgr, target: &target::PvfsPath) -> anyhow::Result<Current> {
    match mgr.call(MgrOperation::GetLayout {
        inode: target.inode,
    })? {
        MgrResponse::Layout {
            layout: Some(layout),
            ..
        } => Ok(Current::File(layout.validate()?)),
        MgrResponse::Layout {
            policy: Some(policy),
            ..
        } => Ok(Current::Directory(policy)),
        MgrResponse::Layout { .. } => {
            anyhow::bail!(
                "{} has no layout: it is neither file nor directory",
                target.path.display()
            )
        }
        _ => Err(mgr.unexpected().into()),
    }
}

#[derive(Serialize)]
struct Shown {
    path: String,
    kind: &'static str,
    stripe_size: u32,
    /// Iods of a file; 0: all.
    pcount: u32,
    /// Absent: in turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    iods: Vec<u32>,
}

fn get(path: &std::path::Path, json: bool) -> anyhow::Result<()> {
    let target = target::pvfs_path(path)?;
    let mut mgr = Mgr::connect(&target.mgr, TIMEOUT_DEFAULT)?;
    let path = path.display().to_string();
    let shown = match current(&mut mgr, &target)? {
        Current::File(layout) => Shown {
            path,
            kind: "file",
            stripe_size: layout.stripe_size(),
            pcount: u32::try_from(layout.iods().len()).unwrap_or(u32::MAX),
            base: Some(layout.base()),
            iods: layout.iods().iter().map(|iod| iod.0).collect(),
        },
        Current::Directory(policy) => Shown {
            path,
            kind: "directory",
            stripe_size: policy.stripe_size,
            pcount: policy.pcount,
            base: policy.base,
            iods: Vec::new(),
        },
    };
    if json {
        output::json(&shown)?;
    } else {
        output::line(line(&shown))?;
    }
    Ok(())
}

/// One line, in the words of `pvfs layout set`, so that it can be given back to it.
fn line(shown: &Shown) -> String {
    let base = shown
        .base
        .map_or_else(|| "turn".to_owned(), |base| base.to_string());
    let stripe = human::bytes(u64::from(shown.stripe_size)).replace(".0", "");
    let mut line = format!(
        "{}: --stripe-size {stripe} --pcount {} --base {base}",
        shown.path, shown.pcount
    );
    if !shown.iods.is_empty() {
        let iods: Vec<String> = shown.iods.iter().map(u32::to_string).collect();
        line.push_str(&format!(" (iods {})", iods.join(" ")));
    }
    line
}

fn set(path: &std::path::Path, change: &Change) -> anyhow::Result<()> {
    let target = target::pvfs_path(path)?;
    let mut mgr = Mgr::connect(&target.mgr, TIMEOUT_DEFAULT)?;
    let policy = if change.inherit {
        None
    } else {
        let before = match current(&mut mgr, &target)? {
            Current::Directory(policy) => policy,
            Current::File(layout) => LayoutPolicy {
                stripe_size: layout.stripe_size(),
                pcount: u32::try_from(layout.iods().len()).unwrap_or(u32::MAX),
                base: Some(layout.base()),
            },
        };
        Some(changed(before, change))
    };
    let operation = MgrOperation::SetLayout {
        inode: target.inode,
        policy,
    };
    let Err(error) = mgr.call(operation) else {
        return Ok(());
    };
    let count = mgr.iods()?.len();
    Err(anyhow::Error::new(error).context(format!(
        "the layout of {} is not changed (a file must be empty; there are {count} iods, so that \
         --pcount is at most {count} and --base below it)",
        path.display()
    )))
}

fn changed(before: LayoutPolicy, change: &Change) -> LayoutPolicy {
    LayoutPolicy {
        stripe_size: change.stripe_size.unwrap_or(before.stripe_size),
        pcount: change.pcount.unwrap_or(before.pcount),
        base: match change.base {
            None => before.base,
            Some(Base::Turn) => None,
            Some(Base::At(base)) => Some(base),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays() {
        let before = LayoutPolicy {
            stripe_size: 65_536,
            pcount: 2,
            base: Some(1),
        };
        let none = Change {
            stripe_size: None,
            pcount: None,
            base: None,
            inherit: false,
        };
        assert_eq!(changed(before, &none), before);
        let all = Change {
            stripe_size: Some(4096),
            pcount: Some(0),
            base: Some(Base::Turn),
            inherit: false,
        };
        let after = LayoutPolicy {
            stripe_size: 4096,
            pcount: 0,
            base: None,
        };
        assert_eq!(changed(before, &all), after);
    }

    #[test]
    fn arguments_parse() {
        assert_eq!(stripe_size("1M"), Ok(1 << 20));
        for bad in ["3K", "2K", "2G", "x"] {
            assert!(stripe_size(bad).is_err(), "{bad}");
        }
        assert_eq!(base("turn"), Ok(Base::Turn));
        assert_eq!(base("2"), Ok(Base::At(2)));
        assert!(base("-1").is_err());
    }

    #[test]
    fn what_is_shown_can_be_set() {
        let shown = Shown {
            path: "d".into(),
            kind: "directory",
            stripe_size: 1 << 20,
            pcount: 0,
            base: None,
            iods: vec![],
        };
        assert_eq!(line(&shown), "d: --stripe-size 1M --pcount 0 --base turn");
    }
}
