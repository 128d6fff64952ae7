//! Cases of the same definitions that lie at their edges: slides beyond the window, filters that come and go, empty batches
//! everywhere, keys that go and come back within a batch, deadlines met exactly.

use millpond_core::{BatchTime, DStream, Rdd, State, milliseconds, seconds};

use crate::support::*;

type Pairs = Vec<Vec<(String, i64)>>;

fn sum(a: i64, b: i64) -> i64 {
    a + b
}

/// Batches of one record each where there is one: `1 · 3`.
fn ones(text: &str) -> Vec<Vec<i64>> {
    text.split_whitespace().map(|word| word.parse().into_iter().collect()).collect()
}

fn pairs(
    text: &str,
    count: u64,
    operator: impl for<'g> Fn(DStream<'g, (String, i64)>) -> DStream<'g, (String, i64)>,
) -> Pairs {
    run(keyed(text), count, operator)
}

#[test]
fn a_slide_beyond_the_window_drops_the_gap_in_every_form() {
    // Windows of 2 at 5 and 10: batches 4, 5 and 9, 10.
    let input = || ones("1 2 3 4 5 6 7 8 9 10 11");
    let at = |second: usize, values: Vec<i64>| {
        let mut batches = vec![Vec::new(); 15];
        batches[second - 1] = values;
        batches
    };
    let merged = |parts: [Vec<Vec<i64>>; 3]| {
        parts.into_iter().reduce(|a, b| a.into_iter().zip(b).map(|(a, b)| [a, b].concat()).collect()).expect("three")
    };
    let windows = run(input(), 15, |s| s.window("w", seconds(2), seconds(5)));
    assert_eq!(windows, merged([at(5, vec![4, 5]), at(10, vec![9, 10]), at(15, vec![])]));
    let expected = |last: Vec<i64>| merged([at(5, vec![9]), at(10, vec![19]), at(15, last)]);
    let with = run(input(), 15, |s| s.reduce_by_window("w", sum, |a, b| a - b, seconds(2), seconds(5)));
    assert_eq!(with, expected(vec![0]), "with an inverse the value stays");
    let without = run(input(), 15, |s| s.reduce_by_window_without_inverse("w", sum, seconds(2), seconds(5)));
    assert_eq!(without, expected(vec![]));
    let counts = run(input(), 15, |s| s.count_by_window("w", seconds(2), seconds(5)));
    assert_eq!(
        counts,
        merged([at(5, vec![2]), at(10, vec![2]), at(15, vec![0])])
            .into_iter()
            .map(|batch| batch.into_iter().map(|n| n as u64).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    );
    // A key that came in the gap only was never in a window.
    let gap = pairs("· | · | b1 | a1 | · | b1 | b1 | b1 | · | a2", 10, |s| {
        s.reduce_by_key_and_window("w", sum, |a, b| a - b, seconds(2), seconds(5))
    });
    assert_eq!(gap, keyed("· | · | · | · | a1 | · | · | · | · | a2"));
}

#[test]
fn early_windows_hold_what_there_is_at_slides_of_two() {
    let windows = run(ones("1 2 3 4 5 6 7"), 8, |s| s.window("w", seconds(5), seconds(2)));
    let expected: Vec<Vec<i64>> =
        vec![vec![], vec![1, 2], vec![], vec![1, 2, 3, 4], vec![], vec![2, 3, 4, 5, 6], vec![], vec![4, 5, 6, 7]];
    assert_eq!(windows, expected);
}

#[test]
fn a_window_of_one_batch_is_the_batch() {
    assert_eq!(run(ones("1 · 3"), 4, |s| s.window("w", seconds(1), seconds(1))), ones("1 · 3 ·"));
    let reduced =
        pairs("a1 b2 | · | a3", 4, |s| s.reduce_by_key_and_window_without_inverse("w", sum, seconds(1), seconds(1)));
    assert_eq!(reduced, keyed("a1 b2 | · | a3 | ·"));
}

#[test]
fn a_filter_hides_a_value_and_forgets_it_only_when_no_pane_has_it() {
    let filtered = |text: &str, count, keep: fn(&String, &i64) -> bool| {
        pairs(text, count, move |s| {
            s.reduce_by_key_and_window_filtered("w", sum, |a, b| a - b, keep, seconds(3), seconds(1))
        })
    };
    // Hidden until it is large enough, and counted all the same.
    assert_eq!(filtered("a1 | a1 | a1 | a1 | · | · | ·", 7, |_, n| *n > 2), keyed("· | · | a3 | a3 | · | · | ·"));
    // At 0 while panes hold it, and right when one of them has left.
    assert_eq!(filtered("a2 | a-2 | · | a1 | · | ·", 6, |_, n| *n != 0), keyed("a2 | · | · | a-1 | a1 | a1"));
    // Gone, and back: it begins anew.
    assert_eq!(filtered("a5 | · | · | · | · | a7", 6, |_, n| *n != 0), keyed("a5 | a5 | a5 | · | · | a7"));
    // What the filter drops for its key is never put out.
    assert_eq!(filtered("a1 b1 | b1", 2, |key, _| key == "b"), keyed("b1 | b2"));
}

#[test]
fn without_an_inverse_a_maximum_goes_when_its_batch_does() {
    let highest = pairs("a9 | a1 | a2 b5 | · | a3 | · | · | ·", 8, |s| {
        s.reduce_by_key_and_window_without_inverse("w", i64::max, seconds(3), seconds(1))
    });
    assert_eq!(highest, keyed("a9 | a9 | a9 b5 | a2 b5 | a3 b5 | a3 | a3 | ·"));
}

#[test]
fn counts_of_windows_where_nothing_is() {
    assert_eq!(
        run(ones("· · 1 · · ·"), 6, |s| s.count_by_window("w", seconds(3), seconds(2))),
        [vec![], vec![0_u64], vec![], vec![1], vec![], vec![0]]
    );
    let values = run(words("a,a | · | b | · | a"), 6, |s| s.count_by_value_and_window("w", seconds(2), seconds(1)));
    let values: Pairs =
        values.into_iter().map(|batch| batch.into_iter().map(|(word, n)| (word, n as i64)).collect()).collect();
    assert_eq!(values, keyed("a2 | a2 | b1 | b1 | a1 | a1"));
    let nothing: Vec<Vec<(String, u64)>> = run(words("· | ·"), 3, |s| s.count_by_value());
    assert_eq!(nothing, [vec![], vec![], vec![]]);
    assert_eq!(run(words("· | · | ·"), 3, |s| s.count_by_value().count()), [[0_u64], [0], [0]]);
}

#[test]
fn a_window_of_a_window_covers_the_slides_of_the_first() {
    let nested =
        run(ones("1 2 3 4 5 6 7 8"), 8, |s| s.window("a", seconds(2), seconds(2)).window("b", seconds(4), seconds(2)));
    let expected: Vec<Vec<i64>> =
        vec![vec![], vec![1, 2], vec![], vec![1, 2, 3, 4], vec![], vec![3, 4, 5, 6], vec![], vec![5, 6, 7, 8]];
    assert_eq!(nested, expected);
    // A record that two of the inner windows hold counts in each.
    let twice = run(ones("1 · · ·"), 4, |s| {
        s.window("a", seconds(2), seconds(1)).count_by_window("b", seconds(2), seconds(2))
    });
    assert_eq!(twice, [vec![], vec![2_u64], vec![], vec![0]]);
}

#[test]
fn windows_of_other_lengths_and_one_slide_are_joined_and_united() {
    let joined = run(keyed("a1 | b2 | a3 | ·"), 4, |s| {
        let long = s.clone().window("long", seconds(3), seconds(1));
        s.join(long).map(|(key, (now, before))| (key, now * 10 + before))
    });
    assert_eq!(joined, keyed("a11 | b22 | a31 a33 | ·"));
    let united = run(ones("1 2 3"), 3, |s| s.clone().window("w", seconds(2), seconds(1)).union(s));
    assert_eq!(united, [vec![1, 1], vec![1, 2, 2], vec![2, 3, 3]]);
}

#[test]
fn state_behind_a_sliding_window_is_called_at_its_slides() {
    let totals = pairs("a1 | a1 | · | b1 | · | ·", 6, |s| {
        s.window("w", seconds(2), seconds(2))
            .update_state_by_key("total", |new, old| Some(old.unwrap_or(0) * 10 + new.sum()))
    });
    assert_eq!(totals, keyed("· | a2 | · | a20 b1 | · | a200 b10"));
}

#[test]
fn streams_with_different_partitions_meet() {
    let bench = Bench::new();
    let (one, three) =
        (queue_of(vec![vec![1_i64, 2, 3], vec![], vec![4]]), queue_of(vec![vec![10_i64, 20, 30, 40], vec![50]]));
    let running = bench.start(|graph| {
        let one = graph.source("one", source(&one).partitions(1));
        let three = graph.source("three", source(&three).partitions(3));
        let united = one.clone().union(three.clone());
        united.clone().sink_json("union", bench.collection.sink());
        united.count().sink_json("count", bench.collection.sink());
        let pairs = one.clone().map(|n| (n % 2, n)).cogroup(three.clone().map(|n| (n / 10 % 2, n)));
        pairs.sink_json("cogroup", bench.collection.sink());
        one.transform_with(three, |one, three, _| three.union(one)).glom().sink_json("glom", bench.collection.sink());
        Ok(())
    });
    (0..4).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    assert_eq!(bench.outputs::<i64>("union", 4), [vec![1, 2, 3, 10, 20, 30, 40], vec![50], vec![4], vec![]]);
    assert_eq!(bench.outputs::<u64>("count", 4), [[7], [1], [1], [0]]);
    type Group = (i64, (Vec<i64>, Vec<i64>));
    let expected: [Vec<Group>; 4] = [
        vec![(0, (vec![2], vec![20, 40])), (1, (vec![1, 3], vec![10, 30]))],
        vec![(1, (vec![], vec![50]))],
        vec![(0, (vec![4], vec![]))],
        vec![],
    ];
    assert_eq!(sorted(bench.outputs::<Group>("cogroup", 4)), expected);
    let first = &bench.outputs::<Vec<i64>>("glom", 4)[0];
    assert_eq!(first.concat(), [10, 20, 30, 40, 1, 2, 3]);
    assert_eq!(first.len(), 4, "three partitions and one");
}

#[test]
fn a_join_of_a_key_that_comes_often_gives_each_pair_and_one_with_itself_too() {
    let pairs = run(keyed("a1 a2 b3 | ·"), 2, |s| {
        let other = s.clone().filter(|(key, _)| key == "a").map_values(|n| n * 10);
        s.join(other).map(|(key, (v, w))| (key, v + w))
    });
    assert_eq!(pairs, keyed("a11 a12 a21 a22 | ·"));
    let squared = run(keyed("a1 a2"), 1, |s| s.clone().join(s).count());
    assert_eq!(squared, [[4_u64]]);
}

#[test]
fn every_operator_on_a_batch_without_records() {
    let empty = || vec![Vec::<(String, i64)>::new(), Vec::new()];
    assert_eq!(run(empty(), 2, |s| s.reduce_by_key(sum)), empty());
    assert_eq!(run(empty(), 2, |s| s.combine_by_key(|n| n, sum, sum)), empty());
    assert_eq!(run(empty(), 2, |s| s.clone().full_outer_join(s).map(|(key, _)| (key, 0))), empty());
    assert_eq!(run(empty(), 2, |s| s.clone().cogroup(s).map(|(key, _)| (key, 0))), empty());
    assert_eq!(run(empty(), 2, |s| s.repartition(7).reduce(|a, _| a)), empty());
    assert_eq!(run(empty(), 2, |s| s.map(|(_, n)| n).reduce(sum).count()), [[0_u64], [0]]);
    assert_eq!(run(empty(), 2, |s| s.update_touched_by_key("t", |_, _: Option<i64>| Some(1))), empty());
    assert_eq!(run(empty(), 2, |s| s.update_state_by_key("u", |_, _: Option<i64>| Some(1))), empty());
    // `transform` is called for each, and may make something of nothing.
    let times = run(empty(), 3, |s| {
        s.transform(|rdd: Rdd<(String, i64)>, time: BatchTime| {
            let count = rdd.count().expect("it can be counted");
            rdd.map(|_| 0).repartition(1).map_partitions(move |_| [time.as_ms() + count])
        })
    });
    assert_eq!(times, [[1000], [2000], [3000]]);
}

/// What a record tells the function to do: 0 looks, 1 creates or adds, 2 removes; the state afterwards, -1 for none.
#[expect(clippy::ptr_arg, reason = "the function gets the key as the stream has it")]
fn told(_: BatchTime, key: &String, what: Option<i64>, state: &mut State<'_, i64>) -> Option<(String, i64)> {
    match what {
        None => return Some((key.clone(), 100 + state.get().copied().expect("what times out is there"))),
        Some(1) => state.update(state.get().map_or(0, |n| n + 1)),
        Some(2) => state.remove(),
        Some(_) => {}
    }
    Some((key.clone(), state.get().copied().unwrap_or(-1)))
}

#[test]
fn a_key_removed_and_added_again_within_a_batch_begins_anew() {
    let ordered: Pairs =
        run_ordered(keyed_in_order("a1 a1 a2 a1 a0 | a1 | a2 a2 a0 | a1"), 4, |s| s.map_with_state("s", told));
    let expected = keyed_in_order("a0 a1 a-1 a0 a0 | a1 | a-1 a-1 a-1 | a0");
    assert_eq!(ordered, expected);
    let updated = run(keyed("a1 | a5 | a1"), 3, |s| {
        s.update_state_by_key("u", |new, old: Option<i64>| {
            let sum = old.unwrap_or(0) + new.sum();
            (sum < 5).then_some(sum)
        })
    });
    assert_eq!(updated, keyed("a1 | · | a1"), "None removes, and what comes later finds nothing");
}

/// As [`keyed`], in the order written.
fn keyed_in_order(text: &str) -> Pairs {
    text.split('|')
        .map(|batch| {
            batch.split_whitespace().filter(|word| *word != "·").flat_map(|word| keyed(word).concat()).collect()
        })
        .collect()
}

#[test]
fn a_timeout_is_met_exactly_and_a_record_in_its_batch_goes_before() {
    let timed = |text: &str, count, timeout| {
        pairs(text, count, move |s| s.map_with_state("s", told).timeout(milliseconds(timeout)))
    };
    // Last used at 1 s: 1 < t - 2 holds first at 4 s; at 3 s it is met exactly, which is not enough.
    assert_eq!(timed("a1 | · | · | · | ·", 5, 2000), keyed("a0 | · | · | a100 | ·"));
    // A record in the batch in which it would time out: it is a record's turn, and time begins again.
    assert_eq!(timed("a1 | · | · | a1 | · | · | · | ·", 8, 2000), keyed("a0 | · | · | a1 | · | · | a101 | ·"));
    // To look at it is to use it.
    assert_eq!(timed("a1 | · | a0 | · | · | ·", 6, 2000), keyed("a0 | · | a0 | · | · | a100"));
    // What was removed does not time out; added again it counts from there.
    assert_eq!(timed("a1 | a2 | a1 | · | · | · | ·", 7, 2000), keyed("a0 | a-1 | a0 | · | · | a100 | ·"));
    // After its timeout a key begins anew, and may come back in the very next batch.
    assert_eq!(timed("a1 | · | · | · | a1 | · | · | ·", 8, 2000), keyed("a0 | · | · | a100 | a0 | · | · | a100"));
    // Shorter than a batch: gone in the next one that does not use it.
    assert_eq!(timed("a1 | a1 | · | ·", 4, 500), keyed("a0 | a1 | a101 | ·"));
    // No multiple of the interval: 1 < t - 1.5 holds first at 3 s.
    assert_eq!(timed("a1 | · | · | ·", 4, 1500), keyed("a0 | · | a100 | ·"));
    // A key that was looked at while it was absent has nothing that could time out.
    assert_eq!(timed("a0 | · | · | ·", 4, 1000), keyed("a-1 | · | · | ·"));
}

#[test]
fn an_initial_state_with_a_timeout_counts_from_the_first_batch() {
    let initial = || [("a".to_owned(), 7_i64), ("b".to_owned(), 8)];
    let outputs = pairs("· | b0 | · | · | · | ·", 6, |s| {
        s.map_with_state("s", told).timeout(seconds(2)).initial_state(initial())
    });
    assert_eq!(outputs, keyed("· | b8 | · | a107 | b108 | ·"));
    // A key of it that the first batch removes is gone, and not taken again.
    let outputs = pairs("a2 | a1 | ·", 3, |s| s.map_with_state("s", told).initial_state(initial()));
    assert_eq!(outputs, keyed("a-1 | a0 | ·"));
    // Touched keys only are put out, initial ones too.
    let outputs = pairs("b1 | a1 | ·", 3, |s| {
        s.update_touched_by_key("s", |new, old| Some(old.unwrap_or(0) + new.sum())).initial_state(initial())
    });
    assert_eq!(outputs, keyed("b9 | a8 | ·"));
    // Of all keys in the first batch, empty or not.
    let outputs = pairs("· | a1", 2, |s| {
        s.update_state_by_key("s", |new, old| Some(old.unwrap_or(0) + new.sum())).initial_state(initial())
    });
    assert_eq!(outputs, keyed("a7 b8 | a8 b8"));
}

#[test]
fn snapshots_show_what_is_there_after_the_batch() {
    let states = run(keyed("a1 b1 | a2 | · | · | c1"), 6, |s| {
        s.map_with_state("s", told).timeout(seconds(2)).state_snapshots::<String, i64>()
    });
    assert_eq!(
        states,
        keyed("a0 b0 | b0 | b0 | · | c0 | c0"),
        "the key that times out in a batch is not in its snapshot"
    );
}

#[test]
fn e1_a_window_can_be_remembered_and_is_sliced_by_its_slide() {
    let bench = Bench::new();
    let queue = queue_of(ones("1 2 3 4 5 6"));
    let opened = bench.builder().open_with(|graph| {
        let (windows, slices) =
            graph.source("in", source(&queue)).window("w", seconds(3), seconds(2)).remember(seconds(10));
        windows.sink_json("out", bench.collection.sink());
        Ok(slices)
    });
    let (context, slices) = opened.expect("it opens");
    let running = context.start().expect("it starts");
    (0..6).for_each(|_| bench.tick(&running));
    let slice = |from, to| {
        let sliced = slices.slice(BatchTime::from_ms(from), BatchTime::from_ms(to), |batches| {
            batches.iter().map(|batch| Ok((batch.batch_time().as_ms(), batch.collect()?))).collect()
        });
        let mut sliced: Vec<(u64, Vec<i64>)> = sliced.expect("kept");
        sliced.iter_mut().for_each(|(_, batch)| batch.sort());
        sliced
    };
    let expected = [(2000, vec![1, 2]), (4000, vec![2, 3, 4]), (6000, vec![4, 5, 6])];
    assert_eq!(slice(0, 6000), expected);
    assert_eq!(slice(3000, 5999), expected[..2], "floored to the slide: 2 s to 4 s");
    assert_eq!(slice(5000, 5500), expected[1..2]);
    running.stop().expect("it stops");
}

/// Windows upon windows: the outer ones slide less often, and one has no output at all, so that in most batches nobody asks but
/// the windows themselves.
fn nested(s: DStream<'_, i64>) -> DStream<'_, i64> {
    let inner = s.window("inner", seconds(2), seconds(1)).map(|n| (n % 2, n));
    let sums = inner.reduce_by_key_and_window("middle", sum, |a, b| a - b, seconds(2), seconds(2));
    let _ = sums.clone().window("aside", seconds(4), seconds(2));
    sums.map(|(_, n)| n).reduce_by_window_without_inverse("outer", sum, seconds(8), seconds(4))
}

#[test]
fn windows_upon_windows_take_each_pane_in_once_whoever_asks_first() {
    // inner: 1 | 1 2 | 2 3 | 3 4 | 4 5 | 5 6 | 6 7 | 7 8; middle, two of them: 4 | 12 | 20 | 28; outer, all of those so far.
    let expected: Vec<Vec<i64>> = vec![vec![], vec![], vec![], vec![16], vec![], vec![], vec![], vec![64]];
    assert_eq!(run(ones("1 2 3 4 5 6 7 8"), 8, nested), expected);
    crate::crashes::survives_crashes(ones("1 2 3 4 5 6 7 8"), nested);
}

#[test]
fn e6_e7_the_shortest_interval_that_a_stream_asks_for_is_that_of_the_checkpoints() {
    let bench = Bench::new();
    let queue = queue_of(Vec::<Vec<i64>>::new());
    let open = |bench: &Bench, context: u64, streams: [u64; 2]| {
        bench.builder().checkpoint_interval(seconds(context)).open(|graph| {
            let pairs = graph.source("in", source(&queue)).map(|n| (n, n));
            let sums = pairs.update_touched_by_key("sums", |new, old| Some(old.unwrap_or(0) + new.sum()));
            sums.checkpoint(milliseconds(streams[0]))
                .checkpoint(milliseconds(streams[1]))
                .sink_json("out", bench.collection.sink());
            Ok(())
        })
    };
    for wrong in [1500, 500, 0] {
        let error = open(&bench, 10, [3000, wrong]).expect_err("it does not fit").to_string();
        assert!(error.contains("checkpoint(") && error.contains("`sums`") && error.contains("multiple"), "{error}");
    }
    for (context, streams, expected) in [(10, [3000, 7000], 3), (2, [3000, 4000], 2)] {
        let bench = Bench::new();
        let running =
            open(&bench, context, streams).and_then(millpond_core::StreamingContext::start).expect("it starts");
        for batch in 1..=3 * expected {
            bench.tick(&running);
            let due = BatchTime::from_ms(batch / expected * expected * 1000);
            running.await_checkpoint(due, LIMIT).expect("what is due is written");
            assert_eq!(running.progress().snapshot, due, "and nothing before it is");
        }
        running.stop().expect("it stops");
    }
}
