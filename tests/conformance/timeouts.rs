//! Section G of the cases: timeouts, initial states and snapshots of keyed state; the initial state of D3.

use std::time::Duration;

use millpond_core::{BatchTime, Builder, DStream, State, StreamingContext, milliseconds, seconds};

use crate::support::*;

const M7: &str = "· | a | a,b | a,b,c | a,b | a | ·";
const M7_STATES: &str = "· | a1 | a2 b1 | a3 b2 c1 | a4 b3 c1 | a5 b3 c1 | a5 b3 c1";

type States = Vec<Vec<(String, i64)>>;

/// What an operator put out, and its snapshots, batch by batch. `crash_every`: the context dies after so many batches;
/// a checkpoint is made every `checkpoint_every`.
struct Plan {
    crash_every: u64,
    checkpoint_every: u64,
    settings: fn(Builder) -> Builder,
}

const QUIET: Plan = Plan { crash_every: u64::MAX, checkpoint_every: 1, settings: |builder| builder };

impl Plan {
    fn run<T, U>(
        &self,
        batches: Vec<Vec<T>>,
        count: u64,
        operator: impl for<'g> Fn(DStream<'g, T>) -> DStream<'g, U>,
    ) -> (Vec<Vec<U>>, States)
    where
        T: Clone + Send + Sync + 'static,
        U: serde::Serialize + serde::de::DeserializeOwned + Send + Ord + 'static,
    {
        let bench = Bench::new();
        let queue = queue_of(batches);
        let mut running = None;
        for batch in 0..count {
            let context = running.get_or_insert_with(|| {
                let builder = bench.builder().checkpoint_interval(seconds(self.checkpoint_every));
                let context = (self.settings)(builder).open(|graph| {
                    let stream = operator(graph.source("in", source(&queue)));
                    stream.state_snapshots::<String, i64>().sink_json("states", bench.collection.sink());
                    stream.sink_json("out", bench.collection.sink());
                    Ok(())
                });
                context.and_then(StreamingContext::start).expect("the pipeline starts")
            });
            bench.tick(context);
            if (batch + 1) % self.crash_every == 0 {
                context.stop().expect("it stops");
                running = None;
            }
        }
        if let Some(running) = running {
            running.stop().expect("it stops");
        }
        (sorted(bench.outputs("out", count)), sorted(bench.outputs("states", count)))
    }
}

#[expect(clippy::ptr_arg, reason = "the function gets the key as the stream has it")]
fn add(key: &String, one: Option<i64>, sum: &mut State<'_, i64>) -> (String, i64) {
    let total = sum.get().copied().unwrap_or(0) + one.unwrap_or(0);
    sum.update(total);
    (key.clone(), total)
}

fn ones<'g>(words: DStream<'g, String>) -> DStream<'g, (String, i64)> {
    words.map(|word| (word, 1))
}

#[test]
fn g1_running_count_with_snapshots() {
    let (sums, states) =
        QUIET.run(words(M7), 7, |s| ones(s).map_with_state("counts", |_, key, n, state| Some(add(key, n, state).1)));
    assert_eq!(sums, sorted(vec![vec![], vec![1], vec![2, 1], vec![3, 2, 1], vec![4, 3], vec![5], vec![]]));
    assert_eq!(states, keyed(M7_STATES));
}

#[test]
fn g2_the_output_is_another_type() {
    let (doubled, states) = QUIET.run(words(M7), 7, |s| {
        ones(s).map_with_state("counts", |_, key: &String, n, state| {
            add(key, n, state);
            Some(key.repeat(2))
        })
    });
    assert_eq!(doubled, words("· | aa | aa,bb | aa,bb,cc | aa,bb | aa | ·"));
    assert_eq!(states, keyed(M7_STATES));
}

#[test]
fn g4_an_initial_state_and_no_output() {
    let initial = [("a", 5), ("b", 10), ("c", -20), ("d", 0)].map(|(key, n)| (key.to_owned(), n));
    let (outputs, states) = QUIET.run(words(M7), 7, move |s| {
        ones(s)
            .map_with_state("counts", |_, key, n, state| {
                add(key, n, state);
                None::<i64>
            })
            .initial_state(initial.clone())
    });
    assert!(outputs.iter().all(Vec::is_empty), "{outputs:?}");
    let expected = "a5 b10 c-20 d0 | a6 b10 c-20 d0 | a7 b11 c-20 d0 | a8 b12 c-19 d0 | a9 b13 c-19 d0 | a10 b13 c-19 d0 | \
                    a10 b13 c-19 d0";
    assert_eq!(states, keyed(expected));
}

