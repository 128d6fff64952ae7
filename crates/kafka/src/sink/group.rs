//! All Kafka sinks of a context on one cluster: one producer, one transaction.
//!
//! A transaction goes begin (each sink of the batch), write, prepare (each), commit (the first that is told commits for all).
//! The sink that begins first puts the sources' offsets into the transaction; the one that prepares last waits for the output
//! and puts in the cursors, the last thing of all.
//!
//! What has become of a transaction, only the cursor says. So after any failure that is not plainly the transaction's alone the
//! producer is dropped, and nothing begins before [`Group::fence`] has made a new one and read the cursors.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::client::Cluster;
use super::cursors::Cursors;
use super::partitioner::Partitioner;
use super::producer::{Failure, Outcome, TransactionalProducer};
use crate::controls;
use crate::position::decode_all;
use crate::settings::Settings;
use millpond_core::sink::{Cursor, Records, SourcePositions};
use millpond_core::{BatchTime, Error, ErrorKind, Result};

/// So many times in a row fenced, without a commit between: it is somebody else, not our own past.
const FENCED_TOO_OFTEN: u32 = 2;

/// The sinks of one cluster.
pub(crate) struct Group {
    pub(super) clients: Arc<dyn Cluster>,
    pub(super) cluster_id: String,
    pub(super) cluster: u64,
    pub(super) transactional_id: String,
    pub(super) offsets_group: String,
    pub(super) brokers: String,
    pub(super) wait_for_broker: Duration,
    pub(super) cursors: Cursors,
    pub(super) state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) names: BTreeSet<String>,
    pub(super) topics: BTreeMap<String, Partitioner>,
    pub(super) settings: Settings,
    pub(super) producer: Option<TransactionalProducer>,
    /// Counts the producers that went through a fence.
    generation: u64,
    transaction: Transaction,
    /// The cursors as the last fence found them, and as they were committed since.
    committed: HashMap<String, Cursor>,
    /// Cursors that were read without fencing, for the sinks that have not asked yet.
    peeked: HashMap<String, Option<Cursor>>,
    fenced_in_a_row: u32,
    /// Offsets that this producer has committed: only what changed is sent again.
    offsets: HashMap<(String, i32), i64>,
}

#[derive(Default)]
enum Transaction {
    /// None: everything before is decided and known.
    #[default]
    None,
    Open(Open),
    /// All is in it; only the commit is missing.
    Prepared(Open),
    /// Committed; these sinks have not asked for it yet.
    Committed(BatchTime, BTreeSet<String>),
    /// What became of the last one, only the cursor says.
    Unknown,
}

struct Open {
    batch: BatchTime,
    sinks: BTreeSet<String>,
    cursors: BTreeMap<String, Cursor>,
    offsets: HashMap<(String, i32), i64>,
}

impl Group {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    pub(crate) fn transactional_id(&self) -> &str {
        &self.transactional_id
    }

    /// The newest committed cursor of a sink, without shutting out anybody.
    pub(crate) fn peek(&self, sink: &str) -> Result<Option<Cursor>> {
        // All sinks ask one after another: one reading serves them.
        if let Some(cursor) = self.state().peeked.remove(sink) {
            return Ok(cursor);
        }
        let mut cursors = self.cursors.peek()?;
        let mut state = self.state();
        let cursor = cursors.remove(sink);
        state.peeked = state.names.iter().map(|name| (name.clone(), cursors.remove(name))).collect();
        state.peeked.remove(sink);
        Ok(cursor)
    }

    /// Shuts out every earlier producer of this and of the old ids, and reads the cursor, which is final now. `seen` is the
    /// generation that the sink got at its last fence.
    pub(crate) fn fence(&self, sink: &str, seen: u64, old_ids: &[String]) -> Result<(u64, Option<Cursor>)> {
        let mut state = self.state();
        state.peeked.clear();
        let is_new = state.producer.is_some()
            && state.generation > seen
            && matches!(state.transaction, Transaction::None | Transaction::Committed(..));
        if !is_new {
            self.replace_producer(&mut state)?;
            state.generation += 1;
        }
        for id in old_ids {
            self.shut_out(&state.settings, id)?;
        }
        fail::fail_point!(crate::failpoint::SINK_FENCED);
        if !is_new {
            // What the return codes said of the process's own commits, in place of what is committed.
            let believed = (controls::broken("break-commit-code-trusted") || controls::broken("break-expired-ignored"))
                && !state.committed.is_empty();
            if !believed {
                state.committed = self.cursors.read_all()?;
            }
            state.transaction = Transaction::None;
        }
        Ok((state.generation, state.committed.get(sink).cloned()))
    }

