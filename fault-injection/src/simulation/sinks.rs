//! Transactional sinks in memory, whose answers get lost and whose commits arrive late.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millpond_core::sink::{Cursor, Guarantee, Records, Sink, SinkStart, SourcePositions};
use millpond_core::{BatchTime, Error, ErrorKind, Result};
use millpond_testkit::{CollectingSink, Collection};

use super::scheduler::{self, Scheduler};
use super::{Batch, Outside};

/// The sinks of a run.
pub(super) struct MemorySinks {
    scheduler: Arc<Scheduler>,
    collection: Collection,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    /// A call fails once in so many; 0: never.
    once_in: u64,
    /// Commits on their way: their sinks have given up waiting for an answer.
    late: Vec<CollectingSink>,
}

impl MemorySinks {
    /// Sinks whose calls fail once in so many.
    pub(super) fn new(scheduler: &Arc<Scheduler>, once_in: u64) -> Self {
        let faults = Arc::new(Mutex::new(Faults { once_in, late: Vec::new() }));
        MemorySinks { scheduler: Arc::clone(scheduler), collection: Collection::new(), faults }
    }
}

impl Outside for MemorySinks {
    fn sink(&self, _: &str) -> Box<dyn Sink> {
        Box::new(UnreliableSink {
            sink: self.collection.sink(),
            collection: self.collection.clone(),
            scheduler: Arc::clone(&self.scheduler),
            faults: Arc::clone(&self.faults),
        })
    }

    fn committed(&self, sink: &str) -> Vec<Batch> {
        let batch = |batch: millpond_testkit::Collected| Batch {
            time_ms: batch.batch.as_ms(),
            values: batch.records.into_iter().map(|record| record.value.unwrap_or_default()).collect(),
        };
        self.collection.committed(sink).into_iter().map(batch).collect()
    }

    fn cursor(&self, sink: &str) -> Option<Cursor> {
        self.collection.cursor(sink)
    }

    fn turn(&self) {
        let late = {
            let mut faults = lock(&self.faults);
            let late = faults.late.len() as u64;
            (late > 0).then(|| faults.late.swap_remove(self.scheduler.below(late) as usize))
        };
        if let Some(mut late) = late {
            let outcome = late.commit();
            self.scheduler.note(|| format!("a late commit arrives: {}", outcome.is_ok()));
        }
    }

    fn heal(&self) {
        lock(&self.faults).once_in = 0;
        while !lock(&self.faults).late.is_empty() {
            self.turn();
        }
    }

    fn left_open(&self) -> Option<String> {
        None
    }
}

fn lock(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A collecting sink behind a bad line.
struct UnreliableSink {
    sink: CollectingSink,
    collection: Collection,
    scheduler: Arc<Scheduler>,
    faults: Arc<Mutex<Faults>>,
}

impl UnreliableSink {
    fn fails(&self) -> bool {
        let once_in = lock(&self.faults).once_in;
        once_in > 0 && self.scheduler.one_in(once_in)
    }

    /// A call that may fail before it does anything, and after which the process may die.
    fn call<R>(&mut self, what: &str, call: impl FnOnce(&mut CollectingSink) -> Result<R>) -> Result<R> {
        scheduler::point(what);
        if self.fails() {
            self.scheduler.note(|| format!("{what} fails"));
            return Err(lost(what));
        }
        let result = call(&mut self.sink);
        self.scheduler.note(|| format!("{what}: {}", if result.is_ok() { "done" } else { "refused" }));
        scheduler::point(what);
        result
    }
}

fn lost(what: &str) -> Error {
    Error::new(ErrorKind::Retry, format!("{what}: no answer"))
}

impl Sink for UnreliableSink {
    fn guarantee(&self) -> Guarantee {
        self.sink.guarantee()
    }

    fn describe(&self) -> String {
        self.sink.describe()
    }

    fn peek(&mut self, start: &SinkStart) -> Result<Option<Cursor>> {
        self.call("peek", |sink| sink.peek(start))
    }

    fn fence(&mut self, start: &SinkStart) -> Result<Option<Cursor>> {
        self.call("fence", |sink| sink.fence(start))
    }

    fn begin(&mut self, batch: BatchTime, positions: &[SourcePositions]) -> Result<()> {
        self.call("begin", |sink| sink.begin(batch, positions))
    }

    fn write(&mut self, records: Records) -> Result<()> {
        self.call("write", |sink| sink.write(records))
    }

    fn prepare(&mut self, cursor: &Cursor) -> Result<()> {
        self.call("prepare", |sink| sink.prepare(cursor))
    }

    fn commit(&mut self) -> Result<()> {
        if self.fails() {
            // The request stays on its way; whoever fences first shuts it out.
            self.scheduler.note(|| "a commit is delayed".into());
            let late = std::mem::replace(&mut self.sink, self.collection.sink());
            lock(&self.faults).late.push(late);
            return Err(lost("commit"));
        }
        self.call("commit", CollectingSink::commit)?;
        match self.fails() {
            true => Err(lost("commit")),
            false => Ok(()),
        }
    }

    fn abort(&mut self) -> Result<()> {
        self.sink.abort()
    }
}

/// A sink of a type that nobody knows.
pub(super) struct Boxed(pub(super) Box<dyn Sink>);

impl Sink for Boxed {
    fn guarantee(&self) -> Guarantee {
        self.0.guarantee()
    }
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn peek(&mut self, start: &SinkStart) -> Result<Option<Cursor>> {
        self.0.peek(start)
    }
    fn fence(&mut self, start: &SinkStart) -> Result<Option<Cursor>> {
        self.0.fence(start)
    }
    fn remember(&self) -> Vec<u8> {
        self.0.remember()
    }
    fn begin(&mut self, batch: BatchTime, positions: &[SourcePositions]) -> Result<()> {
        self.0.begin(batch, positions)
    }
    fn write(&mut self, records: Records) -> Result<()> {
        self.0.write(records)
    }
    fn prepare(&mut self, cursor: &Cursor) -> Result<()> {
        self.0.prepare(cursor)
    }
    fn commit(&mut self) -> Result<()> {
        self.0.commit()
    }
    fn abort(&mut self) -> Result<()> {
        self.0.abort()
    }
    fn close(&mut self) {
        self.0.close();
    }
}
