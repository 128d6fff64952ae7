//! A reader of the cursor topic on the model cluster.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millpond_core::{Error, ErrorKind, Result};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::cluster::ModelCluster;
use crate::client::Time;
use crate::native::TopicInfo;
use crate::position::TopicId;
use crate::sink::client::{CallError, CursorReader, GroupMetadata, Isolation, Polled};

/// Between two tries to reach the broker.
const REST: Duration = Duration::from_millis(50);

pub(super) struct ModelReader {
    cluster: Arc<ModelCluster>,
    topic: String,
    group: String,
    /// The next offset, while assigned.
    next: Mutex<Option<i64>>,
}

impl ModelReader {
    pub(super) fn new(cluster: &Arc<ModelCluster>, topic: &str, group: &str) -> Self {
        let (topic, group) = (topic.to_owned(), group.to_owned());
        ModelReader { cluster: Arc::clone(cluster), topic, group, next: Mutex::default() }
    }
}

/// Waits until the broker answers.
pub(super) fn wait_for_cluster(cluster: &Arc<ModelCluster>, limit: Duration) -> Result<String> {
    let deadline = cluster.now() + limit;
    while cluster.ask("DescribeCluster", |_| ()).is_err() {
        if cluster.now() >= deadline {
            return Err(Error::new(ErrorKind::Retry, format!("the model broker did not answer within {limit:?}")));
        }
        cluster.sleep(REST);
    }
    Ok("model".into())
}

impl CursorReader for ModelReader {
    fn wait_for_cluster(&self, limit: Duration) -> Result<String> {
        wait_for_cluster(&self.cluster, limit)
    }

    fn describe(&self, topic: &str, _: Duration) -> Result<Vec<TopicInfo>, CallError> {
        let found = self.cluster.ask("DescribeTopics", |broker| broker.has_topic(topic))?;
        let info = TopicInfo { name: topic.to_owned(), id: TopicId::default(), partitions: vec![0], error: None };
        Ok(vec![if found { info } else { TopicInfo { error: Some(Code::UnknownTopicOrPartition), ..info } }])
    }

    fn cleanup_policy(&self, _: &str, _: Duration) -> Result<Option<String>, CallError> {
        self.cluster.ask("DescribeConfigs", |_| Some("compact".into()))
    }

    fn create_topic(&self, topic: &str, _: &[(&str, &str)], _: Duration) -> Result<(), CallError> {
        match self.cluster.ask("CreateTopics", |broker| broker.create_topic(topic))? {
            true => Ok(()),
            false => Err(Code::TopicAlreadyExists.into()),
        }
    }

    fn watermarks(&self, isolation: Isolation, _: Duration) -> Result<(i64, i64), CallError> {
        let ends = self.cluster.ask("ListOffsets", |broker| broker.ends(&self.topic))?;
        let (high, stable) = ends.ok_or(Code::UnknownTopicOrPartition)?;
        Ok((0, if isolation == Isolation::Committed { stable } else { high }))
    }

    fn assign(&self, offset: i64) -> Result<(), CallError> {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(offset);
        Ok(())
    }

    fn unassign(&self) -> Result<(), CallError> {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn poll(&self, limit: Duration) -> Option<Polled> {
        let next = (*self.next.lock().unwrap_or_else(PoisonError::into_inner))?;
        match self.cluster.ask("Fetch", |broker| broker.next_committed(&self.topic, next)) {
            Ok(Some((offset, (key, value)))) => {
                *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(offset + 1);
                Some(Polled::Record { offset, key: key.unwrap_or_default(), value })
            }
            Ok(None) => Some(Polled::End),
            Err(error) => {
                self.cluster.sleep(limit);
                Some(Polled::Failed(error))
            }
        }
    }

    fn serve(&self) {}

    fn group(&self) -> Option<GroupMetadata> {
        Some(GroupMetadata::Named(self.group.clone()))
    }
}
