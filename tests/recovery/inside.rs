//! Recovery inside of the process, while threads of the engine are at work on what is given up.

use std::sync::Arc;
use std::time::Duration;

use millpond_core::source::{Queue, QueueSource};
use millpond_core::{BatchTime, StreamingContext};
use millpond_testkit::{Collection, ManualClock};

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
