//! [`KafkaSource`]: records of Kafka topics, replayed by offset or from the log.

mod blocks;
pub(crate) mod content;
mod discovery;
mod fetcher;
mod given;
mod metrics;
mod options;
mod partition;
mod queues;
pub(crate) mod ranges;
mod replay;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use millpond_core::log::BlockLog;
use millpond_core::source::{
    BlockId, FedRecord, Plan, PlanRequest, Replay, Source, SourceEvents, SourcePartition, SourceStart,
};
use millpond_core::{BatchTime, BoxError, Error, ErrorKind, Result};
use serde::de::DeserializeOwned;

use self::fetcher::{Fetcher, Shared, Task};
pub use self::given::{KafkaRanges, OffsetRange};
pub use self::metrics::KafkaSourceMetrics;
pub(crate) use self::options::is_topic_name;
pub use self::options::{Lost, StartingOffsets};
use self::options::{Options, Subscription};
use self::partition::{Content, Partition};
use self::queues::{Held, Key, PartitionQueue, Queues};
use self::ranges::{Range, decode_ranges};
use self::replay::{Replayer, Wanted};
use crate::decode::{Decode, DecodeWith, Json, Raw, Utf8};
use crate::position::{Position, decode_all};
use crate::record::RecordRef;

pub(crate) use self::discovery::CURSOR_TOPIC_SUFFIX;

/// Records of Kafka topics.
///
/// Making one connects to nothing. When the context starts, the source assigns all partitions to itself (it joins no group,
/// so a restart waits for nobody), reads committed records only, and picks up new partitions and topics. Batches refer to
/// records by offset; after a crash they are read from the broker again, or, with [`log_content`](Self::log_content), from
/// the log.
///
/// ```no_run
/// use millpond_kafka::{KafkaSource, StartingOffsets};
///
/// let lines = KafkaSource::subscribe("localhost:9092", ["lines"]).utf8();
/// let sizes = KafkaSource::subscribe_pattern("localhost:9092", r"orders\..*")
///     .starting_offsets(StartingOffsets::Latest)
///     .decode(|record| Ok::<_, std::convert::Infallible>((record.topic().to_owned(), record.value().map_or(0, <[u8]>::len))));
/// ```
pub struct KafkaSource<D = Raw> {
    options: Options,
    decoder: Arc<D>,
    metrics: Arc<KafkaSourceMetrics>,
    running: Option<Running>,
}

/// A started source.
struct Running {
    options: Arc<Options>,
    name: String,
    group: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    blocks: BlockLog,
    /// What live batches took, until they are committed.
    held: HashMap<(Key, i64), Arc<Held>>,
    batches: BTreeMap<BatchTime, Vec<(Key, i64)>>,
    replayer: Option<Arc<Replayer>>,
}

impl KafkaSource<Raw> {
    /// All partitions of topics, new ones too. `brokers`: `host:port`, several with commas between them.
    pub fn subscribe(brokers: impl Into<String>, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let topics = topics.into_iter().map(Into::into).collect();
        KafkaSource::new(brokers.into(), Subscription::Topics(topics))
    }

    /// All partitions of all topics whose whole name matches a regular expression, now or later. Kafka's internal topics and
    /// the cursor topics of Millpond's own sinks never match.
    pub fn subscribe_pattern(brokers: impl Into<String>, pattern: impl Into<String>) -> Self {
        KafkaSource::new(brokers.into(), Subscription::Pattern(pattern.into()))
    }

    /// These partitions only.
    pub fn assign(brokers: impl Into<String>, partitions: impl IntoIterator<Item = (impl Into<String>, i32)>) -> Self {
        let partitions = partitions.into_iter().map(|(topic, partition)| (topic.into(), partition)).collect();
        KafkaSource::new(brokers.into(), Subscription::Assigned(partitions))
    }

    fn new(brokers: String, subscription: Subscription) -> Self {
        let options = Options::new(brokers, subscription);
        KafkaSource { options, decoder: Arc::new(Raw), metrics: Arc::default(), running: None }
    }
}

