//! Snapshot stores: the local directory and the one in memory.

use millpond_state::{LocalSnapshotStore, MemorySnapshotStore};
use millpond_testkit::conformance::snapshot_store;
use tempfile::TempDir;

#[test]
fn the_snapshot_store_in_a_directory() {
    let (directory, scratch) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    snapshot_store(&LocalSnapshotStore::open(directory.path()).unwrap(), scratch.path());
}

#[test]
fn the_snapshot_store_in_memory() {
    let scratch = TempDir::new().unwrap();
    snapshot_store(&MemorySnapshotStore::new(), scratch.path());
}
