//! Reads what a `read_committed` reader of a topic sees, from the beginning to the true end.
//!
//! A `read_committed` reader cannot tell the end by itself: its end is the last stable offset, which an open transaction
//! holds back. So the end is the high watermark, asked for by a `read_uncommitted` client, and the reader waits until the
//! last stable offset has reached it. Control records take offsets, so records are never counted by offsets.

use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::broker::wait_until;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;

/// How long [`read_committed`] waits without any progress.
pub const READ_LIMIT: Duration = Duration::from_secs(60);
/// After so long without an answer another client is asked.
const CLIENT_LIMIT: Duration = Duration::from_secs(10);
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Everything that a `read_committed` reader sees in a topic, by partition and offset, up to the end as it is at the
/// call.
///
/// # Errors
///
/// [`ErrorKind::Retry`] without progress for [`READ_LIMIT`]: the broker is away, or a transaction stays open (the message
/// names the partition). [`ErrorKind::Failed`] if there is no such topic.
pub fn read_committed(bootstrap_servers: &str, topic: &str) -> Result<Vec<Record>> {
    read_committed_within(bootstrap_servers, topic, READ_LIMIT)
}

/// [`read_committed`] with a limit of one's own on the time without progress.
///
/// # Errors
///
/// As [`read_committed`].
pub fn read_committed_within(bootstrap_servers: &str, topic: &str, limit: Duration) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let ranges = stable_ranges(bootstrap_servers, topic, limit)?;
    read_ranges(bootstrap_servers, topic, &ranges, limit, |record| records.push(record))?;
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

/// What a `read_committed` reader sees of the last `offsets` of each partition at this moment, open transactions or not; `None` if there
/// is no such topic.
pub(crate) fn read_end(
    bootstrap_servers: &str,
    topic: &str,
    offsets: i64,
    limit: Duration,
) -> Result<Option<Vec<Record>>> {
    let committed = consumer(bootstrap_servers, "read_committed")?;
    let partitions = match partition_count(&committed, topic, limit) {
        Ok(partitions) => partitions,
        Err(error) if error.kind() == ErrorKind::Failed => return Ok(None),
        Err(error) => return Err(error),
    };
    let range = |partition| {
        let (start, end) = watermarks(&committed, topic, partition, limit)?;
        Ok(start.max(end - offsets)..end)
    };
    let ranges = (0..partitions).map(range).collect::<Result<Vec<_>>>()?;
    let mut records = Vec::new();
    read_ranges(bootstrap_servers, topic, &ranges, limit, |record| records.push(record))?;
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(Some(records))
}

/// Waits until nothing below the present high watermarks is undecided; gives what lies below them, by partition.
pub(crate) fn stable_ranges(bootstrap_servers: &str, topic: &str, limit: Duration) -> Result<Vec<Range<i64>>> {
    let deadline = Instant::now() + limit;
    loop {
        match ranges_by_new_clients(bootstrap_servers, topic, limit.min(CLIENT_LIMIT), deadline) {
            // A client that came while the broker was away may keep what it learned then; a new one has not learned it.
            Err(error) if error.kind() == ErrorKind::Retry && Instant::now() < deadline => {}
            found => return found,
        }
    }
}

/// The same by clients that are made for it, and asked for so long.
fn ranges_by_new_clients(
    bootstrap_servers: &str,
    topic: &str,
    limit: Duration,
    deadline: Instant,
) -> Result<Vec<Range<i64>>> {
    let uncommitted = consumer(bootstrap_servers, "read_uncommitted")?;
    let committed = consumer(bootstrap_servers, "read_committed")?;
    let mut ranges = Vec::new();
    for partition in 0..partition_count(&uncommitted, topic, limit)? {
        let (start, end) = watermarks(&uncommitted, topic, partition, limit)?;
        let mut stable = 0;
        let left = deadline.saturating_duration_since(Instant::now());
        let reached = wait_until(left, || {
            (_, stable) = watermarks(&committed, topic, partition, limit)?;
            Ok::<_, Error>(stable >= end)
        })?;
        if !reached {
            return Err(Error::new(
                ErrorKind::Retry,
                format!(
                    "partition {partition} of topic {topic} ends at offset {end}, but a transaction that is still open after \
                     {left:?} holds read_committed readers at {stable}"
                ),
            ));
        }
        ranges.push(start..end);
    }
    Ok(ranges)
}

