//! Sinks: files, and the collection in memory.

use std::fs;

use millpond_core::sink::FileSink;
use millpond_testkit::conformance::sink::{self, SinkHarness};
use millpond_testkit::{CollectingSink, Collection};
use tempfile::TempDir;

struct Files(TempDir);

impl SinkHarness for Files {
    type Sink = FileSink;

    fn open(&mut self) -> FileSink {
        FileSink::text(self.0.path())
    }

    fn visible(&mut self) -> Vec<Vec<u8>> {
        let batches = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path());
        let batches = batches.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("batch-"));
        let parts = batches.flat_map(|batch| fs::read_dir(batch).unwrap().map(|entry| entry.unwrap().path()));
        let text: String = parts.map(|part| fs::read_to_string(part).unwrap()).collect();
        text.lines().map(|line| line.as_bytes().to_vec()).collect()
    }
}

struct InMemory(Collection);

impl SinkHarness for InMemory {
    type Sink = CollectingSink;

    fn open(&mut self) -> CollectingSink {
        self.0.sink()
    }

    fn visible(&mut self) -> Vec<Vec<u8>> {
        self.0.committed("out").into_iter().flat_map(|batch| batch.records).filter_map(|record| record.value).collect()
    }
}

#[test]
fn the_file_sink() {
    sink::run(|| Files(TempDir::new().unwrap()));
}

#[test]
fn the_collecting_sink() {
    sink::run(|| InMemory(Collection::new()));
}
