//! Joins of two keyed streams, within one batch.

#![expect(clippy::type_complexity, reason = "the type of a join is what it gives: an alias would hide it")]

use std::sync::Arc;

use super::DStream;
use crate::rdd::{Key, Rdd};

impl<'g, K: Key, V: Send + 'static> DStream<'g, (K, V)> {
    /// A stream whose `Rdd` is a function of this one's and another's.
    fn with<W: Send + 'static, U: Send + 'static>(
        self,
        operator: &str,
        other: DStream<'g, (K, W)>,
        f: impl Fn(Rdd<'static, (K, V)>, Rdd<'static, (K, W)>, &Arc<str>) -> Rdd<'static, U> + Send + Sync + 'static,
    ) -> DStream<'g, U> {
        let label: Arc<str> = format!("{}.{operator}({})", self.label, other.label).into();
        let (left, right, inner) = (self.node(), other.node(), label.clone());
        let upstream = self.as_upstream().and(other.as_upstream());
        DStream::new(self.graph, label, upstream, move |run| Ok(f(left.rdd(run)?, right.rdd(run)?, &inner)))
    }

    /// The values of each key of a batch on both sides, in record order; a key is there if either side has it.
    pub fn cogroup<W: Send + 'static>(self, other: DStream<'g, (K, W)>) -> DStream<'g, (K, (Vec<V>, Vec<W>))> {
        self.with("cogroup", other, |left, right, label| left.cogroup_labelled(label, right))
    }
}

impl<'g, K: Key + Clone, V: Clone + Send + 'static> DStream<'g, (K, V)> {
    /// Each pair of values of a key that both sides have in a batch.
    pub fn join<W: Clone + Send + 'static>(self, other: DStream<'g, (K, W)>) -> DStream<'g, (K, (V, W))> {
        self.with("join", other, |left, right, _| left.join(right))
    }

    /// As [`join`](DStream::join); a value on the left without one on the right is kept, with `None`.
    pub fn left_outer_join<W: Clone + Send + 'static>(
        self,
        other: DStream<'g, (K, W)>,
    ) -> DStream<'g, (K, (V, Option<W>))> {
        self.with("left_outer_join", other, |left, right, _| left.left_outer_join(right))
    }

    /// As [`join`](DStream::join); a value on the right without one on the left is kept, with `None`.
    pub fn right_outer_join<W: Clone + Send + 'static>(
        self,
        other: DStream<'g, (K, W)>,
    ) -> DStream<'g, (K, (Option<V>, W))> {
        self.with("right_outer_join", other, |left, right, _| left.right_outer_join(right))
    }

    /// As [`join`](DStream::join); a value on either side without one on the other is kept, with `None`.
    pub fn full_outer_join<W: Clone + Send + 'static>(
        self,
        other: DStream<'g, (K, W)>,
    ) -> DStream<'g, (K, (Option<V>, Option<W>))> {
        self.with("full_outer_join", other, |left, right, _| left.full_outer_join(right))
    }
}
