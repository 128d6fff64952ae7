//! Steps on the file system that must last, and errors that say what to do.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// The error of a step on an output file.
pub(crate) fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let (kind, hint) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Retry, "; it is given up and can be written again when there is room")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::Configuration, "; give this process the right to write there, or choose another directory")
        }
        io::ErrorKind::NotADirectory => (ErrorKind::Configuration, "; the path must be that of a directory"),
        _ => (ErrorKind::Retry, ""),
    };
    Error::new(kind, format!("cannot {what} {}{hint}", path.display())).with_source(error)
}

/// Makes the content of a file last.
pub(crate) fn sync_file(file: &File, path: &Path) -> Result<()> {
    file.sync_all().map_err(|error| failed("sync", path, error))
}

/// Makes what was created, renamed and deleted in a directory last.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    if crate::controls::broken("break-directory-not-synced") {
        return Ok(());
    }
    let directory = File::open(path).map_err(|error| failed("open", path, error))?;
    sync_file(&directory, path)
}

/// Makes a directory and those above it, lasting.
pub(crate) fn create_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_directory(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("make the directory", path, error)),
        Err(_) if !path.is_dir() => Err(failed("use", path, io::ErrorKind::NotADirectory.into())),
        _ => sync_directory(parent),
    }
}

/// Makes the names of a directory and of those above it last, whoever gave them: an earlier process may have died before it synced
/// them. What we may not read was not made by us.
pub(crate) fn sync_above(path: &Path) -> Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    let path = fs::canonicalize(path).map_err(|error| failed("look at", path, error))?;
    for directory in path.ancestors().skip(1) {
        match File::open(directory).and_then(|opened| opened.sync_all()) {
            Err(error)
                if !matches!(error.kind(), InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported) =>
            {
                return Err(failed("sync", directory, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Renames; nothing is done for it to last.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| failed("rename into place", to, error))
}

/// Deletes a file or a directory with all that is in it; what is not there is deleted already.
pub(crate) fn delete(path: &Path) -> Result<()> {
    let outcome = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("delete", path, error)),
        _ => Ok(()),
    }
}
