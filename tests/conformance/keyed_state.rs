//! Keyed state: what its settings refuse, how it changes with the program, and what a timeout costs.

use std::sync::atomic::{AtomicUsize, Ordering};

use millpond_core::{DStream, ErrorKind, Graph, Result, State, StreamingContext, seconds};
use serde::{Deserialize, Deserializer, Serialize};

use crate::support::*;

fn numbered<'g>(stream: DStream<'g, (u32, i64)>) -> DStream<'g, (u32, i64)> {
    stream.map_with_state("last", |_, key: &u32, value: Option<i64>, state: &mut State<'_, i64>| match value {
        Some(value) => {
            state.update(value);
            None
        }
        None => state.get().map(|last| (*key, *last)),
    })
}

/// Opens a pipeline over an empty input; what is refused.
fn refusal(pipeline: impl for<'g> Fn(DStream<'g, (u32, i64)>) -> DStream<'g, (u32, i64)>) -> String {
    let bench = Bench::new();
    let queue = queue_of(Vec::new());
    let opened = bench.builder().open(|graph| {
        pipeline(graph.source("in", source(&queue))).sink_json("out", bench.collection.sink());
        Ok(())
    });
    let error = opened.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    error.to_string()
}

#[test]
fn settings_of_keyed_state_belong_directly_behind_their_operator() {
    let late = refusal(|s| numbered(s).filter(|_| true).timeout(seconds(1)));
    assert!(late.contains("timeout(1s) of `last.filter`") && late.contains("directly"), "{late}");
    let update = refusal(|s| s.update_state_by_key("sums", |new, _: Option<i64>| Some(new.sum())).timeout(seconds(1)));
    assert!(update.contains("`sums`") && update.contains("only map_with_state"), "{update}");
    let twice = refusal(|s| numbered(s).timeout(seconds(1)).timeout(seconds(2)));
    assert!(twice.contains("it has a timeout already"), "{twice}");
    let late = refusal(|s| numbered(s).filter(|_| true).initial_state([(1_u32, 2_i64)]));
    assert!(late.contains("initial_state(..) of `last.filter`") && late.contains("directly"), "{late}");
    let twice = refusal(|s| numbered(s).initial_state([(1_u32, 2_i64)]).initial_state([(1_u32, 2_i64)]));
    assert!(twice.contains("there is an initial state already"), "{twice}");
    let key = refusal(|s| numbered(s).initial_state([("one", 2_i64)]));
    assert!(key.contains("`last`") && key.contains("(u32, i64)") && key.contains("&str"), "{key}");
    let snapshots = refusal(|s| numbered(s).state_snapshots::<u32, u64>().map(|(key, n)| (key, n as i64)));
    assert!(snapshots.contains("(u32, i64), not (u32, u64)"), "{snapshots}");
    let late = refusal(|s| numbered(s).filter(|_| true).state_snapshots::<u32, i64>());
    assert!(late.contains("state_snapshots() of `last.filter`"), "{late}");
}

#[test]
fn an_initial_state_may_be_given_in_another_type_of_the_same_form() {
    let outputs = run(words("a | ·"), 2, |s| {
        s.map(|word| (word, 1_u64))
            .update_state_by_key("counts", |ones, total: Option<u64>| Some(total.unwrap_or(0) + ones.sum()))
            .initial_state([("a", 5), ("b", 7), ("b", 8)])
            .map(|(word, n)| (word, n as i64))
    });
    assert_eq!(outputs, keyed("a6 b8 | a6 b8"));
}

#[test]
fn changing_a_state_that_times_out_fails_the_batch_and_names_the_operator() {
    for (call, text) in [(1, "State::update"), (2, "State::remove")] {
        let bench = Bench::new();
        let queue = queue_of(vec![vec![(7_u32, 1_i64)]]);
        let running = bench.start(|graph| {
            let stream = graph.source("in", source(&queue));
            let stream = stream.map_with_state("last", move |_, _, value: Option<i64>, state: &mut State<'_, i64>| {
                match (value, call) {
                    (None, 2) => state.remove(),
                    _ => state.update(1),
                }
                value
            });
            stream.timeout(seconds(1)).sink_json("out", bench.collection.sink());
            Ok(())
        });
        bench.tick(&running);
        bench.tick(&running);
        bench.clock.advance(seconds(1));
        let error = running.await_committed(millpond_core::BatchTime::from_ms(3000), LIMIT).expect_err("it fails");
        let message = error.to_string();
        assert!(
            message.contains(text) && message.contains("operator `last`") && message.contains("timing out"),
            "{message}"
        );
        assert_eq!(error.kind(), ErrorKind::Program);
    }
}

