//! Section R of the cases: what listeners hear, and the progress tracker; and that listeners harm nobody.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millpond_core::listen::{
    BatchInfo, InputInfo, OutputOperationInfo, ProgressTracker, ReceiverInfo, StreamingListener,
};
use millpond_core::{BatchTime, ContextState, Error, Running, StreamingContext};

use crate::support::*;

/// What was heard, in order.
#[derive(Clone, Debug)]
enum Heard {
    Started,
    ReceiverStarted(ReceiverInfo),
    ReceiverError(ReceiverInfo),
    ReceiverStopped(ReceiverInfo),
    Submitted(BatchInfo),
    BatchStarted(BatchInfo),
    Completed(BatchInfo),
    OperationStarted(OutputOperationInfo),
    OperationCompleted(OutputOperationInfo),
}

struct Ear(Sender<Heard>);

impl Ear {
    fn new() -> (Ear, Receiver<Heard>) {
        let (sender, receiver) = channel();
        (Ear(sender), receiver)
    }

    fn hear(&self, heard: Heard) {
        let _ = self.0.send(heard);
    }
}

impl StreamingListener for Ear {
    fn on_streaming_started(&mut self, _: u64) {
        self.hear(Heard::Started);
    }
    fn on_receiver_started(&mut self, receiver: &ReceiverInfo) {
        self.hear(Heard::ReceiverStarted(receiver.clone()));
    }
    fn on_receiver_error(&mut self, receiver: &ReceiverInfo) {
        self.hear(Heard::ReceiverError(receiver.clone()));
    }
    fn on_receiver_stopped(&mut self, receiver: &ReceiverInfo) {
        self.hear(Heard::ReceiverStopped(receiver.clone()));
    }
    fn on_batch_submitted(&mut self, batch: &BatchInfo) {
        self.hear(Heard::Submitted(batch.clone()));
    }
    fn on_batch_started(&mut self, batch: &BatchInfo) {
        self.hear(Heard::BatchStarted(batch.clone()));
    }
    fn on_batch_completed(&mut self, batch: &BatchInfo) {
        self.hear(Heard::Completed(batch.clone()));
    }
    fn on_output_operation_started(&mut self, operation: &OutputOperationInfo) {
        self.hear(Heard::OperationStarted(operation.clone()));
    }
    fn on_output_operation_completed(&mut self, operation: &OutputOperationInfo) {
        self.hear(Heard::OperationCompleted(operation.clone()));
    }
}

/// Everything heard until the context has stopped.
fn all(heard: &Receiver<Heard>) -> Vec<Heard> {
    let mut all = Vec::new();
    // The listener's thread, and with it the sender, ends with the context.
    while let Ok(one) = heard.recv_timeout(LIMIT) {
        all.push(one);
    }
    all
}

fn time(second: u64) -> BatchTime {
    BatchTime::from_ms(second * 1000)
}

