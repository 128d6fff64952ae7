//! Section F of the cases: windows.

use std::time::Duration;

use millpond_core::source::Queue;
use millpond_core::{DStream, Graph, Result, milliseconds, seconds};

use crate::support::*;

const BIG: &str = "a | a,b | a,b,c | a,b | a | · | a | a,b | a,b,c | a,b | a | ·";

fn n() -> Vec<Vec<i64>> {
    (0..6).map(|n| vec![n]).collect()
}

fn ones<'g>(s: DStream<'g, String>) -> DStream<'g, (String, i64)> {
    s.map(|word| (word, 1))
}

/// The sum of each key over two batches, at each batch.
fn naive<'g>(s: DStream<'g, (String, i64)>) -> DStream<'g, (String, i64)> {
    s.reduce_by_key_and_window_without_inverse("sums", |a, b| a + b, seconds(2), seconds(1))
}

fn inverse<'g>(s: DStream<'g, (String, i64)>) -> DStream<'g, (String, i64)> {
    s.reduce_by_key_and_window("sums", |a, b| a + b, |a, b| a - b, seconds(2), seconds(1))
}

fn filtered<'g>(s: DStream<'g, (String, i64)>) -> DStream<'g, (String, i64)> {
    s.reduce_by_key_and_window_filtered("sums", |a, b| a + b, |a, b| a - b, |_, n| *n != 0, seconds(2), seconds(1))
}

#[test]
fn f1_window_of_two_batches() {
    let outputs = run(n(), 7, |s| s.window("w", seconds(2), seconds(1)));
    assert_eq!(outputs, [vec![0], vec![0, 1], vec![1, 2], vec![2, 3], vec![3, 4], vec![4, 5], vec![5]]);
}

#[test]
fn f2_window_with_a_slide() {
    let outputs = run(n(), 8, |s| s.window("w", seconds(2), seconds(2)));
    assert_eq!(outputs, [vec![], vec![0, 1], vec![], vec![2, 3], vec![], vec![4, 5], vec![], vec![]]);
}

#[test]
fn a_slide_longer_than_the_window_leaves_gaps() {
    let outputs = run(n(), 6, |s| s.window("w", seconds(1), seconds(3)));
    assert_eq!(outputs, [vec![], vec![], vec![2], vec![], vec![], vec![5]]);
    let expected = [vec![], vec![], vec![((), 2)], vec![], vec![], vec![((), 5)]];
    assert_eq!(
        run(n(), 6, |s| s.map(|n| ((), n)).reduce_by_key_and_window(
            "w",
            |a, b| a + b,
            |a, b| a - b,
            seconds(1),
            seconds(3)
        )),
        expected
    );
    assert_eq!(
        run(n(), 6, |s| {
            s.map(|n| ((), n)).reduce_by_key_and_window_without_inverse("w", |a, b| a + b, seconds(1), seconds(3))
        }),
        expected
    );
}

/// What opening a pipeline with this operator says.
fn refused(operator: impl for<'g> FnOnce(&Graph<'g>, DStream<'g, i64>)) -> String {
    let bench = Bench::new();
    let opened = bench.builder().open(|graph| {
        operator(graph, graph.source("in", source(&queue_of(n()))));
        Ok(())
    });
    opened.expect_err("it is refused").to_string()
}

#[test]
fn f5_durations_that_are_no_multiples_are_refused() {
    let out = millpond_testkit::Collection::new();
    for (length, slide, says) in [
        (milliseconds(2500), seconds(1), "2.5s"),
        (seconds(2), milliseconds(1500), "1.5s"),
        (seconds(2), Duration::ZERO, "0ns"),
        (Duration::ZERO, seconds(1), "0ns"),
    ] {
        let said = refused(|_, s| s.window("recent", length, slide).sink_json("out", out.sink()));
        assert!(said.contains(says) && said.contains("1s") && said.contains("multiple"), "{said}");
        assert!(said.contains("recent") && said.contains("`in`"), "{said}");
    }
    // The parent's slide counts, not the batch interval.
    let said = refused(|_, s| {
        let slow = s.window("slow", seconds(2), seconds(2));
        slow.window("recent", seconds(3), seconds(2)).sink_json("out", out.sink());
    });
    assert!(said.contains("3s") && said.contains("2s") && said.contains("recent"), "{said}");
}

fn slow<'g>(s: &DStream<'g, i64>) -> DStream<'g, i64> {
    s.clone().window("slow", seconds(2), seconds(2)).map(|n| n)
}

