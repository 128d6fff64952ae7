//! The checkpoints of a directory: which there are, which a start would use, what stands in it.

use std::sync::Arc;

use millpond_state::{ErrorKind as StateKind, OperatorRecord, Snapshot, SnapshotStore};

use super::place::Place;
use super::report::InspectedCheckpoint;
use crate::engine::manifest::Manifest;
use crate::error::{Error, ErrorKind, Result};
use crate::time::BatchTime;

/// What was found.
pub(super) struct Checkpoints {
    /// Oldest first.
    pub(super) all: Vec<InspectedCheckpoint>,
    /// The engine's section of the newest that can be used; if none can, of the newest that can be read.
    pub(super) newest: Manifest,
    /// The operators in the same one.
    pub(super) operators: Vec<OperatorRecord>,
    pub(super) problems: Vec<String>,
}

/// Reads the manifests. Files are looked at, not read.
pub(super) fn read(place: &Place) -> Result<Checkpoints> {
    let store: Arc<dyn SnapshotStore> = place.snapshots.clone();
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    let (mut usable, mut readable) = (None, None);
    for batch in store.batches()?.into_iter().rev() {
        let snapshot = match Snapshot::open(store.clone(), batch) {
            Ok(snapshot) => snapshot,
            // The process at work has put a newer one in its place meanwhile.
            Err(_) if !store.batches()?.contains(&batch) => continue,
            Err(error) if error.kind() == StateKind::Corrupt => {
                let problem = error.to_string();
                problems.push(format!("checkpoint {} cannot be used: {problem}", BatchTime::from_ms(batch)));
                let manifest = decode(&*store, batch).ok();
                let (files, bytes) = manifest.as_ref().map_or((0, 0), |(state, _)| (state.files.len(), state.bytes()));
                all.push(InspectedCheckpoint {
                    batch: BatchTime::from_ms(batch),
                    files,
                    bytes,
                    problem: Some(problem),
                });
                readable = readable.or(manifest);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let manifest = snapshot.manifest();
        all.push(InspectedCheckpoint {
            batch: BatchTime::from_ms(batch),
            files: manifest.files.len(),
            bytes: manifest.bytes(),
            problem: None,
        });
        if usable.is_none() {
            usable = Some((manifest.clone(), Manifest::decode(snapshot.meta())?));
        }
    }
    all.reverse();
    if usable.is_none() && !all.is_empty() {
        problems.push("no checkpoint can be used: the next start fails. Restore the directory from a backup".into());
    }
    let (state, newest) = usable.or(readable).ok_or_else(|| nothing(place, &problems))?;
    Ok(Checkpoints { all, newest, operators: state.operators, problems })
}

/// A manifest whose files need not be there.
fn decode(store: &dyn SnapshotStore, batch: u64) -> Result<(millpond_state::Manifest, Manifest)> {
    let state = millpond_state::Manifest::decode(&store.manifest(batch)?)?;
    let engine = Manifest::decode(&state.meta)?;
    Ok((state, engine))
}

fn nothing(place: &Place, problems: &[String]) -> Error {
    match problems.first() {
        Some(problem) => {
            Error::new(ErrorKind::Restore, format!("{}: no checkpoint can be read; {problem}", place.name()))
        }
        None => Error::configuration(format!(
            "{} holds no checkpoint: its process died while it was made. The next start takes it for new",
            place.name()
        )),
    }
}
