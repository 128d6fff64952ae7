//! Section J of the cases, and failures that are mended while it runs: life cycle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use millpond_core::{BatchTime, ContextState, Error, ErrorKind, Graph, Result, Running, StreamingContext};

use crate::support::*;

pub(crate) fn numbers(
    bench: &Bench,
    queue: &millpond_core::source::Queue<i64>,
) -> impl FnOnce(&Graph<'_>) -> Result<()> {
    let (queue, collection) = (queue.clone(), bench.collection.clone());
    move |graph| {
        graph.source("in", source(&queue)).sink_json("out", collection.sink());
        Ok(())
    }
}

pub(crate) fn message(outcome: Result<impl std::fmt::Debug>) -> String {
    outcome.expect_err("it is refused").to_string()
}

#[test]
fn j1_j2_states_go_forward_and_stopping_twice_is_fine() {
    let bench = Bench::new();
    let running = bench.start(numbers(&bench, &queue_of(vec![vec![1]])));
    assert_eq!(running.state(), ContextState::Active);
    bench.tick(&running);
    running.stop_gracefully().expect("it stops");
    assert_eq!(running.state(), ContextState::Stopped);
    running.stop().expect("a second stop is fine");
    running.stop_gracefully().expect("a third too");
    assert_eq!(bench.outputs::<i64>("out", 1), [[1]]);
}

#[test]
fn a_graceful_stop_leaves_nothing_to_replay() {
    let bench = Bench::new();
    let running = bench.start(numbers(&bench, &queue_of(vec![vec![1], vec![2], vec![3]])));
    bench.tick(&running);
    running.stop_gracefully().expect("it stops");
    let progress = running.progress();
    assert_eq!((progress.snapshot, progress.committed), (progress.planned, progress.planned));
    // What waited in the queue was processed without waiting for the clock.
    assert_eq!(bench.outputs::<i64>("out", 3), [[1], [2], [3]]);
}

#[test]
fn j8_await_termination_with_a_limit() {
    let bench = Bench::new();
    let running = bench.start(numbers(&bench, &queue_of(vec![])));
    assert!(!running.await_termination_for(Duration::from_millis(100)).expect("it runs"));
    let stopper = running.clone();
    let stopped = std::thread::spawn(move || stopper.stop());
    running.await_termination().expect("it was stopped");
    stopped.join().expect("no panic").expect("it stops");
    assert!(running.await_termination_for(Duration::ZERO).expect("at once"));
}

/// Runs until the context has failed, and gives the error.
fn failure(bench: &Bench, running: &Running) -> Error {
    bench.clock.advance(Duration::from_secs(1));
    running.await_termination().expect_err("the context fails")
}

#[test]
fn j9_a_function_that_panics_is_retried_then_stops_the_context_and_runs_again_after_a_restart() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64], vec![2], vec![3]]);
    let (broken, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let open = || {
        let (broken, calls) = (broken.clone(), calls.clone());
        bench.builder().task_attempts(3).open(|graph| {
            let doubled = graph.source("in", source(&queue)).map(move |n| {
                if n == 2 && broken.load(Ordering::Relaxed) {
                    calls.fetch_add(1, Ordering::Relaxed);
                    panic!("error in map task");
                }
                (0_u8, n)
            });
            doubled
                .update_touched_by_key("sum", |new, old| Some(old.unwrap_or(0) + new.sum()))
                .sink_json("out", bench.collection.sink());
            Ok(())
        })
    };
    let running = open().and_then(StreamingContext::start).expect("it starts");
    bench.tick(&running);
    let error = failure(&bench, &running);
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Program, "{text}");
    for part in ["error in map task", "in.map", "2000 ms", "tried 3 times"] {
        assert!(text.contains(part), "{part} in: {text}");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    // S = C: the corrected program has nothing to replay.
    let progress = running.progress();
    assert_eq!((progress.snapshot, progress.committed), (BatchTime::from_ms(1000), BatchTime::from_ms(1000)));
    assert_eq!(bench.outputs::<(u8, i64)>("out", 2), [vec![(0, 1)], vec![]]);

    broken.store(false, Ordering::Relaxed);
    let running = open().and_then(StreamingContext::start).expect("it recovers");
    bench.tick(&running);
    assert_eq!(bench.outputs::<(u8, i64)>("out", 3), [[(0, 1)], [(0, 3)], [(0, 6)]]);
}

