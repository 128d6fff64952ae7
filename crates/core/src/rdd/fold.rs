//! Actions that fold all records into one result.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Key, Rdd};
use crate::chunk::chunk_len;
use crate::error::Result;

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// All records folded into one, in the order of records and partitions; `None` if there are none. The function must be
    /// associative.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn reduce(&self, f: impl Fn(T, T) -> T + Send + Sync + 'static) -> Result<Option<T>> {
        let f = Arc::new(f);
        let each = f.clone();
        let partitions = self.run(move |rdd, partition, task| {
            let mut folded: Option<T> = None;
            rdd.op.compute(partition, task, &mut |chunk| {
                let mut records = chunk.into_iter();
                if let Some(first) = folded.take().or_else(|| records.next()) {
                    folded = Some(records.fold(first, &*each));
                }
                Ok(())
            })?;
            Ok(folded)
        })?;
        Ok(partitions.into_iter().flatten().reduce(&*f))
    }

    /// As [`reduce`](Rdd::reduce), beginning with `zero` in each partition and once more for their results: `zero` must change
    /// nothing.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn fold(&self, zero: T, f: impl Fn(T, T) -> T + Send + Sync + 'static) -> Result<T>
    where
        T: Clone + Sync,
    {
        let f = Arc::new(f);
        let merge = f.clone();
        self.aggregate(zero, move |a, b| f(a, b), move |a, b| merge(a, b))
    }

    /// Folds the records of each partition with `add`, beginning with `zero`; then the partitions' results with `merge`, in order and
    /// beginning with `zero` again.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn aggregate<C: Clone + Send + Sync + 'static>(
        &self,
        zero: C,
        add: impl Fn(C, T) -> C + Send + Sync + 'static,
        merge: impl Fn(C, C) -> C,
    ) -> Result<C> {
        let begin = zero.clone();
        let partitions = self.run(move |rdd, partition, task| {
            let mut folded = Some(begin.clone());
            rdd.op.compute(partition, task, &mut |chunk| {
                folded = folded.take().map(|folded| chunk.into_iter().fold(folded, &add));
                Ok(())
            })?;
            Ok(folded)
        })?;
        Ok(partitions.into_iter().flatten().fold(zero, merge))
    }

    /// The `n` largest records, largest first.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn top(&self, n: usize) -> Result<Vec<T>>
    where
        T: Ord,
    {
        self.first_in_order(n, |a, b| b.cmp(a))
    }

    /// The `n` smallest records, smallest first.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn take_ordered(&self, n: usize) -> Result<Vec<T>>
    where
        T: Ord,
    {
        self.first_in_order(n, T::cmp)
    }

    fn first_in_order(&self, n: usize, compare: fn(&T, &T) -> Ordering) -> Result<Vec<T>> {
        let partitions = self.run(move |rdd, partition, task| {
            let mut best: Vec<T> = Vec::new();
            rdd.op.compute(partition, task, &mut |chunk| {
                best.extend(chunk);
                // Not for every chunk: each record is sorted twice at most, about.
                if best.len() / 2 >= n.max(chunk_len::<T>()) {
                    keep_first(&mut best, n, compare);
                }
                Ok(())
            })?;
            keep_first(&mut best, n, compare);
            Ok(best)
        })?;
        let mut best = partitions.into_iter().flatten().collect();
        keep_first(&mut best, n, compare);
        Ok(best)
    }

    /// How often each record occurs, each once. Records are equal if their encoded bytes are ([`Key`]).
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn count_by_value(&self) -> Result<Vec<(T, u64)>>
    where
        T: Key,
    {
        let label = "count_by_value".into();
        self.clone().map_labelled(&label, |record| (record, 1)).reduce_by_key_labelled(&label, |a, b| a + b).collect()
    }
}

impl<'b, K: Key, V: Send + 'static> Rdd<'b, (K, V)> {
    /// How many records each key has, each key once. As pairs, since a key is its encoded bytes and need not be `Ord` or `Hash`.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn count_by_key(&self) -> Result<Vec<(K, u64)>> {
        let label = "count_by_key".into();
        self.clone().map_labelled(&label, |(key, _)| (key, 1)).reduce_by_key_labelled(&label, |a, b| a + b).collect()
    }
}

/// Leaves the first `n` records in order, equal ones in the order they had.
fn keep_first<T>(records: &mut Vec<T>, n: usize, compare: fn(&T, &T) -> Ordering) {
    records.sort_by(compare);
    records.truncate(n);
}