#[test]
fn t12_a_state_with_a_timeout_is_migrated_and_a_changed_type_shows_both() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![(7_u32, 1_i64)]]);
    let start = |pipeline: &dyn Fn(&Graph)| {
        let describe = |graph: &Graph| -> Result<()> {
            pipeline(graph);
            Ok(())
        };
        bench.builder().open(describe).and_then(StreamingContext::start)
    };
    let running = start(&|graph| {
        let stream = numbered(graph.source("in", source(&queue))).timeout(seconds(5));
        stream.sink_json("out", bench.collection.sink());
    });
    let running = running.expect("it starts");
    bench.tick(&running);
    running.stop_gracefully().expect("it stops");

    // The state is text now; the timeout stays, as do the times.
    let as_text = |graph: &Graph, migrated: bool, timeout: bool| {
        let stream = graph.source("in", source(&queue)).map_with_state(
            "last",
            |_, key: &u32, value: Option<i64>, state: &mut State<'_, String>| match value {
                Some(value) => {
                    state.update(value.to_string());
                    None
                }
                None => Some((*key, state.get().cloned())),
            },
        );
        let stream = if migrated { stream.schema(2, |old: i64| format!("was {old}")) } else { stream };
        let stream = if timeout { stream.timeout(seconds(5)) } else { stream };
        stream.state_snapshots::<u32, String>().sink_json("states", bench.collection.sink());
        stream.sink_json("out", bench.collection.sink());
    };
    let refused = start(&|graph| as_text(graph, false, true)).expect_err("the type has changed").to_string();
    assert!(refused.contains("`last`") && refused.contains("i64") && refused.contains("String"), "{refused}");
    // A version step and a timeout that is taken away, at once.
    let running = start(&|graph| as_text(graph, true, false)).expect("it is migrated");
    bench.tick(&running);
    running.stop_gracefully().expect("it stops");
    let running = start(&|graph| as_text(graph, true, true)).expect("it has a timeout again");
    (0..7).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    let states = bench.outputs::<(u32, String)>("states", 9);
    assert_eq!(states[1..8], vec![vec![(7, "was 1".to_owned())]; 7]);
    assert!(states[8].is_empty(), "used at 3000 at the latest: {states:?}");
    assert_eq!(bench.outputs::<(u32, String)>("out", 9)[8], [(7, "was 1".to_owned())]);
}

/// A state that counts how often it is read from the disk.
#[derive(Clone, Serialize)]
struct Counted(i64);

static READ: AtomicUsize = AtomicUsize::new(0);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        READ.fetch_add(1, Ordering::Relaxed);
        i64::deserialize(deserializer).map(Counted)
    }
}

#[test]
fn what_does_not_time_out_is_not_looked_at_also_after_a_restart() {
    const MANY: u32 = 20_000;
    let bench = Bench::new();
    // Ten keys each in the first two batches, many in the third; one of the ten is used again.
    let queue = queue_of(vec![
        (0..10).map(|n| (n, 1_i64)).collect(),
        (10..20).map(|n| (n, 1)).collect(),
        (20..MANY).map(|n| (n, 1)).collect(),
        vec![(3, 1)],
    ]);
    let start = || {
        bench.start(|graph| {
            let stream = graph.source("in", source(&queue)).map_with_state(
                "last",
                |_, key: &u32, value: Option<i64>, state: &mut State<'_, Counted>| match value {
                    Some(value) => {
                        state.update(Counted(value));
                        None
                    }
                    None => state.get().map(|last| (*key, last.0)),
                },
            );
            stream.timeout(seconds(4)).sink_json("out", bench.collection.sink());
            Ok(())
        })
    };
    let running = start();
    (0..4).for_each(|_| bench.tick(&running));
    running.stop_gracefully().expect("it stops");
    let running = start();
    READ.store(0, Ordering::Relaxed);
    let mut read = Vec::new();
    for _ in 5..=9 {
        bench.tick(&running);
        read.push(READ.swap(0, Ordering::Relaxed));
    }
    running.stop().expect("it stops");
    let timed_out: Vec<usize> = bench.outputs::<(u32, i64)>("out", 9).iter().map(Vec::len).collect();
    assert_eq!(timed_out, [0, 0, 0, 0, 0, 9, 10, MANY as usize - 20, 1]);
    // A freeze decodes one state of each partition that has changed, to see that it comes back.
    let samples = 16;
    assert!(read[0] == 0 && (10..10 + samples).contains(&read[1]) && (10..10 + samples).contains(&read[2]), "{read:?}");
    assert!((MANY as usize - 20..=MANY as usize + samples).contains(&read[3]), "{read:?}");
}

#[test]
fn between_the_slides_of_a_window_nothing_times_out() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![(1_u32, 1_i64)], vec![(2, 2)], vec![], vec![(1, 3)]]);
    let running = bench.start(|graph| {
        let stream = graph.source("in", source(&queue)).window("two", seconds(2), seconds(2));
        numbered(stream).timeout(seconds(3)).sink_json("out", bench.collection.sink());
        Ok(())
    });
    (0..12).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    let outputs = bench.outputs::<(u32, i64)>("out", 12);
    let at: Vec<_> = outputs.iter().enumerate().filter(|(_, records)| !records.is_empty()).collect();
    // Key 2 is of the window at 2 s, key 1 of that at 4 s: both are more than 3 s old two slides later.
    assert_eq!(at, [(5, &vec![(2, 2)]), (7, &vec![(1, 3)])]);
}
