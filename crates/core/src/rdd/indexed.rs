//! Operators that know the number of their partition, or the place of a record in it.

use std::sync::Arc;

use super::{Compute, Exchange, Out, Rdd, in_chunks};
use crate::error::Result;
use crate::exec::{Stage, Task};

/// An operator over chunks with something of its own for each partition, made anew whenever the partition is computed.
struct Scan<A, B, F> {
    parent: Rdd<'static, A>,
    label: Arc<str>,
    begin: B,
    each_chunk: F,
}

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// `begin(partition)` makes what `each_chunk` is given for all chunks of the partition.
    pub(crate) fn scan<S, U: Send + 'static>(
        self,
        label: &Arc<str>,
        begin: impl Fn(usize) -> S + Send + Sync + 'static,
        each_chunk: impl Fn(&mut S, Vec<T>, &mut Out<'_, U>) -> Result<()> + Send + Sync + 'static,
    ) -> Rdd<'b, U> {
        let env = self.env.clone();
        Rdd::new(env, Scan { parent: self.unbound(), label: label.clone(), begin, each_chunk })
    }

    /// A function of the number of each partition and its records, in order; called for empty partitions too. The partition is
    /// gathered in memory first.
    pub fn map_partitions_with_index<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        f: impl Fn(usize, std::vec::IntoIter<T>) -> I + Send + Sync + 'static,
    ) -> Rdd<'b, U> {
        self.map_partitions_with_index_labelled(&"map_partitions_with_index".into(), f)
    }

    /// Each record with the same chance `fraction`, without putting any back. The same records always, for the same seed,
    /// partitions and order: each partition draws its own numbers.
    ///
    /// A fraction of 0 or less takes none, 1 or more takes all.
    pub fn sample(self, fraction: f64, seed: u64) -> Rdd<'b, T> {
        // The part of all numbers that are drawn; as numbers of 53 bits, which a float holds exactly.
        let bound = (fraction.clamp(0.0, 1.0) * (1_u64 << 53) as f64) as u64;
        self.scan(
            &"sample".into(),
            move |partition| SplitMix(seed ^ (partition as u64 + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93)),
            move |numbers, mut chunk, out| {
                chunk.retain(|_| numbers.next() >> 11 < bound);
                if chunk.is_empty() { Ok(()) } else { out(chunk) }
            },
        )
    }

    /// Each record with its number, from 0, in the order of the partitions. All records are held in memory meanwhile, since a
    /// partition has to know how many are in those before it.
    pub fn zip_with_index(self) -> Rdd<'b, (T, u64)> {
        let (env, readers) = (self.env.clone(), self.op.partitions());
        let exchange = Exchange::new(self, readers, move |parent, m, task| {
            let mut chunks = parent.chunks(m, task)?;
            let count = chunks.iter().map(|chunk| chunk.len() as u64).sum();
            // The partition itself gets the records, those behind it their number.
            let for_reader = |r: usize| match r {
                r if r == m => Numbered { before: 0, chunks: std::mem::take(&mut chunks) },
                r if r > m => Numbered { before: count, chunks: Vec::new() },
                _ => Numbered { before: 0, chunks: Vec::new() },
            };
            Ok((0..readers).map(for_reader).collect())
        });
        Rdd::new(env, ZipWithIndex { exchange })
    }
}

impl<'b, T: Send + 'static> Rdd<'b, T> {
    pub(crate) fn map_partitions_with_index_labelled<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        label: &Arc<str>,
        f: impl Fn(usize, std::vec::IntoIter<T>) -> I + Send + Sync + 'static,
    ) -> Rdd<'b, U> {
        // One record a partition: its number and all its records.
        let numbered = self.map_partitions_labelled(label, |records| std::iter::once(records.collect::<Vec<T>>()));
        numbered.scan(
            label,
            |partition| partition,
            move |partition, chunk, out| {
                for records in chunk {
                    in_chunks(f(*partition, records.into_iter()), out)?;
                }
                Ok(())
            },
        )
    }
}

impl<A, B, S, N, F> Compute<B> for Scan<A, N, F>
where
    A: Send + 'static,
    N: Fn(usize) -> S + Send + Sync,
    F: Fn(&mut S, Vec<A>, &mut Out<'_, B>) -> Result<()> + Send + Sync,
{
    fn partitions(&self) -> usize {
        self.parent.op.partitions()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.parent.op.dependencies()
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, B>) -> Result<()> {
        let mut own = (self.begin)(partition);
        self.parent.op.compute(partition, task, &mut |chunk| {
            task.enter(&self.label);
            (self.each_chunk)(&mut own, chunk, out)
        })
    }

    fn retryable(&self) -> bool {
        self.parent.op.retryable()
    }

    fn repeatable(&self) -> bool {
        self.parent.op.repeatable()
    }
}

/// What a partition leaves for another: how many records it has if it stands before it, its records if it is the same.
struct Numbered<T> {
    before: u64,
    chunks: Vec<Vec<T>>,
}

struct ZipWithIndex<T> {
    exchange: Arc<Exchange<Numbered<T>>>,
}

impl<T: Send + 'static> Compute<(T, u64)> for ZipWithIndex<T> {
    fn partitions(&self) -> usize {
        self.exchange.readers()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        vec![self.exchange.clone()]
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, (T, u64)>) -> Result<()> {
        let left = self.exchange.take(partition, task)?;
        let first: u64 = left.iter().map(|numbered| numbered.before).sum();
        let mut numbers = first..;
        let chunks = left.into_iter().flat_map(|numbered| numbered.chunks);
        // The records stand first: past 2^64 of them the numbers would end, not the records.
        chunks.into_iter().try_for_each(|chunk| out(chunk.into_iter().zip(&mut numbers).collect()))
    }

    fn retryable(&self) -> bool {
        self.exchange.repeatable()
    }

    fn repeatable(&self) -> bool {
        self.exchange.repeatable()
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): numbers good enough to draw a sample by, the same on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
