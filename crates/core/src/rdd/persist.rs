//! Keeping what an `Rdd` computed, for more than one reader (hard case H14): in memory, in files, or in memory as far as there is room.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::save::object::{ObjectWriter, open, read_values};
use super::storage::Storage;
use super::{Compute, Out, PartWriter, Rdd};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{Stage, Task, accumulator};

/// Where a persisted [`Rdd`] keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageLevel {
    /// In memory, however many they are.
    Memory,
    /// In memory up to the limit of the context (256 MiB of encoded values, estimated), then in files: partition by partition.
    MemoryAndDisk,
    /// In files.
    Disk,
}

impl<'b, T: Clone + Send + 'static> Rdd<'b, T> {
    /// The same records, computed once for however many readers, and kept in memory.
    pub fn cache(self) -> Rdd<'b, T> {
        self.kept_as(None).0
    }

    /// The same records, computed once and kept where the level says, until nobody holds the `Rdd` any more or it is
    /// [unpersisted](Rdd::unpersist). Files have checksums: a damaged one is computed again from the lineage.
    pub fn persist(self, level: StorageLevel) -> Rdd<'b, T>
    where
        T: Serialize + DeserializeOwned,
    {
        let spill: Option<Box<dyn Spill<T>>> = match level {
            StorageLevel::Memory => None,
            StorageLevel::MemoryAndDisk => Some(Box::new(Coded { in_memory_first: true })),
            StorageLevel::Disk => Some(Box::new(Coded { in_memory_first: false })),
        };
        self.kept_as(spill).0
    }

    /// The `Rdd` that is kept, and what keeps it.
    pub(crate) fn kept_as(self, spill: Option<Box<dyn Spill<T>>>) -> (Rdd<'b, T>, Arc<Persisted<T>>) {
        let env = self.env.clone();
        let persisted = Arc::new(Persisted {
            partitions: (0..self.op.partitions()).map(|_| Mutex::new(Held::Nothing)).collect(),
            storage: env.storage.clone(),
            parent: Mutex::new(Some(self.unbound())),
            spill,
            done: AtomicBool::new(false),
        });
        (Rdd::new(env, Shared(persisted.clone())), persisted)
    }
}

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// Lets go of what [`cache`](Rdd::cache) or [`persist`](Rdd::persist) kept: memory and files. What needs it again computes it again. Does nothing on
    /// an `Rdd` that is not directly what one of them returned.
    pub fn unpersist(&self) {
        self.op.unpersist();
    }
}

/// What is kept of each partition.
pub(crate) struct Persisted<T> {
    /// What it is computed from; `None` once the lineage is cut.
    parent: Mutex<Option<Rdd<'static, T>>>,
    partitions: Vec<Mutex<Held<T>>>,
    spill: Option<Box<dyn Spill<T>>>,
    storage: Arc<Storage>,
    done: AtomicBool,
}

enum Held<T> {
    Nothing,
    Memory {
        chunks: Vec<Vec<T>>,
        /// Taken from the limit.
        reserved_bytes: u64,
    },
    Disk(PathBuf),
}

/// How partitions go to files and come back, where their type can.
pub(crate) trait Spill<T>: Send + Sync {
    /// About how many bytes the values take; `None` if they are not to be in memory at all.
    fn estimated_bytes(&self, chunks: &[Vec<T>]) -> Result<u64>;
    fn in_memory_first(&self) -> bool;
    fn write(&self, path: &Path, fill: &mut dyn FnMut(&mut Out<'_, T>) -> Result<()>) -> Result<()>;
    fn read(&self, path: &Path, out: &mut Out<'_, T>) -> Result<()>;
}

struct Coded {
    in_memory_first: bool,
}

impl<T: Serialize + DeserializeOwned> Spill<T> for Coded {
    fn estimated_bytes(&self, chunks: &[Vec<T>]) -> Result<u64> {
        // By the first value of each chunk: near enough for a limit.
        let (mut bytes, mut encoded) = (0, Vec::new());
        for chunk in chunks {
            if let Some(first) = chunk.first() {
                encoded.clear();
                millpond_state::codec::encode(first, &mut encoded)?;
                bytes += (encoded.len().max(size_of::<T>()) * chunk.len()) as u64;
            }
        }
        Ok(bytes)
    }

    fn in_memory_first(&self) -> bool {
        self.in_memory_first
    }

    fn write(&self, path: &Path, fill: &mut dyn FnMut(&mut Out<'_, T>) -> Result<()>) -> Result<()> {
        let mut file = PartWriter::create(path)?;
        let mut writer = ObjectWriter::begin(&mut file, 0, 1)?;
        fill(&mut |chunk| writer.write(&chunk))?;
        writer.finish()?;
        // It need not outlive the process.
        file.finish(false)
    }

    fn read(&self, path: &Path, out: &mut Out<'_, T>) -> Result<()> {
        let (mut file, ..) = open(path)?;
        read_values(path, &mut file, out).map(drop)
    }
}

impl<T: Send + 'static> Persisted<T> {
    /// Forgets what it was computed from: what is kept is all there is. For what is computed already.
    pub(crate) fn cut(&self) {
        *self.parent.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn parent(&self) -> Option<Rdd<'static, T>> {
        self.parent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self, partition: usize) -> MutexGuard<'_, Held<T>> {
        self.partitions[partition].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, partition: usize, held: Held<T>) {
        let before = std::mem::replace(&mut *self.lock(partition), held);
        self.let_go(before);
    }

    fn let_go(&self, held: Held<T>) {
        match held {
            Held::Nothing => {}
            Held::Memory { reserved_bytes, .. } => self.storage.give_back(reserved_bytes),
            Held::Disk(path) => {
                if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "a spilled partition could not be deleted");
                }
            }
        }
    }

