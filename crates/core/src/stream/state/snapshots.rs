//! `state_snapshots`: all keys and states of an operator after each batch, as a second stream.

use std::sync::{Arc, Mutex, PoisonError};

use millpond_state::{PartitionGuard, codec};

use super::keyed::KeyedState;
use crate::chunk::{chunk, chunk_len};
use crate::error::{Error, Result};
use crate::exec::{Stage, Task};
use crate::rdd::{Compute, Key, Out, Rdd, Value};
use crate::stream::{BatchRun, DStream};

/// The most bytes of states, encoded, that a batch copies for `state_snapshots`; each partition has its share.
const LIMIT_BYTES: u64 = 256 << 20;

/// The states of one batch, by partition, in chunks. A second try of a task replaces what the first one left.
pub(crate) struct Snapshots<K, S>(Vec<Mutex<Chunks<K, S>>>);

type Chunks<K, S> = Vec<Vec<(K, S)>>;

impl<K, S> Snapshots<K, S> {
    pub(crate) fn new(partitions: usize) -> Arc<Self> {
        Arc::new(Snapshots((0..partitions).map(|_| Mutex::default()).collect()))
    }

    pub(crate) fn set(&self, partition: usize, states: Gathered<K, S>) {
        *self.0[partition].lock().unwrap_or_else(PoisonError::into_inner) = states.chunks;
    }
}

/// The states of one partition while they are gathered.
pub(crate) struct Gathered<K, S> {
    chunks: Chunks<K, S>,
    bytes: u64,
    limit_bytes: u64,
    encoded: Vec<u8>,
    label: Arc<str>,
}

impl<K: Key, S: Value> Gathered<K, S> {
    /// For one of so many partitions of the operator `label`.
    pub(crate) fn new(label: &Arc<str>, partitions: usize) -> Self {
        let limit_bytes = LIMIT_BYTES / partitions.max(1) as u64;
        Gathered { chunks: Vec::new(), bytes: 0, limit_bytes, encoded: Vec::new(), label: label.clone() }
    }

    /// A key, as it is encoded, and a copy of its state.
    pub(crate) fn add(&mut self, key: &[u8], state: S) -> Result<()> {
        self.encoded.clear();
        codec::encode(&state, &mut self.encoded)?;
        self.bytes += (key.len() + self.encoded.len().max(size_of::<S>())) as u64;
        if self.bytes > self.limit_bytes {
            return Err(Error::configuration(format!(
                "state_snapshots of `{}` copies all states in each batch, and they take more than {} MiB in all, {} MiB in one partition: it is for small \
                 state. Put out of the function what is to be seen",
                self.label,
                LIMIT_BYTES >> 20,
                self.limit_bytes >> 20
            )));
        }
        let key = codec::decode(key)?;
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < chunk_len::<(K, S)>() => chunk.push((key, state)),
            _ => {
                let mut new = chunk();
                new.push((key, state));
                self.chunks.push(new);
            }
        }
        Ok(())
    }

    /// All states of a partition, as they are now, `of` what is stored.
    pub(crate) fn all<V: Value>(mut self, state: &mut PartitionGuard<V>, of: impl Fn(&V) -> &S) -> Result<Self> {
        state.visit_all(|visited| match visited.get() {
            Some(held) => {
                let held = of(held).clone();
                self.add(visited.key(), held)
            }
            None => Ok(()),
        })?;
        Ok(self)
    }
}

impl<K: Key, S: Value> KeyedState<K, S> {
    /// The operator's `Rdd` of a batch, made by `make`: where snapshots are asked for, computed once for them and the output.
    pub(crate) fn rdd<U: Send + 'static>(
        &self,
        run: &Arc<BatchRun>,
        make: impl FnOnce(Option<Arc<Snapshots<K, S>>>) -> Result<Rdd<'static, U>>,
    ) -> Result<Rdd<'static, U>> {
        let Some(&(kept, snapshots)) = self.snapshots.get() else { return make(None) };
        let snapshots = run.once(snapshots, || Ok(Snapshots::new(run.env.partitions)))?;
        let kept = run.once(kept, || Ok(make(Some(snapshots))?.keep()))?;
        Ok(Rdd::kept(run.env.clone(), kept))
    }
}

struct SnapshotRdd<K, S> {
    /// What computes them.
    stages: Vec<Arc<dyn Stage>>,
    snapshots: Arc<Snapshots<K, S>>,
}

impl<K: Key + Clone, S: Value> Compute<(K, S)> for SnapshotRdd<K, S> {
    fn partitions(&self) -> usize {
        self.snapshots.0.len()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.stages.clone()
    }

    fn compute(&self, partition: usize, _: &Task, out: &mut Out<'_, (K, S)>) -> Result<()> {
        let kept = &self.snapshots.0[partition];
        for index in 0.. {
            let chunk = match kept.lock().unwrap_or_else(PoisonError::into_inner).get(index) {
                Some(chunk) => chunk.clone(),
                None => return Ok(()),
            };
            out(chunk)?;
        }
        Ok(())
    }

    fn retryable(&self) -> bool {
        true
    }

    fn repeatable(&self) -> bool {
        true
    }
}

impl<'g, T: Send + 'static> DStream<'g, T> {
    /// A second stream: all keys with their states after each batch's calls, also in empty batches. In no particular order; the
    /// states of the operator's partition n are in partition n.
    ///
    /// Each batch visits every key, and holds a copy of all states in memory until it has been read: for tests, and for small
    /// state. A batch fails whose states take more than 256 MiB, encoded. Has to be called directly on what `map_with_state` or `update_..._by_key` returned, with its types of keys and
    /// states; opening the context fails else.
    ///
    /// ```
    /// # use millpond_core::stream::DStream;
    /// # fn f<'g>(words: DStream<'g, (String, u64)>) -> (DStream<'g, u64>, DStream<'g, (String, u64)>) {
    /// let sums = words.map_with_state("sums", |_time, _word, n, sum| {
    ///     let total = sum.get().copied().unwrap_or(0) + n.unwrap_or(0);
    ///     sum.update(total);
    ///     Some(total)
    /// });
    /// let all = sums.state_snapshots::<String, u64>();
    /// # (sums, all)
    /// # }
    /// ```
    pub fn state_snapshots<K: Key + Clone, S: Value>(&self) -> DStream<'g, (K, S)> {
        self.graph.needs_every_batch();
        let memos = self
            .keyed_state::<K, S>()
            .map(|keyed| *keyed.snapshots.get_or_init(|| (self.graph.next_memo(), self.graph.next_memo())));
        let (_, memo) = memos.unwrap_or_else(|error| {
            self.graph.fail(format!("state_snapshots() of `{}`: {error}", self.label));
            (0, 0)
        });
        let label: Arc<str> = format!("{}.state_snapshots", self.label).into();
        let node = self.node();
        DStream::new(self.graph.clone(), label, self.as_upstream(), move |run| {
            let stages = node.rdd(run)?.op.dependencies();
            let snapshots = run.once(memo, || Ok(Snapshots::<K, S>::new(run.env.partitions)))?;
            Ok(Rdd::new(run.env.clone(), SnapshotRdd { stages, snapshots }))
        })
    }
}
