//! Two pictures of a part of the disk: what processes see, and what a power failure would leave. The journal brings both on.
//!
//! What is promised is what POSIX promises, and no more, with two things that every journaling file system adds: a rename is
//! one step, also from one directory to another, and a name is there or not. So:
//! - a sync of a file makes the bytes and the length durable that it had when the sync began, not its name;
//! - a sync of a directory makes the names in it durable, not what is in the files;
//! - after a failed sync nobody knows: a later one that succeeds does not make up for it;
//! - all else may survive or not, in any combination: names one by one, bytes by the sector.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::journal::{Record, divide};
use crate::chaos::{Finding, Result};

/// What a disk writes as one.
pub(super) const SECTOR: usize = 512;

/// A directory and, in it, the roots that are modelled; its other entries belong to somebody else.
#[derive(Clone, Debug)]
pub(super) struct Model {
    place: PathBuf,
    roots: Vec<String>,
    pub(super) nodes: Vec<Node>,
    by_inode: HashMap<u64, usize>,
    /// Changes of names, all of them, in order.
    pub(super) names: Vec<NameChange>,
    /// Syncs under way: the node, and what had been done before.
    syncs: HashMap<u64, (usize, usize)>,
    /// Counts writes.
    writes: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Directory { durable: BTreeMap<String, usize>, now: BTreeMap<String, usize> },
    File(FileNode),
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    pub(super) synced: Vec<u8>,
    pub(super) now: Vec<u8>,
    /// Since the last sync, with their numbers.
    pub(super) pending: Vec<(usize, Write)>,
    /// Sectors that a failed sync has left in doubt.
    pub(super) in_doubt: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum Write {
    Bytes(u64, Vec<u8>),
    Length(u64),
    Grow(u64),
}

/// A name given to a node, taken from it, or both in one step.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) node: usize,
    pub(super) from: Option<(usize, String)>,
    pub(super) to: Option<(usize, String)>,
    pub(super) durable: bool,
    in_doubt: bool,
}

impl Write {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Write::Bytes(offset, new) => {
                let (from, to) = (*offset as usize, *offset as usize + new.len());
                if bytes.len() < to {
                    bytes.resize(to, 0);
                }
                bytes[from..to].copy_from_slice(new);
            }
            Write::Length(length) => bytes.resize(*length as usize, 0),
            Write::Grow(length) => bytes.resize(bytes.len().max(*length as usize), 0),
        }
    }

    pub(super) fn sectors(&self) -> std::ops::Range<usize> {
        match self {
            Write::Bytes(offset, new) => (*offset as usize / SECTOR)..((*offset as usize + new.len()).div_ceil(SECTOR)),
            Write::Length(_) | Write::Grow(_) => 0..0,
        }
    }
}

impl NameChange {
    pub(super) fn touches(&self, directory: usize) -> bool {
        [&self.from, &self.to].into_iter().flatten().any(|(touched, _)| *touched == directory)
    }

