//! One transactional producer: the calls of a transaction, bounded, with librdkafka's errors sorted by what they demand.
//!
//! The classes and the traps are those of reference/kafka-transactions: retriable calls are made again within the
//! transaction's time; what is in flight is waited for before a commit, which would advance in steps of 100 ms otherwise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_core::sink::Records;
use millpond_core::{Error, ErrorKind, Result};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::client::{CallError, Cluster, GroupMetadata, Producer};
use super::partitioner::Partitioner;
use crate::client::{Reports, Undelivered};
use crate::error::kind_of;
use crate::settings::Settings;

/// What librdkafka takes if nothing else is set; at most so long may a batch take from its first record to its commit.
const DEFAULT_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_SOCKET_TIMEOUT: Duration = Duration::from_secs(60);
/// One try of a call that may be made again.
const TRY: Duration = Duration::from_secs(2);
/// The longest rest while waiting for acknowledgements; the first ones are shorter.
const REST: Duration = Duration::from_millis(1);

/// Why a call failed, by what has to be done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The transaction has to be aborted; the producer is as good as before.
    Abort(Error),
    /// The producer is of no use any more; what became of the transaction, the cursor says.
    Producer { error: Error, fenced: bool },
}

pub(crate) type Outcome<T> = Result<T, Failure>;

/// What librdkafka's flags and codes demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Again,
    Abort,
    Fenced,
    Fatal,
}

fn class(error: &CallError) -> Class {
    match error.flags {
        // Carries no flags: what is in flight was not acknowledged in time.
        _ if error.is_flush => Class::Again,
        None => Class::Fatal,
        Some(_) if error.code.is_some_and(is_fence) => Class::Fenced,
        Some(flags) if flags.fatal => Class::Fatal,
        Some(flags) if flags.retriable => Class::Again,
        Some(flags) if flags.requires_abort => Class::Abort,
        Some(_) => Class::Fatal,
    }
}

