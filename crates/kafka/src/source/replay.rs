//! Reads planned ranges again, by seeking.
//!
//! A range ends one past its last record. Behind that may come records that were aborted, which no reader ever gets: so a
//! replay ends with the record at `end - 1`, at the first record behind, or at the end of the partition; and the number of
//! records must be the planned one, else records are gone (hard case H5).
//!
//! One consumer serves all partitions, each with a queue of its own, so that tasks read side by side; consecutive ranges of a
//! partition go on without a seek.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use millpond_core::{Error, ErrorKind, Result};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::discovery::ends;
use super::options::{Lost, Options};
use super::queues::Key;
use crate::client::{Consumer, REQUEST_LIMIT, Reports, client_of, retry, serve, wait_for_cluster};
use crate::create::create;
use crate::error::failed;
use crate::native::{FetchQueue, Fetched, MessageView, Messages, describe_topics};
use crate::position::{Position, TopicId, cluster_hash, partition_name};

/// Messages in one fetch.
const FETCH: usize = 4096;
/// How long a fetch waits for the first message.
const FETCH_WAIT: Duration = Duration::from_millis(100);
/// How long a seek may take before the partition is assigned anew.
const SEEK_LIMIT: Duration = Duration::from_secs(5);

/// Reads planned ranges of one source again.
pub(crate) struct Replayer {
    consumer: Arc<Consumer>,
    cluster: u64,
    options: Arc<Options>,
    topics: Mutex<HashMap<String, TopicId>>,
    partitions: Mutex<HashMap<Key, Arc<Mutex<Partition>>>>,
}

struct Partition {
    queue: FetchQueue,
    assigned: bool,
    /// The offset at which the queue goes on; `None` after a failure.
    at: Option<i64>,
    /// Fetched beyond the range before.
    ahead: Option<Messages>,
    /// The newest end of the partition that was met: everything before it has come.
    end_met: i64,
}

/// A planned range of one partition.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) key: Key,
    pub(crate) position: Position,
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// How many records it holds: as planned, or as found when a range that the program gives was read first.
    pub(crate) records: OnceLock<u64>,
}

impl Wanted {
    pub(crate) fn name(&self) -> String {
        partition_name(&self.key.0, self.key.1)
    }

    /// Of what a loss is told.
    fn records_or_offsets(&self) -> u64 {
        self.records.get().copied().unwrap_or((self.end - self.start) as u64)
    }
}

impl Replayer {
    /// `of` names it in messages: ``replay of source `lines` ``.
    pub(crate) fn new(options: Arc<Options>, of: String, group: &str) -> Result<Self> {
        let reports = Reports::new(of);
        let mut config = options.client(group);
        config.set("queued.max.messages.kbytes", "8192");
        // A broker answers one request after another: at the end of a partition all others wait for a fetch so long.
        config.set("fetch.wait.max.ms", "10");
        let consumer = Arc::new(create(&config, reports)?);
        let serve = || serve(&consumer);
        let id = wait_for_cluster(client_of(&consumer), &options.brokers, options.wait_for_broker, serve, || true)?;
        Ok(Replayer {
            consumer,
            cluster: cluster_hash(&id),
            options,
            topics: Mutex::default(),
            partitions: Mutex::default(),
        })
    }

