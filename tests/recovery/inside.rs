//! Recovery inside of the process, while threads of the engine are at work on what is given up.

use std::sync::Arc;
use std::time::Duration;

use millpond_core::sink::{Cursor, Guarantee, Records, Sink, SinkStart, SourcePositions};
use millpond_core::source::{Queue, QueueSource};
use millpond_core::{BatchTime, Result, StreamingContext};
use millpond_testkit::{CollectingSink, Collection, ManualClock};

const INTERVAL: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn h10_a_commit_that_fails_while_state_is_being_frozen_is_recovered_inside_of_the_process() {
    // The freeze ends after the failure is known: what it has made is of a store that is given up.
    fail::cfg("state-frozen", "sleep(100)").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at_ms(0));
    let (queue, collection) = (Queue::new(), Collection::new());
    let running = StreamingContext::builder("inside")
        .directory(directory.path().join("pond"))
        .batch_interval(INTERVAL)
        .checkpoint_interval(INTERVAL)
        .partitions(2)
        .clock(clock.clone())
        .open(|graph| {
            graph
                .source("words", QueueSource::one_at_a_time(&queue).replayable())
                .map(|word: String| (word, 1_u64))
                .update_touched_by_key("counts", |ones, total| Some(total.unwrap_or(0) + ones.sum()))
                .sink_json("out", collection.sink());
            Ok(())
        })
        .and_then(StreamingContext::start)
        .unwrap();
    for round in 1..=5 {
        queue.push(vec!["a".to_owned()]);
        collection.fail_next_commit("out");
        let next = BatchTime::from_ms(running.progress().planned.as_ms()) + INTERVAL;
        clock.advance(INTERVAL);
        running.await_committed(next, LIMIT).unwrap();
        assert_eq!(running.progress().recoveries, round);
    }
    running.stop_gracefully().unwrap();
    fail::remove("state-frozen");
    let counts = collection.committed("out").into_iter().flat_map(|batch| batch.records);
    let counts: Vec<String> =
        counts.map(|record| String::from_utf8(record.value.unwrap_or_default()).unwrap()).collect();
    assert_eq!(counts, (1..=5).map(|n| format!("[\"a\",{n}]")).collect::<Vec<_>>());
}

/// A sink whose reader is behind what it has committed until its earlier incarnation is shut out: a broker that died between its answer
/// and the markers of the transaction.
struct ReadsBehind {
    sink: CollectingSink,
    peeked: Option<Cursor>,
}

impl Sink for ReadsBehind {
    fn guarantee(&self) -> Guarantee {
        self.sink.guarantee()
    }
    fn describe(&self) -> String {
        self.sink.describe()
    }
    fn peek(&mut self, start: &SinkStart) -> Result<Option<Cursor>> {
        self.sink.peek(start)?;
        Ok(self.peeked.clone())
    }
    fn fence(&mut self, start: &SinkStart) -> Result<Option<Cursor>> {
        self.sink.fence(start)
    }
    fn begin(&mut self, batch: BatchTime, positions: &[SourcePositions]) -> Result<()> {
        self.sink.begin(batch, positions)
    }
    fn write(&mut self, records: Records) -> Result<()> {
        self.sink.write(records)
    }
    fn prepare(&mut self, cursor: &Cursor) -> Result<()> {
        self.sink.prepare(cursor)
    }
    fn commit(&mut self) -> Result<()> {
        self.sink.commit()
    }
    fn abort(&mut self) -> Result<()> {
        self.sink.abort()
    }
}

#[test]
fn a_cursor_that_readers_do_not_see_yet_is_judged_when_its_transaction_is_settled() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at_ms(0));
    let (queue, collection) = (Queue::new(), Collection::new());
    let open = |peeked: Option<Cursor>| {
        StreamingContext::builder("behind")
            .directory(directory.path().join("pond"))
            .batch_interval(INTERVAL)
            .checkpoint_interval(INTERVAL)
            .clock(clock.clone())
            .open(|graph| {
                let words = graph.source("words", QueueSource::one_at_a_time(&queue).replayable());
                words.map(|word: String| word).sink_json("out", ReadsBehind { sink: collection.sink(), peeked });
                Ok(())
            })
            .and_then(StreamingContext::start)
    };
    let commit_another = |running: millpond_core::Running| {
        queue.push(vec!["a".to_owned()]);
        let next = BatchTime::from_ms(running.progress().planned.as_ms()) + INTERVAL;
        clock.advance(INTERVAL);
        running.await_committed(next, LIMIT).unwrap();
        running.stop_gracefully().unwrap();
    };
    commit_another(open(None).unwrap());
    let old = collection.cursor("out");
    assert!(old.is_some());
    // Nothing is seen of what was committed, and then something that is older than the checkpoint.
    commit_another(open(None).unwrap());
    commit_another(open(old).unwrap());
    assert_eq!(collection.committed("out").iter().map(|batch| batch.records.len()).sum::<usize>(), 3);
}
