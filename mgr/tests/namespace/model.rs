// SPDX-License-Identifier: MIT
//! Random operations against a simpler file system: plain maps, no store, no batches.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use pvfs::attr::{Credentials, FileKind};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, OpenId};
use pvfs::proto::lease::NO_LEASE;
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrResponse, RenameMode, Reopen};
use pvfs::proto::peer::Peer;
use pvfs_mgr::store::Store;

use crate::check::check;
use crate::world::{ALICE, BOTH, SESSION_TIMEOUT_MS, World, name};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug, Default)]
struct Node {
    directory: bool,
    entries: BTreeMap<&'static str, u64>,
    parent: u64,
    links: u32,
    size: u64,
    opens: u32,
}

/// The whole file system.
#[derive(Clone, Debug)]
struct Model {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    open: Vec<(OpenId, u64)>,
}

/// What to do; the numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Make(bool, usize, usize),
    Remove(bool, usize, usize),
    Link(usize, usize, usize),
    Rename((usize, usize), (usize, usize), RenameMode),
    Open(usize),
    Close(usize),
    Report(usize, u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || (0..12usize, 0..NAMES.len());
    let mode = prop_oneof![
        3 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        1 => Just(RenameMode::Exchange),
    ];
    prop_oneof![
        6 => (any::<bool>(), at()).prop_map(|(d, (p, n))| Step::Make(d, p, n)),
        4 => (any::<bool>(), at()).prop_map(|(d, (p, n))| Step::Remove(d, p, n)),
        2 => (0..12usize, at()).prop_map(|(f, (p, n))| Step::Link(f, p, n)),
        5 => (at(), at(), mode).prop_map(|(o, n, m)| Step::Rename(o, n, m)),
        2 => (0..12usize).prop_map(Step::Open),
        2 => (0..12usize).prop_map(Step::Close),
        2 => (0..12usize, 0..100u64).prop_map(|(o, s)| Step::Report(o, s)),
        1 => Just(Step::Restart),
    ]
}

impl Model {
    fn new() -> Self {
        let root = Node {
            directory: true,
            parent: 1,
            links: 1,
            ..Node::default()
        };
        Self {
            nodes: BTreeMap::from([(1, root)]),
            next: 2,
            open: Vec::new(),
        }
    }

    /// Directories and files that were ever made, also those that are gone.
    fn pick(&self, index: usize) -> u64 {
        1 + index as u64 % (self.next - 1)
    }

    fn directory(&mut self, number: u64) -> Result<&mut Node, FsError> {
        let node = self.nodes.get_mut(&number).ok_or(FsError::Stale)?;
        if node.directory {
            Ok(node)
        } else {
            Err(FsError::NotDirectory)
        }
    }

    /// A directory that may get new names.
    fn live(&mut self, number: u64) -> Result<&mut Node, FsError> {
        let node = self.directory(number)?;
        if node.links > 0 {
            Ok(node)
        } else {
            Err(FsError::NotFound)
        }
    }

    fn free(&mut self, parent: u64, name: &str) -> Result<(), FsError> {
        if self.directory(parent)?.entries.contains_key(name) {
            return Err(FsError::Exists);
        }
        self.live(parent).map(drop)
    }

    fn child(&mut self, parent: u64, name: &str) -> Result<u64, FsError> {
        self.directory(parent)?
            .entries
            .get(name)
            .copied()
            .ok_or(FsError::NotFound)
    }

    fn make(&mut self, directory: bool, parent: u64, name: &'static str) -> Result<(), FsError> {
        self.free(parent, name)?;
        let number = self.next;
        self.next += 1;
        self.nodes.insert(
            number,
            Node {
                directory,
                parent,
                links: 1,
                ..Node::default()
            },
        );
        self.live(parent)?.entries.insert(name, number);
        Ok(())
    }

    fn drop_link(&mut self, number: u64) {
        let node = self.nodes.get_mut(&number).unwrap();
        node.links -= 1;
        self.reap(number);
    }

    fn reap(&mut self, number: u64) {
        if self.nodes[&number].links == 0 && self.nodes[&number].opens == 0 {
            self.nodes.remove(&number);
        }
    }

    fn remove(&mut self, directory: bool, parent: u64, name: &str) -> Result<(), FsError> {
        let number = self.child(parent, name)?;
        match (directory, &self.nodes[&number]) {
            (false, node) if node.directory => return Err(FsError::IsDirectory),
            (true, node) if !node.directory => return Err(FsError::NotDirectory),
            (true, node) if !node.entries.is_empty() => return Err(FsError::NotEmpty),
            _ => {}
        }
        self.live(parent)?.entries.remove(name);
        self.drop_link(number);
        Ok(())
    }

