//! [`KafkaSink`]: a batch's output, its cursor and the offsets of its input in one transaction.

pub(crate) mod client;
mod cursors;
mod group;
mod join;
mod librdkafka;
mod partitioner;
mod producer;
pub(crate) mod remembered;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millpond_core::sink::{Cursor, Guarantee, Records, Sink, SinkStart, SourcePositions};
use millpond_core::{BatchTime, Error, ErrorKind, Result};

use self::client::Cluster;
use self::group::Group;
use self::join::Groups;
pub(crate) use self::librdkafka::Librdkafka;
pub use self::partitioner::Partitioner;
pub(crate) use self::producer::{Failure, Outcome, TransactionalProducer};
pub(crate) use self::remembered::Remembered;
use crate::settings::Settings;
use crate::source::{CURSOR_TOPIC_SUFFIX, is_topic_name};

/// Writes a stream to a Kafka topic, exactly once.
///
/// Making one connects to nothing. All Kafka sinks of a context that write to one cluster share one producer and one
/// transaction: what a batch writes to all of their topics becomes visible to `read_committed` readers at once, together with
/// the batch's cursor and the offsets of the Kafka sources of that cluster.
///
/// The cursor lies in a compacted topic of one partition that belongs to the application and is created when it is missing.
///
/// ```no_run
/// use millpond_kafka::KafkaSink;
///
/// let counts = KafkaSink::to("localhost:9092", "counts").setting("compression.type", "lz4");
/// ```
pub struct KafkaSink {
    options: Options,
    clients: Arc<dyn Cluster>,
    joined: Option<Joined>,
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) transactional_id: Option<String>,
    pub(crate) cursor_topic: Option<String>,
    pub(crate) offsets_group: Option<String>,
    pub(crate) settings: Settings,
    pub(crate) partitioner: Partitioner,
    pub(crate) wait_for_broker: Duration,
}

/// A sink that has started.
struct Joined {
    name: String,
    group: Arc<Group>,
    remembered: Remembered,
    /// The producer that this sink was fenced with last.
    generation: u64,
}

impl KafkaSink {
    /// A sink that writes to a topic. `brokers`: `host:port`, several with commas between them.
    pub fn to(brokers: impl Into<String>, topic: impl Into<String>) -> Self {
        let options = Options {
            brokers: brokers.into(),
            topic: topic.into(),
            transactional_id: None,
            cursor_topic: None,
            offsets_group: None,
            settings: Settings::default(),
            partitioner: Partitioner::default(),
            wait_for_broker: Duration::from_secs(5 * 60),
        };
        KafkaSink { options, clients: Arc::new(Librdkafka), joined: None }
    }

    /// The transactional id. Default: the application's name. It must be this application's alone: whoever starts with it
    /// shuts out everybody else who uses it. After a change the old one is shut out too.
    pub fn transactional_id(mut self, id: impl Into<String>) -> Self {
        self.options.transactional_id = Some(id.into());
        self
    }

    /// The topic of the application's cursors. Default: the application's name and `.millpond-cursor`. Created, compacted and
    /// with one partition, if it is missing; one with another cleanup policy is refused.
    pub fn cursor_topic(mut self, topic: impl Into<String>) -> Self {
        self.options.cursor_topic = Some(topic.into());
        self
    }

    /// The consumer group under which the offsets of the sources are shown to monitoring. Recovery never reads them.
    /// Default: the application's name.
    pub fn offsets_group(mut self, group: impl Into<String>) -> Self {
        self.options.offsets_group = Some(group.into());
        self
    }

    /// How records go to partitions. Default: as the Java client does it.
    pub fn partitioner(mut self, partitioner: Partitioner) -> Self {
        self.options.partitioner = partitioner;
        self
    }

    /// How long the start waits for a broker that is away. Default: 5 minutes.
    pub fn wait_for_broker(mut self, limit: Duration) -> Self {
        self.options.wait_for_broker = limit;
        self
    }

