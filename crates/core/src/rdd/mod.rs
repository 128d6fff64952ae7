//! [`Rdd`]: the partitioned, lazily computed data of one batch, with its lineage.
//!
//! Records pass from operator to operator in chunks of some thousand that stay in cache: a call per
//! chunk is dynamic, the loop inside it is not (as in vectorised query engines). Narrow operators
//! (`narrow`) run in the task of their parent; where records change partition stands an
//! `exchange`, whose filling is a stage of its own.

mod actions;
mod bucket;
mod combine;
mod exchange;
mod fold;
mod indexed;
mod join;
mod keyed;
mod narrow;
mod pairs;
mod partitioning;
mod persist;
mod save;
mod shared;
mod sort;
mod sources;
mod storage;
mod top;

use std::marker::PhantomData;
use std::sync::Arc;

use crate::chunk::chunk_len;
use crate::error::Result;
use crate::exec::{Executor, Stage, Task};
use crate::time::BatchTime;

pub use keyed::{Key, Value};
pub use persist::StorageLevel;

pub(crate) use bucket::Bucket;
pub(crate) use combine::{CombineTable, encoded};
pub(crate) use exchange::Exchange;
pub(crate) use keyed::{Keyed, KeyedExchange, shuffle};
pub(crate) use persist::Persisted;
pub(crate) use save::{PartWriter, read as read_saved};
pub(crate) use sources::{Refused, SourceRdd};
pub(crate) use storage::{PERSIST_MEMORY_BYTES, Storage};

/// Where a partition's records go, chunk by chunk.
pub(crate) type Out<'a, T> = dyn FnMut(Vec<T>) -> Result<()> + 'a;

/// Hands records on, chunk by chunk.
pub(crate) fn in_chunks<T>(records: impl IntoIterator<Item = T>, out: &mut Out<'_, T>) -> Result<()> {
    let mut records = records.into_iter();
    loop {
        let chunk: Vec<T> = records.by_ref().take(chunk_len::<T>()).collect();
        if chunk.is_empty() {
            return Ok(());
        }
        out(chunk)?;
    }
}

/// The partitioned data of one batch. Nothing is computed before an action or an output asks for it.
///
/// Cloning an `Rdd` shares it; operators on it compute it once each unless it is cached.
///
/// `'b` is how long it may be kept. A data set, made by a [`BatchContext`](crate::BatchContext), may be kept for ever: `Rdd<'static, T>`. A
/// batch of a stream is there for the function that is given it ([`transform`](crate::DStream::transform),
/// [`for_each_rdd`](crate::DStream::for_each_rdd), [`Slices::slice`](crate::stream::Slices::slice)), and so is all that is made of it: afterwards its input may be
/// forgotten. To keep it longer does not compile.
///
/// ```compile_fail
/// # use std::sync::{Arc, Mutex};
/// # use millpond_core::{DStream, Error};
/// # fn f(numbers: DStream<'_, u64>) {
/// let kept = Arc::new(Mutex::new(None));
/// let place = kept.clone();
/// numbers.for_each_rdd(move |rdd, _time| {
///     *place.lock().unwrap() = Some(rdd.clone()); // a batch, past its time
///     Ok::<_, Error>(())
/// });
/// # drop(kept.lock().unwrap().take().map(|rdd| rdd.map(|n: u64| n + 1)));
/// # }
/// ```
///
/// Keep what it holds, or have the stream [`remember`](crate::DStream::remember) its batches. A function of one's own that takes and gives an `Rdd`
/// needs no word more for this: `fn longest(words: Rdd<String>) -> Rdd<(String, u64)>` takes batches as well as data sets.
pub struct Rdd<'b, T> {
    pub(crate) op: Arc<dyn Compute<T>>,
    pub(crate) env: Arc<RddEnv>,
    /// Covariant: a data set may stand where a batch does.
    bound: PhantomData<&'b ()>,
}

impl<T> Clone for Rdd<'_, T> {
    fn clone(&self) -> Self {
        Rdd { op: self.op.clone(), env: self.env.clone(), bound: PhantomData }
    }
}

impl<T> std::fmt::Debug for Rdd<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rdd({} partitions, batch {})", self.op.partitions(), self.env.batch)
    }
}

/// What all `Rdd`s of a batch share.
pub(crate) struct RddEnv {
    pub(crate) executor: Arc<Executor>,
    pub(crate) batch: BatchTime,
    /// The zero time of the directory: slides count from it.
    pub(crate) zero: BatchTime,
    /// Partitions of a shuffle: fixed when the directory was created (H13).
    pub(crate) partitions: usize,
    /// Shards of the state: likewise.
    pub(crate) shards: u16,
    /// It is that of a data set, not of a batch: what is made of both belongs to the batch.
    pub(crate) data_set: bool,
    /// For what is persisted.
    pub(crate) storage: Arc<Storage>,
}

impl RddEnv {
    /// Whether a stream of this slide has something in the batch.
    pub(crate) fn is_slide(&self, slide_ms: u64) -> bool {
        (self.batch.as_ms() - self.zero.as_ms().min(self.batch.as_ms())).is_multiple_of(slide_ms)
    }
}

/// How an `Rdd` computes its partitions.
pub(crate) trait Compute<T>: Send + Sync {
    fn partitions(&self) -> usize;

    /// The stages that must have run before.
    fn dependencies(&self) -> Vec<Arc<dyn Stage>>;

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, T>) -> Result<()>;

    /// An attempt that failed, and was undone, can be made again: its input can be had again.
    fn retryable(&self) -> bool;

    /// A partition that was computed, and kept, can be computed again without doing anything twice.
    /// False once keyed state is in the lineage.
    fn repeatable(&self) -> bool;

    /// Whether it is kept already: keeping it once more would only cost memory.
    fn is_kept(&self) -> bool {
        false
    }

    /// Lets go of what is kept.
    fn unpersist(&self) {}
}

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// The records of a partition, computed now.
    pub(crate) fn chunks(&self, partition: usize, task: &Task) -> Result<Vec<Vec<T>>> {
        let mut chunks = Vec::new();
        self.op.compute(partition, task, &mut |chunk| {
            chunks.push(chunk);
            Ok(())
        })?;
        Ok(chunks)
    }

    pub(crate) fn new(env: Arc<RddEnv>, op: impl Compute<T> + 'static) -> Self {
        Rdd { op: Arc::new(op), env, bound: PhantomData }
    }

    /// The same without its bound: for operators on it, and for the engine, which lets go of a batch's `Rdd`s itself. None leaves the
    /// crate but under the bound of what it was made of.
    pub(crate) fn unbound(self) -> Rdd<'static, T> {
        Rdd { op: self.op, env: self.env, bound: PhantomData }
    }

    /// The same `Rdd` in another environment.
    pub(crate) fn within(self, env: Arc<RddEnv>) -> Rdd<'b, T> {
        Rdd { op: self.op, env, bound: PhantomData }
    }

    /// The environment of what is made of this one and another: the batch's, if one of them is a data set.
    pub(crate) fn env_with<U>(&self, other: &Rdd<'_, U>) -> Arc<RddEnv> {
        if self.env.data_set { other.env.clone() } else { self.env.clone() }
    }

    /// The number of partitions.
    pub fn partitions(&self) -> usize {
        self.op.partitions()
    }

    /// The batch it belongs to; 0 for an `Rdd` of a data set.
    pub fn batch_time(&self) -> BatchTime {
        self.env.batch
    }
}
