//! Small steps on files and directories that must be durable, with errors that name the path.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Makes a directory (and those above it) unless it is there.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::io("create directory", path, error))
}

/// The directory that a path is in.
pub(crate) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}

/// Makes what was created, renamed or deleted in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::io("sync directory", path, error))
}

/// Writes a whole file aside as `aside`, syncs it, and renames it to `path`; the directory, which both
/// are in, is for the caller to sync. `between` runs before the rename.
pub(crate) fn replace(path: &Path, aside: &Path, bytes: &[u8], between: impl FnOnce()) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = File::create(aside)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    let written = write().map_err(|error| Error::io("write", aside, error)).and_then(|()| {
        between();
        fs::rename(aside, path).map_err(|error| Error::io("rename a file to", path, error))
    });
    if written.is_err() {
        // The disk may be full: what is there of it goes, if it can.
        let _ = fs::remove_file(aside);
    }
    written
}

/// Removes a directory with all in it, if it is there.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove directory", path, error)),
        _ => Ok(()),
    }
}

/// Removes a file, if it is there.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// The names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| Error::io("list", path, error))? {
        let entry = entry.map_err(|error| Error::io("list", path, error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
