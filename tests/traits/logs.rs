//! Logs: on disk and in memory.

use millpond_core::log::{LocalBatchLog, LocalBatchLogOptions, MemoryBatchLog};
use millpond_testkit::conformance::batch_log::{self, BatchLogHarness};
use tempfile::TempDir;

struct InMemory(MemoryBatchLog);

impl BatchLogHarness for InMemory {
    type Log = MemoryBatchLog;

    fn open(&mut self) -> MemoryBatchLog {
        self.0.clone()
    }
}

struct OnDisk {
    directory: TempDir,
    options: LocalBatchLogOptions,
}

impl BatchLogHarness for OnDisk {
    type Log = LocalBatchLog;

    fn open(&mut self) -> LocalBatchLog {
        LocalBatchLog::new(self.directory.path(), self.options.clone())
    }
}

#[test]
fn the_log_in_memory() {
    batch_log::run(|| InMemory(MemoryBatchLog::new()));
}

#[test]
fn the_log_on_disk() {
    let options = LocalBatchLogOptions::default();
    batch_log::run(|| OnDisk { directory: TempDir::new().unwrap(), options: options.clone() });
}

#[test]
fn the_log_on_disk_with_small_segments() {
    let options = LocalBatchLogOptions {
        segment_bytes: 4 << 20,
        max_payload_bytes: 3 << 20 | 4096,
        ..LocalBatchLogOptions::default()
    };
    batch_log::run(|| OnDisk { directory: TempDir::new().unwrap(), options: options.clone() });
}
