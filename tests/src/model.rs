// SPDX-License-Identifier: MIT
//! A file system in memory, as simple as can be: what the real one is compared with.
//!
//! Content is a vector of bytes, a directory a map. The errnos are Linux's, as tmpfs gives them to
//! root; a test runs the same operations on tmpfs to keep this model honest.

use std::collections::BTreeMap;

use nix::errno::Errno;

use crate::operation::Operation;

/// Number of an inode in the model; 0 is the root.
type Inode = usize;
const ROOT: Inode = 0;

/// What a caller sees of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It failed.
    Failed(Errno),
    /// Bytes that were read, or an attribute's value, or a link's target.
    Bytes(Vec<u8>),
    /// Names in a directory with the kind of each, or names of attributes, in order.
    Names(Vec<(String, Kind)>),
    /// What lstat(2) says.
    Stat(Stat),
}

/// Kind of an inode; of an attribute's name, which has none, `File`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Link,
}

/// The part of lstat(2) that the model knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Kind.
    pub kind: Kind,
    /// Bytes; of a directory 0.
    pub size: u64,
    /// Permission bits; of a link 0.
    pub mode: u32,
    /// Hard links; of a directory 2 and its subdirectories.
    pub links: u64,
    /// Modification time where utimensat(2) set it and nothing changed it since.
    pub modified: Time,
}

/// Seconds and nanoseconds since the epoch, where they are known.
pub type Time = Option<(i64, u32)>;

#[derive(Clone, Debug)]
enum Content {
    File(Vec<u8>),
    Directory(BTreeMap<String, Inode>),
    Link(String),
}

#[derive(Clone, Debug)]
struct Node {
    content: Content,
    mode: u32,
    links: u64,
    modified: Time,
    xattrs: BTreeMap<String, Vec<u8>>,
}

/// The simpler file system that PVFS is compared with.
#[derive(Clone, Debug)]
pub struct Model {
    nodes: BTreeMap<Inode, Node>,
    next: Inode,
}

impl Default for Model {
    fn default() -> Self {
        let root = Node::new(Content::Directory(BTreeMap::new()), 0o755);
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
        }
    }
}

impl Node {
    fn new(content: Content, mode: u32) -> Self {
        let links = if matches!(content, Content::Directory(_)) {
            2
        } else {
            1
        };
        Self {
            content,
            mode,
            links,
            modified: None,
            xattrs: BTreeMap::new(),
        }
    }

    const fn kind(&self) -> Kind {
        match self.content {
            Content::File(_) => Kind::File,
            Content::Directory(_) => Kind::Directory,
            Content::Link(_) => Kind::Link,
        }
    }
}

type Answer<T> = Result<T, Errno>;

