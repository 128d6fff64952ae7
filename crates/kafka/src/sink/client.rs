//! What the sink asks of a Kafka cluster: the calls of a transactional producer, and of a reader of the cursor topic. librdkafka
//! answers them (`librdkafka.rs`), in simulations a model ([`crate::simulation`]). What a call's outcome demands, and which call comes
//! next, is decided above: in `producer`, `cursors` and `group`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_core::Result;
use millpond_core::sink::Records;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::partitioner::Partitioner;
use crate::client::{HasCode, Reports, Time};
use crate::native::TopicInfo;
use crate::settings::Settings;

/// Where clients come from.
pub(crate) trait Cluster: Time {
    /// Makes a producer. Nothing is connected yet, nobody fenced.
    fn producer(&self, brokers: &str, id: &str, settings: &Settings, reports: &Reports) -> Result<Box<dyn Producer>>;

    /// Makes a reader of the cursor topic. Nothing is connected yet.
    fn reader(&self, brokers: &str, topic: &str, group: &str, settings: &Settings) -> Result<Box<dyn CursorReader>>;

    /// Writes records outside of any transaction: for a negative control.
    fn write_outside(&self, brokers: &str, topic: &str, records: &Records) -> Result<(), CallError>;
}

/// A transactional producer.
pub(crate) trait Producer: Send {
    /// Waits until a broker answers, and gives the cluster's id.
    fn wait_for_cluster(&self, brokers: &str, limit: Duration) -> Result<String>;
    fn add_topic(&mut self, topic: &str, partitioner: Partitioner) -> Result<(), CallError>;
    fn init_transactions(&self, limit: Duration) -> Result<(), CallError>;
    fn begin_transaction(&self) -> Result<(), CallError>;
    /// Takes records from the one at `from` on; how many it took, and why no more.
    fn produce(&self, topic: &str, records: &Records, from: usize) -> (usize, Option<Code>);
    /// Records taken and not acknowledged.
    fn in_flight(&self) -> usize;
    /// The offsets, by topic and partition, of the next records of a group.
    fn send_offsets(
        &self,
        offsets: &[(&str, i32, i64)],
        group: &GroupMetadata,
        limit: Duration,
    ) -> Result<(), CallError>;
    fn commit_transaction(&self, limit: Duration) -> Result<(), CallError>;
    /// Takes delivery reports meanwhile, on which it would block.
    fn abort_transaction(&self, limit: Duration) -> Result<(), CallError>;
    /// The error after which the producer is of no use.
    fn fatal_error(&self) -> Option<(Code, String)>;
    /// Handles everything the client has to say at this moment.
    fn serve(&self);
}

/// Whose end a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// The high watermark.
    Uncommitted,
    /// The last stable offset.
    Committed,
}

/// A reader of the cursor topic's one partition; it also asks about the cluster. Writes no records and shuts out nobody.
pub(crate) trait CursorReader: Send + Sync {
    /// Waits until a broker answers, and gives the cluster's id.
    fn wait_for_cluster(&self, limit: Duration) -> Result<String>;
    /// What is known of a topic.
    fn describe(&self, topic: &str, limit: Duration) -> Result<Vec<TopicInfo>, CallError>;
    fn cleanup_policy(&self, topic: &str, limit: Duration) -> Result<Option<String>, CallError>;
    /// Creates a topic of one partition with these settings.
    fn create_topic(&self, topic: &str, settings: &[(&str, &str)], limit: Duration) -> Result<(), CallError>;
    /// The first offset and the end.
    fn watermarks(&self, isolation: Isolation, limit: Duration) -> Result<(i64, i64), CallError>;
    /// Begins to read what is committed from an offset on.
    fn assign(&self, offset: i64) -> Result<(), CallError>;
    fn unassign(&self) -> Result<(), CallError>;
    fn poll(&self, limit: Duration) -> Option<Polled>;
    /// Handles everything the clients have to say at this moment.
    fn serve(&self);
    /// The group that offsets go to; without having joined it, it is a plain register.
    fn group(&self) -> Option<GroupMetadata>;
}

/// What reading gives.
pub(crate) enum Polled {
    Record {
        offset: i64,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    /// Nothing more is committed.
    End,
    Failed(CallError),
}

/// Names a group to a producer.
#[derive(Clone)]
pub(crate) enum GroupMetadata {
    Librdkafka(Arc<ConsumerGroupMetadata>),
    /// To a model.
    Named(String),
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct CallError {
    pub(crate) code: Option<Code>,
    /// What is said of errors of transactions; none of other errors.
    pub(crate) flags: Option<Flags>,
    /// What is in flight was not acknowledged in time.
    pub(crate) is_flush: bool,
    pub(crate) text: String,
}

/// librdkafka's flags.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) fatal: bool,
    pub(crate) retriable: bool,
    pub(crate) requires_abort: bool,
}

impl From<KafkaError> for CallError {
    fn from(error: KafkaError) -> Self {
        let flags = match &error {
            KafkaError::Transaction(inner) => Some(Flags {
                fatal: inner.is_fatal(),
                retriable: inner.is_retriable(),
                requires_abort: inner.txn_requires_abort(),
            }),
            _ => None,
        };
        let is_flush = matches!(error, KafkaError::Flush(_));
        CallError { code: error.rdkafka_error_code(), flags, is_flush, text: error.to_string() }
    }
}

impl From<Code> for CallError {
    fn from(code: Code) -> Self {
        CallError::from(KafkaError::Global(code))
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CallError {}

impl HasCode for CallError {
    fn code(&self) -> Option<Code> {
        self.code
    }
}

/// The deadline of something that may take so long.
pub(crate) fn deadline(cluster: &dyn Cluster, limit: Duration) -> Instant {
    cluster.now() + limit
}
