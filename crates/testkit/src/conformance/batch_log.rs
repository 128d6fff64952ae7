//! What every [`BatchLog`] must do.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::Duration;

use millpond::BatchTime;
use millpond::log::{BatchLog, BatchPlan, Block, LogEntry, SourcePlan};
use millpond::source::{BlockId, PartitionPosition, Plan};

/// The longest wait for an append.
const LIMIT: Duration = Duration::from_secs(60);

/// How the suite gets at a log.
pub trait BatchLogHarness {
    /// The log.
    type Log: BatchLog;

    /// The log on the one place of this harness, which is empty at first. The one opened before has
    /// been dropped, as by a crash.
    fn open(&mut self) -> Self::Log;
}

/// Runs all cases, each on a harness of its own.
///
/// # Panics
/// Where the log does not do what the trait says.
pub fn run<H: BatchLogHarness>(mut new: impl FnMut() -> H) {
    what_is_appended_comes_back_in_order(&mut new());
    what_was_appended_outlives_a_crash(&mut new());
    a_second_recovery_reads_what_is_durable(&mut new());
    every_submitted_entry_is_called_back_once(&mut new());
    many_threads_append_at_once(&mut new());
    what_is_released_may_go_and_the_rest_stays(&mut new());
    the_end_is_behind_every_entry(&mut new());
    a_position_of_nothing_is_an_error(&mut new());
    after_close_appends_fail_and_none_hangs(&mut new());
}

/// Entries of every kind come back as they were, in order, by recovery and one by one.
pub fn what_is_appended_comes_back_in_order<H: BatchLogHarness>(harness: &mut H) {
    let log = harness.open();
    assert!(entries(&log).is_empty(), "a new log has no entries");
    let all = samples();
    let positions: Vec<_> = all.iter().map(|entry| log.append(entry).expect("an append")).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "positions grow as entries are appended");
    for (position, entry) in positions.iter().zip(&all) {
        assert_eq!(log.read(*position).expect("an entry that was appended"), *entry);
    }
    drop(log);
    let found = entries(&harness.open());
    assert_eq!(
        found,
        positions.into_iter().zip(all).collect::<Vec<_>>(),
        "recovery gives all, in order, where they were"
    );
}

/// An append that came back is there after a crash; appends go on behind it.
pub fn what_was_appended_outlives_a_crash<H: BatchLogHarness>(harness: &mut H) {
    let mut expected = Vec::new();
    for round in 0..5_u64 {
        let log = harness.open();
        assert_eq!(entries(&log), expected, "round {round}");
        for n in 0..3 {
            let entry = block(round * 10 + n, 100);
            expected.push((log.append(&entry).expect("an append"), entry));
        }
    }
    assert!(expected.is_sorted_by_key(|(position, _)| *position), "positions grow over restarts");
}

/// Recovery inside a process reads what is there, not what the log remembers; appends go on.
pub fn a_second_recovery_reads_what_is_durable<H: BatchLogHarness>(harness: &mut H) {
    let log = harness.open();
    entries(&log);
    log.append(&block(1, 10)).expect("an append");
    assert_eq!(entries(&log).len(), 1);
    log.append(&block(2, 10)).expect("an append after the second recovery");
    assert_eq!(entries(&log).len(), 2);
    let error = log.recover(&mut |_, _| Err(millpond::Error::new(millpond::ErrorKind::Program, "not this one")));
    assert!(error.is_err_and(|error| error.to_string().contains("not this one")), "an error of the visitor comes back");
}

/// `submit` calls back once for each entry, with the position at which it is.
pub fn every_submitted_entry_is_called_back_once<H: BatchLogHarness>(harness: &mut H) {
    let log = harness.open();
    entries(&log);
    let (done, outcomes) = channel();
    for n in 0..100 {
        let done = done.clone();
        log.submit(block(n, 1000), Box::new(move |outcome| drop(done.send((n, outcome)))));
    }
    drop(done);
    let mut positions = BTreeMap::new();
    for _ in 0..100 {
        let (n, outcome) = outcomes.recv_timeout(LIMIT).expect("a call-back within the limit");
        let position = outcome.expect("an append");
        assert_eq!(positions.insert(n, position), None, "entry {n} was called back twice");
        assert_eq!(log.read(position).expect("a durable entry"), block(n, 1000));
    }
    assert!(outcomes.recv_timeout(LIMIT).is_err(), "a call-back too many");
    assert!(positions.values().is_sorted(), "entries submitted by one thread are in its order");
}

/// Appends of many threads are all there, those of one thread in its order.
pub fn many_threads_append_at_once<H: BatchLogHarness>(harness: &mut H) {
    let log = harness.open();
    entries(&log);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let log = &log;
            scope.spawn(move || {
                for n in 0..50 {
                    log.append(&block(thread * 1000 + n, 200)).expect("an append");
                }
            });
        }
    });
    drop(log);
    let mut next = [0; 8];
    for (_, entry) in entries(&harness.open()) {
        let LogEntry::Block(block) = entry else { panic!("not a block: {entry:?}") };
        let thread = (block.records / 1000) as usize;
        assert_eq!(block.records % 1000, next[thread], "the entries of thread {thread} are in its order");
        next[thread] += 1;
    }
    assert_eq!(next, [50; 8], "every entry is there");
}

