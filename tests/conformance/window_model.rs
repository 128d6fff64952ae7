//! Every form of window against what it is by definition, computed anew from the records of its batches: random inputs, lengths,
//! slides, crashes, times away and limits of memory.

use std::collections::{BTreeMap, BTreeSet};

use millpond_core::{BatchTime, Graph, Result, Running, StreamingContext, seconds};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::*;

type Record = (u8, i64);

/// A run: its input, and what happens to the process.
#[derive(Clone, Debug)]
struct Scenario {
    input: Vec<Vec<Record>>,
    /// Of the window, in batches.
    length: usize,
    slide: usize,
    checkpoint_every: u64,
    memory_limit_bytes: u64,
    /// After each batch: seconds for which the process is dead, `None` if it lives on.
    deaths: Vec<Option<u64>>,
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let batch = prop_oneof![1 => Just(Vec::new()), 3 => prop::collection::vec((0..5_u8, -4..5_i64), 0..12)];
    let death = prop_oneof![3 => Just(None), 1 => (0..4_u64).prop_map(Some)];
    (1..12_usize).prop_flat_map(move |batches| {
        (
            prop::collection::vec(batch.clone(), batches),
            1..7_usize,
            1..5_usize,
            1..5_u64,
            prop_oneof![Just(512 << 20), Just(1 << 10)],
            prop::collection::vec(death.clone(), batches),
        )
            .prop_map(|(input, length, slide, checkpoint_every, memory_limit_bytes, deaths)| Scenario {
                input,
                length,
                slide,
                checkpoint_every,
                memory_limit_bytes,
                deaths,
            })
    })
}

/// All forms of window of one source, each with a sink of its own.
fn pipeline(
    graph: &Graph<'_>,
    bench: &Bench,
    scenario: &Scenario,
    queue: &millpond_core::source::Queue<Record>,
) -> Result<()> {
    let (length, slide) = (seconds(scenario.length as u64), seconds(scenario.slide as u64));
    let records = graph.source("in", source(queue));
    let sink = || bench.collection.sink();
    let values = records.clone().map(|(_, n)| n);
    let lists = records.clone().map(|(key, n)| (key, vec![n]));
    records.clone().sink_json("in-out", sink());
    records.clone().count().sink_json("batches-out", sink());
    records.clone().window("window", length, slide).sink_json("window-out", sink());
    records
        .clone()
        .reduce_by_key_and_window("inverse", |a, b| a + b, |a, b| a - b, length, slide)
        .sink_json("inverse-out", sink());
    records
        .clone()
        .reduce_by_key_and_window_filtered("filtered", |a, b| a + b, |a, b| a - b, |_, n| *n != 0, length, slide)
        .sink_json("filtered-out", sink());
    lists.reduce_by_key_and_window_without_inverse("stacks", appended, length, slide).sink_json("stacks-out", sink());
    records.clone().group_by_key_and_window("groups", length, slide).sink_json("groups-out", sink());
    records.clone().count_by_window("count", length, slide).sink_json("count-out", sink());
    records.count_by_value_and_window("values", length, slide).sink_json("values-out", sink());
    values.clone().reduce_by_window("sum", |a, b| a + b, |a, b| a - b, length, slide).sink_json("sum-out", sink());
    values
        .map(|n| vec![n])
        .reduce_by_window_without_inverse("all", appended, length, slide)
        .sink_json("all-out", sink());
    Ok(())
}

fn appended(mut all: Vec<i64>, more: Vec<i64>) -> Vec<i64> {
    all.extend(more);
    all
}

/// Runs it; the number of batches there were in the end.
fn execute(scenario: &Scenario, bench: &Bench) -> u64 {
    let queue = queue_of(scenario.input.clone());
    let start = || -> Running {
        let builder = bench
            .builder()
            .checkpoint_interval(seconds(scenario.checkpoint_every))
            .memory_limit_bytes(scenario.memory_limit_bytes);
        let context = builder.open(|graph| pipeline(graph, bench, scenario, &queue));
        context.and_then(StreamingContext::start).expect("it starts")
    };
    let mut running = start();
    let mut second = 0;
    for death in &scenario.deaths {
        bench.tick(&running);
        second += 1;
        if let Some(away) = death {
            running.stop().expect("it stops");
            bench.clock.advance(seconds(*away));
            second += away;
            running = start();
            running.await_committed(BatchTime::from_ms(second * 1000), LIMIT).expect("what was missed is computed");
        }
    }
    running.stop().expect("it stops");
    second
}