    /// Hands out the records of a range in order; gives how many there were.
    pub(crate) fn read(&self, wanted: &Wanted, mut each: impl FnMut(MessageView<'_>) -> Result<()>) -> Result<u64> {
        if wanted.start == wanted.end {
            return Ok(0);
        }
        self.check_identity(wanted)?;
        let partition = self.partition(wanted)?;
        let mut partition = partition.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = partition.at.take() == Some(wanted.start);
        if !goes_on {
            self.seek(&mut partition, wanted)?;
        }
        let found = self.read_on(&mut partition, wanted, &mut each)?;
        partition.at = Some(wanted.end);
        let records = *wanted.records.get_or_init(|| found);
        if found != records && self.options.lost == Lost::Stop {
            let Wanted { start, end, .. } = wanted;
            let missing = records.saturating_sub(found);
            return Err(Error::new(
                ErrorKind::Restore,
                format!(
                    "{}: {missing} of the {records} records that were planned between offsets {start} and {end} are gone \
                     ({found} found): deleted by compaction or retention, or the plan is of another topic",
                    wanted.name()
                ),
            ));
        }
        Ok(found)
    }

    pub(crate) fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// What tells the cluster from another one.
    pub(crate) fn cluster(&self) -> u64 {
        self.cluster
    }

    fn partition(&self, wanted: &Wanted) -> Result<Arc<Mutex<Partition>>> {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(partition) = partitions.get(&wanted.key) {
            return Ok(Arc::clone(partition));
        }
        let (topic, number) = (&*wanted.key.0, wanted.key.1);
        let queue = FetchQueue::of_partition(Arc::clone(&self.consumer), topic, number)
            .map_err(|error| failed(format!("cannot read {}", wanted.name()), error))?;
        let partition = Partition { queue, assigned: false, at: None, ahead: None, end_met: 0 };
        let partition = Arc::new(Mutex::new(partition));
        partitions.insert(wanted.key.clone(), Arc::clone(&partition));
        Ok(partition)
    }

    /// The same offsets of another cluster, or of a topic that was made again, are other records.
    fn check_identity(&self, wanted: &Wanted) -> Result<()> {
        let topic = &*wanted.key.0;
        if wanted.position.cluster != self.cluster {
            return Err(another_cluster(&wanted.name(), &self.options.brokers));
        }
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let id = match topics.get(topic) {
            Some(id) => *id,
            None => {
                let names = [topic.to_owned()];
                let describe = |limit| describe_topics(client_of(&self.consumer), &names, limit);
                let found = retry(self.options.wait_for_broker, describe, || serve(&self.consumer))
                    .map_err(|error| failed(format!("cannot describe topic {topic}"), error))?;
                let found = found.into_iter().find(|found| found.error.is_none());
                let id = found.map(|found| found.id).ok_or_else(|| {
                    let what = format!("topic {topic} is gone");
                    lost(&what, wanted.records_or_offsets(), "records of a batch that has to be computed again")
                })?;
                topics.insert(topic.to_owned(), id);
                id
            }
        };
        if wanted.position.topic_id.is_another(id) {
            let what = format!("topic {topic} was deleted and made again");
            return Err(lost(&what, wanted.records_or_offsets(), "records of a batch that has to be computed again"));
        }
        Ok(())
    }

    /// Has the queue begin at the start of the range.
    fn seek(&self, partition: &mut Partition, wanted: &Wanted) -> Result<()> {
        partition.ahead = None;
        partition.end_met = 0;
        let (topic, number) = (&*wanted.key.0, wanted.key.1);
        let limit = self.options.wait_for_broker;
        let found = ends(&self.consumer, std::slice::from_ref(&wanted.key), limit)?[0];
        if found.low > wanted.start && self.options.lost == Lost::Stop {
            let (name, start, low) = (wanted.name(), wanted.start, found.low);
            let what = format!("{name} now begins at offset {low}, a batch has to be computed again from {start} on");
            return Err(lost(&what, (low.min(wanted.end) - start) as u64, "offsets"));
        }
        let failed =
            |error: KafkaError| failed(format!("cannot go to offset {} of {}", wanted.start, wanted.name()), error);
        let start = wanted.start.max(found.low);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, number, Offset::Offset(start)).map_err(failed)?;
        if partition.assigned {
            // What is in the queue of before is not handed out: librdkafka tells it from what comes after a seek.
            if self.consumer.seek_partitions(list.clone(), SEEK_LIMIT).is_ok_and(|done| all_done(&done)) {
                return Ok(());
            }
            // A partition that had come to an error cannot be sought. This takes a second or two.
            self.consumer.incremental_unassign(&list).map_err(failed)?;
        }
        self.consumer.incremental_assign(&list).map_err(failed)?;
        partition.assigned = true;
        Ok(())
    }

