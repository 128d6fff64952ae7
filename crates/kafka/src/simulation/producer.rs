//! What librdkafka's transactional producer does with the model broker's answers: which it asks again, which it reports, and which
//! end the producer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millpond_core::Result;
use millpond_core::sink::Records;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::broker::{Identity, Record, Refusal, Request};
use super::cluster::{Cut, ModelCluster, records_of};
use crate::client::{Reports, Time};
use crate::sink::Partitioner;
use crate::sink::client::{CallError, Flags, GroupMetadata, Producer};

/// Between two tries of a request.
const REST: Duration = Duration::from_millis(5);
/// Records in one request.
const BATCH: usize = 4;

pub(super) struct ModelProducer {
    cluster: Arc<ModelCluster>,
    id: String,
    timeout: Duration,
    reports: Reports,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    identity: Option<Identity>,
    in_transaction: bool,
    /// Partitions in the transaction.
    added: BTreeSet<String>,
    has_offsets: bool,
    sequences: BTreeMap<String, i32>,
    queue: VecDeque<(String, Record)>,
    /// A request with records whose answer was lost: how many.
    unanswered: usize,
    fatal: Option<(Code, String)>,
    /// The transaction can only be aborted.
    to_abort: Option<Code>,
}

/// What a refusal means to a client.
enum Verdict {
    Again,
    Fatal(Code),
    Abort(Code),
}

fn verdict(refusal: Refusal) -> Verdict {
    match refusal {
        Refusal::ConcurrentTransactions | Refusal::NotCoordinator => Verdict::Again,
        Refusal::InvalidProducerEpoch => Verdict::Fatal(Code::Fenced),
        Refusal::InvalidProducerIdMapping => Verdict::Fatal(Code::InvalidProducerIdMapping),
        Refusal::InvalidTransactionState => Verdict::Fatal(Code::InvalidTransactionalState),
        Refusal::OutOfOrderSequence => Verdict::Fatal(Code::OutOfOrderSequenceNumber),
        Refusal::InvalidTransactionTimeout => Verdict::Fatal(Code::InvalidTransactionTimeout),
        Refusal::UnknownTopic => Verdict::Abort(Code::UnknownTopicOrPartition),
    }
}

fn error(code: Code, flags: Flags) -> CallError {
    CallError { flags: Some(flags), ..CallError::from(code) }
}

fn fatal(code: Code) -> CallError {
    error(code, Flags { fatal: true, ..Flags::default() })
}

fn timed_out() -> CallError {
    error(Code::OperationTimedOut, Flags { retriable: true, ..Flags::default() })
}

/// Misused: no flag.
fn misused() -> CallError {
    error(Code::State, Flags::default())
}

impl ModelProducer {
    pub(super) fn new(cluster: &Arc<ModelCluster>, id: &str, timeout: Duration, reports: Reports) -> Self {
        let (cluster, id) = (Arc::clone(cluster), id.to_owned());
        ModelProducer { cluster, id, timeout, reports, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_alive(&self) -> Result<Identity, CallError> {
        let state = self.lock();
        match (&state.fatal, state.identity) {
            (Some((code, _)), _) => Err(fatal(*code)),
            (None, Some(identity)) => Ok(identity),
            (None, None) => Err(misused()),
        }
    }

    fn check_transaction(&self) -> Result<Identity, CallError> {
        let identity = self.check_alive()?;
        if self.lock().in_transaction { Ok(identity) } else { Err(misused()) }
    }

    fn give_up(&self, code: Code, what: &str) -> CallError {
        self.lock().fatal.get_or_insert((code, format!("{what}: {code}")));
        fatal(code)
    }

    /// Sends a request until it is answered for good. A cut connection is made again without a word to the caller.
    fn again(&self, limit: Duration, request: impl Fn() -> Request) -> Result<Option<Identity>, CallError> {
        let deadline = self.cluster.now() + limit;
        loop {
            let request = request();
            let name = request.name();
            match self.cluster.request(request) {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(refusal)) => match verdict(refusal) {
                    Verdict::Again => {}
                    Verdict::Fatal(code) => return Err(self.give_up(code, name)),
                    Verdict::Abort(code) => {
                        self.lock().to_abort = Some(code);
                        return Err(error(code, Flags { requires_abort: true, ..Flags::default() }));
                    }
                },
                Err(Cut) => self.reports.set_indefinite(),
            }
            if self.cluster.now() >= deadline {
                return Err(timed_out());
            }
            self.cluster.sleep(REST);
        }
    }

    /// Sends the next records; false if that has to wait.
    fn send(&self) -> bool {
        let Ok(from) = self.check_alive() else { return false };
        let (topic, records, is_added, sequence) = {
            let state = self.lock();
            let Some((topic, _)) = state.queue.front() else { return false };
            let of_topic = state.queue.iter().take_while(|(other, _)| other == topic).take(BATCH);
            // What was sent once is sent again as it was.
            let count = if state.unanswered > 0 { state.unanswered } else { of_topic.clone().count() };
            let records: Vec<Record> = of_topic.take(count).map(|(_, record)| record.clone()).collect();
            let sequence = state.sequences.get(topic).copied().unwrap_or(0);
            (topic.clone(), records, state.added.contains(topic), sequence)
        };
        let (id, count) = (self.id.clone(), records.len());
        if !is_added {
            let outcome = self.cluster.request(Request::AddPartition { id, from, topic: topic.clone() });
            return self.take(outcome, "AddPartitionsToTxn", || {
                self.lock().added.insert(topic.clone());
            });
        }
        self.lock().unanswered = count;
        let produce = Request::Produce { id, from, topic: topic.clone(), sequence, records };
        let outcome = self.cluster.request(produce);
        self.take(outcome, "Produce", || {
            let mut state = self.lock();
            state.queue.drain(..count);
            state.unanswered = 0;
            state.sequences.insert(topic.clone(), sequence + count as i32);
        })
    }

    fn take(&self, outcome: Result<Result<Option<Identity>, Refusal>, Cut>, what: &str, done: impl FnOnce()) -> bool {
        match outcome {
            Ok(Ok(_)) => {
                done();
                return true;
            }
            Ok(Err(refusal)) => match verdict(refusal) {
                Verdict::Again => {}
                Verdict::Fatal(code) => drop(self.give_up(code, what)),
                Verdict::Abort(code) => self.lock().to_abort = Some(code),
            },
            Err(Cut) => self.reports.set_indefinite(),
        }
        false
    }

    /// Ends the transaction, if the broker knows of one.
    fn end(&self, commit: bool, limit: Duration) -> Result<(), CallError> {
        let from = self.check_transaction()?;
        let is_known = {
            let state = self.lock();
            !state.added.is_empty() || state.has_offsets
        };
        if is_known {
            let request = || Request::EndTransaction { id: self.id.clone(), from, commit };
            if let Some(raised) = self.again(limit, request)? {
                let mut state = self.lock();
                state.identity = Some(raised);
                state.sequences.clear();
            }
        }
        let mut state = self.lock();
        state.added.clear();
        (state.in_transaction, state.has_offsets, state.to_abort) = (false, false, None);
        Ok(())
    }
}

impl Producer for ModelProducer {
    fn wait_for_cluster(&self, _: &str, limit: Duration) -> Result<String> {
        super::reader::wait_for_cluster(&self.cluster, limit)
    }

