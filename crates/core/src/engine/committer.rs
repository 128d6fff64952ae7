//! The thread that owns the sinks: it writes outputs as tasks end, and commits batch after batch.

use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::Sender;

use super::actor::{Runtime, Worker};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::{Cursor, Records, Sink, SinkStart, SourcePositions};
use crate::time::BatchTime;

/// What the committer is told, in the order in which it is to be done.
pub(crate) enum Order {
    /// The output of one finished task.
    Write {
        incarnation: u64,
        batch: BatchTime,
        sink: usize,
        records: Records,
        positions: Arc<[SourcePositions]>,
    },
    /// All output of the batch has been handed over: commit it in these sinks.
    Commit {
        incarnation: u64,
        batch: BatchTime,
        cursors: Vec<(usize, Cursor)>,
        positions: Arc<[SourcePositions]>,
    },
    /// Give up what is open. After a failure everything before this is passed over.
    Abort {
        done: Sender<()>,
    },
    /// Read the cursor of every sink without disturbing anybody; `fence`: shut out earlier incarnations first.
    Cursors {
        fence: bool,
        starts: Vec<SinkStart>,
        answer: Sender<Result<Vec<Option<Cursor>>>>,
    },
    Close {
        done: Sender<()>,
    },
}

/// What the committer reports: a batch was committed in all the sinks that were to, or failed in one.
pub(crate) struct Outcome {
    /// Told back, so that what a lost incarnation reports is not taken for news.
    pub(crate) incarnation: u64,
    pub(crate) batch: BatchTime,
    pub(crate) result: Result<()>,
}

/// A sink with its name.
pub(crate) struct NamedSink {
    pub(crate) name: Arc<str>,
    pub(crate) sink: Box<dyn Sink>,
    /// The batch begun and neither committed nor aborted.
    pub(crate) begun: Option<BatchTime>,
}

pub(crate) struct Committer {
    worker: Worker<Order>,
    remembered: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Committer {
    pub(crate) fn start(
        runtime: &Runtime,
        sinks: Vec<NamedSink>,
        name: &str,
        report: impl Fn(Outcome) + Send + 'static,
    ) -> Result<Committer> {
        let remembered: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let mut work = Work { sinks, failed: false, report, remember: remembered.clone() };
        let worker = Worker::start(runtime, format!("{name}-committer"), move |order| work.carry_out(order))?;
        Ok(Committer { worker, remembered })
    }

    /// What each sink wants to be remembered in the next checkpoint, as of its newest cursor.
    pub(crate) fn remembered(&self) -> Vec<Vec<u8>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where tasks send their output.
    pub(crate) fn sender(&self) -> Option<Sender<Order>> {
        self.worker.sender()
    }

    pub(crate) fn order(&self, order: Order) {
        // The thread ends with `Close` only, which is the last order.
        self.worker.send(order);
    }

    /// Gives an order that is answered, and waits for the answer. Bounded by the sinks' own limits.
    pub(crate) fn ask<A>(&self, order: impl FnOnce(Sender<A>) -> Order) -> Result<A> {
        let died = || Error::new(ErrorKind::Restart, "the thread that commits has died: a sink panicked");
        self.worker.ask(order).ok_or_else(died)
    }

    pub(crate) fn close(self) {
        let _ = self.ask(|done| Order::Close { done });
        self.worker.close();
    }
}

struct Work<F> {
    sinks: Vec<NamedSink>,
    /// After a failure everything is passed over until `Abort`.
    failed: bool,
    report: F,
    remember: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl<F: Fn(Outcome)> Work<F> {
    /// Carries out the next order; false if it was the last.
    fn carry_out(&mut self, order: Order) -> bool {
        match order {
            Order::Write { .. } | Order::Commit { .. } if self.failed => {}
            Order::Write { incarnation, batch, sink, records, positions } => {
                if let Err(error) = self.write(batch, sink, records, &positions) {
                    self.failed = true;
                    (self.report)(Outcome { incarnation, batch, result: Err(error) });
                }
            }
            Order::Commit { incarnation, batch, cursors, positions } => {
                let result = self.commit(batch, &cursors, &positions);
                self.failed = result.is_err();
                self.remember();
                (self.report)(Outcome { incarnation, batch, result });
            }
            Order::Abort { done } => {
                self.abort();
                self.failed = false;
                let _ = done.send(());
            }
            Order::Cursors { fence, starts, answer } => {
                let cursors = self.cursors(fence, &starts);
                self.remember();
                let _ = answer.send(cursors);
            }
            Order::Close { done } => {
                self.abort();
                self.sinks.iter_mut().for_each(|named| named.sink.close());
                let _ = done.send(());
                return false;
            }
        }
        true
    }

    fn remember(&self) {
        let remembered = self.sinks.iter().map(|named| named.sink.remember()).collect();
        *self.remember.lock().unwrap_or_else(PoisonError::into_inner) = remembered;
    }

    fn begin(&mut self, batch: BatchTime, sink: usize, positions: &[SourcePositions]) -> Result<()> {
        let named = &mut self.sinks[sink];
        if named.begun != Some(batch) {
            named.sink.begin(batch, positions).map_err(|error| at(&named.name, batch, error))?;
            named.begun = Some(batch);
        }
        Ok(())
    }

    fn write(&mut self, batch: BatchTime, sink: usize, records: Records, positions: &[SourcePositions]) -> Result<()> {
        self.begin(batch, sink, positions)?;
        let named = &mut self.sinks[sink];
        named.sink.write(records).map_err(|error| at(&named.name, batch, error))
    }

    fn commit(&mut self, batch: BatchTime, cursors: &[(usize, Cursor)], positions: &[SourcePositions]) -> Result<()> {
        // A batch without output begins here: its cursor is committed all the same.
        cursors.iter().try_for_each(|(sink, _)| self.begin(batch, *sink, positions))?;
        for (sink, cursor) in cursors {
            let named = &mut self.sinks[*sink];
            named.sink.prepare(cursor).map_err(|error| at(&named.name, batch, error))?;
        }
        for (sink, _) in cursors {
            let named = &mut self.sinks[*sink];
            named.sink.commit().map_err(|error| at(&named.name, batch, error))?;
            named.begun = None;
        }
        Ok(())
    }

    fn abort(&mut self) {
        for named in &mut self.sinks {
            if named.begun.take().is_some()
                && let Err(error) = named.sink.abort()
            {
                // Fencing settles what an abort could not.
                tracing::warn!(sink = %named.name, %error, "a sink could not abort its batch");
            }
        }
    }

    fn cursors(&mut self, fence: bool, starts: &[SinkStart]) -> Result<Vec<Option<Cursor>>> {
        let one = |(named, start): (&mut NamedSink, &SinkStart)| {
            let cursor = if fence { named.sink.fence(start) } else { named.sink.peek(start) };
            cursor.map_err(|error| error.context(format!("sink `{}`", named.name)))
        };
        self.sinks.iter_mut().zip(starts).map(one).collect()
    }
}

fn at(sink: &str, batch: BatchTime, error: Error) -> Error {
    error.context(format!("sink `{sink}`, batch {batch}"))
}
