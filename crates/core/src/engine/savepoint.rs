//! A savepoint: a directory with one checkpoint, copied out of an application's, from which others can begin (hard case H25).
//!
//! ```text
//! SAVEPOINT      what this directory is, and the version of its layout; written first
//! checkpoints/   one checkpoint; without its manifest the copying did not come to its end
//! ```

use std::fs;
use std::io::ErrorKind as IoKind;
use std::path::Path;
use std::sync::Arc;

use millpond_state::{LocalSnapshotStore, Snapshot};

use crate::error::{Error, ErrorKind, Result};
use crate::sink::disk::sync_above;

/// The file that tells a savepoint from the directory of an application.
pub(crate) const MARKER: &str = "SAVEPOINT";
const FORMAT: &str = "millpond savepoint 1\n";
const CHECKPOINTS: &str = "checkpoints";

/// Makes an empty savepoint in a directory that does not exist or is empty.
pub(crate) fn create(path: &Path) -> Result<LocalSnapshotStore> {
    let shown = path.display();
    let cannot =
        |error| Error::new(ErrorKind::Retry, format!("cannot write a savepoint to {shown}")).with_source(error);
    match fs::read_dir(path) {
        Err(error) if error.kind() == IoKind::NotFound => fs::create_dir_all(path).map_err(cannot)?,
        Err(error) => return Err(cannot(error)),
        Ok(mut entries) => {
            if let Some(entry) = entries.next() {
                let held = entry.map_err(cannot)?.file_name();
                return Err(Error::configuration(format!(
                    "{shown} is not empty: it holds `{}`. A savepoint goes to a directory of its own",
                    held.to_string_lossy()
                )));
            }
        }
    }
    fs::write(path.join(MARKER), FORMAT)
        .and_then(|()| fs::File::open(path.join(MARKER))?.sync_all())
        .and_then(|()| fs::File::open(path)?.sync_all())
        .map_err(cannot)?;
    sync_above(path)?;
    Ok(LocalSnapshotStore::open(&path.join(CHECKPOINTS))?)
}

/// The checkpoint of a savepoint. Nothing is changed in it.
pub(crate) fn open(path: &Path) -> Result<Snapshot> {
    let shown = path.display();
    match fs::read_to_string(path.join(MARKER)) {
        Ok(format) if format == FORMAT => {}
        Ok(format) if format.starts_with("millpond savepoint ") => {
            return Err(Error::configuration(format!(
                "the savepoint in {shown} has the layout {:?}, this program reads {:?}: was it written by a newer Millpond?",
                format.trim_end(),
                FORMAT.trim_end()
            )));
        }
        Ok(_) => {
            return Err(Error::configuration(format!(
                "{shown} is not a savepoint: its {MARKER} is none of Millpond's"
            )));
        }
        Err(error) if error.kind() == IoKind::NotFound => {
            return Err(Error::configuration(format!(
                "{shown} is not a savepoint: it holds no {MARKER}. Make one with `millpond savepoint DIRECTORY {shown}`"
            )));
        }
        Err(error) => {
            return Err(Error::configuration(format!("cannot read the savepoint in {shown}")).with_source(error));
        }
    }
    let snapshots = Arc::new(LocalSnapshotStore::open_read_only(&path.join(CHECKPOINTS))?);
    Snapshot::newest(snapshots)?.snapshot.ok_or_else(|| {
        let what =
            format!("the savepoint in {shown} is not whole: its copying was cut off. Delete it and make another");
        Error::new(ErrorKind::Restore, what)
    })
}
