//! Section P of the cases: the estimator, and what inputs do under it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond_core::rate::{Backpressure, PidRateEstimator, PidSettings, RateEstimator};
use millpond_core::{BatchTime, ErrorKind, Result, StreamingContext, milliseconds, seconds};

use crate::support::*;

fn pid(interval_ms: u64, proportional: f64, integral: f64, derivative: f64, min_rate: f64) -> Result<PidRateEstimator> {
    PidRateEstimator::new(milliseconds(interval_ms), PidSettings { proportional, integral, derivative, min_rate })
}

#[test]
fn p1_the_first_batch_only_sets_out_and_a_time_counts_once() {
    let mut pid = pid(20, 1.0, 0.0, 0.0, 10.0).expect("valid");
    assert_eq!(pid.compute(0, 10, 10, 0), None);
    assert_eq!(pid.compute(10, 10, 10, 0), Some(1000.0));
    assert_eq!(pid.compute(10, 10, 10, 0), None);
}

#[test]
fn p2_batches_without_records_or_delay_are_passed_over() {
    let mut pid = pid(20, 1.0, 0.0, 0.0, 10.0).expect("valid");
    for (time, records, delay) in [(0, 0, 10), (10, -10, 10), (20, 10, 0), (30, 10, -10)] {
        assert_eq!(pid.compute(time, records, delay, 0), None);
    }
    // None of them was the first.
    assert_eq!(pid.compute(40, 10, 10, 0), None);
    assert_eq!(pid.compute(50, 10, 10, 0), Some(1000.0));
}

#[test]
fn p3_a_stream_that_cannot_be_kept_up_with_gets_the_minimum() {
    let mut pid = pid(20, 1.0, 1.0, 0.0, 5.0).expect("valid");
    let rates: Vec<_> = (0..50).map(|i| pid.compute(20 * i, 1, 20, 100)).collect();
    assert_eq!(rates[0], None);
    assert_eq!(rates[1..], [Some(5.0); 49]);
}

#[test]
fn p6_the_estimate_is_between_the_minimum_and_what_was_processed() {
    let mut pid = pid(20, 1.0, 0.01, 0.0, 10.0).expect("valid");
    for i in 0..50_i64 {
        // Any numbers in the ranges do.
        let (records, delay) = (1000 + (i * 7919) % 1000, 1 + (i * 31) % 19);
        let rate = pid.compute(20 * i, records, 20, delay);
        match rate {
            None => assert_eq!(i, 0),
            Some(rate) => assert!(rate >= 10.0 && rate < records as f64 / 20.0 * 1000.0, "{i}: {rate}"),
        }
    }
}

#[test]
fn p7_settings_that_make_no_sense_are_refused() {
    let wrong = [
        (0, 1.0, 0.2, 0.0, 100.0, "interval"),
        (1000, -1.0, 0.2, 0.0, 100.0, "proportional"),
        (1000, 1.0, -1.0, 0.0, 100.0, "integral"),
        (1000, 1.0, 0.2, -1.0, 100.0, "derivative"),
        (1000, 1.0, 0.2, 0.0, 0.0, "minimum rate"),
        (1000, 1.0, 0.2, 0.0, -10.0, "minimum rate"),
        (1000, f64::NAN, 0.2, 0.0, 100.0, "proportional"),
    ];
    for (interval, proportional, integral, derivative, min_rate, what) in wrong {
        let error = pid(interval, proportional, integral, derivative, min_rate).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(what), "{error}");
    }
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64]]);
    let settings = PidSettings { min_rate: 0.0, ..PidSettings::default() };
    let opened = bench.builder().backpressure(Backpressure::pid(settings)).open(|graph| {
        graph.source("in", source(&queue)).sink_json("out", bench.collection.sink());
        Ok(())
    });
    let text = opened.expect_err("refused").to_string();
    assert!(text.contains("`in`") && text.contains("minimum rate"), "{text}");
}

