//! Records that the program pushes in, each durable when its push is done.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::intake::{Intake, Run};
use super::limits::Limits;
use super::partition;
use super::payload::Codec;
use super::push_all::PushAll;
use super::sequences::Givers;
use super::ticket::Ticket;
use crate::error::Result;
use crate::source::{FedRecord, Plan, PlanRequest, Replay, Source, SourcePartition, SourceStart};
use crate::time::BatchTime;

/// How long a graceful stop waits for pushed records to be logged.
const CLOSE_LIMIT: Duration = Duration::from_secs(60);

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends a buffer of this thread, empty; an encoder that stores records itself gets another one.
pub(super) fn with_scratch<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = SCRATCH.take();
    let outcome = work(&mut buffer);
    buffer.clear();
    if buffer.capacity() <= 1 << 20 {
        SCRATCH.set(buffer);
    }
    outcome
}

/// Makes both ends of a channel: a source, and what pushes records into it.
pub fn channel<T: Serialize + DeserializeOwned + Send + 'static>() -> (Pusher<T>, ChannelSource<T>) {
    let codec = Codec::values();
    let intake = Intake::new(Limits::default(), codec.header(), Givers::Many(BTreeMap::new()));
    (Pusher { intake: Arc::clone(&intake), codec }, ChannelSource { intake, codec })
}

/// Pushes records into a running pipeline. Cloneable, usable from any thread and any async runtime.
///
/// A record whose push gave `Ok` is in the log and counts exactly once, whatever dies then. After an error of kind
/// [`Retry`](crate::ErrorKind::Retry) it is not in the log. If the process dies, or the future is dropped, before the
/// push was done, it may be: pushing it again may then count it twice. Where that matters, a push carries a number
/// ([`push_once`](Pusher::push_once)).
pub struct Pusher<T> {
    intake: Arc<Intake>,
    codec: Codec<T>,
}

impl<T> Pusher<T> {
    /// Pushes a record: the future is ready when it is durable. Pushes that wait together share a sync of the log.
    ///
    /// # Errors
    /// (of the future) [`Retry`](crate::ErrorKind::Retry) before the context has started and while the log cannot be
    /// written to; [`Stopped`](crate::ErrorKind::Stopped) after its stop; [`Program`](crate::ErrorKind::Program) for a
    /// value that cannot be encoded.
    pub fn push(&self, record: T) -> Push<T> {
        self.begin(record, None)
    }

    /// As [`push`](Pusher::push), counted once however often it is made: for a producer that makes a push again when it does
    /// not know what became of it, after an error or as a process that was started anew.
    ///
    /// `producer` is a name of 1 to 200 bytes that stays the same over restarts, one of at most 10,000; its numbers grow from push to push. A push with
    /// a number that is not above the last one in the log is done at once. The log and the checkpoints remember it.
    ///
    /// ```
    /// # async fn f(pusher: millpond_core::source::Pusher<String>) -> millpond_core::Result<()> {
    /// let next = pusher.last_sequence("till-7").map_or(0, |last| last + 1);
    /// pusher.push_once("till-7", next, "a coffee".to_owned()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As those of [`push`](Pusher::push); [`Configuration`](crate::ErrorKind::Configuration) for a name that cannot be one and
    /// for too many producers.
    pub fn push_once(&self, producer: &str, sequence: u64, record: T) -> Push<T> {
        self.begin(record, Some((producer.to_owned(), sequence)))
    }

    fn begin(&self, record: T, number: Option<(String, u64)>) -> Push<T> {
        let mut bytes = Vec::new();
        let step = match self.codec.append(&record, &mut bytes) {
            Ok(()) => Step::Encoded(bytes, number),
            Err(error) => Step::Failed(error),
        };
        Push { intake: Arc::clone(&self.intake), step, record: PhantomData }
    }

    /// Pushes all that an asynchronous stream gives, in its order; the future is ready when the stream has ended and all of it
    /// is durable, with the number of records. It runs on whatever runtime it is spawned on. At most 1,024 records are
    /// taken from the stream before they are durable: a crash loses those.
    ///
    /// ```
    /// # async fn f(pusher: millpond_core::source::Pusher<String>, lines: impl futures_core::Stream<Item = String>) {
    /// let pushed = pusher.push_all(lines).await;
    /// # }
    /// ```
    ///
    /// # Errors
    /// (of the future) As those of [`push`](Pusher::push), of the first record that cannot be pushed; what came after it is given up.
    pub fn push_all<S: futures_core::Stream<Item = T>>(&self, stream: S) -> PushAll<T, S> {
        PushAll::new(self.clone(), stream)
    }

