//! The application's cursor topic: compacted, one partition, one record a sink and batch, written in the batch's transaction.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use millpond_core::sink::Cursor;
use millpond_core::{Error, ErrorKind, Result};
use rdkafka::Message as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::client::{Consumer, REQUEST_LIMIT, Reports, client_of, consumer, retry, serve, wait_for_cluster};
use crate::error::{failed, refused_setting};
use crate::native::{TopicInfo, describe_topics};
use crate::settings::Settings;

/// Small segments, cleaned eagerly: a start reads the topic from its beginning.
const TOPIC: &[(&str, &str)] =
    &[("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.1")];
const PARTITION: i32 = 0;

/// The clients that read the cursor topic and ask about the cluster; they write nothing and shut out nobody.
pub(crate) struct Cursors {
    /// Sees the high watermark; also the one whose group the offsets go to.
    uncommitted: Arc<Consumer>,
    /// Sees what is committed.
    committed: Consumer,
    admin: AdminClient<Reports>,
    topic: String,
    brokers: String,
    limit: Duration,
}

impl Cursors {
    /// Connects, and gives the id of the cluster.
    pub(crate) fn connect(
        brokers: &str,
        topic: String,
        group: &str,
        settings: &Settings,
        limit: Duration,
    ) -> Result<(Self, String)> {
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
        let uncommitted = Arc::new(consumer(&config("read_uncommitted"), Reports::new(of.clone()))?);
        let id = wait_for_cluster(client_of(&uncommitted), brokers, limit, || serve(&uncommitted), || true)?;
        let committed = consumer(&config("read_committed"), Reports::new(of.clone()))?;
        let admin = settings
            .client(brokers, &[], &[])
            .create_with_context(Reports::new(of.clone()))
            .map_err(|error| refused_setting(&of, error))?;
        Ok((Cursors { uncommitted, committed, admin, topic, brokers: brokers.to_owned(), limit }, id))
    }

    /// Waits for a broker again, after it may have been lost.
    pub(crate) fn reconnect(&self) -> Result<String> {
        let consumer = &self.uncommitted;
        wait_for_cluster(client_of(consumer), &self.brokers, self.limit, || serve(consumer), || true)
    }

    /// What the cluster knows of a topic; `None` if there is none.
    pub(crate) fn describe(&self, topic: &str) -> Result<Option<TopicInfo>> {
        let names = [topic.to_owned()];
        let describe = |limit| describe_topics(client_of(&self.uncommitted), &names, limit);
        let found = retry(self.limit, describe, || serve(&self.uncommitted))
            .map_err(|error| failed(format!("cannot describe topic {topic}"), error))?;
        match found.into_iter().next() {
            Some(TopicInfo { error: Some(Code::UnknownTopicOrPartition | Code::UnknownTopic), .. }) | None => Ok(None),
            Some(TopicInfo { error: Some(code), .. }) => {
                Err(Error::new(crate::error::kind_of(Some(code)), format!("topic {topic} cannot be used: {code}")))
            }
            Some(found) => Ok(Some(found)),
        }
    }

