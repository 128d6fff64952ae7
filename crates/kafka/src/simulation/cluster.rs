//! The way to the model broker: requests that are delivered, lost, answered in vain, late or double; a broker that is away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millpond_core::Result;
use millpond_core::sink::{Cursor, Records};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::broker::{Broker, Generation, Identity, Record, Refusal, Request};
use super::producer::ModelProducer;
use super::reader::ModelReader;
use crate::client::{Reports, Time};
use crate::settings::Settings;
use crate::sink::KafkaSink;
use crate::sink::client::{CallError, Cluster, CursorReader, Producer};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is handled and answered.
    Answered,
    /// It never arrives: the connection was cut.
    Lost,
    /// It is handled, and the connection cut before the answer.
    AnswerLost,
    /// The client hears of a cut connection; the request arrives some time later.
    Late,
    /// It is answered, and arrives once more some time later.
    Twice,
    /// The coordinator is moving: ask again.
    Refused,
}

/// Who rules time and chance around a model cluster.
pub trait Fates: Send + Sync + 'static {
    /// The time, which never goes back.
    fn now(&self) -> Instant;
    /// Waits.
    fn sleep(&self, time: Duration);
    /// A random number below `limit`.
    fn below(&self, limit: u64) -> u64;
    /// What becomes of a request.
    fn fate(&self, request: &str) -> Fate;
    /// Hears what happened.
    fn note(&self, what: String);
}

/// A cluster of one model broker. It outlives its clients.
pub struct ModelCluster {
    fates: Box<dyn Fates>,
    state: Mutex<State>,
    /// The longest time a marker takes to a partition, in µs.
    marker_delay_us: u64,
}

struct State {
    broker: Broker,
    /// Requests on their way.
    late: Vec<Request>,
}

/// The connection was cut: what has become of the request, nobody knows.
pub(super) struct Cut;

