//! Where output goes: the [`Sink`] trait, the cursor that a sink commits with a batch, and the
//! records it is given.
//!
//! A sink is driven from one thread (the committer). A batch goes `begin`, `write` for each
//! finished task, `prepare`, `commit`; or `abort`. The engine calls `prepare` on all sinks before it
//! calls `commit` on any, and begins a batch only after the one before it has committed.

mod cursor;
mod files;
mod records;

pub use cursor::{Cursor, Digest};
pub use files::FileSink;
pub(crate) use files::disk;
pub(crate) use files::{committed_in, directory_of};
pub use records::{RecordView, RecordWriter, Records};

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::plan::PartitionPosition;
use crate::time::BatchTime;

/// What a sink promises of a batch's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guarantee {
    /// A batch's output and its cursor become visible together or not at all.
    Transactional,
    /// Writing a batch again leaves the same output as writing it once, and the sink keeps a cursor.
    IdempotentByBatch,
    /// Neither: readers may see output again after a crash. Has to be asked for with [`at_least_once`].
    AtLeastOnce,
}

/// A place to which the output of each batch is committed.
///
/// Settings are checked, and connections made, in [`peek`](Sink::peek), never where the sink is
/// made: a test replaces sinks by name.
pub trait Sink: Send + 'static {
    /// What the sink promises.
    fn guarantee(&self) -> Guarantee;

    /// What and where it is, for people: `Kafka topic counts, transactional id word-count`.
    fn describe(&self) -> String;

    /// Connects and reads the newest committed cursor of this sink without disturbing anybody who may still be writing.
    /// `None`: this sink has never committed. A sink without cursors ([`Guarantee::AtLeastOnce`]) gives `None`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for what can never work, [`ErrorKind::Retry`] for a server that stayed away for as long as the settings allow.
    fn peek(&mut self, start: &SinkStart) -> Result<Option<Cursor>>;

    /// Shuts out every earlier incarnation, settles what it left in doubt, and reads the cursor
    /// again: only now is it final.
    fn fence(&mut self, start: &SinkStart) -> Result<Option<Cursor>>;

    /// What the next start is to be given as [`SinkStart::remembered`]; goes into each checkpoint.
    fn remember(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The output of `batch` begins. `positions`: those of the sources after the batch; a sink may commit them beside its cursor,
    /// for others to see. Nothing reads them back.
    fn begin(&mut self, batch: BatchTime, positions: &[SourcePositions]) -> Result<()>;

    /// The whole output of one finished task. Order among tasks means nothing.
    fn write(&mut self, records: Records) -> Result<()>;

    /// All output has been written: gets everything ready so that the commit is all that is left, and
    /// stages the cursor for it.
    fn prepare(&mut self, cursor: &Cursor) -> Result<()>;

    /// Makes output and cursor visible together.
    ///
    /// # Errors
    /// After an error the outcome is unknown; the engine recovers and asks [`fence`](Sink::fence), whose answer decides.
    fn commit(&mut self) -> Result<()>;

    /// Gives up the batch that was begun: nothing of it becomes visible.
    fn abort(&mut self) -> Result<()>;

    /// The last call, after the last commit.
    fn close(&mut self) {}
}

/// What a sink is given when it starts.
#[derive(Clone)]
pub struct SinkStart {
    /// The name the program gave to the sink.
    pub name: String,
    /// The application (`StreamingContext::builder`'s argument).
    pub application: String,
    /// The random id the directory got when it was created.
    pub deployment: [u8; 16],
    /// The random id of this start.
    pub run: [u8; 16],
    /// What the manifest keeps for this sink from earlier starts, in the sink's own words (cluster id, transactional ids used): empty at first.
    pub remembered: Vec<u8>,
    /// Shared by all parts of one context (never by two contexts): what sinks of one kind have in common, such as a Kafka transaction.
    pub shared: Arc<Shared>,
}

/// The positions of one source after a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePositions {
    /// The source's name.
    pub source: String,
    /// Its kind: `kafka`, `files`.
    pub kind: &'static str,
    /// Every partition.
    pub positions: Vec<PartitionPosition>,
}

/// A place where the parts of one context find what they share, by type.
#[derive(Default)]
pub struct Shared {
    slots: std::sync::Mutex<Vec<Arc<dyn std::any::Any + Send + Sync>>>,
}

impl Shared {
    /// The context's one `T`, made at the first call.
    pub fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut slots = self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(found) = slots.iter().find_map(|slot| Arc::clone(slot).downcast::<T>().ok()) {
            return found;
        }
        let made = Arc::new(T::default());
        slots.push(made.clone());
        made
    }
}

/// A sink whose output may be seen again after a crash, asked for by name.
///
/// ```
/// # use millpond_core::sink::{AtLeastOnce, Sink};
/// # fn f(my_sink: impl Sink) {
/// let sink: AtLeastOnce<_> = millpond_core::sink::at_least_once(my_sink);
/// # }
/// ```
#[derive(Debug)]
pub struct AtLeastOnce<S>(pub(crate) S);

/// Accepts that readers of `sink` may see a batch's output again after a crash.
pub fn at_least_once<S: Sink>(sink: S) -> AtLeastOnce<S> {
    AtLeastOnce(sink)
}

/// What can be given to the `sink` methods of a stream: a [`Sink`], or one in [`at_least_once`].
pub trait IntoSink {
    /// The sink, and whether at-least-once was asked for.
    fn into_sink(self) -> (Box<dyn Sink>, bool);
}

impl<S: Sink> IntoSink for S {
    fn into_sink(self) -> (Box<dyn Sink>, bool) {
        (Box::new(self), false)
    }
}

impl<S: Sink> IntoSink for AtLeastOnce<S> {
    fn into_sink(self) -> (Box<dyn Sink>, bool) {
        (Box::new(self.0), true)
    }
}

/// The refusal of a sink that cannot keep exactly-once and was not asked for at-least-once.
pub(crate) fn refuse_at_least_once(name: &str) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!(
            "sink `{name}` can only write at least once: after a crash readers may see output again. \
             Use a transactional sink, or accept it by name: at_least_once(sink)"
        ),
    )
}
