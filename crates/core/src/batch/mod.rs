//! [`BatchContext`]: `Rdd`s without any stream. What runs on the stream's batches runs on history, and both can be joined.

mod broadcast;
mod object;
mod source;
mod text;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::exec::{Executor, Pool};
use crate::rdd::{PERSIST_MEMORY_BYTES, Rdd, RddEnv, Storage};
use crate::time::BatchTime;

pub use broadcast::Broadcast;
pub use source::{BatchInput, BatchSource};

/// Partitions of a shuffle.
const PARTITIONS: usize = 16;

/// Makes [`Rdd`]s of data sets: collections and files. Clones share the threads that compute.
///
/// Nothing is computed before an action asks for it, and no thread is started before.
///
/// ```
/// use millpond_core::BatchContext;
/// # fn main() -> millpond_core::Result<()> {
/// let batch = BatchContext::new();
/// let numbers = batch.parallelize((1..=100).collect::<Vec<u64>>(), 4);
/// let even = numbers.filter(|n| n % 2 == 0).cache();
/// assert_eq!(even.count()?, 50);
/// assert_eq!(even.reduce(|a, b| a + b)?, Some(2550));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BatchContext {
    env: Arc<RddEnv>,
    /// What was read from outside, for the checkpoint of the stream that uses it.
    read: Option<Identities>,
}

/// Data sets with what tells their content: name and description. Shared with the graph that asked for the context.
/// Names say what they are: `data set users.csv`.
pub(crate) type Identities = Arc<Mutex<Vec<(String, String)>>>;

impl std::fmt::Debug for BatchContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BatchContext({} threads)", self.env.executor.pool.threads())
    }
}

impl Default for BatchContext {
    fn default() -> Self {
        BatchContext::new()
    }
}

/// The settings of a [`BatchContext`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing before `open`"]
pub struct BatchBuilder {
    threads: Option<usize>,
    partitions: Option<usize>,
    task_attempts: Option<u32>,
    persist_memory_bytes: Option<u64>,
    spill_directory: Option<PathBuf>,
}

impl BatchBuilder {
    /// Threads that compute; default one a core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Partitions of a shuffle: 1 to 1024, default 16.
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// How often a task is tried before its action fails; default 4.
    pub fn task_attempts(mut self, attempts: u32) -> Self {
        self.task_attempts = Some(attempts);
        self
    }

    /// Bytes of values that [`StorageLevel::MemoryAndDisk`](crate::rdd::StorageLevel) keeps in memory, by their estimated encoded
    /// size; default 256 MiB.
    pub fn persist_memory_bytes(mut self, bytes: u64) -> Self {
        self.persist_memory_bytes = Some(bytes);
        self
    }

    /// Where persisted partitions go that memory does not hold, in a directory made for this context and deleted with it; default the
    /// system's directory for temporary files.
    pub fn spill_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.spill_directory = Some(directory.into());
        self
    }

    /// The context.
    ///
    /// # Errors
    /// [`Configuration`](crate::ErrorKind::Configuration): a setting outside of its limits.
    pub fn open(self) -> Result<BatchContext> {
        let zero = |name, value| Err(Error::configuration(format!("{name} is {value}, it must be at least 1")));
        match self {
            BatchBuilder { threads: Some(0), .. } => zero("threads", 0),
            BatchBuilder { task_attempts: Some(0), .. } => zero("task_attempts", 0),
            BatchBuilder { partitions: Some(n), .. } if !(1..=1024).contains(&n) => {
                Err(Error::configuration(format!("partitions is {n}, it must be 1 to 1024")))
            }
            settings => Ok(BatchContext::of(settings, None)),
        }
    }
}

impl BatchContext {
    /// A context with the default settings.
    pub fn new() -> Self {
        BatchContext::of(BatchBuilder::default(), None)
    }

    /// Settings of one's own.
    pub fn builder() -> BatchBuilder {
        BatchBuilder::default()
    }

    /// The context of a graph: what it reads is noted in `read`.
    pub(crate) fn of_graph(read: Identities) -> Self {
        BatchContext::of(BatchBuilder::default(), Some(read))
    }

    fn of(settings: BatchBuilder, read: Option<Identities>) -> Self {
        let threads = settings.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let executor = Executor::new(Pool::idle(threads, "batch"), settings.task_attempts.unwrap_or(4));
        let storage = Storage::new(
            settings.spill_directory.unwrap_or_else(std::env::temp_dir),
            settings.persist_memory_bytes.unwrap_or(PERSIST_MEMORY_BYTES),
        );
        let env = RddEnv {
            executor: Arc::new(executor),
            batch: BatchTime::from_ms(0),
            zero: BatchTime::from_ms(0),
            partitions: settings.partitions.unwrap_or(PARTITIONS),
            shards: crate::engine::SHARDS,
            data_set: true,
            storage: Arc::new(storage),
        };
        BatchContext { env: Arc::new(env), read }
    }

    /// The elements of a collection, over so many partitions (at least one): neighbours together, sizes as even as can be.
    pub fn parallelize<T: Clone + Send + Sync + 'static>(
        &self,
        elements: impl IntoIterator<Item = T>,
        partitions: usize,
    ) -> Rdd<'static, T> {
        let mut rest: Vec<T> = elements.into_iter().collect();
        let (count, partitions) = (rest.len(), partitions.max(1));
        let mut parts: Vec<Vec<T>> =
            (1..partitions).rev().map(|part| rest.split_off(part * count / partitions)).collect();
        parts.push(rest);
        parts.reverse();
        Rdd::of_partitions(self.env.clone(), parts)
    }

    /// Notes what was read, if a graph wants to know.
    fn note(&self, name: String, description: impl FnOnce() -> Result<String>) -> Result<()> {
        if let Some(read) = &self.read {
            let description = description()?;
            read.lock().unwrap_or_else(PoisonError::into_inner).push((name, description));
        }
        Ok(())
    }
}
