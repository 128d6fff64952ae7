//! Which files there are: a directory, or all that a pattern matches.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::error::{Error, ErrorKind, Result};

/// Where files are looked for.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The files of a directory, not those of directories in it.
    Directory(PathBuf),
    /// The files that match, and the files of directories that match.
    Glob(String),
}

/// Accepts or refuses a path.
pub(crate) type Filter = Arc<dyn Fn(&Path) -> bool + Send + Sync>;

/// A file as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) mtime_ns: u64,
}

impl Found {
    pub(crate) fn new(path: PathBuf, metadata: &fs::Metadata) -> Self {
        // Before the epoch is as good as at the epoch: long ago.
        let since_epoch =
            metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Found { path, size: metadata.len(), mtime_ns: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX) }
    }
}

/// The default filter: names that begin with a dot are hidden.
pub(crate) fn not_hidden(path: &Path) -> bool {
    !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

impl Place {
    /// What the place is, for people and for the fingerprint.
    pub(crate) fn describe(&self) -> String {
        match self {
            Place::Directory(path) => format!("directory {}", path.display()),
            Place::Glob(pattern) => format!("glob {pattern}"),
        }
    }

    /// Whether files can be looked for there at all.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Place::Directory(path) => fs::read_dir(path).map(drop).map_err(|error| cannot("list", path, error)),
            Place::Glob(pattern) => matches(pattern).map(drop),
        }
    }

    /// The files there that the filter accepts.
    ///
    /// # Errors
    /// A directory or file that cannot be read: a file that is overlooked is lost when its time has passed.
    pub(crate) fn list(&self, filter: &Filter) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        match self {
            Place::Directory(path) => list_directory(path, filter, &mut found)?,
            Place::Glob(pattern) => {
                for path in matches(pattern)? {
                    let path = path.map_err(|error| {
                        let path = error.path().to_owned();
                        cannot("list", &path, io::Error::from(error))
                    })?;
                    match metadata(&path)? {
                        Some(metadata) if metadata.is_dir() => list_directory(&path, filter, &mut found)?,
                        Some(metadata) if metadata.is_file() && filter(&path) => {
                            found.push(Found::new(path, &metadata))
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(found)
    }
}

fn matches(pattern: &str) -> Result<glob::Paths> {
    glob::glob(pattern).map_err(|error| Error::configuration(format!("`{pattern}` is not a pattern of paths: {error}")))
}

fn list_directory(directory: &Path, filter: &Filter, found: &mut Vec<Found>) -> Result<()> {
    let failed = |error| cannot("list", directory, error);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if filter(&path)
            && let Some(metadata) = metadata(&path)?
            && metadata.is_file()
        {
            found.push(Found::new(path, &metadata));
        }
    }
    Ok(())
}

/// What stands behind a path, links followed; `None` if it has gone meanwhile.
fn metadata(path: &Path) -> Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("look at", path, error)),
    }
}

/// The error of an input file or directory.
pub(crate) fn cannot(what: &str, path: &Path, error: io::Error) -> Error {
    let (kind, hint) = match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::Configuration, ": create it, or correct the path"),
        io::ErrorKind::PermissionDenied => (ErrorKind::Configuration, ": give this process the right to read it"),
        io::ErrorKind::NotADirectory => (ErrorKind::Configuration, ": the path must be that of a directory"),
        _ => (ErrorKind::Retry, ""),
    };
    Error::new(kind, format!("cannot {what} {}{hint}", path.display())).with_source(error)
}
