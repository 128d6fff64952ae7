//! The machinery of receivers on a log and a clock that the test rules.

mod pushes;

use std::sync::mpsc::{self, Receiver as Inbox};
use std::thread;

use super::super::testing::{Collected, ManualClock, PATIENCE, TestLog, collect, eventually};
use super::super::{BlockId, SourceEvent, SourceEvents};
use super::*;
use crate::clock::Clock;
use crate::log::{BatchLog, BatchPlan, BlockLog, Budget, LogEntry, SourcePlan};

/// What a receiver of the tests reports.
#[derive(Debug)]
enum Seen {
    Started(ReceiverHandle<u64>),
    Stopping,
}

/// What a receiver does when it is stopped.
type OnStop = Box<dyn FnMut(&ReceiverHandle<u64>) + Send>;

/// A receiver that hands its handle to the test.
struct Handed {
    seen: mpsc::Sender<Seen>,
    on_stop: OnStop,
    handle: Option<ReceiverHandle<u64>>,
}

impl Receiver for Handed {
    type Item = u64;

    fn on_start(&mut self, handle: ReceiverHandle<u64>) {
        self.handle = Some(handle.clone());
        let _ = self.seen.send(Seen::Started(handle));
    }

    fn on_stop(&mut self) {
        let _ = self.seen.send(Seen::Stopping);
        if let Some(handle) = &self.handle {
            (self.on_stop)(handle);
        }
    }
}

/// What stands around a source: clock, log, budget, events.
struct World {
    clock: Arc<ManualClock>,
    log: TestLog,
    appended: Inbox<LogEntry>,
    budget: Arc<Budget>,
    events: Inbox<SourceEvent>,
    report: mpsc::Sender<SourceEvent>,
}

impl World {
    fn new() -> Self {
        World::with_budget(64 << 20)
    }

    fn with_budget(limit_bytes: u64) -> Self {
        let (log, appended) = TestLog::new();
        let (report, events) = mpsc::channel();
        World { clock: Arc::default(), log, appended, budget: Budget::new(limit_bytes), events, report }
    }

    /// A start as the engine makes it, after what the log holds.
    fn start(&self) -> SourceStart {
        let (unplanned, positions) = self.log.recovered();
        let report = self.report.clone();
        SourceStart {
            positions,
            unplanned,
            blocks: BlockLog::new(Arc::new(self.log.clone()), "test", Arc::clone(&self.budget)),
            clock: Arc::<ManualClock>::clone(&self.clock),
            events: SourceEvents::new(move |event| {
                if matches!(event, SourceEvent::Error(_) | SourceEvent::Fatal(_)) {
                    let _ = report.send(event);
                }
            }),
            ..super::super::testing::start(None)
        }
    }

    /// A started source with its handle.
    fn receiver(
        &self,
        change: impl FnOnce(ReceiverSource<Handed>) -> ReceiverSource<Handed>,
    ) -> (ReceiverSource<Handed>, ReceiverHandle<u64>, Inbox<Seen>) {
        self.receiver_with(change, |_| ())
    }

    fn receiver_with(
        &self,
        change: impl FnOnce(ReceiverSource<Handed>) -> ReceiverSource<Handed>,
        on_stop: impl FnMut(&ReceiverHandle<u64>) + Send + 'static,
    ) -> (ReceiverSource<Handed>, ReceiverHandle<u64>, Inbox<Seen>) {
        let (seen, inbox) = mpsc::channel();
        let mut source = change(ReceiverSource::new(Handed { seen, on_stop: Box::new(on_stop), handle: None }));
        source.start(self.start()).unwrap();
        let handle = next_start(&inbox);
        (source, handle, inbox)
    }

    /// Plans a batch and makes the plan durable, as the engine does.
    fn plan<S: Source>(&self, source: &mut S, time_ms: u64) -> Plan {
        let plan = source.plan(&request(time_ms)).unwrap();
        let time = BatchTime::from_ms(time_ms);
        let sources = vec![SourcePlan { source: "test".into(), plan: plan.clone() }];
        self.log.append(&LogEntry::Plan(BatchPlan { first: time, last: time, sources, chain: 0 })).unwrap();
        plan
    }