/// What was committed together: one batch, or those that were missed while the process was dead.
struct Commit {
    time: BatchTime,
    /// The input of each batch.
    batches: Vec<Vec<Record>>,
}

fn commits(bench: &Bench) -> Vec<Commit> {
    let counted = bench.collection.committed("batches-out").into_iter();
    let commit = |time| {
        let mut records = committed::<Record>(bench, "in-out", time).into_iter();
        let counts = committed::<usize>(bench, "batches-out", time).into_iter();
        Commit { time, batches: counts.map(|count| records.by_ref().take(count).collect()).collect() }
    };
    counted.map(|collected| commit(collected.batch)).collect()
}

fn committed<T: DeserializeOwned>(bench: &Bench, sink: &str, time: BatchTime) -> Vec<T> {
    let commits = bench.collection.committed(sink).into_iter().filter(|collected| collected.batch == time);
    let records = commits.flat_map(|collected| collected.records);
    records.map(|record| serde_json::from_slice(&record.value.unwrap_or_default()).expect("JSON")).collect()
}

/// What each sink has to hold at a batch: the records of the window in their order, and the keys of all windows so far.
fn model(window: &[Record], seen: &BTreeSet<u8>) -> BTreeMap<&'static str, Vec<Value>> {
    let mut groups: BTreeMap<u8, Vec<i64>> = BTreeMap::new();
    let mut counts: BTreeMap<Record, u64> = BTreeMap::new();
    for &(key, n) in window {
        groups.entry(key).or_default().push(n);
        *counts.entry((key, n)).or_default() += 1;
    }
    let of_key = |key: &u8| groups.get(key).map_or(0, |values| values.iter().sum::<i64>());
    let sums: BTreeMap<u8, i64> = seen.iter().map(|key| (*key, of_key(key))).collect();
    let values: Vec<i64> = window.iter().map(|(_, n)| *n).collect();
    let some = |there: bool, value: Value| if there { vec![value] } else { Vec::new() };
    BTreeMap::from([
        ("window-out", as_json(window)),
        ("inverse-out", as_json(&sums.clone().into_iter().collect::<Vec<_>>())),
        ("filtered-out", as_json(&sums.into_iter().filter(|(_, sum)| *sum != 0).collect::<Vec<_>>())),
        ("stacks-out", as_json(&groups.clone().into_iter().collect::<Vec<_>>())),
        ("groups-out", as_json(&groups.into_iter().collect::<Vec<_>>())),
        ("count-out", vec![json!(window.len())]),
        ("values-out", as_json(&counts.into_iter().collect::<Vec<_>>())),
        ("sum-out", some(!seen.is_empty(), json!(values.iter().sum::<i64>()))),
        ("all-out", some(!values.is_empty(), json!(values))),
    ])
}

fn as_json<T: Serialize>(records: &[T]) -> Vec<Value> {
    records.iter().map(|record| serde_json::to_value(record).expect("JSON")).collect()
}

/// In an order of their own: that of keys is not promised.
fn in_any_order(mut values: Vec<Value>) -> Vec<String> {
    let mut texts: Vec<String> = values.drain(..).map(|value| value.to_string()).collect();
    texts.sort();
    texts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_form_of_window_is_what_its_batches_make_of_it(scenario in scenarios()) {
        let bench = Bench::new();
        let last = execute(&scenario, &bench);
        let commits = commits(&bench);
        let came: Vec<Vec<Record>> = commits.iter().flat_map(|commit| commit.batches.clone()).collect();
        prop_assert_eq!(came.len() as u64, last);
        prop_assert!(scenario.input.concat().starts_with(&came.concat()), "the source itself: {:?}", came);
        let mut seen = BTreeSet::new();
        let names: Vec<&str> = model(&[], &seen).into_keys().collect();
        let mut at = 0;
        for commit in &commits {
            let mut expected: BTreeMap<&str, Vec<Value>> = names.iter().map(|name| (*name, Vec::new())).collect();
            for _ in &commit.batches {
                at += 1;
                if at % scenario.slide == 0 {
                    let window = came[at.saturating_sub(scenario.length)..at].concat();
                    seen.extend(window.iter().map(|(key, _)| *key));
                    for (name, values) in model(&window, &seen) {
                        expected.entry(name).or_default().extend(values);
                    }
                }
            }
            for (name, expected) in expected {
                let put_out = in_any_order(committed(&bench, name, commit.time));
                prop_assert_eq!(put_out, in_any_order(expected), "{} at batch {}", name, at);
            }
        }
    }
}
