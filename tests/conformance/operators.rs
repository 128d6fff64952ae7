//! Section B of the cases: stateless operators, and H14: a stream used twice is computed once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::*;

fn i3() -> Vec<Vec<i64>> {
    vec![(1..=4).collect(), (5..=8).collect(), (9..=12).collect()]
}

fn offset_batches() -> Vec<Vec<i64>> {
    vec![(1..=4).collect(), (101..=104).collect(), (201..=204).collect()]
}

#[test]
fn b1_map() {
    let expected: Vec<Vec<String>> = i3().iter().map(|batch| batch.iter().map(i64::to_string).collect()).collect();
    assert_eq!(run_ordered(i3(), 3, |s| s.map(|n| n.to_string())), expected);
}

#[test]
fn b2_flat_map() {
    let outputs = run_ordered(i3(), 3, |s| s.flat_map(|n| [n, 2 * n]));
    assert_eq!(outputs[0], [1, 2, 2, 4, 3, 6, 4, 8]);
    assert_eq!(outputs[2], [9, 18, 10, 20, 11, 22, 12, 24]);
}

#[test]
fn b3_filter() {
    assert_eq!(run_ordered(i3(), 3, |s| s.filter(|n| n % 2 == 0)), [[2, 4], [6, 8], [10, 12]]);
}

#[test]
fn b4_glom() {
    assert_eq!(run_ordered(i3(), 3, |s| s.glom()), [[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10], [11, 12]]]);
}

#[test]
fn b5_map_partitions() {
    assert_eq!(
        run_ordered(i3(), 3, |s| s.map_partitions(|records| [records.sum::<i64>()])),
        [[3, 7], [11, 15], [19, 23]]
    );
}

#[test]
fn b7_group_by_key() {
    let outputs = run(words("a,a,b | \"\",\"\" | ·"), 3, |s| s.map(|word| (word, 1)).group_by_key());
    let pair = |key: &str, values: &[i32]| (key.to_owned(), values.to_vec());
    assert_eq!(outputs, [vec![pair("a", &[1, 1]), pair("b", &[1])], vec![pair("", &[1, 1])], vec![]]);
}

#[test]
fn b8_reduce_by_key() {
    let outputs = run(words("a,a,b | \"\",\"\" | ·"), 3, |s| s.map(|word| (word, 1)).reduce_by_key(|a, b| a + b));
    assert_eq!(outputs, keyed("a2 b1 | \"\"2 | ·"));
}

#[test]
fn b9_reduce() {
    assert_eq!(run_ordered(i3(), 4, |s| s.reduce(|a, b| a + b)), [vec![10], vec![26], vec![42], vec![]]);
}

#[test]
fn b10_count() {
    let batches = vec![vec![], vec![1], vec![1, 2], vec![1, 2, 3], vec![1, 2, 3, 4]];
    assert_eq!(run_ordered(batches, 6, |s| s.count()), [[0], [1], [2], [3], [4], [0]]);
}

#[test]
fn b12_reduce_by_key_then_map_values() {
    let outputs = run(words("a,a,b | \"\",\"\" | ·"), 3, |s| {
        s.map(|word| (word, 1)).reduce_by_key(|a, b| a + b).map_values(|n| n + 10)
    });
    assert_eq!(outputs, keyed("a12 b11 | \"\"12 | ·"));
}

#[test]
fn b14_union() {
    let outputs = run_ordered(offset_batches(), 3, |s| s.clone().union(s.map(|n| n + 4)));
    assert_eq!(outputs[0], (1..=8).collect::<Vec<_>>());
    assert_eq!(outputs[1], (101..=108).collect::<Vec<_>>());
    assert_eq!(outputs[2], (201..=208).collect::<Vec<_>>());
}

#[test]
fn b15_union_of_many() {
    let bench = Bench::new();
    let queue = queue_of(offset_batches());
    let running = bench.start(|graph| {
        let stream = graph.source("in", source(&queue));
        let streams = [stream.clone(), stream.clone().map(|n| n + 4), stream.map(|n| n + 8)];
        graph.union(streams).sink_json("out", bench.collection.sink());
        Ok(())
    });
    (0..3).for_each(|_| bench.tick(&running));
    let outputs = bench.outputs::<i64>("out", 3);
    assert_eq!(outputs[0], (1..=12).collect::<Vec<_>>());
    assert_eq!(outputs[2], (201..=212).collect::<Vec<_>>());
}

#[test]
fn b16_transform_and_transform_with() {
    let expected: Vec<Vec<String>> = i3().iter().map(|batch| batch.iter().map(i64::to_string).collect()).collect();
    assert_eq!(run_ordered(i3(), 3, |s| s.transform(|rdd, _| rdd.map(|n| n.to_string()))), expected);
    let outputs = run_ordered(offset_batches(), 3, |s| {
        s.clone().transform_with(s.map(|n| n + 4), |left, right, _| left.union(right))
    });
    assert_eq!(outputs[1], (101..=108).collect::<Vec<_>>());
}

#[test]
fn count_by_value() {
    let outputs = run(words("a,b,a | b"), 2, |s| s.count_by_value().map_values(|n| n as i64));
    assert_eq!(outputs, keyed("a2 b1 | b1"));
}

#[test]
fn h14_a_stream_with_two_outputs_is_computed_once_a_batch() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64, 2, 3]]);
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let running = bench.start(|graph| {
        let stream = graph.source("in", source(&queue)).map(move |n| {
            counted.fetch_add(1, Ordering::Relaxed);
            (n % 2, n)
        });
        let sums = stream.update_state_by_key("sums", |new, sum| Some(sum.unwrap_or(0) + new.sum()));
        sums.clone().sink_json("one", bench.collection.sink());
        sums.sink_json("two", bench.collection.sink());
        Ok(())
    });
    (0..2).for_each(|_| bench.tick(&running));
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    for sink in ["one", "two"] {
        assert_eq!(sorted(bench.outputs::<(i64, i64)>(sink, 2)), [[(0, 2), (1, 4)], [(0, 2), (1, 4)]]);
    }
}

#[test]
fn state_upstream_of_a_transform_moves_on_though_the_function_leaves_it_aside() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64], vec![2], vec![3]]);
    let running = bench.start(|graph| {
        let keyed = graph.source("in", source(&queue)).map(|n| (0_u8, n));
        let sums = keyed.update_touched_by_key("sum", |new, old| Some(old.unwrap_or(0) + new.sum()));
        let numbers = graph.source("empty", source(&queue_of(vec![]))).map(|n: i64| (0_u8, n));
        // Looks at the sums every third second only.
        sums.transform_with(numbers, |sums, empty, time| if time.as_ms() % 3000 == 0 { sums } else { empty })
            .sink_json("out", bench.collection.sink());
        Ok(())
    });
    (0..3).for_each(|_| bench.tick(&running));
    assert_eq!(bench.outputs::<(u8, i64)>("out", 3), [vec![], vec![], vec![(0, 6)]]);
}
