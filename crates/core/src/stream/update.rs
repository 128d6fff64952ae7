//! `update_state_by_key`: one call a key and batch, with all new values of the key and its state.

use std::iter::Sum;
use std::sync::{Arc, Mutex, PoisonError};

use millpond_state::{KeyBlock, PartitionGuard, codec};

use super::DStream;
use super::state::{Gathered, KeyedBatch, StagedState, Times};
use crate::chunk::{chunk, chunk_len};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{Stage, Task};
use crate::rdd::{Bucket, Compute, Key, Keyed, Out, Value};
use crate::time::BatchTime;

/// The new values of one key in one batch, in record order.
#[derive(Debug)]
pub struct Values<'a, V> {
    all: &'a mut [Option<V>],
    /// For each value the next one of the same key, `END` after the last.
    next: &'a [u32],
    at: u32,
}

const END: u32 = u32::MAX;

impl<V> Values<'_, V> {
    /// Their sum. (`Iterator::sum` asks for a type; this is the values' own.)
    pub fn sum(self) -> V
    where
        V: Sum,
    {
        Iterator::sum(self)
    }

    /// Whether there are none: `update_state_by_key` visits keys without new values too.
    pub fn is_empty(&self) -> bool {
        self.at == END
    }
}

impl<V> Iterator for Values<'_, V> {
    type Item = V;

    #[inline]
    fn next(&mut self) -> Option<V> {
        if self.at == END {
            return None;
        }
        let at = self.at as usize;
        self.at = self.next[at];
        self.all[at].take()
    }
}

impl<'g, K: Key, V: Send + 'static> DStream<'g, (K, V)> {
    /// Keeps a state for each key. Each batch calls `f(new values, old state)` once for every key that has state or new
    /// values, also for empty batches; `None` removes the key. The output is every key with its new state.
    ///
    /// The name is the state's place in the checkpoint: keep it when the code around it changes. The function must be
    /// deterministic. Where a batch touches few keys of many, [`update_touched_by_key`](Self::update_touched_by_key) costs less.
    pub fn update_state_by_key<S: Value>(
        self,
        name: &str,
        f: impl Fn(Values<'_, V>, Option<S>) -> Option<S> + Send + Sync + 'static,
    ) -> DStream<'g, (K, S)>
    where
        K: Clone,
    {
        self.update(name, "update_state_by_key", true, move |_, _, values, state| f(values, state))
    }

    /// As [`update_state_by_key`](Self::update_state_by_key), of the touched keys only: those that have new values in the
    /// batch are visited, and only they are in its output.
    pub fn update_touched_by_key<S: Value>(
        self,
        name: &str,
        f: impl Fn(Values<'_, V>, Option<S>) -> Option<S> + Send + Sync + 'static,
    ) -> DStream<'g, (K, S)> {
        self.update(name, "update_touched_by_key", false, move |_, _, values, state| f(values, state))
    }

    /// As [`update_state_by_key`](Self::update_state_by_key), with the batch time and the key: `f(time, key, new values, old state)`.
    pub fn update_state_by_key_with<S: Value>(
        self,
        name: &str,
        f: impl Fn(BatchTime, &K, Values<'_, V>, Option<S>) -> Option<S> + Send + Sync + 'static,
    ) -> DStream<'g, (K, S)> {
        self.update(name, "update_state_by_key", true, f)
    }

    /// As [`update_touched_by_key`](Self::update_touched_by_key), with the batch time and the key: `f(time, key, new values, old state)`.
    pub fn update_touched_by_key_with<S: Value>(
        self,
        name: &str,
        f: impl Fn(BatchTime, &K, Values<'_, V>, Option<S>) -> Option<S> + Send + Sync + 'static,
    ) -> DStream<'g, (K, S)> {
        self.update(name, "update_touched_by_key", false, f)
    }

    fn update<S: Value>(
        self,
        name: &str,
        kind: &'static str,
        all_keys: bool,
        f: impl Fn(BatchTime, &K, Values<'_, V>, Option<S>) -> Option<S> + Send + Sync + 'static,
    ) -> DStream<'g, (K, S)> {
        if all_keys {
            self.graph.needs_every_batch();
        }
        let (f, scratch) = (Arc::new(f), Arc::new(Scratch::default()));
        self.keyed_operator(name, kind, false, move |batch| UpdateRdd {
            batch,
            all_keys,
            f: f.clone(),
            scratch: scratch.clone(),
        })
    }
}

/// The state of a batch, computed from that of the batch before.
struct UpdateRdd<K, V, S: Value, F> {
    batch: KeyedBatch<K, V, S>,
    all_keys: bool,
    f: Arc<F>,
    scratch: Arc<Scratch>,
}

/// Tables that tasks use again instead of growing them each time; as many as run at once.
#[derive(Default)]
struct Scratch {
    free: Mutex<Vec<Groups>>,
}

/// The values of each key of a partition, linked in record order.
#[derive(Default)]
struct Groups {
    /// By slot of the state: the number of the key's group plus one, 0 for keys without new values.
    of_slot: Vec<u32>,
    /// By group: its slot, its first and its last value.
    groups: Vec<Group>,
    next: Vec<u32>,
}

struct Group {
    slot: millpond_state::Slot,
    first: u32,
    last: u32,
}

impl Scratch {
    fn take(&self) -> Groups {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, mut groups: Groups) {
        for group in groups.groups.drain(..) {
            groups.of_slot[group.slot.index()] = 0;
        }
        groups.next.clear();
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(groups);
    }
}