#[test]
fn j9_a_task_that_fails_once_counts_once() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64, 2, 3], vec![4]]);
    let fail_at = Arc::new(AtomicU64::new(1));
    let running = bench.start(|graph| {
        let fail_at = fail_at.clone();
        let sums = graph
            .source("in", source(&queue))
            .map(|n| (0_u8, n))
            .update_touched_by_key("sum", |new, old| Some(old.unwrap_or(0) + new.sum()));
        // After the state has been changed, in the same task.
        let checked = sums.map(move |sum| {
            assert!(fail_at.fetch_sub(1, Ordering::Relaxed) != 1, "once");
            sum
        });
        // And once more through a second operator with state, whose input cannot be computed again in place.
        checked
            .update_touched_by_key("sums", |new, old: Option<i64>| Some(old.unwrap_or(0) + new.sum()))
            .sink_json("out", bench.collection.sink());
        Ok(())
    });
    bench.tick(&running);
    fail_at.store(1, Ordering::Relaxed);
    bench.tick(&running);
    assert_eq!(bench.outputs::<(u8, i64)>("out", 2), [[(0, 6)], [(0, 16)]]);
}

#[test]
fn h10_a_failure_behind_two_operators_with_state_is_recovered_inside_of_the_process() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64, 2, 3], vec![4]]);
    let fail_at = Arc::new(AtomicU64::new(0));
    let running = bench.start(|graph| {
        let fail_at = fail_at.clone();
        graph
            .source("in", source(&queue))
            .map(|n| (0_u8, n))
            .update_touched_by_key("first", |new, old| Some(old.unwrap_or(0) + new.sum()))
            .update_touched_by_key("second", |new, old: Option<i64>| Some(old.unwrap_or(0) + new.sum()))
            .map(move |sum| {
                assert!(fail_at.fetch_sub(1, Ordering::Relaxed) != 1, "once");
                sum
            })
            .sink_json("out", bench.collection.sink());
        Ok(())
    });
    bench.tick(&running);
    fail_at.store(1, Ordering::Relaxed);
    bench.tick(&running);
    assert_eq!(bench.outputs::<(u8, i64)>("out", 2), [[(0, 6)], [(0, 16)]]);
    assert_eq!(running.progress().recoveries, 1);
}

#[test]
fn j10_a_second_context_on_the_same_directory_is_refused_and_on_another_one_runs() {
    let bench = Bench::new();
    let running = bench.start(numbers(&bench, &queue_of(vec![vec![1]])));
    let text = message(bench.builder().open(numbers(&bench, &queue_of(vec![]))));
    assert!(text.contains("in use") && text.contains(&std::process::id().to_string()), "{text}");
    let other = Bench::new();
    let beside = other.start(numbers(&other, &queue_of(vec![vec![2]])));
    bench.tick(&running);
    other.tick(&beside);
    assert_eq!(other.outputs::<i64>("out", 1), [[2]]);
}

#[test]
fn j12_an_input_without_output_does_no_harm() {
    let bench = Bench::new();
    let (queue, unused) = (queue_of(vec![vec![1_i64]]), queue_of(vec![vec![7_i64]]));
    let running = bench.start(|graph| {
        let _ = graph.source("unused", source(&unused));
        graph.source("in", source(&queue)).sink_json("out", bench.collection.sink());
        Ok(())
    });
    bench.tick(&running);
    assert_eq!(bench.outputs::<i64>("out", 1), [[1]]);
}

#[test]
fn h11_a_sink_that_fails_after_another_has_committed_is_caught_up_and_nobody_sees_anything_twice() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64], vec![2], vec![3]]);
    let running = bench.start(|graph| {
        let stream = graph.source("in", source(&queue)).map(|n| (0_u8, n));
        let sums = stream.update_touched_by_key("sum", |new, old| Some(old.unwrap_or(0) + new.sum()));
        sums.clone().sink_json("out", bench.collection.sink());
        sums.sink_json("late", bench.collection.sink());
        Ok(())
    });
    bench.tick(&running);
    bench.collection.fail_next_commit("late");
    bench.tick(&running);
    bench.tick(&running);
    for sink in ["out", "late"] {
        assert_eq!(bench.outputs::<(u8, i64)>(sink, 3), [[(0, 1)], [(0, 3)], [(0, 6)]], "{sink}");
    }
    assert_eq!(running.progress().recoveries, 1);
}

