//! What every [`Source`] that can be replayed must do.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millpond::clock::{Clock, SystemClock};
use millpond::log::{BatchLog, BatchPlan, BlockLog, Budget, LogEntry, MemoryBatchLog, SourcePlan};
use millpond::source::{
    Plan, PlanRequest, RefusedRecord, Replay, Source, SourceEvent, SourceEvents, SourceOutput, SourceStart,
};
use millpond::{BatchTime, Result};

/// The longest wait for records that were given.
const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);

/// How the suite gets at a source and at where its records come from.
pub trait SourceHarness {
    /// The source. Records are told apart by how they are printed.
    type Source: Source<Item: Debug>;

    /// A new incarnation of the source, not started; the one before has been dropped, as by a crash.
    fn open(&mut self) -> Self::Source;

    /// Gives so many records, each different from all before, to the started source, and returns
    /// them. Once this returns none of them may be lost, also if the source crashes at once.
    fn give(&mut self, count: usize) -> Vec<<Self::Source as Source>::Item>;
}

/// Runs all cases, each on a harness of its own.
///
/// # Panics
/// Where the source does not do what the trait says.
pub fn run<H: SourceHarness>(mut new: impl FnMut() -> H) {
    assert_ne!(new().open().replay(), Replay::None, "a source that cannot be replayed promises nothing");
    every_record_is_in_one_batch(new());
    a_plan_is_read_the_same_again(new());
    a_plan_is_read_the_same_by_the_next_process(new());
    a_restart_goes_on_behind_the_newest_plan(new());
    a_plan_that_was_not_durable_loses_nothing(new());
    an_idle_source_keeps_its_positions(new());
    planning_a_batch_again_changes_nothing(new());
    a_limit_on_records_is_kept(new());
    a_stop_hands_over_what_there_is(new());
}

/// Every record comes once, in some batch, and plans and partitions count right.
pub fn every_record_is_in_one_batch<H: SourceHarness>(harness: H) {
    let mut world = World::new(harness);
    let mut source = world.started();
    for count in [1, 10, 1000] {
        world.give(count);
        world.read_all_given(&mut source);
    }
    let plan = world.plan(&mut source);
    assert_eq!(plan.records, 0, "nothing is left");
}

/// A batch read again has the same partitions with the same records in the same order, also after
/// it was released.
pub fn a_plan_is_read_the_same_again<H: SourceHarness>(harness: H) {
    let mut world = World::new(harness);
    let mut source = world.started();
    world.give(100);
    let plans = world.plan_all_given(&mut source);
    let first: Vec<_> = plans.iter().map(|plan| read(&mut source, plan)).collect();
    let again: Vec<_> = plans.iter().map(|plan| read(&mut source, plan)).collect();
    assert_eq!(first, again);
    source.release(world.newest);
    let released: Vec<_> = plans.iter().map(|plan| read(&mut source, plan)).collect();
    assert_eq!(first, released, "after the release");
}

/// As after a crash: another incarnation is given the same plans.
pub fn a_plan_is_read_the_same_by_the_next_process<H: SourceHarness>(harness: H) {
    let mut world = World::new(harness);
    let mut source = world.started();
    world.give(100);
    let plans = world.plan_all_given(&mut source);
    let first: Vec<_> = plans.iter().map(|plan| read(&mut source, plan)).collect();
    let (kind, identity) = (source.kind(), source.identity());
    for _ in 0..2 {
        drop(source);
        source = world.started();
        assert_eq!((source.kind(), source.identity()), (kind, identity.clone()), "what it is");
        let again: Vec<_> = plans.iter().map(|plan| read(&mut source, plan)).collect();
        assert_eq!(first, again);
    }
}

/// Crash after crash, with batches between them or not: nothing twice, nothing missing.
pub fn a_restart_goes_on_behind_the_newest_plan<H: SourceHarness>(harness: H) {
    let mut world = World::new(harness);
    for round in 0..4 {
        let mut source = world.started();
        if round != 2 {
            world.give(20);
            world.read_all_given(&mut source);
        }
        world.give(5);
        // The crash comes before these are planned.
    }
    let mut source = world.started();
    world.read_all_given(&mut source);
    assert_eq!(world.plan(&mut source).records, 0, "nothing is left");
}