    /// Refuses a cursor topic that would lose cursors; false if there is none yet.
    pub(crate) fn check(&self) -> Result<bool> {
        let Some(found) = self.describe(&self.topic)? else { return Ok(false) };
        let topic = &self.topic;
        if found.partitions != [PARTITION] {
            let count = found.partitions.len();
            let what = format!("cursor topic {topic} has {count} partitions: it must have one");
            return Err(Error::new(ErrorKind::Configuration, what));
        }
        let options = AdminOptions::new().request_timeout(Some(REQUEST_LIMIT));
        let resource = [ResourceSpecifier::Topic(topic)];
        let ask = |limit| block_on(limit, self.admin.describe_configs(&resource, &options));
        let policy = retry(self.limit, ask, || serve(&self.uncommitted))
            .map_err(|error| failed(format!("cannot read the settings of cursor topic {topic}"), error))?
            .into_iter()
            .filter_map(Result::ok)
            .find_map(|config| config.get("cleanup.policy").and_then(|entry| entry.value.clone()));
        match policy.as_deref() {
            Some("compact") => Ok(true),
            policy => Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "cursor topic {topic} has the cleanup policy `{}`: cursors would be deleted in time. Set \
                     cleanup.policy=compact, alone",
                    policy.unwrap_or_default()
                ),
            )),
        }
    }

    /// Creates the cursor topic if it is missing.
    pub(crate) fn create(&self) -> Result<()> {
        if self.check()? {
            return Ok(());
        }
        let topic = TOPIC.iter().fold(
            // As many replicas as the cluster's own default says.
            NewTopic::new(&self.topic, 1, TopicReplication::Fixed(-1)),
            |topic, (key, value)| topic.set(key, value),
        );
        let options = AdminOptions::new().request_timeout(Some(REQUEST_LIMIT)).operation_timeout(Some(REQUEST_LIMIT));
        // A broker that has just started, or is short of breath, does not count as one that could hold a replica.
        let patience = Instant::now() + REQUEST_LIMIT;
        let create = |limit| {
            let results = block_on(limit, self.admin.create_topics([&topic], &options))?;
            match results.into_iter().next() {
                Some(Err((_, Code::InvalidReplicationFactor))) if Instant::now() < patience => {
                    Err(KafkaError::Global(Code::BrokerNotAvailable))
                }
                // Somebody was quicker; what it is like was not checked yet.
                None | Some(Ok(_)) | Some(Err((_, Code::TopicAlreadyExists))) => Ok(()),
                Some(Err((_, code))) => Err(KafkaError::Global(code)),
            }
        };
        let place = || format!("cannot create cursor topic {}", self.topic);
        retry(self.limit, create, || serve(&self.uncommitted)).map_err(|error| failed(place(), error))?;
        let deadline = Instant::now() + REQUEST_LIMIT;
        while !self.check()? {
            if Instant::now() >= deadline {
                let what = format!("cursor topic {} was created, but is not seen after {REQUEST_LIMIT:?}", self.topic);
                return Err(Error::new(ErrorKind::Retry, what));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The newest committed cursors by sink, as far as they can be read now.
    pub(crate) fn peek(&self) -> Result<HashMap<String, Cursor>> {
        if !self.check()? {
            return Ok(HashMap::new());
        }
        let (low, end) = self.watermarks(&self.committed)?;
        self.read(low, end)
    }

    /// The newest committed cursors by sink, all of them: waits until nothing before the end is undecided (hard case H1).
    pub(crate) fn read_all(&self) -> Result<HashMap<String, Cursor>> {
        let (_, high) = self.watermarks(&self.uncommitted)?;
        let deadline = Instant::now() + self.limit;
        let mut rest = Duration::from_millis(1);
        loop {
            let (low, stable) = self.watermarks(&self.committed)?;
            if stable >= high {
                return self.read(low, high);
            }
            if Instant::now() >= deadline {
                let (topic, limit) = (&self.topic, self.limit);
                let what = format!(
                    "partition {PARTITION} of cursor topic {topic} ends at offset {high}, but a transaction that is still \
                     open after {limit:?} holds readers at {stable}. The topic must be this application's alone: find and end \
                     that transaction (kafka-transactions.sh), or name another topic with cursor_topic()"
                );
                return Err(Error::new(ErrorKind::Retry, what));
            }
            thread::sleep(rest);
            rest = (rest * 2).min(Duration::from_millis(100));
        }
    }

    fn watermarks(&self, consumer: &Consumer) -> Result<(i64, i64)> {
        let ask = |limit| consumer.fetch_watermarks(&self.topic, PARTITION, limit);
        retry(self.limit, ask, || serve(consumer))
            .map_err(|error| failed(format!("cannot ask for the end of cursor topic {}", self.topic), error))
    }

    fn read(&self, low: i64, end: i64) -> Result<HashMap<String, Cursor>> {
        let mut newest = HashMap::new();
        if low >= end {
            return Ok(newest);
        }
        let consumer = &self.committed;
        let cannot = |error| failed(format!("cannot read cursor topic {}", self.topic), error);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, PARTITION, Offset::Offset(low)).map_err(cannot)?;
        consumer.assign(&list).map_err(cannot)?;
        let result = self.read_assigned(end, &mut newest);
        consumer.unassign().map_err(cannot)?;
        result.map(|()| newest)
    }

    fn read_assigned(&self, end: i64, newest: &mut HashMap<String, Cursor>) -> Result<()> {
        let mut deadline = Instant::now() + self.limit;
        loop {
            match self.committed.poll(Duration::from_millis(100)) {
                // Everything before the end was decided when reading began.
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Ok(message)) => {
                    deadline = Instant::now() + self.limit;
                    let offset = message.offset();
                    if let Some(value) = message.payload() {
                        let place =
                            |error: Error| error.context(format!("cursor topic {}, offset {offset}", self.topic));
                        let cursor = Cursor::decode(value).map_err(place)?;
                        let sink = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                        let known: &mut Cursor = newest.entry(sink).or_insert_with(|| cursor.clone());
                        // The newest is the one of the largest batch; of one batch the last. A deployment that has taken the sink
                        // over begins at an earlier batch.
                        if cursor.batch >= known.batch || cursor.deployment != known.deployment {
                            *known = cursor;
                        }
                    }
                    if offset + 1 >= end {
                        return Ok(());
                    }
                }
                Some(Err(error)) if crate::error::kind_of(error.rdkafka_error_code()) == ErrorKind::Configuration => {
                    return Err(failed(format!("cannot read cursor topic {}", self.topic), error));
                }
                Some(Err(_)) | None => {}
            }
            if Instant::now() >= deadline {
                let what = format!("cursor topic {}: nothing came for {:?}", self.topic, self.limit);
                return Err(Error::new(ErrorKind::Retry, what));
            }
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// The group that offsets go to; without having joined it, it is a plain register.
    pub(crate) fn group(&self) -> Option<ConsumerGroupMetadata> {
        self.uncommitted.group_metadata()
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
