//! What listeners are told of batches, outputs and sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::time::BatchTime;

/// What a batch took from one source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InputInfo {
    /// The source's number, in the order of the graph.
    pub number: usize,
    /// The source's name.
    pub source: Arc<str>,
    /// Records.
    pub records: u64,
    /// At most so many were asked for, by backpressure.
    pub max_records: Option<u64>,
}

impl InputInfo {
    /// Records of a source.
    pub fn new(number: usize, source: impl Into<Arc<str>>, records: u64) -> Self {
        InputInfo { number, source: source.into(), records, max_records: None }
    }
}

/// What a batch added to an accumulator.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccumulatorInfo {
    /// The accumulator's name.
    pub name: Arc<str>,
    /// What this batch added.
    pub added: i64,
    /// The value after this batch.
    pub value: i64,
}

/// A batch, as far as it has come. Times are milliseconds since the epoch on the context's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchInfo {
    /// The batch time.
    pub time: BatchTime,
    /// The first batch time it stands for: earlier than `time` for a stretch of batches without input that were planned and
    /// committed together, because they were missed or because computing did not keep up.
    pub first: BatchTime,
    /// What it took from each source, in the order of their numbers.
    pub inputs: Vec<InputInfo>,
    /// When its plan was durable.
    pub submission_ms: u64,
    /// When it began to be computed.
    pub start_ms: Option<u64>,
    /// When every sink had committed it and, where a checkpoint follows, its state was frozen for that.
    pub end_ms: Option<u64>,
    /// Its output operations, by number, as far as they have come.
    pub output_operations: Vec<OutputOperationInfo>,
    /// Why it failed for good, if it did.
    pub failure: Option<String>,
    /// What it added to each accumulator; there once it has completed.
    pub accumulators: Vec<AccumulatorInfo>,
}

impl BatchInfo {
    /// A batch that has just been submitted.
    pub fn submitted(time: BatchTime, inputs: Vec<InputInfo>, submission_ms: u64) -> Self {
        BatchInfo {
            time,
            first: time,
            inputs,
            submission_ms,
            start_ms: None,
            end_ms: None,
            output_operations: Vec::new(),
            failure: None,
            accumulators: Vec::new(),
        }
    }

    /// Records of all sources.
    pub fn records(&self) -> u64 {
        self.inputs.iter().map(|input| input.records).sum()
    }

    /// From submission to start, in ms; `None` before the start.
    pub fn scheduling_delay_ms(&self) -> Option<u64> {
        Some(self.start_ms?.saturating_sub(self.submission_ms))
    }

    /// From start to end, in ms: computing, committing in every sink, and the freeze of the state where a checkpoint follows.
    /// `None` before the end.
    pub fn processing_delay_ms(&self) -> Option<u64> {
        Some(self.end_ms?.saturating_sub(self.start_ms?))
    }

    /// From submission to end, in ms; `None` before the end.
    pub fn total_delay_ms(&self) -> Option<u64> {
        Some(self.scheduling_delay_ms()? + self.processing_delay_ms()?)
    }

    /// The output operations that failed in the last try, by number, and why.
    pub fn failure_reasons(&self) -> BTreeMap<usize, &str> {
        let operations = self.output_operations.iter();
        operations.filter_map(|operation| Some((operation.number, operation.failure.as_deref()?))).collect()
    }

    /// Takes news of an output operation in.
    pub(crate) fn operation(&mut self, operation: &OutputOperationInfo) {
        match self.output_operations.binary_search_by_key(&operation.number, |known| known.number) {
            Ok(place) => self.output_operations[place] = operation.clone(),
            Err(place) => self.output_operations.insert(place, operation.clone()),
        }
    }
}

/// An output operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputOperationInfo {
    /// The batch.
    pub batch: BatchTime,
    /// Its number: output operations run in the order of registration.
    pub number: usize,
    /// The sink's name, or for `for_each_rdd` and `print` where in the graph it stands.
    pub name: Arc<str>,
    /// When it began.
    pub start_ms: u64,
    /// When it ended.
    pub end_ms: Option<u64>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

impl OutputOperationInfo {
    /// An output operation that begins.
    pub fn started(batch: BatchTime, number: usize, name: impl Into<Arc<str>>, start_ms: u64) -> Self {
        OutputOperationInfo { batch, number, name: name.into(), start_ms, end_ms: None, failure: None }
    }
}

/// A source, as listeners are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiverInfo {
    /// The source's number, in the order of the graph.
    pub number: usize,
    /// The source's name.
    pub source: Arc<str>,
    /// The kind of source: `kafka`, `files`, `socket`, `receiver`.
    pub kind: &'static str,
    /// The error it reports.
    pub error: Option<String>,
}
