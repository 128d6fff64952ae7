//! A file system in memory that fails on command and forgets what was not synced. For tests.
//!
//! It keeps two pictures of every file: what a reader sees, and what a power failure would leave. Syncing brings them together, sector by
//! sector; [`FaultFileSystem::crash`] throws the first away. In between, unsynced sectors, lengths and names may survive
//! in any combination, as on a disk that writes in the order it likes. A failed sync marks the sectors clean without making them
//! durable, as Linux does: the next sync succeeds and proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Access, FileHandle, FileSystem};

/// What a disk writes as one: the unit in which unsynced bytes survive or vanish.
const SECTOR: usize = 512;

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

#[derive(Default)]
struct World {
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names that no directory sync has covered, in order.
    unsynced: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    next_inode: u64,
    /// Handles of an earlier life are dead.
    life: u64,
    faults: Vec<Fault>,
    calls: BTreeMap<Call, u64>,
    changes_left: Option<u64>,
    capacity_bytes: Option<u64>,
}

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

struct Fault {
    call: Call,
    /// Fails when this many calls more have gone well.
    after: u64,
    effect: Effect,
    forever: bool,
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

    fn handle(&self, world: &World, inode: u64, access: Access) -> Arc<dyn FileHandle> {
        Arc::new(Handle { world: self.clone(), inode, life: world.life, access })
    }
}

impl World {
    fn used_bytes(&self) -> u64 {
        self.names.values().map(|inode| self.files[inode].bytes.len() as u64).sum()
    }

