//! The thread of a source: fetches, hands over to the queues, logs content if asked to, and looks after partitions that
//! come, go, end or hold back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millpond_core::log::{BlockLog, Budget};
use millpond_core::source::{BlockId, SourceEvents};
use millpond_core::{Error, ErrorKind, Result};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::blocks::log_run;
use super::discovery::Discovery;
use super::metrics::{KafkaSourceMetrics, add};
use super::options::Options;
use super::queues::{Key, Lease, Queues, Run};
use crate::client::{Consumer, Reports, client_of, serve, wait_for_cluster};
use crate::create::create;
use crate::error::{failed, kind_of};
use crate::native::{FetchQueue, Fetched, Messages};
use crate::position::{Position, TopicId, cluster_hash, partition_name};

/// Messages in one fetch.
const FETCH: usize = 2048;
/// How long a fetch waits for the first message; also how often the rest is looked after.
const FETCH_WAIT: Duration = Duration::from_millis(50);
/// How long the thread rests when the budget is used up.
const FULL_WAIT: Duration = Duration::from_millis(1);
/// The same error of a client is not reported more often.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// Records that a partition may have waiting, whatever a limit of records per batch says, before it is paused.
const PAUSE_FLOOR: u64 = 20_000;

/// What the thread shares with the source.
#[derive(Default)]
pub(crate) struct Shared {
    queues: Mutex<Queues>,
    stop: AtomicBool,
}

impl Shared {
    pub(crate) fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// What a source gives to its thread.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) options: Arc<Options>,
    pub(crate) name: String,
    pub(crate) group: String,
    /// Nothing was planned before: starting offsets apply.
    pub(crate) first_start: bool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) blocks: BlockLog,
    pub(crate) events: SourceEvents,
    pub(crate) metrics: Arc<KafkaSourceMetrics>,
}

pub(crate) struct Fetcher {
    pub(super) task: Task,
    pub(super) discovery: Discovery,
    pub(super) consumer: Arc<Consumer>,
    pub(super) queue: FetchQueue,
    pub(super) cluster: u64,
    pub(super) partitions: HashMap<Key, Watched>,
    pub(super) topics: HashMap<String, WatchedTopic>,
    /// The consumer has given a partition up.
    pub(super) given_up: bool,
    pub(super) next_discovery: Instant,
    pub(super) next_look: Instant,
    pub(super) reported: HashMap<String, Instant>,
}

/// A partition as the thread sees it.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) assigned: bool,
    pub(super) paused: bool,
    /// Its end, if everything before has come.
    pub(super) at_end: Option<i64>,
    pub(super) held_back_since: Option<Instant>,
    pub(super) warned: bool,
}

pub(super) struct WatchedTopic {
    pub(super) id: TopicId,
    pub(super) missed: u32,
}

impl Fetcher {
    /// Connects, finds the partitions, checks or makes their positions, and assigns them.
    pub(crate) fn connect(task: Task) -> Result<Self> {
        let options = Arc::clone(&task.options);
        let discovery = Discovery::new(&options)?;
        let consumer = open(&task)?;
        let goes_on = || task.shared.goes_on();
        let id = wait_for_cluster(
            client_of(&consumer),
            &options.brokers,
            options.wait_for_broker,
            || serve(&consumer),
            goes_on,
        )?;
        let mut fetcher = Fetcher {
            discovery,
            queue: FetchQueue::new(Arc::clone(&consumer)),
            consumer,
            cluster: cluster_hash(&id),
            partitions: HashMap::new(),
            topics: HashMap::new(),
            given_up: false,
            next_discovery: Instant::now() + options.discover_every,
            next_look: Instant::now(),
            reported: HashMap::new(),
            task,
        };
        fetcher.find_all()?;
        Ok(fetcher)
    }

