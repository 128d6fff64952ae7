//! A cursor that readers see a little later than it was committed: a broker decides a transaction first, and then writes its markers.

use std::sync::Arc;
use std::time::Duration;

use millpond_core::source::{Queue, QueueSource};
use millpond_core::{BatchTime, Result, Running, StreamingContext};
use millpond_testkit::{Collection, ManualClock};

const INTERVAL: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn h2_a_cursor_that_shows_late_does_not_keep_the_next_start_from_going_on() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at_ms(0));
    let (queue, collection) = (Queue::new(), Collection::new());
    let start = || -> Result<Running> {
        StreamingContext::builder("late")
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
            })?
            .start()
    };
    let batch = |running: &Running| {
        queue.push(vec!["a".to_owned()]);
        let next = BatchTime::from_ms(running.progress().planned.as_ms()) + INTERVAL;
        clock.advance(INTERVAL);
        running.await_committed(next, LIMIT).unwrap();
    };
    let running = start().unwrap();
    batch(&running);
    let before = collection.cursor("out");
    batch(&running);
    running.stop_gracefully().unwrap();
    // Now S is the batch of the newest cursor. First none is shown, then one before S.
    for shown in [None, before] {
        collection.show_until_fenced("out", shown);
        let running = start().unwrap();
        batch(&running);
        running.stop_gracefully().unwrap();
    }
    let counts = collection.committed("out").into_iter().flat_map(|batch| batch.records);
    let counts: Vec<String> =
        counts.map(|record| String::from_utf8(record.value.unwrap_or_default()).unwrap()).collect();
    assert_eq!(counts, (1..=4).map(|n| format!("[\"a\",{n}]")).collect::<Vec<_>>());
}
