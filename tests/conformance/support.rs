//! A stream of given batches through a pipeline on a manual clock, and what each batch put out.

use std::sync::Arc;
use std::time::Duration;

use millpond_core::source::{Queue, QueueSource};
use millpond_core::{BatchTime, Builder, DStream, Graph, Result, Running, StreamingContext};
use millpond_testkit::{Collection, ManualClock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A context on a manual clock from 0, batches of 1 s, two input partitions, a temporary directory.
pub(crate) struct Bench {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) directory: TempDir,
    pub(crate) collection: Collection,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Bench {
            clock: Arc::new(ManualClock::at_ms(0)),
            directory: tempfile::tempdir().expect("a temporary directory"),
            collection: Collection::new(),
        }
    }

    pub(crate) fn builder(&self) -> Builder {
        StreamingContext::builder("conformance")
            .directory(self.directory.path().join("pond"))
            .clock(self.clock.clone())
            .verify_in_background(false)
            .threads(2)
    }

    /// Opens and starts a pipeline.
    pub(crate) fn start(&self, pipeline: impl FnOnce(&Graph) -> Result<()>) -> Running {
        self.builder().open(pipeline).and_then(StreamingContext::start).expect("the pipeline starts")
    }

    /// One more batch, waited for.
    pub(crate) fn tick(&self, running: &Running) {
        let next = BatchTime::from_ms(running.progress().planned.as_ms() + 1000);
        self.clock.advance(Duration::from_secs(1));
        running.await_committed(next, LIMIT).expect("the batch commits");
    }

    /// What the sink `out` committed, for each of the batches 1 s to `batches` s, as its tasks wrote it.
    pub(crate) fn outputs<U: DeserializeOwned>(&self, sink: &str, batches: u64) -> Vec<Vec<U>> {
        let committed = self.collection.committed(sink);
        let of_batch = |second: u64| {
            let batch = committed.iter().filter(|batch| batch.batch.as_ms() == second * 1000);
            batch
                .flat_map(|batch| &batch.records)
                .map(|record| serde_json::from_slice(record.value.as_deref().unwrap_or_default()).expect("JSON"))
                .collect()
        };
        (1..=batches).map(of_batch).collect()
    }
}

pub(crate) fn queue_of<T>(batches: Vec<Vec<T>>) -> Queue<T> {
    let queue = Queue::new();
    batches.into_iter().for_each(|batch| queue.push(batch));
    queue
}

pub(crate) fn source<T: Clone + Send + Sync + 'static>(queue: &Queue<T>) -> QueueSource<T> {
    QueueSource::one_at_a_time(queue).replayable().partitions(2)
}

/// Runs the given batches and as many empty ones as are asked for through the operator; what each batch put out, in order.
pub(crate) fn run_ordered<T, U>(
    batches: Vec<Vec<T>>,
    count: u64,
    operator: impl for<'g> Fn(DStream<'g, T>) -> DStream<'g, U>,
) -> Vec<Vec<U>>
where
    T: Clone + Send + Sync + 'static,
    U: Serialize + DeserializeOwned + Send + 'static,
{
    let bench = Bench::new();
    let queue = queue_of(batches);
    let running = bench.start(|graph| {
        operator(graph.source("in", source(&queue))).sink_json("out", bench.collection.sink());
        Ok(())
    });
    (0..count).for_each(|_| bench.tick(&running));
    running.stop().expect("it stops");
    bench.outputs("out", count)
}

/// As [`run_ordered`], each batch sorted: where the order is not promised.
pub(crate) fn run<T, U>(
    batches: Vec<Vec<T>>,
    count: u64,
    operator: impl for<'g> Fn(DStream<'g, T>) -> DStream<'g, U>,
) -> Vec<Vec<U>>
where
    T: Clone + Send + Sync + 'static,
    U: Serialize + DeserializeOwned + Send + Ord + 'static,
{
    sorted(run_ordered(batches, count, operator))
}

pub(crate) fn sorted<U: Ord>(mut batches: Vec<Vec<U>>) -> Vec<Vec<U>> {
    batches.iter_mut().for_each(|batch| batch.sort());
    batches
}

/// `a,b | b | ·` as batches of words; `""` is the empty word.
pub(crate) fn words(text: &str) -> Vec<Vec<String>> {
    let batch = |batch: &str| match batch.trim() {
        "·" => Vec::new(),
        batch => batch.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect(),
    };
    text.split('|').map(batch).collect()
}

/// `a1 b2 | ·` as batches of keyed numbers, sorted.
pub(crate) fn keyed(text: &str) -> Vec<Vec<(String, i64)>> {
    let pair = |pair: &str| {
        let at = pair.find(|c: char| c.is_ascii_digit() || c == '-').expect("a number");
        (pair[..at].trim_matches('"').to_owned(), pair[at..].parse().expect("a number"))
    };
    let batch = |batch: &str| batch.split_whitespace().filter(|text| *text != "·").map(pair).collect();
    sorted(text.split('|').map(batch).collect())
}
