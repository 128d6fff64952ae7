//! What the unit tests of the embedded sources share: a start without an engine, and reading a plan.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{
    BlockId, PartitionPosition, Plan, RefusedRecord, Source, SourceEvents, SourceOutput, SourcePartition, SourceStart,
};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{BatchLog, BlockLog, Budget, Done, LogEntry, MemoryBatchLog};
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

/// The longest that a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something holds that another thread brings about.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

/// A clock that only the test moves.
#[derive(Default)]
pub(crate) struct ManualClock {
    now_ms: AtomicU64,
    wakers: Mutex<Vec<Arc<dyn Fn() + Send + Sync>>>,
}

impl ManualClock {
    pub(crate) fn set_ms(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
        // Called without the lock: who is woken may ask for the time.
        let wakers = self.wakers.lock().unwrap().clone();
        wakers.iter().for_each(|wake| wake());
    }
}

impl ManualClock {
    /// Moves on and wakes nobody: for clocks built on this one.
    pub(crate) fn set_ms_quietly(&self, now_ms: u64) {
        self.now_ms.fetch_max(now_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn until(&self, _time_ms: u64) -> Option<Duration> {
        None
    }

    fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.wakers.lock().unwrap().push(wake.into());
    }
}

/// A log in memory that tells of every append, and refuses or holds them when told to.
#[derive(Clone)]
pub(crate) struct TestLog {
    pub(crate) kept: MemoryBatchLog,
    behaviour: Arc<Mutex<Behaviour>>,
    appended: Sender<LogEntry>,
}

enum Behaviour {
    Pass,
    Refuse(ErrorKind),
    Hold(Vec<(LogEntry, Done)>),
}

impl TestLog {
    pub(crate) fn new() -> (Self, Receiver<LogEntry>) {
        let (appended, seen) = channel();
        let behaviour = Arc::new(Mutex::new(Behaviour::Pass));
        (TestLog { kept: MemoryBatchLog::new(), behaviour, appended }, seen)
    }

    pub(crate) fn refuse(&self, kind: ErrorKind) {
        *self.behaviour.lock().unwrap() = Behaviour::Refuse(kind);
    }

    pub(crate) fn hold(&self) {
        *self.behaviour.lock().unwrap() = Behaviour::Hold(Vec::new());
    }

    /// Appends what was held, then all that comes.
    pub(crate) fn pass(&self) {
        let mut behaviour = self.behaviour.lock().unwrap();
        if let Behaviour::Hold(held) = std::mem::replace(&mut *behaviour, Behaviour::Pass) {
            held.into_iter().for_each(|(entry, done)| self.append_and_tell(entry, done));
        }
    }

    fn append_and_tell(&self, entry: LogEntry, done: Done) {
        let outcome = self.kept.append(&entry);
        let _ = self.appended.send(entry);
        done(outcome);
    }

    /// The blocks of a source that are in no plan of the log, and the positions of the newest plan.
    pub(crate) fn recovered(&self) -> (Vec<BlockId>, Option<Vec<PartitionPosition>>) {
        let (mut unplanned, mut positions) = (Vec::new(), None);
        self.kept
            .recover(&mut |id, entry| {
                match entry {
                    LogEntry::Block(_) => unplanned.push(id),
                    LogEntry::Plan(plan) => {
                        let plan = &plan.sources[0].plan;
                        unplanned.retain(|id| !plan.blocks.contains(id));
                        positions = Some(plan.positions.clone());
                    }
                    _ => {}
                }
                Ok(())
            })
            .unwrap();
        (unplanned, positions)
    }
}

impl BatchLog for TestLog {
    fn recover(&self, visit: &mut dyn FnMut(BlockId, LogEntry) -> Result<()>) -> Result<()> {
        self.kept.recover(visit)
    }

    fn append(&self, entry: &LogEntry) -> Result<BlockId> {
        self.kept.append(entry)
    }

    fn submit(&self, entry: LogEntry, done: Done) {
        match &mut *self.behaviour.lock().unwrap() {
            Behaviour::Hold(held) => return held.push((entry, done)),
            Behaviour::Refuse(kind) => {
                let refusal = Error::new(*kind, "the log refuses, for a test");
                return done(Err(refusal));
            }
            Behaviour::Pass => {}
        }
        self.append_and_tell(entry, done);
    }

    fn read(&self, position: BlockId) -> Result<LogEntry> {
        self.kept.read(position)
    }

    fn release(&self, position: BlockId) -> Result<()> {
        self.kept.release(position)
    }

    fn end(&self) -> BlockId {
        self.kept.end()
    }

    fn close(&self) -> Result<()> {
        self.kept.close()
    }
}