impl<D> KafkaSource<D> {
    /// Decodes each record with a function of the program, which sees it in librdkafka's own buffer: what it does not keep is
    /// never copied. It must be deterministic: after a crash it is called again for the same records.
    ///
    /// A record for which it returns an error is refused; see [`skip_refused`](Self::skip_refused).
    pub fn decode<F, T, E>(self, function: F) -> KafkaSource<DecodeWith<F, T, E>>
    where
        F: Fn(&RecordRef<'_>) -> Result<T, E> + Send + Sync + 'static,
        T: Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.with_decoder(DecodeWith::new(function))
    }

    /// The values as text. A value that is not UTF-8, and a tombstone, is refused.
    pub fn utf8(self) -> KafkaSource<Utf8> {
        self.with_decoder(Utf8)
    }

    /// The values as JSON. What does not fit the type, and a tombstone, is refused.
    pub fn json<T: DeserializeOwned + Send + 'static>(self) -> KafkaSource<Json<T>> {
        self.with_decoder(Json::default())
    }

    /// The records themselves, copied: key, value, headers, time and place.
    pub fn raw(self) -> KafkaSource<Raw> {
        self.with_decoder(Raw)
    }

    /// Decodes with a type of the program's own.
    pub fn with_decoder<D2: Decode>(self, decoder: D2) -> KafkaSource<D2> {
        KafkaSource { options: self.options, decoder: Arc::new(decoder), metrics: self.metrics, running: None }
    }

    /// Where reading starts at the very first start. Default: the earliest record.
    pub fn starting_offsets(mut self, starting: StartingOffsets) -> Self {
        self.options.starting = starting;
        self
    }

    /// Skips and counts refused records. Default: the pipeline stops with an error that names topic, partition and offset.
    /// Where the program reads refused records as a second stream (`split_refused`), they go there in either case.
    pub fn skip_refused(mut self) -> Self {
        self.options.skip_refused = true;
        self
    }

    /// Logs what is received, not only where it lies: recovery then needs nothing of the broker's retention. Costs a write of
    /// every record to the local disk. Default: batches refer to offsets.
    pub fn log_content(mut self) -> Self {
        self.options.log_content = true;
        self
    }

    /// Reads records of open and aborted transactions too. Not with exactly-once in mind: what is read may never have
    /// happened. Default: committed records only.
    pub fn read_uncommitted(mut self) -> Self {
        self.options.read_uncommitted = true;
        self
    }

    /// A batch takes at most so many records of one partition. Default: everything that was fetched.
    pub fn max_records_per_partition(mut self, count: u64) -> Self {
        self.options.max_records_per_partition = Some(count);
        self
    }

    /// A batch takes at most so many records of one partition as come at this rate, records a second, in its interval; one at least.
    /// Beside [`max_records_per_partition`](KafkaSource::max_records_per_partition) the smaller one counts. Default: no limit.
    ///
    /// # Panics
    /// If `records_per_second` is 0.
    pub fn max_rate_per_partition(mut self, records_per_second: u64) -> Self {
        assert!(records_per_second > 0, "a rate of 0 records a second");
        self.options.max_rate_per_partition = Some(records_per_second);
        self
    }

    /// Under backpressure a batch takes so many records at least of each partition that has them, however small its share of
    /// what the source may bring; default 1. The maximum goes before.
    pub fn min_records_per_partition(mut self, count: u64) -> Self {
        self.options.min_records_per_partition = count;
        self
    }

    /// How long the start, and a replay, wait for a broker that is away. Default: 5 minutes. A broker that is lost while the
    /// source runs is waited for without a limit; the error is reported and reading goes on when it is back.
    pub fn wait_for_broker(mut self, limit: Duration) -> Self {
        self.options.wait_for_broker = limit;
        self
    }

    /// How often the source looks for new topics and partitions, and for ones that are gone. Default: 10 seconds.
    pub fn discover_every(mut self, interval: Duration) -> Self {
        self.options.discover_every = interval;
        self
    }

    /// What happens when the broker no longer has what should be read. Default: [`Lost::Stop`].
    pub fn on_lost_range(mut self, policy: Lost) -> Self {
        self.options.lost = policy;
        self
    }

    /// Any setting of librdkafka. Those that would break exactly-once are refused by name when the context starts.
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.settings.set(key.into(), value.into());
        self
    }

    /// The source's counters, which stay readable while it runs.
    pub fn metrics(&self) -> Arc<KafkaSourceMetrics> {
        Arc::clone(&self.metrics)
    }
}

