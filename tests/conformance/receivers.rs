//! Sections J, L and M of the cases, as far as they concern receivers and the end of sources, through whole contexts.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millpond_core::listen::{ReceiverInfo, StreamingListener};
use millpond_core::source::{
    Plan, PlanRequest, QueueSource, Receiver, ReceiverHandle, ReceiverSource, Replay, Source, SourcePartition,
    SourceStart,
};
use millpond_core::{BatchTime, ContextState, ErrorKind, Result, Running, StreamingContext};

use crate::support::*;

/// A receiver made of two functions.
struct Scripted<A, B>(A, B);

impl<A, B> Receiver for Scripted<A, B>
where
    A: FnMut(ReceiverHandle<i64>) + Send + 'static,
    B: FnMut() + Send + 'static,
{
    type Item = i64;

    fn on_start(&mut self, handle: ReceiverHandle<i64>) {
        (self.0)(handle);
    }

    fn on_stop(&mut self) {
        (self.1)();
    }
}

/// All that was committed, in order.
fn committed(bench: &Bench) -> Vec<i64> {
    let committed = bench.collection.committed("out");
    let records = committed.iter().flat_map(|batch| &batch.records);
    records.map(|record| serde_json::from_slice(record.value.as_deref().unwrap_or_default()).expect("JSON")).collect()
}

fn start<R: Receiver<Item = i64>>(bench: &Bench, stop_timeout: Duration, source: ReceiverSource<R>) -> Running {
    let opened = bench.builder().graceful_stop_timeout(stop_timeout).open(|graph| {
        graph.source("in", source).sink_json("out", bench.collection.sink());
        Ok(())
    });
    opened.and_then(StreamingContext::start).expect("it starts")
}

/// A receiver that gives its handle away and does nothing.
fn idle() -> (ReceiverSource<impl Receiver<Item = i64>>, std::sync::mpsc::Receiver<ReceiverHandle<i64>>) {
    let (sender, handles) = channel();
    let receiver = Scripted(
        move |handle| {
            let _ = sender.send(handle);
        },
        || (),
    );
    (ReceiverSource::new(receiver), handles)
}

#[test]
fn j5_four_rounds_of_a_receiver_that_counts_lose_and_double_nothing() {
    let bench = Bench::new();
    let received = Arc::new(AtomicI64::new(0));
    for round in 1..=4 {
        let (counter, (told, enough)) = (received.clone(), channel());
        let source = ReceiverSource::new(Scripted(
            move |handle: ReceiverHandle<i64>| {
                let (counter, told) = (counter.clone(), told.clone());
                std::thread::spawn(move || {
                    while handle.store_group(&[counter.load(Ordering::SeqCst)]).is_ok() {
                        let _ = told.send(counter.fetch_add(1, Ordering::SeqCst));
                    }
                });
            },
            || (),
        ));
        let running = start(&bench, LIMIT, source);
        for _ in 0..50 {
            enough.recv_timeout(LIMIT).expect("it counts");
        }
        bench.tick(&running);
        running.stop_gracefully().expect("it stops");
        let processed = committed(&bench);
        assert!(processed.len() >= 50 * round, "{}", processed.len());
        assert_eq!(processed.len() as i64, received.load(Ordering::SeqCst));
        assert!(processed.iter().copied().eq(0..processed.len() as i64));
    }
}

#[test]
fn j6_a_slow_receiver_is_waited_for_within_the_limit_of_the_stop() {
    let bench = Bench::new();
    let handle: Arc<Mutex<Option<ReceiverHandle<i64>>>> = Arc::default();
    let (started, stopping) = (handle.clone(), handle);
    let source = ReceiverSource::new(Scripted(
        move |handle: ReceiverHandle<i64>| {
            (0..5).for_each(|n| handle.store(n).expect("it is stored"));
            *started.lock().expect("no panic") = Some(handle);
        },
        move || {
            let handle = stopping.lock().expect("no panic").take().expect("it was started");
            for n in 5..15 {
                // It is a slow one.
                std::thread::sleep(Duration::from_millis(50));
                handle.store(n).expect("it is stored");
            }
        },
    ));
    let running = start(&bench, LIMIT, source);
    running.stop_gracefully().expect("it stops");
    assert_eq!(committed(&bench), (0..15).collect::<Vec<_>>());
}

#[test]
fn j7_a_receiver_that_ignores_the_stop_is_named_within_the_limit() {
    let bench = Bench::new();
    let (release, held) = channel::<()>();
    let source = ReceiverSource::new(Scripted(
        |handle: ReceiverHandle<i64>| handle.store(7).expect("it is stored"),
        move || {
            let _ = held.recv();
        },
    ));
    let running = start(&bench, Duration::from_secs(2), source);
    let began = Instant::now();
    let error = running.stop_gracefully().expect_err("it did not stop");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(error.to_string().contains("source `in`") && error.to_string().contains("asked to stop"), "{error}");
    // What it had stored was processed all the same, and the context has ended.
    assert_eq!(committed(&bench), [7]);
    let ended = running.await_termination_for(LIMIT).expect_err("the same error");
    assert_eq!((ended.to_string(), running.state()), (error.to_string(), ContextState::Stopped));
    let progress = running.progress();
    assert_eq!((progress.snapshot, progress.committed), (progress.planned, progress.planned));
    drop(release);
}

