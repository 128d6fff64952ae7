//! The application's cursor topic: compacted, one partition, one record a sink and batch, written in the batch's transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millpond_core::sink::Cursor;
use millpond_core::{Error, ErrorKind, Result};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::client::{CallError, Cluster, CursorReader, GroupMetadata, Isolation, Polled, deadline};
use crate::client::{REQUEST_LIMIT, retry_by};
use crate::error::failed;
use crate::native::TopicInfo;
use crate::settings::Settings;

/// Small segments, cleaned eagerly: a start reads the topic from its beginning.
const TOPIC: &[(&str, &str)] =
    &[("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.1")];
pub(super) const PARTITION: i32 = 0;

/// Reads the cursor topic; writes nothing and shuts out nobody.
pub(crate) struct Cursors {
    cluster: Arc<dyn Cluster>,
    reader: Box<dyn CursorReader>,
    topic: String,
    limit: Duration,
}

impl Cursors {
    /// Connects, and gives the id of the cluster.
    pub(crate) fn connect(
        cluster: &Arc<dyn Cluster>,
        brokers: &str,
        topic: String,
        group: &str,
        settings: &Settings,
        limit: Duration,
    ) -> Result<(Self, String)> {
        let reader = cluster.reader(brokers, &topic, group, settings)?;
        let id = reader.wait_for_cluster(limit)?;
        Ok((Cursors { cluster: Arc::clone(cluster), reader, topic, limit }, id))
    }

    /// Waits for a broker again, after it may have been lost.
    pub(crate) fn reconnect(&self) -> Result<String> {
        self.reader.wait_for_cluster(self.limit)
    }

    /// Makes a request until it succeeds, fails for good, or the limit is reached.
    fn retry<T>(&self, request: impl FnMut(Duration) -> Result<T, CallError>) -> Result<T, CallError> {
        retry_by(&*self.cluster, self.limit, request, || self.reader.serve())
    }

    /// What the cluster knows of a topic; `None` if there is none.
    pub(crate) fn describe(&self, topic: &str) -> Result<Option<TopicInfo>> {
        let found = self
            .retry(|limit| self.reader.describe(topic, limit))
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
        let policy = self
            .retry(|limit| self.reader.cleanup_policy(topic, limit))
            .map_err(|error| failed(format!("cannot read the settings of cursor topic {topic}"), error))?;
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
        // A broker that has just started, or is short of breath, does not count as one that could hold a replica.
        let patience = deadline(&*self.cluster, REQUEST_LIMIT);
        let create = |limit| match self.reader.create_topic(&self.topic, TOPIC, limit) {
            Err(error) if error.code == Some(Code::InvalidReplicationFactor) && self.cluster.now() < patience => {
                Err(CallError::from(Code::BrokerNotAvailable))
            }
            // Somebody was quicker; what it is like was not checked yet.
            Err(error) if error.code == Some(Code::TopicAlreadyExists) => Ok(()),
            outcome => outcome,
        };
        let place = || format!("cannot create cursor topic {}", self.topic);
        self.retry(create).map_err(|error| failed(place(), error))?;
        let deadline = deadline(&*self.cluster, REQUEST_LIMIT);
        while !self.check()? {
            if self.cluster.now() >= deadline {
                let what = format!("cursor topic {} was created, but is not seen after {REQUEST_LIMIT:?}", self.topic);
                return Err(Error::new(ErrorKind::Retry, what));
            }
            self.cluster.sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The newest committed cursors by sink, as far as they can be read now.
    pub(crate) fn peek(&self) -> Result<HashMap<String, Cursor>> {
        if !self.check()? {
            return Ok(HashMap::new());
        }
        let (low, end) = self.watermarks(Isolation::Committed)?;
        self.read(low, end)
    }

    /// The newest committed cursors by sink, all of them: waits until nothing before the end is undecided (hard case H1).
    pub(crate) fn read_all(&self) -> Result<HashMap<String, Cursor>> {
        let (_, high) = self.watermarks(Isolation::Uncommitted)?;
        let deadline = deadline(&*self.cluster, self.limit);
        let mut rest = Duration::from_millis(1);
        loop {
            let (low, stable) = self.watermarks(Isolation::Committed)?;
            if stable >= high {
                return self.read(low, high);
            }
            if self.cluster.now() >= deadline {
                let (topic, limit) = (&self.topic, self.limit);
                let what = format!(
                    "partition {PARTITION} of cursor topic {topic} ends at offset {high}, but a transaction that is still \
                     open after {limit:?} holds readers at {stable}. The topic must be this application's alone: find and end \
                     that transaction (kafka-transactions.sh), or name another topic with cursor_topic()"
                );
                return Err(Error::new(ErrorKind::Retry, what));
            }
            self.cluster.sleep(rest);
            rest = (rest * 2).min(Duration::from_millis(100));
        }
    }

    fn watermarks(&self, isolation: Isolation) -> Result<(i64, i64)> {
        self.retry(|limit| self.reader.watermarks(isolation, limit))
            .map_err(|error| failed(format!("cannot ask for the end of cursor topic {}", self.topic), error))
    }

    fn read(&self, low: i64, end: i64) -> Result<HashMap<String, Cursor>> {
        let mut newest = HashMap::new();
        if low >= end {
            return Ok(newest);
        }
        let cannot = |error| failed(format!("cannot read cursor topic {}", self.topic), error);
        self.reader.assign(low).map_err(cannot)?;
        let result = self.read_assigned(end, &mut newest);
        self.reader.unassign().map_err(cannot)?;
        result.map(|()| newest)
    }

    fn read_assigned(&self, end: i64, newest: &mut HashMap<String, Cursor>) -> Result<()> {
        let mut late = deadline(&*self.cluster, self.limit);
        loop {
            match self.reader.poll(Duration::from_millis(100)) {
                // Everything before the end was decided when reading began.
                Some(Polled::End) => return Ok(()),
                Some(Polled::Record { offset, key, value }) => {
                    late = deadline(&*self.cluster, self.limit);
                    if let Some(value) = value {
                        let place =
                            |error: Error| error.context(format!("cursor topic {}, offset {offset}", self.topic));
                        let cursor = Cursor::decode(&value).map_err(place)?;
                        let sink = String::from_utf8_lossy(&key).into_owned();
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
                Some(Polled::Failed(error)) if crate::error::kind_of(error.code) == ErrorKind::Configuration => {
                    return Err(failed(format!("cannot read cursor topic {}", self.topic), error));
                }
                Some(Polled::Failed(_)) | None => {}
            }
            if self.cluster.now() >= late {
                let what = format!("cursor topic {}: nothing came for {:?}", self.topic, self.limit);
                return Err(Error::new(ErrorKind::Retry, what));
            }
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// The group that offsets go to.
    pub(crate) fn group(&self) -> Option<GroupMetadata> {
        self.reader.group()
    }
}
