//! Section B of the cases: stateless operators, and H14: a stream used twice is computed once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_core::rdd::StorageLevel;
use millpond_core::{BatchContext, DStream, Graph, Rdd, Result};

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
fn b19_transform_of_many() {
    let bench = Bench::new();
    let queue = queue_of(offset_batches());
    let running = bench.start(|graph| {
        let stream = graph.source("in", source(&queue));
        let streams = [stream.clone(), stream.clone().map(|n| n + 4), stream.map(|n| n + 8)];
        let united = graph.transform(streams, |rdds, _| rdds.into_iter().reduce(Rdd::union).expect("three"));
        united.sink_json("out", bench.collection.sink());
        Ok(())
    });
    (0..3).for_each(|_| bench.tick(&running));
    let outputs = bench.outputs::<i64>("out", 3);
    assert_eq!(outputs[0], (1..=12).collect::<Vec<_>>());
    assert_eq!(outputs[1], (101..=112).collect::<Vec<_>>());
    assert_eq!(outputs[2], (201..=212).collect::<Vec<_>>());
}

#[test]
fn b19_c6_a_transform_or_union_of_no_streams_is_an_error() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64]]);
    let open = |union: bool| {
        let described = bench.builder().open(|graph| {
            graph.source("in", source(&queue)).print(1);
            let none: [DStream<'_, i64>; 0] = [];
            match union {
                true => graph.union(none).print(1),
                false => graph.transform(none, |mut rdds, _| rdds.remove(0)).print(1),
            }
            Ok(())
        });
        described.expect_err("no streams").to_string()
    };
    assert!(open(true).contains("a union of no streams"));
    assert!(open(false).contains("a transform of no streams"));
}

#[test]
fn repartition_and_numbered_partitions() {
    // 1,2 | 3,4 in two partitions: each begins at another of the three.
    let outputs = run_ordered(vec![vec![1_i64, 2, 3, 4], vec![]], 2, |s| s.repartition(3).glom());
    assert_eq!(outputs, [vec![vec![1], vec![2, 3], vec![4]], vec![vec![], vec![], vec![]]]);
    let outputs =
        run_ordered(i3(), 1, |s| s.map_partitions_with_index(|index, records| records.map(move |n| (index, n))));
    assert_eq!(outputs[0], [(0, 1), (0, 2), (1, 3), (1, 4)]);
}

#[test]
fn flat_map_values_and_combine_by_key() {
    let outputs = run(words("a,b | ·"), 2, |s| s.map(|word| (word, 1_i64)).flat_map_values(|n| [n, n + 1]));
    assert_eq!(outputs, keyed("a1 a2 b1 b2 | ·"));
    let outputs = run(words("a,a,b,a | b"), 2, |s| {
        s.map(|word| (word, 2_i64)).combine_by_key(
            |n| vec![n],
            |mut all, n| {
                all.push(n);
                all
            },
            |a, b| [a, b].concat(),
        )
    });
    let pair = |key: &str, values: &[i64]| (key.to_owned(), values.to_vec());
    assert_eq!(outputs, [vec![pair("a", &[2, 2, 2]), pair("b", &[2])], vec![pair("b", &[2])]]);
}

#[test]
fn a_persisted_stream_is_computed_once_at_every_level() {
    for level in [StorageLevel::Memory, StorageLevel::MemoryAndDisk, StorageLevel::Disk] {
        let bench = Bench::new();
        let queue = queue_of(i3());
        let calls = Arc::new(AtomicU64::new(0));
        let counted = calls.clone();
        let running = bench.start(|graph| {
            let stream = graph.source("in", source(&queue)).map(move |n| {
                counted.fetch_add(1, Ordering::Relaxed);
                n
            });
            let stream = stream.persist(level);
            stream.clone().count().sink_json("counts", bench.collection.sink());
            stream.sink_json("out", bench.collection.sink());
            Ok(())
        });
        (0..3).for_each(|_| bench.tick(&running));
        running.stop().expect("it stops");
        assert_eq!(bench.outputs::<i64>("out", 3), i3(), "{level:?}");
        assert_eq!(bench.outputs::<u64>("counts", 3), [[4], [4], [4]], "{level:?}");
        assert_eq!(calls.load(Ordering::Relaxed), 12, "{level:?}");
        let spill = bench.directory.path().join("pond/spill");
        let left = std::fs::read_dir(&spill).map_or(0, |entries| entries.flatten().count());
        assert_eq!(left, 0, "{level:?}: files go with their batch, the directory with its context");
    }
}

#[test]
fn saved_batches_are_directories_of_their_own_and_stay_when_a_batch_is_computed_again() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64, 2, 3], vec![], vec![4]]);
    let (texts, objects) = (bench.directory.path().join("text/n"), bench.directory.path().join("objects/n"));
    let pipeline = |graph: &Graph| -> Result<()> {
        let stream = graph.source("in", source(&queue));
        stream.clone().save_as_text_files(&texts);
        stream.save_as_object_files(&objects);
        Ok(())
    };
    let running = bench.start(pipeline);
    (0..2).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    // Nothing but these outputs: the start replays from zero time.
    let running = bench.start(pipeline);
    bench.tick(&running);
    running.stop().expect("it stops");
    let batch = BatchContext::new();
    for (time, expected) in [(1000, vec![1_i64, 2, 3]), (2000, vec![]), (3000, vec![4])] {
        let lines =
            batch.text_file(format!("{}-{time}", texts.display())).and_then(|rdd| rdd.collect()).expect("complete");
        assert_eq!(lines, expected.iter().map(i64::to_string).collect::<Vec<_>>());
        let values = batch.object_file::<i64>(format!("{}-{time}", objects.display())).and_then(|rdd| rdd.collect());
        assert_eq!(values.expect("complete"), expected);
    }
    let names = std::fs::read_dir(bench.directory.path().join("text")).expect("listed").flatten();
    assert_eq!(names.count(), 3, "and nothing half done");
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
