//! Sources that hand records over once: their blocks are logged whole before they count.
//!
//! A program implements [`Receiver`], whose handle stores records; or it pushes records itself
//! (`channel`). `intake` gathers records into blocks, `logger` takes them to the log, `tracker` from
//! there to the batch, `plan` is what a batch takes, `partition` reads them, `payload` is their encoding, `rate` limits them,
//! `sequences` knows where their givers stand, `ticket` is what waits, `lifecycle` starts and stops the receiver.

mod channel;
mod handle;
mod intake;
mod lifecycle;
mod limits;
mod logger;
mod partition;
mod payload;
mod plan;
mod push_all;
mod rate;
mod sequences;
#[cfg(test)]
mod tests;
mod ticket;
mod tracker;

pub use channel::{ChannelSource, Push, Pusher, channel};
pub use handle::ReceiverHandle;
pub use push_all::PushAll;

pub(super) use self::payload::Codec;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::intake::Intake;
use self::lifecycle::Lifecycle;
use self::limits::Limits;
use self::sequences::Givers;
use super::refusal::OnRefused;
use super::{FedRecord, Plan, PlanRequest, Replay, Source, SourcePartition, SourceStart};
use crate::error::{Error, ErrorKind, Result};
use crate::time::BatchTime;

/// The named points at which tests stop or kill the process (feature `failpoints`).
#[cfg_attr(not(feature = "failpoints"), expect(dead_code, reason = "the macro drops them"))]
mod failpoints {
    /// A block has been handed to the log.
    pub(super) const BLOCK_APPENDED: &str = "block-appended";
    /// A block is durable, nobody knows yet.
    pub(super) const BLOCK_SYNCED: &str = "block-synced";
    /// The giver of records is about to be told that they are durable.
    pub(super) const SOURCE_ACKNOWLEDGED: &str = "source-acknowledged";
}

/// How long a stop that is not graceful waits for a receiver.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// What is stored is logged, even where the receiver has used up the limit.
const CLOSE_AT_LEAST: Duration = Duration::from_millis(100);

/// Receives records from somewhere and hands them over, once.
///
/// ```
/// use millpond_core::source::{Receiver, ReceiverHandle, ReceiverSource};
///
/// struct Numbers;
///
/// impl Receiver for Numbers {
///     type Item = u64;
///
///     fn on_start(&mut self, handle: ReceiverHandle<u64>) {
///         // Reliable: goes on behind what is in the log, and is told when records are.
///         let position = handle.last_position().and_then(|bytes| bytes.try_into().ok());
///         let mut next = position.map_or(0, u64::from_le_bytes);
///         std::thread::spawn(move || {
///             while !handle.is_stopped() {
///                 if let Err(error) = handle.store_group_at(&[next], &(next + 1).to_le_bytes()) {
///                     return handle.restart(&format!("number {next}: {error}"));
///                 }
///                 next += 1;
///             }
///         });
///     }
///
///     fn on_stop(&mut self) {}
/// }
///
/// let source = ReceiverSource::new(Numbers);
/// ```
pub trait Receiver: Send + 'static {
    /// The records.
    type Item: Send + 'static;

    /// Begins to receive, usually on a thread of its own. Must not block. Called again after each
    /// [`restart`](ReceiverHandle::restart), with a new handle.
    fn on_start(&mut self, handle: ReceiverHandle<Self::Item>);

    /// Stops receiving. May store what it still holds; may block, within the
    /// [stop limit](ReceiverSource::stop_limit) of the source.
    fn on_stop(&mut self);
}

/// The records of a [`Receiver`].
///
/// Exactly-once from the moment a record is stored in a group ([`ReceiverHandle::store_group`]); records stored one by
/// one count once they are in the log, within a block interval, and a crash before that loses them.
pub struct ReceiverSource<R: Receiver> {
    receiver: Option<R>,
    codec: Codec<R::Item>,
    kind: &'static str,
    identity: String,
    limits: Limits,
    stop_limit: Option<Duration>,
    /// It did not stop when it was asked: nobody waits for it again.
    gave_up: bool,
    restart_delay: Duration,
    intake: Arc<Intake>,
    lifecycle: Arc<Lifecycle>,
}

impl<R: Receiver> ReceiverSource<R>
where
    R::Item: Serialize + DeserializeOwned,
{
    /// The records of `receiver`, of a type that serde takes apart and puts together again the same way.
    pub fn new(receiver: R) -> Self {
        ReceiverSource::with_codec(receiver, Codec::values(), "receiver", String::new())
    }
}

impl<R: Receiver> ReceiverSource<R> {
    pub(super) fn with_codec(receiver: R, codec: Codec<R::Item>, kind: &'static str, identity: String) -> Self {
        let limits = Limits::default();
        ReceiverSource {
            receiver: Some(receiver),
            codec,
            kind,
            identity,
            intake: Intake::new(limits.clone(), codec.header(), Givers::One(Vec::new())),
            limits,
            stop_limit: None,
            gave_up: false,
            restart_delay: Duration::from_secs(2),
            lifecycle: Arc::default(),
        }
    }

    /// Changes the receiver, which has not been started.
    pub(super) fn change_receiver(mut self, change: impl FnOnce(&mut R)) -> Self {
        if let Some(receiver) = &mut self.receiver {
            change(receiver);
        }
        self
    }

