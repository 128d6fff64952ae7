//! Operators that need one partition of their parent for one of theirs: they run in their parent's task.

use std::borrow::Borrow;
use std::sync::Arc;

use super::{Compute, Out, Rdd, RddEnv, in_chunks};
use crate::chunk::{chunk, chunk_len};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::exec::{Stage, Task};

/// Any operator that turns a chunk into chunks.
struct Narrow<A, F> {
    parent: Rdd<'static, A>,
    label: Arc<str>,
    each_chunk: F,
}

impl<A, B, F> Compute<B> for Narrow<A, F>
where
    A: Send + 'static,
    F: Fn(Vec<A>, &mut Out<'_, B>) -> Result<()> + Send + Sync,
{
    fn partitions(&self) -> usize {
        self.parent.op.partitions()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.parent.op.dependencies()
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, B>) -> Result<()> {
        self.parent.op.compute(partition, task, &mut |chunk| {
            task.enter(&self.label);
            (self.each_chunk)(chunk, out)
        })
    }

    fn retryable(&self) -> bool {
        self.parent.op.retryable()
    }

    fn repeatable(&self) -> bool {
        self.parent.op.repeatable()
    }
}

impl<'b, T: Send + 'static> Rdd<'b, T> {
    pub(crate) fn narrow<U: Send + 'static>(
        self,
        label: &Arc<str>,
        each_chunk: impl Fn(Vec<T>, &mut Out<'_, U>) -> Result<()> + Send + Sync + 'static,
    ) -> Rdd<'b, U> {
        let env = self.env.clone();
        Rdd::new(env, Narrow { parent: self.unbound(), label: label.clone(), each_chunk })
    }

    pub(crate) fn map_labelled<U: Send + 'static>(
        self,
        label: &Arc<str>,
        f: impl Fn(T) -> U + Send + Sync + 'static,
    ) -> Rdd<'b, U> {
        self.narrow(label, move |chunk, out| out(chunk.into_iter().map(&f).collect()))
    }

    pub(crate) fn try_map_labelled<U: Send + 'static>(
        self,
        label: &Arc<str>,
        f: impl Fn(T) -> Result<U> + Send + Sync + 'static,
    ) -> Rdd<'b, U> {
        self.narrow(label, move |chunk, out| out(chunk.into_iter().map(&f).collect::<Result<_>>()?))
    }

    pub(crate) fn filter_labelled(
        self,
        label: &Arc<str>,
        f: impl Fn(&T) -> bool + Send + Sync + 'static,
    ) -> Rdd<'b, T> {
        self.narrow(label, move |mut chunk, out| {
            chunk.retain(|record| f(record));
            if chunk.is_empty() { Ok(()) } else { out(chunk) }
        })
    }

    pub(crate) fn flat_map_labelled<U, I>(
        self,
        label: &Arc<str>,
        f: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> Rdd<'b, U>
    where
        U: Send + 'static,
        I: IntoIterator<Item = U>,
    {
        self.narrow(label, move |records, out| {
            let mut made = chunk();
            for record in records {
                let yielded = f(record).into_iter();
                // One record may give many: a chunk outgrows its room at most by what one record yields.
                if made.len() + yielded.size_hint().0.max(1) > chunk_len::<U>() && !made.is_empty() {
                    out(std::mem::replace(&mut made, chunk()))?;
                }
                made.extend(yielded);
            }
            if made.is_empty() { Ok(()) } else { out(made) }
        })
    }

    pub(crate) fn map_partitions_labelled<U, I>(
        self,
        label: &Arc<str>,
        f: impl Fn(std::vec::IntoIter<T>) -> I + Send + Sync + 'static,
    ) -> Rdd<'b, U>
    where
        U: Send + 'static,
        I: IntoIterator<Item = U>,
    {
        let env = self.env.clone();
        Rdd::new(env, Whole { parent: self.unbound(), label: label.clone(), f: move |all: Vec<T>| f(all.into_iter()) })
    }

    /// A function of each record.
    pub fn map<U: Send + 'static>(self, f: impl Fn(T) -> U + Send + Sync + 'static) -> Rdd<'b, U> {
        self.map_labelled(&"map".into(), f)
    }

    /// As [`map`](Rdd::map) with a function that can fail: an error fails the task as a panic does.
    pub fn try_map<U: Send + 'static, E: Into<BoxError>>(
        self,
        f: impl Fn(T) -> Result<U, E> + Send + Sync + 'static,
    ) -> Rdd<'b, U> {
        self.try_map_labelled(&"try_map".into(), move |record| {
            f(record).map_err(|error| Error::new(ErrorKind::Program, "a function failed").with_source(error))
        })
    }

    /// The records for which `f` is true.
    pub fn filter(self, f: impl Fn(&T) -> bool + Send + Sync + 'static) -> Rdd<'b, T> {
        self.filter_labelled(&"filter".into(), f)
    }

    /// Any number of records for each.
    pub fn flat_map<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        f: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> Rdd<'b, U> {
        self.flat_map_labelled(&"flat_map".into(), f)
    }

    /// A function of each partition's records, in order. The partition is gathered in memory first.
    pub fn map_partitions<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        f: impl Fn(std::vec::IntoIter<T>) -> I + Send + Sync + 'static,
    ) -> Rdd<'b, U> {
        self.map_partitions_labelled(&"map_partitions".into(), f)
    }

    /// Each partition as one element.
    pub fn glom(self) -> Rdd<'b, Vec<T>> {
        self.map_partitions(|records| std::iter::once(records.collect::<Vec<_>>()))
    }

    /// The records of this one, then those of the other: partitions side by side.
    pub fn union(self, other: impl Borrow<Rdd<'b, T>>) -> Rdd<'b, T> {
        let other = other.borrow().clone();
        let env = self.env_with(&other);
        Rdd::new(env, Union { parents: vec![self.unbound(), other.unbound()] })
    }
}

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// No partition at all: what a stream has in a batch between its slides.
    pub(crate) fn nothing(env: Arc<RddEnv>) -> Rdd<'b, T> {
        Rdd::new(env, Union { parents: Vec::new() })
    }
}