    fn read_on(
        &self,
        partition: &mut Partition,
        wanted: &Wanted,
        each: &mut impl FnMut(MessageView<'_>) -> Result<()>,
    ) -> Result<u64> {
        let mut found = 0;
        let mut deadline = Instant::now() + self.options.wait_for_broker;
        let mut arrived: Vec<Fetched> = Vec::new();
        loop {
            let (mut complete, mut met_end) = (false, false);
            let ahead = partition.ahead.take();
            let messages = ahead.into_iter().map(Ok).chain(arrived.drain(..).map(|fetched| match fetched {
                Fetched::Messages { messages, .. } => Ok(messages),
                Fetched::Event { code, offset, text, .. } => Err((code, offset, text)),
            }));
            for part in messages {
                match part {
                    Ok(mut messages) => {
                        deadline = Instant::now() + self.options.wait_for_broker;
                        let beyond = messages.split_off(messages.count_before(wanted.end));
                        for message in messages.iter() {
                            each(message)?;
                            found += 1;
                        }
                        complete |= !beyond.is_empty() || messages.last_offset() == Some(wanted.end - 1);
                        match &mut partition.ahead {
                            _ if beyond.is_empty() => {}
                            Some(ahead) => ahead.append(beyond),
                            none => *none = Some(beyond),
                        }
                    }
                    Err((Code::PartitionEOF, offset, _)) => {
                        partition.end_met = offset;
                        met_end = true;
                    }
                    Err((code, _, text)) => self.bearable(wanted, code, &text)?,
                }
            }
            if complete || partition.end_met >= wanted.end || (met_end && self.has_ended(wanted)?) {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                let (limit, name) = (self.options.wait_for_broker, wanted.name());
                let missing = wanted.records_or_offsets().saturating_sub(found);
                let what = format!("{name}: nothing came for {limit:?}, {missing} records of a batch are missing");
                return Err(Error::new(ErrorKind::Retry, what));
            }
            serve(&self.consumer);
            partition.queue.fetch(FETCH, FETCH_WAIT, |fetched| arrived.push(fetched));
        }
    }

    /// At an end before the range's: whether the partition really holds no more.
    fn has_ended(&self, wanted: &Wanted) -> Result<bool> {
        let found = ends(&self.consumer, std::slice::from_ref(&wanted.key), self.options.wait_for_broker)?[0];
        if found.high >= wanted.end {
            return Ok(false);
        }
        if self.options.lost == Lost::LogAndSkip {
            return Ok(true);
        }
        let what = format!("{} ends at offset {}, a batch was planned up to {}", wanted.name(), found.high, wanted.end);
        Err(lost(&what, (wanted.end - found.high.max(wanted.start)) as u64, "offsets"))
    }

    fn bearable(&self, wanted: &Wanted, code: Code, text: &str) -> Result<()> {
        match code {
            Code::AutoOffsetReset => {
                let found = ends(&self.consumer, std::slice::from_ref(&wanted.key), self.options.wait_for_broker)?[0];
                let what = format!(
                    "{} now reaches from offset {} to {}, a batch was planned from {} to {}",
                    wanted.name(),
                    found.low,
                    found.high,
                    wanted.start,
                    wanted.end
                );
                Err(lost(&what, (wanted.end.min(found.low) - wanted.start).max(0) as u64, "offsets"))
            }
            code if crate::error::kind_of(Some(code)) == ErrorKind::Configuration => {
                Err(Error::new(ErrorKind::Configuration, format!("{} cannot be read: {text}", wanted.name())))
            }
            _ => {
                tracing::warn!(partition = wanted.name(), "replay: {text}");
                Ok(())
            }
        }
    }
}

fn all_done(list: &TopicPartitionList) -> bool {
    list.elements().iter().all(|element| element.error().is_ok())
}

/// The error of a range that is no longer to be had.
pub(crate) fn lost(what: &str, count: u64, of: &str) -> Error {
    Error::new(
        ErrorKind::Restore,
        format!(
            "{what}: {count} {of} are lost. Restore the topic, or accept the loss with on_lost_range(Lost::LogAndSkip); \
             log_content() keeps a copy of what was received"
        ),
    )
}

/// The error of records that nobody can count any more, since their topic is gone.
pub(crate) fn lost_unseen(what: &str) -> Error {
    Error::new(
        ErrorKind::Restore,
        format!("{what}. Restore the topic, or accept the loss with on_lost_range(Lost::LogAndSkip)"),
    )
}

/// The error of a cluster that is not the one of the positions.
pub(crate) fn another_cluster(partition: &str, brokers: &str) -> Error {
    Error::new(
        ErrorKind::Restore,
        format!(
            "{partition}: the Kafka cluster at {brokers} is not the one that was read before (its id differs): its offsets \
             mean other records. Give the address of the old cluster, or start with a new directory"
        ),
    )
}

/// The limit of a request made beside reading.
pub(crate) const BESIDE: Duration = REQUEST_LIMIT;
