// SPDX-License-Identifier: MIT
//! What `pvfs dev` starts: pure, from the command line and the names in the data directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::child::Daemon;

/// Iods of one `pvfs dev`: a trial on one machine, each with a process and a port of its own.
pub const IODS_MAX: u16 = 64;

/// Why the data directory does not fit the command line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Fewer iods than the data is striped over.
    #[error(
        "{dir} holds the stripes of {there} iods, but --iods {asked} would leave some of its files \
         without theirs: say --iods {there}, or give another --data"
    )]
    FewerIods {
        /// The data directory.
        dir: String,
        /// Iods in it.
        there: u16,
        /// Iods asked for.
        asked: u16,
    },
    /// A directory with something else in it.
    #[error(
        "{dir} is not empty and holds no PVFS data (it has `{name}`): give an empty or new directory"
    )]
    Foreign {
        /// The data directory.
        dir: String,
        /// One of the names in it.
        name: String,
    },
}

/// The programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// `pvfs-mgr`
    pub mgr: PathBuf,
    /// `pvfs-iod`
    pub iod: PathBuf,
    /// `pvfs-fuse`
    pub fuse: PathBuf,
}

/// A daemon's data directory that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Making {
    /// The daemon's program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// The file whose lock says that a run uses the data directory.
pub const LOCK_NAME: &str = "lock";
/// The directory of the logs in the data directory.
pub const LOG_NAME: &str = "log";
const MGR_NAME: &str = "mgr";
/// What a daemon's data directory has when it is made (docs/ON_DISK.md).
const MGR_MARKER: &str = "data.mdb";
/// As [`MGR_MARKER`].
const IOD_MARKER: &str = "identity";

/// Checks the names found in the data directory against the number of iods asked for.
///
/// # Errors
///
/// [`PlanError`], which says what to do.
pub fn check(dir: &Path, names: &[OsString], iods: u16) -> Result<(), PlanError> {
    let dir_text = || dir.display().to_string();
    let mut there = 0;
    for name in names {
        match name.to_str() {
            Some(LOCK_NAME | LOG_NAME | MGR_NAME | "lost+found") => {}
            Some(name) if iod_number(name).is_some() => {
                there = there.max(iod_number(name).unwrap_or(0).saturating_add(1));
            }
            _ => {
                let name = name.to_string_lossy().into_owned();
                return Err(PlanError::Foreign {
                    dir: dir_text(),
                    name,
                });
            }
        }
    }
    if iods < there {
        return Err(PlanError::FewerIods {
            dir: dir_text(),
            there,
            asked: iods,
        });
    }
    Ok(())
}

/// `iod7` is 7.
fn iod_number(name: &str) -> Option<u16> {
    name.strip_prefix("iod")?
        .parse()
        .ok()
        .filter(|number| *number < IODS_MAX)
}

/// Makes the data directory of mgr or of an iod; `None` where it is made.
fn init(program: &Path, directory: &Path, marker: &str) -> Option<Making> {
    let arguments = vec!["--init".into(), "--data".into(), directory.into()];
    let program = program.to_owned();
    (!directory.join(marker).exists()).then_some(Making { program, arguments })
}

/// What is to be made, before anything is started, in a data directory with so many iods.
pub fn missing(programs: &Programs, data: &Path, iods: u16) -> Vec<Making> {
    let mgr = init(&programs.mgr, &data.join(MGR_NAME), MGR_MARKER);
    let iods = (0..iods).map(|index| init(&programs.iod, &iod_data(data, index), IOD_MARKER));
    std::iter::once(mgr).chain(iods).flatten().collect()
}

fn iod_data(data: &Path, index: u16) -> PathBuf {
    data.join(format!("iod{index}"))
}

/// What a daemon is told beside its addresses: an ordinary user's mounts have no reserved ports.
fn ports(privileged: bool) -> Option<OsString> {
    (!privileged).then(|| "--insecure-ports".into())
}