/// What is before a released position may go; all from there on stays, and so do positions.
pub fn what_is_released_may_go_and_the_rest_stays<H: BatchLogHarness>(harness: &mut H) {
    let log = harness.open();
    entries(&log);
    let positions: Vec<_> = (0..200).map(|n| log.append(&block(n, 10_000)).expect("an append")).collect();
    log.release(positions[150]).expect("a release");
    log.release(positions[20]).expect("an earlier release changes nothing");
    assert_eq!(log.read(positions[150]).expect("an entry that was not released"), block(150, 10_000));
    let next = log.append(&block(200, 10)).expect("an append after a release");
    assert!(next > positions[199]);
    drop(log);
    let log = harness.open();
    let found = entries(&log);
    let kept: Vec<_> = found.iter().filter(|(position, _)| *position >= positions[150]).collect();
    assert_eq!(kept.len(), 51, "all from the released position on");
    assert_eq!((&kept[0].1, kept[0].0), (&block(150, 10_000), positions[150]));
    log.release(log.end()).expect("all may go");
    log.append(&block(300, 10)).expect("an append to a log that was released to its end");
    drop(log);
    assert_eq!(entries(&harness.open()).last().map(|(_, entry)| entry.clone()), Some(block(300, 10)));
}

/// The end is behind every entry, and not behind the next one.
pub fn the_end_is_behind_every_entry<H: BatchLogHarness>(harness: &mut H) {
    let log = harness.open();
    entries(&log);
    for n in 0..10 {
        let end = log.end();
        let position = log.append(&block(n, 10)).expect("an append");
        assert!(end <= position && position < log.end(), "entry {n}");
    }
}

/// Reading where nothing is, is an error and no panic.
pub fn a_position_of_nothing_is_an_error<H: BatchLogHarness>(harness: &mut H) {
    let log = harness.open();
    entries(&log);
    let position = log.append(&block(1, 10)).expect("an append");
    for nothing in [log.end(), BlockId([0xff; 16])] {
        assert!(log.read(nothing).is_err(), "nothing is at {nothing:?}");
    }
    assert_eq!(log.read(position).expect("the entry that is there"), block(1, 10));
}

/// After `close` an append is an error, and everything that was submitted before it is called back.
pub fn after_close_appends_fail_and_none_hangs<H: BatchLogHarness>(harness: &mut H) {
    let log = harness.open();
    entries(&log);
    let (done, outcomes) = channel();
    for n in 0..20 {
        let done = done.clone();
        log.submit(block(n, 100), Box::new(move |outcome| drop(done.send(outcome))));
    }
    log.close().expect("a close");
    let durable =
        (0..20).filter(|_| outcomes.recv_timeout(LIMIT).expect("a call-back within the limit").is_ok()).count();
    assert!(log.append(&block(100, 10)).is_err(), "an append after the close");
    log.submit(block(101, 10), Box::new(move |outcome| drop(done.send(outcome))));
    assert!(outcomes.recv_timeout(LIMIT).expect("a call-back within the limit").is_err());
    drop(log);
    assert_eq!(entries(&harness.open()).len(), durable, "what was said to be durable, and no more");
}

fn entries(log: &impl BatchLog) -> Vec<(BlockId, LogEntry)> {
    let mut found = Vec::new();
    let recovered = log.recover(&mut |position, entry| {
        found.push((position, entry));
        Ok(())
    });
    recovered.expect("a recovery");
    found
}

fn block(n: u64, bytes: usize) -> LogEntry {
    let payload = (0..bytes).map(|at| (at as u64 + n) as u8).collect();
    LogEntry::Block(Block { source: "lines".into(), records: n, position: n.to_le_bytes().to_vec(), payload })
}

/// Entries of all kinds, empty and large ones among them.
fn samples() -> Vec<LogEntry> {
    let plan = Plan {
        read: vec![7; 300],
        blocks: vec![BlockId([1; 16]), BlockId([2; 16])],
        positions: vec![PartitionPosition { partition: "topic/3".into(), position: vec![9; 8] }],
        records: 12,
        watermark_ms: Some(900),
    };
    let (first, last) = (BatchTime::from_ms(1000), BatchTime::from_ms(4000));
    let sources = vec![SourcePlan { source: "lines".into(), plan }];
    vec![
        LogEntry::Run([5; 16]),
        block(1, 0),
        block(2, 3 << 20),
        LogEntry::Plan(BatchPlan { first, last, sources, chain: 99 }),
        LogEntry::Plan(BatchPlan { first: last, last, sources: Vec::new(), chain: 100 }),
        LogEntry::SinkIntroduced("counts-out".into()),
        block(3, 1),
    ]
}
