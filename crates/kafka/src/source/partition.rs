//! One partition of a batch: decodes records wherever they lie, and applies the policy for refused ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_core::log::BlockLog;
use millpond_core::source::{BlockId, FedRecord, SourceOutput, SourcePartition, chunk_len};
use millpond_core::{Error, ErrorKind, Result};

use super::content::{decode_records, wrong_count};
use super::metrics::KafkaSourceMetrics;
use super::queues::{Held, Key};
use super::replay::{Replayer, Wanted};
use crate::decode::Decode;
use crate::record::RecordRef;

/// Where the records of a partition are.
pub(crate) enum Content {
    /// Nowhere: the batch takes none of this partition.
    Empty,
    /// In memory, as they were fetched.
    Held(Arc<Held>),
    /// In blocks of the log.
    Logged { log: BlockLog, blocks: Vec<BlockId> },
    /// At the broker.
    AtBroker { replayer: Arc<Replayer>, wanted: Wanted },
    /// Given by a test.
    Fed(Vec<FedRecord>),
}

/// One partition of a batch.
pub(crate) struct Partition<D> {
    pub(crate) key: Key,
    pub(crate) records: u64,
    pub(crate) content: Content,
    pub(crate) decoder: Arc<D>,
    pub(crate) skip_refused: bool,
    pub(crate) metrics: Arc<KafkaSourceMetrics>,
}

impl<D: Decode> SourcePartition<D::Item> for Partition<D> {
    fn compute(&self, out: &mut dyn SourceOutput<D::Item>) -> Result<()> {
        let (topic, partition) = (&*self.key.0, self.key.1);
        let mut decoding =
            Decoding { of: self, wants_refused: out.wants_refused(), out, chunk: Vec::new(), skipped: 0 };
        match &self.content {
            Content::Empty => {}
            Content::Held(held) => {
                for (messages, _) in held.runs.iter().filter_map(|run| run.memory.as_ref()) {
                    for message in messages.iter() {
                        decoding.record(&RecordRef::fetched(topic, partition, message))?;
                    }
                }
            }
            Content::Logged { log, blocks } => {
                let mut found = 0;
                for id in blocks {
                    let block = log.read(*id)?;
                    found += decode_records(&block.payload, |record| {
                        decoding.record(&RecordRef::stored(topic, partition, record))
                    })?;
                }
                if found != self.records {
                    return Err(wrong_count(found, self.records).context(format!("{topic}/{partition}")));
                }
            }
            Content::AtBroker { replayer, wanted } => {
                replayer.read(wanted, |message| decoding.record(&RecordRef::fetched(topic, partition, message)))?;
            }
            Content::Fed(records) => {
                for (offset, record) in records.iter().enumerate() {
                    decoding.record(&RecordRef::fed(record, offset as i64))?;
                }
            }
        }
        decoding.end()
    }

    fn records(&self) -> u64 {
        self.records
    }
}

struct Decoding<'a, 'o, D: Decode> {
    of: &'a Partition<D>,
    wants_refused: bool,
    out: &'o mut dyn SourceOutput<D::Item>,
    chunk: Vec<D::Item>,
    skipped: u64,
}

impl<D: Decode> Decoding<'_, '_, D> {
    fn record(&mut self, record: &RecordRef<'_>) -> Result<()> {
        match self.of.decoder.decode(record) {
            Ok(item) => {
                if self.chunk.capacity() == 0 {
                    self.chunk.reserve_exact(chunk_len::<D::Item>().min(self.of.records as usize));
                }
                self.chunk.push(item);
                if self.chunk.len() == chunk_len::<D::Item>() {
                    self.out.records(std::mem::take(&mut self.chunk))?;
                }
                Ok(())
            }
            Err(reason) if self.wants_refused => self.out.refused(record.refused(reason.to_string())),
            Err(_) if self.of.skip_refused => {
                self.skipped += 1;
                Ok(())
            }
            Err(reason) => {
                let what = format!(
                    "{}: the decoder refuses the record. Correct the decoder, or choose skip_refused() or split_refused()",
                    record.origin()
                );
                Err(Error::new(ErrorKind::Program, what).with_source(reason))
            }
        }
    }

    fn end(mut self) -> Result<()> {
        if !self.chunk.is_empty() {
            self.out.records(std::mem::take(&mut self.chunk))?;
        }
        if self.skipped > 0 {
            self.of.metrics.skipped_records.fetch_add(self.skipped, Ordering::Relaxed);
            self.out.skipped(self.skipped);
        }
        Ok(())
    }
}
