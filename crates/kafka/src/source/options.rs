//! What a program says about a source.

use std::collections::BTreeMap;
use std::time::Duration;

use millpond_core::source::PlanRequest;
use millpond_core::{Error, ErrorKind, Result};

use super::queues::Limits;
use crate::settings::Settings;

/// Where a source starts to read in partitions that exist when it starts for the very first time.
///
/// Resolved to numbers then and kept: a restart goes on where the batches left off, also in a partition in which nothing
/// has ever come. Partitions that are found later are read from their beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartingOffsets {
    /// At the oldest record that the broker still has.
    #[default]
    Earliest,
    /// Behind the newest record.
    Latest,
    /// At these offsets by (topic, partition), at the earliest record in partitions that are not named. An offset that a
    /// partition has not grown to yet is waited for.
    Given(BTreeMap<(String, i32), u64>),
    /// At the first record whose time is not before this one, in milliseconds since the epoch; behind the newest if there is
    /// none.
    ByTimestamp(u64),
}

/// What a source does when the broker no longer has records that it should read: they were deleted by retention, or with
/// their topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// It stops with an error that says how much is lost, and where.
    #[default]
    Stop,
    /// It says so in the log and to listeners, counts the offsets, and goes on with what is left. What was computed from
    /// records that are gone cannot be recomputed: recovery may then refuse to go on.
    LogAndSkip,
}

/// Which partitions a source reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subscription {
    Topics(Vec<String>),
    Pattern(String),
    Assigned(Vec<(String, i32)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) brokers: String,
    pub(crate) subscription: Subscription,
    pub(crate) starting: StartingOffsets,
    pub(crate) settings: Settings,
    pub(crate) skip_refused: bool,
    pub(crate) log_content: bool,
    pub(crate) read_uncommitted: bool,
    pub(crate) max_records_per_partition: Option<u64>,
    /// Records a second.
    pub(crate) max_rate_per_partition: Option<u64>,
    /// Of each partition under backpressure.
    pub(crate) min_records_per_partition: u64,
    pub(crate) wait_for_broker: Duration,
    pub(crate) discover_every: Duration,
    pub(crate) lost: Lost,
}

impl Options {
    pub(crate) fn new(brokers: String, subscription: Subscription) -> Self {
        Options {
            brokers,
            subscription,
            starting: StartingOffsets::default(),
            settings: Settings::default(),
            skip_refused: false,
            log_content: false,
            read_uncommitted: false,
            max_records_per_partition: None,
            max_rate_per_partition: None,
            min_records_per_partition: 1,
            wait_for_broker: Duration::from_secs(5 * 60),
            discover_every: Duration::from_secs(10),
            lost: Lost::default(),
        }
    }

    /// What a batch may take.
    pub(crate) fn limits(&self, request: &PlanRequest) -> Limits {
        let of_rate =
            |rate: u64| (u128::from(rate) * request.interval.as_millis() / 1000).clamp(1, u128::from(u64::MAX)) as u64;
        let most = [self.max_records_per_partition, self.max_rate_per_partition.map(of_rate)];
        Limits {
            most: most.into_iter().flatten().min(),
            least: self.min_records_per_partition,
            total: request.max_records,
        }
    }

    /// What can be told to be wrong without a broker.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::new(ErrorKind::Configuration, why));
        self.settings.check_source()?;
        if self.brokers.trim().is_empty() {
            return wrong("a Kafka source needs the address of a broker: `host:port`".into());
        }
        match &self.subscription {
            Subscription::Topics(topics) if topics.is_empty() => wrong("a Kafka source needs a topic".into()),
            Subscription::Assigned(partitions) if partitions.is_empty() => {
                wrong("a Kafka source needs a partition".into())
            }
            Subscription::Assigned(partitions) => match partitions.iter().find(|(_, partition)| *partition < 0) {
                Some((topic, partition)) => wrong(format!("topic {topic} has no partition {partition}")),
                None => Ok(()),
            },
            Subscription::Topics(topics) => match topics.iter().find(|topic| !is_topic_name(topic)) {
                Some(topic) => wrong(format!("`{topic}` cannot be the name of a Kafka topic")),
                None => Ok(()),
            },
            Subscription::Pattern(_) => Ok(()),
        }
    }

    /// What makes the source another one if it changes.
    pub(crate) fn identity(&self) -> String {
        match &self.subscription {
            Subscription::Topics(topics) => format!("topics {}", topics.join(", ")),
            Subscription::Pattern(pattern) => format!("topics that match {pattern}"),
            Subscription::Assigned(partitions) => {
                let names: Vec<_> =
                    partitions.iter().map(|(topic, partition)| format!("{topic}/{partition}")).collect();
                format!("partitions {}", names.join(", "))
            }
        }
    }

    pub(crate) fn client(&self, group: &str) -> rdkafka::ClientConfig {
        let ours = [
            // Once the local queue has been full, the default rests for a second while the pipeline starves.
            ("fetch.queue.backoff.ms", "1"),
            // Beside what the engine's budget allows: what is fetched ahead.
            ("queued.max.messages.kbytes", "16384"),
            ("check.crcs", "true"),
        ];
        let isolation = if self.read_uncommitted { "read_uncommitted" } else { "read_committed" };
        let must = [
            ("group.id", group),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("isolation.level", isolation),
        ];
        self.settings.client(&self.brokers, &ours, &must)
    }
}

/// The characters that Kafka allows.
pub(crate) fn is_topic_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 249 && name != "." && name != ".." && name.bytes().all(legal)
}