#[test]
fn c6_streams_of_different_slides_are_not_brought_together() {
    let out = millpond_testkit::Collection::new();
    let check = |what: &str, said: String| {
        for part in ["`in`", "`slow`", "1s", "2s", "slide"] {
            assert!(said.contains(part), "{what}: {part} is not in: {said}");
        }
    };
    check("union", refused(|_, s| slow(&s).union(s).sink_json("out", out.sink())));
    check("context-wide union", refused(|graph, s| graph.union([s.clone(), slow(&s)]).sink_json("out", out.sink())));
    check(
        "transform_with",
        refused(|_, s| slow(&s).transform_with(s, |a, b, _| a.union(b)).sink_json("out", out.sink())),
    );
    check("join", refused(|_, s| slow(&s).key_by(|n| *n).join(s.key_by(|n| *n)).sink_json("out", out.sink())));
    check("cogroup", refused(|_, s| slow(&s).key_by(|n| *n).cogroup(s.key_by(|n| *n)).sink_json("out", out.sink())));
    let none = refused(|graph, s| {
        s.sink_json("out", out.sink());
        graph.union(Vec::new()).map(|n: i64| n).sink_json("none", out.sink());
    });
    assert!(none.contains("union of no streams"), "{none}");
}

#[test]
fn streams_of_one_slide_are_brought_together() {
    let outputs = run(n(), 4, |s| {
        let one = s.clone().window("one", seconds(2), seconds(2));
        one.union(s.window("two", seconds(1), seconds(2)))
    });
    assert_eq!(outputs, [vec![], vec![0, 1, 1], vec![], vec![2, 3, 3]]);
}

#[test]
fn operators_behind_a_window_run_at_its_slides_only() {
    let counts = run(n(), 4, |s| s.window("w", seconds(1), seconds(2)).count());
    assert_eq!(counts, [vec![], vec![1], vec![], vec![1]]);
    let state = run(n(), 4, |s| {
        s.window("w", seconds(1), seconds(2))
            .map(|_| ((), 1))
            .update_state_by_key("runs", |new, old: Option<i64>| Some(old.unwrap_or(0) + 10 + new.sum()))
    });
    assert_eq!(state, [vec![], vec![((), 11)], vec![], vec![((), 22)]]);
}

#[test]
fn a_window_of_a_window() {
    let outputs = run(n(), 6, |s| s.window("one", seconds(2), seconds(2)).window("two", seconds(4), seconds(2)));
    assert_eq!(outputs, [vec![], vec![0, 1], vec![], vec![0, 1, 2, 3], vec![], vec![2, 3, 4, 5]]);
}

#[test]
fn f7_f8_f9_reduce_by_key_and_window() {
    for windowed in [naive, inverse, filtered] {
        assert_eq!(run(vec![keyed("a1 a3").concat()], 1, windowed), keyed("a4"));
        assert_eq!(run(words("a | a"), 2, |s| windowed(ones(s))), keyed("a1 | a2"));
        assert_eq!(run(words("a | a,b"), 2, |s| windowed(ones(s))), keyed("a1 | a2 b1"));
    }
}

#[test]
fn f10_what_is_left_of_a_key() {
    assert_eq!(run(words("a | a | · | ·"), 4, |s| naive(ones(s))), keyed("a1 | a2 | a1 | ·"));
    assert_eq!(run(words("a | a | · | ·"), 4, |s| inverse(ones(s))), keyed("a1 | a2 | a1 | a0"));
}

#[test]
fn f12_big_naive_and_inverse_with_filter() {
    let expected =
        keyed("a1 | a2 b1 | a2 b2 c1 | a2 b2 c1 | a2 b1 | a1 | a1 | a2 b1 | a2 b2 c1 | a2 b2 c1 | a2 b1 | a1");
    assert_eq!(run(words(BIG), 12, |s| naive(ones(s))), expected);
    assert_eq!(run(words(BIG), 12, |s| filtered(ones(s))), expected);
}

#[test]
fn f13_big_inverse_without_filter() {
    assert_eq!(
        run(words(BIG), 12, |s| inverse(ones(s))),
        keyed(
            "a1 | a2 b1 | a2 b2 c1 | a2 b2 c1 | a2 b1 c0 | a1 b0 c0 | a1 b0 c0 | a2 b1 c0 | a2 b2 c1 | a2 b2 c1 | a2 b1 c0 | a1 b0 c0"
        )
    );
}

