//! Actions: they compute an `Rdd` now and bring a result back.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use super::Rdd;
use crate::error::Result;
use crate::exec::{Stage, Task, run_stages};

/// Computes one partition's result.
type RunPartition<T, R> = Box<dyn Fn(&Rdd<T>, usize, &Task) -> Result<R> + Send + Sync>;

/// The last stage of an action: one result a partition.
struct Action<T, R> {
    rdd: Rdd<T>,
    run: RunPartition<T, R>,
    results: Mutex<Vec<(usize, R)>>,
    done: AtomicBool,
}

impl<T: Send + 'static, R: Send> Stage for Action<T, R> {
    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.rdd.op.dependencies()
    }

    fn tasks(&self) -> usize {
        self.rdd.op.partitions()
    }

    fn run(&self, task: &Task) -> Result<()> {
        let result = (self.run)(&self.rdd, task.partition, task)?;
        if !task.claims() {
            return Ok(());
        }
        self.results.lock().unwrap_or_else(PoisonError::into_inner).push((task.partition, result));
        Ok(())
    }

    fn can_retry(&self) -> bool {
        self.rdd.op.retryable()
    }

    fn can_race(&self) -> bool {
        self.rdd.op.repeatable()
    }

    fn done(&self) -> &AtomicBool {
        &self.done
    }
}

impl<T: Send + 'static> Rdd<T> {
    /// Runs a function of each partition and returns the results in the order of the partitions.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        run: impl Fn(&Rdd<T>, usize, &Task) -> Result<R> + Send + Sync + 'static,
    ) -> Result<Vec<R>> {
        let stage = Arc::new(Action {
            rdd: self.clone(),
            run: Box::new(run),
            results: Mutex::default(),
            done: AtomicBool::new(false),
        });
        run_stages(&self.env.executor, self.env.batch, vec![stage.clone()])?;
        let mut results = std::mem::take(&mut *stage.results.lock().unwrap_or_else(PoisonError::into_inner));
        results.sort_by_key(|(partition, _)| *partition);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }

    /// All records, in the order of the partitions.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn collect(&self) -> Result<Vec<T>> {
        let partitions = self.run(|rdd, partition, task| {
            let mut records = Vec::new();
            rdd.op.compute(partition, task, &mut |chunk| {
                records.extend(chunk);
                Ok(())
            })?;
            Ok(records)
        })?;
        Ok(partitions.into_iter().flatten().collect())
    }

    /// The number of records.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn count(&self) -> Result<u64> {
        let partitions = self.run(|rdd, partition, task| {
            let mut count = 0;
            rdd.op.compute(partition, task, &mut |chunk| {
                count += chunk.len() as u64;
                Ok(())
            })?;
            Ok(count)
        })?;
        Ok(partitions.into_iter().sum())
    }

    /// The first `n` records, in the order of the partitions.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn take(&self, n: usize) -> Result<Vec<T>> {
        let partitions = self.run(move |rdd, partition, task| {
            let mut records = Vec::new();
            rdd.op.compute(partition, task, &mut |chunk| {
                records.extend(chunk.into_iter().take(n - records.len().min(n)));
                Ok(())
            })?;
            Ok(records)
        })?;
        Ok(partitions.into_iter().flatten().take(n).collect())
    }
}
