//! The driver of a pipeline in a test: the user's own function, sources and sinks replaced by name, ticks by hand.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use millpond::source::FedRecord;
use millpond::testing::{Feed, TestHooks};
use millpond::{BatchTime, Builder, Error, Graph, Progress, Result, Running, StreamingContext};
use serde::Serialize;
use tempfile::TempDir;

use crate::{Collection, ManualClock};

/// How long a test waits for a batch before it says that the pipeline hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// What describes the pipeline.
type Pipeline = Box<dyn Fn(&Graph<'_>) -> Result<()>>;

/// A record's key and value, each if it has one.
pub type KeyValue = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A pipeline under test: no broker, no clock, no waiting.
///
/// ```
/// use millpond::prelude::*;
/// use millpond_testkit::TestPond;
///
/// fn pipeline(graph: &Graph) -> millpond::Result<()> {
///     graph
///         .source("lines", KafkaSource::subscribe("localhost:9092", ["lines"]).utf8())
///         .flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>())
///         .map(|word| (word, 1_u64))
///         .update_touched_by_key("counts", |ones, total| Some(total.unwrap_or(0) + ones.sum()))
///         .sink_key_value("counts-out", KafkaSink::to("localhost:9092", "counts"), |(word, n)| (word.clone(), n.to_string()));
///     Ok(())
/// }
///
/// let mut pond = TestPond::new(pipeline);
/// pond.feed("lines", ["a b a"]).tick();
/// assert_eq!(pond.output("counts-out"), [("a", 2), ("b", 1)]);
/// pond.crash();
/// pond.feed("lines", ["a"]).tick();
/// assert_eq!(pond.new_output("counts-out"), [("a", 3)]);
/// ```
pub struct TestPond {
    pipeline: Pipeline,
    settings: Box<dyn Fn(Builder) -> Builder>,
    directory: TempDir,
    clock: Arc<ManualClock>,
    feed: Feed,
    collection: Collection,
    interval: Duration,
    running: Option<Running>,
    /// How much of each sink's output has been shown.
    shown: BTreeMap<String, usize>,
}

impl TestPond {
    /// A pond for a pipeline: a temporary directory, a manual clock at 0, batches of 1 s, every source fed by the test and every
    /// sink collected.
    ///
    /// # Panics
    /// If the pipeline does not open or start: with the error.
    pub fn new(pipeline: impl Fn(&Graph<'_>) -> Result<()> + 'static) -> Self {
        TestPond::with(pipeline, |builder| builder)
    }

    /// As [`new`](TestPond::new), with settings of one's own.
    ///
    /// # Panics
    /// If the pipeline does not open or start: with the error.
    pub fn with(
        pipeline: impl Fn(&Graph<'_>) -> Result<()> + 'static,
        settings: impl Fn(Builder) -> Builder + 'static,
    ) -> Self {
        let mut pond = TestPond {
            pipeline: Box::new(pipeline),
            settings: Box::new(settings),
            directory: tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary directory: {error}")),
            clock: Arc::new(ManualClock::at_ms(0)),
            feed: Feed::new(),
            collection: Collection::new(),
            interval: Duration::from_secs(1),
            running: None,
            shown: BTreeMap::new(),
        };
        pond.start().unwrap_or_else(|error| panic!("the pipeline does not start: {error}"));
        pond
    }

    /// Opens and starts the pipeline on the pond's directory: what an operator does after a crash. Done by [`tick`](TestPond::tick) if need be.
    ///
    /// # Errors
    /// Those of `open` and `start`.
    pub fn start(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let collection = self.collection.clone();
        let hooks = TestHooks {
            feed: Some(self.feed.clone()),
            sinks: Some(Box::new(move |_| Some(Box::new(collection.sink())))),
            log: None,
        };
        let builder = StreamingContext::builder("pond")
            .directory(self.directory.path())
            .batch_interval(self.interval)
            .clock(self.clock.clone())
            .verify_in_background(false)
            .test_hooks(hooks);
        let context = (self.settings)(builder).open(|graph| (self.pipeline)(graph))?;
        self.running = Some(context.start()?);
        Ok(())
    }

    /// Feeds records to the source of this name; the next tick's batch holds them.
    pub fn feed<R: Into<FedRecord>>(&mut self, source: &str, records: impl IntoIterator<Item = R>) -> &mut Self {
        self.feed.feed(source, records.into_iter().map(Into::into));
        self
    }

    /// Moves the clock on by a batch interval, and waits until that batch is committed.
    ///
    /// # Panics
    /// If the batch fails, with the error, or hangs for a minute.
    pub fn tick(&mut self) -> &mut Self {
        if let Err(error) = self.try_tick() {
            panic!("the batch failed: {error}");
        }
        self
    }

    /// As [`tick`](TestPond::tick), for batches that may fail.
    ///
    /// # Errors
    /// What stopped the context.
    pub fn try_tick(&mut self) -> Result<()> {
        self.start()?;
        let Some(running) = &self.running else { return Ok(()) };
        let next = BatchTime::from_ms(running.progress().planned.as_ms()) + self.interval;
        self.clock.advance(self.interval);
        let outcome = running.await_committed(next, LIMIT);
        if running.state() == millpond::ContextState::Stopped {
            self.running = None;
        }
        outcome
    }

    /// Ends the pipeline as a crash does, as far as can be done inside of a process: nothing is flushed, written or committed any more,
    /// and memory is forgotten. The next tick recovers. (For real kills of a real process see the crate's chaos runner.)
    pub fn crash(&mut self) -> &mut Self {
        if let Some(running) = self.running.take() {
            // A context that has failed has stopped already.
            let _ = running.stop();
        }
        self
    }

    /// Stops gracefully: everything is processed, and a last checkpoint written.
    ///
    /// # Errors
    /// What kept it from that.
    pub fn stop_gracefully(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |running| running.stop_gracefully())
    }

    /// Everything the sink of this name has committed so far, before the encoder: compare it with values of the same serde form,
    /// in any order within a batch.
    pub fn output(&mut self, sink: &str) -> Output {
        let batches = self.collection.committed(sink).into_iter();
        let values: Vec<_> = batches.flat_map(|batch| batch.values).collect();
        self.shown.insert(sink.to_owned(), values.len());
        Output { values }
    }

    /// What it has committed since the last call of this or of [`output`](TestPond::output).
    pub fn new_output(&mut self, sink: &str) -> Output {
        let seen = self.shown.get(sink).copied().unwrap_or(0);
        Output { values: self.output(sink).values.split_off(seen) }
    }

    /// Everything it has committed so far, after the encoder: keys and values.
    pub fn output_bytes(&self, sink: &str) -> Vec<KeyValue> {
        let batches = self.collection.committed(sink).into_iter();
        batches.flat_map(|batch| batch.records).map(|record| (record.key, record.value)).collect()
    }

    /// What is committed, batch by batch.
    pub fn collection(&self) -> &Collection {
        &self.collection
    }

    /// The clock.
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// The running context, if it runs.
    pub fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// The cursors of the running context.
    pub fn progress(&self) -> Option<Progress> {
        self.running.as_ref().map(Running::progress)
    }

    /// The pond's directory, thrown away with it.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

impl Drop for TestPond {
    fn drop(&mut self) {
        // The directory goes next: nobody may be writing in it.
        self.crash();
    }
}

/// What a sink has committed, to be compared.
#[derive(Clone, Debug)]
pub struct Output {
    /// The values as JSON.
    pub values: Vec<serde_json::Value>,
}

impl Output {
    fn equals<T: Serialize>(&self, expected: &[T]) -> Result<bool, Error> {
        let json = |value: &T| {
            serde_json::to_value(value).map_err(|error| {
                Error::new(millpond::ErrorKind::Program, "what is expected has no JSON form").with_source(error)
            })
        };
        let mut expected: Vec<String> =
            expected.iter().map(|value| json(value).map(|json| json.to_string())).collect::<Result<_>>()?;
        let mut seen: Vec<String> = self.values.iter().map(ToString::to_string).collect();
        expected.sort_unstable();
        seen.sort_unstable();
        Ok(expected == seen)
    }
}

impl<T: Serialize, const N: usize> PartialEq<[T; N]> for Output {
    /// As multisets: the order over keys and partitions is not promised.
    fn eq(&self, expected: &[T; N]) -> bool {
        self.equals(expected).unwrap_or(false)
    }
}

impl<T: Serialize + Debug> PartialEq<Vec<T>> for Output {
    /// As multisets: the order over keys and partitions is not promised.
    fn eq(&self, expected: &Vec<T>) -> bool {
        self.equals(expected).unwrap_or(false)
    }
}
