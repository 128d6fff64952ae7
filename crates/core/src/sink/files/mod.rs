//! Exactly-once files: a batch's directory appears complete or not at all (hard case H23).
//!
//! Output is staged in `_millpond/` of the output directory and synced. The commit is the rename of
//! the cursor, which names what is staged; then the staged directory is renamed to its final
//! place, by recovery if this process dies before. So C never depends on what stands in the output
//! directory: a reader may move finished directories away.
//!
//! ```text
//! out/batch-1715000414000/part-00000     what readers see
//! out/_millpond/LOCK                     one owner
//! out/_millpond/cursor                   what is committed
//! out/_millpond/cursor.new               the next cursor, written aside
//! out/_millpond/batch-1715000414500/     output that is being written
//! ```

mod cursor_file;
pub(crate) mod disk;
mod staged;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use millpond_wal::DirectoryLock;

use self::cursor_file::Committed;
use self::disk::{create_directory, delete, failed, rename, sync_above, sync_directory};
use self::staged::StagedBatch;
use super::{Cursor, Guarantee, Records, Sink, SinkStart, SourcePositions};
use crate::error::{Error, ErrorKind, Result};
use crate::time::BatchTime;

/// The directory of our own in the output directory.
const OWN: &str = "_millpond";
/// What the directories of batches are called, before the batch time.
const BATCH: &str = "batch-";

/// The named points at which tests stop or kill the process (feature `failpoints`).
#[cfg_attr(not(feature = "failpoints"), expect(dead_code, reason = "the macro drops them"))]
mod failpoints {
    /// The output directory is ours, what was in doubt is not settled.
    pub(super) const SINK_FENCED: &str = "sink-fenced";
    /// All output of the batch is on disk, the cursor is not.
    pub(super) const OUTPUT_WRITTEN: &str = "output-written";
    /// Output and cursor are on disk, the cursor under its other name.
    pub(super) const BEFORE_COMMIT: &str = "before-commit";
    /// The cursor is in place, the output under its staged name.
    pub(super) const AFTER_COMMIT: &str = "after-commit";
    /// Readers see the output, the engine does not know yet.
    pub(super) const FILES_RENAMED: &str = "files-renamed";
}

/// Output as files, exactly once: a directory `batch-<ms>` for each batch that has output, complete when it appears.
///
/// The name has the batch time in milliseconds, at least 13 digits, so names sort by time. In it are part files
/// `part-00000`, ...; order among the records of a batch means nothing. Readers take any directory whose name begins
/// with `batch-`, and may move or delete it; `_millpond` is the sink's own. One pipeline writes to one directory.
///
/// ```
/// use millpond_core::sink::FileSink;
/// let lines = FileSink::text("/var/lib/counts");
/// let json = FileSink::json("/var/lib/flags").part_limit_bytes(16 << 20);
/// ```
#[derive(Debug)]
pub struct FileSink {
    directory: PathBuf,
    format: Format,
    part_limit_bytes: u64,
    lock: Option<DirectoryLock>,
    batch: Batch,
    /// A directory was renamed into place and that is not synced yet.
    rename_to_sync: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// The batch under way.
#[derive(Debug, Default)]
enum Batch {
    #[default]
    None,
    /// Begun; staged at its first output.
    Open { time: BatchTime, staged: Option<StagedBatch> },
    /// A write failed, so part of a task's output may be there: the batch cannot go on.
    Failed(BatchTime),
    /// All is ready under this name, if there is output.
    Prepared(Option<String>),
}

impl FileSink {
    /// Text: a line a record, its value, preceded by `key` and a tab if it has a key. Nothing is escaped.
    pub fn text(directory: impl AsRef<Path>) -> Self {
        FileSink::new(directory.as_ref(), Format::Text)
    }

    /// Newline-delimited JSON: a line a record, its value as encoded by `sink_json`. Keys are left out.
    pub fn json(directory: impl AsRef<Path>) -> Self {
        FileSink::new(directory.as_ref(), Format::Json)
    }

    fn new(directory: &Path, format: Format) -> Self {
        FileSink {
            directory: directory.to_owned(),
            format,
            part_limit_bytes: 128 << 20,
            lock: None,
            batch: Batch::None,
            rename_to_sync: false,
        }
    }