/// Reads a range of every partition; all transactions below their ends must be decided.
pub(crate) fn read_ranges(
    bootstrap_servers: &str,
    topic: &str,
    ranges: &[Range<i64>],
    limit: Duration,
    mut take: impl FnMut(Record),
) -> Result<()> {
    let consumer = consumer(bootstrap_servers, "read_committed")?;
    // By number: the client looks up `Beginning` only half a second later.
    assign(&consumer, topic, ranges.iter().map(|range| range.start))?;

    let mut done: Vec<bool> = ranges.iter().map(Range::is_empty).collect();
    let mut last_progress = Instant::now();
    let mut last_trouble = None;
    while done.contains(&false) {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            // The stable offset had reached the end before this reader began, so its end of the partition is the end.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                last_progress = Instant::now();
                done[partition as usize] = true;
            }
            Some(Err(error)) => last_trouble = Some(bearable(error, topic)?),
            Some(Ok(message)) => {
                last_progress = Instant::now();
                let partition = message.partition() as usize;
                // What came after the end was asked for is for the next call.
                if message.offset() < ranges[partition].end {
                    take(to_record(&message));
                }
                done[partition] |= message.offset() + 1 >= ranges[partition].end;
            }
        }
        if last_progress.elapsed() > limit {
            let partition = done.iter().position(|done| !done).unwrap_or_default();
            let why = format!("no record and no end of partition {partition} of topic {topic} for {limit:?}");
            let error = Error::new(ErrorKind::Retry, why);
            return Err(match last_trouble {
                Some(trouble) => error.because(trouble),
                None => error,
            });
        }
    }
    Ok(())
}

/// A consumer without a group that only reads.
pub(crate) fn consumer(bootstrap_servers: &str, isolation: &str) -> Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("group.id", "millpond-testkit") // asked for by the client; nothing joins or commits
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", isolation)
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        // By default a reader that has once been too slow rests for a second.
        .set("fetch.queue.backoff.ms", "1")
        // The end of a partition is told by an empty answer, which the broker holds back for so long.
        .set("fetch.wait.max.ms", "20")
        // A broker that is restarted should be found again soon.
        .set("reconnect.backoff.max.ms", "200")
        .set("topic.metadata.refresh.fast.interval.ms", "50")
        // Lost connections are what tests are about; they are told by errors, not on the terminal.
        .set_log_level(RDKafkaLogLevel::Emerg)
        .create()
        .map_err(|error| Error::new(ErrorKind::Configuration, "cannot make a Kafka consumer").because(error))
}

pub(crate) fn assign(consumer: &BaseConsumer, topic: &str, starts: impl Iterator<Item = i64>) -> Result<()> {
    let mut assignment = TopicPartitionList::new();
    let mut places = (0..).zip(starts);
    places
        .try_for_each(|(partition, start)| assignment.add_partition_offset(topic, partition, Offset::Offset(start)))
        .and_then(|()| consumer.assign(&assignment))
        .map_err(|error| Error::new(ErrorKind::Failed, format!("cannot read topic {topic}")).because(error))
}

/// An error that may pass (a broker that is away) is given back, one that will not is returned as an error.
pub(crate) fn bearable(error: KafkaError, topic: &str) -> Result<KafkaError> {
    use rdkafka::types::RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(
            Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::AutoOffsetReset
            | Code::OffsetOutOfRange
            | Code::TopicAuthorizationFailed
            | Code::Fatal,
        ) => Err(Error::new(ErrorKind::Failed, format!("cannot read topic {topic}")).because(error)),
        _ => Ok(error),
    }
}

pub(crate) fn to_record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        timestamp_ms: message.timestamp().to_millis(),
    }
}

fn partition_count(consumer: &BaseConsumer, topic: &str, limit: Duration) -> Result<i32> {
    let metadata = retried(limit, || consumer.fetch_metadata(Some(topic), REQUEST_LIMIT))
        .map_err(|error| Error::new(ErrorKind::Retry, format!("no metadata of topic {topic}")).because(error))?;
    match metadata.topics().first() {
        Some(found) if found.error().is_none() && !found.partitions().is_empty() => Ok(found.partitions().len() as i32),
        _ => Err(Error::new(ErrorKind::Failed, format!("there is no topic {topic}"))),
    }
}

/// Beginning and end of a partition. The end is the high watermark, or for a `read_committed` consumer the last stable
/// offset.
fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32, limit: Duration) -> Result<(i64, i64)> {
    let ask = || {
        consumer.fetch_watermarks(topic, partition, REQUEST_LIMIT).inspect_err(|_| {
            // What the client remembers of a broker that was away may be what is in the way: it asks for it anew.
            let _ = consumer.fetch_metadata(Some(topic), REQUEST_LIMIT);
        })
    };
    retried(limit, ask).map_err(|error| {
        Error::new(ErrorKind::Retry, format!("no end of partition {partition} of topic {topic}")).because(error)
    })
}

/// Requests fail at once while a broker restarts; they are tried again until the limit.
fn retried<T>(limit: Duration, mut request: impl FnMut() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let deadline = Instant::now() + limit;
    loop {
        match request() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            result => return result,
        }
    }
}
