//! Plays the engine to a source: starts it, plans, reads, releases, and starts it again where the plans left off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use millpond_core::clock::SystemClock;
use millpond_core::log::{BatchLog, BlockLog, Budget, LogEntry, MemoryBatchLog};
use millpond_core::source::{
    BlockId, Plan, PlanRequest, RefusedRecord, Source, SourceEvent, SourceEvents, SourceOutput, SourceStart,
};
use millpond_core::{BatchTime, Error, Result};
use millpond_kafka::{Decode, KafkaSource};

/// How long a test waits for what must come.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_secs(1);

/// A source with the log that its plans are in.
pub(crate) struct Input<D: Decode> {
    pub(crate) source: KafkaSource<D>,
    pub(crate) log: MemoryBatchLog,
    pub(crate) budget: Arc<Budget>,
    pub(crate) plans: Vec<Plan>,
    events: Arc<Mutex<Vec<String>>>,
}

impl<D: Decode> Input<D> {
    /// Starts a source for the first time.
    pub(crate) fn start(source: KafkaSource<D>) -> Result<Self> {
        let mut input = Input::new(source);
        input.start_again()?;
        Ok(input)
    }

    pub(crate) fn new(source: KafkaSource<D>) -> Self {
        Input {
            source,
            log: MemoryBatchLog::new(),
            budget: Budget::new(64 << 20),
            plans: Vec::new(),
            events: Arc::default(),
        }
    }

    /// The process has died: another source goes on from what is in the log.
    pub(crate) fn crash(self, source: KafkaSource<D>) -> Result<Self> {
        let (log, budget, plans) = (self.log.clone(), Arc::clone(&self.budget), self.plans.clone());
        drop(self);
        let mut input = Input { source, log, budget, plans, events: Arc::default() };
        input.start_again()?;
        Ok(input)
    }

    pub(crate) fn start_again(&mut self) -> Result<()> {
        let events = Arc::clone(&self.events);
        let report = move |event| {
            let text = match event {
                SourceEvent::Error(error) => format!("error {error}"),
                SourceEvent::Fatal(error) => format!("fatal {error}"),
                _ => "?".to_owned(),
            };
            events.lock().expect("no panic").push(text);
        };
        self.source.start(SourceStart {
            name: "in".into(),
            application: "test".into(),
            positions: self.plans.last().map(|plan| plan.positions.clone()),
            unplanned: self.unplanned(),
            blocks: BlockLog::new(Arc::new(self.log.clone()), "in", Arc::clone(&self.budget)),
            first_start: BatchTime::from_ms(0),
            batch_interval: INTERVAL,
            clock: Arc::new(SystemClock::new()),
            events: SourceEvents::new(report),
        })
    }

    fn unplanned(&self) -> Vec<BlockId> {
        let planned: Vec<BlockId> = self.plans.iter().flat_map(|plan| plan.blocks.clone()).collect();
        let mut unplanned = Vec::new();
        self.log
            .recover(&mut |id, entry| {
                if matches!(entry, LogEntry::Block(_)) && !planned.contains(&id) {
                    unplanned.push(id);
                }
                Ok(())
            })
            .expect("the log can be read");
        unplanned
    }

    /// What the source has reported outside of calls.
    pub(crate) fn events(&self) -> Vec<String> {
        self.events.lock().expect("no panic").clone()
    }

    pub(crate) fn wait_for_event(&self, part: &str) -> String {
        eventually(&format!("an event with `{part}`"), || self.events().into_iter().find(|event| event.contains(part)))
    }

    /// The time of the batch whose plan is at `index`.
    pub(crate) fn time(index: usize) -> BatchTime {
        BatchTime::from_ms((index as u64 + 1) * 1000)
    }

    pub(crate) fn plan(&mut self) -> Result<Plan> {
        self.plan_at_most(None)
    }

    pub(crate) fn plan_at_most(&mut self, max_records: Option<u64>) -> Result<Plan> {
        let time = Self::time(self.plans.len());
        let plan = self.source.plan(&PlanRequest { time, interval: INTERVAL, max_records })?;
        self.plans.push(plan.clone());
        Ok(plan)
    }

    /// Plans until so many records have come; gives the plans that hold some.
    pub(crate) fn plan_until(&mut self, records: u64) -> Vec<Plan> {
        let mut plans = Vec::new();
        let what = format!("{records} records");
        eventually(&what, || {
            let plan = self.plan().expect("a plan");
            if plan.records > 0 {
                plans.push(plan);
            }
            (plans.iter().map(|plan| plan.records).sum::<u64>() >= records).then_some(())
        });
        plans
    }

    /// Reads a plan: what each partition gives.
    pub(crate) fn read(&mut self, plan: &Plan) -> Result<Vec<Got<D::Item>>> {
        let partitions = self.source.read(plan)?;
        partitions
            .into_iter()
            .map(|partition| {
                let mut got = Got::default();
                partition.compute(&mut got)?;
                got.records = partition.records();
                Ok(got)
            })
            .collect()
    }

    /// The items of plans, partition by partition in each.
    pub(crate) fn items(&mut self, plans: &[Plan]) -> Vec<D::Item> {
        plans.iter().flat_map(|plan| self.read(plan).expect("a plan can be read")).flat_map(|got| got.items).collect()
    }

    /// Plans until so many records have come, and reads them.
    pub(crate) fn take(&mut self, records: u64) -> Vec<D::Item> {
        let plans = self.plan_until(records);
        self.items(&plans)
    }

    /// Asserts that nothing comes for a moment, in which a whole fetch goes by.
    pub(crate) fn expect_nothing(&mut self) {
        let until = Instant::now() + Duration::from_millis(700);
        while Instant::now() < until {
            assert_eq!(self.plan().expect("a plan").records, 0);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What one partition of a batch gave.
#[derive(Debug)]
pub(crate) struct Got<T> {
    pub(crate) items: Vec<T>,
    pub(crate) refused: Vec<RefusedRecord>,
    pub(crate) skipped: u64,
    pub(crate) records: u64,
    wants_refused: bool,
}

impl<T> Default for Got<T> {
    fn default() -> Self {
        Got { items: Vec::new(), refused: Vec::new(), skipped: 0, records: 0, wants_refused: false }
    }
}

impl<T> Got<T> {
    /// As of a program that reads refused records as a second stream.
    pub(crate) fn with_refused() -> Self {
        Got { wants_refused: true, ..Got::default() }
    }
}

impl<T> SourceOutput<T> for Got<T> {
    fn records(&mut self, chunk: Vec<T>) -> Result<()> {
        assert!(!chunk.is_empty() && chunk.len() <= 4096, "a chunk of {}", chunk.len());
        self.items.extend(chunk);
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

/// Waits for a condition, without burning a core.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not come within {LIMIT:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// How often each item is there.
pub(crate) fn counts<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    items.into_iter().fold(BTreeMap::new(), |mut counts, item| {
        *counts.entry(item).or_default() += 1;
        counts
    })
}

pub(crate) fn expect_error<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error,
    }
}
