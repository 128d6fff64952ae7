//! An exchange: what the tasks of one stage leave for the tasks of the next.
//!
//! Each task `m` of the filling stage leaves one bucket for each partition `r` of the reading
//! stage. A reader takes its buckets by value. If it fails then, they are filled again from the
//! lineage, for that partition alone, where the lineage allows it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Compute, Out, Rdd};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{Stage, Task, accumulator};

/// Fills the buckets of task `m`: one for each reading partition.
type Fill<B> = Box<dyn Fn(usize, &Task) -> Result<Vec<B>> + Send + Sync>;

pub(crate) struct Exchange<B> {
    fill: Fill<B>,
    parent: Arc<dyn Parent>,
    /// By reading partition, then by filling task: `None` before it is filled and after it is taken.
    buckets: Vec<Mutex<Vec<Option<B>>>>,
    done: AtomicBool,
}

/// What an exchange asks of the `Rdd` it is filled from, without its type.
trait Parent: Send + Sync {
    fn partitions(&self) -> usize;
    fn dependencies(&self) -> Vec<Arc<dyn Stage>>;
    fn retryable(&self) -> bool;
    fn repeatable(&self) -> bool;
}

impl<T: Send + 'static> Parent for Rdd<'static, T> {
    fn partitions(&self) -> usize {
        self.op.partitions()
    }
    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.op.dependencies()
    }
    fn retryable(&self) -> bool {
        self.op.retryable()
    }
    fn repeatable(&self) -> bool {
        self.op.repeatable()
    }
}

impl<B: Send + 'static> Exchange<B> {
    /// An exchange filled from `parent` by `fill` and read by `readers` partitions.
    pub(crate) fn new<T: Send + 'static>(
        parent: Rdd<'_, T>,
        readers: usize,
        fill: impl Fn(&Rdd<'static, T>, usize, &Task) -> Result<Vec<B>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let parent = parent.unbound();
        let tasks = parent.op.partitions();
        let empty = || Mutex::new((0..tasks).map(|_| None).collect());
        Arc::new(Exchange {
            parent: Arc::new(parent.clone()),
            fill: Box::new(move |m, task| fill(&parent, m, task)),
            buckets: (0..readers).map(|_| empty()).collect(),
            done: AtomicBool::new(false),
        })
    }

    pub(crate) fn readers(&self) -> usize {
        self.buckets.len()
    }

    /// Takes the buckets of partition `r`, in the order of the filling tasks.
    pub(crate) fn take(&self, r: usize, task: &Task) -> Result<Vec<B>> {
        let mut buckets = self.lock(r);
        let mut taken = Vec::with_capacity(buckets.len());
        for m in 0..buckets.len() {
            let bucket = match buckets[m].take() {
                Some(bucket) => bucket,
                // A failed try took it: once more from the lineage.
                None if self.repeatable() => accumulator::muted(|| (self.fill)(m, task))?.swap_remove(r),
                None => {
                    return Err(Error::new(
                        ErrorKind::Restart,
                        "the input of a task was consumed by a failed try and cannot be computed again",
                    ));
                }
            };
            taken.push(bucket);
        }
        if crate::controls::broken("break-map-order") {
            // In whatever order a map of this process gives.
            let map: std::collections::HashMap<usize, B> = taken.into_iter().enumerate().collect();
            taken = map.into_values().collect();
        }
        Ok(taken)
    }

    /// Whether what a reader took can be had again.
    pub(crate) fn repeatable(&self) -> bool {
        self.parent.repeatable()
    }

    fn lock(&self, r: usize) -> MutexGuard<'_, Vec<Option<B>>> {
        self.buckets[r].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Send + 'static> Stage for Exchange<B> {
    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.parent.dependencies()
    }

    fn tasks(&self) -> usize {
        self.parent.partitions()
    }

    fn run(&self, task: &Task) -> Result<()> {
        let fill = || (self.fill)(task.partition, task);
        // Filled once more, for another reader: what its functions count, they have counted.
        let made = if self.done.load(Ordering::Acquire) { accumulator::muted(fill)? } else { fill()? };
        if !task.claims() {
            return Ok(());
        }
        for (r, bucket) in made.into_iter().enumerate() {
            self.lock(r)[task.partition] = Some(bucket);
        }
        Ok(())
    }

    fn can_retry(&self) -> bool {
        self.parent.retryable()
    }

    fn can_race(&self) -> bool {
        self.parent.repeatable()
    }

    fn done(&self) -> &AtomicBool {
        &self.done
    }

    /// A reader before has taken buckets. Filled again by one task each; else every reader would fill its own from all of the
    /// parent.
    fn spent(&self) -> bool {
        self.repeatable() && (0..self.readers()).any(|r| self.lock(r).iter().any(Option::is_none))
    }
}

/// Partitions of an `Rdd` brought together, in order.
struct Gather<T> {
    exchange: Arc<Exchange<Vec<Vec<T>>>>,
}

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// One partition that holds the records of all, in order.
    pub(crate) fn gather(self) -> Rdd<'b, T> {
        self.spread(1)
    }

    /// So many partitions: partition `m` goes to partition `m` modulo `readers`, in order.
    pub(crate) fn spread(self, readers: usize) -> Rdd<'b, T> {
        let env = self.env.clone();
        let exchange = Exchange::new(self, readers, move |parent, m, task| {
            let chunks = parent.chunks(m, task)?;
            let mut buckets: Vec<Vec<Vec<T>>> = (0..readers).map(|_| Vec::new()).collect();
            buckets[m % readers] = chunks;
            Ok(buckets)
        });
        Rdd::new(env, Gather { exchange })
    }
}

impl<T: Send + 'static> Compute<T> for Gather<T> {
    fn partitions(&self) -> usize {
        self.exchange.readers()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        vec![self.exchange.clone()]
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, T>) -> Result<()> {
        self.exchange.take(partition, task)?.into_iter().flatten().try_for_each(out)
    }

    fn retryable(&self) -> bool {
        self.exchange.repeatable()
    }

    fn repeatable(&self) -> bool {
        self.exchange.repeatable()
    }
}