    fn unpersist(&self) {
        self.done.store(false, Ordering::Release);
        (0..self.partitions.len()).for_each(|partition| self.hold(partition, Held::Nothing));
    }

    /// Computes a partition, to be kept.
    fn keep(&self, parent: &Rdd<'static, T>, task: &Task) -> Result<Held<T>> {
        if let Some(spill) = self.spill.as_ref().filter(|spill| !spill.in_memory_first()) {
            let path = self.storage.new_path()?;
            let written = spill.write(&path, &mut |out| parent.op.compute(task.partition, task, out));
            return self.written(path, written);
        }
        let chunks = parent.chunks(task.partition, task)?;
        let Some(spill) = &self.spill else { return Ok(Held::Memory { chunks, reserved_bytes: 0 }) };
        let bytes = spill.estimated_bytes(&chunks)?;
        if self.storage.reserve(bytes) {
            return Ok(Held::Memory { chunks, reserved_bytes: bytes });
        }
        let path = self.storage.new_path()?;
        let mut chunks = Some(chunks);
        let written = spill.write(&path, &mut |out| chunks.take().into_iter().flatten().try_for_each(&mut *out));
        self.written(path, written)
    }

    /// A file that could not be written whole is no good to anybody.
    fn written(&self, path: PathBuf, written: Result<()>) -> Result<Held<T>> {
        match written {
            Ok(()) => Ok(Held::Disk(path)),
            Err(error) => {
                // The disk may be full: what is there goes, if it is there.
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// The records of a partition behind the first `given`, from the lineage.
    fn compute_again(&self, partition: usize, given: u64, task: &Task, out: &mut Out<'_, T>, why: &str) -> Result<()> {
        let parent = self.parent().filter(|parent| parent.op.repeatable()).ok_or_else(|| {
            // Not in place; the whole batch can, from the checkpoint.
            Error::new(
                ErrorKind::Retry,
                format!("{why}, and it cannot be computed again: keyed state has moved on since"),
            )
        })?;
        // What its functions count, they have counted when it was kept; those behind it have not.
        let chunks = accumulator::muted(|| parent.chunks(partition, task))?;
        let mut skip = given;
        chunks.into_iter().try_for_each(|mut chunk| {
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            chunk.drain(..skipped as usize);
            if chunk.is_empty() { Ok(()) } else { out(chunk) }
        })
    }
}

impl<T> Drop for Persisted<T> {
    fn drop(&mut self) {
        for held in &mut self.partitions {
            match held.get_mut().unwrap_or_else(PoisonError::into_inner) {
                Held::Disk(path) => drop(std::fs::remove_file(path)),
                Held::Memory { reserved_bytes, .. } => self.storage.give_back(*reserved_bytes),
                Held::Nothing => {}
            }
        }
    }
}

impl<T: Send + 'static> Stage for Persisted<T> {
    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.parent().map_or_else(Vec::new, |parent| parent.op.dependencies())
    }

    fn tasks(&self) -> usize {
        self.partitions.len()
    }

    fn run(&self, task: &Task) -> Result<()> {
        let Some(parent) = self.parent() else { return Ok(()) };
        let held = self.keep(&parent, task)?;
        if !task.claims() {
            self.let_go(held);
            return Ok(());
        }
        self.hold(task.partition, held);
        Ok(())
    }

    fn can_retry(&self) -> bool {
        self.parent().is_none_or(|parent| parent.op.retryable())
    }

    fn can_race(&self) -> bool {
        self.parent().is_none_or(|parent| parent.op.repeatable())
    }

    fn done(&self) -> &AtomicBool {
        &self.done
    }
}

struct Shared<T>(Arc<Persisted<T>>);

impl<T: Clone + Send + 'static> Compute<T> for Shared<T> {
    fn partitions(&self) -> usize {
        self.0.partitions.len()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        vec![self.0.clone()]
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, T>) -> Result<()> {
        let persisted = &self.0;
        let mut given = 0_u64;
        for index in 0.. {
            // Locked while a chunk is copied out.
            let chunk = match &*persisted.lock(partition) {
                Held::Memory { chunks, .. } => match chunks.get(index) {
                    Some(chunk) => chunk.clone(),
                    None => return Ok(()),
                },
                Held::Disk(path) => {
                    let path = path.clone();
                    return self.read(partition, &path, task, out);
                }
                Held::Nothing => break,
            };
            given += chunk.len() as u64;
            out(chunk)?;
        }
        persisted.compute_again(partition, given, task, out, "a partition was unpersisted while it was read")
    }

    fn retryable(&self) -> bool {
        true
    }

    fn repeatable(&self) -> bool {
        true
    }

    fn is_kept(&self) -> bool {
        true
    }

    fn unpersist(&self) {
        self.0.unpersist();
    }
}

impl<T: Clone + Send + 'static> Shared<T> {
    fn read(&self, partition: usize, path: &Path, task: &Task, out: &mut Out<'_, T>) -> Result<()> {
        let Some(spill) = &self.0.spill else { return Ok(()) };
        let (mut given, mut refused) = (0_u64, false);
        let outcome = spill.read(path, &mut |chunk| {
            let count = chunk.len() as u64;
            let taken = out(chunk);
            refused = taken.is_err();
            given += count;
            taken
        });
        match outcome {
            Err(error) if !refused => {
                tracing::error!(%error, "a spilled partition cannot be read, and is computed again");
                self.0.compute_again(partition, given, task, out, &error.to_string())
            }
            outcome => outcome,
        }
    }
}