    /// What, beside its name, tells this source from another one: part of the graph's fingerprint.
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = identity.into();
        self
    }

    /// How long records that were stored one by one are gathered into a block, default 200 ms, at least 1 ms. Shorter
    /// loses fewer of them in a crash, and costs the log more syncs.
    pub fn block_interval(self, interval: Duration) -> Self {
        self.limit(|limits| limits.block_interval = interval)
    }

    /// A block ends early when it has so many bytes, default 1 MiB.
    ///
    /// # Panics
    /// If `bytes` is 0.
    pub fn block_limit_bytes(self, bytes: usize) -> Self {
        assert!(bytes > 0, "a block of 0 bytes");
        self.limit(|limits| limits.block_bytes = bytes)
    }

    /// A larger group, or single record, is refused; default 8 MiB, at most 8 MiB.
    pub fn group_limit_bytes(self, bytes: usize) -> Self {
        self.limit(|limits| limits.group_bytes = bytes.min(8 << 20))
    }

    /// So many blocks may wait for the log, default 10; then storing waits.
    ///
    /// # Panics
    /// If `blocks` is 0.
    pub fn blocks_waiting_limit(self, blocks: usize) -> Self {
        assert!(blocks > 0, "no block may wait");
        self.limit(|limits| limits.blocks_waiting = blocks)
    }

    /// At most so many records a second, with bursts of a tenth of that; default: no limit. Then storing waits.
    ///
    /// # Panics
    /// If `records_per_second` is 0.
    pub fn max_rate(self, records_per_second: u64) -> Self {
        assert!(records_per_second > 0, "a rate of 0 records a second");
        self.limit(|limits| limits.max_rate = Some(records_per_second))
    }

    /// How long a stop waits for the receiver. After it a graceful stop goes on with what was stored, and ends with an error that names
    /// the source. Default: a graceful stop waits most of what is left of its own limit, any other stop 10 s.
    pub fn stop_limit(mut self, limit: Duration) -> Self {
        self.stop_limit = Some(limit);
        self
    }

    /// How long after a stop a receiver that asked for a restart is started again, unless it says itself; default 2 s.
    pub fn restart_delay(mut self, delay: Duration) -> Self {
        self.restart_delay = delay;
        self
    }

    /// Leaves out, and counts, records that cannot be decoded, in place of stopping.
    pub fn skip_refused(mut self) -> Self {
        self.codec.on_refused = OnRefused::Skip;
        self
    }

    /// Changes a limit; the source has not started, so its intake can be made again.
    fn limit(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self.intake = Intake::new(self.limits.clone(), self.codec.header(), Givers::One(Vec::new()));
        self
    }
}

impl<R: Receiver> fmt::Debug for ReceiverSource<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverSource").field("kind", &self.kind).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<R: Receiver> Source for ReceiverSource<R> {
    type Item = R::Item;

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn replay(&self) -> Replay {
        Replay::FromLog
    }

    fn start(&mut self, start: SourceStart) -> Result<()> {
        let Some(receiver) = self.receiver.take() else {
            return Err(Error::new(ErrorKind::Program, "a source was started twice"));
        };
        self.intake.start(&start)?;
        let (intake, lifecycle) = (Arc::clone(&self.intake), Arc::clone(&self.lifecycle));
        let (codec, restart_delay) = (self.codec, self.restart_delay);
        let outside = self.intake.outside()?;
        let of_outside = outside.clone();
        let handle = move |incarnation| {
            let (intake, lifecycle) = (Arc::clone(&intake), Arc::clone(&lifecycle));
            ReceiverHandle::new(intake, lifecycle, incarnation, codec, restart_delay, of_outside.clone())
        };
        lifecycle::spawn(receiver, Arc::clone(&self.lifecycle), outside, handle)
    }

    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        self.intake.plan(request)
    }

    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<R::Item>>>> {
        partition::read(&self.intake, self.codec, plan)
    }

    fn release(&mut self, committed: BatchTime) {
        self.intake.release(committed);
    }

    fn stop_receiving(&mut self, limit: Duration) -> Result<()> {
        let began = Instant::now();
        let limit = self.stop_limit.map_or(limit, |own| own.min(limit));
        self.intake.hurry();
        self.lifecycle.stop(None);
        let ended = self.receiver.is_some() || self.lifecycle.wait_for_end(limit);
        self.gave_up = !ended;
        // Also if it did not end: what it has stored so far counts.
        self.intake.close(limit.saturating_sub(began.elapsed()).max(CLOSE_AT_LEAST))?;
        if ended {
            return Ok(());
        }
        let source = self.intake.outside().map_or(String::new(), |outside| outside.source.to_string());
        let limit_ms = limit.as_millis();
        Err(Error::new(
            ErrorKind::Program,
            format!("the receiver of source `{source}` was asked to stop and did not within {limit_ms} ms"),
        ))
    }

    fn has_waiting(&self) -> bool {
        self.intake.has_waiting()
    }

    fn stop(&mut self) {
        self.intake.hurry();
        self.lifecycle.stop(None);
        if self.receiver.is_none() && !self.gave_up {
            self.lifecycle.wait_for_end(self.stop_limit.unwrap_or(STOP_LIMIT));
        }
        self.intake.abandon();
    }

    fn feed(&self, records: Vec<FedRecord>) -> Result<Arc<dyn SourcePartition<R::Item>>> {
        Ok(partition::fed(self.codec, records))
    }
}

impl<R: Receiver> Drop for ReceiverSource<R> {
    /// Without a stop before it, as a crash: nothing is waited for and what is not in the log is gone.
    fn drop(&mut self) {
        self.lifecycle.stop(None);
        self.intake.abandon();
    }
}
