//! Operators of any stream that need no keys and no state.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::run::for_user;
use super::{DStream, Graph, Upstream};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::rdd::{Rdd, StorageLevel};
use crate::time::BatchTime;

impl<'g, T: Send + 'static> DStream<'g, T> {
    /// A function of each record. It must be deterministic: after a crash it is computed again.
    ///
    /// A panic fails the task; it is tried again a bounded number of times, then the context stops.
    pub fn map<U: Send + 'static>(self, f: impl Fn(T) -> U + Send + Sync + 'static) -> DStream<'g, U> {
        let f = Arc::new(f);
        self.apply("map", move |rdd, label, _| {
            let f = f.clone();
            Ok(rdd.map_labelled(label, move |record| f(record)))
        })
    }

    /// As [`map`](DStream::map) with a function that can fail: an error fails the task as a panic does.
    pub fn try_map<U: Send + 'static, E: Into<BoxError>>(
        self,
        f: impl Fn(T) -> Result<U, E> + Send + Sync + 'static,
    ) -> DStream<'g, U> {
        let f = Arc::new(f);
        self.apply("try_map", move |rdd, label, _| {
            let f = f.clone();
            Ok(rdd.try_map_labelled(label, move |record| f(record).map_err(failed)))
        })
    }

    /// Any number of records for each. The function must be deterministic.
    pub fn flat_map<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        f: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> DStream<'g, U> {
        let f = Arc::new(f);
        self.apply("flat_map", move |rdd, label, _| {
            let f = f.clone();
            Ok(rdd.flat_map_labelled(label, move |record| f(record)))
        })
    }

    /// The records for which `f` is true. The function must be deterministic.
    pub fn filter(self, f: impl Fn(&T) -> bool + Send + Sync + 'static) -> DStream<'g, T> {
        let f = Arc::new(f);
        self.apply("filter", move |rdd, label, _| {
            let f = f.clone();
            Ok(rdd.filter_labelled(label, move |record| f(record)))
        })
    }

    /// A function of the records of each partition, in order; called for empty partitions too. It must be deterministic.
    /// A partition is gathered in memory before it is called.
    pub fn map_partitions<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        f: impl Fn(std::vec::IntoIter<T>) -> I + Send + Sync + 'static,
    ) -> DStream<'g, U> {
        let f = Arc::new(f);
        self.apply("map_partitions", move |rdd, label, _| {
            let f = f.clone();
            Ok(rdd.map_partitions_labelled(label, move |records| f(records)))
        })
    }

    /// As [`map_partitions`](DStream::map_partitions), with the number of each partition.
    pub fn map_partitions_with_index<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        f: impl Fn(usize, std::vec::IntoIter<T>) -> I + Send + Sync + 'static,
    ) -> DStream<'g, U> {
        let f = Arc::new(f);
        self.apply("map_partitions_with_index", move |rdd, label, _| {
            let f = f.clone();
            Ok(rdd.map_partitions_with_index_labelled(label, move |index, records| f(index, records)))
        })
    }

    /// The records of each batch spread evenly over so many partitions (at least one): more tasks for what follows, or fewer.
    pub fn repartition(self, partitions: usize) -> DStream<'g, T> {
        self.apply("repartition", move |rdd, label, _| Ok(rdd.repartition_labelled(label, partitions)))
    }

    /// Keeps each batch where the level says until it is done, for all that read it: what [`clone`](Clone::clone) keeps in memory otherwise. Files lie in the
    /// directory of the context.
    ///
    /// ```
    /// # use millpond_core::{DStream, rdd::StorageLevel, sink::FileSink};
    /// # fn f(posts: DStream<'_, String>, long: FileSink, all: FileSink) {
    /// let posts = posts.persist(StorageLevel::MemoryAndDisk);
    /// posts.clone().filter(|post| post.len() > 1000).sink_text("long", long);
    /// posts.sink_text("all", all);
    /// # }
    /// ```
    pub fn persist(self, level: StorageLevel) -> DStream<'g, T>
    where
        T: Clone + Serialize + DeserializeOwned,
    {
        let memo = self.graph.next_memo();
        self.apply("persist", move |rdd, _, run| run.once(memo, || Ok(rdd.persist(level))))
    }

    /// Each partition as one element.
    pub fn glom(self) -> DStream<'g, Vec<T>> {
        self.apply("glom", |rdd, _, _| Ok(rdd.glom()))
    }

    /// The records of both streams: in each batch this one's, then the other's. Both are of one graph:
    ///
    /// ```compile_fail
    /// use millpond_core::{StreamingContext, source::{Queue, QueueSource}};
    /// let (one, two) = (Queue::<u64>::new(), Queue::<u64>::new());
    /// let _ = StreamingContext::builder("one").open(|a| {
    ///     let _ = StreamingContext::builder("two").open(|b| {
    ///         a.source("a", QueueSource::one_at_a_time(&one)).union(b.source("b", QueueSource::one_at_a_time(&two)));
    ///         Ok(())
    ///     });
    ///     Ok(())
    /// });
    /// ```
    pub fn union(self, other: DStream<'g, T>) -> DStream<'g, T> {
        let (left, right) = (self.node(), other.node());
        let label: Arc<str> = format!("{} ∪ {}", self.label, other.label).into();
        let upstream = self.as_upstream().and(other.as_upstream());
        DStream::new(self.graph, label, upstream, move |run| Ok(left.rdd(run)?.union(right.rdd(run)?)))
    }

    /// The number of records of each batch: always exactly one element, 0 for an empty batch.
    pub fn count(self) -> DStream<'g, u64> {
        self.graph.needs_every_batch();
        self.apply("count", |rdd, label, _| {
            let counts = rdd.narrow(label, |chunk, out| out(vec![chunk.len() as u64]));
            Ok(counts.gather().map_partitions_labelled(label, |counts| std::iter::once(counts.sum())))
        })
    }

    /// All records of each batch folded into one, in the order of records and partitions; no element for an empty batch.
    /// The function must be associative and deterministic.
    pub fn reduce(self, f: impl Fn(T, T) -> T + Send + Sync + 'static) -> DStream<'g, T> {
        let f = Arc::new(f);
        self.apply("reduce", move |rdd, label, _| {
            let (each, all) = (f.clone(), f.clone());
            let partial = rdd.map_partitions_labelled(label, move |records| records.reduce(|a, b| each(a, b)));
            Ok(partial.gather().map_partitions_labelled(label, move |records| records.reduce(|a, b| all(a, b))))
        })
    }

    /// Any function of each batch's `Rdd`; it is called for every batch, also empty ones. The function must be deterministic.
    ///
    /// The `Rdd` is there for this batch ([`Rdd`]); what a function needs of an earlier one is state, and not kept in its closure:
    ///
    /// ```compile_fail
    /// # fn f(numbers: millpond_core::DStream<'_, u64>) {
    /// let before = std::sync::Mutex::new(None);
    /// numbers.transform(move |rdd, _time| match before.lock().unwrap().replace(rdd.clone()) {
    ///     Some(last) => rdd.union(last), // would be gone after a crash
    ///     None => rdd,
    /// });
    /// # }
    /// ```
    pub fn transform<U: Send + 'static>(
        self,
        f: impl for<'b> Fn(Rdd<'b, T>, BatchTime) -> Rdd<'b, U> + Send + Sync + 'static,
    ) -> DStream<'g, U>
    where
        T: Clone,
    {
        self.graph.needs_every_batch();
        self.apply("transform", move |rdd, _, run| {
            let rdd = for_user(rdd);
            let stages = rdd.op.dependencies();
            Ok(f(rdd, run.env.batch).after(stages).within(run.env.clone()))
        })
    }

    /// Any function of the `Rdd`s of two streams; it is called for every batch. The function must be deterministic.
    pub fn transform_with<U: Clone + Send + 'static, V: Send + 'static>(
        self,
        other: DStream<'g, U>,
        f: impl for<'b> Fn(Rdd<'b, T>, Rdd<'b, U>, BatchTime) -> Rdd<'b, V> + Send + Sync + 'static,
    ) -> DStream<'g, V>
    where
        T: Clone,
    {
        self.graph.needs_every_batch();
        let (left, right) = (self.node(), other.node());
        let label: Arc<str> = format!("{}.transform_with({})", self.label, other.label).into();
        let upstream = self.as_upstream().and(other.as_upstream());
        DStream::new(self.graph, label, upstream, move |run| {
            let (left, right) = (for_user(left.rdd(run)?), for_user(right.rdd(run)?));
            let stages = [left.op.dependencies(), right.op.dependencies()].concat();
            Ok(f(left, right, run.env.batch).after(stages).within(run.env.clone()))
        })
    }
}