    /// Counts a call and says whether it fails, and how.
    fn enter(&mut self, call: Call) -> io::Result<Option<Effect>> {
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
    fn enter_whole(&mut self, call: Call) -> io::Result<()> {
        match self.enter(call)? {
            None | Some(Effect::Short(_)) => Ok(()),
            Some(Effect::Fail(errno) | Effect::Torn(_, errno)) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn check_room(&self, inode: u64, new_length: u64) -> io::Result<()> {
        let growth = new_length.saturating_sub(self.files[&inode].bytes.len() as u64);
        match self.capacity_bytes {
            Some(capacity) if growth > 0 && self.used_bytes() + growth > capacity => {
                Err(io::Error::from_raw_os_error(ENOSPC))
            }
            _ => Ok(()),
        }
    }

    /// An unsynced change of a name that the disk had written already; one whose own ground is missing vanishes with it.
    fn survive(&mut self, change: NameChange) {
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
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
    }

    fn sync(&mut self) {
        self.durable.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let from = sector * SECTOR;
            let to = (from + SECTOR).min(self.bytes.len());
            self.durable[from..to].copy_from_slice(&self.bytes[from..to]);
        }
    }

    fn crash(&mut self, coin: &mut impl FnMut() -> bool) {
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

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl FileSystem for FaultFileSystem {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.enter_whole(Call::CreateDirectory)?;
        world.directories.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut world = self.lock();
        world.enter_whole(Call::List)?;
        if !world.directories.contains(directory) {
            return Err(not_found());
        }
        let inside = world.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        let mut world = self.lock();
        world.enter_whole(Call::Create)?;
        let inode = match world.names.get(path) {
            Some(&inode) => inode,
            None => {
                let inode = world.next_inode;
                world.next_inode += 1;
                world.names.insert(path.to_owned(), inode);
                world.unsynced.push(NameChange::Link(path.to_owned(), inode));
                inode
            }
        };
        let file = world.files.entry(inode).or_default();
        let length = file.bytes.len();
        file.touch(0, length);
        file.bytes.clear();
        Ok(self.handle(&world, inode, Access::ReadWrite))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FileHandle>> {
        let mut world = self.lock();
        world.enter_whole(Call::Open)?;
        let inode = *world.names.get(path).ok_or_else(not_found)?;
        Ok(self.handle(&world, inode, access))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.enter_whole(Call::Rename)?;
        let inode = world.names.remove(from).ok_or_else(not_found)?;
        world.names.insert(to.to_owned(), inode);
        world.unsynced.push(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.enter_whole(Call::Remove)?;
        world.names.remove(path).ok_or_else(not_found)?;
        world.unsynced.push(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.enter_whole(Call::SyncDirectory)?;
        let (inside, rest) = std::mem::take(&mut world.unsynced).into_iter().partition(|change: &NameChange| {
            let (NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(path, _)) = change;
            path.parent() == Some(directory)
        });
        world.unsynced = rest;
        let inside: Vec<NameChange> = inside;
        for change in inside {
            world.survive(change);
        }
        Ok(())
    }
}

struct Handle {
    world: FaultFileSystem,
    inode: u64,
    life: u64,
    access: Access,
}

impl Handle {
    fn enter(&self, call: Call) -> io::Result<(MutexGuard<'_, World>, Option<Effect>)> {
        let mut world = self.world.lock();
        if world.life != self.life {
            return Err(io::Error::other("this handle belongs to a process that died"));
        }
        if !world.files.contains_key(&self.inode) {
            return Err(not_found());
        }
        let effect = world.enter(call)?;
        Ok((world, effect))
    }

    fn writable(&self) -> io::Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::Read => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

impl FileHandle for Handle {
    fn length(&self) -> io::Result<u64> {
        let (world, effect) = self.enter(Call::Length)?;
        match effect {
            Some(Effect::Fail(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(world.files[&self.inode].bytes.len() as u64),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (world, effect) = self.enter(Call::Read)?;
        let most = match effect {
            Some(Effect::Fail(errno) | Effect::Torn(_, errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Effect::Short(bytes)) => bytes.max(1),
            None => usize::MAX,
        };
        let bytes = &world.files[&self.inode].bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let length = buffer.len().min(bytes.len() - start).min(most);
        buffer[..length].copy_from_slice(&bytes[start..start + length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.writable()?;
        let (mut world, effect) = self.enter(Call::Write)?;
        let (length, errno) = match effect {
            Some(Effect::Fail(errno)) => (0, Some(errno)),
            Some(Effect::Torn(length, errno)) => (length.min(bytes.len()), Some(errno)),
            Some(Effect::Short(length)) => (length.clamp(1, bytes.len().max(1)).min(bytes.len()), None),
            None => (bytes.len(), None),
        };
        let from = usize::try_from(offset).expect("files in memory are small");
        let to = from + length;
        world.check_room(self.inode, to as u64)?;
        let file = world.files.get_mut(&self.inode).expect("seen by enter");
        if length > 0 {
            let grown_from = file.bytes.len();
            if to > grown_from {
                file.bytes.resize(to, 0);
                file.touch(grown_from, to);
            }
            file.bytes[from..to].copy_from_slice(&bytes[..length]);
            file.touch(from, to);
        }
        match errno {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(length),
        }
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.writable()?;
        let (mut world, effect) = self.enter(Call::Allocate)?;
        if let Some(Effect::Fail(errno) | Effect::Torn(_, errno)) = effect {
            return Err(io::Error::from_raw_os_error(errno));
        }
        world.check_room(self.inode, offset + length)?;
        let file = world.files.get_mut(&self.inode).expect("seen by enter");
        let (from, to) = (file.bytes.len(), usize::try_from(offset + length).expect("files in memory are small"));
        if to > from {
            file.bytes.resize(to, 0);
            file.touch(from, to);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut world, effect) = self.enter(Call::SyncData)?;
        let file = world.files.get_mut(&self.inode).expect("seen by enter");
        match effect {
            None | Some(Effect::Short(_)) => {
                file.sync();
                Ok(())
            }
            Some(Effect::Fail(errno) | Effect::Torn(_, errno)) => {
                file.dirty.clear();
                Err(io::Error::from_raw_os_error(errno))
            }
        }
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