    /// A part file ends when it has about so many bytes, default 128 MiB: a batch with more output has several.
    pub fn part_limit_bytes(mut self, bytes: u64) -> Self {
        self.part_limit_bytes = bytes;
        self
    }

    fn own(&self) -> PathBuf {
        self.directory.join(OWN)
    }

    /// Finishes a rename that a commit has promised, and deletes what was never committed.
    fn settle(&self, committed: Option<&Committed>) -> Result<()> {
        let own = self.own();
        cursor_file::unstage(&own)?;
        if let Some(name) = committed.and_then(|committed| committed.staged.as_deref()) {
            let (staged, finished) = (own.join(name), self.directory.join(name));
            if staged.exists() {
                if finished.exists() {
                    return Err(occupied(&finished));
                }
                rename(&staged, &finished)?;
            }
            // Also if an earlier process renamed it: it may have died before its sync.
            sync_directory(&self.directory)?;
        }
        for entry in fs::read_dir(&own).map_err(|error| failed("list", &own, error))? {
            let entry = entry.map_err(|error| failed("list", &own, error))?;
            if entry.file_name().as_encoded_bytes().starts_with(BATCH.as_bytes()) {
                delete(&entry.path())?;
            }
        }
        sync_directory(&own)
    }

    /// Called out of turn: a mistake of the engine.
    fn out_of_turn(&self, call: &str) -> Error {
        let message = format!("{}: `{call}` was called while the batch is {:?}", self.describe(), self.batch);
        Error::new(ErrorKind::Program, message)
    }
}

/// What a file sink remembers begins so; the path of its directory follows.
const REMEMBERED: &[u8] = b"MPFD\x01";

/// The output directory of the file sink that remembered this; `None` if it was another kind of sink.
pub(crate) fn directory_of(remembered: &[u8]) -> Option<PathBuf> {
    let path = remembered.strip_prefix(REMEMBERED)?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// What has been committed to an output directory; changes nothing in it.
pub(crate) fn committed_in(directory: &Path) -> Result<Option<Cursor>> {
    Ok(cursor_file::read(&directory.join(OWN))?.map(|committed| committed.cursor))
}

fn name_of(batch: BatchTime) -> String {
    format!("{BATCH}{:013}", batch.as_ms())
}

fn occupied(path: &Path) -> Error {
    Error::new(
        ErrorKind::Restore,
        format!(
            "{} is there already, but its batch has not been put there by this pipeline: another program wrote it, or \
             the directory of the pipeline is older than its output. Move it away if it is not wanted",
            path.display()
        ),
    )
}

impl Sink for FileSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::Transactional
    }

    fn describe(&self) -> String {
        let format = match self.format {
            Format::Text => "text",
            Format::Json => "JSON",
        };
        format!("{format} files in {}", self.directory.display())
    }

    fn peek(&mut self, _start: &SinkStart) -> Result<Option<Cursor>> {
        match fs::metadata(&self.directory) {
            Ok(metadata) if !metadata.is_dir() => {
                Err(failed("use", &self.directory, io::ErrorKind::NotADirectory.into()))
            }
            Ok(_) => Ok(cursor_file::read(&self.own())?.map(|committed| committed.cursor)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("look at", &self.directory, error)),
        }
    }

    fn fence(&mut self, _start: &SinkStart) -> Result<Option<Cursor>> {
        self.batch = Batch::None;
        create_directory(&self.directory)?;
        let own = self.own();
        create_directory(&own)?;
        if self.lock.is_none() {
            self.lock = Some(lock(&own, &self.directory)?);
        }
        fail::fail_point!(failpoints::SINK_FENCED);
        let committed = cursor_file::read(&own)?;
        if committed.is_none() {
            sync_above(&own)?;
        }
        cursor_file::sync(&own)?;
        self.settle(committed.as_ref())?;
        self.rename_to_sync = false;
        Ok(committed.map(|committed| committed.cursor))
    }

