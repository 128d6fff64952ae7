//! The mark of the newest segment: an empty file that is named by its number. It is what tells a log whose newest file has gone missing
//! from one that ends earlier.
//!
//! The mark moves by renaming, after the segment has its name durably and before a frame is in it: so a segment that
//! the mark names was there, and one that holds a frame is not above the mark. A log without a mark opens and gets one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::directory::{self, Role};
use crate::error::Error;
use crate::fs::FileSystem;
use crate::writer::WriteFailure;

pub(crate) struct Newest {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    /// What the mark on disk says.
    marked: Option<u64>,
    /// The name is durable.
    synced: bool,
}

impl Newest {
    /// The mark as it was found; opening a log syncs its directory.
    pub(crate) fn found(fs: Arc<dyn FileSystem>, directory: &Path, files: &[(u64, Role)]) -> Self {
        Self { fs, directory: directory.to_owned(), marked: marked(files), synced: true }
    }

    /// Moves the mark to this segment, durably, unless it is there or beyond.
    pub(crate) fn reach(&mut self, segment: u64) -> Result<(), WriteFailure> {
        if self.synced && self.marked >= Some(segment) {
            return Ok(());
        }
        if self.marked < Some(segment) {
            let path = directory::path(&self.directory, segment, Role::Newest);
            let moved = match self.marked {
                Some(before) => self.fs.rename(&directory::path(&self.directory, before, Role::Newest), &path),
                None => self.fs.create(&path).map(drop),
            };
            moved.map_err(|error| WriteFailure::Clean(Error::io("mark the newest segment by", &path, error)))?;
            (self.marked, self.synced) = (Some(segment), false);
        }
        self.fs
            .sync_directory(&self.directory)
            .map_err(|error| WriteFailure::InDoubt(Error::in_doubt("sync the directory", &self.directory, error)))?;
        self.synced = true;
        Ok(())
    }
}

/// The segment that the mark among these files names.
pub(crate) fn marked(files: &[(u64, Role)]) -> Option<u64> {
    files.iter().filter(|(_, role)| *role == Role::Newest).map(|(segment, _)| *segment).max()
}