/// A crash between planning and the log: the next process plans the records again.
pub fn a_plan_that_was_not_durable_loses_nothing<H: SourceHarness>(harness: H) {
    let mut world = World::new(harness);
    let mut source = world.started();
    world.give(10);
    world.read_all_given(&mut source);
    world.give(10);
    let deadline = Instant::now() + LIMIT;
    while source.plan(&world.request(None)).expect("a plan").records == 0 {
        assert!(Instant::now() < deadline, "the records that were given never came");
        std::thread::yield_now();
    }
    drop(source);
    let mut source = world.started();
    world.read_all_given(&mut source);
}

/// Plans of idle batches have no records, and the position of every partition (hard cases: a
/// partition without one would fall back to a default).
pub fn an_idle_source_keeps_its_positions<H: SourceHarness>(harness: H) {
    let mut world = World::new(harness);
    let mut source = world.started();
    world.give(10);
    let newest = world.plan_all_given(&mut source).pop().expect("a plan");
    let names = |plan: &Plan| plan.positions.iter().map(|position| position.partition.clone()).collect::<Vec<_>>();
    assert!(!newest.positions.is_empty(), "a plan has positions");
    for _ in 0..3 {
        let idle = world.plan(&mut source);
        assert_eq!(idle.records, 0);
        assert_eq!(names(&idle), names(&newest), "the partitions of an idle batch");
        assert!(read(&mut source, &idle).concat().is_empty());
        drop(source);
        source = world.started();
    }
    world.give(10);
    world.read_all_given(&mut source);
}

/// A batch that was planned has its plan, whatever has come since.
pub fn planning_a_batch_again_changes_nothing<H: SourceHarness>(harness: H) {
    let mut world = World::new(harness);
    let mut source = world.started();
    world.give(10);
    let request = world.request(None);
    let plan = source.plan(&request).expect("a plan");
    world.give(10);
    assert_eq!(source.plan(&request).expect("the plan again"), plan);
    world.log_plan(&request, &plan);
    world.take(read(&mut source, &plan).concat());
    world.read_all_given(&mut source);
}

/// With a limit on records batches stay within it (a receiver: by whole blocks), and all come.
pub fn a_limit_on_records_is_kept<H: SourceHarness>(harness: H) {
    let mut world = World::new(harness);
    let mut source = world.started();
    world.give(50);
    let deadline = Instant::now() + LIMIT;
    while !world.given.is_empty() {
        assert!(Instant::now() < deadline, "not read within the limit: {:?}", world.given);
        let request = world.request(Some(7));
        let plan = source.plan(&request).expect("a plan");
        if source.replay() == Replay::ByPosition {
            assert!(plan.records <= 7, "{} records", plan.records);
        }
        world.log_plan(&request, &plan);
        world.take(read(&mut source, &plan).concat());
    }
}

/// After `stop_receiving` plans give what is left, then nothing; what comes later is the next process's.
pub fn a_stop_hands_over_what_there_is<H: SourceHarness>(harness: H) {
    let mut world = World::new(harness);
    let mut source = world.started();
    world.give(10);
    if source.replay() == Replay::ByPosition {
        world.read_all_given(&mut source);
    }
    source.stop_receiving(std::time::Duration::from_secs(10)).expect("a stop");
    let deadline = Instant::now() + LIMIT;
    while source.has_waiting() {
        assert!(Instant::now() < deadline, "records are left for ever");
        let plan = world.plan(&mut source);
        world.take(read(&mut source, &plan).concat());
    }
    assert!(world.given.is_empty(), "not handed over: {:?}", world.given);
    assert_eq!(world.plan(&mut source).records, 0);
    source.stop();
    drop(source);
    let mut source = world.started();
    world.give(10);
    world.read_all_given(&mut source);
}

/// What stands around a source: a log in memory, and the records that were given and not read.
struct World<H: SourceHarness> {
    harness: H,
    log: MemoryBatchLog,
    clock: Arc<SystemClock>,
    first_start: BatchTime,
    newest: BatchTime,
    given: Vec<String>,
    /// What the source reported, for the message of a failure.
    events: Arc<Mutex<Vec<String>>>,
}

impl<H: SourceHarness> World<H> {
    fn new(harness: H) -> Self {
        let clock = Arc::new(SystemClock::new());
        // A little earlier: what is given in the same instant must count as later.
        let first_start = BatchTime::from_ms(clock.now_ms() - 1000);
        let (log, events) = (MemoryBatchLog::new(), Arc::default());
        World { harness, log, clock, first_start, newest: first_start, given: Vec::new(), events }
    }

