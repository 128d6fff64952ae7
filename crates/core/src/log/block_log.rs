//! What a source gets of the log: its own blocks, within a limit on bytes that wait for a batch.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{BatchLog, Block, LogEntry};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::BlockId;

/// How often a wait for room looks whether the context has stopped.
const WAIT: Duration = Duration::from_millis(50);

/// A limit on the bytes that sources hold for batches that have not been computed yet. When it is
/// reached sources wait; shared by all sources of a context.
#[derive(Debug)]
pub struct Budget {
    limit_bytes: u64,
    used: Mutex<Used>,
    room: Condvar,
}

#[derive(Debug, Default)]
struct Used {
    bytes: u64,
    closed: bool,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Budget { limit_bytes, used: Mutex::default(), room: Condvar::new() })
    }

    /// Takes `bytes`, waiting for room as long as `go_on` says so. One block larger than the whole limit
    /// is let in alone.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`] when the budget was closed or `go_on` said no.
    pub fn take(&self, bytes: u64, go_on: impl Fn() -> bool) -> Result<()> {
        let mut used = self.lock();
        while used.bytes > 0 && used.bytes + bytes > self.limit_bytes {
            if used.closed || !go_on() {
                return Err(Error::new(ErrorKind::Stopped, "the context stopped while a block waited for room"));
            }
            used = self.room.wait_timeout(used, WAIT).unwrap_or_else(PoisonError::into_inner).0;
        }
        if used.closed {
            return Err(Error::new(ErrorKind::Stopped, "the context has stopped"));
        }
        used.bytes += bytes;
        Ok(())
    }

    /// Adds `bytes` whatever the limit says, for what is already in memory.
    pub fn force(&self, bytes: u64) {
        self.lock().bytes += bytes;
    }

    /// Gives `bytes` back.
    pub fn give_back(&self, bytes: u64) {
        let mut used = self.lock();
        used.bytes = used.bytes.saturating_sub(bytes);
        self.room.notify_all();
    }

    /// Whether there is room for more: for sources that fetch rather than wait.
    pub fn has_room(&self) -> bool {
        self.lock().bytes < self.limit_bytes
    }

    /// The limit.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Bytes taken and not given back.
    pub fn used_bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Everybody who waits is refused, and so is everybody who comes.
    pub fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The blocks that are in the log and in no plan yet: they hold the log (hard case H21).
#[derive(Debug, Default)]
pub(crate) struct Unplanned {
    /// With, for appends under way, the end of the log before them.
    blocks: Mutex<BTreeMap<BlockId, usize>>,
}

impl Unplanned {
    pub(crate) fn add(&self, block: BlockId) {
        *self.lock().entry(block).or_default() += 1;
    }

    pub(crate) fn remove(&self, block: BlockId) {
        let mut blocks = self.lock();
        if let Some(count) = blocks.get_mut(&block) {
            *count -= 1;
            if *count == 0 {
                blocks.remove(&block);
            }
        }
    }

    /// The oldest: nothing from here on may be released.
    pub(crate) fn oldest(&self) -> Option<BlockId> {
        self.lock().keys().next().copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BlockId, usize>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log as one source sees it.
#[derive(Clone)]
pub struct BlockLog {
    log: Arc<dyn BatchLog>,
    source: Arc<str>,
    budget: Arc<Budget>,
    unplanned: Arc<Unplanned>,
}

impl BlockLog {
    /// The blocks of the source of this name.
    pub fn new(log: Arc<dyn BatchLog>, source: &str, budget: Arc<Budget>) -> Self {
        BlockLog::tracked(log, source, budget, Arc::default())
    }

    pub(crate) fn tracked(
        log: Arc<dyn BatchLog>,
        source: &str,
        budget: Arc<Budget>,
        unplanned: Arc<Unplanned>,
    ) -> Self {
        BlockLog { log, source: source.into(), budget, unplanned }
    }

    /// The most bytes that payload and position of a block may have together.
    pub fn block_limit_bytes(&self) -> usize {
        self.log.block_limit_bytes()
    }

    /// Makes a block durable and returns its id: only then may the giver of the records be told so.
    /// Does not look at the budget: take from [`budget`](BlockLog::budget) first.
    pub fn append(&self, payload: Vec<u8>, records: u64, position: Vec<u8>) -> Result<BlockId> {
        // Until its place is known, all that comes after the present end is held.
        let before = self.log.end();
        self.unplanned.add(before);
        let outcome = self.log.append(&self.entry(payload, records, position));
        if let Ok(block) = outcome {
            self.unplanned.add(block);
        }
        self.unplanned.remove(before);
        outcome
    }

    /// As [`append`](BlockLog::append) without waiting; `done` is called exactly once, from any thread.
    pub fn submit(&self, payload: Vec<u8>, records: u64, position: Vec<u8>, done: super::Done) {
        let before = self.log.end();
        self.unplanned.add(before);
        let unplanned = self.unplanned.clone();
        let done = move |outcome: Result<BlockId>| {
            if let Ok(block) = outcome {
                unplanned.add(block);
            }
            unplanned.remove(before);
            done(outcome);
        };
        self.log.submit(self.entry(payload, records, position), Box::new(done));
    }

    /// Reads a block of this source.
    pub fn read(&self, id: BlockId) -> Result<Block> {
        match self.log.read(id)? {
            LogEntry::Block(block) if *block.source == *self.source => Ok(block),
            other => Err(Error::new(
                ErrorKind::Restore,
                format!("the log holds {} where a block of source `{}` was planned", other.name(), self.source),
            )),
        }
    }

    /// The limit on bytes that wait for a batch, shared by all sources of the context.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn entry(&self, payload: Vec<u8>, records: u64, position: Vec<u8>) -> LogEntry {
        LogEntry::Block(Block { source: self.source.to_string(), records, position, payload })
    }
}
