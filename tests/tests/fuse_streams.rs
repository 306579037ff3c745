// SPDX-License-Identifier: MIT
//! Directory streams end, and show once what stays, whatever is done meanwhile to what they show, on
//! this node or another.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::path::Path;

use anyhow::{Context, ensure};
use cssns_tests::pvfs_cluster::{Cluster, Options, Who};

/// More names than a reply to the kernel has room for, and a call of getdents(2).
const FILES: usize = 1200;
/// Of so many names one is changed, and the others are left alone.
const CHANGED_EVERY: usize = 8;
/// A stream that shows so many entries has no end.
const ENTRIES_MAX: usize = 4 * FILES;

/// What is done to each entry when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Another file is renamed over it, as `sed -i` does.
    Replaced,
    /// It is removed, and made again.
    MadeAgain,
    /// It gets another name.
    Renamed,
    /// It gets another name, and then the old one.
    RenamedAndBack,
    /// It is moved to another directory and back.
    MovedAndBack,
    /// It gets a second name.
    Linked,
    /// A file is made for it.
    Copied,
}

impl Change {
    const ALL: [Self; 7] = [
        Self::Replaced,
        Self::MadeAgain,
        Self::Renamed,
        Self::RenamedAndBack,
        Self::MovedAndBack,
        Self::Linked,
        Self::Copied,
    ];

    /// Another one for each change: the kernel may have kept what a name of the last one stood for.
    fn new_name(self, name: &str) -> String {
        "x".repeat(self as usize + 1) + name
    }

    fn make(self, dir: &Path, name: &str) -> io::Result<()> {
        let (file, other) = (dir.join(name), dir.join(self.new_name(name)));
        let elsewhere = dir.with_extension("elsewhere");
        match self {
            Self::Replaced => {
                File::create(&other)?;
                fs::rename(other, file)
            }
            Self::MadeAgain => {
                fs::remove_file(&file)?;
                File::create(file).map(drop)
            }
            Self::Renamed => fs::rename(file, other),
            Self::RenamedAndBack => {
                fs::rename(&file, &other)?;
                fs::rename(other, file)
            }
            Self::MovedAndBack => {
                fs::rename(&file, &elsewhere)?;
                fs::rename(elsewhere, file)
            }
            Self::Linked => fs::hard_link(file, other),
            Self::Copied => File::create(other).map(drop),
        }
    }

    /// Takes away the names that it has made, or gives the old ones back.
    fn undo(self, dir: &Path) -> anyhow::Result<()> {
        for name in names(fs::read_dir(dir)?)?.keys() {
            if name.starts_with('x') {
                let old = name.trim_start_matches('x');
                match self {
                    Self::Renamed => fs::rename(dir.join(name), dir.join(old))?,
                    _ => fs::remove_file(dir.join(name))?,
                }
            }
        }
        Ok(())
    }

    /// Whether each inode is shown once, the changed ones as well.
    const fn keeps_inodes(self) -> bool {
        matches!(
            self,
            Self::Renamed | Self::RenamedAndBack | Self::MovedAndBack
        )
    }
}

/// Makes a directory of [`FILES`]; gives the names' inodes.
fn fill(dir: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    fs::create_dir(dir)?;
    for number in 0..FILES {
        File::create(dir.join(format!("f{number:05}")))?;
    }
    names(fs::read_dir(dir)?)
}

fn names(stream: fs::ReadDir) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut names = BTreeMap::new();
    for (count, entry) in stream.enumerate() {
        let entry = entry?;
        let name = entry.file_name().into_string();
        let name = name.map_err(|name| anyhow::anyhow!("{name:?} is no name of ours"))?;
        let again = names.insert(name.clone(), entry.ino());
        ensure!(again.is_none(), "{name} is shown twice");
        ensure!(count < ENTRIES_MAX, "the stream has no end");
    }
    Ok(names)
}

