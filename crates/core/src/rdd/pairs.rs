//! Operators of pairs that fold values, or look at one side of a pair.

use std::sync::Arc;

use super::{Key, Rdd};

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// Pairs each record with its key.
    pub fn key_by<K: Send + 'static>(self, f: impl Fn(&T) -> K + Send + Sync + 'static) -> Rdd<'b, (K, T)> {
        self.map_labelled(&"key_by".into(), move |record| (f(&record), record))
    }

    /// Each record once. Records are equal if their encoded bytes are, as keys are ([`Key`]).
    pub fn distinct(self) -> Rdd<'b, T>
    where
        T: Key,
    {
        let label = "distinct".into();
        let folded = self.map_labelled(&label, |record| (record, ())).reduce_by_key_labelled(&label, |_, _| ());
        folded.map_labelled(&label, |(record, ())| record)
    }
}

impl<'b, K: Send + 'static, V: Send + 'static> Rdd<'b, (K, V)> {
    /// The key of each record.
    pub fn keys(self) -> Rdd<'b, K> {
        self.map_labelled(&"keys".into(), |(key, _)| key)
    }

    /// The value of each record.
    pub fn values(self) -> Rdd<'b, V> {
        self.map_labelled(&"values".into(), |(_, value)| value)
    }

    /// A function of each value; keys stay.
    pub fn map_values<U: Send + 'static>(self, f: impl Fn(V) -> U + Send + Sync + 'static) -> Rdd<'b, (K, U)> {
        self.map_labelled(&"map_values".into(), move |(key, value)| (key, f(value)))
    }

    /// Any number of values for each, all with its key.
    pub fn flat_map_values<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        f: impl Fn(V) -> I + Send + Sync + 'static,
    ) -> Rdd<'b, (K, U)>
    where
        K: Clone,
    {
        self.flat_map_values_labelled(&"flat_map_values".into(), f)
    }

    pub(crate) fn flat_map_values_labelled<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        label: &Arc<str>,
        f: impl Fn(V) -> I + Send + Sync + 'static,
    ) -> Rdd<'b, (K, U)>
    where
        K: Clone,
    {
        self.flat_map_labelled(label, move |(key, value)| f(value).into_iter().map(move |made| (key.clone(), made)))
    }
}

impl<'b, K: Key, V: Send + 'static> Rdd<'b, (K, V)> {
    /// Folds the values of each key: `create` makes the fold of the first one, `add` adds a further one of the same partition, `merge` brings
    /// the folds of two partitions together, in the order of the partitions.
    pub fn combine_by_key<C: Send + 'static>(
        self,
        create: impl Fn(V) -> C + Send + Sync + 'static,
        add: impl Fn(C, V) -> C + Send + Sync + 'static,
        merge: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> Rdd<'b, (K, C)> {
        self.combine(&"combine_by_key".into(), create, add, merge)
    }

    /// As [`combine_by_key`](Rdd::combine_by_key), beginning with `zero` for each key of each partition that has it: `zero` must not
    /// change what it is merged with.
    pub fn aggregate_by_key<C: Clone + Send + Sync + 'static>(
        self,
        zero: C,
        add: impl Fn(C, V) -> C + Send + Sync + 'static,
        merge: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> Rdd<'b, (K, C)> {
        let add = Arc::new(add);
        let first = add.clone();
        let create = move |value| first(zero.clone(), value);
        self.combine(&"aggregate_by_key".into(), create, move |folded, value| add(folded, value), merge)
    }

    /// As [`aggregate_by_key`](Rdd::aggregate_by_key) with one function.
    pub fn fold_by_key(self, zero: V, f: impl Fn(V, V) -> V + Send + Sync + 'static) -> Self
    where
        V: Clone + Sync,
    {
        let f = Arc::new(f);
        let merge = f.clone();
        self.aggregate_by_key(zero, move |a, b| f(a, b), move |a, b| merge(a, b))
    }
}
