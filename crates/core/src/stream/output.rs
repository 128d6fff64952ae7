//! Where streams end: sinks, `for_each_rdd`, `print`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::run::for_user;
use super::{BatchRun, DStream};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::exec::{Effect, Stage, Task, run_stages};
use crate::rdd::Rdd;
use crate::sink::{Digest, IntoSink, Records};
use crate::source::RefusedRecord;
use crate::time::BatchTime;

/// An output operation, run once a batch, in the order of registration.
pub(crate) trait Output: Send {
    /// Its name for messages: the sink's, or the stream's label.
    fn name(&self) -> &str;
    /// Computes the batch as far as this output needs it and hands the output over.
    fn run(&self, run: &Arc<BatchRun>, outputs: &BatchOutputs) -> Result<()>;
}

/// Where the outputs of one batch go, by sink.
pub(crate) struct BatchOutputs {
    pub(crate) targets: Vec<Arc<OutputTarget>>,
}

/// Where the output of one batch to one sink goes.
pub(crate) struct OutputTarget {
    order: Mutex<Order>,
    /// Takes a finished task's output; `None` where the sink has committed the batch: only the digest is computed.
    send: Option<Box<dyn Fn(Records) + Send + Sync>>,
}

/// Outputs go to the sink in the order of the partitions: what ends early waits for those before it.
#[derive(Default)]
struct Order {
    digest: Digest,
    next: usize,
    early: BTreeMap<usize, Records>,
}

impl Order {
    fn next_in_order(&mut self) -> Option<Records> {
        self.early.remove(&self.next)
    }
}

impl OutputTarget {
    pub(crate) fn new(send: Option<Box<dyn Fn(Records) + Send + Sync>>) -> Arc<Self> {
        Arc::new(OutputTarget { order: Mutex::default(), send })
    }

    pub(crate) fn digest(&self) -> Digest {
        self.lock().digest
    }

    /// The tasks of the next batch of a stretch begin.
    fn begin(&self) {
        let mut order = self.lock();
        (order.next, order.early) = (0, BTreeMap::new());
    }

    fn take(&self, partition: usize, records: Records) {
        let mut order = self.lock();
        order.digest.merge(records.digest());
        order.early.insert(partition, records);
        while let Some(records) = order.next_in_order() {
            order.next += 1;
            // Under the lock, which keeps the order; it only queues.
            if let Some(send) = self.send.as_ref().filter(|_| !records.is_empty()) {
                send(records);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The output of a task, handed over when the task has ended (hard case H9).
struct HandOver {
    partition: usize,
    records: Records,
    target: Arc<OutputTarget>,
}

impl Effect for HandOver {
    fn keep(self: Box<Self>) -> Result<()> {
        fail::fail_point!("task-done");
        self.target.take(self.partition, self.records);
        Ok(())
    }

    fn undo(self: Box<Self>) {}
}

struct SinkOutput<T, F> {
    name: Arc<str>,
    number: usize,
    keep_values: bool,
    node: Arc<dyn super::Node<T>>,
    encode: Arc<F>,
}

struct SinkStage<T, F> {
    label: Arc<str>,
    rdd: Rdd<'static, T>,
    keep_values: bool,
    encode: Arc<F>,
    target: Arc<OutputTarget>,
    done: AtomicBool,
}

impl<T, F> Output for SinkOutput<T, F>
where
    T: Serialize + Send + 'static,
    F: Fn(&T, BatchTime, &mut Records) -> Result<()> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, run: &Arc<BatchRun>, outputs: &BatchOutputs) -> Result<()> {
        let stage = SinkStage {
            label: self.name.clone(),
            rdd: self.node.rdd(run)?,
            keep_values: self.keep_values,
            encode: self.encode.clone(),
            target: outputs.targets[self.number].clone(),
            done: AtomicBool::new(false),
        };
        stage.target.begin();
        run_stages(&run.env.executor, run.env.batch, vec![Arc::new(stage)])
    }
}

impl<T, F> Stage for SinkStage<T, F>
where
    T: Serialize + Send + 'static,
    F: Fn(&T, BatchTime, &mut Records) -> Result<()> + Send + Sync,
{
    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.rdd.op.dependencies()
    }

    fn tasks(&self) -> usize {
        self.rdd.op.partitions()
    }

    fn run(&self, task: &Task) -> Result<()> {
        let mut records = Records::new();
        self.rdd.op.compute(task.partition, task, &mut |chunk| {
            task.enter(&self.label);
            for record in &chunk {
                (self.encode)(record, task.batch, &mut records)?;
            }
            if self.keep_values {
                for record in &chunk {
                    records.values.push(serde_json::to_value(record).map_err(encoding_failed)?);
                }
            }
            Ok(())
        })?;
        task.stage(HandOver { partition: task.partition, records, target: self.target.clone() });
        Ok(())
    }

    fn can_retry(&self) -> bool {
        self.rdd.op.retryable()
    }

    fn can_race(&self) -> bool {
        self.rdd.op.repeatable()
    }

    fn done(&self) -> &AtomicBool {
        &self.done
    }
}

fn encoding_failed(error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Program, "a record cannot be encoded for the sink").with_source(error)
}

