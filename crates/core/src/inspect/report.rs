//! What a look into a directory found: plain data. As JSON, times are milliseconds since the epoch.

use std::path::PathBuf;

use serde::Serialize;

use crate::time::BatchTime;

/// What [`inspect`](super::inspect) found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// Where it looked.
    pub directory: PathBuf,
    /// The application's id.
    pub application: String,
    /// The random id the directory got when it was created, in hexadecimal digits.
    pub deployment: String,
    /// Nothing speaks against the next start: [`problems`](Inspection::problems) is empty.
    pub healthy: bool,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// Who holds the directory, or held it last.
    pub process: Option<Process>,
    /// The directory's zero time.
    #[serde(rename = "zero_ms")]
    pub zero: BatchTime,
    /// The batch interval, in ms.
    pub batch_interval_ms: u64,
    /// S: the batch of the newest checkpoint that can be used.
    #[serde(rename = "snapshot_ms")]
    pub snapshot: BatchTime,
    /// C: the newest batch that every sink has committed, as far as can be told from here.
    pub committed: Committed,
    /// P: the newest batch whose plan is in the log.
    #[serde(rename = "planned_ms")]
    pub planned: BatchTime,
    /// Plans after S, which a start computes again. A plan without input stands for all batches until the next one.
    pub batches_to_replay: u64,
    /// Records in them.
    pub records_to_replay: u64,
    /// The log of batches.
    pub log: InspectedLog,
    /// Checkpoints, oldest first.
    pub checkpoints: Vec<InspectedCheckpoint>,
    /// Stateful operators, with what the checkpoint of S has of them.
    pub operators: Vec<InspectedOperator>,
    /// Sinks.
    pub sinks: Vec<InspectedSink>,
    /// Sources.
    pub sources: Vec<InspectedSource>,
}

/// C, and where it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Committed {
    /// The batch.
    #[serde(rename = "batch_ms")]
    pub batch: BatchTime,
    /// Who says so.
    pub from: CommittedFrom,
}

/// Where C was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CommittedFrom {
    /// The sinks' own cursors: exact.
    Sinks,
    /// The local note that the process leaves after each commit: C is that, or a little later. A start asks the sinks.
    LocalNote,
    /// Nothing but the checkpoint: C is S, or later. A start asks the sinks.
    Checkpoint,
}

/// The process that holds the directory's lock, or held it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Since when, UTC; as in `2025-01-31T11:58:02Z`.
    pub since: String,
    /// It holds the lock now.
    pub running: bool,
}

/// The log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InspectedLog {
    /// Segments, oldest first; those behind damage are left out.
    pub segments: Vec<InspectedSegment>,
    /// Bytes of its files on disk, written ahead and recycled ones too.
    pub file_bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes in them.
    pub payload_bytes: u64,
    /// Entries that are batch plans.
    pub plans: u64,
    /// Entries that are blocks.
    pub blocks: u64,
    /// Blocks that no plan has yet: the next batch gets them.
    pub unplanned_blocks: u64,
    /// Starts of the process that are on record.
    pub runs: u64,
    /// Where it is damaged.
    pub corruption: Option<String>,
}

/// A segment of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedSegment {
    /// Its number.
    pub segment: u64,
    /// Bytes up to the end of its last entry.
    pub used_bytes: u64,
    /// Bytes of its file.
    pub file_bytes: u64,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedCheckpoint {
    /// Its batch.
    #[serde(rename = "batch_ms")]
    pub batch: BatchTime,
    /// Files in it, many of them shared with others; 0 if its manifest cannot be read.
    pub files: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

/// A stateful operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedOperator {
    /// The name the program gives it; its column family is `operator:NAME`.
    pub name: String,
    /// What it is: `update_state_by_key`.
    pub kind: String,
    /// Keys with a value.
    pub keys: u64,
    /// Bytes of its table files, older versions of values included.
    pub table_bytes: u64,
    /// The version of its values' structure.
    pub schema_version: u32,
    /// The structure of its values.
    pub schema: String,
}

/// A sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedSink {
    /// The name the program gives it.
    pub name: String,
    /// What and where it is; empty if nothing says so.
    pub description: String,
    /// What its own cursor says, where it can be read from here.
    #[serde(rename = "committed_ms")]
    pub committed: Option<BatchTime>,
    /// What the sink keeps in the checkpoint for its next start, in its own words.
    #[serde(skip)]
    pub remembered: Vec<u8>,
}

/// A source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedSource {
    /// The name the program gives it.
    pub name: String,
    /// What and where it is: `files source /in`.
    pub description: String,
    /// Where its partitions stand after S.
    pub at_snapshot: Vec<Position>,
    /// Where its partitions stand after P.
    pub at_planned: Vec<Position>,
}

/// Where a partition of a source stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The partition: a file, `topic/3`.
    pub partition: String,
    /// Up to where it has been taken: as text for the sources of this crate, hexadecimal digits for others.
    pub position: String,
    /// The same as the source wrote it.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}
