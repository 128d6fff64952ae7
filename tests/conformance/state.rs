//! Sections D and G of the cases: keyed state, with and without a crash after every batch.

use std::time::Duration;

use millpond_core::{BatchTime, DStream, State};

use crate::support::*;

const U6: &str = "a | a,b | a,b,c | a,b | a | ·";

#[test]
fn d1_update_state_by_key() {
    let outputs = run(words(U6), 6, |s| {
        s.map(|word| (word, 1_i64)).update_state_by_key("counts", |new, old| Some(old.unwrap_or(0) + new.sum()))
    });
    assert_eq!(outputs, keyed("a1 | a2 b1 | a3 b2 c1 | a4 b3 c1 | a5 b3 c1 | a5 b3 c1"));
}

#[test]
fn d3_update_with_time_and_key() {
    let outputs = run(words("a | a,b"), 2, |s| {
        s.map(|word| (word, 1_i64)).update_state_by_key_with("times", |time, key, new, old| {
            assert!(["a", "b"].contains(&key.as_str()));
            let old = old.unwrap_or(0);
            Some(if new.is_empty() { old } else { old + time.as_ms() as i64 })
        })
    });
    assert_eq!(outputs, keyed("a1000 | a3000 b2000"));
}

#[test]
fn d6_touched_keys_only() {
    let outputs = run(words(U6), 6, |s| {
        s.map(|word| (word, 1_i64)).update_touched_by_key("counts", |new, old| Some(old.unwrap_or(0) + new.sum()))
    });
    assert_eq!(outputs, keyed("a1 | a2 b1 | a3 b2 c1 | a4 b3 | a5 | ·"));
}

#[test]
fn none_removes_the_key() {
    let outputs = run(words("a,b | a | · | a"), 4, |s| {
        s.map(|word| (word, 1_i64)).update_state_by_key("short", |new, old: Option<i64>| {
            (!new.is_empty()).then(|| old.unwrap_or(0) + new.sum())
        })
    });
    assert_eq!(outputs, keyed("a1 b1 | a2 | · | a1"));
}

#[test]
fn values_of_a_key_come_in_record_order() {
    let batch: Vec<(String, i64)> = (0..1000).map(|n| (["a", "b", "c"][n as usize % 3].to_owned(), n)).collect();
    let outputs =
        run(vec![batch], 1, |s| s.update_state_by_key("order", |new, _: Option<Vec<i64>>| Some(new.collect())));
    for (key, values) in &outputs[0] {
        assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{key}: {values:?}");
    }
}

#[expect(clippy::ptr_arg, reason = "the function gets the key as the stream has it")]
fn running_count(_: BatchTime, key: &String, one: Option<i64>, sum: &mut State<'_, i64>) -> Option<(String, i64)> {
    let total = sum.get().copied().unwrap_or(0) + one.unwrap_or(0);
    sum.update(total);
    Some((key.clone(), total))
}

fn count_words<'g>(s: DStream<'g, String>) -> DStream<'g, (String, i64)> {
    s.map(|word| (word, 1)).map_with_state("counts", running_count)
}

#[test]
fn g3_map_with_state_puts_out_touched_keys() {
    assert_eq!(
        run(words("· | a | a,b | a,b,c | a,b | a | ·"), 7, count_words),
        keyed("· | a1 | a2 b1 | a3 b2 c1 | a4 b3 | a5 | ·")
    );
}

#[test]
fn map_with_state_is_called_once_a_record_in_order() {
    assert_eq!(run(words("a,a,a"), 1, count_words), keyed("a1 a2 a3"));
}

#[test]
fn g10_to_g14_what_a_call_does_to_the_state() {
    // 0: look, 1: increase or create at 0, 2: remove; puts out what it saw before, -1 for nothing.
    let batches = ["k0 l1 | k0 l0 | l1 | l2 m2 | l0 k1 | k0"].map(keyed).concat();
    let outputs = run(batches, 6, |s| {
        s.map_with_state("states", |_, key: &String, what: Option<i64>, state: &mut State<'_, i64>| {
            let seen = state.get().copied();
            assert_eq!(state.exists(), seen.is_some());
            match what {
                Some(1) => state.update(seen.map_or(0, |n| n + 1)),
                Some(2) => {
                    state.remove();
                    assert_eq!(state.get(), None);
                }
                _ => {}
            }
            Some((key.clone(), seen.unwrap_or(-1)))
        })
    });
    assert_eq!(outputs, keyed("k-1 l-1 | k-1 l0 | l0 | l1 m-1 | l-1 k-1 | k0"));
}

/// The outputs of a run that is killed after each of its batches equal those of one that is not, whatever the checkpoint interval.
fn survives_crashes<U>(operator: impl for<'g> Fn(DStream<'g, String>) -> DStream<'g, U> + Copy)
where
    U: serde::Serialize + serde::de::DeserializeOwned + Send + Ord + std::fmt::Debug + 'static,
{
    let input = words("a | a,b | a,b,c | b,b | · | c,a | a | · | d");
    let batches = input.len() as u64;
    let expected = run(input.clone(), batches, operator);
    for checkpoint_every in [1, 2, 3, 100] {
        let bench = Bench::new();
        let queue = queue_of(input.clone());
        for _ in 0..batches {
            let context = bench.builder().checkpoint_interval(Duration::from_secs(checkpoint_every)).open(|graph| {
                operator(graph.source("in", source(&queue))).sink_json("out", bench.collection.sink());
                Ok(())
            });
            let running = context.and_then(|context| context.start()).expect("it recovers");
            bench.tick(&running);
            running.stop().expect("it stops");
        }
        assert_eq!(
            sorted(bench.outputs::<U>("out", batches)),
            expected,
            "a checkpoint every {checkpoint_every} batches"
        );
    }
}

#[test]
fn i4_g8_every_stateful_operator_survives_a_crash_after_each_batch() {
    survives_crashes(count_words);
    survives_crashes(|s| {
        s.map(|word| (word, 1_i64)).update_state_by_key("counts", |new, old| Some(old.unwrap_or(0) + new.sum()))
    });
    survives_crashes(|s| {
        s.map(|word| (word, 1_i64)).update_touched_by_key("counts", |new, old| Some(old.unwrap_or(0) + new.sum()))
    });
    survives_crashes(|s| s.map(|word| (word, 1_i64)).reduce_by_key(|a, b| a + b));
}
