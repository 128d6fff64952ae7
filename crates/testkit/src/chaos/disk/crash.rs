//! The disk that a power failure leaves, made on the real one.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::model::{FileNode, Model, Node, SECTOR, Write, enter};
use crate::chaos::{Dice, Finding, Result};

/// What survives of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Synced,
    /// Some of it, picked by this seed: names in order up to one of them, or one by one; bytes by the sector.
    Random(u64),
    /// Everything, but of the last write to a file whose path ends so only a part, picked by this seed.
    Torn(&'static str, u64),
}

/// What a power failure took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Changes of names that did not survive.
    pub names: usize,
    /// Files that are not as the process last saw them.
    pub files: usize,
}

impl Model {
    /// Makes the disk what is left of it.
    pub(super) fn crash(&self, keep: Keep) -> Result<Loss> {
        let mut loss = Loss::default();
        let mut dice = match keep {
            Keep::Synced => Dice::new(0),
            Keep::Random(seed) | Keep::Torn(_, seed) => Dice::new(seed),
        };
        let names = self.surviving_names(keep, &mut dice, &mut loss);
        let torn = match keep {
            Keep::Torn(ending, _) => self.last_written(ending),
            _ => None,
        };
        for root in self.roots() {
            remove(&self.place().join(root))?;
        }
        let mut maker = Maker { model: self, names, keep, torn, dice, loss: &mut loss, made: HashMap::new() };
        maker.make_directory(0, self.place())?;
        Ok(loss)
    }

    /// The names in each directory.
    fn surviving_names(&self, keep: Keep, dice: &mut Dice, loss: &mut Loss) -> HashMap<usize, BTreeMap<String, usize>> {
        let directories = self.nodes.iter().enumerate().filter_map(|(node, content)| match content {
            Node::Directory { durable, .. } => Some((node, durable.clone())),
            Node::File(_) => None,
        });
        let mut names: HashMap<usize, BTreeMap<String, usize>> = directories.collect();
        // A file system with an ordered journal loses an end of the changes; POSIX allows more.
        let ordered = dice.below(2) == 0;
        let last = dice.below(self.names.len() as u64 + 1) as usize;
        for (index, change) in self.names.iter().enumerate() {
            let survives = match keep {
                Keep::Torn(..) => true,
                Keep::Synced => change.durable,
                Keep::Random(_) => change.durable || if ordered { index < last } else { dice.below(2) == 0 },
            };
            if survives {
                change.apply(&mut |directory, entry| enter(names.entry(directory).or_default(), &entry));
            } else {
                loss.names += 1;
            }
        }
        names
    }

    /// The file with this ending that was written last.
    fn last_written(&self, ending: &str) -> Option<usize> {
        let newest = |node: &Node| match node {
            Node::File(file) => file.pending.last().map(|(number, _)| *number),
            Node::Directory { .. } => None,
        };
        let written = self.nodes.iter().enumerate().filter_map(|(node, content)| Some((newest(content)?, node)));
        let mut named = Vec::new();
        self.name_files(0, &mut |node, name| {
            if name.ends_with(ending) {
                named.push(node);
            }
        });
        written.filter(|(_, node)| named.contains(node)).max().map(|(_, node)| node)
    }

    fn name_files(&self, directory: usize, each: &mut impl FnMut(usize, &str)) {
        if let Node::Directory { now, .. } = &self.nodes[directory] {
            for (name, node) in now {
                match &self.nodes[*node] {
                    Node::File(_) => each(*node, name),
                    Node::Directory { .. } => self.name_files(*node, each),
                }
            }
        }
    }
}

struct Maker<'m> {
    model: &'m Model,
    names: HashMap<usize, BTreeMap<String, usize>>,
    keep: Keep,
    torn: Option<usize>,
    dice: Dice,
    loss: &'m mut Loss,
    /// Where a file was put first: its other names are links.
    made: HashMap<usize, PathBuf>,
}

impl Maker<'_> {
    fn make_directory(&mut self, node: usize, path: &Path) -> Result<()> {
        for (name, child) in self.names.get(&node).cloned().unwrap_or_default() {
            let path = path.join(name);
            let file = match &self.model.nodes[child] {
                Node::Directory { .. } if self.made.contains_key(&child) => {
                    return Err(Finding::new(format!("{} would have two names", path.display())));
                }
                Node::Directory { .. } => {
                    fs::create_dir(&path)?;
                    self.made.insert(child, path.clone());
                    self.make_directory(child, &path)?;
                    continue;
                }
                Node::File(file) => file,
            };
            if let Some(first) = self.made.get(&child) {
                fs::hard_link(first, &path)?;
                continue;
            }
            let bytes = self.surviving_bytes(child, file);
            if bytes != file.now {
                self.loss.files += 1;
            }
            write_sparse(&path, &bytes)?;
            self.made.insert(child, path);
        }
        Ok(())
    }

    fn surviving_bytes(&mut self, node: usize, file: &FileNode) -> Vec<u8> {
        match self.keep {
            Keep::Synced => file.synced.clone(),
            Keep::Torn(..) if self.torn == Some(node) => self.torn_bytes(file),
            Keep::Torn(..) => file.now.clone(),
            Keep::Random(_) => match self.dice.below(4) {
                0 => file.synced.clone(),
                1 if file.in_doubt.is_empty() => file.now.clone(),
                _ => self.mixed_bytes(file),
            },
        }
    }

    /// Some sectors, and one of the lengths that the file has had.
    fn mixed_bytes(&mut self, file: &FileNode) -> Vec<u8> {
        let mut lengths = vec![file.synced.len()];
        let mut bytes = file.synced.clone();
        for (_, write) in &file.pending {
            write.apply(&mut bytes);
            lengths.push(bytes.len());
        }
        let length = lengths[self.dice.below(lengths.len() as u64) as usize];
        let mut bytes = file.synced.clone();
        bytes.resize(length, 0);
        let mut sectors = file.in_doubt.clone();
        sectors.extend(file.pending.iter().flat_map(|(_, write)| write.sectors()));
        for sector in sectors {
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(length).min(file.now.len()));
            if from < to && self.dice.below(2) == 0 {
                bytes[from..to].copy_from_slice(&file.now[from..to]);
            }
        }
        bytes
    }

    /// All writes but the last, and a beginning of that.
    fn torn_bytes(&mut self, file: &FileNode) -> Vec<u8> {
        let mut bytes = file.synced.clone();
        for (_, write) in &file.pending[..file.pending.len() - 1] {
            write.apply(&mut bytes);
        }
        if let Some((_, Write::Bytes(offset, last))) = file.pending.last() {
            let some = self.dice.below(last.len() as u64) as usize;
            Write::Bytes(*offset, last[..some].to_vec()).apply(&mut bytes);
        }
        bytes
    }
}

/// Writes a file; runs of zeros become holes, as the log writes many ahead.
fn write_sparse(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = File::create_new(path)?;
    file.set_len(bytes.len() as u64)?;
    for (number, page) in bytes.chunks(4096).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(page, number as u64 * 4096)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