#[test]
fn r1_batches_are_submitted_started_and_completed_with_their_times_and_records() {
    let bench = Bench::new();
    let (ear, heard) = Ear::new();
    let queue = queue_of((1..=4_i64).map(|n| vec![n]).collect());
    let opened = bench.builder().listener(ear).open(|graph| {
        graph.source("in", source(&queue)).sink_json("out", bench.collection.sink());
        Ok(())
    });
    let running = opened.and_then(StreamingContext::start).expect("it starts");
    (0..4).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    let heard = all(&heard);

    assert!(matches!(&heard[0], Heard::ReceiverStarted(source) if (source.number, &*source.source) == (0, "in")));
    assert!(matches!(heard[1], Heard::Started), "{heard:?}");
    assert!(matches!(heard.last(), Some(Heard::ReceiverStopped(source)) if source.number == 0), "{heard:?}");
    let error =
        heard.iter().find_map(|heard| if let Heard::ReceiverError(source) = heard { Some(source) } else { None });
    assert_eq!(error, None);
    let of = |pick: fn(&Heard) -> Option<&BatchInfo>| heard.iter().filter_map(pick).cloned().collect::<Vec<_>>();
    let submitted = of(|heard| if let Heard::Submitted(batch) = heard { Some(batch) } else { None });
    let started = of(|heard| if let Heard::BatchStarted(batch) = heard { Some(batch) } else { None });
    let completed = of(|heard| if let Heard::Completed(batch) = heard { Some(batch) } else { None });
    for (number, ((submitted, started), completed)) in submitted.iter().zip(&started).zip(&completed).enumerate() {
        let delays = |batch: &BatchInfo| {
            [batch.scheduling_delay_ms(), batch.processing_delay_ms(), batch.total_delay_ms()]
                .map(|delay| delay.is_some())
        };
        assert_eq!(delays(submitted), [false; 3]);
        assert_eq!(delays(started), [true, false, false]);
        assert_eq!(delays(completed), [true; 3]);
        for batch in [submitted, started, completed] {
            assert_eq!((batch.time, batch.records()), (time(number as u64 + 1), 1));
            assert_eq!(batch.inputs, [InputInfo::new(0, "in", 1)]);
        }
        assert!(Some(completed.submission_ms) <= completed.start_ms && completed.start_ms <= completed.end_ms);
    }
    assert_eq!([submitted.len(), started.len(), completed.len()], [4; 3]);
    assert!(
        completed.is_sorted_by_key(|batch| batch.submission_ms) && completed.is_sorted_by_key(|batch| batch.end_ms)
    );
    assert_eq!(running.lost_listener_events(), 0);
}

