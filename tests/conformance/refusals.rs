//! What is refused at a start, and why: settings, directories, sinks and programs that do not fit (cases D5, E7, I1, J15, N12, T12).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond_core::sink::{Cursor, Guarantee, Records, Sink, SinkStart, SourcePositions, at_least_once};
use millpond_core::source::QueueSource;
use millpond_core::{BatchTime, ErrorKind, Result, StreamingContext};

use crate::lifecycle::{message, numbers};
use crate::support::*;

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
