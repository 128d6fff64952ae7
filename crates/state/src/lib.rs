//! Keyed state over RocksDB: what stateful operators remember for their keys between batches.
//!
//! Each operator has a column family; keys are spread over shards by the hash of their encoding, and
//! shards over partitions, each worked on by one task at a time. Decoded values stay in memory up to a
//! limit and are written behind. A snapshot is hard links and a manifest. This crate knows no stream
//! and no log: the caller says when a batch has committed.
//!
//! # The protocol
//!
//! 1. [`StateStore::open`] from a [`Snapshot`] (or none), then [`StateStore::operator`] for each operator.
//! 2. A batch: for each operator and partition at most one task that ended well. A task locks its
//!    [`Operator::partition`], looks keys up, changes values, and commits or rolls back. Failed tasks
//!    leave nothing and can run again.
//! 3. After a batch, with no task open, [`StateStore::freeze`] takes what has changed since the last
//!    freeze. The next batch may then run in memory at once.
//! 4. When the batch has committed, [`StateStore::write_behind`] brings the frozen changes into the
//!    database, on any thread; in the order of freezing. Not committed: drop everything and open the
//!    newest snapshot again (there is no way to take a freeze back).
//! 5. [`StateStore::checkpoint`] publishes the batch, before anything of a later batch is written behind.
//! 6. If [`StateStore::over_limit`] says so after a batch: freeze it, wait for its commit, write behind,
//!    [`StateStore::evict`], and only then run the next batch. A batch whose own changes exceed the limit
//!    has put some into files beside the database; until those are written behind, their partitions
//!    refuse to look up what is not in memory. A batch that has to, since it is several in one, says so first
//!    ([`StateStore::hold_changes`]) and keeps its changes in memory.
//!
//! Calls out of this order are errors of kind [`ErrorKind::Misuse`] and change nothing. After a failed write the
//! store is poisoned: every call fails until it is opened again from a snapshot.
//!
//! # Example
//!
//! ```
//! use millpond_state::{codec, on_this_thread, LocalSnapshotStore, OperatorSpec, Snapshot, StateStore, StoreOptions};
//! use std::sync::Arc;
//!
//! # fn main() -> millpond_state::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let directory = directory.path();
//! let snapshots = Arc::new(LocalSnapshotStore::open(&directory.join("snapshots"))?);
//! let newest = Snapshot::newest(snapshots.clone())?;
//! let options = StoreOptions::default();
//! let (shards, partitions) = (options.shards, options.partitions);
//! let store = StateStore::open(&directory.join("live"), newest.snapshot.as_ref(), options)?;
//! let counts = store.operator(OperatorSpec::<u64>::new("counts", "count"))?;
//!
//! let mut key = Vec::new();
//! codec::encode("apple", &mut key)?;
//! let hash = codec::key_hash(&key);
//! let mut partition = counts.partition(codec::partition_of(hash, shards, partitions));
//! let slot = partition.slot(hash, &key);
//! partition.load_misses()?;
//! *partition.get_mut(slot).get_or_insert(0) += 1;
//! partition.commit_task()?;
//! drop(partition);
//!
//! let frozen = store.freeze(1, &on_this_thread)?;
//! store.write_behind(frozen)?;
//! store.checkpoint(1, &*snapshots, Vec::new())?;
//! assert_eq!(Snapshot::newest(snapshots)?.snapshot.unwrap().manifest().operators[0].keys, 1);
//! # Ok(())
//! # }
//! ```

mod checkpoint;
pub mod codec;
pub mod conformance;
mod controls;
mod database;
mod error;
mod evict;
pub mod failpoints;
mod files;
mod freeze;
mod index;
mod key;
mod live;
mod memory;
mod migrate;
mod operator;
mod options;
mod partition;
mod rows;
mod schema;
mod shared;
mod slot;
mod snapshot;
mod store;
mod table;
mod visit;

pub use checkpoint::SnapshotInfo;
pub use error::{Error, ErrorKind, Result};
pub use freeze::Frozen;
pub use index::KeyIndex;
pub use key::KeyBytes;
pub use operator::{Operator, OperatorSpec, PartitionGuard};
pub use options::StoreOptions;
pub use partition::Partition;
pub use schema::Schema;
pub use slot::{KeyBlock, Slot};
pub use snapshot::{
    LocalSnapshotStore, Manifest, MemorySnapshotStore, Newest, OperatorRecord, Rejected, Snapshot, SnapshotFile,
    SnapshotStore, Verified, collect_garbage,
};
pub use store::{OperatorStatistics, ParallelFor, StateStore, on_this_thread};
pub use visit::Visit;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What can be kept as state: any type that serde can write and read, and that can be cloned.
pub trait StateValue: Serialize + DeserializeOwned + Clone + Send + 'static {}

impl<V: Serialize + DeserializeOwned + Clone + Send + 'static> StateValue for V {}