impl<'g, T: Serialize + Send + 'static> DStream<'g, T> {
    /// Commits each batch's records to a sink. `encode(record, batch time, out)` adds whatever records it likes to `out`,
    /// with keys, values and headers.
    ///
    /// The name is the sink's place in the cursor and the checkpoint. The function must be deterministic. A sink that
    /// cannot keep exactly-once is refused unless it is wrapped in [`at_least_once`](crate::sink::at_least_once).
    pub fn sink_records<E: Into<BoxError>>(
        self,
        name: &str,
        sink: impl IntoSink,
        encode: impl Fn(&T, BatchTime, &mut Records) -> Result<(), E> + Send + Sync + 'static,
    ) {
        self.sink_encoded(name, sink, move |record, time, out| encode(record, time, out).map_err(encoding_failed));
    }

    fn sink_encoded(
        self,
        name: &str,
        sink: impl IntoSink,
        encode: impl Fn(&T, BatchTime, &mut Records) -> Result<()> + Send + Sync + 'static,
    ) {
        let (name, number, keep_values) = self.graph.add_sink(name, sink, &self.upstream);
        let output = SinkOutput { name, number, keep_values, node: self.node(), encode: Arc::new(encode) };
        self.graph.add_output(Box::new(output));
    }

    /// Commits each batch's records to a sink, each as a key and a value. See [`sink_records`](DStream::sink_records).
    pub fn sink_key_value<A: AsRef<[u8]>, B: AsRef<[u8]>>(
        self,
        name: &str,
        sink: impl IntoSink,
        encode: impl Fn(&T) -> (A, B) + Send + Sync + 'static,
    ) {
        self.sink_encoded(name, sink, move |record, _, out| {
            let (key, value) = encode(record);
            out.push(Some(key.as_ref()), Some(value.as_ref()));
            Ok(())
        });
    }

    /// Commits each batch's records to a sink, each as a value without key. See [`sink_records`](DStream::sink_records).
    pub fn sink_value<B: AsRef<[u8]>>(
        self,
        name: &str,
        sink: impl IntoSink,
        encode: impl Fn(&T) -> B + Send + Sync + 'static,
    ) {
        self.sink_encoded(name, sink, move |record, _, out| {
            out.push(None, Some(encode(record).as_ref()));
            Ok(())
        });
    }

    /// Commits each batch's records to a sink, each as JSON without key. See [`sink_records`](DStream::sink_records).
    pub fn sink_json(self, name: &str, sink: impl IntoSink) {
        self.sink_encoded(name, sink, move |record, _, out| {
            let json = serde_json::to_vec(record).map_err(encoding_failed)?;
            out.push(None, Some(&json));
            Ok(())
        });
    }

    /// Commits each batch's records to a sink, each as text. See [`sink_records`](DStream::sink_records).
    pub fn sink_text(self, name: &str, sink: impl IntoSink)
    where
        T: Display,
    {
        self.sink_value(name, sink, |record| record.to_string());
    }
}

