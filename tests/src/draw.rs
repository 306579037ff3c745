// SPDX-License-Identifier: MIT
//! Operations on a file system, drawn at random from few names, so that they often meet.

use fastrand::Rng;

use crate::model::Model;
use crate::operation::{Data, Operation, Path};

/// Names of files and directories. Few, so that operations collide.
const NAMES: [&str; 5] = [
    "a",
    "b",
    "c",
    "d",
    "a name of some length with spaces and an \u{e4}",
];
/// Names of symbolic links: apart from the others, so that no path leads through a link.
const LINK_NAMES: [&str; 2] = ["link-x", "link-y"];
/// Names of extended attributes.
const XATTR_NAMES: [&str; 3] = ["user.one", "user.two", "user.a.b.c"];
/// Deepest path.
const DEPTH_MAX: usize = 4;
/// Largest offset of a write or truncation, bytes: many stripes of 4 KiB, and holes between.
const OFFSET_MAX: u64 = 300_000;

/// Draws an operation; paths are more often than not those of something that `model` has.
pub fn operation(rng: &mut Rng, model: &Model) -> Operation {
    let mut draw = Draw { rng, model };
    match draw.rng.u32(0..100) {
        0..8 => Operation::Create {
            path: draw.path(),
            exclusive: draw.rng.bool(),
            truncate: draw.rng.u8(..) < 64,
        },
        8..20 => {
            let length_max = if draw.rng.u8(..) < 24 {
                1 << 20
            } else {
                20_000
            };
            Operation::Write {
                path: draw.path(),
                offset: draw.offset(),
                data: data(draw.rng, length_max),
                sync: draw.rng.u8(..) < 32,
            }
        }
        20..26 => Operation::Append {
            path: draw.path(),
            data: data(draw.rng, 10_000),
        },
        26..40 => Operation::Read {
            path: draw.path(),
            offset: draw.offset(),
            length: draw.rng.usize(0..=400_000),
        },
        40..46 => Operation::Truncate {
            path: draw.path(),
            size: draw.offset(),
        },
        46..54 => draw.rename(),
        54..58 => Operation::Unlink {
            path: draw.any_path(),
        },
        58..60 => Operation::UnlinkOpen {
            path: draw.path(),
            data: data(draw.rng, 9000),
        },
        60..66 => Operation::MakeDirectory {
            path: draw.path(),
            mode: 0o700 | draw.rng.u32(0..=0o77),
        },
        66..68 => Operation::RemoveDirectory { path: draw.path() },
        68..73 => Operation::List { path: draw.path() },
        73..77 => Operation::Link {
            from: draw.path(),
            to: draw.path(),
        },
        77..79 => Operation::Symlink {
            target: format!("../{}/{}", draw.path(), draw.rng.u16(..)),
            path: draw.link_path(),
        },
        79..81 => Operation::ReadLink {
            path: draw.any_path(),
        },
        81..84 => Operation::Chmod {
            path: draw.path(),
            mode: draw.rng.u32(0..=0o777),
        },
        84..87 => Operation::SetTimes {
            path: draw.path(),
            seconds: draw.rng.i64(0..4_000_000_000),
            nanoseconds: draw.rng.u32(0..1_000_000_000),
        },
        87..90 => Operation::SetXattr {
            path: draw.path(),
            name: draw.xattr_name(),
            data: data(draw.rng, 300),
        },
        90..92 => Operation::GetXattr {
            path: draw.path(),
            name: draw.xattr_name(),
        },
        92..93 => Operation::ListXattr { path: draw.path() },
        93..94 => Operation::RemoveXattr {
            path: draw.path(),
            name: draw.xattr_name(),
        },
        _ => Operation::Stat {
            path: draw.any_path(),
        },
    }
}

fn data(rng: &mut Rng, length_max: usize) -> Data {
    Data {
        seed: rng.u64(..),
        length: rng.usize(1..=length_max),
    }
}

struct Draw<'a> {
    rng: &'a mut Rng,
    model: &'a Model,
}

impl Draw<'_> {
    fn pick<'b>(&mut self, from: &[&'b str]) -> &'b str {
        self.rng.choice(from).copied().unwrap_or("a")
    }

    /// A path that leads through no link: of something there, or new in a directory that is there,
    /// or of random names, which mostly fails.
    fn path(&mut self) -> Path {
        match self.rng.u8(0..10) {
            0..6 => self.existing(false),
            6..9 => {
                let mut parts: Vec<String> = self.directory().into_iter().collect();
                parts.push(self.pick(&NAMES).to_owned());
                parts.join("/")
            }
            _ => {
                let depth = self.rng.usize(1..=DEPTH_MAX);
                let names: Vec<&str> = (0..depth).map(|_| self.pick(&NAMES)).collect();
                names.join("/")
            }
        }
    }

    fn existing(&mut self, links: bool) -> Path {
        let paths: Vec<Path> = self
            .model
            .paths()
            .into_iter()
            .filter(|path| links == is_link_path(path))
            .collect();
        match self.rng.choice(&paths) {
            Some(path) => path.clone(),
            None if links => self.pick(&LINK_NAMES).to_owned(),
            None => self.pick(&NAMES).to_owned(),
        }
    }

    /// A directory that is there and not too deep; `None` is the root.
    fn directory(&mut self) -> Option<Path> {
        let mut directories = self.model.directories();
        directories.retain(|path| path.split('/').count() < DEPTH_MAX);
        match self.rng.usize(0..=directories.len()) {
            0 => None,
            at => directories.get(at - 1).cloned(),
        }
    }

    fn link_path(&mut self) -> Path {
        let mut parts: Vec<String> = self.directory().into_iter().collect();
        parts.push(self.pick(&LINK_NAMES).to_owned());
        parts.join("/")
    }

    fn any_path(&mut self) -> Path {
        if self.rng.u8(..) < 64 {
            self.existing(true)
        } else {
            self.path()
        }
    }

    /// Links are renamed among their own names, so that no other name becomes a link.
    fn rename(&mut self) -> Operation {
        if self.rng.u8(..) < 48 {
            Operation::Rename {
                from: self.existing(true),
                to: self.link_path(),
            }
        } else {
            Operation::Rename {
                from: self.path(),
                to: self.path(),
            }
        }
    }

    fn offset(&mut self) -> u64 {
        match self.rng.u8(0..4) {
            0 => 0,
            1 => self.rng.u64(0..OFFSET_MAX) & !4095,
            2 => self.rng.u64(0..10_000),
            _ => self.rng.u64(0..OFFSET_MAX),
        }
    }

    fn xattr_name(&mut self) -> String {
        self.pick(&XATTR_NAMES).to_owned()
    }
}

fn is_link_path(path: &str) -> bool {
    LINK_NAMES
        .iter()
        .any(|name| path.rsplit('/').next() == Some(name))
}