#[test]
fn f15_count_by_window() {
    let counts = run(words("1 | 1 | 1,2 | 0 | · | ·"), 6, |s| s.count_by_window("n", seconds(2), seconds(1)));
    assert_eq!(counts, [[1], [2], [3], [3], [1], [0]]);
}

#[test]
fn f16_count_by_window_has_always_one_element() {
    let counts = run(words("· | · | x | · | ·"), 5, |s| s.count_by_window("n", seconds(2), seconds(1)));
    assert_eq!(counts, [[0], [0], [1], [1], [0]]);
}

#[test]
fn f18_f19_reduce_by_window() {
    let input = || vec![vec![1, 2, 3], vec![4, 5, 6], vec![7, 8, 9], vec![], vec![]];
    let without = run(input(), 5, |s| s.reduce_by_window_without_inverse("sum", |a, b| a + b, seconds(2), seconds(1)));
    assert_eq!(without, [vec![6], vec![21], vec![39], vec![24], vec![]]);
    let with = run(input(), 5, |s| s.reduce_by_window("sum", |a, b| a + b, |a, b| a - b, seconds(2), seconds(1)));
    assert_eq!(with, [vec![6], vec![21], vec![39], vec![24], vec![0]]);
}

#[test]
fn f21_count_by_value_and_window() {
    let counts = run(words("hello,world | hello,moon | hello"), 3, |s| {
        s.count_by_value_and_window("n", seconds(2), seconds(1)).map(|(word, count)| (word, count as i64))
    });
    assert_eq!(counts, keyed("hello1 world1 | hello2 world1 moon1 | hello2 moon1"));
}

#[test]
fn f24_a_key_dropped_while_a_pane_holds_it() {
    let batches: Vec<_> = keyed("a1 | a-1 | a5 | ·");
    assert_eq!(run(batches, 4, filtered), keyed("a1 | · | a4 | a5"));
}

#[test]
fn the_order_of_panes_is_kept() {
    let letters = words("a | b | c | d | e | · | f");
    let outputs = run(letters, 7, |s| s.reduce_by_window_without_inverse("all", |a, b| a + &b, seconds(3), seconds(1)));
    assert_eq!(outputs.concat(), ["a", "ab", "abc", "bcd", "cde", "de", "ef"]);
}

#[test]
fn group_by_key_and_window() {
    let outputs = run(vec![keyed("a1 b2 a3").concat(), keyed("a4").concat(), vec![]], 4, |s| {
        s.group_by_key_and_window("groups", seconds(2), seconds(1))
    });
    let of = |key: &str, values: &[i64]| (key.to_owned(), values.to_vec());
    assert_eq!(
        outputs,
        [vec![of("a", &[1, 3]), of("b", &[2])], vec![of("a", &[1, 3, 4]), of("b", &[2])], vec![of("a", &[4])], vec![]]
    );
}

#[test]
fn the_top_of_a_window() {
    let top = run_ordered(words("a,b,a | b,b,c | ·"), 3, |s| {
        s.map(|word| (word, 1))
            .reduce_by_key_and_window("trend", |a, b| a + b, |a, b| a - b, seconds(2), seconds(1))
            .transform(|rdd, _| rdd.top_by(2, |(_, n)| *n))
    });
    let of = |key: &str, n: i64| (key.to_owned(), n);
    assert_eq!(top[..2], [vec![of("a", 2), of("b", 1)], vec![of("b", 3), of("a", 2)]]);
}