    /// The last number of a producer that is in the log, also from earlier processes; `None` if there is none, or before the
    /// context has started.
    pub fn last_sequence(&self, producer: &str) -> Option<u64> {
        self.intake.last_number(producer)
    }

    /// As [`push`](Pusher::push), for threads: comes back when the record is durable.
    ///
    /// # Errors
    /// As those of the future.
    pub fn push_blocking(&self, record: T) -> Result<()> {
        self.store(&record, None)
    }

    /// As [`push_once`](Pusher::push_once), for threads: comes back when the record is durable.
    ///
    /// # Errors
    /// As those of the future.
    pub fn push_once_blocking(&self, producer: &str, sequence: u64, record: T) -> Result<()> {
        self.store(&record, Some((producer, sequence)))
    }

    fn store(&self, record: &T, number: Option<(&str, u64)>) -> Result<()> {
        with_scratch(|bytes| {
            self.codec.append(record, bytes)?;
            self.intake.store_durably(Run { bytes, records: 1, position: &[], number })
        })?;
        fail::fail_point!(super::failpoints::SOURCE_ACKNOWLEDGED);
        Ok(())
    }
}

impl<T> Clone for Pusher<T> {
    fn clone(&self) -> Self {
        Pusher { intake: Arc::clone(&self.intake), codec: self.codec }
    }
}

impl<T> fmt::Debug for Pusher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pusher").finish_non_exhaustive()
    }
}

/// A push under way. Dropped before it is polled, nothing is pushed.
#[must_use = "a push begins when it is polled"]
pub struct Push<T> {
    intake: Arc<Intake>,
    step: Step,
    // The record itself is encoded: a future of any `T` can be moved and sent.
    record: PhantomData<fn(T)>,
}

enum Step {
    /// With who pushes it, and under which number.
    Encoded(Vec<u8>, Option<(String, u64)>),
    Logged(Arc<Ticket>),
    Failed(crate::error::Error),
    Done,
}

impl<T> Push<T> {
    /// Whether the record is in a block, or its push is done.
    pub(super) fn is_taken(&self) -> bool {
        !matches!(self.step, Step::Encoded(..))
    }
}

impl<T> Future for Push<T> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match std::mem::replace(&mut self.step, Step::Done) {
                Step::Encoded(bytes, number) => {
                    let of = number.as_ref().map(|(producer, number)| (&**producer, *number));
                    let run = Run { bytes: &bytes, records: 1, position: &[], number: of };
                    match self.intake.poll_add(run, context) {
                        Poll::Ready(Ok(Some(ticket))) => self.step = Step::Logged(ticket),
                        Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {
                            self.step = Step::Encoded(bytes, number);
                            return Poll::Pending;
                        }
                    }
                }
                Step::Logged(ticket) => {
                    let polled = ticket.poll(context);
                    if polled.is_pending() {
                        self.step = Step::Logged(ticket);
                    } else {
                        fail::fail_point!(super::failpoints::SOURCE_ACKNOWLEDGED);
                    }
                    return polled;
                }
                Step::Failed(error) => return Poll::Ready(Err(error)),
                Step::Done => panic!("a push was polled after it was done"),
            }
        }
    }
}

impl<T> fmt::Debug for Push<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push").finish_non_exhaustive()
    }
}

/// The records that [`Pusher`]s push. Exactly-once from the moment a push is done.
pub struct ChannelSource<T> {
    intake: Arc<Intake>,
    codec: Codec<T>,
}

impl<T: Send + 'static> Source for ChannelSource<T> {
    type Item = T;

    fn kind(&self) -> &'static str {
        "channel"
    }

    fn identity(&self) -> String {
        String::new()
    }

    fn replay(&self) -> Replay {
        Replay::FromLog
    }

    fn start(&mut self, start: SourceStart) -> Result<()> {
        self.intake.start(&start)
    }

    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        self.intake.plan(request)
    }

    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<T>>>> {
        partition::read(&self.intake, self.codec, plan)
    }

    fn release(&mut self, committed: BatchTime) {
        self.intake.release(committed);
    }

    fn stop_receiving(&mut self, limit: Duration) -> Result<()> {
        self.intake.close(limit.min(CLOSE_LIMIT))
    }

    fn has_waiting(&self) -> bool {
        self.intake.has_waiting()
    }

    fn stop(&mut self) {
        self.intake.abandon();
    }

    fn feed(&self, records: Vec<FedRecord>) -> Result<Arc<dyn SourcePartition<T>>> {
        Ok(partition::fed(self.codec, records))
    }
}

impl<T> fmt::Debug for ChannelSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelSource").finish_non_exhaustive()
    }
}

impl<T> Drop for ChannelSource<T> {
    /// Pushes that are under way are told; later ones are refused.
    fn drop(&mut self) {
        self.intake.abandon();
    }
}
