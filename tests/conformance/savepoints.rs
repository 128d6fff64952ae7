//! Savepoints (hard case H25): a copy of a checkpoint from which another deployment begins.

use std::path::Path;
use std::time::Duration;

use millpond_core::inspect::savepoint;
use millpond_core::source::Queue;
use millpond_core::{Builder, ErrorKind, Graph, Result, StreamingContext};
use millpond_testkit::Collection;

use crate::support::*;

/// Counts words, all keys in every batch, a checkpoint each batch.
fn count<'a>(queue: &'a Queue<String>, out: &'a Collection) -> impl FnOnce(&Graph) -> Result<()> + 'a {
    move |graph| {
        graph
            .source("in", source(queue))
            .map(|word| (word, 1_i64))
            .update_state_by_key("counts", |new, old| Some(old.unwrap_or(0) + new.sum()))
            .sink_json("out", out.sink());
        Ok(())
    }
}

fn every_batch(builder: Builder) -> Builder {
    builder.checkpoint_interval(Duration::from_secs(1))
}

/// A pipeline that has counted three batches and stopped gracefully, and its savepoint.
fn saved(bench: &Bench, queue: &Queue<String>) -> std::path::PathBuf {
    let context = every_batch(bench.builder()).open(count(queue, &bench.collection)).expect("opened");
    let running = context.start().expect("started");
    (0..3).for_each(|_| bench.tick(&running));
    running.stop_gracefully().expect("stopped");
    let target = bench.directory.path().join("saved");
    let made = savepoint(&bench.directory.path().join("pond"), &target).expect("a savepoint");
    assert_eq!(made.batch.as_ms(), 3000);
    assert!(made.files > 0 && made.bytes > 0);
    target
}

fn other(bench: &Bench, application: &str, savepoint: &Path) -> Builder {
    every_batch(StreamingContext::builder(application))
        .directory(bench.directory.path().join("other"))
        .clock(bench.clock.clone())
        .from_savepoint(savepoint)
}

#[test]
fn h25_another_application_begins_with_the_state_and_positions_of_a_savepoint() {
    let bench = Bench::new();
    let queue = queue_of(words("a | a,b | a"));
    let target = saved(&bench, &queue);
    words("b | a").into_iter().for_each(|batch| queue.push(batch));
    let collection = Collection::new();
    for starts in [1, 2] {
        // The second start finds its own directory, and goes on from there.
        let context = other(&bench, "other", &target).open(count(&queue, &collection)).expect("opened");
        let running = context.start().expect("started");
        bench.tick(&running);
        running.stop().expect("stopped");
        assert_eq!(collection.committed("out").len(), starts);
    }
    let bench = Bench { collection, ..bench };
    assert_eq!(sorted(bench.outputs::<(String, i64)>("out", 5)), keyed("· | · | · | a3 b2 | a4 b2"));
}

#[test]
fn h25_a_savepoint_of_a_running_application_is_that_of_its_newest_checkpoint() {
    let bench = Bench::new();
    let queue = queue_of(words("a | a | a | a"));
    let running =
        every_batch(bench.builder()).open(count(&queue, &bench.collection)).expect("opened").start().expect("started");
    (0..3).for_each(|_| bench.tick(&running));
    let target = bench.directory.path().join("saved");
    let made = savepoint(&bench.directory.path().join("pond"), &target).expect("a savepoint beside the batches");
    assert!(made.batch.as_ms() <= 3000, "{}", made.batch);
    // The original is not touched by it.
    bench.tick(&running);
    running.stop().expect("stopped");
    assert_eq!(sorted(bench.outputs::<(String, i64)>("out", 4)), keyed("a1 | a2 | a3 | a4"));
    // What the savepoint lacks is computed again from the source, by the copy alone.
    let collection = Collection::new();
    let running =
        other(&bench, "other", &target).open(count(&queue, &collection)).expect("opened").start().expect("started");
    running.await_committed(millpond_core::BatchTime::from_ms(4000), LIMIT).expect("the missed batches run");
    running.stop().expect("stopped");
    let bench = Bench { collection, ..bench };
    let last = sorted(bench.outputs::<(String, i64)>("out", 4)).pop().expect("four batches");
    assert_eq!(last, [("a".to_owned(), 4)]);
}

#[test]
fn h25_a_sink_of_another_deployment_is_refused_unless_it_is_taken_over_by_name() {
    let bench = Bench::new();
    let queue = queue_of(words("a | a,b | a"));
    let target = saved(&bench, &queue);
    queue.push(vec!["b".to_owned()]);
    // The original goes on, past the savepoint.
    let running =
        every_batch(bench.builder()).open(count(&queue, &bench.collection)).expect("opened").start().expect("started");
    bench.tick(&running);
    running.stop_gracefully().expect("stopped");

    let again = queue_of(words("b | a"));
    let start = |builder: Builder, queue: &Queue<String>| {
        builder.open(count(queue, &bench.collection)).and_then(StreamingContext::start)
    };
    let refused = start(other(&bench, "conformance", &target), &again).expect_err("the sink is of another deployment");
    assert_eq!(refused.kind(), ErrorKind::Restore);
    assert!(refused.to_string().contains("`out`") && refused.to_string().contains("another directory"), "{refused}");

    let running =
        start(other(&bench, "conformance", &target).take_over_sink("out"), &again).expect("by name it is taken over");
    running.await_committed(millpond_core::BatchTime::from_ms(4000), LIMIT).expect("the missed batch runs");
    running.stop_gracefully().expect("stopped");
    // The old deployment can never commit again, whatever it says.
    let refused = start(every_batch(bench.builder()).take_over_sink("out"), &queue).expect_err("it was shut out");
    assert!(refused.to_string().contains("another directory"), "{refused}");
}

#[test]
fn h25_what_is_no_whole_savepoint_is_refused_with_what_it_is() {
    let bench = Bench::new();
    let queue = queue_of(words("a | a,b | a"));
    let target = saved(&bench, &queue);
    let pond = bench.directory.path().join("pond");
    let text = |result: Result<StreamingContext>| result.expect_err("refused").to_string();
    let begin = |from: &Path| text(other(&bench, "other", from).open(count(&queue, &bench.collection)));

    let said = begin(&bench.directory.path().join("nowhere"));
    assert!(said.contains("nowhere") && said.contains("is not a savepoint"), "{said}");
    let said = begin(&pond);
    assert!(said.contains("pond") && said.contains("is not a savepoint"), "{said}");
    let said = text(every_batch(bench.builder()).directory(&target).open(count(&queue, &bench.collection)));
    assert!(said.contains("is a savepoint") && said.contains("from_savepoint"), "{said}");
    let said = savepoint(&pond, &target).expect_err("it is there already").to_string();
    assert!(said.contains("not empty"), "{said}");

    // A table of it is damaged.
    let files = target.join("checkpoints/files");
    let table = std::fs::read_dir(&files).expect("files").flatten().map(|entry| entry.path());
    let table = table.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "sst")).expect("a table");
    let mut bytes = std::fs::read(&table).expect("its bytes");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&table, &bytes).expect("written");
    let said = begin(&target);
    assert!(said.contains("is damaged"), "{said}");
    bytes[middle] ^= 1;
    std::fs::write(&table, &bytes).expect("written");

    // Its copying was cut off before the manifest.
    let manifests = target.join("checkpoints/manifests");
    for manifest in std::fs::read_dir(&manifests).expect("manifests").flatten() {
        std::fs::remove_file(manifest.path()).expect("removed");
    }
    let said = begin(&target);
    assert!(said.contains("not whole"), "{said}");
}
