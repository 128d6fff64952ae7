//! What the unit tests of the embedded sources share: a start without an engine, and reading a plan.

use std::sync::Arc;
use std::time::Duration;

use super::{PartitionPosition, Plan, RefusedRecord, Source, SourceEvents, SourceOutput, SourcePartition, SourceStart};
use crate::clock::SystemClock;
use crate::error::Result;
use crate::log::{BlockLog, Budget, MemoryBatchLog};
use crate::time::BatchTime;

/// A start at time 0 with a log in memory.
pub(crate) fn start(positions: Option<Vec<PartitionPosition>>) -> SourceStart {
    SourceStart {
        name: "test".into(),
        application: "tests".into(),
        positions,
        unplanned: Vec::new(),
        blocks: BlockLog::new(Arc::new(MemoryBatchLog::new()), "test", Budget::new(64 << 20)),
        first_start: BatchTime::from_ms(0),
        batch_interval: Duration::from_secs(1),
        clock: Arc::new(SystemClock::new()),
        events: SourceEvents::new(drop),
    }
}

/// The source, started.
pub(crate) fn started<S: Source>(source: S, positions: Option<Vec<PartitionPosition>>) -> S {
    started_with(source, positions, |_| ())
}

/// The source, started with something changed.
pub(crate) fn started_with<S: Source>(
    mut source: S,
    positions: Option<Vec<PartitionPosition>>,
    change: impl FnOnce(&mut SourceStart),
) -> S {
    let mut start = start(positions);
    change(&mut start);
    source.start(start).unwrap();
    source
}

/// What came out of partitions, in order.
#[derive(Debug)]
pub(crate) struct Collected<T> {
    pub(crate) records: Vec<T>,
    pub(crate) refused: Vec<RefusedRecord>,
    pub(crate) skipped: u64,
    wants_refused: bool,
}

impl<T> Collected<T> {
    pub(crate) fn new(wants_refused: bool) -> Self {
        Collected { records: Vec::new(), refused: Vec::new(), skipped: 0, wants_refused }
    }

    /// What a partition gives.
    pub(crate) fn of(partition: &dyn SourcePartition<T>) -> Result<Self> {
        let mut collected = Collected::new(false);
        partition.compute(&mut collected)?;
        Ok(collected)
    }

    /// What a plan gives to a program that reads refused records as a second stream.
    pub(crate) fn with_refused<S: Source<Item = T>>(source: &mut S, plan: &Plan) -> Result<Self> {
        let mut collected = Collected::new(true);
        source.read(plan)?.iter().try_for_each(|partition| partition.compute(&mut collected))?;
        Ok(collected)
    }
}

impl<T> SourceOutput<T> for Collected<T> {
    fn records(&mut self, chunk: Vec<T>) -> Result<()> {
        self.records.extend(chunk);
        Ok(())
    }

    fn wants_refused(&self) -> bool {
        self.wants_refused
    }

    fn refused(&mut self, record: RefusedRecord) -> Result<()> {
        self.refused.push(record);
        Ok(())
    }

    fn skipped(&mut self, count: u64) {
        self.skipped += count;
    }
}

/// What a plan gives, partition after partition.
pub(crate) fn collect<S: Source>(source: &mut S, plan: &Plan) -> Result<Collected<S::Item>> {
    let mut collected = Collected::new(false);
    source.read(plan)?.iter().try_for_each(|partition| partition.compute(&mut collected))?;
    Ok(collected)
}