    /// The next incarnation, started as the engine starts it.
    fn started(&mut self) -> H::Source {
        let (mut positions, mut unplanned) = (None, Vec::new());
        let recovered = self.log.recover(&mut |id, entry| {
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
        });
        recovered.expect("a log in memory recovers");
        let events = Arc::clone(&self.events);
        let mut source = self.harness.open();
        let started = source.start(SourceStart {
            name: "source".into(),
            application: "conformance".into(),
            positions,
            unplanned,
            blocks: BlockLog::new(Arc::new(self.log.clone()), "source", Budget::new(64 << 20)),
            first_start: self.first_start,
            batch_interval: INTERVAL,
            clock: Arc::<SystemClock>::clone(&self.clock),
            events: SourceEvents::new(move |event| {
                if let SourceEvent::Fatal(error) | SourceEvent::Error(error) = event {
                    events.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
                }
            }),
        });
        started.expect("a start");
        source
    }

    fn give(&mut self, count: usize) {
        let given = self.harness.give(count);
        assert_eq!(given.len(), count, "the harness gives what it is asked for");
        self.given.extend(given.iter().map(|record| format!("{record:?}")));
    }

    /// The request for the next batch.
    fn request(&mut self, max_records: Option<u64>) -> PlanRequest {
        let now = BatchTime::from_ms(self.clock.now_ms());
        self.newest = now.max(self.newest + Duration::from_millis(1));
        PlanRequest { time: self.newest, interval: INTERVAL, max_records }
    }

    /// Plans a batch and makes the plan durable.
    fn plan(&mut self, source: &mut H::Source) -> Plan {
        let request = self.request(None);
        let plan = source.plan(&request).expect("a plan");
        self.log_plan(&request, &plan);
        plan
    }

    fn log_plan(&self, request: &PlanRequest, plan: &Plan) {
        let sources = vec![SourcePlan { source: "source".into(), plan: plan.clone() }];
        let plan = BatchPlan { first: request.time, last: request.time, sources, chain: 0 };
        self.log.append(&LogEntry::Plan(plan)).expect("an append to a log in memory");
    }

    /// Records that were read: each must have been given, and not been read before.
    fn take(&mut self, records: Vec<String>) {
        for record in records {
            let found = self.given.iter().position(|given| *given == record);
            self.given.remove(found.unwrap_or_else(|| panic!("read twice, or never given: {record}")));
        }
    }

    /// Plans batches until everything that was given is in one.
    fn plan_all_given(&mut self, source: &mut H::Source) -> Vec<Plan> {
        let deadline = Instant::now() + LIMIT;
        let mut plans = Vec::new();
        while !self.given.is_empty() {
            let plan = self.plan(source);
            self.take(read(source, &plan).concat());
            plans.push(plan);
            let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(Instant::now() < deadline, "not read within the limit: {:?}; reported: {events:?}", self.given);
        }
        plans
    }

    fn read_all_given(&mut self, source: &mut H::Source) {
        self.plan_all_given(source);
    }
}

/// The records of a plan, printed, by partition. Checks the counts.
fn read<S: Source<Item: Debug>>(source: &mut S, plan: &Plan) -> Vec<Vec<String>> {
    let partitions = source.read(plan).expect("the partitions of a plan");
    let mut all = Vec::new();
    for partition in &partitions {
        let mut out = Printed::default();
        partition.compute(&mut out).expect("the records of a partition");
        let count = out.records.len() as u64 + out.left_out;
        assert_eq!(partition.records(), count, "a partition's count of its records");
        all.push(out.records);
    }
    let counted: u64 = partitions.iter().map(|partition| partition.records()).sum();
    assert_eq!(plan.records, counted, "a plan's count of its records");
    all
}

#[derive(Default)]
struct Printed {
    records: Vec<String>,
    left_out: u64,
}

impl<T: Debug> SourceOutput<T> for Printed {
    fn records(&mut self, chunk: Vec<T>) -> Result<()> {
        self.records.extend(chunk.iter().map(|record| format!("{record:?}")));
        Ok(())
    }

    fn wants_refused(&self) -> bool {
        false
    }

    fn refused(&mut self, _: RefusedRecord) -> Result<()> {
        self.left_out += 1;
        Ok(())
    }

    fn skipped(&mut self, count: u64) {
        self.left_out += count;
    }
}