fn is_fence(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

pub(crate) struct TransactionalProducer {
    cluster: Arc<dyn Cluster>,
    client: Box<dyn Producer>,
    reports: Reports,
    brokers: String,
    id: String,
    transaction_timeout: Duration,
    socket_timeout: Duration,
    /// A call was made again, or took longer than a request may: its first try may still be on the way.
    doubtful: bool,
}

impl TransactionalProducer {
    /// Makes a producer. Nothing is connected yet, nobody fenced.
    pub(crate) fn new(cluster: &Arc<dyn Cluster>, brokers: &str, id: &str, settings: &Settings) -> Result<Self> {
        let reports = Reports::new(format!("transactional id `{id}`"));
        let client = cluster.producer(brokers, id, settings, &reports)?;
        let ms = |key: &str, default: Duration| {
            settings.get(key).and_then(|ms| ms.parse().ok()).map_or(default, Duration::from_millis)
        };
        Ok(TransactionalProducer {
            cluster: Arc::clone(cluster),
            client,
            reports,
            brokers: brokers.to_owned(),
            id: id.to_owned(),
            transaction_timeout: ms("transaction.timeout.ms", DEFAULT_TRANSACTION_TIMEOUT),
            socket_timeout: ms("socket.timeout.ms", DEFAULT_SOCKET_TIMEOUT),
            doubtful: false,
        })
    }

    pub(crate) fn add_topic(&mut self, topic: &str, partitioner: Partitioner) -> Result<()> {
        self.client
            .add_topic(topic, partitioner)
            .map_err(|error| crate::error::failed(format!("cannot write to topic {topic}"), error))
    }

    /// Whether something happened after which a request of this producer may still be on its way, to be taken for one of the
    /// next transaction: a producer that replaces it shuts such requests out.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful || self.reports.is_indefinite()
    }

    fn now(&self) -> Instant {
        self.cluster.now()
    }

    /// Shuts out every older producer of this id, and waits until its last transaction is settled.
    pub(crate) fn init(&mut self, limit: Duration) -> Outcome<()> {
        let deadline = self.now() + limit;
        // Beside a clear error for a broker that is away: once the brokers are known, the coordinator is found at once; else
        // the first question for it may go down with the connection it was asked on, and comes again half a second later.
        self.client
            .wait_for_cluster(&self.brokers, limit)
            .map_err(|error| Failure::Producer { error, fenced: false })?;
        loop {
            let left = deadline.saturating_duration_since(self.now());
            let result = self.client.init_transactions(left.clamp(Duration::from_millis(1), TRY));
            self.client.serve();
            match result {
                Ok(()) => {
                    self.reports.clear_indefinite();
                    return Ok(());
                }
                Err(error) if class(&error) == Class::Again && self.now() < deadline => {
                    // A retriable answer may come at once.
                    self.cluster.sleep(REST);
                }
                Err(error) => return Err(self.failure("cannot shut out earlier producers", error)),
            }
        }
    }

    pub(crate) fn begin(&mut self) -> Outcome<()> {
        // Begin can hang once the producer has failed for good (librdkafka #4420).
        self.check_alive()?;
        let _ = self.reports.take_undelivered();
        self.client.begin_transaction().map_err(|error| self.failure("cannot begin a transaction", error))
    }

    /// Hands records over to librdkafka, waiting for room in its queue.
    pub(crate) fn produce(&mut self, topic: &str, records: &Records) -> Outcome<()> {
        let deadline = self.now() + self.transaction_timeout;
        let mut done = 0;
        while done < records.len() {
            let (taken, error) = self.client.produce(topic, records, done);
            done += taken;
            self.client.serve();
            match error {
                None => {}
                Some(Code::QueueFull) => {
                    self.check_delivery()?;
                    if self.now() >= deadline {
                        return Err(Failure::Abort(self.too_slow("no room in the producer's queue")));
                    }
                    self.cluster.sleep(REST);
                }
                Some(code) => {
                    self.check_alive()?;
                    self.check_delivery()?;
                    let size = |record: millpond_core::sink::RecordView<'_>| {
                        record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len)
                    };
                    let bytes = records.iter().nth(done).map_or(0, size);
                    return Err(Failure::Abort(refused(&Undelivered { topic: topic.to_owned(), bytes, code })));
                }
            }
        }
        self.check_delivery()
    }

    /// Waits until every record is acknowledged.
    pub(crate) fn drain(&mut self) -> Outcome<()> {
        let deadline = self.now() + self.transaction_timeout;
        let mut rest = Duration::from_micros(50);
        loop {
            self.client.serve();
            self.check_delivery()?;
            if self.client.in_flight() == 0 {
                // A producer that was shut out throws its records away without a report of each.
                self.check_alive()?;
                return self.check_delivery();
            }
            self.check_alive()?;
            if self.now() >= deadline {
                return Err(Failure::Abort(self.too_slow("the broker has not acknowledged all records")));
            }
            self.cluster.sleep(rest);
            rest = (rest * 2).min(REST);
        }
    }

    /// Puts the offsets of sources into the transaction.
    pub(crate) fn send_offsets(&mut self, offsets: &[(&str, i32, i64)], group: &GroupMetadata) -> Outcome<()> {
        self.again("cannot put offsets into the transaction", |client, left| client.send_offsets(offsets, group, left))
    }

    pub(crate) fn commit(&mut self) -> Outcome<()> {
        let started = self.now();
        let timeout = self.transaction_timeout;
        // No short timeout: after it only commit again is allowed.
        let result = self.again("cannot commit", |client, _| client.commit_transaction(timeout));
        if self.now() - started >= self.socket_timeout {
            self.doubtful = true;
        }
        self.client.serve();
        result
    }

    pub(crate) fn abort(&mut self) -> Outcome<()> {
        let timeout = self.transaction_timeout;
        let deadline = self.now() + timeout;
        let result = loop {
            match self.client.abort_transaction(timeout) {
                Err(error) if class(&error) == Class::Again && self.now() < deadline => self.cluster.sleep(REST),
                result => break result,
            }
        };
        let _ = self.reports.take_undelivered();
        result.map_err(|error| match self.failure("cannot abort", error) {
            Failure::Abort(error) => Failure::Producer { error, fenced: false },
            failure => failure,
        })
    }

    /// Makes a call until it succeeds, fails for good, or the transaction's time is over.
    fn again(&mut self, what: &str, call: impl Fn(&dyn Producer, Duration) -> Result<(), CallError>) -> Outcome<()> {
        let deadline = self.now() + self.transaction_timeout;
        loop {
            let left = deadline.saturating_duration_since(self.now());
            let result = call(&*self.client, left.max(Duration::from_millis(1)));
            self.client.serve();
            match result {
                Ok(()) => return Ok(()),
                Err(error) if class(&error) == Class::Again && self.now() < deadline => {
                    self.doubtful = true;
                    self.cluster.sleep(REST);
                }
                Err(error) => return Err(self.failure(what, error)),
            }
        }
    }

    fn failure(&self, what: &str, error: CallError) -> Failure {
        let code = error.code;
        // The first fatal error says more than what it led to.
        let fatal = self.client.fatal_error();
        let class = match &fatal {
            Some((code, _)) if is_fence(*code) => Class::Fenced,
            Some(_) => Class::Fatal,
            None => class(&error),
        };
        let undelivered = self.reports.take_undelivered();
        let refusal = undelivered.filter(|record| kind_of(Some(record.code)) == ErrorKind::Configuration);
        let reason = fatal.map_or(String::new(), |(_, reason)| format!(" ({reason})"));
        let kind = kind_of(code);
        let what = format!("transactional id `{}`: {what}{reason}", self.id);
        let error = match refusal {
            Some(record) => refused(&record),
            None => Error::new(kind, what).with_source(error),
        };
        match class {
            Class::Abort => Failure::Abort(error),
            // Again, but the time is over: what has become of the request nobody knows.
            Class::Again | Class::Fatal => Failure::Producer { error, fenced: false },
            Class::Fenced => Failure::Producer { error, fenced: true },
        }
    }

    fn check_alive(&self) -> Outcome<()> {
        let Some((code, reason)) = self.client.fatal_error() else { return Ok(()) };
        let what = format!("transactional id `{}`: the producer has failed: {reason}", self.id);
        Err(Failure::Producer { error: Error::new(kind_of(Some(code)), what), fenced: is_fence(code) })
    }

    fn check_delivery(&self) -> Outcome<()> {
        match self.reports.take_undelivered() {
            None => Ok(()),
            Some(record) => {
                self.check_alive()?;
                Err(Failure::Abort(refused(&record)))
            }
        }
    }

    fn too_slow(&self, what: &str) -> Error {
        let limit = self.transaction_timeout;
        let what = format!("transactional id `{}`: {what} within the transaction's time of {limit:?}", self.id);
        let reasons: Vec<_> = self.reports.take_errors().into_iter().map(|(_, reason)| reason).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
        Error::new(ErrorKind::Retry, format!("{what}{reasons}"))
    }
}

/// The error of a record that could not be written.
fn refused(record: &Undelivered) -> Error {
    let Undelivered { topic, bytes, code } = record;
    let what = match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => format!(
            "a record of {bytes} bytes is too large for topic {topic}: raise `max.message.bytes` of the topic and the setting \
             `message.max.bytes` of the sink (or lower the sink's `batch.size` below the topic's limit, if records fit alone)"
        ),
        Code::UnknownTopic | Code::UnknownTopicOrPartition => format!("topic {topic} does not exist: create it"),
        code => format!("a record of {bytes} bytes could not be written to topic {topic}: {code}"),
    };
    let kind = match code {
        Code::UnknownTopicOrPartition => ErrorKind::Configuration,
        code => kind_of(Some(*code)),
    };
    Error::new(kind, what)
}