impl Model {
    /// Paths of everything but the root, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.walk(ROOT, "", &mut |path, _| paths.push(path.to_owned()));
        paths
    }

    /// Paths of all directories but the root, in order.
    #[must_use]
    pub fn directories(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.walk(ROOT, "", &mut |path, node| {
            if node.kind() == Kind::Directory {
                paths.push(path.to_owned());
            }
        });
        paths
    }

    fn walk(&self, directory: Inode, prefix: &str, visit: &mut impl FnMut(&str, &Node)) {
        let Some(Node {
            content: Content::Directory(entries),
            ..
        }) = self.nodes.get(&directory)
        else {
            return;
        };
        for (name, inode) in entries {
            let path = if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}/{name}")
            };
            if let Some(node) = self.nodes.get(inode) {
                visit(&path, node);
                self.walk(*inode, &path, visit);
            }
        }
    }

    /// Does `operation` and says what its caller sees.
    pub fn apply(&mut self, operation: &Operation) -> Outcome {
        self.run(operation).unwrap_or_else(Outcome::Failed)
    }

    fn run(&mut self, operation: &Operation) -> Answer<Outcome> {
        match operation {
            Operation::Create {
                path,
                exclusive,
                truncate,
            } => {
                self.create(path, *exclusive, *truncate)?;
            }
            Operation::Write {
                path, offset, data, ..
            } => {
                self.write(path, Some(*offset), &data.bytes())?;
            }
            Operation::Append { path, data } => self.write(path, None, &data.bytes())?,
            Operation::Read {
                path,
                offset,
                length,
            } => return self.read(path, *offset, *length),
            Operation::Truncate { path, size } => self.truncate(path, *size)?,
            Operation::Rename { from, to } => self.rename(from, to)?,
            Operation::Unlink { path } => self.unlink(path)?,
            Operation::UnlinkOpen { path, data } => return self.unlink_open(path, &data.bytes()),
            Operation::MakeDirectory { path, mode } => {
                let node = Node::new(Content::Directory(BTreeMap::new()), *mode);
                self.insert_new(path, node)?;
            }
            Operation::RemoveDirectory { path } => self.remove_directory(path)?,
            Operation::List { path } => return self.list(path),
            Operation::Link { from, to } => self.link(from, to)?,
            Operation::Symlink { target, path } => {
                self.insert_new(path, Node::new(Content::Link(target.clone()), 0))?;
            }
            Operation::ReadLink { path } => return self.read_link(path),
            Operation::Chmod { path, mode } => self.node_mut(path)?.mode = *mode,
            Operation::SetTimes {
                path,
                seconds,
                nanoseconds,
            } => {
                self.node_mut(path)?.modified = Some((*seconds, *nanoseconds));
            }
            Operation::SetXattr { path, name, data } => {
                self.node_mut(path)?
                    .xattrs
                    .insert(name.clone(), data.bytes());
            }
            Operation::GetXattr { path, name } => {
                let value = self.node_mut(path)?.xattrs.get(name).cloned();
                return value.map(Outcome::Bytes).ok_or(Errno::ENODATA);
            }
            Operation::ListXattr { path } => {
                let names = self.node_mut(path)?.xattrs.keys();
                return Ok(Outcome::Names(
                    names.map(|n| (n.clone(), Kind::File)).collect(),
                ));
            }
            Operation::RemoveXattr { path, name } => {
                self.node_mut(path)?
                    .xattrs
                    .remove(name)
                    .ok_or(Errno::ENODATA)?;
            }
            Operation::Stat { path } => return self.stat(path),
        }
        Ok(Outcome::Done)
    }

    /// The entries of an inode that must be a directory.
    fn entries(&self, inode: Inode) -> Answer<&BTreeMap<String, Inode>> {
        match self.nodes.get(&inode).map(|node| &node.content) {
            Some(Content::Directory(entries)) => Ok(entries),
            Some(_) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    /// Changes an entry, which changes the directory's time.
    fn set_entry(&mut self, directory: Inode, name: &str, inode: Option<Inode>) {
        if let Some(node) = self.nodes.get_mut(&directory) {
            node.modified = None;
            if let Content::Directory(entries) = &mut node.content {
                match inode {
                    Some(inode) => entries.insert(name.to_owned(), inode),
                    None => entries.remove(name),
                };
            }
        }
    }

    fn add_links(&mut self, inode: Inode, delta: i64) {
        if let Some(node) = self.nodes.get_mut(&inode) {
            node.links = node.links.saturating_add_signed(delta);
            let dead = match node.kind() {
                Kind::Directory => node.links < 2,
                Kind::File | Kind::Link => node.links == 0,
            };
            if dead {
                self.nodes.remove(&inode);
            }
        }
    }

    /// The directory of `path` and the last name in it.
    fn parent<'p>(&self, path: &'p str) -> Answer<(Inode, &'p str)> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let inode = self.resolve(directory)?;
        self.entries(inode)?;
        Ok((inode, name))
    }

    fn resolve(&self, path: &str) -> Answer<Inode> {
        let mut inode = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            inode = *self.entries(inode)?.get(name).ok_or(Errno::ENOENT)?;
        }
        Ok(inode)
    }

    fn node_mut(&mut self, path: &str) -> Answer<&mut Node> {
        let inode = self.resolve(path)?;
        self.nodes.get_mut(&inode).ok_or(Errno::ENOENT)
    }

    /// The content of a file that is opened for writing, or read.
    fn bytes_mut(&mut self, path: &str) -> Answer<(&mut Vec<u8>, &mut Time)> {
        let node = self.node_mut(path)?;
        match &mut node.content {
            Content::File(bytes) => Ok((bytes, &mut node.modified)),
            Content::Directory(_) => Err(Errno::EISDIR),
            Content::Link(_) => Err(Errno::ELOOP),
        }
    }

    fn insert_new(&mut self, path: &str, node: Node) -> Answer<()> {
        let (directory, name) = self.parent(path)?;
        if self.entries(directory)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let inode = self.next;
        self.next += 1;
        if node.kind() == Kind::Directory {
            self.add_links(directory, 1);
        }
        self.nodes.insert(inode, node);
        self.set_entry(directory, name, Some(inode));
        Ok(())
    }

    fn create(&mut self, path: &str, exclusive: bool, truncate: bool) -> Answer<()> {
        match self.insert_new(path, Node::new(Content::File(Vec::new()), 0o644)) {
            Err(Errno::EEXIST) if !exclusive => {
                let (bytes, modified) = self.bytes_mut(path)?;
                if truncate {
                    bytes.clear();
                    *modified = None;
                }
                Ok(())
            }
            result => result,
        }
    }

    /// Writes at `offset`, or at the end.
    fn write(&mut self, path: &str, offset: Option<u64>, data: &[u8]) -> Answer<()> {
        let (bytes, modified) = self.bytes_mut(path)?;
        let start = offset.map_or(bytes.len(), |offset| offset as usize);
        let end = start + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(range) = bytes.get_mut(start..end) {
            range.copy_from_slice(data);
        }
        *modified = None;
        Ok(())
    }

    fn read(&mut self, path: &str, offset: u64, length: usize) -> Answer<Outcome> {
        let (bytes, _) = self.bytes_mut(path)?;
        let start = (offset as usize).min(bytes.len());
        let end = (start + length).min(bytes.len());
        Ok(Outcome::Bytes(
            bytes.get(start..end).unwrap_or_default().to_vec(),
        ))
    }

    fn truncate(&mut self, path: &str, size: u64) -> Answer<()> {
        let (bytes, modified) = self.bytes_mut(path)?;
        bytes.resize(size as usize, 0);
        *modified = None;
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Answer<()> {
        let (old_directory, old_name) = self.parent(from)?;
        let (new_directory, new_name) = self.parent(to)?;
        let inode = *self
            .entries(old_directory)?
            .get(old_name)
            .ok_or(Errno::ENOENT)?;
        let is_directory = self.entries(inode).is_ok();
        // The order of these checks is the kernel's: ancestors first.
        if is_directory && format!("{to}/").starts_with(&format!("{from}/")) && from != to {
            return Err(Errno::EINVAL);
        }
        if from != to && format!("{from}/").starts_with(&format!("{to}/")) {
            return Err(Errno::ENOTEMPTY);
        }
        let replaced = self.entries(new_directory)?.get(new_name).copied();
        if replaced == Some(inode) {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            match (is_directory, self.entries(replaced).map(BTreeMap::is_empty)) {
                (true, Err(_)) => return Err(Errno::ENOTDIR),
                (false, Ok(_)) => return Err(Errno::EISDIR),
                (true, Ok(false)) => return Err(Errno::ENOTEMPTY),
                (true, Ok(true)) => {
                    self.add_links(replaced, -1);
                    self.add_links(new_directory, -1);
                }
                (false, Err(_)) => self.add_links(replaced, -1),
            }
        }
        self.set_entry(old_directory, old_name, None);
        self.set_entry(new_directory, new_name, Some(inode));
        if is_directory && old_directory != new_directory {
            self.add_links(old_directory, -1);
            self.add_links(new_directory, 1);
        }
        Ok(())
    }

    fn unlink(&mut self, path: &str) -> Answer<()> {
        let (directory, name) = self.parent(path)?;
        let inode = *self.entries(directory)?.get(name).ok_or(Errno::ENOENT)?;
        if self.entries(inode).is_ok() {
            return Err(Errno::EISDIR);
        }
        self.set_entry(directory, name, None);
        self.add_links(inode, -1);
        Ok(())
    }

    fn unlink_open(&mut self, path: &str, data: &[u8]) -> Answer<Outcome> {
        let inode = self.resolve(path)?;
        self.bytes_mut(path)?;
        let mut whole = match self.nodes.get(&inode) {
            Some(Node {
                content: Content::File(bytes),
                ..
            }) => bytes.clone(),
            _ => return Err(Errno::EISDIR),
        };
        whole.extend_from_slice(data);
        self.write(path, None, data)?;
        self.unlink(path)?;
        Ok(Outcome::Bytes(whole))
    }

    fn remove_directory(&mut self, path: &str) -> Answer<()> {
        let (directory, name) = self.parent(path)?;
        let inode = *self.entries(directory)?.get(name).ok_or(Errno::ENOENT)?;
        if !self.entries(inode)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.set_entry(directory, name, None);
        self.add_links(inode, -1);
        self.add_links(directory, -1);
        Ok(())
    }

    fn list(&self, path: &str) -> Answer<Outcome> {
        let entries = self.entries(self.resolve(path)?)?;
        let kind = |inode| self.nodes.get(inode).map_or(Kind::File, Node::kind);
        Ok(Outcome::Names(
            entries
                .iter()
                .map(|(name, i)| (name.clone(), kind(i)))
                .collect(),
        ))
    }

    fn link(&mut self, from: &str, to: &str) -> Answer<()> {
        let inode = self.resolve(from)?;
        let (directory, name) = self.parent(to)?;
        if self.entries(directory)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if self.entries(inode).is_ok() {
            return Err(Errno::EPERM);
        }
        self.set_entry(directory, name, Some(inode));
        self.add_links(inode, 1);
        Ok(())
    }

    fn read_link(&mut self, path: &str) -> Answer<Outcome> {
        match &self.node_mut(path)?.content {
            Content::Link(target) => Ok(Outcome::Bytes(target.clone().into_bytes())),
            _ => Err(Errno::EINVAL),
        }
    }

    fn stat(&mut self, path: &str) -> Answer<Outcome> {
        let node = self.node_mut(path)?;
        let size = match &node.content {
            Content::File(bytes) => bytes.len() as u64,
            Content::Link(target) => target.len() as u64,
            Content::Directory(_) => 0,
        };
        let (mode, links, modified) = (node.mode, node.links, node.modified);
        Ok(Outcome::Stat(Stat {
            kind: node.kind(),
            size,
            mode,
            links,
            modified,
        }))
    }
}
