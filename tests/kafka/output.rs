//! Plays the engine to sinks: peeks, fences, and commits batches with a cursor each.

use std::sync::Arc;

use millpond_core::sink::{Cursor, Records, Shared, Sink, SinkStart, SourcePositions};
use millpond_core::{BatchTime, Result};
use millpond_kafka::KafkaSink;
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::read_committed;

/// A sink with what the engine would give it.
pub(crate) struct Output {
    pub(crate) sink: KafkaSink,
    pub(crate) start: SinkStart,
}

/// A key and a value.
pub(crate) type Pair<'a> = (&'a str, &'a str);

impl Output {
    /// The sink of this name of a new start of an application.
    pub(crate) fn new(application: &str, name: &str, sink: KafkaSink) -> Self {
        let start = SinkStart {
            name: name.into(),
            application: application.into(),
            deployment: [7; 16],
            run: [1; 16],
            remembered: Vec::new(),
            shared: Arc::new(Shared::default()),
        };
        Output { sink, start }
    }

    /// Another sink of the same context.
    pub(crate) fn beside(&self, name: &str, sink: KafkaSink) -> Self {
        Output { sink, start: SinkStart { name: name.into(), ..self.start.clone() } }
    }

    pub(crate) fn peek(&mut self) -> Result<Option<Cursor>> {
        self.sink.peek(&self.start)
    }

    pub(crate) fn fence(&mut self) -> Result<Option<Cursor>> {
        self.sink.fence(&self.start)
    }

    /// Peeks and fences; gives the batch of the cursor, 0 for none.
    pub(crate) fn open(&mut self) -> Result<u64> {
        self.peek()?;
        Ok(batch_of(self.fence()?))
    }

    /// Begins a batch and writes its records, in two tasks.
    pub(crate) fn write(&mut self, batch: u64, pairs: &[Pair<'_>]) -> Result<()> {
        self.write_from(batch, pairs, &[])
    }

    /// Likewise, for a batch that was computed from what lies before these positions.
    pub(crate) fn write_from(&mut self, batch: u64, pairs: &[Pair<'_>], positions: &[SourcePositions]) -> Result<()> {
        self.sink.begin(BatchTime::from_ms(batch), positions)?;
        let (first, second) = pairs.split_at(pairs.len() / 2);
        self.sink.write(records(first))?;
        self.sink.write(records(second))
    }

    pub(crate) fn prepare(&mut self, batch: u64, pairs: &[Pair<'_>]) -> Result<()> {
        self.sink.prepare(&cursor(batch, pairs))
    }

    /// A whole batch.
    pub(crate) fn batch(&mut self, batch: u64, pairs: &[Pair<'_>]) -> Result<()> {
        self.batch_from(batch, pairs, &[])
    }

    /// A whole batch that was computed from what lies before these positions.
    pub(crate) fn batch_from(&mut self, batch: u64, pairs: &[Pair<'_>], positions: &[SourcePositions]) -> Result<()> {
        self.write_from(batch, pairs, positions)?;
        self.prepare(batch, pairs)?;
        self.sink.commit()
    }
}

pub(crate) fn records(pairs: &[Pair<'_>]) -> Records {
    let mut records = Records::new();
    pairs.iter().for_each(|(key, value)| records.push(Some(key.as_bytes()), Some(value.as_bytes())));
    records
}

pub(crate) fn cursor(batch: u64, pairs: &[Pair<'_>]) -> Cursor {
    let digest = records(pairs).digest();
    Cursor {
        deployment: [7; 16],
        run: [1; 16],
        batch: BatchTime::from_ms(batch),
        plans: batch,
        digest: digest.sum,
        records: digest.count,
    }
}

pub(crate) fn batch_of(cursor: Option<Cursor>) -> u64 {
    cursor.map_or(0, |cursor| cursor.batch.as_ms())
}

/// A new output topic on the shared broker.
pub(crate) fn topic(partitions: u32) -> String {
    let topic = unique_name("out");
    KafkaBroker::shared().create_topic(&topic, partitions, &[]).expect("a topic");
    topic
}

/// What a reader of committed records sees of a topic, as `key=value`, sorted.
pub(crate) fn seen(brokers: &str, topic: &str) -> Vec<String> {
    let records = read_committed(brokers, topic).expect("the topic can be read");
    let mut seen: Vec<String> =
        records.iter().map(|record| format!("{}={}", record.key_text(), record.value_text())).collect();
    seen.sort();
    seen
}
