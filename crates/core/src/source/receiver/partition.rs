//! Reading planned blocks: from memory while they are there, else from the log.

use std::sync::Arc;

use super::super::{BlockId, FedRecord, Plan, SourceOutput, SourcePartition};
use super::intake::Intake;
use super::payload::Codec;
use super::plan::partitions;
use crate::error::{Error, ErrorKind, Result};
use crate::log::BlockLog;
use crate::source::refusal::Chunks;

/// The partitions of a plan.
pub(crate) fn read<T: Send + 'static>(
    intake: &Intake,
    codec: Codec<T>,
    plan: &Plan,
) -> Result<Vec<Arc<dyn SourcePartition<T>>>> {
    let outside = intake.outside()?;
    let partition = |blocks: Vec<(BlockId, u64)>| {
        let blocks =
            blocks.into_iter().map(|(id, records)| Block { id, records, payload: intake.payload(id) }).collect();
        let (source, log) = (Arc::clone(&outside.source), outside.log.clone());
        Arc::new(BlocksPartition { source, log, blocks, codec }) as Arc<dyn SourcePartition<T>>
    };
    Ok(partitions(plan)?.into_iter().map(partition).collect())
}

struct BlocksPartition<T> {
    source: Arc<str>,
    log: BlockLog,
    blocks: Vec<Block>,
    codec: Codec<T>,
}

struct Block {
    id: BlockId,
    records: u64,
    payload: Option<Arc<[u8]>>,
}

impl<T: Send> SourcePartition<T> for BlocksPartition<T> {
    fn compute(&self, out: &mut dyn SourceOutput<T>) -> Result<()> {
        for Block { id, records, payload } in &self.blocks {
            let decoded = match payload {
                Some(payload) => self.codec.decode(&self.source, *id, payload, out)?,
                None => self.codec.decode(&self.source, *id, &self.log.read(*id)?.payload, out)?,
            };
            if decoded != *records {
                return Err(Error::new(
                    ErrorKind::Restore,
                    format!("a block of source `{}` has {decoded} records, its plan says {records}", self.source),
                ));
            }
        }
        Ok(())
    }

    fn records(&self) -> u64 {
        self.blocks.iter().map(|block| block.records).sum()
    }
}

/// Records that a test feeds, in one partition.
pub(crate) fn fed<T: Send + 'static>(codec: Codec<T>, records: Vec<FedRecord>) -> Arc<dyn SourcePartition<T>> {
    Arc::new(FedPartition { records, codec })
}

struct FedPartition<T> {
    records: Vec<FedRecord>,
    codec: Codec<T>,
}

impl<T: Send> SourcePartition<T> for FedPartition<T> {
    fn compute(&self, out: &mut dyn SourceOutput<T>) -> Result<()> {
        let mut chunks = Chunks::new(out, self.codec.on_refused);
        self.records.iter().try_for_each(|record| self.codec.decode_fed(record, &mut chunks))?;
        chunks.finish().map(drop)
    }

    fn records(&self) -> u64 {
        self.records.len() as u64
    }
}
