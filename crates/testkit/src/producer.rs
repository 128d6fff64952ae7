//! Writes records into topics for tests: acknowledged ones, and transactions that stay open as long as a test wants.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use crate::error::{Error, ErrorKind, Result};
use crate::record::Outgoing;

/// How long a call may take, from the first record to the last acknowledgement.
const LIMIT: Duration = Duration::from_secs(60);

/// Writes records and waits for their acknowledgement.
///
/// Keys go to partitions as the Java client sends them; records of one partition keep their order, also when the broker is
/// killed and comes back meanwhile.
pub struct Producer {
    inner: BaseProducer<Deliveries>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Producer {
    /// A producer for a cluster. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] if the addresses are malformed.
    pub fn new(bootstrap_servers: &str) -> Result<Self> {
        Self::with(bootstrap_servers, &[])
    }

    fn with(bootstrap_servers: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap_servers)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "1")
            .set("reconnect.backoff.max.ms", "200")
            .set_log_level(RDKafkaLogLevel::Emerg);
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let failures = Arc::new(Mutex::new(Vec::new()));
        let inner = config
            .create_with_context(Deliveries(Arc::clone(&failures)))
            .map_err(|error| Error::new(ErrorKind::Configuration, "cannot make a Kafka producer").because(error))?;
        Ok(Producer { inner, failures })
    }

    /// Writes the records, in order, and returns when the broker has acknowledged all of them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] if one was refused, [`ErrorKind::Retry`] after a minute. Some may have been written then.
    pub fn produce(&mut self, topic: &str, records: impl IntoIterator<Item = Outgoing>) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        let timed_out = |waiting| {
            Error::new(ErrorKind::Retry, format!("topic {topic}: {waiting} records not acknowledged within {LIMIT:?}"))
        };
        for record in records {
            let mut message = base_record(topic, &record);
            while let Err((error, unsent)) = self.inner.send(message) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(Error::new(ErrorKind::Failed, format!("cannot write to topic {topic}")).because(error));
                }
                if Instant::now() > deadline {
                    return Err(timed_out(self.inner.in_flight_count()));
                }
                self.inner.poll(Duration::from_millis(10));
                message = unsent;
            }
            self.inner.poll(Duration::ZERO);
        }
        // `flush` would advance in steps of 100 ms.
        while self.inner.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return Err(timed_out(self.inner.in_flight_count()));
            }
            self.inner.poll(Duration::from_millis(10));
        }
        let failures = std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner));
        match failures.first() {
            None => Ok(()),
            Some(first) => {
                let why =
                    format!("topic {topic}: {} records were not written, the first because: {first}", failures.len());
                Err(Error::new(ErrorKind::Failed, why))
            }
        }
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

/// A transaction of a producer that is not Millpond's, held open until the test decides.
///
/// Dropped undecided it stays open at the broker, as that of a process that has died, until `timeout` is over or another
/// producer begins with the same transactional id.
#[derive(Debug)]
pub struct Transaction {
    producer: Producer,
    transactional_id: String,
}

impl Transaction {
    /// Fences earlier producers of this transactional id and begins a transaction.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] if the broker refuses or is away for a minute.
    pub fn begin(bootstrap_servers: &str, transactional_id: &str, timeout: Duration) -> Result<Self> {
        let timeout_ms = timeout.as_millis().to_string();
        let settings = [("transactional.id", transactional_id), ("transaction.timeout.ms", &timeout_ms)];
        let transaction = Transaction {
            producer: Producer::with(bootstrap_servers, &settings)?,
            transactional_id: transactional_id.to_owned(),
        };
        let client = &transaction.producer.inner;
        transaction.did("begin", client.init_transactions(LIMIT).and_then(|()| client.begin_transaction()))?;
        Ok(transaction)
    }

    /// Writes records in the transaction and waits for their acknowledgement; the broker knows of it from the first on.
    ///
    /// # Errors
    ///
    /// As [`Producer::produce`].
    pub fn produce(&mut self, topic: &str, records: impl IntoIterator<Item = Outgoing>) -> Result<()> {
        self.producer.produce(topic, records)
    }

    /// Commits: readers see all of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] if the broker refuses, has fenced this producer or is away for a minute.
    pub fn commit(self) -> Result<()> {
        self.did("commit", self.producer.inner.commit_transaction(LIMIT))
    }

    /// Aborts: `read_committed` readers see nothing of it.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub fn abort(self) -> Result<()> {
        self.did("abort", self.producer.inner.abort_transaction(LIMIT))
    }

    fn did(&self, verb: &str, result: Result<(), KafkaError>) -> Result<()> {
        let why = || format!("cannot {verb} the transaction of {}", self.transactional_id);
        result.map_err(|error| Error::new(ErrorKind::Failed, why()).because(error))
    }
}

/// Collects what could not be delivered.
struct Deliveries(Arc<Mutex<Vec<String>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
        }
    }
}

fn base_record<'a>(topic: &'a str, record: &'a Outgoing) -> BaseRecord<'a, Vec<u8>, Vec<u8>> {
    let mut message = BaseRecord::to(topic);
    if let Some(key) = &record.key {
        message = message.key(key);
    }
    if let Some(value) = &record.value {
        message = message.payload(value);
    }
    if let Some(partition) = record.partition {
        message = message.partition(partition);
    }
    if let Some(timestamp) = record.timestamp_ms {
        message = message.timestamp(timestamp);
    }
    if !record.headers.is_empty() {
        let empty = OwnedHeaders::new_with_capacity(record.headers.len());
        message = message.headers(
            record
                .headers
                .iter()
                .fold(empty, |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() })),
        );
    }
    message
}
