//! Operators of streams of pairs, within one batch.

use std::sync::Arc;

use super::DStream;
use crate::rdd::Key;

impl<'g, T: Send + 'static> DStream<'g, T> {
    /// Pairs each record with its key.
    pub fn key_by<K: Key>(self, f: impl Fn(&T) -> K + Send + Sync + 'static) -> DStream<'g, (K, T)> {
        let f = Arc::new(f);
        self.apply("key_by", move |rdd, label, _| {
            let f = f.clone();
            Ok(rdd.map_labelled(label, move |record| (f(&record), record)))
        })
    }

    /// How often each record occurs in the batch.
    pub fn count_by_value(self) -> DStream<'g, (T, u64)>
    where
        T: Key,
    {
        self.apply("count_by_value", |rdd, label, _| {
            Ok(rdd.map_labelled(label, |record| (record, 1)).reduce_by_key_labelled(label, |a, b| a + b))
        })
    }
}

impl<'g, K: Key, V: Send + 'static> DStream<'g, (K, V)> {
    /// The values of each key of a batch folded into one, in record order within a partition and in the order of the
    /// partitions. The function must be associative and deterministic.
    pub fn reduce_by_key(self, f: impl Fn(V, V) -> V + Send + Sync + 'static) -> DStream<'g, (K, V)> {
        let f = Arc::new(f);
        self.apply("reduce_by_key", move |rdd, label, _| {
            let f = f.clone();
            Ok(rdd.reduce_by_key_labelled(label, move |a, b| f(a, b)))
        })
    }

    /// All values of each key of a batch, in record order.
    pub fn group_by_key(self) -> DStream<'g, (K, Vec<V>)> {
        self.apply("group_by_key", |rdd, label, _| Ok(rdd.group_by_key_labelled(label)))
    }

    /// A function of each value; keys stay. It must be deterministic.
    pub fn map_values<U: Send + 'static>(self, f: impl Fn(V) -> U + Send + Sync + 'static) -> DStream<'g, (K, U)> {
        let f = Arc::new(f);
        self.apply("map_values", move |rdd, label, _| {
            let f = f.clone();
            Ok(rdd.map_labelled(label, move |(key, value)| (key, f(value))))
        })
    }

    /// Any number of values for each, all with its key. The function must be deterministic.
    pub fn flat_map_values<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        f: impl Fn(V) -> I + Send + Sync + 'static,
    ) -> DStream<'g, (K, U)>
    where
        K: Clone,
    {
        let f = Arc::new(f);
        self.apply("flat_map_values", move |rdd, label, _| {
            let f = f.clone();
            Ok(rdd.flat_map_values_labelled(label, move |value| f(value)))
        })
    }

    /// Folds the values of each key of a batch: `create` makes the fold of the first one, `add` adds a further one of the same
    /// partition, `merge` brings the folds of two partitions together, in the order of the partitions. The functions must be deterministic.
    pub fn combine_by_key<C: Send + 'static>(
        self,
        create: impl Fn(V) -> C + Send + Sync + 'static,
        add: impl Fn(C, V) -> C + Send + Sync + 'static,
        merge: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> DStream<'g, (K, C)> {
        let (create, add, merge) = (Arc::new(create), Arc::new(add), Arc::new(merge));
        self.apply("combine_by_key", move |rdd, label, _| {
            let (create, add, merge) = (create.clone(), add.clone(), merge.clone());
            Ok(rdd.combine(label, move |v| create(v), move |c, v| add(c, v), move |a, b| merge(a, b)))
        })
    }
}
