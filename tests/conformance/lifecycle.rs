//! Sections I and J of the cases: life cycle, failures, refusals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use millpond_core::sink::{Cursor, Guarantee, Records, Sink, SinkStart, SourcePositions, at_least_once};
use millpond_core::source::QueueSource;
use millpond_core::{BatchTime, ContextState, Error, ErrorKind, Graph, Result, Running, StreamingContext};

use crate::support::*;

fn numbers(bench: &Bench, queue: &millpond_core::source::Queue<i64>) -> impl FnOnce(&Graph<'_>) -> Result<()> {
    let (queue, collection) = (queue.clone(), bench.collection.clone());
    move |graph| {
        graph.source("in", source(&queue)).sink_json("out", collection.sink());
        Ok(())
    }
}

fn message(outcome: Result<impl std::fmt::Debug>) -> String {
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
fn j15_no_output_operation() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64]]);
    let text = message(bench.builder().open(|graph| {
        let _ = graph.source("in", source(&queue));
        Ok(())
    }));
    assert!(text.contains("no output operations registered"), "{text}");
}

#[test]
fn d5_no_directory() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64]]);
    let text = message(StreamingContext::builder("app").open(|graph| {
        let counts = graph.source("in", source(&queue)).map(|n| (n, 1_i64));
        let counts = counts.update_state_by_key("counts", |new, old| Some(old.unwrap_or(0) + new.sum()));
        counts.sink_json("out", bench.collection.sink());
        Ok(())
    }));
    assert!(text.contains("no directory") && text.contains("`counts`"), "{text}");
}

#[test]
fn e7_checkpoint_intervals_that_do_not_fit() {
    let bench = Bench::new();
    for ms in [1500, 500] {
        let builder = bench.builder().checkpoint_interval(Duration::from_millis(ms));
        let text = message(builder.open(numbers(&bench, &queue_of(vec![]))));
        assert!(text.contains(&ms.to_string()) && text.contains("multiple"), "{text}");
    }
}

#[test]
fn names_must_differ() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64]]);
    let text = message(bench.builder().open(|graph| {
        graph.source("x", source(&queue)).sink_json("x", bench.collection.sink());
        Ok(())
    }));
    assert!(text.contains("`x`") && text.contains("sink") && text.contains("queue"), "{text}");
}

#[test]
fn i1_a_directory_of_something_else_is_refused_and_left_alone() {
    let bench = Bench::new();
    let path = bench.directory.path().join("pond");
    std::fs::create_dir(&path).expect("a directory");
    std::fs::write(path.join("notes.txt"), "mine").expect("a file");
    let text = message(bench.builder().open(numbers(&bench, &queue_of(vec![]))));
    assert!(text.contains("notes.txt"), "{text}");
    let entries: Vec<_> =
        std::fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").file_name()).collect();
    assert_eq!(entries, ["notes.txt"]);

    let file = bench.directory.path().join("file");
    std::fs::write(&file, "mine").expect("a file");
    let builder = StreamingContext::builder("app").directory(&file);
    let text = message(builder.open(numbers(&bench, &queue_of(vec![]))));
    assert!(text.contains("file"), "{text}");
}

#[test]
fn i1_another_applications_directory_is_refused() {
    let bench = Bench::new();
    bench.start(numbers(&bench, &queue_of(vec![]))).stop().expect("it stops");
    let builder = StreamingContext::builder("other").directory(bench.directory.path().join("pond"));
    let text = message(builder.open(numbers(&bench, &queue_of(vec![]))));
    assert!(text.contains("`conformance`") && text.contains("`other`"), "{text}");
}

#[test]
fn an_empty_directory_under_the_name_of_an_application_that_has_committed_is_refused() {
    let bench = Bench::new();
    let running = bench.start(numbers(&bench, &queue_of(vec![vec![1]])));
    bench.tick(&running);
    running.stop().expect("it stops");
    let path = bench.directory.path().join("pond");
    std::fs::remove_dir_all(&path).expect("the operator deletes it");
    let context = bench.builder().open(numbers(&bench, &queue_of(vec![vec![1]]))).expect("it opens");
    let error = context.start().expect_err("the sink says no");
    assert_eq!(error.kind(), ErrorKind::Restore);
    assert!(error.to_string().contains("`out`") && error.to_string().contains("1000 ms"), "{error}");
    assert_eq!(bench.outputs::<i64>("out", 1), [[1]]);
}

#[test]
fn a_directory_older_than_the_sinks_output_is_refused_with_both_batches() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1]]);
    let (path, backup) = (bench.directory.path().join("pond"), bench.directory.path().join("backup"));
    let running = bench.start(numbers(&bench, &queue));
    bench.tick(&running);
    running.stop_gracefully().expect("it stops");
    copy(&path, &backup);
    queue.push(vec![2]);
    let running = bench.start(numbers(&bench, &queue));
    bench.tick(&running);
    running.stop().expect("it stops");
    std::fs::remove_dir_all(&path).expect("the operator deletes it");
    std::fs::rename(&backup, &path).expect("and restores the backup");
    let context = bench.builder().open(numbers(&bench, &queue)).expect("it opens");
    let text = message(context.start());
    assert!(text.contains("2000 ms") && text.contains("1000 ms") && text.contains("older"), "{text}");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let status = std::process::Command::new("cp").arg("-r").args([from, to]).status().expect("cp runs");
    assert!(status.success());
}

