//! A look into the directory of an application, running or dead, that changes nothing in it: what `millpond inspect` and
//! `millpond verify` print.
//!
//! [`inspect`] tells where the three cursors stand, what is stored, and whether the next start would find all it needs; it
//! reads the log but no state. [`verify`] reads everything and compares every checksum. [`savepoint`](savepoint()) copies the newest checkpoint out. None takes the lock or writes there. A
//! process may be at work meanwhile: what it appends, renames and deletes under our hands is not taken for damage.
//!
//! `place` finds the parts of the directory, `checkpoints` and `log` read them, `judge` says what does not fit together.

mod checkpoints;
mod judge;
mod log;
mod place;
mod positions;
mod report;
mod savepoint;
mod verify;

use std::path::Path;

pub use report::{
    Committed, CommittedFrom, InspectedCheckpoint, InspectedLog, InspectedOperator, InspectedSegment, InspectedSink,
    InspectedSource, Inspection, Position, Process,
};
pub use savepoint::{Savepoint, savepoint};
pub use verify::{Verification, verify};

use crate::engine::note;
use crate::error::Result;
use crate::sink::Cursor;
use place::Place;

/// Looks at the directory of an application.
///
/// # Errors
/// [`Configuration`](crate::ErrorKind::Configuration): a directory that is something else, or of a newer version of Millpond, or cannot be read.
/// [`Restore`](crate::ErrorKind::Restore): no checkpoint in it can be read. Other damage is no error here, it stands in [`Inspection::problems`].
///
/// ```
/// # use millpond_core::{StreamingContext, seconds, sink::FileSink, source::FileSource};
/// # fn main() -> millpond_core::Result<()> {
/// # let place = tempfile::tempdir().unwrap();
/// # let (input, output, pond) = (place.path().join("in"), place.path().join("out"), place.path().join("words.pond"));
/// # std::fs::create_dir(&input).unwrap();
/// # let context = StreamingContext::builder("words").directory(&pond).batch_interval(seconds(1)).open(|graph| {
/// #     graph.source("lines", FileSource::directory(&input)).sink_text("out", FileSink::text(&output));
/// #     Ok(())
/// # })?;
/// # context.start()?.stop_gracefully()?;
/// let found = millpond_core::inspect::inspect(&pond)?;
/// assert_eq!(found.application, "words");
/// assert!(found.healthy, "{:?}", found.problems);
/// assert_eq!(found.batches_to_replay, 0);
/// # Ok(())
/// # }
/// ```
pub fn inspect(directory: &Path) -> Result<Inspection> {
    let place = Place::find(directory)?;
    // In this order S <= C <= P also holds for what is found where a process is at work: each is read when the ones before
    // it have been.
    let process = place.process();
    let checkpoints = checkpoints::read(&place)?;
    let noted = note::read(directory);
    let cursors = judge::sink_cursors(&checkpoints.newest);
    let log = log::read(&place, &checkpoints.newest)?;
    Ok(judge::inspection(directory, process, checkpoints, noted, cursors, log))
}

/// The newest cursor that a file sink has committed to its output directory; `None` before the first. Changes nothing in it.
///
/// # Errors
/// [`Restore`](crate::ErrorKind::Restore): a damaged cursor, with its path; failures to read.
pub fn committed_to_files(output: &Path) -> Result<Option<Cursor>> {
    crate::sink::committed_in(output)
}