    fn batch<S: Source>(&self, source: &mut S, time_ms: u64) -> Vec<S::Item> {
        let plan = self.plan(source, time_ms);
        collect(source, &plan).unwrap().records
    }

    fn next_block(&self) -> u64 {
        let LogEntry::Block(block) = self.appended.recv_timeout(PATIENCE).unwrap() else { panic!("not a block") };
        block.records
    }

    fn next_error(&self) -> Error {
        match self.events.recv_timeout(PATIENCE).unwrap() {
            SourceEvent::Error(error) => error,
            other => panic!("{other:?}"),
        }
    }
}

fn request(time_ms: u64) -> PlanRequest {
    PlanRequest { time: BatchTime::from_ms(time_ms), interval: Duration::from_secs(1), max_records: None }
}

fn next_start(inbox: &Inbox<Seen>) -> ReceiverHandle<u64> {
    match inbox.recv_timeout(PATIENCE).unwrap() {
        Seen::Started(handle) => handle,
        Seen::Stopping => panic!("stopped where a start was expected"),
    }
}

/// Runs something on a thread; gives its outcome to be waited for.
fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Inbox<T> {
    let (done, outcome) = mpsc::channel();
    thread::spawn(move || drop(done.send(work())));
    outcome
}

#[test]
fn l1_records_become_one_block_when_the_interval_ends() {
    let world = World::new();
    let (mut source, handle, _) = world.receiver(|source| source.block_interval(Duration::from_millis(10)));
    (1..=10).for_each(|n| handle.store(n).unwrap());
    assert!(world.appended.try_recv().is_err(), "the interval has not ended");
    world.clock.set_ms(10);
    assert_eq!(world.next_block(), 10);
    world.clock.set_ms(20);
    let plan = world.plan(&mut source, 1000);
    assert_eq!(plan.blocks.len(), 1, "an empty interval makes no block");
    assert_eq!(collect(&mut source, &plan).unwrap().records, (1..=10).collect::<Vec<_>>());
    assert_eq!(plan.records, 10);

    handle.store(11).unwrap();
    handle.store_group(&[12, 13]).unwrap();
    handle.store(14).unwrap();
    let plan = world.plan(&mut source, 2000);
    let groups: Vec<u64> = plan.blocks.iter().map(|id| block_records(&world, *id)).collect();
    assert_eq!(groups, [1, 2, 1], "a group stays in one block");
    assert_eq!(collect(&mut source, &plan).unwrap().records, [11, 12, 13, 14]);

    source.stop_receiving(Duration::from_secs(10)).unwrap();
    assert_eq!(handle.store(15).unwrap_err().kind(), ErrorKind::Stopped);
    assert_eq!(handle.store_group(&[15]).unwrap_err().kind(), ErrorKind::Stopped);
    source.stop_receiving(Duration::from_secs(10)).unwrap();
    source.stop();
    source.stop();
}

fn block_records(world: &World, id: BlockId) -> u64 {
    match world.log.read(id).unwrap() {
        LogEntry::Block(block) => block.records,
        other => panic!("{other:?}"),
    }
}

#[test]
fn l2_a_stop_hands_over_all_in_order_though_the_clock_stands_still() {
    for block_bytes in [1 << 20, 100] {
        let world = World::new();
        let (mut source, handle, _) = world.receiver(|source| source.block_limit_bytes(block_bytes));
        (0..1000).for_each(|n| handle.store(n).unwrap());
        source.stop_receiving(Duration::from_secs(10)).unwrap();
        assert_eq!(handle.store(1000).unwrap_err().kind(), ErrorKind::Stopped);
        assert!(source.has_waiting());
        assert_eq!(world.batch(&mut source, 1000), (0..1000).collect::<Vec<_>>());
        assert!(!source.has_waiting());
        assert_eq!(world.batch(&mut source, 2000), [0; 0]);
    }
}

