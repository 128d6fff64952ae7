//! The driver: the one thread that owns the state machine, the sources and the log. It waits for what happens, tells the
//! machine, and has its commands carried out ([`super::commands`]).

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use millpond_state::{Frozen, StateStore};

use super::actor::{Runtime, Worker};
use super::committer::{Committer, Outcome};
use super::directory::Directory;
use super::machine::{Command, Event, Failure, Machine};
use super::manifest::Manifest;
use super::meters;
use super::note::Note;
use super::observe::Observer;
use super::plans::Plans;
use super::settings::Settings;
use super::status::{ContextState, Status};
use super::totals::Totals;
use super::workers::{Compute, Computed, WriteJob, Written};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::listen::Bus;
use crate::log::{BatchLog, Budget, Unplanned};
use crate::sink::{Cursor, Guarantee, Shared};
use crate::source::PartitionPosition;
use crate::stream::{AnyOperator, AnySource, Fingerprint};
use crate::time::BatchTime;

/// What reaches the driver from outside.
pub(crate) enum Message {
    /// The clock was moved.
    Wake,
    StopGracefully,
    /// Stop at once: what is not committed is recovered by the next start.
    StopNow,
    Computed(u64, Computed),
    Written(u64, Written),
    Outcome(Outcome),
    SourceFailed {
        source: Arc<str>,
        error: Error,
    },
    /// A thread of the engine has panicked: what it was to do will never be done.
    Died(&'static str),
}

/// Held by a thread of the engine: says so if it dies of a panic, so that nobody waits for it.
pub(crate) struct TellsOfDeath {
    pub(crate) thread: &'static str,
    pub(crate) driver: crossbeam_channel::Sender<Message>,
}

impl Drop for TellsOfDeath {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.driver.send(Message::Died(self.thread));
        }
    }
}

/// What the driver stops with then.
pub(crate) fn died(thread: &str) -> Error {
    let what = format!(
        "the thread that {thread} has panicked: the machine is out of memory or of threads, or it is a mistake in Millpond. The directory \
         is as after a crash: start again"
    );
    Error::new(ErrorKind::Restart, what)
}

/// A sink as the driver sees it; the sink itself is with the committer.
pub(crate) struct SinkInfo {
    pub(crate) name: Arc<str>,
    pub(crate) description: String,
    pub(crate) guarantee: Guarantee,
    /// Where it stood at the last recovery.
    pub(crate) cursor: Option<Cursor>,
    pub(crate) introduced: bool,
    /// The chained digest up to the last computed batch.
    pub(crate) chain: u64,
}

/// Whether the context goes on; if not, because of what.
pub(crate) type Flow = ControlFlow<Option<Error>>;

/// Everything of a running context that one thread owns.
pub(crate) struct Driver {
    pub(crate) runtime: Runtime,
    pub(crate) settings: Settings,
    pub(crate) directory: Directory,
    pub(crate) manifest: Manifest,
    pub(crate) note: Note,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) run: [u8; 16],
    pub(crate) runs: Vec<[u8; 16]>,
    pub(crate) log: Arc<dyn BatchLog>,
    pub(crate) clock: Arc<dyn Clock>,
    /// What is added to the clock: more than zero if it was set back behind the last planned batch (hard case H18).
    pub(crate) clock_offset_ms: u64,
    /// What the sinks share, over recoveries too.
    pub(crate) shared: Arc<Shared>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) unplanned: Arc<Unplanned>,
    pub(crate) sources: Vec<Box<dyn AnySource>>,
    /// By source: its positions after the newest plan.
    pub(crate) positions: Vec<Option<Vec<PartitionPosition>>>,
    pub(crate) operators: Vec<Arc<dyn AnyOperator>>,
    pub(crate) sinks: Vec<SinkInfo>,
    pub(crate) plans: Plans,
    /// The hash over all plans.
    pub(crate) plans_chain: u64,
    pub(crate) every_batch: bool,
    pub(crate) store: Option<StateStore>,
    /// Bytes of the newest checkpoint's files.
    pub(crate) stored_bytes: u64,
    /// Counts recoveries: what an earlier one set going is no news.
    pub(crate) incarnation: u64,
    pub(crate) frozen: Option<(Frozen, Manifest)>,
    /// The digest of the last computed batch, by sink, until its commit was ordered.
    pub(crate) counts: Vec<u64>,
    pub(crate) machine: Machine,
    pub(crate) committer: Committer,
    pub(crate) computer: Worker<Compute>,
    pub(crate) writer: Worker<WriteJob>,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) outbox: Sender<Message>,
    pub(crate) status: Arc<Status>,
    /// Why the machine was told of a failure.
    pub(crate) failure: Option<Error>,
    pub(crate) computing_since: Instant,
    pub(crate) writing_since: Instant,
    pub(crate) stop_deadline: Option<Instant>,
    pub(crate) observer: Observer,
    pub(crate) bus: Arc<Bus>,
    pub(crate) totals: Totals,
    /// Why a source did not stop in a graceful stop.
    pub(crate) stop_failure: Option<Error>,
}

