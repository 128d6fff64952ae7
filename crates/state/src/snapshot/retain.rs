//! Which snapshots stay: the newest n that can be used, and every file that one of them names.
//! Manifests go first, then files: a crash between leaves files that nobody names, which the next
//! start finds.

use super::{Manifest, SnapshotStore, check};
use crate::error::{ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Keeps what a snapshot store holds within bounds, and remembers what it has checked: a checkpoint
/// must not cost what is there.
#[derive(Default)]
pub(crate) struct Retention {
    /// The files that a sound manifest names, by batch.
    sound: BTreeMap<u64, Vec<String>>,
    /// Whether no file can be there that no manifest names: not known before it was looked once.
    tidy: bool,
}

impl Retention {
    /// A snapshot has been published that is known to be sound.
    pub(crate) fn published(&mut self, manifest: &Manifest) {
        let files: Vec<String> = manifest.files.iter().map(|file| file.name.clone()).collect();
        // One of the same batch is gone; its files are not.
        let others = self.sound.insert(manifest.batch, files.clone()).is_some_and(|before| before != files);
        self.tidy &= !others;
    }

    /// Files are put that no manifest names yet. If it comes to nothing, they are in nobody's way but the disk's, until
    /// [`apply`](Retention::apply) is called again. Gives what [`all_named`](Retention::all_named) wants.
    pub(crate) fn files_come(&mut self) -> bool {
        std::mem::replace(&mut self.tidy, false)
    }

    /// The manifest that names them is there.
    pub(crate) fn all_named(&mut self, was_tidy: bool) {
        self.tidy = was_tidy;
    }

    /// After the publishing of `newest`: deletes what is newer (from before a fall-back to an older
    /// snapshot: batches never go backward), what cannot be used, and all but the newest `keep`; then the files that no
    /// remaining manifest names. Returns the oldest batch left.
    pub(crate) fn apply(&mut self, store: &dyn SnapshotStore, newest: u64, keep: usize) -> Result<u64> {
        let bad: BTreeSet<String> = store.bad()?.into_iter().map(|(name, _)| name).collect();
        let (mut kept, mut oldest, mut unknown) = (0, newest, false);
        for batch in store.batches()?.into_iter().rev() {
            let stays = if batch > newest {
                false
            } else {
                match self.is_sound(store, batch, &bad) {
                    Ok(sound) => sound && kept < keep,
                    // Of a newer format: not for this program to judge.
                    Err(error) if error.kind() == ErrorKind::Mismatch => {
                        unknown = true;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            };
            if stays {
                kept += 1;
                oldest = batch;
            } else {
                self.tidy = false;
                self.sound.remove(&batch);
                store.withdraw(batch)?;
                fail::fail_point!(crate::failpoints::CHECKPOINT_DELETED);
            }
        }
        if !self.tidy && !unknown {
            let named = self.sound.values().flatten().map(String::as_str).collect();
            delete_unnamed(store, &named)?;
            self.tidy = true;
        }
        Ok(oldest)
    }

    fn is_sound(&mut self, store: &dyn SnapshotStore, batch: u64, bad: &BTreeSet<String>) -> Result<bool> {
        if let Some(files) = self.sound.get(&batch) {
            return Ok(!files.iter().any(|name| bad.contains(name)));
        }
        match check(store, batch) {
            Ok(manifest) => {
                self.published(&manifest);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!(batch, %error, "a snapshot that cannot be used is deleted");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Deletes the files that no manifest names: what a crash left behind. Does nothing if a manifest
/// cannot be read, for nobody knows what it names. Returns how many.
///
/// Must not run beside a checkpoint, whose new files no manifest names yet.
pub fn collect_garbage(store: &dyn SnapshotStore) -> Result<usize> {
    let mut manifests = Vec::new();
    for batch in store.batches()? {
        match Manifest::decode(&store.manifest(batch)?) {
            Ok(manifest) => manifests.push(manifest),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Mismatch) => return Ok(0),
            Err(error) => return Err(error),
        }
    }
    let named = manifests.iter().flat_map(|manifest| &manifest.files).map(|file| file.name.as_str()).collect();
    delete_unnamed(store, &named)
}

fn delete_unnamed(store: &dyn SnapshotStore, named: &BTreeSet<&str>) -> Result<usize> {
    let mut deleted = 0;
    for name in store.files()? {
        if !named.contains(name.as_str()) {
            store.delete(&name)?;
            deleted += 1;
        }
    }
    Ok(deleted)
}