    /// Any setting of librdkafka's producer. Those that would break exactly-once are refused by name when the context starts.
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.settings.set(key.into(), value.into());
        self
    }

    /// Another cluster than a real one: a model's.
    pub(crate) fn on(mut self, clients: impl Cluster + 'static) -> Self {
        self.clients = Arc::new(clients);
        self
    }

    fn check(&self, start: &SinkStart) -> Result<()> {
        let wrong = |why: String| Err(Error::new(ErrorKind::Configuration, why));
        self.options.settings.check_sink()?;
        let Options { brokers, topic, .. } = &self.options;
        if brokers.trim().is_empty() {
            return wrong("a Kafka sink needs the address of a broker: `host:port`".into());
        }
        if !is_topic_name(topic) {
            return wrong(format!("`{topic}` cannot be the name of a Kafka topic"));
        }
        let cursor_topic = self.options.cursor_topic(&start.application);
        if !is_topic_name(&cursor_topic) {
            return wrong(format!(
                "the cursor topic cannot be called `{cursor_topic}`: name one with cursor_topic() on the sink"
            ));
        }
        if *topic == cursor_topic {
            return wrong(format!("topic {topic} is the cursor topic: output cannot go there"));
        }
        Ok(())
    }

    fn joined(&mut self) -> Result<&mut Joined> {
        self.joined.as_mut().ok_or_else(|| Error::new(ErrorKind::Stopped, "the Kafka sink is not started"))
    }
}

impl Options {
    pub(crate) fn transactional_id(&self, application: &str) -> String {
        self.transactional_id.clone().unwrap_or_else(|| application.to_owned())
    }

    pub(crate) fn cursor_topic(&self, application: &str) -> String {
        self.cursor_topic.clone().unwrap_or_else(|| format!("{application}{CURSOR_TOPIC_SUFFIX}"))
    }

    pub(crate) fn offsets_group(&self, application: &str) -> String {
        self.offsets_group.clone().unwrap_or_else(|| application.to_owned())
    }
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink").field("options", &self.options).finish_non_exhaustive()
    }
}

/// After any error the same sink can go through `peek` and `fence` again: that is how it recovers.
impl Sink for KafkaSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::Transactional
    }

    fn describe(&self) -> String {
        let id = match (&self.joined, &self.options.transactional_id) {
            (Some(joined), _) => joined.group.transactional_id().to_owned(),
            (None, Some(id)) => id.clone(),
            (None, None) => return format!("Kafka topic {}", self.options.topic),
        };
        format!("Kafka topic {}, transactional id {id}", self.options.topic)
    }

    fn peek(&mut self, start: &SinkStart) -> Result<Option<Cursor>> {
        self.check(start)?;
        let groups = start.shared.get::<Groups>();
        let group = groups.join(&self.clients, &self.options, start)?;
        let mut remembered = Remembered::decode(&start.remembered)?;
        remembered.check(group.cluster_id(), &self.options.brokers)?;
        remembered.add(group.cluster_id(), group.transactional_id());
        // A sink that recovers keeps what it knew.
        let generation = self.joined.as_ref().map_or(0, |joined| joined.generation);
        self.joined = Some(Joined { name: start.name.clone(), group: Arc::clone(&group), remembered, generation });
        group.peek(&start.name)
    }

    fn fence(&mut self, _start: &SinkStart) -> Result<Option<Cursor>> {
        let joined = self.joined()?;
        let old_ids = joined.remembered.other_ids(joined.group.transactional_id());
        let (generation, cursor) = joined.group.fence(&joined.name, joined.generation, &old_ids)?;
        joined.generation = generation;
        Ok(cursor)
    }

    fn remember(&self) -> Vec<u8> {
        self.joined.as_ref().map_or_else(Vec::new, |joined| joined.remembered.encode())
    }

    fn begin(&mut self, batch: BatchTime, positions: &[SourcePositions]) -> Result<()> {
        let joined = self.joined()?;
        joined.group.begin(&joined.name, batch, positions)
    }

    fn write(&mut self, records: Records) -> Result<()> {
        let topic = self.options.topic.clone();
        let joined = self.joined()?;
        joined.group.write(&topic, &records)
    }

    fn prepare(&mut self, cursor: &Cursor) -> Result<()> {
        let joined = self.joined()?;
        joined.group.prepare(&joined.name, cursor)
    }

    fn commit(&mut self) -> Result<()> {
        let joined = self.joined()?;
        joined.group.commit(&joined.name)
    }

    fn abort(&mut self) -> Result<()> {
        let joined = self.joined()?;
        joined.group.abort(&joined.name)
    }

    fn close(&mut self) {
        if let Some(joined) = self.joined.take() {
            joined.group.close();
        }
    }
}
