//! `Rdd`s without parents: the input of a source, and collections.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Compute, Out, Rdd, RddEnv};
use crate::chunk::chunk_len;
use crate::error::Result;
use crate::exec::{Stage, Task};
use crate::source::{RefusedRecord, SourceOutput, SourcePartition};

/// What one source planned for the batch.
pub(crate) struct SourceRdd<T> {
    pub(crate) label: Arc<str>,
    pub(crate) partitions: Vec<Arc<dyn SourcePartition<T>>>,
    /// Where refused records go, by partition, if the program reads them.
    pub(crate) refused: Option<Arc<Refused>>,
}

/// The refused records of a batch, by partition of the source.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    pub(crate) partitions: Mutex<Vec<(usize, Vec<RefusedRecord>)>>,
}

struct Output<'a, 'b, T> {
    out: &'a mut Out<'b, T>,
    task: &'a Task,
    label: &'a Arc<str>,
    refused: Option<Vec<RefusedRecord>>,
    skipped: u64,
}

impl<T> SourceOutput<T> for Output<'_, '_, T> {
    fn records(&mut self, chunk: Vec<T>) -> Result<()> {
        (self.out)(chunk)?;
        self.task.enter(self.label);
        Ok(())
    }

    fn wants_refused(&self) -> bool {
        self.refused.is_some()
    }

    fn refused(&mut self, record: RefusedRecord) -> Result<()> {
        if let Some(refused) = &mut self.refused {
            refused.push(record);
        }
        Ok(())
    }

    fn skipped(&mut self, count: u64) {
        self.skipped += count;
    }
}

impl<T: Send + 'static> Compute<T> for SourceRdd<T> {
    fn partitions(&self) -> usize {
        self.partitions.len()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        Vec::new()
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, T>) -> Result<()> {
        task.enter(&self.label);
        let refused = self.refused.as_ref().map(|_| Vec::new());
        let mut output = Output { out, task, label: &self.label, refused, skipped: 0 };
        self.partitions[partition].compute(&mut output)?;
        if output.skipped > 0 {
            tracing::warn!(source = %self.label, batch = %task.batch, count = output.skipped, "records were refused and skipped");
        }
        if let (Some(kept), Some(refused)) = (&self.refused, output.refused) {
            let mut partitions = kept.partitions.lock().unwrap_or_else(PoisonError::into_inner);
            // A second try replaces what the first one left.
            partitions.retain(|(of, _)| *of != partition);
            partitions.push((partition, refused));
        }
        Ok(())
    }

    fn retryable(&self) -> bool {
        true
    }

    fn repeatable(&self) -> bool {
        true
    }
}

struct Collection<T> {
    partitions: Vec<Vec<T>>,
}

impl<T: Clone + Send + Sync + 'static> Compute<T> for Collection<T> {
    fn partitions(&self) -> usize {
        self.partitions.len()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        Vec::new()
    }

    fn compute(&self, partition: usize, _: &Task, out: &mut Out<'_, T>) -> Result<()> {
        self.partitions[partition].chunks(chunk_len::<T>()).try_for_each(|chunk| out(chunk.to_vec()))
    }

    fn retryable(&self) -> bool {
        true
    }

    fn repeatable(&self) -> bool {
        true
    }
}

impl<'b, T: Clone + Send + Sync + 'static> Rdd<'b, T> {
    /// The partitions given.
    pub(crate) fn of_partitions(env: Arc<RddEnv>, partitions: Vec<Vec<T>>) -> Self {
        Rdd::new(env, Collection { partitions })
    }
}