    fn link(&mut self, number: u64, parent: u64, name: &'static str) -> Result<(), FsError> {
        let (directory, links) = {
            let node = self.nodes.get(&number).ok_or(FsError::Stale)?;
            (node.directory, node.links)
        };
        self.free(parent, name)?;
        if directory {
            return Err(FsError::NotPermitted);
        }
        if links == 0 {
            return Err(FsError::NotFound);
        }
        self.nodes.get_mut(&number).unwrap().links += 1;
        self.live(parent)?.entries.insert(name, number);
        Ok(())
    }

    fn is_below(&self, number: u64, above: u64) -> bool {
        let mut at = number;
        loop {
            if at == above {
                return true;
            }
            if at == 1 {
                return false;
            }
            at = self.nodes[&at].parent;
        }
    }

    fn rename(
        &mut self,
        (parent, name): (u64, &'static str),
        (new_parent, new_name): (u64, &'static str),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let old = self.child(parent, name)?;
        let target = self.live(new_parent)?.entries.get(new_name).copied();
        let moved = self.nodes[&old].directory;
        match (target, mode) {
            (Some(_), RenameMode::NoReplace) => return Err(FsError::Exists),
            (None, RenameMode::Exchange) => return Err(FsError::NotFound),
            (Some(target), _) if target == old => return Ok(()),
            _ => {}
        }
        if moved && self.is_below(new_parent, old) {
            return Err(FsError::InvalidArgument);
        }
        if let Some(target) = target {
            let replaced = self.nodes[&target].clone();
            if mode == RenameMode::Exchange {
                if replaced.directory && self.is_below(parent, target) {
                    return Err(FsError::InvalidArgument);
                }
                self.put(parent, name, target);
                self.put(new_parent, new_name, old);
                return Ok(());
            }
            match (moved, replaced.directory) {
                (true, false) => return Err(FsError::NotDirectory),
                (false, true) => return Err(FsError::IsDirectory),
                (true, true) if !replaced.entries.is_empty() => return Err(FsError::NotEmpty),
                _ => {}
            }
            self.live(new_parent)?.entries.remove(new_name);
            self.drop_link(target);
        }
        self.live(parent)?.entries.remove(name);
        self.put(new_parent, new_name, old);
        Ok(())
    }

    fn put(&mut self, parent: u64, name: &'static str, number: u64) {
        self.nodes
            .get_mut(&parent)
            .unwrap()
            .entries
            .insert(name, number);
        self.nodes.get_mut(&number).unwrap().parent = parent;
    }

    fn close(&mut self, number: u64) {
        let node = self.nodes.get_mut(&number).unwrap();
        node.opens -= 1;
        self.reap(number);
    }
}

/// The operation of a step, and what the model says to it. `None`: there is nothing to close.
fn plan(model: &mut Model, step: &Step) -> Option<(MgrOperation, Result<(), FsError>)> {
    let inode = InodeNumber;
    Some(match *step {
        Step::Make(directory, parent, n) => {
            let (parent, text) = (model.pick(parent), NAMES[n]);
            let kind = if directory {
                FileKind::Directory
            } else {
                FileKind::Regular
            };
            let operation = MgrOperation::MakeNode {
                parent: inode(parent),
                name: name(text),
                kind,
                mode: 0o755,
                rdev: 0,
                umask: 0,
            };
            (operation, model.make(directory, parent, text))
        }
        Step::Remove(directory, parent, n) => {
            let (parent, text) = (model.pick(parent), NAMES[n]);
            let (number, name) = (inode(parent), name(text));
            let operation = if directory {
                MgrOperation::RemoveDirectory {
                    parent: number,
                    name,
                }
            } else {
                MgrOperation::Unlink {
                    parent: number,
                    name,
                }
            };
            (operation, model.remove(directory, parent, text))
        }
        Step::Link(number, parent, n) => {
            let (number, parent, text) = (model.pick(number), model.pick(parent), NAMES[n]);
            let operation = MgrOperation::Link {
                inode: inode(number),
                parent: inode(parent),
                name: name(text),
            };
            (operation, model.link(number, parent, text))
        }
        Step::Rename((parent, old), (new_parent, new), mode) => {
            let (parent, new_parent) = (model.pick(parent), model.pick(new_parent));
            let operation = MgrOperation::Rename {
                parent: inode(parent),
                name: name(NAMES[old]),
                new_parent: inode(new_parent),
                new_name: name(NAMES[new]),
                mode,
            };
            (
                operation,
                model.rename((parent, NAMES[old]), (new_parent, NAMES[new]), mode),
            )
        }
        Step::Open(number) => {
            let number = model.pick(number);
            let node = model.nodes.get_mut(&number);
            let directory = node.as_ref().is_some_and(|node| node.directory);
            let access = if directory { crate::world::READ } else { BOTH };
            let operation = MgrOperation::Open {
                inode: inode(number),
                access,
                truncate: false,
            };
            let expected = node.map(|node| node.opens += 1).ok_or(FsError::Stale);
            (operation, expected)
        }
        Step::Close(index) => {
            if model.open.is_empty() {
                return None;
            }
            let (open, number) = model.open.remove(index % model.open.len());
            model.close(number);
            (
                MgrOperation::Close {
                    inode: inode(number),
                    open,
                    lease: NO_LEASE,
                },
                Ok(()),
            )
        }
        Step::Report(index, size_min) => {
            let open = model.open.get(index % model.open.len().max(1));
            let (open, number) = *open?;
            let node = model.nodes.get_mut(&number).unwrap();
            let expected = if node.directory {
                Err(FsError::AccessDenied)
            } else {
                Ok(())
            };
            if expected.is_ok() {
                node.size = node.size.max(size_min);
            }
            let inode = inode(number);
            (
                MgrOperation::Report {
                    inode,
                    size_min,
                    modified: true,
                    open,
                    known_change: 0,
                    allocated: None,
                    filled: 0,
                    doubt: None,
                },
                expected,
            )
        }
        Step::Restart => return None,
    })
}

/// kill -9; the client declares its opens, the iods register, the grace passes.
fn restart<S: Store>(world: &mut World<S>, model: &Model) {
    world.restart();
    for n in 1..=3 {
        world.register(Some(n), &format!("iod{n}:7000")).unwrap();
    }
    let opens = model.open.iter().map(|(open, number)| {
        let access = if model.nodes[number].directory {
            crate::world::READ
        } else {
            BOTH
        };
        Reopen {
            inode: InodeNumber(*number),
            open: *open,
            access,
        }
    });
    world
        .call(MgrOperation::Hello {
            number: 0,
            opens: opens.collect(),
            leases: false,
            locks: vec![],
            more: false,
            news: false,
            peer: Peer::default(),
        })
        .unwrap();
    world.tick(SESSION_TIMEOUT_MS.into());
}

fn compare<S: Store>(world: &mut World<S>, model: &Model) {
    check(&world.store().view().unwrap());
    let mut seen = BTreeSet::new();
    for (number, node) in &model.nodes {
        let attr = world
            .stat(InodeNumber(*number))
            .expect("an inode that the model has");
        assert_eq!(attr.size, node.size);
        seen.insert(*number);
        if node.directory {
            let entries = world.list(InodeNumber(*number));
            let found: BTreeMap<String, u64> = entries
                .iter()
                .map(|entry| (entry.name.to_string(), entry.inode.0))
                .collect();
            let expected: BTreeMap<String, u64> = node
                .entries
                .iter()
                .map(|(name, number)| ((*name).to_owned(), *number))
                .collect();
            assert_eq!(found, expected);
        } else {
            assert_eq!(attr.nlink, node.links);
        }
    }
    for number in (1..model.next).filter(|number| !seen.contains(number)) {
        assert_eq!(world.stat(InodeNumber(number)), Err(FsError::Stale));
    }
}

fn outcome(reply: &MgrReply) -> Result<(), FsError> {
    reply.as_ref().map(|_| ()).map_err(|error| *error)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Steps are sent in batches of random sizes; within one, nobody knows of the others' opens.
    #[test]
    fn the_name_space_follows_the_model(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..25),
    ) {
        let mut world = World::new();
        let mut model = Model::new();
        for batch in batches {
            if batch.iter().any(|step| matches!(step, Step::Restart)) {
                restart(&mut world, &model);
                continue;
            }
            let mut inputs = Vec::new();
            let mut expected = Vec::new();
            for step in &batch {
                let Some((operation, outcome)) = plan(&mut model, step) else { continue };
                let (waiter, mut request) =
                    world.request(ALICE, &Credentials::ROOT, operation.clone());
                request.answered_below = request.sequence.saturating_sub(20);
                inputs.push(crate::world::Memory::input(waiter, &request));
                expected.push((waiter, operation, outcome));
            }
            world.batch(inputs);
            for (waiter, operation, outcome_expected) in expected {
                let reply = world.replies.remove(&waiter).unwrap();
                prop_assert_eq!(outcome(&reply), outcome_expected, "{:?}", operation);
                if let Ok(MgrResponse::Open(opened)) = reply {
                    model.open.push((opened.open, opened.attr.inode.0));
                }
            }
        }
        compare(&mut world, &model);
        restart(&mut world, &model);
        compare(&mut world, &model);
    }
}
