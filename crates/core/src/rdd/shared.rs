//! An `Rdd` that is computed into memory for one reader, because computing it leaves something else too: the records that were refused.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Compute, Out, Rdd, RddEnv, Refused};
use crate::error::Result;
use crate::exec::{Stage, Task, accumulator};
use crate::source::RefusedRecord;

/// The kept partitions.
pub(crate) struct Kept<T> {
    parent: Rdd<'static, T>,
    /// By partition; `None` once its one reader has taken it.
    partitions: Vec<Mutex<Option<Vec<Vec<T>>>>>,
    done: AtomicBool,
}

impl<T: Send + 'static> Stage for Kept<T> {
    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.parent.op.dependencies()
    }

    fn tasks(&self) -> usize {
        self.partitions.len()
    }

    fn run(&self, task: &Task) -> Result<()> {
        let chunks = self.parent.chunks(task.partition, task)?;
        if !task.claims() {
            return Ok(());
        }
        *self.partitions[task.partition].lock().unwrap_or_else(PoisonError::into_inner) = Some(chunks);
        Ok(())
    }

    fn can_retry(&self) -> bool {
        self.parent.op.retryable()
    }

    fn can_race(&self) -> bool {
        self.parent.op.repeatable()
    }

    fn done(&self) -> &AtomicBool {
        &self.done
    }
}

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// Computes the `Rdd` into memory, for one reader that takes it ([`Rdd::kept`]) and what else its computing leaves.
    pub(crate) fn keep(self) -> Arc<Kept<T>> {
        let partitions = (0..self.op.partitions()).map(|_| Mutex::default()).collect();
        Arc::new(Kept { parent: self.unbound(), partitions, done: AtomicBool::new(false) })
    }

    /// The records kept, taken out by their one reader.
    pub(crate) fn kept(env: Arc<RddEnv>, kept: Arc<Kept<T>>) -> Rdd<'b, T> {
        Rdd::new(env, Taken(kept))
    }
}

/// The kept partitions, for one reader, which takes them.
struct Taken<T>(Arc<Kept<T>>);

impl<T: Send + 'static> Compute<T> for Taken<T> {
    fn partitions(&self) -> usize {
        self.0.partitions.len()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        vec![self.0.clone()]
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, T>) -> Result<()> {
        let taken = self.0.partitions[partition].lock().unwrap_or_else(PoisonError::into_inner).take();
        match taken {
            Some(chunks) => chunks.into_iter().try_for_each(out),
            // A failed try took them. What comes of them was undone and counts again; they themselves have been counted.
            None => accumulator::muted(|| self.0.parent.chunks(partition, task))?.into_iter().try_for_each(out),
        }
    }

    fn retryable(&self) -> bool {
        self.0.parent.op.repeatable()
    }

    fn repeatable(&self) -> bool {
        self.0.parent.op.repeatable()
    }
}

/// The refused records of a source as an `Rdd`: there once the source's records have been kept.
struct RefusedRdd<T> {
    kept: Arc<Kept<T>>,
    refused: Arc<Refused>,
}

impl Rdd<'static, RefusedRecord> {
    pub(crate) fn refused<T: Send + 'static>(env: Arc<RddEnv>, kept: Arc<Kept<T>>, refused: Arc<Refused>) -> Self {
        Rdd::new(env, RefusedRdd { kept, refused })
    }
}

impl<T: Send + 'static> Compute<RefusedRecord> for RefusedRdd<T> {
    fn partitions(&self) -> usize {
        1
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        vec![self.kept.clone()]
    }

    fn compute(&self, _: usize, _: &Task, out: &mut Out<'_, RefusedRecord>) -> Result<()> {
        let records = self.refused.in_order();
        if records.is_empty() { Ok(()) } else { out(records) }
    }

    fn retryable(&self) -> bool {
        true
    }

    fn repeatable(&self) -> bool {
        true
    }
}