#[expect(clippy::ptr_arg, reason = "the function gets the key as the stream has it")]
fn set_to_one(_: BatchTime, key: &String, value: Option<i64>, state: &mut State<'_, i64>) -> Option<String> {
    match value {
        Some(_) => {
            assert!(!state.is_timing_out());
            state.update(1);
            None
        }
        None => {
            assert!(state.is_timing_out() && state.exists());
            Some(key.clone())
        }
    }
}

const G6: &str = "a,b,c | a,b | a | · | · | a | a | a | a | a | a | a | a | a | a | a | a | a | a | a";

fn assert_g6((timed_out, states): (Vec<Vec<String>>, States)) {
    let mut expected = vec![Vec::new(); 20];
    (expected[4], expected[5]) = (vec!["c".to_owned()], vec!["b".to_owned()]);
    assert_eq!(timed_out, expected);
    assert_eq!(states[..4], vec![keyed("a1 b1 c1").concat(); 4]);
    assert_eq!(states[4..6], keyed("a1 b1 | a1"));
    assert_eq!(states[19], keyed("a1").concat());
}

#[test]
fn g6_keys_time_out_in_the_first_batch_in_which_it_holds() {
    assert_g6(QUIET.run(words(G6), 20, |s| ones(s).map_with_state("last", set_to_one).timeout(seconds(3))));
}

#[test]
fn g6_with_a_crash_after_every_batch() {
    for checkpoint_every in [1, 2, 7, 100] {
        let plan = Plan { crash_every: 1, checkpoint_every, ..QUIET };
        assert_g6(plan.run(words(G6), 20, |s| ones(s).map_with_state("last", set_to_one).timeout(seconds(3))));
    }
}

#[test]
fn g8_a_crash_after_three_of_seven_batches_changes_nothing() {
    let plan = Plan { crash_every: 3, checkpoint_every: 3, ..QUIET };
    fn same<'g>(s: DStream<'g, String>) -> DStream<'g, i64> {
        ones(s).map_with_state("counts", |_, key, n, state| Some(add(key, n, state).1))
    }
    assert_eq!(plan.run(words(M7), 7, same), QUIET.run(words(M7), 7, same));
}

/// What a call does, by the value: 0 looks, 1 increases or creates 0, 2 removes. Puts out what it saw, -1 for nothing, and
/// 1000 more where the key times out.
#[expect(clippy::ptr_arg, reason = "the function gets the key as the stream has it")]
fn do_as_told(_: BatchTime, key: &String, what: Option<i64>, state: &mut State<'_, i64>) -> Option<(String, i64)> {
    let seen = state.get().copied();
    match what {
        Some(1) => state.update(seen.map_or(0, |n| n + 1)),
        Some(2) => state.remove(),
        Some(_) => {}
        None => assert!(state.is_timing_out()),
    }
    Some((key.clone(), seen.unwrap_or(-1) + if what.is_none() { 1000 } else { 0 }))
}

/// The states 0, 123 and 345 of the record-level cases, stored at 1000; what comes in the batches from 2000 on.
fn told(batches: &str, count: u64, timeout: Option<Duration>) -> (States, States) {
    let batches = [vec![Vec::new()], keyed(batches)].concat();
    QUIET.run(batches, count, move |s| {
        let stream = s
            .map_with_state("told", do_as_told)
            .initial_state([("zero", 0), ("some", 123), ("other", 345)].map(|(key, n)| (key.to_owned(), n)));
        match timeout {
            Some(timeout) => stream.timeout(timeout),
            None => stream,
        }
    })
}

#[test]
fn g10_g11_g12_without_data_or_with_a_look_nothing_changes() {
    let all = "other345 some123 zero0";
    let (outputs, states) = told("· | zero0 | absent0 | some0", 5, None);
    assert_eq!(outputs, keyed("· | · | zero0 | absent-1 | some123"));
    assert_eq!(states, keyed(&[all; 5].join(" | ")));
}

#[test]
fn g11_with_a_timeout_a_call_that_looks_counts_as_a_use() {
    // All are of 1000; the look at 2000 keeps zero until 4000, so it times out at 5000.
    let (outputs, _) = told("zero0", 6, Some(seconds(2)));
    assert_eq!(outputs, keyed("· | zero0 | · | other1345 some1123 | zero1000 | ·"));
}

