//! A file system in memory that fails on command and forgets what was not synced. For tests.
//!
//! It keeps two pictures of every file: what a reader sees, and what a power failure would leave. Syncing brings them together, sector by
//! sector; [`FaultFileSystem::crash`] throws the first away. In between, unsynced sectors, lengths and names may survive
//! in any combination, as on a disk that writes in the order it likes. A failed sync marks the sectors clean without making them
//! durable, as Linux does: the next sync succeeds and proves nothing.

mod calls;
mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use world::{Fault, World};

/// `errno` of a failing disk.
pub const EIO: i32 = 5;
/// `errno` of a full disk.
pub const ENOSPC: i32 = 28;

/// The calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "they bear the names of the methods of the traits")]
pub enum Call {
    CreateDirectory,
    List,
    Create,
    Open,
    Rename,
    Remove,
    SyncDirectory,
    Length,
    Read,
    Write,
    Allocate,
    SyncData,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// With this `errno`, having done nothing.
    Fail(i32),
    /// With this `errno`, a write having written so many bytes before.
    Torn(usize, i32),
    /// It succeeds, a write having written only so many bytes (at least 1) and saying so.
    Short(usize),
}

/// What a crash leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: the disk had written nothing ahead.
    Synced,
    /// Sectors, lengths and names picked by a generator with this seed.
    Random(u64),
    /// Everything: the process died, the machine did not.
    Everything,
}

/// The file system; clones share it.
#[derive(Clone, Default)]
pub struct FaultFileSystem {
    world: Arc<Mutex<World>>,
}
impl FaultFileSystem {
    /// An empty one, without limits and faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the `nth` next call of a kind (1 is the very next) fail, once.
    pub fn fail(&self, call: Call, nth: u64, effect: Effect) {
        self.add(call, nth, effect, false);
    }

    /// Makes the `nth` next call of a kind and all later ones fail.
    pub fn fail_from(&self, call: Call, nth: u64, effect: Effect) {
        self.add(call, nth, effect, true);
    }

    fn add(&self, call: Call, nth: u64, effect: Effect, forever: bool) {
        let after = nth.checked_sub(1).expect("calls are counted from 1");
        self.lock().faults.push(Fault { call, after, effect, forever });
    }

    /// Takes all planned faults back.
    pub fn heal(&self) {
        let mut world = self.lock();
        world.faults.clear();
        world.changes_left = None;
    }

    /// Lets `changes` more calls that change anything succeed, then stops the machine in the midst of the next: a write is
    /// torn, every call fails, until [`crash`](Self::crash).
    pub fn stop_after(&self, changes: u64) {
        self.lock().changes_left = Some(changes + 1);
    }

    /// Whether a machine that [`stop_after`](Self::stop_after) was asked to stop has stopped.
    pub fn stopped(&self) -> bool {
        self.lock().changes_left == Some(0)
    }

    /// Sets how many bytes the files may have together; `None` is no limit.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.lock().capacity_bytes = capacity_bytes;
    }

    /// How often a call was made.
    pub fn calls(&self, call: Call) -> u64 {
        self.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// How many bytes the files have together.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// The machine or the process dies and starts again: handles opened before are dead, planned faults are gone, and of what was not
    /// synced there is what `keep` says.
    pub fn crash(&self, keep: Keep) {
        let mut world = self.lock();
        world.life += 1;
        world.faults.clear();
        world.changes_left = None;
        let mut random = match keep {
            Keep::Everything => return,
            Keep::Synced => None,
            Keep::Random(seed) => Some(SplitMix(seed)),
        };
        let mut coin = move || random.as_mut().is_some_and(|random| random.next() & 1 == 1);
        for change in std::mem::take(&mut world.unsynced) {
            if coin() {
                world.survive(change);
            }
        }
        world.names = world.durable_names.clone();
        let linked: BTreeSet<u64> = world.names.values().copied().collect();
        world.files.retain(|inode, _| linked.contains(inode));
        for file in world.files.values_mut() {
            file.crash(&mut coin);
        }
    }

    /// A file system of its own with what this one has now, as the image of a machine that is copied while it runs. Planned faults
    /// are not copied.
    pub fn image(&self) -> Self {
        let world = self.lock();
        let image = World {
            files: world.files.clone(),
            names: world.names.clone(),
            durable_names: world.durable_names.clone(),
            unsynced: world.unsynced.clone(),
            directories: world.directories.clone(),
            next_inode: world.next_inode,
            capacity_bytes: world.capacity_bytes,
            ..World::default()
        };
        FaultFileSystem { world: Arc::new(Mutex::new(image)) }
    }

    /// The bytes of a file as a reader sees them.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let world = self.lock();
        world.files[&world.names[path]].bytes.clone()
    }

    /// Puts these bytes into a file, durably, however the log would have written it: damage, or a file from elsewhere.
    pub fn set_contents(&self, path: &Path, bytes: &[u8]) {
        let mut world = self.lock();
        let inode = world.names.get(path).copied().unwrap_or(world.next_inode);
        world.next_inode = world.next_inode.max(inode + 1);
        world.names.insert(path.to_owned(), inode);
        world.durable_names.insert(path.to_owned(), inode);
        let file = world.files.entry(inode).or_default();
        file.bytes = bytes.to_vec();
        file.durable = bytes.to_vec();
        file.dirty.clear();
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A small generator (splitmix64): the same seed, the same crash, on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