    fn add_topic(&mut self, _: &str, _: Partitioner) -> Result<(), CallError> {
        Ok(())
    }

    fn init_transactions(&self, limit: Duration) -> Result<(), CallError> {
        if let Some((code, _)) = &self.lock().fatal {
            return Err(fatal(*code));
        }
        let request = || Request::InitProducerId { id: self.id.clone(), timeout: self.timeout };
        let identity = self.again(limit, request)?;
        let mut state = self.lock();
        state.identity = identity;
        state.sequences.clear();
        Ok(())
    }

    fn begin_transaction(&self) -> Result<(), CallError> {
        self.check_alive()?;
        match std::mem::replace(&mut self.lock().in_transaction, true) {
            true => Err(misused()),
            false => Ok(()),
        }
    }

    fn produce(&self, topic: &str, records: &Records, from: usize) -> (usize, Option<Code>) {
        match self.check_transaction() {
            Err(error) if error.flags.is_some_and(|flags| flags.fatal) => return (0, Some(Code::Fatal)),
            Err(_) => return (0, Some(Code::State)),
            Ok(_) => {}
        }
        let records = records_of(records, from);
        let count = records.len();
        self.lock().queue.extend(records.into_iter().map(|record| (topic.to_owned(), record)));
        (count, None)
    }

    fn in_flight(&self) -> usize {
        self.lock().queue.len()
    }

    fn send_offsets(
        &self,
        offsets: &[(&str, i32, i64)],
        group: &GroupMetadata,
        limit: Duration,
    ) -> Result<(), CallError> {
        let from = self.check_transaction()?;
        let GroupMetadata::Named(group) = group else { return Err(misused()) };
        let offsets: Vec<_> =
            offsets.iter().map(|(topic, partition, offset)| ((*topic).to_owned(), *partition, *offset)).collect();
        let request = || {
            let (id, group, offsets) = (self.id.clone(), group.clone(), offsets.clone());
            Request::CommitOffsets { id, from, group, offsets }
        };
        self.again(limit, request)?;
        self.lock().has_offsets = true;
        Ok(())
    }

    fn commit_transaction(&self, limit: Duration) -> Result<(), CallError> {
        self.check_transaction()?;
        let deadline = self.cluster.now() + limit;
        while self.in_flight() > 0 && self.lock().to_abort.is_none() {
            self.check_alive()?;
            if self.cluster.now() >= deadline {
                return Err(CallError { is_flush: true, ..timed_out() });
            }
            if !self.send() {
                self.cluster.sleep(REST);
            }
        }
        if let Some(code) = self.lock().to_abort {
            return Err(error(code, Flags { requires_abort: true, ..Flags::default() }));
        }
        self.end(true, limit)
    }

    fn abort_transaction(&self, limit: Duration) -> Result<(), CallError> {
        self.check_transaction()?;
        {
            let mut state = self.lock();
            if state.unanswered > 0
                && let Some((topic, _)) = state.queue.front().cloned()
            {
                // librdkafka goes on with the next sequence number, whether the broker has these records or not.
                let unanswered = state.unanswered as i32;
                *state.sequences.entry(topic).or_default() += unanswered;
                state.unanswered = 0;
            }
            state.queue.clear();
        }
        self.end(false, limit)
    }

    fn fatal_error(&self) -> Option<(Code, String)> {
        self.lock().fatal.clone()
    }

    fn serve(&self) {
        while self.send() {}
        let mut state = self.lock();
        if let Some(code) = state.to_abort {
            // The transaction's records are given up.
            if let Some((topic, _)) = state.queue.front() {
                self.reports.set_undelivered(topic, code);
            }
            state.queue.clear();
        }
    }
}
