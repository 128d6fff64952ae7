//! Accumulators: exactly once a committed batch, whatever is tried again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond_core::source::Queue;
use millpond_core::{Accumulator, BatchTime, Error, Result, Running, StreamingContext};

use crate::support::*;

/// Fails at the first attempt at each of the places it is told.
#[derive(Clone, Default)]
struct Fails(Arc<Mutex<HashSet<&'static str>>>, Arc<AtomicU64>);

impl Fails {
    fn at(places: &[&'static str]) -> Self {
        Fails(Arc::new(Mutex::new(places.iter().copied().collect())), Arc::default())
    }

    fn pass(&self, place: &str) {
        let fails = self.0.lock().expect("no panic").remove(place);
        if fails {
            self.1.fetch_add(1, Ordering::Relaxed);
            panic!("{place} fails once");
        }
    }
}

struct Counted {
    running: Running,
    handles: [Accumulator; 4],
}

impl Counted {
    /// What the four accumulators say.
    fn values(&self) -> [i64; 4] {
        let by_name = self.running.accumulators();
        let values = self.handles.each_ref().map(Accumulator::value);
        assert_eq!(values, ["read", "shuffled", "state", "seen"].map(|name| by_name[name]));
        values
    }
}

/// Counts records where they are read, behind a shuffle, behind state, and in `for_each_rdd`. Failures strike behind each of them.
fn start(bench: &Bench, queue: &Queue<i64>, fails: &Fails) -> Result<Counted> {
    let builder = bench.builder().checkpoint_interval(Duration::from_secs(2)).recovery_attempts(10);
    let (context, handles) = builder.open_with(|graph| {
        let handles = ["read", "shuffled", "state", "seen"].map(|name| graph.accumulator(name));
        let [read, shuffled, state, seen] = handles.clone();
        let [at_read, at_shuffled, at_state, at_seen] = [(); 4].map(|()| fails.clone());
        let keyed = graph.source("in", source(queue)).map(move |n| {
            read.add(1);
            at_read.pass("read");
            (n % 3, n)
        });
        let reduced = keyed.reduce_by_key(|a, b| a + b).map(move |pair: (i64, i64)| {
            shuffled.add(1);
            at_shuffled.pass("shuffled");
            pair
        });
        let sums = reduced.update_touched_by_key("sums", |new, old| Some(old.unwrap_or(0) + new.sum()));
        let sums = sums.map(move |pair| {
            state.add(pair.1);
            at_state.pass("state");
            pair
        });
        sums.clone().sink_json("out", bench.collection.sink());
        sums.for_each_rdd(move |rdd, _| {
            // Two actions, each of which would compute what is not kept.
            let ones = rdd.count()?;
            seen.add(rdd.collect()?.len() as i64 + ones as i64);
            at_seen.pass("seen");
            Ok::<_, Error>(())
        });
        Ok(handles)
    })?;
    Ok(Counted { running: context.start()?, handles })
}

fn batches() -> Vec<Vec<i64>> {
    (0..6).map(|batch| (0..10 + batch).collect()).collect()
}

/// The values after each batch of a run without failures.
fn undisturbed() -> Vec<[i64; 4]> {
    let bench = Bench::new();
    let counted = start(&bench, &queue_of(batches()), &Fails::default()).expect("it starts");
    let value = |_| {
        bench.tick(&counted.running);
        counted.values()
    };
    batches().iter().map(value).collect()
}

#[test]
fn accumulators_count_what_was_committed() {
    let values = undisturbed();
    assert_eq!(values.iter().map(|values| values[0]).collect::<Vec<_>>(), [10, 21, 33, 46, 60, 75]);
    assert_eq!(values.iter().map(|values| values[1]).collect::<Vec<_>>(), [3, 6, 9, 12, 15, 18]);
    // Of each batch, the sum of all sums so far; and three records seen twice.
    let sum = |batch: i64| (0..=batch).map(|batch| (0..10 + batch).sum::<i64>()).sum::<i64>();
    assert_eq!(values[5][2], (0..6).map(sum).sum::<i64>());
    assert_eq!(values[5][3], 36);
}

#[test]
fn accumulators_are_exact_through_retries_recoveries_and_restarts() {
    let undisturbed = undisturbed();
    // In each batch something else fails, once; then the process ends without a checkpoint, and the next one replays.
    let places: [&[&str]; 6] =
        [&["read"], &["shuffled"], &["state"], &["seen"], &["read", "shuffled", "state", "seen"], &[]];
    let bench = Bench::new();
    let queue = queue_of(batches());
    for (number, places) in places.iter().enumerate() {
        let fails = Fails::at(places);
        let counted = start(&bench, &queue, &Fails::default()).expect("it recovers");
        let at = BatchTime::from_ms(number as u64 * 1000);
        counted.running.await_committed(at, LIMIT).expect("it recovers");
        // A restart shows the value of what the sinks have committed, once it has computed that far.
        counted.running.stop().expect("it stops");
        let counted = start(&bench, &queue, &fails).expect("it recovers");
        bench.tick(&counted.running);
        assert_eq!(counted.values(), undisturbed[number], "batch {}, failures at {places:?}", number + 1);
        assert_eq!(fails.1.load(Ordering::Relaxed), places.len() as u64);
        let batch = counted.running.batches().batch(BatchTime::from_ms((number as u64 + 1) * 1000)).expect("kept");
        let before = number.checked_sub(1).map_or([0; 4], |before| undisturbed[before]);
        for ((info, value), before) in batch.accumulators.iter().zip(undisturbed[number]).zip(before) {
            assert_eq!((info.value, info.added), (value, value - before), "{}", info.name);
        }
        counted.running.stop().expect("it stops");
    }
}

#[test]
fn accumulators_that_a_program_no_longer_has_keep_their_value() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64], vec![2]]);
    let run = |with: bool| {
        let opened = bench.builder().open_with(|graph| {
            let sum = with.then(|| graph.accumulator("sum"));
            let added = sum.clone();
            let stream = graph.source("in", source(&queue)).map(move |n| {
                added.iter().for_each(|added| added.add(n));
                n
            });
            stream.sink_json("out", bench.collection.sink());
            Ok(sum)
        });
        let (context, sum) = opened.expect("it opens");
        let running = context.start().expect("it starts");
        bench.tick(&running);
        running.stop_gracefully().expect("it stops");
        sum.map(|sum| sum.value())
    };
    assert_eq!((run(true), run(false), run(true)), (Some(3), None, Some(3)));
}

#[test]
fn accumulators_have_names_of_their_own() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64]]);
    let opened = bench.builder().open(|graph| {
        let _ = (graph.accumulator("sum"), graph.accumulator("sum"));
        graph.source("in", source(&queue)).sink_json("out", bench.collection.sink());
        Ok(())
    });
    let text = opened.map(StreamingContext::start).expect_err("refused").to_string();
    assert!(text.contains("two accumulators are named `sum`"), "{text}");
}
