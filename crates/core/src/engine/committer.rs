//! The thread that owns the sinks: it writes outputs as tasks end, and commits batch after batch.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

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
    orders: Sender<Order>,
    remembered: Arc<Mutex<Vec<Vec<u8>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(crate) fn start(
        sinks: Vec<NamedSink>,
        name: &str,
        report: impl Fn(Outcome) + Send + 'static,
    ) -> Result<Committer> {
        let (orders, inbox) = unbounded();
        let remembered: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let remember = remembered.clone();
        let thread = std::thread::Builder::new().name(format!("{name}-committer")).spawn(move || {
            Work { sinks, failed: false, report, remember }.run(&inbox);
        });
        let thread = thread
            .map_err(|error| Error::new(ErrorKind::Retry, "cannot start the thread that commits").with_source(error))?;
        Ok(Committer { orders, remembered, thread: Some(thread) })
    }

    /// What each sink wants to be remembered in the next checkpoint, as of its newest cursor.
    pub(crate) fn remembered(&self) -> Vec<Vec<u8>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where tasks send their output.
    pub(crate) fn sender(&self) -> Sender<Order> {
        self.orders.clone()
    }

    pub(crate) fn order(&self, order: Order) {
        // The thread ends with `Close` only, which is the last order.
        let _ = self.orders.send(order);
    }

    /// Gives an order that is answered, and waits for the answer. Bounded by the sinks' own limits.
    pub(crate) fn ask<A>(&self, order: impl FnOnce(Sender<A>) -> Order) -> Result<A> {
        let (answer, answers) = crossbeam_channel::bounded(1);
        self.order(order(answer));
        answers.recv().map_err(|_| Error::new(ErrorKind::Restart, "the thread that commits has died: a sink panicked"))
    }

    pub(crate) fn close(mut self) {
        let _ = self.ask(|done| Order::Close { done });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
    fn run(mut self, inbox: &Receiver<Order>) {
        while let Ok(order) = inbox.recv() {
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
                    return;
                }
            }
        }
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