impl ModelCluster {
    /// A cluster without topics. `marker_delay`: the longest time that a transaction's marker takes to a partition.
    pub fn new(fates: Box<dyn Fates>, generation: Generation, marker_delay: Duration) -> Arc<Self> {
        let state = State { broker: Broker::new(generation), late: Vec::new() };
        let marker_delay_us = marker_delay.as_micros() as u64;
        Arc::new(ModelCluster { fates, state: Mutex::new(state), marker_delay_us })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A topic of one partition.
    pub fn create_topic(&self, topic: &str) {
        self.lock().broker.create_topic(topic);
    }

    /// A sink that writes to a topic of this cluster.
    pub fn sink(self: &Arc<Self>, topic: &str) -> KafkaSink {
        KafkaSink::to("model:9092", topic).on(self.clone())
    }

    /// What is committed in a topic: the number of the transaction, key and value, in the order of the partition.
    #[allow(clippy::type_complexity, reason = "a record is a key and a value")]
    pub fn committed(&self, topic: &str) -> Vec<(u64, (Option<Vec<u8>>, Option<Vec<u8>>))> {
        self.lock().broker.committed(topic)
    }

    /// The cursors committed to a topic, by transaction and sink.
    pub fn cursors(&self, topic: &str) -> Vec<(u64, String, Cursor)> {
        let cursor = |(number, (key, value)): (u64, Record)| {
            let sink = String::from_utf8_lossy(&key.unwrap_or_default()).into_owned();
            Some((number, sink, Cursor::decode(&value?).ok()?))
        };
        self.committed(topic).into_iter().filter_map(cursor).collect()
    }

    /// The committed offset of a group.
    pub fn offset(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        self.lock().broker.offset(group, topic, partition)
    }

    /// Transactional ids with a transaction that has not ended.
    pub fn open_transactions(&self) -> Vec<String> {
        self.advance();
        self.lock().broker.open()
    }

    /// How many transactions have been decided.
    pub fn decided(&self) -> usize {
        self.lock().broker.decided()
    }

    /// Requests on their way.
    pub fn late_requests(&self) -> usize {
        self.lock().late.len()
    }

    /// One of the requests on their way arrives, which nobody waits for any more.
    pub fn deliver_late(&self) {
        let late = self.late_requests() as u64;
        if late == 0 {
            return;
        }
        let request = self.lock().late.swap_remove(self.fates.below(late) as usize);
        let outcome = self.handle(&request);
        self.fates.note(format!("a late {} arrives: {outcome:?}", request.name()));
    }

    fn handle(&self, request: &Request) -> Result<Option<Identity>, Refusal> {
        let mut delay = || Duration::from_micros(self.fates.below(self.marker_delay_us + 1));
        self.lock().broker.handle(request, self.fates.now(), &mut delay)
    }

    fn advance(&self) {
        let mut delay = || Duration::from_micros(self.fates.below(self.marker_delay_us + 1));
        self.lock().broker.advance(self.fates.now(), &mut delay);
    }

    /// Sends a request of a client.
    pub(super) fn request(&self, request: Request) -> Result<Result<Option<Identity>, Refusal>, Cut> {
        let name = request.name();
        let fate = self.fates.fate(name);
        let answer = match fate {
            Fate::Answered => Ok(self.handle(&request)),
            Fate::Lost => Err(Cut),
            Fate::AnswerLost => {
                let _ = self.handle(&request);
                Err(Cut)
            }
            Fate::Late => {
                self.lock().late.push(request);
                Err(Cut)
            }
            Fate::Twice => {
                let answer = self.handle(&request);
                self.lock().late.push(request);
                Ok(answer)
            }
            Fate::Refused => Ok(Err(Refusal::NotCoordinator)),
        };
        self.fates.note(match &answer {
            Ok(answer) => {
                format!("{name}: {answer:?}{}", if fate == Fate::Twice { ", and once more later" } else { "" })
            }
            Err(Cut) => format!("{name}: cut off ({fate:?})"),
        });
        answer
    }

    /// Asks the broker something that changes nothing.
    pub(super) fn ask<R>(&self, what: &str, question: impl FnOnce(&mut Broker) -> R) -> Result<R, CallError> {
        let fate = self.fates.fate(what);
        self.advance();
        let mut state = self.lock();
        match fate {
            Fate::Answered | Fate::Twice => Ok(question(&mut state.broker)),
            _ => Err(Code::BrokerTransportFailure.into()),
        }
    }
}

impl Time for ModelCluster {
    fn now(&self) -> Instant {
        self.fates.now()
    }

    fn sleep(&self, time: Duration) {
        self.fates.sleep(time);
    }
}

/// A cluster as its clients hold it.
impl Time for Arc<ModelCluster> {
    fn now(&self) -> Instant {
        self.fates.now()
    }

    fn sleep(&self, time: Duration) {
        self.fates.sleep(time);
    }
}

impl Cluster for Arc<ModelCluster> {
    fn producer(&self, _: &str, id: &str, settings: &Settings, reports: &Reports) -> Result<Box<dyn Producer>> {
        let timeout = settings.get("transaction.timeout.ms").and_then(|ms| ms.parse().ok()).unwrap_or(60_000);
        let timeout = Duration::from_millis(timeout);
        Ok(Box::new(ModelProducer::new(self, id, timeout, reports.clone())))
    }

    fn reader(&self, _: &str, topic: &str, group: &str, _: &Settings) -> Result<Box<dyn CursorReader>> {
        Ok(Box::new(ModelReader::new(self, topic, group)))
    }

    fn write_outside(&self, _: &str, topic: &str, records: &Records) -> Result<(), CallError> {
        self.lock().broker.append(topic, records_of(records, 0));
        Ok(())
    }
}

/// The records from one on.
pub(super) fn records_of(records: &Records, from: usize) -> Vec<Record> {
    let record = |record: millpond_core::sink::RecordView<'_>| {
        (record.key().map(<[u8]>::to_vec), record.value().map(<[u8]>::to_vec))
    };
    records.iter().skip(from).map(record).collect()
}