#[test]
fn h3_a_sink_that_lost_its_cursor_is_refused() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1], vec![2]]);
    let running = bench.start(numbers(&bench, &queue));
    bench.tick(&running);
    running.stop().expect("it stops");
    bench.collection.lose("out");
    let text = message(bench.builder().open(numbers(&bench, &queue)).expect("it opens").start());
    assert!(text.contains("`out`") && text.contains("no cursor"), "{text}");
}

#[test]
fn a_pipeline_that_is_not_deterministic_is_found_at_recovery() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64], vec![2]]);
    let random = Arc::new(AtomicU64::new(0));
    let open = || {
        let random = random.clone();
        bench.builder().open(|graph| {
            let stream = graph.source("in", source(&queue)).map(move |n| (n, random.fetch_add(1, Ordering::Relaxed)));
            stream.sink_json("out", bench.collection.sink());
            Ok(())
        })
    };
    let running = open().and_then(StreamingContext::start).expect("it starts");
    (0..2).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    let error = open()
        .and_then(StreamingContext::start)
        .and_then(|running| running.await_termination())
        .expect_err("the digest does not meet");
    assert_eq!(error.kind(), ErrorKind::Restore);
    assert!(error.to_string().contains("not deterministic") && error.to_string().contains("`out`"), "{error}");
}

#[test]
fn h12_a_changed_program_needs_a_graceful_stop_or_the_operators_word() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64], vec![2]]);
    let program = |builder: millpond_core::Builder, factor: i64, name: &'static str| {
        let queue = queue.clone();
        builder.open(|graph| {
            let keyed = graph.source("in", source(&queue)).map(move |n| (0_u8, n * factor));
            let sums = keyed.update_touched_by_key(name, |new, old| Some(old.unwrap_or(0) + new.sum()));
            sums.sink_json("out", bench.collection.sink());
            Ok(())
        })
    };
    let start = |builder, factor, name| program(builder, factor, name).and_then(StreamingContext::start);
    let running = start(bench.builder(), 1, "sum").expect("it starts");
    bench.tick(&running);
    running.stop().expect("it stops");
    let text = message(start(bench.builder(), 1, "total"));
    assert!(text.contains("`sum`") && text.contains("`total`") && text.contains("1000 ms"), "{text}");

    // By name: state comes from the new program, what is committed stays.
    let running = start(bench.builder().accept_changed_program(), 10, "sum").expect("it starts");
    bench.tick(&running);
    assert_eq!(bench.outputs::<(u8, i64)>("out", 2), [[(0, 1)], [(0, 30)]]);
    // And after a graceful stop it may change; state that would be lost wants a word of its own.
    running.stop_gracefully().expect("it stops");
    queue.push(vec![3]);
    queue.push(vec![4]);
    let text = message(start(bench.builder(), 10, "total"));
    assert!(text.contains("`sum`") && text.contains("1 keys"), "{text}");
    let running = start(bench.builder().removed("sum"), 10, "total").expect("it starts");
    bench.tick(&running);
    assert_eq!(bench.outputs::<(u8, i64)>("out", 3)[2], [(0, 30)]);
    running.stop().expect("it stops");
    // Killed before its next checkpoint, it finds itself again.
    let running = start(bench.builder(), 10, "total").expect("it recovers");
    bench.tick(&running);
    assert_eq!(bench.outputs::<(u8, i64)>("out", 4)[3], [(0, 70)]);
}

#[test]
fn t12_a_changed_type_of_state_shows_both_and_is_migrated_with_a_version_step() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_u64]]);
    let running = bench.start(|graph| {
        let ones = graph.source("in", source(&queue)).map(|n| (0_u8, n));
        let sums = ones.update_touched_by_key("sum", |new, old: Option<u64>| Some(old.unwrap_or(0) + new.sum()));
        sums.sink_json("out", bench.collection.sink());
        Ok(())
    });
    bench.tick(&running);
    running.stop_gracefully().expect("it stops");
    queue.push(vec![2]);
    queue.push(vec![3]);
    let open = |step: bool| {
        bench.builder().open(|graph| {
            let ones = graph.source("in", source(&queue)).map(|n| (0_u8, n as i64));
            let sums = ones.update_touched_by_key("sum", |new, old: Option<i64>| Some(old.unwrap_or(0) + new.sum()));
            let sums = if step { sums.schema(2, |old: u64| -(old as i64)) } else { sums };
            sums.sink_json("out", bench.collection.sink());
            Ok(())
        })
    };
    let text = message(open(false).and_then(StreamingContext::start));
    assert!(text.contains("u64") && text.contains("i64") && text.contains("`sum`"), "{text}");
    for (batch, expected) in [(1, 1), (2, 4)] {
        let running = open(true).and_then(StreamingContext::start).expect("it migrates, once");
        bench.tick(&running);
        running.stop().expect("it stops");
        assert_eq!(bench.outputs::<(u8, i64)>("out", 3)[batch], [(0, expected)]);
    }
}

