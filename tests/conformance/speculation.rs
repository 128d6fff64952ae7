//! Stragglers: a task that hangs is overtaken by a second attempt, and counts once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond_core::{Builder, Speculation, StreamingContext, milliseconds};

use crate::support::*;

/// Hangs when it is called for a number the first time, until it is let go.
#[derive(Clone)]
struct HangsOnce {
    number: i64,
    hung: Arc<AtomicBool>,
    held: Arc<Mutex<Receiver<()>>>,
    /// How often the number came through.
    passed: Arc<AtomicU64>,
}

impl HangsOnce {
    /// Dropping the sender lets go.
    fn at(number: i64) -> (Self, Sender<()>) {
        let (release, held) = channel();
        let hangs =
            HangsOnce { number, hung: Arc::default(), held: Arc::new(Mutex::new(held)), passed: Arc::default() };
        (hangs, release)
    }

    fn pass(&self, number: i64) {
        if number == self.number {
            if !self.hung.swap(true, Ordering::SeqCst) {
                let _ = self.held.lock().expect("no panic").recv();
            }
            self.passed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn builder(bench: &Bench) -> Builder {
    let eager =
        Speculation { min_runtime: milliseconds(20), check_interval: milliseconds(5), ..Speculation::default() };
    bench.builder().speculation(eager)
}

#[test]
fn a_task_that_hangs_once_is_overtaken_and_its_output_is_there_once() {
    let bench = Bench::new();
    let queue = queue_of(vec![(0..8).collect(), (8..16).collect::<Vec<i64>>(), vec![16]]);
    let (hangs, release) = HangsOnce::at(2);
    let at_map = hangs.clone();
    let opened = builder(&bench).open_with(|graph| {
        let count = graph.accumulator("count");
        let counted = count.clone();
        let stream = graph.source("in", source(&queue)).map(move |n| {
            counted.add(1);
            at_map.pass(n);
            n
        });
        stream.sink_json("out", bench.collection.sink());
        Ok(count)
    });
    let (context, count) = opened.expect("it opens");
    let running = context.start().expect("it starts");
    // The first attempt hangs all the time: batches go on without it, on as many threads as before.
    bench.tick(&running);
    bench.tick(&running);
    let all = [(0..8).collect::<Vec<i64>>(), (8..16).collect()];
    assert_eq!(bench.outputs::<i64>("out", 2), all);
    assert_eq!((hangs.passed.load(Ordering::SeqCst), count.value()), (1, 16));
    // It comes back when its batch is long committed: nobody takes notice.
    drop(release);
    bench.tick(&running);
    running.stop_gracefully().expect("it stops");
    assert_eq!(bench.outputs::<i64>("out", 3), [all[0].clone(), all[1].clone(), vec![16]]);
    assert_eq!(count.value(), 17);
    assert_eq!(running.progress().recoveries, 0);
}

#[test]
fn a_task_that_hangs_before_a_shuffle_is_overtaken_and_state_counts_its_records_once() {
    let bench = Bench::new();
    let queue = queue_of(vec![(0..8).collect(), (8..16).collect::<Vec<i64>>()]);
    let (hangs, release) = HangsOnce::at(2);
    let opened = builder(&bench).open(|graph| {
        let keyed = graph.source("in", source(&queue)).map(move |n| {
            hangs.pass(n);
            (n % 2, n)
        });
        let sums = keyed.clone().update_touched_by_key("sum", |new, old| Some(old.unwrap_or(0) + new.sum()));
        sums.sink_json("out", bench.collection.sink());
        keyed.count().sink_json("count", bench.collection.sink());
        Ok(())
    });
    let running = opened.and_then(StreamingContext::start).expect("it starts");
    (0..2).for_each(|_| bench.tick(&running));
    let sums = sorted(bench.outputs::<(i64, i64)>("out", 2));
    assert_eq!(sums, [[(0, 12), (1, 16)], [(0, 56), (1, 64)]]);
    assert_eq!(bench.outputs::<u64>("count", 2), [[8], [8]]);
    // A thread that never comes back does not keep the context from stopping.
    running.stop_gracefully().expect("it stops");
    drop(release);
}

#[test]
fn without_speculation_a_slow_task_is_waited_for() {
    let bench = Bench::new();
    let queue = queue_of(vec![(0..8).collect::<Vec<i64>>()]);
    let (hangs, release) = HangsOnce::at(2);
    let at_map = hangs.clone();
    let running = bench.start(|graph| {
        let stream = graph.source("in", source(&queue)).map(move |n| {
            at_map.pass(n);
            n
        });
        stream.sink_json("out", bench.collection.sink());
        Ok(())
    });
    bench.clock.advance(Duration::from_secs(1));
    let committed = running.await_committed(millpond_core::BatchTime::from_ms(1000), Duration::from_millis(300));
    assert!(committed.is_err() && hangs.hung.load(Ordering::SeqCst));
    drop(release);
    running.await_committed(millpond_core::BatchTime::from_ms(1000), LIMIT).expect("the batch commits");
    assert_eq!(bench.outputs::<i64>("out", 1), [(0..8).collect::<Vec<i64>>()]);
}

#[test]
fn a_stage_that_races_fails_with_the_error_of_its_task() {
    let bench = Bench::new();
    let queue = queue_of(vec![(0..8).collect::<Vec<i64>>()]);
    let (hangs, release) = HangsOnce::at(2);
    let opened = builder(&bench).task_attempts(2).open(|graph| {
        let stream = graph.source("in", source(&queue)).map(move |n| {
            hangs.pass(n);
            assert!(n != 5, "five is too many");
            n
        });
        stream.sink_json("out", bench.collection.sink());
        Ok(())
    });
    let running = opened.and_then(StreamingContext::start).expect("it starts");
    bench.clock.advance(Duration::from_secs(1));
    let error = running.await_termination().expect_err("it fails").to_string();
    assert!(error.contains("five is too many") && error.contains("tried 2 times"), "{error}");
    drop(release);
}