impl Groups {
    /// Adds the next value, of the key in `slot`; true if it is the key's first.
    #[inline]
    fn add(&mut self, slot: millpond_state::Slot) -> bool {
        let value = self.next.len() as u32;
        self.next.push(END);
        if slot.index() >= self.of_slot.len() {
            self.of_slot.resize((slot.index() + 1).next_power_of_two(), 0);
        }
        let group = &mut self.of_slot[slot.index()];
        if *group == 0 {
            self.groups.push(Group { slot, first: value, last: value });
            *group = self.groups.len() as u32;
            true
        } else {
            let group = &mut self.groups[*group as usize - 1];
            self.next[group.last as usize] = value;
            group.last = value;
            false
        }
    }
}

impl<K, V, S, F> Compute<(K, S)> for UpdateRdd<K, V, S, F>
where
    K: Key,
    V: Send + 'static,
    S: Value,
    F: Fn(BatchTime, &K, Values<'_, V>, Option<S>) -> Option<S> + Send + Sync,
{
    fn partitions(&self) -> usize {
        self.batch.exchange.readers()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        vec![self.batch.exchange.clone()]
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, (K, S)>) -> Result<()> {
        let (once, buckets) = self.batch.begin(partition, task)?;
        let mut groups = self.scratch.take();
        let (state, times) = self.update(partition, task, buckets, &mut groups, out)?;
        self.scratch.give_back(groups);
        task.stage(StagedState { state, times, once });
        Ok(())
    }

    fn retryable(&self) -> bool {
        self.batch.exchange.repeatable()
    }

    fn repeatable(&self) -> bool {
        false
    }
}

impl<K, V, S, F> UpdateRdd<K, V, S, F>
where
    K: Key,
    V: Send + 'static,
    S: Value,
    F: Fn(BatchTime, &K, Values<'_, V>, Option<S>) -> Option<S> + Send + Sync,
{
    fn update(
        &self,
        partition: usize,
        task: &Task,
        buckets: Vec<Bucket<Keyed<K, V>>>,
        groups: &mut Groups,
        out: &mut Out<'_, (K, S)>,
    ) -> Result<(PartitionGuard<S>, Option<Times>)> {
        let mut state = self.batch.opened.plain(&self.batch.label)?.partition(partition);
        let times = self.batch.keyed.begin(&self.batch.opened, &mut state, partition, &self.batch.env)?;
        let count: usize = buckets.iter().map(Bucket::len).sum();
        if count >= END as usize {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("{count} records in one partition of one batch: lower the rate, or raise the partitions"),
            ));
        }
        let mut values = Vec::with_capacity(count);
        // The key of each group, by the first record that has it.
        let mut keys = Vec::new();
        let (mut block, mut slots) = (KeyBlock::default(), Vec::with_capacity(KeyBlock::KEYS));
        for piece in buckets.into_iter().flat_map(Bucket::into_pieces) {
            let mut records = piece.into_iter();
            while !records.as_slice().is_empty() {
                let mut together = records.as_slice().iter().take(KeyBlock::KEYS);
                together.try_for_each(|record| block.push(record.hash, &record.key))?;
                state.slots(&mut block, &mut slots);
                for (slot, Keyed { key, value, .. }) in slots.drain(..).zip(records.by_ref()) {
                    if groups.add(slot) {
                        keys.push(key);
                    }
                    values.push(Some(value));
                }
            }
        }
        state.load_misses()?;

        let room = chunk_len::<(K, S)>();
        let mut made = Vec::with_capacity(room.min(keys.len()));
        let mut checked = false;
        // What visits every key gathers them on the way: a visit that changes states may put them where they cannot be read again.
        let mut gathered = (self.all_keys && self.batch.snapshots.is_some())
            .then(|| Gathered::new(&self.batch.label, self.batch.env.partitions));
        for (group, key) in groups.groups.iter().zip(keys) {
            let new = Values { all: &mut values, next: &groups.next, at: group.first };
            let stored = state.get_mut(group.slot);
            let updated = (self.f)(task.batch, &key, new, stored.take());
            if let Some(updated) = &updated {
                super::state::check_first(&mut checked, updated, &self.batch.label)?;
                if let Some(gathered) = &mut gathered {
                    gathered.add(&encoded(&key)?, updated.clone())?;
                }
                made.push((key, updated.clone()));
            }
            *stored = updated;
            if made.len() == room {
                out(std::mem::replace(&mut made, chunk()))?;
                task.enter(&self.batch.label);
            }
        }
        if self.all_keys {
            let mut none: [Option<V>; 0] = [];
            let touched =
                |slot: millpond_state::Slot| groups.of_slot.get(slot.index()).is_some_and(|&group| group != 0);
            state.visit_all(|visited| {
                if visited.slot().is_some_and(touched) {
                    return Ok(());
                }
                let key: K = codec::decode(visited.key())?;
                let no_values = Values { all: &mut none, next: &[], at: END };
                let updated = (self.f)(task.batch, &key, no_values, visited.take());
                if let Some(updated) = &updated {
                    if let Some(gathered) = &mut gathered {
                        gathered.add(visited.key(), updated.clone())?;
                    }
                    made.push((key, updated.clone()));
                    if made.len() == room {
                        out(std::mem::replace(&mut made, chunk()))?;
                        task.enter(&self.batch.label);
                    }
                }
                visited.put(updated);
                Ok::<_, Error>(())
            })?;
        }
        if !made.is_empty() {
            out(made)?;
        }
        if let Some(snapshots) = &self.batch.snapshots {
            let gathered = match gathered {
                Some(gathered) => gathered,
                None => Gathered::new(&self.batch.label, self.batch.env.partitions).all(&mut state, |state| state)?,
            };
            snapshots.set(partition, gathered);
        }
        Ok((state, times))
    }
}

/// A key that has no `Clone` is copied by its encoding.
fn encoded<K: Key>(key: &K) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    codec::encode(key, &mut bytes)?;
    Ok(bytes)
}
