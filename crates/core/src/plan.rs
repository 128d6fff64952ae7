//! What a batch takes from one source: the [`Plan`], the unit that recovery reads back.

use std::time::Duration;

use crate::time::BatchTime;

/// A block in the log. The order of ids is the order of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub [u8; 16]);

/// Where one partition of a source stands: the next record that no batch holds yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionPosition {
    /// The partition's name within its source: `topic/3`, a path.
    pub partition: String,
    /// The position, in the source's own encoding (at most 64 KiB).
    pub position: Vec<u8>,
}

/// What a batch takes from one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// How to read the records again, in the source's own encoding, at most 16 MiB: ranges of offsets, files.
    pub read: Vec<u8>,
    /// The blocks of the log that hold the records, if their content is logged.
    pub blocks: Vec<BlockId>,
    /// Where every partition stands after this batch: idle ones too, else they would fall back to a
    /// default after a restart. At most 100,000.
    pub positions: Vec<PartitionPosition>,
    /// How many records it holds.
    pub records: u64,
    /// Event time up to which the source takes its input to be complete after this batch, in ms since 1970: what comes later and is
    /// older is late. `None` (the default) if it does not say. Fixed by the plan, as everything that decides: it is logged, and a
    /// replayed batch has the same one. No operator reads it yet: event time comes later.
    pub watermark_ms: Option<u64>,
}

/// What the engine asks of [`Source::plan`](crate::source::Source::plan).
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// The batch.
    pub time: BatchTime,
    /// The batch interval.
    pub interval: Duration,
    /// At most so many records, if a rate is set.
    pub max_records: Option<u64>,
}