#[test]
fn l3_the_logs_refusal_reaches_who_stores_a_group_and_the_listener() {
    let world = World::new();
    let (mut source, handle, _) = world.receiver(|source| source);
    world.log.refuse(ErrorKind::Retry);
    let error = handle.store_group(&[1]).unwrap_err();
    assert!(error.to_string().contains("the log refuses"), "{error}");
    let told = world.next_error();
    assert!(told.to_string().contains("source `test` cannot log a block"), "{told}");
    world.log.pass();
    handle.store_group(&[2]).unwrap();
    assert_eq!(world.batch(&mut source, 1000), [2], "the refused group is its giver's to store again");
    assert_eq!(world.budget.used_bytes(), 7, "what was refused takes no room");
}

#[test]
fn l3_h20_a_full_disk_refuses_new_records_and_loses_none_of_those_taken() {
    let world = World::new();
    let (mut source, handle, _) = world.receiver(|source| source);
    world.log.refuse(ErrorKind::Retry);
    handle.store(1).unwrap();
    handle.store(2).unwrap();
    world.clock.set_ms(200);
    assert!(world.next_error().to_string().contains("the log refuses"));
    let error = handle.store(3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.to_string().contains("the log refuses"), "{error}");
    assert_eq!(world.batch(&mut source, 1000), [0; 0]);
    assert!(source.has_waiting());
    // There is room again; the block is tried again when its time has come.
    world.log.pass();
    world.clock.set_ms(1200);
    assert_eq!(world.next_block(), 2);
    assert_eq!(world.batch(&mut source, 2000), [1, 2]);
    handle.store(4).unwrap();
    world.clock.set_ms(3000);
    assert_eq!(world.batch(&mut source, 3000), [4]);
}

#[test]
fn l3_a_poisoned_log_is_fatal() {
    let world = World::new();
    let (mut source, handle, _) = world.receiver(|source| source);
    world.log.refuse(ErrorKind::Restart);
    handle.store(1).unwrap();
    world.clock.set_ms(200);
    let SourceEvent::Fatal(error) = world.events.recv_timeout(PATIENCE).unwrap() else { panic!("not fatal") };
    assert_eq!(error.kind(), ErrorKind::Restart);
    assert!(handle.store(2).unwrap_err().to_string().contains("the log refuses"));
    source.stop();
}

#[test]
fn l4_restart_stops_and_starts_again_after_the_delay() {
    let world = World::new();
    let (mut source, first, inbox) = world.receiver(|source| source);
    assert!(!first.is_stopped());
    first.restart_after("x", Duration::from_millis(100));
    assert!(first.is_stopped());
    assert!(world.next_error().to_string().contains("receiver of source `test`: x"));
    assert!(matches!(inbox.recv_timeout(PATIENCE).unwrap(), Seen::Stopping));
    world.clock.set_ms(99);
    let mut second = None;
    while second.is_none() && world.clock.now_ms() < 1000 {
        // The delay begins when `on_stop` has come back, which may be at any of these times.
        second = inbox.recv_timeout(Duration::from_millis(20)).ok();
        if second.is_none() {
            world.clock.set_ms(world.clock.now_ms() + 1);
        }
    }
    assert!(world.clock.now_ms() >= 100, "started again at {} ms", world.clock.now_ms());
    let Some(Seen::Started(second)) = second else { panic!("not started again") };
    assert!(first.is_stopped() && !second.is_stopped());
    first.restart("of no effect: an earlier start");
    assert!(!second.is_stopped());
    first.store(1).unwrap();
    second.stop("enough");
    assert!(matches!(inbox.recv_timeout(PATIENCE).unwrap(), Seen::Stopping));
    source.stop_receiving(Duration::from_secs(10)).unwrap();
    assert!(second.is_stopped());
    assert_eq!(world.batch(&mut source, 1000), [1]);
}

