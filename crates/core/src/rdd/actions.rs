//! Actions: they compute an `Rdd` now and bring a result back.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use super::Rdd;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{Stage, Task, run_stages};

/// Computes one partition's result.
type RunPartition<T, R> = Box<dyn Fn(&Rdd<'static, T>, usize, &Task) -> Result<R> + Send + Sync>;

/// The last stage of an action: one result a partition.
struct Action<T, R> {
    rdd: Rdd<'static, T>,
    /// The first so many partitions.
    partitions: usize,
    run: RunPartition<T, R>,
    results: Mutex<Vec<(usize, R)>>,
    done: AtomicBool,
}

impl<T: Send + 'static, R: Send> Stage for Action<T, R> {
    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.rdd.op.dependencies()
    }

    fn tasks(&self) -> usize {
        self.partitions
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

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// Runs a function of each partition and returns the results in the order of the partitions.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        run: impl Fn(&Rdd<'static, T>, usize, &Task) -> Result<R> + Send + Sync + 'static,
    ) -> Result<Vec<R>> {
        self.run_some(self.op.partitions(), run)
    }

    /// As [`run`](Rdd::run), of the first so many partitions.
    fn run_some<R: Send + 'static>(
        &self,
        partitions: usize,
        run: impl Fn(&Rdd<'static, T>, usize, &Task) -> Result<R> + Send + Sync + 'static,
    ) -> Result<Vec<R>> {
        let stage = Arc::new(Action {
            rdd: self.clone().unbound(),
            partitions,
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

    /// The first `n` records, in the order of the partitions. Partitions behind the first are computed only if that one has too few.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn take(&self, n: usize) -> Result<Vec<T>> {
        if n == 0 || self.op.partitions() == 0 {
            return Ok(Vec::new());
        }
        if !self.op.dependencies().is_empty() {
            // What lies behind a shuffle is computed whole before the first record comes: once is enough.
            return self.run_first(n, 0, self.op.partitions());
        }
        let mut records = self.run_first(n, 0, 1)?;
        if records.len() < n {
            records.extend(self.run_first(n - records.len(), 1, self.op.partitions())?);
        }
        Ok(records)
    }

    /// The first `n` records of the partitions `from..to`.
    fn run_first(&self, n: usize, from: usize, to: usize) -> Result<Vec<T>> {
        let partitions = self.run_some(to, move |rdd, partition, task| {
            let mut records = Vec::new();
            if partition < from {
                return Ok(records);
            }
            // What has keyed state before it is computed to its end in any case.
            let may_stop = rdd.op.repeatable();
            let mut full = false;
            let outcome = rdd.op.compute(partition, task, &mut |chunk| {
                records.extend(chunk.into_iter().take(n - records.len()));
                full = may_stop && records.len() == n;
                if full { Err(enough()) } else { Ok(()) }
            });
            if full { Ok(records) } else { outcome.map(|()| records) }
        })?;
        Ok(partitions.into_iter().flatten().take(n).collect())
    }

    /// The first record, if there is one.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn first(&self) -> Result<Option<T>> {
        Ok(self.take(1)?.pop())
    }

    /// Whether there are no records.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.take(1)?.is_empty())
    }

    /// Calls a function with each record, on the threads that compute. A task that fails is tried again: the function may be
    /// called more than once with a record.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn for_each(&self, f: impl Fn(T) + Send + Sync + 'static) -> Result<()> {
        self.for_each_partition(move |_, records| records.for_each(&f))
    }

    /// As [`for_each`](Rdd::for_each), with the number of each partition and its records, empty ones too. A partition is gathered in
    /// memory first.
    ///
    /// # Errors
    /// What a function of the lineage failed with.
    pub fn for_each_partition(&self, f: impl Fn(usize, std::vec::IntoIter<T>) + Send + Sync + 'static) -> Result<()> {
        let label: Arc<str> = "for_each".into();
        self.run(move |rdd, partition, task| {
            let mut records = Vec::new();
            rdd.op.compute(partition, task, &mut |chunk| {
                records.extend(chunk);
                Ok(())
            })?;
            task.enter(&label);
            f(partition, records.into_iter());
            Ok(())
        })?;
        Ok(())
    }
}

/// Ends the computing of a partition of which enough has been seen; never leaves this file.
fn enough() -> Error {
    Error::new(ErrorKind::Stopped, "enough records")
}