/// A source that notes whether it is asked for anything after its end.
struct Strict {
    source: QueueSource<i64>,
    stopped: bool,
    asked: Arc<AtomicBool>,
}

impl Strict {
    fn ask(&self) {
        self.asked.fetch_or(self.stopped, Ordering::SeqCst);
    }
}

impl Source for Strict {
    type Item = i64;

    fn kind(&self) -> &'static str {
        self.source.kind()
    }
    fn identity(&self) -> String {
        self.source.identity()
    }
    fn replay(&self) -> Replay {
        self.source.replay()
    }
    fn start(&mut self, start: SourceStart) -> Result<()> {
        self.source.start(start)
    }
    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        self.ask();
        self.source.plan(request)
    }
    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<i64>>>> {
        self.ask();
        self.source.read(plan)
    }
    fn release(&mut self, committed: BatchTime) {
        self.ask();
        self.source.release(committed);
    }
    fn stop_receiving(&mut self, limit: Duration) -> Result<()> {
        self.source.stop_receiving(limit)
    }
    fn has_waiting(&self) -> bool {
        self.ask();
        self.source.has_waiting()
    }
    fn stop(&mut self) {
        self.stopped = true;
        self.source.stop();
    }
}

#[test]
fn j13_sources_are_stopped_last() {
    let bench = Bench::new();
    let queue = queue_of((0..5_i64).map(|n| vec![n]).collect());
    let asked = Arc::new(AtomicBool::new(false));
    let running = bench.start(|graph| {
        let strict = Strict { source: source(&queue), stopped: false, asked: asked.clone() };
        graph.source("in", strict).sink_json("out", bench.collection.sink());
        Ok(())
    });
    bench.tick(&running);
    running.stop_gracefully().expect("it stops");
    assert_eq!(committed(&bench), [0, 1, 2, 3, 4]);
    assert!(!asked.load(Ordering::SeqCst));
}

struct Ear(std::sync::mpsc::Sender<(&'static str, ReceiverInfo)>);

impl StreamingListener for Ear {
    fn on_receiver_started(&mut self, receiver: &ReceiverInfo) {
        let _ = self.0.send(("started", receiver.clone()));
    }
    fn on_receiver_error(&mut self, receiver: &ReceiverInfo) {
        let _ = self.0.send(("error", receiver.clone()));
    }
    fn on_receiver_stopped(&mut self, receiver: &ReceiverInfo) {
        let _ = self.0.send(("stopped", receiver.clone()));
    }
}

#[test]
fn l4_listeners_hear_of_the_life_of_a_receiver() {
    let bench = Bench::new();
    let (source, handles) = idle();
    let (sender, heard) = channel::<(&str, ReceiverInfo)>();
    let next = || {
        let (what, receiver) = heard.recv_timeout(LIMIT).expect("an event");
        assert_eq!((receiver.number, &*receiver.source, receiver.kind), (0, "in", "receiver"));
        (what, receiver.error.unwrap_or_default())
    };
    let opened = bench.builder().listener(Ear(sender)).open(|graph| {
        graph.source("in", source).sink_json("out", bench.collection.sink());
        Ok(())
    });
    let running = opened.and_then(StreamingContext::start).expect("it starts");
    let first = handles.recv_timeout(LIMIT).expect("it is started");
    assert_eq!(next().0, "started");
    first.restart_after("the server said x", Duration::from_millis(100));
    let (what, error) = next();
    assert!(what == "error" && error.contains("the server said x"), "{error}");
    assert_eq!(next().0, "stopped");
    // The clock stands still, and so does the receiver.
    assert!(first.is_stopped() && handles.try_recv().is_err());
    bench.clock.advance(Duration::from_millis(100));
    let second = handles.recv_timeout(LIMIT).expect("it is started again");
    assert_eq!(next().0, "started");
    second.stop("no more");
    assert_eq!((next().0, next().0), ("error", "stopped"));
    assert!(handles.recv().is_err(), "it is not started again");
    running.stop_gracefully().expect("it stops");
    assert_eq!(second.store(1).expect_err("it has stopped").kind(), ErrorKind::Stopped);
}

#[test]
fn m4_after_a_restart_the_planned_blocks_are_in_their_batch_and_the_others_in_the_next() {
    let bench = Bench::new();
    let (source, handles) = idle();
    let running = start(&bench, LIMIT, source);
    let handle = handles.recv_timeout(LIMIT).expect("it is started");
    (0..5).for_each(|n| handle.store_group_at(&[n], &[n as u8]).expect("it is durable"));
    bench.tick(&running);
    (5..10).for_each(|n| handle.store_group_at(&[n], &[n as u8]).expect("it is durable"));
    running.stop().expect("it stops");

    let (source, handles) = idle();
    let running = start(&bench, LIMIT, source);
    let handle = handles.recv_timeout(LIMIT).expect("it is started");
    assert_eq!(handle.last_position(), Some(vec![9]));
    bench.tick(&running);
    let batches: Vec<Vec<i64>> = bench.outputs("out", 2);
    assert_eq!(batches, [vec![0, 1, 2, 3, 4], vec![5, 6, 7, 8, 9]]);
}
