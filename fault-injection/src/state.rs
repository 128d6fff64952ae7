//! What the newest checkpoint of an application holds, read without the engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use millpond_state::{LocalSnapshotStore, OperatorSpec, Snapshot, StateStore, StoreOptions, codec};

use crate::{Finding, Result};

/// The counts by key in the newest checkpoint of the application in `directory`. Nobody may be running in it.
pub fn stored_counts<K: Ord + serde::de::DeserializeOwned>(
    directory: &Path,
    operator: &str,
    kind: &str,
) -> Result<BTreeMap<K, u64>> {
    // Not to be tidied up by us: whether the process has left anything is another question.
    let snapshots = Arc::new(LocalSnapshotStore::open_read_only(&directory.join("checkpoints"))?);
    let newest = Snapshot::newest(snapshots)?;
    if let Some(rejected) = newest.rejected.first() {
        return Err(Finding::new(format!("checkpoint {} does not verify: {}", rejected.batch, rejected.reason)));
    }
    let snapshot = newest.snapshot.ok_or_else(|| Finding::new("there is no checkpoint"))?;
    snapshot.verify(&|| true)?;
    let (shards, partitions) = (snapshot.manifest().shards, snapshot.manifest().partitions as usize);
    let aside = tempfile::tempdir()?;
    let options = StoreOptions { shards, partitions, ..StoreOptions::default() };
    let store = StateStore::open(&aside.path().join("live"), Some(&snapshot), options)?;
    let operator = store.operator(OperatorSpec::<u64>::new(operator, kind))?;
    let mut counts = BTreeMap::new();
    for index in 0..operator.partitions() {
        let mut partition = operator.partition(index);
        partition.visit_all(|visit| -> millpond_state::Result<()> {
            if let Some(count) = visit.get() {
                counts.insert(codec::decode(visit.key())?, *count);
            }
            Ok(())
        })?;
        partition.commit_task()?;
    }
    Ok(counts)
}