#[test]
fn g13_g14_update_and_remove() {
    let (outputs, states) = told("absent1 zero1 | other2 | other2 | absent1", 5, None);
    assert_eq!(outputs, keyed("· | absent-1 zero0 | other345 | other-1 | absent0"));
    assert_eq!(states[1], keyed("absent0 other345 some123 zero1").concat());
    assert_eq!(states[2], keyed("absent0 some123 zero1").concat());
    assert_eq!(states[4], keyed("absent1 some123 zero1").concat());
}

#[test]
fn g15_the_threshold_is_strict() {
    let (outputs, states) = told("·", 2, Some(milliseconds(1000)));
    assert!(outputs[1].is_empty() && states[1].len() == 3, "last used at 1000, threshold 1000: {outputs:?}");
    let (outputs, states) = told("·", 2, Some(milliseconds(999)));
    assert_eq!(outputs[1], keyed("other1345 some1123 zero1000").concat(), "threshold 1001");
    assert!(states[1].is_empty());
}

#[test]
fn g17_a_look_at_an_absent_key_stores_nothing() {
    let (outputs, states) = told("absent0 some0 | some0 | some0 | some0", 5, Some(seconds(2)));
    assert_eq!(outputs, keyed("· | absent-1 some123 | some123 | some123 other1345 zero1000 | some123"));
    assert_eq!(states[4], keyed("some123").concat());
}

#[test]
fn g18_g19_state_generation() {
    let generate = |batches: &str, count: u64, timeout: bool| {
        let batches = [vec![Vec::new()], keyed(batches)].concat();
        QUIET.run(batches, count, move |s| {
            let stream =
                s.map_with_state("told", do_as_told).initial_state([("ka".to_owned(), 0_i64), ("kb".to_owned(), 0)]);
            if timeout { stream.timeout(seconds(4)) } else { stream }
        })
    };
    assert_eq!(generate("· | ka0 | kc0", 4, false).1, keyed("ka0 kb0 | ka0 kb0 | ka0 kb0 | ka0 kb0"));
    let (outputs, states) = generate("kc1 | kd1", 9, true);
    assert_eq!(states[..3], keyed("ka0 kb0 | ka0 kb0 kc0 | ka0 kb0 kc0 kd0"));
    // Times 1000, 2000 and 3000 show where each times out.
    assert_eq!(outputs, keyed("· | kc-1 | kd-1 | · | · | ka1000 kb1000 | kc1000 | kd1000 | ·"));
    // Once removed in time, nothing times out; once created again, at the new time.
    let (outputs, _) = generate("kc1 | kc2 | kc1 | ka1", 10, true);
    assert_eq!(outputs, keyed("· | kc-1 | kc0 | kc-1 | ka0 | kb1000 | · | · | kc1000 | ka1001"));
}

#[test]
fn g22_an_initial_state_times_out_from_the_first_batch_on() {
    let bench = Bench::new();
    let queue = queue_of::<(u32, String)>(Vec::new());
    let running = bench.builder().partitions(10).open(|graph| {
        let stream = graph
            .source("in", source(&queue))
            .map_with_state("told", |_, key: &u32, _, state: &mut State<'_, String>| {
                state.is_timing_out().then(|| (*key, state.get().cloned()))
            })
            .timeout(seconds(2))
            .initial_state((1..=3).map(|n: u32| (n, n.to_string())));
        stream.state_snapshots::<u32, String>().sink_json("states", bench.collection.sink());
        stream.state_snapshots::<u32, String>().glom().count().sink_json("partitions", bench.collection.sink());
        stream.sink_json("out", bench.collection.sink());
        Ok(())
    });
    let running = running.and_then(StreamingContext::start).expect("the pipeline starts");
    (0..5).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    let all: Vec<(u32, String)> = (1..=3).map(|n| (n, n.to_string())).collect();
    let states = sorted(bench.outputs::<(u32, String)>("states", 5));
    assert_eq!(states, [all.clone(), all.clone(), all.clone(), vec![], vec![]]);
    assert_eq!(bench.outputs::<u64>("partitions", 5), vec![vec![10]; 5]);
    assert_eq!(sorted(bench.outputs::<(u32, String)>("out", 5)), [vec![], vec![], vec![], all, vec![]]);
}