impl<D> fmt::Debug for KafkaSource<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<D: Decode> Source for KafkaSource<D> {
    type Item = D::Item;

    fn kind(&self) -> &'static str {
        "kafka"
    }

    fn identity(&self) -> String {
        self.options.identity()
    }

    fn replay(&self) -> Replay {
        if self.options.log_content { Replay::FromLog } else { Replay::ByPosition }
    }

    /// May be called again after a failure: what was received before is forgotten and read again.
    fn start(&mut self, start: SourceStart) -> Result<()> {
        self.stop();
        self.options.check()?;
        self.running = Some(Running::start(Arc::new(self.options.clone()), start, &self.metrics)?);
        Ok(())
    }

    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        let running = self.running.as_mut().ok_or_else(not_started)?;
        running.plan(request)
    }

    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<D::Item>>>> {
        let running = self.running.as_mut().ok_or_else(not_started)?;
        let parts = running.read(plan)?;
        let partition = |(key, records, content)| -> Arc<dyn SourcePartition<D::Item>> {
            Arc::new(Partition {
                key,
                records,
                content,
                decoder: Arc::clone(&self.decoder),
                skip_refused: self.options.skip_refused,
                metrics: Arc::clone(&self.metrics),
            })
        };
        Ok(parts.into_iter().map(partition).collect())
    }

    fn release(&mut self, committed: BatchTime) {
        if let Some(running) = &mut self.running {
            running.release(committed);
        }
    }

    fn stop_receiving(&mut self, _: Duration) -> Result<()> {
        if let Some(running) = &mut self.running {
            running.stop_receiving();
        }
        Ok(())
    }

    /// Blocks that were logged are planned before a graceful stop; what the broker has can wait there.
    fn has_waiting(&self) -> bool {
        self.options.log_content && self.running.as_ref().is_some_and(|running| running.shared.queues().has_waiting())
    }

    fn stop(&mut self) {
        self.running = None;
    }

    fn feed(&self, records: Vec<FedRecord>) -> Result<Arc<dyn SourcePartition<D::Item>>> {
        Ok(Arc::new(Partition {
            key: ("fed".into(), 0),
            records: records.len() as u64,
            content: Content::Fed(records),
            decoder: Arc::clone(&self.decoder),
            skip_refused: self.options.skip_refused,
            metrics: Arc::clone(&self.metrics),
        }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop_receiving();
    }
}

fn not_started() -> Error {
    Error::new(ErrorKind::Stopped, "the Kafka source is not started")
}

impl Running {
    fn start(options: Arc<Options>, start: SourceStart, metrics: &Arc<KafkaSourceMetrics>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        add_known(&mut shared.queues(), &start)?;
        let first_start = start.positions.is_none();
        let task = Task {
            options: Arc::clone(&options),
            name: start.name.clone(),
            group: start.application.clone(),
            first_start,
            shared: Arc::clone(&shared),
            blocks: start.blocks.clone(),
            events: start.events.clone(),
            metrics: Arc::clone(metrics),
        };
        let thread = if options.log_content && !first_start {
            // Everything that recovery reads is in the log: it need not wait for a broker.
            spawn(&start.name, start.events, Arc::clone(&shared), move || Fetcher::connect(task))?
        } else {
            let fetcher = Fetcher::connect(task)?;
            spawn(&start.name, start.events, Arc::clone(&shared), move || Ok(fetcher))?
        };
        Ok(Running {
            options,
            name: start.name,
            group: start.application,
            shared,
            thread: Some(thread),
            blocks: start.blocks,
            held: HashMap::new(),
            batches: BTreeMap::new(),
            replayer: None,
        })
    }

    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        let limits = self.options.limits(request);
        let (plan, held) = self.shared.queues().plan(&limits)?;
        let batch = self.batches.entry(request.time).or_default();
        for (key, start, part) in held {
            batch.push((key.clone(), start));
            self.held.insert((key, start), Arc::new(part));
        }
        Ok(plan)
    }

    /// Every partition of the plan, with where its records are now.
    fn read(&mut self, plan: &Plan) -> Result<Vec<(Key, u64, Content)>> {
        let positions = decode_all(&plan.positions)?;
        let mut blocks = plan.blocks.iter().copied();
        let mut parts: Vec<(Key, u64, Content)> = Vec::with_capacity(positions.len());
        let mut keys =
            positions.into_iter().map(|(topic, partition, position)| ((Arc::from(topic), partition), position));
        let broken = || Error::new(ErrorKind::Restore, "the ranges of a plan do not fit its positions");
        for range in decode_ranges(&plan.read)? {
            while (parts.len() as u32) < range.index {
                parts.push((keys.next().ok_or_else(broken)?.0, 0, Content::Empty));
            }
            let (key, position) = keys.next().ok_or_else(broken)?;
            let of_range: Vec<BlockId> = blocks.by_ref().take(range.blocks as usize).collect();
            let content = self.content(&key, position, &range, of_range)?;
            parts.push((key, range.records, content));
        }
        parts.extend(keys.map(|(key, _)| (key, 0, Content::Empty)));
        Ok(parts)
    }

    fn content(&mut self, key: &Key, position: Position, range: &Range, blocks: Vec<BlockId>) -> Result<Content> {
        // In memory as far as this process fetched it; blocks that an earlier process logged are not.
        let held = self.held.get(&(key.clone(), range.start)).filter(|held| {
            let ends = held.runs.last().is_some_and(|run| run.end == range.end);
            ends && held.runs.iter().all(|run| run.memory.is_some())
        });
        if let Some(held) = held {
            return Ok(Content::Held(Arc::clone(held)));
        }
        if self.options.log_content {
            return Ok(Content::Logged { log: self.blocks.clone(), blocks });
        }
        let Range { start, end, records, .. } = *range;
        let wanted = Wanted { key: key.clone(), position, start, end, records: OnceLock::from(records) };
        Ok(Content::AtBroker { replayer: self.replayer()?, wanted })
    }

    fn replayer(&mut self) -> Result<Arc<Replayer>> {
        if let Some(replayer) = &self.replayer {
            return Ok(Arc::clone(replayer));
        }
        let of = format!("replay of source `{}`", self.name);
        let replayer = Arc::new(Replayer::new(Arc::clone(&self.options), of, &self.group)?);
        self.replayer = Some(Arc::clone(&replayer));
        Ok(replayer)
    }

    fn release(&mut self, committed: BatchTime) {
        let later = self.batches.split_off(&BatchTime::from_ms(committed.as_ms() + 1));
        let live = !self.batches.is_empty();
        for part in std::mem::replace(&mut self.batches, later).into_values().flatten() {
            self.held.remove(&part);
        }
        // A live batch has been committed: nothing is left to be replayed.
        if live {
            self.replayer = None;
        }
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    fn stop_receiving(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic in it was reported by the thread itself.
            let _ = thread.join();
        }
        if !self.options.log_content {
            // The broker keeps what no batch holds.
            self.shared.queues().partitions.values_mut().for_each(PartitionQueue::drop_waiting);
        }
    }
}

/// What is known without a broker: where partitions stand, and the blocks that wait in the log.
fn add_known(queues: &mut Queues, start: &SourceStart) -> Result<()> {
    for (topic, partition, position) in decode_all(start.positions.as_deref().unwrap_or_default())? {
        queues.partitions.insert((topic.into(), partition), PartitionQueue::new(position));
    }
    blocks::add_unplanned(queues, &start.blocks, &start.unplanned)
}

fn spawn(
    name: &str,
    events: SourceEvents,
    shared: Arc<Shared>,
    connect: impl FnOnce() -> Result<Fetcher> + Send + 'static,
) -> Result<JoinHandle<()>> {
    let body = move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| connect()?.run()));
        let result =
            result.unwrap_or_else(|_| Err(Error::new(ErrorKind::Restart, "the thread that fetches has panicked")));
        match result {
            Err(error) if shared.goes_on() => {
                shared.queues().fail(&error);
                events.fatal(error);
            }
            _ => {}
        }
    };
    std::thread::Builder::new()
        .name(format!("kafka {name}"))
        .spawn(body)
        .map_err(|error| Error::new(ErrorKind::Retry, "cannot start the thread that fetches").with_source(error))
}
