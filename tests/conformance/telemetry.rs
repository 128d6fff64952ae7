//! Metrics and spans: a recorder and a subscriber get what docs/operations.md says. In a process of its own, as both are the
//! process's.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use millpond_core::rate::{Backpressure, PidSettings};
use millpond_core::source::{Receiver, ReceiverHandle, ReceiverSource};
use millpond_core::{Speculation, StreamingContext, milliseconds};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

use crate::support::*;

const CHILD: &str = "MILLPOND_TELEMETRY";

/// Of each metric its unit.
type Units = BTreeMap<String, Unit>;

/// Of each key how often something was recorded, and the last value.
type Cells = BTreeMap<String, Arc<Cell>>;

#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<(Units, Cells)>>);

#[derive(Debug, Default)]
struct Cell {
    recorded: AtomicU64,
    /// A sum of a counter, else the last value, as bits.
    value: AtomicU64,
}

impl Cell {
    fn set(&self, value: f64) {
        self.recorded.fetch_add(1, Ordering::Relaxed);
        self.value.store(value.to_bits(), Ordering::Relaxed);
    }
}

impl CounterFn for Cell {
    fn increment(&self, by: u64) {
        self.recorded.fetch_add(1, Ordering::Relaxed);
        self.value.fetch_add(by, Ordering::Relaxed);
    }
    fn absolute(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, _: f64) {
        panic!("gauges are set");
    }
    fn decrement(&self, _: f64) {
        panic!("gauges are set");
    }
    fn set(&self, value: f64) {
        Cell::set(self, value);
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        Cell::set(self, value);
    }
}

impl Heard {
    fn describe(&self, name: KeyName, unit: Option<Unit>) {
        self.0.lock().unwrap().0.insert(name.as_str().to_owned(), unit.expect("a unit"));
    }

    fn cell(&self, key: &Key) -> Arc<Cell> {
        let labels: Vec<String> = key.labels().map(|label| format!("{{{}={}}}", label.key(), label.value())).collect();
        self.0.lock().unwrap().1.entry(format!("{}{}", key.name(), labels.concat())).or_default().clone()
    }

    fn counter(&self, key: &str) -> u64 {
        self.0.lock().unwrap().1.get(key).map_or(0, |cell| cell.value.load(Ordering::Relaxed))
    }

    fn gauge(&self, key: &str) -> Option<f64> {
        let cell = self.0.lock().unwrap().1.get(key)?.clone();
        (cell.recorded.load(Ordering::Relaxed) > 0).then(|| f64::from_bits(cell.value.load(Ordering::Relaxed)))
    }

    fn recorded(&self, key: &str) -> u64 {
        self.0.lock().unwrap().1.get(key).map_or(0, |cell| cell.recorded.load(Ordering::Relaxed))
    }
}

impl Recorder for Heard {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(key, unit);
    }
    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(key, unit);
    }
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(key, unit);
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}

/// The names of spans that were entered, each with those it was entered in.
#[derive(Clone, Default)]
struct Spans {
    names: Arc<Mutex<Vec<&'static str>>>,
    paths: Arc<Mutex<BTreeSet<String>>>,
}

thread_local! {
    static ENTERED: std::cell::RefCell<Vec<&'static str>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span()
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut names = self.names.lock().unwrap();
        names.push(span.metadata().name());
        Id::from_u64(names.len() as u64)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, id: &Id) {
        let name = self.names.lock().unwrap()[id.into_u64() as usize - 1];
        let path = ENTERED.with_borrow_mut(|entered| {
            entered.push(name);
            entered.join(" > ")
        });
        self.paths.lock().unwrap().insert(path);
    }
    fn exit(&self, _: &Id) {
        ENTERED.with_borrow_mut(Vec::pop);
    }
}

/// A receiver that reports an error when it starts, and gives nothing.
struct Grumbles;

impl Receiver for Grumbles {
    type Item = i64;

    fn on_start(&mut self, handle: ReceiverHandle<i64>) {
        handle.report_error("no line");
    }

    fn on_stop(&mut self) {}
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + LIMIT;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The metrics table of the operators' manual: names with their unit.
fn documented() -> BTreeMap<String, String> {
    let text = include_str!("../../docs/operations.md");
    let table = text.split("| name | kind | unit | meaning |").nth(1).expect("the table").lines().skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).flat_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let names = cells[0].split('`').skip(1).step_by(2).filter(|name| name.starts_with("millpond_"));
        names.map(|name| (name.to_owned(), cells[2].to_owned())).collect::<Vec<_>>()
    });
    rows.collect()
}