impl DStream<'_, RefusedRecord> {
    /// Commits refused records as they were received, key, value and headers, with two headers more: where each came from
    /// (`refused-from`) and why it was refused (`refused-because`).
    pub fn sink_raw(self, name: &str, sink: impl IntoSink) {
        self.sink_encoded(name, sink, |record, _, out| {
            let mut writer = out.record();
            if let Some(key) = &record.key {
                writer = writer.key(key);
            }
            if let Some(value) = &record.value {
                writer = writer.value(value);
            }
            for (name, value) in &record.headers {
                writer = match value {
                    Some(value) => writer.header(name, value),
                    None => writer.null_header(name),
                };
            }
            writer.header("refused-from", &record.origin).header("refused-because", &record.reason).end();
            Ok(())
        });
    }
}

struct ForEachRdd<T, F> {
    label: Arc<str>,
    node: Arc<dyn super::Node<T>>,
    slide_ms: u64,
    f: F,
}

impl<T, F> Output for ForEachRdd<T, F>
where
    T: Clone + Send + 'static,
    F: for<'b> Fn(Rdd<'b, T>, BatchTime) -> Result<()> + Send,
{
    fn name(&self) -> &str {
        &self.label
    }

    fn run(&self, run: &Arc<BatchRun>, _: &BatchOutputs) -> Result<()> {
        if !run.env.is_slide(self.slide_ms) {
            return Ok(());
        }
        let rdd = for_user(self.node.rdd(run)?);
        let call = std::panic::AssertUnwindSafe(|| {
            // Keyed state moves on whether the function looks at all partitions or not.
            if !rdd.op.dependencies().is_empty() {
                run_stages(&run.env.executor, run.env.batch, rdd.op.dependencies())?;
            }
            (self.f)(rdd, run.env.batch)
        });
        // The function runs on the batch's own thread, outside of any task.
        std::panic::catch_unwind(call).unwrap_or_else(|panic| Err(crate::exec::panicked(&*panic)))
    }
}

impl<'g, T: Clone + Send + 'static> DStream<'g, T> {
    /// Calls a function with each batch's `Rdd` and time, in order. At least once: after a crash it is called again for
    /// batches whose fate was open, so make its writes idempotent by the batch time.
    ///
    /// An error, or a panic, fails the batch.
    pub fn for_each_rdd<E: Into<BoxError>>(
        self,
        f: impl for<'b> Fn(Rdd<'b, T>, BatchTime) -> Result<(), E> + Send + Sync + 'static,
    ) {
        self.graph.needs_every_batch();
        let f = move |rdd: Rdd<'_, T>, time| {
            f(rdd, time).map_err(|error| Error::new(ErrorKind::Program, "for_each_rdd failed").with_source(error))
        };
        self.graph.add_output(Box::new(ForEachRdd {
            label: format!("{}.for_each_rdd", self.label).into(),
            node: self.node(),
            slide_ms: self.slide_ms,
            f,
        }));
    }

    /// Prints the first `n` records of each batch to standard output. At least once, as [`for_each_rdd`](DStream::for_each_rdd).
    pub fn print(self, n: usize)
    where
        T: std::fmt::Debug,
    {
        self.for_each_rdd(move |rdd, time| {
            let records = rdd.take(n + 1)?;
            let mut text = format!("-------------------------------------------\nBatch: {time}\n-------------------------------------------\n");
            for record in records.iter().take(n) {
                text += &format!("{record:?}\n");
            }
            if records.len() > n {
                text += "...\n";
            }
            let mut out = std::io::stdout().lock();
            match writeln!(out, "{text}").and_then(|()| out.flush()) {
                // Whoever read it has gone, as `head` does: no reason to fail a batch.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                Err(error) => Err(Error::new(ErrorKind::Retry, "cannot write to standard output").with_source(error)),
                Ok(()) => Ok(()),
            }
        });
    }
}