#[test]
fn p8_the_defaults() {
    let mut pid = PidRateEstimator::new(seconds(1), PidSettings::default()).expect("valid");
    assert_eq!(pid.compute(1000, 1000, 500, 0), None);
    assert_eq!(pid.compute(2000, 1000, 1000, 100), Some(980.0));
}

#[test]
fn p14_all_three_weights() {
    let mut pid = pid(1000, 1.0, 0.2, 0.1, 100.0).expect("valid");
    let batches = [(1000, 1000, 500, 0), (2000, 1000, 1000, 100), (3000, 500, 500, 0), (5000, 1000, 2000, 0)];
    let rates: Vec<_> =
        batches.iter().map(|&(time, records, delay, wait)| pid.compute(time, records, delay, wait)).collect();
    assert_eq!(rates[..3], [None, Some(880.0), Some(1112.0)]);
    assert!((rates[3].expect("a rate") - 463.4).abs() < 1e-9, "{rates:?}");
}

/// An estimator that says what it is told to, and writes down what it is asked.
struct Told {
    rate: Arc<Mutex<Option<f64>>>,
    asked: Arc<Mutex<Vec<[i64; 4]>>>,
}

impl RateEstimator for Told {
    fn compute(&mut self, time: i64, records: i64, processing: i64, scheduling: i64) -> Option<f64> {
        self.asked.lock().expect("no panic").push([time, records, processing, scheduling]);
        *self.rate.lock().expect("no panic")
    }
}

#[test]
fn p13_rates_rule_the_size_of_batches() {
    let bench = Bench::new();
    let (rate, asked) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
    // Elements of one record, all waiting.
    let queue = queue_of((0..1000_i64).map(|n| vec![n]).collect());
    let control = {
        let (rate, asked) = (rate.clone(), asked.clone());
        Backpressure::estimators(move |_, _| Ok(Box::new(Told { rate: rate.clone(), asked: asked.clone() })))
    };
    let open = || {
        let source = millpond_core::source::QueueSource::all_waiting(&queue).replayable();
        bench.builder().batch_interval(milliseconds(500)).backpressure(control.clone().initial_rate(100.0)).open(
            |graph| {
                graph.source("in", source).sink_json("out", bench.collection.sink());
                Ok(())
            },
        )
    };
    let running = open().and_then(StreamingContext::start).expect("it starts");
    let mut time = BatchTime::from_ms(0);
    let mut sizes = Vec::new();
    for next in [50.0, 20.0, 20.0] {
        *rate.lock().expect("no panic") = Some(next);
        time = BatchTime::from_ms(time.as_ms() + 500);
        bench.clock.advance(Duration::from_millis(500));
        running.await_committed(time, LIMIT).expect("the batch commits");
        sizes.push(running.batches().batch(time).expect("kept").records());
    }
    assert_eq!(sizes, [50, 25, 10]);
    let asked = asked.lock().expect("no panic").clone();
    assert_eq!(asked, [[500, 50, 0, 0], [1000, 25, 0, 0], [1500, 10, 0, 0]]);

    // Three batches are missed: after a restart each takes what the first limit allows, none everything.
    running.stop().expect("it stops");
    bench.clock.advance(Duration::from_millis(1500));
    let running = open().and_then(StreamingContext::start).expect("it starts");
    running.await_committed(BatchTime::from_ms(3000), LIMIT).expect("the missed batches commit");
    let completed = running.batches().completed();
    let first = completed.iter().find(|batch| batch.time == BatchTime::from_ms(2000)).expect("kept");
    assert_eq!(first.records(), 50);
    assert!(completed.iter().all(|batch| batch.records() <= 50), "{completed:?}");
    let out: Vec<u64> = bench.collection.committed("out").iter().map(|batch| batch.records.len() as u64).collect();
    assert_eq!(
        out.iter().sum::<u64>(),
        85 + completed.iter().map(millpond_core::listen::BatchInfo::records).sum::<u64>()
    );
}