    pub(super) fn assign(&mut self, keys: &[Key]) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(keys.len());
        for key in keys {
            let watched = self.partitions.entry(key.clone()).or_default();
            if watched.assigned {
                continue;
            }
            let fetched = self.task.shared.queues().partitions.get(key).map_or(0, |queue| queue.fetched);
            let place = || format!("cannot read {} from offset {fetched}", partition_name(&key.0, key.1));
            self.queue.forward(&key.0, key.1).map_err(|error| failed(place(), error))?;
            list.add_partition_offset(&key.0, key.1, Offset::Offset(fetched))
                .map_err(|error| failed(place(), error))?;
            watched.assigned = true;
        }
        if list.count() == 0 {
            return Ok(());
        }
        self.consumer.incremental_assign(&list).map_err(|error| failed("cannot assign partitions", error))
    }

    /// Begins anew with another consumer, at what is to be fetched next: a partition that was given up cannot be taken again
    /// by the same one (see [`FetchQueue::forward`]).
    pub(super) fn reopen(&mut self) -> Result<()> {
        let mut keys: Vec<Key> =
            self.partitions.iter().filter(|(_, w)| w.assigned).map(|(key, _)| key.clone()).collect();
        keys.sort();
        self.consumer = open(&self.task)?;
        self.queue = FetchQueue::new(Arc::clone(&self.consumer));
        self.partitions.clear();
        self.given_up = false;
        self.assign(&keys)
    }

    pub(super) fn unassign(&mut self, key: &Key) -> Result<()> {
        let watched = self.partitions.entry(key.clone()).or_default();
        if !std::mem::take(&mut watched.assigned) {
            return Ok(());
        }
        *watched = Watched::default();
        self.given_up = true;
        let mut list = TopicPartitionList::new();
        list.add_partition(&key.0, key.1);
        self.consumer.incremental_unassign(&list).map_err(|error| failed("cannot give a partition up", error))
    }

    /// Fetches until it is told to stop, or fails.
    pub(crate) fn run(mut self) -> Result<()> {
        let budget = Arc::clone(self.task.blocks.budget());
        while self.task.shared.goes_on() {
            serve(&self.consumer);
            self.report_errors();
            self.look_after()?;
            if !budget.has_room() {
                std::thread::park_timeout(FULL_WAIT);
                continue;
            }
            let mut fetched = Vec::new();
            self.queue.fetch(FETCH, FETCH_WAIT, |part| fetched.push(part));
            self.hand_over(fetched, &budget)?;
        }
        Ok(())
    }

    fn hand_over(&mut self, fetched: Vec<Fetched>, budget: &Arc<Budget>) -> Result<()> {
        let mut runs = Vec::new();
        let mut events = Vec::new();
        for part in fetched {
            match part {
                Fetched::Messages { topic, partition, messages } => runs.push((topic, partition, messages)),
                Fetched::Event { topic, partition, code, offset, text } => {
                    events.push(((topic, partition), code, offset, text))
                }
            }
        }
        if self.task.options.log_content {
            for (topic, partition, messages) in runs {
                let Some(key) = self.key(&topic, partition) else { continue };
                let parts = self.log(&key, messages)?;
                let mut queues = self.task.shared.queues();
                for (block, messages) in parts {
                    push(&mut queues, &key, messages, Some(block), budget, &self.task.metrics);
                }
            }
        } else if !runs.is_empty() {
            let mut queues = self.task.shared.queues();
            for (topic, partition, messages) in runs {
                let Some(key) = self.key(&topic, partition) else { continue };
                push(&mut queues, &key, messages, None, budget, &self.task.metrics);
            }
        }
        for ((topic, partition), code, offset, text) in events {
            let Some(key) = self.key(&topic, partition) else { continue };
            self.event(&key, code, offset, &text)?;
        }
        self.pause_and_resume()
    }

    /// The key under which a partition is watched; `None` for one that was given up meanwhile.
    fn key(&self, topic: &str, partition: i32) -> Option<Key> {
        let key = (Arc::from(topic), partition);
        self.partitions.get(&key).is_some_and(|watched| watched.assigned).then_some(key)
    }

    /// Makes the records durable, in order, and gives them back with their blocks. A full disk is waited out.
    fn log(&mut self, key: &Key, messages: Messages) -> Result<Vec<(BlockId, Messages)>> {
        let stands = {
            let queues = self.task.shared.queues();
            let Some(queue) = queues.partitions.get(key) else { return Ok(Vec::new()) };
            Position { cluster: self.cluster, topic_id: queue.topic_id, next: queue.pushed, reached: true }
        };
        let (blocks, shared, events) = (&self.task.blocks, &self.task.shared, &self.task.events);
        log_run(
            blocks,
            key,
            stands,
            messages,
            || shared.goes_on(),
            |error| events.error(error),
            |block| {
                shared.queues().discarded.push(block);
            },
        )
    }

    fn event(&mut self, key: &Key, code: Code, offset: i64, text: &str) -> Result<()> {
        let name = partition_name(&key.0, key.1);
        match code {
            Code::PartitionEOF => {
                if let Some(watched) = self.partitions.get_mut(key) {
                    watched.at_end = Some(offset);
                }
                Ok(())
            }
            Code::AutoOffsetReset | Code::OffsetOutOfRange => {
                // The partition is not fetched any more: look why, then go on from where it should.
                let found = self.stable_ends(std::slice::from_ref(key))?[0];
                self.check_ends(key, found)?;
                self.reopen()
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId => {
                self.next_discovery = self.next_discovery.min(Instant::now() + Duration::from_millis(200));
                Ok(())
            }
            code if kind_of(Some(code)) == ErrorKind::Configuration => {
                Err(Error::new(ErrorKind::Configuration, format!("{name} cannot be read: {text}")))
            }
            _ => {
                self.report(text, Error::new(ErrorKind::Retry, format!("source `{}`, {name}: {text}", self.task.name)));
                Ok(())
            }
        }
    }

    /// With a limit of records a batch, a partition that is far behind must not take the room of the others.
    fn pause_and_resume(&mut self) -> Result<()> {
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        {
            let queues = self.task.shared.queues();
            let most = queues.asked_per_partition.or(self.task.options.max_records_per_partition);
            if most.is_none() && !self.partitions.values().any(|watched| watched.paused) {
                return Ok(());
            }
            for (key, watched) in &mut self.partitions {
                let Some(queue) = queues.partitions.get(key).filter(|_| watched.assigned) else { continue };
                let ahead = most.map_or(u64::MAX, |most| most.saturating_mul(8).max(PAUSE_FLOOR));
                if !watched.paused && queue.waiting_records() > ahead {
                    pause.add_partition(&key.0, key.1);
                    watched.paused = true;
                } else if watched.paused && queue.waiting_records() <= ahead / 2 {
                    resume.add_partition(&key.0, key.1);
                    watched.paused = false;
                }
            }
        }
        if pause.count() > 0 {
            self.consumer.pause(&pause).map_err(|error| failed("cannot pause partitions", error))?;
        }
        if resume.count() > 0 {
            self.consumer.resume(&resume).map_err(|error| failed("cannot resume partitions", error))?;
        }
        Ok(())
    }

    fn report_errors(&mut self) {
        for (code, text) in client_of(&self.consumer).context().take_errors() {
            let error = Error::new(kind_of(Some(code)), format!("source `{}`: {text}", self.task.name));
            self.report(&format!("{code:?}"), error);
        }
    }

    /// Reports an error that the source survives, the same one now and then only.
    pub(super) fn report(&mut self, same: &str, error: Error) {
        let now = Instant::now();
        if self.reported.get(same).is_some_and(|last| now - *last < REPORT_EVERY) {
            return;
        }
        self.reported.insert(same.to_owned(), now);
        tracing::warn!(source = self.task.name, "{error}");
        self.task.events.error(error);
    }
}

fn open(task: &Task) -> Result<Arc<Consumer>> {
    let reports = Reports::new(format!("source `{}`", task.name));
    Ok(Arc::new(create(&task.options.client(&task.group), reports)?))
}

/// Puts fetched records where plans take them from.
fn push(
    queues: &mut Queues,
    key: &Key,
    messages: Messages,
    block: Option<BlockId>,
    budget: &Arc<Budget>,
    metrics: &KafkaSourceMetrics,
) {
    let Some(queue) = queues.partitions.get_mut(key) else { return };
    let (Some(first), Some(last)) = (messages.first_offset(), messages.last_offset()) else { return };
    // Never: a partition is assigned at `fetched`, and librdkafka hands out nothing before. But twice is worse than a check.
    if first < queue.fetched {
        tracing::error!("{} gave offset {first} again", partition_name(&key.0, key.1));
        return;
    }
    let (records, bytes) = (messages.len() as u64, messages.bytes());
    add(&metrics.fetched_records, records);
    add(&metrics.fetched_bytes, bytes);
    queue.push(Run { records, end: last + 1, block, memory: Some((messages, Lease::new(budget, bytes))) });
}