/// A run of these batches more on the bench's directory, ended gracefully, so that another program may follow.
fn run_on<T>(bench: &Bench, queue: &Queue<T>, input: Vec<T>, pipeline: impl FnOnce(&Graph<'_>) -> Result<()>) {
    let batches = input.len();
    input.into_iter().for_each(|record| queue.push(vec![record]));
    let running = bench.start(pipeline);
    (0..batches).for_each(|_| bench.tick(&running));
    running.stop_gracefully().expect("it stops");
}

#[test]
fn a_changed_length_goes_on_with_the_panes_there_are() {
    let bench = Bench::new();
    let queue = Queue::new();
    let input = |range: std::ops::RangeInclusive<i64>| range.map(|n| ((), n)).collect();
    let with = |length: u64, slide: u64| {
        let (queue, bench) = (&queue, &bench);
        move |graph: &Graph<'_>| {
            let (length, slide) = (seconds(length), seconds(slide));
            let records = graph.source("in", source(queue));
            records.clone().window("records", length, slide).sink_json("records-out", bench.collection.sink());
            records
                .clone()
                .reduce_by_key_and_window("sums", |a, b| a + b, |a, b| a - b, length, slide)
                .sink_json("sums-out", bench.collection.sink());
            records
                .reduce_by_key_and_window_without_inverse("stacks", |a, b| a + b, length, slide)
                .sink_json("stacks-out", bench.collection.sink());
            Ok(())
        }
    };
    run_on(&bench, &queue, input(1..=3), with(2, 1));
    run_on(&bench, &queue, input(4..=6), with(4, 1));
    run_on(&bench, &queue, input(7..=7), with(1, 1));
    run_on(&bench, &queue, input(8..=9), with(3, 3));
    let sums = [1, 3, 5, 2 + 3 + 4, 2 + 3 + 4 + 5, 3 + 4 + 5 + 6, 7, 0, 7 + 8 + 9];
    for (sink, sum_of) in [("records-out", true), ("sums-out", false), ("stacks-out", false)] {
        let outputs: Vec<Vec<((), i64)>> = bench.outputs(sink, 9);
        let put_out: Vec<i64> = outputs.iter().map(|batch| batch.iter().map(|(_, n)| n).sum()).collect();
        assert_eq!(put_out, sums, "{sink}");
        assert!(sum_of || outputs.iter().all(|batch| batch.len() <= 1), "{sink}: {outputs:?}");
    }
}

#[test]
fn h18_a_changed_batch_interval_is_refused_where_a_window_stands_on_it() {
    let bench = Bench::new();
    let queue = Queue::new();
    let pipeline = |graph: &Graph<'_>| {
        graph
            .source("in", source(&queue))
            .window("recent", seconds(4), seconds(2))
            .sink_json("out", bench.collection.sink());
        Ok(())
    };
    run_on(&bench, &queue, vec![0, 1, 2_i64], pipeline);
    let started = bench.builder().batch_interval(seconds(2)).open(pipeline).and_then(|context| context.start());
    let said = started.expect_err("it is refused").to_string();
    assert!(said.contains("recent") && said.contains("1000 ms") && said.contains("2000 ms"), "{said}");
}

#[test]
fn a_window_that_leads_nowhere_takes_its_panes_in_all_the_same() {
    let bench = Bench::new();
    let queue = Queue::new();
    let pipeline = |used: bool| {
        let (queue, bench) = (&queue, &bench);
        move |graph: &Graph<'_>| {
            let records = graph.source("in", source(queue));
            records.clone().sink_json("in-out", bench.collection.sink());
            let window = records.map(|n| ((), n)).reduce_by_key_and_window_without_inverse(
                "w",
                |a, b| a + b,
                seconds(3),
                seconds(1),
            );
            if used {
                window.sink_json("out", bench.collection.sink());
            }
            Ok(())
        }
    };
    run_on(&bench, &queue, vec![0, 1, 2_i64], pipeline(false));
    run_on(&bench, &queue, vec![3, 4], pipeline(true));
    let outputs: Vec<Vec<((), i64)>> = bench.outputs("out", 5);
    assert_eq!(outputs[3..], [vec![((), 1 + 2 + 3)], vec![((), 2 + 3 + 4)]]);
}

#[test]
fn a_removed_window_goes_with_its_panes_when_it_is_named() {
    let bench = Bench::new();
    let queue = Queue::new();
    let pipeline = |windowed: bool| {
        let (queue, bench) = (&queue, &bench);
        move |graph: &Graph<'_>| {
            let records = graph.source("in", source(queue));
            records.clone().sink_json("in-out", bench.collection.sink());
            if windowed {
                records
                    .count_by_window("n", seconds(3), seconds(1))
                    .for_each_rdd(|_, _| Ok::<_, millpond_core::Error>(()));
            }
            Ok(())
        }
    };
    run_on(&bench, &queue, vec![0, 1, 2_i64], pipeline(true));
    let refused = bench.builder().open(pipeline(false)).and_then(|context| context.start());
    let said = refused.expect_err("it is refused").to_string();
    assert!(said.contains("`n`"), "{said}");
    let running = bench.builder().removed("n").open(pipeline(false)).and_then(|context| context.start());
    let running = running.expect("it starts");
    bench.tick(&running);
    running.stop().expect("it stops");
}
