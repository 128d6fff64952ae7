//! What a source counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of a source, readable while it runs; got from [`KafkaSource::metrics`](crate::KafkaSource::metrics).
#[derive(Debug, Default)]
pub struct KafkaSourceMetrics {
    pub(crate) fetched_records: AtomicU64,
    pub(crate) fetched_bytes: AtomicU64,
    pub(crate) skipped_records: AtomicU64,
    pub(crate) lost_offsets: AtomicU64,
    pub(crate) held_back_partitions: AtomicU64,
}

impl KafkaSourceMetrics {
    /// Records fetched since the start.
    pub fn fetched_records(&self) -> u64 {
        self.fetched_records.load(Ordering::Relaxed)
    }

    /// Memory that fetched records took, in bytes, since the start; what librdkafka holds beside them included.
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.load(Ordering::Relaxed)
    }

    /// Refused records that were skipped, since the start; a batch that is computed again counts again.
    pub fn skipped_records(&self) -> u64 {
        self.skipped_records.load(Ordering::Relaxed)
    }

    /// Offsets that were lost and jumped over, since the start (see [`Lost::LogAndSkip`](crate::Lost::LogAndSkip)).
    pub fn lost_offsets(&self) -> u64 {
        self.lost_offsets.load(Ordering::Relaxed)
    }

    /// Partitions in which a transaction that somebody has left open holds back, at present, what comes after it.
    pub fn held_back_partitions(&self) -> u64 {
        self.held_back_partitions.load(Ordering::Relaxed)
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
