//! What partitions of a source hand out: records, and what a decoder refused.

use crate::error::Result;

/// Where a [`SourcePartition`](super::SourcePartition) puts its records.
pub trait SourceOutput<T> {
    /// The next records, in order.
    fn records(&mut self, chunk: Vec<T>) -> Result<()>;
    /// Whether the program reads refused records as a second stream (`split_refused`). If not, the
    /// source stops at a refused record (by default) or skips and counts it.
    fn wants_refused(&self) -> bool;
    /// A record that the decoder refused, for the second stream.
    fn refused(&mut self, record: RefusedRecord) -> Result<()>;
    /// So many records were refused and skipped, by the source's own policy.
    fn skipped(&mut self, count: u64);
}

/// A record that a decoder refused, with where it came from and why.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RefusedRecord {
    /// Where it came from: `orders, partition 3, offset 4711`, or a file and line.
    pub origin: String,
    /// What the decoder said.
    pub reason: String,
    /// The key as received.
    pub key: Option<Vec<u8>>,
    /// The value as received.
    pub value: Option<Vec<u8>>,
    /// The headers as received.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A record that a test feeds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FedRecord {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since the epoch.
    pub timestamp_ms: u64,
}

impl From<&str> for FedRecord {
    fn from(value: &str) -> Self {
        FedRecord { value: Some(value.as_bytes().to_vec()), ..FedRecord::default() }
    }
}

impl From<String> for FedRecord {
    fn from(value: String) -> Self {
        FedRecord { value: Some(value.into_bytes()), ..FedRecord::default() }
    }
}

impl From<(&str, &str)> for FedRecord {
    fn from((key, value): (&str, &str)) -> Self {
        FedRecord { key: Some(key.as_bytes().to_vec()), ..FedRecord::from(value) }
    }
}