impl Driver {
    /// Runs until the context stops. The status tells how it ended.
    pub(crate) fn run(mut self) {
        let mut flow = self.begin();
        while flow.is_continue() {
            let message = self.wait();
            flow = self.step(message);
        }
        self.finish(flow.break_value().flatten());
    }

    /// The first step.
    pub(crate) fn begin(&mut self) -> Flow {
        self.go_live();
        self.handle(Event::Tick(self.now_ms()))
    }

    /// Every other step: the next message, or none when the time for something has come.
    pub(crate) fn step(&mut self, message: Option<Message>) -> Flow {
        if self.stop_deadline.is_some_and(|deadline| deadline <= self.runtime.now()) {
            return Flow::Break(Some(self.stop_took_too_long()));
        }
        let event = match message {
            Some(message) => self.take(message),
            None => Ok(Some(Event::Tick(self.now_ms()))),
        };
        match event {
            Ok(Some(event)) => self.handle(event),
            Ok(None) => Flow::Continue(()),
            Err(failure) => Flow::Break(failure),
        }
    }

    /// Has the machine's commands carried out, and those that follow from what comes of them.
    fn handle(&mut self, event: Event) -> Flow {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for command in self.machine.handle(event) {
                match command {
                    Command::Finish { failed } => {
                        let failure = self.failure.take().filter(|_| failed).or(self.stop_failure.take());
                        self.show();
                        return Flow::Break(failure);
                    }
                    command => events.extend(self.carry_out(command)),
                }
            }
        }
        self.show();
        Flow::Continue(())
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms() + self.clock_offset_ms
    }

    fn go_live(&mut self) {
        let planned = self.machine.planned.as_ms();
        self.clock_offset_ms = planned.saturating_sub(self.clock.now_ms());
        self.show();
        let (ready, now_ms) = (self.plans_are_numeric(), self.now_ms());
        self.observer.live(now_ms);
        // What an earlier process planned and did not commit.
        let committed = self.machine.committed;
        for plan in self.plans.iter().filter(|plan| plan.last > committed) {
            self.observer.submitted(plan, now_ms);
        }
        self.status.update(|shown| {
            shown.state = ContextState::Active;
            shown.ready = ready;
        });
    }

    /// Every source's positions are durable: a plan of each is in the log or in the checkpoint (H5).
    fn plans_are_numeric(&self) -> bool {
        self.positions.iter().all(Option::is_some)
    }

    /// Waits for the next message; `None` if the time for something has come before.
    fn wait(&self) -> Option<Message> {
        match self.due() {
            None => self.inbox.recv().ok(),
            Some(due) => self.inbox.recv_deadline(due).ok(),
        }
    }

    /// When there is something to do without a message: the next batch, or the end of a stop that takes too long.
    pub(crate) fn due(&self) -> Option<Instant> {
        let batch =
            self.machine.next_due_ms().and_then(|due| self.clock.until(due.saturating_sub(self.clock_offset_ms)));
        [batch.map(|wait| self.runtime.now() + wait), self.stop_deadline].into_iter().flatten().min()
    }

    fn stop_took_too_long(&mut self) -> Error {
        if let Some(error) = self.stop_failure.take() {
            return error;
        }
        let progress = self.machine.waiting_batches();
        let waiting: Vec<String> =
            self.sources.iter().filter(|s| s.has_waiting()).map(|s| format!("`{}`", s.name())).collect();
        let sources = if waiting.is_empty() {
            String::new()
        } else {
            format!(", sources with records left: {}", waiting.join(", "))
        };
        Error::new(
            ErrorKind::Stopped,
            format!(
                "the graceful stop took longer than {:?}: {progress} batches are planned and not committed{sources}. Nothing is \
                 lost: the next start recovers",
                self.settings.graceful_stop_timeout()
            ),
        )
    }

    /// A message as an event for the machine; `Err` ends the context at once.
    fn take(&mut self, message: Message) -> Result<Option<Event>, Option<Error>> {
        Ok(match message {
            Message::Wake => Some(Event::Tick(self.now_ms())),
            Message::StopGracefully => {
                let limit = self.settings.graceful_stop_timeout();
                let now = self.runtime.now();
                self.stop_deadline.get_or_insert(now + limit);
                Some(Event::StopGracefully)
            }
            Message::StopNow => return Err(None),
            Message::SourceFailed { source, error } => {
                return Err(Some(error.context(format!("source `{source}`"))));
            }
            Message::Died(thread) => return Err(Some(died(thread))),
            Message::Computed(incarnation, report) if incarnation == self.incarnation => self.computed(report),
            Message::Written(incarnation, written) if incarnation == self.incarnation => Some(self.written(written)),
            Message::Outcome(outcome) if outcome.incarnation == self.incarnation => Some(match outcome.result {
                Ok(()) => self.committed(outcome.batch),
                Err(error) => self.failed(None, 0, error),
            }),
            // Of an incarnation that was given up.
            Message::Computed(..) | Message::Written(..) | Message::Outcome(_) => None,
        })
    }

    /// Notes why, and tells the machine.
    pub(super) fn failed(&mut self, batch: Option<BatchTime>, attempts: u32, error: Error) -> Event {
        let hopeless = matches!(error.kind(), ErrorKind::Restore | ErrorKind::Stopped)
            || error.kind() == ErrorKind::Configuration
            || error.kind() == ErrorKind::Restart && batch.is_none();
        tracing::error!(%error, hopeless, "a batch or a part of the context failed");
        // The first of a row is the cause; what follows on the way to the end is not.
        self.failure = Some(error);
        Event::Failed(Failure { batch, attempts, hopeless })
    }

    fn show(&self) {
        let (snapshot, committed, planned) = (self.machine.snapshot, self.machine.committed, self.machine.planned);
        let state_bytes = self.store.as_ref().map_or(0, StateStore::memory_bytes);
        self.status.update(|shown| {
            shown.progress.snapshot = snapshot;
            shown.progress.committed = committed;
            shown.progress.planned = planned;
            shown.progress.state_bytes = state_bytes;
        });
        let progress = self.status.read().progress;
        meters::progress(&progress, self.machine.waiting_batches());
    }

    /// The end: threads, sinks, state and log are closed; sources are stopped last (case J13).
    pub(crate) fn finish(mut self, failure: Option<Error>) {
        let now_ms = self.now_ms();
        self.observer.stopped(failure.as_ref(), now_ms);
        let Driver {
            committer,
            computer,
            writer,
            log,
            status,
            mut sources,
            operators,
            store,
            frozen,
            directory,
            budget,
            inbox,
            observer,
            bus,
            ..
        } = self;
        budget.close();
        computer.close();
        writer.close();
        committer.close();
        // A report that nobody waits for any more may hold frozen state, and with it the database.
        drop(inbox);
        operators.iter().for_each(|operator| operator.close());
        drop((frozen, store));
        if let Err(error) = log.close() {
            tracing::warn!(%error, "the log could not be closed");
        }
        for (number, source) in sources.iter_mut().enumerate() {
            source.stop();
            observer.source(number).stopped();
        }
        bus.close();
        // The lock goes before anybody hears of the end: they may open the directory again at once.
        drop(directory);
        status.update(|shown| {
            shown.state = ContextState::Stopped;
            shown.failure = failure.map(|error| (error.kind(), error.to_string()));
        });
    }
}
