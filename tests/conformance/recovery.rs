//! Section I of the cases: a sink's output over crashes.

use std::time::Instant;

use millpond_core::{BatchTime, StreamingContext, seconds};

use crate::support::*;

#[test]
fn i2_reduce_by_key_killed_after_three_batches_has_every_batch_once_in_order() {
    let bench = Bench::new();
    let queue = queue_of(words(r#"a,a,b | "","" | · | a,a,b | "","" | ·"#));
    let start = || {
        let context = bench.builder().checkpoint_interval(seconds(2)).open(|graph| {
            let words = graph.source("in", source(&queue)).map(|word| (word, 1_i64));
            words.reduce_by_key(|a, b| a + b).sink_json("out", bench.collection.sink());
            Ok(())
        });
        context.and_then(StreamingContext::start).expect("it starts")
    };
    let running = start();
    (0..3).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops, as killed");
    let running = start();
    (0..3).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");

    let expected = keyed(r#"a2 b1 | ""2 | · | a2 b1 | ""2 | ·"#);
    assert_eq!(sorted(bench.outputs::<(String, i64)>("out", 6)), expected);
    let times: Vec<u64> = bench.collection.committed("out").iter().map(|batch| batch.batch.as_ms()).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "each batch once, in order: {times:?}");
    assert_eq!(bench.collection.cursor("out").map(|cursor| cursor.batch), Some(BatchTime::from_ms(6000)));
}

#[test]
fn i15_groups_of_a_replayable_source_count_once_each_however_often_it_dies() {
    const GROUPS: u64 = 30;
    let bench = Bench::new();
    let groups: Vec<Vec<u64>> = (1..=GROUPS).map(|i| vec![i; i as usize]).collect();
    let queue = queue_of(groups);
    let seed = std::env::var("MILLPOND_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(15_u64);
    println!("MILLPOND_SEED={seed}");
    let mut state = seed | 1;
    let mut done = 0;
    while done < GROUPS {
        let context = bench.builder().checkpoint_interval(seconds(3)).open(|graph| {
            let groups = graph.source("in", source(&queue));
            // Once a group, in whichever partition its first record lies.
            groups
                .clone()
                .map(|i| (i, ()))
                .reduce_by_key(|(), ()| ())
                .map(|(i, ())| i)
                .sink_json("groups", bench.collection.sink());
            groups
                .map(|_| ((), 1_u64))
                .update_state_by_key("count", |new, old| Some(old.unwrap_or(0) + new.sum()))
                .map(|((), count)| count)
                .sink_json("counts", bench.collection.sink());
            Ok(())
        });
        let running = context.and_then(StreamingContext::start).expect("it recovers");
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        for _ in 0..=(state >> 60) % 5 {
            bench.tick(&running);
        }
        done = running.progress().committed.as_ms() / 1000;
        running.stop().expect("it stops, as killed");
    }
    let groups: Vec<u64> = bench.outputs::<u64>("groups", done).concat();
    assert_eq!(groups, (1..=GROUPS).collect::<Vec<_>>());
    let counts: Vec<u64> = bench.outputs::<u64>("counts", done).concat();
    let expected: Vec<u64> = (1..=done).map(|i| i.min(GROUPS)).map(|i| i * (i + 1) / 2).collect();
    assert_eq!(counts, expected, "a batch without input repeats the last value");
}

#[test]
fn k9_sources_have_numbers_in_the_order_of_the_graph() {
    let bench = Bench::new();
    let queues: Vec<_> = (1..=5_u64).map(|n| queue_of(vec![vec![n; n as usize]])).collect();
    let running = bench.start(|graph| {
        let streams = queues.iter().enumerate().map(|(n, queue)| graph.source(&format!("source-{n}"), source(queue)));
        graph.union(streams.collect::<Vec<_>>()).sink_json("out", bench.collection.sink());
        Ok(())
    });
    bench.tick(&running);
    let since = Instant::now();
    let batch = loop {
        match running.batches().completed().into_iter().next() {
            Some(batch) => break batch,
            None => assert!(since.elapsed() < LIMIT, "no batch has completed"),
        }
        std::thread::yield_now();
    };
    let inputs: Vec<_> = batch.inputs.iter().map(|input| (input.number, &*input.source, input.records)).collect();
    assert_eq!(
        inputs,
        [(0, "source-0", 1), (1, "source-1", 2), (2, "source-2", 3), (3, "source-3", 4), (4, "source-4", 5)]
    );
    running.stop().expect("it stops");
}
