//! The log of batches on the local disk: `millpond-wal`'s log with our entries in its frames.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use millpond_wal::fs::{DiskFileSystem, FileSystem};
use millpond_wal::{Frame, Log, LogOptions, Position};

use super::{BatchLog, Done, LogEntry};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::BlockId;

pub use millpond_wal::LogOptions as LocalBatchLogOptions;

/// The log of batches in a directory.
pub struct LocalBatchLog {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    options: LogOptions,
    log: Mutex<Option<Arc<Log>>>,
}

impl LocalBatchLog {
    /// The log in `directory`, made at its first recovery. The caller holds the lock on it.
    pub fn new(directory: &Path, options: LogOptions) -> Self {
        LocalBatchLog::on(Arc::new(DiskFileSystem), directory, options)
    }

    /// As [`new`](LocalBatchLog::new) on a file system that a test rules.
    pub fn on(fs: Arc<dyn FileSystem>, directory: &Path, options: LogOptions) -> Self {
        LocalBatchLog { fs, directory: directory.to_owned(), options, log: Mutex::new(None) }
    }

    fn open(&self) -> Result<Arc<Log>> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone().ok_or_else(|| {
            Error::new(ErrorKind::Stopped, format!("the log in {} is not open", self.directory.display()))
        })
    }
}

impl std::fmt::Debug for LocalBatchLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalBatchLog({})", self.directory.display())
    }
}

fn block_id(position: Position) -> BlockId {
    BlockId(position.to_bytes())
}

fn position(id: BlockId) -> Position {
    Position::from_bytes(id.0)
}

impl BatchLog for LocalBatchLog {
    fn recover(&self, visit: &mut dyn FnMut(BlockId, LogEntry) -> Result<()>) -> Result<()> {
        let mut open = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = open.take() {
            log.close()?;
        }
        // An error of the visitor passes through the log's own; it is what the caller wants to see.
        let mut failure = None;
        let mut each = |frame: Frame<'_>| {
            let entry = LogEntry::decode(frame.kind, frame.payload);
            entry.and_then(|entry| visit(block_id(frame.position), entry)).map_err(|error| {
                failure = Some(error);
                "the entry was refused".into()
            })
        };
        let log = Log::open(self.fs.clone(), &self.directory, self.options.clone(), &mut each);
        if let Some(error) = failure {
            return Err(error);
        }
        *open = Some(Arc::new(log?));
        Ok(())
    }

    fn block_limit_bytes(&self) -> usize {
        (self.options.max_payload_bytes as usize).saturating_sub(super::BLOCK_OVERHEAD_BYTES)
    }

    fn append(&self, entry: &LogEntry) -> Result<BlockId> {
        Ok(block_id(self.open()?.append(entry.kind(), &entry.encode())?))
    }

    fn submit(&self, entry: LogEntry, done: Done) {
        // Called once whichever way it goes: by the log, or here if the log would not take the entry.
        let done = Arc::new(Mutex::new(Some(done)));
        let call = |done: &Mutex<Option<Done>>, outcome| {
            if let Some(done) = done.lock().unwrap_or_else(PoisonError::into_inner).take() {
                done(outcome);
            }
        };
        let later = done.clone();
        let when_durable = Box::new(move |outcome: millpond_wal::Result<Position>| {
            call(&later, outcome.map(block_id).map_err(Error::from));
        });
        let submitted = self.open().and_then(|log| Ok(log.submit(entry.kind(), entry.encode(), when_durable)?));
        if let Err(error) = submitted {
            call(&done, Err(error));
        }
    }

    fn read(&self, id: BlockId) -> Result<LogEntry> {
        let (kind, payload) = self.open()?.read(position(id))?;
        LogEntry::decode(kind, &payload)
    }

    fn release(&self, before: BlockId) -> Result<()> {
        self.open()?.release(position(before))?;
        Ok(())
    }

    fn end(&self) -> BlockId {
        self.open().map_or(BlockId([0; 16]), |log| block_id(log.end()))
    }

    fn close(&self) -> Result<()> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).take();
        log.map_or(Ok(()), |log| Ok(log.close()?))
    }
}
