//! The settings of a store.

use crate::error::{Error, ErrorKind, Result};

/// Settings of a [`StateStore`](crate::StateStore); all have defaults.
///
/// ```
/// let options = millpond_state::StoreOptions { memory_limit_bytes: 64 << 20, ..Default::default() };
/// assert_eq!(options.shards, 128);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Most bytes of decoded state in memory, all operators together, frozen changes included.
    /// Default 512 MiB. The database's block cache and write buffers come on top.
    pub memory_limit_bytes: u64,
    /// Shards that keys are spread over, fixed when the state is created. Default 128.
    pub shards: u16,
    /// Partitions that are worked on in parallel, fixed when the state is created. At most `shards`.
    /// Default 16.
    pub partitions: usize,
    /// Bytes of the database's block cache, all operators together. Default 64 MiB. Indexes and filters of table
    /// files come on top: about 1.5 bytes a stored key.
    pub block_cache_bytes: u64,
    /// Bytes of one write buffer of the database; each operator may have two. Default 16 MiB.
    pub write_buffer_bytes: u64,
    /// Threads for flushes and compactions. Default 2, which is also the least.
    pub background_threads: usize,
    /// Most table files the database keeps open. Default 1000.
    pub open_files_limit: i32,
    /// Published snapshots to keep, at least 1. Default 10.
    pub retained_snapshots: usize,
    /// A map in memory in place of RocksDB, for simulations. Default: no.
    #[doc(hidden)]
    pub database_in_memory: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            memory_limit_bytes: 512 << 20,
            shards: 128,
            partitions: 16,
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 16 << 20,
            background_threads: 2,
            open_files_limit: 1000,
            retained_snapshots: 10,
            database_in_memory: false,
        }
    }
}

impl StoreOptions {
    pub(crate) fn validate(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::new(ErrorKind::Mismatch, message));
        if self.partitions == 0 || self.partitions > usize::from(self.shards) {
            return refuse(format!(
                "partitions must be between 1 and the number of shards ({}), not {}",
                self.shards, self.partitions
            ));
        }
        if self.retained_snapshots == 0 {
            return refuse("retained_snapshots must be at least 1".into());
        }
        if self.open_files_limit < 64 {
            return refuse(format!("open_files_limit must be at least 64, not {}", self.open_files_limit));
        }
        Ok(())
    }
}