#[test]
fn j6_what_a_receiver_stores_while_it_stops_counts() {
    let world = World::with_budget(20);
    let (mut source, handle, _) =
        world.receiver_with(|source| source, |handle| (5..15).for_each(|n| handle.store_group(&[n]).unwrap()));
    // The first fills the budget: what comes in the stop must not wait for room.
    handle.store_group(&[4]).unwrap();
    source.stop_receiving(Duration::from_secs(10)).unwrap();
    assert_eq!(world.batch(&mut source, 1000), (4..15).collect::<Vec<_>>());
}

#[test]
fn j7_a_receiver_that_ignores_the_stop_is_named_after_the_limit() {
    let world = World::new();
    let (release, wait) = mpsc::channel::<()>();
    let (mut source, handle, _) = world.receiver_with(
        |source| source.stop_limit(Duration::from_millis(50)),
        move |_| {
            let _ = wait.recv_timeout(PATIENCE);
        },
    );
    handle.store(1).unwrap();
    let error = source.stop_receiving(Duration::from_secs(10)).unwrap_err();
    assert!(error.to_string().contains("the receiver of source `test` was asked to stop"), "{error}");
    assert_eq!(world.batch(&mut source, 1000), [1], "what it had stored counts");
    drop(release);
}

#[test]
fn a_receiver_that_panics_stops_the_context() {
    struct Panics;
    impl Receiver for Panics {
        type Item = u64;
        fn on_start(&mut self, _: ReceiverHandle<u64>) {
            panic!("no such device");
        }
        fn on_stop(&mut self) {}
    }
    let world = World::new();
    let mut source = ReceiverSource::new(Panics);
    source.start(world.start()).unwrap();
    let SourceEvent::Fatal(error) = world.events.recv_timeout(PATIENCE).unwrap() else { panic!("not fatal") };
    assert_eq!(error.kind(), ErrorKind::Program);
    assert!(error.to_string().contains("no such device"), "{error}");
    source.stop();
}