#[test]
fn metrics_and_spans_are_those_that_the_manual_names() {
    if std::env::var_os(CHILD).is_none() {
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "telemetry::metrics_and_spans_are_those_that_the_manual_names", "--nocapture"])
            .env(CHILD, "1")
            // Tasks panic on purpose, and to look the names of a backtrace up takes long.
            .env("RUST_BACKTRACE", "0")
            .output()
            .expect("a process");
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let (heard, spans) = (Heard::default(), Spans::default());
    assert!(metrics::set_global_recorder(heard.clone()).is_ok());
    tracing::subscriber::set_global_default(spans.clone()).expect("no subscriber is set");

    let place = tempfile::tempdir().expect("a place");
    let (queue, collection) = (queue_of(Vec::<Vec<i64>>::new()), millpond_testkit::Collection::new());
    let (panics, hangs) = (AtomicBool::new(false), AtomicBool::new(false));
    let running = StreamingContext::builder("telemetry")
        .directory(place.path().join("pond"))
        .batch_interval(milliseconds(20))
        .checkpoint_interval(milliseconds(40))
        .threads(2)
        .task_attempts(2)
        .backpressure(Backpressure::pid(PidSettings::default()))
        .speculation(Speculation { quantile: 0.5, multiplier: 1.5, ..Speculation::default() })
        .open(|graph| {
            graph.source("silent", ReceiverSource::new(Grumbles)).sink_json("nothing", collection.sink());
            let numbers = graph.source("numbers", source(&queue).partitions(8)).map(move |n| {
                match n {
                    1 => assert!(panics.swap(true, Ordering::Relaxed), "fails once"),
                    2 if !hangs.swap(true, Ordering::Relaxed) => std::thread::sleep(Duration::from_millis(1500)),
                    3 => panic!("fails always"),
                    _ => {}
                }
                (n % 3, n)
            });
            numbers.clone().filter(|(_, n)| *n >= 0).sink_json("all", collection.sink());
            numbers
                .update_touched_by_key("sums", |new, sum| Some(sum.unwrap_or(0) + new.sum()))
                .sink_json("sums-out", collection.sink());
            Ok(())
        })
        .and_then(StreamingContext::start)
        .expect("it starts");

    wait("the error of the receiver", || heard.counter("millpond_source_errors_total{source=silent}") == 1);
    queue.push((10..500).collect());
    wait("records", || heard.counter("millpond_records_total{source=numbers}") == 490);
    queue.push((1..2).chain(10..99).collect());
    wait("a task that is tried again", || heard.counter("millpond_task_retries_total") >= 1);
    queue.push((2..3).chain(10..99).collect());
    wait("a task that is started twice", || heard.counter("millpond_speculative_tasks_total") >= 1);
    collection.fail_next_commit("sums-out");
    queue.push(vec![20]);
    wait("a recovery", || heard.counter("millpond_recoveries_total") == 1);
    wait("a checkpoint", || heard.counter("millpond_checkpoints_total") >= 2);
    wait("a rate", || {
        heard.gauge("millpond_rate_limit_records_per_second{source=numbers}").is_some_and(|rate| rate > 0.0) || {
            queue.push((10..500).collect());
            false
        }
    });
    for gauge in ["planned", "committed", "snapshot"] {
        wait(gauge, || heard.gauge(&format!("millpond_{gauge}_batch_ms")).is_some_and(|ms| ms > 1.6e12));
    }
    wait("state", || heard.gauge("millpond_state_bytes").is_some_and(|bytes| bytes > 0.0));
    assert!(heard.gauge("millpond_waiting_batches").is_some());
    for delay in ["scheduling_delay", "processing_delay", "total_delay", "checkpoint"] {
        let recorded = heard.recorded(&format!("millpond_{delay}_ms"));
        assert!(recorded >= 2, "{delay}: {recorded}");
    }
    assert!(heard.counter("millpond_batches_total") >= 5);
    queue.push(vec![3]);
    running.await_termination().expect_err("it fails for good");
    wait("a batch that failed", || heard.counter("millpond_failed_batches_total") == 1);

    // Every metric was described, with the unit that the manual gives, and nothing else was recorded.
    let units = heard.0.lock().unwrap().0.clone();
    let in_words = |unit: &Unit| match unit {
        Unit::Count => "a number of things",
        Unit::Milliseconds => "ms",
        Unit::Bytes => "bytes",
        Unit::CountPerSecond => "records/s",
        other => panic!("{other:?}"),
    };
    let described: BTreeMap<String, &str> = units.iter().map(|(name, unit)| (name.clone(), in_words(unit))).collect();
    let documented = documented();
    let expected: BTreeMap<String, &str> = documented
        .iter()
        .map(|(name, unit)| {
            let unit = match unit.as_str() {
                "ms since the epoch" | "ms" => "ms",
                "bytes" => "bytes",
                "records/s" => "records/s",
                _ => "a number of things",
            };
            (name.clone(), unit)
        })
        .collect();
    assert_eq!(described, expected);
    assert_eq!(expected.len(), 18);
    for key in heard.0.lock().unwrap().1.keys() {
        let name = key.split('{').next().unwrap_or(key);
        assert!(documented.contains_key(name), "{key} is not in the manual");
    }

    let paths = spans.paths.lock().unwrap().clone();
    for path in ["batch", "batch > output", "batch > output > stage", "checkpoint"] {
        assert!(paths.contains(path), "no span {path} in {paths:?}");
    }
}