    /// Makes a new producer: when it is there, no request of an older one counts any more, and every transaction is decided.
    fn replace_producer(&self, state: &mut State) -> Result<()> {
        state.producer = None;
        state.transaction = Transaction::Unknown;
        state.offsets.clear();
        self.cursors.create()?;
        let mut id = self.transactional_id.clone();
        if controls::broken("break-fence-skipped") {
            id += &format!("-{}", std::process::id());
        }
        let mut producer = TransactionalProducer::new(&self.clients, &self.brokers, &id, &state.settings)?;
        for (topic, partitioner) in &state.topics {
            producer.add_topic(topic, *partitioner)?;
        }
        producer.add_topic(self.cursors.topic(), Partitioner::Murmur2)?;
        producer.init(self.wait_for_broker).map_err(|failure| self.lose(state, failure))?;
        state.producer = Some(producer);
        Ok(())
    }

    /// Shuts out the producers of an id that was used before.
    fn shut_out(&self, settings: &Settings, id: &str) -> Result<()> {
        let mut producer = TransactionalProducer::new(&self.clients, &self.brokers, id, settings)?;
        producer.init(self.wait_for_broker).map_err(|failure| match failure {
            Failure::Abort(error) | Failure::Producer { error, .. } => error,
        })
    }

    pub(crate) fn begin(&self, sink: &str, batch: BatchTime, positions: &[SourcePositions]) -> Result<()> {
        let mut state = self.state();
        match std::mem::take(&mut state.transaction) {
            Transaction::Unknown => {
                state.transaction = Transaction::Unknown;
                return Err(undecided());
            }
            Transaction::Open(mut open) | Transaction::Prepared(mut open) if open.batch == batch => {
                open.sinks.insert(sink.to_owned());
                state.transaction = Transaction::Open(open);
                return Ok(());
            }
            Transaction::Open(open) | Transaction::Prepared(open) => {
                let what = format!("batch {batch} cannot begin: the transaction of batch {} is open", open.batch);
                state.transaction = Transaction::Open(open);
                return Err(Error::new(ErrorKind::Program, what));
            }
            Transaction::None | Transaction::Committed(..) => {}
        }
        self.renew_if_doubtful(&mut state)?;
        let Some(producer) = &mut state.producer else {
            state.transaction = Transaction::Unknown;
            return Err(undecided());
        };
        let begun = producer.begin();
        self.decide(&mut state, begun)?;
        fail::fail_point!(crate::failpoint::TRANSACTION_BEGUN);
        let offsets = self.changed_offsets(positions, &state.offsets);
        let sent = self.send_offsets(&mut state, &offsets);
        state.transaction = Transaction::Open(Open {
            batch,
            sinks: BTreeSet::from([sink.to_owned()]),
            cursors: BTreeMap::new(),
            offsets,
        });
        self.decide(&mut state, sent)?;
        fail::fail_point!(crate::failpoint::OFFSETS_SENT);
        Ok(())
    }

