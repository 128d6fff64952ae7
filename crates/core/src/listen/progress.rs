//! The newest batches of a context, kept in memory within a limit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BatchInfo, OutputOperationInfo, StreamingListener};
use crate::time::BatchTime;

/// Completed batches kept by default.
const RETAINED: usize = 1000;
/// Output operations of batches that nobody has heard of yet, in batches.
const AHEAD: usize = 10;

/// Keeps the batches that wait and run, the newest that have completed, and counts. Clones share what they keep.
///
/// Every context has one ([`Running::batches`](crate::Running::batches)); it is a listener too, for whoever wants one more
/// with another limit.
#[derive(Clone, Debug)]
pub struct ProgressTracker {
    kept: Arc<Mutex<Kept>>,
}

/// What a tracker has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchCounts {
    /// Batches submitted and not started.
    pub waiting: u64,
    /// Batches started and not completed.
    pub running: u64,
    /// Batches completed since the start.
    pub completed: u64,
    /// Of those, batches that failed for good.
    pub failed: u64,
    /// Records of the batches that have started.
    pub received_records: u64,
    /// Records of the batches that have completed.
    pub processed_records: u64,
}

impl BatchCounts {
    /// Batches that wait or run.
    pub fn unprocessed(&self) -> u64 {
        self.waiting + self.running
    }
}

#[derive(Debug)]
struct Kept {
    retained: usize,
    counts: BatchCounts,
    waiting: BTreeMap<BatchTime, BatchInfo>,
    running: BTreeMap<BatchTime, BatchInfo>,
    completed: VecDeque<BatchInfo>,
    /// Output operations by batch: they may come before, and after, what they belong to.
    operations: BTreeMap<BatchTime, BTreeMap<usize, OutputOperationInfo>>,
}

impl Default for ProgressTracker {
    fn default() -> Self {
        ProgressTracker::with_limit(RETAINED)
    }
}

impl ProgressTracker {
    /// A tracker that keeps so many completed batches; [`default`](ProgressTracker::default) keeps 1,000.
    pub fn with_limit(completed_batches: usize) -> Self {
        let kept = Kept {
            retained: completed_batches,
            counts: BatchCounts::default(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            completed: VecDeque::new(),
            operations: BTreeMap::new(),
        };
        ProgressTracker { kept: Arc::new(Mutex::new(kept)) }
    }

    /// What was counted.
    pub fn counts(&self) -> BatchCounts {
        let kept = self.lock();
        BatchCounts { waiting: kept.waiting.len() as u64, running: kept.running.len() as u64, ..kept.counts }
    }

    /// Batches submitted and not started, oldest first.
    pub fn waiting(&self) -> Vec<BatchInfo> {
        let kept = self.lock();
        kept.waiting.values().map(|batch| kept.whole(batch)).collect()
    }

    /// Batches started and not completed, oldest first.
    pub fn running(&self) -> Vec<BatchInfo> {
        let kept = self.lock();
        kept.running.values().map(|batch| kept.whole(batch)).collect()
    }

    /// The newest completed batches, oldest first.
    pub fn completed(&self) -> Vec<BatchInfo> {
        let kept = self.lock();
        kept.completed.iter().map(|batch| kept.whole(batch)).collect()
    }

    /// A batch, if it is still kept.
    pub fn batch(&self, time: BatchTime) -> Option<BatchInfo> {
        let kept = self.lock();
        let found = kept.waiting.get(&time).or_else(|| kept.running.get(&time));
        let found = found.or_else(|| kept.completed.iter().rev().find(|batch| batch.time == time));
        found.map(|batch| kept.whole(batch))
    }

    /// Batches of which output operations are kept: at most as many as there are batches, and ten more.
    pub fn kept_operations(&self) -> usize {
        self.lock().operations.len()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The batch with what has been heard of its output operations.
    fn whole(&self, batch: &BatchInfo) -> BatchInfo {
        let mut whole = batch.clone();
        for operation in self.operations.get(&batch.time).into_iter().flat_map(BTreeMap::values) {
            whole.operation(operation);
        }
        whole
    }

    fn operation(&mut self, operation: &OutputOperationInfo) {
        self.operations.entry(operation.batch).or_default().insert(operation.number, operation.clone());
        self.forget_operations();
    }

    /// The oldest go first; those of batches that are kept are newer.
    fn forget_operations(&mut self) {
        let most = self.waiting.len() + self.running.len() + self.retained + AHEAD;
        while self.operations.len() > most {
            self.operations.pop_first();
        }
    }
}

impl StreamingListener for ProgressTracker {
    fn on_batch_submitted(&mut self, batch: &BatchInfo) {
        self.lock().waiting.insert(batch.time, batch.clone());
    }

    fn on_batch_started(&mut self, batch: &BatchInfo) {
        let mut kept = self.lock();
        kept.waiting.remove(&batch.time);
        kept.counts.received_records += batch.records();
        kept.running.insert(batch.time, batch.clone());
    }

    fn on_batch_completed(&mut self, batch: &BatchInfo) {
        let mut kept = self.lock();
        kept.waiting.remove(&batch.time);
        kept.running.remove(&batch.time);
        kept.counts.completed += 1;
        kept.counts.failed += u64::from(batch.failure.is_some());
        kept.counts.processed_records += batch.records();
        kept.completed.push_back(batch.clone());
        while kept.completed.len() > kept.retained {
            kept.completed.pop_front();
        }
        kept.forget_operations();
    }

    fn on_output_operation_started(&mut self, operation: &OutputOperationInfo) {
        self.lock().operation(operation);
    }

    fn on_output_operation_completed(&mut self, operation: &OutputOperationInfo) {
        self.lock().operation(operation);
    }
}