#[test]
fn d3_an_initial_state_is_visible_in_the_first_batch() {
    fn times<'g>(s: DStream<'g, String>) -> DStream<'g, (String, i64)> {
        ones(s)
            .update_state_by_key_with("times", |time, _, new, old| {
                let old = old.unwrap_or(0);
                Some(if new.is_empty() { old } else { old + time.as_ms() as i64 })
            })
            .initial_state([("a".to_owned(), 0_i64), ("c".to_owned(), 0)])
    }
    let expected = keyed(
        "a1000 c0 | a3000 b2000 c0 | a6000 b5000 c3000 | a10000 b9000 c3000 | a15000 b9000 c3000 | a15000 b9000 c3000",
    );
    let input = "a | a,b | a,b,c | a,b | a | ·";
    for plan in [QUIET, Plan { crash_every: 1, checkpoint_every: 3, ..QUIET }] {
        let (outputs, states) = plan.run(words(input), 6, times);
        assert_eq!(outputs, expected);
        assert_eq!(states, expected);
    }
}

#[test]
fn d6_with_time_key_and_initial_state_of_touched_keys() {
    fn times<'g>(s: DStream<'g, String>) -> DStream<'g, (String, i64)> {
        ones(s)
            .update_touched_by_key_with("times", |time, key, new, old| {
                assert!(["a", "b"].contains(&key.as_str()));
                Some(old.unwrap_or(0) + new.sum() * time.as_ms() as i64)
            })
            .initial_state([("a".to_owned(), 7_i64), ("c".to_owned(), 0)])
    }
    for plan in [QUIET, Plan { crash_every: 1, checkpoint_every: 2, ..QUIET }] {
        let (outputs, states) = plan.run(words("· | a | b,a | ·"), 4, times);
        assert_eq!(outputs, keyed("· | a2007 | a5007 b3000 | ·"));
        assert_eq!(states, keyed("a7 c0 | a2007 c0 | a5007 b3000 c0 | a5007 b3000 c0"));
    }
}

#[test]
fn an_initial_state_is_taken_once_even_if_all_of_it_has_gone() {
    fn states<'g>(s: DStream<'g, (String, i64)>) -> DStream<'g, (String, i64)> {
        s.map_with_state("told", do_as_told).initial_state([("a".to_owned(), 5_i64)])
    }
    for checkpoint_every in [1, 100] {
        let plan = Plan { crash_every: 1, checkpoint_every, ..QUIET };
        let (outputs, states) = plan.run(keyed("· | a2 | a0 | ·"), 4, states);
        assert_eq!(outputs, keyed("· | a5 | a-1 | ·"));
        assert_eq!(states, keyed("a5 | · | · | ·"));
    }
}

#[test]
fn state_snapshots_may_be_asked_for_twice_and_cloned() {
    let bench = Bench::new();
    let queue = queue_of(words("a,b | a"));
    let running = bench.start(|graph| {
        let counts = ones(graph.source("in", source(&queue)))
            .map_with_state("counts", |_, key, n, state| Some(add(key, n, state)));
        let all = counts.state_snapshots::<String, i64>();
        all.clone().filter(|(word, _)| word == "b").sink_json("b", bench.collection.sink());
        all.sink_json("all", bench.collection.sink());
        // The output itself is read by nobody.
        Ok(())
    });
    (0..2).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    assert_eq!(sorted(bench.outputs::<(String, i64)>("all", 2)), keyed("a1 b1 | a2 b1"));
    assert_eq!(bench.outputs::<(String, i64)>("b", 2), keyed("b1 | b1"));
}

#[test]
fn what_is_kept_beside_the_state_shows_as_part_of_its_operator_and_goes_with_it() {
    let bench = Bench::new();
    let queue = queue_of(words("a,b | ·"));
    let running = bench.start(|graph| {
        let stream = ones(graph.source("in", source(&queue)));
        stream.map_with_state("last", set_to_one).timeout(seconds(3)).sink_json("out", bench.collection.sink());
        Ok(())
    });
    bench.tick(&running);
    running.stop_gracefully().expect("it stops");
    let found = millpond_core::inspect::inspect(&bench.directory.path().join("pond")).expect("it can be inspected");
    let shown: Vec<_> = found.operators.iter().map(|one| (one.name.as_str(), one.kind.as_str(), one.keys)).collect();
    assert_eq!(shown, [("last", "map_with_state, timeout", 2)]);
    let without = |removed: bool| {
        let builder = if removed { bench.builder().removed("last") } else { bench.builder() };
        let context = builder.open(|graph| {
            graph.source("in", source(&queue)).sink_json("out", bench.collection.sink());
            Ok(())
        });
        context.and_then(StreamingContext::start)
    };
    let refused = without(false).expect_err("its state would be lost").to_string();
    assert!(refused.contains("operator `last` keeps 2 keys"), "{refused}");
    let running = without(true).expect("it was removed on purpose");
    bench.tick(&running);
    running.stop().expect("it stops");
}
