//! Keyed records: each key is encoded and hashed once, and goes to the partition of its hash.

use std::sync::Arc;

use millpond_state::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bucket::Bucket;
use super::combine::{Block, CombineTable};
use super::{Compute, Exchange, Out, Rdd, in_chunks};
use crate::controls::seeded;
use crate::error::{Error, Result};
use crate::exec::{Stage, Task};

/// What can be a key: anything serde can write and read again.
///
/// A key *is* its encoded bytes: two keys are equal if and only if their bytes are, in memory and on disk, whatever
/// their `Eq` says (hard case H15). Normalise before: `-0.0` and `0.0`, or names that differ in case, are two keys.
pub trait Key: Serialize + DeserializeOwned + Send + 'static {}

impl<K: Serialize + DeserializeOwned + Send + 'static> Key for K {}

/// What state can be made of: anything serde can write and read again, and that can be cloned.
pub trait Value: Serialize + DeserializeOwned + Clone + Send + 'static {}

impl<V: Serialize + DeserializeOwned + Clone + Send + 'static> Value for V {}

/// A record on its way to the partition of its key.
pub(crate) struct Keyed<K, V> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) value: V,
}

pub(crate) type KeyedExchange<K, V> = Exchange<Bucket<Keyed<K, V>>>;

/// Brings the records of each key together in one partition, in record order.
pub(crate) fn shuffle<K: Key, V: Send + 'static>(
    parent: Rdd<'_, (K, V)>,
    label: &Arc<str>,
) -> Arc<KeyedExchange<K, V>> {
    let (shards, partitions) = (parent.env.shards, parent.env.partitions);
    let label = label.clone();
    let partition_of = partition_of_shards(shards, partitions);
    Exchange::new(parent, partitions, move |parent, m, task| {
        let mut buckets: Vec<Bucket<Keyed<K, V>>> = (0..partitions).map(|_| Bucket::new()).collect();
        let mut checked = false;
        parent.op.compute(m, task, &mut |chunk| {
            task.enter(&label);
            for (key, value) in chunk {
                check_key(&key, &mut checked)?;
                let hash = seeded(codec::hash_of(&key).map_err(bad_key)?);
                let partition = usize::from(partition_of[usize::from(codec::shard_of(hash, shards))]);
                buckets[partition].push(Keyed { hash, key, value });
            }
            Ok(())
        })?;
        Ok(buckets)
    })
}

/// The partition of each shard: a table, since the sum has a division.
fn partition_of_shards(shards: u16, partitions: usize) -> Vec<u16> {
    let partition = |shard: u16| usize::from(shard) * partitions / usize::from(shards);
    (0..shards).map(|shard| partition(shard) as u16).collect()
}

/// The first key of a task is encoded, decoded and encoded again (hard case H16).
#[inline]
fn check_key<K: Key>(key: &K, checked: &mut bool) -> Result<()> {
    if !*checked {
        *checked = true;
        codec::check_round_trip(key).map_err(bad_key)?;
    }
    Ok(())
}

#[cold]
fn bad_key(error: millpond_state::Error) -> Error {
    Error::from(error).context("a key")
}

/// Values of a key folded into one, before the shuffle and after it.
pub(crate) struct Combined<K, C, M> {
    exchange: Arc<Exchange<CombineTable<K, C>>>,
    label: Arc<str>,
    merge: M,
}

impl<'b, K: Key, V: Send + 'static> Rdd<'b, (K, V)> {
    /// Folds the values of each key: `create` from the first, `add` for each further one of a partition, `merge` across
    /// partitions in their order. Boundaries are those of the partitions, fixed by the plan (hard case H13).
    pub(crate) fn combine<C: Send + 'static>(
        self,
        label: &Arc<str>,
        create: impl Fn(V) -> C + Send + Sync + 'static,
        add: impl Fn(C, V) -> C + Send + Sync + 'static,
        merge: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> Rdd<'b, (K, C)> {
        let env = self.env.clone();
        let (shards, partitions) = (env.shards, env.partitions);
        let inner = label.clone();
        let partition_of = partition_of_shards(shards, partitions);
        let exchange = Exchange::new(self, partitions, move |parent: &Rdd<'static, (K, V)>, m, task| {
            let mut tables: Vec<CombineTable<K, C>> = (0..partitions).map(|_| CombineTable::new()).collect();
            let (mut block, mut checked) = (Block::new(), false);
            parent.op.compute(m, task, &mut |chunk| {
                task.enter(&inner);
                for record in chunk {
                    check_key(&record.0, &mut checked)?;
                    let partition = |hash| partition_of[usize::from(codec::shard_of(hash, shards))];
                    block.add(record, partition).map_err(bad_key)?;
                    block.fold_if_full(&mut tables, &create, &add);
                }
                Ok(())
            })?;
            block.fold(&mut tables, &create, &add);
            Ok(tables)
        });
        Rdd::new(env, Combined { exchange, label: label.clone(), merge })
    }

    pub(crate) fn reduce_by_key_labelled(
        self,
        label: &Arc<str>,
        f: impl Fn(V, V) -> V + Send + Sync + 'static,
    ) -> Self {
        let f = Arc::new(f);
        let g = f.clone();
        self.combine(label, |value| value, move |a, b| f(a, b), move |a, b| g(a, b))
    }

    pub(crate) fn group_by_key_labelled(self, label: &Arc<str>) -> Rdd<'b, (K, Vec<V>)> {
        self.combine(
            label,
            |value| vec![value],
            |mut values, value| {
                values.push(value);
                values
            },
            |mut values, more| {
                values.extend(more);
                values
            },
        )
    }

    /// The values of each key folded into one, in record order within a partition and in the order of the partitions.
    pub fn reduce_by_key(self, f: impl Fn(V, V) -> V + Send + Sync + 'static) -> Self {
        self.reduce_by_key_labelled(&"reduce_by_key".into(), f)
    }

    /// All values of each key, in record order.
    pub fn group_by_key(self) -> Rdd<'b, (K, Vec<V>)> {
        self.group_by_key_labelled(&"group_by_key".into())
    }
}

impl<K, C, M> Compute<(K, C)> for Combined<K, C, M>
where
    K: Key,
    C: Send + 'static,
    M: Fn(C, C) -> C + Send + Sync,
{
    fn partitions(&self) -> usize {
        self.exchange.readers()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        vec![self.exchange.clone()]
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, (K, C)>) -> Result<()> {
        let mut tables = self.exchange.take(partition, task)?.into_iter();
        let Some(mut merged) = tables.next() else { return Ok(()) };
        task.enter(&self.label);
        for table in tables {
            merged.merge(table, &self.merge);
        }
        in_chunks(merged.into_records(), out)
    }

    fn retryable(&self) -> bool {
        self.exchange.repeatable()
    }

    fn repeatable(&self) -> bool {
        self.exchange.repeatable()
    }
}
