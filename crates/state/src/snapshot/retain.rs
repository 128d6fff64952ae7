//! Which snapshots stay: the newest n, and every file that one of them names. Manifests go first, then
//! files: a crash between leaves files that nobody names, which the next call finds.

use super::{Manifest, SnapshotStore};
use crate::error::{ErrorKind, Result};
use std::collections::BTreeSet;

/// Deletes all snapshots but the newest `keep` (at least 1), then the files that no remaining manifest
/// names. Returns the batches whose snapshots went.
///
/// Must not run beside a checkpoint, whose new files no manifest names yet.
pub fn retain(store: &dyn SnapshotStore, keep: usize) -> Result<Vec<u64>> {
    let batches = store.batches()?;
    let gone = batches[..batches.len().saturating_sub(keep.max(1))].to_vec();
    for &batch in &gone {
        store.withdraw(batch)?;
        fail::fail_point!(crate::failpoints::CHECKPOINT_DELETED);
    }
    if !gone.is_empty() {
        collect_garbage(store)?;
    }
    Ok(gone)
}

/// Deletes the files that no manifest names: what a crash left behind. Does nothing if a manifest
/// cannot be read, for nobody knows what it names.
pub fn collect_garbage(store: &dyn SnapshotStore) -> Result<usize> {
    let mut named = BTreeSet::new();
    for batch in store.batches()? {
        match Manifest::decode(&store.manifest(batch)?) {
            Ok(manifest) => named.extend(manifest.files.into_iter().map(|file| file.name)),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Mismatch) => return Ok(0),
            Err(error) => return Err(error),
        }
    }
    let mut deleted = 0;
    for name in store.files()? {
        if !named.contains(&name) {
            store.delete(&name)?;
            deleted += 1;
        }
    }
    Ok(deleted)
}
