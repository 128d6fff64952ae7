//! Section E of the cases: remember and slice.

use millpond_core::stream::Slices;
use millpond_core::{BatchTime, Result, Running, StreamingContext, seconds};

use crate::support::*;

/// 1|2|3|4, remembered for so many seconds.
fn remembered(bench: &Bench, for_seconds: u64) -> (Running, Slices<i64>) {
    let queue = queue_of(vec![vec![1_i64], vec![2], vec![3], vec![4]]);
    let opened = bench.builder().open_with(|graph| {
        let (numbers, slices) = graph.source("numbers", source(&queue)).remember(seconds(for_seconds));
        numbers.map(|n| 10 * n).sink_json("out", bench.collection.sink());
        Ok(slices)
    });
    let (context, slices) = opened.expect("it opens");
    (context.start().expect("it starts"), slices)
}

fn try_slice(slices: &Slices<i64>, from_ms: u64, to_ms: u64) -> Result<Vec<i64>> {
    slices.slice(BatchTime::from_ms(from_ms), BatchTime::from_ms(to_ms), |batches| {
        let batches = batches.iter().map(|batch| batch.collect()).collect::<Result<Vec<_>>>()?;
        Ok(batches.concat())
    })
}

fn slice(slices: &Slices<i64>, from_ms: u64, to_ms: u64) -> Vec<i64> {
    try_slice(slices, from_ms, to_ms).expect("kept")
}

#[test]
fn e1_slice() {
    let bench = Bench::new();
    let (running, slices) = remembered(&bench, 10);
    (0..4).for_each(|_| bench.tick(&running));
    assert_eq!(slice(&slices, 0, 1000), [1]);
    assert_eq!(slice(&slices, 0, 2000), [1, 2]);
    assert_eq!(slice(&slices, 1000, 2000), [1, 2]);
    assert_eq!(slice(&slices, 2000, 4000), [2, 3, 4]);
    // Floored to the slide; what is not computed yet is not there; an empty range is empty.
    assert_eq!(slice(&slices, 1999, 3999), [1, 2, 3]);
    assert_eq!(slice(&slices, 3000, 60_000), [3, 4]);
    assert_eq!(slice(&slices, 3000, 2000), [0; 0]);
    let times = slices.slice(BatchTime::from_ms(0), BatchTime::from_ms(9000), |batches| {
        Ok(batches.iter().map(|batch| batch.batch_time().as_ms()).collect::<Vec<_>>())
    });
    assert_eq!(times.expect("kept"), [1000, 2000, 3000, 4000]);
    running.stop().expect("it stops");
    assert_eq!(slice(&slices, 0, 2000), [1, 2], "also when the context has stopped");
    assert_eq!(bench.outputs::<i64>("out", 4), [[10], [20], [30], [40]]);
}

#[test]
fn e1_what_is_remembered_no_more_is_an_error_that_says_so() {
    let bench = Bench::new();
    let (running, slices) = remembered(&bench, 2);
    (0..4).for_each(|_| bench.tick(&running));
    // At least two seconds: of 2 s, 3 s and 4 s.
    assert_eq!(slice(&slices, 2000, 4000), [2, 3, 4]);
    let error = try_slice(&slices, 1000, 4000).expect_err("forgotten").to_string();
    assert!(error.contains("batch 1000 ms of `numbers` is not kept") && error.contains("2000 ms"), "{error}");
    running.stop().expect("it stops");
}

#[test]
fn e1_what_a_stream_downstream_remembers_or_a_window_holds_is_kept_of_its_parents_too() {
    // What the stream is remembered for itself, what is made of it, and how long it is kept then.
    type Downstream = (&'static str, u64, Option<u64>);
    let cases: [(Downstream, u64); 4] = [
        (("map", 0, None), 1),
        // A window's own slide, and its length.
        (("window", 3, None), 2 + 3),
        (("window", 3, Some(4)), 4 + 3),
        (("map", 0, Some(4)), 4),
    ];
    for (downstream, kept_s) in cases {
        let bench = Bench::new();
        let queue = queue_of((1..=12_i64).map(|n| vec![n]).collect());
        let opened = bench.builder().open_with(|graph| {
            let (numbers, slices) = graph.source("numbers", source(&queue)).remember(seconds(1));
            let made = match downstream {
                (_, 0, _) => numbers.map(|n| 10 * n),
                (_, length, _) => numbers.map(|n| 10 * n).window("w", seconds(length), seconds(2)).filter(|n| *n > 0),
            };
            match downstream {
                (_, _, Some(remembered)) => {
                    made.remember(seconds(remembered)).0.sink_json("out", bench.collection.sink())
                }
                _ => made.sink_json("out", bench.collection.sink()),
            }
            Ok(slices)
        });
        let (context, slices) = opened.expect("it opens");
        let running = context.start().expect("it starts");
        (0..12).for_each(|_| bench.tick(&running));
        let oldest = 12 - kept_s;
        assert_eq!(slice(&slices, oldest * 1000, 12_000), (oldest as i64..=12).collect::<Vec<_>>(), "{downstream:?}");
        try_slice(&slices, (oldest - 1) * 1000, 12_000).expect_err("no more than that is kept");
        running.stop().expect("it stops");
    }
}

#[test]
fn e2_slice_before_the_start() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64]]);
    let opened = bench.builder().open_with(|graph| Ok(graph.source("numbers", source(&queue)).remember(seconds(10)).1));
    let (context, slices) = opened.expect("being remembered is reason enough to be computed");
    let error = try_slice(&slices, 0, 1000).expect_err("too early").to_string();
    assert!(error.contains("has not been initialized") && error.contains("`numbers`"), "{error}");
    let running = context.start().expect("it starts");
    bench.tick(&running);
    assert_eq!(slice(&slices, 0, 1000), [1]);
    running.stop().expect("it stops");
}

#[test]
fn e6_remember_twice() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64]]);
    let opened = bench.builder().open(|graph| {
        let (numbers, _) = graph.source("numbers", source(&queue)).remember(seconds(10));
        let (numbers, _) = numbers.remember(seconds(20));
        numbers.print(1);
        Ok(())
    });
    let error: String = opened.map(drop).map_err(|error| error.to_string()).expect_err("twice");
    assert!(error.contains("remembered already") && error.contains("`numbers`"), "{error}");
}

#[test]
fn slices_after_a_restart_have_what_was_computed_since() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64], vec![2]]);
    let open = || {
        let opened = bench.builder().open_with(|graph| {
            let (numbers, slices) = graph.source("numbers", source(&queue)).remember(seconds(10));
            numbers.sink_json("out", bench.collection.sink());
            Ok(slices)
        });
        let (context, slices) = opened.expect("it opens");
        (StreamingContext::start(context).expect("it starts"), slices)
    };
    let (running, _) = open();
    (0..2).for_each(|_| bench.tick(&running));
    running.stop_gracefully().expect("it stops");
    queue.push(vec![3]);
    let (running, slices) = open();
    bench.tick(&running);
    let last = running.progress().committed;
    assert_eq!(slice(&slices, last.as_ms(), last.as_ms()), [3]);
    let error = try_slice(&slices, 1000, last.as_ms()).expect_err("of before").to_string();
    assert!(error.contains("batch 1000 ms") && error.contains("nothing from before its start"), "{error}");
    running.stop().expect("it stops");
}
