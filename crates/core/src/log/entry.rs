//! The entries of the log and their bytes (docs/formats.md, "Entries of the log").

use crate::bytes::{Reader, Writer};
use crate::error::Result;
use crate::plan::{BlockId, PartitionPosition, Plan};
use crate::time::BatchTime;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// Records of one source, received together.
    Block(Block),
    /// Which records make up a batch.
    Plan(BatchPlan),
    /// A start of the process, by its random id, before it fenced anybody.
    Run([u8; 16]),
    /// A sink that has committed its first cursor: from now on a missing one is refused.
    SinkIntroduced(String),
}

/// A run of records of one source, the unit that is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The source.
    pub source: String,
    /// How many records.
    pub records: u64,
    /// The position that the giver of the records gave with them, handed back at restart.
    pub position: Vec<u8>,
    /// The records, in the source's own encoding.
    pub payload: Vec<u8>,
}

/// What makes up a batch, or a stretch of batches of which only the first has input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// The batch that holds the input.
    pub first: BatchTime,
    /// The last batch of the stretch, `first` for a single one. It names the plan: cursors count by it.
    pub last: BatchTime,
    /// What each source gives, every source.
    pub sources: Vec<SourcePlan>,
    /// The hash over this plan and all before it.
    pub chain: u64,
}

/// What one source gives to a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    /// The source's name.
    pub source: String,
    /// What it gives.
    pub plan: Plan,
}

impl BatchPlan {
    /// Records of all sources.
    pub fn records(&self) -> u64 {
        self.sources.iter().fold(0, |sum, source| sum.saturating_add(source.plan.records))
    }

    /// The plan's part of the chain: everything but the chain itself, hashed on from `previous`.
    pub fn chain_from(&self, previous: u64) -> u64 {
        let mut out = Writer::new();
        out.u64(previous);
        self.write_body(&mut out);
        xxhash_rust::xxh3::xxh3_64(out.as_bytes())
    }

    fn write_body(&self, out: &mut Writer) {
        out.u64(self.first.as_ms());
        out.u64(self.last.as_ms());
        out.list(&self.sources, |out, source| {
            out.text(&source.source);
            out.u64(source.plan.records);
            out.bytes(&source.plan.read);
            out.list(&source.plan.blocks, |out, block| out.fixed(&block.0));
            out.list(&source.plan.positions, write_position);
            out.list(source.plan.watermark_ms.as_slice(), |out, ms| out.u64(*ms));
        });
    }

    fn read(bytes: &mut Reader<'_>) -> Result<BatchPlan> {
        Ok(BatchPlan {
            first: BatchTime::from_ms(bytes.u64()?),
            last: BatchTime::from_ms(bytes.u64()?),
            sources: bytes.list(|bytes| {
                Ok(SourcePlan {
                    source: bytes.text()?,
                    plan: Plan {
                        records: bytes.u64()?,
                        read: bytes.bytes()?.to_vec(),
                        blocks: bytes.list(|bytes| Ok(BlockId(bytes.fixed()?)))?,
                        positions: bytes.list(read_position)?,
                        watermark_ms: bytes.optional(Reader::u64)?,
                    },
                })
            })?,
            chain: bytes.u64()?,
        })
    }
}

/// Writes a position (also used by the manifest).
pub(crate) fn write_position(out: &mut Writer, position: &PartitionPosition) {
    out.text(&position.partition);
    out.bytes(&position.position);
}

/// Reads a position.
pub(crate) fn read_position(bytes: &mut Reader<'_>) -> Result<PartitionPosition> {
    Ok(PartitionPosition { partition: bytes.text()?, position: bytes.bytes()?.to_vec() })
}