/// mgr, on `port` of the loopback (0: any free one).
pub fn mgr(programs: &Programs, data: &Path, port: u16, privileged: bool) -> Daemon {
    let arguments = [
        "--data".into(),
        data.join(MGR_NAME).into(),
        "--listen".into(),
        loopback(port),
    ];
    Daemon {
        name: "mgr".into(),
        program: programs.mgr.clone(),
        arguments: arguments.into_iter().chain(ports(privileged)).collect(),
    }
}

/// The iod at `index`, on `port` of the loopback (0: any free one).
pub fn iod(
    programs: &Programs,
    data: &Path,
    (index, port): (u16, u16),
    mgr: &str,
    privileged: bool,
) -> Daemon {
    let arguments = [
        "--data".into(),
        iod_data(data, index).into(),
        "--mgr".into(),
        mgr.into(),
        "--listen".into(),
        loopback(port),
    ];
    Daemon {
        name: format!("iod{index}"),
        program: programs.iod.clone(),
        arguments: arguments.into_iter().chain(ports(privileged)).collect(),
    }
}

/// A mount on `point`.
pub fn mount(
    programs: &Programs,
    index: usize,
    point: &Path,
    options: &[String],
    mgr: &str,
) -> Daemon {
    let mut arguments = vec![
        format!("{mgr}:/").into(),
        point.as_os_str().to_owned(),
        "-f".into(),
    ];
    if !options.is_empty() {
        arguments.push("-o".into());
        arguments.push(options.join(",").into());
    }
    Daemon {
        name: format!("mount{index}"),
        program: programs.fuse.clone(),
        arguments,
    }
}

fn loopback(port: u16) -> OsString {
    format!("127.0.0.1:{port}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<OsString> {
        names.iter().map(OsString::from).collect()
    }

    #[test]
    fn data_of_as_many_or_fewer_iods_is_taken() {
        let dir = Path::new("/d");
        assert_eq!(check(dir, &[], 1), Ok(()));
        let two = names(&["lock", "log", "mgr", "iod0", "iod1"]);
        assert_eq!(check(dir, &two, 2), Ok(()));
        assert_eq!(check(dir, &two, 3), Ok(()));
        let fewer = PlanError::FewerIods {
            dir: "/d".into(),
            there: 2,
            asked: 1,
        };
        assert_eq!(check(dir, &two, 1), Err(fewer));
    }

    #[test]
    fn a_directory_of_something_else_is_refused() {
        for foreign in ["notes.txt", "iodine", "iod", "iod9999", ".git"] {
            let error = check(Path::new("/d"), &names(&["mgr", foreign]), 3).unwrap_err();
            assert!(error.to_string().contains(foreign), "{error}");
        }
    }

    #[test]
    fn command_lines() {
        let programs = Programs {
            mgr: "m".into(),
            iod: "i".into(),
            fuse: "f".into(),
        };
        let line = |daemon: Daemon| {
            let words: Vec<_> = daemon
                .arguments
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            format!(
                "{} {} {}",
                daemon.name,
                daemon.program.display(),
                words.join(" ")
            )
        };
        let data = Path::new("/d");
        assert_eq!(
            line(mgr(&programs, data, 0, true)),
            "mgr m --data /d/mgr --listen 127.0.0.1:0"
        );
        assert_eq!(
            line(iod(&programs, data, (2, 7002), "h:1", true)),
            "iod2 i --data /d/iod2 --mgr h:1 --listen 127.0.0.1:7002"
        );
        let made = missing(&programs, data, 2);
        let words = |making: &Making| making.arguments.join(" ".as_ref());
        assert_eq!(
            made.iter().map(words).collect::<Vec<_>>(),
            [
                "--init --data /d/mgr",
                "--init --data /d/iod0",
                "--init --data /d/iod1"
            ]
        );
        let options = ["ro".to_owned(), "x=1".to_owned()];
        assert_eq!(
            line(mount(&programs, 0, Path::new("/m"), &options, "h:1")),
            "mount0 f h:1:/ /m -f -o ro,x=1"
        );
        assert_eq!(
            line(mount(&programs, 1, Path::new("/m"), &[], "h:1")),
            "mount1 f h:1:/ /m -f"
        );
    }
}