#[test]
fn l9_records_are_taken_at_the_rate_on_the_clock() {
    thread_local!(static MOVES_THE_CLOCK: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    /// Time passes only where the storing thread waits for it.
    #[derive(Default)]
    struct OnDemand(ManualClock);
    impl Clock for OnDemand {
        fn now_ms(&self) -> u64 {
            self.0.now_ms()
        }
        fn until(&self, time_ms: u64) -> Option<Duration> {
            if MOVES_THE_CLOCK.get() {
                self.0.set_ms_quietly(time_ms);
                return Some(Duration::ZERO);
            }
            None
        }
    }
    let world = World::new();
    let clock = Arc::new(OnDemand::default());
    let (seen, inbox) = mpsc::channel();
    let receiver = Handed { seen, on_stop: Box::new(|_| ()), handle: None };
    let mut source = ReceiverSource::new(receiver).max_rate(10_000);
    source.start(SourceStart { clock: Arc::<OnDemand>::clone(&clock), ..world.start() }).unwrap();
    let handle = next_start(&inbox);
    MOVES_THE_CLOCK.set(true);
    (0..41_000).for_each(|n| handle.store(n).unwrap());
    let took_ms = clock.now_ms();
    assert!((4000..=5000).contains(&took_ms), "{took_ms} ms");
}

#[test]
fn the_engines_limit_on_records_becomes_the_receivers_rate() {
    let world = World::new();
    let (mut source, _handle, _) = world.receiver(|source| source.max_rate(100));
    for (batch, max_records, rate) in [(1, Some(50), 50), (2, Some(200), 100), (3, None, 100)] {
        source.plan(&PlanRequest { max_records, ..request(1000 * batch) }).unwrap();
        assert_eq!(source.intake.lock().rate.rate(), Some(rate));
    }
}

#[test]
fn k10_many_threads_store() {
    let world = World::new();
    let (mut source, handle, _) = world.receiver(|source| source.block_limit_bytes(4096));
    thread::scope(|scope| {
        for thread in 0..10 {
            let handle = handle.clone();
            scope.spawn(move || (0..1000).for_each(|n| handle.store(thread * 1000 + n).unwrap()));
        }
    });
    source.stop_receiving(Duration::from_secs(10)).unwrap();
    let mut records = world.batch(&mut source, 1000);
    assert_eq!(records.len(), 10_000);
    records.sort_unstable();
    assert_eq!(records, (0..10_000).collect::<Vec<_>>());
}

#[test]
fn m4_after_a_crash_the_planned_blocks_are_read_again_and_the_others_wait() {
    let world = World::new();
    let (mut source, handle, _) = world.receiver(|source| source);
    (0..5).for_each(|n| handle.store_group_at(&[n, n + 100], &[n as u8]).unwrap());
    let planned = world.plan(&mut source, 1000);
    let before = collect(&mut source, &planned).unwrap().records;
    (5..10).for_each(|n| handle.store_group_at(&[n, n + 100], &[n as u8]).unwrap());
    handle.store(1000).unwrap(); // Not durable: the crash takes it.
    drop(source);
    assert_eq!(world.budget.used_bytes(), 0);

    let (mut source, handle, _) = world.receiver(|source| source);
    assert_eq!(handle.last_position(), Some(vec![9]));
    assert_eq!(collect(&mut source, &planned).unwrap().records, before);
    let records = world.batch(&mut source, 2000);
    assert_eq!(records, (5..10).flat_map(|n| [n, n + 100]).collect::<Vec<_>>());
    drop(source);
    let (_source, handle, _) = world.receiver(|source| source);
    assert_eq!(handle.last_position(), Some(vec![9]), "from the plan, when no block waits");
}

#[test]
fn blocks_are_read_from_memory_until_released_and_from_the_log_after() {
    let world = World::new();
    let (mut source, handle, _) = world.receiver(|source| source);
    handle.store_group(&[1, 2]).unwrap();
    let plan = world.plan(&mut source, 1000);
    assert!(world.budget.used_bytes() > 0);
    source.release(BatchTime::from_ms(1000));
    assert_eq!(world.budget.used_bytes(), 0);
    assert_eq!(collect(&mut source, &plan).unwrap().records, [1, 2]);
}

#[test]
fn storing_waits_when_the_budget_is_used_up_and_goes_on_when_a_batch_is_released() {
    let world = World::with_budget(30);
    let (mut source, handle, _) = world.receiver(|source| source);
    handle.store_group(&[1; 5]).unwrap();
    let outcome = aside(move || handle.store_group(&[2; 5]));
    // The logger is known to wait for room.
    eventually("the logger waits", || source.intake.lock().blocked);
    assert_eq!(world.batch(&mut source, 1000), [1; 5], "planning does not wait for what waits for it");
    assert!(outcome.try_recv().is_err());
    source.release(BatchTime::from_ms(1000));
    outcome.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(world.batch(&mut source, 2000), [2; 5]);
}

#[test]
fn at_most_ten_blocks_wait_for_the_log() {
    let world = World::new();
    let (mut source, handle, _) = world.receiver(|source| source.block_limit_bytes(20));
    world.log.hold();
    let storing = aside(move || (0..100).for_each(|n| handle.store(n).unwrap()));
    let waiting = |source: &ReceiverSource<Handed>| {
        let state = source.intake.lock();
        state.cut.len() + state.under_way.len()
    };
    eventually("ten blocks wait", || waiting(&source) >= 10);
    assert!(storing.try_recv().is_err());
    assert_eq!(waiting(&source), 10);
    world.log.pass();
    storing.recv_timeout(PATIENCE).unwrap();
    source.stop_receiving(Duration::from_secs(10)).unwrap();
    assert_eq!(world.batch(&mut source, 1000), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_group_beyond_the_limit_is_refused() {
    let world = World::new();
    let (_source, handle, _) = world.receiver(|source| source.group_limit_bytes(100));
    let error = handle.store_group(&[u64::MAX; 100]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("the limit is 100"), "{error}");
}

#[test]
fn an_empty_group_is_nothing() {
    let world = World::new();
    let (mut source, handle, _) = world.receiver(|source| source);
    handle.store_group(&[]).unwrap();
    assert_eq!(world.plan(&mut source, 1000).blocks, []);
}
