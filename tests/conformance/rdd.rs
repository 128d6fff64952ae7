//! Data sets beside streams: the same functions for both, joined in `transform`, and what the checkpoint knows of them (H17).

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_core::{Graph, Rdd, Result, StreamingContext};

use crate::support::*;

/// The same function for history and stream.
fn long_words(words: Rdd<String>) -> Rdd<(String, u64)> {
    words.filter(|word| word.len() > 2).map(|word| (word, 1)).reduce_by_key(|a, b| a + b)
}

#[test]
fn the_same_function_serves_history_and_stream() {
    let history = tempfile::tempdir().expect("a temporary directory");
    fs::write(history.path().join("words.txt"), "once\nonce\nat\nmore\n").expect("written");
    let batch = millpond_core::BatchContext::new();
    let mut counts = long_words(batch.text_file(history.path()).expect("it is there")).collect().expect("computed");
    counts.sort();
    assert_eq!(counts, [("more".to_owned(), 1), ("once".to_owned(), 2)]);
    let outputs =
        run(words("once,at | once,once"), 2, |s| s.transform(|words, _| long_words(words)).map_values(|n| n as i64));
    assert_eq!(outputs, keyed("once1 | once2"));
}

#[test]
fn a_stream_is_joined_with_a_data_set_that_is_computed_once() {
    let bench = Bench::new();
    let users = bench.directory.path().join("users.csv");
    fs::write(&users, "1,Ada\n2,Brook\n3,Cleo\n").expect("written");
    let clicks = queue_of(vec![vec![1_u64, 2, 1], vec![3, 9], vec![], vec![2]]);
    let parsed = Arc::new(AtomicU64::new(0));
    let counter = parsed.clone();
    let running = bench.start(|graph| {
        let users = graph.batch().text_file(&users)?;
        let users = users
            .map(move |line| {
                counter.fetch_add(1, Ordering::Relaxed);
                let (id, name) = line.split_once(',').expect("two fields");
                (id.parse::<u64>().expect("a number"), name.to_owned())
            })
            .cache();
        let others = users.clone();
        let clicks = graph.source("in", source(&clicks)).map(|user| (user, ()));
        clicks
            .clone()
            .transform(move |rdd, _| rdd.join(&users))
            .map_values(|(_, name)| name)
            .sink_json("out", bench.collection.sink());
        // The data set on the left, and a stateful operator behind: it belongs to the batch all the same.
        clicks
            .transform(move |rdd, _| {
                others.clone().left_outer_join(rdd).map(|(_, (name, click))| (name, u64::from(click.is_some())))
            })
            .update_state_by_key("clicks", |new, old| Some(old.unwrap_or(0) + new.sum()))
            .sink_json("totals", bench.collection.sink());
        Ok(())
    });
    (0..4).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    let pair = |id: u64, name: &str| (id, name.to_owned());
    let outputs = sorted(bench.outputs::<(u64, String)>("out", 4));
    assert_eq!(
        outputs,
        [vec![pair(1, "Ada"), pair(1, "Ada"), pair(2, "Brook")], vec![pair(3, "Cleo")], vec![], vec![pair(2, "Brook")]]
    );
    let totals = sorted(bench.outputs::<(String, u64)>("totals", 4));
    assert_eq!(totals[3], [("Ada".to_owned(), 2), ("Brook".to_owned(), 2), ("Cleo".to_owned(), 1)]);
    assert_eq!(parsed.load(Ordering::Relaxed), 3, "the cached data set is computed once, not once a batch");
}

#[test]
fn h17_a_data_set_that_has_changed_while_batches_are_to_be_replayed_is_named() {
    let bench = Bench::new();
    let limits = bench.directory.path().join("limits.txt");
    fs::write(&limits, "2\n").expect("written");
    let queue = queue_of(vec![vec![1_u64, 2, 3], vec![4]]);
    let pipeline = |graph: &Graph| -> Result<()> {
        let limits = graph.batch().text_file(&limits)?.map(|line| (line.parse::<u64>().expect("a number"), ())).cache();
        graph
            .source("in", source(&queue))
            .map(|n| (n, ()))
            .transform(move |rdd, _| rdd.join(&limits).keys())
            .sink_json("out", bench.collection.sink());
        Ok(())
    };
    let running = bench.start(pipeline);
    (0..2).for_each(|_| bench.tick(&running));
    // Stopped at once: both batches are committed and stand behind the checkpoint.
    running.stop().expect("it stops");

    fs::write(&limits, "3\n").expect("written");
    let error = bench.builder().open(pipeline).and_then(StreamingContext::start).expect_err("the data set has changed");
    let text = error.to_string();
    assert!(text.contains("data set") && text.contains("limits.txt") && text.contains("2000 ms"), "{text}");

    // The content decides, not the time of the file.
    fs::write(&limits, "2\n").expect("written");
    let running = bench.start(pipeline);
    bench.tick(&running);
    running.stop().expect("it stops");
    assert_eq!(bench.outputs::<u64>("out", 3), [vec![2], vec![], vec![]]);
}

#[test]
fn h17_a_broadcast_value_that_has_changed_while_batches_are_to_be_replayed_is_named() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_u64, 2, 3], vec![4]]);
    let open = |factor: u64| {
        let opened = bench.builder().open(|graph| {
            let factor = graph.batch().broadcast("factor", factor)?;
            graph.source("in", source(&queue)).map(move |n| n * *factor).sink_json("out", bench.collection.sink());
            Ok(())
        });
        opened.and_then(StreamingContext::start)
    };
    let running = open(2).expect("it starts");
    (0..2).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    let text = open(3).expect_err("another value").to_string();
    assert!(text.contains("broadcast factor") && text.contains("2000 ms"), "{text}");
    let running = open(2).expect("the code made the same value again");
    running.stop().expect("it stops");
    assert_eq!(bench.outputs::<u64>("out", 2), [vec![2, 4, 6], vec![8]]);
}

#[test]
fn h13_a_broadcast_value_whose_bytes_are_in_no_order_is_refused() {
    let batch = millpond_core::BatchContext::new();
    let map: std::collections::HashMap<u64, u64> = (0..20).map(|n| (n, n)).collect();
    let error = batch.broadcast("rates", map.clone()).expect_err("a hash map").to_string();
    assert!(error.contains("`rates`") && error.contains("BTreeMap"), "{error}");
    let sorted: std::collections::BTreeMap<u64, u64> = map.into_iter().collect();
    assert_eq!(batch.broadcast("rates", sorted).expect("its bytes are always the same").len(), 20);
}
