//! Bringing two keyed `Rdd`s together: cogroup, and the joins made of it.

#![expect(clippy::type_complexity, reason = "the type of a join is what it gives: an alias would hide it")]

use std::borrow::Borrow;
use std::sync::Arc;

use super::combine::CombineTable;
use super::{Compute, Key, KeyedExchange, Out, Rdd, in_chunks, shuffle};
use crate::error::Result;
use crate::exec::{Stage, Task};

/// The values of each key on both sides, in record order.
struct CoGroup<K, V, W> {
    left: Arc<KeyedExchange<K, V>>,
    right: Arc<KeyedExchange<K, W>>,
    label: Arc<str>,
}

/// A key's values on both sides.
type Both<V, W> = (Vec<V>, Vec<W>);

impl<K: Key, V: Send + 'static, W: Send + 'static> Compute<(K, Both<V, W>)> for CoGroup<K, V, W> {
    fn partitions(&self) -> usize {
        self.left.readers()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        vec![self.left.clone(), self.right.clone()]
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, (K, Both<V, W>)>) -> Result<()> {
        let (left, right) = (self.left.take(partition, task)?, self.right.take(partition, task)?);
        task.enter(&self.label);
        let mut table: CombineTable<K, Both<V, W>> = CombineTable::new();
        let left = left.into_iter().flatten().map(|record| (record.key, record.value));
        table.fold_all(left, &|value| (vec![value], Vec::new()), &|mut both: Both<V, W>, value| {
            both.0.push(value);
            both
        })?;
        let right = right.into_iter().flatten().map(|record| (record.key, record.value));
        table.fold_all(right, &|value| (Vec::new(), vec![value]), &|mut both: Both<V, W>, value| {
            both.1.push(value);
            both
        })?;
        in_chunks(table.into_records(), out)
    }

    fn retryable(&self) -> bool {
        self.left.repeatable() && self.right.repeatable()
    }

    fn repeatable(&self) -> bool {
        self.retryable()
    }
}

impl<'b, K: Key, V: Send + 'static> Rdd<'b, (K, V)> {
    pub(crate) fn cogroup_labelled<W: Send + 'static>(
        self,
        label: &Arc<str>,
        other: Rdd<'b, (K, W)>,
    ) -> Rdd<'b, (K, (Vec<V>, Vec<W>))> {
        let env = self.env_with(&other);
        let left = shuffle(self.within(env.clone()), label);
        let right = shuffle(other.within(env.clone()), label);
        Rdd::new(env, CoGroup { left, right, label: label.clone() })
    }

    /// The values of each key on both sides, in record order; a key is there if either side has it.
    pub fn cogroup<W: Send + 'static>(self, other: impl Borrow<Rdd<'b, (K, W)>>) -> Rdd<'b, (K, (Vec<V>, Vec<W>))> {
        self.cogroup_labelled(&"cogroup".into(), other.borrow().clone())
    }

    /// The records whose key the other has not. Their order within a key stays.
    pub fn subtract_by_key<W: Send + 'static>(self, other: impl Borrow<Rdd<'b, (K, W)>>) -> Self
    where
        K: Clone,
    {
        let label = "subtract_by_key".into();
        // Of the other side the keys are enough.
        let others = other.borrow().clone().map_labelled(&label, |(key, _)| (key, ()));
        self.cogroup_labelled(&label, others).flat_map_labelled(&label, |(key, (left, right))| {
            let kept = if right.is_empty() { left } else { Vec::new() };
            kept.into_iter().map(move |value| (key.clone(), value))
        })
    }
}

impl<'b, K: Key + Clone, V: Clone + Send + 'static> Rdd<'b, (K, V)> {
    /// Each pair of values of a key that both sides have. The other side may be a data set ([`BatchContext`](crate::BatchContext)),
    /// given by reference: `rdd.join(&users)`.
    pub fn join<W: Clone + Send + 'static>(self, other: impl Borrow<Rdd<'b, (K, W)>>) -> Rdd<'b, (K, (V, W))> {
        self.cogroup_labelled(&"join".into(), other.borrow().clone())
            .flat_map(|(key, (left, right))| pairs(key, left, right, |v, w| (v, w)))
    }

    /// As [`join`](Rdd::join); a value on the left without one on the right is kept, with `None`.
    pub fn left_outer_join<W: Clone + Send + 'static>(
        self,
        other: impl Borrow<Rdd<'b, (K, W)>>,
    ) -> Rdd<'b, (K, (V, Option<W>))> {
        self.cogroup_labelled(&"left_outer_join".into(), other.borrow().clone())
            .flat_map(|(key, (left, right))| pairs(key, left, some_or_none(right), |v, w| (v, w)))
    }

    /// As [`join`](Rdd::join); a value on the right without one on the left is kept, with `None`.
    pub fn right_outer_join<W: Clone + Send + 'static>(
        self,
        other: impl Borrow<Rdd<'b, (K, W)>>,
    ) -> Rdd<'b, (K, (Option<V>, W))> {
        self.cogroup_labelled(&"right_outer_join".into(), other.borrow().clone())
            .flat_map(|(key, (left, right))| pairs(key, some_or_none(left), right, |v, w| (v, w)))
    }

    /// As [`join`](Rdd::join); a value on either side without one on the other is kept, with `None`.
    pub fn full_outer_join<W: Clone + Send + 'static>(
        self,
        other: impl Borrow<Rdd<'b, (K, W)>>,
    ) -> Rdd<'b, (K, (Option<V>, Option<W>))> {
        self.cogroup_labelled(&"full_outer_join".into(), other.borrow().clone())
            .flat_map(|(key, (left, right))| pairs(key, some_or_none(left), some_or_none(right), |v, w| (v, w)))
    }
}

/// The values, or one `None` where there are none.
fn some_or_none<T>(values: Vec<T>) -> Vec<Option<T>> {
    if values.is_empty() { vec![None] } else { values.into_iter().map(Some).collect() }
}

/// Each value of the left with each of the right.
fn pairs<K: Clone, V: Clone, W: Clone, U>(
    key: K,
    left: Vec<V>,
    right: Vec<W>,
    pair: impl Fn(V, W) -> U,
) -> Vec<(K, U)> {
    let mut pairs = Vec::with_capacity(left.len() * right.len());
    for v in &left {
        pairs.extend(right.iter().map(|w| (key.clone(), pair(v.clone(), w.clone()))));
    }
    pairs
}