    /// Puts the offsets into the transaction, before any output: librdkafka asks for their partition again every
    /// `retry.backoff.ms` while the markers of the transaction before are being written, for those of output every 20 ms.
    fn send_offsets(&self, state: &mut State, offsets: &HashMap<(String, i32), i64>) -> Outcome<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let mut list: Vec<(&str, i32, i64)> =
            offsets.iter().map(|((topic, partition), offset)| (&**topic, *partition, *offset)).collect();
        list.sort_unstable();
        let group = self.cursors.group().ok_or_else(lost_producer)?;
        let Some(producer) = &mut state.producer else { return Err(lost_producer()) };
        producer.send_offsets(&list, &group)
    }

    /// The defence for version 1 of the protocol: a request of the last transaction that may still be on its way could be
    /// taken for one of the next. A new producer shuts it out.
    fn renew_if_doubtful(&self, state: &mut State) -> Result<()> {
        let goes_on = |producer: &TransactionalProducer| {
            !producer.is_doubtful() || controls::broken("break-producer-not-renewed")
        };
        if state.producer.as_ref().is_some_and(goes_on) {
            return Ok(());
        }
        tracing::info!(id = self.transactional_id, "the connection was disturbed: a new producer takes over");
        let committed = std::mem::take(&mut state.committed);
        self.replace_producer(state)?;
        let found = self.cursors.read_all()?;
        // What was believed committed must be what is there.
        let differs = committed.iter().find(|(sink, cursor)| found.get(*sink) != Some(cursor));
        if let Some((sink, cursor)) = differs {
            let what =
                format!("the cursor of sink `{sink}` is not that of batch {}, which was committed last", cursor.batch);
            return Err(Error::new(ErrorKind::Retry, what));
        }
        state.committed = found;
        state.transaction = Transaction::None;
        Ok(())
    }

    pub(crate) fn write(&self, topic: &str, records: &Records) -> Result<()> {
        let mut state = self.state();
        if !matches!(state.transaction, Transaction::Open(_)) {
            return Err(match state.transaction {
                Transaction::Unknown => undecided(),
                _ => Error::new(ErrorKind::Program, "output without a batch that was begun"),
            });
        }
        let Some(producer) = &mut state.producer else { return Err(undecided()) };
        let produced = producer.produce(topic, records);
        self.decide(&mut state, produced)
    }

    pub(crate) fn prepare(&self, sink: &str, cursor: &Cursor) -> Result<()> {
        let mut state = self.state();
        let mut open = match std::mem::take(&mut state.transaction) {
            Transaction::Open(open) => open,
            Transaction::Unknown => {
                state.transaction = Transaction::Unknown;
                return Err(undecided());
            }
            other => {
                state.transaction = other;
                return Err(Error::new(ErrorKind::Program, "a batch that was not begun cannot be prepared"));
            }
        };
        open.cursors.insert(sink.to_owned(), cursor.clone());
        if open.sinks.iter().any(|sink| !open.cursors.contains_key(sink)) {
            state.transaction = Transaction::Open(open);
            return Ok(());
        }
        let prepared = self.complete(&mut state, &open);
        state.transaction = Transaction::Prepared(open);
        self.decide(&mut state, prepared)
    }

    /// Everything that is left to do before the commit.
    fn complete(&self, state: &mut State, open: &Open) -> Outcome<()> {
        let Some(producer) = &mut state.producer else { return Err(lost_producer()) };
        producer.drain()?;
        fail::fail_point!(crate::failpoint::OUTPUT_WRITTEN);
        let mut records = Records::new();
        for (sink, cursor) in &open.cursors {
            records.push(Some(sink.as_bytes()), Some(&cursor.encode()));
        }
        if controls::broken("break-cursor-outside-transaction") {
            return self.write_cursor_outside(&records);
        }
        // Last, so that a batch of which only a part is committed can be told by the number of records in its cursor.
        producer.produce(self.cursors.topic(), &records)?;
        producer.drain()
    }

    /// The offsets of this cluster's sources that this producer has not committed yet. They may move backward while a sink
    /// catches up: they are for monitoring only.
    fn changed_offsets(
        &self,
        positions: &[SourcePositions],
        sent: &HashMap<(String, i32), i64>,
    ) -> HashMap<(String, i32), i64> {
        let mut changed = HashMap::new();
        for source in positions.iter().filter(|source| source.kind == "kafka") {
            // Positions that do not decode are the source's own error, told where it reads them.
            for (topic, partition, position) in decode_all(&source.positions).unwrap_or_default() {
                let place = (topic, partition);
                if position.cluster == self.cluster && sent.get(&place) != Some(&position.next) {
                    changed.insert(place, position.next);
                }
            }
        }
        changed
    }

    pub(crate) fn commit(&self, sink: &str) -> Result<()> {
        let mut state = self.state();
        let open = match std::mem::take(&mut state.transaction) {
            Transaction::Prepared(open) => open,
            // Another sink of the group was told first.
            Transaction::Committed(batch, mut left) => {
                let found = left.remove(sink);
                state.transaction = Transaction::Committed(batch, left);
                return if found { Ok(()) } else { Err(not_prepared()) };
            }
            Transaction::Unknown => {
                state.transaction = Transaction::Unknown;
                return Err(undecided());
            }
            other => {
                state.transaction = other;
                return Err(not_prepared());
            }
        };
        fail::fail_point!(crate::failpoint::BEFORE_COMMIT);
        let committed = match &mut state.producer {
            Some(producer) => producer.commit(),
            None => Err(lost_producer()),
        };
        let committed = match committed {
            Err(Failure::Producer { error, .. }) if controls::broken("break-expired-ignored") => {
                tracing::error!(%error, "ignored");
                Ok(())
            }
            committed => committed,
        };
        match committed {
            Ok(()) => {
                fail::fail_point!(crate::failpoint::AFTER_COMMIT);
                state.fenced_in_a_row = 0;
                let mut left = open.sinks;
                left.remove(sink);
                state.transaction = Transaction::Committed(open.batch, left);
                state.committed.extend(open.cursors);
                state.offsets.extend(open.offsets);
                Ok(())
            }
            failed => {
                state.transaction = Transaction::Prepared(open);
                self.decide(&mut state, failed)
            }
        }
    }

    pub(crate) fn abort(&self, sink: &str) -> Result<()> {
        let mut state = self.state();
        match std::mem::take(&mut state.transaction) {
            Transaction::None => Ok(()),
            Transaction::Unknown => {
                // The next fence settles it.
                state.transaction = Transaction::Unknown;
                Ok(())
            }
            Transaction::Committed(batch, left) if left.contains(sink) => {
                state.transaction = Transaction::Committed(batch, left);
                Err(Error::new(ErrorKind::Restart, format!("batch {batch} cannot be aborted: it is committed")))
            }
            Transaction::Committed(batch, left) => {
                state.transaction = Transaction::Committed(batch, left);
                Ok(())
            }
            Transaction::Open(open) | Transaction::Prepared(open) => {
                let aborted = match &mut state.producer {
                    Some(producer) => producer.abort(),
                    None => Err(lost_producer()),
                };
                match aborted {
                    Ok(()) => Ok(()),
                    Err(Failure::Abort(error) | Failure::Producer { error, .. }) => {
                        // A commit was never asked for: a new producer aborts it before anything begins.
                        tracing::warn!(id = self.transactional_id, "batch {}: {error}", open.batch);
                        state.producer = None;
                        Ok(())
                    }
                }
            }
        }
    }

    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.producer = None;
        state.transaction = Transaction::Unknown;
    }

    /// Does what a failure demands, and gives the error for the engine.
    fn decide(&self, state: &mut State, outcome: Outcome<()>) -> Result<()> {
        match outcome {
            Ok(()) => Ok(()),
            Err(Failure::Abort(error)) => {
                let aborted = match &mut state.producer {
                    Some(producer) => producer.abort(),
                    None => Err(lost_producer()),
                };
                state.transaction = Transaction::None;
                if let Err(Failure::Abort(why) | Failure::Producer { error: why, .. }) = aborted {
                    // Whatever became of a commit that was on its way, the next fence finds out.
                    tracing::warn!(id = self.transactional_id, "a new producer is wanted: {why}");
                    state.producer = None;
                    state.transaction = Transaction::Unknown;
                }
                Err(error)
            }
            Err(failure) => Err(self.lose(state, failure)),
        }
    }

    /// Drops the producer after a failure of its own.
    fn lose(&self, state: &mut State, failure: Failure) -> Error {
        state.producer = None;
        state.transaction = Transaction::Unknown;
        let (error, fenced) = match failure {
            Failure::Producer { error, fenced } => (error, fenced),
            Failure::Abort(error) => (error, false),
        };
        if !fenced {
            // Kind Retry even for a fatal error of the producer: a new one is made.
            return match error.kind() {
                ErrorKind::Configuration => error,
                _ => Error::new(ErrorKind::Retry, "the producer is given up").with_source(error),
            };
        }
        state.fenced_in_a_row += 1;
        if state.fenced_in_a_row < FENCED_TOO_OFTEN {
            let what = "the producer was shut out: its transaction took too long, or another process has begun";
            return Error::new(ErrorKind::Retry, what).with_source(error);
        }
        state.fenced_in_a_row = 0;
        let what = format!(
            "another process runs with the transactional id `{}`: it has shut this one out {FENCED_TOO_OFTEN} times in a row. \
             Stop it, or give one of the two another application name or transactional_id()",
            self.transactional_id
        );
        Error::new(ErrorKind::Restore, what).with_source(error)
    }

    /// The negative control: what must never be.
    fn write_cursor_outside(&self, records: &Records) -> Outcome<()> {
        let written = self.clients.write_outside(&self.brokers, self.cursors.topic(), records);
        written.map_err(|error| Failure::Abort(crate::error::failed("negative control", error)))
    }
}

fn undecided() -> Error {
    Error::new(ErrorKind::Retry, "what became of the last transaction is not known: recover, and let the cursor decide")
}

fn not_prepared() -> Error {
    Error::new(ErrorKind::Program, "a batch that was not prepared cannot be committed")
}

fn lost_producer() -> Failure {
    Failure::Producer { error: Error::new(ErrorKind::Retry, "there is no producer"), fenced: false }
}