#[test]
fn h18_missed_batches_are_run_at_once_in_order_and_operators_see_each() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64]]);
    let open = |limit| {
        bench.builder().max_missed_batches(limit).open(|graph| {
            graph.source("in", source(&queue)).count().sink_json("out", bench.collection.sink());
            Ok(())
        })
    };
    let running = open(10).and_then(StreamingContext::start).expect("it starts");
    bench.tick(&running);
    running.stop().expect("it stops");
    queue.push(vec![7, 8]);
    bench.clock.advance(Duration::from_secs(5));
    let text = message(open(3).and_then(StreamingContext::start));
    assert!(text.contains("5 batches") && text.contains("max_missed_batches"), "{text}");
    let running = open(10).and_then(StreamingContext::start).expect("it recovers");
    running.await_committed(BatchTime::from_ms(6000), LIMIT).expect("it catches up");
    // The stretch without input is one commit; its counts are all there.
    let counts: Vec<Vec<u64>> = bench.outputs("out", 6);
    assert_eq!(counts, [vec![1], vec![2], vec![], vec![], vec![], vec![0, 0, 0, 0]]);
}

#[test]
fn a11_a_clock_that_was_set_back_neither_stalls_nor_repeats() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1], vec![2], vec![3], vec![4]]);
    let running = bench.start(numbers(&bench, &queue));
    (0..3).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    bench.clock.set_ms(2500);
    let running = bench.start(numbers(&bench, &queue));
    // One interval later, not when the clock shows 4000.
    bench.clock.advance(Duration::from_secs(1));
    running.await_committed(BatchTime::from_ms(4000), LIMIT).expect("it goes on");
    assert_eq!(bench.outputs::<i64>("out", 4), [[1], [2], [3], [4]]);
}

#[test]
fn h27_a_directory_whose_creation_was_cut_short_is_completed() {
    for part in ["LOCK", "checkpoints", "live", "log"] {
        let bench = Bench::new();
        let path = bench.directory.path().join("pond");
        std::fs::create_dir(&path).expect("a directory");
        match part {
            "LOCK" => std::fs::write(path.join(part), "").expect("a file"),
            part => std::fs::create_dir(path.join(part)).expect("a directory"),
        }
        let running = bench.start(numbers(&bench, &queue_of(vec![vec![1]])));
        bench.tick(&running);
        assert_eq!(bench.outputs::<i64>("out", 1), [[1]], "{part}");
    }
}

#[test]
fn for_each_rdd_and_print_run_in_order_and_again_for_what_is_replayed() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64, 2], vec![3]]);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let open = || {
        let seen = seen.clone();
        bench.builder().open(|graph| {
            graph.source("in", source(&queue)).for_each_rdd(move |rdd, time| {
                seen.lock().expect("no panic").push((time.as_ms(), rdd.collect()?));
                Ok::<_, Error>(())
            });
            Ok(())
        })
    };
    let running = open().and_then(StreamingContext::start).expect("it starts");
    bench.tick(&running);
    running.stop().expect("it stops");
    let running = open().and_then(StreamingContext::start).expect("it recovers");
    bench.tick(&running);
    let seen = seen.lock().expect("no panic").clone();
    // No sink says what was committed: at least once.
    assert_eq!(seen, [(1000, vec![1, 2]), (1000, vec![1, 2]), (2000, vec![3])]);
}

#[test]
fn an_rdd_inside_of_a_function_of_another_is_an_error_and_no_deadlock() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64, 2]]);
    let running = bench.start(|graph| {
        // Of a batch it does not compile: its `Rdd` cannot be kept in a function.
        let data_set = graph.batch().parallelize([1_i64, 2], 2);
        let nested = graph.source("in", source(&queue)).map(move |n| n + data_set.count().expect("it says why") as i64);
        nested.sink_json("out", bench.collection.sink());
        Ok(())
    });
    let error = failure(&bench, &running);
    assert!(error.to_string().contains("inside of a function"), "{error}");
}