#[test]
fn r3_output_operations_have_the_numbers_of_their_registration() {
    let bench = Bench::new();
    let (ear, heard) = Ear::new();
    let queue = queue_of(vec![vec![1_i64], vec![2]]);
    let opened = bench.builder().listener(ear).open(|graph| {
        let stream = graph.source("in", source(&queue));
        stream.clone().sink_json("first", bench.collection.sink());
        stream.clone().for_each_rdd(|_, _| Ok::<_, Error>(()));
        stream.sink_json("third", bench.collection.sink());
        Ok(())
    });
    let running = opened.and_then(StreamingContext::start).expect("it starts");
    (0..2).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    let heard = all(&heard);
    for second in [1, 2] {
        let started = heard.iter().filter_map(|heard| match heard {
            Heard::OperationStarted(operation) if operation.batch == time(second) => Some(operation.number),
            _ => None,
        });
        let completed = heard.iter().filter_map(|heard| match heard {
            Heard::OperationCompleted(operation) if operation.batch == time(second) => {
                assert!(operation.end_ms >= Some(operation.start_ms) && operation.failure.is_none());
                Some(operation.number)
            }
            _ => None,
        });
        assert_eq!(started.collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(completed.collect::<Vec<_>>(), [0, 1, 2]);
        let batch = running.batches().batch(time(second)).expect("kept");
        let names: Vec<_> = batch.output_operations.iter().map(|operation| &*operation.name).collect();
        assert_eq!(names, ["first", "in.for_each_rdd", "third"]);
    }
}

#[test]
fn r4_a_failed_output_operation_is_in_the_info_of_its_batch() {
    let bench = Bench::new();
    let (ear, heard) = Ear::new();
    let queue = queue_of(vec![vec![1_i64], vec![2]]);
    let opened = bench.builder().listener(ear).open(|graph| {
        let stream = graph.source("in", source(&queue));
        stream.clone().sink_json("fine", bench.collection.sink());
        let broken = stream.map(|n| if n == 2 { panic!("two is too many") } else { n });
        broken.sink_json("broken", bench.collection.sink());
        Ok(())
    });
    let running = opened.and_then(StreamingContext::start).expect("it starts");
    bench.tick(&running);
    bench.clock.advance(Duration::from_secs(1));
    let error = running.await_termination().expect_err("it fails").to_string();
    assert!(error.contains("two is too many"), "{error}");
    let completed: Vec<BatchInfo> = all(&heard)
        .into_iter()
        .filter_map(|heard| if let Heard::Completed(batch) = heard { Some(batch) } else { None })
        .collect();
    assert_eq!(completed.len(), 2);
    assert!(completed[0].failure.is_none() && completed[0].failure_reasons().is_empty());
    let failed = &completed[1];
    assert_eq!(failed.time, time(2));
    let reasons = failed.failure_reasons();
    assert_eq!(reasons.keys().copied().collect::<Vec<_>>(), [1]);
    assert!(reasons[&1].contains("two is too many") && reasons[&1].contains("`broken`"), "{reasons:?}");
    assert_eq!(&*failed.output_operations[1].name, "broken");
    assert!(failed.failure.as_deref().is_some_and(|reason| reason.contains("two is too many")), "{failed:?}");
    assert_eq!(running.batches().counts().failed, 1);
}

#[test]
fn r6_the_tracker_counts_batches_and_records() {
    let mut tracker = ProgressTracker::default();
    let mut batch = BatchInfo::submitted(time(1), vec![InputInfo::new(0, "a", 100), InputInfo::new(1, "b", 500)], 1000);
    tracker.on_batch_submitted(&batch);
    let counts = tracker.counts();
    assert_eq!((counts.waiting, counts.running, counts.unprocessed(), counts.received_records), (1, 0, 1, 0));
    batch.start_ms = Some(1001);
    tracker.on_batch_started(&batch);
    let counts = tracker.counts();
    assert_eq!((counts.waiting, counts.running, counts.received_records), (0, 1, 600));
    batch.end_ms = Some(1010);
    tracker.on_batch_completed(&batch);
    let counts = tracker.counts();
    assert_eq!((counts.running, counts.processed_records, counts.completed), (0, 600, 1));
    assert_eq!(tracker.completed(), [batch]);
}

#[test]
fn r7_the_tracker_has_limits() {
    let mut tracker = ProgressTracker::default();
    let (limit, total) = (1000, 1010);
    for second in 1..=total {
        let mut batch = BatchInfo::submitted(time(second), Vec::new(), 0);
        let mut operation = OutputOperationInfo::started(time(second), 0, "out", 0);
        if second % 2 == 0 {
            // Before its batch.
            tracker.on_output_operation_started(&operation);
        }
        tracker.on_batch_submitted(&batch);
        batch.start_ms = Some(0);
        tracker.on_batch_started(&batch);
        batch.end_ms = Some(0);
        tracker.on_batch_completed(&batch);
        // After it.
        operation.end_ms = Some(1);
        tracker.on_output_operation_completed(&operation);
    }
    assert_eq!((tracker.completed().len(), tracker.counts().completed), (limit, total));
    let whole = |batch: &BatchInfo| batch.output_operations.len() == 1 && batch.output_operations[0].end_ms == Some(1);
    assert!(tracker.completed().iter().all(whole));
    assert!(tracker.kept_operations() <= limit + 10);
    // Of batches that never come.
    (0..100).for_each(|second| {
        tracker.on_output_operation_started(&OutputOperationInfo::started(time(2000 + second), 0, "out", 0));
    });
    assert!(tracker.kept_operations() <= limit + 10);
}

/// Does something at each completed batch.
struct OnCompleted<F>(F);

impl<F: FnMut(&BatchInfo) + Send + 'static> StreamingListener for OnCompleted<F> {
    fn on_batch_completed(&mut self, batch: &BatchInfo) {
        (self.0)(batch);
    }
}

fn numbers(bench: &Bench, batches: i64) -> Running {
    let queue = queue_of((1..=batches).map(|n| vec![n]).collect());
    bench.start(|graph| {
        graph.source("in", source(&queue)).sink_json("out", bench.collection.sink());
        Ok(())
    })
}

