//! Copies the newest checkpoint out of an application's directory.

use std::path::Path;

use millpond_state::{Snapshot, SnapshotStore};

use super::place::Place;
use crate::engine::savepoint;
use crate::error::{Error, ErrorKind, Result};
use crate::time::BatchTime;

/// What [`savepoint`](savepoint()) has copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Savepoint {
    /// The batch after which it is the state.
    pub batch: BatchTime,
    /// Files of the state.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies the newest checkpoint of an application that runs or is dead to a new directory, comparing every checksum on the way.
/// Nothing is shared with the original, no hard link either. A context begins from it with
/// [`from_savepoint`](crate::Builder::from_savepoint).
///
/// Whoever wants the newest state stops the application gracefully before: what it has committed since its last checkpoint, and
/// what receivers have logged since, is not in the savepoint.
///
/// # Errors
/// As [`inspect`](super::inspect); a target that is not empty; [`Restore`](ErrorKind::Restore): a damaged checkpoint. What was begun in the
/// target is refused later as not whole.
pub fn savepoint(directory: &Path, target: &Path) -> Result<Savepoint> {
    let place = Place::find(directory)?;
    let copy = savepoint::create(target)?;
    loop {
        let newest = Snapshot::newest(place.snapshots.clone())?.snapshot;
        let snapshot =
            newest.ok_or_else(|| Error::new(ErrorKind::Restore, format!("{} has no checkpoint yet", place.name())))?;
        match snapshot.copy_to(&copy, &target.join(".copying"), snapshot.meta().to_vec()) {
            Ok(()) => {
                let batch = BatchTime::from_ms(snapshot.batch());
                let files = &snapshot.manifest().files;
                return Ok(Savepoint {
                    batch,
                    files: files.len() as u64,
                    bytes: files.iter().map(|file| file.bytes).sum(),
                });
            }
            // A process at work has deleted it meanwhile: there is a newer one.
            Err(_) if !place.snapshots.batches()?.contains(&snapshot.batch()) => {}
            Err(error) => return Err(Error::from(error).context(place.name())),
        }
    }
}
