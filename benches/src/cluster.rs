//! A Kafka broker for a run, its input and the reading of its output.

use std::time::{Duration, Instant};

use millpond_testkit::broker::KafkaBroker;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use crate::Failure;
use crate::pipeline::{INPUT, OUTPUT};

/// Partitions of input and output.
pub(crate) const PARTITIONS: i32 = 4;

/// How long the broker may take for anything.
const LIMIT: Duration = Duration::from_secs(300);

/// A broker with an empty input and an empty output topic.
pub(crate) fn start() -> Result<KafkaBroker, Failure> {
    let broker = KafkaBroker::builder().heap_limit_mib(1024).start()?;
    for topic in [INPUT, OUTPUT] {
        broker.create_topic(topic, PARTITIONS as u32, &[])?;
    }
    Ok(broker)
}

/// The key of this number: 11 bytes.
pub(crate) fn key(number: u64) -> String {
    format!("key{number:08}")
}

/// Writes to the input topic.
pub(crate) struct Input(BaseProducer<Deliveries>);

/// Notes the first record that was not delivered.
#[derive(Default)]
struct Deliveries(std::sync::Mutex<Option<String>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().expect("no panic").get_or_insert(error.to_string());
        }
    }
}

impl Input {
    /// `linger_ms`: how long records wait for others to go with them.
    pub(crate) fn new(broker: &KafkaBroker, linger_ms: u32) -> Result<Input, Failure> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker.bootstrap_servers());
        config.set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        config.set("linger.ms", linger_ms.to_string()).set("batch.size", "1000000");
        config.set("queue.buffering.max.messages", "500000");
        Ok(Input(config.create_with_context(Deliveries::default())?))
    }

    pub(crate) fn send(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        let mut record = BaseRecord::to(INPUT).key(key).payload(value);
        while let Err((error, unsent)) = self.0.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            self.0.poll(Duration::from_millis(10));
            record = unsent;
        }
        Ok(())
    }

    /// Lets deliveries be told; to be called now and then.
    pub(crate) fn poll(&self) {
        self.0.poll(Duration::ZERO);
    }

    /// Waits until the broker has everything.
    pub(crate) fn flush(&self) -> Result<(), Failure> {
        self.0.flush(LIMIT)?;
        match self.0.context().0.lock().expect("no panic").take() {
            None => Ok(()),
            Some(error) => Err(format!("the broker did not take a record: {error}").into()),
        }
    }
}

/// Reads the output topic as it is committed.
pub(crate) struct Output(BaseConsumer);

impl Output {
    /// From the beginning, at once.
    pub(crate) fn new(broker: &KafkaBroker) -> Result<Output, Failure> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker.bootstrap_servers()).set("group.id", "bench-reader");
        config.set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "false").set("fetch.wait.max.ms", "10").set("fetch.queue.backoff.ms", "1");
        let consumer: BaseConsumer = config.create()?;
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions.add_partition_offset(OUTPUT, partition, Offset::Beginning)?;
        }
        consumer.assign(&partitions)?;
        Ok(Output(consumer))
    }

    /// The next record, if one comes within the limit.
    pub(crate) fn next<R>(&self, limit: Duration, of: impl FnOnce(&str, &[u8]) -> R) -> Result<Option<R>, Failure> {
        match self.0.poll(limit) {
            None => Ok(None),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(message)) => {
                let key = std::str::from_utf8(message.key().unwrap_or_default())?;
                Ok(Some(of(key, message.payload().unwrap_or_default())))
            }
        }
    }

    /// Everything that is there now, up to the committed end of each partition.
    pub(crate) fn read_all(&self, mut each: impl FnMut(&str, &[u8])) -> Result<(), Failure> {
        let ends: Vec<i64> = (0..PARTITIONS)
            .map(|partition| Ok(self.0.fetch_watermarks(OUTPUT, partition, LIMIT)?.1))
            .collect::<Result<_, Failure>>()?;
        let started = Instant::now();
        loop {
            let mut some = false;
            while let Some(()) = self.next(Duration::from_millis(100), &mut each)? {
                some = true;
            }
            let position = self.0.position()?;
            let at_end = (0..PARTITIONS).all(|partition| {
                let at = position.find_partition(OUTPUT, partition).map(|found| found.offset());
                let end = ends[partition as usize];
                end == 0 || matches!(at, Some(Offset::Offset(at)) if at >= end - 1)
            });
            // The last offset of a partition is the marker of a commit, which no reader gets.
            if at_end && !some {
                return Ok(());
            }
            if started.elapsed() > LIMIT {
                return Err("the output was not read to its end in time".into());
            }
        }
    }
}
