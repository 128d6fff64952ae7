//! Where records come from: the [`Source`] trait, and what passes between a source and the engine.
//!
//! A source is driven by the engine alone, from one thread: `start` once, then `plan` for each
//! batch, `read` for each planned batch (again after a crash), `release`, `stop`. What a source
//! receives on threads of its own it keeps until a plan takes it.

mod files;
mod output;
mod planned;
mod queue;
mod queue_plan;
mod receiver;
mod refusal;
mod socket;
#[cfg(test)]
mod testing;

pub use crate::chunk::chunk_len;
pub use crate::plan::{BlockId, PartitionPosition, Plan, PlanRequest};
pub use files::{FileSource, LineRef};
pub(crate) use files::{describe_file_position, file_failed, text_partitions};
pub use output::{FedRecord, RefusedRecord, SourceOutput};
pub use queue::{Queue, QueueSource};
pub use receiver::{ChannelSource, Push, PushAll, Pusher, Receiver, ReceiverHandle, ReceiverSource, channel};
pub use socket::SocketSource;

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::log::BlockLog;
use crate::time::BatchTime;

/// What a source can do after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replay {
    /// It can hand out a planned range again (Kafka, files).
    ByPosition,
    /// It hands records over once; its blocks are in the log before they count (sockets, pushes).
    FromLog,
    /// Neither: what was received and not committed is lost by a crash. Refused for exactly-once output.
    None,
}

/// A stream of records from outside.
///
/// Settings are checked, and connections made, in [`start`](Source::start), never where the
/// source is made: a test replaces sources by name.
pub trait Source: Send + 'static {
    /// The records.
    type Item: Send + 'static;

    /// The kind of source, a word for the graph's fingerprint and for messages: `kafka`, `files`.
    fn kind(&self) -> &'static str;

    /// What, beside its name, makes this source another one if it changes (a directory, the topics):
    /// part of the graph's fingerprint.
    fn identity(&self) -> String;

    /// What it can do after a crash.
    fn replay(&self) -> Replay;

    /// Connects and begins to receive. Must come back within the limits of the source's own
    /// settings; waiting for a server that is away belongs here.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for what can never work, [`ErrorKind::Retry`] for a server that stayed away.
    fn start(&mut self, start: SourceStart) -> Result<()>;

    /// Takes what belongs to the batch: everything received so far, within the request's limit.
    /// Quick: it runs between batches. The engine makes the plan durable before it reads it.
    fn plan(&mut self, request: &PlanRequest) -> Result<Plan>;

    /// The planned records, as the partitions of the batch's `Rdd`. Exactly the same records in the
    /// same order and partitions whenever it is asked, also by a later process.
    ///
    /// # Errors
    /// A range that is no longer to be had: says how much is lost, and where.
    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<Self::Item>>>>;

    /// Every batch up to this one has been computed and committed and will not be read again by
    /// this process: buffers may go.
    fn release(&mut self, committed: BatchTime);

    /// Stops receiving, handing over what it holds: after this, `plan` gives what is left and then
    /// empty plans. Called first in a graceful stop; `read` must still work.
    /// May take up to `limit`; what is still to be handed over then stays behind.
    ///
    /// # Errors
    /// It did not stop within the limit. The stop goes on with what was handed over, and ends with this error.
    fn stop_receiving(&mut self, limit: Duration) -> Result<()> {
        let _ = limit;
        Ok(())
    }

    /// Whether records received and not planned are left: a graceful stop plans until none are.
    fn has_waiting(&self) -> bool {
        false
    }

    /// The last call: closes everything.
    fn stop(&mut self) {}

    /// Decodes records that a test feeds in place of received ones, with this source's own decoder,
    /// into one partition a part of `parts`.
    ///
    /// # Errors
    /// By default: this source cannot be fed.
    fn feed(&self, records: Vec<FedRecord>) -> Result<Arc<dyn SourcePartition<Self::Item>>> {
        let _ = records;
        Err(Error::new(
            ErrorKind::Configuration,
            format!("a `{}` source cannot be fed by a test: it has no decoder", self.kind()),
        ))
    }
}

/// What a source is given when it starts.
pub struct SourceStart {
    /// The name the program gave to the source.
    pub name: String,
    /// The application (`StreamingContext::builder`'s argument).
    pub application: String,
    /// Where each partition stands after the newest plan, `None` at the very first start.
    pub positions: Option<Vec<PartitionPosition>>,
    /// For [`Replay::FromLog`]: blocks that are in the log and in no plan yet, oldest first.
    pub unplanned: Vec<BlockId>,
    /// Where blocks are made durable. Used by sources that log content.
    pub blocks: BlockLog,
    /// The first start of this directory, kept over restarts.
    pub first_start: BatchTime,
    /// The batch interval.
    pub batch_interval: std::time::Duration,
    /// The clock of the engine: milliseconds since the epoch.
    pub clock: Arc<dyn crate::clock::Clock>,
    /// Says that something worth planning has come, or that the source failed for good.
    pub events: SourceEvents,
}

/// How a source speaks to the engine outside of calls. Cloneable, usable from any thread.
#[derive(Clone)]
pub struct SourceEvents {
    pub(crate) report: Arc<dyn Fn(SourceEvent) + Send + Sync>,
}

/// What a source reports.
#[derive(Debug)]
#[non_exhaustive]
pub enum SourceEvent {
    /// An error that the source survives (a lost connection): goes to the log and to listeners.
    Error(Error),
    /// An error that it does not survive: the context stops.
    Fatal(Error),
    /// It receives, for the first time or again.
    Started,
    /// It has stopped receiving; it may start again.
    Stopped,
}

impl SourceEvents {
    /// Events that go to a function: for tests of a source.
    pub fn new(report: impl Fn(SourceEvent) + Send + Sync + 'static) -> Self {
        SourceEvents { report: Arc::new(report) }
    }

    /// Reports an error that the source survives.
    pub fn error(&self, error: Error) {
        (self.report)(SourceEvent::Error(error));
    }

    /// Says that the source receives, for the first time or again. The engine says so itself after `start`.
    pub fn started(&self) {
        (self.report)(SourceEvent::Started);
    }

    /// Says that the source has stopped receiving. The engine says so itself after `stop_receiving` and `stop`.
    pub fn stopped(&self) {
        (self.report)(SourceEvent::Stopped);
    }

    /// Reports an error that the source does not survive.
    pub fn fatal(&self, error: Error) {
        (self.report)(SourceEvent::Fatal(error));
    }
}

/// One partition of a batch's input. Can be computed again: a failed task is.
pub trait SourcePartition<T>: Send + Sync {
    /// Hands out the records in order, in chunks of some thousand, and what its decoder refused.
    ///
    /// # Errors
    /// Those of `out`, passed on at once; a refused record where the policy is to stop.
    fn compute(&self, out: &mut dyn SourceOutput<T>) -> Result<()>;

    /// How many records it holds, refused ones included.
    fn records(&self) -> u64;
}
