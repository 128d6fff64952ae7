//! The live directory: the open database and what lies beside it. It is thrown away at every start,
//! so a marker file says that it may be.
//!
//! ```text
//! LIVE        the marker
//! db/         the database
//! spill/      table files that have not been ingested
//! link/       the checkpoint being linked
//! ```

use crate::error::{Error, ErrorKind, Result};
use crate::files;
use std::path::{Path, PathBuf};

const MARKER: &str = "LIVE";
const MARKER_ASIDE: &str = ".LIVE.aside";
const MARKER_TEXT: &[u8] = b"Live state of Millpond. Thrown away and made anew from a snapshot at every start.\n";

pub(crate) struct LiveDirectory(PathBuf);

impl LiveDirectory {
    /// Makes the directory, or empties it if it is one of ours.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        let live = LiveDirectory(directory.to_owned());
        let marker = directory.join(MARKER);
        if !marker.is_file() {
            if directory.is_file() {
                return Err(Error::new(
                    ErrorKind::Foreign,
                    format!("{} is a file, not a directory for live state", directory.display()),
                ));
            }
            files::make_directory(directory)?;
            // Killed before the marker was there: at most the marker's draft.
            if let Some(name) = files::names(directory)?.iter().find(|name| *name != MARKER_ASIDE) {
                return Err(Error::new(
                    ErrorKind::Foreign,
                    format!(
                        "{} holds {name:?}, which is not Millpond's live state: choose an empty directory",
                        directory.display()
                    ),
                ));
            }
            files::replace(&marker, &directory.join(MARKER_ASIDE), MARKER_TEXT, || ())?;
            files::sync_directory(directory)?;
        }
        for part in [live.database(), live.spill(), live.link()] {
            files::remove_directory(&part)?;
        }
        files::remove_directory(&directory.join("link.tmp"))?;
        files::make_directory(&live.database())?;
        files::make_directory(&live.spill())?;
        Ok(live)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("db")
    }

    pub(crate) fn spill(&self) -> PathBuf {
        self.0.join("spill")
    }

    pub(crate) fn link(&self) -> PathBuf {
        self.0.join("link")
    }
}