#[test]
fn a_listener_that_panics_or_hangs_harms_no_batch_and_no_other_listener() {
    let bench = Bench::new();
    let running = numbers(&bench, 3);
    let panics = Arc::new(AtomicU64::new(0));
    let seen = panics.clone();
    let panicking = OnCompleted(move |_: &BatchInfo| {
        seen.fetch_add(1, Ordering::Relaxed);
        panic!("I do not like it");
    });
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let hanging = OnCompleted(move |_: &BatchInfo| {
        let _ = held.lock().expect("no panic").recv();
    });
    let (told, heard) = channel();
    let fine = OnCompleted(move |batch: &BatchInfo| {
        let _ = told.send(batch.time);
    });
    running.add_listener(panicking).expect("it is added");
    running.add_listener(hanging).expect("it is added");
    running.add_listener(fine).expect("it is added");
    (0..3).for_each(|_| bench.tick(&running));
    assert_eq!(
        (1..=3).map(|_| heard.recv_timeout(LIMIT).expect("heard")).collect::<Vec<_>>(),
        [time(1), time(2), time(3)]
    );
    assert_eq!(bench.outputs::<i64>("out", 3), [[1], [2], [3]]);
    running.stop().expect("it stops although a listener hangs");
    assert_eq!(panics.load(Ordering::Relaxed), 3);
    assert!(running.add_listener(OnCompleted(|_: &BatchInfo| ())).is_err());
    drop(release);
}

#[test]
fn a_listener_that_falls_behind_loses_events_which_are_counted() {
    let bench = Bench::new();
    let running = numbers(&bench, 1);
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    running
        .add_listener(OnCompleted(move |_: &BatchInfo| {
            let _ = held.lock().expect("no panic").recv();
        }))
        .expect("it is added");
    // Five events a batch, against 10,000 that may wait.
    let deadline = Instant::now() + LIMIT;
    while running.lost_listener_events() == 0 {
        assert!(Instant::now() < deadline, "no event was lost");
        bench.tick(&running);
    }
    drop(release);
    running.stop().expect("it stops");
}

#[test]
fn j17_a_listener_may_stop_the_context() {
    for graceful in [false, true] {
        let bench = Bench::new();
        let running = numbers(&bench, 1);
        let (stopper, refused) = (running.clone(), Arc::new(AtomicBool::new(false)));
        let outcome = refused.clone();
        running
            .add_listener(OnCompleted(move |_: &BatchInfo| {
                let stopped = if graceful { stopper.stop_gracefully() } else { stopper.stop() };
                outcome.store(stopped.is_err(), Ordering::Relaxed);
            }))
            .expect("it is added");
        bench.clock.advance(Duration::from_secs(1));
        assert!(running.await_termination_for(LIMIT).expect("no failure"), "it stopped");
        assert_eq!(running.state(), ContextState::Stopped);
        assert!(!refused.load(Ordering::Relaxed));
    }
}

#[test]
fn what_was_planned_and_not_committed_is_submitted_again_by_the_next_process_and_what_was_committed_is_not() {
    let bench = Bench::new();
    let queue = queue_of(vec![vec![1_i64], vec![2]]);
    let open = |ear| {
        bench.builder().checkpoint_interval(Duration::from_secs(60)).listener(ear).open(|graph| {
            let keyed = graph.source("in", source(&queue)).map(|n| (0_u8, n));
            let sums = keyed.update_touched_by_key("sum", |new, old| Some(old.unwrap_or(0) + new.sum()));
            sums.sink_json("out", bench.collection.sink());
            Ok(())
        })
    };
    let running = open(Ear::new().0).and_then(StreamingContext::start).expect("it starts");
    bench.tick(&running);
    running.stop().expect("it stops");
    let (ear, heard) = Ear::new();
    let running = open(ear).and_then(StreamingContext::start).expect("it recovers");
    bench.tick(&running);
    running.stop().expect("it stops");
    let times: Vec<_> = all(&heard)
        .into_iter()
        .filter_map(|heard| match heard {
            Heard::Submitted(batch) | Heard::BatchStarted(batch) | Heard::Completed(batch) => Some(batch.time),
            Heard::OperationStarted(operation) => Some(operation.batch),
            _ => None,
        })
        .collect();
    // Batch 1 was computed again, in silence.
    assert_eq!(times, [time(2); 4]);
    assert_eq!(bench.outputs::<(u8, i64)>("out", 2), [[(0, 1)], [(0, 3)]]);
}