/// A function of a whole partition; runs for empty ones too.
struct Whole<A, F> {
    parent: Rdd<'static, A>,
    label: Arc<str>,
    f: F,
}

impl<A, B, I, F> Compute<B> for Whole<A, F>
where
    A: Send + 'static,
    F: Fn(Vec<A>) -> I + Send + Sync,
    I: IntoIterator<Item = B>,
{
    fn partitions(&self) -> usize {
        self.parent.op.partitions()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.parent.op.dependencies()
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, B>) -> Result<()> {
        let mut all = Vec::new();
        self.parent.op.compute(partition, task, &mut |chunk| {
            if all.is_empty() {
                all = chunk;
            } else {
                all.extend(chunk);
            }
            Ok(())
        })?;
        task.enter(&self.label);
        in_chunks((self.f)(all), out)
    }

    fn retryable(&self) -> bool {
        self.parent.op.retryable()
    }

    fn repeatable(&self) -> bool {
        self.parent.op.repeatable()
    }
}

/// An `Rdd` that is computed after stages which it may not need itself: keyed state upstream of a user's function moves on
/// whether the function uses all of it or not.
struct After<T> {
    rdd: Rdd<'static, T>,
    stages: Vec<Arc<dyn Stage>>,
}

impl<'b, T: Send + 'static> Rdd<'b, T> {
    pub(crate) fn after(self, stages: Vec<Arc<dyn Stage>>) -> Rdd<'b, T> {
        if stages.is_empty() {
            return self;
        }
        let env = self.env.clone();
        Rdd::new(env, After { rdd: self.unbound(), stages })
    }
}

impl<T: Send + 'static> Compute<T> for After<T> {
    fn partitions(&self) -> usize {
        self.rdd.op.partitions()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.stages.iter().cloned().chain(self.rdd.op.dependencies()).collect()
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, T>) -> Result<()> {
        self.rdd.op.compute(partition, task, out)
    }

    fn retryable(&self) -> bool {
        self.rdd.op.retryable()
    }

    fn repeatable(&self) -> bool {
        self.rdd.op.repeatable()
    }
}

struct Union<T> {
    parents: Vec<Rdd<'static, T>>,
}

impl<T: Send + 'static> Compute<T> for Union<T> {
    fn partitions(&self) -> usize {
        self.parents.iter().map(|parent| parent.op.partitions()).sum()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.parents.iter().flat_map(|parent| parent.op.dependencies()).collect()
    }

    fn compute(&self, mut partition: usize, task: &Task, out: &mut Out<'_, T>) -> Result<()> {
        for parent in &self.parents {
            if partition < parent.op.partitions() {
                return parent.op.compute(partition, task, out);
            }
            partition -= parent.op.partitions();
        }
        Ok(())
    }

    fn retryable(&self) -> bool {
        self.parents.iter().all(|parent| parent.op.retryable())
    }

    fn repeatable(&self) -> bool {
        self.parents.iter().all(|parent| parent.op.repeatable())
    }
}
