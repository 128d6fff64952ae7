//! Section F of the cases: windows.

use std::time::Duration;

use millpond_core::{DStream, Graph, milliseconds, seconds};

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
    opened.err().expect("it is refused").to_string()
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