/// Reads a directory, changes it there with each entry, and looks at what was shown.
fn read_and_change(dir: &Path, there: &Path, change: Change) -> anyhow::Result<()> {
    let before = names(fs::read_dir(dir)?)?;
    let mut shown: Vec<(String, u64)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.trim_start_matches(['x', 'f']).parse::<usize>()?;
        if number % CHANGED_EVERY == 0 {
            change.make(there, &name).context(name.clone())?;
        }
        shown.push((name, entry.ino()));
        ensure!(shown.len() < ENTRIES_MAX, "the stream has no end");
    }
    // What a change at its turn has made stands behind the end of the stream.
    ensure!(shown.len() == before.len(), "{} entries shown", shown.len());
    let mut once = BTreeMap::new();
    for (name, inode) in &shown {
        ensure!(once.insert(name, *inode).is_none(), "{name} is shown twice");
    }
    for (name, inode) in &before {
        let found = once.get(name);
        ensure!(found == Some(inode), "{name} is {inode}, not {found:?}");
    }
    if change.keeps_inodes() {
        let mut inodes: Vec<u64> = shown.iter().map(|(_, inode)| *inode).collect();
        inodes.sort_unstable();
        inodes.dedup();
        ensure!(inodes.len() == shown.len(), "an inode is shown twice");
    }
    // A new stream shows all that there is.
    let after = names(fs::read_dir(dir)?)?;
    let expected = match change {
        Change::Linked | Change::Copied => FILES + FILES.div_ceil(CHANGED_EVERY),
        _ => FILES,
    };
    ensure!(after.len() == expected, "{} names remain", after.len());
    change.undo(dir)
}

fn streams_end(mount_options: &str) -> anyhow::Result<()> {
    let cluster = Cluster::start(Options {
        mounts: 2,
        mount_options: mount_options.into(),
        ..Options::default()
    })?;
    let (dir, other) = (cluster.mount(0).join("d"), cluster.mount(1).join("d"));
    fill(&dir)?;
    for change in Change::ALL {
        for there in [&dir, &other] {
            read_and_change(&dir, there, change)
                .with_context(|| format!("{change:?} in {}", there.display()))?;
        }
    }
    cluster.finish()
}

#[test]
fn streams_end_whatever_becomes_of_what_they_show() -> anyhow::Result<()> {
    streams_end("allow_other")
}

#[test]
fn streams_with_attributes_end_whatever_becomes_of_what_they_show() -> anyhow::Result<()> {
    // Only with a time for which names are kept does the kernel ask for attributes with them.
    streams_end("allow_other,actimeo=1")
}

#[test]
fn a_stream_goes_on_to_its_end_over_cuts_and_a_restart_of_mgr() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options {
        mounts: 2,
        proxied: true,
        ..Options::default()
    })?;
    let (dir, there) = (cluster.mount(0).join("d"), cluster.mount(1).join("d"));
    let before = fill(&dir)?;
    let mut shown = BTreeMap::new();
    for (count, entry) in fs::read_dir(&dir)?.enumerate() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match count {
            200 => {
                cluster.kill_mgr()?;
                cluster.restart_mgr()?;
            }
            300 => cluster
                .link(Who::Mount(0))
                .context("the mount has a link")?
                .cut(),
            _ => {}
        }
        if count % CHANGED_EVERY == 0 {
            Change::Copied.make(&there, &name)?;
        }
        let again = shown.insert(name, entry.ino());
        ensure!(again.is_none() && count < ENTRIES_MAX);
    }
    ensure!(shown == before);
    cluster.finish()
}

#[test]
fn names_come_and_go_between_the_parts_of_a_listing() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options {
        mounts: 2,
        ..Options::default()
    })?;
    let (dir, there) = (cluster.mount(0).join("d"), cluster.mount(1).join("d"));
    fill(&dir)?;
    let mut stream = fs::read_dir(&dir)?;
    // The first part is read; of what follows some is renamed and back, or moved behind the end.
    let first = stream.next().context("it has entries")??.file_name();
    ensure!(first == "f00000");
    for number in 1..FILES {
        let name = format!("f{number:05}");
        match number % CHANGED_EVERY {
            1 => Change::RenamedAndBack.make(&there, &name)?,
            2 => Change::MadeAgain.make(&there, &name)?,
            _ => {}
        }
    }
    let rest = names(stream)?;
    for number in 1..FILES {
        let name = format!("f{number:05}");
        let stays = number % CHANGED_EVERY != 2;
        ensure!(!stays || rest.contains_key(&name), "{name} is not shown");
    }
    ensure!(names(fs::read_dir(&dir)?)?.len() == FILES);
    cluster.finish()
}