    /// Does it to a picture.
    pub(super) fn apply(&self, entries: &mut impl FnMut(usize, Entry<'_>)) {
        if let Some((directory, name)) = &self.from {
            entries(*directory, Entry::Gone(name, self.node));
        }
        if let Some((directory, name)) = &self.to {
            entries(*directory, Entry::There(name, self.node));
        }
    }
}

/// One half of a change.
pub(super) enum Entry<'n> {
    There(&'n str, usize),
    Gone(&'n str, usize),
}

/// Enters it in the names of a directory.
pub(super) fn enter(names: &mut BTreeMap<String, usize>, entry: &Entry<'_>) {
    match entry {
        Entry::There(name, node) => {
            names.insert((*name).to_owned(), *node);
        }
        Entry::Gone(name, node) => {
            if names.get(*name) == Some(node) {
                names.remove(*name);
            }
        }
    }
}

impl Model {
    /// The disk as it is, all of it durable.
    pub(super) fn of(place: &Path, roots: &[String]) -> Result<Self> {
        let mut model = Model {
            place: place.to_owned(),
            roots: roots.to_vec(),
            nodes: Vec::new(),
            by_inode: HashMap::new(),
            names: Vec::new(),
            syncs: HashMap::new(),
            writes: 0,
        };
        let mut entries = BTreeMap::new();
        model.nodes.push(Node::Directory { durable: BTreeMap::new(), now: BTreeMap::new() });
        model.by_inode.insert(fs::metadata(place)?.ino(), 0);
        for root in roots {
            if place.join(root).exists() {
                entries.insert(root.clone(), model.scan(&place.join(root))?);
            }
        }
        model.nodes[0] = Node::Directory { durable: entries.clone(), now: entries };
        Ok(model)
    }

    fn scan(&mut self, path: &Path) -> Result<usize> {
        let found = fs::symlink_metadata(path)?;
        if let Some(node) = self.by_inode.get(&found.ino()) {
            return Ok(*node);
        }
        let node = if found.is_dir() {
            let mut names = BTreeMap::new();
            for entry in fs::read_dir(path)? {
                let (_, name) = divide(&entry?.path())?;
                names.insert(name.clone(), self.scan(&path.join(&name))?);
            }
            Node::Directory { durable: names.clone(), now: names }
        } else {
            let bytes = fs::read(path)?;
            Node::File(FileNode { synced: bytes.clone(), now: bytes, ..FileNode::default() })
        };
        Ok(self.add(found.ino(), node))
    }

    fn add(&mut self, inode: u64, node: Node) -> usize {
        self.nodes.push(node);
        self.by_inode.insert(inode, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    pub(super) fn roots(&self) -> &[String] {
        &self.roots
    }

    fn is_ours(&self, path: &Path) -> bool {
        let first = path.strip_prefix(&self.place).ok().and_then(|inner| inner.components().next());
        first.is_some_and(|first| self.roots.iter().any(|root| first.as_os_str() == root.as_str()))
    }

    /// The directory of this path, as processes see it.
    fn directory(&self, path: &Path) -> Result<usize> {
        let lost = || Finding::new(format!("the journal does not know the directory {}", path.display()));
        let inner = path.strip_prefix(&self.place).map_err(|_| lost())?;
        inner.components().try_fold(0, |node, name| match &self.nodes[node] {
            Node::Directory { now, .. } => {
                name.as_os_str().to_str().and_then(|name| now.get(name)).copied().ok_or_else(lost)
            }
            Node::File(_) => Err(lost()),
        })
    }

    fn entry(&self, path: &Path) -> Result<(usize, String)> {
        let (parent, name) = divide(path)?;
        Ok((self.directory(&parent)?, name))
    }

    fn change_name(&mut self, node: usize, from: Option<&Path>, to: Option<&Path>) -> Result<()> {
        let from = from.map(|path| self.entry(path)).transpose()?;
        let to = to.map(|path| self.entry(path)).transpose()?;
        let change = NameChange { node, from, to, durable: false, in_doubt: false };
        let nodes = &mut self.nodes;
        change.apply(&mut |directory, entry| {
            if let Node::Directory { now, .. } = &mut nodes[directory] {
                enter(now, &entry);
            }
        });
        self.names.push(change);
        Ok(())
    }

    fn write(&mut self, inode: u64, write: Write) {
        self.writes += 1;
        let number = self.writes;
        let node = self.by_inode.get(&inode).copied();
        if let Some(Node::File(file)) = node.map(|node| &mut self.nodes[node]) {
            write.apply(&mut file.now);
            file.pending.push((number, write));
        }
    }

    /// Goes on by one record.
    pub(super) fn follow(&mut self, record: &Record<'_>) -> Result<()> {
        match *record {
            Record::File { inode, path } | Record::Directory { inode, path } if !self.is_ours(path) => {
                self.by_inode.remove(&inode);
            }
            Record::File { inode, path } => {
                let node = self.add(inode, Node::File(FileNode::default()));
                self.change_name(node, None, Some(path))?;
            }
            Record::Directory { inode, path } => {
                let node = self.add(inode, Node::Directory { durable: BTreeMap::new(), now: BTreeMap::new() });
                self.change_name(node, None, Some(path))?;
            }
            Record::Link { inode, path } if self.is_ours(path) => {
                let node = self.node(inode, path)?;
                self.change_name(node, None, Some(path))?;
            }
            Record::Rename { inode, from, to } if self.is_ours(to) => {
                let node = self.node(inode, from)?;
                self.change_name(node, Some(from), Some(to))?;
            }
            Record::Remove { path } if self.is_ours(path) => {
                let (directory, name) = self.entry(path)?;
                let Node::Directory { now, .. } = &self.nodes[directory] else { unreachable!("looked up as one") };
                let gone = || Finding::new(format!("the journal does not know {}", path.display()));
                let node = *now.get(&name).ok_or_else(gone)?;
                self.change_name(node, Some(path), None)?;
            }
            Record::Link { .. } | Record::Rename { .. } | Record::Remove { .. } => {}
            Record::Write { inode, offset, bytes } => self.write(inode, Write::Bytes(offset, bytes.to_vec())),
            Record::Length { inode, length } => self.write(inode, Write::Length(length)),
            Record::Grow { inode, length } => self.write(inode, Write::Grow(length)),
            Record::Sync { inode, number } => {
                if let Some(&node) = self.by_inode.get(&inode) {
                    let before = match &self.nodes[node] {
                        Node::Directory { .. } => self.names.len(),
                        Node::File(_) => self.writes,
                    };
                    self.syncs.insert(number, (node, before));
                }
            }
            Record::Synced { number, .. } => self.synced(number, true),
            Record::SyncLost { number, .. } => self.synced(number, false),
        }
        Ok(())
    }

    fn node(&self, inode: u64, path: &Path) -> Result<usize> {
        let unknown = || Finding::new(format!("the journal does not know the file {}", path.display()));
        self.by_inode.get(&inode).copied().ok_or_else(unknown)
    }

    fn synced(&mut self, number: u64, well: bool) {
        let Some((node, before)) = self.syncs.remove(&number) else { return };
        match &mut self.nodes[node] {
            Node::Directory { .. } => {
                let covered = self.names[..before].iter_mut().filter(|change| !change.durable && change.touches(node));
                for change in covered {
                    change.durable = well && !change.in_doubt;
                    change.in_doubt |= !well;
                }
            }
            Node::File(file) => {
                let later = file.pending.iter().position(|(number, _)| *number > before);
                let rest = file.pending.split_off(later.unwrap_or(file.pending.len()));
                for (_, write) in std::mem::replace(&mut file.pending, rest) {
                    match well {
                        true => write.apply(&mut file.synced),
                        false => file.in_doubt.extend(write.sectors()),
                    }
                }
            }
        }
    }

    /// Compares with the disk as processes see it: what differs was changed past the journal.
    pub(super) fn check(&self) -> Result<()> {
        self.check_at(0, &self.place)
    }

    fn check_at(&self, node: usize, path: &Path) -> Result<()> {
        let differs = |what: String| Err(Finding::new(format!("the journal has missed something: {what}")));
        match &self.nodes[node] {
            Node::File(file) => {
                let found = fs::read(path)?;
                if found != file.now {
                    let (bytes, expected) = (found.len(), file.now.len());
                    return differs(format!("{} has {bytes} bytes, the journal {expected}, or others", path.display()));
                }
            }
            Node::Directory { now, .. } => {
                let mut found = BTreeSet::new();
                for entry in fs::read_dir(path)? {
                    found.insert(divide(&entry?.path())?.1);
                }
                // What processes say is written by the harness.
                found.retain(|name| !name.ends_with(".stderr"));
                if node == 0 {
                    found.retain(|name| self.roots.contains(name));
                }
                let expected: BTreeSet<String> = now.keys().cloned().collect();
                if found != expected {
                    return differs(format!("{} holds {found:?}, in the journal {expected:?}", path.display()));
                }
                for (name, node) in now {
                    self.check_at(*node, &path.join(name))?;
                }
            }
        }
        Ok(())
    }
}
