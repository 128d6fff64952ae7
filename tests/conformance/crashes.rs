//! The one test that every stateful operator has to pass: with a crash and a restart after each batch it puts out what it
//! puts out without.

use std::time::Duration;

use millpond_core::{BatchTime, DStream, State, StreamingContext, seconds};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::*;

/// Runs `input`, and a few empty batches more, through the operator: undisturbed; and dying after each batch, for checkpoints
/// at every batch to none at all, in plenty of memory and in next to none. The outputs have to be equal, batch by batch.
pub(crate) fn survives_crashes<T, U>(
    input: Vec<Vec<T>>,
    operator: impl for<'g> Fn(DStream<'g, T>) -> DStream<'g, U> + Copy,
) where
    T: Clone + Send + Sync + 'static,
    U: Serialize + DeserializeOwned + Send + Ord + std::fmt::Debug + 'static,
{
    let batches = input.len() as u64 + 3;
    let expected = run(input.clone(), batches, operator);
    for (checkpoint_every, memory_limit_bytes) in [(1, 512 << 20), (2, 1 << 10), (3, 512 << 20), (100, 512 << 20)] {
        let bench = Bench::new();
        let queue = queue_of(input.clone());
        for _ in 0..batches {
            let context = bench
                .builder()
                .checkpoint_interval(seconds(checkpoint_every))
                .memory_limit_bytes(memory_limit_bytes)
                .open(|graph| {
                    operator(graph.source("in", source(&queue))).sink_json("out", bench.collection.sink());
                    Ok(())
                });
            let running = context.and_then(StreamingContext::start).expect("it recovers");
            bench.tick(&running);
            running.stop().expect("it stops");
        }
        assert_eq!(
            sorted(bench.outputs::<U>("out", batches)),
            expected,
            "a checkpoint every {checkpoint_every} batches, {memory_limit_bytes} bytes for state"
        );
    }
}

/// Batches of numbers under a few keys, some empty, from a seed that a failure prints.
fn random_batches(count: usize) -> Vec<Vec<(String, i64)>> {
    let seed = std::env::var("MILLPOND_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0));
    println!("MILLPOND_SEED={seed}");
    let mut state = seed | 1;
    let mut below = move |limit: u64| {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    };
    let mut batch = || {
        let records = if below(4) == 0 { 0 } else { below(30) };
        (0..records).map(|_| (format!("k{}", below(9)), below(20) as i64 - 10)).collect()
    };
    (0..count).map(|_| batch()).collect()
}

const LENGTH: Duration = seconds(3);
const SLIDE: Duration = seconds(2);

#[test]
fn windows_of_records_survive_a_crash_after_each_batch() {
    survives_crashes(random_batches(8), |s| s.window("w", LENGTH, SLIDE));
    survives_crashes(random_batches(8), |s| s.group_by_key_and_window("w", LENGTH, SLIDE));
}

#[test]
fn keyed_windows_survive_a_crash_after_each_batch() {
    survives_crashes(random_batches(8), |s| s.reduce_by_key_and_window("w", |a, b| a + b, |a, b| a - b, LENGTH, SLIDE));
    survives_crashes(random_batches(8), |s| {
        s.reduce_by_key_and_window_filtered("w", |a, b| a + b, |a, b| a - b, |_, n| n % 3 != 0, LENGTH, SLIDE)
    });
    survives_crashes(random_batches(8), |s| {
        s.map(|(key, n)| (key, vec![n])).reduce_by_key_and_window_without_inverse("w", appended, LENGTH, SLIDE)
    });
}

#[test]
fn counts_and_reductions_of_windows_survive_a_crash_after_each_batch() {
    survives_crashes(random_batches(8), |s| s.count_by_window("w", LENGTH, SLIDE));
    survives_crashes(random_batches(8), |s| s.count_by_value_and_window("w", LENGTH, SLIDE));
    survives_crashes(random_batches(8), |s| {
        s.map(|(_, n)| n).reduce_by_window("w", |a, b| a + b, |a, b| a - b, LENGTH, SLIDE)
    });
    survives_crashes(random_batches(8), |s| {
        s.map(|(_, n)| vec![n]).reduce_by_window_without_inverse("w", appended, LENGTH, SLIDE)
    });
}

#[test]
fn keyed_state_with_timeouts_and_an_initial_state_survives_a_crash_after_each_batch() {
    survives_crashes(random_batches(12), |s| {
        let sums = s.map_with_state("sums", |time, key: &String, n, state: &mut State<'_, i64>| {
            let sum = state.get().copied().unwrap_or(0) + n.unwrap_or(0);
            if !state.is_timing_out() {
                if sum % 7 == 0 { state.remove() } else { state.update(sum) }
            }
            Some((time, key.clone(), sum, state.is_timing_out()))
        });
        sums.initial_state([("k0", 3), ("k20", 4)]).timeout(seconds(2))
    });
    survives_crashes(random_batches(8), |s| {
        s.update_state_by_key_with("sums", |time, _, new, sum: Option<i64>| {
            Some(sum.unwrap_or(time.as_ms() as i64) + new.sum()).filter(|sum| sum % 5 != 0)
        })
        .initial_state([("k0", 3), ("k20", 4)])
    });
}

