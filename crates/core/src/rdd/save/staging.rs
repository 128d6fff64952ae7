//! A directory of part files that appears whole or not at all: written under a hidden name beside its place, synced, renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::chunks::Put;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::disk::{create_directory, delete, failed, rename, sync_directory, sync_file};

/// Bytes gathered before they are written.
const BUFFER: usize = 256 << 10;

pub(crate) struct Staging {
    target: PathBuf,
    staged: PathBuf,
    parts: usize,
    /// Tries of parts so far: each writes a file of its own.
    tries: AtomicU64,
    /// Published or discarded: nothing is left to be deleted.
    settled: AtomicBool,
}

/// A try at one part file; it takes the part's place when it is complete.
pub(super) struct Part {
    /// Its number, and how many there are.
    pub(super) number: usize,
    pub(super) of: usize,
    tried: PathBuf,
    path: PathBuf,
}

impl Staging {
    /// Room for `parts` part files, beside the directory they will be.
    ///
    /// # Errors
    /// The directory exists, or cannot be made.
    pub(super) fn begin(target: &Path, parts: usize) -> Result<Staging> {
        let Some(name) = target.file_name() else {
            return Err(Error::configuration(format!("{} cannot be a directory to save to", target.display())));
        };
        if target.try_exists().map_err(|error| failed("look at", target, error))? {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("{} exists already: delete it, or save elsewhere", target.display()),
            ));
        }
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        create_directory(parent)?;
        let staged = parent.join(format!(".{}.saving", name.to_string_lossy()));
        // What a process left that was killed.
        delete(&staged)?;
        fs::create_dir(&staged).map_err(|error| failed("make the directory", &staged, error))?;
        let target = target.to_owned();
        Ok(Staging { target, staged, parts, tries: AtomicU64::new(0), settled: AtomicBool::new(false) })
    }

    pub(super) fn part(&self, number: usize) -> Part {
        let (tried, name) = (self.tries.fetch_add(1, Ordering::Relaxed), format!("part-{number:05}"));
        Part {
            number,
            of: self.parts,
            tried: self.staged.join(format!(".{name}.{tried}")),
            path: self.staged.join(name),
        }
    }

    /// All parts are complete: the directory takes its place.
    pub(super) fn publish(&self) -> Result<()> {
        for entry in fs::read_dir(&self.staged).map_err(|error| failed("list", &self.staged, error))? {
            let path = entry.map_err(|error| failed("list", &self.staged, error))?.path();
            // Tries that failed.
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                delete(&path)?;
            }
        }
        sync_directory(&self.staged)?;
        rename(&self.staged, &self.target)?;
        self.settled.store(true, Ordering::Relaxed);
        sync_directory(self.target.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    }
}

impl Staging {
    /// Deletes what was written, unless it has been published.
    pub(super) fn discard(&self) {
        if !self.settled.swap(true, Ordering::Relaxed)
            && let Err(error) = delete(&self.staged)
        {
            tracing::warn!(%error, "what a failed save had written could not be deleted");
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.discard();
    }
}

impl Part {
    /// Writes the part, makes it last, and puts it into its place.
    pub(super) fn write(self, fill: impl FnOnce(&mut PartWriter) -> Result<()>) -> Result<()> {
        let mut out = PartWriter::create(&self.tried)?;
        fill(&mut out)?;
        out.finish(true)?;
        rename(&self.tried, &self.path)
    }
}

/// A file being written, with errors that name it.
pub(crate) struct PartWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl PartWriter {
    pub(crate) fn create(path: &Path) -> Result<PartWriter> {
        let file = File::create(path).map_err(|error| failed("create", path, error))?;
        Ok(PartWriter { path: path.to_owned(), out: BufWriter::with_capacity(BUFFER, file) })
    }

    /// The next line.
    pub(super) fn line(&mut self, text: &dyn std::fmt::Display) -> Result<()> {
        writeln!(self.out, "{text}").map_err(|error: io::Error| failed("write to", &self.path, error))
    }

    /// Everything is in the file, and on the disk if it shall last.
    pub(crate) fn finish(mut self, lasting: bool) -> Result<()> {
        self.out.flush().map_err(|error| failed("write to", &self.path, error))?;
        if lasting { sync_file(self.out.get_ref(), &self.path) } else { Ok(()) }
    }
}

impl Put for PartWriter {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|error| failed("write to", &self.path, error))
    }
}