impl<'g> Graph<'g> {
    /// The records of all streams, side by side in the order given. A union of no streams is an error when the context is
    /// opened.
    pub fn union<T: Send + 'static>(&self, streams: impl IntoIterator<Item = DStream<'g, T>>) -> DStream<'g, T> {
        let united = streams.into_iter().reduce(DStream::union);
        united.unwrap_or_else(|| {
            self.fail("a union of no streams".into());
            DStream::new(self.clone(), "union".into(), Upstream::default(), |run| Ok(Rdd::nothing(run.env.clone())))
        })
    }

    /// Any function of the `Rdd`s of any number of streams of one type, in the order given; it is called for every batch. The function
    /// must be deterministic. A transform of no streams is an error when the context is opened.
    pub fn transform<T: Clone + Send + 'static, U: Send + 'static>(
        &self,
        streams: impl IntoIterator<Item = DStream<'g, T>>,
        f: impl for<'b> Fn(Vec<Rdd<'b, T>>, BatchTime) -> Rdd<'b, U> + Send + Sync + 'static,
    ) -> DStream<'g, U> {
        self.needs_every_batch();
        let streams: Vec<_> = streams.into_iter().collect();
        if streams.is_empty() {
            self.fail("a transform of no streams".into());
        }
        let labels: Vec<&str> = streams.iter().map(|stream| &*stream.label).collect();
        let label: Arc<str> = format!("transform({})", labels.join(", ")).into();
        let upstream = streams.iter().map(DStream::as_upstream).fold(Upstream::default(), Upstream::and);
        let nodes: Vec<_> = streams.iter().map(DStream::node).collect();
        DStream::new(self.clone(), label, upstream, move |run| {
            let rdds = nodes.iter().map(|node| Ok(for_user(node.rdd(run)?))).collect::<Result<Vec<_>>>()?;
            let stages = rdds.iter().flat_map(|rdd| rdd.op.dependencies()).collect();
            Ok(f(rdds, run.env.batch).after(stages).within(run.env.clone()))
        })
    }
}

fn failed(error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Program, "a function failed").with_source(error)
}
