//! What the disk holds, as readers see it and as a power failure would leave it, and which calls fail.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::{Call, EIO, ENOSPC, Effect};

/// What a disk writes as one: the unit in which unsynced bytes survive or vanish.
const SECTOR: usize = 512;

#[derive(Default)]
pub(super) struct World {
    pub(super) files: BTreeMap<u64, Inode>,
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names that no directory sync has covered, in order.
    pub(super) unsynced: Vec<NameChange>,
    pub(super) directories: BTreeSet<PathBuf>,
    pub(super) next_inode: u64,
    /// Handles of an earlier life are dead.
    pub(super) life: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) calls: BTreeMap<Call, u64>,
    pub(super) changes_left: Option<u64>,
    pub(super) capacity_bytes: Option<u64>,
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) bytes: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) dirty: BTreeSet<usize>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Link(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

pub(super) struct Fault {
    pub(super) call: Call,
    /// Fails when this many calls more have gone well.
    pub(super) after: u64,
    pub(super) effect: Effect,
    pub(super) forever: bool,
}
impl World {
    pub(super) fn used_bytes(&self) -> u64 {
        self.names.values().map(|inode| self.files[inode].bytes.len() as u64).sum()
    }

    /// Counts a call and says whether it fails, and how.
    pub(super) fn enter(&mut self, call: Call) -> io::Result<Option<Effect>> {
        *self.calls.entry(call).or_default() += 1;
        if self.changes_left == Some(0) {
            return Err(io::Error::other("the machine has stopped"));
        }
        let changes = !matches!(call, Call::List | Call::Open | Call::Length | Call::Read);
        if let (true, Some(left)) = (changes, self.changes_left.as_mut()) {
            *left -= 1;
            match (*left, call) {
                (0, Call::Write) => return Ok(Some(Effect::Torn(SECTOR, EIO))),
                (0, _) => return Err(io::Error::other("the machine has stopped")),
                _ => {}
            }
        }
        let mut hit = None;
        for (index, fault) in self.faults.iter_mut().enumerate().filter(|(_, fault)| fault.call == call) {
            match fault.after.checked_sub(1) {
                Some(left) => fault.after = left,
                None => hit = Some((index, fault.effect, fault.forever)),
            }
        }
        match hit {
            None => Ok(None),
            Some((index, effect, forever)) => {
                if !forever {
                    self.faults.remove(index);
                }
                Ok(Some(effect))
            }
        }
    }

    /// `enter` for calls that either happen or do not.
    pub(super) fn enter_whole(&mut self, call: Call) -> io::Result<()> {
        match self.enter(call)? {
            None | Some(Effect::Short(_)) => Ok(()),
            Some(Effect::Fail(errno) | Effect::Torn(_, errno)) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    pub(super) fn check_room(&self, inode: u64, new_length: u64) -> io::Result<()> {
        let growth = new_length.saturating_sub(self.files[&inode].bytes.len() as u64);
        match self.capacity_bytes {
            Some(capacity) if growth > 0 && self.used_bytes() + growth > capacity => {
                Err(io::Error::from_raw_os_error(ENOSPC))
            }
            _ => Ok(()),
        }
    }

    /// An unsynced change of a name that the disk had written already; one whose own ground is missing vanishes with it.
    pub(super) fn survive(&mut self, change: NameChange) {
        match change {
            NameChange::Link(path, inode) => {
                self.durable_names.insert(path, inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = self.durable_names.remove(&from) {
                    self.durable_names.insert(to, inode);
                }
            }
            NameChange::Unlink(path) => {
                self.durable_names.remove(&path);
            }
        }
    }
}

impl Inode {
    pub(super) fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let from = sector * SECTOR;
            let to = (from + SECTOR).min(self.bytes.len());
            self.durable[from..to].copy_from_slice(&self.bytes[from..to]);
        }
    }

    pub(super) fn crash(&mut self, coin: &mut impl FnMut() -> bool) {
        if coin() {
            self.durable.resize(self.bytes.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            let from = sector * SECTOR;
            let to = (from + SECTOR).min(self.bytes.len()).min(self.durable.len());
            if from < to && coin() {
                self.durable[from..to].copy_from_slice(&self.bytes[from..to]);
            }
        }
        self.bytes = self.durable.clone();
    }
}
