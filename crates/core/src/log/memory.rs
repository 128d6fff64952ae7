//! A log in memory: for tests, and the second implementation that keeps the trait honest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BatchLog, Done, LogEntry};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::BlockId;

/// A log in memory. Clones share the entries: what one clone appended, another one recovers.
#[derive(Clone, Debug, Default)]
pub struct MemoryBatchLog {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    /// As bytes, so that what comes back has been through the encoding.
    kept: Vec<(u8, Vec<u8>)>,
    first: u64,
    closed: bool,
}

impl MemoryBatchLog {
    /// An empty log.
    pub fn new() -> Self {
        MemoryBatchLog::default()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn position(index: u64) -> BlockId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&index.to_be_bytes());
    BlockId(id)
}

fn index(position: BlockId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&position.0[8..]);
    u64::from_be_bytes(bytes)
}

impl BatchLog for MemoryBatchLog {
    fn recover(&self, visit: &mut dyn FnMut(BlockId, LogEntry) -> Result<()>) -> Result<()> {
        let (first, kept) = {
            let mut entries = self.lock();
            entries.closed = false;
            (entries.first, entries.kept.clone())
        };
        for (at, (kind, payload)) in kept.iter().enumerate() {
            visit(position(first + at as u64), LogEntry::decode(*kind, payload)?)?;
        }
        Ok(())
    }

    fn append(&self, entry: &LogEntry) -> Result<BlockId> {
        let mut entries = self.lock();
        if entries.closed {
            return Err(Error::new(ErrorKind::Stopped, "the log is closed"));
        }
        entries.kept.push((entry.kind(), entry.encode()));
        Ok(position(entries.first + entries.kept.len() as u64 - 1))
    }

    fn submit(&self, entry: LogEntry, done: Done) {
        done(self.append(&entry));
    }

    fn read(&self, at: BlockId) -> Result<LogEntry> {
        let entries = self.lock();
        let found = index(at).checked_sub(entries.first).and_then(|at| entries.kept.get(at as usize));
        let (kind, payload) =
            found.ok_or_else(|| Error::new(ErrorKind::Restore, format!("the log holds no entry {}", index(at))))?;
        LogEntry::decode(*kind, payload)
    }

    fn release(&self, before: BlockId) -> Result<()> {
        let mut entries = self.lock();
        let count = index(before).saturating_sub(entries.first).min(entries.kept.len() as u64);
        entries.kept.drain(..count as usize);
        entries.first += count;
        Ok(())
    }

    fn end(&self) -> BlockId {
        let entries = self.lock();
        position(entries.first + entries.kept.len() as u64)
    }

    fn close(&self) -> Result<()> {
        self.lock().closed = true;
        Ok(())
    }
}
