//! Section A of the cases: times, durations, and the times of the first batches.

use std::sync::Arc;
use std::time::Duration;

use millpond_core::{BatchTime, Running, StreamingContext, milliseconds, minutes, seconds};
use millpond_testkit::ManualClock;

use crate::support::*;

const T: fn(u64) -> BatchTime = BatchTime::from_ms;

fn times(times: impl Iterator<Item = BatchTime>) -> Vec<u64> {
    times.map(BatchTime::as_ms).collect()
}

#[test]
fn a1_floor() {
    for (time, step, floor) in [(1350, 200, 1200), (1200, 200, 1200), (199, 200, 0), (1, 1, 1)] {
        assert_eq!(T(time).floor(milliseconds(step)), T(floor));
    }
}

#[test]
fn a3_until_and_to() {
    assert_eq!(times(T(1000).until(T(1100), milliseconds(100))), [1000]);
    assert_eq!(times(T(1000).until(T(1000), milliseconds(100))), [0; 0]);
    assert_eq!(times(T(1000).until(T(1100), milliseconds(30))), [1000, 1030, 1060, 1090]);
    assert_eq!(times(T(1000).to(T(1100), milliseconds(100))), [1000, 1100]);
    assert_eq!(times(T(1000).to(T(1000), milliseconds(100))), [1000]);
}

#[test]
fn a5_multiples() {
    assert!([5, 1000, 1].iter().all(|step| T(1000).is_multiple_of(milliseconds(*step))));
    assert!(!T(1000).is_multiple_of(milliseconds(6)));
}

#[test]
fn a6_sums_and_differences() {
    assert_eq!(T(1000) + milliseconds(100), T(1100));
    assert_eq!(T(1000).since(T(100)), milliseconds(900));
    assert_eq!(T(1000) - milliseconds(1000), T(0));
    assert_eq!(milliseconds(100) * 2, milliseconds(200));
    let times = |n: u32| milliseconds(100) * n;
    assert_eq!(times(0), Duration::ZERO);
}

#[test]
fn a7_durations() {
    for (divisor, quotient) in [(5, 200.0), (1000, 1.0), (2000, 0.5)] {
        assert_eq!(milliseconds(1000).div_duration_f64(milliseconds(divisor)), quotient);
    }
    assert_eq!((seconds(30), minutes(2)), (milliseconds(30_000), milliseconds(120_000)));
    assert!(milliseconds(0).is_zero() && !milliseconds(1).is_zero());
}

#[test]
fn a8_order() {
    assert!(T(999) < T(1000) && T(1000) <= T(1000) && T(1000) >= T(1000));
    assert!(T(1000).cmp(&T(1000)).is_eq());
    assert_eq!((T(999).min(T(1000)), T(999).max(T(1000))), (T(999), T(1000)));
}

/// An empty pipeline with batches of this interval, from this clock on.
fn start(bench: &Bench, clock: &Arc<ManualClock>, interval: Duration) -> Running {
    let queue = queue_of::<u64>(vec![]);
    let builder = bench.builder().clock(clock.clone()).batch_interval(interval);
    let opened = builder.open(|graph| {
        graph.source("in", source(&queue)).count().sink_json("out", bench.collection.sink());
        Ok(())
    });
    opened.and_then(StreamingContext::start).expect("it starts")
}

#[test]
fn a9_the_first_batch() {
    for (now, zero, first) in [(1234, 1000, 1500), (1500, 1500, 2000)] {
        let (bench, clock) = (Bench::new(), Arc::new(ManualClock::at_ms(now)));
        let running = start(&bench, &clock, milliseconds(500));
        assert_eq!(running.progress().planned, T(zero), "nothing after zero time");
        clock.advance(milliseconds(first - now));
        running.await_committed(T(first), LIMIT).expect("the first batch");
        assert_eq!(bench.collection.committed("out")[0].batch, T(first));
        running.stop().expect("it stops");
    }
}

#[test]
fn a10_the_next_batch_after_a_restart() {
    let (bench, clock) = (Bench::new(), Arc::new(ManualClock::at_ms(0)));
    start(&bench, &clock, milliseconds(2000)).stop().expect("it stops");
    let clock = Arc::new(ManualClock::at_ms(15_000));
    let running = start(&bench, &clock, milliseconds(2000));
    // What was missed is made up for at once.
    running.await_committed(T(14_000), LIMIT).expect("the missed batches");
    assert_eq!(running.progress().planned, T(14_000));
    clock.advance(milliseconds(1000));
    running.await_committed(T(16_000), LIMIT).expect("the next batch");
    assert_eq!(running.progress().planned, T(16_000));
    running.stop().expect("it stops");
}
