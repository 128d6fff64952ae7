//! Operators that change which partition a record is in, or how many there are.

use std::sync::Arc;

use millpond_state::codec;

use super::{Bucket, Compute, Exchange, Key, Out, Rdd};
use crate::chunk::chunk_len;
use crate::error::{Error, Result};
use crate::exec::{Stage, Task};

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// The records spread evenly over so many partitions (at least one), in turn. Within a partition they keep their order.
    pub fn repartition(self, partitions: usize) -> Rdd<'b, T> {
        self.repartition_labelled(&"repartition".into(), partitions)
    }

    pub(crate) fn repartition_labelled(self, label: &Arc<str>, partitions: usize) -> Rdd<'b, T> {
        let partitions = partitions.max(1);
        // Each partition begins at another one, or the first ones would get what is left over of all.
        self.redistribute(label, partitions, move |m| {
            let mut next = m % partitions;
            move |_| {
                let chosen = next;
                next = if next + 1 == partitions { 0 } else { next + 1 };
                Ok(chosen)
            }
        })
    }

    /// At most so many partitions (at least one): neighbours are put together, and nothing is moved. As many as before, if that
    /// is fewer.
    pub fn coalesce(self, partitions: usize) -> Rdd<'b, T> {
        let (from, to) = (self.op.partitions(), partitions.max(1));
        if from <= to {
            return self;
        }
        let env = self.env.clone();
        Rdd::new(env, Coalesced { parent: self.unbound(), partitions: to })
    }

    /// Each record to the partition that is chosen for it; `chooser(m)` makes what chooses for the records of partition `m`, in order.
    fn redistribute<C: FnMut(&T) -> Result<usize>>(
        self,
        label: &Arc<str>,
        partitions: usize,
        chooser: impl Fn(usize) -> C + Send + Sync + 'static,
    ) -> Rdd<'b, T> {
        let (env, label) = (self.env.clone(), label.clone());
        let exchange = Exchange::new(self, partitions, move |parent, m, task| {
            let mut buckets: Vec<Bucket<T>> = (0..partitions).map(|_| Bucket::new()).collect();
            let mut choose = chooser(m);
            parent.op.compute(m, task, &mut |chunk| {
                task.enter(&label);
                for record in chunk {
                    let chosen = choose(&record)?;
                    buckets[chosen].push(record);
                }
                Ok(())
            })?;
            Ok(buckets)
        });
        Rdd::new(env, Redistributed { exchange })
    }
}

impl<'b, K: Key, V: Send + 'static> Rdd<'b, (K, V)> {
    /// The records over so many partitions (at least one), by the stable hash of their key: all of a key are in one, in record
    /// order.
    pub fn partition_by(self, partitions: usize) -> Self {
        let partitions = partitions.max(1);
        self.redistribute(&"partition_by".into(), partitions, move |_| {
            move |(key, _): &(K, V)| {
                let hash = codec::hash_of(key).map_err(|error| Error::from(error).context("a key"))?;
                // The high half of the hash, scaled: no key prefers a partition for its low bits.
                Ok((((hash >> 32) * partitions as u64) >> 32) as usize)
            }
        })
    }
}

struct Redistributed<T> {
    exchange: Arc<Exchange<Bucket<T>>>,
}

impl<T: Send + 'static> Compute<T> for Redistributed<T> {
    fn partitions(&self) -> usize {
        self.exchange.readers()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        vec![self.exchange.clone()]
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, T>) -> Result<()> {
        let buckets = self.exchange.take(partition, task)?;
        let pieces = buckets.into_iter().flat_map(Bucket::into_pieces).filter(|piece| !piece.is_empty());
        // Small pieces of many tasks go on together.
        let mut chunk: Vec<T> = Vec::new();
        for piece in pieces {
            if !chunk.is_empty() && chunk.len() + piece.len() > chunk_len::<T>() {
                out(std::mem::take(&mut chunk))?;
            }
            if chunk.is_empty() {
                chunk = piece;
            } else {
                chunk.extend(piece);
            }
        }
        if chunk.is_empty() { Ok(()) } else { out(chunk) }
    }

    fn retryable(&self) -> bool {
        self.exchange.repeatable()
    }

    fn repeatable(&self) -> bool {
        self.exchange.repeatable()
    }
}

struct Coalesced<T> {
    parent: Rdd<'static, T>,
    partitions: usize,
}

impl<T: Send + 'static> Compute<T> for Coalesced<T> {
    fn partitions(&self) -> usize {
        self.partitions
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.parent.op.dependencies()
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, T>) -> Result<()> {
        let of = self.parent.op.partitions();
        let (from, to) = (partition * of / self.partitions, (partition + 1) * of / self.partitions);
        (from..to).try_for_each(|parent| self.parent.op.compute(parent, task, out))
    }

    fn retryable(&self) -> bool {
        self.parent.op.retryable()
    }

    fn repeatable(&self) -> bool {
        self.parent.op.repeatable()
    }
}
