//! Keyed state against a plain map: random records, removals, timeouts and crashes.

use std::collections::BTreeMap;
use std::time::Duration;

use millpond_core::{BatchTime, DStream, State, StreamingContext, milliseconds, seconds};
use proptest::prelude::*;

use crate::support::*;

/// What a record does to the state of its key: looks, adds one, removes.
type Batch = Vec<(u8, i64)>;

/// What is put out: key, what the call saw (-1: nothing), whether the key timed out.
type Seen = (u8, i64, bool);

/// What a batch puts out, and the states after it.
type Shown = (Vec<Seen>, Vec<(u8, i64)>);

fn call(_: BatchTime, key: &u8, what: Option<i64>, state: &mut State<'_, i64>) -> Option<Seen> {
    let seen = state.get().copied();
    match what {
        Some(0) => {}
        Some(1) => state.update(seen.unwrap_or(0) + 1),
        Some(_) => state.remove(),
        None => {}
    }
    Some((*key, seen.unwrap_or(-1), state.is_timing_out()))
}

/// The outputs and the states after each batch, by the definition alone.
fn model(batches: &[Batch], timeout_ms: &dyn Fn(u64) -> Option<u64>, initial: &[(u8, i64)]) -> Vec<Shown> {
    let mut states: BTreeMap<u8, (i64, u64)> = initial.iter().map(|(key, n)| (*key, (*n, 1000))).collect();
    let mut had_timeout = timeout_ms(1000).is_some();
    let mut after = Vec::new();
    for (batch, now_ms) in batches.iter().zip((1..).map(|n: u64| n * 1000)) {
        let timeout_ms = timeout_ms(now_ms);
        if timeout_ms.is_some() && !had_timeout {
            states.values_mut().for_each(|(_, used_ms)| *used_ms = now_ms);
        }
        had_timeout = timeout_ms.is_some();
        let mut seen = Vec::new();
        for (key, what) in batch {
            let state = states.get(key).copied();
            seen.push((*key, state.map_or(-1, |(n, _)| n), false));
            match (what, state) {
                (0, None) => {}
                (0, Some((n, used_ms))) => {
                    states.insert(*key, (n, if timeout_ms.is_some() { now_ms } else { used_ms }));
                }
                (1, _) => {
                    states.insert(*key, (state.map_or(0, |(n, _)| n) + 1, now_ms));
                }
                _ => {
                    states.remove(key);
                }
            }
        }
        if let Some(timeout_ms) = timeout_ms {
            let touched = |key: &u8| batch.iter().any(|(of, _)| of == key);
            let expired = |key: &u8, used_ms: u64| used_ms + timeout_ms < now_ms && !touched(key);
            seen.extend(
                states.iter().filter(|(key, (_, used))| expired(key, *used)).map(|(key, (n, _))| (*key, *n, true)),
            );
            states.retain(|key, (_, used)| !expired(key, *used));
        }
        seen.sort_unstable();
        after.push((seen, states.iter().map(|(key, (n, _))| (*key, *n)).collect()));
    }
    after
}

/// How a run goes: the process dies, or stops to come back with another timeout, after some of its batches.
#[derive(Clone, Debug)]
struct Course {
    checkpoint_every: u64,
    crash_after: Vec<bool>,
    partitions: usize,
    memory_limit_bytes: u64,
}

fn run(
    batches: &[Batch],
    course: &Course,
    timeout_ms: &dyn Fn(u64) -> Option<u64>,
    initial: &[(u8, i64)],
) -> Vec<Shown> {
    let bench = Bench::new();
    let queue = queue_of(Vec::new());
    let count = batches.len() as u64;
    let mut running = None;
    for batch in 0..count {
        let now_ms = (batch + 1) * 1000;
        let timeout = timeout_ms(now_ms).map(milliseconds);
        let context = running.get_or_insert_with(|| {
            let builder = bench
                .builder()
                .partitions(course.partitions)
                .memory_limit_bytes(course.memory_limit_bytes)
                .checkpoint_interval(seconds(course.checkpoint_every));
            let context = builder.open(|graph| {
                let stream = described(graph.source("in", source(&queue)), timeout, initial);
                stream.state_snapshots::<u8, i64>().sink_json("states", bench.collection.sink());
                stream.sink_json("out", bench.collection.sink());
                Ok(())
            });
            context.and_then(StreamingContext::start).expect("it starts")
        });
        queue.push(batches[batch as usize].clone());
        bench.tick(context);
        let changes = batch + 1 < count && timeout_ms(now_ms) != timeout_ms(now_ms + 1000);
        if changes {
            // A changed program asks for a graceful stop.
            context.stop_gracefully().expect("it stops");
            running = None;
        } else if course.crash_after[batch as usize] {
            context.stop().expect("it stops");
            running = None;
        }
    }
    if let Some(running) = running {
        running.stop().expect("it stops");
    }
    let outputs = sorted(bench.outputs::<Seen>("out", count));
    outputs.into_iter().zip(sorted(bench.outputs::<(u8, i64)>("states", count))).collect()
}

fn described<'g>(
    stream: DStream<'g, (u8, i64)>,
    timeout: Option<Duration>,
    initial: &[(u8, i64)],
) -> DStream<'g, Seen> {
    let stream = stream.map_with_state("told", call);
    let stream = if initial.is_empty() { stream } else { stream.initial_state(initial.to_vec()) };
    match timeout {
        Some(timeout) => stream.timeout(timeout),
        None => stream,
    }
}

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let record = (0..12_u8, prop_oneof![3 => Just(1_i64), 2 => Just(0), 1 => Just(2)]);
    let batch = prop_oneof![1 => Just(Vec::new()), 2 => proptest::collection::vec(record, 0..8)];
    proptest::collection::vec(batch, 1..24)
}

fn course() -> impl Strategy<Value = Course> {
    let limits = prop_oneof![Just(1_u64 << 10), Just(64 << 20)];
    (1..8_u64, proptest::collection::vec(proptest::bool::weighted(0.3), 24), 1..5_usize, limits).prop_map(
        |(checkpoint_every, crash_after, partitions, memory_limit_bytes)| Course {
            checkpoint_every,
            crash_after,
            partitions,
            memory_limit_bytes,
        },
    )
}

fn initial() -> impl Strategy<Value = Vec<(u8, i64)>> {
    proptest::collection::btree_map(0..16_u8, 0..5_i64, 0..6).prop_map(|states| states.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn timeouts_removals_and_crashes_do_what_the_definition_says(
        batches in batches(),
        course in course(),
        timeout_ms in proptest::option::of(0..6500_u64),
        initial in initial(),
    ) {
        let timeout = |_| timeout_ms;
        prop_assert_eq!(run(&batches, &course, &timeout, &initial), model(&batches, &timeout, &initial));
    }

    #[test]
    fn a_timeout_that_is_added_changed_and_taken_away_holds_from_the_next_batch_on(
        batches in batches(),
        course in course(),
        timeouts in proptest::collection::vec(proptest::option::of(500..6500_u64), 4),
        initial in initial(),
    ) {
        let timeout = |now_ms: u64| timeouts[(now_ms / 7000) as usize];
        prop_assert_eq!(run(&batches, &course, &timeout, &initial), model(&batches, &timeout, &initial));
    }
}
