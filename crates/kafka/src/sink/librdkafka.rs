//! The calls of a sink, answered by librdkafka. The traps are those of its producers and consumers: an abort is served from a second
//! thread, because it blocks on delivery reports that nobody takes.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use millpond_core::Result;
use millpond_core::sink::Records;
use rdkafka::Message as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{CallError, Cluster, CursorReader, GroupMetadata, Isolation, Polled, Producer};
use super::cursors::PARTITION;
use super::partitioner::Partitioner;
use crate::client::{Consumer, REQUEST_LIMIT, Reports, Time, client_of, serve, wait_for_cluster};
use crate::create::create;
use crate::native::{Outputs, TopicInfo, describe_topics};
use crate::settings::Settings;

/// The longest rest while deliveries are served.
const REST: Duration = Duration::from_millis(1);

/// Real clusters.
#[derive(Debug)]
pub(crate) struct Librdkafka;

impl Time for Librdkafka {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }
}

impl Cluster for Librdkafka {
    fn producer(&self, brokers: &str, id: &str, settings: &Settings, reports: &Reports) -> Result<Box<dyn Producer>> {
        let ours = [
            // Records come in bursts, a task's output at once: there is nothing to wait for.
            ("linger.ms", "1"),
            // What waits for the markers of the transaction before is asked again in these steps.
            ("retry.backoff.ms", "1"),
            ("queue.buffering.max.messages", "1000000"),
            ("queue.buffering.max.kbytes", "131072"),
        ];
        let must = [
            ("transactional.id", id),
            ("enable.idempotence", "true"),
            // Millions of reports that say nothing cost a third of the time of producing.
            ("delivery.report.only.error", "true"),
        ];
        let config = settings.client(brokers, &ours, &must);
        let producer: BaseProducer<Reports> = create(&config, reports.clone())?;
        Ok(Box::new(Outputs::new(producer)))
    }

    fn reader(&self, brokers: &str, topic: &str, group: &str, settings: &Settings) -> Result<Box<dyn CursorReader>> {
        let settings = settings.common();
        let of = format!("cursor topic `{topic}`");
        let config = |isolation: &str| {
            let must = [
                ("group.id", group),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("auto.offset.reset", "error"),
                ("enable.partition.eof", "true"),
                ("isolation.level", isolation),
            ];
            // An answer at the end of the topic comes after this time, and a start waits for two of them.
            settings.client(brokers, &[("fetch.wait.max.ms", "5")], &must)
        };
        let uncommitted = create(&config("read_uncommitted"), Reports::new(of.clone()))?;
        let committed = create(&config("read_committed"), Reports::new(of.clone()))?;
        let admin = create(&settings.client(brokers, &[], &[]), Reports::new(of))?;
        let (topic, brokers) = (topic.to_owned(), brokers.to_owned());
        Ok(Box::new(Reader { uncommitted, committed, admin, topic, brokers }))
    }

    fn write_outside(&self, brokers: &str, topic: &str, records: &Records) -> Result<(), CallError> {
        let producer: BaseProducer = Settings::default().client(brokers, &[], &[]).create()?;
        for record in records.iter() {
            let message =
                BaseRecord::to(topic).key(record.key().unwrap_or_default()).payload(record.value().unwrap_or_default());
            producer.send(message).map_err(|(error, _)| error)?;
        }
        Ok(producer.flush(Duration::from_secs(30))?)
    }
}

impl Producer for Outputs {
    fn wait_for_cluster(&self, brokers: &str, limit: Duration) -> Result<String> {
        wait_for_cluster(self.producer().client(), brokers, limit, || self.serve(), || true)
    }

    fn add_topic(&mut self, topic: &str, partitioner: Partitioner) -> Result<(), CallError> {
        Ok(Outputs::add_topic(self, topic, partitioner.setting())?)
    }

    fn init_transactions(&self, limit: Duration) -> Result<(), CallError> {
        Ok(self.producer().init_transactions(limit)?)
    }

    fn begin_transaction(&self) -> Result<(), CallError> {
        Ok(self.producer().begin_transaction()?)
    }

    fn produce(&self, topic: &str, records: &Records, from: usize) -> (usize, Option<Code>) {
        Outputs::produce(self, topic, records, from)
    }

    fn in_flight(&self) -> usize {
        self.producer().in_flight_count().max(0) as usize
    }

