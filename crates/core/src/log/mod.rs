//! The log of batches: the [`BatchLog`] trait, its entries, and the local implementation over
//! `millpond-wal`.
//!
//! Everything that decides what a batch is goes through here before it takes effect: received
//! blocks, batch plans, the runs of the process, the sinks it introduced.

mod block_log;
mod entry;
mod local;
mod memory;

pub(crate) use block_log::Unplanned;
pub use block_log::{BlockLog, Budget};
pub use entry::{BatchPlan, Block, LogEntry, SourcePlan};
pub(crate) use entry::{read_position, write_position};
pub use local::{LocalBatchLog, LocalBatchLogOptions};
pub use memory::MemoryBatchLog;

use crate::error::Result;
use crate::plan::BlockId;

/// More than an entry of a block takes beside payload and position: the name of its source, and lengths.
const BLOCK_OVERHEAD_BYTES: usize = 1024;

/// Called once with the position of a durable entry, or with why it could not be made durable.
pub type Done = Box<dyn FnOnce(Result<BlockId>) + Send>;

/// Where blocks and plans are made durable. The local disk is the first implementation, a Kafka
/// topic can be another: nothing in the engine knows.
///
/// Positions are ordered as the entries are; `BlockId` names any entry's position.
pub trait BatchLog: Send + Sync + 'static {
    /// Reads every entry from the oldest kept to the valid end, in order, and makes the log ready
    /// for appends. Called once before anything else, and again after a failure was recovered from
    /// inside the process: then it must read what is durable, not what it remembers.
    ///
    /// # Errors
    /// Damage below what is known to be durable; what `visit` returns.
    fn recover(&self, visit: &mut dyn FnMut(BlockId, LogEntry) -> Result<()>) -> Result<()>;

    /// Makes an entry durable; returns its position when it is. From any thread; appends that wait
    /// together share a sync.
    ///
    /// # Errors
    /// [`Retry`](crate::ErrorKind::Retry) when the disk is full: the log can still be appended to when there is room.
    /// [`Restart`](crate::ErrorKind::Restart) when a sync has failed: every later append fails too.
    fn append(&self, entry: &LogEntry) -> Result<BlockId>;

    /// As [`append`](BatchLog::append), without waiting: `done` is called exactly once, from any thread.
    fn submit(&self, entry: LogEntry, done: Done);

    /// Reads a durable entry again.
    ///
    /// # Errors
    /// An entry that was released, or whose checksum does not fit.
    fn read(&self, position: BlockId) -> Result<LogEntry>;

    /// Nothing before `position` will be asked for again: it may be deleted.
    fn release(&self, position: BlockId) -> Result<()>;

    /// The end of what is durable: every entry so far is before it.
    fn end(&self) -> BlockId;

    /// The most bytes of a block's payload, position included; an append of more fails. Default: 16 MiB less a little.
    fn block_limit_bytes(&self) -> usize {
        (16 << 20) - BLOCK_OVERHEAD_BYTES
    }

    /// No more appends: those under way finish or fail, none hangs.
    fn close(&self) -> Result<()>;
}