/// A sink that forgets: at-least-once.
struct Forgetful;

impl Sink for Forgetful {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }
    fn describe(&self) -> String {
        "nothing".into()
    }
    fn peek(&mut self, _: &SinkStart) -> Result<Option<Cursor>> {
        Ok(None)
    }
    fn fence(&mut self, _: &SinkStart) -> Result<Option<Cursor>> {
        Ok(None)
    }
    fn begin(&mut self, _: BatchTime, _: &[SourcePositions]) -> Result<()> {
        Ok(())
    }
    fn write(&mut self, _: Records) -> Result<()> {
        Ok(())
    }
    fn prepare(&mut self, _: &Cursor) -> Result<()> {
        Ok(())
    }
    fn commit(&mut self) -> Result<()> {
        Ok(())
    }
    fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn parts_that_cannot_keep_exactly_once_are_refused_unless_asked_for_by_name() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64]]);
    let text = message(bench.builder().open(|graph| {
        graph.source("in", source(&queue)).sink_json("out", Forgetful);
        Ok(())
    }));
    assert!(text.contains("`out`") && text.contains("at_least_once"), "{text}");
    let text = message(bench.builder().open(|graph| {
        graph.source("in", QueueSource::one_at_a_time(&queue)).sink_json("out", bench.collection.sink());
        Ok(())
    }));
    assert!(text.contains("`in`") && text.contains("`out`"), "{text}");
    let running = bench.start(|graph| {
        graph.source("in", QueueSource::one_at_a_time(&queue)).sink_json("out", at_least_once(Forgetful));
        Ok(())
    });
    bench.tick(&running);
}

#[test]
fn h11_a_sink_that_fails_after_another_has_committed_is_caught_up_and_nobody_sees_anything_twice() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64], vec![2], vec![3]]);
    let fail = Arc::new(AtomicBool::new(false));
    let running = bench.start(|graph| {
        let stream = graph.source("in", source(&queue)).map(|n| (0_u8, n));
        let sums = stream.update_touched_by_key("sum", |new, old| Some(old.unwrap_or(0) + new.sum()));
        sums.clone().sink_json("out", bench.collection.sink());
        sums.sink_json("late", FailsOnce { sink: bench.collection.sink(), fail: fail.clone() });
        Ok(())
    });
    bench.tick(&running);
    fail.store(true, Ordering::Relaxed);
    bench.tick(&running);
    bench.tick(&running);
    for sink in ["out", "late"] {
        assert_eq!(bench.outputs::<(u8, i64)>(sink, 3), [[(0, 1)], [(0, 3)], [(0, 6)]], "{sink}");
    }
    assert_eq!(running.progress().recoveries, 1);
}

struct FailsOnce {
    sink: millpond_testkit::CollectingSink,
    fail: Arc<AtomicBool>,
}

impl Sink for FailsOnce {
    fn guarantee(&self) -> Guarantee {
        self.sink.guarantee()
    }
    fn describe(&self) -> String {
        self.sink.describe()
    }
    fn peek(&mut self, start: &SinkStart) -> Result<Option<Cursor>> {
        self.sink.peek(start)
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
        if self.fail.swap(false, Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Retry, "the server went away"));
        }
        self.sink.commit()
    }
    fn abort(&mut self) -> Result<()> {
        self.sink.abort()
    }
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
        let nested = graph
            .source("in", source(&queue))
            .map(move |n| n + data_set.count().expect("it says why") as i64);
        nested.sink_json("out", bench.collection.sink());
        Ok(())
    });
    let error = failure(&bench, &running);
    assert!(error.to_string().contains("inside of a function"), "{error}");
}

#[test]
fn n12_a_damaged_log_is_refused_with_its_place_and_kept_up_to_it_by_the_operators_word() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1], vec![2], vec![3]]);
    let running = bench.start(numbers(&bench, &queue));
    (0..3).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    // The first plan of the log, which later syncs prove to have been on disk.
    let log = bench.directory.path().join("pond/log");
    let mut segments: Vec<_> =
        std::fs::read_dir(&log).expect("readable").map(|entry| entry.expect("readable").path()).collect();
    segments.sort();
    let segment = &segments[0];
    let mut bytes = std::fs::read(segment).expect("readable");
    let place = bytes.windows(2).position(|pair| pair == b"in").expect("a plan names its source");
    bytes[place] ^= 1;
    std::fs::write(segment, bytes).expect("writable");

    let text = message(bench.builder().open(numbers(&bench, &queue)).and_then(StreamingContext::start));
    assert!(text.contains("segment") && text.contains("offset"), "{text}");
    // What is before the damage is kept; but a sink has committed what is behind it, so the start says no to that.
    let builder = bench.builder().keep_log_before_damage();
    let text = message(builder.open(numbers(&bench, &queue)).and_then(StreamingContext::start));
    assert!(text.contains("`out`") && text.contains("3000 ms"), "{text}");
    assert_eq!(bench.outputs::<i64>("out", 3), [[1], [2], [3]]);
}