    /// Where it writes, for who looks at the directory of the pipeline.
    fn remember(&self) -> Vec<u8> {
        let path = std::path::absolute(&self.directory).unwrap_or_else(|_| self.directory.clone());
        [REMEMBERED, path.as_os_str().as_bytes()].concat()
    }

    fn begin(&mut self, batch: BatchTime, _: &[SourcePositions]) -> Result<()> {
        if self.lock.is_none() || !matches!(self.batch, Batch::None) {
            return Err(self.out_of_turn("begin"));
        }
        self.batch = Batch::Open { time: batch, staged: None };
        Ok(())
    }

    fn write(&mut self, records: Records) -> Result<()> {
        let own = self.own();
        let Batch::Open { time, staged } = &mut self.batch else {
            return Err(self.out_of_turn("write"));
        };
        if records.is_empty() {
            return Ok(());
        }
        let time = *time;
        let written = match staged {
            Some(staged) => staged.write(&records, self.format),
            None => StagedBatch::create(own.join(name_of(time)), self.part_limit_bytes)
                .and_then(|created| staged.insert(created).write(&records, self.format)),
        };
        if written.is_err() {
            self.batch = Batch::Failed(time);
        }
        written
    }

    fn prepare(&mut self, cursor: &Cursor) -> Result<()> {
        let (time, staged) = match std::mem::take(&mut self.batch) {
            Batch::Open { time, staged } => (time, staged),
            other => {
                self.batch = other;
                return Err(self.out_of_turn("prepare"));
            }
        };
        self.batch = Batch::Failed(time);
        let own = self.own();
        let staged = match staged {
            None => None,
            Some(staged) => {
                let name = name_of(time);
                let finished = self.directory.join(&name);
                if finished.exists() {
                    return Err(occupied(&finished));
                }
                staged.finish()?;
                sync_directory(&own)?;
                Some(name)
            }
        };
        if std::mem::take(&mut self.rename_to_sync) {
            // The cursor that promises the rename is about to be replaced.
            sync_directory(&self.directory).inspect_err(|_| self.rename_to_sync = true)?;
        }
        fail::fail_point!(failpoints::OUTPUT_WRITTEN);
        cursor_file::stage(&own, &Committed { cursor: cursor.clone(), staged: staged.clone() })?;
        self.batch = Batch::Prepared(staged);
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        let Batch::Prepared(staged) = &mut self.batch else {
            return Err(self.out_of_turn("commit"));
        };
        let staged = staged.take();
        let own = self.own();
        fail::fail_point!(failpoints::BEFORE_COMMIT);
        cursor_file::commit(&own)?;
        fail::fail_point!(failpoints::AFTER_COMMIT);
        if let Some(name) = staged {
            rename(&own.join(&name), &self.directory.join(&name))?;
            self.rename_to_sync = true;
        }
        fail::fail_point!(failpoints::FILES_RENAMED);
        self.batch = Batch::None;
        Ok(())
    }

    fn abort(&mut self) -> Result<()> {
        let own = self.own();
        let name = match std::mem::take(&mut self.batch) {
            Batch::None => return Ok(()),
            Batch::Open { staged, .. } => staged.map(|staged| staged.directory().to_owned()),
            Batch::Failed(time) => Some(own.join(name_of(time))),
            Batch::Prepared(name) => name.map(|name| own.join(name)),
        };
        cursor_file::unstage(&own)?;
        name.map_or(Ok(()), |staged| delete(&staged))
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.rename_to_sync)
            && let Err(error) = sync_directory(&self.directory)
        {
            // Nothing is lost: the cursor still promises the rename, and the next start looks after it.
            tracing::warn!(%error, "the last batch's directory may have to be renamed again");
        }
        self.lock = None;
    }
}

/// Locks the output directory.
fn lock(own: &Path, directory: &Path) -> Result<DirectoryLock> {
    DirectoryLock::acquire(own).map_err(|error| {
        let kind = match error.kind() {
            millpond_wal::ErrorKind::InUse => ErrorKind::Configuration,
            _ => ErrorKind::Retry,
        };
        Error::new(kind, format!("cannot write to {}: another pipeline does, or it is not ours", directory.display()))
            .with_source(error)
    })
}