impl LogEntry {
    /// What it is, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            LogEntry::Block(_) => "a block",
            LogEntry::Plan(_) => "a batch plan",
            LogEntry::Run(_) => "a start of the process",
            LogEntry::SinkIntroduced(_) => "the introduction of a sink",
        }
    }

    /// The kind byte of the frame that carries it.
    pub fn kind(&self) -> u8 {
        match self {
            LogEntry::Block(_) => 1,
            LogEntry::Plan(_) => 2,
            LogEntry::Run(_) => 3,
            LogEntry::SinkIntroduced(_) => 4,
        }
    }

    /// The payload of the frame that carries it. The frame has length and checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            LogEntry::Block(block) => {
                out.text(&block.source);
                out.u64(block.records);
                out.bytes(&block.position);
                out.rest(&block.payload);
            }
            LogEntry::Plan(plan) => {
                plan.write_body(&mut out);
                out.u64(plan.chain);
            }
            LogEntry::Run(run) => out.fixed(run),
            LogEntry::SinkIntroduced(name) => out.text(name),
        }
        out.into_bytes()
    }

    /// Reads what [`encode`](LogEntry::encode) wrote.
    ///
    /// # Errors
    /// [`Restore`](crate::ErrorKind::Restore): bytes that are no such entry, or an entry of a newer format.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<LogEntry> {
        let mut bytes = Reader::new("an entry of the log", payload);
        let entry = match kind {
            1 => LogEntry::Block(Block {
                source: bytes.text()?,
                records: bytes.u64()?,
                position: bytes.bytes()?.to_vec(),
                payload: bytes.rest().to_vec(),
            }),
            2 => LogEntry::Plan(BatchPlan::read(&mut bytes)?),
            3 => LogEntry::Run(bytes.fixed()?),
            4 => LogEntry::SinkIntroduced(bytes.text()?),
            _ => return Err(bytes.broken(&format!("kind {kind} is unknown: written by a newer version?"))),
        };
        bytes.end()?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<LogEntry> {
        let plan = Plan {
            read: vec![1, 2],
            blocks: vec![BlockId([7; 16])],
            positions: vec![PartitionPosition { partition: "t/0".into(), position: vec![9] }],
            records: 3,
            watermark_ms: Some(500),
        };
        vec![
            LogEntry::Block(Block { source: "s".into(), records: 2, position: vec![5], payload: vec![0; 100] }),
            LogEntry::Plan(BatchPlan {
                first: BatchTime::from_ms(1000),
                last: BatchTime::from_ms(3000),
                sources: vec![SourcePlan { source: "s".into(), plan }],
                chain: 77,
            }),
            LogEntry::Run([3; 16]),
            LogEntry::SinkIntroduced("out".into()),
        ]
    }

    #[test]
    fn entries_come_back_as_written() {
        for entry in entries() {
            assert_eq!(LogEntry::decode(entry.kind(), &entry.encode()).ok(), Some(entry));
        }
    }

    #[test]
    fn a_source_has_one_watermark_or_none_and_the_chain_covers_it() {
        let Some(LogEntry::Plan(mut plan)) = entries().into_iter().nth(1) else { panic!("a plan is the second") };
        let with = plan.chain_from(1);
        let bytes = LogEntry::Plan(plan.clone()).encode();
        plan.sources[0].plan.watermark_ms = None;
        assert_ne!(plan.chain_from(1), with);
        let mut two = Writer::new();
        two.list(&[500, 500], |out, ms| out.u64(*ms));
        // Before the chain stands the list of watermarks.
        let head = &bytes[..bytes.len() - 8 - 12];
        let error = LogEntry::decode(2, &[head, two.as_bytes(), &[0; 8]].concat()).unwrap_err();
        assert!(error.to_string().contains("2 elements, at most one wanted"), "{error}");
    }

    #[test]
    fn cut_entries_are_errors() {
        // A block's payload is the rest of the frame, whose length the frame guards: it cannot be told here.
        for entry in entries().into_iter().skip(1) {
            let bytes = entry.encode();
            for length in 0..bytes.len() {
                assert!(LogEntry::decode(entry.kind(), &bytes[..length]).is_err(), "{entry:?} cut to {length}");
            }
        }
        assert!(LogEntry::decode(200, &[]).is_err());
    }
}