fn appended(mut all: Vec<i64>, more: Vec<i64>) -> Vec<i64> {
    all.extend(more);
    all
}

#[test]
fn h18_missed_batches_that_change_more_state_than_memory_takes_are_each_computed_and_committed() {
    let bench = Bench::new();
    let keys: Vec<u64> = (0..3000).collect();
    let queue = queue_of(vec![keys.clone()]);
    let start = || {
        let context = bench.builder().checkpoint_interval(seconds(2)).memory_limit_bytes(1 << 10).open(|graph| {
            graph
                .source("in", source(&queue))
                .map(|key: u64| (key, ()))
                // How many batches a key has lived through: every batch changes every key.
                .update_state_by_key("ages", |_, age: Option<u64>| Some(age.unwrap_or(0) + 1))
                .sink_json("out", bench.collection.sink());
            Ok(())
        });
        context.and_then(StreamingContext::start).expect("it starts")
    };
    let running = start();
    bench.tick(&running);
    running.stop().expect("it stops");
    // Away for five batches.
    bench.clock.advance(seconds(5));
    let running = start();
    running.await_committed(BatchTime::from_ms(6000), LIMIT).expect("the missed batches commit");
    running.stop_gracefully().expect("it stops");
    for (age, batch) in (1..).zip(sorted(bench.outputs::<(u64, u64)>("out", 6))) {
        assert_eq!(batch, keys.iter().map(|key| (*key, age)).collect::<Vec<_>>(), "batch {age}");
    }
}

#[test]
fn h18_a_stretch_that_was_planned_in_plenty_of_memory_is_computed_again_in_next_to_none() {
    let bench = Bench::new();
    let keys: Vec<u64> = (0..3000).collect();
    let queue = queue_of(vec![keys.clone()]);
    let start = |memory_limit_bytes| {
        let builder = bench.builder().checkpoint_interval(seconds(1000)).memory_limit_bytes(memory_limit_bytes);
        let context = builder.open(|graph| {
            let records = graph.source("in", source(&queue)).map(|key: u64| (key, 1_i64));
            records
                .clone()
                .update_state_by_key("ages", |_, age: Option<u64>| Some(age.unwrap_or(0) + 1))
                .sink_json("out", bench.collection.sink());
            records
                .reduce_by_key_and_window("w", |a, b| a + b, |a, b| a - b, seconds(4), seconds(1))
                .sink_json("window", bench.collection.sink());
            Ok(())
        });
        context.and_then(StreamingContext::start).expect("it starts")
    };
    let running = start(512 << 20);
    bench.tick(&running);
    running.stop().expect("it stops");
    // Away for five batches, which are one plan then.
    bench.clock.advance(seconds(5));
    let running = start(512 << 20);
    running.await_committed(BatchTime::from_ms(6000), LIMIT).expect("the missed batches commit");
    running.stop().expect("it stops");
    let sizes: Vec<usize> = bench.outputs::<(u64, u64)>("out", 6).iter().map(Vec::len).collect();
    assert_eq!(sizes, [3000, 0, 0, 0, 0, 5 * 3000], "planned as one");
    // All is to be computed again, and has to meet the digests of what is committed.
    let running = start(1 << 10);
    bench.tick(&running);
    running.stop_gracefully().expect("it stops");
    let ages = sorted(bench.outputs::<(u64, u64)>("out", 7));
    assert_eq!(ages[6], keys.iter().map(|key| (*key, 7)).collect::<Vec<_>>());
    let sums = sorted(bench.outputs::<(u64, i64)>("window", 7));
    assert_eq!(sums[6], keys.iter().map(|key| (*key, 0)).collect::<Vec<_>>(), "the window has passed the records");
}