    fn send_offsets(
        &self,
        offsets: &[(&str, i32, i64)],
        group: &GroupMetadata,
        limit: Duration,
    ) -> Result<(), CallError> {
        let GroupMetadata::Librdkafka(group) = group else { return Err(Code::InvalidArgument.into()) };
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (topic, partition, offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        Ok(self.producer().send_offsets_to_transaction(&list, group, limit)?)
    }

    fn commit_transaction(&self, limit: Duration) -> Result<(), CallError> {
        Ok(self.producer().commit_transaction(limit)?)
    }

    fn abort_transaction(&self, limit: Duration) -> Result<(), CallError> {
        let done = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    self.serve();
                    thread::sleep(REST);
                }
            });
            let result = self.producer().abort_transaction(limit);
            done.store(true, Ordering::Relaxed);
            result
        });
        Ok(result?)
    }

    fn fatal_error(&self) -> Option<(Code, String)> {
        self.producer().client().fatal_error()
    }

    fn serve(&self) {
        Outputs::serve(self);
    }
}

/// The clients that read the cursor topic and ask about the cluster.
struct Reader {
    /// Sees the high watermark; also the one whose group the offsets go to.
    uncommitted: Consumer,
    /// Sees what is committed.
    committed: Consumer,
    admin: AdminClient<Reports>,
    topic: String,
    brokers: String,
}

impl CursorReader for Reader {
    fn wait_for_cluster(&self, limit: Duration) -> Result<String> {
        let consumer = &self.uncommitted;
        wait_for_cluster(client_of(consumer), &self.brokers, limit, || serve(consumer), || true)
    }

    fn describe(&self, topic: &str, limit: Duration) -> Result<Vec<TopicInfo>, CallError> {
        Ok(describe_topics(client_of(&self.uncommitted), &[topic.to_owned()], limit)?)
    }

    fn cleanup_policy(&self, topic: &str, limit: Duration) -> Result<Option<String>, CallError> {
        let options = AdminOptions::new().request_timeout(Some(REQUEST_LIMIT));
        let resource = [ResourceSpecifier::Topic(topic)];
        let found = block_on(limit, self.admin.describe_configs(&resource, &options))?;
        Ok(found
            .into_iter()
            .filter_map(Result::ok)
            .find_map(|config| config.get("cleanup.policy").and_then(|entry| entry.value.clone())))
    }

    fn create_topic(&self, topic: &str, settings: &[(&str, &str)], limit: Duration) -> Result<(), CallError> {
        // As many replicas as the cluster's own default says.
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
        let new = settings.iter().fold(new, |topic, (key, value)| topic.set(key, value));
        let options = AdminOptions::new().request_timeout(Some(REQUEST_LIMIT)).operation_timeout(Some(REQUEST_LIMIT));
        let results = block_on(limit, self.admin.create_topics([&new], &options))?;
        match results.into_iter().next() {
            None | Some(Ok(_)) => Ok(()),
            Some(Err((_, code))) => Err(code.into()),
        }
    }

    fn watermarks(&self, isolation: Isolation, limit: Duration) -> Result<(i64, i64), CallError> {
        let consumer = match isolation {
            Isolation::Uncommitted => &self.uncommitted,
            Isolation::Committed => &self.committed,
        };
        Ok(consumer.fetch_watermarks(&self.topic, PARTITION, limit)?)
    }

    fn assign(&self, offset: i64) -> Result<(), CallError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, PARTITION, Offset::Offset(offset))?;
        Ok(self.committed.assign(&list)?)
    }

    fn unassign(&self) -> Result<(), CallError> {
        Ok(self.committed.unassign()?)
    }

    fn poll(&self, limit: Duration) -> Option<Polled> {
        Some(match self.committed.poll(limit)? {
            Ok(message) => Polled::Record {
                offset: message.offset(),
                key: message.key().unwrap_or_default().to_vec(),
                value: message.payload().map(<[u8]>::to_vec),
            },
            Err(KafkaError::PartitionEOF(_)) => Polled::End,
            Err(error) => Polled::Failed(error.into()),
        })
    }

    fn serve(&self) {
        serve(&self.uncommitted);
    }

    fn group(&self) -> Option<GroupMetadata> {
        Some(GroupMetadata::Librdkafka(Arc::new(self.uncommitted.group_metadata()?)))
    }
}

/// Drives one future on this thread: admin requests are the only ones here, and not worth a runtime.
fn block_on<T>(limit: Duration, future: impl Future<Output = Result<T, KafkaError>>) -> Result<T, KafkaError> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    // The request has a limit of its own; the rest is for the way.
    let deadline = Instant::now() + limit + Duration::from_secs(1);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(KafkaError::Global(Code::OperationTimedOut));
        }
        thread::park_timeout(left);
    }
}
